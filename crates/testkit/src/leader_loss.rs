//! The main job, in rounds: a log server's activation is committed, its answer is lost, a member is
//! killed, paused, cut off or hands over, and the same request is sent again through another member.
//! Other requesters go on meanwhile.
//!
//! All rounds run on one cluster. What happens in which round follows from a seed.

mod fault;
mod interleaving;

use std::fmt;
use std::time::{Duration, Instant};

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
use crate::linear::Searched;
use crate::load::{Load, LoadOptions, Recorded, Sent};
use crate::proxy::{Mode, Proxy};
use crate::read::{Reader, activations};
use crate::requester::{Requester, channel};

pub use fault::{Deck, Fault};
pub use interleaving::{Asked, Interleaving, Moment, Retried, Struck};

/// Patience of the requester whose answer is lost.
const LOST_WITHIN: Duration = Duration::from_secs(20);
const COMMITTED_WITHIN: Duration = Duration::from_secs(20);
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// What goes on beside a round.
const BESIDE: LoadOptions = LoadOptions {
    owners: 1,
    operators: 2,
    pause: Duration::from_millis(25),
    attempt: Duration::from_secs(1),
};

/// Answers that others get after everything, and how many of both kinds a round has at least.
const BESIDE_ANSWERS: usize = 20;
const BESIDE_COMMANDS: usize = 10;
const BESIDE_READS: usize = 5;

/// What happened in a round that went as it must.
#[derive(Clone, Debug)]
pub struct Round {
    pub number: usize,
    pub interleaving: Interleaving,
    /// The member whose answer was lost.
    pub asked: String,
    /// What happened to whom.
    pub struck: Option<(Fault, String)>,
    pub retried: String,
    pub outcome: &'static str,
    /// Revision of the one activation.
    pub revision: u64,
    pub term: u64,
    /// Commands and reads of everybody, which one order explains.
    pub searched: Searched,
    pub took: Duration,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "round {:>3}: asked {} ({}), {}, ",
            self.number, self.asked, self.interleaving.asked, self.interleaving.moment
        )?;
        match &self.struck {
            Some((fault, name)) => write!(f, "{fault} {name} ({})", self.interleaving.struck)?,
            None => write!(f, "struck nobody")?,
        }
        write!(
            f,
            ", retried at {} ({}): {} r{}, one activation, term {}, hashes agree, {}, {:.1} s",
            self.retried,
            self.interleaving.retried,
            self.outcome,
            self.revision,
            self.term,
            self.searched,
            self.took.as_secs_f64()
        )
    }
}

/// Three members that these faults can happen to, and those of the faults that can happen here: hosts
/// of their own are only made where they are needed and possible, and their lack is said loudly. Each `tally serve`
/// gets these arguments too.
///
/// # Errors
/// As for [`Cluster::start`], and when none of the faults can happen here.
pub async fn cluster_for(faults: &[Fault], arguments: &[&str]) -> Result<(Cluster, Vec<Fault>)> {
    let mut faults = faults.to_vec();
    if faults.iter().any(|fault| fault.needs_hosts()) {
        if let Some(cluster) = Cluster::start_on_hosts(3, arguments).await? {
            return Ok((cluster, faults));
        }
        faults.retain(|fault| !fault.needs_hosts());
        ensure!(!faults.is_empty(), "no fault is left that can happen here");
    }
    Ok((Cluster::start_with(3, arguments).await?, faults))
}

/// Runs `count` rounds on a cluster of three or more, with these faults, and tells each one as it
/// ends.
///
/// # Errors
/// The first round that does not end with exactly one activation and a recognised retry, and in which
/// all that others did held; the message names the round and what happened in it.
pub async fn rounds(
    cluster: &mut Cluster,
    count: usize,
    seed: u64,
    faults: &[Fault],
    mut tell: impl FnMut(&Round),
) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let order = Interleaving::shuffled(&mut random);
    let mut deck = Deck::of(faults);
    for number in 1..=count {
        let interleaving = order[(number - 1) % order.len()];
        let fault = match interleaving.struck {
            Struck::Nobody => None,
            _ => Some(deck.draw(&mut random)),
        };
        let begun = Instant::now();
        let round = round(cluster, number, interleaving, fault).await;
        let mut round = round.with_context(|| {
            let fault = fault.map_or("nothing happened to anybody".to_owned(), |fault| {
                fault.to_string()
            });
            format!("round {number} of seed {seed} did not hold: {interleaving}, {fault}")
        })?;
        round.took = begun.elapsed();
        tell(&round);
    }
    Ok(())
}

async fn round(
    cluster: &mut Cluster,
    number: usize,
    interleaving: Interleaving,
    fault: Option<Fault>,
) -> Result<Round> {
    let leader = cluster.leader().await?;
    let cast = interleaving.cast(&leader, &cluster.followers().await?)?;
    let beside = Load::start_with(cluster, &BESIDE)?;
    let mut scene = Scene::set(&cluster.address(&leader)?, &format!("ls-{number}")).await?;

    let proxy = Proxy::before(&cluster.address(&cast.asked)?).await?;
    let lost = send_and_lose_answer(&proxy, &scene.lost.call).await?;
    if interleaving.moment == Moment::AfterCommit {
        committed(cluster, &cast.witness, &scene.lost.name).await?;
    }
    let blow = fault.zip(cast.struck);
    if let Some((fault, struck)) = &blow {
        fault.strike(cluster, struck, &cast.witness).await?;
    }

    let mut away = blow.clone().filter(|(fault, _)| !fault.leaves_it_in());
    let retried = match interleaving.retried {
        Retried::Leader => {
            let mut present = cluster.started();
            present.retain(|name| away.as_ref().is_none_or(|(_, away)| away != name));
            cluster.leader_among(&present).await?
        }
        Retried::Follower | Retried::OldLeader => cast.retried.clone(),
    };
    if let Some((fault, back)) = away.take_if(|(_, name)| *name == retried) {
        fault.mend(cluster, &back)?;
    }
    let address = cluster.address(&retried)?;
    let answer = scene.lost.settle(&address, ANSWERED_WITHIN).await?;
    let revision = check_retry(interleaving, &answer)?;
    let outcome = if answer.replayed().is_some() {
        "replayed"
    } else {
        "applied"
    };
    scene.check_history(&address, revision).await?;
    no_answer(lost).await?;

    if let Some((fault, back)) = away {
        fault.mend(cluster, &back)?;
    }
    cluster.all_ready().await?;
    check_everywhere(cluster, &scene.lost.call, revision).await?;
    scene
        .check_history(&cluster.address(&cast.asked)?, revision)
        .await?;
    beside.answers(BESIDE_ANSWERS, ANSWERED_WITHIN).await?;
    let mut recorded = beside.stop().await?;
    recorded.extend(scene.recorded);
    recorded.sent.push(scene.lost);
    recorded.check(cluster).await?;
    let leader = cluster.leader().await?;
    Ok(Round {
        number,
        interleaving,
        asked: cast.asked,
        struck: blow,
        retried,
        outcome,
        revision,
        term: cluster.status(&leader).await?.term,
        searched: recorded
            .linearizable()?
            .at_least(BESIDE_COMMANDS, BESIDE_READS)?,
        took: Duration::ZERO,
    })
}

/// One log server, the request whose answer is lost, and what was seen of both.
struct Scene {
    lost: Sent,
    recorded: Recorded,
}

impl Scene {
    /// Registers the log server and makes the request.
    async fn set(leader: &str, name: &str) -> Result<Self> {
        let mut requester = Requester::open(leader).await?;
        let marker = requester.marker();
        let register = requester.register_call(name, Some(marker));
        let mut recorded = Recorded::default();
        let answer = recorded.ask(leader, name, register).await?;
        let registered = answer.registered();
        let (node, incarnation) = registered.context("it was not registered")?;
        Ok(Self {
            lost: Sent::begun(name, requester.activate_call(node, incarnation)),
            recorded,
        })
    }

    /// The node was activated once, at `revision`.
    async fn check_history(&mut self, member: &str, revision: u64) -> Result<()> {
        let reader = Reader::linearizable(member).await?;
        let name = &self.lost.name;
        let what = format!("{member} reads the history of {name}");
        let (seen, history) = until(&what, ANSWERED_WITHIN, async || {
            let seen = reader.seen(name).await?;
            let node = seen.node.as_ref().context("it is not there")?;
            let history = reader.history(node.id).await?;
            Ok((seen, history))
        })
        .await?;
        let activations = activations(&history);
        ensure!(
            activations == [revision],
            "activated at {activations:?}, answered r{revision}: {history:#?}"
        );
        let binding = seen.node.as_ref().and_then(|node| node.binding.as_ref());
        let since = binding.map(|binding| binding.since);
        ensure!(
            since == Some(revision),
            "bound since {since:?}, not r{revision}"
        );
        self.recorded.seen.push(seen);
        Ok(())
    }
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
