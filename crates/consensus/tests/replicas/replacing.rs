//! A member that takes another one's place.

use std::time::{Duration, Instant};

use tally_consensus::ManageError;

use crate::cluster::{Cluster, register, tagged, until};
use crate::soon;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_member_takes_the_place_of_a_lost_one() {
    let mut cluster = Cluster::founded(3).await;
    let session = cluster.session(0).await;
    let leader = cluster.leader().await;
    let lost = (leader + 1) % 3;
    cluster.wire.cut_from(cluster.id(lost));
    cluster
        .replica(leader)
        .propose(tagged(session, 1, register("ls1")), soon())
        .await
        .unwrap();
    let fresh = cluster.add_stranger(&cluster.name(lost)).await;
    let member = cluster.member(fresh);
    let removed = cluster
        .replica(leader)
        .replace_member(&member, soon())
        .await
        .unwrap();
    assert_eq!(removed, Some(cluster.id(lost)));
    let replica = cluster.replica(fresh);
    until("it votes", || {
        replica
            .status()
            .membership
            .voters
            .contains(&cluster.id(fresh))
    })
    .await;
    until("it has what the others have", || {
        cluster.history(fresh).len() == 1
    })
    .await;
    let status = replica.status();
    let members = &status.membership.members;
    assert!(!members.contains_key(&cluster.id(lost)), "{members:?}");
}

/// The first that was to take the place was lost too, before it had anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_member_votes_once_it_has_caught_up_and_not_before() {
    let mut cluster = Cluster::founded(3).await;
    let leader = cluster.leader().await;
    let lost = (leader + 1) % 3;
    cluster.wire.cut_from(cluster.id(lost));
    let replica = cluster.replica(leader);
    let name = cluster.name(lost);
    let (first, second) = (
        cluster.add_stranger(&name).await,
        cluster.add_stranger(&name).await,
    );
    cluster.wire.cut_from(cluster.id(first));
    let little = Instant::now() + Duration::from_millis(500);
    let late = replica.replace_member(&cluster.member(first), little).await;
    assert_eq!(late, Err(ManageError::Late("the replacement")));
    let membership = replica.status().membership;
    assert!(membership.members.contains_key(&cluster.id(first)));
    assert!(!membership.voters.contains(&cluster.id(first)));
    let removed = replica
        .replace_member(&cluster.member(second), soon())
        .await;
    assert_eq!(removed.unwrap(), Some(cluster.id(lost)));
    let membership = replica.status().membership;
    assert!(membership.voters.contains(&cluster.id(second)));
    let ids: Vec<_> = membership.members.keys().copied().collect();
    let gone = [cluster.id(lost), cluster.id(first)];
    assert!(ids.iter().all(|id| !gone.contains(id)), "{membership:?}");
    // Once more, there is nobody to replace.
    let again = replica
        .replace_member(&cluster.member(second), soon())
        .await;
    assert_eq!(again, Ok(None));
}
