//! Values of every type that is written down or sent.

use std::fmt::Debug;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use tally_model::command::{
    ActivateNode, Compact, Force, Found, OpenSession, RegisterNode, SetStorageState,
};
use tally_model::lease::{GrantLease, PassLeaseTime};
use tally_model::{
    Actor, Alarm, Answer, Binding, Claim, ClusterId, Command, Effect, Event, EventId, Globals,
    HistoryEntry, Incarnation, Location, Marker, Node, NodeId, NodeName, Outcome, Refusal,
    Replication, Request, RetryCheck, Revision, Scope, Session, SessionId, SetBy, Settings,
    StorageState, StoredOutcome, Tag, Tagged,
};

use crate::sample_keys::{key_answer, key_op, lease_id};

/// Values with each field drawn on its own. A tuple has at most twelve, so more are given in groups.
macro_rules! each {
    ($($kind:ident)::+ { $($($field:ident: $values:expr),+);+ }) => {
        ($(($($values,)+),)+).prop_map(|($(($($field,)+),)+)| $($kind)::+ { $($($field),+),+ })
    };
}

/// Zero is left out on the wire and one is the first of most things, so both must be among them.
pub(crate) fn number() -> impl Strategy<Value = u64> {
    prop_oneof![1 => select(vec![0, 1, u64::MAX]), 3 => any::<u64>()]
}

pub(crate) fn small() -> impl Strategy<Value = u32> {
    prop_oneof![1 => select(vec![0, 1, u32::MAX]), 3 => any::<u32>()]
}

pub(crate) fn bits() -> impl Strategy<Value = u128> {
    prop_oneof![1 => Just(0), 6 => any::<u128>()]
}

pub(crate) fn counted<T: Debug>(new: fn(u64) -> T) -> impl Strategy<Value = T> {
    number().prop_map(new)
}

pub(crate) fn node_id() -> impl Strategy<Value = NodeId> {
    small().prop_map(NodeId)
}

pub(crate) fn marker() -> impl Strategy<Value = Marker> {
    each! { Marker { bits: bits(), created_unix_ms: number() } }
}

pub(crate) fn tag() -> impl Strategy<Value = Tag> {
    each! { Tag { session: counted(SessionId), sequence: number() } }
}

pub(crate) fn state() -> impl Strategy<Value = StorageState> {
    select(&StorageState::ALL[..])
}

pub(crate) fn set_by() -> impl Strategy<Value = SetBy> {
    select(vec![SetBy::Node, SetBy::Operator])
}

pub(crate) fn text() -> impl Strategy<Value = String> {
    "\\PC{0,20}"
}

pub(crate) fn name() -> impl Strategy<Value = NodeName> {
    "\\PC{1,20}".prop_filter_map("white space only", |text| NodeName::new(text.trim()).ok())
}

pub(crate) fn location() -> impl Strategy<Value = Location> {
    "([a-z0-9-]{1,8}(\\.[a-z0-9-]{1,8})?)?".prop_map(|text| Location::new(text).unwrap())
}

pub(crate) fn replication() -> impl Strategy<Value = Replication> {
    let scopes = vec![Scope::Node, Scope::Zone, Scope::Region];
    each! { Replication { scope: select(scopes), copies: small() } }
}

pub(crate) fn settings() -> impl Strategy<Value = Settings> {
    each! { Settings {
        retry_check: select(vec![RetryCheck::Marker, RetryCheck::Relaxed]),
        replication: option::of(replication()),
        session_idle_ms: number(),
        sessions_max: number(),
        outcomes_per_session_max: number()
    } }
}

pub(crate) fn actor() -> impl Strategy<Value = Actor> {
    let force = each! { Force { confirm_name: text() } };
    let expected = option::of(counted(Revision));
    prop_oneof![
        each! { Actor::Node { marker: marker(), incarnation: counted(Incarnation) } },
        each! { Actor::Operator { expected_revision: expected, force: option::of(force) } },
    ]
}

pub(crate) fn command() -> impl Strategy<Value = Command> {
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
        key_op().prop_map(Command::Keys),
        counted(Revision).prop_map(|revision| Command::Compact(Compact { revision })),
        (lease_id(), number())
            .prop_map(|(lease, ttl_s)| { Command::GrantLease(GrantLease { lease, ttl_s }) }),
        lease_id().prop_map(Command::RevokeLease),
        lease_id().prop_map(Command::RenewLease),
        (number(), number(), number()).prop_map(|(term, from_ms, passed_ms)| {
            Command::PassLeaseTime(PassLeaseTime {
                term,
                from_ms,
                passed_ms,
            })
        }),
        Just(Command::ReclaimVersions),
    ]
}

pub(crate) fn request() -> impl Strategy<Value = Request> {
    let tagged = each! { Tagged {
        tag: tag(), marker: option::of(marker()), acknowledged: number(), digest: bits()
    } };
    each! { Request { tagged: option::of(tagged), command: command() } }
}

pub(crate) fn effect() -> impl Strategy<Value = Effect> {
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
        key_answer().prop_map(Effect::Keys),
        Just(Effect::Compacted),
        any::<bool>().prop_map(|all| Effect::VersionsReclaimed { all }),
        each! { Effect::LeaseGranted { lease: lease_id(), ttl_s: number() } },
        Just(Effect::LeaseRevoked),
        each! { Effect::LeaseRenewed { lease: lease_id(), ttl_s: number() } },
        any::<bool>().prop_map(|all| Effect::LeaseTimePassed { all }),
    ]
}

pub(crate) fn refusal() -> impl Strategy<Value = Refusal> {
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
        Just(Refusal::KeyNotFound),
        each! { Refusal::LeaseNotFound { lease: lease_id() } },
        each! { Refusal::RevisionCompacted {
            asked: counted(Revision), compacted: counted(Revision)
        } },
        each! { Refusal::RevisionInFuture {
            asked: counted(Revision), current: counted(Revision)
        } },
        Just(Refusal::KeyReserved),
        each! { Refusal::LeaseExists { lease: lease_id() } },
        each! { Refusal::LeaseTimeMoved { term: number(), now_ms: number() } },
        each! { Refusal::TooManyLeases { held: number() } },
        Just(Refusal::TooMuchAtOnce),
    ]
}

pub(crate) fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        each! { Outcome::Applied { revision: counted(Revision), effect: effect() } },
        each! { Outcome::Replayed { since: counted(Revision), effect: effect() } },
        refusal().prop_map(Outcome::Refused),
    ]
}

pub(crate) fn answer() -> impl Strategy<Value = Answer> {
    each! { Answer {
        outcome: outcome(),
        repeat: any::<bool>(),
        now: option::of(state()),
        revision: counted(Revision)
    } }
}

pub(crate) fn stored_outcome() -> impl Strategy<Value = StoredOutcome> {
    each! { StoredOutcome { digest: option::of(bits()), outcome: outcome() } }
}

pub(crate) fn node() -> impl Strategy<Value = Node> {
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

pub(crate) fn claim() -> impl Strategy<Value = Claim> {
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

pub(crate) fn session() -> impl Strategy<Value = Session> {
    each! { Session {
        id: counted(SessionId),
        marker: marker(),
        opened_unix_ms: number(),
        used_unix_ms: number(),
        acknowledged: number(),
        outcomes_held: number()
    } }
}

pub(crate) fn history_entry() -> impl Strategy<Value = HistoryEntry> {
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

pub(crate) fn globals() -> impl Strategy<Value = Globals> {
    each! { Globals {
        founded: option::of((bits().prop_map(ClusterId), settings())),
        revision: counted(Revision),
        unix_ms: number(),
        last_node: node_id(),
        sessions: number(),
        history_hash: any::<[u8; 32]>(),
        compacted: counted(Revision),
        reclaimed: (counted(Revision), small()).prop_map(|(revision, number)| {
            EventId { revision, number }
        });
        leases: number(),
        lease_clock_ms: number(),
        lease_term: number()
    } }
}
