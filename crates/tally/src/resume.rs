//! `tally resume`: settles a request whose outcome is unknown.

use clap::Args;
use tally_client::TagToken;

use crate::answer::{effect_text, report};
use crate::connection::Connection;
use crate::exit::Failure;
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
    let told = match answer.effect() {
        Some(effect) => format!("{tag}, {}", effect_text(effect)),
        None => tag,
    };
    report(output, &answer, &told)
}
