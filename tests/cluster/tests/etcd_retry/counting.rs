//! Writers that count keys of their own up, without tags, and see whether a write was lost or applied twice.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tally_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::lease_client::LeaseClient;
use tally_proto::etcd::request_op::Request as Op;
use tally_proto::etcd::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest,
    RequestOp, TxnRequest,
};
use tally_testkit::channel;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Request;
use tonic::transport::Channel;

/// A request that is not answered by then fails its test.
const ATTEMPT: Duration = Duration::from_secs(20);
const SEEN_WITHIN: Duration = Duration::from_secs(20);

/// Longer than any test.
const LEASE_SECONDS: i64 = 3_600;

/// The next value, and what was there before.
fn next(key: &str, version: i64) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        value: (version + 1).to_string().into(),
        prev_kv: true,
        ..Default::default()
    }
}

/// `if version == n then put`, as a client does that counts on its own writes.
pub(super) fn count_up(key: &str, version: i64) -> TxnRequest {
    TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Version.into(),
            key: key.to_owned().into(),
            target_union: Some(TargetUnion::Version(version)),
            ..Default::default()
        }],
        success: vec![RequestOp {
            request: Some(Op::RequestPut(next(key, version))),
        }],
        failure: Vec::new(),
    }
}

/// A request that is to be answered in time.
pub(super) fn timely<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ATTEMPT);
    request
}

/// What a writer does at each step.
#[derive(Clone, Copy, Debug)]
pub(super) enum By {
    /// What was there before tells whether a put was applied twice.
    Put,
    /// A transaction that is applied twice finds its own write.
    Txn,
    /// Deletes what it put and puts it anew: a deletion that is applied twice takes the next put away.
    Delete,
    /// The same with a lease of its own: it is granted once and revoked once, or it is refused.
    Lease,
}

impl By {
    pub(super) const ALL: [Self; 4] = [Self::Put, Self::Txn, Self::Delete, Self::Lease];
}

/// Someone who writes one key, and reads it.
struct Writer {
    kv: KvClient<Channel>,
    leases: LeaseClient<Channel>,
    key: String,
    lease: i64,
    by: By,
    steps: i64,
}

impl Writer {
    /// The version that its key has now.
    fn version(&self) -> i64 {
        match self.by {
            By::Put | By::Txn => self.steps,
            By::Delete | By::Lease => self.steps.min(1),
        }
    }

    async fn step(&mut self) -> Result<()> {
        match self.by {
            By::Put => self.put(self.steps, 0).await?,
            By::Txn => {
                let request = timely(count_up(&self.key, self.steps));
                let answer = self.kv.txn(request).await?.into_inner();
                ensure!(answer.succeeded, "not at {}: {answer:?}", self.steps);
            }
            By::Delete => {
                let request = DeleteRangeRequest {
                    key: self.key.clone().into(),
                    ..Default::default()
                };
                let answer = self.kv.delete_range(timely(request)).await?.into_inner();
                ensure!(answer.deleted == self.version(), "{answer:?}");
                self.put(0, 0).await?;
            }
            By::Lease => {
                if self.steps > 0 {
                    let revoke = LeaseRevokeRequest { id: self.lease };
                    self.leases.lease_revoke(timely(revoke)).await?;
                }
                let grant = LeaseGrantRequest {
                    id: self.lease,
                    ttl: LEASE_SECONDS,
                };
                self.leases.lease_grant(timely(grant)).await?;
                self.put(0, self.lease).await?;
            }
        }
        self.steps += 1;
        self.read().await
    }

    async fn put(&mut self, version: i64, lease: i64) -> Result<()> {
        let put = PutRequest {
            lease,
            ..next(&self.key, version)
        };
        let before = self.kv.put(timely(put)).await?.into_inner().prev_kv;
        let found = before.as_ref().map_or(0, |pair| pair.version);
        ensure!(found == version, "was {before:?}, not at {version}");
        Ok(())
    }

    /// A linearizable read finds what it wrote.
    async fn read(&mut self) -> Result<()> {
        let ask = RangeRequest {
            key: self.key.clone().into(),
            ..Default::default()
        };
        let found = self.kv.range(timely(ask)).await?.into_inner().kvs;
        ensure!(
            matches!(&found[..], [pair] if pair.version == self.version()),
            "reads {found:?}, not version {}",
            self.version()
        );
        Ok(())
    }
}

/// Writers at work until they are told to stop.
pub(super) struct Writers {
    running: JoinSet<Result<(String, i64)>>,
    answered: watch::Receiver<usize>,
    stop: watch::Sender<bool>,
}

impl Writers {
    /// For each member so many, which take turns at what they do. Their keys begin with `prefix`.
    pub(super) async fn start(
        addresses: &[String],
        each: usize,
        does: &[By],
        prefix: &str,
    ) -> Result<Self> {
        let (stop, stopping) = watch::channel(false);
        let (count, answered) = watch::channel(0);
        let mut running = JoinSet::new();
        for (member, address) in addresses.iter().enumerate() {
            let to = channel(address).await?;
            for (number, by) in (0..each).zip(does.iter().cycle()) {
                let mut writer = Writer {
                    kv: KvClient::new(to.clone()),
                    leases: LeaseClient::new(to.clone()),
                    key: format!("{prefix}{member}/{number}"),
                    lease: rand::random_range(1..=i64::MAX),
                    by: *by,
                    steps: 0,
                };
                let (stopping, count) = (stopping.clone(), count.clone());
                running.spawn(async move {
                    while !*stopping.borrow() {
                        let step = writer.step().await;
                        step.with_context(|| format!("{:?} of {}", writer.by, writer.key))?;
                        count.send_modify(|count| *count += 1);
                    }
                    let version = writer.version();
                    Ok((writer.key, version))
                });
            }
        }
        Ok(Self {
            running,
            answered,
            stop,
        })
    }

    /// Waits for more answers than there are writers: one of them is to a write that began only now.
    pub(super) async fn go_on(&mut self) -> Result<()> {
        let enough = *self.answered.borrow() + self.running.len() + 1;
        let answers = self.answered.wait_for(|count| *count >= enough);
        tokio::select! {
            waited = timeout(SEEN_WITHIN, answers) => {
                waited.context("the writers do not go on")??;
                Ok(())
            }
            Some(ended) = self.running.join_next() => bail!("a writer has ended: {:?}", ended?),
        }
    }

    /// Ends them, and tells which version each key has.
    pub(super) async fn stop(mut self) -> Result<BTreeMap<String, i64>> {
        self.stop.send_replace(true);
        let mut written = BTreeMap::new();
        while let Some(ended) = self.running.join_next().await {
            written.extend([ended??]);
        }
        Ok(written)
    }
}
