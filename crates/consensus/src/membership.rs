//! Who belongs to the cluster.

use std::collections::{BTreeMap, BTreeSet};

use openraft::StoredMembership;
use tally_model::MemberId;
use tally_proto::storage;

use crate::raft::{LeaderId, Node};

/// One member and where it is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    pub id: MemberId,
    pub name: String,
    /// Where members reach it, `HOST:PORT`.
    pub peer_address: String,
    /// Where clients reach it, `HOST:PORT`.
    pub client_address: String,
}

/// The members that a replica knows of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Voters and learners, by id.
    pub members: BTreeMap<MemberId, Member>,
    /// Those that vote.
    pub voters: BTreeSet<MemberId>,
}

impl Membership {
    /// A member by name; the voter when a voter and a learner share one.
    pub fn by_name(&self, name: &str) -> Option<&Member> {
        let mut found = self.members.values().filter(|member| member.name == name);
        let first = found.next()?;
        let voter = found.find(|member| self.voters.contains(&member.id));
        match voter {
            Some(voter) if !self.voters.contains(&first.id) => Some(voter),
            _ => Some(first),
        }
    }

    /// Where clients reach a member.
    pub fn client_address(&self, id: MemberId) -> Option<String> {
        let address = &self.members.get(&id)?.client_address;
        (!address.is_empty()).then(|| address.clone())
    }

    pub(crate) fn of(
        stored: &StoredMembership<<LeaderId as openraft::vote::RaftLeaderId>::Committed, u64, Node>,
    ) -> Self {
        let members = stored.nodes().map(|(&id, node)| node.member(MemberId(id)));
        Self {
            members: members.map(|member| (member.id, member)).collect(),
            voters: stored.voter_ids().map(MemberId).collect(),
        }
    }
}

impl From<Member> for storage::MemberRecord {
    fn from(member: Member) -> Self {
        Self {
            id: member.id.0,
            name: member.name,
            peer_address: member.peer_address,
            client_address: member.client_address,
        }
    }
}

impl From<storage::MemberRecord> for Member {
    fn from(record: storage::MemberRecord) -> Self {
        Self {
            id: MemberId(record.id),
            name: record.name,
            peer_address: record.peer_address,
            client_address: record.client_address,
        }
    }
}

/// As members tell each other, and as it stands on disk.
impl From<&Membership> for storage::Membership {
    fn from(membership: &Membership) -> Self {
        let voters = membership.voters.iter().map(|id| id.0).collect();
        let members = membership.members.values().cloned();
        Self {
            voters: vec![storage::VoterSet { members: voters }],
            members: members.map(Into::into).collect(),
        }
    }
}

/// What a member was told by another; voters of a joint membership are taken together.
impl From<storage::Membership> for Membership {
    fn from(message: storage::Membership) -> Self {
        let members = message.members.into_iter().map(Member::from);
        let voters = message.voters.iter().flat_map(|set| &set.members);
        Self {
            voters: voters.map(|&id| MemberId(id)).collect(),
            members: members.map(|member| (member.id, member)).collect(),
        }
    }
}
