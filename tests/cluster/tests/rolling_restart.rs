//! Every member is restarted with SIGTERM, one after the other, under load from the client library: no
//! call ends in anything but an answer, or in a doubt that `resume` settles, and what was answered is
//! there exactly once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tally_client::{
    Activate, Answer, By, Client, Effect, Error, Marker, Register, SetState, StorageState, v1,
};
use tally_testkit::{Cluster, Reader, rounds, until};
use tokio::task::JoinSet;

/// Log servers that change their state, each with a client of its own.
const LOG_SERVERS: usize = 8;
/// Answers of each that are waited for before the next member is restarted.
const ANSWERS_BETWEEN: u64 = 20;
const GOES_ON_WITHIN: Duration = Duration::from_secs(60);
/// The code with which `resume` says that a request never took effect and never will.
const ABANDONED: &str = "T-206";

/// What the log servers share.
#[derive(Default)]
struct Progress {
    enough: AtomicBool,
    answers: AtomicU64,
    resumed: AtomicU64,
    longest_ms: AtomicU64,
}

/// One log server that moves between read-write and read-only, with a reason that names each move.
struct Mover {
    client: Client,
    name: String,
    node: u32,
    marker: Marker,
    incarnation: u64,
    /// Revision by reason, as answered.
    moved: BTreeMap<String, u64>,
}

impl Mover {
    async fn start(endpoints: Vec<String>, name: String) -> Result<Self> {
        let client = Client::builder().endpoints(endpoints).build()?;
        let marker = client.marker();
        let ask = Register {
            marker: Some(marker),
            ..Register::new(&name)
        };
        let registered = client.register(ask).await?;
        let Some(&Effect::NodeRegistered {
            node, incarnation, ..
        }) = registered.effect()
        else {
            bail!("{name} was not registered: {registered:?}");
        };
        let ask = Activate {
            node: node.0,
            marker,
            incarnation: incarnation.0,
            attempt: 1,
        };
        let activated = client.activate(ask).await?;
        ensure!(activated.took_effect_at().is_some(), "{activated:?}");
        Ok(Self {
            client,
            name,
            node: node.0,
            marker,
            incarnation: incarnation.0,
            moved: BTreeMap::new(),
        })
    }

    async fn run(mut self, progress: Arc<Progress>) -> Result<Self> {
        let mut to = StorageState::ReadOnly;
        for number in 0_u64.. {
            if progress.enough.load(Ordering::SeqCst) {
                break;
            }
            let reason = format!("move {number}");
            let begun = Instant::now();
            let answer = self.ask(to, reason.clone(), &progress).await?;
            let took = begun.elapsed().as_millis().try_into()?;
            progress.longest_ms.fetch_max(took, Ordering::SeqCst);
            progress.answers.fetch_add(1, Ordering::SeqCst);
            match answer.took_effect_at() {
                Some(revision) => {
                    self.moved.insert(reason, revision);
                    to = match to {
                        StorageState::ReadOnly => StorageState::ReadWrite,
                        _ => StorageState::ReadOnly,
                    };
                }
                // Settled: it did not happen, and will not.
                None if answer.refused().is_some_and(|no| no.code == ABANDONED) => {}
                None => bail!("{} was answered with {answer:?}", self.name),
            }
        }
        Ok(self)
    }

    async fn ask(&self, to: StorageState, reason: String, progress: &Progress) -> Result<Answer> {
        let ask = SetState {
            node: self.node,
            to,
            by: By::Node {
                marker: self.marker,
                incarnation: self.incarnation,
            },
            reason,
        };
        match self.client.set_state(ask).await {
            Ok(answer) => Ok(answer),
            Err(Error::Unknown { tag, .. }) => {
                progress.resumed.fetch_add(1, Ordering::SeqCst);
                let settled = self.client.resume(&tag).await;
                settled.with_context(|| format!("{}: not settled: {tag}", self.name))
            }
            Err(error) => Err(error).with_context(|| self.name.clone()),
        }
    }

    /// The history has what was answered, each once, and nothing else.
    async fn check(&self, reader: &Reader) -> Result<()> {
        let history = reader.history(self.node).await?;
        let mut moves = Vec::new();
        for entry in &history {
            let is_move = matches!(entry.event, Some(v1::history_entry::Event::Transitioned(_)));
            if is_move && !entry.reason.is_empty() {
                moves.push((entry.reason.clone(), entry.revision));
            }
        }
        moves.sort();
        let answered = Vec::from_iter(self.moved.clone());
        ensure!(
            moves == answered,
            "{}: the history has {moves:?}, answered were {answered:?}",
            self.name
        );
        Ok(())
    }
}

/// Waits until every log server has had more answers, and fails when one has ended.
async fn load_goes_on(progress: &Progress, load: &mut JoinSet<Result<Mover>>) -> Result<()> {
    let count = u64::try_from(LOG_SERVERS)?;
    let goal = progress.answers.load(Ordering::SeqCst) + ANSWERS_BETWEEN * count;
    until("more answers", GOES_ON_WITHIN, async || {
        let answers = progress.answers.load(Ordering::SeqCst);
        ensure!(answers >= goal, "{answers} of {goal}");
        Ok(())
    })
    .await?;
    match load.try_join_next() {
        None => Ok(()),
        Some(ended) => {
            let ended = ended?.map(|mover| mover.name)?;
            bail!("{ended} has stopped asking")
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_loses_no_answer_and_repeats_nothing() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let endpoints = cluster
        .names()
        .into_iter()
        .map(|name| cluster.address(&name));
    let endpoints = endpoints.collect::<Result<Vec<_>>>()?;
    let progress = Arc::<Progress>::default();
    let mut load = JoinSet::new();
    for number in 0..LOG_SERVERS {
        let mover = Mover::start(endpoints.clone(), format!("ls{number}")).await?;
        load.spawn(mover.run(progress.clone()));
    }
    for round in 0..rounds(2, 20) {
        for name in cluster.names() {
            load_goes_on(&progress, &mut load).await?;
            let was_leader = cluster.leader().await? == name;
            let begun = Instant::now();
            cluster.stop_member(&name).await?;
            let ended_in = begun.elapsed();
            load_goes_on(&progress, &mut load).await?;
            let others = cluster.started();
            let committed = cluster.status(&others[0]).await?.committed_index;
            cluster.restart(&name).await?;
            // Ready means that the next one may be restarted: this one has what the others have.
            let applied = cluster.status(&name).await?.applied_index;
            ensure!(
                applied >= committed,
                "{name} is ready and has applied {applied}, {committed} was committed before"
            );
            println!(
                "round {round}: {name}{} ended in {ended_in:?}",
                if was_leader { ", which led," } else { "" }
            );
        }
    }
    load_goes_on(&progress, &mut load).await?;
    progress.enough.store(true, Ordering::SeqCst);
    let movers = load.join_all().await;
    let movers = movers.into_iter().collect::<Result<Vec<_>>>()?;
    println!(
        "{} answers, {} of them by resuming; the longest took {} ms",
        progress.answers.load(Ordering::SeqCst),
        progress.resumed.load(Ordering::SeqCst),
        progress.longest_ms.load(Ordering::SeqCst)
    );
    for name in cluster.names() {
        let reader = Reader::linearizable(&cluster.address(&name)?).await?;
        for mover in &movers {
            mover.check(&reader).await.with_context(|| name.clone())?;
        }
    }
    cluster.state_hashes_agree().await?;
    cluster.stop().await
}
