//! Writing keys.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{KeyAnswer, KeyEvent, KeyRange, KeyValue, is_reserved};
use crate::draft::Draft;
use crate::identifier::{LeaseId, Revision};
use crate::refusal::Refusal;
use crate::view::View;

/// Makes a new version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    pub key: Bytes,
    /// `None` keeps the value that the key has; then there must be the key.
    pub value: Option<Bytes>,
    pub lease: LeaseOf,
    /// Asks for the version before.
    pub want_previous: bool,
}

/// The lease that a version belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseOf {
    /// This one, or none.
    Given(Option<LeaseId>),
    /// That of the version before; there must be one.
    Kept,
}

impl Put {
    /// True when something of the version before stays.
    fn keeps(&self) -> bool {
        self.value.is_none() || self.lease == LeaseOf::Kept
    }
}

/// Deletes keys. Reserved ones among them stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteRange {
    pub keys: KeyRange,
    /// Asks for what was deleted.
    pub want_previous: bool,
}

/// Everything that could refuse a put. Looks at what stands before the entry, as etcd does, and in its order:
/// whether there is the lease before whether there is the key, and the other way round in a transaction.
pub(super) fn check_put(
    draft: &Draft<'_, impl View>,
    ask: &Put,
    in_txn: bool,
) -> Result<(), Refusal> {
    if is_reserved(&ask.key) {
        return Err(Refusal::KeyReserved);
    }
    let key = || match ask.keeps() && draft.view.key(&ask.key).is_none() {
        true => Err(Refusal::KeyNotFound),
        false => Ok(()),
    };
    let lease = || match ask.lease {
        LeaseOf::Given(Some(lease)) if draft.view.lease(lease).is_none() => {
            Err(Refusal::LeaseNotFound { lease })
        }
        LeaseOf::Given(_) | LeaseOf::Kept => Ok(()),
    };
    match in_txn {
        true => key().and_then(|()| lease()),
        false => lease().and_then(|()| key()),
    }
}

/// Everything that could refuse a deletion.
pub(super) fn check_delete(ask: &DeleteRange) -> Result<(), Refusal> {
    match ask.keys.is_reserved() {
        true => Err(Refusal::KeyReserved),
        false => Ok(()),
    }
}

/// The version of a key that a put makes of the one before, without a lease.
pub(crate) fn next_version(
    previous: Option<&KeyValue>,
    key: Bytes,
    value: Bytes,
    revision: Revision,
) -> KeyValue {
    KeyValue {
        key,
        value,
        created: previous.map_or(revision, |previous| previous.created),
        modified: revision,
        version: previous.map_or(0, |previous| previous.version) + 1,
        lease: None,
    }
}

/// Puts what was checked.
pub(super) fn put(draft: &mut Draft<'_, impl View>, ask: &Put) -> KeyAnswer {
    let previous = draft.keys.get(&ask.key);
    if ask.keeps() && previous.is_none() {
        draft.keys.keeps_nothing();
    }
    // What is answered, and what is written although the request does not have it.
    if let Some(previous) = &previous
        && (ask.want_previous || ask.value.is_none())
    {
        draft.keys.holds(previous);
    }
    let revision = draft.revise();
    let value = match (&ask.value, &previous) {
        (Some(value), _) => value.clone(),
        (None, Some(previous)) => previous.value.clone(),
        (None, None) => Bytes::new(),
    };
    let lease = match ask.lease {
        LeaseOf::Given(lease) => lease,
        LeaseOf::Kept => previous.as_ref().and_then(|previous| previous.lease),
    };
    let made = KeyValue {
        lease,
        ..next_version(previous.as_ref(), ask.key.clone(), value, revision)
    };
    let lease_before = previous.as_ref().and_then(|previous| previous.lease);
    draft.change_key(KeyEvent::Put(made), lease_before);
    KeyAnswer::Put {
        revision,
        previous: previous.filter(|_| ask.want_previous),
    }
}

/// Deletes what was checked.
pub(super) fn delete(draft: &mut Draft<'_, impl View>, ask: &DeleteRange) -> KeyAnswer {
    let mut previous = Vec::new();
    draft.keys.scan(&ask.keys, None, &mut |found| {
        if !is_reserved(&found.key) {
            draft.keys.writes_name(&found.key);
            if ask.want_previous {
                draft.keys.holds(&found);
            }
            let value = match ask.want_previous {
                true => found.value,
                false => Bytes::new(),
            };
            previous.push(KeyValue { value, ..found });
        }
        ControlFlow::Continue(())
    });
    for found in &previous {
        let key = found.key.clone();
        draft.change_key(KeyEvent::Deleted { key }, found.lease);
    }
    let count = previous.len() as u64;
    if !ask.want_previous {
        previous.clear();
    }
    KeyAnswer::Deleted {
        revision: draft.keys.revision(),
        count,
        previous,
    }
}
