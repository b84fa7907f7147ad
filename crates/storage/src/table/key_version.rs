//! `key_version/<key>/<revision>/<number>`: by which events a key changed. Written and removed with the event.
//!
//! layout: [TAG][key, each zero byte followed by 255][0][0][revision, u64 big-endian]
//! [number, u32 big-endian] -> [1 if it is a deletion, else 0]
//!
//! So written, rows sort by key and then by event, whatever bytes the keys have.

use tally_model::{EventId, Revision};

pub(crate) const TAG: u8 = 14;

const ZERO_IN_KEY: [u8; 2] = [0, 255];
const END_OF_KEY: [u8; 2] = [0, 0];

/// Where the rows of this key, and of every one after it, begin.
pub(crate) fn from(key: &[u8]) -> Vec<u8> {
    let mut row = vec![TAG];
    for &byte in key {
        match byte {
            0 => row.extend(ZERO_IN_KEY),
            byte => row.push(byte),
        }
    }
    row
}

/// Begins every row of this key, and of no other one.
pub(crate) fn prefix(key: &[u8]) -> Vec<u8> {
    let mut row = from(key);
    row.extend(END_OF_KEY);
    row
}

pub(crate) fn key(key: &[u8], id: EventId) -> Vec<u8> {
    row(&prefix(key), id)
}

/// A row by what [`key_part`] gives.
pub(crate) fn row(prefix: &[u8], id: EventId) -> Vec<u8> {
    let (revision, number) = (id.revision.0.to_be_bytes(), id.number.to_be_bytes());
    [prefix, &revision, &number].concat()
}

pub(crate) fn encode(deleted: bool) -> [u8; 1] {
    [u8::from(deleted)]
}

/// What a row says of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) id: EventId,
    pub(crate) deleted: bool,
}

pub(crate) fn decode(row: &[u8], value: &[u8]) -> Result<Version, String> {
    let (_, id) = parts(row)?;
    let [deleted] = value else {
        return Err(format!("found the bytes {value:02x?}, expected one"));
    };
    Ok(Version {
        id,
        deleted: *deleted != 0,
    })
}

/// The part of a row that stands for its key: equal for two rows of the same one.
pub(crate) fn key_part(row: &[u8]) -> Result<&[u8], String> {
    parts(row).map(|(key, _)| key)
}

fn parts(row: &[u8]) -> Result<(&[u8], EventId), String> {
    let parts = row.split_last_chunk::<4>().and_then(|(rest, number)| {
        let (key, revision) = rest.split_last_chunk::<8>()?;
        Some((key, *revision, *number))
    });
    let (key, revision, number) =
        parts.ok_or_else(|| format!("the key {row:02x?} is no version's"))?;
    let id = EventId {
        revision: Revision(u64::from_be_bytes(revision)),
        number: u32::from_be_bytes(number),
    };
    Ok((key, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_sort_by_key_and_then_by_revision() {
        let keys: [&[u8]; 7] = [b"\0", b"\0\0", b"\0\x01", b"a", b"a\0", b"a\0b", b"a\x01"];
        let mut rows = Vec::new();
        for name in keys {
            for (revision, number) in [(2, 0), (2, 1), (300, 0)] {
                let revision = Revision(revision);
                rows.push(key(name, EventId { revision, number }));
            }
        }
        assert!(rows.is_sorted());
        for pair in keys.windows(2) {
            assert!(from(pair[0]) < prefix(pair[0]), "{pair:?}");
            assert!(
                key(pair[0], EventId::last_of(Revision(u64::MAX))) < from(pair[1]),
                "{pair:?}"
            );
        }
    }
}
