//! The checker must reject what cannot have been.

use v1::answer::Outcome;

use super::*;
use crate::call::Call;
use crate::load::{Seen, Sent};
use tally_proto::v1::{self, StorageState};

const MARKER: &[u8] = b"sixteen bytes...";

/// A history in the making: every operation begins and ends at a given millisecond.
struct Story {
    begin: Instant,
    recorded: Recorded,
}

impl Story {
    fn new() -> Self {
        Self {
            begin: Instant::now(),
            recorded: Recorded::default(),
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.begin + Duration::from_millis(ms)
    }

    fn sent(&mut self, from: u64, call: Call, answered: Option<(u64, v1::Answer)>) -> &mut Self {
        let answered = answered.map(|(ms, answer)| (self.at(ms), answer));
        self.recorded.sent.push(Sent {
            name: "ls1".to_owned(),
            call,
            invoked: self.at(from),
            attempts: 1,
            answered,
        });
        self
    }

    fn seen(&mut self, (from, to): (u64, u64), node: v1::Node) -> &mut Self {
        self.recorded.seen.push(Seen {
            name: "ls1".to_owned(),
            invoked: self.at(from),
            returned: self.at(to),
            node: Some(node),
        });
        self
    }

    /// Registered at r2 and activated at r3, in the first 40 ms.
    fn activated() -> Self {
        let mut story = Self::new();
        story.sent(
            0,
            register(),
            Some((10, applied(2, StorageState::Provisioning))),
        );
        story.sent(
            20,
            activate(),
            Some((30, applied(3, StorageState::ReadWrite))),
        );
        story
    }
}

fn marker() -> Option<v1::Marker> {
    Some(v1::Marker {
        bits: MARKER.to_vec(),
        created_unix_ms: 1,
    })
}

fn register() -> Call {
    Call::Register(v1::RegisterRequest {
        marker: marker(),
        ..Default::default()
    })
}

fn activate() -> Call {
    Call::Activate(v1::ActivateRequest {
        marker: marker(),
        incarnation: 1,
        ..Default::default()
    })
}

fn operator(expected_revision: u64, to: StorageState) -> Call {
    let operator = v1::OperatorActor {
        expected_revision,
        force: None,
    };
    Call::SetState(v1::SetStateRequest {
        to: to.into(),
        actor: Some(v1::set_state_request::Actor::ByOperator(operator)),
        ..Default::default()
    })
}

fn own(to: StorageState) -> Call {
    let node = v1::NodeActor {
        marker: marker(),
        incarnation: 1,
    };
    Call::SetState(v1::SetStateRequest {
        to: to.into(),
        actor: Some(v1::set_state_request::Actor::ByNode(node)),
        ..Default::default()
    })
}

fn answer(outcome: Outcome, repeat: bool, now: StorageState) -> v1::Answer {
    v1::Answer {
        outcome: Some(outcome),
        repeat,
        now: now.into(),
        revision: 0,
    }
}

fn applied(revision: u64, now: StorageState) -> v1::Answer {
    let applied = v1::Applied {
        revision,
        effect: None,
    };
    answer(Outcome::Applied(applied), false, now)
}

fn repeated(since: u64, now: StorageState) -> v1::Answer {
    let replayed = v1::Replayed {
        since,
        effect: None,
    };
    answer(Outcome::Replayed(replayed), true, now)
}

fn refused(code: &str) -> v1::Answer {
    let refused = v1::Refused {
        code: code.to_owned(),
        ..Default::default()
    };
    answer(Outcome::Refused(refused), false, StorageState::Unspecified)
}

fn node(state: StorageState, revision: u64, set_by: v1::Actor) -> v1::Node {
    v1::Node {
        state: state.into(),
        incarnation: 1,
        binding: Some(v1::Binding {
            marker: marker(),
            since: 3,
        }),
        set_by: set_by.into(),
        revision,
        state_revision: revision,
        ..Default::default()
    }
}

fn said(story: &Story) -> String {
    match story.recorded.linearizable() {
        Ok(searched) => searched.to_string(),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn a_history_as_it_should_be_is_accepted() {
    let mut story = Story::activated();
    let read_only = operator(3, StorageState::ReadOnly);
    story.sent(
        40,
        read_only,
        Some((60, applied(5, StorageState::ReadOnly))),
    );
    // Reads beside the change may see it or not.
    story.seen((41, 59), node(StorageState::ReadWrite, 3, v1::Actor::Node));
    story.seen(
        (42, 58),
        node(StorageState::ReadOnly, 5, v1::Actor::Operator),
    );
    story.seen(
        (70, 80),
        node(StorageState::ReadOnly, 5, v1::Actor::Operator),
    );
    // The answer of the activation's repeat tells the state of today.
    story.sent(
        90,
        activate(),
        Some((95, repeated(3, StorageState::ReadOnly))),
    );
    story.sent(
        96,
        own(StorageState::ReadWrite),
        Some((97, refused("T-412"))),
    );
    assert_eq!(
        said(&story),
        "5 answered commands, 3 reads and 0 commands without an answer on 1 nodes are linearizable"
    );
}

#[test]
fn a_history_of_nothing_is_too_little() -> Result<()> {
    let mut story = Story::activated();
    story.sent(40, operator(3, StorageState::ReadOnly), None);
    let searched = story.recorded.linearizable()?;
    assert!(searched.at_least(2, 0).is_ok());
    assert!(searched.at_least(3, 0).is_err());
    assert!(searched.at_least(2, 1).is_err());
    Ok(())
}

#[test]
fn a_stale_read_is_rejected() {
    let mut story = Story::activated();
    let read_only = operator(3, StorageState::ReadOnly);
    story.sent(
        40,
        read_only,
        Some((60, applied(5, StorageState::ReadOnly))),
    );
    story.seen((61, 70), node(StorageState::ReadWrite, 3, v1::Actor::Node));
    assert!(
        said(&story).contains("not linearizable"),
        "{}",
        said(&story)
    );
}

#[test]
fn reads_that_go_back_in_time_are_rejected() {
    let mut story = Story::activated();
    let read_only = operator(3, StorageState::ReadOnly);
    story.sent(
        40,
        read_only,
        Some((90, applied(5, StorageState::ReadOnly))),
    );
    story.seen(
        (41, 50),
        node(StorageState::ReadOnly, 5, v1::Actor::Operator),
    );
    story.seen((51, 60), node(StorageState::ReadWrite, 3, v1::Actor::Node));
    assert!(
        said(&story).contains("not linearizable"),
        "{}",
        said(&story)
    );
}

#[test]
fn a_command_that_was_answered_and_lost_is_rejected() {
    let mut story = Story::activated();
    let read_only = operator(3, StorageState::ReadOnly);
    story.sent(
        40,
        read_only.clone(),
        Some((50, applied(5, StorageState::ReadOnly))),
    );
    // What it expects was true only before the first one.
    story.sent(
        60,
        read_only,
        Some((70, applied(6, StorageState::ReadOnly))),
    );
    assert!(
        said(&story).contains("not linearizable"),
        "{}",
        said(&story)
    );
}

#[test]
fn a_late_retry_that_takes_back_what_came_after_is_rejected() {
    let mut story = Story::activated();
    let read_only = operator(3, StorageState::ReadOnly);
    story.sent(
        40,
        read_only,
        Some((60, applied(5, StorageState::ReadOnly))),
    );
    story.sent(
        70,
        activate(),
        Some((80, repeated(3, StorageState::ReadWrite))),
    );
    story.seen((81, 90), node(StorageState::ReadWrite, 6, v1::Actor::Node));
    assert!(
        said(&story).contains("not linearizable"),
        "{}",
        said(&story)
    );
}

#[test]
fn what_was_not_answered_may_have_happened_late_or_never() {
    let read_only = operator(3, StorageState::ReadOnly);
    let mut late = Story::activated();
    late.sent(40, read_only.clone(), None);
    late.seen((50, 60), node(StorageState::ReadWrite, 3, v1::Actor::Node));
    let never = said(&late);
    assert!(never.contains("are linearizable"), "{never}");
    late.seen(
        (70, 80),
        node(StorageState::ReadOnly, 9, v1::Actor::Operator),
    );
    let once = said(&late);
    assert!(once.contains("are linearizable"), "{once}");

    // But not undone again, and not before it was asked for.
    late.seen((90, 95), node(StorageState::ReadWrite, 3, v1::Actor::Node));
    assert!(said(&late).contains("not linearizable"), "{}", said(&late));
    let mut early = Story::activated();
    early.seen(
        (35, 38),
        node(StorageState::ReadOnly, 9, v1::Actor::Operator),
    );
    early.sent(40, read_only, None);
    assert!(
        said(&early).contains("not linearizable"),
        "{}",
        said(&early)
    );
}

#[test]
fn not_to_know_is_a_failure() {
    let mut story = Story::activated();
    // Any of these may have happened in any order, and none explains the last read.
    for _ in 0..20 {
        story.sent(40, own(StorageState::ReadOnly), None);
        story.sent(40, own(StorageState::ReadWrite), None);
    }
    story.seen((70, 80), node(StorageState::Gone, 99, v1::Actor::Operator));
    let recorded = &story.recorded;
    let searched = recorded.linearizable_within(Duration::from_millis(200));
    let said = searched.map_or_else(
        |error| format!("{error:#}"),
        |searched| searched.to_string(),
    );
    assert!(said.starts_with("unknown whether"), "{said}");
}
