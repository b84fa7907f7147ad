//! A cluster of `tally serve` processes on this machine.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tally_proto::v1;
use tempfile::TempDir;
use v1::cluster_client::ClusterClient;

use crate::call::timed;
use crate::command::Operator;
use crate::deadline::until;
use crate::host::Hosts;
use crate::lacking::lacking;
use crate::member::Member;
use crate::requester::channel;

/// Formation, an election or a catch-up on a machine that is busy with other tests.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// Lines of each member's log that are shown when a test did not come to its end.
const LOG_LINES_SHOWN: usize = 80;

/// Members `n1`, `n2`, … with their directories. Whoever started it calls [`Cluster::stop`] at the
/// end; a cluster that is dropped before has failed, so its members' logs are printed.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<Member>,
    arguments: Vec<String>,
    /// After the members, so that they end first.
    hosts: Option<Hosts>,
    dir: TempDir,
    stopped: bool,
}

impl Cluster {
    /// Starts `count` members and waits until they have formed a cluster with a leader.
    ///
    /// # Errors
    /// When they have not after a minute.
    pub async fn start(count: usize) -> Result<Self> {
        Self::start_with(count, &[]).await
    }

    /// Starts with more arguments to every `tally serve`.
    ///
    /// # Errors
    /// As for [`Cluster::start`].
    pub async fn start_with(count: usize, arguments: &[&str]) -> Result<Self> {
        let mut cluster = Self::prepare(count, arguments)?;
        cluster.restart_all().await?;
        Ok(cluster)
    }

    /// Directories and addresses for `count` members, none of which runs yet.
    ///
    /// # Errors
    /// When there are no free ports or no room for directories.
    pub fn prepare(count: usize, arguments: &[&str]) -> Result<Self> {
        Self::prepare_in(&std::env::temp_dir(), count, arguments)
    }

    /// As [`Cluster::prepare`], with everything in a new directory below `parent`.
    ///
    /// # Errors
    /// As for [`Cluster::prepare`].
    pub fn prepare_in(parent: &Path, count: usize, arguments: &[&str]) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("tally-cluster-")
            .tempdir_in(parent)
            .with_context(|| format!("making a directory in {}", parent.display()))?;
        let members = (1..=count).map(|number| Member::new(format!("n{number}"), dir.path()));
        Ok(Self {
            members: members.collect::<Result<_>>()?,
            arguments: arguments.iter().map(|&text| text.to_owned()).collect(),
            hosts: None,
            dir,
            stopped: false,
        })
    }

    /// Starts members on hosts of their own, between which packets can be lost. `None` where this
    /// machine cannot have such hosts, which is said loudly.
    ///
    /// # Errors
    /// As for [`Cluster::start`], and where `CI` is set although there can be no hosts.
    pub async fn start_on_hosts(count: usize, arguments: &[&str]) -> Result<Option<Self>> {
        let Some(mut cluster) = Self::prepare_on_hosts(count, arguments)? else {
            return Ok(None);
        };
        cluster.restart_all().await?;
        Ok(Some(cluster))
    }

    /// The same, with members none of which runs yet.
    ///
    /// # Errors
    /// As for [`Cluster::prepare`], and where `CI` is set although there can be no hosts.
    pub fn prepare_on_hosts(count: usize, arguments: &[&str]) -> Result<Option<Self>> {
        if let Err(why) = Hosts::possible() {
            lacking("a partition of the network", &why)?;
            return Ok(None);
        }
        let mut cluster = Self::prepare(count, arguments)?;
        cluster.move_to_hosts()?;
        Ok(Some(cluster))
    }

    /// Gives hosts of their own to members that do not run yet.
    ///
    /// # Errors
    /// When this machine cannot have hosts; see [`Hosts::possible`].
    pub fn move_to_hosts(&mut self) -> Result<()> {
        let hosts = Hosts::make(&self.names())?;
        for member in &mut self.members {
            member.move_to(hosts.host(member.name())?);
        }
        self.hosts = Some(hosts);
        Ok(())
    }

    /// The network between the members.
    ///
    /// # Errors
    /// When they do not run on hosts of their own.
    pub fn hosts(&self) -> Result<&Hosts> {
        let hosts = self.hosts.as_ref();
        hosts.context("the members are not on hosts of their own")
    }

    /// True when packets between members can be lost.
    pub fn is_on_hosts(&self) -> bool {
        self.hosts.is_some()
    }

    /// From now on a member is started with this environment variable.
    ///
    /// # Errors
    /// When there is no such member.
    pub fn set_variable(&mut self, name: &str, variable: &str, value: String) -> Result<()> {
        self.member_mut(name)?.set_variable(variable, value);
        Ok(())
    }

    /// Where everything of this cluster is, until it is dropped.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Every member's name.
    pub fn names(&self) -> Vec<String> {
        let names = self.members.iter().map(|member| member.name().to_owned());
        names.collect()
    }

    /// A member by name.
    ///
    /// # Errors
    /// When there is none.
    pub fn member(&self, name: &str) -> Result<&Member> {
        let mut members = self.members.iter();
        members
            .find(|member| member.name() == name)
            .with_context(|| format!("no member {name}"))
    }

    fn member_mut(&mut self, name: &str) -> Result<&mut Member> {
        let mut members = self.members.iter_mut();
        members
            .find(|member| member.name() == name)
            .with_context(|| format!("no member {name}"))
    }

    /// Where clients reach a member.
    ///
    /// # Errors
    /// When there is no such member.
    pub fn address(&self, name: &str) -> Result<String> {
        Ok(self.member(name)?.client_address())
    }

    /// The `tally` command, with every member as an endpoint.
    pub fn operator(&self) -> Operator {
        Operator::new(self.members.iter().map(Member::client_address).collect())
    }

    /// Starts a member's process and does not wait for anything.
    ///
    /// # Errors
    /// When it runs already or cannot be started.
    pub fn launch(&mut self, name: &str) -> Result<()> {
        let all: Vec<String> = self
            .members
            .iter()
            .map(|member| format!("{}={}", member.name(), member.announced()))
            .collect();
        let more = self.arguments.clone();
        self.member_mut(name)?.start(&all.join(","), &more)
    }

    /// From the next start on, the members reach this one at another address, such as a proxy's.
    ///
    /// # Errors
    /// When there is no such member.
    pub fn announce(&mut self, name: &str, address: String) -> Result<()> {
        self.member_mut(name)?.announce(address);
        Ok(())
    }

    /// Waits until a member has ended by itself, and returns its exit code; `None` when a signal
    /// ended it.
    ///
    /// # Errors
    /// When it still runs after `within`, or was not started.
    pub async fn ended(&mut self, name: &str, within: Duration) -> Result<Option<i32>> {
        self.member_mut(name)?.ended(within).await
    }

    /// Starts a member and waits until it is ready.
    ///
    /// # Errors
    /// When it is not after a minute.
    pub async fn restart(&mut self, name: &str) -> Result<()> {
        self.launch(name)?;
        self.ready(name).await
    }

    /// Starts every member that does not run and waits until all are ready.
    ///
    /// # Errors
    /// When they are not after a minute.
    pub async fn restart_all(&mut self) -> Result<()> {
        for name in self.names() {
            if !self.member(&name)?.is_started() {
                self.launch(&name)?;
            }
        }
        self.all_ready().await
    }

    /// SIGKILL; a member that does not run stays as it is.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        self.member_mut(name)?.kill()
    }

    /// SIGKILL to every member.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill_all(&mut self) -> Result<()> {
        self.members.iter_mut().try_for_each(Member::kill)
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// When the member does not run.
    pub fn pause(&self, name: &str) -> Result<()> {
        self.member(name)?.pause()
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When the member does not run.
    pub fn resume(&self, name: &str) -> Result<()> {
        self.member(name)?.resume()
    }

    /// SIGTERM to one member, and waits until it has ended well.
    ///
    /// # Errors
    /// When it takes too long or its exit code is not 0.
    pub async fn stop_member(&mut self, name: &str) -> Result<()> {
        self.member_mut(name)?.stop().await
    }

    /// SIGTERM to one member, and does not wait; [`Cluster::ended`] does.
    ///
    /// # Errors
    /// When the member does not run.
    pub fn ask_to_end(&self, name: &str) -> Result<()> {
        self.member(name)?.ask_to_end()
    }

    /// Removes the data directory of a member that does not run.
    ///
    /// # Errors
    /// When it runs, or the directory cannot be removed.
    pub fn wipe(&self, name: &str) -> Result<()> {
        self.member(name)?.wipe()
    }

    /// Ends every member with SIGTERM. The last call of a test that went well.
    ///
    /// # Errors
    /// When a member does not end, or not with exit code 0.
    pub async fn stop(mut self) -> Result<()> {
        for member in &mut self.members {
            member.stop().await?;
        }
        self.stopped = true;
        Ok(())
    }

    /// Waits until a member says that it serves.
    ///
    /// # Errors
    /// When it does not after a minute, or its process ended.
    pub async fn ready(&mut self, name: &str) -> Result<()> {
        until(&format!("{name} ready"), SETTLED_WITHIN, async || {
            self.member_mut(name)?.still_runs()?;
            let answer = self.member(name)?.http("/readyz").await?;
            ensure!(answer.status == 200, "/readyz says {answer:?}");
            Ok(())
        })
        .await
    }

    /// Waits until a member that was started on an empty directory says so: it may be put in its own place then.
    ///
    /// # Errors
    /// When it does not after a minute.
    pub async fn says_it_was_emptied(&self, name: &str) -> Result<()> {
        until(&format!("{name} was emptied"), SETTLED_WITHIN, async || {
            let answer = self.member(name)?.http("/readyz").await?;
            ensure!(answer.body.contains("T-011"), "{answer:?}");
            Ok(())
        })
        .await
    }

    /// Waits until every started member is ready and they agree on a leader.
    ///
    /// # Errors
    /// When they do not after a minute.
    pub async fn all_ready(&mut self) -> Result<()> {
        for name in self.started() {
            self.ready(&name).await?;
        }
        self.leader().await?;
        Ok(())
    }

    /// What a member knows.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self, name: &str) -> Result<v1::StatusResponse> {
        self.member(name)?.status().await
    }

    /// What these members know, by name.
    async fn statuses(&self, names: &[String]) -> Result<BTreeMap<String, v1::StatusResponse>> {
        let mut statuses = BTreeMap::new();
        for name in names {
            statuses.insert(name.clone(), self.status(name).await?);
        }
        Ok(statuses)
    }

    /// Waits until all started members name the same running leader, and returns its name.
    ///
    /// # Errors
    /// When they do not after a minute.
    pub async fn leader(&self) -> Result<String> {
        self.leader_among(&self.started()).await
    }

    /// Waits until these members name the same one of them as leader, and returns its name.
    ///
    /// # Errors
    /// When they do not after a minute.
    pub async fn leader_among(&self, names: &[String]) -> Result<String> {
        until("a leader that all agree on", SETTLED_WITHIN, async || {
            let statuses = self.statuses(names).await?;
            let mut leaders = statuses
                .iter()
                .filter(|(_, status)| status.role() == v1::Role::Leader);
            let (name, leader) = leaders.next().context("no member leads")?;
            ensure!(leaders.next().is_none(), "two members think that they lead");
            for (follower, status) in &statuses {
                ensure!(
                    status.leader == leader.member && status.term == leader.term,
                    "{name} leads term {}, but {follower} is in term {}",
                    leader.term,
                    status.term
                );
            }
            Ok(name.clone())
        })
        .await
    }

    /// Every started member but the leader.
    ///
    /// # Errors
    /// When there is no leader.
    pub async fn followers(&self) -> Result<Vec<String>> {
        let (_, followers) = self.leader_and_followers().await?;
        Ok(followers)
    }

    /// Waits as [`Self::leader`] does, and returns its name and those of all other started members.
    ///
    /// # Errors
    /// As [`Self::leader`].
    pub async fn leader_and_followers(&self) -> Result<(String, Vec<String>)> {
        let leader = self.leader().await?;
        let mut followers = self.started();
        followers.retain(|name| *name != leader);
        Ok((leader, followers))
    }

    /// Members that were started and neither killed nor stopped since.
    pub fn started(&self) -> Vec<String> {
        let started = self.members.iter().filter(|member| member.is_started());
        started.map(|member| member.name().to_owned()).collect()
    }

    /// Hands leadership to a member and waits until all agree.
    ///
    /// # Errors
    /// When leadership does not move there.
    pub async fn transfer_leader(&self, to: &str) -> Result<()> {
        let ask = v1::TransferLeaderRequest { to: to.to_owned() };
        let address = self.address(&self.leader().await?)?;
        let mut client = ClusterClient::new(channel(&address).await?);
        client.transfer_leader(timed(&ask, SETTLED_WITHIN)).await?;
        until("leadership moved", SETTLED_WITHIN, async || {
            let leader = self.leader().await?;
            ensure!(leader == to, "{leader} leads, not {to}");
            Ok(())
        })
        .await
    }

    /// Waits until all started members have applied the same entries, and returns the last one's
    /// index.
    ///
    /// # Errors
    /// When they have not after a minute, and at once when equal entries gave unequal states.
    pub async fn state_hashes_agree(&self) -> Result<u64> {
        let agreed = until("equal applied indices", SETTLED_WITHIN, async || {
            let statuses: Vec<_> = self
                .statuses(&self.started())
                .await?
                .into_values()
                .collect();
            let first = statuses.first().context("no member runs")?;
            let index = first.applied_index;
            ensure!(
                statuses.iter().all(|status| status.applied_index == index),
                "applied: {:?}",
                Vec::from_iter(statuses.iter().map(|status| status.applied_index))
            );
            Ok((index, compare(&statuses)))
        });
        let (index, equal) = agreed.await?;
        equal?;
        Ok(index)
    }
}

/// Members that applied the same entries must be in the same state.
pub(crate) fn compare(statuses: &[v1::StatusResponse]) -> Result<()> {
    for status in statuses {
        let (index, hash) = (status.applied_index, &status.state_hash);
        ensure!(
            hash.len() == 16,
            "{}: {} bytes of hash",
            status.name,
            hash.len()
        );
        if *hash != statuses[0].state_hash {
            bail!(
                "{} differs from {} at {index}",
                status.name,
                statuses[0].name
            );
        }
        ensure!(
            status.hash_mismatches.is_empty(),
            "{} found other hashes: {:?}",
            status.name,
            status.hash_mismatches
        );
    }
    Ok(())
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.stopped {
            return;
        }
        for member in &mut self.members {
            let log = member.log();
            let lines: Vec<&str> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
            eprintln!("--- end of {}'s log", member.name());
            for line in shown {
                eprintln!("{line}");
            }
            // The process ends with the member in any case.
            let _ = member.kill();
        }
        if std::env::var_os("TALLY_TEST_KEEP").is_some() {
            self.dir.disable_cleanup(true);
            eprintln!("--- kept: {}", self.dir.path().display());
        }
    }
}
