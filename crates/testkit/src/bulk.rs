//! Many large commands, so that logs, states and snapshots grow.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use rand::RngExt;
use tally_proto::v1::StorageState;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::answer::AnswerExt;
use crate::call::{Call, send};
use crate::requester::{Requester, channel};

const WRITERS: usize = 16;
/// The longest reason that is allowed; random, so that it cannot be compressed.
const REASON_BYTES: usize = 1_024;
const ATTEMPT: Duration = Duration::from_secs(10);

/// Sends so many commands of a good kilobyte each through one member, which all must be answered.
///
/// # Errors
/// When one is not.
pub async fn grow(address: &str, commands: usize) -> Result<()> {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let share = commands / WRITERS + usize::from(writer < commands % WRITERS);
        let mut owner = Requester::open(address).await?;
        let name = format!("bulk-{:016x}", rand::random::<u64>());
        let node = owner.register(address, &name).await?;
        let activated = owner.activate(address, node.0, node.1).await?;
        activated.took_effect().context("not activated")?;
        writers.spawn(write(channel(address).await?, owner, node, share));
    }
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    Ok(())
}

/// One node that changes its own state to and fro.
async fn write(to: Channel, mut owner: Requester, node: (u32, u64), commands: usize) -> Result<()> {
    for number in 0..commands {
        owner.acknowledge_all();
        let state = [StorageState::ReadOnly, StorageState::ReadWrite][number % 2];
        change(&to, &mut owner, node, state).await?;
    }
    Ok(())
}

async fn change(
    to: &Channel,
    owner: &mut Requester,
    node: (u32, u64),
    state: StorageState,
) -> Result<()> {
    let marker = owner.marker();
    let mut call = owner.set_own_state_call(node, marker, state);
    if let Call::SetState(ask) = &mut call {
        ask.reason = reason();
    }
    let answer = send(to, &call, ATTEMPT).await?;
    match answer.applied() {
        Some(_) => Ok(()),
        None => bail!("not applied: {answer:?}"),
    }
}

fn reason() -> String {
    let mut random = rand::rng();
    (0..REASON_BYTES)
        .map(|_| char::from(random.random_range(b'!'..=b'~')))
        .collect()
}
