//! openraft's types and the messages on the wire and on disk.

use std::collections::{BTreeMap, BTreeSet};

use openraft::entry::RaftEntry;
use openraft::raft::{
    StreamAppendError, StreamAppendResult, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use openraft::vote::RaftLeaderId;
use openraft::{EntryPayload, Membership};
use storage::log_entry::Payload;
use tally_model::MemberId;
use tally_proto::{peer, storage};

use crate::membership::Member;

use super::{Entry, LeaderId, LogId, Node, Proposal, StoredMembership, TypeConfig, Vote};

/// A message that lacks something without which it means nothing.
#[derive(Debug, thiserror::Error)]
#[error("{0} is missing")]
pub(crate) struct Incomplete(pub(crate) &'static str);

/// Standard Raft: a term has one leader, so the term says who led and `leader` stays 0.
pub(crate) fn log_id_message(id: &LogId) -> storage::LogId {
    storage::LogId {
        term: id.leader_id.term,
        leader: 0,
        index: id.index,
    }
}

pub(crate) fn log_id(message: &storage::LogId) -> LogId {
    let leader = LeaderId::new(message.term, message.leader).to_committed();
    LogId::new(leader, message.index)
}

pub(crate) fn vote_message(vote: &Vote) -> storage::Vote {
    storage::Vote {
        term: vote.leader_id.term,
        candidate: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub(crate) fn vote(message: &storage::Vote) -> Vote {
    if message.committed {
        Vote::new_committed(message.term, message.candidate)
    } else {
        Vote::new(message.term, message.candidate)
    }
}

/// Terms and indices from another member are below this. None is ever reached, and openraft counts on
/// from what it is told.
const NUMBER_END: u64 = 1 << 62;

/// An id that another member sent.
fn sent_log_id(message: &storage::LogId) -> Result<LogId, Incomplete> {
    if message.term >= NUMBER_END || message.index >= NUMBER_END {
        return Err(Incomplete("a log id with a term and an index below 2^62"));
    }
    Ok(log_id(message))
}

pub(crate) fn sent_log_ids(message: &Option<storage::LogId>) -> Result<Option<LogId>, Incomplete> {
    message.as_ref().map(sent_log_id).transpose()
}

/// A vote that another member sent.
pub(crate) fn sent_vote(message: &storage::Vote) -> Result<Vote, Incomplete> {
    if message.term >= NUMBER_END {
        return Err(Incomplete("a vote with a term below 2^62"));
    }
    Ok(vote(message))
}

/// A vote that must be there.
pub(super) fn required_vote(message: Option<storage::Vote>) -> Result<Vote, Incomplete> {
    sent_vote(&message.ok_or(Incomplete("vote"))?)
}

pub(crate) fn membership_message(
    membership: &openraft::Membership<u64, Node>,
) -> storage::Membership {
    let voters = membership.get_joint_config().iter();
    let nodes = membership.nodes();
    let members = nodes.map(|(&id, node)| node.member(MemberId(id)).into());
    storage::Membership {
        voters: voters
            .map(|set| storage::VoterSet {
                members: set.iter().copied().collect(),
            })
            .collect(),
        members: members.collect(),
    }
}

pub(crate) fn membership(
    message: &storage::Membership,
) -> Result<Membership<u64, Node>, Incomplete> {
    let voters = message.voters.iter();
    let voters: Vec<BTreeSet<u64>> = voters
        .map(|set| set.members.iter().copied().collect())
        .collect();
    let members = message.members.iter().cloned().map(Member::from);
    let nodes = members.map(|member| (member.id.0, Node::from(&member)));
    let nodes: BTreeMap<u64, Node> = nodes.collect();
    Membership::new(voters, nodes).map_err(|_| Incomplete("the address of a voter"))
}

/// Membership and last applied id, as the state machine keeps them.
pub(crate) fn applied(
    message: &storage::AppliedState,
) -> Result<(Option<LogId>, StoredMembership), Incomplete> {
    let members = message.membership.as_ref().map(membership).transpose()?;
    let at = message.membership_at.as_ref().map(log_id);
    Ok((
        message.last_applied.as_ref().map(log_id),
        StoredMembership::new(at, members.unwrap_or_default()),
    ))
}

/// What another member says that its snapshot holds.
pub(crate) fn sent_applied(meta: &storage::SnapshotMeta) -> Result<(), Incomplete> {
    let stated = meta.applied.as_ref().ok_or(Incomplete("the last entry"))?;
    sent_log_id(&stated.last_applied.ok_or(Incomplete("the last entry"))?)?;
    sent_log_ids(&stated.membership_at)?;
    let members = stated.membership.as_ref();
    if members.is_none_or(|members| members.voters.is_empty()) {
        return Err(Incomplete("a set of voters"));
    }
    applied(stated).map(drop)
}

pub(crate) fn entry_message(entry: Entry) -> storage::LogEntry {
    let id = log_id_message(&entry.log_id);
    let payload = match entry.payload {
        EntryPayload::Blank => Payload::Blank(storage::Blank {}),
        EntryPayload::Normal(Proposal(proposal)) => Payload::Proposal(proposal),
        EntryPayload::Membership(members) => Payload::Membership(membership_message(&members)),
    };
    storage::LogEntry {
        id: Some(id),
        payload: Some(payload),
    }
}

pub(crate) fn entry(message: storage::LogEntry) -> Result<Entry, Incomplete> {
    let id = log_id(&message.id.ok_or(Incomplete("the id of an entry"))?);
    let payload = match message
        .payload
        .ok_or(Incomplete("the payload of an entry"))?
    {
        Payload::Blank(_) => EntryPayload::Blank,
        Payload::Proposal(proposal) => EntryPayload::Normal(Proposal(proposal)),
        // With no set of voters every set of members would be a majority.
        Payload::Membership(members) if members.voters.is_empty() => {
            return Err(Incomplete("a set of voters"));
        }
        Payload::Membership(members) => EntryPayload::Membership(membership(&members)?),
    };
    Ok(Entry::new(id, payload))
}

type AppendEntries = openraft::raft::AppendEntriesRequest<TypeConfig>;

pub(crate) fn append_message(request: AppendEntries) -> peer::AppendRequest {
    peer::AppendRequest {
        vote: Some(vote_message(&request.vote)),
        previous: request.prev_log_id.as_ref().map(log_id_message),
        entries: request.entries.into_iter().map(entry_message).collect(),
        committed: request.leader_commit.as_ref().map(log_id_message),
    }
}

pub(crate) fn append(message: peer::AppendRequest) -> Result<AppendEntries, Incomplete> {
    let previous = sent_log_ids(&message.previous)?;
    let mut follows = message.previous;
    let mut entries = Vec::with_capacity(message.entries.len());
    for sent in message.entries {
        let id = sent.id.ok_or(Incomplete("the id of an entry"))?;
        sent_log_id(&id)?;
        let expected = follows.map_or(0, |before| before.index + 1);
        if id.index != expected || id.term < follows.map_or(0, |before| before.term) {
            return Err(Incomplete("an entry that follows the one before it"));
        }
        follows = Some(id);
        entries.push(entry(sent)?);
    }
    Ok(AppendEntries {
        vote: required_vote(message.vote)?,
        prev_log_id: previous,
        entries,
        leader_commit: sent_log_ids(&message.committed)?,
    })
}

pub(crate) fn transfer_request(
    message: &peer::TransferLeaderRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, Incomplete> {
    let from = message.from.as_ref().ok_or(Incomplete("vote"))?;
    let last_log = sent_log_ids(&message.last_log)?;
    Ok(TransferLeaderRequest::new(
        sent_vote(from)?,
        message.to,
        last_log,
    ))
}

pub(crate) fn append_result_message(
    result: StreamAppendResult<TypeConfig>,
) -> peer::AppendResponse {
    use peer::append_response::Kind;
    let kind = match result {
        Ok(matching) => Kind::Success(peer::AppendSuccess {
            matching: matching.as_ref().map(log_id_message),
        }),
        Err(StreamAppendError::Conflict(expected)) => Kind::Conflict(peer::AppendConflict {
            expected: Some(log_id_message(&expected)),
        }),
        Err(StreamAppendError::HigherVote(vote)) => Kind::HigherVote(vote_message(&vote)),
    };
    peer::AppendResponse { kind: Some(kind) }
}

pub(crate) fn append_result(
    message: peer::AppendResponse,
) -> Result<StreamAppendResult<TypeConfig>, Incomplete> {
    use peer::append_response::Kind;
    Ok(
        match message.kind.ok_or(Incomplete("the kind of an answer"))? {
            Kind::Success(success) => Ok(sent_log_ids(&success.matching)?),
            Kind::Conflict(conflict) => {
                let expected = conflict.expected.ok_or(Incomplete("the expected entry"))?;
                Err(StreamAppendError::Conflict(sent_log_id(&expected)?))
            }
            Kind::HigherVote(higher) => Err(StreamAppendError::HigherVote(sent_vote(&higher)?)),
        },
    )
}

pub(crate) fn vote_request_message(request: &VoteRequest<TypeConfig>) -> peer::VoteRequest {
    peer::VoteRequest {
        vote: Some(vote_message(&request.vote)),
        last_log: request.last_log_id.as_ref().map(log_id_message),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn vote_request(
    message: peer::VoteRequest,
) -> Result<VoteRequest<TypeConfig>, Incomplete> {
    let last_log = sent_log_ids(&message.last_log)?;
    let mut request = VoteRequest::new(required_vote(message.vote)?, last_log);
    request.leadership_transfer = message.leadership_transfer;
    Ok(request)
}

pub(crate) fn vote_response_message(response: &VoteResponse<TypeConfig>) -> peer::VoteResponse {
    peer::VoteResponse {
        vote: Some(vote_message(&response.vote)),
        granted: response.vote_granted,
        last_log: response.last_log_id.as_ref().map(log_id_message),
    }
}

pub(crate) fn vote_response(
    message: peer::VoteResponse,
) -> Result<VoteResponse<TypeConfig>, Incomplete> {
    let last_log = sent_log_ids(&message.last_log)?;
    let vote = required_vote(message.vote)?;
    Ok(VoteResponse::new(vote, last_log, message.granted))
}
