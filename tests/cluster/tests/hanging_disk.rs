//! A disk that does not answer any more. A member on it that is told to end does so all the same, and the
//! others never waited for it.

use std::time::Duration;

use anyhow::{Result, ensure};
use tally_testkit::{Calls, Cluster, Load, Trap, lacking, until};

/// Far longer than anything here waits.
const HANGS_FOR: Duration = Duration::from_secs(600);
/// Enough for a member that has nobody to hand over to.
const SHUTDOWN_MS_MAX: &str = "8000";
/// By which a member is gone that has 8 seconds to end, and 5 more when it does not close its files.
const ENDS_WITHIN: Duration = Duration::from_secs(60);
const LOADED_WITHIN: Duration = Duration::from_secs(60);
const ANSWERED: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_on_a_disk_that_hangs_ends_within_its_bound() -> Result<()> {
    if let Err(why) = Trap::possible() {
        return lacking("a disk that hangs", &why);
    }
    let notes = tempfile::tempdir()?;
    let mut cluster = Cluster::start_with(3, &["--shutdown-ms-max", SHUTDOWN_MS_MAX]).await?;
    let victims = [
        cluster.followers().await?.remove(0),
        cluster.leader().await?,
    ];
    for victim in victims {
        let load = Load::start(&cluster)?;
        load.answers(ANSWERED, LOADED_WITHIN).await?;
        let process = cluster.member(&victim)?.process_id()?;
        let trap = Trap::hanging(process, Calls::Syncs, HANGS_FOR, notes.path()).await?;
        // The two others are a majority.
        load.answers(2 * ANSWERED, LOADED_WITHIN).await?;

        cluster.ask_to_end(&victim)?;
        until("it gives up on its disk", ENDS_WITHIN, async || {
            let log = cluster.member(&victim)?.log();
            ensure!(log.contains("T-022"), "{victim} does not say why: {log}");
            Ok(())
        })
        .await?;
        // The system keeps what is left of a process while a call of it hangs, and ends it after that.
        drop(trap);
        let code = cluster.ended(&victim, ENDS_WITHIN).await?;
        ensure!(code == Some(1), "{victim} ended with {code:?}");
        let mut recorded = load.stop().await?;
        cluster.restart(&victim).await?;
        println!("{victim}: {}", recorded.check(&cluster).await?);
    }
    cluster.stop().await
}
