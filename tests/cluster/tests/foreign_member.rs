//! A member of another cluster, or one that means another receiver, calls the port for members: each call
//! is refused, says why, and changes nothing.

use anyhow::{Context, Result, ensure};
use tally_proto::peer::peer_client::PeerClient;
use tally_proto::{fault, peer, storage};
use tally_testkit::{Cluster, Requester, channel};
use tonic::codegen::tokio_stream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

/// Far above any term here: who took it would step down.
const TERM: u64 = 1_000_000;

/// Between which members of which cluster a call says that it is.
#[derive(Clone, Debug)]
struct Envelope {
    cluster: Vec<u8>,
    from: u64,
    to: u64,
}

impl Envelope {
    fn seal<T>(&self, message: T) -> Result<Request<T>> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        let mut put = |key: &'static str, text: String| -> Result<()> {
            metadata.insert(key, text.parse()?);
            Ok(())
        };
        put("tally-cluster-id", hex(&self.cluster))?;
        put("tally-from", format!("{:016x}", self.from))?;
        put("tally-to", format!("{:016x}", self.to))?;
        Ok(request)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Everything that a member may ask of another one, but who it is, and what was answered.
async fn ask_everything(to: &Channel, sealed: &Envelope) -> Result<Vec<(&'static str, Status)>> {
    let mut client = PeerClient::new(to.clone());
    let vote = storage::Vote {
        term: TERM,
        candidate: sealed.from,
        committed: true,
    };
    let last_log = storage::LogId {
        term: TERM,
        leader: sealed.from,
        index: 1 << 40,
    };
    let asked_to_vote = peer::VoteRequest {
        vote: Some(vote),
        last_log: Some(last_log),
        leadership_transfer: true,
    };
    let append = peer::AppendRequest {
        vote: Some(vote),
        ..peer::AppendRequest::default()
    };
    let transfer = peer::TransferLeaderRequest {
        from: Some(vote),
        to: sealed.to,
        last_log: Some(last_log),
    };
    let header = peer::snapshot_frame::Kind::Header(peer::SnapshotHeader {
        vote: Some(vote),
        meta: None,
    });
    let snapshot = peer::SnapshotFrame { kind: Some(header) };
    let forward = peer::ForwardRequest::default();
    let answers = [
        ("Vote", not(client.vote(sealed.seal(asked_to_vote)?).await)),
        (
            "PreVote",
            not(client.pre_vote(sealed.seal(asked_to_vote)?).await),
        ),
        (
            "Append",
            not(client
                .append(sealed.seal(tokio_stream::once(append))?)
                .await),
        ),
        (
            "TransferLeader",
            not(client.transfer_leader(sealed.seal(transfer)?).await),
        ),
        (
            "InstallSnapshot",
            not(client
                .install_snapshot(sealed.seal(tokio_stream::once(snapshot))?)
                .await),
        ),
        (
            "Forward",
            not(client
                .forward(sealed.seal(tokio_stream::once(forward))?)
                .await),
        ),
        (
            "ReadIndex",
            not(client
                .read_index(sealed.seal(peer::ReadIndexRequest {})?)
                .await),
        ),
        (
            "StateHashes",
            not(client
                .state_hashes(sealed.seal(peer::StateHashesRequest {})?)
                .await),
        ),
    ];
    let answers = answers.into_iter().map(|(what, answer)| {
        let status = answer.with_context(|| format!("{what} was answered: {sealed:?}"))?;
        Ok((what, status))
    });
    answers.collect()
}

fn not<T>(answered: Result<Response<T>, Status>) -> Option<Status> {
    answered.err()
}

fn refused(what: &str, status: &Status, found: &[&str]) -> Result<()> {
    let fault = fault::read(status).with_context(|| format!("{what}: no code in {status:?}"))?;
    ensure!(fault.code == "T-009", "{what}: {fault:?}");
    for part in found {
        ensure!(
            fault.found.contains(part),
            "{what}: {fault:?} lacks {part:?}"
        );
    }
    ensure!(
        fault.next.contains("--initial-cluster"),
        "{what}: {fault:?}"
    );
    Ok(())
}

/// What must not change: who leads in which term, what is in the log and in the state, who each member is.
async fn standing(cluster: &Cluster) -> Result<Vec<(u64, u64, u64, Vec<u8>, Vec<u8>)>> {
    cluster.state_hashes_agree().await?;
    let mut standing = Vec::new();
    for name in cluster.names() {
        let status = cluster.status(&name).await?;
        let identity = cluster.member(&name)?.data_dir().join("IDENTITY");
        standing.push((
            status.term,
            status.leader,
            status.last_log_index,
            status.state_hash,
            std::fs::read(identity)?,
        ));
    }
    Ok(standing)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_another_clusters_member_are_refused_and_change_nothing() -> Result<()> {
    let (ours, theirs) = (Cluster::start(3).await?, Cluster::start(1).await?);
    let address = ours.address("n1")?;
    let mut requester = Requester::open(&address).await?;
    requester.register(&address, "ls1").await?;
    let leader = ours.leader().await?;
    let follower = ours.followers().await?.remove(0);
    let stranger = theirs.status("n1").await?;
    let before = (standing(&ours).await?, standing(&theirs).await?);

    for name in [&leader, &follower] {
        let own = ours.status(name).await?;
        let to = channel(&ours.member(name)?.peer_address()).await?;
        let (mine, foreign) = (hex(&own.cluster_id), hex(&stranger.cluster_id));
        let from_theirs = Envelope {
            cluster: stranger.cluster_id.clone(),
            from: stranger.member,
            to: own.member,
        };
        for (what, status) in ask_everything(&to, &from_theirs).await? {
            refused(what, &status, &[&mine, &foreign])?;
        }
        // As after an exchange of data directories or addresses: the cluster is right, the member is not.
        let for_another = Envelope {
            cluster: own.cluster_id.clone(),
            to: stranger.member,
            ..from_theirs.clone()
        };
        let other = format!("{:x}", stranger.member);
        for (what, status) in ask_everything(&to, &for_another).await? {
            refused(what, &status, &[&other])?;
        }
        let join = peer::JoinRequest {
            cluster_id: stranger.cluster_id.clone(),
            formation: Vec::new(),
            to: own.member,
            from: stranger.member,
        };
        let other_formation = peer::JoinRequest {
            cluster_id: own.cluster_id.clone(),
            formation: vec![7; 32],
            ..join.clone()
        };
        let joins = [
            (join, vec![mine.as_str(), &foreign]),
            (other_formation, vec!["another --initial-cluster"]),
        ];
        for (join, found) in joins {
            let asked = PeerClient::new(to.clone()).join(join).await;
            let status = asked.err().context("it joined")?;
            refused("Join", &status, &found)?;
        }
    }
    assert_eq!(standing(&ours).await?, before.0);
    assert_eq!(standing(&theirs).await?, before.1);
    requester.register(&address, "ls2").await?;
    theirs.stop().await?;
    ours.stop().await
}
