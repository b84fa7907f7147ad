//! `tally node`: log servers and their storage states.

mod document;

use clap::{Args, Subcommand};
use tally_client::{By, Client, Consistency, SetState, StorageState, Which, v1};
use tally_model::explanation::codes;

use crate::answer::report;
use crate::connection::{Connection, close};
use crate::exit::{Exit, Failure};
use crate::output::{self, Output, ago, fields, marker_short, moment, say, state_name, table};
use document::{ClaimDocument, ClaimsDocument, HistoryDocument, NodeDocument, NodesDocument};

/// Entries of a node's history that `show` tells.
const SHOWN_ENTRIES: usize = 8;

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Every log server.
    List(Freshness),
    /// One log server and its latest history.
    Show {
        /// Name or id.
        node: String,
        #[command(flatten)]
        freshness: Freshness,
    },
    /// Moves a log server to another storage state, as an operator.
    SetState(SetStateArguments),
    /// Every registration, transition and claim, oldest first.
    History {
        /// Name or id; all log servers without it.
        node: Option<String>,
        /// Only entries after this revision.
        #[arg(long, value_name = "REVISION", default_value_t = 0)]
        after: u64,
        #[command(flatten)]
        freshness: Freshness,
    },
    /// Who asked for a log server without being its owner.
    Claims {
        /// Name or id; all log servers without it.
        node: Option<String>,
        #[command(flatten)]
        freshness: Freshness,
    },
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Freshness {
    /// Show what the member that is asked has applied, without asking a majority whether it is the
    /// latest.
    #[arg(long)]
    stale: bool,
}

impl Freshness {
    fn consistency(self) -> Consistency {
        if self.stale {
            Consistency::Stale
        } else {
            Consistency::Linearizable
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct SetStateArguments {
    /// Name or id.
    node: String,
    /// read-write, read-only, data-loss, gone, disabled, removed or provisioning.
    to: StorageState,
    /// Why; goes into the history.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// The node's revision when you looked at it; the change is refused when it has changed since.
    /// Without it, the node is looked at now.
    #[arg(long, value_name = "REVISION")]
    expect_revision: Option<u64>,
    /// Override the transition table. Needs the node's name, typed again, and a reason.
    #[arg(long, requires_all = ["confirm", "reason"])]
    force: bool,
    /// The node's name, typed again, for a forced change.
    #[arg(long, value_name = "NAME", requires = "force")]
    confirm: Option<String>,
}

pub(crate) async fn run(
    command: NodeCommand,
    connection: &Connection,
    output: Output,
) -> Result<(), Failure> {
    let client = connection.client()?;
    match command {
        NodeCommand::List(freshness) => list(&client, freshness, output).await,
        NodeCommand::Show { node, freshness } => show(&client, &node, freshness, output).await,
        NodeCommand::SetState(arguments) => {
            let done = set_state(&client, arguments, output).await;
            // A session that is closed could not tell any more what became of the change.
            let in_doubt = |failure: &Failure| failure.exit == Exit::OutcomeUnknown;
            if !done.as_ref().is_err_and(in_doubt) {
                close(&client).await;
            }
            done
        }
        NodeCommand::History {
            node,
            after,
            freshness,
        } => history(&client, node.as_deref(), after, freshness, output).await,
        NodeCommand::Claims { node, freshness } => {
            claims(&client, node.as_deref(), freshness, output).await
        }
    }
}

async fn list(client: &Client, freshness: Freshness, output: Output) -> Result<(), Failure> {
    let nodes = client.nodes(freshness.consistency()).await?;
    let document = NodesDocument {
        nodes: nodes.iter().map(NodeDocument::from).collect(),
    };
    output.print(&document, || {
        let header = [
            "ID",
            "NAME",
            "STATE",
            "MARKER",
            "INCARNATION",
            "SINCE",
            "BY",
            "LOCATION",
        ];
        table(header, nodes.iter().map(row))
    })
}

fn row(node: &v1::Node) -> [String; 8] {
    [
        node.id.to_string(),
        node.name.clone(),
        state_name(node.state).unwrap_or("unknown").to_owned(),
        marker_short(marker(node)),
        node.incarnation.to_string(),
        format!("r{}  {}", node.state_revision, ago(node.state_unix_ms)),
        output::actor_name(node.set_by()).unwrap_or("-").to_owned(),
        node.location.clone(),
    ]
}

fn marker(node: &v1::Node) -> Option<&v1::Marker> {
    node.binding
        .as_ref()
        .and_then(|binding| binding.marker.as_ref())
}

/// The node of that name or id.
async fn known(client: &Client, text: &str, consistency: Consistency) -> Result<v1::Node, Failure> {
    let node = client.node(Which::parse(text), consistency).await?;
    node.ok_or_else(|| {
        Failure::fault(codes::NOT_FOUND, format!("there is no node {text}"))
            .expected("the name or the id of a node")
            .next("tally node list")
    })
}

/// The id of the node, when one is named.
async fn named(
    client: &Client,
    text: Option<&str>,
    consistency: Consistency,
) -> Result<Option<u32>, Failure> {
    match text {
        Some(text) => Ok(Some(known(client, text, consistency).await?.id)),
        None => Ok(None),
    }
}

async fn show(
    client: &Client,
    node: &str,
    freshness: Freshness,
    output: Output,
) -> Result<(), Failure> {
    let consistency = freshness.consistency();
    let node = known(client, node, consistency).await?;
    if output == Output::Json {
        return output.print(&NodeDocument::from(&node), String::new);
    }
    let history = client
        .history(Some(node.id), 0, freshness.consistency())
        .await?;
    let latest = &history[history.len().saturating_sub(SHOWN_ENTRIES)..];
    let since = node.binding.as_ref().map_or(0, |binding| binding.since);
    let marker = match marker(&node) {
        Some(marker) => format!("{}, bound at r{since}", output::marker_text(marker)),
        None => "none bound".to_owned(),
    };
    let by = output::actor_name(node.set_by()).unwrap_or("nobody");
    let state = state_name(node.state).unwrap_or("unknown");
    let since = format!("r{}, {}", node.state_revision, ago(node.state_unix_ms));
    let node = fields(&[
        ("node", node.id.to_string()),
        ("name", node.name.clone()),
        ("state", format!("{state}, set by {by} at {since}")),
        ("marker", marker),
        ("incarnation", node.incarnation.to_string()),
        ("address", node.address.clone()),
        ("location", node.location.clone()),
        (
            "revision",
            format!("r{}, created at r{}", node.revision, node.created_revision),
        ),
    ]);
    say(&format!("{node}\n\n{}", history_table(latest)))
}

async fn set_state(
    client: &Client,
    arguments: SetStateArguments,
    output: Output,
) -> Result<(), Failure> {
    let node = known(client, &arguments.node, Consistency::Linearizable).await?;
    let expected = arguments.expect_revision.unwrap_or(node.revision);
    let from = state_name(node.state).unwrap_or("unknown");
    let asked = format!("{} {from} -> {}", node.name, arguments.to);
    let change = SetState {
        node: node.id,
        to: arguments.to,
        by: By::Operator {
            expected_revision: Some(expected),
            force: arguments.confirm,
        },
        reason: arguments.reason,
    };
    let answer = client.set_state(change).await?;
    let asked = match answer.refused() {
        Some(_) => format!("{asked}, at revision {expected}"),
        None => asked,
    };
    report(output, &answer, &asked)
}

async fn history(
    client: &Client,
    node: Option<&str>,
    after: u64,
    freshness: Freshness,
    output: Output,
) -> Result<(), Failure> {
    let node = named(client, node, freshness.consistency()).await?;
    let entries = client.history(node, after, freshness.consistency()).await?;
    output.print(&HistoryDocument::from(entries.as_slice()), || {
        history_table(&entries)
    })
}

fn history_table(entries: &[v1::HistoryEntry]) -> String {
    let header = ["REVISION", "TIME", "NODE", "EVENT", "BY", "TAG", "REASON"];
    let rows = entries.iter().map(|entry| {
        [
            format!("r{}", entry.revision),
            moment(entry.unix_ms),
            entry.node.to_string(),
            event_text(entry),
            output::actor_name(entry.actor()).unwrap_or("-").to_owned(),
            format!("{}/{}", entry.session, entry.sequence),
            entry.reason.clone(),
        ]
    });
    table(header, rows)
}

fn event_text(entry: &v1::HistoryEntry) -> String {
    use v1::history_entry::Event;
    let state = |number| state_name(number).unwrap_or("unknown");
    match &entry.event {
        Some(Event::Registered(event)) => format!("registered, incarnation {}", event.incarnation),
        Some(Event::Transitioned(event)) => {
            let moved = format!("{} -> {}", state(event.from), state(event.to));
            let forced = if event.forced { ", forced" } else { "" };
            match &event.marker {
                Some(marker) => format!("{moved}{forced}, marker {}", marker_short(Some(marker))),
                None => format!("{moved}{forced}"),
            }
        }
        Some(Event::Claimed(event)) => match &event.marker {
            Some(marker) => format!("claimed under marker {}", marker_short(Some(marker))),
            None => "claimed without a marker".to_owned(),
        },
        None => "an event that this version does not know".to_owned(),
    }
}

async fn claims(
    client: &Client,
    node: Option<&str>,
    freshness: Freshness,
    output: Output,
) -> Result<(), Failure> {
    let node = named(client, node, freshness.consistency()).await?;
    let claims = client.claims(node, freshness.consistency()).await?;
    let document = ClaimsDocument {
        claims: claims.iter().map(ClaimDocument::from).collect(),
    };
    output.print(&document, || {
        let header = ["NODE", "MARKER", "ATTEMPTS", "FIRST", "LAST", "TAG"];
        table(header, claims.iter().map(claim_row))
    })
}

fn claim_row(claim: &v1::Claim) -> [String; 6] {
    let marker = match &claim.marker {
        Some(marker) => marker_short(Some(marker)),
        None => "none shown".to_owned(),
    };
    [
        claim.node.to_string(),
        marker,
        claim.attempts.to_string(),
        format!("r{}", claim.first_revision),
        format!("r{}  {}", claim.last_revision, ago(claim.last_unix_ms)),
        format!("{}/{}", claim.session, claim.sequence),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_told_in_a_few_words() {
        let marker = Some(v1::Marker {
            bits: vec![0xab; 16],
            created_unix_ms: 1,
        });
        let told = |event| {
            let event = Some(event);
            event_text(&v1::HistoryEntry {
                event,
                ..Default::default()
            })
        };
        use v1::history_entry::Event;
        let moved = v1::Transitioned {
            from: v1::StorageState::Provisioning.into(),
            to: v1::StorageState::ReadWrite.into(),
            marker: marker.clone(),
            forced: false,
        };
        let moved = told(Event::Transitioned(moved));
        assert_eq!(moved, "provisioning -> read-write, marker abab…ab");
        let registered = told(Event::Registered(v1::Registered { incarnation: 2 }));
        assert_eq!(registered, "registered, incarnation 2");
        let claimed = told(Event::Claimed(v1::Claimed { marker }));
        assert_eq!(claimed, "claimed under marker abab…ab");
        let wiped = told(Event::Claimed(v1::Claimed { marker: None }));
        assert_eq!(wiped, "claimed without a marker");
    }

    #[test]
    fn a_node_that_is_not_bound_shows_no_marker() {
        let node = v1::Node {
            id: 3,
            name: "ls3".to_owned(),
            state: v1::StorageState::Provisioning.into(),
            ..Default::default()
        };
        assert_eq!(
            row(&node)[..4],
            ["3", "ls3", "provisioning", "-"].map(str::to_owned)
        );
    }
}
