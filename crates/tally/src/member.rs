//! `tally member`: who belongs to the cluster.

use clap::Subcommand;
use serde::Serialize;

use crate::connection::Connection;
use crate::exit::Failure;
use crate::output::{Output, member_id};

#[derive(Debug, Subcommand)]
pub(crate) enum MemberCommand {
    /// Removes the identity that has this name and admits the one that now runs under it. Waits until
    /// the new one votes.
    Replace {
        /// The member's name, for example n2. The new member must run under it, with an empty
        /// directory and at the old address.
        name: String,
    },
}

#[derive(Debug, Serialize)]
struct ReplacedDocument {
    name: String,
    /// Id of the identity that was removed; `null` when there was nothing to replace.
    removed: Option<String>,
    /// Id of the identity that votes now.
    added: String,
}

pub(crate) async fn run(
    command: MemberCommand,
    connection: &Connection,
    output: Output,
) -> Result<(), Failure> {
    let MemberCommand::Replace { name } = command;
    let replaced = connection.client()?.replace_member(&name).await?;
    let document = ReplacedDocument {
        name,
        removed: (replaced.removed > 0).then(|| member_id(replaced.removed)),
        added: member_id(replaced.added),
    };
    output.print(&document, || {
        let ReplacedDocument {
            name,
            removed,
            added,
        } = &document;
        match removed {
            Some(removed) => format!("replaced {name}: {removed} is removed, {added} votes"),
            None => format!("nothing to replace: {name} votes as {added}"),
        }
    })
}
