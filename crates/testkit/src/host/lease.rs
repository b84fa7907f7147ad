//! One private network of this machine, and the names of what belongs to it, held by a lock: what
//! nobody holds was left by a run that was killed, and is removed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use rand::RngExt;

use super::shell::{output, run};
use crate::port::LOCKS;

const PREFIX: &str = "tally-";
/// Networks are 10.64.0.0/24 to 10.127.255.0/24.
const NETWORKS: u16 = 64 * 256;
const ATTEMPTS_MAX: usize = 1_000;

/// A network that nobody else on this machine uses. Its namespaces are removed when it is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    network: u16,
    _lock: File,
}

impl Lease {
    /// Takes a free network.
    pub(super) fn take() -> Result<Self> {
        let routes = output("ip", &["-4", "-o", "route", "show"])?;
        for _ in 0..ATTEMPTS_MAX {
            let network = rand::rng().random_range(0..NETWORKS);
            let Some(lease) = Self::try_take(network)? else {
                continue;
            };
            let [a, b, c, _] = lease.address(0).octets();
            if !routes.contains(&format!("{a}.{b}.{c}.")) {
                return Ok(lease);
            }
        }
        bail!("no free network in 10.64.0.0/10 after {ATTEMPTS_MAX} attempts")
    }

    /// `None` when somebody holds it.
    fn try_take(network: u16) -> Result<Option<Self>> {
        let dir = Path::new(LOCKS).join("tally-testkit-networks");
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let path: PathBuf = dir.join(format!("{network:04x}"));
        let lock = File::create(&path).with_context(|| format!("opening {}", path.display()))?;
        if lock.try_lock().is_err() {
            return Ok(None);
        }
        Ok(Some(Self {
            network,
            _lock: lock,
        }))
    }

    /// The namespace of a member, or of the switch.
    pub(super) fn namespace(&self, name: &str) -> String {
        format!("{PREFIX}{:04x}-{name}", self.network)
    }

    /// This machine's port on the switch.
    pub(super) fn interface(&self) -> String {
        format!("{PREFIX}{:04x}", self.network)
    }

    pub(super) fn address(&self, last: u8) -> Ipv4Addr {
        let [high, low] = self.network.to_be_bytes();
        Ipv4Addr::new(10, 64 + high, low, last)
    }

    /// Gives the network up and leaves everything behind, as a run that is killed does.
    #[cfg(test)]
    pub(super) fn forget(&self) -> Result<()> {
        Ok(self._lock.unlock()?)
    }

    /// Ends what still runs in the namespaces and removes them, and with them the switch.
    fn clean(&self) {
        let prefix = self.namespace("");
        let Ok(all) = namespaces() else {
            return;
        };
        for namespace in all.iter().filter(|name| name.starts_with(&prefix)) {
            let running = output("ip", &["netns", "pids", namespace]).unwrap_or_default();
            for id in running.split_whitespace() {
                // It may have ended by itself.
                let _ = Command::new("kill").args(["-9", id]).status();
            }
            if let Err(error) = run("ip", &["netns", "del", namespace]) {
                eprintln!("{namespace} is left behind: {error:#}");
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.clean();
    }
}

/// Removes what runs that were killed have left behind.
pub(super) fn sweep() -> Result<()> {
    let networks: BTreeSet<u16> = namespaces()?
        .iter()
        .filter_map(|name| name.strip_prefix(PREFIX)?.split_once('-'))
        .filter_map(|(network, _)| u16::from_str_radix(network, 16).ok())
        .collect();
    for network in networks {
        // Taken and dropped at once, which cleans it; not when somebody holds it.
        drop(Lease::try_take(network)?);
    }
    Ok(())
}

fn namespaces() -> Result<Vec<String>> {
    let listed = output("ip", &["netns", "list"])?;
    let names = listed.lines().filter_map(|line| line.split(' ').next());
    Ok(names.map(str::to_owned).collect())
}
