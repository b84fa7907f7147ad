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

#[cfg(test)]
mod tests {
    use super::super::{DeleteRange, LeaseOf, Put, Txn};
    use super::*;

    fn put(key: &'static str) -> KeyOp {
        KeyOp::Put(Put {
            key: Bytes::from_static(key.as_bytes()),
            value: None,
            lease: LeaseOf::Given(None),
            want_previous: false,
        })
    }

    fn delete(keys: KeyRange) -> KeyOp {
        KeyOp::Delete(DeleteRange {
            keys,
            want_previous: false,
        })
    }

    fn one(key: &'static str) -> KeyOp {
        delete(KeyRange::One(Bytes::from_static(key.as_bytes())))
    }

    /// Of `a` and `b`, and of nothing else that is put below.
    fn from_a_to_c() -> KeyOp {
        delete(KeyRange::Between("a".into(), "c".into()))
    }

    fn txn(success: Vec<KeyOp>, failure: Vec<KeyOp>) -> KeyOp {
        KeyOp::Txn(Txn {
            compare: Vec::new(),
            success,
            failure,
        })
    }

    /// Each line is what `checkIntervals` of etcd 3.5 says of it.
    #[test]
    fn a_key_is_written_once() {
        for (ops, twice) in [
            (vec![put("a"), put("b")], None),
            (vec![put("a"), put("b"), put("a")], Some("a")),
            (vec![put("b"), from_a_to_c()], Some("b")),
            (vec![from_a_to_c(), put("b")], Some("b")),
            (vec![from_a_to_c(), put("c")], None),
            (vec![one("a"), from_a_to_c(), one("a")], None),
            // The end of such a range is no key, before which nothing is.
            (vec![delete(KeyRange::From("a".into())), put("b")], None),
        ] {
            assert_eq!(found(&ops), twice, "{ops:?}");
        }
    }

    #[test]
    fn what_is_within_counts_but_for_the_branch_beside_it() {
        let a = || vec![put("a")];
        for (ops, twice) in [
            (vec![txn(a(), a())], None),
            (vec![txn(a(), vec![one("a")])], None),
            (vec![txn(vec![put("a"), put("a")], Vec::new())], Some("a")),
            (vec![txn(Vec::new(), vec![put("a"), put("a")])], Some("a")),
            (vec![txn(a(), Vec::new()), put("a")], Some("a")),
            (vec![txn(Vec::new(), a()), from_a_to_c()], Some("a")),
            (
                vec![txn(vec![from_a_to_c()], Vec::new()), put("b")],
                Some("b"),
            ),
            (vec![txn(a(), Vec::new()), txn(Vec::new(), a())], Some("a")),
            (
                vec![txn(vec![txn(a(), Vec::new())], Vec::new()), put("a")],
                Some("a"),
            ),
            // What a transaction deletes is looked at by those after it.
            (
                vec![txn(vec![one("a")], Vec::new()), txn(a(), Vec::new())],
                Some("a"),
            ),
            (
                vec![txn(a(), Vec::new()), txn(vec![one("a")], Vec::new())],
                None,
            ),
        ] {
            assert_eq!(found(&ops), twice, "{ops:?}");
        }
    }

    fn found(ops: &[KeyOp]) -> Option<&str> {
        let DuplicateKey(key) = check_distinct(ops).err()?;
        ["a", "b"].into_iter().find(|name| key == name.as_bytes())
    }
}
