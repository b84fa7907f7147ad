//! `tally kv`: keys, transactions, compaction, leases and watches.

mod compact;
mod document;
mod key;
mod lease;
mod txn;
mod watch;

use clap::{Args, Subcommand};
use tally_client::keys::{self, KeyError, KeyRange, KeyValue, LeaseId, Range, RangeAnswer};
use tally_client::{Client, Consistency, Revision};
use tally_model::explanation::codes;

use crate::connection::{Connection, close};
use crate::exit::{Exit, Failure};
use crate::output::{Output, table};
use document::{FoundDocument, WrittenDocument, shown};
use key::Key;

#[derive(Debug, Subcommand)]
pub(crate) enum KvCommand {
    /// A key, or every key of a range.
    Get(GetArguments),
    /// Puts a value. Sent again until it is answered, it is put once.
    Put {
        key: Key,
        #[arg(allow_hyphen_values = true)]
        value: String,
        /// The lease that the key ends with, as `tally kv lease grant` printed it.
        #[arg(long, value_name = "ID", value_parser = lease_id)]
        lease: Option<LeaseId>,
    },
    /// Deletes a key, or every key of a range.
    Del {
        key: Key,
        #[command(flatten)]
        reach: Reach,
    },
    Txn(txn::TxnArguments),
    Watch(watch::WatchArguments),
    Compact(compact::CompactArguments),
    /// Leases: keys that end unless someone shows signs of life.
    #[command(subcommand)]
    Lease(lease::LeaseCommand),
}

#[derive(Debug, Args)]
pub(crate) struct GetArguments {
    /// The key, or where the range begins. `\x` and two hexadecimal digits stand for a byte:
    /// '\x00tally/nodes/' is where the records of log servers begin.
    key: Key,
    #[command(flatten)]
    reach: Reach,
    /// As of this revision.
    #[arg(long)]
    revision: Option<u64>,
    /// At most so many keys.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Read what the member that is asked has applied, without asking a majority whether it is the
    /// latest.
    #[arg(long)]
    stale: bool,
    /// Leave the values out.
    #[arg(long)]
    keys_only: bool,
}

/// How far a range goes.
#[derive(Debug, Args)]
pub(crate) struct Reach {
    /// Every key that begins with KEY; all keys when it is empty.
    #[arg(long, conflicts_with = "to")]
    prefix: bool,
    /// Every key from KEY up to but not including END.
    #[arg(long, value_name = "END")]
    to: Option<Key>,
}

impl Reach {
    fn keys(&self, key: &Key) -> KeyRange {
        match &self.to {
            Some(end) => keys::between(key, end),
            None if self.prefix => keys::prefix(key),
            None => keys::one(key),
        }
    }
}

/// A lease's id as it is written everywhere: hexadecimal digits.
fn lease_id(text: &str) -> Result<LeaseId, String> {
    match i64::from_str_radix(text, 16) {
        Ok(id) if id > 0 => Ok(LeaseId(id)),
        Ok(_) | Err(_) => Err(format!(
            "found {text:?}, expected up to 16 hexadecimal digits, as `tally kv lease list` prints them"
        )),
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        let next = error.next().unwrap_or_default();
        match error {
            KeyError::Unanswered(error) => error.into(),
            refused => Self::refusal(refused.code(), refused.to_string()).next(next),
        }
    }
}

pub(crate) async fn run(
    command: KvCommand,
    connection: &Connection,
    output: Output,
) -> Result<(), Failure> {
    let client = connection.client()?;
    let done = match command {
        KvCommand::Get(arguments) => get(&client, &arguments, output).await,
        KvCommand::Put { key, value, lease } => put(&client, &key, &value, lease, output).await,
        KvCommand::Del { key, reach } => delete(&client, &key, &reach, output).await,
        KvCommand::Txn(arguments) => txn::run(&client, &arguments, output).await,
        KvCommand::Watch(arguments) => watch::run(&client, &arguments, output).await,
        KvCommand::Compact(arguments) => compact::run(&client, &arguments, output).await,
        KvCommand::Lease(command) => lease::run(&client, command, output).await,
    };
    // A session that is closed could not tell any more what became of the write.
    let in_doubt = |failure: &Failure| failure.exit == Exit::OutcomeUnknown;
    if !done.as_ref().is_err_and(in_doubt) {
        close(&client).await;
    }
    done
}

async fn get(client: &Client, arguments: &GetArguments, output: Output) -> Result<(), Failure> {
    let GetArguments { key, reach, .. } = arguments;
    let range = Range {
        limit: arguments.limit,
        at: arguments.revision.map(Revision),
        keys_only: arguments.keys_only,
        ..Range::of(reach.keys(key))
    };
    let consistency = match arguments.stale {
        true => Consistency::Stale,
        false => Consistency::Linearizable,
    };
    let found = client.keys().range(&range, consistency).await?;
    let is_one = matches!(range.keys, KeyRange::One(_));
    if is_one && found.found.is_empty() {
        let failure = Failure::fault(codes::NOT_FOUND, format!("there is no key \"{key}\""));
        return Err(failure
            .expected("a key that is there, or the beginning of some with --prefix")
            .next(format!("tally kv get '{key}' --prefix --keys-only")));
    }
    let document = FoundDocument::new(&found, !arguments.keys_only);
    output.print(&document, || found_text(&found, arguments.keys_only))
}

/// Keys as a table, and how many there are beyond it.
fn found_text(answer: &RangeAnswer, keys_only: bool) -> String {
    let found = answer.found.iter();
    let mut text = match keys_only {
        true => {
            let rows = found.map(|found| {
                let [version, modified, lease] = about(found);
                [shown(&found.key), version, modified, lease]
            });
            table(["KEY", "VERSION", "MODIFIED", "LEASE"], rows)
        }
        false => {
            let rows = found.map(|found| {
                let [version, modified, lease] = about(found);
                [
                    shown(&found.key),
                    shown(&found.value),
                    version,
                    modified,
                    lease,
                ]
            });
            table(["KEY", "VALUE", "VERSION", "MODIFIED", "LEASE"], rows)
        }
    };
    let told = u64::try_from(answer.found.len()).unwrap_or(u64::MAX);
    if answer.more {
        text += &format!("\nand {} more", answer.count.saturating_sub(told));
    }
    text
}

fn about(found: &KeyValue) -> [String; 3] {
    [
        found.version.to_string(),
        found.modified.to_string(),
        found
            .lease
            .map_or("-".to_owned(), |lease| lease.to_string()),
    ]
}

async fn put(
    client: &Client,
    key: &Key,
    value: &str,
    lease: Option<LeaseId>,
    output: Output,
) -> Result<(), Failure> {
    let asked = format!("put {key}");
    let written = client.keys().put(key, value, lease).await;
    let written = written.map_err(|error| Failure::from(error).asked(&asked))?;
    let document = WrittenDocument::from(&written);
    output.print(&document, || document.text(&asked))
}

async fn delete(client: &Client, key: &Key, reach: &Reach, output: Output) -> Result<(), Failure> {
    let deleted = client.keys().delete(reach.keys(key)).await;
    let deleted = deleted.map_err(|error| Failure::from(error).asked(format!("del {key}")))?;
    let count = deleted.answer.count;
    let document = WrittenDocument {
        deleted: Some(count),
        ..WrittenDocument::from(&deleted)
    };
    output.print(&document, || {
        document.text(&format!("del {key}, keys deleted: {count}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_known_by_its_hexadecimal_digits() {
        assert_eq!(lease_id("00000000000000ff"), Ok(LeaseId(255)));
        assert_eq!(lease_id(&LeaseId(7).to_string()), Ok(LeaseId(7)));
        for wrong in ["", "0", "-1", "xyz", "fffffffffffffffff"] {
            assert!(lease_id(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_refused_write_ends_with_3_and_says_what_to_do() {
        let failure = Failure::from(KeyError::LeaseNotFound).asked("put a");
        assert_eq!(failure.exit.code(), 3);
        let said = failure.to_string();
        assert!(said.starts_with("refused T-502: "), "{said}");
        assert!(said.contains("tally kv lease list"), "{said}");
    }
}
