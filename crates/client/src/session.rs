//! A session's numbers: which are given out, which are still in doubt, and what may be acknowledged.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tally_model::Marker;
use tally_proto::v1;

use crate::token::TagToken;

/// From the oldest unanswered request to the newest. The cluster holds an outcome for each, and by
/// default 1024 of them; past this the client goes on under another session.
const UNACKNOWLEDGED_MAX: u64 = 512;

/// One requester's numbered requests, as the requester sees them.
#[derive(Debug)]
pub(crate) struct Session {
    id: u64,
    marker: Marker,
    numbers: Mutex<Numbers>,
}

#[derive(Debug)]
struct Numbers {
    /// Given out last; 0 before the first.
    last: u64,
    /// Given out and neither answered nor known to have never been applied.
    open: BTreeSet<u64>,
}

impl Numbers {
    /// Every request with a smaller sequence is answered.
    fn acknowledged(&self) -> u64 {
        self.open.first().copied().unwrap_or(self.last + 1)
    }
}

impl Session {
    pub(crate) fn new(id: u64, marker: Marker) -> Self {
        let numbers = Numbers {
            last: 0,
            open: BTreeSet::new(),
        };
        Self {
            id,
            marker,
            numbers: Mutex::new(numbers),
        }
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when too many outcomes would be held for it.
    pub(crate) fn is_worn(&self) -> bool {
        let numbers = self.numbers();
        numbers.last + 1 - numbers.acknowledged() >= UNACKNOWLEDGED_MAX
    }

    /// The next request's number.
    pub(crate) fn ticket(self: &Arc<Self>) -> Ticket {
        let mut numbers = self.numbers();
        numbers.last += 1;
        let sequence = numbers.last;
        numbers.open.insert(sequence);
        Ticket {
            session: self.clone(),
            sequence,
            acknowledged: numbers.acknowledged(),
            may_be_applied: false,
        }
    }

    /// A request in doubt was settled.
    pub(crate) fn settled(&self, token: &TagToken) {
        if (token.session, token.marker) == (self.id, self.marker) {
            self.numbers().open.remove(&token.sequence);
        }
    }
}

/// One request's number. When it is dropped unanswered, as happens when the caller stops waiting, and
/// may have been sent, it stays unacknowledged, so that its outcome can still be asked for.
#[derive(Debug)]
pub(crate) struct Ticket {
    session: Arc<Session>,
    sequence: u64,
    acknowledged: u64,
    may_be_applied: bool,
}

impl Ticket {
    /// The tag, the same for every attempt.
    pub(crate) fn tag(&self) -> v1::Tag {
        v1::Tag {
            session: self.session.id,
            sequence: self.sequence,
            acknowledged: self.acknowledged,
            marker: Some(self.session.marker.into()),
        }
    }

    /// The tag for a person to keep.
    pub(crate) fn token(&self) -> TagToken {
        TagToken {
            session: self.session.id,
            sequence: self.sequence,
            marker: self.session.marker,
        }
    }

    /// From now on an attempt may be under way.
    pub(crate) fn sending(&mut self) {
        self.may_be_applied = true;
    }

    /// It was answered, or is certain never to be applied.
    pub(crate) fn done(mut self) {
        self.may_be_applied = false;
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.may_be_applied {
            self.session.numbers().open.remove(&self.sequence);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Arc<Session> {
        let marker = Marker {
            bits: 1,
            created_unix_ms: 1,
        };
        Arc::new(Session::new(7, marker))
    }

    fn sent(session: &Arc<Session>) -> Ticket {
        let mut ticket = session.ticket();
        ticket.sending();
        ticket
    }

    #[test]
    fn only_what_has_no_unanswered_request_before_it_is_acknowledged() {
        let session = session();
        let (one, two, three) = (sent(&session), sent(&session), sent(&session));
        assert_eq!(
            [one.tag(), two.tag(), three.tag()].map(|tag| (tag.sequence, tag.acknowledged)),
            [(1, 1), (2, 1), (3, 1)]
        );
        two.done();
        assert_eq!(sent(&session).tag().acknowledged, 1);
        one.done();
        let five = sent(&session);
        assert_eq!((five.tag().sequence, five.tag().acknowledged), (5, 3));
        three.done();
        // The fourth was dropped while it may have been under way.
        assert_eq!(sent(&session).tag().acknowledged, 4);
    }

    #[test]
    fn a_tag_does_not_change_while_others_are_answered() {
        let session = session();
        let (one, two) = (sent(&session), sent(&session));
        let before = two.tag();
        one.done();
        assert_eq!(two.tag(), before);
    }

    #[test]
    fn a_request_in_doubt_is_unacknowledged_until_it_is_settled() {
        let session = session();
        let token = {
            let ticket = sent(&session);
            ticket.token()
        };
        assert_eq!(sent(&session).tag().acknowledged, 1);
        session.settled(&token);
        assert_eq!(sent(&session).tag().acknowledged, 2);
    }

    #[test]
    fn a_request_that_was_never_sent_is_forgotten() {
        let session = session();
        drop(session.ticket());
        assert_eq!(session.ticket().tag().acknowledged, 2);
    }

    #[test]
    fn a_session_is_worn_when_an_old_request_stays_in_doubt() {
        let session = session();
        drop(sent(&session));
        for _ in 0..UNACKNOWLEDGED_MAX - 2 {
            sent(&session).done();
            assert!(!session.is_worn());
        }
        sent(&session).done();
        assert!(session.is_worn());
    }

    #[test]
    fn concurrent_requests_never_acknowledge_one_that_is_unanswered() {
        let session = session();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let ticket = sent(&session);
                        let tag = sent(&session).tag();
                        assert!(tag.acknowledged <= ticket.tag().sequence);
                        session.settled(&TagToken {
                            sequence: tag.sequence,
                            ..ticket.token()
                        });
                        ticket.done();
                    }
                });
            }
        });
        assert_eq!(session.numbers().open.len(), 0);
        assert_eq!(session.ticket().tag().acknowledged, 4001);
    }
}
