//! `etcdserverpb.Lease`.

use std::sync::Arc;
use std::time::Instant;

use futures::future::ready;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use sha2::{Digest, Sha256};
use tally_consensus::{Consistency, Replica};
use tally_model::lease::{GrantLease, LEASE_TTL_S_MAX};
use tally_model::{
    Command, Effect, Lease as Held, LeaseId, Outcome, Refusal, Request as Proposal, Tag, View,
};
use tally_proto::etcd::lease_server::Lease;
use tally_proto::etcd::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use tally_storage::StateView;
use tonic::{Request, Response, Status, Streaming};

use super::end::End;
use super::holders::Holders;
use super::writer::Writer;
use super::{header, rpctypes, tag};
use crate::deadline;
use crate::member::Member;

/// Signs of life of one stream that are under way at a time.
const RENEWED_AT_ONCE: usize = 64;

/// Leases in one answer.
const LISTED_MAX: usize = 1_000_000;

pub(super) struct LeaseAnswers {
    member: Arc<Member>,
    writer: Arc<Writer>,
    holders: Holders,
}

impl LeaseAnswers {
    pub(super) fn new(member: Arc<Member>, writer: Arc<Writer>, holders: Holders) -> Self {
        Self {
            member,
            writer,
            holders,
        }
    }

    /// Reads from a state that has every lease that was granted.
    async fn read<T: Send + 'static>(
        &self,
        deadline: Instant,
        rows: Rows,
        look: impl FnOnce(&StateView<'_>) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let replica = self.writer.replica()?;
        let reader = replica.read(Consistency::Linearizable, deadline);
        let reader = self.member.ending.unless_refusing(reader).await;
        let reader = reader.ok_or_else(rpctypes::stopped)?;
        let reader = reader.map_err(|error| rpctypes::read(&error))?;
        let look = move || reader.with_view(look);
        let looked = match rows {
            Rows::One => look(),
            Rows::Many => self.holders.look(deadline, look).await?.0,
        };
        looked.map_err(|_| rpctypes::stopped())
    }
}

/// How many rows are read.
enum Rows {
    One,
    /// They take their time, and others must go on meanwhile.
    Many,
}

/// Shows a sign of life of a lease; an answer with a time to live of 0 says that there is none.
async fn renew(
    member: &Member,
    replica: &Replica,
    asked: LeaseKeepAliveRequest,
) -> Result<LeaseKeepAliveResponse, Status> {
    let begun = Instant::now();
    let renewing = Proposal {
        tagged: None,
        command: Command::RenewLease(LeaseId(asked.id)),
    };
    let proposed = replica.propose(renewing, deadline::usual());
    let answer = async {
        let answer = member.ending.unless_refusing(proposed).await;
        let answer = answer.ok_or_else(rpctypes::stopped)?;
        let answer = answer.map_err(|error| rpctypes::propose(&error))?;
        let ttl = match answer.outcome {
            Outcome::Applied {
                effect: Effect::LeaseRenewed { ttl_s, .. },
                ..
            } => i64::try_from(ttl_s).unwrap_or(i64::MAX),
            Outcome::Refused(Refusal::LeaseNotFound { .. }) => 0,
            Outcome::Refused(refusal) => return Err(rpctypes::refusal(&refusal)),
            Outcome::Applied { .. } | Outcome::Replayed { .. } => return Err(rpctypes::stopped()),
        };
        Ok(LeaseKeepAliveResponse {
            header: Some(header(member, answer.revision)),
            id: asked.id,
            ttl,
        })
    };
    let answer = answer.await;
    member
        .metrics
        .request("Lease.LeaseKeepAlive", &answer, begun);
    answer
}

/// Whole seconds, as etcd tells them: what is more is left out.
fn seconds(ms: u64) -> i64 {
    i64::try_from(ms / 1_000).unwrap_or(i64::MAX)
}

/// An id for a lease whose requester leaves it to the cluster: the same whenever the request is sent
/// again, since it is a part of what is asked.
fn drawn_from(tag: Tag) -> i64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&tag.session.0.to_be_bytes());
    bytes[8..].copy_from_slice(&tag.sequence.to_be_bytes());
    let [first, ..] = *Sha256::digest(bytes).as_chunks::<8>().0 else {
        return 1;
    };
    // As etcd does, a positive number.
    (i64::from_be_bytes(first) & i64::MAX).max(1)
}

#[tonic::async_trait]
impl Lease for LeaseAnswers {
    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let (metadata, _, ask) = request.into_parts();
        let ttl_s = u64::try_from(ask.ttl).unwrap_or(0);
        let given = tag::given(&metadata)?;
        let lease = LeaseId(match (ask.id, given) {
            (0, None) => rand::random_range(1..=i64::MAX),
            (0, Some(given)) => drawn_from(given.tag),
            (id, _) => id,
        });
        let command = match ttl_s > LEASE_TTL_S_MAX {
            true => Err(rpctypes::ttl_too_large()),
            false => Ok(Command::GrantLease(GrantLease { lease, ttl_s })),
        };
        let done = self
            .writer
            .write("Lease.LeaseGrant", &metadata, command)
            .await?;
        let (id, ttl) = match done.effect {
            Effect::LeaseGranted { lease, ttl_s } => (lease.0, ttl_s),
            _ => (0, 0),
        };
        let granted = LeaseGrantResponse {
            header: Some(header(&self.member, done.revision)),
            id,
            ttl: i64::try_from(ttl).unwrap_or(i64::MAX),
            error: String::new(),
        };
        Ok(done.response(granted))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let (metadata, _, ask) = request.into_parts();
        let command = Ok(Command::RevokeLease(LeaseId(ask.id)));
        let done = self
            .writer
            .write("Lease.LeaseRevoke", &metadata, command)
            .await?;
        let revoked = LeaseRevokeResponse {
            header: Some(header(&self.member, done.revision)),
        };
        Ok(done.response(revoked))
    }

    type LeaseKeepAliveStream = BoxStream<'static, Result<LeaseKeepAliveResponse, Status>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let replica = self.writer.replica()?;
        let member = self.member.clone();
        let end = End::of_stream(member.clone(), replica.clone(), request.metadata())?;
        let renewals = request.into_inner().map(move |asked| {
            let (member, replica) = (member.clone(), replica.clone());
            async move {
                let asked = asked.map_err(rpctypes::unreadable)?;
                renew(&member, &replica, asked).await
            }
        });
        let renewed = renewals.buffered(RENEWED_AT_ONCE).map(Some);
        // When the client is done, so is the stream; an end of another kind is told, after which nothing is sent.
        let renewed = renewed.chain(stream::once(ready(None)));
        let ended = stream::once(end.reason()).map(|why| Some(Err(why)));
        let answers = stream::select(renewed, ended);
        let answers = answers.take_while(|answer| ready(answer.is_some()));
        Ok(Response::new(answers.filter_map(ready).boxed()))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let begun = Instant::now();
        let (metadata, _, ask) = request.into_parts();
        let id = LeaseId(ask.id);
        let rows = match ask.keys {
            true => Rows::Many,
            false => Rows::One,
        };
        let found = self.read(deadline::of(&metadata), rows, move |view| {
            let keys = || match ask.keys {
                true => view.lease_keys(id),
                false => Vec::new(),
            };
            let globals = view.globals();
            let held = view.lease(id).map(|held| (held, keys()));
            (globals.revision, globals.lease_clock_ms, held)
        });
        let found = found.await;
        self.member
            .metrics
            .request("Lease.LeaseTimeToLive", &found, begun);
        let (revision, now_ms, held) = found?;
        let header = Some(header(&self.member, revision));
        let Some((held, keys)) = held else {
            return Ok(Response::new(LeaseTimeToLiveResponse {
                header,
                id: ask.id,
                ttl: -1,
                ..Default::default()
            }));
        };
        Ok(Response::new(LeaseTimeToLiveResponse {
            header,
            id: ask.id,
            ttl: seconds(held.left_ms(now_ms)),
            granted_ttl: i64::try_from(held.ttl_s).unwrap_or(i64::MAX),
            keys: keys.into_iter().map(Into::into).collect(),
        }))
    }

    async fn lease_leases(
        &self,
        request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let begun = Instant::now();
        let deadline = deadline::of(request.metadata());
        let found = self.read(deadline, Rows::Many, |view| {
            let mut leases = view.leases_after(None, LISTED_MAX);
            leases.sort_unstable_by_key(|lease| (lease.ends_ms, lease.id));
            (view.revision(), leases)
        });
        let found = found.await;
        self.member
            .metrics
            .request("Lease.LeaseLeases", &found, begun);
        let (revision, leases) = found?;
        let leases = leases
            .into_iter()
            .map(|Held { id, .. }| LeaseStatus { id: id.0 });
        Ok(Response::new(LeaseLeasesResponse {
            header: Some(header(&self.member, revision)),
            leases: leases.collect(),
        }))
    }
}
