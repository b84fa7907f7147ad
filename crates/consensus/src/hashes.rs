//! Members compare the hashes of their states. Equal entries must give equal states; where they do
//! not, one of the members is broken, and its operator must know.

use std::collections::BTreeMap;
use std::time::Duration;

use tally_model::MemberId;
use tally_proto::peer;
use tokio::time::{MissedTickBehavior, interval};

use crate::replica::{Inner, Replica};
use crate::status::HashMismatch;

/// How often.
const COMPARE_EVERY: Duration = Duration::from_secs(1);

/// Mismatches that are remembered; one is reason enough to look.
const MISMATCHES_MAX: usize = 16;

/// Compares with every other member, for as long as the replica lives.
pub(crate) async fn compare_for_ever(inner: std::sync::Weak<Inner>) {
    let mut ticks = interval(COMPARE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(inner) = inner.upgrade() else {
            return;
        };
        Replica::from(inner).compare().await;
    }
}

impl Replica {
    async fn compare(&self) {
        let members: Vec<MemberId> = {
            let status = self.status.borrow();
            status.membership.members.keys().copied().collect()
        };
        for member in members {
            if member == self.options.member {
                continue;
            }
            let Some(link) = self.link(member) else {
                continue;
            };
            // A member that does not answer is compared next time.
            if let Ok(theirs) = link.state_hashes().await {
                self.note_mismatch(member, &theirs);
            }
        }
    }

    fn note_mismatch(&self, member: MemberId, theirs: &peer::StateHashesResponse) {
        let ours = self.stores.state.recent_hashes();
        let Some(index) = first_difference(&ours, theirs) else {
            return;
        };
        let mismatch = HashMismatch { index, member };
        self.mismatches.send_if_modified(|known| {
            let new = !known.contains(&mismatch) && known.len() < MISMATCHES_MAX;
            if new {
                tracing::error!(index, %member, "the state differs from that of another member: one of them is broken");
                known.push(mismatch);
            }
            new
        });
    }

    /// Recent state hashes, for another member.
    pub fn on_state_hashes(&self) -> peer::StateHashesResponse {
        message(&self.stores.state.recent_hashes())
    }
}

fn message(hashes: &[(u64, u128)]) -> peer::StateHashesResponse {
    let hashes = hashes.iter().map(|&(index, hash)| peer::IndexedHash {
        index,
        hash: hash.to_be_bytes().to_vec(),
    });
    peer::StateHashesResponse {
        hashes: hashes.collect(),
    }
}

/// The first index that both have and at which they differ.
pub(crate) fn first_difference(
    ours: &[(u64, u128)],
    theirs: &peer::StateHashesResponse,
) -> Option<u64> {
    let ours: BTreeMap<u64, u128> = ours.iter().copied().collect();
    let differs = |hash: &&peer::IndexedHash| {
        ours.get(&hash.index)
            .is_some_and(|our| our.to_be_bytes() != hash.hash.as_slice())
    };
    Some(theirs.hashes.iter().find(differs)?.index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_states_after_the_same_entry_are_compared() {
        let ours = [(4, 40), (5, 50), (6, 60)];
        assert_eq!(
            first_difference(&ours, &message(&[(3, 1), (4, 40), (7, 2)])),
            None
        );
        assert_eq!(
            first_difference(&ours, &message(&[(4, 40), (5, 51), (6, 61)])),
            Some(5)
        );
        assert_eq!(first_difference(&[], &message(&[(5, 51)])), None);
    }
}
