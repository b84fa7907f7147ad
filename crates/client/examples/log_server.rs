use std::time::Duration;

use tally_client::log_server::{StartUp, Started, start};
use tally_client::{By, Client, Error, Outcome, SetState, StorageState};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::builder()
        .endpoints([
            "http://host1:7411",
            "http://host2:7411",
            "http://host3:7411",
        ])
        .deadline(Duration::from_secs(30))
        .build()?;
    let start_up = StartUp {
        dir: "/var/lib/ls1".into(),
        name: "ls1".into(),
        address: "host9:7421".into(),
        location: "eu.a".into(),
    };
    let identity = match start(&client, start_up).await? {
        Started::Applied { identity, revision } => {
            println!("applied r{revision}, provisioning -> read-write");
            identity
        }
        Started::Replayed {
            identity,
            since,
            now,
        } => {
            println!("replayed r{since}, now {now}");
            identity
        }
        Started::Conflict { refused } => return Err(format!("not ours: {refused}").into()),
        Started::DataLost { refused } => return Err(format!("data lost: {refused}").into()),
        Started::Disabled { found, .. } => return Err(format!("out of use: {found}").into()),
    };

    // The disk is full: stop writing, and tell the cluster.
    let read_only = SetState {
        node: identity.node,
        to: StorageState::ReadOnly,
        by: By::Node {
            marker: identity.marker,
            incarnation: identity.incarnation,
        },
        reason: "disk full".into(),
    };
    let answer = match identity.client.set_state(read_only).await {
        // It may have happened. The tag finds out, now or from another process.
        Err(Error::Unknown { tag, .. }) => identity.client.resume(&tag).await?,
        answered => answered?,
    };
    match answer.outcome {
        Outcome::Applied { revision, .. } => println!("read-only since r{revision}"),
        Outcome::Replayed { since, .. } => println!("read-only since r{since}"),
        Outcome::Refused(refused) => println!("refused {refused}"),
    }
    Ok(())
}
