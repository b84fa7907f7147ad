//! An operator under load: looks at a node and changes what it saw, again and again.

use std::time::Duration;

use anyhow::Result;
use tally_proto::v1::StorageState;

use super::Recorded;
use super::target::Targets;
use super::writer::Writer;

/// Until there is a node to look at.
const NOTHING_YET: Duration = Duration::from_millis(20);

pub(super) async fn run(mut writer: Writer, targets: Targets) -> Result<Recorded> {
    while !writer.is_stopping() {
        let Some(name) = targets.pick() else {
            writer.rest(NOTHING_YET).await;
            continue;
        };
        let Some(node) = writer.read(&name).await else {
            continue;
        };
        let to = match node.state() {
            StorageState::ReadWrite => StorageState::ReadOnly,
            StorageState::ReadOnly => StorageState::ReadWrite,
            // Not activated yet: it is the owner's turn.
            _ => continue,
        };
        let (node, seen) = (node.id, node.revision);
        writer
            .ask(&name, |session| session.set_state_call(node, to, seen))
            .await?;
    }
    Ok(writer.finish())
}
