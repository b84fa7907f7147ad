//! `tally kv compact`.

use clap::Args;
use clap::builder::RangedU64ValueParser;
use tally_client::keys::KeyError;
use tally_client::{Client, Revision};

use super::document::WrittenDocument;
use crate::exit::Failure;
use crate::output::Output;

/// Gives up what keys were before a revision: reads and watches from before it are refused from then on.
#[derive(Debug, Args)]
pub(crate) struct CompactArguments {
    /// The first revision that is kept.
    #[arg(value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    revision: u64,
}

pub(super) async fn run(
    client: &Client,
    arguments: &CompactArguments,
    output: Output,
) -> Result<(), Failure> {
    let asked = format!("compact {}", arguments.revision);
    let compacted = client.keys().compact(Revision(arguments.revision)).await;
    let compacted = compacted.map_err(|error| failure(error).asked(&asked))?;
    let document = WrittenDocument::from(&compacted);
    output.print(&document, || document.text(&asked))
}

/// What to do is told of reads otherwise.
fn failure(error: KeyError) -> Failure {
    let next = match error {
        KeyError::Compacted { .. } => Some("nothing: it was given up before"),
        KeyError::FutureRevision => {
            Some("tally -o json kv get '' --prefix --limit 1, which tells the store's revision")
        }
        _ => None,
    };
    let failure = Failure::from(error);
    match next {
        Some(next) => failure.next(next),
        None => failure,
    }
}
