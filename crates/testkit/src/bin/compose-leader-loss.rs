//! The main job in containers: answers of committed activations are lost, the leader is killed or cut
//! off from its network, and the retry is recognised.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use tally_proto::v1;
use tally_testkit::{
    AnswerExt, Call, Compose, Engine, Mode, Proxy, Reader, Requester, activations, channel, send,
    send_until_answered, until,
};
use tokio::task::JoinHandle;
use tonic::Status;

const COMMITTED_WITHIN: Duration = Duration::from_secs(20);
/// Patience of the requester whose answer is lost.
const LOST_WITHIN: Duration = Duration::from_secs(30);
/// Longer than a member that is cut off needs to be missed.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// Lose the answer of a committed activation, kill the leader's container or cut it off, retry at another
/// member: it must be recognised, with one activation in the history and equal states everywhere.
#[derive(Debug, Parser)]
#[command(name = "compose-leader-loss")]
struct Arguments {
    /// How many times; kill and cut off take turns.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// The image of the members.
    #[arg(long, default_value = "tally:latest")]
    image: String,
}

/// What befalls the leader between the commit and the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Kill,
    Disconnect,
}

/// Steps as they are told.
#[derive(Default)]
struct Story {
    step: usize,
}

impl Story {
    fn tell(&mut self, what: impl AsRef<str>) {
        self.step += 1;
        println!("\n{}. {}", self.step, what.as_ref());
    }

    fn found(&self, what: impl AsRef<str>) {
        for line in what.as_ref().lines() {
            println!("     {line}");
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut story = Story::default();
    story.tell("Three members start in containers, and wait until the engine finds each healthy.");
    let cluster = Compose::start(Engine::find()?, &arguments.image).await?;
    let leader = cluster.leader_among(&cluster.names()).await?;
    story.found(format!("healthy, {leader} leads"));

    story.tell("A log server provisions itself, in a container beside them.");
    story.found(log_server(&cluster, "applied")?);

    for round in 1..=arguments.rounds {
        let fault = match round % 2 {
            1 => Fault::Kill,
            _ => Fault::Disconnect,
        };
        let name = format!("ls-round-{round}");
        let held = lose_leader(&mut story, &cluster, &name, fault).await;
        held.with_context(|| format!("round {round}, {fault:?}, did not hold"))?;
    }

    story.tell("The log server starts again: it is known, and nothing happens twice.");
    story.found(log_server(&cluster, "replayed")?);

    story.tell(
        "The members are stopped: each hands over, closes its files and ends with exit code 0.",
    );
    cluster.stop()?;
    println!("\n{} rounds held", arguments.rounds);
    Ok(())
}

/// A real log server, which ends when it has started; `outcome` is what it must have been told.
fn log_server(cluster: &Compose, outcome: &str) -> Result<String> {
    let said = cluster.run(
        "ls1",
        &[
            "log-server",
            "--name",
            "ls1",
            "--data-dir",
            "/data/ls1",
            "--listen",
            "127.0.0.1:0",
            "--exit-after-start",
        ],
    )?;
    ensure!(
        said.contains(outcome),
        "expected: {outcome}; it said: {said}"
    );
    Ok(said)
}

async fn lose_leader(story: &mut Story, cluster: &Compose, name: &str, fault: Fault) -> Result<()> {
    let leader = cluster.leader_among(&cluster.names()).await?;
    let mut others = Vec::from(cluster.names());
    others.retain(|other| *other != leader);
    let [witness, retried] = others[..] else {
        bail!("expected two others, found {others:?}");
    };

    story.tell(format!(
        "{name} registers, and asks {leader}, the leader, for read-write. The answer is lost."
    ));
    let address = cluster.address(leader)?;
    let mut requester = Requester::open(&address).await?;
    let (node, incarnation) = requester.register(&address, name).await?;
    let call = requester.activate_call(node, incarnation);
    let proxy = Proxy::before(&address).await?;
    let lost = send_and_lose_answer(&proxy, &call).await?;
    committed(cluster, witness, name).await?;
    story.found(format!(
        "{witness} has applied provisioning -> read-write; {name} has no answer and waits"
    ));

    match fault {
        Fault::Kill => {
            story.tell(format!("The container of {leader} is killed."));
            cluster.kill(leader)?;
        }
        Fault::Disconnect => {
            story.tell(format!(
                "The container of {leader} is cut off from the network."
            ));
            cluster.disconnect(leader)?;
        }
    }
    let successor = cluster.leader_among(&others).await?;
    story.found(format!("{successor} leads now"));

    story.tell(format!(
        "{name} sends the same request again, to {retried}."
    ));
    let address = cluster.address(retried)?;
    let answer = send_until_answered(&address, &call, ANSWERED_WITHIN).await?;
    let since = recognised(&answer)?;
    story.found(format!("replayed r{since}, now read-write"));
    one_activation(cluster, retried, name, since).await?;
    story.found("the history has one activation");
    lost.abort();
    if let Ok(Ok(answer)) = lost.await {
        bail!("the lost answer arrived: {answer:?}");
    }

    story.tell(format!("{leader} comes back."));
    match fault {
        Fault::Kill => cluster.launch(leader)?,
        Fault::Disconnect => cluster.reconnect(leader)?,
    }
    cluster.healthy().await?;
    for member in cluster.names() {
        let answer = until("an answer", ANSWERED_WITHIN, async || {
            let address = cluster.address(member)?;
            send_until_answered(&address, &call, ANSWERED_WITHIN).await
        })
        .await?;
        ensure!(recognised(&answer)? == since, "{member} answers {answer:?}");
        one_activation(cluster, member, name, since).await?;
    }
    let index = cluster.state_hashes_agree().await?;
    story.found(format!(
        "every member recognises the request; all three state hashes agree at entry {index}"
    ));
    Ok(())
}

/// Sends through the proxy on a connection that was good until now.
async fn send_and_lose_answer(
    proxy: &Proxy,
    call: &Call,
) -> Result<JoinHandle<Result<v1::Answer, Status>>> {
    let to = channel(&proxy.address()).await?;
    Reader::stale(&proxy.address()).await?.nodes().await?;
    proxy.set(Mode::SwallowAnswers);
    let call = call.clone();
    Ok(tokio::spawn(
        async move { send(&to, &call, LOST_WITHIN).await },
    ))
}

async fn committed(cluster: &Compose, witness: &str, name: &str) -> Result<()> {
    let reader = Reader::stale(&cluster.address(witness)?).await?;
    let what = format!("{witness} sees {name} in read-write");
    until(&what, COMMITTED_WITHIN, async || {
        let state = reader.known(name).await?.state();
        ensure!(state == v1::StorageState::ReadWrite, "it is {state:?}");
        Ok(())
    })
    .await
}

/// The revision at which the request took effect the first time.
fn recognised(answer: &v1::Answer) -> Result<u64> {
    let since = answer.replayed().filter(|_| answer.repeat);
    let since = since.with_context(|| format!("not recognised: {answer:?}"))?;
    let now = answer.now();
    ensure!(now == v1::StorageState::ReadWrite, "now {now:?}");
    Ok(since)
}

async fn one_activation(cluster: &Compose, member: &str, name: &str, since: u64) -> Result<()> {
    let what = format!("{member} reads the history of {name}");
    until(&what, ANSWERED_WITHIN, async || {
        let reader = Reader::linearizable(&cluster.address(member)?).await?;
        let node = reader.known(name).await?;
        let found = activations(&reader.history(node.id).await?);
        ensure!(
            found == [since],
            "activated at {found:?}, answered r{since}"
        );
        Ok(())
    })
    .await
}
