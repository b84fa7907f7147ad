//! Sending again, against members that lose answers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;

use std::time::Duration;

use fake::{Fake, Twist};
use tally_client::{
    Answer, Client, Consistency, Error, Outcome, Register, StorageState, WatchItem,
};

const ATTEMPT: Duration = Duration::from_millis(300);
/// For requests that are to end at their deadline.
const SHORT: Duration = Duration::from_millis(900);

fn client(fake: &Fake) -> Client {
    Client::builder()
        .endpoints(fake.endpoints())
        .attempt_max(ATTEMPT)
        .build()
        .unwrap()
}

async fn register(client: &Client, name: &str) -> Result<Answer, Error> {
    client.register(Register::new(name)).await
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_under_the_same_tag_and_replayed() {
    for lost in [Twist::DropAnswer, Twist::Silence] {
        let fake = Fake::start(3).await;
        fake.plan([lost.clone(), lost]);
        let answer = register(&client(&fake), "ls1").await.unwrap();
        assert!(answer.repeat, "{answer:?}");
        assert!(
            matches!(answer.outcome, Outcome::Replayed { since: 2, .. }),
            "{answer:?}"
        );
        assert_eq!(answer.now, Some(StorageState::Provisioning));
        let tags = fake.tags("register");
        assert_eq!(tags.len(), 3);
        assert!(tags.iter().all(|tag| *tag == tags[0]), "{tags:?}");
        assert_eq!(fake.history().len(), 1);
        let members: std::collections::BTreeSet<_> =
            fake.seen().iter().map(|seen| seen.member).collect();
        assert_eq!(members.len(), 3, "every attempt goes to another member");
    }
}

#[tokio::test]
async fn a_lost_request_is_applied_once() {
    let fake = Fake::start(2).await;
    fake.plan([Twist::DropRequest, Twist::SayUnknown]);
    let answer = register(&client(&fake), "ls1").await.unwrap();
    assert!(
        matches!(answer.outcome, Outcome::Applied { .. }),
        "{answer:?}"
    );
    assert_eq!(fake.history().len(), 1);
}

#[tokio::test]
async fn what_may_have_happened_is_unknown_at_the_deadline_and_resume_settles_it() {
    let fake = Fake::start(2).await;
    fake.plan([Twist::Silence]);
    fake.otherwise(Twist::NoLeader(None));
    let client = client(&fake);
    let error = register(&client.with_deadline(SHORT), "ls1")
        .await
        .unwrap_err();
    let token = error.tag().expect("a token");
    assert!(matches!(error, Error::Unknown { .. }), "{error:?}");
    assert_eq!((error.code(), token.sequence), ("T-002", 1));

    // While it is in doubt nothing acknowledges it.
    fake.otherwise(Twist::Serve);
    register(&client, "ls2").await.unwrap();
    assert_eq!(
        fake.tags("register").last().map(|tag| (tag.1, tag.2)),
        Some((2, 1))
    );

    let elsewhere = Client::builder()
        .endpoints(fake.endpoints())
        .build()
        .unwrap();
    let token = token.to_string().parse().unwrap();
    let settled = elsewhere.resume(&token).await.unwrap();
    assert!(
        matches!(settled.outcome, Outcome::Replayed { .. }),
        "{settled:?}"
    );
    assert!(settled.repeat);
    client.resume(&token).await.unwrap();
    register(&client, "ls3").await.unwrap();
    assert_eq!(
        fake.tags("register").last().map(|tag| (tag.1, tag.2)),
        Some((3, 3))
    );
}

#[tokio::test]
async fn a_request_that_is_settled_before_it_arrives_never_takes_effect() {
    let fake = Fake::start(1).await;
    fake.otherwise(Twist::DropRequest);
    let client = client(&fake);
    let error = register(&client.with_deadline(SHORT), "ls1")
        .await
        .unwrap_err();
    fake.otherwise(Twist::Serve);
    let settled = client.resume(&error.tag().unwrap()).await.unwrap();
    assert_eq!(
        settled.refused().map(|refused| refused.code.as_str()),
        Some("T-206")
    );
    assert_eq!(fake.history().len(), 0);
}

#[tokio::test]
async fn a_cluster_without_a_leader_is_named_as_such() {
    let fake = Fake::start(3).await;
    let client = client(&fake);
    register(&client, "ls1").await.unwrap();
    fake.otherwise(Twist::NoLeader(None));
    let error = register(&client.with_deadline(SHORT), "ls2")
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NoLeader { .. }), "{error:?}");
    assert_eq!(error.code(), "T-001");
    // Nothing is in doubt, so everything is acknowledged.
    fake.otherwise(Twist::Serve);
    register(&client, "ls2").await.unwrap();
    assert_eq!(
        fake.tags("register").last().map(|tag| (tag.1, tag.2)),
        Some((3, 3))
    );
}

#[tokio::test]
async fn a_session_that_cannot_be_opened_leaves_nothing_unknown() {
    let fake = Fake::start(2).await;
    fake.on_open(Twist::NoLeader(None));
    let error = register(&client(&fake).with_deadline(SHORT), "ls1")
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NoLeader { .. }), "{error:?}");
    fake.on_open(Twist::DropAnswer);
    let error = register(&client(&fake).with_deadline(SHORT), "ls1")
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(fake.seen().is_empty());
}

#[tokio::test]
async fn refused_connections_are_unreachable_and_not_unknown() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = free.local_addr().unwrap().to_string();
    drop(free);
    let client = Client::builder()
        .endpoint(endpoint)
        .deadline(SHORT)
        .build()
        .unwrap();
    let error = register(&client, "ls1").await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn the_leader_that_a_member_names_is_asked_next() {
    let fake = Fake::start(3).await;
    let endpoints = fake.endpoints();
    let leader = endpoints[2].trim_start_matches("http://").to_owned();
    fake.plan([Twist::NoLeader(Some(leader))]);
    // The client is told of the first one only.
    let client = Client::builder().endpoint(&endpoints[0]).build().unwrap();
    register(&client, "ls1").await.unwrap();
    let members: Vec<_> = fake.seen().iter().map(|seen| seen.member).collect();
    assert_eq!(members, [0, 2]);
    assert_eq!(
        client.endpoints(),
        [endpoints[0].clone(), endpoints[2].clone()]
    );
    register(&client, "ls2").await.unwrap();
    assert_eq!(fake.seen().last().map(|seen| seen.member), Some(2));
}

#[tokio::test]
async fn a_call_that_is_turned_down_is_not_sent_again_unless_it_is_in_doubt() {
    let fake = Fake::start(1).await;
    fake.plan([Twist::Reject, Twist::DropAnswer, Twist::Reject]);
    let client = client(&fake);
    let error = register(&client, "ls1").await.unwrap_err();
    assert!(matches!(error, Error::Rejected { .. }), "{error:?}");
    assert_eq!((error.code(), fake.seen().len()), ("T-004", 1));
    let answer = register(&client, "ls1").await.unwrap();
    assert!(answer.repeat);
}

#[tokio::test]
async fn an_ended_session_is_replaced_for_what_was_never_sent_under_it() {
    let fake = Fake::start(1).await;
    let client = client(&fake);
    register(&client, "ls1").await.unwrap();
    fake.plan([Twist::EndSession]);
    let answer = register(&client, "ls2").await.unwrap();
    assert!(matches!(answer.outcome, Outcome::Applied { .. }));
    assert_eq!(fake.sessions_opened(), 2);

    fake.plan([Twist::DropAnswer, Twist::EndSession]);
    let error = register(&client, "ls3").await.unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }), "{error:?}");
    assert_eq!(fake.history().len(), 3, "it was not applied a second time");
}

#[tokio::test]
async fn clones_share_one_session_and_a_client_under_another_marker_does_not() {
    let fake = Fake::start(1).await;
    let client = client(&fake);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..20 {
        let client = client.clone();
        tasks.spawn(async move { register(&client, &format!("ls{number}")).await });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap().unwrap();
    }
    assert_eq!(fake.sessions_opened(), 1);
    assert_eq!(
        client.nodes(Consistency::Linearizable).await.unwrap().len(),
        20
    );
    let history = client.history(None, 0, Consistency::Stale).await.unwrap();
    assert_eq!(history.len(), 20);
    let other = client.under(tally_client::fresh_marker());
    register(&other, "other").await.unwrap();
    assert_eq!(fake.sessions_opened(), 2);
}

#[tokio::test]
async fn a_closed_session_is_gone_and_the_next_command_opens_another() {
    let fake = Fake::start(1).await;
    let client = client(&fake);
    client.close().await.unwrap();
    register(&client, "ls1").await.unwrap();
    fake.plan([Twist::DropAnswer]);
    client.close().await.unwrap();
    register(&client, "ls2").await.unwrap();
    assert_eq!(fake.sessions_opened(), 2);
}

#[tokio::test]
async fn a_watch_goes_on_after_the_last_revision_that_it_saw() {
    let fake = Fake::start(2).await;
    let client = client(&fake);
    register(&client, "ls1").await.unwrap();
    let mut watch = client.watch(None, 0);
    let Some(Ok(WatchItem::Started { revision: 2, .. })) = watch.next().await else {
        panic!("the watch did not start");
    };
    let mut expected = 3;
    for round in 0..3 {
        for name in ["a", "b"] {
            register(&client, &format!("{name}{round}")).await.unwrap();
        }
        for _ in 0..2 {
            let Some(Ok(WatchItem::Event(entry))) = watch.next().await else {
                panic!("the watch ended");
            };
            assert_eq!(entry.revision, expected);
            expected += 1;
        }
        fake.break_watches();
    }
    register(&client, "last").await.unwrap();
    let Some(Ok(WatchItem::Event(entry))) = watch.next().await else {
        panic!("the watch ended");
    };
    assert_eq!(entry.revision, expected);
    assert!(fake.watches() > 1, "it was to reconnect");
}

#[tokio::test]
async fn every_member_is_asked_for_its_status_once() {
    let fake = Fake::start(3).await;
    let client = Client::builder()
        .endpoint(&fake.endpoints()[1])
        .build()
        .unwrap();
    let names: Vec<_> = client
        .statuses()
        .await
        .into_iter()
        .map(|m| m.name.unwrap())
        .collect();
    assert_eq!(names, ["n1", "n2", "n3"]);
}

#[tokio::test]
async fn a_transfer_is_sent_again_only_when_it_certainly_did_not_happen() {
    let fake = Fake::start(2).await;
    let client = client(&fake);
    assert_eq!(client.transfer_leader(None).await.unwrap().name, "n2");
    fake.plan([Twist::DropAnswer]);
    let error = client.transfer_leader(None).await.unwrap_err();
    assert!(matches!(error, Error::Unclear { .. }), "{error:?}");
    let error = client.replace_member("n9").await.unwrap_err();
    assert_eq!(error.code(), "T-019");
}

#[tokio::test]
async fn a_session_that_another_request_is_opening_is_not_waited_for_past_the_deadline() {
    let fake = Fake::start(1).await;
    let known = client(&fake);
    register(&known, "ls1").await.unwrap();
    let patient = known.under(tally_client::fresh_marker());
    fake.on_open(Twist::Silence);
    let opened = fake.sessions_opened();
    let opening = tokio::spawn({
        let patient = patient.clone();
        async move { register(&patient, "ls2").await }
    });
    while fake.sessions_opened() == opened {
        tokio::task::yield_now().await;
    }
    let hurried = patient.with_deadline(SHORT);
    let within = SHORT * 5;
    let closed = tokio::time::timeout(within, hurried.close()).await;
    let error = closed.unwrap().unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");

    let token = format!("1/1:{}", patient.marker()).parse().unwrap();
    let resumed = tokio::time::timeout(within, hurried.resume(&token)).await;
    assert_eq!(resumed.unwrap().unwrap().refused().unwrap().code, "T-201");
    opening.abort();
}
