//! Sessions and the recognition of repeats.

use crate::apply::dispatch;
use crate::change::Change;
use crate::command::{Command, OpenSession, Tagged};
use crate::draft::Draft;
use crate::identifier::{Marker, Sequence, SessionId};
use crate::outcome::{Effect, Outcome};
use crate::refusal::Refusal;
use crate::view::View;

/// One requester's numbered requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub id: SessionId,
    pub marker: Marker,
    /// Stamped time, milliseconds since 1970.
    pub opened_unix_ms: u64,
    /// Stamped time of a recent use; may lag by an eighth of the idle time.
    pub used_unix_ms: u64,
    /// Every sequence below is answered and forgotten. At least 1.
    pub acknowledged: Sequence,
    /// Outcomes held now.
    pub outcomes_held: u64,
}

/// The remembered outcome of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredOutcome {
    /// `None` when the tag was settled before its request arrived.
    pub digest: Option<u128>,
    pub outcome: Outcome,
}

/// A session's time of last use is written once this part of the idle time has passed, so that
/// not every command writes it.
const USE_NOTED_AFTER_FRACTION: u64 = 8;

/// Opens a session. Makes room by ending the least recently used one when that is idle for too
/// long or when the table is full.
pub(crate) fn open(draft: &mut Draft<impl View>, ask: &OpenSession) -> Outcome {
    let settings = draft.settings();
    if let Some(oldest) = draft.view.least_recently_used_session() {
        let idle = is_idle(draft, &oldest, settings.session_idle_ms);
        if idle || draft.globals.sessions >= settings.sessions_max {
            end(draft, oldest.id);
        }
    }
    let session = SessionId(draft.stamp.index);
    let now = draft.unix_ms();
    draft.globals.sessions += 1;
    draft.push(Change::SessionOpened {
        session: Session {
            id: session,
            marker: ask.marker,
            opened_unix_ms: now,
            used_unix_ms: now,
            acknowledged: 1,
            outcomes_held: 0,
        },
    });
    Outcome::Applied {
        revision: draft.globals.revision,
        effect: Effect::SessionOpened { session },
    }
}

/// Ends a session and forgets its outcomes; every tag of it is refused from now on.
pub(crate) fn close(draft: &mut Draft<impl View>, session: SessionId) -> Outcome {
    end(draft, session);
    Outcome::Applied {
        revision: draft.globals.revision,
        effect: Effect::SessionClosed,
    }
}

/// Runs a tagged command at most once: a repeat gets the outcome of the first time.
///
/// Looks at replicated state only, at the time of apply, so that a repeat is recognised whichever
/// member it reaches and however often it was appended (Raft dissertation, section 6.3).
pub(crate) fn once(
    draft: &mut Draft<impl View>,
    tagged: &Tagged,
    command: &Command,
) -> (Outcome, bool) {
    let mut session = match admit(draft, tagged) {
        Ok(session) => session,
        Err(refusal) => return (Outcome::Refused(refusal), false),
    };
    let before = session.clone();
    acknowledge(draft, &mut session, tagged.acknowledged);
    note_use(draft, &mut session);

    let sequence = tagged.tag.sequence;
    // Most requesters hold none when they send the next request: no look at the table is needed then.
    let stored = match session.outcomes_held {
        0 => None,
        _ => draft.view.stored_outcome(session.id, sequence),
    };
    let (outcome, repeat) = if sequence < session.acknowledged {
        let acknowledged = session.acknowledged;
        (
            Outcome::Refused(Refusal::AlreadyAcknowledged { acknowledged }),
            false,
        )
    } else if let Some(stored) = stored {
        replay(&stored, tagged, command)
    } else if matches!(command, Command::CloseSession) {
        return (dispatch(draft, tagged, command), false);
    } else {
        (first_time(draft, &mut session, tagged, command), false)
    };
    if session != before {
        draft.push(Change::SessionUsed { session });
    }
    (outcome, repeat)
}

/// The session that the tag names, if it lives and the requester shows its marker.
fn admit(draft: &mut Draft<impl View>, tagged: &Tagged) -> Result<Session, Refusal> {
    let id = tagged.tag.session;
    let Some(session) = draft.view.session(id) else {
        return Err(Refusal::SessionExpired { session: id });
    };
    if tagged.marker.is_some_and(|shown| shown != session.marker) {
        return Err(Refusal::SessionMarkerMismatch { session: id });
    }
    if is_idle(draft, &session, draft.settings().session_idle_ms) {
        end(draft, id);
        return Err(Refusal::SessionExpired { session: id });
    }
    Ok(session)
}

fn is_idle(draft: &Draft<impl View>, session: &Session, idle_ms: u64) -> bool {
    draft.unix_ms().saturating_sub(session.used_unix_ms) > idle_ms
}

/// Forgets outcomes that the requester has seen.
fn acknowledge(draft: &mut Draft<impl View>, session: &mut Session, acknowledged: Sequence) {
    if acknowledged <= session.acknowledged {
        return;
    }
    // Everything below the old mark was forgotten when it was set.
    let newly = session.acknowledged..acknowledged;
    session.acknowledged = acknowledged;
    for sequence in draft.view.stored_sequences(session.id, newly) {
        session.outcomes_held -= 1;
        draft.push(Change::OutcomeForgotten {
            session: session.id,
            sequence,
        });
    }
}

fn note_use(draft: &Draft<impl View>, session: &mut Session) {
    let fraction = draft.settings().session_idle_ms / USE_NOTED_AFTER_FRACTION;
    if draft.unix_ms().saturating_sub(session.used_unix_ms) >= fraction {
        session.used_unix_ms = draft.unix_ms();
    }
}

/// Answers a tag that was answered before.
fn replay(stored: &StoredOutcome, tagged: &Tagged, command: &Command) -> (Outcome, bool) {
    if let Some(stored_digest) = stored.digest
        && stored_digest != tagged.digest
        && !matches!(command, Command::SettleRequest)
    {
        let offered_digest = tagged.digest;
        return (
            Outcome::Refused(Refusal::RequestReused {
                stored_digest,
                offered_digest,
            }),
            false,
        );
    }
    let outcome = match stored.outcome.clone() {
        Outcome::Applied {
            revision: since,
            effect,
        } => Outcome::Replayed { since, effect },
        outcome @ (Outcome::Replayed { .. } | Outcome::Refused(_)) => outcome,
    };
    (outcome, true)
}

/// Runs the command and stores its outcome beside its effect.
fn first_time(
    draft: &mut Draft<impl View>,
    session: &mut Session,
    tagged: &Tagged,
    command: &Command,
) -> Outcome {
    let allowed = draft.settings().outcomes_per_session_max;
    if session.outcomes_held >= allowed {
        return Outcome::Refused(Refusal::TooManyUnacknowledged {
            held: session.outcomes_held,
            allowed,
        });
    }
    let outcome = dispatch(draft, tagged, command);
    let settled = matches!(command, Command::SettleRequest);
    session.outcomes_held += 1;
    draft.push(Change::OutcomeStored {
        session: session.id,
        sequence: tagged.tag.sequence,
        stored: StoredOutcome {
            digest: (!settled).then_some(tagged.digest),
            outcome: outcome.clone(),
        },
    });
    outcome
}

fn end(draft: &mut Draft<impl View>, session: SessionId) {
    let held_from = draft
        .view
        .session(session)
        .map_or(1, |one| one.acknowledged);
    let held = held_from..Sequence::MAX;
    for sequence in draft.view.stored_sequences(session, held) {
        draft.push(Change::OutcomeForgotten { session, sequence });
    }
    draft.globals.sessions -= 1;
    draft.push(Change::SessionEnded { session });
}
