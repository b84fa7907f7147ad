//! Writes of the etcd API on their way to an answer, under the tag of their requester or one of the
//! member's own.

use std::sync::Arc;
use std::time::Instant;

use tally_consensus::Replica;
use tally_model::{Command, Effect, Outcome, Request as Proposal, Revision, Tagged};
use tally_proto::convert::digest;
use tonic::metadata::MetadataMap;
use tonic::{Response, Status};

use super::lanes::Lanes;
use super::rpctypes;
use super::tag::{self, Given};
use crate::deadline;
use crate::member::Member;
use crate::system;

/// See the module.
pub(super) struct Writer {
    member: Arc<Member>,
    lanes: Lanes,
}

/// What became of a write.
pub(super) struct Done {
    pub(super) revision: Revision,
    pub(super) effect: Effect,
    /// Whether it had become of it before; `None` when it has no tag of its requester's.
    replayed: Option<bool>,
}

impl Done {
    /// The answer, with what becomes of the tag where there is one.
    pub(super) fn response<T>(&self, message: T) -> Response<T> {
        let mut response = Response::new(message);
        if let Some(replayed) = self.replayed {
            tag::tell(&mut response, replayed);
        }
        response
    }
}

impl Writer {
    pub(super) fn new(member: Arc<Member>) -> Self {
        Self {
            member,
            lanes: Lanes::new(system::fresh_marker()),
        }
    }

    /// The replica of a member that serves.
    pub(super) fn replica(&self) -> Result<Replica, Status> {
        self.member.may_serve().map_err(|_| rpctypes::stopped())
    }

    /// Appends a client's command, and gives what apply decided.
    pub(super) async fn write(
        &self,
        method: &'static str,
        metadata: &MetadataMap,
        command: Result<Command, Status>,
    ) -> Result<Done, Status> {
        let begun = Instant::now();
        let done = async {
            self.append(tag::given(metadata)?, deadline::of(metadata), command?)
                .await
        };
        let done = done.await;
        self.member.metrics.request(method, &done, begun);
        done
    }

    /// Appends a command under the tag that was given, or one of the member's own, and gives what apply decided.
    pub(super) async fn append(
        &self,
        given: Option<Given>,
        deadline: Instant,
        command: Command,
    ) -> Result<Done, Status> {
        let replica = self.replica()?;
        let proposed = async {
            let Some(given) = given else {
                return self.lanes.propose(&replica, command, deadline).await;
            };
            let tagged = Tagged {
                tag: given.tag,
                marker: given.marker,
                acknowledged: given.acknowledged,
                digest: digest(&command),
            };
            let request = Proposal {
                tagged: Some(tagged),
                command,
            };
            replica.propose(request, deadline).await.map_err(Some)
        };
        let ending = &self.member.ending;
        let answer = ending.unless_refusing(proposed).await;
        let answer = answer.ok_or_else(rpctypes::stopped)?.map_err(|error| {
            let error = error.as_ref();
            error.map_or_else(rpctypes::too_many, rpctypes::propose)
        })?;
        let replayed = given.map(|_| answer.repeat);
        match answer.outcome {
            Outcome::Applied { revision, effect }
            | Outcome::Replayed {
                since: revision,
                effect,
            } => {
                self.member.answers_write(revision);
                Ok(Done {
                    revision,
                    effect,
                    replayed,
                })
            }
            Outcome::Refused(refusal) => Err(rpctypes::refusal(&refusal)),
        }
    }
}
