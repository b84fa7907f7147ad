//! This crate's decoders on arbitrary bytes, for the fuzz targets in `tests/fuzz` and, with real
//! encodings that were cut and flipped, for every test run. Each function panics when a decoder does,
//! and when what was read does not read the same once it is written again.

use std::fmt::{Debug, Display};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tally_model::{
    Binding, Claim, Effect, Event, EventId, Globals, HistoryEntry, Incarnation, KeyEvent, KeyValue,
    Lease, LeaseId, Location, Marker, Node, NodeId, NodeName, Outcome, Refusal, Revision, Session,
    SessionId, SetBy, Settings, StorageState, StoredOutcome, Tag,
};
use tally_proto::peer::snapshot_frame::Kind;
use tally_proto::peer::{SnapshotChunk, SnapshotEnd, SnapshotFrame, SnapshotHeader};
use tally_proto::storage::{
    Blank, CurrentGeneration, Identity, LogEntry, LogId, Proposal, Request, SnapshotFile,
    SnapshotMeta, StoredSnapshot, Vote, log_entry::Payload,
};

use crate::log::fuzzing as log;
use crate::snapshot::Shelf;
use crate::snapshot::fuzzing::digest_of;
use crate::{record_file, table, torn};

/// A file that holds one message, a slot of `FLOOR`, a row of the log, or the end of a log of RocksDB; the first byte says which, and
/// whether the bytes come with a checksum or get the right one here, which no chance would find.
pub fn disk(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else {
        return;
    };
    match which % 11 {
        0 => record::<Identity>(bytes, *b"TALLYID1"),
        1 => record::<CurrentGeneration>(bytes, *b"TALLYGEN"),
        2 => record::<StoredSnapshot>(bytes, *b"TALLYSNP"),
        3 => log::floor_slot(bytes),
        4 => log::row(bytes),
        5 => record::<Identity>(&checked(bytes, *b"TALLYID1"), *b"TALLYID1"),
        6 => record::<CurrentGeneration>(&checked(bytes, *b"TALLYGEN"), *b"TALLYGEN"),
        7 => record::<StoredSnapshot>(&checked(bytes, *b"TALLYSNP"), *b"TALLYSNP"),
        8 => log::checked_floor_slot(bytes),
        10 => torn::behind_sound_records(bytes),
        _ => log::checked_row(bytes),
    }
}

/// A record file with these bytes as its message, whatever they are.
fn checked(message: &[u8], magic: [u8; 8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let checksum = crc32c::crc32c(message);
    let (length, checksum) = (length.to_be_bytes(), checksum.to_be_bytes());
    [&magic[..], &length, &checksum, message].concat()
}

fn record<M: Message + Default + PartialEq + Debug>(bytes: &[u8], magic: [u8; 8]) {
    let Ok(message) = record_file::decode::<M>(bytes, magic) else {
        return;
    };
    let Ok(written) = record_file::encode(&message, magic) else {
        panic!("what was read is too long to be written: {message:?}");
    };
    let again = record_file::decode::<M>(&written, magic);
    assert_eq!(again.ok(), Some(message));
}

/// Real encodings for [`disk`].
pub fn disk_seeds() -> Vec<Vec<u8>> {
    let vote = Vote {
        term: 3,
        candidate: 7,
        committed: true,
    };
    let id = LogId {
        term: 3,
        leader: 0,
        index: 41,
    };
    let record = |which: u8, bytes: std::io::Result<Vec<u8>>| {
        bytes.map(|bytes| [&[which], bytes.as_slice()].concat())
    };
    let identity = Identity {
        format: 3,
        member: 7,
        name: "n1".to_owned(),
        formation: vec![1; 32],
        cluster_id: vec![0xc1; 16],
    };
    let snapshot = StoredSnapshot {
        meta: Some(meta()),
        digest: vec![5; 32],
    };
    let entries = [
        Payload::Blank(Blank {}),
        Payload::Proposal(Proposal {
            unix_ms: 1_700_000_000_000,
            request: Request::default().encode_to_vec().into(),
        }),
    ];
    let entries = entries.map(|payload| LogEntry {
        id: Some(id),
        payload: Some(payload),
    });
    let records = [
        record(0, record_file::encode(&identity, *b"TALLYID1")),
        record(
            1,
            record_file::encode(&CurrentGeneration { number: 2 }, *b"TALLYGEN"),
        ),
        record(2, record_file::encode(&snapshot, *b"TALLYSNP")),
    ];
    let mut seeds: Vec<Vec<u8>> = records.into_iter().flatten().collect();
    let slot = log::floor_seed(id, vote.term);
    seeds.push([&[3], slot.as_slice()].concat());
    seeds.push([&[8], &slot[4..]].concat());
    for entry in &entries {
        seeds.extend(log::row_seed(entry).map(|row| [&[4], row.as_slice()].concat()));
        // Index and message, without the checksum between them.
        seeds.extend(log::row_seed(entry).map(|row| [&[9], &row[1..9], &row[13..]].concat()));
    }
    seeds.push([&[5], identity.encode_to_vec().as_slice()].concat());
    seeds.push([&[7], snapshot.encode_to_vec().as_slice()].concat());
    // A full record of three bytes with its checksum, and the beginning of another.
    seeds.push([&[10], torn::record(1, b"two").as_slice(), &[0x10, 0x20]].concat());
    seeds
}

/// A row of the state: the first byte is its table's tag, then the length of its key, one byte, the
/// rest of the key, and the value.
pub fn rows(data: &[u8]) {
    let Some((tag, rest)) = data.split_first() else {
        return;
    };
    let Some((length, rest)) = rest.split_first() else {
        return;
    };
    let (key, value) = rest.split_at(rest.len().min((*length).into()));
    let key = [&[*tag], key].concat();
    match *tag {
        table::state_hash::TAG => {
            if let Ok(hash) = table::state_hash::decode(value) {
                assert_eq!(table::state_hash::encode(hash), value);
            }
        }
        table::globals::TAG => row::<table::globals::Stored, Globals>(value),
        table::node::TAG => row::<table::node::Stored, Node>(value),
        table::node_name::TAG => {
            if let Ok(node) = table::node_name::decode(value) {
                assert_eq!(table::node_name::encode(node), value);
            }
        }
        table::claim::TAG => row::<table::claim::Stored, Claim>(value),
        table::session::TAG => row::<table::session::Stored, Session>(value),
        table::session_use::TAG => {
            let _ = table::session_use::decode_key(&key);
        }
        table::outcome::TAG => {
            let _ = table::outcome::decode_key(&key);
            row::<table::outcome::Stored, StoredOutcome>(value);
        }
        table::history::TAG => row::<table::history::Stored, HistoryEntry>(value),
        table::node_history::TAG => {
            let _ = table::node_history::decode_key(&key);
        }
        table::key::TAG => {
            if let Ok(found) = table::key::decode(&key, value) {
                let again = table::key::encode(&found);
                assert_eq!(table::key::decode(&key, &again), Ok(found));
            }
        }
        table::key_event::TAG => {
            if let Ok(id) = table::key_event::decode_key(&key) {
                assert_eq!(table::key_event::key(id).as_slice(), key);
            }
            row::<table::key_event::Stored, KeyEvent>(value);
        }
        table::key_version::TAG => {
            let _ = table::key_version::key_part(&key);
            let _ = table::key_version::decode(&key, value);
        }
        table::lease::TAG => row::<table::lease::Stored, Lease>(value),
        table::lease_end::TAG => {
            let _ = table::lease_end::decode_key(&key);
        }
        table::key_count::TAG => {
            let _ = table::key_count::decode(value);
        }
        table::lease_key::TAG => {
            let _ = table::lease_key::decode_key(&key);
        }
        _ => {}
    }
    let end = table::after_prefix(&key);
    assert!(end.is_empty() || end > key, "{end:02x?} follows {key:02x?}");
}

fn row<Stored, Known>(value: &[u8])
where
    Stored: Message + Default + for<'a> From<&'a Known>,
    Known: TryFrom<Stored, Error: Display> + PartialEq + Debug,
{
    let Ok(known) = table::decode::<Stored, Known>(value) else {
        return;
    };
    let written = table::encode::<Stored, Known>(&known);
    let again = table::decode::<Stored, Known>(&written);
    assert_eq!(again.as_ref(), Ok(&known));
    // Members compare hashes over these bytes, so one state must have one encoding.
    assert_eq!(
        again.map(|again| table::encode::<Stored, Known>(&again)),
        Ok(written)
    );
}

const MARKER: Marker = Marker {
    bits: 0x7f3a,
    created_unix_ms: 1_700_000_000_000,
};
const TAG: Tag = Tag {
    session: SessionId(12),
    sequence: 2,
};

/// Real encodings for [`rows`].
pub fn row_seeds() -> Vec<Vec<u8>> {
    let row = |tag: u8, key: &[u8], value: Vec<u8>| {
        [&[tag, key.len() as u8], key, value.as_slice()].concat()
    };
    let refused = Refusal::MarkerMismatch {
        node: NodeId(1),
        stored: MARKER,
        offered: Marker { bits: 9, ..MARKER },
    };
    let effect = Effect::NodeActivated {
        node: NodeId(1),
        incarnation: Incarnation(4),
    };
    let outcome = |outcome| StoredOutcome {
        digest: Some(77),
        outcome,
    };
    let mut seeds = vec![
        row(table::state_hash::TAG, &[], vec![1; 16]),
        row(table::node_name::TAG, b"ls1", vec![0, 0, 0, 1]),
        row(table::session_use::TAG, &[1; 16], Vec::new()),
        row(table::node_history::TAG, &[1; 12], Vec::new()),
        row(
            table::claim::TAG,
            &[1; 28],
            table::encode::<table::claim::Stored, _>(&claim()),
        ),
        row(
            table::session::TAG,
            &[1; 8],
            table::encode::<table::session::Stored, _>(&session()),
        ),
    ];
    let applied = Outcome::Applied {
        revision: Revision(3),
        effect,
    };
    for outcome in [outcome(applied), outcome(Outcome::Refused(refused))] {
        let value = table::encode::<table::outcome::Stored, _>(&outcome);
        seeds.push(row(table::outcome::TAG, &[1; 16], value));
    }
    let node = NodeName::new("ls1").and_then(|name| Ok(node(name, Location::new("eu.a")?)));
    if let Ok(node) = node {
        let value = table::encode::<table::node::Stored, _>(&node);
        seeds.push(row(table::node::TAG, &[0, 0, 0, 1], value));
    }
    let value = table::encode::<table::history::Stored, _>(&history());
    seeds.push(row(table::history::TAG, &[1; 8], value));
    let globals = Globals {
        founded: Some((tally_model::ClusterId(0xc1), Settings::default())),
        revision: Revision(3),
        unix_ms: 5,
        last_node: NodeId(1),
        sessions: 2,
        history_hash: [3; 32],
        compacted: Revision(2),
        reclaimed: EventId::last_of(Revision(1)),
        leases: 1,
        lease_clock_ms: 1_500,
        lease_term: 2,
    };
    let value = table::encode::<table::globals::Stored, _>(&globals);
    seeds.push(row(table::globals::TAG, &[], value));
    let found = KeyValue {
        key: Bytes::from_static(b"key"),
        value: Bytes::from_static(b"value"),
        created: Revision(2),
        modified: Revision(3),
        version: 2,
        lease: Some(LeaseId(7)),
    };
    seeds.push(row(table::key::TAG, b"key", table::key::encode(&found)));
    let value = table::encode::<table::key_event::Stored, _>(&KeyEvent::Put(found));
    seeds.push(row(table::key_event::TAG, &[0; 12], value));
    let lease = Lease {
        id: LeaseId(7),
        ttl_s: 10,
        ends_ms: 12_500,
    };
    let value = table::encode::<table::lease::Stored, _>(&lease);
    seeds.push(row(table::lease::TAG, &[128, 0, 0, 0, 0, 0, 0, 7], value));
    seeds
}

fn node(name: NodeName, location: Location) -> Node {
    Node {
        id: NodeId(1),
        name,
        address: "host4:7421".to_owned(),
        location,
        storage_state: StorageState::ReadWrite,
        incarnation: Incarnation(4),
        binding: Some(Binding {
            marker: MARKER,
            since: Revision(3),
        }),
        set_by: SetBy::Node,
        created_revision: Revision(2),
        revision: Revision(3),
        state_revision: Revision(3),
        state_unix_ms: 5,
        claims_dropped: 0,
    }
}

fn claim() -> Claim {
    Claim {
        node: NodeId(1),
        marker: Some(MARKER),
        tag: TAG,
        first_revision: Revision(3),
        last_revision: Revision(4),
        last_unix_ms: 5,
        attempts: 2,
    }
}

fn session() -> Session {
    Session {
        id: SessionId(12),
        marker: MARKER,
        opened_unix_ms: 4,
        used_unix_ms: 5,
        acknowledged: 1,
        outcomes_held: 1,
    }
}

fn history() -> HistoryEntry {
    HistoryEntry {
        revision: Revision(3),
        unix_ms: 5,
        node: NodeId(1),
        actor: SetBy::Operator,
        tag: TAG,
        event: Event::Transitioned {
            from: StorageState::Provisioning,
            to: StorageState::ReadWrite,
            marker: Some(MARKER),
            forced: false,
        },
        reason: "disk swap".to_owned(),
        hash: [7; 32],
    }
}

/// Frames of a snapshot, each with its length before it, taken into the directory `scratch`. What is
/// not finished leaves nothing behind; what is finished holds exactly what was announced.
pub fn snapshot(scratch: &Path, data: &[u8]) {
    let Ok(shelf) = Shelf::open(scratch, "n1", None) else {
        panic!("{} cannot be used", scratch.display());
    };
    let shelf = Arc::new(shelf);
    receive(&shelf, data);
    drop(shelf);
    let left = std::fs::read_dir(scratch.join("snapshots"));
    let left = left.map(|left| left.flatten().count());
    assert!(matches!(left, Ok(0)), "{left:?} names are left behind");
}

fn receive(shelf: &Arc<Shelf>, mut data: &[u8]) {
    let mut next = || SnapshotFrame::decode_length_delimited(&mut data).ok()?.kind;
    let Some(Kind::Header(SnapshotHeader {
        meta: Some(meta), ..
    })) = next()
    else {
        return;
    };
    let Ok(mut receiver) = Arc::clone(shelf).receive(meta.clone()) else {
        return;
    };
    while let Some(kind) = next() {
        match kind {
            Kind::Header(_) => return,
            Kind::Chunk(chunk) => {
                if receiver
                    .write(&chunk.file, chunk.offset, &chunk.data)
                    .is_err()
                {
                    return;
                }
            }
            Kind::End(end) => {
                let Ok(snapshot) = receiver.finish(&end.digest) else {
                    return;
                };
                assert_eq!(snapshot.meta(), &meta);
                assert_eq!(snapshot.digest().as_slice(), end.digest);
                for file in &meta.files {
                    let found = snapshot.file_path(&file.name).metadata();
                    let found = found.map(|found| found.len());
                    assert_eq!(found.ok(), Some(file.length), "{}", file.name);
                }
                return;
            }
        }
    }
}

fn meta() -> SnapshotMeta {
    let file = |name: &str, length| SnapshotFile {
        name: name.to_owned(),
        length,
    };
    SnapshotMeta {
        files: vec![
            file("000009.sst", 5),
            file("CURRENT", 3),
            file("MANIFEST-000005", 0),
        ],
        ..SnapshotMeta::default()
    }
}

/// Real encodings for [`snapshot`].
pub fn snapshot_seeds() -> Vec<Vec<u8>> {
    let meta = meta();
    let chunk = |file: &str, offset, data: &'static [u8]| {
        Kind::Chunk(SnapshotChunk {
            file: file.to_owned(),
            offset,
            data: data.into(),
        })
    };
    let digest = digest_of(&meta, &[b"hello", b"abc", b""]);
    let whole = [
        Kind::Header(SnapshotHeader {
            vote: Some(Vote::default()),
            meta: Some(meta),
        }),
        chunk("000009.sst", 0, b"hel"),
        chunk("000009.sst", 3, b"lo"),
        chunk("CURRENT", 0, b"abc"),
        Kind::End(SnapshotEnd {
            digest: digest.to_vec(),
        }),
    ];
    let frames =
        whole.map(|kind| SnapshotFrame { kind: Some(kind) }.encode_length_delimited_to_vec());
    vec![frames.concat(), frames[..3].concat()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// Runs a target on each seed as it is, cut at every byte, and with every byte flipped.
    fn every_cut_and_flip(seeds: Vec<Vec<u8>>, target: impl Fn(&[u8])) {
        for seed in seeds {
            target(&seed);
            for at in 0..seed.len() {
                target(&seed[..at]);
                for flip in [0x01, 0x80, 0xff] {
                    let mut flipped = seed.clone();
                    flipped[at] ^= flip;
                    target(&flipped);
                }
            }
        }
    }

    #[test]
    fn no_bytes_on_disk_can_make_a_decoder_panic() {
        every_cut_and_flip(disk_seeds(), disk);
        every_cut_and_flip(row_seeds(), rows);
    }

    #[test]
    fn seeds_are_what_is_really_written() {
        assert_eq!(disk_seeds().len(), 12);
        let identity = &disk_seeds()[0][1..];
        assert!(record_file::decode::<Identity>(identity, *b"TALLYID1").is_ok());
        let directory = tempfile::tempdir().unwrap();
        let shelf = Arc::new(Shelf::open(directory.path(), "n1", None).unwrap());
        let whole = snapshot_seeds().remove(0);
        let mut frames = whole.as_slice();
        let mut next = || {
            SnapshotFrame::decode_length_delimited(&mut frames)
                .unwrap()
                .kind
        };
        let Some(Kind::Header(header)) = next() else {
            panic!("no header");
        };
        let mut receiver = shelf.receive(header.meta.unwrap()).unwrap();
        loop {
            match next().unwrap() {
                Kind::Chunk(chunk) => receiver
                    .write(&chunk.file, chunk.offset, &chunk.data)
                    .unwrap(),
                Kind::End(end) => break drop(receiver.finish(&end.digest).unwrap()),
                Kind::Header(_) => panic!("a second header"),
            }
        }
    }

    #[test]
    fn no_frames_of_a_snapshot_can_leave_half_of_it_behind() {
        let directory = tempfile::tempdir().unwrap();
        for seed in snapshot_seeds() {
            snapshot(directory.path(), &seed);
            // Every fsync counts here, so only some of the cuts and flips.
            for at in (0..seed.len()).step_by(5) {
                snapshot(directory.path(), &seed[..at]);
                let mut flipped = seed.clone();
                flipped[at] ^= 0xff;
                snapshot(directory.path(), &flipped);
            }
        }
    }
}
