//! Reads: nodes, history, claims.

use tally_proto::v1;

use crate::client::Client;
use crate::error::Error;

/// Items asked for at once; the server's own bound.
const PAGE: u32 = 1000;

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// Sees every write that was answered before the read began.
    #[default]
    Linearizable,
    /// Whatever the member that is asked has applied; answered without a leader too.
    Stale,
}

impl Consistency {
    fn on_the_wire(self) -> i32 {
        match self {
            Self::Linearizable => v1::Consistency::Linearizable.into(),
            Self::Stale => v1::Consistency::Stale.into(),
        }
    }
}

/// Which node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// By id.
    Id(u32),
    /// By name.
    Name(String),
}

impl Which {
    /// As people type it: digits alone are an id, everything else is a name.
    pub fn parse(text: &str) -> Self {
        text.parse()
            .map_or_else(|_| Self::Name(text.to_owned()), Self::Id)
    }
}

impl From<u32> for Which {
    fn from(id: u32) -> Self {
        Self::Id(id)
    }
}

impl From<&str> for Which {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<String> for Which {
    fn from(name: String) -> Self {
        Self::Name(name)
    }
}

impl Client {
    /// One node; `None` when there is no such one.
    ///
    /// # Errors
    /// When there was no answer, see [`Error`].
    pub async fn node(
        &self,
        which: impl Into<Which>,
        consistency: Consistency,
    ) -> Result<Option<v1::Node>, Error> {
        let which = match which.into() {
            Which::Id(id) => v1::get_request::Which::Node(id),
            Which::Name(name) => v1::get_request::Which::Name(name),
        };
        let ask = v1::GetRequest {
            which: Some(which),
            consistency: consistency.on_the_wire(),
        };
        Ok(self.read(&ask).await?.node)
    }

    /// Every node, ascending by id.
    ///
    /// # Errors
    /// When there was no answer, see [`Error`].
    pub async fn nodes(&self, consistency: Consistency) -> Result<Vec<v1::Node>, Error> {
        let mut nodes: Vec<v1::Node> = Vec::new();
        loop {
            let ask = v1::ListRequest {
                consistency: consistency.on_the_wire(),
                limit: PAGE,
                after: nodes.last().map_or(0, |node| node.id),
            };
            let page = self.read(&ask).await?;
            let is_last = !page.more || page.nodes.is_empty();
            nodes.extend(page.nodes);
            if is_last {
                return Ok(nodes);
            }
        }
    }

    /// History entries after a revision, ascending; of one node, or of all when `node` is `None`.
    ///
    /// # Errors
    /// When there was no answer, see [`Error`].
    pub async fn history(
        &self,
        node: Option<u32>,
        after_revision: u64,
        consistency: Consistency,
    ) -> Result<Vec<v1::HistoryEntry>, Error> {
        let mut entries: Vec<v1::HistoryEntry> = Vec::new();
        loop {
            let ask = v1::HistoryRequest {
                node: node.unwrap_or_default(),
                after_revision: entries
                    .last()
                    .map_or(after_revision, |entry| entry.revision),
                limit: PAGE,
                consistency: consistency.on_the_wire(),
            };
            let page = self.read(&ask).await?;
            let is_last = !page.more || page.entries.is_empty();
            entries.extend(page.entries);
            if is_last {
                return Ok(entries);
            }
        }
    }

    /// Claims on one node, or on all when `node` is `None`.
    ///
    /// # Errors
    /// When there was no answer, see [`Error`].
    pub async fn claims(
        &self,
        node: Option<u32>,
        consistency: Consistency,
    ) -> Result<Vec<v1::Claim>, Error> {
        let ask = v1::ClaimsRequest {
            node: node.unwrap_or_default(),
            consistency: consistency.on_the_wire(),
        };
        Ok(self.read(&ask).await?.claims)
    }
}
