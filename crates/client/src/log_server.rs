//! The start-up of a log server, in one call: marker, registration, activation.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tally_model::{ClusterId, Effect, Marker, StorageState};

use crate::answer::{Answer, Outcome, Refused};
use crate::client::Client;
use crate::command::{Activate, Register};
use crate::directory_lock::DirectoryLock;
use crate::error::Error;
use crate::marker_file::{self, MarkerFile, MarkerFileError};

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
    /// Keeps other processes off the data directory until the last clone is dropped.
    _lock: Arc<DirectoryLock>,
}

/// A data directory that is held for a log server, before the cluster knows of the start.
#[derive(Debug)]
pub struct Prepared {
    start_up: StartUp,
    on_disk: Option<MarkerFile>,
    lock: DirectoryLock,
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
    /// Also when a log server finds its own data without a marker. No new marker was written.
    DataLost {
        /// What the cluster, or the log server, found.
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

/// Starts a log server: holds its data directory, reads its marker or makes one, registers, and
/// activates.
///
/// The directory is locked until the identity and its clones are dropped. A directory that belongs to
/// another log server, or to this one in another cluster, is refused. A marker is made only after the
/// cluster has said that it knows none for this name, and is on disk, file and directory, before the
/// activation is sent. So an activation whose answer is lost is recognised when it is repeated, by this
/// process or the next.
///
/// # Errors
/// When there was no answer, the disk refuses, the directory is in use or foreign, or the cluster
/// refuses for a reason that no start-up can meet. Starting again is always safe.
pub async fn start(client: &Client, start_up: StartUp) -> Result<Started, Error> {
    prepare(start_up).await?.start(client).await
}

/// The part of [`start`] that needs no cluster: makes the directory when it is missing, locks it, and
/// reads the marker. For log servers that look at their own files before they register.
///
/// # Errors
/// When the directory cannot be used, another process has it, or it is another log server's.
pub async fn prepare(start_up: StartUp) -> Result<Prepared, Error> {
    let path = start_up.dir.join(marker_file::FILE_NAME);
    blocking(path, move || {
        marker_file::make_dir(&start_up.dir)?;
        let lock = DirectoryLock::take(&start_up.dir)?;
        let on_disk = marker_file::read_durable(&start_up.dir)?;
        if let Some(found) = on_disk.as_ref().filter(|file| file.name != start_up.name) {
            return Err(Error::ForeignDirectory {
                path: start_up.dir.join(marker_file::FILE_NAME),
                found: format!("log server {:?}", found.name),
                expected: format!("{:?}", start_up.name),
            });
        }
        Ok(Prepared {
            start_up,
            on_disk,
            lock,
        })
    })
    .await
}

impl Prepared {
    /// True when an earlier start left a marker.
    pub fn has_marker(&self) -> bool {
        self.on_disk.is_some()
    }

    /// Registers and activates, see [`start`].
    ///
    /// # Errors
    /// See [`start`].
    pub async fn start(self, client: &Client) -> Result<Started, Error> {
        let Self {
            start_up,
            on_disk,
            lock,
        } = self;
        let cluster = client.cluster_id().await?;
        if let Some(file) = &on_disk {
            check_cluster(&start_up, file, cluster)?;
        }
        let shown = on_disk.as_ref().map(|file| file.marker);
        // The session is the log server's own from its first request on.
        let client = client.under(shown.unwrap_or_else(crate::fresh_marker));
        let answer = client
            .register(Register {
                name: start_up.name.clone(),
                marker: shown,
                address: start_up.address.clone(),
                location: start_up.location.clone(),
                cluster_id: Some(cluster.0),
            })
            .await?;
        let (node, incarnation) = match registered(&answer) {
            Ok(registered) => registered,
            Err(refused) => return refusal(&client, refused).await,
        };
        let marker = client.marker();
        if on_disk.is_none() {
            create_marker(&start_up, cluster, marker).await?;
        }
        // With a marker there was an earlier process, whose activation may have been applied. This
        // one repeats its own under the same tag only, and then the request must stay the same.
        let attempt = if on_disk.is_some() { 2 } else { 1 };
        let answer = client
            .activate(Activate {
                node,
                marker,
                incarnation,
                attempt,
            })
            .await?;
        let identity = Identity {
            name: start_up.name,
            node,
            incarnation,
            marker,
            client,
            _lock: Arc::new(lock),
        };
        activated(identity, answer).await
    }
}

fn check_cluster(start_up: &StartUp, file: &MarkerFile, asked: ClusterId) -> Result<(), Error> {
    if file.cluster == asked {
        return Ok(());
    }
    Err(Error::ForeignDirectory {
        path: start_up.dir.join(marker_file::FILE_NAME),
        found: format!("{:?} of cluster {}", file.name, file.cluster),
        expected: format!("cluster {asked}, which the endpoints lead to"),
    })
}

async fn create_marker(
    start_up: &StartUp,
    cluster: ClusterId,
    marker: Marker,
) -> Result<(), Error> {
    let dir = start_up.dir.clone();
    let path = dir.join(marker_file::FILE_NAME);
    let file = MarkerFile {
        name: start_up.name.clone(),
        cluster,
        marker,
    };
    blocking(path.clone(), move || {
        let kept = marker_file::create(&dir, &file)?;
        if kept == file {
            return Ok(());
        }
        // Someone who does not take the lock, as a restore from a backup.
        let problem = format!(
            "marker {} appeared while this log server was registering",
            kept.marker.short()
        );
        Err(MarkerFileError::Io { path, problem }.into())
    })
    .await
}

async fn blocking<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| MarkerFileError::Io {
        path,
        problem: error.to_string(),
    })?
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
        ("T-310" | "T-320", _) => Started::Conflict { refused },
        // T-330 in another state among them: the node is its own, and was moved elsewhere before.
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
