//! Requests in the order in which they are made, time for leases among them.

use proptest::prelude::*;
use proptest::sample::select;
use tally_model::Command;
use tally_model::lease::PassLeaseTime;

use crate::drawn::asked;

/// What a leader counts on that says that time has passed.
#[derive(Clone, Debug)]
pub(crate) enum Evidence {
    /// The clock as it stands, and a term that is the latest to have counted or so many later.
    Good { terms_later: u64 },
    /// The clock as it stands, and the term before the latest to have counted, if there is one.
    EarlierTerm,
    /// The latest term, and the clock so many milliseconds from where it stands.
    Elsewhere { off_ms: i64 },
    /// That of the last time: its command arrives once more.
    Repeated,
}

fn evidence() -> impl Strategy<Value = Evidence> {
    let off_ms = select(vec![-1_000, -500, -1, 1, 500, 1_000]);
    prop_oneof![
        12 => Just(Evidence::Good { terms_later: 0 }),
        2 => (1..3_u64).prop_map(|terms_later| Evidence::Good { terms_later }),
        1 => Just(Evidence::EarlierTerm),
        1 => off_ms.prop_map(|off_ms| Evidence::Elsewhere { off_ms }),
        1 => Just(Evidence::Repeated),
    ]
}

/// One request, as far as it can be drawn before it is known what the others came to.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Ask(Command),
    PassTime { evidence: Evidence, passed_ms: u64 },
}

impl Step {
    /// The request, given the last one by which time passed, and what the next one may count on.
    pub(crate) fn command(self, last: PassLeaseTime, next: PassLeaseTime) -> Command {
        let (evidence, passed_ms) = match self {
            Self::Ask(command) => return command,
            Self::PassTime {
                evidence,
                passed_ms,
            } => (evidence, passed_ms),
        };
        let PassLeaseTime { term, from_ms, .. } = next;
        let (term, from_ms) = match evidence {
            Evidence::Good { terms_later } => (term + terms_later, from_ms),
            Evidence::EarlierTerm => (term.saturating_sub(1), from_ms),
            Evidence::Elsewhere { off_ms } => (term, from_ms.saturating_add_signed(off_ms)),
            Evidence::Repeated => return Command::PassLeaseTime(last),
        };
        Command::PassLeaseTime(PassLeaseTime {
            term,
            from_ms,
            passed_ms,
        })
    }
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let passed_ms = select(vec![0, 1, 999, 1_000, 1_000, 1_001, u64::MAX]);
    let pass_time = (evidence(), passed_ms).prop_map(|(evidence, passed_ms)| Step::PassTime {
        evidence,
        passed_ms,
    });
    prop_oneof![24 => asked().prop_map(Step::Ask), 8 => pass_time]
}
