//! How members become a cluster.
//!
//! The first name in the list founds it, and only when it has reached every listed member and each
//! says that it belongs to none, or to this very one and to no other before. A member whose directory
//! was emptied is told by the others that they know its name under another identity, and stays out
//! until an operator replaces it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tally_consensus::{Member as Peer, Membership};
use tally_model::command::Found;
use tally_model::explanation::codes;
use tally_model::{ClusterId, MemberId, Outcome};
use tally_proto::convert::bytes_16;
use tally_proto::fault::Fault;
use tally_proto::peer::{IdentifyResponse, JoinRequest};
use tally_storage::JoinError;

use crate::member::{Member, cluster_bytes};
use crate::peer::stranger;

/// Between two looks at the other members.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// One attempt to propose the cluster's first entry.
const FOUND_WITHIN: Duration = Duration::from_secs(5);

/// Goes on until the member is part of a founded cluster.
pub(crate) async fn run(member: Arc<Member>) -> Result<(), String> {
    let forming = async {
        while let Err(fault) = step(&member).await {
            member.waits_for(fault);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    member.ending.leaving.run_until_cancelled(forming).await;
    Ok(())
}

/// One look. `Ok` when there is nothing left to do.
async fn step(member: &Arc<Member>) -> Result<(), Fault> {
    let founds = member
        .config
        .initial_cluster
        .first()
        .is_some_and(|(name, _)| *name == member.config.name);
    if let Ok(replica) = member.replica() {
        if member.is_founded() {
            return Ok(());
        }
        let known = !replica.status().membership.members.is_empty();
        match (founds, known) {
            // Whoever leads sends what is missing.
            (false, _) => return Ok(()),
            (true, true) => return found(member, Vec::new()).await,
            (true, false) => {}
        }
    }
    let others = look(member).await?;
    if !founds {
        return Err(waiting(
            "the first member of the list has not founded the cluster yet",
        ));
    }
    let cluster = chosen_cluster(member, &others)?;
    join_all(member, cluster, &others).await?;
    let peers = others.into_iter().map(|other| other.peer);
    let peers = peers.chain([member.as_peer()]).collect();
    found(member, peers).await
}

fn waiting(found: impl Into<String>) -> Fault {
    Fault::new(codes::NOT_READY, found)
}

/// Another member of the list, and what it says of itself.
struct Other {
    peer: Peer,
    cluster: Option<ClusterId>,
}

/// Asks every other member of the list who it is.
async fn look(member: &Member) -> Result<Vec<Other>, Fault> {
    let list = member.config.initial_cluster.iter();
    let others = list.filter(|(name, _)| *name != member.config.name);
    let answers =
        others.map(async |(name, address)| (name, address, stranger::identify(address).await));
    let answers = futures::future::join_all(answers).await;
    // What a cluster says counts more than that a member is not there.
    for (_, _, answer) in &answers {
        if let Ok(answer) = answer {
            known_elsewhere(member, answer)?;
        }
    }
    let mut others = Vec::new();
    for (name, address, answer) in answers {
        let answer = answer.map_err(|error| {
            waiting(format!(
                "member {name} cannot be reached at {address}: {error}"
            ))
        })?;
        others.push(accepted(member, name, address, answer)?);
    }
    Ok(others)
}

/// Fails when the other one belongs to a cluster that knows this member's name under another
/// identity, or not at all.
fn known_elsewhere(member: &Member, answer: &IdentifyResponse) -> Result<(), Fault> {
    let membership = Membership::from(answer.membership.clone().unwrap_or_default());
    if membership.members.is_empty() || membership.members.contains_key(&member.id()) {
        return Ok(());
    }
    let name = &member.config.name;
    match membership.by_name(name) {
        Some(old) => Err(Fault::new(
            codes::EMPTY_DIRECTORY,
            format!(
                "the data directory was empty, and the cluster knows {name} as member {}: its votes and entries are gone, so it does not take part",
                old.id
            ),
        )
        .with_next(format!("tally member replace {name}"))),
        None => Err(Fault::new(
            codes::WRONG_PEER,
            format!("member {} belongs to a cluster that has no member {name}", answer.name),
        )
        .with_next("check --initial-cluster: `tally cluster status` shows the members")),
    }
}

/// Checks that a member may found this very cluster.
fn accepted(
    member: &Member,
    name: &str,
    address: &str,
    answer: IdentifyResponse,
) -> Result<Other, Fault> {
    let wrong = |found: String| Err(Fault::new(codes::WRONG_PEER, found));
    if answer.name != name {
        return wrong(format!(
            "{} answers at {address}, expected {name}",
            answer.name
        ));
    }
    if answer.member == member.id().0 || answer.member == 0 {
        return wrong(format!(
            "{name} says that it is member {}",
            MemberId(answer.member)
        ));
    }
    if answer.formation != member.formation {
        return wrong(format!(
            "{name} was started with another --initial-cluster, retry-check or replication"
        ));
    }
    let cluster = match answer.cluster_id.as_slice() {
        [] => None,
        bytes => match bytes_16("cluster_id", bytes) {
            Ok(id) => Some(ClusterId(id)),
            Err(error) => return wrong(format!("{name}: {error}")),
        },
    };
    Ok(Other {
        peer: Peer {
            id: MemberId(answer.member),
            name: answer.name,
            peer_address: address.to_owned(),
            client_address: answer.client_address,
        },
        cluster,
    })
}

/// The cluster that an earlier attempt began, or a new one.
fn chosen_cluster(member: &Member, others: &[Other]) -> Result<ClusterId, Fault> {
    let begun = others.iter().filter_map(|other| other.cluster);
    let mut begun = begun.chain(member.cluster());
    let chosen = begun.next();
    if let Some(another) = begun.find(|id| Some(*id) != chosen) {
        return Err(Fault::new(
            codes::WRONG_PEER,
            format!("members belong to different clusters, one of them to {another}"),
        ));
    }
    // Zero is never an id.
    Ok(chosen.unwrap_or_else(|| ClusterId(rand::random_range(1..=u128::MAX))))
}

/// Binds every member to the cluster, this one last: while it is not bound, it may begin anew.
async fn join_all(member: &Arc<Member>, cluster: ClusterId, others: &[Other]) -> Result<(), Fault> {
    for other in others.iter().filter(|other| other.cluster.is_none()) {
        let ask = JoinRequest {
            cluster_id: cluster_bytes(cluster),
            formation: member.formation.clone(),
            to: other.peer.id.0,
            from: member.id().0,
        };
        let joined = stranger::join(&other.peer.peer_address, ask).await;
        joined.map_err(|error| waiting(format!("{} did not join: {error}", other.peer.name)))?;
    }
    join(member, cluster).await
}

/// Binds this member to a cluster, on disk, and starts its replica.
pub(crate) async fn join(member: &Arc<Member>, cluster: ClusterId) -> Result<(), Fault> {
    let bound = {
        let member = member.clone();
        tokio::task::spawn_blocking(move || member.data.join(cluster)).await
    };
    match bound {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            if matches!(error, JoinError::Io(_)) {
                // A failed fsync that is tried again reports success for pages that are lost.
                member.broken.send_replace(Some(error.to_string()));
            }
            return Err(Fault::new(error.code(), error.to_string()));
        }
        Err(error) => return Err(Fault::new(codes::HALTED, error.to_string())),
    }
    let started = member.start_replica().await;
    started.map_err(|error| Fault::new(error.code(), error.to_string()))?;
    Ok(())
}

/// Writes the cluster's first entries. `peers` is empty when its membership is written already.
async fn found(member: &Arc<Member>, peers: Vec<Peer>) -> Result<(), Fault> {
    let replica = member.replica()?;
    let cluster = member.cluster().ok_or_else(|| waiting("not joined yet"))?;
    let first = Found {
        cluster,
        settings: member.config.settings.clone(),
    };
    let deadline = Instant::now() + FOUND_WITHIN;
    let answer = replica.found(&peers, first, deadline).await;
    let answer =
        answer.map_err(|error| waiting(format!("the cluster is being founded: {error}")))?;
    match answer.outcome {
        Outcome::Refused(refusal) => tracing::info!(%cluster, "founded before: {refusal}"),
        Outcome::Applied { .. } | Outcome::Replayed { .. } => {
            tracing::info!(%cluster, "the cluster is founded");
        }
    }
    if member.is_founded() {
        return Ok(());
    }
    // Answered by another member that leads; it arrives here too.
    Err(waiting("the cluster's first entry is on its way"))
}
