//! Requests that cannot be: each is refused with its own code, says what was found, and changes nothing.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tally_proto::peer::peer_client::PeerClient;
use tally_proto::v1::nodes_client::NodesClient;
use tally_proto::{fault, logserver, peer, storage, v1};
use tally_testkit::{AnswerExt, Call, Cluster, Reader, Requester, channel, send, until};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
const NAME_BYTES_MAX: usize = 128;
const ADDRESS_BYTES_MAX: usize = 256;
const REASON_BYTES_MAX: usize = 1_024;
/// Of what members send to each other; with the field around it the message is larger.
const PEER_MESSAGE_BYTES_MAX: usize = 32 << 20;

/// A request, the code with which it is refused, and what the refusal must name.
struct Case {
    what: &'static str,
    call: Call,
    code: &'static str,
    found: &'static str,
}

fn case(what: &'static str, call: Call, code: &'static str, found: &'static str) -> Case {
    Case {
        what,
        call,
        code,
        found,
    }
}

fn marker(bytes: usize) -> Option<v1::Marker> {
    Some(v1::Marker {
        bits: vec![7; bytes],
        created_unix_ms: 1,
    })
}

/// A registration that only lacks what each case spoils.
fn register(requester: &mut Requester) -> v1::RegisterRequest {
    v1::RegisterRequest {
        tag: Some(requester.next_tag()),
        name: "ls2".to_owned(),
        marker: Some(requester.marker()),
        address: "host4:7421".to_owned(),
        location: "eu.a".to_owned(),
        cluster_id: Vec::new(),
    }
}

fn spoilt_tags(requester: &mut Requester) -> Vec<Case> {
    type Spoil = fn(&mut v1::Tag);
    let spoilt: [(&'static str, Spoil, &'static str); 6] = [
        (
            "sequence 0",
            |tag| tag.sequence = 0,
            "tag.sequence: found 0",
        ),
        ("session 0", |tag| tag.session = 0, "tag.session: found 0"),
        (
            "acknowledged 0",
            |tag| tag.acknowledged = 0,
            "tag.acknowledged: found 0",
        ),
        (
            "more acknowledged than sent",
            |tag| tag.acknowledged = tag.sequence + 1,
            "tag.acknowledged: found",
        ),
        (
            "no marker",
            |tag| tag.marker = None,
            "tag.marker: found nothing",
        ),
        (
            "a marker that is too short",
            |tag| tag.marker = marker(15),
            "marker: found 15 bytes, expected exactly 16",
        ),
    ];
    let cases = spoilt.map(|(what, spoil, found)| {
        let mut ask = register(requester);
        ask.tag.iter_mut().for_each(spoil);
        case(what, Call::Register(ask), "T-004", found)
    });
    let untagged = v1::RegisterRequest {
        tag: None,
        ..register(requester)
    };
    let untagged = case(
        "no tag",
        Call::Register(untagged),
        "T-004",
        "tag: found nothing",
    );
    cases.into_iter().chain([untagged]).collect()
}

fn spoilt_registrations(requester: &mut Requester) -> Vec<Case> {
    type Spoil = fn(&mut v1::RegisterRequest);
    let spoilt: [(&'static str, Spoil, &'static str, &'static str); 13] = [
        (
            "an empty name",
            |ask| ask.name.clear(),
            "T-004",
            "node name: found an empty",
        ),
        (
            "a name with a control character",
            |ask| ask.name = "ls\u{7}2".to_owned(),
            "T-004",
            "node name: found the control character '\\u{7}'",
        ),
        (
            "a name of two lines",
            |ask| ask.name = "ls2\nls3".to_owned(),
            "T-004",
            "node name: found the control character '\\n'",
        ),
        (
            "a name of 129 bytes",
            |ask| ask.name = "n".repeat(129),
            "T-004",
            "node name: found 129 bytes",
        ),
        (
            "a name of digits",
            |ask| ask.name = "17".to_owned(),
            "T-004",
            "node name: found \"17\"",
        ),
        (
            "a name that ends in a space",
            |ask| ask.name = "ls2 ".to_owned(),
            "T-004",
            "node name",
        ),
        (
            "an address that is too long",
            |ask| ask.address = "a".repeat(257),
            "T-004",
            "address: found 257 bytes",
        ),
        (
            "a location of three parts",
            |ask| ask.location = "eu.a.1".to_owned(),
            "T-004",
            "location: found \"eu.a.1\"",
        ),
        (
            "a marker that is too long",
            |ask| ask.marker = marker(17),
            "T-004",
            "marker: found 17 bytes, expected exactly 16",
        ),
        (
            "an empty marker",
            |ask| ask.marker = marker(0),
            "T-004",
            "marker: found 0 bytes, expected exactly 16",
        ),
        (
            "another cluster",
            |ask| ask.cluster_id = vec![9; 16],
            "T-005",
            "09090909090909090909090909090909",
        ),
        (
            "a cluster id of three bytes",
            |ask| ask.cluster_id = vec![9; 3],
            "T-004",
            "cluster_id: found 3 bytes, expected exactly 16",
        ),
        (
            "a message of 70 000 bytes",
            |ask| ask.address = "a".repeat(70_000),
            "T-007",
            "grpc: received message larger than max (70",
        ),
    ];
    let cases = spoilt.map(|(what, spoil, code, found)| {
        let mut ask = register(requester);
        spoil(&mut ask);
        case(what, Call::Register(ask), code, found)
    });
    cases.into()
}

fn spoilt_activations(requester: &mut Requester) -> Vec<Case> {
    let no_node = requester.activate_call(0, 1);
    let no_incarnation = requester.activate_call(1, 0);
    let short = v1::Marker {
        bits: vec![1; 8],
        created_unix_ms: 1,
    };
    let short = requester.activate_call_as(1, 1, short);
    let state = |to: i32, requester: &mut Requester| {
        let call = requester.set_state_call(1, v1::StorageState::ReadOnly, 0);
        let Call::SetState(ask) = call else {
            return call;
        };
        Call::SetState(v1::SetStateRequest { to, ..ask })
    };
    let (none, unknown) = (state(0, requester), state(99, requester));
    let nobody = match state(3, requester) {
        Call::SetState(ask) => Call::SetState(v1::SetStateRequest { actor: None, ..ask }),
        other => other,
    };
    let long = match state(3, requester) {
        Call::SetState(ask) => Call::SetState(v1::SetStateRequest {
            reason: "r".repeat(1_025),
            ..ask
        }),
        other => other,
    };
    vec![
        case("node 0", no_node, "T-004", "node: found 0"),
        case(
            "incarnation 0",
            no_incarnation,
            "T-004",
            "incarnation: found 0",
        ),
        case(
            "a short marker",
            short,
            "T-004",
            "marker: found 8 bytes, expected exactly 16",
        ),
        case("no state", none, "T-004", "storage state: found nothing"),
        case(
            "a state that is none",
            unknown,
            "T-004",
            "storage state: found the number 99",
        ),
        case("nobody", nobody, "T-004", "actor: found nothing"),
        case("a long reason", long, "T-004", "reason: found 1025 bytes"),
    ]
}

/// What must not change: what every member has applied, the state it is in, and the revision.
async fn standing(cluster: &Cluster) -> Result<(u64, Vec<u8>, u64, u64)> {
    let applied = cluster.state_hashes_agree().await?;
    let status = cluster.status("n1").await?;
    let last = status.last_log_index;
    Ok((applied, status.state_hash, status.revision, last))
}

fn refused_as(status: &Status, code: &str, found: &str) -> Result<()> {
    let fault = fault::read(status).with_context(|| format!("no code in {status:?}"))?;
    ensure!(fault.code == code, "{fault:?}, expected {code}");
    ensure!(
        fault.found.contains(found),
        "{fault:?} does not say {found:?}"
    );
    ensure!(!fault.next.is_empty(), "{fault:?} does not say what to do");
    Ok(())
}

/// Calls a method with a message of any type.
async fn raw<M>(to: &Channel, path: &'static str, message: M) -> Result<Status>
where
    M: prost::Message + Default + Send + Sync + 'static,
{
    let mut grpc = Grpc::new(to.clone());
    grpc.ready().await?;
    let codec = ProstCodec::<M, v1::StatusResponse>::default();
    let asked = PathAndQuery::from_static(path);
    let answered = grpc.unary(Request::new(message), asked, codec).await;
    answered
        .err()
        .with_context(|| format!("{path} was answered"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_refused_with_its_code_and_changes_nothing() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let leader = cluster.leader().await?;
    let follower = cluster.followers().await?.remove(0);
    let address = cluster.address(&leader)?;
    let mut requester = Requester::open(&address).await?;
    let (node, incarnation) = requester.register(&address, "ls1").await?;
    requester.activate(&address, node, incarnation).await?;
    let before = standing(&cluster).await?;

    for name in [&leader, &follower] {
        let to = channel(&cluster.address(name)?).await?;
        let mut cases = spoilt_tags(&mut requester);
        cases.extend(spoilt_registrations(&mut requester));
        cases.extend(spoilt_activations(&mut requester));
        for Case {
            what,
            call,
            code,
            found,
        } in cases
        {
            let answered = send(&to, &call, ANSWERED_WITHIN).await;
            let status = answered
                .err()
                .with_context(|| format!("{what}: {name} answered"))?;
            refused_as(&status, code, found).with_context(|| format!("{what}, by {name}"))?;
        }
        // Bytes that are no message, and a method that there is not.
        let record = logserver::AppendRequest {
            log: 7,
            data: Vec::new(),
        };
        for path in ["/tally.v1.Nodes/Register", "/etcdserverpb.KV/Put"] {
            let status = raw(&to, path, record.clone()).await?;
            refused_as(&status, "T-004", "found no message")?;
        }
        let status = raw(&to, "/tally.v1.Nodes/Forget", v1::StatusRequest {}).await?;
        assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
        refused_as(&status, "T-023", "does not have the called method")?;
        let ask = v1::ListRequest {
            consistency: 9,
            ..v1::ListRequest::default()
        };
        let status = NodesClient::new(to.clone()).list(ask).await;
        let status = status.err().context("consistency 9 was answered")?;
        refused_as(&status, "T-004", "consistency: found 9")?;
    }
    assert_eq!(standing(&cluster).await?, before, "something was appended");
    cluster.stop().await
}

/// The longest of everything is accepted; one byte more is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_name_address_and_reason_are_accepted() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let address = cluster.address("n1")?;
    let to = channel(&address).await?;
    let mut requester = Requester::open(&address).await?;
    let (name, host) = ("n".repeat(NAME_BYTES_MAX), "a".repeat(ADDRESS_BYTES_MAX));
    let longest = v1::RegisterRequest {
        name: name.clone(),
        address: host.clone(),
        ..register(&mut requester)
    };
    let answer = send(&to, &Call::Register(longest), ANSWERED_WITHIN).await?;
    let (node, incarnation) = answer.registered().context("not registered")?;
    let node_seen = Reader::linearizable(&address).await?.known(&name).await?;
    assert_eq!((node_seen.id, node_seen.address), (node, host));
    let activated = requester.activate(&address, node, incarnation).await?;
    let seen = activated.applied().context("not activated")?;
    let Call::SetState(ask) = requester.set_state_call(node, v1::StorageState::ReadOnly, seen)
    else {
        bail!("another call");
    };
    let reasoned = v1::SetStateRequest {
        reason: "r".repeat(REASON_BYTES_MAX),
        ..ask
    };
    let answer = send(&to, &Call::SetState(reasoned), ANSWERED_WITHIN).await?;
    ensure!(answer.applied().is_some(), "{answer:?}");

    let before = standing(&cluster).await?;
    let longer = v1::RegisterRequest {
        name: "n".repeat(NAME_BYTES_MAX + 1),
        ..register(&mut requester)
    };
    let refused = send(&to, &Call::Register(longer), ANSWERED_WITHIN).await;
    let status = refused.err().context("129 bytes were accepted")?;
    refused_as(&status, "T-004", "node name: found 129 bytes")?;
    assert_eq!(standing(&cluster).await?, before);
    cluster.stop().await
}

/// What one member may send to another is bounded too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_too_large_for_members_is_refused_and_changes_nothing() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let leader = cluster.leader().await?;
    let follower = cluster.followers().await?.remove(0);
    let before = standing(&cluster).await?;
    let term = cluster.status(&leader).await?.term;
    let (from, to) = (
        cluster.status(&leader).await?,
        cluster.status(&follower).await?,
    );
    let member = cluster.member(&follower)?;
    let resident = member.resident_bytes()?;
    let mut client = PeerClient::new(channel(&member.peer_address()).await?);

    let join = peer::JoinRequest {
        cluster_id: vec![7; PEER_MESSAGE_BYTES_MAX],
        formation: Vec::new(),
        to: to.member,
        from: from.member,
    };
    let status = client.join(join).await.err().context("it was answered")?;
    refused_as(&status, "T-007", "larger than max (33554")?;

    // In a stream of the real leader, as far as anybody can tell.
    let entry = storage::LogEntry {
        id: None,
        payload: Some(storage::log_entry::Payload::Proposal(storage::Proposal {
            request: vec![7; PEER_MESSAGE_BYTES_MAX].into(),
            unix_ms: 1,
        })),
    };
    let append = peer::AppendRequest {
        entries: vec![entry],
        ..peer::AppendRequest::default()
    };
    let mut request = Request::new(tokio_stream::once(append));
    let cluster_id: String = from
        .cluster_id
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let (sender, receiver) = (
        format!("{:016x}", from.member),
        format!("{:016x}", to.member),
    );
    for (key, value) in [
        ("tally-cluster-id", cluster_id),
        ("tally-from", sender),
        ("tally-to", receiver),
    ] {
        request.metadata_mut().insert(key, value.parse()?);
    }
    let answers = client.append(request).await?.into_inner().message().await;
    ensure!(!matches!(answers, Ok(Some(_))), "it was taken: {answers:?}");
    until("a line about it", ANSWERED_WITHIN, async || {
        let log = member.log();
        let mut lines = log.lines();
        let line = lines.find(|line| line.contains("cannot be read and ends"));
        let line = line.context("no line")?;
        ensure!(line.contains("message length too large"), "{line}");
        Ok(())
    })
    .await?;

    let grown = member.resident_bytes()?.saturating_sub(resident);
    ensure!(grown < PEER_MESSAGE_BYTES_MAX as u64, "{grown} bytes more");
    assert_eq!(standing(&cluster).await?, before);
    assert_eq!(cluster.leader().await?, leader);
    assert_eq!(cluster.status(&leader).await?.term, term);
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_not_there_is_named_and_nothing_changes() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let address = cluster.address(&cluster.leader().await?)?;
    let mut requester = Requester::open(&address).await?;
    requester.register(&address, "ls1").await?;
    let reader = Reader::linearizable(&address).await?;
    let before = reader.known("ls1").await?;
    let revision = cluster.status("n1").await?.revision;

    let to = channel(&address).await?;
    let activate = requester.activate_call(99, 1);
    let set_state = requester.set_state_call(99, v1::StorageState::ReadOnly, 0);
    for call in [activate, set_state] {
        // A refusal is an outcome: it is kept for the tag, and nothing else is.
        for repeat in [false, true] {
            let answer = send(&to, &call, ANSWERED_WITHIN).await?;
            assert_eq!(answer.refused(), Some("T-301"), "{answer:?}");
            assert_eq!(answer.repeat, repeat, "{answer:?}");
        }
    }
    let operator = cluster.operator();
    for (line, code) in [
        (&["node", "show", "nobody"][..], 1),
        (&["node", "history", "nobody"], 1),
        (&["node", "set-state", "nobody", "read-only"], 1),
    ] {
        let finished = operator.run(line).await?.expect_code(code)?;
        let said = finished.said();
        ensure!(
            said.contains("T-019") && said.contains("nobody"),
            "{line:?}: {said}"
        );
        ensure!(
            said.contains("tally node list"),
            "{line:?} has no next step: {said}"
        );
    }
    assert_eq!(reader.known("ls1").await?, before);
    cluster.state_hashes_agree().await?;
    assert_eq!(cluster.status("n1").await?.revision, revision);
    cluster.stop().await
}
