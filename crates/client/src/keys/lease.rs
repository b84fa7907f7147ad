//! Leases: keys that end unless someone shows signs of life.

use bytes::Bytes;
use tally_model::LeaseId;
use tally_proto::etcd;

use super::ask::Renewal;
use super::{KeyError, Keys, Written};
use crate::client::read_with;

/// A lease as it was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// Seconds that it lives from each sign of life on.
    pub ttl_s: u64,
}

/// A lease and how long it still lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseLeft {
    /// Which one.
    pub lease: Lease,
    /// Seconds, rounded down.
    pub left_s: u64,
    /// The keys that end with it.
    pub keys: Vec<Bytes>,
}

impl Keys {
    /// Grants a lease for so many seconds; the cluster raises what is below its least. The id is drawn
    /// here, so that the request can be sent again.
    ///
    /// # Errors
    /// When there was no answer, or there are too many leases; see [`KeyError`].
    pub async fn grant_lease(&self, ttl_s: u64) -> Result<Written<Lease>, KeyError> {
        let ask = etcd::LeaseGrantRequest {
            ttl: i64::try_from(ttl_s).unwrap_or(i64::MAX),
            id: rand::random_range(1..=i64::MAX),
        };
        self.write(ask).await
    }

    /// Ends a lease, and deletes its keys in one revision.
    ///
    /// # Errors
    /// [`KeyError::LeaseNotFound`], and when there was no answer.
    pub async fn revoke_lease(&self, lease: LeaseId) -> Result<Written<()>, KeyError> {
        self.write(etcd::LeaseRevokeRequest { id: lease.0 }).await
    }

    /// Shows one sign of life; gives the seconds that the lease lives from now on. Do it every third of
    /// them.
    ///
    /// # Errors
    /// [`KeyError::LeaseNotFound`], and when there was no answer.
    pub async fn keep_lease_alive(&self, lease: LeaseId) -> Result<u64, KeyError> {
        let mut attempts = self.client.attempts();
        let ttl_s = read_with(&mut attempts, &Renewal(lease)).await?;
        ttl_s.ok_or(KeyError::LeaseNotFound)
    }

    /// How long a lease still lives, and its keys; `None` when there is none.
    ///
    /// # Errors
    /// When there was no answer, see [`KeyError`].
    pub async fn lease(&self, lease: LeaseId) -> Result<Option<LeaseLeft>, KeyError> {
        let ask = etcd::LeaseTimeToLiveRequest {
            id: lease.0,
            keys: true,
        };
        Ok(self.read(ask).await?.answer)
    }

    /// Every lease, in the order of ids.
    ///
    /// # Errors
    /// When there was no answer, see [`KeyError`].
    pub async fn leases(&self) -> Result<Vec<LeaseId>, KeyError> {
        Ok(self.read(etcd::LeaseLeasesRequest {}).await?.answer)
    }
}
