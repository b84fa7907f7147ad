//! All members are killed at once, under load.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use tally_proto::v1::Answer;
use tally_testkit::{
    AnswerExt, Call, Cluster, Reader, Requester, channel, registrations, send, send_until_answered,
    until,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

const WRITERS: usize = 4;
/// Answered before the members are killed, so that it happens under load.
const ANSWERED_BEFORE: usize = 60;
const ATTEMPT: Duration = Duration::from_secs(2);
const LOADED_WITHIN: Duration = Duration::from_secs(60);
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
/// A session keeps that many outcomes that were not acknowledged; the writers stay below.
const CALLS_PER_WRITER_MAX: usize = 200;

/// A call, and the answer if one came.
type Sent = (Call, Option<Answer>);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answered_command_survives_and_none_happens_twice() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let (answered, mut count) = watch::channel(0_usize);
    let mut writers = Vec::new();
    let names = cluster.names();
    for writer in 0..WRITERS {
        let address = cluster.address(&names[writer % names.len()])?;
        let requester = Requester::open(&address).await?;
        let to = channel(&address).await?;
        writers.push(write(requester, to, writer, answered.clone()));
    }
    drop(answered);
    let loaded = count.wait_for(|count| *count >= ANSWERED_BEFORE);
    tokio::time::timeout(LOADED_WITHIN, loaded).await??;
    cluster.kill_all()?;
    let mut sent = Vec::new();
    for writer in writers {
        sent.extend(writer.await??);
    }
    let before = sent.iter().filter(|(_, answer)| answer.is_some()).count();
    ensure!(before >= ANSWERED_BEFORE, "only {before} were answered");

    cluster.restart_all().await?;
    let address = cluster.address(&cluster.followers().await?.remove(0))?;
    for (call, first) in &sent {
        let again = send_until_answered(&address, call, ANSWERED_WITHIN).await?;
        match first {
            Some(first) => assert_eq!(again.replayed(), first.applied(), "{call:?}: {again:?}"),
            None => ensure!(again.took_effect().is_some(), "{call:?}: {again:?}"),
        }
    }
    none_twice(&address, sent.len()).await?;
    cluster.state_hashes_agree().await?;
    cluster.stop().await
}

/// Registers one node after the other until a call is not answered; returns every call and its answer.
fn write(
    mut requester: Requester,
    to: Channel,
    writer: usize,
    answered: watch::Sender<usize>,
) -> JoinHandle<Result<Vec<Sent>>> {
    tokio::spawn(async move {
        let mut sent = Vec::new();
        while sent.len() < CALLS_PER_WRITER_MAX {
            let call = requester.register_call(&format!("ls-{writer}-{}", sent.len()), None);
            let answer = send(&to, &call, ATTEMPT).await.ok();
            let went_well = answer.is_some();
            sent.push((call, answer));
            if !went_well {
                break;
            }
            answered.send_modify(|count| *count += 1);
        }
        Ok(sent)
    })
}

/// As many nodes as calls, each with one registration.
async fn none_twice(address: &str, calls: usize) -> Result<()> {
    let reader = Reader::linearizable(address).await?;
    let (nodes, history) = until("nodes and history", ANSWERED_WITHIN, async || {
        Ok((reader.nodes().await?, reader.history(0).await?))
    })
    .await?;
    assert_eq!(nodes.len(), calls);
    assert_eq!(registrations(&history).len(), calls);
    let mut by_node = BTreeMap::new();
    for entry in &history {
        *by_node.entry(entry.node).or_insert(0) += 1;
    }
    let twice: Vec<_> = by_node.iter().filter(|(_, count)| **count != 1).collect();
    ensure!(twice.is_empty(), "registered more than once: {twice:?}");
    Ok(())
}
