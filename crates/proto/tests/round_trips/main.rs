//! What must hold of everything that is written down and of everything that arrives.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[macro_use]
mod sample;
mod sample_keys;

use std::collections::BTreeSet;
use std::fmt::Debug;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::strategy::ValueTree;
use proptest::test_runner::{TestCaseResult, TestRunner};
use prost::Message;
use tally_model::command::{
    ADDRESS_BYTES_MAX, ActivateNode, Force, OpenSession, REASON_BYTES_MAX, RegisterNode,
    SetStorageState,
};
use tally_model::explanation::EXPLANATIONS;
use tally_model::{
    Actor, Answer, Claim, Command, Effect, Globals, HistoryEntry, Incarnation, KeyEvent,
    LOCATION_BYTES_MAX, Lease, Location, Marker, NODE_NAME_BYTES_MAX, Node, NodeId, NodeName,
    Outcome, Refusal, Request, Revision, Session, SessionId, Settings, StorageState, StoredOutcome,
    Tag, Tagged,
};
use tally_proto::convert::{DecodeError, digest};
use tally_proto::{storage, v1};

use sample::*;
use sample_keys::{key_event, lease};

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
    key_event => KeyEvent,
    lease => Lease,
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
        Command::Keys(_) => "keys",
        Command::Compact(_) => "compact",
        Command::GrantLease(_) => "grant lease",
        Command::RevokeLease(_) => "revoke lease",
        Command::RenewLease(_) => "renew lease",
        Command::PassLeaseTime(_) => "pass lease time",
        Command::ReclaimVersions => "reclaim",
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
    assert_eq!(kinds(command(), kind_of_command).len(), 14);
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
    each! { v1::Marker { bits: bits, created_unix_ms: number() } }
}

fn sent_tag() -> impl Strategy<Value = Option<v1::Tag>> {
    let tag = each! { v1::Tag {
        session: number(),
        sequence: 0..40_u64,
        acknowledged: 0..8_u64,
        marker: option::weighted(0.9, sent_marker())
    } };
    option::weighted(0.9, tag)
}

/// Text with and without control characters, within the bound and just beyond it.
fn sent_text(bytes_max: usize) -> impl Strategy<Value = String> {
    let long = (bytes_max - 1..=bytes_max + 1).prop_map(|bytes| "a".repeat(bytes));
    prop_oneof![7 => text(), 1 => "\\PC{0,4}\\p{Cc}\\PC{0,4}", 1 => long]
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
                marker: Some(meant(tag.marker.unwrap())),
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
        let unfit = confirmed.as_ref().is_some_and(|name| wrong_text(name, NODE_NAME_BYTES_MAX));
        let mut wrong = faults([
            ("actor", asked.is_none()),
            ("force.confirm_name", asked.is_some() && unfit),
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
