//! Ports that nobody else takes, also while the process that listens on them is down.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rand::RngExt;

/// Below the range from which systems give out ports for outgoing connections, so that a killed
/// member's port is still free when it comes back.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
const ATTEMPTS_MAX: usize = 1_000;

/// Where locks of what the machine has once are: the same place for everybody, whatever `TMPDIR` says.
pub(crate) const LOCKS: &str = "/tmp";

/// A free port of this machine, held by a lock among all testkits of this machine.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lease: File,
}

impl Port {
    /// Takes one.
    ///
    /// # Errors
    /// When none is free or the directory for the locks cannot be written.
    pub fn take() -> Result<Self> {
        let leases = Path::new(LOCKS).join("tally-testkit-ports");
        fs::create_dir_all(&leases).with_context(|| format!("creating {}", leases.display()))?;
        for _ in 0..ATTEMPTS_MAX {
            let number = rand::rng().random_range(PORTS);
            let lease = File::create(leases.join(number.to_string()))?;
            if lease.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Ok(Self {
                    number,
                    _lease: lease,
                });
            }
        }
        bail!("no free port found in {PORTS:?} after {ATTEMPTS_MAX} attempts")
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        self.address_at(Ipv4Addr::LOCALHOST)
    }

    /// The same number at another address of this machine.
    pub(crate) fn address_at(&self, host: Ipv4Addr) -> String {
        format!("{host}:{}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_not_given_twice() {
        let ports: Vec<Port> = (0..50).map(|_| Port::take().expect("free")).collect();
        let mut numbers: Vec<u16> = ports.iter().map(|port| port.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), ports.len());
    }
}
