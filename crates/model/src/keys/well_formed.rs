//! What a transaction must not do, whatever it finds: write one key twice.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{KeyOp, KeyRange};

/// Two requests of one transaction would write the same key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key {0:?} is written twice")]
pub struct DuplicateKey(pub Bytes);

/// Keys that requests put, and ranges that they delete.
#[derive(Default)]
struct Written {
    puts: BTreeSet<Bytes>,
    deletes: Vec<KeyRange>,
}

impl Written {
    /// A deletion of all keys from one on counts for none: etcd takes its end, a zero byte, for a key here, before
    /// which nothing is. So a transaction may delete everything and then put something.
    fn deletes(&self, key: &[u8]) -> bool {
        let mut ranges = self.deletes.iter();
        ranges.any(|range| !matches!(range, KeyRange::From(_)) && range.contains(key))
    }
}

/// Checks requests that run together, those of nested transactions included. Deletions may overlap;
/// so may the two branches of one nested transaction, of which only one is taken.
///
/// The order of the checks is etcd's (`checkIntervals`), which forgives a put after a nested
/// deletion of a sibling transaction only where etcd does.
///
/// # Errors
/// The first key found that is put twice, or put and deleted.
pub fn check_distinct(ops: &[KeyOp]) -> Result<(), DuplicateKey> {
    collect(ops).map(drop)
}

fn collect(ops: &[KeyOp]) -> Result<Written, DuplicateKey> {
    let mut all = Written::default();
    for op in ops {
        if let KeyOp::Delete(delete) = op {
            all.deletes.push(delete.keys.clone());
        }
    }
    for op in ops {
        let KeyOp::Txn(txn) = op else { continue };
        let (success, failure) = (collect(&txn.success)?, collect(&txn.failure)?);
        let before = std::mem::take(&mut all.puts);
        for key in success.puts.union(&failure.puts) {
            if before.contains(key) || all.deletes(key) {
                return Err(DuplicateKey(key.clone()));
            }
        }
        all.puts = before;
        all.puts.extend(success.puts);
        all.puts.extend(failure.puts);
        all.deletes.extend(success.deletes);
        all.deletes.extend(failure.deletes);
    }
    for op in ops {
        let KeyOp::Put(put) = op else { continue };
        if all.deletes(&put.key) || !all.puts.insert(put.key.clone()) {
            return Err(DuplicateKey(put.key.clone()));
        }
    }
    Ok(all)
}
