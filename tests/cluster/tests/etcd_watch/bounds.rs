//! How many may watch.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::watch_request::RequestUnion;
use tally_proto::etcd::{WatchCancelRequest, WatchCreateRequest};
use tally_testkit::{Cluster, channel, until};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::watching::{TOLD_WITHIN, Watching, cluster, prefix, put, told};

/// The keys that are watched count as well, so that few watchers reach the bound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_has_only_so_many_watchers_and_others_may_come_when_some_go() -> Result<()> {
    const KEY_BYTES: usize = 1 << 20;
    const MOST: i64 = 64;
    let (cluster, to) = cluster().await?;
    let watch = |number: i64| WatchCreateRequest {
        key: [&[b'w'; KEY_BYTES - 1][..], &[b'0' + number as u8]].concat(),
        watch_id: number + 1,
        ..Default::default()
    };
    let mut one = Watching::open(&to).await?;
    let mut other = Watching::open(&to).await?;
    for number in 0..MOST {
        let stream = match number % 2 {
            0 => &mut one,
            _ => &mut other,
        };
        let created = stream.create(watch(number)).await?;
        ensure!(
            created.created && !created.canceled,
            "{number}: {created:?}"
        );
    }
    for stream in [&mut one, &mut other] {
        let refused = stream.create(prefix("a")).await?;
        ensure!(
            refused.canceled && refused.watch_id == -1,
            "one more than {MOST}: {refused:?}"
        );
        ensure!(
            refused.cancel_reason == "too many watchers on this member",
            "{refused:?}"
        );
    }
    // Another member has room of its own.
    let leader = channel(&cluster.address(&cluster.leader().await?)?).await?;
    let mut elsewhere = Watching::open(&leader).await?;
    let created = elsewhere.create(prefix("a")).await?;
    ensure!(!created.canceled, "{created:?}");

    // Those that were there are told of what happens, and one that goes makes room for another.
    let cancel = WatchCancelRequest { watch_id: 1 };
    one.ask(RequestUnion::CancelRequest(cancel)).await?;
    let cancelled = one.next().await?;
    ensure!(cancelled.canceled, "{cancelled:?}");
    let created = one.create(prefix("a")).await?;
    ensure!(created.created && !created.canceled, "{created:?}");
    let mut kv = KvClient::new(to.clone());
    put(&mut kv, "a/1", b"one".to_vec()).await?;
    let told_of = one.events(1).await?;
    ensure!(told(&told_of[0].1).1 == "a/1", "{told_of:?}");
    // So does a stream that ends.
    drop(other);
    until("there is room again", TOLD_WITHIN, async || {
        let mut again = Watching::open(&to).await?;
        let created = again.create(watch(1)).await?;
        ensure!(!created.canceled, "{}", created.cancel_reason);
        Ok(())
    })
    .await?;
    cluster.stop().await
}

/// Their client takes nothing for a while, so all are let go. They catch up while as much happens as before, and are told of
/// everything once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_watchers_that_were_let_go_catch_up_while_more_happens() -> Result<()> {
    const KEYS: usize = 100;
    const OF_EACH: usize = 10;
    const WRITERS: usize = 16;
    let (cluster, to) = cluster().await?;
    let member = cluster.followers().await?.remove(0);
    let mut watching = Watching::open(&to).await?;
    for number in 0..KEYS * OF_EACH {
        let key = format!("busy/{:02}", number % KEYS);
        let created = watching.create(prefix(&key)).await?;
        ensure!(created.created && !created.canceled, "{created:?}");
    }
    let behind = async || {
        let metrics = cluster.member(&member)?.http("/metrics").await?;
        metrics.metric("tally_watchers_reading_history")
    };
    until("all watchers are in the hub", TOLD_WITHIN, async || {
        let behind = behind().await?;
        ensure!(behind == 0, "{behind} are not");
        Ok(())
    })
    .await?;

    let (stop, stopping) = watch::channel(false);
    // On a connection of their own, or what they wait for would wait for them.
    let leader = channel(&cluster.address(&cluster.leader().await?)?).await?;
    let mut writing = JoinSet::new();
    for writer in 0..WRITERS {
        let (mut kv, stopping) = (KvClient::new(leader.clone()), stopping.clone());
        writing.spawn(async move {
            let mut put_at: BTreeMap<usize, Vec<i64>> = BTreeMap::new();
            for number in (writer..KEYS).step_by(WRITERS).cycle() {
                if *stopping.borrow() {
                    break;
                }
                let revision = put(&mut kv, &format!("busy/{number:02}"), vec![b'v'; 100]).await?;
                put_at.entry(number).or_default().push(revision);
                // So much that nobody catches up alone, and the machine has something left for who does.
                tokio::time::sleep(Duration::from_millis(4)).await;
            }
            anyhow::Ok(put_at)
        });
    }
    until("most were let go", TOLD_WITHIN, async || {
        let behind = behind().await?;
        ensure!(behind as usize > KEYS * OF_EACH / 2, "{behind} were");
        Ok(())
    })
    .await?;
    let (send, mut come) = mpsc::unbounded_channel();
    let reading = tokio::spawn(async move {
        while let Ok(answer) = watching.next().await {
            if send.send(answer).is_err() {
                break;
            }
        }
    });
    until("all have caught up", TOLD_WITHIN, async || {
        let behind = behind().await?;
        ensure!(behind == 0, "{behind} have not");
        Ok(())
    })
    .await?;
    stop.send_replace(true);
    let mut put_at = BTreeMap::new();
    while let Some(written) = writing.join_next().await {
        put_at.extend(written??);
    }
    let expected: usize = put_at.values().map(|put| put.len() * OF_EACH).sum();
    let mut told_of: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    let mut count = 0;
    while count < expected {
        let answer = timeout(TOLD_WITHIN, come.recv()).await;
        let answer = answer.with_context(|| format!("{count} of {expected} events"))?;
        let answer = answer.context("the stream ended")?;
        ensure!(!answer.canceled, "{answer:?}");
        count += answer.events.len();
        let events = answer.events.iter().map(|event| told(event).3);
        told_of.entry(answer.watch_id).or_default().extend(events);
    }
    for (watch, revisions) in told_of {
        let key = usize::try_from(watch)? % KEYS;
        ensure!(
            Some(&revisions) == put_at.get(&key),
            "{watch}: {revisions:?}"
        );
    }
    reading.abort();
    cluster.stop().await
}

/// Each watches a range of one key, ten the same one; a put is told to ten, whichever streams they are on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_watchers_take_little_memory_and_each_is_told_of_its_keys() -> Result<()> {
    const STREAMS: usize = 10;
    const ON_EACH: usize = 1_000;
    const PUTS: usize = 300;
    // Beside what the member takes without them; the streams and their watchers took a tenth.
    const MORE_BYTES_MAX: u64 = 100_000_000;
    let cluster = Cluster::start(3).await?;
    let follower = cluster.followers().await?.remove(0);
    let to = channel(&cluster.address(&follower)?).await?;
    let before = cluster.member(&follower)?.resident_bytes()?;
    let key = |number: usize| format!("many/{:03}", number % ON_EACH);
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut watching = Watching::open(&to).await?;
        for number in 0..ON_EACH {
            let created = watching.create(prefix(&key(number))).await?;
            ensure!(created.created && !created.canceled, "{created:?}");
        }
        streams.push(watching);
    }
    let metric = async |name| {
        let metrics = cluster.member(&follower)?.http("/metrics").await?;
        metrics.metric(name)
    };
    until("all watchers have caught up", TOLD_WITHIN, async || {
        let behind = metric("tally_watchers_reading_history").await?;
        ensure!(behind == 0, "{behind} have not");
        Ok(())
    })
    .await?;
    let all = metric("tally_watchers").await?;
    ensure!(all == (STREAMS * ON_EACH) as u64, "{all} watchers");

    let mut kv = KvClient::new(to.clone());
    let mut expected = Vec::new();
    // Each key is put once.
    for number in (0..PUTS).map(|number| number * 7) {
        let revision = put(&mut kv, &key(number), b"v".to_vec()).await?;
        expected.push((key(number), revision));
    }
    for watching in &mut streams {
        let events = watching.events(PUTS).await?;
        let events = events.iter().map(|(watch, event)| {
            let (_, name, _, revision) = told(event);
            ensure!(key(usize::try_from(*watch)?) == name, "{watch}: {event:?}");
            Ok((name, revision))
        });
        let mut events = events.collect::<Result<Vec<_>>>()?;
        events.sort_by_key(|(_, revision)| *revision);
        ensure!(events == expected, "{events:?}");
    }
    let most = cluster.member(&follower)?.most_resident_bytes()?;
    ensure!(
        most < before + MORE_BYTES_MAX,
        "{before} bytes, then {most}"
    );
    cluster.stop().await
}
