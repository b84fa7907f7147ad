//! One client of the etcd API.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::seq::IndexedRandom;
use tally_proto::v1;
use tokio::sync::watch;
use tonic::transport::Channel;

use super::ask::send;
use super::{Asked, Came, KeyOperation, KeyRecord, Way};
use crate::deadline::until;
use crate::requester::{Requester, fresh_marker, lazy_channel};

/// Between two requests, and before the same one is sent to the next member.
const PAUSE: Duration = Duration::from_millis(10);
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// Values that nobody has used in this process.
static VALUES: AtomicU64 = AtomicU64::new(1);

/// See the module.
#[derive(Debug)]
pub struct KeyClient {
    members: Vec<Channel>,
    /// Which of them is asked next.
    at: usize,
    tagged: bool,
    session: Option<Requester>,
    record: KeyRecord,
    /// What each key had when this client heard of it last.
    seen: BTreeMap<String, u64>,
}

impl KeyClient {
    /// A client of these members, beginning with one of them; with tags or without.
    ///
    /// # Errors
    /// When an address is none.
    pub fn new(addresses: &[String], first: usize, tagged: bool) -> Result<Self> {
        let members: Result<Vec<_>> = addresses.iter().map(|at| lazy_channel(at)).collect();
        Ok(Self {
            members: members?,
            at: first % addresses.len(),
            tagged,
            session: None,
            record: KeyRecord::default(),
            seen: BTreeMap::new(),
        })
    }

    /// Gets a key, from one member after the other until one answers.
    pub(super) async fn get(&mut self, key: &str) -> Result<KeyOperation> {
        let answered = until("a member answers", SETTLED_WITHIN, async || {
            let get = begun(key.to_owned(), Asked::Get, Way::Plain);
            match self.once(&get).await {
                Ok(None) => bail!("no answer"),
                Ok(Some(came)) => Ok(Ok((get, came))),
                // What no fault explains is not asked again.
                Err(error) => Ok(Err(error)),
            }
        });
        let (mut get, came) = answered.await??;
        let first = came.into_iter().next();
        get.came = first.map(|came| (Instant::now(), came));
        Ok(get)
    }

    pub(super) async fn run(
        mut self,
        keys: Vec<String>,
        stopping: watch::Receiver<bool>,
        count: watch::Sender<usize>,
    ) -> Result<KeyRecord> {
        while !*stopping.borrow() {
            let operation = self.draw(&keys)?;
            let number = self.record.operations.len();
            let asked = [Some(operation.clone()), beside(&operation)];
            self.record.operations.extend(asked.into_iter().flatten());
            let answer = match self.tagged {
                true => self.until_answered(&operation, &stopping).await?,
                false => self.once(&operation).await?,
            };
            for (number, came) in (number..).zip(answer.into_iter().flatten()) {
                self.note(number, came);
                count.send_modify(|count| *count += 1);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(self.record)
    }

    /// Records what came of an operation.
    fn note(&mut self, number: usize, came: Came) {
        let operation = &mut self.record.operations[number];
        operation.came = Some((Instant::now(), came));
        let written = operation.what.value().filter(|_| came.done);
        if let Some(value) = written.or(came.before.map(|found| found.value)) {
            self.seen.insert(operation.key.clone(), value);
        }
    }

    /// What to ask next; a swap expects what was seen last, if anything was.
    fn draw(&mut self, keys: &[String]) -> Result<KeyOperation> {
        let mut random = rand::rng();
        let key = keys.choose(&mut random).context("no keys")?.clone();
        let other = keys.choose(&mut random).context("no keys")?;
        let value = VALUES.fetch_add(1, Ordering::Relaxed);
        let expected = self.seen.get(&key).copied();
        let what = match (rand::random_range(0..10), expected) {
            (0..3, _) => Asked::Get,
            (3..6, Some(expected)) => Asked::Swap { expected, value },
            (9, _) => Asked::Delete,
            _ => Asked::Put { value },
        };
        let way = match (rand::random_range(0..4), what) {
            (_, Asked::Swap { .. }) | (0, _) => Way::Txn,
            (1, Asked::Put { .. }) if *other != key => Way::TxnWith(other.clone()),
            _ => Way::Plain,
        };
        Ok(begun(key, what, way))
    }

    /// Sends a request without a tag, once; `None` when it is not known what became of it.
    async fn once(&mut self, operation: &KeyOperation) -> Result<Option<Vec<Came>>> {
        let came = send(&self.members[self.at], operation, None).await?;
        if came.is_none() {
            self.at = (self.at + 1) % self.members.len();
        }
        Ok(came)
    }

    /// Sends a request to one member after the other, under one tag, until it is answered, or nobody
    /// wants to know any more.
    async fn until_answered(
        &mut self,
        operation: &KeyOperation,
        stopping: &watch::Receiver<bool>,
    ) -> Result<Option<Vec<Came>>> {
        let deadline = Instant::now() + SETTLED_WITHIN;
        let Some(tag) = self.tag(deadline, stopping).await? else {
            return Ok(None);
        };
        loop {
            let came = send(&self.members[self.at], operation, Some(&tag)).await?;
            if came.is_some() {
                return Ok(came);
            }
            if *stopping.borrow() {
                return Ok(None);
            }
            ensure!(
                Instant::now() < deadline,
                "{operation:?} was not answered in time"
            );
            self.at = (self.at + 1) % self.members.len();
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn tag(
        &mut self,
        deadline: Instant,
        stopping: &watch::Receiver<bool>,
    ) -> Result<Option<v1::Tag>> {
        loop {
            if let Some(session) = &mut self.session {
                session.acknowledge_all();
                return Ok(Some(session.next_tag()));
            }
            match Requester::try_open(&self.members[self.at], fresh_marker()).await {
                Ok(session) => self.session = Some(session),
                Err(_) if *stopping.borrow() => return Ok(None),
                Err(error) => {
                    ensure!(
                        Instant::now() < deadline,
                        "no session was opened: {error:#}"
                    );
                    self.at = (self.at + 1) % self.members.len();
                }
            }
        }
    }
}

fn begun(key: String, what: Asked, way: Way) -> KeyOperation {
    KeyOperation {
        key,
        what,
        way,
        invoked: Instant::now(),
        came: None,
    }
}

/// The same request, as the other key has it.
fn beside(operation: &KeyOperation) -> Option<KeyOperation> {
    let Way::TxnWith(other) = &operation.way else {
        return None;
    };
    Some(KeyOperation {
        key: other.clone(),
        way: Way::TxnWith(operation.key.clone()),
        ..operation.clone()
    })
}
