//! The main job, in rounds: a log server's activation is committed, its answer is lost, something is
//! killed, and the same request is sent again through another member.
//!
//! All rounds run on one cluster. What happens in which round follows from a seed.

mod interleaving;

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tally_proto::v1;
use tokio::task::JoinHandle;
use tonic::Status;

use crate::answer::AnswerExt;
use crate::call::{Call, send, send_until_answered};
use crate::cluster::Cluster;
use crate::deadline::until;
use crate::proxy::{Mode, Proxy};
use crate::read::{Reader, activations};
use crate::requester::{Requester, channel};

pub use interleaving::{Asked, Interleaving, Killed, Moment, Retried};

/// Patience of the requester whose answer is lost.
const LOST_WITHIN: Duration = Duration::from_secs(20);
const COMMITTED_WITHIN: Duration = Duration::from_secs(20);
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// What happened in a round that went as it must.
#[derive(Clone, Debug)]
pub struct Round {
    pub number: usize,
    pub interleaving: Interleaving,
    /// The member whose answer was lost.
    pub asked: String,
    pub killed: Option<String>,
    pub retried: String,
    pub outcome: &'static str,
    /// Revision of the one activation.
    pub revision: u64,
    pub term: u64,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "round {:>3}: asked {} ({}), {}, ",
            self.number, self.asked, self.interleaving.asked, self.interleaving.moment
        )?;
        match &self.killed {
            Some(name) => write!(f, "killed {name} ({})", self.interleaving.killed)?,
            None => write!(f, "killed nobody")?,
        }
        write!(
            f,
            ", retried at {} ({}): {} r{}, one activation, term {}, hashes agree",
            self.retried, self.interleaving.retried, self.outcome, self.revision, self.term
        )
    }
}

/// Runs `count` rounds on a cluster of three or more, and tells each one as it ends.
///
/// # Errors
/// The first round that does not end with exactly one activation and a recognised retry; the message
/// names the round and what happened in it.
pub async fn rounds(
    cluster: &mut Cluster,
    count: usize,
    seed: u64,
    mut tell: impl FnMut(&Round),
) -> Result<()> {
    let order = Interleaving::shuffled(&mut StdRng::seed_from_u64(seed));
    for number in 1..=count {
        let interleaving = order[(number - 1) % order.len()];
        let round = round(cluster, number, interleaving).await;
        let round = round.with_context(|| {
            format!("round {number} of seed {seed} did not hold: {interleaving}")
        })?;
        tell(&round);
    }
    Ok(())
}

async fn round(cluster: &mut Cluster, number: usize, interleaving: Interleaving) -> Result<Round> {
    let leader = cluster.leader().await?;
    let cast = interleaving.cast(&leader, &cluster.followers().await?)?;
    let name = format!("ls-{number}");
    let mut requester = Requester::open(&cluster.address(&leader)?).await?;
    let (node, incarnation) = requester
        .register(&cluster.address(&leader)?, &name)
        .await?;
    let call = requester.activate_call(node, incarnation);

    let proxy = Proxy::before(&cluster.address(&cast.asked)?).await?;
    let lost = send_and_lose_answer(&proxy, &call).await?;
    if interleaving.moment == Moment::AfterCommit {
        committed(cluster, &cast.witness, &name).await?;
    }
    if let Some(killed) = &cast.killed {
        cluster.kill(killed)?;
    }

    let retried = match interleaving.retried {
        Retried::Leader => cluster.leader().await?,
        Retried::Follower | Retried::OldLeader => cast.retried.clone(),
    };
    if !cluster.member(&retried)?.is_started() {
        cluster.launch(&retried)?;
    }
    let address = cluster.address(&retried)?;
    let answer = send_until_answered(&address, &call, ANSWERED_WITHIN).await?;
    let revision = check_retry(interleaving, &answer)?;
    check_history(cluster, &retried, &name, revision).await?;
    no_answer(lost).await?;

    cluster.restart_all().await?;
    check_everywhere(cluster, &call, revision).await?;
    check_history(cluster, &cast.asked, &name, revision).await?;
    cluster.state_hashes_agree().await?;
    let leader = cluster.leader().await?;
    Ok(Round {
        number,
        interleaving,
        asked: cast.asked,
        killed: cast.killed,
        retried,
        outcome: if answer.replayed().is_some() {
            "replayed"
        } else {
            "applied"
        },
        revision,
        term: cluster.status(&leader).await?.term,
    })
}

/// Sends through the proxy on a connection that was good until now, and returns when the request is
/// on its way.
async fn send_and_lose_answer(
    proxy: &Proxy,
    call: &Call,
) -> Result<JoinHandle<Result<v1::Answer, Status>>> {
    let reader = Reader::stale(&proxy.address()).await?;
    let to = channel(&proxy.address()).await?;
    reader.nodes().await?;
    proxy.set(Mode::SwallowAnswers);
    let before = proxy.request_bytes();
    let call = call.clone();
    let lost = tokio::spawn(async move { send(&to, &call, LOST_WITHIN).await });
    proxy.request_bytes_above(before, LOST_WITHIN).await?;
    Ok(lost)
}

/// Waits until a member other than the one that will be killed has applied the activation.
async fn committed(cluster: &Cluster, witness: &str, name: &str) -> Result<()> {
    let reader = Reader::stale(&cluster.address(witness)?).await?;
    let what = format!("{witness} sees {name} in read-write");
    until(&what, COMMITTED_WITHIN, async || {
        let state = reader.known(name).await?.state();
        ensure!(state == v1::StorageState::ReadWrite, "it is {state:?}");
        Ok(())
    })
    .await
}

/// A commit that was seen must be recognised; one that was not may happen now.
fn check_retry(interleaving: Interleaving, answer: &v1::Answer) -> Result<u64> {
    let now = answer.now();
    ensure!(now == v1::StorageState::ReadWrite, "now {now:?}");
    match (answer.replayed(), answer.applied()) {
        (Some(since), _) => {
            ensure!(answer.repeat, "replayed, but not as a repeat: {answer:?}");
            Ok(since)
        }
        (None, Some(revision)) if interleaving.moment == Moment::AfterSending => Ok(revision),
        _ => bail!("the retry was answered with {answer:?}"),
    }
}

/// The node was activated once, at `revision`.
async fn check_history(cluster: &Cluster, member: &str, name: &str, revision: u64) -> Result<()> {
    let reader = Reader::linearizable(&cluster.address(member)?).await?;
    let what = format!("{member} reads the history of {name}");
    let (node, history) = until(&what, ANSWERED_WITHIN, async || {
        let node = reader.known(name).await?;
        let history = reader.history(node.id).await?;
        Ok((node, history))
    })
    .await?;
    let activations = activations(&history);
    ensure!(
        activations == [revision],
        "activated at {activations:?}, answered r{revision}: {history:#?}"
    );
    let since = node.binding.as_ref().map(|binding| binding.since);
    ensure!(
        since == Some(revision),
        "bound since {since:?}, not r{revision}"
    );
    Ok(())
}

/// Once answered, every member recognises the request.
async fn check_everywhere(cluster: &Cluster, call: &Call, revision: u64) -> Result<()> {
    for name in cluster.names() {
        let address = cluster.address(&name)?;
        let answer = send_until_answered(&address, call, ANSWERED_WITHIN).await?;
        ensure!(
            answer.replayed() == Some(revision) && answer.repeat,
            "{name} answers r{revision} with {answer:?}"
        );
    }
    Ok(())
}

/// The first attempt must not have been answered, or nothing was lost.
async fn no_answer(lost: JoinHandle<Result<v1::Answer, Status>>) -> Result<()> {
    lost.abort();
    match lost.await {
        Ok(Ok(answer)) => bail!("the lost answer arrived: {answer:?}"),
        Ok(Err(_)) | Err(_) => Ok(()),
    }
}
