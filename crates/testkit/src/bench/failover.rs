//! How long nobody is answered when the leader goes: killed, or told to end.
//!
//! Every member that stays has a writer that never pauses. Before a round the cluster is whole and
//! its states are equal; after it the member that went is started again.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::Writer;
use crate::cluster::Cluster;
use crate::deadline::until;
use crate::requester::channel;

/// Answers of each writer before the leader goes.
const ANSWERS_BEFORE: usize = 100;
/// How long answers must flow again before a round ends.
const FLOWING_AGAIN: Duration = Duration::from_millis(300);
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// How the leader goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fall {
    /// SIGKILL.
    Killed,
    /// SIGTERM.
    Stopped,
}

impl fmt::Display for Fall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Killed => "killed",
            Self::Stopped => "stopped",
        })
    }
}

/// What one round found.
#[derive(Clone, Debug)]
pub struct Round {
    pub number: usize,
    pub member: String,
    pub fall: Fall,
    /// Killed: from the signal to the first write answered by the next leader. Stopped: the longest
    /// time without an answer to anybody since the signal.
    pub gap: Duration,
    /// The write that took longest, of all writers.
    pub slowest: Duration,
    /// Terms that began.
    pub elections: u64,
}

impl Round {
    /// As `--json` prints it.
    pub fn to_json(&self) -> Value {
        json!({
            "round": self.number,
            "member": self.member,
            "gap_ms": millis(self.gap),
            "slowest_write_ms": millis(self.slowest),
            "elections": self.elections,
        })
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "round {:>3}: {} {}, nobody answered for {:.1} ms, slowest write {:.1} ms, elections {}",
            self.number,
            self.member,
            self.fall,
            millis(self.gap),
            millis(self.slowest),
            self.elections
        )
    }
}

/// All rounds in a line.
#[derive(Clone, Debug)]
pub struct Summary {
    pub rounds: usize,
    pub median: Duration,
    pub longest: Duration,
    pub elections: u64,
}

impl Summary {
    /// `None` without rounds.
    pub fn of(rounds: &[Round]) -> Option<Self> {
        let mut gaps: Vec<Duration> = rounds.iter().map(|round| round.gap).collect();
        gaps.sort_unstable();
        Some(Self {
            rounds: rounds.len(),
            median: *gaps.get(gaps.len() / 2)?,
            longest: *gaps.last()?,
            elections: rounds.iter().map(|round| round.elections).sum(),
        })
    }

    /// As `--json` prints it, with the rounds that it is about.
    pub fn to_json(&self, rounds: &[Round]) -> Value {
        let rounds: Vec<Value> = rounds.iter().map(Round::to_json).collect();
        json!({
            "median_ms": millis(self.median),
            "max_ms": millis(self.longest),
            "elections": self.elections,
            "rounds": rounds,
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} rounds: median {:.1} ms, longest {:.1} ms without an answer; elections {}, needed {}",
            self.rounds,
            millis(self.median),
            millis(self.longest),
            self.elections,
            self.rounds
        )
    }
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 10.0
}

/// Runs `count` rounds on a cluster of three or more, and tells each one as it ends.
///
/// # Errors
/// When a write is refused, or the cluster does not come back.
pub async fn rounds(
    cluster: &mut Cluster,
    count: usize,
    fall: Fall,
    mut tell: impl FnMut(&Round),
) -> Result<Vec<Round>> {
    let mut writers = Vec::new();
    for name in cluster.names() {
        let address = cluster.address(&name)?;
        let writer = Writer::provision(&address, channel(&address).await?, &name).await?;
        writers.push((name, writer));
    }
    let mut done = Vec::new();
    for number in 1..=count {
        cluster.state_hashes_agree().await?;
        let round = round(cluster, &mut writers, number, fall)
            .await
            .with_context(|| format!("round {number}"))?;
        tell(&round);
        done.push(round);
    }
    Ok(done)
}

async fn round(
    cluster: &mut Cluster,
    writers: &mut Vec<(String, Writer)>,
    number: usize,
    fall: Fall,
) -> Result<Round> {
    let leader = cluster.leader().await?;
    let before = cluster.status(&leader).await?.term;
    let traffic = Arc::new(Traffic::default());
    let mut running = JoinSet::new();
    let (staying, resting): (Vec<_>, Vec<_>) =
        writers.drain(..).partition(|(name, _)| *name != leader);
    *writers = resting;
    ensure!(!staying.is_empty(), "nobody stays but {leader}");
    let wanted = ANSWERS_BEFORE * staying.len();
    for (name, writer) in staying {
        running.spawn(write_on(name, writer, traffic.clone()));
    }
    until("writes are answered", SETTLED_WITHIN, async || {
        let answered = traffic.answered();
        ensure!(answered >= wanted, "{answered} of {wanted} answers");
        Ok(())
    })
    .await?;

    let signalled = Instant::now();
    match fall {
        // Waits for the process to be gone; the writers go on meanwhile.
        Fall::Killed => tokio::task::block_in_place(|| cluster.kill(&leader))?,
        Fall::Stopped => cluster.stop_member(&leader).await?,
    }
    let next = cluster.leader().await?;
    let agreed = Instant::now();
    until(
        "answers flow again",
        SETTLED_WITHIN,
        async || match traffic.last_answer() {
            Some(last) if last > agreed + FLOWING_AGAIN => Ok(()),
            Some(_) | None => bail!("the last answer came before {next} led"),
        },
    )
    .await?;
    traffic.stop();
    while let Some(ended) = running.join_next().await {
        writers.push(ended??);
    }
    let after = cluster.status(&next).await?.term;
    let (gap, slowest) = traffic.found(signalled, fall);
    cluster.restart(&leader).await?;
    Ok(Round {
        number,
        member: leader,
        fall,
        gap,
        slowest,
        elections: after - before,
    })
}

async fn write_on(
    name: String,
    mut writer: Writer,
    traffic: Arc<Traffic>,
) -> Result<(String, Writer)> {
    while !traffic.stopped() {
        let begun = Instant::now();
        writer.write().await?;
        traffic.note(begun);
    }
    Ok((name, writer))
}

/// When writes were answered, over all writers.
#[derive(Debug, Default)]
struct Traffic(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// Ascending.
    answers: Vec<Instant>,
    slowest: Duration,
    stopped: bool,
}

impl Traffic {
    fn with<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, begun: Instant) {
        self.with(|seen| {
            // Under the lock, so that they ascend.
            let now = Instant::now();
            seen.answers.push(now);
            seen.slowest = seen.slowest.max(now - begun);
        });
    }

    fn answered(&self) -> usize {
        self.with(|seen| seen.answers.len())
    }

    fn last_answer(&self) -> Option<Instant> {
        self.with(|seen| seen.answers.last().copied())
    }

    fn stop(&self) {
        self.with(|seen| seen.stopped = true);
    }

    fn stopped(&self) -> bool {
        self.with(|seen| seen.stopped)
    }

    fn found(&self, signalled: Instant, fall: Fall) -> (Duration, Duration) {
        self.with(|seen| {
            let (from, to) = longest_silence(signalled, &seen.answers);
            let from = match fall {
                // Answers that were on their way when the leader died count as silence.
                Fall::Killed => signalled,
                Fall::Stopped => from,
            };
            (to - from, seen.slowest)
        })
    }
}

/// Begin and end of the longest time without an answer since `from`.
fn longest_silence(from: Instant, answers: &[Instant]) -> (Instant, Instant) {
    let after = answers.iter().filter(|&&answer| answer >= from);
    let begins = std::iter::once(&from).chain(after.clone());
    begins
        .zip(after)
        .map(|(&begin, &end)| (begin, end))
        .max_by_key(|(begin, end)| *end - *begin)
        .unwrap_or((from, from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_silence_begins_with_the_signal_or_an_answer_after_it() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let answers = [at(1), at(90), at(101), at(102), at(302), at(303)];
        assert_eq!(longest_silence(at(100), &answers), (at(102), at(302)));
        assert_eq!(longest_silence(at(102), &answers[4..]), (at(102), at(302)));
        assert_eq!(longest_silence(at(400), &answers), (at(400), at(400)));
    }
}
