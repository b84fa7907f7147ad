//! What a log server is started with.

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tally_client::Client;

/// Free bytes below which the disk counts as full, unless told otherwise: room for the records that
/// are under way and for RocksDB to compact.
pub const FREE_BYTES_MIN_DEFAULT: u64 = 256 << 20;

/// How often free space is looked at, unless told otherwise.
pub const FREE_SPACE_CHECK_EVERY_DEFAULT: Duration = Duration::from_secs(1);

/// Finds the bytes that are free for ordinary users on the disk that holds a directory.
pub type FreeBytes = Arc<dyn Fn(&Path) -> io::Result<u64> + Send + Sync>;

/// What a log server is started with.
pub struct LogServerOptions {
    /// Its unique name in the cluster.
    pub name: String,
    /// Marker and records are kept here.
    pub data_dir: PathBuf,
    /// Where it serves.
    pub listen: TcpListener,
    /// Where its clients reach it, HOST:PORT; told to the cluster.
    pub advertise: String,
    /// `region` or `region.zone`; empty when unknown.
    pub location: String,
    /// How it reaches the cluster.
    pub client: Client,
    /// Free bytes below which it makes itself read-only; 0: only when a write finds no room.
    pub free_bytes_min: u64,
    /// How often free space is looked at.
    pub free_space_check_every: Duration,
    /// How free space is found: `statvfs`, unless a test says otherwise.
    pub free_bytes: FreeBytes,
}

impl LogServerOptions {
    /// Defaults, and the listener's own address as the one to advertise.
    pub fn new(
        name: impl Into<String>,
        data_dir: impl Into<PathBuf>,
        listen: TcpListener,
        client: Client,
    ) -> Self {
        let address = listen.local_addr().map(|address| address.to_string());
        Self {
            name: name.into(),
            data_dir: data_dir.into(),
            advertise: address.unwrap_or_default(),
            location: String::new(),
            listen,
            client,
            free_bytes_min: FREE_BYTES_MIN_DEFAULT,
            free_space_check_every: FREE_SPACE_CHECK_EVERY_DEFAULT,
            free_bytes: Arc::new(statvfs),
        }
    }
}

impl fmt::Debug for LogServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogServerOptions")
            .field("name", &self.name)
            .field("data_dir", &self.data_dir)
            .field("advertise", &self.advertise)
            .finish_non_exhaustive()
    }
}

fn statvfs(dir: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(dir)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}
