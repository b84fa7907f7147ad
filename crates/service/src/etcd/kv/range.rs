//! Ranges, however large: one that is larger than what is held at once is sent while it is read.
//!
//! gRPC says how long a message is before its first byte. So such a range is read twice, as of the same
//! moment: once to find out, and once to send.

use std::ops::ControlFlow;
use std::sync::Arc;

use prost::Message;
use tally_model::keys::{self, Range, RangeAnswer, RangeEnd};
use tally_model::{KeyValue, Refusal, Revision};
use tally_proto::etcd::{RangeResponse, ResponseHeader};
use tally_storage::{StateReader, StateView};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tonic::Status;

use super::HELD_BYTES_MAX;
use super::sent::{End, Sending, Sent};
use crate::etcd::rpctypes;

/// What a range has come to.
pub(super) enum Answer {
    Held(RangeAnswer),
    /// Of which the first piece is on its way.
    Sent(Sent),
}

/// A range that [comes in order](Range::comes_in_order).
pub(super) struct Reading<Header, Ended> {
    pub(super) ask: Range,
    /// Makes the header of an answer of a revision.
    pub(super) header: Header,
    /// Told how an answer ended that was sent in pieces.
    pub(super) ended: Ended,
    /// Held until all is read, and for a large one until it begins to be sent.
    pub(super) turn: OwnedSemaphorePermit,
    /// Room for those that are sent.
    pub(super) room: Arc<Semaphore>,
}

impl<Header, Ended> Reading<Header, Ended>
where
    Header: Fn(Revision) -> ResponseHeader + Send + 'static,
    Ended: FnOnce(&Result<(), Status>) + Send + 'static,
{
    /// # Errors
    /// As etcd has them.
    pub(super) async fn run(self, reader: StateReader) -> Result<Answer, Status> {
        let (answered, answer) = oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let mut caller = Caller {
                answered: Some(answered),
                end: None,
            };
            let Self {
                ask,
                header,
                ended,
                turn,
                room,
            } = self;
            let read = reader.with_view(|view| caller.read(view, &ask, header, turn, &room));
            // Whatever came of a state that cannot be read means nothing.
            let read = read.unwrap_or_else(|_| Err(rpctypes::stopped()));
            caller.end(read, ended);
        });
        answer.await.map_err(|_| rpctypes::stopped())?
    }
}

/// Who waits for a range.
struct Caller {
    /// Until it has the answer, or is sent it.
    answered: Option<oneshot::Sender<Result<Answer, Status>>>,
    /// While it is sent it.
    end: Option<End>,
}

impl Caller {
    fn has_gone(&self) -> bool {
        self.answered
            .as_ref()
            .is_some_and(oneshot::Sender::is_closed)
    }

    /// Gives the answer if it is held; of a larger one it sends all.
    fn read(
        &mut self,
        view: &StateView<'_>,
        ask: &Range,
        header: impl Fn(Revision) -> ResponseHeader,
        turn: OwnedSemaphorePermit,
        room: &Arc<Semaphore>,
    ) -> Result<Option<RangeAnswer>, Status> {
        let refused = |refusal: Refusal| rpctypes::refusal(&refusal);
        let mut found = Vec::new();
        let mut bytes = 0_usize;
        let walked = keys::walk(view, ask, &|| !self.has_gone(), &mut |one| {
            bytes = bytes.saturating_add(part(&one).encoded_len());
            match bytes > HELD_BYTES_MAX {
                true => found = Vec::new(),
                false => found.push(one),
            }
            ControlFlow::Continue(())
        });
        let Some(RangeEnd {
            revision,
            more,
            count,
        }) = walked.map_err(refused)?
        else {
            return Err(Status::cancelled("the caller has gone"));
        };
        if bytes <= HELD_BYTES_MAX {
            return Ok(Some(RangeAnswer {
                revision,
                found,
                more,
                count,
            }));
        }
        let first = RangeResponse {
            header: Some(header(revision)),
            ..Default::default()
        };
        let last = RangeResponse {
            more,
            count: count.cast_signed(),
            ..Default::default()
        };
        let whole = first.encoded_len() + bytes + last.encoded_len();
        let begun = Handle::current().block_on(Sending::begin(whole, room));
        let (mut sending, end, sent) = begun?;
        drop(turn);
        self.end = Some(end);
        if let Some(answered) = self.answered.take() {
            // Who does not wait any more takes no piece either.
            let _ = answered.send(Ok(Answer::Sent(sent)));
        }
        sending.put(&first)?;
        let mut put = Ok(());
        let again = keys::walk(view, ask, &|| true, &mut |one| {
            put = sending.put(&part(&one));
            match put {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        });
        again.map_err(refused)?;
        put?;
        sending.put(&last)?;
        sending.finish()?;
        Ok(None)
    }

    /// Gives the answer that was held, or says how it ended. Nobody may wait for it any more.
    fn end(
        self,
        read: Result<Option<RangeAnswer>, Status>,
        ended: impl FnOnce(&Result<(), Status>),
    ) {
        if let Some(end) = self.end {
            let result = read.map(|_| ());
            ended(&result);
            let _ = end.send(result.err().unwrap_or_else(|| Status::ok("")));
        } else if let Some(answered) = self.answered {
            let answer = read.and_then(|held| held.ok_or_else(rpctypes::stopped));
            let _ = answered.send(answer.map(Answer::Held));
        }
    }
}

/// An answer with one key. Messages one after the other are one message with the keys of all.
fn part(one: &KeyValue) -> RangeResponse {
    RangeResponse {
        kvs: vec![one.into()],
        ..Default::default()
    }
}
