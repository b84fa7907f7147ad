//! How many files this process may have open: each connection is one, and so is each table of RocksDB,
//! which a flood of connections must not starve.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a process may at least open, where the system sets no bound or does not say.
const FILES_MAX: u64 = 1 << 20;

/// Raises the soft limit to the hard one, as a server should: the soft one is low for the sake of
/// programs that use `select`. Returns what holds from now on.
pub fn raise_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(FILES_MAX).min(FILES_MAX);
    if current.is_some_and(|current| current < wanted) {
        let raised = Rlimit {
            current: Some(wanted),
            maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, wanted, "the limit of open files cannot be raised");
        }
    }
    limit()
}

/// Files that may be open.
pub(crate) fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(FILES_MAX)
}
