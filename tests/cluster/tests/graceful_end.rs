//! SIGTERM under load: the member ends within its bound, what was answered stays, and whoever waits is
//! told how to go on.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tally_proto::{fault, v1};
use tally_testkit::{
    AnswerExt, Call, Cluster, Reader, Requester, channel, registrations, rounds, send,
    send_until_answered, until,
};
use tokio::task::{JoinHandle, JoinSet};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// As promised by `shutdown-ms-max`, which no test changes here.
const ENDS_WITHIN: Duration = Duration::from_secs(15);
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(10);

const REQUESTERS: usize = 8;
const ANSWERS_BEFORE: usize = 10;

/// Sends registrations to one member until one is not answered.
struct Registrar {
    requester: Requester,
    to: Channel,
    prefix: String,
}

/// What became of one registrar's calls.
struct Sent {
    answered: Vec<(String, u32)>,
    unanswered: Option<(String, Call, Status)>,
}

impl Registrar {
    async fn run(mut self, enough: tokio::sync::mpsc::Sender<()>) -> Sent {
        let mut answered = Vec::new();
        loop {
            let name = format!("{}-{}", self.prefix, answered.len());
            let marker = self.requester.marker();
            let call = self.requester.register_call(&name, Some(marker));
            match send(&self.to, &call, SOON).await {
                Ok(answer) => match answer.registered() {
                    Some((node, _)) => answered.push((name, node)),
                    None => {
                        let status = Status::internal(format!("not registered: {answer:?}"));
                        let unanswered = Some((name, call, status));
                        return Sent {
                            answered,
                            unanswered,
                        };
                    }
                },
                Err(status) => {
                    let unanswered = Some((name, call, status));
                    return Sent {
                        answered,
                        unanswered,
                    };
                }
            }
            self.requester.acknowledge_all();
            if answered.len() == ANSWERS_BEFORE {
                // The receiver waits for each of us once.
                let _ = enough.send(()).await;
            }
        }
    }
}

/// Registrars on one connection each to `address`; returns when all of them are under way.
async fn load(address: &str, prefix: &str) -> Result<JoinSet<Sent>> {
    let (enough, mut under_way) = tokio::sync::mpsc::channel(REQUESTERS);
    let mut load = JoinSet::new();
    for number in 0..REQUESTERS {
        let registrar = Registrar {
            requester: Requester::open(address).await?,
            to: channel(address).await?,
            prefix: format!("{prefix}-{number}"),
        };
        load.spawn(registrar.run(enough.clone()));
    }
    for _ in 0..REQUESTERS {
        let waits = tokio::time::timeout(ANSWERED_WITHIN, under_way.recv());
        waits.await.context("the load does not get under way")?;
    }
    Ok(load)
}

async fn each_registered_once(reader: &Reader, nodes: &[(String, u32)]) -> Result<()> {
    let known = reader.nodes().await?.into_iter();
    let known: BTreeMap<u32, String> = known.map(|node| (node.id, node.name)).collect();
    let mut times = BTreeMap::<u32, usize>::new();
    for entry in reader.history(0).await? {
        if matches!(entry.event, Some(v1::history_entry::Event::Registered(_))) {
            *times.entry(entry.node).or_default() += 1;
        }
    }
    for (name, node) in nodes {
        let found = known.get(node);
        ensure!(found == Some(name), "node {node} is {found:?}, not {name}");
        let times = times.get(node);
        ensure!(times == Some(&1), "{name} was registered {times:?} times");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_asked_to_end_under_load_loses_no_answer() -> Result<()> {
    let mut cluster = Cluster::start(3).await?;
    for round in 0..rounds(4, 40) {
        let ends = if round % 4 == 3 {
            cluster.followers().await?.remove(0)
        } else {
            cluster.leader().await?
        };
        let load = load(&cluster.address(&ends)?, &format!("round-{round}")).await?;
        cluster.stop_member(&ends).await?;
        // With nothing in its way no connection has to be cut off, for which it would wait.
        let log = cluster.member(&ends)?.log();
        ensure!(
            !log.contains("are cut off"),
            "{ends} waited for connections"
        );

        let sent = load.join_all().await;
        let address = cluster.address(&cluster.leader().await?)?;
        let mut nodes = Vec::new();
        for sent in &sent {
            let (name, call, status) = sent.unanswered.as_ref().context("it goes on")?;
            // A status with a cause is the client's own: h2 gives one to a request that it had not sent
            // when the connection was said to end, and tonic calls it internal.
            let is_answer = status.source().is_none();
            let is_internal = is_answer && status.code() == Code::Internal;
            ensure!(!is_internal, "{name}: {status}");
            let answer = send_until_answered(&address, call, ANSWERED_WITHIN).await?;
            ensure!(answer.took_effect().is_some(), "{name}: {answer:?}");
            let (node, _) = answer.registered().context("no node")?;
            nodes.extend(sent.answered.iter().cloned());
            nodes.push((name.clone(), node));
        }
        each_registered_once(&Reader::linearizable(&address).await?, &nodes).await?;
        let answers = nodes.len() - REQUESTERS;
        println!("round {round}: {ends} ended after {answers} answers");
        cluster.restart_all().await?;
        cluster.state_hashes_agree().await?;
    }
    cluster.stop().await
}

/// A leader whose followers are paused, with a command that waits for them.
struct Stuck {
    cluster: Cluster,
    leader: String,
    call: Call,
    waits: JoinHandle<Result<v1::Answer, Status>>,
    /// Made while all was well.
    connection: Channel,
}

impl Stuck {
    async fn start() -> Result<Self> {
        let cluster = Cluster::start(3).await?;
        let leader = cluster.leader().await?;
        let address = cluster.address(&leader)?;
        let mut requester = Requester::open(&address).await?;
        requester.register(&address, "ls1").await?;
        let connection = channel(&address).await?;
        for follower in cluster.followers().await? {
            cluster.pause(&follower)?;
        }
        let call = requester.register_call("ls2", None);
        let before = cluster.status(&leader).await?.last_log_index;
        let (to, sent) = (connection.clone(), call.clone());
        let waits = tokio::spawn(async move { send(&to, &sent, ANSWERED_WITHIN).await });
        until("the command is in the leader's log", SOON, async || {
            let last = cluster.status(&leader).await?.last_log_index;
            ensure!(last > before, "the last entry is {last}");
            Ok(())
        })
        .await?;
        Ok(Self {
            cluster,
            leader,
            call,
            waits,
            connection,
        })
    }

    fn wake(&self) -> Result<()> {
        for name in self.cluster.started() {
            if name != self.leader {
                self.cluster.resume(&name)?;
            }
        }
        Ok(())
    }

    async fn says_that_it_ends(&self) -> Result<()> {
        until("the member says that it ends", SOON, async || {
            let answer = self.cluster.member(&self.leader)?.http("/readyz").await?;
            ensure!(answer.status == 503, "/readyz says {answer:?}");
            ensure!(
                answer.body.contains("T-006: the member is ending"),
                "{answer:?}"
            );
            let mut client = HealthClient::new(self.connection.clone());
            let asked = client.check(HealthCheckRequest::default()).await;
            let health = asked?.into_inner().status();
            ensure!(health == ServingStatus::NotServing, "{health:?}");
            Ok(())
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_cannot_finish_says_so_and_ends_within_its_bound() -> Result<()> {
    let mut stuck = Stuck::start().await?;
    let begun = Instant::now();
    stuck.cluster.ask_to_end(&stuck.leader)?;
    stuck.says_that_it_ends().await?;
    let waits = tokio::time::timeout(ENDS_WITHIN, &mut stuck.waits);
    let Err(status) = waits.await?? else {
        bail!("it was answered without a majority");
    };
    let fault = fault::read(&status).with_context(|| format!("cut off: {status:?}"))?;
    ensure!(fault.code == "T-002", "{fault:?}");
    ensure!(fault.found.contains("ending"), "{fault:?}");
    let code = stuck.cluster.ended(&stuck.leader, ENDS_WITHIN).await?;
    ensure!(code == Some(0), "exit code {code:?}");
    let took = begun.elapsed();
    ensure!(took < ENDS_WITHIN, "it took {took:?}");
    println!("ended in {took:?}");

    stuck.wake()?;
    stuck.cluster.restart_all().await?;
    let address = stuck.cluster.address(&stuck.leader)?;
    let answer = send_until_answered(&address, &stuck.call, ANSWERED_WITHIN).await?;
    let (node, _) = answer.registered().context("not registered")?;
    let reader = Reader::linearizable(&address).await?;
    let times = registrations(&reader.history(node).await?);
    ensure!(times.len() == 1, "registered at {times:?}");
    stuck.cluster.state_hashes_agree().await?;
    stuck.cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_a_member_at_once() -> Result<()> {
    let mut stuck = Stuck::start().await?;
    stuck.cluster.ask_to_end(&stuck.leader)?;
    stuck.says_that_it_ends().await?;
    stuck.cluster.ask_to_end(&stuck.leader)?;
    // Handing over and finishing would end with code 0.
    let code = stuck.cluster.ended(&stuck.leader, ENDS_WITHIN).await?;
    ensure!(code == Some(1), "exit code {code:?}");
    stuck.waits.abort();
    stuck.wake()?;
    stuck.cluster.restart_all().await?;
    stuck.cluster.state_hashes_agree().await?;
    stuck.cluster.stop().await
}
