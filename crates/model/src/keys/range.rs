//! Reading keys.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::draft::KeysDraft;
use super::{KeyRange, KeyValue};
use crate::identifier::Revision;
use crate::refusal::Refusal;
use crate::view::View;

/// Keys are sorted, and those past the limit let go, when there are twice as many and these, or when so many bytes of
/// them came since the last time.
const SORTED_AT_ONCE: usize = 1_000;
const SORTED_BYTES: usize = 8 << 20;

/// Reads keys, in their order unless another one is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub keys: KeyRange,
    /// Keys in the answer at most; `None` for all.
    pub limit: Option<u64>,
    /// As of which revision; `None` for the latest.
    pub at: Option<Revision>,
    pub order: Order,
    /// Leaves the values out.
    pub keys_only: bool,
    /// Leaves the keys out; only their number is told.
    pub count_only: bool,
    /// Of the revision that made a version.
    pub modified: Bounds,
    /// Of the revision that made a key.
    pub created: Bounds,
}

impl Range {
    /// Everything about these keys as they are now.
    pub fn of(keys: KeyRange) -> Self {
        Self {
            keys,
            limit: None,
            at: None,
            order: Order::default(),
            keys_only: false,
            count_only: false,
            modified: Bounds::default(),
            created: Bounds::default(),
        }
    }

    /// True when which keys are left out, or come first, is known only when all have been seen.
    fn looks_at_all(&self) -> bool {
        self.order.descending.is_some()
            || self.modified != Bounds::default()
            || self.created != Bounds::default()
    }

    /// True when the answer has keys in their order, so that none of them must wait for the others.
    pub fn comes_in_order(&self) -> bool {
        !self.order.sorts()
    }

    fn admits(&self, found: &KeyValue) -> bool {
        self.modified.contain(found.modified) && self.created.contain(found.created)
    }
}

/// Bounds that a revision must lie in, both included; `None` for no bound. Any number that a client
/// may send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    pub min: Option<i64>,
    pub max: Option<i64>,
}

impl Bounds {
    fn contain(&self, revision: Revision) -> bool {
        let revision = revision.signed();
        self.min.is_none_or(|min| min <= revision) && self.max.is_none_or(|max| revision <= max)
    }
}

/// In which order keys are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    pub by: SortBy,
    /// `None` sorts ascending what the limit leaves, and leaves keys sorted by key as they are.
    pub descending: Option<bool>,
}

impl Order {
    /// True unless keys come in this order by themselves.
    fn sorts(&self) -> bool {
        self.by != SortBy::Key || self.descending == Some(true)
    }

    fn compare(&self, one: &KeyValue, other: &KeyValue) -> Ordering {
        let ascending = match self.by {
            SortBy::Key => one.key.cmp(&other.key),
            SortBy::Version => one.version.cmp(&other.version),
            SortBy::Created => one.created.cmp(&other.created),
            SortBy::Modified => one.modified.cmp(&other.modified),
            SortBy::Value => one.value.cmp(&other.value),
        };
        match self.descending {
            Some(true) => ascending.reverse(),
            Some(false) | None => ascending,
        }
    }
}

/// What keys are sorted by; those that are equal in it stay in the order of their keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortBy {
    #[default]
    Key,
    Version,
    Created,
    Modified,
    Value,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeAnswer {
    /// The store's revision when it was read.
    pub revision: Revision,
    pub found: Vec<KeyValue>,
    /// True when the limit left some out.
    pub more: bool,
    /// Keys in the range, whatever was left out.
    pub count: u64,
}

/// What a range comes to, beside the keys themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeEnd {
    /// As in [`RangeAnswer`].
    pub revision: Revision,
    pub more: bool,
    pub count: u64,
}

/// Shows the keys that a range answers with, one after the other; nothing is held. For a range that
/// [comes in order](Range::comes_in_order). `None` when `visit` told it to stop, or `goes_on`, which is asked
/// before each key that is looked at.
///
/// # Errors
/// When its revision is not there yet, or not any more.
pub fn walk(
    view: &impl View,
    ask: &Range,
    goes_on: &dyn Fn() -> bool,
    visit: &mut dyn FnMut(KeyValue) -> ControlFlow<()>,
) -> Result<Option<RangeEnd>, Refusal> {
    let keys = KeysDraft::new(view, &view.globals());
    keys.check_revision(ask.at)?;
    Ok(in_order(&keys, ask, goes_on, visit))
}

/// Reads keys. The revision that is asked for was checked.
pub(super) fn range(keys: &KeysDraft<'_, impl View>, ask: &Range) -> RangeAnswer {
    let mut found = Vec::new();
    let end = if ask.comes_in_order() || ask.count_only {
        in_order(keys, ask, &|| true, &mut |one| {
            keys.holds(&one);
            found.push(one);
            ControlFlow::Continue(())
        })
    } else {
        Some(sorted(keys, ask, &mut found))
    };
    let revision = keys.revision();
    let (more, count) = end.map_or((false, 0), |end| (end.more, end.count));
    RangeAnswer {
        revision,
        found,
        more,
        count,
    }
}

fn in_order(
    keys: &KeysDraft<'_, impl View>,
    ask: &Range,
    goes_on: &dyn Fn() -> bool,
    visit: &mut dyn FnMut(KeyValue) -> ControlFlow<()>,
) -> Option<RangeEnd> {
    let (mut left, mut more) = (ask.limit.unwrap_or(u64::MAX), false);
    let (mut seen, mut stopped) = (0, false);
    // Who asks how many there are has no use for the keys.
    if !ask.count_only {
        keys.scan(&ask.keys, ask.at, &mut |mut found| {
            seen += 1;
            stopped = !goes_on();
            if stopped {
                return ControlFlow::Break(());
            }
            if !ask.admits(&found) {
                return ControlFlow::Continue(());
            }
            more = left == 0;
            if more {
                return ControlFlow::Break(());
            }
            left -= 1;
            if ask.keys_only {
                found.value = Bytes::new();
            }
            let next = visit(found);
            stopped = next.is_break();
            next
        });
    }
    if stopped {
        return None;
    }
    Some(RangeEnd {
        revision: keys.revision(),
        more,
        count: match ask.count_only || more {
            true => keys.count(&ask.keys, ask.at),
            false => seen,
        },
    })
}

/// Sorts before it limits. Values are not held meanwhile, unless they are what is sorted by, and no more keys
/// than the limit makes necessary.
fn sorted(keys: &KeysDraft<'_, impl View>, ask: &Range, found: &mut Vec<KeyValue>) -> RangeEnd {
    let limit = ask.limit.unwrap_or(u64::MAX);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let holds_values = ask.order.by == SortBy::Value;
    let mut more = false;
    let sort = |found: &mut Vec<KeyValue>| {
        found.sort_by(|one, other| ask.order.compare(one, other));
        while found.len() > limit {
            keys.lets_go(found.pop());
        }
    };
    let (mut seen, mut all, mut unsorted) = (0, true, 0);
    keys.scan(&ask.keys, ask.at, &mut |mut one| {
        // As etcd does it: without an order it limits first, to one more, and sorts what that leaves.
        all = ask.looks_at_all() || seen <= limit;
        if !all {
            return ControlFlow::Break(());
        }
        seen += 1;
        if !ask.admits(&one) {
            return ControlFlow::Continue(());
        }
        if !holds_values {
            one.value = Bytes::new();
        }
        unsorted += keys.holds(&one);
        found.push(one);
        if found.len() > limit {
            more = true;
            if found.len() / 2 > limit + SORTED_AT_ONCE || unsorted > SORTED_BYTES {
                sort(found);
                unsorted = 0;
            }
        }
        ControlFlow::Continue(())
    });
    sort(found);
    for one in found.iter_mut() {
        if ask.keys_only {
            one.value = Bytes::new();
        } else if !holds_values && !keys.is_too_much() {
            let name = KeyRange::One(one.key.clone());
            keys.scan(&name, ask.at, &mut |whole| {
                one.value = whole.value;
                keys.holds_value(&one.value);
                ControlFlow::Break(())
            });
        }
    }
    RangeEnd {
        revision: keys.revision(),
        more,
        count: match all {
            true => seen as u64,
            false => keys.count(&ask.keys, ask.at),
        },
    }
}
