//! Events as watchers are told them, and which of them one wants.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use prost::Message;
use tally_model::{EventId, KeyEvent, KeyRange, KeyValue, Revision};
use tally_proto::mvcc;
use tally_storage::{Events, StateView};

use super::amount::{Amount, Share};

/// What an event takes beside its keys and values.
const TOLD_BYTES: usize = 512;

/// An event as watchers are told. Shared by all of them.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) id: EventId,
    pub(crate) event: KeyEvent,
    pub(crate) previous: Option<KeyValue>,
    /// As it goes to a client, without and with what was before; made when the first one is told.
    encoded: [OnceLock<Bytes>; 2],
    /// `previous` was looked for.
    with_previous: bool,
    _waiting: Share,
}

/// Events that several may be told of.
pub(crate) type Batch = Arc<[Arc<Told>]>;

/// Reads what it takes to tell of events, with what was there before where that is wanted: of whole revisions, until that
/// comes to `bytes_max`. Gives the last revision of which nothing is left out.
pub(crate) fn read_told(
    view: &StateView<'_>,
    events: Events,
    wants_previous: impl Fn(&KeyEvent) -> bool,
    bytes_max: usize,
    waiting: &Amount,
) -> (Vec<Arc<Told>>, Revision) {
    let mut told: Vec<Arc<Told>> = Vec::with_capacity(events.found.len());
    let mut bytes = 0;
    for (id, event) in events.found {
        if let Some(last) = told.last().map(|last| last.id.revision)
            && last != id.revision
            && bytes >= bytes_max
        {
            return (told, last);
        }
        let next = Told::of(view, id, wants_previous(&event), event, waiting);
        bytes += next.previous.as_ref().map_or(0, |found| found.value.len());
        told.push(Arc::new(next));
    }
    (told, events.through)
}

impl Told {
    /// Reads what it takes to tell of an event. It counts as waiting as long as somebody has it.
    fn of(
        view: &StateView<'_>,
        id: EventId,
        want_previous: bool,
        event: KeyEvent,
        waiting: &Amount,
    ) -> Self {
        // As in etcd: what was made anew has replaced nothing, though it was deleted in the same revision.
        let made_anew = matches!(&event, KeyEvent::Put(made) if made.created == id.revision);
        let previous = (want_previous && !made_anew).then(|| view.previous(event.key(), id));
        Self {
            with_previous: want_previous,
            ..Self::new(id, event, previous.flatten(), waiting)
        }
    }

    /// True when it says what was there before, or that there was nothing.
    pub(super) fn is_with_previous(&self) -> bool {
        self.with_previous
    }

    pub(super) fn new(
        id: EventId,
        event: KeyEvent,
        previous: Option<KeyValue>,
        waiting: &Amount,
    ) -> Self {
        // What is encoded is a second copy.
        let bytes = 2 * bytes(&event, previous.as_ref()) + TOLD_BYTES;
        Self {
            id,
            event,
            previous,
            encoded: Default::default(),
            with_previous: true,
            _waiting: waiting.add(bytes),
        }
    }

    /// The encoded message.
    pub(crate) fn encoded(&self, want_previous: bool) -> Bytes {
        let [without, with] = &self.encoded;
        let encoded = match want_previous && self.previous.is_some() {
            true => with,
            false => without,
        };
        encoded
            .get_or_init(|| self.message(want_previous).encode_to_vec().into())
            .clone()
    }

    pub(super) fn message(&self, want_previous: bool) -> mvcc::Event {
        let (kind, found) = match &self.event {
            KeyEvent::Put(made) => (mvcc::event::EventType::Put, made.into()),
            KeyEvent::Deleted { key } => {
                let gone = mvcc::KeyValue {
                    key: key.clone(),
                    mod_revision: self.id.revision.signed(),
                    ..Default::default()
                };
                (mvcc::event::EventType::Delete, gone)
            }
        };
        let previous = self.previous.as_ref().filter(|_| want_previous);
        mvcc::Event {
            r#type: kind.into(),
            kv: Some(found),
            prev_kv: previous.map(Into::into),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        bytes(&self.event, self.previous.as_ref())
    }
}

fn bytes(event: &KeyEvent, previous: Option<&KeyValue>) -> usize {
    let of = |found: &KeyValue| found.key.len() + found.value.len();
    let event = match event {
        KeyEvent::Put(made) => of(made),
        KeyEvent::Deleted { key } => key.len(),
    };
    event + previous.map_or(0, of)
}

/// What one watcher wants to be told.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) keys: KeyRange,
    pub(crate) puts: bool,
    pub(crate) deletions: bool,
    pub(crate) previous: bool,
}

impl Wanted {
    fn accepts_kind(&self, event: &KeyEvent) -> bool {
        match event {
            KeyEvent::Put(_) => self.puts,
            KeyEvent::Deleted { .. } => self.deletions,
        }
    }

    /// What is wanted of events of its keys: the same batch when it is all of them.
    pub(crate) fn share_of(&self, events: &Batch) -> Batch {
        let accepts = |told: &&Arc<Told>| self.accepts_kind(&told.event);
        match events.iter().all(|told| accepts(&told)) {
            true => events.clone(),
            false => events.iter().filter(accepts).cloned().collect(),
        }
    }

    pub(super) fn watched_bytes(&self) -> usize {
        self.keys.start().len() + self.keys.end().len()
    }
}
