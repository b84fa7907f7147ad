//! What must hold of everything that is written down and of everything that arrives.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fmt::Debug;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{TestCaseResult, TestRunner};
use prost::Message;
use tally_model::command::{
    ADDRESS_BYTES_MAX, ActivateNode, Force, Found, OpenSession, REASON_BYTES_MAX, RegisterNode,
    SetStorageState,
};
use tally_model::explanation::EXPLANATIONS;
use tally_model::{
    Actor, Alarm, Answer, Binding, Claim, ClusterId, Command, Effect, Event, Globals, HistoryEntry,
    Incarnation, LOCATION_BYTES_MAX, Location, Marker, NODE_NAME_BYTES_MAX, Node, NodeId, NodeName,
    Outcome, Refusal, Replication, Request, RetryCheck, Revision, Scope, Session, SessionId, SetBy,
    Settings, StorageState, StoredOutcome, Tag, Tagged,
};
use tally_proto::convert::{DecodeError, digest};
use tally_proto::{storage, v1};

/// Zero is left out on the wire, so it must be among the numbers.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(u64::MAX), any::<u64>()]
}

fn small() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(u32::MAX), any::<u32>()]
}

fn numbered<T: Debug>(new: fn(u64) -> T) -> impl Strategy<Value = T> {
    number().prop_map(new)
}

fn node_id() -> impl Strategy<Value = NodeId> {
    small().prop_map(NodeId)
}

fn bits() -> impl Strategy<Value = u128> {
    prop_oneof![Just(0), any::<u128>()]
}

fn marker() -> impl Strategy<Value = Marker> {
    (bits(), number()).prop_map(|(bits, created_unix_ms)| Marker {
        bits,
        created_unix_ms,
    })
}

fn tag() -> impl Strategy<Value = Tag> {
    (numbered(SessionId), number()).prop_map(|(session, sequence)| Tag { session, sequence })
}

fn state() -> impl Strategy<Value = StorageState> {
    select(&StorageState::ALL[..])
}

fn set_by() -> impl Strategy<Value = SetBy> {
    select(vec![SetBy::Node, SetBy::Operator])
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,20}"
}

fn name() -> impl Strategy<Value = NodeName> {
    "\\PC{1,20}".prop_filter_map("white space only", |text| NodeName::new(text.trim()).ok())
}

fn location() -> impl Strategy<Value = Location> {
    "([a-z0-9-]{1,8}(\\.[a-z0-9-]{1,8})?)?".prop_map(|text| Location::new(text).unwrap())
}

fn replication() -> impl Strategy<Value = Replication> {
    let scope = select(vec![Scope::Node, Scope::Zone, Scope::Region]);
    (scope, small()).prop_map(|(scope, copies)| Replication { scope, copies })
}

fn settings() -> impl Strategy<Value = Settings> {
    let retry_check = select(vec![RetryCheck::Marker, RetryCheck::Relaxed]);
    let replication = option::of(replication());
    (retry_check, replication, number(), number(), number()).prop_map(
        |(retry_check, replication, session_idle_ms, sessions_max, outcomes_per_session_max)| {
            Settings {
                retry_check,
                replication,
                session_idle_ms,
                sessions_max,
                outcomes_per_session_max,
            }
        },
    )
}

fn actor() -> impl Strategy<Value = Actor> {
    let by_node = (marker(), numbered(Incarnation));
    let force = text().prop_map(|confirm_name| Force { confirm_name });
    let by_operator = (option::of(numbered(Revision)), option::of(force));
    prop_oneof![
        by_node.prop_map(|(marker, incarnation)| Actor::Node {
            marker,
            incarnation
        }),
        by_operator.prop_map(|(expected_revision, force)| Actor::Operator {
            expected_revision,
            force
        }),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let register = (name(), option::of(marker()), text(), location());
    let activate = (node_id(), marker(), numbered(Incarnation), small());
    prop_oneof![
        (bits().prop_map(ClusterId), settings())
            .prop_map(|(cluster, settings)| Command::Found(Found { cluster, settings })),
        marker().prop_map(|marker| Command::OpenSession(OpenSession { marker })),
        Just(Command::CloseSession),
        Just(Command::SettleRequest),
        register.prop_map(|(name, marker, address, location)| {
            Command::RegisterNode(RegisterNode {
                name,
                marker,
                address,
                location,
            })
        }),
        activate.prop_map(|(node, marker, incarnation, attempt)| {
            Command::ActivateNode(ActivateNode {
                node,
                marker,
                incarnation,
                attempt,
            })
        }),
        (node_id(), state(), actor(), text()).prop_map(|(node, to, actor, reason)| {
            Command::SetStorageState(SetStorageState {
                node,
                to,
                actor,
                reason,
            })
        }),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let tagged = (tag(), marker(), number(), bits());
    let tagged = tagged.prop_map(|(tag, marker, acknowledged, digest)| Tagged {
        tag,
        marker,
        acknowledged,
        digest,
    });
    (option::of(tagged), command()).prop_map(|(tagged, command)| Request { tagged, command })
}

fn effect() -> impl Strategy<Value = Effect> {
    let alarm = (small(), small())
        .prop_map(|(needed, writable)| Alarm::ReplicationUnsatisfied { needed, writable });
    let set = (node_id(), state(), state(), vec(alarm, 0..3));
    prop_oneof![
        Just(Effect::Founded),
        numbered(SessionId).prop_map(|session| Effect::SessionOpened { session }),
        Just(Effect::SessionClosed),
        (node_id(), numbered(Incarnation))
            .prop_map(|(node, incarnation)| Effect::NodeRegistered { node, incarnation }),
        (node_id(), numbered(Incarnation))
            .prop_map(|(node, incarnation)| Effect::NodeActivated { node, incarnation }),
        set.prop_map(|(node, from, to, alarms)| Effect::StorageStateSet {
            node,
            from,
            to,
            alarms
        }),
    ]
}

/// Refusals that are not about a node.
fn refusal_of_request() -> impl Strategy<Value = Refusal> {
    prop_oneof![
        Just(Refusal::AlreadyFounded),
        Just(Refusal::NotFounded),
        any::<bool>().prop_map(|expected| Refusal::TagExpected { expected }),
        numbered(SessionId).prop_map(|session| Refusal::SessionExpired { session }),
        (bits(), bits()).prop_map(|(stored_digest, offered_digest)| Refusal::RequestReused {
            stored_digest,
            offered_digest
        }),
        number().prop_map(|acknowledged| Refusal::AlreadyAcknowledged { acknowledged }),
        (number(), number())
            .prop_map(|(held, allowed)| Refusal::TooManyUnacknowledged { held, allowed }),
        numbered(SessionId).prop_map(|session| Refusal::SessionMarkerMismatch { session }),
        Just(Refusal::Abandoned),
        (replication(), small(), vec(name(), 0..3)).prop_map(|(needed, writable, already)| {
            Refusal::ReplicationUnsatisfied {
                needed,
                writable,
                already,
            }
        }),
    ]
}

fn refusal_of_node() -> impl Strategy<Value = Refusal> {
    let not_allowed = (node_id(), state(), state(), vec(state(), 0..4));
    let changed = (node_id(), numbered(Revision), option::of(number()));
    prop_oneof![
        node_id().prop_map(|node| Refusal::UnknownNode { node }),
        (node_id(), marker(), marker()).prop_map(|(node, stored, offered)| {
            Refusal::MarkerMismatch {
                node,
                stored,
                offered,
            }
        }),
        (node_id(), marker()).prop_map(|(node, stored)| Refusal::MarkerMissing { node, stored }),
        node_id().prop_map(|node| Refusal::MarkerNotBound { node }),
        (node_id(), numbered(Incarnation), numbered(Incarnation)).prop_map(
            |(node, current, offered)| Refusal::StaleIncarnation {
                node,
                current,
                offered
            }
        ),
        (node_id(), state()).prop_map(|(node, state)| Refusal::NotProvisioning { node, state }),
        (name(), node_id()).prop_map(|(name, node)| Refusal::NameRemoved { name, node }),
        not_allowed.prop_map(|(node, from, to, allowed)| Refusal::TransitionNotAllowed {
            node,
            from,
            to,
            allowed
        }),
        changed.prop_map(|(node, current, expected)| Refusal::RevisionMismatch {
            node,
            current,
            expected: expected.map(Revision)
        }),
        (node_id(), state()).prop_map(|(node, state)| Refusal::NotSetByNode { node, state }),
        (node_id(), name(), text(), any::<bool>()).prop_map(
            |(node, name, confirmed, reason_given)| Refusal::ForceNotConfirmed {
                node,
                name,
                confirmed,
                reason_given
            }
        ),
    ]
}

fn refusal() -> impl Strategy<Value = Refusal> {
    prop_oneof![refusal_of_request(), refusal_of_node()]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        (numbered(Revision), effect())
            .prop_map(|(revision, effect)| Outcome::Applied { revision, effect }),
        (numbered(Revision), effect())
            .prop_map(|(since, effect)| Outcome::Replayed { since, effect }),
        refusal().prop_map(Outcome::Refused),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    let parts = (
        outcome(),
        any::<bool>(),
        option::of(state()),
        numbered(Revision),
    );
    parts.prop_map(|(outcome, repeat, now, revision)| Answer {
        outcome,
        repeat,
        now,
        revision,
    })
}

fn stored_outcome() -> impl Strategy<Value = StoredOutcome> {
    (option::of(bits()), outcome()).prop_map(|(digest, outcome)| StoredOutcome { digest, outcome })
}

fn node() -> impl Strategy<Value = Node> {
    let binding = (marker(), numbered(Revision));
    let binding = option::of(binding.prop_map(|(marker, since)| Binding { marker, since }));
    let said = (node_id(), name(), text(), location());
    let stands = (state(), numbered(Incarnation), binding, set_by());
    let numbers = (number(), number(), number(), number(), number());
    (said, stands, numbers).prop_map(|(said, stands, numbers)| Node {
        id: said.0,
        name: said.1,
        address: said.2,
        location: said.3,
        storage_state: stands.0,
        incarnation: stands.1,
        binding: stands.2,
        set_by: stands.3,
        created_revision: Revision(numbers.0),
        revision: Revision(numbers.1),
        state_revision: Revision(numbers.2),
        state_unix_ms: numbers.3,
        claims_dropped: numbers.4,
    })
}

fn claim() -> impl Strategy<Value = Claim> {
    let revisions = (numbered(Revision), numbered(Revision));
    let parts = (node_id(), option::of(marker()), tag(), revisions);
    (parts, number(), number()).prop_map(|((node, marker, tag, revisions), ms, attempts)| Claim {
        node,
        marker,
        tag,
        first_revision: revisions.0,
        last_revision: revisions.1,
        last_unix_ms: ms,
        attempts,
    })
}

fn session() -> impl Strategy<Value = Session> {
    let numbers = (number(), number(), number(), number());
    (numbered(SessionId), marker(), numbers).prop_map(|(id, marker, numbers)| Session {
        id,
        marker,
        opened_unix_ms: numbers.0,
        used_unix_ms: numbers.1,
        acknowledged: numbers.2,
        outcomes_held: numbers.3,
    })
}

fn history_entry() -> impl Strategy<Value = HistoryEntry> {
    let transitioned = (state(), state(), option::of(marker()), any::<bool>());
    let event = prop_oneof![
        numbered(Incarnation).prop_map(|incarnation| Event::Registered { incarnation }),
        transitioned.prop_map(|(from, to, marker, forced)| Event::Transitioned {
            from,
            to,
            marker,
            forced
        }),
        option::of(marker()).prop_map(|marker| Event::Claimed { marker }),
    ];
    let made = (numbered(Revision), number(), node_id(), set_by(), tag());
    let told = (event, text(), any::<[u8; 32]>());
    (made, told).prop_map(|(made, told)| HistoryEntry {
        revision: made.0,
        unix_ms: made.1,
        node: made.2,
        actor: made.3,
        tag: made.4,
        event: told.0,
        reason: told.1,
        hash: told.2,
    })
}

fn globals() -> impl Strategy<Value = Globals> {
    let founded = option::of((bits().prop_map(ClusterId), settings()));
    let counted = (numbered(Revision), number(), node_id(), number());
    (founded, counted, any::<[u8; 32]>()).prop_map(|(founded, counted, history_hash)| Globals {
        founded,
        revision: counted.0,
        unix_ms: counted.1,
        last_node: counted.2,
        sessions: counted.3,
        history_hash,
    })
}

fn comes_back<Stored, Known>(known: &Known) -> TestCaseResult
where
    Stored: Message + Default + for<'a> From<&'a Known>,
    Known: TryFrom<Stored, Error = DecodeError> + PartialEq + Debug,
{
    let bytes = Stored::from(known).encode_to_vec();
    let read = Known::try_from(Stored::decode(bytes.as_slice()).unwrap());
    prop_assert_eq!(read.as_ref(), Ok(known));
    Ok(())
}

/// Whatever bytes are taken for must be something that can be written again; all others are named.
fn are_judged<Stored, Known>(bytes: &[u8]) -> TestCaseResult
where
    Stored: Message + Default + for<'a> From<&'a Known>,
    Known: TryFrom<Stored, Error = DecodeError> + PartialEq + Debug,
{
    let Ok(stored) = Stored::decode(bytes) else {
        return Ok(());
    };
    match Known::try_from(stored) {
        Ok(known) => comes_back::<Stored, Known>(&known)?,
        Err(error) => prop_assert!(!error.what.is_empty() && !error.problem.is_empty()),
    }
    Ok(())
}

/// Some bytes replaced, and perhaps the end cut off.
type Damage = (Vec<(Index, u8)>, Option<Index>);

fn damage() -> impl Strategy<Value = Damage> {
    let replaced = vec((any::<Index>(), any::<u8>()), 1..4);
    (replaced, option::weighted(0.2, any::<Index>()))
}

fn damaged(mut bytes: Vec<u8>, (replaced, cut): Damage) -> Vec<u8> {
    let length = bytes.len();
    for (at, byte) in replaced.into_iter().filter(|_| length > 0) {
        bytes[at.index(length)] = byte;
    }
    bytes.truncate(cut.map_or(length, |cut| cut.index(length + 1)));
    bytes
}

macro_rules! stored {
    ($($values:ident => $known:ident),* $(,)?) => {$(
        mod $values {
            use super::*;

            proptest! {
                #[test]
                fn comes_back_as_it_was_written(known in $values()) {
                    comes_back::<storage::$known, $known>(&known)?;
                }

                #[test]
                fn damage_is_never_worse_than_an_error(known in $values(), damage in damage()) {
                    let bytes = storage::$known::from(&known).encode_to_vec();
                    are_judged::<storage::$known, $known>(&damaged(bytes, damage))?;
                }

                #[test]
                fn no_bytes_are_worse_than_an_error(bytes in vec(any::<u8>(), 0..64)) {
                    are_judged::<storage::$known, $known>(&bytes)?;
                }
            }
        }
    )*};
}

stored! {
    request => Request,
    command => Command,
    settings => Settings,
    answer => Answer,
    outcome => Outcome,
    effect => Effect,
    refusal => Refusal,
    stored_outcome => StoredOutcome,
    node => Node,
    claim => Claim,
    session => Session,
    history_entry => HistoryEntry,
    globals => Globals,
}

fn kind_of_command(command: &Command) -> &'static str {
    match command {
        Command::Found(_) => "found",
        Command::OpenSession(_) => "open session",
        Command::CloseSession => "close session",
        Command::SettleRequest => "settle",
        Command::RegisterNode(_) => "register",
        Command::ActivateNode(_) => "activate",
        Command::SetStorageState(_) => "set state",
    }
}

/// The kinds among a thousand values.
fn kinds<T: Debug>(
    values: impl Strategy<Value = T>,
    kind: fn(&T) -> &'static str,
) -> BTreeSet<&'static str> {
    let mut runner = TestRunner::deterministic();
    let mut draw = || values.new_tree(&mut runner).unwrap().current();
    (0..1_000).map(|_| kind(&draw())).collect()
}

#[test]
fn every_command_and_every_refusal_is_in_the_sample() {
    assert_eq!(kinds(command(), kind_of_command).len(), 7);
    let codes = EXPLANATIONS.iter().map(|entry| entry.code);
    let refusals: BTreeSet<_> = codes.filter(|code| *code >= "T-100").collect();
    assert_eq!(kinds(refusal(), Refusal::code), refusals);
}

proptest! {
    #[test]
    fn a_refusals_field_number_is_the_digits_of_its_code(refusal in refusal()) {
        let bytes = storage::Refusal::from(&refusal).encode_to_vec();
        // A field begins with its number, shifted by the three bits of its wire type, as a varint.
        let number = prost::decode_length_delimiter(bytes.as_slice()).unwrap() >> 3;
        prop_assert_eq!(format!("T-{number}"), refusal.code());
    }

    #[test]
    fn digests_are_equal_exactly_where_commands_are(commands in vec(command(), 2..8), again in any::<Index>()) {
        let repeated = again.get(&commands).clone();
        let all: Vec<_> = commands.iter().chain([&repeated]).collect();
        for (one, other) in all.iter().flat_map(|one| all.iter().map(move |other| (one, other))) {
            prop_assert_eq!(one == other, digest(one) == digest(other), "{:?} and {:?}", one, other);
        }
    }
}

fn sent_marker() -> impl Strategy<Value = v1::Marker> {
    let bits = prop_oneof![9 => vec(any::<u8>(), 16), 1 => vec(any::<u8>(), 0..20)];
    (bits, number()).prop_map(|(bits, created_unix_ms)| v1::Marker {
        bits,
        created_unix_ms,
    })
}

fn sent_tag() -> impl Strategy<Value = Option<v1::Tag>> {
    let marker = option::weighted(0.9, sent_marker());
    let numbers = (
        prop_oneof![1 => Just(0), 9 => any::<u64>()],
        0..12_u64,
        0..4_u64,
    );
    let tag = (numbers, marker).prop_map(|((session, sequence, acknowledged), marker)| v1::Tag {
        session,
        sequence,
        acknowledged,
        marker,
    });
    option::weighted(0.9, tag)
}

/// Text with and without control characters, within the bound and just beyond it.
fn sent_text(bytes_max: usize) -> impl Strategy<Value = String> {
    let long = (bytes_max - 1..=bytes_max + 1).prop_map(|bytes| "a".repeat(bytes));
    prop_oneof![7 => text(), 1 => any::<String>(), 1 => long]
}

/// The faults that are there, each by the name that an error has for it.
fn faults<const N: usize>(checks: [(&'static str, bool); N]) -> BTreeSet<&'static str> {
    checks
        .into_iter()
        .filter(|(_, wrong)| *wrong)
        .map(|(what, _)| what)
        .collect()
}

fn wrong_marker(marker: Option<&v1::Marker>) -> bool {
    marker.is_some_and(|marker| marker.bits.len() != 16)
}

fn wrong_tag(tag: Option<&v1::Tag>) -> BTreeSet<&'static str> {
    let Some(tag) = tag else {
        return faults([("tag", true)]);
    };
    faults([
        ("tag.session", tag.session == 0),
        ("tag.sequence", tag.sequence == 0),
        (
            "tag.acknowledged",
            !(1..=tag.sequence).contains(&tag.acknowledged),
        ),
        ("tag.marker", tag.marker.is_none()),
        ("marker", wrong_marker(tag.marker.as_ref())),
    ])
}

fn wrong_text(text: &str, bytes_max: usize) -> bool {
    text.len() > bytes_max || text.chars().any(char::is_control)
}

fn wrong_name(name: &str) -> bool {
    name.is_empty() || name.trim() != name || wrong_text(name, NODE_NAME_BYTES_MAX)
}

fn wrong_location(location: &str) -> bool {
    let parts: Vec<_> = location.split('.').collect();
    let unlike = !location.is_empty() && (parts.len() > 2 || parts.contains(&""));
    unlike || location.trim() != location || wrong_text(location, LOCATION_BYTES_MAX)
}

/// What has no fault becomes a request that every member can read; anything else is refused for one
/// of its faults.
fn is_judged<M>(message: M, faults: &BTreeSet<&'static str>) -> TestCaseResult
where
    Request: TryFrom<M, Error = DecodeError>,
{
    match Request::try_from(message) {
        Ok(request) => {
            prop_assert!(
                faults.is_empty(),
                "accepted with {:?}: {:?}",
                faults,
                request
            );
            if let Some(tagged) = &request.tagged {
                prop_assert_eq!(tagged.digest, digest(&request.command));
            }
            comes_back::<storage::Request, Request>(&request)?;
        }
        Err(error) => prop_assert!(faults.contains(error.what), "{} with {:?}", error, faults),
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_request_about_a_session_is_refused_for_its_faults_only(tag in sent_tag(), marker in option::of(sent_marker())) {
        let wrong = wrong_tag(tag.as_ref());
        is_judged(v1::CloseSessionRequest { tag: tag.clone() }, &wrong)?;
        is_judged(v1::SettleRequest { tag }, &wrong)?;
        let wrong = faults([("marker", marker.as_ref().is_none_or(|marker| wrong_marker(Some(marker))))]);
        is_judged(v1::OpenSessionRequest { marker }, &wrong)?;
    }

    #[test]
    fn a_registration_is_refused_for_its_faults_only(
        tag in sent_tag(),
        name in sent_text(NODE_NAME_BYTES_MAX),
        marker in option::of(sent_marker()),
        address in sent_text(ADDRESS_BYTES_MAX),
        location in prop_oneof![6 => location().prop_map(|place| place.to_string()), 1 => "[a-z.]{0,6}", 1 => sent_text(LOCATION_BYTES_MAX)],
        cluster_id in vec(any::<u8>(), 0..20),
    ) {
        let mut wrong = faults([
            ("node name", wrong_name(&name)),
            ("marker", wrong_marker(marker.as_ref())),
            ("address", wrong_text(&address, ADDRESS_BYTES_MAX)),
            ("location", wrong_location(&location)),
        ]);
        wrong.extend(wrong_tag(tag.as_ref()));
        is_judged(v1::RegisterRequest { tag, name, marker, address, location, cluster_id }, &wrong)?;
    }

    #[test]
    fn an_activation_is_refused_for_its_faults_only(
        tag in sent_tag(),
        node in small(),
        marker in option::weighted(0.9, sent_marker()),
        incarnation in number(),
        attempt in small(),
    ) {
        let mut wrong = faults([
            ("node", node == 0),
            ("incarnation", incarnation == 0),
            ("marker", marker.as_ref().is_none_or(|marker| wrong_marker(Some(marker)))),
        ]);
        wrong.extend(wrong_tag(tag.as_ref()));
        is_judged(v1::ActivateRequest { tag, node, marker, incarnation, attempt }, &wrong)?;
    }

    #[test]
    fn a_change_of_state_is_refused_for_its_faults_only(
        tag in sent_tag(),
        node in small(),
        to in prop_oneof![8 => 1..8_i32, 1 => Just(0), 1 => any::<i32>()],
        by_node in option::of((option::weighted(0.9, sent_marker()), number())),
        by_operator in option::weighted(0.9, (number(), option::of(sent_text(NODE_NAME_BYTES_MAX)))),
        reason in sent_text(REASON_BYTES_MAX),
    ) {
        use v1::set_state_request::Actor;
        let (actor, wrong_actor) = match (by_node, by_operator) {
            (Some((marker, incarnation)), _) => {
                let wrong = faults([
                    ("by_node.marker", marker.is_none()),
                    ("marker", wrong_marker(marker.as_ref())),
                    ("incarnation", incarnation == 0),
                ]);
                (Some(Actor::ByNode(v1::NodeActor { marker, incarnation })), wrong)
            }
            (None, Some((expected_revision, confirm_name))) => {
                let wrong = confirm_name.as_ref().is_some_and(|name| wrong_text(name, NODE_NAME_BYTES_MAX));
                let force = confirm_name.map(|confirm_name| v1::Force { confirm_name });
                (Some(Actor::ByOperator(v1::OperatorActor { expected_revision, force })), faults([("force.confirm_name", wrong)]))
            }
            (None, None) => (None, faults([("actor", true)])),
        };
        let mut wrong = faults([
            ("node", node == 0),
            ("storage state", !(1..8).contains(&to)),
            ("reason", wrong_text(&reason, REASON_BYTES_MAX)),
        ]);
        wrong.extend(wrong_actor.into_iter().chain(wrong_tag(tag.as_ref())));
        is_judged(v1::SetStateRequest { tag, node, to, actor, reason }, &wrong)?;
    }
}
