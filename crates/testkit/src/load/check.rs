//! What must be true of everything that was recorded, whatever happened meanwhile: each answered
//! command is there, none took effect twice, the history is consistent, all members agree.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use tally_proto::v1;
use v1::answer::Outcome;
use v1::history_entry::Event;

use super::{Recorded, Sent};
use crate::answer::AnswerExt;
use crate::call::send_until_answered;
use crate::cluster::Cluster;
use crate::deadline::until;
use crate::read::Reader;

const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
/// Calls that are sent again at a time.
const AT_A_TIME: usize = 16;

/// What a check looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Commands that had been answered before; each was found again.
    pub answered: usize,
    /// Commands that had not; each has an answer now.
    pub settled: usize,
    /// Reads that were answered.
    pub reads: usize,
    /// Entries of the history.
    pub history: usize,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} answered commands found again, {} settled, {} reads, {} entries in the history",
            self.answered, self.settled, self.reads, self.history
        )
    }
}

impl Recorded {
    /// Sends every command again and looks through the history of every member. Commands that had no
    /// answer get theirs now, and keep it in the record.
    ///
    /// # Errors
    /// When an answered command is not there or answered otherwise than before, one took effect
    /// twice, the history does not fit together, or members differ.
    pub async fn check(&mut self, cluster: &Cluster) -> Result<Checked> {
        let names = cluster.started().into_iter();
        let addresses: Result<Vec<String>> = names.map(|name| cluster.address(&name)).collect();
        let checked = self.check_at(&addresses?).await?;
        cluster.state_hashes_agree().await?;
        Ok(checked)
    }

    /// The same, without comparing state hashes, for members that run elsewhere.
    ///
    /// # Errors
    /// As for [`Recorded::check`].
    pub async fn check_at(&mut self, addresses: &[String]) -> Result<Checked> {
        let answered = self.answered();
        self.send_again(addresses).await?;
        let history = same_history(addresses).await?;
        fits_together(&history)?;
        each_once(&self.sent, &history)?;
        Ok(Checked {
            answered,
            settled: self.sent.len() - answered,
            reads: self.seen.len(),
            history: history.len(),
        })
    }

    /// Sends every command again, under its own tag, to one member after the other.
    async fn send_again(&mut self, addresses: &[String]) -> Result<()> {
        let all = std::mem::take(&mut self.sent).into_iter().enumerate();
        let sending = all.map(async |(number, sent)| {
            let address = &addresses[number % addresses.len()];
            let again = send_until_answered(address, &sent.call, ANSWERED_WITHIN).await;
            settled(sent, again?)
        });
        let sending = futures::stream::iter(sending).buffer_unordered(AT_A_TIME);
        self.sent = sending.try_collect().await?;
        Ok(())
    }
}

/// The command with its answer, which must be the one that it had, if it had one.
fn settled(mut sent: Sent, again: v1::Answer) -> Result<Sent> {
    sent.attempts += 1;
    let Some((_, first)) = &sent.answered else {
        sent.answered = Some((Instant::now(), again));
        return Ok(sent);
    };
    let refused = |answer: &v1::Answer| answer.refused().map(str::to_owned);
    ensure!(
        again.repeat
            && again.applied().is_none()
            && again.replayed() == first.took_effect()
            && refused(&again) == refused(first),
        "{}: answered first with {first:?}, and then with {again:?}: {:?}",
        sent.name,
        sent.call
    );
    Ok(sent)
}

/// The whole history, if every member tells the same one.
async fn same_history(addresses: &[String]) -> Result<Vec<v1::HistoryEntry>> {
    let mut first: Option<Vec<v1::HistoryEntry>> = None;
    for address in addresses {
        let what = format!("the history through {address}");
        let history = until(&what, ANSWERED_WITHIN, async || {
            let reader = Reader::linearizable(address).await?;
            Ok(reader.history(0).await?)
        })
        .await?;
        match &first {
            None => first = Some(history),
            Some(first) => {
                let mut pairs = first.iter().zip(&history);
                if let Some((one, other)) = pairs.find(|(one, other)| one != other) {
                    anyhow::bail!(
                        "{address} tells {other:?} where {} tells {one:?}",
                        addresses[0]
                    );
                }
                let (one, other) = (first.len(), history.len());
                ensure!(one == other, "{one} entries at first, {other} at {address}");
            }
        }
    }
    first.context("no member to ask")
}

/// Revisions rise, no tag comes twice, and each node goes on from where it was.
fn fits_together(history: &[v1::HistoryEntry]) -> Result<()> {
    let (mut revision, mut unix_ms) = (0, 0);
    let mut tags = BTreeMap::new();
    let mut states: BTreeMap<u32, v1::StorageState> = BTreeMap::new();
    let mut incarnations: BTreeMap<u32, u64> = BTreeMap::new();
    for entry in history {
        ensure!(
            entry.revision > revision,
            "{entry:?} comes after r{revision}"
        );
        revision = entry.revision;
        ensure!(
            entry.unix_ms >= unix_ms,
            "{entry:?} is earlier than the one before it, at {unix_ms} ms"
        );
        unix_ms = entry.unix_ms;
        let earlier = tags.insert((entry.session, entry.sequence), revision);
        ensure!(
            earlier.is_none(),
            "one command took effect twice: at r{earlier:?} and as {entry:?}"
        );
        match entry.event.as_ref().context("an entry without an event")? {
            Event::Registered(registered) => {
                let last = incarnations.insert(entry.node, registered.incarnation);
                let expected = last.unwrap_or(0) + 1;
                ensure!(
                    registered.incarnation == expected,
                    "incarnation {expected} was expected: {entry:?}"
                );
                let new = v1::StorageState::Provisioning;
                states.entry(entry.node).or_insert(new);
            }
            Event::Transitioned(moved) => {
                let before = states.insert(entry.node, moved.to());
                ensure!(
                    before == Some(moved.from()),
                    "the node was in {before:?} before {entry:?}"
                );
            }
            Event::Claimed(_) => {}
        }
    }
    Ok(())
}

/// What was applied is in the history at its revision, and what is in the history was applied.
fn each_once(all: &[Sent], history: &[v1::HistoryEntry]) -> Result<()> {
    let by_tag = history
        .iter()
        .map(|entry| ((entry.session, entry.sequence), entry));
    let by_tag: BTreeMap<(u64, u64), &v1::HistoryEntry> = by_tag.collect();
    for sent in all {
        let tag = sent.call.tag().context("a call without a tag")?;
        let Some((_, answer)) = &sent.answered else {
            continue;
        };
        let entry = by_tag.get(&(tag.session, tag.sequence));
        let found = entry.map(|entry| entry.revision);
        let what = || {
            format!(
                "{}: answered {answer:?}, in the history {entry:?}",
                sent.name
            )
        };
        match answer.outcome.as_ref().context("an empty answer")? {
            Outcome::Applied(applied) => {
                ensure!(found == Some(applied.revision), "{}", what());
            }
            // Of an earlier command if this tag is not there: a node that was activated already.
            Outcome::Replayed(replayed) => {
                ensure!(
                    found.is_none_or(|found| found == replayed.since),
                    "{}",
                    what()
                );
                let known = history.binary_search_by_key(&replayed.since, |entry| entry.revision);
                ensure!(known.is_ok(), "{}", what());
            }
            Outcome::Refused(_) => {
                let claim =
                    |entry: &&v1::HistoryEntry| matches!(entry.event, Some(Event::Claimed(_)));
                ensure!(entry.is_none_or(claim), "{}", what());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
