//! Transactions: compare, then do one thing or another, all in one revision.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::draft::KeysDraft;
use super::range::{Range, range};
use super::write::{DeleteRange, Put, check_delete, check_put, delete, put};
use super::{KeyAnswer, KeyOp, KeyRange, KeyValue};
use crate::draft::Draft;
use crate::identifier::{LeaseId, Stamp};
use crate::outcome::{Effect, Outcome};
use crate::refusal::Refusal;
use crate::view::View;

/// Does what is in `success` if every comparison holds, and what is in `failure` otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Txn {
    pub compare: Vec<Compare>,
    pub success: Vec<KeyOp>,
    pub failure: Vec<KeyOp>,
}

impl Txn {
    /// True when neither branch can change anything.
    pub fn is_read_only(&self) -> bool {
        let mut both = self.success.iter().chain(&self.failure);
        both.all(KeyOp::is_read_only)
    }
}

/// What must be true of every one of these keys. One key that is not there counts as one without
/// versions; its value compares as false with anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    pub keys: KeyRange,
    pub comparison: Comparison,
    pub expected: Expected,
}

/// How what is found must compare with what is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Greater,
    Less,
}

/// What is compared, and with what. Numbers are as in etcd's messages: 0 where there is no key or no
/// lease, and any other that a client may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    Version(i64),
    Created(i64),
    Modified(i64),
    Value(Bytes),
    Lease(i64),
}

impl Compare {
    fn holds(&self, keys: &KeysDraft<'_, impl View>) -> bool {
        let (mut any, mut all) = (false, true);
        keys.scan(&self.keys, None, &mut |found| {
            any = true;
            all = self.accepts(self.order(&found));
            match all {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
        match (any, &self.expected) {
            (true, _) => all,
            (false, Expected::Value(_)) => false,
            (false, expected) => self.accepts(0.cmp(&number(expected))),
        }
    }

    fn order(&self, found: &KeyValue) -> Ordering {
        let version = i64::try_from(found.version).unwrap_or(i64::MAX);
        match &self.expected {
            Expected::Version(expected) => version.cmp(expected),
            Expected::Created(revision) => found.created.signed().cmp(revision),
            Expected::Modified(revision) => found.modified.signed().cmp(revision),
            Expected::Value(value) => found.value.cmp(value),
            Expected::Lease(lease) => found.lease.map_or(0, |LeaseId(id)| id).cmp(lease),
        }
    }

    fn accepts(&self, order: Ordering) -> bool {
        match self.comparison {
            Comparison::Equal => order.is_eq(),
            Comparison::NotEqual => order.is_ne(),
            Comparison::Greater => order.is_gt(),
            Comparison::Less => order.is_lt(),
        }
    }
}

fn number(expected: &Expected) -> i64 {
    match expected {
        Expected::Version(number)
        | Expected::Created(number)
        | Expected::Modified(number)
        | Expected::Lease(number) => *number,
        Expected::Value(_) => 0,
    }
}

/// A request with the branch of each transaction that is taken.
enum Chosen<'t> {
    Range(&'t Range),
    Put(&'t Put),
    Delete(&'t DeleteRange),
    Branch {
        succeeded: bool,
        ops: Vec<Chosen<'t>>,
    },
}

/// Chooses branches by what stands before the first request runs, those of nested transactions too.
fn choose<'t>(keys: &KeysDraft<'_, impl View>, op: &'t KeyOp) -> Chosen<'t> {
    let txn = match op {
        KeyOp::Range(ask) => return Chosen::Range(ask),
        KeyOp::Put(ask) => return Chosen::Put(ask),
        KeyOp::Delete(ask) => return Chosen::Delete(ask),
        KeyOp::Txn(txn) => txn,
    };
    let succeeded = txn
        .compare
        .iter()
        .all(|compare| !keys.is_too_much() && compare.holds(keys));
    let ops = match succeeded {
        true => &txn.success,
        false => &txn.failure,
    };
    Chosen::Branch {
        succeeded,
        ops: ops.iter().map(|op| choose(keys, op)).collect(),
    }
}

/// Runs a request about keys: everything is checked first, then everything is done.
pub(crate) fn run(draft: &mut Draft<'_, impl View>, op: &KeyOp) -> Outcome {
    draft.keys.set_bounds(!op.is_read_only());
    let begun = draft.changes();
    let chosen = choose(&draft.keys, op);
    // What was looked at too little would choose a branch.
    if draft.keys.is_too_much() {
        return Outcome::Refused(Refusal::TooMuchAtOnce);
    }
    if let Err(refusal) = check(draft, &chosen) {
        return Outcome::Refused(refusal);
    }
    let answer = perform(draft, &chosen);
    if draft.keys.is_too_much() {
        draft.undo_keys(begun);
        return Outcome::Refused(Refusal::TooMuchAtOnce);
    }
    // It was there when it was looked for. etcd does not survive such a request.
    if draft.keys.has_kept_nothing() {
        draft.undo_keys(begun);
        return Outcome::Refused(Refusal::KeyNotFound);
    }
    Outcome::Applied {
        revision: draft.globals.revision,
        effect: Effect::Keys(answer),
    }
}

/// Runs a request that changes nothing on a state that stands still. Of any other one it tells what
/// would become of it.
pub fn read(view: &impl View, op: &KeyOp) -> Outcome {
    let nothing = Stamp {
        index: 0,
        unix_ms: 0,
    };
    run(&mut Draft::new(view, nothing), op)
}

/// Of a transaction etcd looks at every put, nested ones too, before it looks at anything else.
fn check(draft: &Draft<'_, impl View>, chosen: &Chosen<'_>) -> Result<(), Refusal> {
    match chosen {
        Chosen::Put(ask) => check_put(draft, ask, false),
        Chosen::Range(_) | Chosen::Delete(_) => check_others(draft, chosen),
        Chosen::Branch { .. } => {
            check_puts(draft, chosen)?;
            check_others(draft, chosen)
        }
    }
}

fn check_puts(draft: &Draft<'_, impl View>, chosen: &Chosen<'_>) -> Result<(), Refusal> {
    match chosen {
        Chosen::Put(ask) => check_put(draft, ask, true),
        Chosen::Range(_) | Chosen::Delete(_) => Ok(()),
        Chosen::Branch { ops, .. } => ops.iter().try_for_each(|op| check_puts(draft, op)),
    }
}

fn check_others(draft: &Draft<'_, impl View>, chosen: &Chosen<'_>) -> Result<(), Refusal> {
    match chosen {
        Chosen::Range(ask) => draft.keys.check_revision(ask.at),
        Chosen::Put(_) => Ok(()),
        Chosen::Delete(ask) => check_delete(ask),
        Chosen::Branch { ops, .. } => ops.iter().try_for_each(|op| check_others(draft, op)),
    }
}

fn perform(draft: &mut Draft<'_, impl View>, chosen: &Chosen<'_>) -> KeyAnswer {
    match chosen {
        Chosen::Range(ask) => KeyAnswer::Range(range(&draft.keys, ask)),
        Chosen::Put(ask) => put(draft, ask),
        Chosen::Delete(ask) => delete(draft, ask),
        Chosen::Branch { succeeded, ops } => {
            let mut answers = Vec::new();
            for op in ops {
                // The rest would be in vain.
                if draft.keys.is_too_much() {
                    break;
                }
                answers.push(perform(draft, op));
            }
            KeyAnswer::Txn {
                succeeded: *succeeded,
                answers,
            }
        }
    }
}
