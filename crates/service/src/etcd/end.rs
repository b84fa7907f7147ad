//! Why a stream ends that its client would have go on.

use std::sync::Arc;

use tally_consensus::Replica;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::rpctypes;
use crate::member::Member;

/// Metadata with which a client asks for the end of a stream whose member knows no leader.
const HAS_LEADER: &str = "hasleader";

/// When a stream must end, whatever happens on it.
pub(super) struct End {
    member: Arc<Member>,
    replica: Replica,
    leader_needed: bool,
}

impl End {
    /// Of a stream that is being opened with this metadata.
    ///
    /// # Errors
    /// When it would end at once.
    pub(super) fn of_stream(
        member: Arc<Member>,
        replica: Replica,
        metadata: &MetadataMap,
    ) -> Result<Self, Status> {
        let asked = metadata.get(HAS_LEADER);
        let leader_needed = asked.is_some_and(|asked| asked == "true");
        if leader_needed && replica.status().leader.is_none() {
            return Err(rpctypes::no_leader());
        }
        Ok(Self {
            member,
            replica,
            leader_needed,
        })
    }

    /// Waits for it. That nobody leads while a leader is elected ends no stream: to be opened again it would need one.
    pub(super) async fn reason(self) -> Status {
        tokio::select! {
            () = self.member.ending.closing.cancelled() => rpctypes::stopped(),
            () = self.member.becomes_foreign() => rpctypes::stopped(),
            () = self.replica.leader_lost(), if self.leader_needed => rpctypes::no_leader(),
        }
    }
}
