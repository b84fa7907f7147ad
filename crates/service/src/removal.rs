//! A member that comes back after it was replaced hears of no leader and is told nothing: the others
//! do not talk to it any more. So it asks them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tally_consensus::Membership;
use tally_model::explanation::codes;
use tally_proto::fault::Fault;

use crate::member::{Member, cluster_bytes, said};
use crate::peer::stranger;

/// Between two looks at whether there is a leader.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Asks the others whenever there is no leader, until the server ends.
pub(crate) async fn run(member: Arc<Member>) -> Result<(), String> {
    let watching = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            look(&member).await;
        }
    };
    member.ending.leaving.run_until_cancelled(watching).await;
    Ok(())
}

async fn look(member: &Member) {
    let Ok(replica) = member.replica() else {
        return;
    };
    let status = replica.status();
    let found = match status.leader {
        Some(_) => None,
        None => removed(member, &status.membership).await,
    };
    member.removed.send_if_modified(|known| {
        let changed = *known != found;
        if let Some(fault) = found.as_ref().filter(|_| changed) {
            tracing::error!("{}", said(fault));
        }
        *known = found;
        changed
    });
}

/// True only when a majority says so: one of the others may lag behind and not know this member yet.
async fn removed(member: &Member, known: &Membership) -> Option<Fault> {
    let known = known.members.values().map(|peer| &peer.peer_address);
    let listed = member.config.initial_cluster.iter();
    let addresses: BTreeSet<&String> = known.chain(listed.map(|(_, address)| address)).collect();
    let asked = addresses
        .into_iter()
        .map(|address| stranger::identify(address));
    let answers = futures::future::join_all(asked).await;
    let cluster = member.cluster().map(cluster_bytes)?;
    let mut without = BTreeSet::new();
    for answer in answers.into_iter().flatten() {
        let membership = Membership::from(answer.membership.unwrap_or_default());
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
