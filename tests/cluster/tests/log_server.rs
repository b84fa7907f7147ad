//! The small log server follows its own state: it appends in `read-write` and nowhere else.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_testkit::{Cluster, LogServer, LogServerProcess, until};
use tonic::Code;

const FOLLOWED_WITHIN: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_server_appends_only_while_it_is_read_write() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let operator = cluster.operator();
    let log_server = LogServer::new("ls1", operator.clone())?;
    let running = log_server.serve().await?;
    follows(&running, "read-write").await?;
    let first = running.append(7, b"one").await?.context("in read-write")?;

    let read_only = [
        "node",
        "set-state",
        "ls1",
        "read-only",
        "--reason",
        "disk swap",
    ];
    operator.run(&read_only).await?.expect_code(0)?;
    follows(&running, "read-only").await?;
    let refused = running.append(7, b"never").await?;
    let refused = refused.err().context("it appended in read-only")?;
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert_eq!(texts(&running).await?, ["one"]);

    // It goes on following when the member that it watches is gone.
    let leader = cluster.leader().await?;
    cluster.kill(&leader)?;
    cluster.leader().await?;
    let read_write = ["node", "set-state", "ls1", "read-write"];
    operator.run(&read_write).await?.expect_code(0)?;
    follows(&running, "read-write").await?;
    let second = running
        .append(7, b"two")
        .await?
        .context("in read-write again")?;
    ensure!(second == first + 1, "offsets {first} and {second}");
    assert_eq!(texts(&running).await?, ["one", "two"]);

    cluster.restart(&leader).await?;
    running.stop().await?;
    let again = log_server.serve().await?;
    follows(&again, "read-write").await?;
    assert_eq!(texts(&again).await?, ["one", "two"]);
    again.stop().await?;
    cluster.stop().await
}

async fn follows(running: &LogServerProcess, state: &str) -> Result<()> {
    until(
        &format!("the log server is {state}"),
        FOLLOWED_WITHIN,
        async || {
            let found = running.state().await?.storage_state;
            ensure!(found == state, "it is {found}");
            Ok(())
        },
    )
    .await
}

async fn texts(running: &LogServerProcess) -> Result<Vec<String>> {
    let records = running.read(7).await?;
    let texts = records
        .iter()
        .map(|record| String::from_utf8_lossy(&record.data).into_owned());
    Ok(texts.collect())
}
