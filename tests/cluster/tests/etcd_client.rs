//! Keys as a person types them, `tally kv`, while the leader is killed between two commands.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tally_testkit::{Cluster, Mode, Operator, Proxy};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

const TOLD_WITHIN: Duration = Duration::from_secs(30);

/// `tally kv` with these arguments, ended well.
async fn kv(operator: &Operator, arguments: &[&str]) -> Result<Value> {
    let line = [&["-o", "json", "kv"], arguments].concat();
    let finished = operator.run(&line).await?;
    let finished = finished.expect_code(0);
    finished.with_context(|| format!("{arguments:?}"))?.json()
}

/// `tally kv` with these arguments, ended with this exit code and this code of Tally's.
async fn fails(operator: &Operator, arguments: &[&str], exit: i32, code: &str) -> Result<()> {
    let line = [&["-o", "json", "kv"], arguments].concat();
    let found = operator.run(&line).await?.expect_code(exit)?.json()?;
    ensure!(found["error"]["code"] == code, "{arguments:?}: {found}");
    ensure!(found["error"]["next"].is_string(), "{arguments:?}: {found}");
    Ok(())
}

fn same(found: &Value, expected: &Value) -> Result<()> {
    ensure!(found == expected, "{found}, expected {expected}");
    Ok(())
}

/// A running `tally kv watch`.
struct Watching {
    command: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watching {
    fn start(operator: &Operator, arguments: &[&str]) -> Result<Self> {
        let line = [&["-o", "json", "kv", "watch"], arguments].concat();
        let mut command = operator.start(&line)?;
        let out = command.stdout.take().context("no output")?;
        Ok(Self {
            command,
            lines: BufReader::new(out).lines(),
        })
    }

    /// The revision of the next change, and the keys in it.
    async fn next(&mut self) -> Result<(u64, Vec<String>)> {
        let line = timeout(TOLD_WITHIN, self.lines.next_line()).await;
        let line = line.context("nothing was told")??.context("it ended")?;
        let change: Value = serde_json::from_str(&line)?;
        let events = change["events"].as_array().context("no events")?;
        let told = events.iter().filter_map(|event| {
            let (kind, key) = event.as_object()?.iter().next()?;
            Some(format!("{kind} {}", key["key"].as_str()?))
        });
        let revision = change["revision"].as_u64().context("no revision")?;
        Ok((revision, told.collect()))
    }

    /// Ends as Ctrl-C does.
    async fn interrupt(mut self) -> Result<()> {
        let process = self.command.id().context("it ended")?.to_string();
        let sent = Command::new("kill").args(["-INT", &process]).status()?;
        ensure!(sent.success(), "kill: {sent}");
        let ended = timeout(TOLD_WITHIN, self.command.wait()).await??;
        ensure!(ended.success(), "it ended with {ended}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_written_once_and_watched_in_order_while_leaders_are_killed() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let operator = cluster.operator();
    let mut watching = Watching::start(&operator, &["user/", "--prefix", "--revision", "1"])?;
    let up_to = ["user/1", "--to", "user/2", "--revision", "1"];
    let mut watching_one = Watching::start(&operator, &up_to)?;

    let put = kv(&operator, &["put", "user/1", "alice"]).await?;
    same(&put, &json!({ "outcome": "applied", "revision": 2 }))?;
    let first = cluster.leader().await?;
    cluster.kill(&first)?;

    // Whether an earlier attempt of it was applied depends on when the next leader was elected.
    let put = kv(&operator, &["put", "user/2", "bob"]).await?;
    same(&put["revision"], &json!(3))?;
    let users = kv(&operator, &["get", "user/", "--prefix"]).await?;
    ensure!(users["count"] == 2, "{users}");
    same(&users["keys"][0]["value"], &json!("alice"))?;
    same(&users["keys"][1]["version"], &json!(1))?;
    let names = kv(&operator, &["get", "user/1", "--keys-only", "--stale"]).await?;
    same(&names["keys"][0]["value"], &Value::Null)?;

    cluster.restart(&first).await?;
    let second = cluster.leader().await?;
    cluster.kill(&second)?;
    let swap = [
        "txn",
        "--if",
        "value(user/1)=alice",
        "--then",
        "put user/1 carol",
        "--then",
        "del user/2",
        "--else",
        "get user/1",
    ];
    let done = kv(&operator, &swap).await?;
    ensure!(done["succeeded"] == true && done["revision"] == 4, "{done}");
    let again = kv(&operator, &swap).await?;
    ensure!(again["succeeded"] == false, "{again}");
    same(
        &again["answers"][0]["get"]["keys"][0]["value"],
        &json!("carol"),
    )?;
    let before = kv(&operator, &["get", "user/1", "--revision", "3"]).await?;
    same(&before["keys"][0]["value"], &json!("alice"))?;
    cluster.restart(&second).await?;

    let expected = [
        (2, vec!["put user/1"]),
        (3, vec!["put user/2"]),
        (4, vec!["put user/1", "deleted user/2"]),
    ];
    for (revision, events) in expected {
        let told = watching.next().await?;
        let events = Vec::from_iter(events.into_iter().map(str::to_owned));
        ensure!(told == (revision, events), "{told:?} at r{revision}");
    }
    watching.interrupt().await?;
    for revision in [2, 4] {
        let told = watching_one.next().await?;
        let expected = (revision, vec!["put user/1".to_owned()]);
        ensure!(told == expected, "{told:?} at r{revision}");
    }
    watching_one.interrupt().await?;

    let compacted = kv(&operator, &["compact", "4"]).await?;
    // It takes no revision of its own.
    same(&compacted["revision"], &json!(4))?;
    fails(&operator, &["compact", "4"], 3, "T-503").await?;
    fails(&operator, &["compact", "5"], 3, "T-504").await?;
    fails(&operator, &["get", "user/1", "--revision", "3"], 3, "T-503").await?;
    fails(
        &operator,
        &["watch", "user/1", "--revision", "2"],
        3,
        "T-503",
    )
    .await?;

    fails(&operator, &["get", "nobody"], 1, "T-019").await?;
    fails(
        &operator,
        &["get", "user/1", "--revision", "999"],
        3,
        "T-504",
    )
    .await?;
    fails(&operator, &["put", "a", "b", "--lease", "77"], 3, "T-502").await?;
    let gone = kv(&operator, &["del", "user/", "--prefix"]).await?;
    ensure!(gone["deleted"] == 1 && gone["revision"] == 5, "{gone}");
    let left = kv(&operator, &["get", "user/", "--prefix"]).await?;
    ensure!(left["count"] == 0, "{left}");
    cluster.state_hashes_agree().await?;
    cluster.stop().await
}

/// The put arrives; its answer does not. Whoever typed it has the tag, and the tag tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_without_an_answer_ends_in_doubt_and_its_tag_settles_it() -> Result<()> {
    const HALF_SENT: u64 = 30 << 10;
    let cluster = Cluster::start(3).await?;
    let operator = cluster.operator();
    let follower = cluster.followers().await?.remove(0);
    let proxy = Proxy::before(&cluster.address(&follower)?).await?;
    let lossy = Operator::new(vec![proxy.address()]);
    let value = "v".repeat(60 << 10);
    let put = ["-o", "json", "--timeout", "10s", "kv", "put", "a", &value];
    // The session is opened with far less, and half of the put makes no put.
    proxy.set(Mode::HoldRequestsAt(HALF_SENT));
    let (ended, arrives) = tokio::join!(lossy.run(&put), async {
        let half = proxy.request_bytes_above(HALF_SENT, TOLD_WITHIN).await;
        proxy.set(Mode::SwallowAnswers);
        half
    });
    arrives?;
    let ended = ended?;
    ensure!(proxy.lost_bytes() > 0, "no answer was lost: {ended:?}");
    let failed = ended.expect_code(6)?.json()?;
    same(&failed["error"]["code"], &json!("T-002"))?;
    let token = failed["error"]["resume"].as_str().context("no tag")?;
    ensure!(
        failed["error"]["next"] == format!("tally resume {token}"),
        "{failed}"
    );

    // It is settled at another member, as often as one asks, and happened once.
    for _ in 0..2 {
        let settled = operator.run(&["-o", "json", "resume", token]).await?;
        let settled = settled.expect_code(0)?.json()?;
        same(&settled["outcome"], &json!("replayed"))?;
        same(&settled["took_effect_at"], &json!(2))?;
    }
    let found = kv(&operator, &["get", "a"]).await?;
    same(&found["keys"][0]["version"], &json!(1))?;
    same(&found["revision"], &json!(2))?;
    cluster.state_hashes_agree().await?;
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_and_its_keys_outlive_the_leader_that_granted_it() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let operator = cluster.operator();
    let granted = kv(&operator, &["lease", "grant", "600"]).await?;
    let lease = granted["lease"].as_str().context("no lease")?;
    kv(&operator, &["put", "leased", "x", "--lease", lease]).await?;
    let leader = cluster.leader().await?;
    cluster.kill(&leader)?;

    kv(&operator, &["lease", "keep-alive", lease, "--once"]).await?;
    let shown = kv(&operator, &["lease", "show", lease]).await?;
    same(&shown["keys"], &json!(["leased"]))?;
    same(&shown["ttl_s"], &json!(600))?;
    let listed = kv(&operator, &["lease", "list"]).await?;
    same(&listed, &json!({ "leases": [lease] }))?;
    kv(&operator, &["lease", "revoke", lease]).await?;
    fails(&operator, &["get", "leased"], 1, "T-019").await?;
    fails(&operator, &["lease", "show", lease], 1, "T-019").await?;
    fails(&operator, &["lease", "revoke", lease], 3, "T-502").await?;
    fails(&operator, &["lease", "keep-alive", lease], 3, "T-502").await?;
    cluster.restart(&leader).await?;
    cluster.state_hashes_agree().await?;
    cluster.stop().await
}
