//! The store under test: founded, with one session, and what it has told of its keys.

use tally_model::command::{Found, OpenSession};
use tally_model::memory::MemoryState;
use tally_model::{
    Answer, Change, ClusterId, Command, Effect, EventId, KeyEvent, Marker, Outcome, Request,
    SessionId, Settings, Stamp, Tag, Tagged, apply,
};

const MARKER: Marker = Marker {
    bits: 0xa,
    created_unix_ms: 1,
};

/// A founded store with one session.
pub(crate) struct Store {
    pub(crate) state: MemoryState,
    /// What each entry did to keys, whole, as whoever watches is told of it.
    pub(crate) told: Vec<(EventId, KeyEvent)>,
    index: u64,
    sequence: u64,
}

impl Store {
    pub(crate) fn new() -> Self {
        let mut store = Self {
            state: MemoryState::default(),
            told: Vec::new(),
            index: 0,
            sequence: 0,
        };
        store.enter(
            None,
            Command::Found(Found {
                cluster: ClusterId(1),
                settings: Settings::default(),
            }),
        );
        store.enter(None, Command::OpenSession(OpenSession { marker: MARKER }));
        store
    }

    fn enter(&mut self, tagged: Option<Tagged>, command: Command) -> Answer {
        self.index += 1;
        let stamp = Stamp {
            index: self.index,
            unix_ms: 1_000,
        };
        let (answer, changes) = apply(&self.state, stamp, &Request { tagged, command });
        for change in changes {
            change.write_to(&mut self.state);
            if let Change::KeyChanged { id, event } = change {
                self.told.push((id, event));
            }
        }
        answer
    }

    /// Enters a command with a tag if it needs one.
    pub(crate) fn ask(&mut self, command: Command) -> Answer {
        if !needs_tag(&command) {
            return self.enter(None, command);
        }
        self.sequence += 1;
        let tagged = Tagged {
            tag: Tag {
                session: SessionId(2),
                sequence: self.sequence,
            },
            marker: Some(MARKER),
            acknowledged: self.sequence,
            digest: 0,
        };
        self.enter(Some(tagged), command)
    }
}

/// False for what does no harm when it arrives twice.
pub(crate) fn needs_tag(command: &Command) -> bool {
    !matches!(
        command,
        Command::RenewLease(_) | Command::PassLeaseTime(_) | Command::ReclaimVersions
    )
}

/// What took effect and at which revision, or the code of the refusal.
pub(crate) fn result(outcome: &Outcome) -> Result<(u64, Effect), &'static str> {
    match outcome {
        Outcome::Applied { revision, effect } => Ok((revision.0, effect.clone())),
        Outcome::Refused(refusal) => Err(refusal.code()),
        Outcome::Replayed { .. } => panic!("each tag is used once: {outcome:?}"),
    }
}
