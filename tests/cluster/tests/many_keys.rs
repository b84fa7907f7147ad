//! Many keys of 1 KiB: reads, a watch of everything that happened, compaction, a new follower that gets a
//! snapshot, and restarts. Nobody loses a key, and nobody's memory grows with their number.

use anyhow::{Result, ensure};
use tally_proto::etcd::RangeRequest;
use tally_testkit::many::{ManyKeys, replace};
use tally_testkit::{Cluster, rounds};
use tonic::Code;

/// The bound of the caches and buffers, the program, and what allocators keep; a hundred thousand keys have more
/// than twice as much, twice.
const RESIDENT_BYTES_MAX: u64 = 160_000_000;

const OFTEN: [&str; 4] = ["--snapshot-entries", "1000", "--keep-entries", "100"];

/// Each tenth key is put twice.
async fn every_key_is_there(cluster: &Cluster, name: &str, keys: usize) -> Result<()> {
    let many = ManyKeys::at(cluster, name, keys).await?;
    many.count().await?;
    many.read_pages(|number| 1 + u8::from(number.is_multiple_of(10)))
        .await
}

/// At its highest since the members were started.
fn memory_was_bounded(cluster: &Cluster) -> Result<()> {
    for name in cluster.names() {
        let most = cluster.member(&name)?.most_resident_bytes()?;
        ensure!(
            most < RESIDENT_BYTES_MAX,
            "{name} had {most} bytes in memory"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_keys_are_read_watched_compacted_passed_on_and_there_after_restarts() -> Result<()> {
    let keys = rounds(3_000, 100_000);
    let mut cluster = Cluster::start_with(3, &OFTEN).await?;
    let leader = cluster.leader().await?;
    let [away, stays] = cluster.followers().await?.try_into().unwrap_or_default();
    let at_leader = ManyKeys::at(&cluster, &leader, keys).await?;
    let (first, _) = at_leader.put(1, 1).await?;
    let at_follower = ManyKeys::at(&cluster, &stays, keys).await?;
    at_follower.watch(first).await?;
    let (_, last) = at_leader.put(10, 2).await?;
    cluster.state_hashes_agree().await?;
    every_key_is_there(&cluster, &stays, keys).await?;

    let all_at = |revision| RangeRequest {
        key: "keys/".into(),
        range_end: "keys0".into(),
        revision,
        count_only: true,
        ..Default::default()
    };
    let before = at_leader.range(all_at(first)).await?.count;
    ensure!(before == 1, "{before} keys at r{first}");
    at_leader.compact(last).await?;
    let gone = at_leader.range(all_at(last - 1)).await;
    ensure!(
        gone.is_err_and(|status| status.code() == Code::OutOfRange),
        "r{last} is not compacted"
    );

    replace(&mut cluster, &away).await?;
    let snapshot = cluster.status(&away).await?.snapshot_index;
    ensure!(snapshot > 0, "it has caught up without a snapshot");
    cluster.state_hashes_agree().await?;
    every_key_is_there(&cluster, &away, keys).await?;
    memory_was_bounded(&cluster)?;

    cluster.stop_member(&away).await?;
    cluster.restart(&away).await?;
    every_key_is_there(&cluster, &away, keys).await?;
    cluster.kill_all()?;
    cluster.restart_all().await?;
    cluster.state_hashes_agree().await?;
    for name in cluster.names() {
        every_key_is_there(&cluster, &name, keys).await?;
    }
    memory_was_bounded(&cluster)?;
    cluster.stop().await
}
