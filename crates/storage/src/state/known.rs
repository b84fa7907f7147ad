//! What entries look at again and again, so that it need not be read and decoded for each of them.

use std::collections::BTreeSet;

use quick_cache::unsync::Cache;
use tally_model::{Globals, Sequence, Session, SessionId};

use super::cache::RowCache;
use super::parts::KnownParts;

/// Sessions that are known decoded.
const SESSIONS_MAX: usize = 1_024;
/// Sessions of which all outcomes are known by their numbers: those with several requests under way.
const HOLDERS_MAX: usize = 128;

/// What is known of the state. Its rows are those that the last batch left; everything else is as the
/// last entry left it, although that one may wait to be written.
pub(super) struct Known {
    pub(super) rows: RowCache,
    globals: Option<Globals>,
    sessions: Cache<SessionId, Session>,
    held: Cache<SessionId, BTreeSet<Sequence>>,
    pub(super) parts: KnownParts,
    /// A batch has begun.
    ahead: bool,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            rows: RowCache::default(),
            globals: None,
            sessions: Cache::new(SESSIONS_MAX),
            held: Cache::new(HOLDERS_MAX),
            parts: KnownParts::default(),
            ahead: false,
        }
    }
}

impl Known {
    /// A batch begins. What one before it may have left that was never written is forgotten.
    pub(super) fn begin(&mut self) {
        if self.ahead {
            self.clear();
        }
        self.ahead = true;
    }

    /// The batch was written, and its rows were noted.
    pub(super) fn written(&mut self) {
        self.ahead = false;
    }

    /// Forgets everything: another state stands.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn globals(&self) -> Option<&Globals> {
        self.globals.as_ref()
    }

    pub(super) fn set_globals(&mut self, globals: Globals) {
        self.globals = Some(globals);
    }

    pub(super) fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id)
    }

    pub(super) fn set_session(&mut self, session: Session) {
        self.sessions.insert(session.id, session);
    }

    pub(super) fn forget_session(&mut self, id: SessionId) {
        self.sessions.remove(&id);
        self.held.remove(&id);
    }

    /// All outcomes that a session holds; `None` when they are not known.
    pub(super) fn held(&self, session: SessionId) -> Option<&BTreeSet<Sequence>> {
        self.held.get(&session)
    }

    pub(super) fn set_held(&mut self, session: SessionId, held: BTreeSet<Sequence>) {
        self.held.insert(session, held);
    }

    pub(super) fn outcome_stored(&mut self, session: SessionId, sequence: Sequence) {
        if let Some(mut held) = self.held.get_mut(&session) {
            held.insert(sequence);
        }
    }

    pub(super) fn outcome_removed(&mut self, session: SessionId, sequence: Sequence) {
        if let Some(mut held) = self.held.get_mut(&session) {
            held.remove(&sequence);
        }
    }
}
