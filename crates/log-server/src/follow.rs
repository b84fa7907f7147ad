//! Follows the node's own history: transitions, and registrations of newer incarnations.

use tally_client::log_server::Identity;
use tally_client::{StorageState, Watch, WatchItem, v1};
use v1::history_entry::Event;

use crate::standing::{Ended, Shared};

/// Follows until the log server must end.
pub(crate) async fn follow(identity: Identity, mut watch: Watch, standing: Shared) {
    loop {
        match watch.next().await {
            Some(Ok(WatchItem::Started { .. })) => {}
            Some(Ok(WatchItem::Event(entry))) => note(&identity, entry, &standing),
            Some(Err(error)) => {
                let found = format!("its state cannot be followed: {error}");
                return standing.end(Ended::halted(found));
            }
            None => return standing.end(Ended::halted("its state cannot be followed")),
        }
    }
}

fn note(identity: &Identity, entry: v1::HistoryEntry, standing: &Shared) {
    match entry.event {
        Some(Event::Transitioned(to)) => match v1::StorageState::decode_required(to.to) {
            Ok(state) => standing.moved(state, entry.revision),
            // A state that only a newer version knows: certainly not one to write in.
            Err(_) => standing.moved(StorageState::Disabled, entry.revision),
        },
        Some(Event::Registered(registered)) if registered.incarnation > identity.incarnation => {
            standing.end(fenced(identity, registered.incarnation));
        }
        Some(Event::Registered(_) | Event::Claimed(_)) | None => {}
    }
}

/// Why an older incarnation ends.
pub(crate) fn fenced(identity: &Identity, current: u64) -> Ended {
    Ended::fenced(format!(
        "fenced: incarnation {current} of {} has registered, this is {}",
        identity.name, identity.incarnation
    ))
}
