//! A watcher on one member, which goes on from where it was when its stream breaks.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::watch_client::WatchClient;
use tally_proto::etcd::watch_request::RequestUnion;
use tally_proto::etcd::{PutRequest, WatchCreateRequest, WatchRequest, WatchResponse};
use tally_proto::mvcc::Event;
use tally_proto::mvcc::event::EventType;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::ask::lawful;
use crate::cluster::Cluster;
use crate::requester::{channel, lazy_channel};

/// Before a broken stream is opened again.
const PAUSE: Duration = Duration::from_millis(50);

/// One event as a watcher was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    pub revision: i64,
    pub key: Bytes,
    /// `None` for a deletion.
    pub value: Option<Bytes>,
    /// Revision at which the key was made.
    pub created: i64,
    pub version: i64,
}

impl Noted {
    /// The value, if it is a number as clients of a load put them.
    pub(super) fn number(&self) -> Option<u64> {
        std::str::from_utf8(self.value.as_ref()?).ok()?.parse().ok()
    }

    fn of(event: Event) -> Result<Self> {
        let kind = event.r#type();
        let pair = event.kv.context("an event of nothing")?;
        Ok(Self {
            revision: pair.mod_revision,
            key: pair.key,
            value: (kind == EventType::Put).then_some(pair.value),
            created: pair.create_revision,
            version: pair.version,
        })
    }
}

/// What a watcher has heard.
#[derive(Clone, Debug, Default)]
struct Heard {
    events: Vec<Noted>,
    /// Streams that broke after the watcher had been created on them.
    broken: usize,
    /// Revision in the header of the last answer with events: a client may go on after it.
    header: i64,
}

impl Heard {
    fn last(&self) -> i64 {
        self.events.last().map_or(0, |one| one.revision)
    }

    /// Takes an answer. All events of a revision come in one, and none that is told later is of the revision in its header
    /// or before.
    fn take(&mut self, answer: WatchResponse) -> Result<()> {
        ensure!(!answer.canceled, "cancelled: {answer:?}");
        if answer.events.is_empty() {
            return Ok(());
        }
        let last = self.last().max(self.header);
        for event in answer.events {
            let noted = Noted::of(event)?;
            ensure!(
                noted.revision > last,
                "told apart, again or too late, after {last}: {noted:?}"
            );
            self.events.push(noted);
        }
        self.header = answer.header.context("no header")?.revision;
        Ok(())
    }
}

/// How far a watcher was told.
#[derive(Clone, Debug)]
pub(super) struct Told(watch::Receiver<Heard>);

impl Told {
    /// The last revision; 0 before the first.
    pub(super) fn last(&self) -> i64 {
        self.0.borrow().last()
    }
}

/// See the module.
#[derive(Debug)]
pub struct KeyWatcher {
    heard: watch::Receiver<Heard>,
    running: JoinHandle<Result<()>>,
}

impl Drop for KeyWatcher {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl KeyWatcher {
    /// Watches every key below a prefix, from a revision on.
    ///
    /// # Errors
    /// When the address is none.
    pub fn start(address: &str, prefix: &str, from: i64) -> Result<Self> {
        let channel = lazy_channel(address)?;
        let (hear, heard) = watch::channel(Heard::default());
        let prefix = prefix.as_bytes().to_vec();
        let running = tokio::spawn(async move {
            loop {
                let next = from.max(hear.borrow().last() + 1);
                // What breaks a stream is the fault that the test is about.
                if follow(&channel, &prefix, next, &hear).await? {
                    hear.send_modify(|heard| heard.broken += 1);
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        Ok(Self { heard, running })
    }

    /// How often a stream broke on which it had been created.
    pub fn broken(&self) -> usize {
        self.heard.borrow().broken
    }

    pub(super) fn told(&self) -> Told {
        Told(self.heard.clone())
    }

    /// Waits until it was told of a revision, and gives everything up to it.
    ///
    /// # Errors
    /// When it was not after `within`, when it was cancelled, or when the events of one revision did not
    /// come together, once and after those of the revisions before.
    pub async fn through(&mut self, revision: i64, within: Duration) -> Result<Vec<Noted>> {
        let reached = self.heard.wait_for(|heard| heard.last() >= revision);
        let waited = tokio::time::timeout(within, reached).await;
        let told = match waited.map(|heard| heard.map(|heard| heard.events.clone())) {
            Ok(Ok(told)) => told,
            Ok(Err(_)) => {
                (&mut self.running)
                    .await
                    .context("the watcher panicked")??;
                bail!("the watcher has ended");
            }
            Err(_) => bail!("told of {}, not of {revision}", self.heard.borrow().last()),
        };
        let until = told.into_iter().filter(|one| one.revision <= revision);
        Ok(until.collect())
    }
}

/// A watcher on each member, of every key below a prefix, from a revision on.
///
/// # Errors
/// When a member has no address.
pub fn watchers(
    cluster: &Cluster,
    prefix: &str,
    from: i64,
) -> Result<BTreeMap<String, KeyWatcher>> {
    let names = cluster.names().into_iter();
    let watchers = names.map(|name| {
        let watcher = KeyWatcher::start(&cluster.address(&name)?, prefix, from)?;
        Ok((name, watcher))
    });
    watchers.collect()
}

/// Puts a key, which is one event more; gives its revision.
///
/// # Errors
/// When the leader does not answer.
pub async fn last_event(cluster: &Cluster, key: &str) -> Result<i64> {
    let leader = cluster.leader().await?;
    let mut client = KvClient::new(channel(&cluster.address(&leader)?).await?);
    let put = PutRequest {
        key: key.to_owned().into(),
        ..Default::default()
    };
    let header = client.put(put).await?.into_inner().header;
    Ok(header.context("no header")?.revision)
}

/// Waits until watchers, by the names of their members, were told of a revision, and gives what all were told up to it.
///
/// # Errors
/// As [`KeyWatcher::through`]; when there is no watcher, or two were told something else.
pub async fn told_alike(
    watchers: &mut BTreeMap<String, KeyWatcher>,
    revision: i64,
    within: Duration,
) -> Result<Vec<Noted>> {
    let mut told: Option<Vec<Noted>> = None;
    for (name, watcher) in watchers {
        let noted = watcher.through(revision, within).await;
        let noted = noted.with_context(|| format!("the watcher on {name}"))?;
        let first = told.get_or_insert_with(|| noted.clone());
        ensure!(*first == noted, "{name} tells another history");
    }
    told.context("nobody watched")
}

/// Follows one stream until it breaks; true when the watcher had been created on it.
async fn follow(
    channel: &Channel,
    prefix: &[u8],
    next: i64,
    hear: &watch::Sender<Heard>,
) -> Result<bool> {
    let mut end = prefix.to_vec();
    *end.last_mut().context("an empty prefix")? += 1;
    let create = WatchCreateRequest {
        key: prefix.to_vec(),
        range_end: end,
        start_revision: next,
        ..Default::default()
    };
    // While this is there the member does not think that the client has gone.
    let (send, requests) = tokio::sync::mpsc::channel(1);
    let create = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    };
    send.send(create).await?;
    let mut client = WatchClient::new(channel.clone());
    let mut answers = match client.watch(ReceiverStream::new(requests)).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return lawful(&status).map(|()| false),
    };
    let mut created = false;
    loop {
        match answers.message().await {
            Ok(Some(answer)) => {
                created |= answer.created;
                let mut taken = Ok(());
                hear.send_modify(|heard| taken = heard.take(answer));
                taken?;
            }
            Ok(None) => return Ok(created),
            Err(status) => return lawful(&status).map(|()| created),
        }
    }
}

#[cfg(test)]
mod tests {
    use tally_proto::etcd::ResponseHeader;
    use tally_proto::mvcc::KeyValue;

    use super::*;

    fn answer(events: &[(&'static str, i64)]) -> WatchResponse {
        let event = |(key, revision): (&'static str, i64)| Event {
            kv: Some(KeyValue {
                key: key.into(),
                mod_revision: revision,
                ..Default::default()
            }),
            ..Default::default()
        };
        let events = events.iter().copied();
        let last = events.clone().next_back();
        let header = ResponseHeader {
            revision: last.map_or(0, |(_, revision)| revision),
            ..Default::default()
        };
        WatchResponse {
            header: Some(header),
            events: events.map(event).collect(),
            ..Default::default()
        }
    }

    fn hear(answers: impl IntoIterator<Item = WatchResponse>) -> Result<usize> {
        let mut heard = Heard::default();
        let mut answers = answers.into_iter();
        answers.try_for_each(|answer| heard.take(answer))?;
        Ok(heard.events.len())
    }

    #[test]
    fn a_revision_that_comes_in_two_answers_is_noticed() {
        let together = [answer(&[("a", 2), ("b", 2)]), answer(&[("a", 3)])];
        assert_eq!(hear(together).expect("both came together"), 3);
        let split = [answer(&[("a", 2)]), answer(&[("b", 2), ("a", 3)])];
        hear(split).expect_err("they came apart");
    }

    #[test]
    fn an_event_of_a_revision_that_a_header_has_named_is_noticed() {
        let mut ahead = answer(&[("a", 2)]);
        ahead.header = Some(ResponseHeader {
            revision: 3,
            ..Default::default()
        });
        hear([ahead.clone(), answer(&[("b", 4)])]).expect("3 is of other keys");
        hear([ahead, answer(&[("b", 3)])]).expect_err("who went on after 3 has missed it");
    }

    #[test]
    fn a_cancelled_watcher_has_failed() {
        let cancelled = WatchResponse {
            canceled: true,
            ..Default::default()
        };
        hear([cancelled]).expect_err("nothing more will come");
    }
}
