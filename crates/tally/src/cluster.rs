//! `tally cluster`: the members of the Tally cluster itself.

mod document;

use clap::Subcommand;
use tally_client::{Client, Error, MemberStatus, v1};
use tally_model::RetryCheck;
use tally_model::explanation::codes;

use crate::connection::Connection;
use crate::exit::{Exit, Failure};
use crate::output::{Output, hex, member_id, role_name, table};
use document::{SnapshotDocument, SnapshotsDocument, StatusDocument, TransferDocument};

/// Digits of a state hash that are enough to compare by eye.
const HASH_DIGITS_SHOWN: usize = 8;

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// What each member knows, and who cannot be reached.
    Status,
    /// Hands leadership to another member.
    TransferLeader {
        /// The member that is to lead; the leader chooses without it.
        #[arg(long, value_name = "NAME")]
        to: Option<String>,
    },
    /// Takes a snapshot on each member and waits until it is on disk.
    Snapshot {
        /// Only on this member.
        #[arg(long, value_name = "NAME")]
        member: Option<String>,
    },
}

pub(crate) async fn run(
    command: ClusterCommand,
    connection: &Connection,
    output: Output,
) -> Result<(), Failure> {
    let client = connection.client()?;
    match command {
        ClusterCommand::Status => status(&client, output).await,
        ClusterCommand::TransferLeader { to } => transfer(&client, to.as_deref(), output).await,
        ClusterCommand::Snapshot { member } => snapshot(&client, member.as_deref(), output).await,
    }
}

/// Every member, by name; fails when none answers.
async fn members(client: &Client) -> Result<Vec<MemberStatus>, Failure> {
    let members = client.statuses().await;
    if members.iter().any(|member| member.status.is_ok()) {
        return Ok(members);
    }
    let asked = Vec::from_iter(members.iter().map(|member| member.endpoint.as_str())).join(", ");
    let why = members
        .iter()
        .find_map(|member| member.status.as_ref().err());
    let why = why.map_or(String::new(), |error| format!(": {}", reason(error)));
    let failure = Failure::fault(codes::NO_LEADER, format!("no member answers{why}"));
    Err(failure
        .asked(asked)
        .expected("the client address of a member that runs, in --endpoints or TALLY_ENDPOINTS"))
}

async fn status(client: &Client, output: Output) -> Result<(), Failure> {
    let members = members(client).await?;
    output.print(&StatusDocument::from(members.as_slice()), || {
        status_text(&members)
    })
}

fn status_text(members: &[MemberStatus]) -> String {
    let header = [
        "NAME",
        "ROLE",
        "TERM",
        "APPLIED",
        "COMMITTED",
        "SNAPSHOT",
        "STATE HASH",
        "ENDPOINT",
    ];
    let mut text = table(header, members.iter().map(row));
    let mut answers = members
        .iter()
        .filter_map(|member| member.status.as_ref().ok());
    if answers.any(|status| status.retry_check == RetryCheck::Relaxed.as_str()) {
        text +=
            "\nthe retry check is relaxed, which is unsafe: two processes can be one log server";
    }
    for member in members {
        let name = member.name.as_deref().unwrap_or(&member.endpoint);
        match &member.status {
            Ok(status) => {
                if !status.not_ready.is_empty() {
                    text += &format!("\n{name} does not serve: {}", status.not_ready);
                }
                if let Some(mismatch) = status.hash_mismatches.first() {
                    let peer = name_of(mismatch.member, status);
                    text += &format!(
                        "\n{name} has another state than {peer} at index {}: one of them is damaged",
                        mismatch.index
                    );
                }
            }
            Err(error) => text += &format!("\n{name} does not answer: {}", reason(error)),
        }
    }
    text
}

fn row(member: &MemberStatus) -> [String; 8] {
    let name = member.name.clone().unwrap_or_else(|| "?".to_owned());
    let endpoint = member.endpoint.clone();
    let Ok(status) = &member.status else {
        let unknown = || "-".to_owned();
        let role = "unreachable".to_owned();
        return [
            name,
            role,
            unknown(),
            unknown(),
            unknown(),
            unknown(),
            unknown(),
            endpoint,
        ];
    };
    let hash = state_hash(status).map_or_else(
        || "-".to_owned(),
        |mut hash| {
            hash.truncate(HASH_DIGITS_SHOWN);
            hash
        },
    );
    [
        name,
        role_name(status.role()).to_owned(),
        status.term.to_string(),
        status.applied_index.to_string(),
        status.committed_index.to_string(),
        status.snapshot_index.to_string(),
        hash,
        endpoint,
    ]
}

/// The digits of a member's state hash; `None` before it is part of a cluster, when it has no state.
fn state_hash(status: &v1::StatusResponse) -> Option<String> {
    let known = !status.cluster_id.is_empty() && !status.state_hash.is_empty();
    known.then(|| hex(&status.state_hash))
}

/// Why one member gave no answer. Each is asked once, so that no deadline comes into it.
fn reason(error: &Error) -> String {
    match error {
        Error::Unreachable { last, .. } if !last.is_empty() => last.clone(),
        other => other.to_string(),
    }
}

/// A member's name as another one knows it, or its id.
fn name_of(id: u64, status: &v1::StatusResponse) -> String {
    let known = status.members.iter().find(|member| member.id == id);
    known.map_or_else(|| member_id(id), |member| member.name.clone())
}

async fn transfer(client: &Client, to: Option<&str>, output: Output) -> Result<(), Failure> {
    let leader = client.transfer_leader(to).await?;
    let document = TransferDocument {
        leader: leader.name,
        id: member_id(leader.leader),
    };
    output.print(&document, || format!("{} leads", document.leader))
}

async fn snapshot(client: &Client, only: Option<&str>, output: Output) -> Result<(), Failure> {
    let mut members = members(client).await?;
    if let Some(only) = only {
        members.retain(|member| member.name.as_deref() == Some(only));
        if members.is_empty() {
            let failure = Failure::fault(codes::NOT_FOUND, format!("there is no member {only}"));
            return Err(failure.next("tally cluster status"));
        }
    }
    let taken = members.into_iter().map(|member| take(client, member));
    let taken = futures::future::join_all(taken).await;
    let document = SnapshotsDocument { members: taken };
    output.print(&document, || {
        let lines = document
            .members
            .iter()
            .map(|member| match (&member.index, &member.error) {
                (Some(index), _) => {
                    format!("{}: a snapshot up to index {index} is on disk", member.name)
                }
                (None, error) => format!(
                    "{}: no snapshot: {}",
                    member.name,
                    error.as_deref().unwrap_or("no reason was given")
                ),
            });
        Vec::from_iter(lines).join("\n")
    })?;
    let missing = document
        .members
        .iter()
        .filter(|member| member.index.is_none());
    let missing = Vec::from_iter(missing.map(|member| member.name.as_str()));
    if missing.is_empty() {
        return Ok(());
    }
    let found = format!("no snapshot was taken on {}", missing.join(", "));
    let failure = Failure::fault(codes::NOT_READY, found).next("tally cluster status");
    Err(failure.ends_with(Exit::Broken).documented(true))
}

async fn take(client: &Client, member: MemberStatus) -> SnapshotDocument {
    let name = member.name.unwrap_or_else(|| member.endpoint.clone());
    let taken = match member.status {
        Ok(_) => client.snapshot(&member.endpoint).await,
        Err(error) => Err(error),
    };
    match taken {
        Ok(snapshot) => SnapshotDocument {
            name,
            index: Some(snapshot.index),
            error: None,
        },
        Err(error) => SnapshotDocument {
            name,
            index: None,
            error: Some(reason(&error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leader() -> MemberStatus {
        let status = v1::StatusResponse {
            name: "n1".to_owned(),
            member: 7,
            cluster_id: vec![1; 16],
            role: v1::Role::Leader.into(),
            term: 3,
            applied_index: 12,
            state_hash: vec![0xab; 16],
            ..Default::default()
        };
        MemberStatus {
            endpoint: "http://127.0.0.1:1".to_owned(),
            name: Some("n1".to_owned()),
            status: Ok(status),
        }
    }

    fn unreachable() -> MemberStatus {
        MemberStatus {
            endpoint: "http://127.0.0.1:2".to_owned(),
            name: Some("n2".to_owned()),
            status: Err(Error::Unreachable {
                endpoints: Vec::new(),
                last: "connection refused".to_owned(),
            }),
        }
    }

    #[test]
    fn the_status_document_lists_members_that_cannot_be_reached() {
        let document =
            serde_json::json!(StatusDocument::from([leader(), unreachable()].as_slice()));
        let members = &document["members"];
        assert_eq!(members[0]["name"], "n1");
        assert_eq!(members[0]["id"], "0000000000000007");
        assert_eq!(members[0]["role"], "leader");
        assert_eq!(members[0]["state_hash"], "ab".repeat(16));
        assert_eq!(members[0]["applied_index"], 12);
        assert_eq!(members[0]["error"], serde_json::Value::Null);
        assert_eq!(members[1]["name"], "n2");
        assert_eq!(members[1]["state_hash"], serde_json::Value::Null);
        assert!(members[1]["error"].is_string());
    }

    #[test]
    fn the_table_tells_who_does_not_answer() {
        let text = status_text(&[leader(), unreachable()]);
        assert!(text.contains("n1    leader"), "{text}");
        assert!(text.contains("abababab"), "{text}");
        assert!(text.contains("\nn2 does not answer: "), "{text}");
    }

    #[test]
    fn a_member_that_is_dead_is_told_with_what_failed() {
        let members = [unreachable()];
        let told = status_text(&members);
        assert!(
            told.ends_with("n2 does not answer: connection refused"),
            "{told}"
        );
        let document = serde_json::json!(StatusDocument::from(members.as_slice()));
        assert_eq!(document["members"][0]["error"], "connection refused");
    }

    #[test]
    fn a_member_without_a_cluster_has_no_state_hash() {
        let mut alone = leader();
        if let Ok(status) = &mut alone.status {
            status.cluster_id.clear();
            status.state_hash = vec![0; 16];
        }
        assert_eq!(row(&alone)[6], "-");
        let document = serde_json::json!(StatusDocument::from([alone].as_slice()));
        assert!(document["members"][0]["state_hash"].is_null());
    }
}
