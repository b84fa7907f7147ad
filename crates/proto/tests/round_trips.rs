//! What must hold of everything that is written down and of everything that arrives.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fmt::Debug;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;
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

/// Values with each field drawn on its own. A tuple has at most twelve, so more are given in groups.
macro_rules! each {
    ($($kind:ident)::+ { $($($field:ident: $values:expr),+);+ }) => {
        ($(($($values,)+),)+).prop_map(|($(($($field,)+),)+)| $($kind)::+ { $($($field),+),+ })
    };
}

/// Zero is left out on the wire, so it must be among the numbers.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(u64::MAX), any::<u64>()]
}

fn small() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(u32::MAX), any::<u32>()]
}

fn bits() -> impl Strategy<Value = u128> {
    prop_oneof![Just(0), any::<u128>()]
}

fn counted<T: Debug>(new: fn(u64) -> T) -> impl Strategy<Value = T> {
    number().prop_map(new)
}

fn node_id() -> impl Strategy<Value = NodeId> {
    small().prop_map(NodeId)
}

fn marker() -> impl Strategy<Value = Marker> {
    each! { Marker { bits: bits(), created_unix_ms: number() } }
}

fn tag() -> impl Strategy<Value = Tag> {
    each! { Tag { session: counted(SessionId), sequence: number() } }
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
    let scopes = vec![Scope::Node, Scope::Zone, Scope::Region];
    each! { Replication { scope: select(scopes), copies: small() } }
}

fn settings() -> impl Strategy<Value = Settings> {
    each! { Settings {
        retry_check: select(vec![RetryCheck::Marker, RetryCheck::Relaxed]),
        replication: option::of(replication()),
        session_idle_ms: number(),
        sessions_max: number(),
        outcomes_per_session_max: number()
    } }
}

fn actor() -> impl Strategy<Value = Actor> {
    let force = each! { Force { confirm_name: text() } };
    let expected = option::of(counted(Revision));
    prop_oneof![
        each! { Actor::Node { marker: marker(), incarnation: counted(Incarnation) } },
        each! { Actor::Operator { expected_revision: expected, force: option::of(force) } },
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let found = each! { Found { cluster: bits().prop_map(ClusterId), settings: settings() } };
    let register = each! { RegisterNode {
        name: name(), marker: option::of(marker()), address: text(), location: location()
    } };
    let activate = each! { ActivateNode {
        node: node_id(), marker: marker(), incarnation: counted(Incarnation), attempt: small()
    } };
    let set_state = each! { SetStorageState {
        node: node_id(), to: state(), actor: actor(), reason: text()
    } };
    prop_oneof![
        found.prop_map(Command::Found),
        marker().prop_map(|marker| Command::OpenSession(OpenSession { marker })),
        Just(Command::CloseSession),
        Just(Command::SettleRequest),
        register.prop_map(Command::RegisterNode),
        activate.prop_map(Command::ActivateNode),
        set_state.prop_map(Command::SetStorageState),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let tagged = each! { Tagged {
        tag: tag(), marker: marker(), acknowledged: number(), digest: bits()
    } };
    each! { Request { tagged: option::of(tagged), command: command() } }
}

fn effect() -> impl Strategy<Value = Effect> {
    let alarm = each! { Alarm::ReplicationUnsatisfied { needed: small(), writable: small() } };
    prop_oneof![
        Just(Effect::Founded),
        each! { Effect::SessionOpened { session: counted(SessionId) } },
        Just(Effect::SessionClosed),
        each! { Effect::NodeRegistered { node: node_id(), incarnation: counted(Incarnation) } },
        each! { Effect::NodeActivated { node: node_id(), incarnation: counted(Incarnation) } },
        each! { Effect::StorageStateSet {
            node: node_id(), from: state(), to: state(), alarms: vec(alarm, 0..3)
        } },
    ]
}

fn refusal() -> impl Strategy<Value = Refusal> {
    let (current, offered) = (counted(Incarnation), counted(Incarnation));
    let (changed, expected) = (counted(Revision), option::of(counted(Revision)));
    let (allowed, already) = (vec(state(), 0..4), vec(name(), 0..3));
    prop_oneof![
        Just(Refusal::AlreadyFounded),
        Just(Refusal::NotFounded),
        each! { Refusal::TagExpected { expected: any::<bool>() } },
        each! { Refusal::SessionExpired { session: counted(SessionId) } },
        each! { Refusal::RequestReused { stored_digest: bits(), offered_digest: bits() } },
        each! { Refusal::AlreadyAcknowledged { acknowledged: number() } },
        each! { Refusal::TooManyUnacknowledged { held: number(), allowed: number() } },
        each! { Refusal::SessionMarkerMismatch { session: counted(SessionId) } },
        Just(Refusal::Abandoned),
        each! { Refusal::UnknownNode { node: node_id() } },
        each! { Refusal::MarkerMismatch { node: node_id(), stored: marker(), offered: marker() } },
        each! { Refusal::MarkerMissing { node: node_id(), stored: marker() } },
        each! { Refusal::MarkerNotBound { node: node_id() } },
        each! { Refusal::StaleIncarnation { node: node_id(), current: current, offered: offered } },
        each! { Refusal::NotProvisioning { node: node_id(), state: state() } },
        each! { Refusal::NameRemoved { name: name(), node: node_id() } },
        each! { Refusal::TransitionNotAllowed {
            node: node_id(), from: state(), to: state(), allowed: allowed
        } },
        each! { Refusal::RevisionMismatch { node: node_id(), current: changed, expected: expected } },
        each! { Refusal::NotSetByNode { node: node_id(), state: state() } },
        each! { Refusal::ForceNotConfirmed {
            node: node_id(), name: name(), confirmed: text(), reason_given: any::<bool>()
        } },
        each! { Refusal::ReplicationUnsatisfied {
            needed: replication(), writable: small(), already: already
        } },
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        each! { Outcome::Applied { revision: counted(Revision), effect: effect() } },
        each! { Outcome::Replayed { since: counted(Revision), effect: effect() } },
        refusal().prop_map(Outcome::Refused),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    each! { Answer {
        outcome: outcome(),
        repeat: any::<bool>(),
        now: option::of(state()),
        revision: counted(Revision)
    } }
}

fn stored_outcome() -> impl Strategy<Value = StoredOutcome> {
    each! { StoredOutcome { digest: option::of(bits()), outcome: outcome() } }
}

fn node() -> impl Strategy<Value = Node> {
    let binding = each! { Binding { marker: marker(), since: counted(Revision) } };
    each! { Node {
        id: node_id(),
        name: name(),
        address: text(),
        location: location(),
        storage_state: state(),
        incarnation: counted(Incarnation),
        binding: option::of(binding),
        set_by: set_by();
        created_revision: counted(Revision),
        revision: counted(Revision),
        state_revision: counted(Revision),
        state_unix_ms: number(),
        claims_dropped: number()
    } }
}

fn claim() -> impl Strategy<Value = Claim> {
    each! { Claim {
        node: node_id(),
        marker: option::of(marker()),
        tag: tag(),
        first_revision: counted(Revision),
        last_revision: counted(Revision),
        last_unix_ms: number(),
        attempts: number()
    } }
}

fn session() -> impl Strategy<Value = Session> {
    each! { Session {
        id: counted(SessionId),
        marker: marker(),
        opened_unix_ms: number(),
        used_unix_ms: number(),
        acknowledged: number(),
        outcomes_held: number()
    } }
}

fn history_entry() -> impl Strategy<Value = HistoryEntry> {
    let event = prop_oneof![
        each! { Event::Registered { incarnation: counted(Incarnation) } },
        each! { Event::Transitioned {
            from: state(), to: state(), marker: option::of(marker()), forced: any::<bool>()
        } },
        each! { Event::Claimed { marker: option::of(marker()) } },
    ];
    each! { HistoryEntry {
        revision: counted(Revision),
        unix_ms: number(),
        node: node_id(),
        actor: set_by(),
        tag: tag(),
        event: event,
        reason: text(),
        hash: any::<[u8; 32]>()
    } }
}

fn globals() -> impl Strategy<Value = Globals> {
    each! { Globals {
        founded: option::of((bits().prop_map(ClusterId), settings())),
        revision: counted(Revision),
        unix_ms: number(),
        last_node: node_id(),
        sessions: number(),
        history_hash: any::<[u8; 32]>()
    } }
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
        // A field begins with its number, above the three bits of its wire type, as a varint.
        let number = prost::decode_length_delimiter(bytes.as_slice()).unwrap() >> 3;
        prop_assert_eq!(format!("T-{number}"), refusal.code());
    }

    #[test]
    fn digests_are_equal_exactly_where_commands_are(
        commands in vec(command(), 1..8),
        again in any::<Index>(),
    ) {
        let repeated = again.get(&commands).clone();
        for one in &commands {
            for other in commands.iter().chain([&repeated]) {
                let same = digest(one) == digest(other);
                prop_assert_eq!(one == other, same, "{:?} and {:?}", one, other);
            }
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
    let session = prop_oneof![1 => Just(0), 9 => any::<u64>()];
    let tag = (
        session,
        0..12_u64,
        0..4_u64,
        option::weighted(0.9, sent_marker()),
    );
    let tag = tag.prop_map(|(session, sequence, acknowledged, marker)| v1::Tag {
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

type Faults = BTreeSet<&'static str>;

/// The faults that are there, each by the name that an error has for it.
fn faults<const N: usize>(checks: [(&'static str, bool); N]) -> Faults {
    let wrong = checks.into_iter().filter(|(_, wrong)| *wrong);
    wrong.map(|(what, _)| what).collect()
}

fn wrong_bits(marker: &Option<v1::Marker>) -> bool {
    marker
        .as_ref()
        .is_some_and(|marker| marker.bits.len() != 16)
}

fn wrong_text(text: &str, bytes_max: usize) -> bool {
    text.len() > bytes_max || text.chars().any(char::is_control)
}

fn wrong_tag(tag: &Option<v1::Tag>) -> Faults {
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
        ("marker", wrong_bits(&tag.marker)),
    ])
}

/// What a marker without a fault says.
fn meant(marker: v1::Marker) -> Marker {
    Marker {
        bits: u128::from_be_bytes(marker.bits.try_into().unwrap()),
        created_unix_ms: marker.created_unix_ms,
    }
}

/// A message without a fault is the command that it means, which every member can read; any other is
/// refused for one of its faults.
fn is_judged<M>(message: M, faults: &Faults, command: impl FnOnce(M) -> Command) -> TestCaseResult
where
    M: Clone,
    Request: TryFrom<M, Error = DecodeError>,
{
    match Request::try_from(message.clone()) {
        Ok(request) => {
            prop_assert!(
                faults.is_empty(),
                "accepted with {:?}: {:?}",
                faults,
                request
            );
            prop_assert_eq!(&request.command, &command(message));
            comes_back::<storage::Request, Request>(&request)
        }
        Err(error) => {
            prop_assert!(faults.contains(error.what), "{} with {:?}", error, faults);
            Ok(())
        }
    }
}

proptest! {
    #[test]
    fn a_tag_is_refused_for_its_faults_only(tag in sent_tag()) {
        let wrong = wrong_tag(&tag);
        is_judged(v1::CloseSessionRequest { tag: tag.clone() }, &wrong, |_| Command::CloseSession)?;
        is_judged(v1::SettleRequest { tag: tag.clone() }, &wrong, |_| Command::SettleRequest)?;
        if let Ok(request) = Request::try_from(v1::SettleRequest { tag: tag.clone() }) {
            let tag = tag.unwrap();
            let meant = Tagged {
                tag: Tag { session: SessionId(tag.session), sequence: tag.sequence },
                marker: meant(tag.marker.unwrap()),
                acknowledged: tag.acknowledged,
                digest: digest(&Command::SettleRequest),
            };
            prop_assert_eq!(request.tagged, Some(meant));
        }
    }

    #[test]
    fn an_opening_is_refused_for_its_faults_only(marker in option::weighted(0.9, sent_marker())) {
        let wrong = faults([("marker", marker.is_none() || wrong_bits(&marker))]);
        is_judged(v1::OpenSessionRequest { marker }, &wrong, |ask| {
            Command::OpenSession(OpenSession { marker: meant(ask.marker.unwrap()) })
        })?;
    }

    #[test]
    fn a_registration_is_refused_for_its_faults_only(
        tag in sent_tag(),
        name in sent_text(NODE_NAME_BYTES_MAX),
        marker in option::of(sent_marker()),
        address in sent_text(ADDRESS_BYTES_MAX),
        location in prop_oneof![
            6 => location().prop_map(|place| place.to_string()),
            1 => sent_text(LOCATION_BYTES_MAX),
        ],
        cluster_id in vec(any::<u8>(), 0..20),
    ) {
        let mut wrong = faults([
            ("node name", NodeName::new(name.as_str()).is_err()),
            ("marker", wrong_bits(&marker)),
            ("address", wrong_text(&address, ADDRESS_BYTES_MAX)),
            ("location", Location::new(location.as_str()).is_err()),
        ]);
        wrong.extend(wrong_tag(&tag));
        let ask = v1::RegisterRequest { tag, name, marker, address, location, cluster_id };
        is_judged(ask, &wrong, |ask| Command::RegisterNode(RegisterNode {
            name: NodeName::new(ask.name).unwrap(),
            marker: ask.marker.map(meant),
            address: ask.address,
            location: Location::new(ask.location).unwrap(),
        }))?;
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
            ("marker", marker.is_none() || wrong_bits(&marker)),
        ]);
        wrong.extend(wrong_tag(&tag));
        let ask = v1::ActivateRequest { tag, node, marker, incarnation, attempt };
        is_judged(ask, &wrong, |ask| Command::ActivateNode(ActivateNode {
            node: NodeId(ask.node),
            marker: meant(ask.marker.unwrap()),
            incarnation: Incarnation(ask.incarnation),
            attempt: ask.attempt.max(1),
        }))?;
    }

    #[test]
    fn a_change_by_a_node_is_refused_for_its_faults_only(
        tag in sent_tag(),
        node in small(),
        to in prop_oneof![8 => 1..8_i32, 1 => Just(0), 1 => any::<i32>()],
        marker in option::weighted(0.9, sent_marker()),
        incarnation in number(),
        reason in sent_text(REASON_BYTES_MAX),
    ) {
        let mut wrong = faults([
            ("node", node == 0),
            ("storage state", !(1..8).contains(&to)),
            ("by_node.marker", marker.is_none()),
            ("marker", wrong_bits(&marker)),
            ("incarnation", incarnation == 0),
            ("reason", wrong_text(&reason, REASON_BYTES_MAX)),
        ]);
        wrong.extend(wrong_tag(&tag));
        let by_node = v1::NodeActor { marker: marker.clone(), incarnation };
        let actor = Some(v1::set_state_request::Actor::ByNode(by_node));
        let ask = v1::SetStateRequest { tag, node, to, actor, reason };
        is_judged(ask, &wrong, |ask| Command::SetStorageState(SetStorageState {
            node: NodeId(ask.node),
            to: StorageState::ALL[usize::try_from(ask.to - 1).unwrap()],
            actor: Actor::Node {
                marker: meant(marker.unwrap()),
                incarnation: Incarnation(incarnation),
            },
            reason: ask.reason,
        }))?;
    }

    #[test]
    fn a_change_by_an_operator_is_refused_for_its_faults_only(
        tag in sent_tag(),
        asked in option::weighted(0.9, number()),
        confirmed in option::of(sent_text(NODE_NAME_BYTES_MAX)),
    ) {
        use v1::set_state_request::Actor::ByOperator;
        let long = confirmed.as_ref().is_some_and(|name| wrong_text(name, NODE_NAME_BYTES_MAX));
        let mut wrong = faults([
            ("actor", asked.is_none()),
            ("force.confirm_name", asked.is_some() && long),
        ]);
        wrong.extend(wrong_tag(&tag));
        let force = confirmed.clone().map(|confirm_name| v1::Force { confirm_name });
        let by_operator = |expected_revision| v1::OperatorActor { expected_revision, force };
        let actor = asked.map(by_operator).map(ByOperator);
        let ask = v1::SetStateRequest { tag, node: 1, to: 3, actor, reason: String::new() };
        is_judged(ask, &wrong, |_| Command::SetStorageState(SetStorageState {
            node: NodeId(1),
            to: StorageState::ReadOnly,
            actor: Actor::Operator {
                expected_revision: asked.filter(|asked| *asked > 0).map(Revision),
                force: confirmed.map(|confirm_name| Force { confirm_name }),
            },
            reason: String::new(),
        }))?;
    }
}
