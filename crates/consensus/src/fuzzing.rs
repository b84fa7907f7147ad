//! This crate's decoders on arbitrary bytes, for the fuzz targets in `tests/fuzz` and, with real
//! messages that were cut and flipped, for every test run. What is taken from another member is written
//! again as the same, and its entries follow one another.

use prost::Message;
use tally_proto::convert::{bytes_16, decode_request, encode_request};
use tally_proto::{peer, storage};

use crate::hashes::first_difference;
use crate::membership::{Member, Membership};
use crate::raft;

/// A message from another member; the first byte says which.
pub fn peer(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else {
        return;
    };
    match which % 12 {
        0 => append(bytes),
        1 => append_response(bytes),
        2 => vote_request(bytes),
        3 => vote_response(bytes),
        4 => forward(bytes),
        5 => forwarded(bytes),
        6 => {
            if let Ok(ask) = peer::TransferLeaderRequest::decode(bytes) {
                let _ = raft::transfer_request(&ask);
            }
        }
        7 => snapshot_meta(bytes),
        8 => {
            if let Ok(answer) = peer::ReadIndexResponse::decode(bytes) {
                let _ = raft::sent_log_ids(&answer.read);
            }
        }
        9 => state_hashes(bytes),
        10 => identify(bytes),
        _ => {
            if let Ok(ask) = peer::JoinRequest::decode(bytes) {
                let _ = bytes_16("cluster_id", &ask.cluster_id);
            }
        }
    }
}

fn state_hashes(bytes: &[u8]) {
    let Ok(theirs) = peer::StateHashesResponse::decode(bytes) else {
        return;
    };
    let ours = [(41, 7), (42, 8)];
    if let Some(index) = first_difference(&ours, &theirs) {
        assert!(ours.iter().any(|(our, _)| *our == index), "no such index");
    }
}

fn identify(bytes: &[u8]) {
    let Ok(answer) = peer::IdentifyResponse::decode(bytes) else {
        return;
    };
    let _ = bytes_16("cluster_id", &answer.cluster_id);
    let membership = Membership::from(answer.membership.unwrap_or_default());
    if let Some(found) = membership.by_name(&answer.name) {
        assert_eq!(found.name, answer.name);
    }
}

fn append(bytes: &[u8]) {
    let Ok(message) = peer::AppendRequest::decode(bytes) else {
        return;
    };
    let Ok(understood) = raft::append(message) else {
        return;
    };
    let mut index = understood.prev_log_id.map(|id| id.index);
    for entry in &understood.entries {
        let expected = index.map_or(0, |index| index + 1);
        assert_eq!(entry.log_id.index, expected, "a gap before an entry");
        index = Some(expected);
    }
    let written = raft::append_message(understood.clone());
    let again = raft::append(written.clone());
    assert_eq!(again.map(raft::append_message).ok(), Some(written));
}

fn append_response(bytes: &[u8]) {
    let Ok(message) = peer::AppendResponse::decode(bytes) else {
        return;
    };
    if let Ok(understood) = raft::append_result(message) {
        let written = raft::append_result_message(understood);
        let again = raft::append_result(written);
        assert_eq!(again.map(raft::append_result_message).ok(), Some(written));
    }
}

fn vote_request(bytes: &[u8]) {
    let Ok(message) = peer::VoteRequest::decode(bytes) else {
        return;
    };
    if let Ok(understood) = raft::vote_request(message) {
        let written = raft::vote_request_message(&understood);
        let again = raft::vote_request(written);
        let again = again.map(|again| raft::vote_request_message(&again));
        assert_eq!(again.ok(), Some(written));
    }
}

fn vote_response(bytes: &[u8]) {
    let Ok(message) = peer::VoteResponse::decode(bytes) else {
        return;
    };
    if let Ok(understood) = raft::vote_response(message) {
        let written = raft::vote_response_message(&understood);
        let again = raft::vote_response(written);
        let again = again.map(|again| raft::vote_response_message(&again));
        assert_eq!(again.ok(), Some(written));
    }
}

fn forward(bytes: &[u8]) {
    let Ok(message) = peer::ForwardRequest::decode(bytes) else {
        return;
    };
    for command in message.commands {
        let Ok(request) = decode_request(command.request) else {
            continue;
        };
        // It is appended as it is written here, and must read the same when it is applied.
        let again = decode_request(encode_request(&request));
        assert_eq!(again, Ok(request));
    }
}

fn forwarded(bytes: &[u8]) {
    let Ok(message) = peer::ForwardResponse::decode(bytes) else {
        return;
    };
    for answer in message.answers {
        if let Some(peer::forward_answer::Kind::Answer(answer)) = answer.kind
            && let Ok(answer) = tally_model::Answer::try_from(answer)
        {
            let again = tally_model::Answer::try_from(storage::Answer::from(&answer));
            assert_eq!(again, Ok(answer));
        }
    }
}

fn snapshot_meta(bytes: &[u8]) {
    let Ok(meta) = storage::SnapshotMeta::decode(bytes) else {
        return;
    };
    if let Ok(message) = storage::Membership::decode(bytes) {
        let _ = Membership::from(message);
    }
    if raft::sent_applied(&meta).is_ok() {
        let applied = meta.applied.unwrap_or_default();
        assert!(raft::applied(&applied).is_ok_and(|(last, _)| last.is_some()));
    }
}

/// Real messages for [`peer`].
pub fn peer_seeds() -> Vec<Vec<u8>> {
    let vote = storage::Vote {
        term: 3,
        candidate: 7,
        committed: true,
    };
    let id = |index| storage::LogId {
        term: 3,
        leader: 0,
        index,
    };
    let members = [1, 2, 3].map(|number| {
        let name = format!("n{number}");
        let member = Member {
            id: tally_model::MemberId(number),
            peer_address: format!("{name}:7412"),
            client_address: format!("{name}:7411"),
            name,
        };
        storage::MemberRecord::from(member)
    });
    let membership = storage::Membership {
        voters: vec![storage::VoterSet {
            members: vec![1, 2, 3],
        }],
        members: members.to_vec(),
    };
    let request = storage::Request {
        tagged: Some(storage::Tagged {
            session: 12,
            sequence: 2,
            marker: Some(marker()),
            acknowledged: 1,
            digest: vec![7; 16],
        }),
        command: Some(storage::Command {
            kind: Some(storage::command::Kind::ActivateNode(
                storage::ActivateNode {
                    node: 1,
                    marker: Some(marker()),
                    incarnation: 4,
                    attempt: 1,
                },
            )),
        }),
    };
    let payloads = [
        storage::log_entry::Payload::Blank(storage::Blank {}),
        storage::log_entry::Payload::Membership(membership.clone()),
        storage::log_entry::Payload::Proposal(storage::Proposal {
            request: request.encode_to_vec().into(),
            unix_ms: 1_700_000_000_000,
        }),
    ];
    let entries = payloads.into_iter().zip(42..);
    let append = peer::AppendRequest {
        vote: Some(vote),
        previous: Some(id(41)),
        entries: entries
            .map(|(payload, index)| storage::LogEntry {
                id: Some(id(index)),
                payload: Some(payload),
            })
            .collect(),
        committed: Some(id(40)),
    };
    let identified = peer::IdentifyResponse {
        member: 1,
        name: "n1".to_owned(),
        formation: vec![3; 32],
        cluster_id: vec![9; 16],
        membership: Some(membership.clone()),
        client_address: "n1:7411".to_owned(),
    };
    let applied = storage::AppliedState {
        last_applied: Some(id(42)),
        membership_at: Some(id(1)),
        membership: Some(membership),
    };
    let meta = storage::SnapshotMeta {
        applied: Some(applied),
        state_hash: vec![1; 16],
        ..storage::SnapshotMeta::default()
    };
    let mut seeds = vec![
        [&[0], append.encode_to_vec().as_slice()].concat(),
        [&[7], meta.encode_to_vec().as_slice()].concat(),
        [&[10], identified.encode_to_vec().as_slice()].concat(),
    ];
    seeds.extend(small_seeds(vote, id(41), request));
    seeds
}

fn marker() -> storage::Marker {
    storage::Marker {
        bits: vec![0x7f; 16],
        created_unix_ms: 1_700_000_000_000,
    }
}

fn small_seeds(vote: storage::Vote, id: storage::LogId, request: storage::Request) -> Vec<Vec<u8>> {
    use peer::append_response::Kind;
    let response = |kind| peer::AppendResponse { kind: Some(kind) }.encode_to_vec();
    let ask = peer::VoteRequest {
        vote: Some(vote),
        last_log: Some(id),
        leadership_transfer: true,
    };
    let answer = peer::VoteResponse {
        vote: Some(vote),
        granted: true,
        last_log: Some(id),
    };
    let transfer = peer::TransferLeaderRequest {
        from: Some(vote),
        to: 2,
        last_log: Some(id),
    };
    let forward = peer::ForwardRequest {
        commands: vec![peer::ForwardCommand {
            number: 5,
            request: request.encode_to_vec().into(),
            deadline_ms: 500,
        }],
    };
    let effect = tally_model::Effect::SessionClosed;
    let outcome = tally_model::Outcome::Applied {
        revision: tally_model::Revision(3),
        effect,
    };
    let answered = tally_model::Answer {
        outcome,
        repeat: true,
        now: Some(tally_model::StorageState::ReadWrite),
        revision: tally_model::Revision(3),
    };
    let forwarded = peer::ForwardResponse {
        answers: vec![peer::ForwardAnswer {
            number: 5,
            kind: Some(peer::forward_answer::Kind::Answer(answered.into())),
        }],
    };
    let success = Kind::Success(peer::AppendSuccess { matching: Some(id) });
    let conflict = Kind::Conflict(peer::AppendConflict { expected: Some(id) });
    let read_index = peer::ReadIndexResponse { read: Some(id) };
    let hashes = peer::StateHashesResponse {
        hashes: vec![peer::IndexedHash {
            index: 42,
            hash: vec![1; 16],
        }],
    };
    let join = peer::JoinRequest {
        cluster_id: vec![9; 16],
        formation: vec![3; 32],
        to: 2,
        from: 1,
    };
    let messages = [
        (1, response(success)),
        (1, response(conflict)),
        (1, response(Kind::HigherVote(vote))),
        (2, ask.encode_to_vec()),
        (3, answer.encode_to_vec()),
        (4, forward.encode_to_vec()),
        (5, forwarded.encode_to_vec()),
        (6, transfer.encode_to_vec()),
        (8, read_index.encode_to_vec()),
        (9, hashes.encode_to_vec()),
        (11, join.encode_to_vec()),
    ];
    let messages = messages.into_iter();
    messages
        .map(|(which, bytes)| [&[which], bytes.as_slice()].concat())
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn no_message_from_another_member_can_make_a_decoder_panic() {
        for seed in peer_seeds() {
            peer(&seed);
            for at in 0..seed.len() {
                peer(&seed[..at]);
                for flip in [0x01, 0x80, 0xff] {
                    let mut flipped = seed.clone();
                    flipped[at] ^= flip;
                    peer(&flipped);
                }
            }
        }
    }

    fn sent() -> peer::AppendRequest {
        let seeds = peer_seeds();
        peer::AppendRequest::decode(&seeds[0][1..]).unwrap()
    }

    fn refused(message: peer::AppendRequest) -> String {
        raft::append(message).unwrap_err().to_string()
    }

    #[test]
    fn entries_that_do_not_follow_one_another_are_refused() {
        assert!(raft::append(sent()).is_ok());
        let mut gap = sent();
        gap.entries.remove(1);
        assert!(refused(gap).contains("follows"));
        let mut swapped = sent();
        swapped.entries.swap(0, 1);
        assert!(refused(swapped).contains("follows"));
        let mut after_nothing = sent();
        after_nothing.previous = None;
        assert!(refused(after_nothing).contains("follows"));
        let mut older = sent();
        older.entries[0].id.as_mut().unwrap().term = 2;
        assert!(refused(older).contains("follows"));
    }

    #[test]
    fn numbers_that_cannot_be_counted_on_from_are_refused() {
        let mut index = sent();
        index.previous.as_mut().unwrap().index = u64::MAX;
        assert!(refused(index).contains("below"));
        let mut committed = sent();
        committed.committed.as_mut().unwrap().index = u64::MAX;
        assert!(refused(committed).contains("below"));
        let mut term = sent();
        term.vote.as_mut().unwrap().term = u64::MAX;
        assert!(refused(term).contains("below"));
    }

    #[test]
    fn a_membership_without_voters_is_refused() {
        let mut none = sent();
        let payload = storage::log_entry::Payload::Membership(storage::Membership::default());
        none.entries[0].payload = Some(payload);
        assert!(refused(none).contains("voters"));
    }
}
