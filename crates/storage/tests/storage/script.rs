//! A history that touches every table, as raft log entries.

use tally_model::command::{ActivateNode, Found, OpenSession, RegisterNode, SetStorageState};
use tally_model::{
    Actor, ClusterId, Command, Incarnation, Location, Marker, NodeId, NodeName, Request, Revision,
    Sequence, SessionId, Settings, StorageState, Tag, Tagged,
};
use tally_proto::convert::encode_request;
use tally_proto::storage;
use tally_proto::storage::log_entry::Payload;
use tally_proto::storage::{LogEntry, LogId, MemberRecord, Membership, VoterSet};

pub(crate) const MARKER_A: Marker = Marker {
    bits: 0xa,
    created_unix_ms: 1,
};
pub(crate) const MARKER_B: Marker = Marker {
    bits: 0xb,
    created_unix_ms: 2,
};

pub(crate) fn id(index: u64) -> LogId {
    LogId {
        term: 1,
        leader: 7,
        index,
    }
}

pub(crate) fn entry(index: u64, payload: Payload) -> LogEntry {
    LogEntry {
        id: Some(id(index)),
        payload: Some(payload),
    }
}

pub(crate) fn blank(index: u64) -> LogEntry {
    entry(index, Payload::Blank(storage::Blank {}))
}

pub(crate) fn proposal(index: u64, unix_ms: u64, request: Request) -> LogEntry {
    let proposal = storage::Proposal {
        request: encode_request(&request),
        unix_ms,
    };
    entry(index, Payload::Proposal(proposal))
}

pub(crate) fn membership(index: u64, members: &[u64]) -> LogEntry {
    let record = |id: &u64| MemberRecord {
        id: *id,
        name: format!("n{id}"),
        peer_address: format!("127.0.0.1:{id}"),
        client_address: String::new(),
    };
    let membership = Membership {
        voters: vec![VoterSet {
            members: members.to_vec(),
        }],
        members: members.iter().map(record).collect(),
    };
    entry(index, Payload::Membership(membership))
}

pub(crate) fn untagged(command: Command) -> Request {
    Request {
        tagged: None,
        command,
    }
}

pub(crate) fn tagged(
    session: u64,
    sequence: Sequence,
    acknowledged: Sequence,
    marker: Marker,
    command: Command,
) -> Request {
    let digest = tally_proto::convert::digest(&command);
    Request {
        tagged: Some(Tagged {
            tag: Tag {
                session: SessionId(session),
                sequence,
            },
            marker: Some(marker),
            acknowledged,
            digest,
        }),
        command,
    }
}

pub(crate) fn found(settings: Settings) -> Command {
    Command::Found(Found {
        cluster: ClusterId(0xc1),
        settings,
    })
}

pub(crate) fn open_session(marker: Marker) -> Command {
    Command::OpenSession(OpenSession { marker })
}

pub(crate) fn register(name: &str, marker: Marker) -> Command {
    Command::RegisterNode(RegisterNode {
        name: NodeName::new(name).unwrap(),
        marker: Some(marker),
        address: format!("{name}:5123"),
        location: Location::new("eu.a").unwrap(),
    })
}

pub(crate) fn activate(node: u32, marker: Marker, incarnation: u64) -> Command {
    Command::ActivateNode(ActivateNode {
        node: NodeId(node),
        marker,
        incarnation: Incarnation(incarnation),
        attempt: 1,
    })
}

pub(crate) fn set_state(node: u32, to: StorageState, expected: u64) -> Command {
    Command::SetStorageState(SetStorageState {
        node: NodeId(node),
        to,
        actor: Actor::Operator {
            expected_revision: Some(Revision(expected)),
            force: None,
        },
        reason: "disk swap".to_owned(),
    })
}

/// Every table is written and read back: sessions open, are used and close, nodes register and
/// activate, a stranger leaves a claim, an operator acts, answers are repeated and acknowledged.
pub(crate) fn history() -> Vec<LogEntry> {
    let a = |index, sequence, acknowledged, command| {
        proposal(
            index,
            1_000 * index,
            tagged(2, sequence, acknowledged, MARKER_A, command),
        )
    };
    let b = |index, sequence, command| {
        proposal(
            index,
            1_000 * index,
            tagged(3, sequence, 1, MARKER_B, command),
        )
    };
    vec![
        membership(0, &[7]),
        proposal(1, 1_000, untagged(found(Settings::default()))),
        proposal(2, 2_000, untagged(open_session(MARKER_A))),
        proposal(3, 3_000, untagged(open_session(MARKER_B))),
        a(4, 1, 1, register("ls1", MARKER_A)),
        a(5, 2, 1, activate(1, MARKER_A, 1)),
        a(6, 2, 1, activate(1, MARKER_A, 1)),
        b(7, 1, activate(1, MARKER_B, 1)),
        b(8, 2, register("ls2", MARKER_B)),
        b(9, 3, activate(2, MARKER_B, 1)),
        membership(10, &[7, 8, 9]),
        a(11, 3, 3, set_state(1, StorageState::ReadOnly, 3)),
        a(12, 4, 3, set_state(1, StorageState::ReadOnly, 1)),
        blank(13),
        b(14, 4, Command::SettleRequest),
        b(15, 5, Command::CloseSession),
        a(16, 5, 5, register("ls1", MARKER_A)),
    ]
}
