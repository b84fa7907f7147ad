//! The way of events from the hub to a stream, which carries only so much.

use tally_model::Revision;
use tokio::sync::mpsc;

use super::amount::{Amount, Share};
use super::told::Batch;

/// Bytes that wait for one stream; what would be more is read from the history later.
pub(crate) const WAITING_BYTES_MAX: usize = 1 << 20;

/// Bytes that wait for all streams of a member; what several wait for counts once.
pub(super) const MEMBER_WAITING_BYTES_MAX: usize = 64 << 20;

/// What a delivery takes beside its events.
const DELIVERY_BYTES: usize = 128;

/// One watcher of a stream. Its client may give the id once more when it is free again; what was meant
/// for the one before must not reach the one after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watch {
    pub(crate) id: i64,
    pub(crate) serial: u64,
}

/// Something for the stream of a watcher.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// All events of some revisions that the watcher wants.
    Events { watch: Watch, events: Batch },
    /// The watcher was let go: it knows everything up to a revision, and may count as one that reads the history.
    LetGo {
        watch: Watch,
        through: Revision,
        counted: Option<Share>,
    },
    /// Every watcher of the stream that was not let go knows everything up to a revision.
    Progress { through: Revision },
}

impl Delivery {
    pub(super) fn bytes(&self) -> usize {
        let events = match self {
            Self::Events { events, .. } => events.iter().map(|told| told.bytes()).sum(),
            Self::LetGo { .. } | Self::Progress { .. } => 0,
        };
        events + DELIVERY_BYTES
    }
}

/// A delivery on its way, and what it counts for in the stream and in the member. Boxed: a channel has room for 32 from the first on.
type Counted = Box<(Delivery, [Share; 2])>;

/// The way to one stream. Clones lead to the same one.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    deliveries: mpsc::UnboundedSender<Counted>,
    waiting: Amount,
    of_member: Amount,
    /// Where watchers count that are let go.
    reading: Option<Amount>,
}

/// The stream's end of it.
#[derive(Debug)]
pub(crate) struct Inbox {
    deliveries: mpsc::UnboundedReceiver<Counted>,
}

impl Way {
    /// A way, and its end; what is under way counts as `of_member`.
    pub(super) fn new(of_member: Amount, reading: Option<Amount>) -> (Self, Inbox) {
        let (send, deliveries) = mpsc::unbounded_channel();
        let way = Self {
            deliveries: send,
            waiting: Amount::default(),
            of_member,
            reading,
        };
        (way, Inbox { deliveries })
    }

    pub(super) fn has_room(&self) -> bool {
        self.waiting.get() < WAITING_BYTES_MAX && self.of_member.get() < MEMBER_WAITING_BYTES_MAX
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        self.deliveries.same_channel(&other.deliveries)
    }

    /// True when the stream has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.deliveries.is_closed()
    }

    pub(super) fn deliver(&self, delivery: Delivery) {
        let in_stream = self.waiting.add(delivery.bytes());
        let in_member = self.of_member.add(DELIVERY_BYTES);
        // A stream that has ended takes its watchers with it in a moment.
        let counted = Box::new((delivery, [in_stream, in_member]));
        let _ = self.deliveries.send(counted);
    }

    /// Tells a watcher that it is let go.
    pub(super) fn let_go(&self, watch: Watch, through: Revision) {
        self.deliver(Delivery::LetGo {
            watch,
            through,
            counted: self.one_reading(),
        });
    }

    /// Counts one watcher of the stream as reading the history for itself, until this is dropped; `None` where they do
    /// not count.
    pub(crate) fn one_reading(&self) -> Option<Share> {
        self.reading.as_ref().map(|reading| reading.add(1))
    }
}

impl Inbox {
    /// The next delivery. Never `None` while the stream has a way of its own.
    pub(crate) async fn next(&mut self) -> Option<Delivery> {
        let (delivery, _no_longer) = *self.deliveries.recv().await?;
        Some(delivery)
    }
}
