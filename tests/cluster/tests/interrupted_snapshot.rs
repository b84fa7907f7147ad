//! A snapshot on its way to a member that was away: cut off in the middle, with its receiver or its
//! sender killed, changed on the way. It is never installed half, and in the end it arrives.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tally_testkit::{
    AnswerExt, Call, Cluster, Mode, Proxy, Requester, grow, rounds, seed, send_until_answered,
    until,
};

const WITHIN: Duration = Duration::from_secs(60);
/// Commands of a good kilobyte: the snapshot has several chunks of a megabyte.
const COMMANDS: usize = 3_000;
/// What passes of a snapshot before it is interrupted: more than a chunk, less than the whole.
const MIDDLE_BYTES: std::ops::Range<u64> = 1_200_000..2_800_000;
const RECEIVER: &str = "n3";

/// A cluster whose third member is reached through a proxy only.
struct Scene {
    cluster: Cluster,
    proxy: Proxy,
    random: SmallRng,
}

/// Where the receiver stands: last applied entry and state hash.
type Position = (u64, Vec<u8>);

impl Scene {
    async fn set(random: SmallRng) -> Result<Self> {
        let arguments = ["--snapshot-entries", "300", "--keep-entries", "10"];
        let mut cluster = Cluster::prepare(3, &arguments)?;
        let proxy = Proxy::before(&cluster.member(RECEIVER)?.peer_address()).await?;
        cluster.announce(RECEIVER, proxy.address())?;
        cluster.restart_all().await?;
        if cluster.leader().await? == RECEIVER {
            cluster.transfer_leader("n1").await?;
        }
        Ok(Self {
            cluster,
            proxy,
            random,
        })
    }

    /// Kills the receiver and writes until the others no longer have the log that it misses.
    async fn leave_behind(&mut self, commands: usize) -> Result<()> {
        let applied = self.cluster.status(RECEIVER).await?.applied_index;
        self.cluster.kill(RECEIVER)?;
        let leader = self.cluster.leader().await?;
        grow(&self.cluster.address(&leader)?, commands).await?;
        for name in self.cluster.started() {
            until("the log is purged", WITHIN, async || {
                let purged = self.cluster.status(&name).await?.purged_index;
                ensure!(purged > applied + 200, "{name} has purged to {purged}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Somewhere in the middle of the snapshot that comes next, in bytes that the proxy has seen.
    fn middle(&mut self) -> u64 {
        self.proxy.request_bytes() + self.random.random_range(MIDDLE_BYTES)
    }

    /// From now on a snapshot stops in its middle.
    fn hold(&mut self) {
        let middle = self.middle();
        self.proxy.set(Mode::HoldRequestsAt(middle));
    }

    /// Waits until the receiver has a part of a snapshot on its disk.
    async fn in_the_middle(&self) -> Result<()> {
        let leader = self.cluster.leader_among(&sound()).await?;
        let whole = until("a snapshot of the leader", WITHIN, async || {
            let whole = bytes_below(&snapshots(&self.cluster, &leader)?, "snap-")?;
            ensure!(whole > 0, "none");
            Ok(whole)
        })
        .await?;
        until("a part of a snapshot", WITHIN, async || {
            let part = bytes_below(&snapshots(&self.cluster, RECEIVER)?, "stage-")?;
            ensure!(part > 0, "nothing has arrived");
            ensure!(part < whole, "{part} bytes arrived, of {whole}");
            println!("interrupted after {part} of about {whole} bytes");
            Ok(())
        })
        .await
    }

    /// The receiver's position, once it answers.
    async fn position(&self) -> Result<Position> {
        until("the receiver's status", WITHIN, async || {
            let status = self.cluster.status(RECEIVER).await?;
            Ok((status.applied_index, status.state_hash))
        })
        .await
    }

    /// Nothing of an interrupted snapshot is left, and the receiver has come no further than it was: not
    /// quite as far, if it does not know any more that its latest entries are committed.
    async fn nothing_installed(&self, before: &Position) -> Result<()> {
        let directory = snapshots(&self.cluster, RECEIVER)?;
        until("the unfinished snapshot is gone", WITHIN, async || {
            let left = bytes_below(&directory, "stage-")?;
            ensure!(left == 0, "{left} bytes are left");
            Ok(())
        })
        .await?;
        ensure!(bytes_below(&directory, "snap-")? == 0, "it has a snapshot");
        let now = self.position().await?;
        ensure!(
            now.0 < before.0 || now == *before,
            "it was at {before:?} and is at {now:?}"
        );
        Ok(())
    }
}

fn sound() -> Vec<String> {
    vec!["n1".to_owned(), "n2".to_owned()]
}

fn snapshots(cluster: &Cluster, name: &str) -> Result<std::path::PathBuf> {
    Ok(cluster.member(name)?.data_dir().join("snapshots"))
}

/// Bytes of the files of all snapshots whose directory's name begins like this. Files may go meanwhile.
fn bytes_below(directory: &Path, prefix: &str) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)?.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        let Ok(files) = fs::read_dir(entry.path().join("files")) else {
            continue;
        };
        let lengths = files.flatten().filter_map(|file| file.metadata().ok());
        bytes += lengths.map(|file| file.len()).sum::<u64>();
    }
    Ok(bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_or_changed_snapshot_is_never_installed_half() -> Result<()> {
    let mut random = SmallRng::seed_from_u64(seed()?);
    for _ in 0..rounds(1, 5) {
        interrupted_and_changed(Scene::set(random.fork()).await?).await?;
    }
    Ok(())
}

async fn interrupted_and_changed(mut scene: Scene) -> Result<()> {
    let leader = scene.cluster.leader().await?;
    let address = scene.cluster.address(&leader)?;
    let (call, revision) = activation(&address).await?;
    scene.cluster.state_hashes_agree().await?;
    let before = scene.position().await?;
    scene.leave_behind(COMMANDS).await?;

    // The receiver is killed in the middle.
    scene.hold();
    scene.cluster.launch(RECEIVER)?;
    scene.in_the_middle().await?;
    scene.cluster.kill(RECEIVER)?;
    scene.proxy.set(Mode::Cut);
    scene.cluster.launch(RECEIVER)?;
    scene.nothing_installed(&before).await?;

    // The connection is cut in the middle.
    scene.hold();
    scene.in_the_middle().await?;
    scene.proxy.set(Mode::Cut);
    scene.nothing_installed(&before).await?;

    // One bit is flipped on the way. It is found, and the snapshot is sent again.
    let middle = scene.middle();
    scene.proxy.set(Mode::FlipTextAfter(middle));
    until("the digest is found wrong", WITHIN, async || {
        let log = scene.cluster.member(RECEIVER)?.log();
        ensure!(scene.proxy.has_flipped(), "nothing was flipped yet");
        ensure!(
            log.contains("its digest is not the one that was announced"),
            "no word of it"
        );
        Ok(())
    })
    .await?;
    scene.cluster.ready(RECEIVER).await?;
    scene.cluster.state_hashes_agree().await?;

    // The sender is killed in the middle. The other one has the same to send.
    scene.leave_behind(COMMANDS / 4).await?;
    scene.hold();
    scene.cluster.launch(RECEIVER)?;
    scene.in_the_middle().await?;
    let sender = scene.cluster.leader_among(&sound()).await?;
    scene.cluster.kill(&sender)?;
    scene.proxy.set(Mode::Pass);
    scene.cluster.ready(RECEIVER).await?;
    scene.cluster.state_hashes_agree().await?;
    scene.cluster.restart(&sender).await?;
    scene.cluster.state_hashes_agree().await?;

    // It leads, and recognises what happened before the snapshot.
    scene.cluster.transfer_leader(RECEIVER).await?;
    let address = scene.cluster.address(RECEIVER)?;
    let again = send_until_answered(&address, &call, WITHIN).await?;
    assert_eq!(again.replayed(), Some(revision), "{again:?}");
    assert!(again.repeat);
    scene.cluster.stop().await
}

/// An activation that was answered, and its revision.
async fn activation(address: &str) -> Result<(Call, u64)> {
    let mut owner = Requester::open(address).await?;
    let (node, incarnation) = owner.register(address, "ls1").await?;
    let call = owner.activate_call(node, incarnation);
    let first = send_until_answered(address, &call, WITHIN).await?;
    let revision = first.applied();
    Ok((call, revision.with_context(|| format!("{first:?}"))?))
}
