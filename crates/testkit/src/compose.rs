//! The cluster of `deploy/compose.yaml`: members in containers, under a project name of this run alone,
//! and what befalls them: killed, or cut off from their network. Removed with everything when dropped.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tally_proto::v1;
use v1::cluster_client::ClusterClient;

use crate::call::timed;
use crate::cluster::compare;
use crate::deadline::until;
use crate::port::Port;
use crate::requester::channel;

/// Containers start and a cluster forms.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);
const STATUS_WITHIN: Duration = Duration::from_secs(2);
/// Lines of each container's log that are shown when the story did not come to its end.
const LOG_LINES_SHOWN: &str = "40";
const NAMES: [&str; 3] = ["n1", "n2", "n3"];

/// The container engine and its compose command.
#[derive(Clone, Debug)]
pub struct Engine {
    compose: Vec<String>,
}

impl Engine {
    /// The engine of this machine.
    ///
    /// # Errors
    /// When none answers, or there is no compose command; says which.
    pub fn find() -> Result<Self> {
        run(Command::new("docker").args(["info", "--format", "{{.ServerVersion}}"]))
            .context("no container engine answers")?;
        for compose in [&["docker", "compose"][..], &["docker-compose"]] {
            let mut command = Command::new(compose[0]);
            if run(command.args(&compose[1..]).arg("version")).is_ok() {
                let compose = compose.iter().map(|&word| word.to_owned()).collect();
                return Ok(Self { compose });
            }
        }
        bail!("there is neither `docker compose` nor `docker-compose`")
    }
}

/// Three members in containers. Whoever started it calls [`Compose::stop`] at the end; one that is
/// dropped before has failed, so its members' logs are printed.
#[derive(Debug)]
pub struct Compose {
    engine: Engine,
    project: String,
    image: String,
    client: BTreeMap<&'static str, Port>,
    http: BTreeMap<&'static str, Port>,
    stopped: bool,
}

impl Compose {
    /// Starts the members from `image` and waits until the engine finds each of them healthy.
    ///
    /// # Errors
    /// When they are not after two minutes.
    pub async fn start(engine: Engine, image: &str) -> Result<Self> {
        let ports = || NAMES.iter().map(|&name| Ok((name, Port::take()?)));
        let compose = Self {
            engine,
            project: format!("tally-{}-{:08x}", std::process::id(), rand::random::<u32>()),
            image: image.to_owned(),
            client: ports().collect::<Result<_>>()?,
            http: ports().collect::<Result<_>>()?,
            stopped: false,
        };
        compose.compose(&["up", "--detach"])?;
        compose.healthy().await?;
        Ok(compose)
    }

    /// Every member's name.
    pub fn names(&self) -> [&'static str; 3] {
        NAMES
    }

    /// Where this machine reaches a member's client port.
    ///
    /// # Errors
    /// When there is no such member.
    pub fn address(&self, name: &str) -> Result<String> {
        let port = self.client.get(name);
        Ok(port.with_context(|| format!("no member {name}"))?.address())
    }

    /// Waits until every container is healthy by its own health check.
    ///
    /// # Errors
    /// When they are not after two minutes.
    pub async fn healthy(&self) -> Result<()> {
        for name in NAMES {
            until(&format!("{name} healthy"), SETTLED_WITHIN, async || {
                let health = self.inspect(name, "{{.State.Health.Status}}")?;
                ensure!(health == "healthy", "its container is {health}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When the engine refuses.
    pub fn kill(&self, name: &str) -> Result<()> {
        let container = self.container(name)?;
        docker(&["kill", "--signal", "KILL", &container]).map(drop)
    }

    /// Starts a killed member again.
    ///
    /// # Errors
    /// When the engine refuses.
    pub fn launch(&self, name: &str) -> Result<()> {
        docker(&["start", &self.container(name)?]).map(drop)
    }

    /// Takes a member off the network: nobody reaches it, and it reaches nobody.
    ///
    /// # Errors
    /// When the engine refuses.
    pub fn disconnect(&self, name: &str) -> Result<()> {
        let container = self.container(name)?;
        docker(&["network", "disconnect", &self.network(), &container]).map(drop)
    }

    /// Brings it back, under its old name.
    ///
    /// # Errors
    /// When the engine refuses.
    pub fn reconnect(&self, name: &str) -> Result<()> {
        let (network, container) = (self.network(), self.container(name)?);
        docker(&["network", "connect", "--alias", name, &network, &container]).map(drop)
    }

    /// Runs `tally` to its end in a container of its own on the members' network, with `volume`, which is
    /// made when it is not there, as its data directory. Gives what it said.
    ///
    /// # Errors
    /// When it does not end with exit code 0.
    pub fn run(&self, volume: &str, arguments: &[&str]) -> Result<String> {
        let endpoints = NAMES.map(|name| format!("http://{name}:7411")).join(",");
        let volume = format!("{}_{volume}:/data", self.project);
        let mut command = Command::new("docker");
        command.args(["run", "--rm", "--read-only", "--cap-drop", "ALL"]);
        command.args(["--network", &self.network(), "--volume", &volume]);
        command.args(["--env", &format!("TALLY_ENDPOINTS={endpoints}")]);
        run(command.arg(&self.image).args(arguments))
    }

    /// What a member knows.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self, name: &str) -> Result<v1::StatusResponse> {
        let mut client = ClusterClient::new(channel(&self.address(name)?).await?);
        let asked = client.status(timed(&v1::StatusRequest {}, STATUS_WITHIN));
        let status = asked.await.with_context(|| format!("status of {name}"))?;
        Ok(status.into_inner())
    }

    /// Waits until these members agree on one of them as leader, and gives its name.
    ///
    /// # Errors
    /// When they do not after two minutes.
    pub async fn leader_among(&self, names: &[&'static str]) -> Result<&'static str> {
        until("a leader that all agree on", SETTLED_WITHIN, async || {
            let mut leaders = Vec::new();
            let mut leader = None;
            for &name in names {
                let status = self.status(name).await?;
                leaders.push((status.term, status.leader));
                if status.role() == v1::Role::Leader {
                    leader = Some((name, status.term, status.member));
                }
            }
            let (name, term, member) = leader.context("none of them leads")?;
            let agree = leaders.iter().all(|known| *known == (term, member));
            ensure!(agree, "they know term and leader {leaders:x?}");
            Ok(name)
        })
        .await
    }

    /// Waits until all members have applied the same entries, and gives the last one's index.
    ///
    /// # Errors
    /// When they have not after two minutes, and when equal entries gave unequal states.
    pub async fn state_hashes_agree(&self) -> Result<u64> {
        let agreed = until("equal applied indices", SETTLED_WITHIN, async || {
            let mut statuses = Vec::new();
            for name in NAMES {
                statuses.push(self.status(name).await?);
            }
            let applied = statuses.iter().map(|status| status.applied_index);
            let applied = Vec::from_iter(applied);
            ensure!(
                applied.iter().all(|index| *index == applied[0]),
                "applied: {applied:?}"
            );
            Ok((applied[0], compare(&statuses)))
        });
        let (index, equal) = agreed.await?;
        equal?;
        Ok(index)
    }

    /// Ends the members with SIGTERM, checks that each ended well, and removes everything.
    ///
    /// # Errors
    /// When a member's exit code is not 0, or something cannot be removed.
    pub fn stop(mut self) -> Result<()> {
        self.compose(&["stop"])?;
        for name in NAMES {
            let code = self.inspect(name, "{{.State.ExitCode}}")?;
            ensure!(code == "0", "{name} ended with exit code {code}");
        }
        self.remove()?;
        self.stopped = true;
        Ok(())
    }

    fn remove(&self) -> Result<()> {
        self.compose(&["down", "--volumes", "--timeout", "1"])?;
        // Those of `run` belong to no service.
        let filter = format!("name={}_", self.project);
        let left = docker(&["volume", "ls", "--quiet", "--filter", &filter])?;
        for volume in left.lines() {
            docker(&["volume", "rm", volume])?;
        }
        Ok(())
    }

    fn compose(&self, arguments: &[&str]) -> Result<String> {
        let file = PathBuf::from(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../deploy/compose.yaml"
        ));
        let mut command = Command::new(&self.engine.compose[0]);
        command.args(&self.engine.compose[1..]);
        command.args(["--project-name", &self.project, "--file"]);
        command.arg(file).args(arguments).env("IMAGE", &self.image);
        for name in NAMES {
            let variable = |what| format!("TALLY_{}_{what}", name.to_uppercase());
            command.env(variable("PORT"), number(&self.client[name]));
            command.env(variable("HTTP_PORT"), number(&self.http[name]));
        }
        run(&mut command)
    }

    fn container(&self, name: &str) -> Result<String> {
        // Also one that does not run.
        let label = format!("label=com.docker.compose.project={}", self.project);
        let service = format!("label=com.docker.compose.service={name}");
        let found = docker(&[
            "ps", "--all", "--quiet", "--filter", &label, "--filter", &service,
        ])?;
        let mut found = found.lines();
        let container = found
            .next()
            .with_context(|| format!("{name} has no container"))?;
        Ok(container.to_owned())
    }

    fn inspect(&self, name: &str, format: &str) -> Result<String> {
        let container = self.container(name)?;
        docker(&["inspect", "--format", format, &container])
    }

    fn network(&self) -> String {
        format!("{}_default", self.project)
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        if self.stopped {
            return;
        }
        for name in NAMES {
            eprintln!("--- end of {name}'s log");
            let logs = self.container(name).map(|container| {
                let mut command = Command::new("docker");
                command.args(["logs", "--tail", LOG_LINES_SHOWN, &container]);
                command.status()
            });
            if let Err(error) = logs {
                eprintln!("{error:#}");
            }
        }
        if let Err(error) = self.remove() {
            eprintln!("--- {} was not removed: {error:#}", self.project);
        }
    }
}

fn number(port: &Port) -> String {
    let address = port.address();
    let number = address.rsplit(':').next();
    number.unwrap_or_default().to_owned()
}

fn docker(arguments: &[&str]) -> Result<String> {
    run(Command::new("docker").args(arguments))
}

/// Standard output of a command that ended with exit code 0, without spaces around it.
fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("running {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    ensure!(
        output.status.success(),
        "{command:?}: {}: {said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(said)
}
