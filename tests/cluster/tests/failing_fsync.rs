//! An fsync fails: the member answers nothing more, says which file it was, and ends; the others go on.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tally_testkit::{Calls, Cluster, Failed, Load, Recorded, Trap, lacking, rounds, seed, until};

const LOADED_WITHIN: Duration = Duration::from_secs(60);
/// A member that found out has this long to be gone.
const ENDS_WITHIN: Duration = Duration::from_secs(20);
const ANSWERED: usize = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Leader,
    Follower,
}

impl Victim {
    async fn of(self, cluster: &Cluster) -> Result<String> {
        match self {
            Self::Leader => cluster.leader().await,
            Self::Follower => Ok(cluster.followers().await?.remove(0)),
        }
    }
}

/// The victim and one other member are all that run, so nothing can be answered without the disk that
/// fails. A command that was sent when the last good sync had begun is on no disk of the victim: if it was
/// answered, that was a lie.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_answered_after_the_log_could_not_be_synced() -> Result<()> {
    if let Err(why) = Trap::possible() {
        return lacking("a failing fsync", &why);
    }
    let mut random = SmallRng::seed_from_u64(seed()?);
    let notes = tempfile::tempdir()?;
    let mut cluster = Cluster::start(3).await?;
    let mut all = Recorded::default();
    for round in 0..rounds(2, 10) {
        let kind = [Victim::Leader, Victim::Follower][round % 2];
        let victim = kind.of(&cluster).await?;
        let others = cluster.names().into_iter().filter(|name| *name != victim);
        let others: Vec<String> = others.collect();
        // The leader must be among those that stay.
        let leader = cluster.leader().await?;
        let third = others.iter().find(|name| **name != leader);
        let third = third.context("nobody is left")?.clone();
        cluster.kill(&third)?;

        let load = Load::start(&cluster)?;
        load.answers(ANSWERED, LOADED_WITHIN).await?;
        // The one before it tells what was synced.
        let n = random.random_range(2..60);
        let process = cluster.member(&victim)?.process_id()?;
        let trap = Trap::nth(process, Calls::Syncs, n, notes.path()).await?;
        let failed = trap.sprung(LOADED_WITHIN).await?;
        println!("{kind:?} {victim}, sync {n} of a thread: {}", failed.call);
        ends_well(&mut cluster, &victim, &failed).await?;
        trap.ended(ENDS_WITHIN).await?;
        let recorded = load.stop().await?;
        let last_good = failed.last_good.context("no sync before it")?;
        answered_nothing_after(&recorded, last_good)?;

        // The others go on, and what was answered is with them.
        cluster.restart(&third).await?;
        let load = Load::start(&cluster)?;
        load.answers(ANSWERED, LOADED_WITHIN).await?;
        let more = load.stop().await?;
        cluster.restart(&victim).await?;
        for mut recorded in [recorded, more] {
            println!("{}", recorded.check(&cluster).await?);
            all.extend(recorded);
        }
    }
    println!("all rounds again: {}", all.check(&cluster).await?);
    cluster.stop().await
}

/// The state is synced by a snapshot, while the log is idle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_state_cannot_be_synced_ends_and_the_others_go_on() -> Result<()> {
    if let Err(why) = Trap::possible() {
        return lacking("a failing fsync", &why);
    }
    let notes = tempfile::tempdir()?;
    let mut cluster = Cluster::start(3).await?;
    let mut recorded = Recorded::default();
    for kind in [Victim::Leader, Victim::Follower] {
        let load = Load::start(&cluster)?;
        load.answers(ANSWERED, LOADED_WITHIN).await?;
        recorded.extend(load.stop().await?);
        let victim = kind.of(&cluster).await?;
        cluster.state_hashes_agree().await?;
        settled(&cluster, &victim).await?;
        let process = cluster.member(&victim)?.process_id()?;
        let trap = Trap::nth(process, Calls::DataSyncs, 1, notes.path()).await?;
        let snapshot = ["cluster", "snapshot", "--member", &victim];
        let taken = cluster.operator().run(&snapshot).await?;
        ensure!(taken.code != Some(0), "taken: {}", taken.said());
        let failed = trap.sprung(LOADED_WITHIN).await?;
        println!("{kind:?} {victim}: {}", failed.call);
        ensure!(failed.call.contains("/state/"), "not the state: {failed:?}");
        ends_well(&mut cluster, &victim, &failed).await?;
        trap.ended(ENDS_WITHIN).await?;

        let load = Load::start(&cluster)?;
        load.answers(ANSWERED, LOADED_WITHIN).await?;
        recorded.extend(load.stop().await?);
        cluster.restart(&victim).await?;
        println!("{}", recorded.check(&cluster).await?);
    }
    cluster.stop().await
}

/// Waits until the member has nothing left to sync.
async fn settled(cluster: &Cluster, name: &str) -> Result<()> {
    let mut before = None;
    let mut since = Instant::now();
    until("no more syncs", LOADED_WITHIN, async || {
        let metrics = cluster.member(name)?.http("/metrics").await?;
        let now = metrics.metric("tally_log_syncs_total")?;
        if before != Some(now) {
            before = Some(now);
            since = Instant::now();
        }
        ensure!(since.elapsed() > Duration::from_millis(500), "{now} syncs");
        Ok(())
    })
    .await
}

/// Exit code 1, and a message that names code, file, reason and what to do.
async fn ends_well(cluster: &mut Cluster, victim: &str, failed: &Failed) -> Result<()> {
    let code = cluster.ended(victim, ENDS_WITHIN).await?;
    ensure!(code == Some(1), "{victim} ended with {code:?}");
    let log = cluster.member(victim)?.log();
    let end = log.rfind("T-008").context("no T-008 in its log")?;
    let said = &log[end..];
    // As in `fdatasync(12</d/log/000004.log>)`.
    let file = failed.call.split(['<', '>']).nth(1).context("no file")?;
    for part in [file, "Input/output error", "next", "dmesg"] {
        ensure!(said.contains(part), "does not say {part}: {said}");
    }
    println!("{victim} said: {said}");
    Ok(())
}

/// Commands that were sent first after this sync had begun have no answer, and there are some.
fn answered_nothing_after(recorded: &Recorded, last_good: SystemTime) -> Result<()> {
    let since = last_good.elapsed()?;
    let last_good = Instant::now()
        .checked_sub(since)
        .context("before the clock began")?;
    let late = recorded.sent.iter().filter(|sent| sent.invoked > last_good);
    let late: Vec<_> = late.collect();
    let answered = late.iter().find(|sent| sent.answered.is_some());
    ensure!(answered.is_none(), "answered without a sync: {answered:?}");
    ensure!(
        !late.is_empty(),
        "nothing was sent after the last good sync"
    );
    let before = recorded.answered();
    ensure!(
        before >= ANSWERED / 2,
        "only {before} commands were answered"
    );
    Ok(())
}
