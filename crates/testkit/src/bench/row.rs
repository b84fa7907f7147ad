//! What one number of clients brought.

use std::time::Duration;

use serde_json::{Value, json};

use super::Operation;
use super::load::Taken;
use super::store::Whose;
use super::usage::Usage;

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    pub whose: Whose,
    pub operation: Operation,
    pub clients: usize,
    /// Calls, whatever the operation; so in what follows.
    pub commands_per_s: f64,
    pub p50: Duration,
    pub p99: Duration,
    /// Synced writes of the log, summed over the members.
    pub fsyncs_per_command: f64,
    /// Of them, the leader's.
    pub leader_fsyncs_per_command: f64,
    /// Summed over the members.
    pub cpu_per_command: Duration,
    /// Of the member that has most, at the end.
    pub resident_bytes: u64,
    /// Terms that began meanwhile; under load alone none should.
    pub elections: u64,
    /// Requests that had to be sent again.
    pub repeats: u64,
    /// Told to watchers; `None` where there are none.
    pub events_per_s: Option<f64>,
}

impl Row {
    pub(super) fn new(
        whose: Whose,
        operation: Operation,
        clients: usize,
        took: Duration,
        taken: &Taken,
        before: &[Usage],
        after: &[Usage],
    ) -> Self {
        let latencies = &taken.latencies;
        let commands = latencies.len().max(1) as f64;
        let sum = |of: fn(&Usage) -> f64| {
            let total = |usages: &[Usage]| usages.iter().map(of).sum::<f64>();
            (total(after) - total(before)) / commands
        };
        let terms = |usages: &[Usage]| usages.iter().map(|usage| usage.term).max();
        let mut leaders = before.iter().zip(after).filter(|(_, after)| after.leads);
        let of_leader = leaders
            .next()
            .map_or(0, |(before, after)| after.fsyncs - before.fsyncs);
        let resident = after.iter().map(|usage| usage.resident_bytes).max();
        let events_per_s = taken.events as f64 / took.as_secs_f64();
        Self {
            whose,
            operation,
            clients,
            commands_per_s: latencies.len() as f64 / took.as_secs_f64(),
            p50: Duration::from_micros(latencies.value_at_quantile(0.50)),
            p99: Duration::from_micros(latencies.value_at_quantile(0.99)),
            fsyncs_per_command: sum(|usage| usage.fsyncs as f64),
            leader_fsyncs_per_command: of_leader as f64 / commands,
            cpu_per_command: Duration::from_secs_f64(sum(|usage| usage.cpu.as_secs_f64()).max(0.0)),
            resident_bytes: resident.unwrap_or(0),
            elections: terms(after).unwrap_or(0) - terms(before).unwrap_or(0),
            repeats: taken.repeats,
            events_per_s: (operation == Operation::Watch).then_some(events_per_s),
        }
    }

    /// What is different from a row without watchers.
    pub fn beside_none(&self, without: &Self) -> String {
        let ratios = self.ratios(without);
        let events = self.events_per_s.unwrap_or_default() / self.commands_per_s;
        format!("with watchers and without: {ratios}; {events:.2} events for each call")
    }

    /// What is different from the same row of another store.
    pub fn beside_other(&self, other: &Self) -> String {
        let ratios = self.ratios(other);
        format!("{} and {}: {ratios}", self.whose, other.whose)
    }

    fn ratios(&self, other: &Self) -> String {
        let ratio = |of: fn(&Self) -> f64| of(self) / of(other);
        format!(
            "{}, {} clients: calls/s {:.2} to 1, p50 {:.2} to 1, p99 {:.2} to 1, CPU/call {:.2} to 1, \
             {:+.1} MB",
            self.operation,
            self.clients,
            ratio(|row| row.commands_per_s),
            ratio(|row| row.p50.as_secs_f64()),
            ratio(|row| row.p99.as_secs_f64()),
            ratio(|row| row.cpu_per_command.as_secs_f64()),
            megabytes(self.resident_bytes) - megabytes(other.resident_bytes),
        )
    }

    /// As `--json` prints it.
    pub fn to_json(&self) -> Value {
        let mut row = json!({
            "store": self.whose.to_string(),
            "operation": self.operation.to_string(),
            "clients": self.clients,
            "commands_per_s": round(self.commands_per_s, 1.0),
            "p50_us": self.p50.as_micros() as u64,
            "p99_us": self.p99.as_micros() as u64,
            "fsyncs_per_command": round(self.fsyncs_per_command, 1e3),
            "cpu_us_per_command": round(micros(self.cpu_per_command), 10.0),
            "rss_mb": round(megabytes(self.resident_bytes), 10.0),
            "elections": self.elections,
        });
        if let Some(events) = self.events_per_s {
            row["events_per_s"] = round(events, 1.0).into();
        }
        row
    }

    /// Above the rows of a table.
    pub const HEADER: &str = "store  operation         clients  commands/s    p50 ms    p99 ms  \
                              fsyncs/command  (leader's)  CPU us/command  RSS MB  elections  repeats  events/s";

    /// As a line of a table.
    pub fn to_line(&self) -> String {
        let events = self
            .events_per_s
            .map_or("-".to_owned(), |events| format!("{events:.0}"));
        format!(
            "{:<5}  {:<16}  {:>7}  {:>10.0}  {:>8.3}  {:>8.3}  {:>14.3}  {:>10.3}  {:>14.1}  {:>6.1}  {:>9}  \
             {:>7}  {events:>8}",
            self.whose,
            self.operation,
            self.clients,
            self.commands_per_s,
            self.p50.as_secs_f64() * 1e3,
            self.p99.as_secs_f64() * 1e3,
            self.fsyncs_per_command,
            self.leader_fsyncs_per_command,
            micros(self.cpu_per_command),
            megabytes(self.resident_bytes),
            self.elections,
            self.repeats,
        )
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn round(number: f64, parts: f64) -> f64 {
    (number * parts).round() / parts
}
