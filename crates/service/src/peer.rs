//! Calls between members: who may call, the links to others, and the service for others.

mod answer;
mod link;
pub(crate) mod stranger;

use std::sync::Arc;

use tally_listener::Served;
use tally_model::{ClusterId, MemberId};
use tally_proto::peer::peer_server::PeerServer;
use tokio::net::TcpListener;
use tonic::Status;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::service::Routes;

use crate::fault;
use crate::member::Member;
use crate::ports::{Ports, peer_bounds};

pub(crate) use link::PeerTransport;

/// Largest message between members, bytes: a batch of the largest entries, or a chunk of a snapshot.
const MESSAGE_BYTES_MAX: usize = 32 << 20;

const CLUSTER: &str = "tally-cluster-id";
const FROM: &str = "tally-from";
const TO: &str = "tally-to";

/// Who calls whom, in the metadata of every call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) cluster: ClusterId,
    pub(crate) from: MemberId,
    pub(crate) to: MemberId,
}

impl Envelope {
    /// Adds the envelope to a call.
    fn seal(&self, metadata: &mut MetadataMap) {
        let mut put = |key: &'static str, text: String| {
            // Hexadecimal digits are always a valid value.
            if let Ok(value) = MetadataValue::<Ascii>::try_from(text) {
                metadata.insert(key, value);
            }
        };
        put(CLUSTER, format!("{:032x}", self.cluster.0));
        put(FROM, format!("{:016x}", self.from.0));
        put(TO, format!("{:016x}", self.to.0));
    }

    fn open(metadata: &MetadataMap) -> Option<Self> {
        let field = |key| {
            let text = metadata.get(key)?.to_str().ok()?;
            u128::from_str_radix(text, 16).ok()
        };
        Some(Self {
            cluster: ClusterId(field(CLUSTER)?),
            from: MemberId(field(FROM)?.try_into().ok()?),
            to: MemberId(field(TO)?.try_into().ok()?),
        })
    }

    /// Refuses what is not meant for this member of this cluster.
    fn check(
        metadata: &MetadataMap,
        cluster: Option<ClusterId>,
        member: MemberId,
    ) -> Result<Self, Status> {
        let refuse = |found: String| Err(fault::wrong_peer(found));
        let Some(envelope) = Self::open(metadata) else {
            return refuse(
                "the call does not say which cluster and members it is between".to_owned(),
            );
        };
        if cluster != Some(envelope.cluster) {
            let mine = cluster.map_or("no cluster yet".to_owned(), |id| format!("cluster {id}"));
            return refuse(format!(
                "the call is for cluster {}, this is {mine}",
                envelope.cluster
            ));
        }
        if envelope.to != member {
            return refuse(format!(
                "the call is for member {}, this is {member}",
                envelope.to
            ));
        }
        if envelope.from == member || envelope.from.0 == 0 {
            return refuse(format!(
                "the call says that it comes from member {}",
                envelope.from
            ));
        }
        Ok(envelope)
    }
}

/// Serves other members until the server ends.
pub(crate) async fn serve(
    member: Arc<Member>,
    listener: TcpListener,
    ports: Ports,
) -> Result<(), String> {
    let ended = member.ending.ended.clone();
    let port = ports.peer(&member.metrics);
    let service = PeerServer::new(answer::PeerAnswers { member })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let router = Routes::new(service).into_axum_router();
    let bounds = peer_bounds(link::KEEP_ALIVE_EVERY, link::KEEP_ALIVE_TIMEOUT);
    let served = Served {
        router,
        ..Served::default()
    };
    tally_listener::serve(listener, port, served, bounds, ended).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const ENVELOPE: Envelope = Envelope {
        cluster: ClusterId(7),
        from: MemberId(1),
        to: MemberId(2),
    };

    fn sealed(envelope: Envelope) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        envelope.seal(&mut metadata);
        metadata
    }

    #[test]
    fn a_call_for_this_member_is_let_in() {
        let metadata = sealed(ENVELOPE);
        let opened = Envelope::check(&metadata, Some(ClusterId(7)), MemberId(2));
        assert_eq!(opened.unwrap(), ENVELOPE);
    }

    #[test]
    fn a_call_for_anyone_else_is_refused() {
        let refused = |metadata: &MetadataMap, cluster: Option<u128>, member| {
            let status = Envelope::check(metadata, cluster.map(ClusterId), MemberId(member));
            let status = status.unwrap_err();
            assert_eq!(tally_proto::fault::read(&status).unwrap().code, "T-009");
            status.message().to_owned()
        };
        let metadata = sealed(ENVELOPE);
        assert!(refused(&metadata, Some(8), 2).contains("cluster"));
        assert!(refused(&metadata, None, 2).contains("no cluster yet"));
        assert!(refused(&metadata, Some(7), 3).contains("member"));
        assert!(refused(&MetadataMap::new(), Some(7), 2).contains("does not say"));
        let from_itself = Envelope {
            from: MemberId(2),
            ..ENVELOPE
        };
        assert!(refused(&sealed(from_itself), Some(7), 2).contains("comes from"));
    }
}
