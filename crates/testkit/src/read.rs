//! Reading what the cluster knows.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tally_proto::v1;
use tonic::Status;
use tonic::transport::Channel;
use v1::nodes_client::NodesClient;

use crate::call::timed;
use crate::load::Seen;
use crate::requester::channel;

const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const PAGE: u32 = 500;

/// Reads through one member, linearizable or stale.
#[derive(Clone, Debug)]
pub struct Reader {
    channel: Channel,
    consistency: v1::Consistency,
    within: Duration,
}

impl Reader {
    /// Sees every write that was answered before the read began.
    ///
    /// # Errors
    /// When nobody listens at `address`.
    pub async fn linearizable(address: &str) -> Result<Self> {
        Self::new(address, v1::Consistency::Linearizable).await
    }

    /// Sees what the member has applied.
    ///
    /// # Errors
    /// When nobody listens at `address`.
    pub async fn stale(address: &str) -> Result<Self> {
        Self::new(address, v1::Consistency::Stale).await
    }

    async fn new(address: &str, consistency: v1::Consistency) -> Result<Self> {
        Ok(Self::over(channel(address).await?, consistency))
    }

    /// Reads over a connection that is there.
    pub fn over(channel: Channel, consistency: v1::Consistency) -> Self {
        Self {
            channel,
            consistency,
            within: ANSWER_WITHIN,
        }
    }

    /// The same reader with another patience.
    #[must_use]
    pub fn within(self, within: Duration) -> Self {
        Self { within, ..self }
    }

    /// The node of that name, or `None`.
    ///
    /// # Errors
    /// As the member says.
    pub async fn node(&self, name: &str) -> Result<Option<v1::Node>, Status> {
        let ask = v1::GetRequest {
            which: Some(v1::get_request::Which::Name(name.to_owned())),
            consistency: self.consistency.into(),
        };
        let mut client = NodesClient::new(self.channel.clone());
        let response = client.get(timed(&ask, self.within)).await?;
        Ok(response.into_inner().node)
    }

    /// The same, with when it was asked and answered, for a record.
    ///
    /// # Errors
    /// As the member says.
    pub async fn seen(&self, name: &str) -> Result<Seen, Status> {
        let invoked = Instant::now();
        let node = self.node(name).await?;
        Ok(Seen {
            name: name.to_owned(),
            invoked,
            returned: Instant::now(),
            node,
        })
    }

    /// The node of that name, which must exist.
    ///
    /// # Errors
    /// When it does not, or the member does not answer.
    pub async fn known(&self, name: &str) -> Result<v1::Node> {
        let node = self.node(name).await?;
        node.with_context(|| format!("no node is called {name}"))
    }

    /// Every node, by id.
    ///
    /// # Errors
    /// As the member says.
    pub async fn nodes(&self) -> Result<Vec<v1::Node>, Status> {
        let mut nodes = Vec::new();
        loop {
            let ask = v1::ListRequest {
                consistency: self.consistency.into(),
                limit: PAGE,
                after: nodes.last().map_or(0, |node: &v1::Node| node.id),
            };
            let mut client = NodesClient::new(self.channel.clone());
            let page = client.list(timed(&ask, self.within)).await?.into_inner();
            let more = page.more;
            nodes.extend(page.nodes);
            if !more {
                return Ok(nodes);
            }
        }
    }

    /// The history of one node, or of all with 0, oldest first.
    ///
    /// # Errors
    /// As the member says.
    pub async fn history(&self, node: u32) -> Result<Vec<v1::HistoryEntry>, Status> {
        let mut entries = Vec::new();
        loop {
            let ask = v1::HistoryRequest {
                node,
                after_revision: entries
                    .last()
                    .map_or(0, |entry: &v1::HistoryEntry| entry.revision),
                limit: PAGE,
                consistency: self.consistency.into(),
            };
            let mut client = NodesClient::new(self.channel.clone());
            let page = client.history(timed(&ask, self.within)).await?.into_inner();
            let more = page.more;
            entries.extend(page.entries);
            if !more {
                return Ok(entries);
            }
        }
    }

    /// The claims on one node, or on all with 0.
    ///
    /// # Errors
    /// As the member says.
    pub async fn claims(&self, node: u32) -> Result<Vec<v1::Claim>, Status> {
        let ask = v1::ClaimsRequest {
            node,
            consistency: self.consistency.into(),
        };
        let mut client = NodesClient::new(self.channel.clone());
        let response = client.claims(timed(&ask, self.within)).await?;
        Ok(response.into_inner().claims)
    }
}

/// Revisions of the entries that moved a node from `provisioning` to `read-write`.
pub fn activations(history: &[v1::HistoryEntry]) -> Vec<u64> {
    revisions(history, |event| {
        matches!(event, v1::history_entry::Event::Transitioned(moved)
            if moved.from() == v1::StorageState::Provisioning
                && moved.to() == v1::StorageState::ReadWrite)
    })
}

/// Revisions of the entries that registered a node.
pub fn registrations(history: &[v1::HistoryEntry]) -> Vec<u64> {
    revisions(history, |event| {
        matches!(event, v1::history_entry::Event::Registered(_))
    })
}

fn revisions(
    history: &[v1::HistoryEntry],
    wanted: impl Fn(&v1::history_entry::Event) -> bool,
) -> Vec<u64> {
    let wanted = history
        .iter()
        .filter(|entry| entry.event.as_ref().is_some_and(&wanted));
    wanted.map(|entry| entry.revision).collect()
}
