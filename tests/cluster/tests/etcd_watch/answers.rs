//! What watchers of one stream are told, and what they are not.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use prost::Message;
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::request_op::Request as Op;
use tally_proto::etcd::watch_create_request::FilterType;
use tally_proto::etcd::watch_request::RequestUnion;
use tally_proto::etcd::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest, WatchCancelRequest,
    WatchCreateRequest, WatchProgressRequest,
};
use tally_proto::mvcc::event::EventType;

use tally_testkit::{Cluster, channel};

use crate::watching::{Watching, cluster, delete, prefix, put, put_at_once, told};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_of_one_stream_are_told_what_each_has_asked_for() -> Result<()> {
    let (cluster, to) = cluster().await?;
    let mut kv = KvClient::new(to.clone());
    let first = put(&mut kv, "a/1", b"one".to_vec()).await?;
    let second = put(&mut kv, "a/1", b"two".to_vec()).await?;
    let mut watching = Watching::open(&to).await?;

    let past = WatchCreateRequest {
        start_revision: first,
        prev_kv: true,
        ..prefix("a/")
    };
    // Of a stream without watchers there is nothing to be told.
    watching
        .ask(RequestUnion::ProgressRequest(WatchProgressRequest {}))
        .await?;
    let created = watching.create(past).await?;
    ensure!(created.created && created.watch_id == 0, "{created:?}");
    let events = watching.events(2).await?;
    ensure!(told(&events[0].1) == (EventType::Put, "a/1".into(), "one".into(), first));
    ensure!(events[0].1.prev_kv.is_none(), "{events:?}");
    let before = events[1].1.prev_kv.clone().context("no previous version")?;
    ensure!(before.value == "one", "{before:?}");

    let deletions = WatchCreateRequest {
        key: b"a/1".to_vec(),
        watch_id: 7,
        filters: vec![FilterType::Noput.into()],
        ..Default::default()
    };
    let created = watching.create(deletions.clone()).await?;
    ensure!(created.watch_id == 7, "{created:?}");
    let twice = watching.create(deletions).await?;
    ensure!(twice.canceled && twice.watch_id == -1, "{twice:?}");
    let none = WatchCreateRequest {
        key: b"b".to_vec(),
        range_end: b"a".to_vec(),
        ..Default::default()
    };
    let none = watching.create(none).await?;
    ensure!(
        none.canceled && none.cancel_reason.contains("range is empty"),
        "{none:?}"
    );

    let third = put(&mut kv, "a/1", b"three".to_vec()).await?;
    let gone = delete(&mut kv, "a/1").await?;
    let mut events = watching.events(3).await?;
    events.sort_by_key(|(watch, event)| (*watch, told(event).3));
    let expected = [
        (
            0,
            (EventType::Put, "a/1".to_owned(), "three".to_owned(), third),
        ),
        (
            0,
            (EventType::Delete, "a/1".to_owned(), String::new(), gone),
        ),
        (
            7,
            (EventType::Delete, "a/1".to_owned(), String::new(), gone),
        ),
    ];
    let events = events.iter().map(|(watch, event)| (*watch, told(event)));
    let events: Vec<_> = events.collect();
    ensure!(events == expected, "{events:?} after r{second}");

    // A cancelled one is told nothing more; the other is.
    let cancel = WatchCancelRequest { watch_id: 0 };
    watching.ask(RequestUnion::CancelRequest(cancel)).await?;
    let cancelled = watching.next().await?;
    ensure!(
        cancelled.canceled && cancelled.watch_id == 0,
        "{cancelled:?}"
    );
    put(&mut kv, "a/1", b"four".to_vec()).await?;
    let last = delete(&mut kv, "a/1").await?;
    let events = watching.events(1).await?;
    ensure!(
        events[0].0 == 7 && told(&events[0].1).3 == last,
        "{events:?}"
    );

    // Progress is told for the whole stream, and after everything before it.
    watching
        .ask(RequestUnion::ProgressRequest(WatchProgressRequest {}))
        .await?;
    let progress = watching.next().await?;
    let revision = progress.header.context("no header")?.revision;
    ensure!(
        progress.watch_id == -1 && revision >= last,
        "r{revision}, not r{last}"
    );
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_told_as_a_whole_and_what_was_compacted_ends_the_watch() -> Result<()> {
    let (cluster, to) = cluster().await?;
    let mut kv = KvClient::new(to.clone());
    let first = put(&mut kv, "t/0", b"x".to_vec()).await?;
    let mut watching = Watching::open(&to).await?;
    watching.create(prefix("t/")).await?;
    let revision = put_at_once(&mut kv, "t/", 100, 8 << 10).await?;
    let answer = watching.next().await?;
    ensure!(
        answer.events.len() == 100 && !answer.fragment,
        "{} events",
        answer.events.len()
    );
    for event in &answer.events {
        ensure!(told(event).3 == revision, "{:?}", told(event));
    }

    let compact = CompactionRequest {
        revision,
        physical: true,
    };
    kv.compact(compact).await?;
    let past = WatchCreateRequest {
        start_revision: first,
        watch_id: 9,
        ..prefix("t/")
    };
    let mut other = Watching::open(&to).await?;
    let created = other.create(past).await?;
    ensure!(created.created && !created.canceled, "{created:?}");
    let ended = other.next().await?;
    ensure!(ended.canceled && ended.watch_id == 9, "{ended:?}");
    ensure!(ended.compact_revision == revision, "{ended:?}");
    let header = ended.header.context("no header")?;
    ensure!(header.revision == 0, "to go on after: {ended:?}");
    is_free_when_it_is_cancelled(&mut other, 9).await?;
    // From the compacted revision on everything is there.
    let from = WatchCreateRequest {
        start_revision: revision,
        ..prefix("t/")
    };
    other.create(from).await?;
    ensure!(other.events(100).await?.len() == 100);
    cluster.stop().await
}

/// The client of a watcher that was ended cancels it too, and is answered once; the id is free after that.
async fn is_free_when_it_is_cancelled(watching: &mut Watching, watch_id: i64) -> Result<()> {
    let again = WatchCreateRequest {
        watch_id,
        ..prefix("u/")
    };
    let refused = watching.create(again.clone()).await?;
    ensure!(refused.canceled && refused.watch_id == -1, "{refused:?}");
    for _ in 0..2 {
        let cancel = WatchCancelRequest { watch_id };
        watching.ask(RequestUnion::CancelRequest(cancel)).await?;
    }
    let cancelled = watching.next().await?;
    ensure!(
        cancelled.canceled && cancelled.watch_id == watch_id && cancelled.compact_revision == 0,
        "{cancelled:?}"
    );
    let created = watching.create(again).await?;
    ensure!(created.created && !created.canceled, "{created:?}");
    Ok(())
}

/// All keys from the smallest on are deleted and one of them is put again, in one transaction, as etcd allows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_was_made_anew_has_replaced_nothing() -> Result<()> {
    let (cluster, to) = cluster().await?;
    let mut kv = KvClient::new(to.clone());
    put(&mut kv, "k", b"old".to_vec()).await?;
    let mut watching = Watching::open(&to).await?;
    let ask = WatchCreateRequest {
        prev_kv: true,
        ..prefix("k")
    };
    watching.create(ask).await?;
    let all = DeleteRangeRequest {
        key: b"\0".to_vec().into(),
        range_end: b"\0".to_vec().into(),
        ..Default::default()
    };
    let anew = PutRequest {
        key: "k".into(),
        value: "new".into(),
        ..Default::default()
    };
    let ops = [Op::RequestDeleteRange(all), Op::RequestPut(anew)];
    let ops = ops.map(|op| RequestOp { request: Some(op) });
    let txn = TxnRequest {
        success: ops.to_vec(),
        ..Default::default()
    };
    kv.txn(txn).await?;
    let events = watching.events(2).await?;
    let previous = events.iter().map(|(_, event)| {
        let previous = event.prev_kv.as_ref();
        previous.map(|pair| pair.value.clone())
    });
    let previous: Vec<_> = previous.collect();
    ensure!(previous == [Some("old".into()), None], "{events:?}");
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asked_for_it_is_told_the_revision_while_nothing_happens_to_its_keys() -> Result<()> {
    let cluster = Cluster::start_with(3, &["--progress-notify-ms", "1500"]).await?;
    let follower = cluster.followers().await?.remove(0);
    let to = channel(&cluster.address(&follower)?).await?;
    let mut kv = KvClient::new(to.clone());
    let before = put(&mut kv, "o", Vec::new()).await?;
    let mut watching = Watching::open(&to).await?;
    for (watch_id, progress_notify) in [(1, false), (2, true)] {
        let ask = WatchCreateRequest {
            watch_id,
            progress_notify,
            ..prefix("n/")
        };
        watching.create(ask).await?;
    }
    // Each after the same time, and never the one that did not ask.
    let mut first = None;
    for _ in 0..4 {
        let told = watching.next().await?;
        ensure!(told.watch_id == 2 && told.events.is_empty(), "{told:?}");
        let revision = told.header.context("no header")?.revision;
        ensure!(revision >= before, "r{revision}, not r{before}");
        first.get_or_insert_with(Instant::now);
    }
    let after = first.context("told nothing")?.elapsed();
    // Three times the period, less what the first was late.
    ensure!(after > Duration::from_secs(3), "all within {after:?}");
    put(&mut kv, "n/1", Vec::new()).await?;
    let mut events = watching.events(2).await?;
    events.sort_by_key(|(watch, _)| *watch);
    ensure!(events[0].0 == 1 && events[1].0 == 2, "{events:?}");
    cluster.stop().await
}

/// What was there before counts as well, so that a request within the bound makes an answer above it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_above_the_bound_comes_in_parts_where_parts_are_asked_for() -> Result<()> {
    const REQUEST_BYTES_MAX: usize = 3 << 19;
    const KEYS: usize = 100;
    let (cluster, to) = cluster().await?;
    let mut kv = KvClient::new(to.clone());
    put_at_once(&mut kv, "f/", KEYS, 14 << 10).await?;
    let mut watching = Watching::open(&to).await?;
    for fragment in [true, false] {
        let ask = WatchCreateRequest {
            prev_kv: true,
            fragment,
            ..prefix("f/")
        };
        watching.create(ask).await?;
    }
    let revision = put_at_once(&mut kv, "f/", KEYS, 14 << 10).await?;
    let mut told = [Vec::new(), Vec::new()];
    while told.iter().map(Vec::len).sum::<usize>() < 2 * KEYS {
        let answer = watching.next().await?;
        let (whole, bytes) = (answer.watch_id == 1, answer.encoded_len());
        let of_it = &mut told[usize::from(whole)];
        of_it.extend(answer.events);
        let more = of_it.len() < KEYS;
        ensure!(answer.fragment == more, "{bytes} bytes, more: {more}");
        // The header is beside the events.
        ensure!(
            whole || bytes <= REQUEST_BYTES_MAX + 100,
            "a part of {bytes} bytes"
        );
        ensure!(
            !whole || !more && bytes > REQUEST_BYTES_MAX,
            "cut: {bytes} bytes"
        );
    }
    for events in told {
        for (number, event) in events.iter().enumerate() {
            let pair = event.kv.as_ref().context("no key")?;
            ensure!(pair.key == format!("f/{number:03}") && pair.mod_revision == revision);
            ensure!(event.prev_kv.is_some(), "no previous version of {number}");
        }
    }
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletions_previous_versions_and_revisions_are_left_out_where_they_must_be() -> Result<()> {
    let (cluster, to) = cluster().await?;
    let mut kv = KvClient::new(to.clone());
    put(&mut kv, "k", b"one".to_vec()).await?;
    let second = put(&mut kv, "k", b"two".to_vec()).await?;
    let compact = CompactionRequest {
        revision: second,
        physical: true,
    };
    kv.compact(compact).await?;
    let mut watching = Watching::open(&to).await?;
    let puts = WatchCreateRequest {
        start_revision: second,
        prev_kv: true,
        filters: vec![FilterType::Nodelete.into()],
        ..prefix("k")
    };
    watching.create(puts).await?;
    let gone = delete(&mut kv, "k").await?;
    // It begins with the next revision but one.
    let to_come = WatchCreateRequest {
        start_revision: gone + 2,
        watch_id: 5,
        ..prefix("k")
    };
    // What the first was told by then is in front of the answer.
    watching.ask(RequestUnion::CreateRequest(to_come)).await?;
    let mut created = false;
    let mut first = Vec::new();
    while !created || first.is_empty() {
        let answer = watching.next().await?;
        created |= answer.created && answer.watch_id == 5;
        first.extend(answer.events);
    }
    ensure!(first.len() == 1 && told(&first[0]).3 == second, "{first:?}");
    ensure!(first[0].prev_kv.is_none(), "it was compacted: {first:?}");

    put(&mut kv, "k", b"three".to_vec()).await?;
    let fourth = put(&mut kv, "k", b"four".to_vec()).await?;
    delete(&mut kv, "k").await?;
    let mut events = watching.events(4).await?;
    events.sort_by_key(|(watch, event)| (*watch, told(event).3));
    let told: Vec<_> = events
        .iter()
        .map(|(watch, event)| (*watch, told(event).0, told(event).3))
        .collect();
    let expected = [
        (0, EventType::Put, fourth - 1),
        (0, EventType::Put, fourth),
        (5, EventType::Put, fourth),
        (5, EventType::Delete, fourth + 1),
    ];
    ensure!(told == expected, "{told:?}");
    let before = events[1].1.prev_kv.as_ref().map(|pair| &pair.value);
    ensure!(before.is_some_and(|value| value == "three"), "{before:?}");
    cluster.stop().await
}
