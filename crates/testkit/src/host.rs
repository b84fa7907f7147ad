//! Hosts of their own for members: network namespaces of this machine, joined by a switch, whose
//! packets can be lost.
//!
//! The switch is a namespace too, so that the firewall of this machine has no say in what passes it,
//! and everything is gone with the namespaces. This machine has a port on the switch: clients that run
//! here reach every member.

mod lease;
mod shell;

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use lease::Lease;
use shell::run;

/// This machine's last byte of an address on the switch; members count on from there.
const CLIENTS: u8 = 1;
const FIRST_MEMBER: u8 = 11;
const MEMBERS_MAX: usize = 100;

/// Hosts, one for each member, until dropped.
#[derive(Debug)]
pub struct Hosts {
    lease: Lease,
    names: Vec<String>,
}

/// Where a member runs.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) address: Ipv4Addr,
    namespace: String,
}

impl Host {
    /// The program as a process of that host. `ip` becomes the program, so that the process id is the
    /// program's own.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace])
            .arg(program);
        command
    }
}

impl Hosts {
    /// Says why this machine cannot have hosts, if it cannot.
    ///
    /// # Errors
    /// When the user is not root, or `ip` or `iptables` is missing or forbidden.
    pub fn possible() -> Result<()> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "network namespaces need root; found another user"
        );
        let install = "install iproute2 and iptables: scripts/setup";
        run("ip", &["netns", "list"]).context(install)?;
        run("iptables", &["--version"]).context(install)?;
        Ok(())
    }

    /// Makes a host for each name.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn make(names: &[String]) -> Result<Self> {
        ensure!(
            names.len() <= MEMBERS_MAX,
            "{} hosts are too many",
            names.len()
        );
        lease::sweep()?;
        let hosts = Self {
            lease: Lease::take()?,
            names: names.to_vec(),
        };
        hosts.build().context("making hosts for members")?;
        Ok(hosts)
    }

    fn build(&self) -> Result<()> {
        let switch = self.lease.namespace("switch");
        let port = self.lease.interface();
        run("ip", &["netns", "add", &switch])?;
        run(
            "ip",
            &["-n", &switch, "link", "add", "br0", "type", "bridge"],
        )?;
        run("ip", &["-n", &switch, "link", "set", "br0", "up"])?;
        self.plug(&switch, "clients", &["name", &port])?;
        let address = self.cidr(CLIENTS);
        run("ip", &["addr", "add", &address, "dev", &port])?;
        run("ip", &["link", "set", &port, "up"])?;
        for (number, name) in self.names.iter().enumerate() {
            let namespace = self.lease.namespace(name);
            run("ip", &["netns", "add", &namespace])?;
            self.plug(&switch, name, &["name", "eth0", "netns", &namespace])?;
            let address = self.cidr(last_byte(number)?);
            run(
                "ip",
                &["-n", &namespace, "addr", "add", &address, "dev", "eth0"],
            )?;
            run("ip", &["-n", &namespace, "link", "set", "eth0", "up"])?;
            run("ip", &["-n", &namespace, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    /// A cable from the switch to `other_end`.
    fn plug(&self, switch: &str, port: &str, other_end: &[&str]) -> Result<()> {
        // Made in the switch's namespace, which is another one than that of the other end.
        let mut other_end = other_end.to_vec();
        let here = std::process::id().to_string();
        if !other_end.contains(&"netns") {
            other_end.extend(["netns", &here]);
        }
        let cable = ["-n", switch, "link", "add", port, "type", "veth", "peer"];
        run("ip", &[&cable, other_end.as_slice()].concat())?;
        run(
            "ip",
            &["-n", switch, "link", "set", port, "master", "br0", "up"],
        )
    }

    fn cidr(&self, last: u8) -> String {
        format!("{}/24", self.lease.address(last))
    }

    /// Where a member runs.
    pub(crate) fn host(&self, name: &str) -> Result<Host> {
        Ok(Host {
            address: self.address(name)?,
            namespace: self.lease.namespace(name),
        })
    }

    fn address(&self, name: &str) -> Result<Ipv4Addr> {
        let number = self.names.iter().position(|known| known == name);
        let number = number.with_context(|| format!("no host is called {name}"))?;
        Ok(self.lease.address(last_byte(number)?))
    }

    /// From now on these two hear nothing of each other, and are told nothing of it.
    ///
    /// # Errors
    /// When the system refuses, here and below.
    pub fn cut(&self, one: &str, other: &str) -> Result<()> {
        self.cut_one_way(one, other)?;
        self.cut_one_way(other, one)
    }

    /// From now on nothing of what `from` sends arrives at `to`; the sender is told nothing.
    pub fn cut_one_way(&self, from: &str, to: &str) -> Result<()> {
        self.stop(from, to, &["DROP"])
    }

    /// From now on nothing that the port of `from` sends arrives at `to`: what `to` asks there is heard, and never
    /// answered. What `from` itself asks `to` goes on.
    pub fn swallow_answers(&self, from: &str, port: u16, to: &str) -> Result<()> {
        let (source, port) = (self.address(from)?.to_string(), port.to_string());
        let rule = ["-w", "-A", "INPUT", "-p", "tcp", "-s", &source];
        self.iptables(to, &[&rule[..], &["--sport", &port, "-j", "DROP"]].concat())
    }

    /// From now on `to` refuses what `from` sends: connections are reset, new ones refused.
    pub fn refuse(&self, from: &str, to: &str) -> Result<()> {
        self.stop(from, to, &["REJECT", "--reject-with", "tcp-reset"])
    }

    /// From now on this one and all others hear nothing of each other. Clients still reach it.
    pub fn isolate(&self, name: &str) -> Result<()> {
        self.mute(name)?;
        self.deafen(name)
    }

    /// From now on no other member hears this one.
    pub fn mute(&self, name: &str) -> Result<()> {
        let mut others = self.others(name);
        others.try_for_each(|other| self.cut_one_way(name, other))
    }

    /// From now on this one hears no other member.
    pub fn deafen(&self, name: &str) -> Result<()> {
        let mut others = self.others(name);
        others.try_for_each(|other| self.cut_one_way(other, name))
    }

    /// From now on clients on this machine hear nothing of this one.
    pub fn cut_clients(&self, name: &str) -> Result<()> {
        self.stop_from(self.lease.address(CLIENTS), name, &["DROP"])
    }

    /// Everything passes again.
    pub fn heal(&self) -> Result<()> {
        let mut names = self.names.iter();
        names.try_for_each(|name| self.iptables(name, &["-w", "-F"]))
    }

    fn others(&self, name: &str) -> impl Iterator<Item = &String> {
        self.names.iter().filter(move |other| *other != name)
    }

    fn stop(&self, from: &str, to: &str, target: &[&str]) -> Result<()> {
        self.stop_from(self.address(from)?, to, target)
    }

    fn stop_from(&self, source: Ipv4Addr, to: &str, target: &[&str]) -> Result<()> {
        let source = source.to_string();
        let rule = ["-w", "-A", "INPUT", "-p", "tcp", "-s", &source, "-j"];
        self.iptables(to, &[&rule, target].concat())
    }

    fn iptables(&self, name: &str, arguments: &[&str]) -> Result<()> {
        let namespace = self.lease.namespace(name);
        let program = ["netns", "exec", &namespace, "iptables"];
        run("ip", &[&program, arguments].concat())
    }
}

fn last_byte(number: usize) -> Result<u8> {
    Ok(FIRST_MEMBER + u8::try_from(number)?)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::process::Stdio;

    use super::*;
    use crate::lacking::lacking;

    #[test]
    fn namespaces_go_away_with_their_hosts_and_after_a_crash() -> Result<()> {
        if let Err(why) = Hosts::possible() {
            return lacking("hosts", &why);
        }
        let there = |namespace: &str| -> Result<bool> {
            Ok(shell::output("ip", &["netns", "list"])?.contains(namespace))
        };
        let hosts = Hosts::make(&["n1".to_owned()])?;
        let namespace = hosts.lease.namespace("n1");
        assert!(there(&namespace)?);
        drop(hosts);
        assert!(!there(&namespace)?);

        // What a run leaves behind that is killed.
        let hosts = Hosts::make(&["n1".to_owned()])?;
        let namespace = hosts.lease.namespace("n1");
        hosts.lease.forget()?;
        assert!(there(&namespace)?);
        lease::sweep()?;
        assert!(!there(&namespace)?);
        Ok(())
    }

    #[test]
    fn a_process_has_its_own_id_and_its_packets_are_lost_as_told() -> Result<()> {
        if let Err(why) = Hosts::possible() {
            return lacking("hosts", &why);
        }
        let hosts = Hosts::make(&["n1".to_owned(), "n2".to_owned()])?;
        let host = hosts.host("n1")?;
        let shell = Path::new("/bin/sh");
        let mut said = host.command(shell);
        let said = said.args(["-c", "echo $$"]).stdout(Stdio::piped());
        let mut child = said.spawn()?;
        let mut id = String::new();
        let mut pipe = child.stdout.take().context("no pipe")?;
        pipe.read_to_string(&mut id)?;
        child.wait()?;
        assert_eq!(id.trim(), child.id().to_string());

        // A listener of this machine stands for a client's end of a connection.
        let listener = TcpListener::bind((hosts.lease.address(CLIENTS), 0))?;
        let address = listener.local_addr()?;
        let connects = || -> Result<bool> {
            let script = format!("exec 3<>/dev/tcp/{}/{}", address.ip(), address.port());
            let mut shell = host.command(Path::new("/usr/bin/timeout"));
            let status = shell.args(["0.3", "bash", "-c", &script]).status()?;
            Ok(status.success())
        };
        assert!(connects()?);
        hosts.cut_clients("n1")?;
        assert!(!connects()?);
        hosts.heal()?;
        assert!(connects()?);
        Ok(())
    }
}
