//! What an operator's tools read: liveness, readiness and metrics.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use tally_testkit::{Cluster, Requester, until};

const APPLIED_WITHIN: Duration = Duration::from_secs(30);

const FORMATS: &str = include_str!("../../../docs/formats.md");

/// Of a metric in the exposition, with the suffix that a counter's samples have.
fn names(exposition: &str) -> BTreeSet<String> {
    let types = exposition
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    let names = types.filter_map(|line| {
        let (name, kind) = line.split_once(' ')?;
        let suffix = if kind == "counter" { "_total" } else { "" };
        Some(format!("{name}{suffix}"))
    });
    names.collect()
}

/// Everything in backticks in the table of metrics.
fn documented() -> BTreeSet<String> {
    let table = FORMATS
        .lines()
        .skip_while(|line| !line.starts_with("| metric |"));
    let rows = table.take_while(|line| line.starts_with('|'));
    let cells = rows.filter_map(|line| line.split('|').nth(1));
    let quoted = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    quoted.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_is_documented_and_every_documented_one_is_there() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let mut requester = Requester::open(&cluster.address("n2")?).await?;
    requester.register(&cluster.address("n2")?, "ls1").await?;
    // The answer came from the leader; n2 applies the command a little later.
    let metrics = until("n2 counts the registration", APPLIED_WITHIN, async || {
        let answer = cluster.member("n2")?.http("/metrics").await?;
        ensure!(answer.status == 200, "{answer:?}");
        let counted = answer
            .body
            .lines()
            .any(|line| line == "tally_store_revision 2");
        ensure!(counted, "{}", answer.body);
        Ok(answer.body)
    })
    .await?;
    assert_eq!(names(&metrics), documented());
    for path in ["/livez", "/readyz"] {
        let answer = cluster.member("n1")?.http(path).await?;
        ensure!(answer.status == 200, "{path}: {answer:?}");
    }
    cluster.stop().await
}
