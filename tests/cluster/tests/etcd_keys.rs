//! Keys through the etcd API while members are killed, paused, cut off and hand over: one order explains
//! everything that was answered, and watchers on every member are told exactly that history: no event is
//! missing, and every answer is of what they were told. Meanwhile what they were told is compacted and removed, and
//! logs are so short that who was away long enough comes back by a snapshot.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use tally_proto::etcd::RangeRequest;
use tally_proto::etcd::kv_client::KvClient;
use tally_testkit::keys::{
    KeyCompactor, KeyHistory, KeyLoad, KeyRecord, Noted, last_event, told_alike, watchers,
};
use tally_testkit::leader_loss::{Deck, Fault, cluster_for};
use tally_testkit::{Cluster, channel, rounds, seed, until};

/// Requests that are answered in each part of a round.
const ANSWERED: usize = 60;
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
const TOLD_WITHIN: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_order_explains_what_clients_saw_and_watchers_are_told_it_once() -> Result<()> {
    let seed = seed()?;
    let mut random = StdRng::seed_from_u64(seed);
    let small = ["--snapshot-entries", "200", "--keep-entries", "50"];
    let (mut cluster, faults) = cluster_for(&Fault::ALL, &small).await?;
    let mut deck = Deck::of(&faults);
    let mut watchers = watchers(&cluster, "round/", 1)?;
    let compactor = KeyCompactor::start(&cluster, &watchers)?;
    let mut all = KeyRecord::default();
    let mut killed: BTreeMap<String, usize> = BTreeMap::new();
    // Of 60 rounds 50 have a fault that is no orderly change of leader; it strikes a leader in two of three.
    let rounds = rounds(6, 60);
    for number in 0..rounds {
        let fault = deck.draw(&mut random);
        let (leader, followers) = cluster.leader_and_followers().await?;
        let follower = followers
            .choose(&mut random)
            .context("no follower")?
            .clone();
        let (struck, heir) = match number % 3 {
            2 => (follower, leader),
            _ => (leader, follower),
        };
        let what = || format!("round {number} of seed {seed}, {struck} {fault}");
        let record = round(&mut cluster, number, (fault, &struck, &heir)).await;
        let record = record.with_context(what)?;
        let searched = record.linearizable().with_context(what)?;
        let searched = searched.at_least(2 * ANSWERED)?;
        println!("{}: {searched}", what());
        all.extend(record);
        *killed.entry(struck).or_default() += usize::from(fault == Fault::Kill);
    }
    let compacted = compactor.stop().await?;
    let last = last_event(&cluster, "round/end").await?;
    let told = told_alike(&mut watchers, last, TOLD_WITHIN).await?;
    for (name, watcher) in &watchers {
        let (broken, kills) = (watcher.broken(), killed.get(name).copied().unwrap_or(0));
        ensure!(
            broken <= kills,
            "{broken} streams of {name} broke, which was killed {kills} times"
        );
    }
    KeyHistory::of(&told)?.explains(&all)?;
    let (answers, looks) = (all.answered(), all.snapshots.len());
    println!(
        "{} events were told alike by {} members, and explain {answers} answers and {looks} looks at all keys",
        told.len(),
        watchers.len(),
    );
    println!(
        "compacted {} times, up to {}",
        compacted.times, compacted.revision
    );
    ensure!(
        compacted.times >= rounds,
        "{compacted:?} is too little for {rounds} rounds"
    );
    for name in cluster.names() {
        all_is_removed(&cluster, &name, compacted.revision).await?;
    }
    ensure!(looks >= rounds, "{looks} looks at all keys are too few");
    ends_as_it_is_stored(&cluster, &told).await?;
    cluster.stop().await
}

async fn round(
    cluster: &mut Cluster,
    number: usize,
    (fault, struck, heir): (Fault, &str, &str),
) -> Result<KeyRecord> {
    let load = KeyLoad::start(cluster, &format!("round/{number:03}"))?;
    load.answers(ANSWERED, ANSWERED_WITHIN).await?;
    fault.strike(cluster, struck, heir).await?;
    load.answers(ANSWERED, ANSWERED_WITHIN).await?;
    if !fault.leaves_it_in() {
        fault.mend(cluster, struck)?;
    }
    cluster.all_ready().await?;
    let record = load.stop().await?;
    cluster.state_hashes_agree().await?;
    Ok(record)
}

/// What was compacted is removed by each member.
async fn all_is_removed(cluster: &Cluster, name: &str, revision: i64) -> Result<()> {
    until(
        "all that was compacted is removed",
        TOLD_WITHIN,
        async || {
            let metrics = cluster.member(name)?.http("/metrics").await?;
            let compacted = metrics.metric("tally_compacted_revision")?;
            let reclaiming = metrics.metric("tally_reclaiming")?;
            ensure!(
                i64::try_from(compacted)? >= revision && reclaiming == 0,
                "{name} at {compacted} of {revision}, {reclaiming}"
            );
            Ok(())
        },
    )
    .await
}

async fn everything(cluster: &Cluster) -> Result<Vec<tally_proto::mvcc::KeyValue>> {
    let leader = cluster.leader().await?;
    let mut client = KvClient::new(channel(&cluster.address(&leader)?).await?);
    let all = RangeRequest {
        key: Bytes::from_static(b"round/"),
        range_end: Bytes::from_static(b"round0"),
        ..Default::default()
    };
    Ok(client.range(all).await?.into_inner().kvs)
}

/// Playing the events gives the keys that are stored.
async fn ends_as_it_is_stored(cluster: &Cluster, told: &[Noted]) -> Result<()> {
    let mut played = BTreeMap::new();
    for event in told {
        match &event.value {
            Some(value) => {
                let revisions = (event.created, event.revision, event.version);
                played.insert(event.key.clone(), (value.clone(), revisions));
            }
            None => drop(played.remove(&event.key)),
        }
    }
    let stored = everything(cluster).await?.into_iter().map(|pair| {
        let revisions = (pair.create_revision, pair.mod_revision, pair.version);
        (pair.key, (pair.value, revisions))
    });
    ensure!(
        played == stored.collect::<BTreeMap<_, _>>(),
        "what was told is not what is stored"
    );
    Ok(())
}
