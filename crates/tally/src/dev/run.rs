//! A running `dev`: finds ports, starts the members, writes the ready file, carries out orders.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;
use tally_model::explanation::codes;
use tally_proto::v1;
use tally_service::{Faults, Listeners};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::control::{self, Ask, Reply};
use super::file::{self, DevFile, MemberAddresses, write_json};
use super::members::{Member, Setup, listen};
use super::{StartArguments, command};
use crate::exit::Failure;
use crate::output::{role_name, say};
use crate::serve::halted;
use crate::signals::Signals;

const NODES_DEFAULT: u16 = 3;
const PORTS_PER_MEMBER: u16 = 3;
/// Pause between two looks for a leader.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// An order to kill the leader waits this long for there to be one.
const LEADER_WITHIN: Duration = Duration::from_secs(5);
/// Another `dev` on the same directory answers within this, or is taken for gone.
const OTHER_DEV_WITHIN: Duration = Duration::from_secs(2);
/// Orders that wait for their turn.
const ORDERS_MAX: usize = 8;

/// What a ready file holds.
#[derive(Debug, Serialize)]
struct Ready<'a> {
    endpoints: Vec<String>,
    members: Vec<&'a MemberAddresses>,
}

struct Dev {
    dir: PathBuf,
    members: Vec<Member>,
    faults: Faults,
}

pub(super) async fn run(dir: PathBuf, arguments: StartArguments) -> Result<(), Failure> {
    arguments.logging.start()?;
    let mut signals = Signals::listen()?;
    std::fs::create_dir_all(&dir)
        .map_err(|error| halted(&format!("cannot create {}: {error}", dir.display())))?;
    refuse_serve_directory(&dir)?;
    refuse_second(&dir).await?;
    if let Some(path) = &arguments.ready_file {
        refuse_unwritable(path)?;
        remove_stale(path)?;
    }
    let remembered = DevFile::read(&dir)?.map(|file| file.members);
    let bound = addresses(&dir, &arguments, remembered)?;
    let (sender, orders) = mpsc::channel(ORDERS_MAX);
    let control = control::listen(sender).await?;
    let mut file = DevFile {
        control: Some(control),
        members: bound
            .iter()
            .map(|(addresses, _)| addresses.clone())
            .collect(),
    };
    file.write(&dir)?;

    let mut dev = Dev::new(dir, bound);
    let ran = tokio::select! {
        ran = dev.serve(arguments.ready_file.as_deref(), orders) => ran,
        () = signals.asked_to_end() => Ok(()),
    };
    dev.stop().await;
    file.control = None;
    file.write(&dev.dir)?;
    ran
}

/// A member that `tally serve` runs keeps its data at the top, where `dev` has a directory for each.
fn refuse_serve_directory(dir: &Path) -> Result<(), Failure> {
    if !dir.join(SERVE_IDENTITY).exists() {
        return Ok(());
    }
    let found = format!(
        "{} holds the data of one member of `tally serve`: it has a file {SERVE_IDENTITY}",
        dir.display()
    );
    Err(Failure::fault(codes::FOREIGN_DIRECTORY, found)
        .expected("an empty directory, or one of an earlier `tally dev`, with --data-dir")
        .next("tally dev --help"))
}

/// The file by which a member's directory is known, see docs/formats.md.
const SERVE_IDENTITY: &str = "IDENTITY";

/// Noticed now, and not when the members have a leader.
fn refuse_unwritable(path: &Path) -> Result<(), Failure> {
    file::probe(path).map_err(|error| {
        let found = format!(
            "--ready-file {}: cannot be written: {error}",
            path.display()
        );
        Failure::fault(codes::INVALID_CONFIG, found)
            .expected("a file in a directory that exists and that this user may write to")
            .next("tally dev --help")
    })
}

/// Two on one directory would give the members' ports to the wrong one.
async fn refuse_second(dir: &Path) -> Result<(), Failure> {
    if control::ask(dir, &Ask::Status, OTHER_DEV_WITHIN)
        .await
        .is_err()
    {
        return Ok(());
    }
    let found = format!("another `tally dev` runs on {}", dir.display());
    Err(Failure::fault(codes::DIRECTORY_LOCKED, found)
        .expected("a directory of its own, with --data-dir")
        .next(command(dir, "status")))
}

/// A ready file of an earlier run would be read as this one's.
fn remove_stale(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(halted(&format!(
            "cannot replace {}: {error}",
            path.display()
        ))),
    }
}

type Bound = Vec<(MemberAddresses, Listeners)>;

/// The members' addresses, listened on: those of the last run on this directory, else as given, else
/// free ones.
fn addresses(
    dir: &Path,
    arguments: &StartArguments,
    remembered: Option<Vec<MemberAddresses>>,
) -> Result<Bound, Failure> {
    let Some(remembered) = remembered.filter(|members| !members.is_empty()) else {
        let nodes = arguments.nodes.unwrap_or(NODES_DEFAULT);
        return (0..nodes)
            .map(|index| fresh(index, arguments.port_base))
            .collect();
    };
    let differs = |found: String| {
        let here = format!("{} has {found}", dir.display());
        Failure::fault(codes::INVALID_CONFIG, here)
            .expected("the same as at the first start, or another --data-dir")
    };
    if let Some(nodes) = arguments.nodes
        && usize::from(nodes) != remembered.len()
    {
        let found = format!("{} members, asked for {nodes}", remembered.len());
        return Err(differs(found));
    }
    if let Some(base) = arguments.port_base {
        let given = port(0, 0, Some(base))?;
        let given = format!("{}:{given}", Ipv4Addr::LOCALHOST);
        if remembered[0].client != given {
            let found = format!(
                "members from {} on, asked for {given}",
                remembered[0].client
            );
            return Err(differs(found));
        }
    }
    let bound = remembered.into_iter().map(|member| {
        let listeners = listen(&member)?;
        Ok((member, listeners))
    });
    bound.collect()
}

/// The port of a member's listener: 0 takes a free one.
fn port(index: u16, listener: u16, base: Option<u16>) -> Result<u16, Failure> {
    let Some(base) = base else {
        return Ok(0);
    };
    let port = base.checked_add(index * PORTS_PER_MEMBER + listener);
    port.ok_or_else(|| {
        let found = format!("--port-base {base} leaves no ports for n{}", index + 1);
        Failure::fault(codes::INVALID_CONFIG, found).expected("a lower port")
    })
}

fn fresh(index: u16, base: Option<u16>) -> Result<(MemberAddresses, Listeners), Failure> {
    let name = format!("n{}", index + 1);
    let on = |listener: u16| -> Result<(TcpListener, String), Failure> {
        let port = port(index, listener, base)?;
        let address = format!("{}:{port}", Ipv4Addr::LOCALHOST);
        let bound = crate::listen::bind(&address, &name)?;
        let address = bound
            .local_addr()
            .map_err(|error| halted(&error.to_string()))?;
        Ok((bound, address.to_string()))
    };
    let (client_listener, client) = on(0)?;
    let (peer_listener, peer) = on(1)?;
    let (http_listener, http) = on(2)?;
    let listeners = Listeners {
        client: client_listener,
        peer: peer_listener,
        http: http_listener,
    };
    let addresses = MemberAddresses {
        name,
        client,
        peer,
        http,
    };
    Ok((addresses, listeners))
}

impl Dev {
    fn new(dir: PathBuf, bound: Bound) -> Self {
        let faults = Faults::default();
        let initial = bound
            .iter()
            .map(|(member, _)| (member.name.clone(), member.peer.clone()));
        let setup = Setup {
            data_dir: dir.clone(),
            initial_cluster: initial.collect(),
            faults: faults.clone(),
        };
        let members = bound
            .into_iter()
            .map(|(addresses, listeners)| Member::new(addresses, setup.clone(), listeners));
        Self {
            members: members.collect(),
            dir,
            faults,
        }
    }

    /// Starts every member and carries out orders; ends only with a failure.
    async fn serve(
        &mut self,
        ready_file: Option<&Path>,
        mut orders: mpsc::Receiver<control::Pending>,
    ) -> Result<(), Failure> {
        for member in &mut self.members {
            member.start().await?;
        }
        say(&format!(
            "{} members start on {}",
            self.members.len(),
            self.dir.display()
        ))?;
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ready = false;
        loop {
            tokio::select! {
                order = orders.recv() => {
                    let Some((ask, reply)) = order else {
                        return Err(halted("nobody listens for orders any more"));
                    };
                    let done = self.obey(ask).await.unwrap_or_else(Reply::from);
                    // Whoever asked may have gone.
                    let _ = reply.send(done);
                }
                _ = looks.tick(), if !ready => {
                    if let Some(leader) = self.serving_leader().await {
                        self.tell_ready(leader, ready_file)?;
                        ready = true;
                    }
                }
            }
        }
    }

    fn tell_ready(&self, leader: usize, ready_file: Option<&Path>) -> Result<(), Failure> {
        let members = Vec::from_iter(self.members.iter().map(Member::addresses));
        let endpoints = members
            .iter()
            .map(|member| format!("http://{}", member.client));
        let ready = Ready {
            endpoints: endpoints.collect(),
            members,
        };
        if let Some(path) = ready_file {
            write_json(path, &ready)?;
        }
        let kill = command(&self.dir, "kill leader");
        say(&format!(
            "{} leads; in another terminal:\n  \
             export TALLY_ENDPOINTS={}\n  \
             tally cluster status\n  \
             {kill}\n\
             Ctrl-C ends it.",
            ready.members[leader].name,
            ready.endpoints.join(",")
        ))
    }

    async fn obey(&mut self, ask: Ask) -> Result<Reply, Failure> {
        match ask {
            Ask::Kill { member } => {
                let member = match member.as_str() {
                    "leader" => self.leader_in_time().await?,
                    name => self.find(name)?,
                };
                let member = &mut self.members[member];
                let role = member.status().await.map(|(status, _)| status.role());
                member.kill().await?;
                let name = member.addresses().name.clone();
                tracing::info!(member = name, "killed");
                Ok(Reply::Killed {
                    member: name,
                    role: role.map_or("stopped", role_name).to_owned(),
                })
            }
            Ask::Start { member } => {
                let index = self.find(&member)?;
                self.members[index].start().await?;
                tracing::info!(member, "started");
                Ok(Reply::Started { member })
            }
            Ask::DropReplies { on } => {
                self.faults.drop_replies.store(on, Ordering::SeqCst);
                Ok(Reply::DropReplies { on })
            }
            Ask::Status => {
                let mut members = Vec::with_capacity(self.members.len());
                for member in &mut self.members {
                    members.push(member.report().await);
                }
                let drop_replies = self.faults.drop_replies.load(Ordering::SeqCst);
                Ok(Reply::Status {
                    drop_replies,
                    members,
                })
            }
        }
    }

    fn find(&self, name: &str) -> Result<usize, Failure> {
        let mut members = self.members.iter();
        members
            .position(|member| member.addresses().name == name)
            .ok_or_else(|| {
                let names: BTreeSet<_> = self
                    .members
                    .iter()
                    .map(|member| member.addresses().name.as_str())
                    .collect();
                let expected = format!("one of {}", Vec::from_iter(names).join(", "));
                let found = format!("there is no member {name}");
                let failure = Failure::fault(codes::NOT_FOUND, found).expected(expected);
                failure.next(command(&self.dir, "status"))
            })
    }

    /// The member that leads in the highest term: an older leader may not know that it lost.
    async fn leader(&mut self) -> Option<(usize, bool)> {
        let mut found: Option<(u64, usize, bool)> = None;
        for (index, member) in self.members.iter_mut().enumerate() {
            let Some((status, ready)) = member.status().await else {
                continue;
            };
            let newer = found.is_none_or(|(term, ..)| status.term > term);
            if status.role() == v1::Role::Leader && newer {
                found = Some((status.term, index, ready));
            }
        }
        found.map(|(_, index, ready)| (index, ready))
    }

    async fn serving_leader(&mut self) -> Option<usize> {
        let (leader, ready) = self.leader().await?;
        ready.then_some(leader)
    }

    async fn leader_in_time(&mut self) -> Result<usize, Failure> {
        let deadline = Instant::now() + LEADER_WITHIN;
        loop {
            if let Some((leader, _)) = self.leader().await {
                return Ok(leader);
            }
            if Instant::now() >= deadline {
                let failure = Failure::fault(codes::NO_LEADER, "no member leads");
                return Err(failure.next(command(&self.dir, "status")));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Ends every member that runs, all at the same time.
    async fn stop(&mut self) {
        let ends = self.members.iter_mut().map(Member::stop);
        // The ones that do not run say so.
        let _ = futures::future::join_all(ends).await;
    }
}

#[cfg(test)]
mod tests;
