//! All keys of a load, read at once: what is found is what there was at one revision.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tally_proto::etcd::RangeRequest;
use tally_proto::etcd::kv_client::KvClient;
use tokio::sync::watch;
use tonic::transport::Channel;

use super::ask::{found, lawful, request};
use super::{Found, KeyRecord};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// What one look found.
#[derive(Clone, Debug)]
pub struct KeySnapshot {
    /// What the keys begin with.
    pub prefix: String,
    /// What the asked member had applied was enough.
    pub serializable: bool,
    pub invoked: Instant,
    pub answered: Instant,
    /// Of the answer's header.
    pub revision: i64,
    pub keys: BTreeMap<String, Found>,
}

/// Looks again and again, through each member in turn, at the latest state and at what the member has applied.
pub(super) async fn look(
    members: Vec<Channel>,
    prefix: String,
    stopping: watch::Receiver<bool>,
) -> Result<KeyRecord> {
    let mut record = KeyRecord::default();
    let mut end = prefix.clone().into_bytes();
    *end.last_mut().context("an empty prefix")? += 1;
    let way = |serializable| {
        members
            .iter()
            .map(move |member| (serializable, member.clone()))
    };
    let turns: Vec<(bool, Channel)> = way(true).chain(way(false)).collect();
    for (serializable, member) in turns.into_iter().cycle() {
        if *stopping.borrow() {
            break;
        }
        let invoked = Instant::now();
        let ask = RangeRequest {
            key: prefix.clone().into(),
            range_end: end.clone().into(),
            serializable,
            ..Default::default()
        };
        match KvClient::new(member.clone())
            .range(request(ask, None)?)
            .await
        {
            Ok(answer) => {
                let answer = answer.into_inner();
                let keys = answer.kvs.iter().map(|pair| {
                    let key = String::from_utf8(pair.key.to_vec())?;
                    Ok((key, found(pair)?))
                });
                record.snapshots.push(KeySnapshot {
                    prefix: prefix.clone(),
                    serializable,
                    invoked,
                    answered: Instant::now(),
                    revision: answer.header.context("no header")?.revision,
                    keys: keys.collect::<Result<_>>()?,
                });
            }
            Err(status) => lawful(&status)?,
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(record)
}
