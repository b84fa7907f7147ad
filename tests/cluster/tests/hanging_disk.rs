//! A disk that does not answer any more. A member on it that is told to end does so all the same, and the
//! others go on without it, under another leader once the state of this one waits for it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_proto::etcd::PutRequest;
use tally_proto::etcd::kv_client::KvClient;
use tally_testkit::{Calls, Cluster, Load, Trap, channel, lacking, until};

/// Far longer than anything here waits.
const HANGS_FOR: Duration = Duration::from_secs(600);
/// Enough for a member that has nobody to hand over to.
const SHUTDOWN_MS_MAX: &str = "8000";
/// By which a member is gone that has 8 seconds to end, and 5 more when it does not close its files.
const ENDS_WITHIN: Duration = Duration::from_secs(60);
const LOADED_WITHIN: Duration = Duration::from_secs(60);
const ANSWERED: usize = 40;
const PUTS: usize = 64;
const PUT_BYTES: usize = 256 << 10;

/// Several times what a member holds before it must write to its disk.
async fn write_much(address: &str) -> Result<()> {
    let mut kv = KvClient::new(channel(address).await?);
    for number in 0..PUTS {
        let put = PutRequest {
            key: format!("much/{number}").into(),
            value: vec![b'v'; PUT_BYTES].into(),
            ..Default::default()
        };
        kv.put(put).await?;
    }
    Ok(())
}

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
        // The two others are a majority. What they commit fills the memory of the one that cannot write it.
        load.answers(2 * ANSWERED, LOADED_WITHIN).await?;
        let other = cluster.names().into_iter().find(|name| *name != victim);
        write_much(&cluster.address(&other.context("no other member")?)?).await?;

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
