//! Keys through the etcd API while members are killed, paused, cut off and hand over: one order explains
//! everything that was answered, and watchers on every member are told exactly that history: no event is
//! missing, and every answer is of what they were told.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use tally_proto::etcd::RangeRequest;
use tally_proto::etcd::kv_client::KvClient;
use tally_testkit::keys::{KeyHistory, KeyLoad, KeyRecord, KeyWatcher, Noted};
use tally_testkit::leader_loss::{Deck, Fault, cluster_for};
use tally_testkit::{Cluster, channel, rounds, seed};

/// Requests that are answered in each part of a round.
const ANSWERED: usize = 60;
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
const TOLD_WITHIN: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_order_explains_what_clients_saw_and_watchers_are_told_it_once() -> Result<()> {
    let seed = seed()?;
    let mut random = StdRng::seed_from_u64(seed);
    let (mut cluster, faults) = cluster_for(&Fault::ALL).await?;
    let mut deck = Deck::of(&faults);
    let mut watchers = BTreeMap::new();
    for name in cluster.names() {
        let address = cluster.address(&name)?;
        watchers.insert(name, KeyWatcher::start(&address, "round/", 1)?);
    }
    let mut all = KeyRecord::default();
    let mut killed: BTreeMap<String, usize> = BTreeMap::new();
    for number in 0..rounds(6, 50) {
        let fault = deck.draw(&mut random);
        let leader = cluster.leader().await?;
        let record = round(&mut cluster, &mut random, number, (fault, &leader)).await;
        let record = record.with_context(|| format!("round {number} of seed {seed}, {fault}"))?;
        let searched = record.linearizable()?.at_least(2 * ANSWERED)?;
        println!("round {number}: {fault}: {searched}");
        all.extend(record);
        *killed.entry(leader).or_default() += usize::from(fault == Fault::Kill);
    }
    let last = last_revision(&cluster).await?;
    let mut told: Option<Vec<Noted>> = None;
    for (name, watcher) in &mut watchers {
        let noted = watcher.through(last, TOLD_WITHIN).await;
        let noted = noted.with_context(|| format!("the watcher on {name}"))?;
        let first = told.get_or_insert_with(|| noted.clone());
        ensure!(*first == noted, "{name} tells another history");
        let (broken, kills) = (watcher.broken(), killed.get(name).copied().unwrap_or(0));
        ensure!(
            broken <= kills,
            "{broken} streams of {name} broke, which was killed {kills} times"
        );
    }
    let told = told.context("nobody watched")?;
    KeyHistory::of(&told)?.explains(&all)?;
    println!(
        "{} events were told alike by {} members, and explain {} answers",
        told.len(),
        watchers.len(),
        all.answered()
    );
    ends_as_it_is_stored(&cluster, &told).await?;
    cluster.stop().await
}

async fn round(
    cluster: &mut Cluster,
    random: &mut StdRng,
    number: usize,
    (fault, leader): (Fault, &str),
) -> Result<KeyRecord> {
    let followers = cluster.followers().await?;
    let heir = followers.choose(random).context("no follower")?.clone();
    let load = KeyLoad::start(cluster, &format!("round/{number:03}"))?;
    load.answers(ANSWERED, ANSWERED_WITHIN).await?;
    fault.strike(cluster, leader, &heir).await?;
    load.answers(ANSWERED, ANSWERED_WITHIN).await?;
    if !fault.leaves_it_in() {
        fault.mend(cluster, leader)?;
    }
    cluster.all_ready().await?;
    let record = load.stop().await?;
    cluster.state_hashes_agree().await?;
    Ok(record)
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

async fn last_revision(cluster: &Cluster) -> Result<i64> {
    // One more event, which ends what is compared.
    let leader = cluster.leader().await?;
    let mut client = KvClient::new(channel(&cluster.address(&leader)?).await?);
    let end = tally_proto::etcd::PutRequest {
        key: Bytes::from_static(b"round/end"),
        value: Bytes::from_static(b"0"),
        ..Default::default()
    };
    let header = client.put(end).await?.into_inner().header;
    Ok(header.context("no header")?.revision)
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
