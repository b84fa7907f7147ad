//! What waits for the writer thread.

use std::collections::VecDeque;
use std::io;

use tally_proto::storage::{LogId, Vote};

use super::entry::Record;

/// Operations that may wait; callers wait for room beyond it.
const QUEUE_OPERATIONS_MAX: usize = 8_192;

/// Bytes of entries that may wait; callers wait for room beyond it. One larger append still passes.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Bytes of entries gathered into one write, one operation at least.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// Told once what became of an operation.
pub(super) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// One change of the log, and who waits for it.
pub(super) struct Operation {
    pub(super) action: Action,
    pub(super) done: Done,
}

/// How the disk is to change.
pub(super) enum Action {
    /// It stands already; only its turn is waited for.
    Nothing,
    Append {
        records: Vec<Record>,
        last: LogId,
        /// Present when the log was empty and now begins here.
        begins: Option<u64>,
    },
    Vote(Vote),
    /// Entries after `last` go.
    Truncate {
        last: Option<LogId>,
    },
    /// Entries up to `through` go.
    Purge {
        through: LogId,
    },
}

impl Action {
    fn bytes(&self) -> usize {
        match self {
            Self::Append { records, .. } => records.iter().map(|record| record.bytes.len()).sum(),
            Self::Nothing | Self::Vote(_) | Self::Truncate { .. } | Self::Purge { .. } => 0,
        }
    }
}

/// Operations in the order in which readers saw their changes.
#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<Operation>,
    bytes: usize,
    /// Number of the newest operation; the first is 1.
    newest: u64,
    /// The committed id differs from what was written.
    pub(super) committed_changed: bool,
    /// The last handle is gone: write what waits, and end.
    pub(super) stopping: bool,
}

impl Queue {
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= QUEUE_OPERATIONS_MAX || self.bytes >= QUEUE_BYTES_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The number that the next operation will have.
    pub(super) fn next_number(&self) -> u64 {
        self.newest + 1
    }

    pub(super) fn push(&mut self, operation: Operation) {
        self.newest += 1;
        self.bytes += operation.action.bytes();
        self.waiting.push_back(operation);
    }

    /// The oldest operations, up to the bound of a group, and the number of the last of them.
    pub(super) fn take_group(&mut self) -> (Vec<Operation>, u64) {
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some(operation) = self.waiting.pop_front() {
            bytes += operation.action.bytes();
            group.push(operation);
            if bytes >= GROUP_BYTES_MAX {
                break;
            }
        }
        self.bytes -= bytes;
        (group, self.newest - self.waiting.len() as u64)
    }
}
