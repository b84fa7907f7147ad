//! A member that comes back after it was replaced, or with the directory of another cluster, hears of no
//! leader and is told nothing: the others do not talk to it. So it asks them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tally_consensus::Membership;
use tally_model::ClusterId;
use tally_model::explanation::codes;
use tally_proto::convert::bytes_16;
use tally_proto::fault::Fault;
use tally_proto::peer::IdentifyResponse;

use crate::member::{Member, cluster_bytes, said};
use crate::peer::stranger;

/// Between two looks at whether there is a leader.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Asks the others whenever there is no leader, and in any case until one of the list has said that it is
/// of the same cluster: the directory of a cluster of one member leads by itself wherever it is. Ends with
/// the server.
pub(crate) async fn run(member: Arc<Member>) -> Result<(), String> {
    let watching = async {
        let mut confirmed = member.config.initial_cluster.len() < 2;
        loop {
            confirmed |= look(&member, confirmed).await;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    member.ending.leaving.run_until_cancelled(watching).await;
    Ok(())
}

/// Asks them. True when one of the list is of this member's cluster.
async fn look(member: &Member, confirmed: bool) -> bool {
    let Ok(replica) = member.replica() else {
        return false;
    };
    let status = replica.status();
    let (found, confirmed) = match status.leader {
        Some(_) if confirmed => (None, true),
        leader => {
            let answers = ask(member, &status.membership).await;
            let removed = || removed(member, answers.values());
            let found = match leader {
                Some(_) => foreign(member, &answers),
                None => foreign(member, &answers).or_else(removed),
            };
            (found, any_of_ours(member, &answers))
        }
    };
    member.removed.send_if_modified(|known| {
        let changed = *known != found;
        if let Some(fault) = found.as_ref().filter(|_| changed) {
            tracing::error!("{}", said(fault));
        }
        *known = found;
        changed
    });
    confirmed
}

/// Who listens at the addresses of the list and of the membership, by address.
async fn ask(member: &Member, known: &Membership) -> BTreeMap<String, IdentifyResponse> {
    let known = known.members.values().map(|peer| &peer.peer_address);
    let listed = member.config.initial_cluster.iter();
    let addresses: BTreeSet<&String> = known.chain(listed.map(|(_, address)| address)).collect();
    let asked = addresses.into_iter().map(async |address| {
        let answer = stranger::identify(address).await.ok()?;
        Some((address.clone(), answer))
    });
    let answers = futures::future::join_all(asked).await;
    answers.into_iter().flatten().collect()
}

/// The other members of the list that answered, and what they said.
fn others<'a>(
    member: &'a Member,
    answers: &'a BTreeMap<String, IdentifyResponse>,
) -> impl Iterator<Item = (&'a str, &'a IdentifyResponse)> {
    let list = member.config.initial_cluster.iter();
    let others = list.filter(|(name, _)| *name != member.config.name);
    others.filter_map(|(name, address)| Some((name.as_str(), answers.get(address)?)))
}

fn any_of_ours(member: &Member, answers: &BTreeMap<String, IdentifyResponse>) -> bool {
    let cluster = member.cluster().map(cluster_bytes);
    others(member, answers).any(|(_, answer)| Some(&answer.cluster_id) == cluster.as_ref())
}

/// The listed members belong to another cluster, and none to this one's: the data directory is not the
/// one that belongs to the list.
fn foreign(member: &Member, answers: &BTreeMap<String, IdentifyResponse>) -> Option<Fault> {
    let own = member.cluster()?;
    let others: Vec<_> = others(member, answers)
        .filter(|(_, answer)| !answer.cluster_id.is_empty())
        .collect();
    let (_, one) = others.first()?;
    let theirs = bytes_16("cluster_id", &one.cluster_id)
        .map(ClusterId)
        .ok()?;
    let all = others
        .iter()
        .all(|(_, answer)| answer.cluster_id == one.cluster_id);
    // More than half of the list without this member: one alone may be the misplaced one.
    let enough = others.len() * 2 > member.config.initial_cluster.len() - 1;
    if theirs == own || !all || !enough {
        return None;
    }
    let names = Vec::from_iter(others.iter().map(|(name, _)| *name)).join(", ");
    let found = format!(
        "{} belongs to cluster {own}, and {names} of --initial-cluster to cluster {theirs}",
        member.config.data_dir.display()
    );
    let next = format!(
        "start {} with its directory of cluster {theirs}, or with the --initial-cluster of {own}",
        member.config.name
    );
    Some(Fault::new(codes::FOREIGN_DIRECTORY, found).with_next(next))
}

/// The cluster goes on without this member. A majority must say so: one of the others may lag behind
/// and not know this member yet.
fn removed<'a>(
    member: &Member,
    answers: impl Iterator<Item = &'a IdentifyResponse>,
) -> Option<Fault> {
    let cluster = member.cluster().map(cluster_bytes)?;
    let mut without = BTreeSet::new();
    for answer in answers {
        let membership = Membership::from(answer.membership.clone().unwrap_or_default());
        let voters = membership.voters.len();
        let knows = membership.members.contains_key(&member.id());
        if answer.cluster_id != cluster || voters == 0 || knows {
            continue;
        }
        without.insert(answer.member);
        if without.len() * 2 > voters {
            let name = &member.config.name;
            let found = format!(
                "the cluster has removed this member, {}, and goes on without it",
                member.id()
            );
            let next = format!(
                "to bring {name} back, start it on an empty --data-dir and run: tally member replace {name}"
            );
            return Some(Fault::new(codes::REMOVED, found).with_next(next));
        }
    }
    None
}
