//! A log server under load: registers, activates, changes its own state, starts again as the next
//! incarnation, and then begins anew under another name.

use anyhow::{Context, Result};
use tally_proto::v1::{self, StorageState};

use super::Recorded;
use super::target::Targets;
use super::writer::Writer;
use crate::answer::AnswerExt;
use crate::requester::fresh_marker;

/// Times that a node becomes read-only and read-write again in each incarnation.
const CHANGES: usize = 2;
const INCARNATIONS: usize = 2;

pub(super) async fn run(mut writer: Writer, name: String, targets: Targets) -> Result<Recorded> {
    let mut number = 0_usize;
    while !writer.is_stopping() {
        let name = format!("{name}-{number}");
        let marker = fresh_marker();
        for _ in 0..INCARNATIONS {
            // `None` says that the writer was stopped on the way; the next look says so too.
            let _ = live(&mut writer, &name, &marker, &targets).await?;
        }
        number += 1;
    }
    Ok(writer.finish())
}

/// One incarnation; `None` when the writer was stopped before its end.
async fn live(
    writer: &mut Writer,
    name: &str,
    marker: &v1::Marker,
    targets: &Targets,
) -> Result<Option<()>> {
    let shown = || Some(marker.clone());
    let registering = writer.ask(name, |session| session.register_call(name, shown()));
    let Some(answer) = registering.await? else {
        return Ok(None);
    };
    let registered = answer.registered();
    let (node, own) = registered.with_context(|| format!("{name} is not ours: {answer:?}"))?;
    targets.publish(name);

    let activating = writer.ask(name, |session| {
        session.activate_call_as(node, own, marker.clone())
    });
    if activating.await?.is_none() {
        return Ok(None);
    }
    for to in [StorageState::ReadOnly, StorageState::ReadWrite].repeat(CHANGES) {
        let changing = writer.ask(name, |session| {
            session.set_own_state_call((node, own), marker.clone(), to)
        });
        if changing.await?.is_none() {
            return Ok(None);
        }
    }
    Ok(Some(()))
}
