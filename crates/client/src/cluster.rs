//! The cluster itself: status of every member, leader transfer, snapshots, replacing a member.

use std::collections::{BTreeMap, BTreeSet};

use tally_model::ClusterId;
use tally_proto::v1;
use tokio::task::JoinSet;

use crate::call::Call;
use crate::client::{Client, read_with};
use crate::connection::{Connection, ENDPOINTS_MAX, normal};
use crate::error::Error;
use crate::retry::{Attempts, Failure, GaveUp, OnDoubt, attempt};

/// What one member says of itself, or why it says nothing.
#[derive(Debug)]
pub struct MemberStatus {
    /// `http://HOST:PORT`.
    pub endpoint: String,
    /// Its name, from itself or from another member; `None` when nobody told.
    pub name: Option<String>,
    /// Its answer.
    pub status: Result<v1::StatusResponse, Error>,
}

impl Client {
    /// What one member knows. Asks it once.
    ///
    /// # Errors
    /// When it does not answer within the bound of an attempt.
    pub async fn status(&self, endpoint: &str) -> Result<v1::StatusResponse, Error> {
        let connection = self.pool.find_or_open(endpoint)?;
        let within = self.attempt_max.min(self.deadline);
        match attempt(&connection, &v1::StatusRequest {}, within).await {
            Ok(status) => Ok(status),
            Err(failure) => Err(of_one(&connection, failure)),
        }
    }

    /// What every member knows: all endpoints, and all members found through them, asked at the same
    /// time, each once. In the order of names, those without a name last.
    pub async fn statuses(&self) -> Vec<MemberStatus> {
        let mut asked = BTreeSet::new();
        let mut names = BTreeMap::new();
        let mut asking = JoinSet::new();
        let mut ask = |endpoint: String, asking: &mut JoinSet<_>| {
            if asked.len() < ENDPOINTS_MAX && asked.insert(endpoint.clone()) {
                let client = self.clone();
                asking.spawn(async move {
                    let status = client.status(&endpoint).await;
                    (endpoint, status)
                });
            }
        };
        for endpoint in self.endpoints() {
            ask(endpoint, &mut asking);
        }
        let mut found = Vec::new();
        while let Some(joined) = asking.join_next().await {
            let Ok((endpoint, status)) = joined else {
                continue;
            };
            for member in status.iter().flat_map(|status| &status.members) {
                if !member.client_address.is_empty() {
                    let endpoint = normal(&member.client_address);
                    names.insert(endpoint.clone(), member.name.clone());
                    ask(endpoint, &mut asking);
                }
            }
            found.push((endpoint, status));
        }
        each_once(found, &names)
    }

    /// The cluster's id, from the first member that knows it.
    pub(crate) async fn cluster_id(&self) -> Result<ClusterId, Error> {
        let mut attempts = self.attempts();
        loop {
            let status = read_with(&mut attempts, &v1::StatusRequest {}).await?;
            match <[u8; 16]>::try_from(status.cluster_id.as_slice()) {
                Ok(id) => return Ok(ClusterId(u128::from_be_bytes(id))),
                Err(_) => {
                    let found = format!("{} belongs to no cluster yet", status.name);
                    attempts.answered_without_outcome(found).await;
                }
            }
        }
    }

    /// Moves leadership to a member, or to whom the leader chooses when `to` is `None`.
    ///
    /// # Errors
    /// [`Error::Rejected`] when it did not move, [`Error::Unclear`] when the answer was lost.
    pub async fn transfer_leader(
        &self,
        to: Option<&str>,
    ) -> Result<v1::TransferLeaderResponse, Error> {
        let ask = v1::TransferLeaderRequest {
            to: to.unwrap_or_default().to_owned(),
        };
        self.untagged("the transfer of leadership", &ask).await
    }

    /// Takes a snapshot on one member and waits, at most for the deadline, until it is on disk.
    ///
    /// # Errors
    /// When the member does not answer or cannot. A snapshot may be asked for again at any time.
    pub async fn snapshot(&self, endpoint: &str) -> Result<v1::SnapshotResponse, Error> {
        let connection = self.pool.find_or_open(endpoint)?;
        match attempt(&connection, &v1::SnapshotRequest {}, self.deadline).await {
            Ok(snapshot) => Ok(snapshot),
            Err(failure) => Err(of_one(&connection, failure)),
        }
    }

    /// Removes the identity that has this name and admits the one that now runs under it. Waits, at
    /// most for the deadline, until the new member votes.
    ///
    /// # Errors
    /// [`Error::Rejected`] when it cannot be, [`Error::Unclear`] when the answer was lost.
    pub async fn replace_member(&self, name: &str) -> Result<v1::ReplaceMemberResponse, Error> {
        let ask = v1::ReplaceMemberRequest {
            name: name.to_owned(),
        };
        self.untagged("the replacement of a member", &ask).await
    }

    /// Sends what carries no tag: again after failures that are certain to have changed nothing, and
    /// never after another.
    async fn untagged<C: Call>(&self, what: &'static str, ask: &C) -> Result<C::Answer, Error> {
        let mut attempts = Attempts::new(&self.pool, self.deadline, self.deadline);
        match attempts.until_answered(ask, OnDoubt::Stop).await {
            Ok(answer) => Ok(answer),
            Err(GaveUp::Deadline) => Err(attempts.not_applied()),
            Err(GaveUp::Rejected(fault)) => Err(Error::rejected(fault)),
            Err(GaveUp::InDoubt(last)) => Err(Error::Unclear { call: what, last }),
        }
    }
}

fn of_one(connection: &Connection, failure: Failure) -> Error {
    match failure {
        Failure::Rejected(fault) | Failure::WrongPort(fault) | Failure::NotAppended(fault) => {
            Error::rejected(fault)
        }
        Failure::NotSent(last) | Failure::InDoubt(last) => Error::Unreachable {
            endpoints: vec![connection.url().to_owned()],
            last,
        },
    }
}

/// One row for each member: endpoints that lead to the same one are told apart by its id.
fn each_once(
    found: Vec<(String, Result<v1::StatusResponse, Error>)>,
    names: &BTreeMap<String, String>,
) -> Vec<MemberStatus> {
    let mut seen = BTreeSet::new();
    let mut members: Vec<MemberStatus> = Vec::new();
    for (endpoint, status) in found {
        let id = status.as_ref().ok().map(|status| status.member);
        if id.is_some_and(|id| id != 0 && !seen.insert(id)) {
            continue;
        }
        let own = status.as_ref().ok().map(|status| status.name.clone());
        let own = own.filter(|name| !name.is_empty());
        let name = own.or_else(|| names.get(&endpoint).cloned());
        members.push(MemberStatus {
            endpoint,
            name,
            status,
        });
    }
    members.sort_by(|a, b| {
        let key = |m: &MemberStatus| (m.name.is_none(), m.name.clone(), m.endpoint.clone());
        key(a).cmp(&key(b))
    });
    members
}
