//! Members' wall clocks are an hour apart and step while they run: nothing changes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use tally_testkit::leader_loss::{self, Fault};
use tally_testkit::{
    AnswerExt, Clocks, Cluster, Hosts, Load, Reader, Requester, lacking, rounds, seed,
    send_until_answered,
};

const HOUR: i64 = 3_600;
const MINUTE_MS: u64 = 60_000;
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
const LOADED_WITHIN: Duration = Duration::from_secs(60);
const ANSWERED_BEFORE: usize = 60;

/// Members whose clocks can be set, on hosts of their own if there can be any.
async fn cluster() -> Result<Option<(Cluster, Clocks, Vec<Fault>)>> {
    let mut cluster = Cluster::prepare(3, &[])?;
    let mut faults = Fault::ALL.to_vec();
    match Hosts::possible() {
        Ok(()) => cluster.move_to_hosts()?,
        Err(why) => {
            lacking("partitions while clocks step", &why)?;
            faults.retain(|fault| !fault.needs_hosts());
        }
    }
    let Some(clocks) = Clocks::apart(&mut cluster)? else {
        return Ok(None);
    };
    cluster.restart_all().await?;
    Ok(Some((cluster, clocks, faults)))
}

/// What the tests of lost answers and of crashes ask for.
async fn nothing_changes(cluster: &mut Cluster, faults: &[Fault], seed: u64) -> Result<()> {
    leader_loss::rounds(cluster, rounds(6, 60), seed, faults, |round| {
        println!("{round}");
    })
    .await?;
    for _ in 0..rounds(1, 10) {
        let load = Load::start(cluster)?;
        load.answers(ANSWERED_BEFORE, LOADED_WITHIN).await?;
        cluster.kill_all()?;
        let mut recorded = load.stop().await?;
        cluster.restart_all().await?;
        println!("all killed: {}", recorded.check(cluster).await?);
        println!("all killed: {}", recorded.linearizable()?);
    }
    Ok(())
}

fn unix_ms_now() -> Result<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(since.as_millis().try_into()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stepping_clocks_change_nothing_about_lost_answers_and_crashes() -> Result<()> {
    let Some((mut cluster, clocks, faults)) = cluster().await? else {
        return Ok(());
    };
    let (names, seed) = (cluster.names(), seed()?);
    let held = nothing_changes(&mut cluster, &faults, seed);
    clocks.step_during(&names, seed, held).await?;
    clocks.are_followed(&cluster).await?;
    cluster.stop().await
}

/// The stamped time follows the fastest leader and never goes back; who uses its session every now and
/// then keeps it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_survives_a_leader_whose_clock_is_an_hour_ahead() -> Result<()> {
    let Some((cluster, clocks, _)) = cluster().await? else {
        return Ok(());
    };
    let (slow, fast) = ("n3", "n2");
    cluster.transfer_leader(slow).await?;
    let address = cluster.address("n1")?;
    let mut requester = Requester::open(&address).await?;
    let call = requester.register_call("ls1", None);
    let first = send_until_answered(&address, &call, ANSWERED_WITHIN).await?;
    let revision = first.applied().context("not applied")?;

    for (number, leader) in [fast, slow, fast].into_iter().enumerate() {
        cluster.transfer_leader(leader).await?;
        let again = send_until_answered(&address, &call, ANSWERED_WITHIN).await?;
        assert_eq!(again.replayed(), Some(revision), "{leader}: {again:?}");
        requester
            .register(&address, &format!("more-{number}"))
            .await?;
    }
    let history = Reader::linearizable(&address).await?.history(0).await?;
    let times: Vec<u64> = history.iter().map(|entry| entry.unix_ms).collect();
    ensure!(times.is_sorted(), "time runs backwards: {times:?}");
    // The clocks are what they should be, or this test shows nothing.
    let last = times.last().context("no history")?;
    ensure!(
        *last > unix_ms_now()? + 50 * MINUTE_MS,
        "{fast} is not fast: {last}"
    );

    // A day without a sign of life ends a session, even when the day is a clock's mistake; then its
    // tags are refused, and nothing is done again.
    clocks.set(fast, 26 * HOUR)?;
    let late = send_until_answered(&address, &call, ANSWERED_WITHIN).await?;
    assert_eq!(late.refused(), Some("T-201"), "{late:?}");
    let after = Reader::linearizable(&address).await?.history(0).await?;
    assert_eq!(after.len(), history.len());
    cluster.state_hashes_agree().await?;
    cluster.stop().await
}
