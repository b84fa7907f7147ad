//! etcd in memory, as simply as it can be said: a whole map for every revision, and leases that count down.
//!
//! Its rules are those of etcd's documentation, and of Tally's about time for leases, written down once
//! more; it shares none with the code under test.

use std::collections::BTreeMap;

use bytes::Bytes;
use tally_model::keys::{DeleteRange, LeaseOf, Put, Txn};
use tally_model::lease::{GrantLease, Lease, PassLeaseTime};
use tally_model::{Command, Effect, KeyAnswer, KeyEvent, KeyOp, KeyValue, LeaseId, Revision};

use crate::reading::{holds, range, within};

/// The shortest and the longest time to live, seconds.
const TTL_S_MIN: u64 = 2;
const TTL_S_MAX: u64 = 9_000_000_000;

/// The most that passes at once, milliseconds, however long it was; and how much longer than its time a
/// lease lives, since a leader may be that late to say that time has passed.
const PASSED_MS_MAX: u64 = 1_000;

/// One revision.
#[derive(Clone, Default)]
pub(crate) struct Revised {
    pub(crate) map: BTreeMap<Bytes, KeyValue>,
    /// What was done to the revision before.
    pub(crate) events: Vec<KeyEvent>,
}

/// A lease that is held.
struct Held {
    ttl_s: u64,
    left_ms: u64,
}

pub(crate) struct Naive {
    /// Revision 1 is the first.
    revisions: Vec<Revised>,
    compacted: u64,
    leases: BTreeMap<LeaseId, Held>,
    /// What has passed in all, milliseconds.
    passed_ms: u64,
    /// The latest term in which a leader has counted it.
    term: u64,
}

impl Naive {
    pub(crate) fn new() -> Self {
        Self {
            revisions: vec![Revised::default()],
            compacted: 0,
            leases: BTreeMap::new(),
            passed_ms: 0,
            term: 0,
        }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revisions.len() as u64
    }

    /// The first revision that can be read, and from which one may watch.
    pub(crate) fn first(&self) -> u64 {
        self.compacted.max(1)
    }

    pub(crate) fn at(&self, revision: u64) -> &Revised {
        &self.revisions[usize::try_from(revision - 1).unwrap()]
    }

    pub(crate) fn now(&self) -> &Revised {
        self.at(self.revision())
    }

    /// What took effect, and the revision after it; or the code of the refusal, and nothing has changed.
    pub(crate) fn take(&mut self, command: &Command) -> Result<(u64, Effect), &'static str> {
        let effect = match command {
            Command::Keys(op) => self.run(op)?,
            Command::Compact(ask) => self.compact(ask.revision.0)?,
            Command::ReclaimVersions => Effect::VersionsReclaimed { all: true },
            Command::GrantLease(ask) => self.grant(ask)?,
            Command::RevokeLease(id) => self.revoke(*id)?,
            Command::RenewLease(id) => self.renew(*id)?,
            Command::PassLeaseTime(ask) => self.pass_time(ask)?,
            other => panic!("no request about keys or leases: {other:?}"),
        };
        Ok((self.revision(), effect))
    }
}

/// Keys.
impl Naive {
    fn run(&mut self, op: &KeyOp) -> Result<Effect, &'static str> {
        self.check(op)?;
        let mut next = self.next();
        let answer = self.perform(op, &mut next)?;
        self.keep(next);
        Ok(Effect::Keys(answer))
    }

    /// What the next revision begins with.
    fn next(&self) -> Revised {
        Revised {
            map: self.now().map.clone(),
            events: Vec::new(),
        }
    }

    /// It becomes a revision if anything was done.
    fn keep(&mut self, next: Revised) {
        if !next.events.is_empty() {
            self.revisions.push(next);
        }
    }

    /// What is to be done, by what there is before anything is done.
    fn branch<'t>(&self, txn: &'t Txn) -> (bool, &'t [KeyOp]) {
        let mut compares = txn.compare.iter();
        let succeeded = compares.all(|compare| holds(compare, &self.now().map));
        let ops = if succeeded {
            &txn.success
        } else {
            &txn.failure
        };
        (succeeded, ops)
    }

    /// By what there is before anything is done: the first that cannot be done tells why. Puts come first, and of a
    /// put whether there is the key; of one that is alone whether there is the lease.
    fn check(&self, op: &KeyOp) -> Result<(), &'static str> {
        let all = self.taken(op);
        let puts = all.iter().filter_map(|op| match op {
            KeyOp::Put(ask) => Some(ask),
            _ => None,
        });
        for ask in puts {
            let kept = ask.value.is_none() || ask.lease == LeaseOf::Kept;
            let key = (kept && !self.now().map.contains_key(&ask.key)).then_some("T-501");
            let lease = match ask.lease {
                LeaseOf::Given(Some(id)) if !self.leases.contains_key(&id) => Some("T-502"),
                _ => None,
            };
            let (first, second) = match op {
                KeyOp::Put(_) => (lease, key),
                _ => (key, lease),
            };
            first.or(second).map_or(Ok(()), Err)?;
        }
        let mut at = all.iter().filter_map(|op| match op {
            KeyOp::Range(ask) => ask.at,
            _ => None,
        });
        at.try_for_each(|Revision(at)| match at {
            at if at > self.revision() => Err("T-504"),
            at if at < self.compacted => Err("T-503"),
            _ => Ok(()),
        })
    }

    /// Every request that is done, and of a transaction those of the branch that is taken.
    fn taken<'t>(&self, op: &'t KeyOp) -> Vec<&'t KeyOp> {
        match op {
            KeyOp::Txn(txn) => {
                let ops = self.branch(txn).1.iter();
                ops.flat_map(|op| self.taken(op)).collect()
            }
            alone => vec![alone],
        }
    }

    fn perform(&self, op: &KeyOp, next: &mut Revised) -> Result<KeyAnswer, &'static str> {
        Ok(match op {
            KeyOp::Range(ask) => {
                let seen = match ask.at {
                    Some(Revision(at)) => &self.at(at).map,
                    None => &next.map,
                };
                KeyAnswer::Range(range(ask, seen, self.revision_of(next)))
            }
            KeyOp::Put(ask) => self.put(ask, next)?,
            KeyOp::Delete(ask) => self.delete(ask, next),
            KeyOp::Txn(txn) => {
                let (succeeded, ops) = self.branch(txn);
                let answers = ops.iter().map(|op| self.perform(op, next));
                KeyAnswer::Txn {
                    succeeded,
                    answers: answers.collect::<Result<_, _>>()?,
                }
            }
        })
    }

    fn revision_of(&self, next: &Revised) -> Revision {
        Revision(self.revision() + u64::from(!next.events.is_empty()))
    }

    /// What it keeps is what the key has by now. That is nothing where the same transaction has deleted
    /// it, at which etcd would stop altogether, and Tally refuses all of it.
    fn put(&self, ask: &Put, next: &mut Revised) -> Result<KeyAnswer, &'static str> {
        let revision = Revision(self.revision() + 1);
        let previous = next.map.get(&ask.key).cloned();
        let before = previous.as_ref();
        if before.is_none() && (ask.value.is_none() || ask.lease == LeaseOf::Kept) {
            return Err("T-501");
        }
        let made = KeyValue {
            key: ask.key.clone(),
            value: match &ask.value {
                Some(value) => value.clone(),
                None => before.map_or(Bytes::new(), |old| old.value.clone()),
            },
            created: before.map_or(revision, |old| old.created),
            modified: revision,
            version: before.map_or(1, |old| old.version + 1),
            lease: match ask.lease {
                LeaseOf::Given(lease) => lease,
                LeaseOf::Kept => before.and_then(|old| old.lease),
            },
        };
        next.events.push(KeyEvent::Put(made.clone()));
        next.map.insert(ask.key.clone(), made);
        Ok(KeyAnswer::Put {
            revision,
            previous: previous.filter(|_| ask.want_previous),
        })
    }

    fn delete(&self, ask: &DeleteRange, next: &mut Revised) -> KeyAnswer {
        let gone = next.delete_all(|found| within(&ask.keys, &found.key));
        KeyAnswer::Deleted {
            revision: self.revision_of(next),
            count: gone.len() as u64,
            previous: if ask.want_previous { gone } else { Vec::new() },
        }
    }

    fn compact(&mut self, revision: u64) -> Result<Effect, &'static str> {
        if revision > self.revision() {
            return Err("T-504");
        }
        if revision <= self.compacted {
            return Err("T-503");
        }
        self.compacted = revision;
        Ok(Effect::Compacted)
    }
}

impl Revised {
    /// Deletes keys, one after the other in their order.
    fn delete_all(&mut self, which: impl Fn(&KeyValue) -> bool) -> Vec<KeyValue> {
        let gone = self.map.values().filter(|found| which(found));
        let gone: Vec<KeyValue> = gone.cloned().collect();
        for KeyValue { key, .. } in &gone {
            self.map.remove(key);
            self.events.push(KeyEvent::Deleted { key: key.clone() });
        }
        gone
    }
}

/// Leases.
impl Naive {
    fn grant(&mut self, ask: &GrantLease) -> Result<Effect, &'static str> {
        let lease = ask.lease;
        if self.leases.contains_key(&lease) {
            return Err("T-506");
        }
        let ttl_s = ask.ttl_s.clamp(TTL_S_MIN, TTL_S_MAX);
        self.leases.insert(lease, Held::anew(ttl_s));
        Ok(Effect::LeaseGranted { lease, ttl_s })
    }

    fn renew(&mut self, lease: LeaseId) -> Result<Effect, &'static str> {
        let held = self.leases.get_mut(&lease).ok_or("T-502")?;
        *held = Held::anew(held.ttl_s);
        let ttl_s = held.ttl_s;
        Ok(Effect::LeaseRenewed { lease, ttl_s })
    }

    fn revoke(&mut self, id: LeaseId) -> Result<Effect, &'static str> {
        if !self.leases.contains_key(&id) {
            return Err("T-502");
        }
        self.end(&[id]);
        Ok(Effect::LeaseRevoked)
    }

    /// What an earlier leader counted, or one that began elsewhere, may have been counted by another one.
    fn pass_time(&mut self, ask: &PassLeaseTime) -> Result<Effect, &'static str> {
        if ask.term < self.term || ask.from_ms != self.passed_ms {
            return Err("T-507");
        }
        let passed_ms = ask.passed_ms.min(PASSED_MS_MAX);
        self.term = ask.term;
        self.passed_ms += passed_ms;
        // Whichever had less left has ended before.
        let mut over = Vec::new();
        for (id, held) in &mut self.leases {
            if held.left_ms <= passed_ms {
                over.push((held.left_ms, *id));
            }
            held.left_ms = held.left_ms.saturating_sub(passed_ms);
        }
        over.sort();
        let over: Vec<LeaseId> = over.into_iter().map(|(_, id)| id).collect();
        self.end(&over);
        Ok(Effect::LeaseTimePassed { all: true })
    }

    /// Ends leases one after the other, each with its keys, all in one revision.
    fn end(&mut self, ids: &[LeaseId]) {
        let mut next = self.next();
        for id in ids {
            self.leases.remove(id);
            next.delete_all(|found| found.lease == Some(*id));
        }
        self.keep(next);
    }

    /// Leases that are held, by id.
    pub(crate) fn leases(&self) -> Vec<Lease> {
        let leases = self.leases.iter().map(|(id, held)| Lease {
            id: *id,
            ttl_s: held.ttl_s,
            ends_ms: self.passed_ms + held.left_ms,
        });
        leases.collect()
    }

    /// The keys that end with a lease.
    pub(crate) fn lease_keys(&self, id: LeaseId) -> Vec<Bytes> {
        let keys = self.now().map.values();
        let keys = keys.filter(|found| found.lease == Some(id));
        keys.map(|found| found.key.clone()).collect()
    }

    /// What a leader counts on that has just learnt everything.
    pub(crate) fn evidence(&self) -> PassLeaseTime {
        PassLeaseTime {
            term: self.term,
            from_ms: self.passed_ms,
            passed_ms: 0,
        }
    }
}

impl Held {
    /// A lease that shows a sign of life now.
    fn anew(ttl_s: u64) -> Self {
        Self {
            ttl_s,
            left_ms: ttl_s * 1_000 + PASSED_MS_MAX,
        }
    }
}
