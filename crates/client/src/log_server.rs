//! The start-up of a log server, in one call: marker, registration, activation.

use std::path::PathBuf;
use std::time::Duration;

use tally_model::{Effect, Marker, StorageState};

use crate::answer::{Answer, Outcome, Refused};
use crate::client::Client;
use crate::command::{Activate, Register};
use crate::error::Error;
use crate::marker_file::{self, MarkerFileError};

/// How long the end of a session that nobody needs any more is waited for.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// What a log server says of itself when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartUp {
    /// Its data directory; the marker is kept in it, as `MARKER`.
    pub dir: PathBuf,
    /// Its unique name: 1 to 128 bytes, no control characters.
    pub name: String,
    /// Where its own clients reach it; at most 256 bytes, may be empty.
    pub address: String,
    /// `region` or `region.zone`; empty when unknown.
    pub location: String,
}

/// Who a log server is, once the cluster has agreed.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its name.
    pub name: String,
    /// Its id: assigned once, never reused.
    pub node: u32,
    /// Number of times it has registered. A process with an older one is fenced.
    pub incarnation: u64,
    /// The marker on its disk.
    pub marker: Marker,
    /// A client whose session is under that marker.
    pub client: Client,
}

/// How a start-up ended.
#[derive(Clone, Debug)]
pub enum Started {
    /// It was activated now, and may read and write.
    Applied {
        /// Who it is.
        identity: Identity,
        /// The revision of its activation.
        revision: u64,
    },
    /// It had been activated before, by an earlier attempt or an earlier start.
    Replayed {
        /// Who it is.
        identity: Identity,
        /// The revision of its activation.
        since: u64,
        /// What it may do now.
        now: StorageState,
    },
    /// The name belongs to another marker or to a newer process. The owner is undisturbed; this one
    /// must not serve.
    Conflict {
        /// What the cluster found.
        refused: Refused,
    },
    /// The cluster knows a marker and the directory has none: it was wiped, replaced or not mounted.
    /// No new marker was written.
    DataLost {
        /// What the cluster found.
        refused: Refused,
    },
    /// An operator has taken the node out of use.
    Disabled {
        /// `disabled`, `gone` or `removed`.
        state: StorageState,
        /// What the cluster found, in one line.
        found: String,
    },
}

/// Starts a log server: reads its marker or makes one, registers, and activates.
///
/// A marker is made only after the cluster has said that it knows none for this name, and is on disk,
/// file and directory, before the activation is sent. So an activation whose answer is lost is
/// recognised when it is repeated, by this process or the next.
///
/// # Errors
/// When there was no answer, the disk refuses, or the cluster refuses for a reason that no start-up
/// can meet. Starting again is always safe.
pub async fn start(client: &Client, start_up: StartUp) -> Result<Started, Error> {
    let on_disk = read_marker(&start_up).await?;
    // The session is the log server's own from its first request on.
    let client = client.under(on_disk.unwrap_or_else(crate::fresh_marker));
    let answer = client
        .register(Register {
            name: start_up.name.clone(),
            marker: on_disk,
            address: start_up.address.clone(),
            location: start_up.location.clone(),
            cluster_id: None,
        })
        .await?;
    let (node, incarnation) = match registered(&answer) {
        Ok(registered) => registered,
        Err(refused) => return refusal(&client, refused).await,
    };
    let marker = match on_disk {
        Some(marker) => marker,
        None => create_marker(&start_up, client.marker()).await?,
    };
    let client = if marker == client.marker() {
        client
    } else {
        client.under(marker)
    };
    let answer = client
        .activate(Activate {
            node,
            marker,
            incarnation,
            attempt: 1,
        })
        .await?;
    let identity = Identity {
        name: start_up.name,
        node,
        incarnation,
        marker,
        client,
    };
    activated(identity, answer).await
}

async fn read_marker(start_up: &StartUp) -> Result<Option<Marker>, Error> {
    let dir = start_up.dir.clone();
    on_disk(start_up, move || marker_file::read(&dir)).await
}

async fn create_marker(start_up: &StartUp, marker: Marker) -> Result<Marker, Error> {
    let dir = start_up.dir.clone();
    on_disk(start_up, move || marker_file::create(&dir, marker)).await
}

async fn on_disk<T: Send + 'static>(
    start_up: &StartUp,
    work: impl FnOnce() -> Result<T, MarkerFileError> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|error| MarkerFileError::Io {
        path: start_up.dir.join(marker_file::FILE_NAME),
        problem: error.to_string(),
    })?;
    Ok(done?)
}

/// Node and incarnation, or the refusal.
fn registered(answer: &Answer) -> Result<(u32, u64), Refused> {
    match (&answer.outcome, answer.effect()) {
        (_, Some(Effect::NodeRegistered { node, incarnation })) => Ok((node.0, incarnation.0)),
        (Outcome::Refused(refused), _) => Err(refused.clone()),
        (other, _) => Err(unexpected(other)),
    }
}

async fn activated(identity: Identity, answer: Answer) -> Result<Started, Error> {
    let now = answer.now.unwrap_or(StorageState::ReadWrite);
    let is_out_of_use = matches!(
        now,
        StorageState::Disabled | StorageState::Gone | StorageState::Removed
    );
    match answer.outcome {
        Outcome::Refused(refused) => refusal(&identity.client, refused).await,
        _ if is_out_of_use => {
            end_session(&identity.client).await;
            let found = format!("node {} is {now}", identity.node);
            Ok(Started::Disabled { state: now, found })
        }
        Outcome::Applied { revision, .. } => Ok(Started::Applied { identity, revision }),
        Outcome::Replayed { since, .. } => Ok(Started::Replayed {
            identity,
            since,
            now,
        }),
    }
}

/// Says what a refusal means for a log server that starts.
async fn refusal(client: &Client, refused: Refused) -> Result<Started, Error> {
    end_session(client).await;
    let state = refused.details.get("state");
    let state = state.and_then(|state| state.parse::<StorageState>().ok());
    Ok(match (refused.code.as_str(), state) {
        ("T-311", _) => Started::DataLost { refused },
        ("T-331", _) => Started::Disabled {
            state: StorageState::Removed,
            found: refused.to_string(),
        },
        (
            "T-330",
            Some(state @ (StorageState::Disabled | StorageState::Gone | StorageState::Removed)),
        ) => Started::Disabled {
            state,
            found: refused.to_string(),
        },
        ("T-310" | "T-320" | "T-330", _) => Started::Conflict { refused },
        _ => {
            return Err(Error::Rejected {
                next: refused.next().map(str::to_owned),
                code: refused.code,
                found: refused.found,
            });
        }
    })
}

fn unexpected(outcome: &Outcome) -> Refused {
    Refused {
        code: tally_model::explanation::codes::DAMAGED.to_owned(),
        found: format!("the registration was answered with {outcome:?}"),
        details: std::collections::BTreeMap::new(),
    }
}

/// Spares the cluster an idle session; it would end by itself.
async fn end_session(client: &Client) {
    if let Err(error) = client.with_deadline(CLOSE_WITHIN).close().await {
        tracing::debug!(%error, "the session was not closed and ends by itself");
    }
}
