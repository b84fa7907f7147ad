//! A client of the etcd API that makes one call after another, none with a tag.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tally_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::request_op::Request as Op;
use tally_proto::etcd::response_op::Response as Answered;
use tally_proto::etcd::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse};
use tonic::transport::Channel;

use super::again::until_answered;

/// Keys that puts and reads are drawn from.
pub(super) const KEYS: usize = 4_000;
const VALUE_BYTES: usize = 256;
/// Puts under way while the keys are made.
const FILLED_AT_A_TIME: usize = 64;

/// What is called.
#[derive(Clone, Copy, Debug)]
pub(super) enum KeyCall {
    Put,
    /// A put on condition that the client's own key is as the client left it.
    Swap,
    /// Of so many keys, one after another.
    Read {
        keys: usize,
        serializable: bool,
    },
}

/// See the module.
#[derive(Debug)]
pub(super) struct KeyCaller {
    what: KeyCall,
    client: KvClient<Channel>,
    value: Bytes,
    /// For transactions: a key that only this client changes, and when it last did; 0 before.
    own: Bytes,
    changed: i64,
    /// How often a request had to be sent again.
    pub(super) repeats: u64,
}

/// A key by its number; in the order of the numbers.
pub(super) fn key(number: usize) -> Bytes {
    format!("bench/{number:05}").into()
}

/// Makes every key: reads find it, and a put is of a key that is there.
pub(super) async fn fill(channel: &Channel) -> Result<()> {
    let mut filler = stream::iter(0..KEYS)
        .map(async |number| {
            let mut caller = KeyCaller::new(KeyCall::Put, 0, channel.clone());
            caller.put(key(number)).await
        })
        .buffer_unordered(FILLED_AT_A_TIME);
    while filler.try_next().await?.is_some() {}
    Ok(())
}

impl KeyCaller {
    pub(super) fn new(what: KeyCall, number: usize, channel: Channel) -> Self {
        // Noise, so that nothing on the way makes it shorter.
        let mut value = vec![0; VALUE_BYTES];
        rand::fill(&mut value[..]);
        Self {
            what,
            client: KvClient::new(channel),
            value: value.into(),
            own: format!("bench-own/{number:05}").into(),
            changed: 0,
            repeats: 0,
        }
    }

    /// Makes the next call, again and again until it is answered, and checks the answer.
    pub(super) async fn call(&mut self) -> Result<()> {
        match self.what {
            KeyCall::Put => self.put(key(rand::random_range(0..KEYS))).await,
            KeyCall::Swap => self.swap().await,
            KeyCall::Read { keys, serializable } => self.read(keys, serializable).await,
        }
    }

    async fn put(&mut self, key: Bytes) -> Result<()> {
        let ask = PutRequest {
            key,
            value: self.value.clone(),
            ..Default::default()
        };
        until_answered(
            &self.client,
            ask,
            &mut self.repeats,
            |mut client, ask| async move { client.put(ask).await },
        )
        .await?;
        Ok(())
    }

    async fn swap(&mut self) -> Result<()> {
        let repeats = self.repeats;
        let mut answer = self.try_swap().await?;
        if !answer.succeeded {
            ensure!(
                self.repeats > repeats,
                "somebody else changed {:?}, since {}: {answer:?}",
                self.own,
                self.changed
            );
            // An attempt without an answer took effect.
            self.changed = found(&answer).context("the key is gone")?;
            answer = self.try_swap().await?;
            ensure!(answer.succeeded, "a repeated swap found {answer:?}");
        }
        self.changed = answer.header.context("no header")?.revision;
        Ok(())
    }

    async fn try_swap(&mut self) -> Result<TxnResponse> {
        let op = |request| RequestOp {
            request: Some(request),
        };
        let ask = TxnRequest {
            compare: vec![Compare {
                result: CompareResult::Equal.into(),
                target: CompareTarget::Mod.into(),
                key: self.own.clone(),
                target_union: Some(TargetUnion::ModRevision(self.changed)),
                ..Default::default()
            }],
            success: vec![op(Op::RequestPut(PutRequest {
                key: self.own.clone(),
                value: self.value.clone(),
                ..Default::default()
            }))],
            failure: vec![op(Op::RequestRange(RangeRequest {
                key: self.own.clone(),
                ..Default::default()
            }))],
        };
        until_answered(
            &self.client,
            ask,
            &mut self.repeats,
            |mut client, ask| async move { client.txn(ask).await },
        )
        .await
    }

    async fn read(&mut self, keys: usize, serializable: bool) -> Result<()> {
        let first = rand::random_range(0..=KEYS - keys);
        let ask = RangeRequest {
            key: key(first),
            range_end: match keys {
                1 => Bytes::new(),
                _ => key(first + keys),
            },
            serializable,
            ..Default::default()
        };
        let answer = until_answered(
            &self.client,
            ask,
            &mut self.repeats,
            |mut client, ask| async move { client.range(ask).await },
        );
        let came = answer.await?.kvs.len();
        ensure!(came == keys, "{came} keys from {first} on, expected {keys}");
        Ok(())
    }
}

/// When the key that a failed compare found was changed.
fn found(answer: &TxnResponse) -> Option<i64> {
    match answer.responses.first()?.response.as_ref()? {
        Answered::ResponseRange(range) => Some(range.kvs.first()?.mod_revision),
        _ => None,
    }
}
