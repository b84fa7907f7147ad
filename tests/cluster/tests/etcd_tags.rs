//! Every write of the etcd API that may have a tag, sent again to another member: it is told again what came of it
//! the first time, and nothing more comes of it.

use std::fmt::Debug;

use anyhow::{Context, Result, ensure};
use tally_proto::etcd::kv_client::KvClient;
use tally_proto::etcd::lease_client::LeaseClient;
use tally_proto::etcd::request_op::Request as Op;
use tally_proto::etcd::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseLeasesRequest,
    LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader, TxnRequest,
};
use tally_proto::v1;
use tally_testkit::keys::{outcome, tag_request};
use tally_testkit::{Cluster, Requester, channel};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

/// Sends a request to one member after the other under one tag. Gives the answer, of which only who gave it may
/// differ.
async fn sent_twice<M: Clone, A: Debug + PartialEq>(
    members: &[Channel; 2],
    requester: &mut Requester,
    message: M,
    call: impl AsyncFn(Channel, Request<M>) -> Result<Response<A>, Status>,
    header: fn(&mut A) -> &mut Option<ResponseHeader>,
) -> Result<A> {
    let tag = requester.next_tag();
    let mut answers = Vec::new();
    for (member, expected) in members.iter().zip(["applied", "replayed"]) {
        let mut request = Request::new(message.clone());
        tag_request(&mut request, &tag)?;
        let answer = call(member.clone(), request).await?;
        answers.push(as_from_any(answer, expected, header)?);
    }
    ensure!(answers[0] == answers[1], "{answers:?}");
    answers.pop().context("no answer")
}

/// An answer without who gave it, which must say this of its tag.
fn as_from_any<A: Debug>(
    answer: Response<A>,
    expected: &str,
    header: fn(&mut A) -> &mut Option<ResponseHeader>,
) -> Result<A> {
    ensure!(
        outcome(answer.metadata()) == Some(expected),
        "not {expected}: {answer:?}"
    );
    let mut answer = answer.into_inner();
    let header = header(&mut answer).as_mut().context("no header")?;
    (header.member_id, header.raft_term) = (0, 0);
    Ok(answer)
}

fn put(key: &str, lease: i64) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        value: "x".into(),
        lease,
        prev_kv: true,
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_sent_twice_under_a_tag_is_done_once() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let (leader, follower) = (
        cluster.leader().await?,
        cluster.followers().await?.remove(0),
    );
    let members = [
        channel(&cluster.address(&leader)?).await?,
        channel(&cluster.address(&follower)?).await?,
    ];
    let mut requester = Requester::open(&cluster.address(&leader)?).await?;
    let requester = &mut requester;

    let grant = LeaseGrantRequest { ttl: 600, id: 0 };
    let call = async |to, ask| LeaseClient::new(to).lease_grant(ask).await;
    let granted = sent_twice(&members, requester, grant, call, |answer| {
        &mut answer.header
    });
    let lease = granted.await?.id;
    ensure!(lease > 0, "a lease {lease}");

    let call = async |to, ask| KvClient::new(to).put(ask).await;
    let first = sent_twice(&members, requester, put("a", lease), call, |answer| {
        &mut answer.header
    });
    let first = first.await?;
    ensure!(first.prev_kv.is_none(), "{first:?}");
    let first = first.header.context("no header")?.revision;

    let both = TxnRequest {
        success: ["a", "b"]
            .map(|key| RequestOp {
                request: Some(Op::RequestPut(put(key, lease))),
            })
            .into(),
        ..Default::default()
    };
    let call = async |to, ask| KvClient::new(to).txn(ask).await;
    let done = sent_twice(&members, requester, both, call, |answer| &mut answer.header);
    ensure!(done.await?.succeeded);

    let delete = DeleteRangeRequest {
        key: "a".into(),
        prev_kv: true,
        ..Default::default()
    };
    let call = async |to, ask| KvClient::new(to).delete_range(ask).await;
    let gone = sent_twice(&members, requester, delete, call, |answer| {
        &mut answer.header
    });
    let gone = gone.await?;
    ensure!(
        gone.deleted == 1 && gone.prev_kvs[0].version == 2,
        "{gone:?}"
    );

    let revoke = LeaseRevokeRequest { id: lease };
    let call = async |to, ask| LeaseClient::new(to).lease_revoke(ask).await;
    let revoked = sent_twice(&members, requester, revoke, call, |answer| {
        &mut answer.header
    });
    let revoked = revoked.await?.header.context("no header")?.revision;

    // A second compaction to the same revision would be refused.
    let compaction = CompactionRequest {
        revision: revoked,
        physical: false,
    };
    let call = async |to, ask| KvClient::new(to).compact(ask).await;
    let compacted = sent_twice(&members, requester, compaction, call, |answer| {
        &mut answer.header
    });
    compacted.await?;

    // One revision for each of the four that changed keys, and nothing is left.
    let all = RangeRequest {
        key: "a".into(),
        range_end: "c".into(),
        ..Default::default()
    };
    let [_, member] = members;
    let now = KvClient::new(member).range(all).await?.into_inner();
    let revision = now.header.context("no header")?.revision;
    ensure!(
        now.count == 0 && revision == revoked && revision == first + 3,
        "r{first}, r{revoked}, {now:?}"
    );
    cluster.stop().await
}

/// Sends a request under a tag to the leader, kills it, and sends it again to another member, which answers as the first one
/// did.
async fn sent_again_to_the_next_leader<M: Clone, A: Debug + PartialEq>(
    cluster: &mut Cluster,
    message: M,
    call: impl AsyncFn(Channel, Request<M>) -> Result<Response<A>, Status>,
    header: fn(&mut A) -> &mut Option<ResponseHeader>,
) -> Result<A> {
    let (leader, mut followers) = cluster.leader_and_followers().await?;
    let next = cluster.address(&followers.remove(0))?;
    let mut requester = Requester::open(&next).await?;
    let tag = requester.next_tag();
    let mut answers = Vec::new();
    for (address, expected) in [(cluster.address(&leader)?, "applied"), (next, "replayed")] {
        let mut request = Request::new(message.clone());
        tag_request(&mut request, &tag)?;
        let answer = call(channel(&address).await?, request).await?;
        if expected == "applied" {
            cluster.kill(&leader)?;
        }
        answers.push(as_from_any(answer, expected, header)?);
    }
    ensure!(answers[0] == answers[1], "{answers:?}");
    cluster.restart(&leader).await?;
    answers.pop().context("no answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_granted_and_revoked_once_whoever_leads() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    let grant = LeaseGrantRequest { ttl: 600, id: 0 };
    let call = async |to, ask| LeaseClient::new(to).lease_grant(ask).await;
    let granted =
        sent_again_to_the_next_leader(&mut cluster, grant, call, |answer| &mut answer.header);
    let id = granted.await?.id;
    let held = async |cluster: &Cluster| {
        let leader = cluster.address(&cluster.leader().await?)?;
        let mut client = LeaseClient::new(channel(&leader).await?);
        let leases = client.lease_leases(LeaseLeasesRequest {}).await?;
        let leases = leases.into_inner().leases.into_iter();
        anyhow::Ok(leases.map(|lease| lease.id).collect::<Vec<_>>())
    };
    let leases = held(&cluster).await?;
    ensure!(leases == [id], "{leases:?} instead of {id}");
    let revoke = LeaseRevokeRequest { id };
    let call = async |to, ask| LeaseClient::new(to).lease_revoke(ask).await;
    sent_again_to_the_next_leader(&mut cluster, revoke, call, |answer| &mut answer.header).await?;
    let leases = held(&cluster).await?;
    ensure!(leases.is_empty(), "{leases:?}");
    cluster.stop().await
}

/// Puts under a tag with this metadata, and gives what the refusal says of it.
async fn refused(to: &Channel, metadata: &[(&'static str, String)]) -> Result<(Code, String)> {
    let mut request = Request::new(put("t", 0));
    for (name, value) in metadata {
        request.metadata_mut().insert(*name, value.parse()?);
    }
    let answer = KvClient::new(to.clone()).put(request).await;
    let status = answer
        .err()
        .with_context(|| format!("taken: {metadata:?}"))?;
    let code = status.message().split(':').next().unwrap_or_default();
    Ok((status.code(), code.to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tag_that_cannot_be_used_is_refused_and_nothing_is_written() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let address = cluster.address(&cluster.leader().await?)?;
    let to = channel(&address).await?;
    let mut requester = Requester::open(&address).await?;
    let first = requester.next_tag();
    let mut later = requester.next_tag();
    later.acknowledged = later.sequence;
    let third = requester.next_tag();
    for tag in [&first, &later, &third] {
        let mut request = Request::new(put("other", 0));
        tag_request(&mut request, tag)?;
        KvClient::new(to.clone()).put(request).await?;
    }

    let tag = |session: &str, sequence: &str, acknowledged: &str| {
        [
            ("tally-session", session.to_owned()),
            ("tally-sequence", sequence.to_owned()),
            ("tally-acknowledged", acknowledged.to_owned()),
        ]
    };
    let session = first.session.to_string();
    let another = [
        tag(&session, "9", "1").to_vec(),
        vec![("tally-marker", format!("{}@1", "0f".repeat(16)))],
    ];
    let (invalid, precondition) = (Code::InvalidArgument, Code::FailedPrecondition);
    for (metadata, code, stable) in [
        (tag(&session, "9", "1")[..1].to_vec(), invalid, "T-004"),
        (tag("0", "9", "1").to_vec(), invalid, "T-004"),
        (tag(&session, "nine", "1").to_vec(), invalid, "T-004"),
        (tag("987654321", "9", "1").to_vec(), precondition, "T-201"),
        // Its number was given to another put, and the first one's is forgotten.
        (tag(&session, "3", "2").to_vec(), precondition, "T-202"),
        (tag(&session, "1", "1").to_vec(), precondition, "T-203"),
        (another.concat(), precondition, "T-205"),
    ] {
        let found = refused(&to, &metadata).await?;
        ensure!(
            found == (code, stable.to_owned()),
            "{metadata:?}: {found:?}"
        );
    }
    let ask = RangeRequest {
        key: "t".into(),
        ..Default::default()
    };
    let found = KvClient::new(to).range(ask).await?.into_inner();
    ensure!(found.count == 0, "{found:?}");
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_holds_only_so_many_answers_that_are_not_acknowledged() -> Result<()> {
    const HELD_MAX: u64 = 1024;
    let cluster = Cluster::start(1).await?;
    let address = cluster.address(&cluster.leader().await?)?;
    let to = channel(&address).await?;
    let mut requester = Requester::open(&address).await?;
    let mut tag = requester.next_tag();
    let send = async |tag: &v1::Tag, key: &str| {
        let mut request = Request::new(put(key, 0));
        tag_request(&mut request, tag).map_err(|error| Status::internal(error.to_string()))?;
        KvClient::new(to.clone()).put(request).await
    };
    for sequence in 1..=HELD_MAX {
        tag.sequence = sequence;
        send(&tag, "held").await?;
    }
    tag.sequence = HELD_MAX + 1;
    let refused = send(&tag, "held").await;
    let refused = refused.err().context("one more was taken")?;
    let found = (refused.code(), refused.message().starts_with("T-204"));
    ensure!(found == (Code::ResourceExhausted, true), "{refused:?}");
    // Of one that is acknowledged the answer is forgotten, which makes room for another.
    tag.acknowledged = 2;
    send(&tag, "held").await?;
    cluster.stop().await
}
