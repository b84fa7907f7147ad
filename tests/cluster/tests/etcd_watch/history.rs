//! Watchers that read the history: slow ones, and those that begin in the past.

use anyhow::{Context, Result, ensure};
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::watch_request::RequestUnion;
use tally_proto::etcd::{WatchCancelRequest, WatchCreateRequest, WatchProgressRequest};
use tally_proto::mvcc::event::EventType;
use tally_testkit::{Cluster, channel, until};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::watching::{TOLD_WITHIN, Watching, cluster, delete, prefix, put, put_at_once, told};

/// One stream is not read from until far more has happened than may wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_watcher_misses_nothing_and_keeps_nobody_waiting() -> Result<()> {
    const EVENTS: usize = 600;
    const BYTES: usize = 32 << 10;
    let (cluster, to) = cluster().await?;
    let mut slow = Watching::open(&to).await?;
    let slow_one = WatchCreateRequest {
        fragment: true,
        ..prefix("s/")
    };
    slow.create(slow_one).await?;
    // A connection of its own: streams share what may be on its way.
    let follower = cluster.followers().await?.remove(0);
    let apart = channel(&cluster.address(&follower)?).await?;
    let mut quick = Watching::open(&apart).await?;
    quick.create(prefix("s/")).await?;
    let mut kv = KvClient::new(apart.clone());
    for number in 0..EVENTS {
        put(&mut kv, &format!("s/{number:04}"), vec![b'v'; BYTES]).await?;
        let one = quick.events(1).await?;
        ensure!(told(&one[0].1).1 == format!("s/{number:04}"), "{number}");
    }
    put(&mut kv, "s/9999", b"last".to_vec()).await?;
    // What waits for it is bounded: it was let go, and has not read on, since its stream has no room.
    let metrics = cluster.member(&follower)?.http("/metrics").await?;
    let behind = metrics.metric("tally_watchers_reading_history")?;
    ensure!(behind == 1, "{behind} watchers read the history");
    let mut revision = 0;
    let events = slow.events(EVENTS + 1).await?;
    for (number, (_, event)) in events.iter().enumerate() {
        let (_, key, _, at) = told(event);
        let expected = match number {
            EVENTS => "s/9999".to_owned(),
            number => format!("s/{number:04}"),
        };
        ensure!(
            key == expected && at > revision,
            "{key} at r{at} after r{revision}"
        );
        revision = at;
    }
    cluster.stop().await
}

/// Events of deletions are small, and what they replaced is not: it is read in parts, of whole revisions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_values_that_were_replaced_are_told_once() -> Result<()> {
    const KEYS: usize = 20;
    const BYTES: usize = 256 << 10;
    let (cluster, to) = cluster().await?;
    let mut kv = KvClient::new(to.clone());
    let key = |number: usize| format!("large/{number:02}");
    for number in 0..KEYS {
        put(&mut kv, &key(number), vec![b'v'; BYTES]).await?;
    }
    let watch = |start_revision| WatchCreateRequest {
        prev_kv: true,
        start_revision,
        ..prefix("large/")
    };
    let mut present = Watching::open(&to).await?;
    present.create(watch(0)).await?;
    let mut first = 0;
    for number in 0..KEYS {
        let revision = delete(&mut kv, &key(number)).await?;
        first = if number == 0 { revision } else { first };
    }
    let mut past = Watching::open(&to).await?;
    past.create(watch(first)).await?;
    for watching in [&mut present, &mut past] {
        let events = watching.events(KEYS).await?;
        for (number, (_, event)) in events.iter().enumerate() {
            let (kind, name, _, _) = told(event);
            let before = event.prev_kv.as_ref().map_or(0, |pair| pair.value.len());
            ensure!(
                (kind, name, before) == (EventType::Delete, key(number), BYTES),
                "{number}: {before} bytes before {:?}",
                told(event)
            );
        }
    }
    cluster.stop().await
}

/// Each reads the history at first, and is told of what is new once it has caught up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_that_begin_in_the_past_are_told_each_event_once_while_more_happen() -> Result<()>
{
    const EVENTS: usize = 600;
    const WATCHERS: usize = 40;
    let (cluster, to) = cluster().await?;
    let mut kv = KvClient::new(to.clone());
    let first = put(&mut kv, "p/0000", Vec::new()).await?;
    let writing = tokio::spawn(async move {
        for number in 1..EVENTS {
            put(&mut kv, &format!("p/{number:04}"), Vec::new()).await?;
        }
        anyhow::Ok(())
    });
    let mut watchers = tokio::task::JoinSet::new();
    for number in 0..WATCHERS {
        let mut watching = Watching::open(&to).await?;
        let past = WatchCreateRequest {
            start_revision: first,
            ..prefix("p/")
        };
        watching.create(past).await?;
        watchers.spawn(async move {
            let events = watching.events(EVENTS).await?;
            for (expected, (_, event)) in events.iter().enumerate() {
                let (_, key, _, at) = told(event);
                let expected = format!("p/{expected:04}");
                ensure!(
                    key == expected,
                    "watcher {number}: {key} at r{at}, not {expected}"
                );
            }
            anyhow::Ok(())
        });
    }
    while let Some(watched) = watchers.join_next().await {
        watched??;
    }
    writing.await??;
    cluster.stop().await
}

/// There is more history than fits between the member and a client that does not read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_catches_up_can_be_cancelled_and_holds_back_progress() -> Result<()> {
    const TXNS: usize = 40;
    const KEYS: usize = 100;
    let (cluster, to) = cluster().await?;
    let mut kv = KvClient::new(to.clone());
    let first = put_at_once(&mut kv, "h/", KEYS, 10 << 10).await?;
    let mut last = first;
    for _ in 1..TXNS {
        last = put_at_once(&mut kv, "h/", KEYS, 10 << 10).await?;
    }
    let past = WatchCreateRequest {
        start_revision: first,
        ..prefix("h/")
    };

    let mut progress = Watching::open(&to).await?;
    progress.create(past.clone()).await?;
    progress
        .ask(RequestUnion::ProgressRequest(WatchProgressRequest {}))
        .await?;
    let mut events = 0;
    let through = loop {
        let answer = progress.next().await?;
        events += answer.events.len();
        if answer.watch_id == -1 {
            break answer.header.context("no header")?.revision;
        }
    };
    ensure!(events == TXNS * KEYS, "progress after {events} events");
    ensure!(through >= last, "progress to r{through}, not r{last}");

    let mut cancelled = Watching::open(&to).await?;
    let numbered = |ask| WatchCreateRequest { watch_id: 7, ..ask };
    cancelled.create(numbered(past)).await?;
    let cancel = WatchCancelRequest { watch_id: 7 };
    cancelled.ask(RequestUnion::CancelRequest(cancel)).await?;
    let mut events = 0;
    loop {
        let answer = cancelled.next().await?;
        events += answer.events.len();
        if answer.canceled {
            ensure!(answer.compact_revision == 0, "{answer:?}");
            break;
        }
    }
    ensure!(events < TXNS * KEYS, "all {events} were told before");
    // Of the cancelled one nothing more comes, not even when another has its number.
    let created = cancelled.create(numbered(prefix("h/"))).await?;
    ensure!(created.created && created.watch_id == 7, "{created:?}");
    let one = put(&mut kv, "h/000", b"new".to_vec()).await?;
    let events = cancelled.events(1).await?;
    ensure!(told(&events[0].1).3 == one, "r{}", told(&events[0].1).3);
    cluster.stop().await
}

/// A client cancels once more what has ended by itself, and must not end another with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_watchers_of_a_stream_are_given_one_number() -> Result<()> {
    let (cluster, to) = cluster().await?;
    let mut watching = Watching::open(&to).await?;
    for number in 0..3 {
        let created = watching.create(prefix("i/")).await?;
        ensure!(created.watch_id == number, "{created:?}");
        let cancel = WatchCancelRequest { watch_id: number };
        watching.ask(RequestUnion::CancelRequest(cancel)).await?;
        let cancelled = watching.next().await?;
        ensure!(cancelled.canceled, "{cancelled:?}");
    }
    cluster.stop().await
}

/// Its client goes on from whatever revision it is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_of_what_is_to_come_is_not_told_of_an_earlier_revision() -> Result<()> {
    let (cluster, to) = cluster().await?;
    let mut kv = KvClient::new(to.clone());
    let now = put(&mut kv, "c/0", Vec::new()).await?;
    let to_come = WatchCreateRequest {
        start_revision: now + 2,
        ..prefix("c/")
    };
    let mut watching = Watching::open(&to).await?;
    watching.create(to_come).await?;
    let progress = || RequestUnion::ProgressRequest(WatchProgressRequest {});
    watching.ask(progress()).await?;
    put(&mut kv, "c/1", Vec::new()).await?;
    let first = put(&mut kv, "c/2", Vec::new()).await?;
    let answer = watching.next().await?;
    ensure!(answer.events.len() == 1, "{answer:?}");
    ensure!(told(&answer.events[0]).3 == first, "{answer:?}");
    watching.ask(progress()).await?;
    let answer = watching.next().await?;
    ensure!(answer.watch_id == -1, "{answer:?}");
    cluster.stop().await
}

/// Clients that put keys below `w/` as fast as they can; one ends when it is not answered.
fn writers(to: &Channel) -> JoinSet<anyhow::Error> {
    const WRITERS: usize = 8;
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let mut kv = KvClient::new(to.clone());
        writers.spawn(async move {
            loop {
                if let Err(error) = put(&mut kv, &format!("w/{number}"), Vec::new()).await {
                    return error;
                }
            }
        });
    }
    writers
}

/// Some clients go on after the revision in the header of what they were told last, and must miss nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_told_later_of_a_revision_that_a_header_has_named() -> Result<()> {
    const ANSWERS: usize = 300;
    let (cluster, to) = cluster().await?;
    let mut writers = writers(&to);
    for from in [0, 1] {
        let ask = WatchCreateRequest {
            start_revision: from,
            ..prefix("w/")
        };
        let mut watching = Watching::open(&to).await?;
        watching.create(ask).await?;
        let mut named = 0;
        for _ in 0..ANSWERS {
            let answer = watching.next().await?;
            for event in &answer.events {
                let revision = told(event).3;
                ensure!(revision > named, "r{revision} after r{named} was named");
            }
            named = answer.header.context("no header")?.revision;
        }
    }
    ensure!(writers.try_join_next().is_none(), "a writer has ended");
    writers.shutdown().await;
    cluster.stop().await
}

/// One that has caught up is told with all the others, and costs little; it must get there although more
/// happens all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_watchers_catch_up_while_writes_go_on() -> Result<()> {
    const WATCHERS: u64 = 500;
    let cluster = Cluster::start(3).await?;
    let follower = cluster.followers().await?.remove(0);
    let to = channel(&cluster.address(&follower)?).await?;
    let mut writers = writers(&to);
    let mut watching = Watching::open(&to).await?;
    for _ in 0..WATCHERS {
        let ask = RequestUnion::CreateRequest(prefix("other/"));
        watching.ask(ask).await?;
        let created = watching.next().await?;
        ensure!(created.created && !created.canceled, "{created:?}");
    }
    until("all watchers have caught up", TOLD_WITHIN, async || {
        let metrics = cluster.member(&follower)?.http("/metrics").await?;
        let all = metrics.metric("tally_watchers")?;
        let behind = metrics.metric("tally_watchers_reading_history")?;
        ensure!((all, behind) == (WATCHERS, 0), "{behind} of {all} have not");
        Ok(())
    })
    .await?;
    ensure!(writers.try_join_next().is_none(), "a writer has ended");
    writers.shutdown().await;
    cluster.stop().await
}
