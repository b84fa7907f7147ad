//! Keys, against members that lose answers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;

use std::time::Duration;

use fake::{Fake, Twist};
use tally_client::keys::{
    self, Comparison, Expected, KeyAnswer, KeyError, KeyEvent, KeyWatch, KeyWatchItem, LeaseId,
    Range, Txn,
};
use tally_client::{Client, Consistency, Error, Outcome, Revision};

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

/// The value and the version of a key.
async fn found(client: &Client, key: &str) -> Option<(String, u64)> {
    let found = client.keys().get(key, Consistency::Linearizable).await;
    let found = found.unwrap()?;
    let value = String::from_utf8_lossy(&found.value).into_owned();
    Some((value, found.version))
}

#[tokio::test]
async fn a_lost_answer_of_a_write_is_asked_for_again_under_the_same_tag() {
    for lost in [Twist::DropAnswer, Twist::Silence] {
        let fake = Fake::start(3).await;
        let client = client(&fake);
        fake.plan([lost.clone(), lost]);
        let written = client.keys().put("a", "1", None).await.unwrap();
        assert!(written.replayed, "{written:?}");
        assert_eq!(written.revision, 2);
        assert_eq!(found(&client, "a").await, Some(("1".to_owned(), 1)));
        let tags = fake.tags("put");
        assert_eq!(tags.len(), 3);
        assert!(tags.iter().all(|tag| *tag == tags[0]), "{tags:?}");
        let seen = fake.seen();
        assert!(seen.iter().all(|seen| seen.tag.marker.is_some()));

        let deleted = client.keys().delete(keys::prefix("")).await.unwrap();
        assert!(!deleted.replayed, "{deleted:?}");
        assert_eq!((deleted.answer.count, deleted.revision), (1, 3));
    }
}

#[tokio::test]
async fn a_final_error_is_not_asked_for_again() {
    let fake = Fake::start(3).await;
    let keys = client(&fake).keys();
    let error = keys.put("a", "1", Some(LeaseId(7))).await.unwrap_err();
    assert_eq!(error, KeyError::LeaseNotFound);
    assert_eq!(error.code(), "T-502");
    assert!(error.next().unwrap().contains("tally kv lease"), "{error}");
    assert_eq!(fake.tags("put").len(), 1);

    let later = Range {
        at: Some(Revision(9)),
        ..Range::of(keys::one("a"))
    };
    let error = keys.range(&later, Consistency::Linearizable).await;
    assert_eq!(error.unwrap_err(), KeyError::FutureRevision);

    let error = keys.put("\0tally/x", "1", None).await.unwrap_err();
    assert!(matches!(error, KeyError::KeyReserved { .. }), "{error:?}");
    assert_eq!(fake.tags("put").len(), 2);
    // Both are settled, so that the next one acknowledges them.
    keys.put("a", "1", None).await.unwrap();
    assert_eq!(
        fake.tags("put").last().map(|tag| (tag.1, tag.2)),
        Some((3, 3))
    );
}

#[tokio::test]
async fn a_write_in_doubt_is_unknown_at_the_deadline_and_resume_settles_it() {
    let fake = Fake::start(2).await;
    fake.plan([Twist::Silence]);
    fake.otherwise(Twist::NoLeader(None));
    let client = client(&fake);
    let hurried = client.with_deadline(SHORT).keys();
    let error = hurried.put("a", "1", None).await.unwrap_err();
    let KeyError::Unanswered(error @ Error::Unknown { .. }) = error else {
        panic!("{error:?}")
    };
    fake.otherwise(Twist::Serve);
    let settled = client.resume(&error.tag().unwrap()).await.unwrap();
    assert!(
        matches!(settled.outcome, Outcome::Replayed { .. }),
        "{settled:?}"
    );
    assert_eq!(found(&client, "a").await, Some(("1".to_owned(), 1)));
}

#[tokio::test]
async fn a_compaction_whose_answer_was_lost_is_not_taken_for_one_of_somebody_else() {
    let fake = Fake::start(2).await;
    let keys = client(&fake).keys();
    for value in ["1", "2", "3"] {
        keys.put("a", value, None).await.unwrap();
    }
    let now = keys.put("a", "4", None).await.unwrap().revision;
    fake.plan([Twist::Silence]);
    let compacted = keys.compact(Revision(now)).await.unwrap();
    assert!(compacted.replayed, "{compacted:?}");
    let before = Range {
        at: Some(Revision(now - 1)),
        ..Range::of(keys::one("a"))
    };
    let read = keys.range(&before, Consistency::Linearizable).await;
    assert!(matches!(read, Err(KeyError::Compacted { .. })), "{read:?}");
    let again = keys.compact(Revision(now)).await;
    assert!(
        matches!(again, Err(KeyError::Compacted { .. })),
        "{again:?}"
    );
    let ahead = keys.compact(Revision(now + 1)).await;
    assert_eq!(ahead, Err(KeyError::FutureRevision));
}

#[tokio::test]
async fn a_write_whose_session_has_ended_goes_out_under_another() {
    let fake = Fake::start(2).await;
    let keys = client(&fake).keys();
    keys.put("a", "1", None).await.unwrap();
    fake.plan([Twist::EndSession]);
    let written = keys.put("a", "2", None).await.unwrap();
    assert!(!written.replayed, "{written:?}");
    assert_eq!(fake.sessions_opened(), 2);
}

#[tokio::test]
async fn a_transaction_does_the_one_or_the_other_once() {
    let fake = Fake::start(3).await;
    let client = client(&fake);
    let create = Txn::new()
        .when("a", Comparison::Equal, Expected::Version(0))
        .then(keys::put("a", "first", None))
        .otherwise(keys::get(keys::one("a")));
    fake.plan([Twist::DropAnswer]);
    let first = client.keys().txn(&create).await.unwrap();
    assert!(first.replayed && first.answer.succeeded, "{first:?}");
    let second = client.keys().txn(&create).await.unwrap();
    assert!(!second.answer.succeeded, "{second:?}");
    let [KeyAnswer::Range(there)] = &second.answer.answers[..] else {
        panic!("{second:?}")
    };
    assert_eq!(there.found[0].value, "first");
    assert_eq!(found(&client, "a").await, Some(("first".to_owned(), 1)));
}

/// The revision and the keys of the next change.
async fn changed(watch: &mut KeyWatch) -> (u64, Vec<String>) {
    let item = tokio::time::timeout(Duration::from_secs(20), watch.next()).await;
    let item = item.unwrap().unwrap().unwrap();
    let KeyWatchItem::Changed { revision, events } = item else {
        panic!("{item:?}")
    };
    let keys = events.iter().map(|event| match event {
        KeyEvent::Put(made) => format!("put {}", String::from_utf8_lossy(&made.key)),
        KeyEvent::Deleted { key } => format!("del {}", String::from_utf8_lossy(key)),
    });
    (revision, keys.collect())
}

#[tokio::test]
async fn a_watch_tells_each_revision_once_across_lost_connections() {
    let fake = Fake::start(3).await;
    let keys = client(&fake).keys();
    keys.put("w/1", "x", None).await.unwrap();
    let mut watch = keys.watch(keys::prefix("w/"), 1);
    let started = watch.next().await.unwrap().unwrap();
    assert_eq!(started, KeyWatchItem::Started { from: 1 });
    assert_eq!(changed(&mut watch).await, (2, vec!["put w/1".to_owned()]));
    for round in 0..4 {
        let broken = fake.watches();
        fake.break_watches();
        keys.put("elsewhere", "x", None).await.unwrap();
        keys.put("w/1", "y", None).await.unwrap();
        let both = Txn::new()
            .then(keys::put("w/2", "z", None))
            .then(keys::delete(keys::one("w/1")));
        let done = keys.txn(&both).await.unwrap();
        let (revision, events) = changed(&mut watch).await;
        assert_eq!(
            (revision, events),
            (done.revision - 1, vec!["put w/1".to_owned()])
        );
        let (revision, mut events) = changed(&mut watch).await;
        events.sort();
        assert_eq!(revision, done.revision, "round {round}");
        assert_eq!(events, ["del w/1", "put w/2"]);
        assert!(
            fake.watches() > broken,
            "round {round}: the watch did not break"
        );
    }
}
