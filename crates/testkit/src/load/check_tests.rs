//! The check must notice what it is for.

use std::time::Instant;

use super::*;
use crate::call::Call;

fn entry(revision: u64, sequence: u64, event: Event) -> v1::HistoryEntry {
    v1::HistoryEntry {
        revision,
        node: 1,
        session: 5,
        sequence,
        event: Some(event),
        ..Default::default()
    }
}

fn registered(incarnation: u64) -> Event {
    Event::Registered(v1::Registered { incarnation })
}

fn moved(from: v1::StorageState, to: v1::StorageState) -> Event {
    Event::Transitioned(v1::Transitioned {
        from: from.into(),
        to: to.into(),
        ..Default::default()
    })
}

fn history() -> Vec<v1::HistoryEntry> {
    use v1::StorageState::{Provisioning, ReadOnly, ReadWrite};
    vec![
        entry(2, 1, registered(1)),
        entry(3, 2, moved(Provisioning, ReadWrite)),
        entry(4, 3, moved(ReadWrite, ReadOnly)),
    ]
}

fn sent(sequence: u64, outcome: Outcome) -> Sent {
    let tag = v1::Tag {
        session: 5,
        sequence,
        ..Default::default()
    };
    let answer = v1::Answer {
        outcome: Some(outcome),
        ..Default::default()
    };
    Sent {
        name: "ls1".to_owned(),
        call: Call::Activate(v1::ActivateRequest {
            tag: Some(tag),
            ..Default::default()
        }),
        invoked: Instant::now(),
        attempts: 1,
        answered: Some((Instant::now(), answer)),
    }
}

fn applied(revision: u64) -> Outcome {
    Outcome::Applied(v1::Applied {
        revision,
        effect: None,
    })
}

fn replayed(since: u64) -> Outcome {
    Outcome::Replayed(v1::Replayed {
        since,
        effect: None,
    })
}

fn refused() -> Outcome {
    Outcome::Refused(v1::Refused::default())
}

#[test]
fn a_history_that_goes_on_from_where_it_was_fits_together() {
    fits_together(&history()).expect("it fits");
    let twice = [history(), vec![entry(5, 3, registered(2))]].concat();
    fits_together(&twice).expect_err("one tag twice");
    let gap = [history(), vec![entry(5, 4, registered(3))]].concat();
    fits_together(&gap).expect_err("an incarnation is missing");
    let back = moved(v1::StorageState::ReadWrite, v1::StorageState::DataLoss);
    let jump = [history(), vec![entry(5, 4, back)]].concat();
    fits_together(&jump).expect_err("it was read-only");
    let order = [history(), vec![entry(4, 4, registered(2))]].concat();
    fits_together(&order).expect_err("one revision twice");
    let mut late = history();
    late[1].unix_ms = 7;
    fits_together(&late).expect_err("time runs backwards");
}

#[test]
fn what_was_answered_is_in_the_history_once() {
    let all = [
        sent(1, applied(2)),
        sent(2, applied(3)),
        sent(3, applied(4)),
        sent(4, replayed(3)),
        sent(5, refused()),
    ];
    each_once(&all, &history()).expect("all is there");
    each_once(&[sent(4, applied(5))], &history()).expect_err("it is not there");
    each_once(&[sent(2, applied(4))], &history()).expect_err("at another revision");
    each_once(&[sent(3, refused())], &history()).expect_err("refused, and yet there");
    each_once(&[sent(4, replayed(9))], &history()).expect_err("never happened");
}

#[test]
fn another_answer_than_before_is_noticed() {
    let again = |outcome| v1::Answer {
        outcome: Some(outcome),
        repeat: true,
        ..Default::default()
    };
    settled(sent(2, applied(3)), again(replayed(3))).expect("the same");
    settled(sent(2, applied(3)), again(replayed(4))).expect_err("another revision");
    settled(sent(2, applied(3)), again(refused())).expect_err("forgotten");
    settled(sent(2, refused()), again(replayed(3))).expect_err("done after a refusal");
    let mut anew = again(replayed(3));
    anew.repeat = false;
    settled(sent(2, applied(3)), anew).expect_err("done again");
}
