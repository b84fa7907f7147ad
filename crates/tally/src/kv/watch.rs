//! `tally kv watch`.

use clap::Args;
use tally_client::Client;
use tally_client::keys::{KeyEvent, KeyWatchItem};

use super::Reach;
use super::document::{ChangedDocument, shown};
use super::key::Key;
use crate::exit::Failure;
use crate::output::Output;
use crate::signals::Signals;

/// Tells of each change until it is interrupted, once and in order, whatever becomes of the members.
/// With -o json each revision is one document on a line of its own.
#[derive(Debug, Args)]
pub(crate) struct WatchArguments {
    key: Key,
    #[command(flatten)]
    reach: Reach,
    /// From this revision on; from now on without it.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    revision: u64,
}

pub(super) async fn run(
    client: &Client,
    arguments: &WatchArguments,
    output: Output,
) -> Result<(), Failure> {
    let keys = arguments.reach.keys(&arguments.key);
    let mut signals = Signals::listen()?;
    let mut watch = client.keys().watch(keys, arguments.revision);
    loop {
        let item = tokio::select! {
            item = watch.next() => item,
            () = signals.asked_to_end() => return Ok(()),
        };
        match item.transpose()? {
            Some(KeyWatchItem::Changed { revision, events }) => {
                let document = ChangedDocument::new(revision, &events);
                output.print_line(&document, || text(revision, &events))?;
            }
            Some(KeyWatchItem::Started { .. }) => {}
            None => return Ok(()),
        }
    }
}

fn text(revision: u64, events: &[KeyEvent]) -> String {
    let lines = events.iter().map(|event| match event {
        KeyEvent::Put(made) => {
            let (key, value) = (shown(&made.key), shown(&made.value));
            format!("r{revision}  put  {key}  {value}")
        }
        KeyEvent::Deleted { key } => format!("r{revision}  del  {}", shown(key)),
    });
    Vec::from_iter(lines).join("\n")
}
