//! Calls to members that are not known yet: who are you, and join.

use std::time::Duration;

use tally_proto::fault;
use tally_proto::peer::peer_client::PeerClient;
use tally_proto::peer::{IdentifyRequest, IdentifyResponse, JoinRequest};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// One question, connecting included.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Joining waits for an fsync on the other side, and for its replica.
const JOIN_WITHIN: Duration = Duration::from_secs(10);

fn unreached(error: tonic::transport::Error) -> String {
    fault::with_causes(error.to_string(), &error)
}

async fn connect(address: &str) -> Result<PeerClient<Channel>, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(unreached)?;
    let endpoint = endpoint.connect_timeout(ANSWER_WITHIN).tcp_nodelay(true);
    Ok(PeerClient::new(
        endpoint.connect().await.map_err(unreached)?,
    ))
}

fn refusal(status: Status) -> String {
    status.message().to_owned()
}

/// Who listens at an address?
pub(crate) async fn identify(address: &str) -> Result<IdentifyResponse, String> {
    let asked = async {
        let mut client = connect(address).await?;
        let answer = client.identify(Request::new(IdentifyRequest {})).await;
        answer.map(tonic::Response::into_inner).map_err(refusal)
    };
    let late = |_| "no answer in time".to_owned();
    tokio::time::timeout(ANSWER_WITHIN, asked)
        .await
        .map_err(late)?
}

/// Gives a member its cluster.
pub(crate) async fn join(address: &str, ask: JoinRequest) -> Result<(), String> {
    let asked = async {
        let answer = connect(address).await?.join(Request::new(ask)).await;
        answer.map(|_| ()).map_err(refusal)
    };
    let late = |_| "no answer in time".to_owned();
    tokio::time::timeout(JOIN_WITHIN, asked)
        .await
        .map_err(late)?
}
