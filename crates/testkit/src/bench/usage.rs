//! What members have used since they started: CPU and memory from `/proc`, the rest from `/metrics`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::member::Member;

/// `USER_HZ`: what `/proc/PID/stat` counts in, on every architecture that Tally is built for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Of one member.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    pub(super) cpu: Duration,
    pub(super) resident_bytes: u64,
    pub(super) fsyncs: u64,
    pub(super) term: u64,
    pub(super) leads: bool,
}

impl Usage {
    pub(super) async fn of(member: &Member) -> Result<Self> {
        let answer = member.http("/metrics").await?;
        Ok(Self {
            fsyncs: answer.metric("tally_log_syncs_total")?,
            term: answer.metric("tally_raft_term")?,
            leads: answer.metric("tally_raft_is_leader")? == 1,
            ..Self::of_process(member.process_id()?)?
        })
    }

    /// What the system counts of a process; everything else is 0.
    pub(super) fn of_process(process: u32) -> Result<Self> {
        let read = |file: &str| {
            let path = format!("/proc/{process}/{file}");
            fs::read_to_string(&path).with_context(|| path)
        };
        Ok(Self {
            cpu: cpu(&read("stat")?).context("no CPU time in /proc/PID/stat")?,
            resident_bytes: resident(&read("status")?).context("no VmRSS in /proc/PID/status")?,
            ..Self::default()
        })
    }
}

/// User and system time, of all threads that are or were.
fn cpu(stat: &str) -> Option<Duration> {
    // The name in parentheses may hold spaces; what follows is state, ppid, …
    let (_, after) = stat.rsplit_once(") ")?;
    let mut fields = after.split(' ').skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some(Duration::from_secs_f64((user + system) / TICKS_PER_SECOND))
}

fn resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_a_name_with_spaces_and_parentheses() {
        let stat = "77 (a ) b) S 1 77 77 0 -1 4194560 5309 0 1 0 250 150 0 0 20 0 9 0 5 7";
        assert_eq!(cpu(stat), Some(Duration::from_secs(4)));
    }

    #[test]
    fn memory_is_found_by_its_whole_name() {
        let status = "VmHWM:\t    9 kB\nVmRSS:\t   20 kB\n";
        assert_eq!(resident(status), Some(20 << 10));
    }
}
