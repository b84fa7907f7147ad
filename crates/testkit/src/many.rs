//! Many keys of 1 KiB: put, read page by page, and watched as a whole.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::watch_client::WatchClient;
use tally_proto::etcd::watch_request::RequestUnion;
use tally_proto::etcd::{
    CompactionRequest, PutRequest, RangeRequest, RangeResponse, WatchCreateRequest, WatchRequest,
};
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::cluster::Cluster;
use crate::deadline::until;
use crate::requester::channel;

const VALUE_BYTES: usize = 1 << 10;
/// Puts under way while keys are loaded.
const PUTS_AT_A_TIME: usize = 64;
/// Keys of a page.
pub const PAGE: usize = 1_000;
/// For what takes longer with more keys.
pub const STEP_WITHIN: Duration = Duration::from_secs(1_800);
/// Answers hold whole revisions of at least so much.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// So many keys, at one member.
#[derive(Clone)]
pub struct ManyKeys {
    keys: usize,
    address: String,
    kv: KvClient<Channel>,
}

impl ManyKeys {
    /// # Errors
    /// When the member is not there.
    pub async fn at(cluster: &Cluster, name: &str, keys: usize) -> Result<Self> {
        let address = cluster.address(name)?;
        let kv = KvClient::new(channel(&address).await?);
        let kv = kv.max_decoding_message_size(ANSWER_BYTES_MAX);
        Ok(Self { keys, address, kv })
    }

    /// Puts every `step`-th key, for the `round`-th time. Gives the first and the last revision.
    ///
    /// # Errors
    /// When a put is not answered.
    pub async fn put(&self, step: usize, round: u8) -> Result<(i64, i64)> {
        let mut puts = stream::iter((0..self.keys).step_by(step))
            .map(async |number| {
                let put = PutRequest {
                    key: key(number),
                    value: value(number, round),
                    ..Default::default()
                };
                let answer = self.kv.clone().put(slow(put)).await?.into_inner();
                anyhow::Ok(answer.header.context("no header")?.revision)
            })
            .buffer_unordered(PUTS_AT_A_TIME);
        let (mut first, mut last) = (i64::MAX, 0);
        while let Some(revision) = puts.try_next().await? {
            (first, last) = (first.min(revision), last.max(revision));
        }
        Ok((first, last))
    }

    /// # Errors
    /// The member's.
    pub async fn range(&self, ask: RangeRequest) -> Result<RangeResponse, Status> {
        Ok(self.kv.clone().range(slow(ask)).await?.into_inner())
    }

    /// Reads so many keys, from this one on.
    ///
    /// # Errors
    /// When others come, or they have other values than of the round that `round` tells.
    pub async fn read(&self, from: usize, many: usize, round: impl Fn(usize) -> u8) -> Result<()> {
        let ask = RangeRequest {
            key: key(from),
            range_end: key(from + many),
            ..Default::default()
        };
        let answer = self.range(ask).await?;
        ensure!(
            answer.kvs.len() == many,
            "{} keys of {many}",
            answer.kvs.len()
        );
        are_in_order(&answer, from, round)
    }

    /// Reads every key, a page at a time and all as of one revision, as the member has applied it. Each page tells
    /// how many keys there are from its first on.
    ///
    /// # Errors
    /// When a key is missing, or has another value than of the round that `round` tells, or keys are miscounted.
    pub async fn read_pages(&self, round: impl Fn(usize) -> u8) -> Result<()> {
        let (mut next, mut revision) = (0, 0);
        while next < self.keys {
            let ask = RangeRequest {
                key: key(next),
                limit: PAGE as i64,
                revision,
                ..serializable()
            };
            let page = self.range(ask).await?;
            let (came, left) = (page.kvs.len(), self.keys - next);
            ensure!(
                came == left.min(PAGE) && page.count == left as i64 && page.more == (came < left),
                "{came} keys of {} from {next} on, more: {}; there are {left}",
                page.count,
                page.more
            );
            if revision == 0 {
                revision = page.header.as_ref().context("no header")?.revision;
            }
            are_in_order(&page, next, &round)?;
            next += came;
        }
        Ok(())
    }

    /// # Errors
    /// When there are more or fewer keys than there should be.
    pub async fn count(&self) -> Result<()> {
        let ask = RangeRequest {
            count_only: true,
            ..serializable()
        };
        let counted = self.range(ask).await?.count;
        ensure!(
            counted == self.keys as i64,
            "{counted} keys of {}",
            self.keys
        );
        Ok(())
    }

    /// Watches all keys from a revision on until each has been told of.
    ///
    /// # Errors
    /// When one is told of twice, or out of the order of revisions.
    pub async fn watch(&self, from: i64) -> Result<()> {
        let client = WatchClient::new(channel(&self.address).await?);
        let mut client = client.max_decoding_message_size(ANSWER_BYTES_MAX);
        let create = WatchCreateRequest {
            key: key(0).into(),
            range_end: end().into(),
            start_revision: from,
            ..Default::default()
        };
        let request_union = Some(RequestUnion::CreateRequest(create));
        let requests = stream::iter([WatchRequest { request_union }]).chain(stream::pending());
        let mut answers = client.watch(requests).await?.into_inner();
        let mut told = BTreeSet::new();
        let mut revision = from - 1;
        while told.len() < self.keys {
            let answer = tokio::time::timeout(STEP_WITHIN, answers.message()).await??;
            let answer = answer.context("the watch has ended")?;
            ensure!(!answer.canceled, "cancelled: {answer:?}");
            for event in answer.events {
                let kv = event.kv.context("an event of nothing")?;
                let now = kv.mod_revision;
                ensure!(now > revision, "r{now} after r{revision}");
                revision = now;
                ensure!(told.insert(kv.key.clone()), "told twice of {:?}", kv.key);
            }
        }
        Ok(())
    }

    /// Gives up all revisions before this one, and waits until nothing is left of them.
    ///
    /// # Errors
    /// The member's.
    pub async fn compact(&self, revision: i64) -> Result<()> {
        let ask = CompactionRequest {
            revision,
            physical: true,
        };
        self.kv.clone().compact(slow(ask)).await?;
        Ok(())
    }
}

/// Wipes a member, and puts an empty one in its place, which gets a snapshot.
///
/// # Errors
/// When it does not catch up.
pub async fn replace(cluster: &mut Cluster, name: &str) -> Result<()> {
    cluster.kill(name)?;
    cluster.wipe(name)?;
    cluster.launch(name)?;
    cluster.says_it_was_emptied(name).await?;
    let replaced = cluster
        .operator()
        .start(&["member", "replace", name, "--timeout", "10m"])?;
    let replaced = tokio::time::timeout(STEP_WITHIN, replaced.wait_with_output()).await??;
    ensure!(replaced.status.success(), "not replaced: {replaced:?}");
    caught_up(cluster, name).await
}

/// Waits until a member is ready: it has applied what the others had when it began to look.
///
/// # Errors
/// When it is not in time.
pub async fn caught_up(cluster: &Cluster, name: &str) -> Result<()> {
    until("a member is ready", STEP_WITHIN, async || {
        let answer = cluster.member(name)?.http("/readyz").await?;
        ensure!(answer.status == 200, "/readyz of {name} says {answer:?}");
        Ok(())
    })
    .await
}

fn key(number: usize) -> Bytes {
    format!("keys/{number:08}").into()
}

/// The key after all of them.
fn end() -> Bytes {
    Bytes::from_static(b"keys0")
}

/// All keys, as a member has applied them.
fn serializable() -> RangeRequest {
    RangeRequest {
        key: key(0),
        range_end: end(),
        serializable: true,
        ..Default::default()
    }
}

/// Noise, so that nothing on the way makes it shorter; another one for each put.
fn value(number: usize, round: u8) -> Bytes {
    let mut noise = StdRng::seed_from_u64(number as u64 * 256 + u64::from(round));
    let mut value = vec![0; VALUE_BYTES];
    noise.fill_bytes(&mut value);
    value.into()
}

fn are_in_order(answer: &RangeResponse, from: usize, round: impl Fn(usize) -> u8) -> Result<()> {
    for (number, found) in (from..).zip(&answer.kvs) {
        ensure!(
            found.key == key(number),
            "{:?}, expected key {number}",
            found.key
        );
        let expected = value(number, round(number));
        ensure!(found.value == expected, "key {number} has another value");
    }
    Ok(())
}

fn slow<T>(ask: T) -> Request<T> {
    let mut request = Request::new(ask);
    request.set_timeout(STEP_WITHIN);
    request
}
