//! Reading keys.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::draft::KeysDraft;
use super::{KeyRange, KeyValue};
use crate::identifier::Revision;
use crate::view::View;

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
        self.order.sorts()
            || self.modified != Bounds::default()
            || self.created != Bounds::default()
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
    /// `None` sorts ascending, and leaves keys sorted by key as they are.
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

/// Reads keys. The revision that is asked for was checked.
pub(super) fn range(keys: &KeysDraft<'_, impl View>, ask: &Range) -> RangeAnswer {
    let mut answer = RangeAnswer {
        revision: keys.revision(),
        found: Vec::new(),
        more: false,
        count: 0,
    };
    if ask.count_only {
        answer.count = keys.count(&ask.keys, ask.at);
        return answer;
    }
    let limit = ask.limit.unwrap_or(u64::MAX);
    let all = ask.looks_at_all();
    keys.scan(&ask.keys, ask.at, &mut |found| {
        if !ask.admits(&found) {
            return ControlFlow::Continue(());
        }
        if !all && answer.found.len() as u64 == limit {
            answer.more = true;
            return ControlFlow::Break(());
        }
        keys.answers_with(&found);
        answer.found.push(found);
        ControlFlow::Continue(())
    });
    answer.count = match all || answer.more {
        true => keys.count(&ask.keys, ask.at),
        false => answer.found.len() as u64,
    };
    if ask.order.sorts() {
        answer
            .found
            .sort_by(|one, other| ask.order.compare(one, other));
    }
    if answer.found.len() as u64 > limit {
        answer.more = true;
        answer
            .found
            .truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    }
    if ask.keys_only {
        for found in &mut answer.found {
            found.value = Bytes::new();
        }
    }
    answer
}
