//! Log servers as clients of etcd see them: keys like any other, in one order with all others.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tally_client::keys::{self, Comparison, Expected, KeyEvent, KeyWatchItem, Txn};
use tally_client::{Client, Consistency, WatchItem, v1};
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::{CompactionRequest, DeleteRangeRequest, PutRequest};
use tally_testkit::{AnswerExt, Cluster, Reader, Requester, channel, send_until_answered};
use tokio::time::timeout;
use tonic::Code;

const TOLD_WITHIN: Duration = Duration::from_secs(30);
const NODE: &str = "\0tally/nodes/1";

/// What watchers were told: at which revision which key was put, and to what.
type Told = Vec<(u64, String, String)>;

/// Everything that was put from the first revision on, until the last key is put.
async fn puts(client: &Client, until: &str) -> Result<Told> {
    let mut watch = client.keys().watch(keys::prefix(""), 1);
    let mut told = Told::new();
    while told.last().is_none_or(|(_, key, _)| key != until) {
        let item = timeout(TOLD_WITHIN, watch.next()).await?;
        if let KeyWatchItem::Changed { revision, events } = item.context("the watch ended")?? {
            for event in events {
                let KeyEvent::Put(made) = event else {
                    bail!("nothing was deleted: {event:?}");
                };
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                told.push((revision, text(&made.key), text(&made.value)));
            }
        }
    }
    Ok(told)
}

/// The revisions of lines of the history of one node or of all, so many of them.
async fn lines(client: &Client, node: Option<u32>, from: u64, count: usize) -> Result<Vec<u64>> {
    let mut watch = client.watch(node, from);
    let mut told = Vec::new();
    while told.len() < count {
        let item = timeout(TOLD_WITHIN, watch.next()).await?;
        if let WatchItem::Event(line) = item.context("the watch ended")?? {
            told.push(line.revision);
        }
    }
    Ok(told)
}

fn state(value: &str) -> Result<String> {
    let record: Value = serde_json::from_str(value)?;
    Ok(record["state"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_etcd_is_told_of_nodes_in_the_order_of_all_revisions() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let follower = cluster.address(&cluster.followers().await?.remove(0))?;
    let client = Client::builder()
        .endpoints([format!("http://{follower}")])
        .build()?;
    let told = {
        let client = client.clone();
        tokio::spawn(async move { puts(&client, "last").await })
    };

    let mut owner = Requester::open(&follower).await?;
    client.keys().put("first", "", None).await?;
    let (node, incarnation) = owner.register(&follower, "ls1").await?;
    assert_eq!(node, 1);
    owner.activate(&follower, node, incarnation).await?;
    client.keys().put("middle", "", None).await?;
    let mut thief = Requester::open(&follower).await?;
    let refused = thief.activate(&follower, node, incarnation).await?;
    assert_eq!(refused.refused(), Some("T-310"), "{refused:?}");
    let operator = cluster.operator();
    let set = ["node", "set-state", "ls1", "read-only", "--reason", "disk"];
    operator.run(&set).await?.expect_code(0)?;
    // Only while the node is as it was seen.
    let found = client.keys().get(NODE, Consistency::Linearizable).await?;
    let found = found.context("the node has no key")?;
    let seen = Txn::new()
        .when(
            NODE,
            Comparison::Equal,
            Expected::Version(found.version.try_into()?),
        )
        .then(keys::put("last", "", None));
    let done = client.keys().txn(&seen).await?;
    ensure!(done.answer.succeeded, "{done:?}");

    let told = told.await??;
    let keys: Vec<&str> = told.iter().map(|(_, key, _)| key.as_str()).collect();
    let claim = keys[4];
    assert_eq!(keys, ["first", NODE, NODE, "middle", claim, NODE, "last"]);
    assert!(claim.starts_with("\0tally/nodes/1/claims/"), "{claim}");
    assert!(told.is_sorted_by(|one, next| one.0 < next.0), "{told:?}");
    let states = [1, 2, 5].map(|at| state(&told[at].2).unwrap_or_default());
    assert_eq!(states, ["provisioning", "read-write", "read-only"]);

    // The record is what the operator is shown.
    let shown = operator.run(&["-o", "json", "node", "show", "ls1"]).await?;
    let shown = shown.expect_code(0)?.json()?;
    assert_eq!(serde_json::from_slice::<Value>(&found.value)?, shown);
    let shown = operator.run(&["-o", "json", "kv", "get", r"\x00tally/nodes/1"]);
    let shown = shown.await?.expect_code(0)?.json()?;
    assert_eq!(shown["keys"][0]["value"], told[5].2, "{shown}");
    cluster.state_hashes_agree().await?;
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_of_nodes_are_told_each_line_once_beside_keys_and_after_a_compaction() -> Result<()>
{
    const ROUNDS: u64 = 20;
    let mut cluster = Cluster::start(3).await?;
    let addresses = ["n1", "n2", "n3"].map(|name| cluster.address(name));
    let endpoints = addresses.into_iter().collect::<Result<Vec<_>>>()?;
    let endpoints = endpoints.iter().map(|address| format!("http://{address}"));
    let client = Client::builder().endpoints(endpoints).build()?;
    let mut owners = Vec::new();
    let leader = cluster.leader().await?;
    let address = cluster.address(&leader)?;
    for name in ["ls1", "ls2"] {
        let mut owner = Requester::open(&address).await?;
        let (node, _) = owner.register(&address, name).await?;
        owners.push((owner, node));
    }
    // Each round registers both once more.
    let expected = 2 * usize::try_from(ROUNDS)? + 2;
    let watchers = [None, Some(1)].map(|node| {
        let client = client.clone();
        let count = expected / (1 + usize::from(node.is_some()));
        tokio::spawn(async move { lines(&client, node, 1, count).await })
    });
    for round in 0..ROUNDS {
        let put = client.keys().put("beside", round.to_string(), None).await?;
        for (owner, node) in &mut owners {
            let marker = owner.marker();
            let call = owner.register_call(&format!("ls{node}"), Some(marker));
            send_until_answered(&address, &call, TOLD_WITHIN).await?;
        }
        if round == ROUNDS / 2 {
            let mut kv = KvClient::new(channel(&address).await?);
            let compact = CompactionRequest {
                revision: i64::try_from(put.revision)?,
                physical: false,
            };
            kv.compact(compact).await?;
        }
    }
    let survivor = cluster.address(&cluster.followers().await?.remove(0))?;
    cluster.kill(&leader)?;
    let [all, one] = watchers;
    let (all, one) = (all.await??, one.await??);
    let late = lines(&client, None, 1, expected).await?;
    let reader = Reader::over(channel(&survivor).await?, v1::Consistency::Linearizable);
    let history = reader.history(0).await?;
    let history: Vec<u64> = history.iter().map(|line| line.revision).collect();
    assert_eq!(all, history);
    assert_eq!(late, history);
    assert!(one.iter().all(|line| all.contains(line)), "{one:?}");
    assert_eq!(one.len() * 2, all.len());
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_writes_the_keys_of_nodes() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let address = cluster.address("n2")?;
    let mut owner = Requester::open(&address).await?;
    owner.register(&address, "ls1").await?;
    let mut kv = KvClient::new(channel(&address).await?);
    let put = PutRequest {
        key: NODE.into(),
        ..Default::default()
    };
    let refused = kv.put(put).await.err().context("it was put")?;
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert!(refused.message().contains("T-505"), "{refused}");
    let delete = |key: &[u8], end: &[u8]| DeleteRangeRequest {
        key: key.to_vec().into(),
        range_end: end.to_vec().into(),
        prev_kv: false,
    };
    let refused = kv.delete_range(delete(NODE.as_bytes(), b"")).await.err();
    let refused = refused.context("it was deleted")?;
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    // Everything: what is a client's goes, what is the cluster's stays.
    let everything = delete(b"\0", b"\0");
    let deleted = kv.delete_range(everything).await?.into_inner();
    assert_eq!(deleted.deleted, 0);
    let operator = cluster.operator();
    let found = operator.run(&["kv", "get", r"\x00tally/nodes/1"]);
    found.await?.expect_code(0)?;
    cluster.stop().await
}
