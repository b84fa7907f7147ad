//! What a read sees through which member, with and without a majority.

use std::time::Duration;

use anyhow::{Result, ensure};
use tally_testkit::{Cluster, Reader, Requester, until};

const WRITES: usize = 30;
const REFUSED_WITHIN: Duration = Duration::from_secs(5);
const SEEN_WITHIN: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answered_write_is_seen_through_every_member() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let mut readers = Vec::new();
    for name in cluster.names() {
        readers.push(Reader::linearizable(&cluster.address(&name)?).await?);
    }
    let address = cluster.address(&cluster.leader().await?)?;
    let mut requester = Requester::open(&address).await?;
    for write in 0..WRITES {
        let name = format!("ls-{write}");
        let (node, _) = requester.register(&address, &name).await?;
        // The first read through each member comes right after the answer, not a moment later.
        for reader in &readers {
            assert_eq!(reader.known(&name).await?.id, node);
        }
    }
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_alone_refuses_fresh_reads_and_answers_stale_ones() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let address = cluster.address("n1")?;
    Requester::open(&address)
        .await?
        .register(&address, "ls1")
        .await?;
    cluster.kill("n2")?;
    cluster.kill("n3")?;

    let stale = Reader::stale(&address).await?;
    stale.known("ls1").await?;
    let fresh = Reader::linearizable(&address).await?.within(REFUSED_WITHIN);
    let refused = fresh.node("ls1").await;
    ensure!(refused.is_err(), "a member alone answered {refused:?}");
    stale.known("ls1").await?;

    cluster.launch("n2")?;
    let fresh = fresh.within(SEEN_WITHIN);
    until("fresh reads with two of three", SEEN_WITHIN, async || {
        fresh.known("ls1").await
    })
    .await?;
    cluster.launch("n3")?;
    cluster.all_ready().await?;
    cluster.stop().await
}

/// A stopped follower has not seen the write, so only a reader who asks for it by name may get its old
/// state, and a fresh read through it waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_stopped_never_answers_a_fresh_read_with_old_state() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let leader = cluster.address(&cluster.leader().await?)?;
    let follower = cluster.followers().await?.remove(0);
    let fresh = Reader::linearizable(&cluster.address(&follower)?).await?;
    let fresh = fresh.within(SEEN_WITHIN);
    let mut requester = Requester::open(&leader).await?;
    for write in 0..3 {
        let name = format!("ls-{write}");
        cluster.pause(&follower)?;
        let (node, _) = requester.register(&leader, &name).await?;
        cluster.resume(&follower)?;
        let seen = until("a fresh read", SEEN_WITHIN, async || {
            Ok(fresh.node(&name).await?)
        });
        let seen = seen.await?.map(|node| node.id);
        ensure!(seen == Some(node), "write {write}: it saw {seen:?}");
    }
    cluster.state_hashes_agree().await?;
    cluster.stop().await
}
