//! openraft, configured: its types for Tally, and Tally's stores and network in its terms.

mod convert;
mod log_storage;
mod network;
mod runtime;
mod state_machine;

use std::fmt;

use tally_model::{Answer, MemberId};
use tally_proto::convert::decode_request;
use tally_proto::storage;

use crate::membership::Member;

pub(crate) use convert::*;
pub(crate) use log_storage::LogStorage;
pub(crate) use network::{Network, OwnDisk, pre_vote};
pub(crate) use runtime::{Runtime, with_seed};
pub(crate) use state_machine::{StateMachine, snapshot_of};

/// Tally in openraft's terms: standard leader ids, so that a term has one leader.
#[derive(Debug, Clone, Copy, Default, Eq, PartialEq, Ord, PartialOrd)]
pub(crate) struct TypeConfig;

impl openraft::RaftTypeConfig for TypeConfig {
    type D = Proposal;
    type R = Option<Answer>;
    type NodeId = u64;
    type Node = Node;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = openraft::impls::Vote<LeaderId>;
    type Payload = openraft::EntryPayload<Proposal, u64, Node>;
    type Entry = openraft::Entry<CommittedLeaderId, Self::Payload>;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = openraft::impls::OneshotResponder<Self, T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

type CommittedLeaderId = <LeaderId as openraft::vote::RaftLeaderId>::Committed;
pub(crate) type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;

/// A stamped request, as it stands in the log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Proposal(pub(crate) storage::Proposal);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let request = decode_request(self.0.request.clone());
        match request.map(|request| request.tagged) {
            Ok(Some(tagged)) => write!(f, "request {}", tagged.tag),
            Ok(None) => f.write_str("request without a tag"),
            Err(error) => write!(f, "request that cannot be read: {error}"),
        }
    }
}

/// What the membership says of a member besides its id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) peer_address: String,
    pub(crate) client_address: String,
}

impl Node {
    pub(crate) fn member(&self, id: MemberId) -> Member {
        Member {
            id,
            name: self.name.clone(),
            peer_address: self.peer_address.clone(),
            client_address: self.client_address.clone(),
        }
    }
}

impl From<&Member> for Node {
    fn from(member: &Member) -> Self {
        Self {
            name: member.name.clone(),
            peer_address: member.peer_address.clone(),
            client_address: member.client_address.clone(),
        }
    }
}

/// openraft's own storage suite over real stores. For tests.
pub mod conformance {
    use std::future::Future;

    use openraft::testing::log::{StoreBuilder, Suite};
    use tally_storage::{LogStore, StateStore};

    use super::{LogStorage, StateMachine, TypeConfig};

    struct Builder<F>(F);

    impl<F, Fut, G> StoreBuilder<TypeConfig, LogStorage, StateMachine, G> for Builder<F>
    where
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = (G, LogStore, StateStore)> + Send,
        G: Send + Sync,
    {
        async fn build(
            &self,
        ) -> Result<(G, LogStorage, StateMachine), openraft::StorageError<TypeConfig>> {
            let (guard, log, state) = (self.0)().await;
            Ok((guard, LogStorage::new(log), StateMachine::new(state)))
        }
    }

    /// Runs every case, each over stores that `open` gives, with a guard that is dropped after it.
    ///
    /// # Errors
    /// Says which expectation did not hold; many cases panic instead.
    pub async fn run<F, Fut, G>(open: F) -> Result<(), String>
    where
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = (G, LogStore, StateStore)> + Send,
        G: Send + Sync,
    {
        Suite::test_all(Builder(open))
            .await
            .map_err(|error| error.to_string())
    }
}
