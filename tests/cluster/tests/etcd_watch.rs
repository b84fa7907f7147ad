//! Watches through the etcd API, on a member that follows: what they are told, and what they are not.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::watch_client::WatchClient;
use tally_proto::etcd::watch_create_request::FilterType;
use tally_proto::etcd::watch_request::RequestUnion;
use tally_proto::etcd::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest, WatchCancelRequest,
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse, request_op,
};
use tally_proto::mvcc::Event;
use tally_proto::mvcc::event::EventType;
use tally_testkit::{Cluster, channel, until};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

const TOLD_WITHIN: Duration = Duration::from_secs(30);

/// A stream of watchers.
struct Watching {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

impl Watching {
    async fn open(to: &Channel) -> Result<Self> {
        let (requests, sent) = mpsc::channel(16);
        let mut client = WatchClient::new(to.clone()).max_decoding_message_size(64 << 20);
        let answers = client.watch(ReceiverStream::new(sent)).await?.into_inner();
        Ok(Self { requests, answers })
    }

    async fn ask(&self, request: RequestUnion) -> Result<()> {
        let request_union = Some(request);
        Ok(self.requests.send(WatchRequest { request_union }).await?)
    }

    async fn create(&mut self, ask: WatchCreateRequest) -> Result<WatchResponse> {
        self.ask(RequestUnion::CreateRequest(ask)).await?;
        self.next().await
    }

    async fn next(&mut self) -> Result<WatchResponse> {
        let answer = timeout(TOLD_WITHIN, self.answers.message()).await;
        answer.context("told nothing")??.context("the stream ended")
    }

    /// The next events, so many of them, and of which watcher they are.
    async fn events(&mut self, count: usize) -> Result<Vec<(i64, Event)>> {
        let mut events = Vec::new();
        while events.len() < count {
            let answer = self.next().await?;
            ensure!(!answer.canceled, "cancelled: {answer:?}");
            let watch = answer.watch_id;
            events.extend(answer.events.into_iter().map(|event| (watch, event)));
        }
        ensure!(events.len() == count, "more than {count}: {events:?}");
        Ok(events)
    }
}

fn prefix(key: &str) -> WatchCreateRequest {
    let mut end = key.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    WatchCreateRequest {
        key: key.as_bytes().to_vec(),
        range_end: end,
        ..Default::default()
    }
}

async fn put(kv: &mut KvClient<Channel>, key: &str, value: Vec<u8>) -> Result<i64> {
    let put = PutRequest {
        key: key.to_owned().into(),
        value: value.into(),
        ..Default::default()
    };
    let header = kv.put(put).await?.into_inner().header;
    Ok(header.context("no header")?.revision)
}

async fn delete(kv: &mut KvClient<Channel>, key: &str) -> Result<i64> {
    let delete = DeleteRangeRequest {
        key: key.to_owned().into(),
        ..Default::default()
    };
    let header = kv.delete_range(delete).await?.into_inner().header;
    Ok(header.context("no header")?.revision)
}

/// Kind, key, value, revision.
fn told(event: &Event) -> (EventType, String, String, i64) {
    let pair = event.kv.clone().unwrap_or_default();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (key, value) = (text(&pair.key), text(&pair.value));
    (event.r#type(), key, value, pair.mod_revision)
}

/// A cluster, and a member of it that follows.
async fn cluster() -> Result<(Cluster, Channel)> {
    let cluster = Cluster::start(3).await?;
    let follower = cluster.followers().await?.remove(0);
    let to = channel(&cluster.address(&follower)?).await?;
    Ok((cluster, to))
}

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
    let puts = (0..100).map(|number| {
        let put = PutRequest {
            key: format!("t/{number:03}").into(),
            value: vec![b'v'; 64 << 7].into(),
            ..Default::default()
        };
        RequestOp {
            request: Some(request_op::Request::RequestPut(put)),
        }
    });
    let all = TxnRequest {
        success: puts.collect(),
        ..Default::default()
    };
    let header = kv.txn(all).await?.into_inner().header;
    let revision = header.context("no header")?.revision;
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
    // From the compacted revision on everything is there.
    let from = WatchCreateRequest {
        start_revision: revision,
        ..prefix("t/")
    };
    other.create(from).await?;
    ensure!(other.events(100).await?.len() == 100);
    cluster.stop().await
}

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
