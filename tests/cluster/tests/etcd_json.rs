//! The etcd API in JSON over plain HTTP, on the same port: the same store, the same answers.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tally_proto::etcd::RangeRequest;
use tally_proto::etcd::kv_client::KvClient;
use tally_testkit::json::{JsonAnswer, JsonStream, post, post_bytes};
use tally_testkit::{Cluster, Requester, channel, get, until};

const SETTLED_WITHIN: Duration = Duration::from_secs(30);

/// Keys and values in base64.
const A: &str = "YQ==";
const B: &str = "Yg==";
const C: &str = "Yw==";

async fn ask(address: &str, path: &str, body: Value) -> Result<Value> {
    let answer = post(address, path, &[], &body).await?;
    ensure!(answer.status == 200, "{path} {body}: {answer:?}");
    Ok(answer.body)
}

async fn refused(address: &str, path: &str, body: Value) -> Result<(u16, i64, String)> {
    let JsonAnswer { status, body, .. } = post(address, path, &[], &body).await?;
    let code = body["code"].as_i64();
    let message = body["message"].as_str();
    let told = (status, code, message.map(str::to_owned));
    let (status, Some(code), Some(message)) = told else {
        anyhow::bail!("no refusal: {status} {body}");
    };
    ensure!(body["error"] == message, "{body}");
    Ok((status, code, message))
}

/// Puts, reads and deletes `a`, also by an older revision.
async fn keys([n1, n2, n3]: &[String; 3]) -> Result<()> {
    let put = ask(n1, "/v3/kv/put", json!({"key": A, "value": B})).await?;
    ensure!(put["header"]["revision"] == "2", "{put}");
    let expected = json!([{"key": A, "value": B, "create_revision": "2", "mod_revision": "2", "version": "1"}]);
    for member in [n1, n2, n3] {
        let read = ask(member, "/v3/kv/range", json!({"key": A})).await?;
        ensure!(read["kvs"] == expected && read["count"] == "1", "{read}");
        let mut kv = KvClient::new(channel(member).await?);
        let over_grpc = RangeRequest {
            key: "a".into(),
            ..Default::default()
        };
        let over_grpc = kv.range(over_grpc).await?.into_inner();
        ensure!(over_grpc.kvs[0].value == "b", "{over_grpc:?}");
    }
    let gone = json!({"key": A, "prev_kv": true});
    let gone = ask(n3, "/v3/kv/deleterange", gone).await?;
    ensure!(gone["deleted"] == "1", "{gone}");
    ensure!(gone["prev_kvs"] == expected, "{gone}");
    let before = json!({"key": A, "revision": "2"});
    let read = ask(n2, "/v3/kv/range", before.clone()).await?;
    ensure!(read["kvs"] == expected, "{read}");
    let older = ask(n3, "/v3beta/kv/range", before.clone()).await?;
    ensure!(older["kvs"] == expected, "{older}");
    ask(n1, "/v3/kv/compaction", json!({"revision": "3"})).await?;
    let told = refused(n2, "/v3/kv/range", before).await?;
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    ensure!(told == (400, 11, compacted.to_owned()), "{told:?}");
    Ok(())
}

/// Takes a lock as Patroni does: only where nobody has it, for as long as a lease lasts.
async fn lock([n1, n2, n3]: &[String; 3]) -> Result<()> {
    let granted = ask(n2, "/v3/lease/grant", json!({"TTL": 60})).await?;
    let lease = granted["ID"].clone();
    let lock = json!({
        "compare": [{"target": "CREATE", "result": "EQUAL", "key": C, "create_revision": "0"}],
        "success": [{"request_put": {"key": C, "value": A, "lease": lease}}],
        "failure": [{"request_range": {"key": C}}],
    });
    let taken = ask(n3, "/v3/kv/txn", lock.clone()).await?;
    ensure!(taken["succeeded"] == true, "{taken}");
    let other = ask(n1, "/v3/kv/txn", lock).await?;
    ensure!(other.get("succeeded").is_none(), "{other}");
    let found = &other["responses"][0]["response_range"]["kvs"][0];
    ensure!(found["value"] == A && found["lease"] == lease, "{other}");
    let kept = ask(n1, "/v3/lease/keepalive", json!({"ID": lease})).await?;
    ensure!(kept["result"]["TTL"] == "60", "{kept}");
    let left = json!({"ID": lease, "keys": true});
    let left = ask(n3, "/v3/lease/timetolive", left).await?;
    ensure!(left["keys"] == json!([C]), "{left}");
    let all = ask(n2, "/v3/kv/lease/leases", json!({})).await?;
    ensure!(all["leases"] == json!([{"ID": lease}]), "{all}");
    let revoke = json!({"ID": lease});
    ask(n2, "/v3/lease/revoke", revoke.clone()).await?;
    let keys = json!({"key": "AA==", "range_end": "AA==", "keys_only": true});
    let keys = ask(n1, "/v3/kv/range", keys).await?;
    ensure!(keys.get("count").is_none(), "{keys}");
    let told = refused(n1, "/v3/kv/lease/revoke", revoke).await?;
    let none = "etcdserver: requested lease not found";
    ensure!(told == (404, 5, none.to_owned()), "{told:?}");
    Ok(())
}

/// What clients ask before anything else, and what is not served.
async fn around(members: &[String; 3]) -> Result<()> {
    let [n1, n2, n3] = members;
    let listed = ask(n1, "/v3/cluster/member/list", json!({})).await?;
    let urls = listed["members"].as_array().context("no members")?;
    let urls = urls
        .iter()
        .map(|member| member["clientURLs"][0].to_string());
    let urls: BTreeSet<String> = urls.collect();
    let expected = members.iter().map(|at| format!("\"http://{at}\""));
    ensure!(urls == expected.collect(), "{listed}");
    let status = ask(n2, "/v3/maintenance/status", json!({})).await?;
    ensure!(status["version"] == "3.5.13", "{status}");
    let version = get(n3, "/version").await?;
    let expected = "{\"etcdserver\":\"3.5.13\",\"etcdcluster\":\"3.5.0\"}";
    ensure!(version.body == expected, "{version:?}");
    let password = json!({"name": "a", "password": "b"});
    let told = refused(n1, "/v3/auth/authenticate", password).await?;
    let needless = "etcdserver: authentication is not enabled";
    ensure!(told == (400, 9, needless.to_owned()), "{told:?}");
    for path in [
        "/v3/auth/user/add",
        "/v3/lock/lock",
        "/v3/maintenance/hash",
        "/v3/maintenance/hashkv",
        "/v3/cluster/member/add",
    ] {
        let (status, code, message) = refused(n2, path, json!({})).await?;
        let told = format!("{path}: {status} {code} {message}");
        ensure!((status, code) == (501, 12), "{told}");
        ensure!(message.contains("; instead: "), "{told}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_answers_in_json_what_it_answers_over_grpc() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let members = [
        cluster.address("n1")?,
        cluster.address("n2")?,
        cluster.address("n3")?,
    ];
    keys(&members).await?;
    lock(&members).await?;
    around(&members).await?;
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_web_page_can_do_nothing_on_a_members_port() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let n1 = cluster.address("n1")?;
    ask(&n1, "/v3/kv/put", json!({"key": A, "value": B})).await?;
    // What a browser would send: it says who asks, or it is a gRPC call over HTTP/1 that does not.
    let delete = json!({"key": A});
    let page = [("origin", "http://evil.example".to_owned())];
    let answer = post(&n1, "/v3/kv/deleterange", &page, &delete).await?;
    ensure!(answer.status == 403, "{answer:?}");
    for kind in ["application/grpc", "text/plain"] {
        let call = [
            ("content-type", kind.to_owned()),
            ("te", "trailers".to_owned()),
        ];
        // A DeleteRange of `a`, framed.
        let body = b"\0\0\0\0\x03\x0a\x01a".as_slice();
        for path in ["/etcdserverpb.KV/DeleteRange", "/tally.v1.Nodes/List"] {
            let (status, told) = post_bytes(&n1, path, &call, body).await?;
            ensure!(status == 421, "{path} {kind}: {status} {told}");
            ensure!(told.contains("T-023"), "{told}");
        }
    }
    let read = ask(&n1, "/v3/kv/range", json!({"key": A})).await?;
    ensure!(read["count"] == "1", "{read}");
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_in_json_under_a_tag_is_done_once_by_any_two_members() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let leader = cluster.leader().await?;
    let followers = cluster.followers().await?;
    let [first, second] = &followers[..] else {
        anyhow::bail!("{followers:?}");
    };
    let (first, second) = (cluster.address(first)?, cluster.address(second)?);
    let mut requester = Requester::open(&first).await?;
    let tag = requester.next_tag();
    let tagged = [
        ("Grpc-Metadata-Tally-Session", tag.session.to_string()),
        ("Grpc-Metadata-Tally-Sequence", tag.sequence.to_string()),
    ];
    let put = json!({"key": A, "value": B});
    cluster.kill(&leader)?;
    // Its first answer may be lost, for all that its caller knows.
    let mut revisions = Vec::new();
    for (member, outcome) in [(&first, "applied"), (&second, "replayed")] {
        let answer = post(member, "/v3/kv/put", &tagged, &put).await?;
        ensure!(answer.status == 200, "{answer:?}");
        ensure!(
            answer.headers["grpc-metadata-tally-outcome"] == outcome,
            "{answer:?}"
        );
        revisions.push(answer.body["header"]["revision"].clone());
    }
    ensure!(revisions[0] == revisions[1], "{revisions:?}");
    // Without a tag each one counts.
    ask(&second, "/v3/kv/put", put).await?;
    let read = ask(&first, "/v3/kv/range", json!({"key": A})).await?;
    ensure!(read["kvs"][0]["version"] == "2", "{read}");
    cluster.restart(&leader).await?;
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_in_json_is_told_all_and_forgotten_when_its_caller_is_gone() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let (n1, n2) = (cluster.address("n1")?, cluster.address("n2")?);
    ask(&n1, "/v3/kv/put", json!({"key": A, "value": A})).await?;
    let from_start =
        json!({"create_request": {"key": "AA==", "range_end": "AA==", "start_revision": 2}});
    let mut watch = JsonStream::open(&n2, "/v3/watch", &from_start).await?;
    let created = watch.next().await?.context("no answer")?;
    ensure!(created["result"]["created"] == true, "{created}");
    ask(&n1, "/v3/kv/put", json!({"key": B, "value": A})).await?;
    ask(&n1, "/v3/kv/deleterange", json!({"key": A})).await?;
    let mut told = Vec::new();
    while told.len() < 3 {
        let answer = watch.next().await?.context("the watch has ended")?;
        let events = answer["result"]["events"].as_array().context("no events")?;
        told.extend(events.iter().map(|event| {
            (
                event.get("type").cloned(),
                event["kv"]["key"].clone(),
                event["kv"]["mod_revision"].clone(),
            )
        }));
    }
    let expected = [(None, A, "2"), (None, B, "3"), (Some("DELETE"), A, "4")];
    let expected = expected.map(|(kind, key, at)| (kind.map(Value::from), key.into(), at.into()));
    ensure!(told == expected, "{told:?}");
    // More on the same stream.
    watch
        .ask(&json!({"create_request": {"key": C, "watch_id": "7"}}))
        .await?;
    let created = watch.next().await?.context("no answer")?;
    ensure!(created["result"]["watch_id"] == "7", "{created}");
    watch
        .ask(&json!({"cancel_request": {"watch_id": "7"}}))
        .await?;
    let cancelled = watch.next().await?.context("no answer")?;
    ensure!(cancelled["result"]["canceled"] == true, "{cancelled}");

    let watchers = async |expected| {
        let metrics = cluster.member("n2")?.http("/metrics").await?;
        let watchers = metrics.metric("tally_watchers")?;
        ensure!(watchers == expected, "{watchers} watchers");
        Ok(())
    };
    until("one watcher", SETTLED_WITHIN, async || watchers(1).await).await?;
    drop(watch);
    until("no watcher", SETTLED_WITHIN, async || watchers(0).await).await?;

    // Whom a member leaves in the middle is told so.
    let mut watch = JsonStream::open(&n2, "/v3/watch", &from_start).await?;
    watch.next().await?.context("no answer")?;
    cluster.stop_member("n2").await?;
    let end = loop {
        let answer = watch.next().await?.context("it ended without a word")?;
        if answer.get("error").is_some() {
            break answer;
        }
    };
    ensure!(
        end["error"]["grpc_code"] == 14 && end["error"]["http_code"] == 503,
        "{end}"
    );
    ensure!(watch.next().await?.is_none());
    cluster.restart("n2").await?;
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_over_http_says_whether_there_is_a_leader() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let leader = cluster.leader().await?;
    let followers = cluster.followers().await?;
    let alone = cluster.address(&followers[0])?;
    let healthy = until("a healthy member", SETTLED_WITHIN, async || {
        let healthy = get(&alone, "/health").await?;
        ensure!(healthy.status == 200, "{healthy:?}");
        Ok(healthy)
    })
    .await?;
    ensure!(
        healthy.body == "{\"health\":\"true\",\"reason\":\"\"}",
        "{healthy:?}"
    );
    for path in [
        "/livez",
        "/readyz",
        "/readyz/linearizable_read",
        "/readyz/data_corruption",
        "/readyz/non_learner",
        "/livez?verbose",
    ] {
        let well = get(&alone, path).await?;
        let said = match path.contains("verbose") {
            true => "[+]serializable_read ok\nok\n",
            false => "ok\n",
        };
        ensure!(
            (well.status, &*well.body) == (200, said),
            "{path}: {well:?}"
        );
    }
    let unknown = get(&alone, "/livez/linearizable_read").await?;
    ensure!(unknown.status == 404, "{unknown:?}");
    cluster.kill(&leader)?;
    cluster.kill(&followers[1])?;
    until(
        "a member alone that is not healthy",
        SETTLED_WITHIN,
        async || {
            let sick = get(&alone, "/health").await?;
            ensure!(sick.status == 503, "{sick:?}");
            let said: Value = serde_json::from_str(&sick.body)?;
            ensure!(said["health"] == "false", "{said}");
            ensure!(
                !said["reason"].as_str().unwrap_or_default().is_empty(),
                "{said}"
            );
            Ok(())
        },
    )
    .await?;
    for path in [
        "/health?serializable=true",
        "/livez",
        "/readyz/serializable_read",
        "/readyz?exclude=linearizable_read&exclude=other",
    ] {
        let reads = get(&alone, path).await?;
        ensure!(reads.status == 200, "{path}: {reads:?}");
    }
    for path in ["/readyz", "/readyz/linearizable_read"] {
        let sick = get(&alone, path).await?;
        ensure!(sick.status == 503, "{path}: {sick:?}");
        let why = "[-]linearizable_read failed: ";
        ensure!(sick.body.contains(why), "{path}: {sick:?}");
    }
    cluster.restart(&leader).await?;
    until("a healthy member", SETTLED_WITHIN, async || {
        let well = get(&alone, "/health").await?;
        ensure!(well.status == 200, "{well:?}");
        Ok(())
    })
    .await?;
    cluster.restart(&followers[1]).await?;
    cluster.stop().await
}
