use futures::FutureExt;

use bytes::Bytes;
use prost::Message;
use tally_model::{EventId, KeyEvent, KeyRange, KeyValue};

use super::*;

fn event(number: u64, key: &str, value_bytes: usize) -> KeyEvent {
    let revision = Revision(number);
    KeyEvent::Put(KeyValue {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: vec![b'v'; value_bytes].into(),
        created: revision,
        modified: revision,
        version: 1,
        lease: None,
    })
}

fn id(number: u64) -> EventId {
    EventId::last_of(Revision(number))
}

fn wanted(from: &'static str, until: &'static str) -> Wanted {
    Wanted {
        keys: KeyRange::new(from.into(), until.into()),
        puts: true,
        deletions: true,
        previous: false,
    }
}

/// A hub that has told of nothing yet.
fn hub() -> Hub {
    let hub = Hub::default();
    hub.lock().position = Some(Revision::EMPTY);
    hub
}

fn tell(hub: &Hub, number: u64, event: KeyEvent) {
    let told = Told::new(id(number), event, None, hub.waiting());
    let mut watchers = hub.lock();
    watchers.tell(&[Arc::new(told)], Revision(number));
}

fn enter(hub: &Hub, id: i64, wanted: &Wanted, way: &Way) -> Place {
    let watch = Watch { id, serial: 0 };
    let through = hub.lock().position.expect("it has told of something");
    hub.enter(watch, wanted, through, way)
        .expect("it knows everything")
}

fn next(inbox: &mut Inbox) -> Option<Delivery> {
    inbox.next().now_or_never().flatten()
}

/// The events of the next delivery.
fn events(inbox: &mut Inbox) -> (i64, Batch) {
    match next(inbox) {
        Some(Delivery::Events { watch, events }) => (watch.id, events),
        other => panic!("expected events: {other:?}"),
    }
}

#[test]
fn watchers_of_the_same_keys_share_what_they_are_told_and_what_is_encoded() {
    let hub = hub();
    let (way, mut inbox) = hub.way();
    let (other, mut other_inbox) = hub.way();
    let _places = [
        enter(&hub, 1, &wanted("a", "b"), &way),
        enter(&hub, 2, &wanted("a", "b"), &other),
        enter(&hub, 3, &wanted("b", ""), &other),
    ];
    tell(&hub, 2, event(2, "a/1", 10));
    let (first, shared) = events(&mut inbox);
    let (second, also) = events(&mut other_inbox);
    assert_eq!((first, second), (1, 2));
    assert!(Arc::ptr_eq(&shared, &also));
    let encoded = shared[0].encoded(false);
    assert_eq!(encoded, shared[0].message(false).encode_to_vec());
    assert_eq!(encoded.as_ptr(), also[0].encoded(true).as_ptr());
    assert!(next(&mut inbox).is_none() && next(&mut other_inbox).is_none());
}

#[test]
fn what_one_has_filtered_out_the_others_are_told() {
    let hub = hub();
    let (way, mut inbox) = hub.way();
    let deletions = Wanted {
        puts: false,
        ..wanted("a", "b")
    };
    let _places = [
        enter(&hub, 1, &wanted("a", "b"), &way),
        enter(&hub, 2, &deletions, &way),
    ];
    tell(&hub, 2, event(2, "a/1", 10));
    assert_eq!(events(&mut inbox).0, 1);
    assert!(next(&mut inbox).is_none());
    let key = Bytes::from_static(b"a/1");
    tell(&hub, 3, KeyEvent::Deleted { key });
    let mut told = [events(&mut inbox).0, events(&mut inbox).0];
    told.sort_unstable();
    assert_eq!(told, [1, 2]);
}

#[test]
fn a_stream_that_takes_nothing_is_let_go_and_the_others_are_not() {
    let hub = hub();
    let (slow, mut slow_inbox) = hub.way();
    let (quick, mut quick_inbox) = hub.way();
    let _places = [
        enter(&hub, 1, &wanted("a", "b"), &slow),
        enter(&hub, 2, &wanted("a", "b"), &quick),
    ];
    for number in 2..6 {
        tell(&hub, number, event(number, "a", WAITING_BYTES_MAX / 2));
        assert_eq!(events(&mut quick_inbox).1[0].id, id(number));
    }
    for number in 2..4 {
        assert_eq!(events(&mut slow_inbox).1[0].id, id(number));
    }
    match next(&mut slow_inbox) {
        Some(Delivery::LetGo { watch, through, .. }) => {
            assert_eq!((watch.id, through), (1, Revision(3)));
        }
        other => panic!("expected to be let go: {other:?}"),
    }
    assert!(next(&mut slow_inbox).is_none());
}

#[test]
fn an_event_counts_once_however_many_wait_for_it_and_no_longer_than_they_do() {
    const BYTES: usize = 100 << 10;
    let hub = hub();
    let mut streams = Vec::from_iter((0..50).map(|_| hub.way()));
    let places = streams.iter().enumerate();
    let places = places.map(|(id, (way, _))| enter(&hub, id as i64, &wanted("a", "b"), way));
    let places = Vec::from_iter(places);
    tell(&hub, 2, event(2, "a", BYTES));
    let waiting = hub.waiting().get();
    assert!((BYTES..3 * BYTES).contains(&waiting), "{waiting} bytes");
    // Half of them take it, the others end.
    for (_, inbox) in &mut streams[..25] {
        events(inbox);
    }
    assert!(hub.waiting().get() > BYTES);
    drop((streams, places));
    assert_eq!(hub.waiting().get(), 0);
}

#[test]
fn when_too_much_waits_in_the_member_nobody_is_told_more_and_all_read_little_at_once() {
    let hub = hub();
    let (way, mut inbox) = hub.way();
    let place = enter(&hub, 1, &wanted("a", "b"), &way);
    let full = hub.waiting().add(MEMBER_WAITING_BYTES_MAX);
    assert_eq!(hub.readable_at_once(), BYTES_AT_ONCE_WHEN_FULL);
    tell(&hub, 2, event(2, "a", 10));
    assert!(matches!(next(&mut inbox), Some(Delivery::LetGo { .. })));
    drop((full, place));
    assert_eq!(hub.readable_at_once(), BYTES_AT_ONCE);
    let _place = enter(&hub, 1, &wanted("a", "b"), &way);
    tell(&hub, 3, event(3, "a", 10));
    assert_eq!(events(&mut inbox).1[0].id, id(3));
}

#[test]
fn there_are_only_so_many_watchers_and_bytes_of_their_keys_until_some_go() {
    let hub = hub();
    let one = wanted("a", "b");
    let most = hub.bounds.watchers.add(MEMBER_WATCHERS_MAX - 1);
    let last = hub.admit(&one);
    assert!(last.is_some());
    assert!(hub.admit(&one).is_none());
    drop(last);
    let last = hub.admit(&one);
    assert!(last.is_some());
    drop((most, last));
    let most = hub.bounds.watched_bytes.add(MEMBER_WATCHED_BYTES_MAX - 3);
    let last = hub.admit(&one);
    assert!(last.is_some());
    assert!(hub.admit(&one).is_none());
    drop(most);
    assert!(hub.admit(&one).is_some());
}
