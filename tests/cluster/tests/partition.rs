//! A member is cut off from the others. What it says must be true, and when it is back all agree.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tally_proto::fault::Fault;
use tally_proto::v1;
use tally_proto::v1::{Role, StorageState};
use tally_testkit::{
    AnswerExt, Call, Clocks, Cluster, Load, Reader, Recorded, Requester, Searched, Sent,
    activations, channel, seed, send, send_unhurried, send_until_answered, until, while_observing,
};
use tonic::Status;

const NOT_ANSWERED_WITHIN: Duration = Duration::from_secs(2);
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
/// Several election timeouts.
const OBSERVED_FOR: Duration = Duration::from_secs(5);
/// Of the load, at each stage of a test.
const ANSWERS: usize = 20;
/// In what is searched for an order.
const COMMANDS_MIN: usize = 20;
const READS_MIN: usize = 10;
const NO_LEADER: &str = "T-001";
const OUTCOME_UNKNOWN: &str = "T-002";

/// The code of the fault with which the member itself turned a command down that must not be answered.
fn turned_down(sent: Result<v1::Answer, Status>) -> Result<String> {
    let Err(status) = sent else {
        anyhow::bail!("a minority answered {sent:?}");
    };
    let told = Fault::read(&status).with_context(|| format!("it did not say so: {status:?}"))?;
    Ok(told.code)
}

/// Sends a command without a deadline of its own, which the member must say is in doubt.
async fn left_in_doubt(address: &str, call: &Call) -> Result<()> {
    let code = turned_down(send_unhurried(&channel(address).await?, call).await)?;
    ensure!(code == OUTCOME_UNKNOWN, "in doubt, and yet {code}");
    Ok(())
}

fn searched(recorded: &Recorded) -> Result<Searched> {
    recorded.linearizable()?.at_least(COMMANDS_MIN, READS_MIN)
}

/// What a member without a majority does, whatever it was before.
async fn minority_side(cluster: &Cluster, cut_off: &str, number: usize) -> Result<()> {
    let load = Load::start(cluster)?;
    load.answers(ANSWERS, ANSWERED_WITHIN).await?;
    let name = format!("ls-{number}");
    let alone = cluster.address(cut_off)?;
    let mut owner = Requester::open(&alone).await?;
    let mut own = Recorded::default();
    let register = owner.register_call(&name, Some(owner.marker()));
    let registered = own.ask(&alone, &name, register).await?.registered();
    let (node, incarnation) = registered.context("it was not registered")?;
    let activate = owner.activate_call(node, incarnation);
    let activated = own.ask(&alone, &name, activate).await?;
    let revision = activated.applied().context("it was not activated")?;
    let led = cluster.leader().await? == cut_off;

    let stale = Reader::stale(&alone).await?;
    let fresh = Reader::linearizable(&alone).await?;
    let fresh = fresh.within(NOT_ANSWERED_WITHIN);

    cluster.hosts()?.isolate(cut_off)?;
    let who = (node, incarnation);
    let call = owner.set_own_state_call(who, owner.marker(), StorageState::ReadOnly);
    let mut doubtful = Sent::begun(&name, call);
    // At once, while a leader cannot know yet that it is alone and nobody else leads. It has appended
    // the command; so may have the leader that a follower passes it to.
    let (read, doubt) = tokio::join!(fresh.node(&name), left_in_doubt(&alone, &doubtful.call));
    ensure!(read.is_err(), "a minority answered a fresh read: {read:?}");
    doubt?;

    // The others go on.
    let mut others = cluster.names();
    others.retain(|name| name != cut_off);
    let leader = cluster.address(&cluster.leader_among(&others).await?)?;
    let mut operator = Requester::open(&leader).await?;
    let change = operator.set_state_call(node, StorageState::DataLoss, revision);
    let changed = own.ask(&leader, &name, change).await?;
    ensure!(changed.applied().is_some(), "{changed:?}");
    load.answers(ANSWERS, ANSWERED_WITHIN).await?;

    // By now it knows that it is alone: nothing more is appended, and it says so.
    let refused = owner.register_call(&format!("{name}-refused"), None);
    until("a write is not accepted", ANSWERED_WITHIN, async || {
        let sent = send(&channel(&alone).await?, &refused, NOT_ANSWERED_WITHIN).await;
        let code = turned_down(sent)?;
        ensure!(code == NO_LEADER, "{code}");
        Ok(())
    })
    .await?;
    let read = fresh.node(&name).await;
    ensure!(read.is_err(), "a minority answered a fresh read: {read:?}");
    let old = stale.known(&name).await?;
    assert_eq!(old.state(), StorageState::ReadWrite, "stale, by name");

    cluster.hosts()?.heal()?;
    let healed = until("a fresh read", ANSWERED_WITHIN, async || {
        Ok(fresh.seen(&name).await?)
    })
    .await?;
    let state = healed.node.as_ref().map(|node| node.state());
    assert_eq!(state, Some(StorageState::DataLoss));
    own.seen.push(healed);
    let settled = doubtful.settle(&alone, ANSWERED_WITHIN).await?;
    ensure!(settled.refused() == Some("T-410"), "{settled:?}");
    own.sent.push(doubtful);
    println!("{cut_off} was cut off, led: {led}: {name} agrees");
    load.answers(ANSWERS, ANSWERED_WITHIN).await?;
    let mut recorded = load.stop().await?;
    recorded.extend(own);
    println!("{}", recorded.check(cluster).await?);
    println!("{}", searched(&recorded)?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_minority_side_promises_nothing_and_agrees_after_healing() -> Result<()> {
    let Some(cluster) = Cluster::start_on_hosts(3, &[]).await? else {
        return Ok(());
    };
    let leader = cluster.leader().await?;
    minority_side(&cluster, &leader, 1).await?;
    let follower = cluster.followers().await?.remove(0);
    minority_side(&cluster, &follower, 2).await?;
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_minority_side_promises_nothing_while_clocks_step() -> Result<()> {
    let Some(mut cluster) = Cluster::prepare_on_hosts(3, &[])? else {
        return Ok(());
    };
    let Some(clocks) = Clocks::apart(&mut cluster)? else {
        return Ok(());
    };
    cluster.restart_all().await?;
    let leader = cluster.leader().await?;
    let held = minority_side(&cluster, &leader, 1);
    clocks.step_during(&cluster.names(), seed()?, held).await?;
    clocks.are_followed(&cluster).await?;
    cluster.stop().await
}

/// A leader appends an activation that nobody else gets; the others disable the node meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_activation_that_was_appended_and_never_committed_does_not_revive_a_disabled_node()
-> Result<()> {
    let Some(cluster) = Cluster::start_on_hosts(3, &[]).await? else {
        return Ok(());
    };
    let old = cluster.leader().await?;
    let alone = cluster.address(&old)?;
    let mut owner = Requester::open(&alone).await?;
    let (node, incarnation) = owner.register(&alone, "ls1").await?;
    let seen = Reader::linearizable(&alone).await?.known("ls1").await?;
    let before = cluster.status(&old).await?.last_log_index;

    cluster.hosts()?.isolate(&old)?;
    let activate = owner.activate_call(node, incarnation);
    left_in_doubt(&alone, &activate).await?;
    let status = cluster.status(&old).await?;
    ensure!(status.last_log_index > before, "nothing was appended");
    ensure!(status.applied_index <= before, "it was committed");

    let mut others = cluster.names();
    others.retain(|name| *name != old);
    let leader = cluster.address(&cluster.leader_among(&others).await?)?;
    let mut operator = Requester::open(&leader).await?;
    let disable = operator.set_state_call(node, StorageState::Disabled, seen.revision);
    let disabled = send_until_answered(&leader, &disable, ANSWERED_WITHIN).await?;
    ensure!(disabled.applied().is_some(), "{disabled:?}");
    cluster.hosts()?.heal()?;
    cluster.leader().await?;

    for name in cluster.names() {
        let address = cluster.address(&name)?;
        let late = send_until_answered(&address, &activate, ANSWERED_WITHIN).await?;
        assert_eq!(late.refused(), Some("T-330"), "{name}: {late:?}");
        let reader = Reader::linearizable(&address).await?;
        assert_eq!(reader.known("ls1").await?.state(), StorageState::Disabled);
        ensure!(activations(&reader.history(node).await?).is_empty());
    }
    cluster.state_hashes_agree().await?;
    cluster.stop().await
}

/// How packets between two members end.
#[derive(Clone, Copy, Debug)]
enum Between {
    Vanish,
    /// Connections are reset and refused, as if the other process had gone.
    Refused,
}

/// One follower and the leader are cut off from each other, and the third member from nobody. The
/// follower must not unseat a leader that others hear, whatever it takes for evidence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_alone_has_lost_the_leader_does_not_unseat_it() -> Result<()> {
    let Some(cluster) = Cluster::start_on_hosts(3, &[]).await? else {
        return Ok(());
    };
    let hosts = cluster.hosts()?;
    for between in [Between::Vanish, Between::Refused] {
        let leader = cluster.leader().await?;
        let follower = cluster.followers().await?.remove(0);
        let term = cluster.status(&leader).await?.term;
        let load = Load::start(&cluster)?;
        match between {
            Between::Vanish => hosts.cut(&leader, &follower)?,
            Between::Refused => {
                hosts.refuse(&leader, &follower)?;
                hosts.refuse(&follower, &leader)?;
            }
        }
        while_observing("one follower is cut off", OBSERVED_FOR, async || {
            let status = cluster.status(&leader).await?;
            let leads = status.role() == Role::Leader;
            ensure!(
                leads && status.term == term,
                "{between:?}: {leader} led term {term}, now it is {:?} in term {}",
                status.role(),
                status.term
            );
            Ok(())
        })
        .await?;
        load.answers(ANSWERS, ANSWERED_WITHIN).await?;
        hosts.heal()?;
        assert_eq!(cluster.leader().await?, leader, "{between:?}");
        assert_eq!(cluster.status(&leader).await?.term, term, "{between:?}");
        let mut recorded = load.stop().await?;
        println!("{between:?}: {}", recorded.check(&cluster).await?);
        println!("{between:?}: {}", searched(&recorded)?);
    }
    cluster.stop().await
}
