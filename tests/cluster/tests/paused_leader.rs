//! A leader is stopped, others go on without it, and it is woken up: it must not tell what was.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tally_proto::v1::{Consistency, StorageState};
use tally_testkit::{
    AnswerExt, Clocks, Cluster, Load, Proxy, Reader, Recorded, Requester, Seen, channel, rounds,
    seed,
};
use tokio::task::JoinSet;

/// Connections on which reads wait for the old leader.
const READERS: usize = 8;
/// Reads of each, one after the other: some wait in its sockets when it is woken up.
const READS: usize = 20;
/// A read has more bytes than this on its way to the member, headers included.
const READ_BYTES_MIN: u64 = 30;
const READ_WITHIN: Duration = Duration::from_secs(5);
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
/// Of the load, before and after.
const ANSWERS: usize = 20;
/// In what is searched for an order, beside the reads of those who waited.
const COMMANDS_MIN: usize = 20;
const READS_MIN: usize = 10 + READERS;

/// Reads `name` through `to`, again and again; every answer must be the one of now.
async fn hammer(to: Reader, name: String, now: StorageState) -> Result<Vec<Seen>> {
    let mut answered = Vec::new();
    for read in 0..READS {
        // Not to answer is allowed.
        let Ok(seen) = to.seen(&name).await else {
            continue;
        };
        let state = seen.node.as_ref().map(|node| node.state());
        ensure!(
            state == Some(now),
            "read {read}: {name} was {state:?} after it had become {now:?}"
        );
        answered.push(seen);
    }
    Ok(answered)
}

/// Pauses the leader and wakes it up among readers who wait; tells how many reads it answered.
async fn paused_and_resumed(cluster: &Cluster, round: usize) -> Result<usize> {
    let load = Load::start(cluster)?;
    load.answers(ANSWERS, ANSWERED_WITHIN).await?;
    let old = cluster.leader().await?;
    let address = cluster.address(&old)?;
    let name = format!("ls-{round}");
    let mut owner = Requester::open(&address).await?;
    let mut own = Recorded::default();
    let register = owner.register_call(&name, Some(owner.marker()));
    let registered = own.ask(&address, &name, register).await?.registered();
    let (node, incarnation) = registered.context("it was not registered")?;
    let activate = owner.activate_call(node, incarnation);
    let activated = own.ask(&address, &name, activate).await?;
    let proxy = Proxy::before(&address).await?;
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let to = channel(&proxy.address()).await?;
        let to = Reader::over(to, Consistency::Linearizable);
        // The connection is up before its other end is stopped.
        own.seen.push(to.seen(&name).await?);
        readers.push(to.within(READ_WITHIN));
    }

    cluster.pause(&old)?;
    let mut others = cluster.names();
    others.retain(|name| *name != old);
    let leader = cluster.address(&cluster.leader_among(&others).await?)?;
    let mut operator = Requester::open(&leader).await?;
    let seen = activated.applied().unwrap_or_default();
    let change = operator.set_state_call(node, StorageState::ReadOnly, seen);
    let changed = own.ask(&leader, &name, change).await?;
    ensure!(changed.applied().is_some(), "{changed:?}");

    // Asked after the change was answered, and in the old leader's sockets before it wakes up.
    let before = proxy.request_bytes();
    let mut hammers = JoinSet::new();
    for to in readers {
        hammers.spawn(hammer(to, name.clone(), StorageState::ReadOnly));
    }
    let all = before + READERS as u64 * READ_BYTES_MIN;
    proxy.request_bytes_above(all, READ_WITHIN).await?;
    let woken = Instant::now();
    cluster.resume(&old)?;
    let mut answered = Vec::new();
    while let Some(hammer) = hammers.join_next().await {
        answered.extend(hammer??);
    }
    println!(
        "round {round}: {old} gave {} answers, the last after {:?}",
        answered.len(),
        woken.elapsed()
    );
    let answers = answered.len();
    own.seen.extend(answered);
    cluster.leader().await?;
    load.answers(ANSWERS, ANSWERED_WITHIN).await?;
    let mut recorded = load.stop().await?;
    recorded.extend(own);
    println!("round {round}: {}", recorded.check(cluster).await?);
    let searched = recorded.linearizable()?;
    println!(
        "round {round}: {}",
        searched.at_least(COMMANDS_MIN, READS_MIN)?
    );
    Ok(answers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumed_leader_never_answers_a_fresh_read_with_what_was() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let mut answers = 0;
    for round in 1..=rounds(4, 40) {
        answers += paused_and_resumed(&cluster, round).await?;
    }
    ensure!(answers > 0, "no woken leader answered a read");
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumed_leader_never_answers_with_what_was_while_clocks_step() -> Result<()> {
    let mut cluster = Cluster::prepare(3, &[])?;
    let Some(clocks) = Clocks::apart(&mut cluster)? else {
        return Ok(());
    };
    cluster.restart_all().await?;
    let held = paused_and_resumed(&cluster, 1);
    clocks.step_during(&cluster.names(), seed()?, held).await?;
    clocks.are_followed(&cluster).await?;
    cluster.stop().await
}
