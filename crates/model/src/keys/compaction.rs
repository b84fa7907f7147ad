//! Giving up old revisions: first they are no longer answered, then what only they need is removed, a
//! little with each entry.

use std::collections::BTreeSet;

use super::{AtMost, EventId, KeyChanged};
use crate::change::Change;
use crate::draft::Draft;
use crate::identifier::Revision;
use crate::outcome::{Effect, Outcome};
use crate::refusal::Refusal;
use crate::view::View;

/// Events that one entry looks at: what it removes is one batch, which others wait for.
pub const RECLAIMED_AT_ONCE: AtMost = AtMost {
    changes: 500,
    key_bytes: 1 << 20,
};

/// Ends reads and watches of revisions before `revision`.
pub(crate) fn compact(draft: &mut Draft<'_, impl View>, revision: Revision) -> Outcome {
    let (current, compacted) = (draft.globals.revision, draft.globals.compacted);
    if revision > current {
        return Outcome::Refused(Refusal::RevisionInFuture {
            asked: revision,
            current,
        });
    }
    if revision <= compacted {
        return Outcome::Refused(Refusal::RevisionCompacted {
            asked: revision,
            compacted,
        });
    }
    if compacted > Revision(0) {
        // What was looked at of the last compacted revision is looked at again, now that it may go.
        let again = reclaimed_for(compacted);
        draft.globals.reclaimed = draft.globals.reclaimed.min(again);
    }
    draft.globals.compacted = revision;
    Outcome::Applied {
        revision: current,
        effect: Effect::Compacted,
    }
}

/// Where reclaiming has come to when nothing is left to do. The events of the compacted revision are
/// looked at again after the next compaction.
pub(crate) fn reclaimed_for(compacted: Revision) -> EventId {
    EventId::last_of(Revision(compacted.0.saturating_sub(1)))
}

/// Removes versions that no revision needs any more, as far as one entry goes.
///
/// Goes through the events up to the compacted revision in their order. A put or a deletion makes the
/// version before it unnecessary; a deletion is unnecessary itself. What happened at the compacted
/// revision stays, since one may still watch from there.
pub(crate) fn reclaim(draft: &mut Draft<'_, impl View>) -> Outcome {
    let until = draft.globals.compacted;
    let after = draft.globals.reclaimed;
    let changed = draft
        .view
        .keys_changed(after, EventId::last_of(until), RECLAIMED_AT_ONCE);
    let all = !RECLAIMED_AT_ONCE.is_reached_by(&changed);
    draft.globals.reclaimed = match changed.last() {
        Some(last) if !all => last.id,
        Some(_) | None => reclaimed_for(until),
    };
    let mut forgotten = BTreeSet::new();
    for KeyChanged { id, key, deleted } in changed {
        if let Some(before) = draft.view.version_before(&key, id)
            && before.revision < until
        {
            forgotten.insert((before, key.clone()));
        }
        if deleted && id.revision < until {
            forgotten.insert((id, key));
        }
    }
    for (id, key) in forgotten {
        draft.push(Change::VersionForgotten { id, key });
    }
    Outcome::Applied {
        revision: draft.globals.revision,
        effect: Effect::VersionsReclaimed { all },
    }
}
