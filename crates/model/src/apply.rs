//! The state machine: one entry in, its answer and its changes out.

use crate::change::Change;
use crate::command::{Command, Found, Request, Tagged};
use crate::draft::Draft;
use crate::identifier::{NodeId, Stamp};
use crate::outcome::{Answer, Effect, Outcome};
use crate::refusal::Refusal;
use crate::view::View;
use crate::{activate, keys, lease, register, session, transition};

/// Decides one request. The same view, stamp and request give the same answer and the same changes
/// on every member, for ever.
pub fn apply(view: &impl View, stamp: Stamp, request: &Request) -> (Answer, Vec<Change>) {
    let mut draft = Draft::new(view, stamp);
    let (outcome, repeat) = decide(&mut draft, request);
    let now = subject(&request.command, &outcome).and_then(|node| draft.storage_state_after(node));
    let answer = Answer {
        outcome,
        repeat,
        now,
        revision: draft.globals.revision,
    };
    (answer, draft.finish())
}

/// The outcome, and whether it is that of an earlier time.
fn decide(draft: &mut Draft<impl View>, request: &Request) -> (Outcome, bool) {
    let fresh = |outcome| (outcome, false);
    let founded = draft.globals.founded.is_some();
    match (&request.tagged, &request.command) {
        (None, Command::Found(ask)) => fresh(found(draft, ask)),
        _ if !founded => fresh(Outcome::Refused(Refusal::NotFounded)),
        (None, Command::OpenSession(ask)) => fresh(session::open(draft, ask)),
        (None, Command::ReclaimVersions) => fresh(keys::reclaim(draft)),
        (None, Command::RenewLease(id)) => fresh(lease::renew(draft, *id)),
        (None, Command::PassLeaseTime(ask)) => fresh(lease::pass_time(draft, ask)),
        (None, _) => fresh(Outcome::Refused(Refusal::TagExpected { expected: true })),
        (
            Some(_),
            Command::Found(_)
            | Command::OpenSession(_)
            | Command::RenewLease(_)
            | Command::PassLeaseTime(_)
            | Command::ReclaimVersions,
        ) => fresh(Outcome::Refused(Refusal::TagExpected { expected: false })),
        (Some(tagged), command) => session::once(draft, tagged, command),
    }
}

/// Runs a command whose tag was not seen before.
pub(crate) fn dispatch(
    draft: &mut Draft<impl View>,
    tagged: &Tagged,
    command: &Command,
) -> Outcome {
    match command {
        Command::RegisterNode(ask) => register::register(draft, tagged.tag, ask),
        Command::ActivateNode(ask) => activate::activate(draft, tagged.tag, ask),
        Command::SetStorageState(ask) => transition::set_storage_state(draft, tagged.tag, ask),
        Command::CloseSession => session::close(draft, tagged.tag.session),
        Command::SettleRequest => Outcome::Refused(Refusal::Abandoned),
        Command::Keys(op) => keys::run(draft, op),
        Command::Compact(ask) => keys::compact(draft, ask.revision),
        Command::GrantLease(ask) => lease::grant(draft, ask),
        Command::RevokeLease(id) => lease::revoke(draft, *id),
        Command::Found(_)
        | Command::OpenSession(_)
        | Command::RenewLease(_)
        | Command::PassLeaseTime(_)
        | Command::ReclaimVersions => Outcome::Refused(Refusal::TagExpected { expected: false }),
    }
}

fn found(draft: &mut Draft<impl View>, ask: &Found) -> Outcome {
    if draft.globals.founded.is_some() {
        return Outcome::Refused(Refusal::AlreadyFounded);
    }
    draft.globals.founded = Some((ask.cluster, ask.settings.clone()));
    Outcome::Applied {
        revision: draft.globals.revision,
        effect: Effect::Founded,
    }
}

/// The node whose state the requester wants to know.
fn subject(command: &Command, outcome: &Outcome) -> Option<NodeId> {
    let of_outcome = match outcome {
        Outcome::Applied { effect, .. } | Outcome::Replayed { effect, .. } => match effect {
            Effect::NodeRegistered { node, .. }
            | Effect::NodeActivated { node, .. }
            | Effect::StorageStateSet { node, .. } => Some(*node),
            Effect::Founded
            | Effect::SessionOpened { .. }
            | Effect::SessionClosed
            | Effect::Keys(_)
            | Effect::Compacted
            | Effect::VersionsReclaimed { .. }
            | Effect::LeaseGranted { .. }
            | Effect::LeaseRevoked
            | Effect::LeaseRenewed { .. }
            | Effect::LeaseTimePassed { .. } => None,
        },
        Outcome::Refused(refusal) => refusal.node(),
    };
    of_outcome.or(match command {
        Command::ActivateNode(ask) => Some(ask.node),
        Command::SetStorageState(ask) => Some(ask.node),
        Command::Found(_)
        | Command::OpenSession(_)
        | Command::CloseSession
        | Command::SettleRequest
        | Command::RegisterNode(_)
        | Command::Keys(_)
        | Command::Compact(_)
        | Command::GrantLease(_)
        | Command::RevokeLease(_)
        | Command::RenewLease(_)
        | Command::PassLeaseTime(_)
        | Command::ReclaimVersions => None,
    })
}
