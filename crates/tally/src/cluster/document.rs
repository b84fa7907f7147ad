//! The cluster's members as JSON documents. Programs rely on these names.

use serde::Serialize;
use tally_client::{MemberStatus, v1};

use super::{reason, state_hash};
use crate::output::{hex, member_id, role_name};

#[derive(Debug, Serialize)]
pub(crate) struct StatusDocument {
    /// 32 hexadecimal digits; null before the cluster is founded.
    cluster_id: Option<String>,
    retry_check: Option<String>,
    members: Vec<MemberDocument>,
}

#[derive(Debug, Serialize)]
struct MemberDocument {
    name: Option<String>,
    id: Option<String>,
    endpoint: String,
    /// `unreachable` when there is an error.
    role: &'static str,
    version: Option<String>,
    term: Option<u64>,
    /// Id of the leader that this member knows.
    leader: Option<String>,
    last_log_index: Option<u64>,
    committed_index: Option<u64>,
    applied_index: Option<u64>,
    snapshot_index: Option<u64>,
    purged_index: Option<u64>,
    revision: Option<u64>,
    /// Null before the member is part of a cluster.
    state_hash: Option<String>,
    not_ready: Option<String>,
    hash_mismatches: Vec<MismatchDocument>,
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct MismatchDocument {
    index: u64,
    member: String,
}

impl From<&[MemberStatus]> for StatusDocument {
    fn from(members: &[MemberStatus]) -> Self {
        let mut known = members
            .iter()
            .filter_map(|member| member.status.as_ref().ok());
        let founded = known.find(|status| !status.cluster_id.is_empty());
        Self {
            cluster_id: founded.map(|status| hex(&status.cluster_id)),
            retry_check: founded.map(|status| status.retry_check.clone()),
            members: members.iter().map(MemberDocument::from).collect(),
        }
    }
}

impl From<&MemberStatus> for MemberDocument {
    fn from(member: &MemberStatus) -> Self {
        let status = member.status.as_ref().ok();
        let number = |read: fn(&v1::StatusResponse) -> u64| status.map(read);
        let text = |read: fn(&v1::StatusResponse) -> &String| {
            status.map(read).filter(|text| !text.is_empty()).cloned()
        };
        let leader = number(|status| status.leader).filter(|leader| *leader != 0);
        Self {
            name: member.name.clone(),
            id: number(|status| status.member).map(member_id),
            endpoint: member.endpoint.clone(),
            role: status.map_or("unreachable", |status| role_name(status.role())),
            version: text(|status| &status.version),
            term: number(|status| status.term),
            leader: leader.map(member_id),
            last_log_index: number(|status| status.last_log_index),
            committed_index: number(|status| status.committed_index),
            applied_index: number(|status| status.applied_index),
            snapshot_index: number(|status| status.snapshot_index),
            purged_index: number(|status| status.purged_index),
            revision: number(|status| status.revision),
            state_hash: status.and_then(state_hash),
            not_ready: text(|status| &status.not_ready),
            hash_mismatches: status.map_or_else(Vec::new, mismatches),
            error: member.status.as_ref().err().map(reason),
        }
    }
}

fn mismatches(status: &v1::StatusResponse) -> Vec<MismatchDocument> {
    let found = status
        .hash_mismatches
        .iter()
        .map(|mismatch| MismatchDocument {
            index: mismatch.index,
            member: member_id(mismatch.member),
        });
    found.collect()
}

#[derive(Debug, Serialize)]
pub(crate) struct TransferDocument {
    /// Name of the member that leads now.
    pub(crate) leader: String,
    pub(crate) id: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct SnapshotsDocument {
    pub(crate) members: Vec<SnapshotDocument>,
}

#[derive(Debug, Serialize)]
pub(crate) struct SnapshotDocument {
    pub(crate) name: String,
    /// Last log index that the snapshot covers.
    pub(crate) index: Option<u64>,
    pub(crate) error: Option<String>,
}
