//! What Prometheus is told. The names are documented in `docs/formats.md` and do not change.

use std::borrow::Cow;
use std::fmt;
use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tally_consensus::Replica;
use tally_listener::Counts;
use tally_model::View;
use tonic::Status;

use crate::member::Member;

/// Of OpenMetrics text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    /// `Ok`, or the gRPC code as in `Unavailable`.
    code: Cow<'static, str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PortLabels {
    port: &'static str,
}

/// What is counted as it happens; the rest is looked up when it is asked for.
pub(crate) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<MethodLabels, Histogram>,
    pub(crate) client_port: Counts,
    pub(crate) peer_port: Counts,
    pub(crate) http_port: Counts,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            // From 0.25 ms to about 8 s.
            seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.000_25, 2.0, 16))
            }),
            client_port: Counts::default(),
            peer_port: Counts::default(),
            http_port: Counts::default(),
        }
    }
}

impl Metrics {
    /// Counts a request of a client.
    pub(crate) fn request<T>(
        &self,
        method: &'static str,
        result: &Result<T, Status>,
        begun: Instant,
    ) {
        let code = match result {
            Ok(_) => Cow::Borrowed("Ok"),
            Err(status) => format!("{:?}", status.code()).into(),
        };
        self.requests
            .get_or_create(&RequestLabels { method, code })
            .inc();
        self.seconds
            .get_or_create(&MethodLabels { method })
            .observe(begun.elapsed().as_secs_f64());
    }
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge: Gauge = Gauge::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    registry.register(name, help, gauge);
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let counter: Counter = Counter::default();
    counter.inc_by(value);
    registry.register(name, help, counter);
}

/// Everything, as text.
pub(crate) fn render(member: &Member) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("tally");
    let registry = &mut registry;
    let answered = member.metrics.requests.clone();
    registry.register(
        "requests",
        "Requests of clients, by method and gRPC code",
        answered,
    );
    let seconds = member.metrics.seconds.clone();
    registry.register("request_seconds", "Time to an answer, seconds", seconds);
    connections(registry, &member.metrics);
    watchers(registry, member);
    raft(registry, member);
    storage(registry, member);
    let mut text = String::new();
    encode(&mut text, registry)?;
    Ok(text)
}

/// What the ports let in and turn away.
fn connections(registry: &mut Registry, metrics: &Metrics) {
    let open: Family<PortLabels, Gauge> = Family::default();
    let turned_away: Family<PortLabels, Counter> = Family::default();
    for (port, counts) in [
        ("client", &metrics.client_port),
        ("peer", &metrics.peer_port),
        ("http", &metrics.http_port),
    ] {
        let labels = PortLabels { port };
        let now = i64::try_from(counts.open()).unwrap_or(i64::MAX);
        open.get_or_create(&labels).set(now);
        let times = counts.turned_away();
        turned_away.get_or_create(&labels).inc_by(times);
    }
    registry.register("connections", "Open connections, by port", open);
    registry.register(
        "connections_turned_away",
        "Connections closed for what the caller did or for lack of room, by port",
        turned_away,
    );
}

fn watchers(registry: &mut Registry, member: &Member) {
    let (all, behind) = member.watchers();
    gauge(
        registry,
        "watchers",
        "Watchers through the etcd API",
        all as u64,
    );
    gauge(
        registry,
        "watchers_reading_history",
        "Those of them that have not caught up, and read the history for themselves",
        behind as u64,
    );
}

fn raft(registry: &mut Registry, member: &Member) {
    let ready = member.not_ready().is_none();
    gauge(
        registry,
        "ready",
        "1 when the member takes requests",
        ready.into(),
    );
    let Ok(replica) = member.replica() else {
        return;
    };
    let status = replica.status();
    let leads = status.leader == Some(member.id());
    gauge(registry, "raft_term", "Current term", status.term);
    gauge(
        registry,
        "raft_has_leader",
        "1 when a leader is known",
        status.leader.is_some().into(),
    );
    gauge(
        registry,
        "raft_is_leader",
        "1 when this member leads",
        leads.into(),
    );
    let voters = status.membership.voters.len();
    gauge(registry, "raft_voters", "Members that vote", voters as u64);
    let index = |index: Option<u64>| index.unwrap_or(0);
    gauge(
        registry,
        "log_last_index",
        "Last entry of the log",
        index(status.last_log_index),
    );
    gauge(
        registry,
        "log_committed_index",
        "Last committed entry",
        index(status.committed_index),
    );
    gauge(
        registry,
        "log_snapshot_index",
        "Last entry that a snapshot covers",
        index(status.snapshot_index),
    );
    gauge(
        registry,
        "log_purged_index",
        "Last entry that is gone from the log",
        index(status.purged_index),
    );
    let mismatches = replica.hash_mismatches().len();
    gauge(
        registry,
        "state_hash_mismatches",
        "Times that another member was in another state after the same entry: any is an alarm",
        mismatches as u64,
    );
    requests(registry, &replica);
}

/// What became of the commands and reads of this member's clients.
fn requests(registry: &mut Registry, replica: &Replica) {
    let counts = replica.counters();
    counter(
        registry,
        "proposals",
        "Commands of clients, turned away or not",
        counts.proposals,
    );
    counter(
        registry,
        "proposals_forwarded",
        "Commands passed on to a leader",
        counts.forwarded,
    );
    counter(
        registry,
        "proposals_retried",
        "Attempts made again: no leader yet, leadership moved, or a link broke",
        counts.retried,
    );
    counter(
        registry,
        "proposals_recognised",
        "Commands whose further attempt found that an earlier one had been applied",
        counts.recognised,
    );
    counter(
        registry,
        "proposals_overloaded",
        "Commands turned away",
        counts.overloaded,
    );
    counter(
        registry,
        "reads_linearizable",
        "Linearizable reads",
        counts.reads,
    );
    counter(
        registry,
        "read_rounds",
        "Rounds that were to serve them",
        counts.read_rounds,
    );
    counter(
        registry,
        "raft_leaders_gone",
        "Leaders whose process was found gone, and that were succeeded without an election timeout",
        counts.leaders_gone,
    );
    counter(
        registry,
        "raft_leaders_spared",
        "Leaders to which the connection broke, and that were left to the election timeout",
        counts.leaders_spared,
    );
}

fn storage(registry: &mut Registry, member: &Member) {
    let (applied, _) = member.stores.state.state_hash();
    gauge(
        registry,
        "state_applied_index",
        "Last applied entry",
        applied,
    );
    let globals = member.stores.state.with_view(|view| view.globals());
    let globals = globals.unwrap_or_default();
    gauge(
        registry,
        "store_revision",
        "The store's revision",
        globals.revision.0,
    );
    gauge(
        registry,
        "compacted_revision",
        "Last compaction: what happened before this revision is given up",
        globals.compacted.0,
    );
    gauge(
        registry,
        "reclaiming",
        "1 while something that was compacted is still to be removed",
        u64::from(globals.is_reclaiming()),
    );
    let counts = member.stores.log.counters();
    counter(
        registry,
        "log_syncs",
        "Synced writes of the log",
        counts.fsyncs,
    );
    counter(
        registry,
        "log_batches",
        "Batches that the log's writer made of what waited",
        counts.groups,
    );
    counter(
        registry,
        "log_entries",
        "Entries written to the log",
        counts.appended_entries,
    );
    counter(
        registry,
        "log_bytes",
        "Bytes of entries written to the log",
        counts.appended_bytes,
    );
}
