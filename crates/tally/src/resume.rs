//! `tally resume`: settles a request whose outcome is unknown.

use clap::Args;
use tally_client::{Refused, TagToken};

use crate::answer::{effect_text, report};
use crate::connection::Connection;
use crate::exit::{Exit, Failure};
use crate::output::Output;

/// Tells what became of a request whose answer was lost, and makes sure that nothing more does.
#[derive(Debug, Args)]
pub(crate) struct ResumeArguments {
    /// As the command printed it that ended with exit code 6.
    token: TagToken,
}

pub(crate) async fn run(
    arguments: ResumeArguments,
    connection: &Connection,
    output: Output,
) -> Result<(), Failure> {
    let token = arguments.token;
    let answer = connection.client()?.resume(&token).await?;
    let tag = format!("tag {}/{}", token.session, token.sequence);
    if let Some(failure) = answer
        .refused()
        .and_then(|refused| forgotten(&tag, refused))
    {
        return Err(failure);
    }
    let told = match answer.effect() {
        Some(effect) => format!("{tag}, {}", effect_text(effect)),
        None => tag,
    };
    report(output, &answer, &told)
}

/// The refusals that decide nothing about the request: its session is gone, its outcome was let go, or
/// its marker proves nothing.
const FORGOTTEN: [&str; 3] = ["T-201", "T-203", "T-205"];

/// The failure of a request whose outcome the cluster no longer has; `None` when it was decided.
fn forgotten(tag: &str, refused: &Refused) -> Option<Failure> {
    if !FORGOTTEN.contains(&refused.code.as_str()) {
        return None;
    }
    let found = format!(
        "what became of {tag} can no longer be told: {}",
        refused.found
    );
    let failure = Failure::fault(&refused.code, found)
        .expected(
            "the history of the node, or the key, that it was about to tell whether it was applied",
        )
        .next("tally node history NAME");
    Some(failure.ends_with(Exit::OutcomeUnknown))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str) -> Refused {
        Refused {
            code: code.to_owned(),
            found: "the session is unknown".to_owned(),
            details: [("next".to_owned(), "tally node list".to_owned())].into(),
        }
    }

    #[test]
    fn an_outcome_that_is_forgotten_is_not_taken_for_a_refusal() {
        for code in ["T-201", "T-203", "T-205"] {
            let failure = forgotten("tag 4/1", &refused(code)).expect("undecided");
            assert_eq!(failure.exit.code(), 6);
            assert_eq!(failure.code, code);
            let said = failure.to_string();
            assert!(said.contains("can no longer be told"), "{said}");
            assert!(!said.contains("refused"), "{said}");
            assert_eq!(failure.next_command(), Some("tally node history NAME"));
        }
        for code in ["T-206", "T-310", "T-202"] {
            assert_eq!(forgotten("tag 4/1", &refused(code)), None);
        }
    }
}
