//! `tally.v1.Nodes`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::stream::BoxStream;
use tally_model::explanation::codes;
use tally_model::{Answer, NodeId, NodeName, Revision, View};
use tally_proto::convert::{DecodeError, bytes_16};
use tally_proto::fault::Fault;
use tally_proto::v1;
use tally_proto::v1::nodes_server::Nodes;
use tally_proto::v1::{
    ActivateRequest, ActivateResponse, ClaimsRequest, ClaimsResponse, GetRequest, GetResponse,
    HistoryRequest, HistoryResponse, ListRequest, ListResponse, RegisterRequest, RegisterResponse,
    SetStateRequest, SetStateResponse, WatchRequest, WatchResponse,
};
use tokio::sync::Semaphore;
use tonic::{Code, Request, Response, Status};

use super::watch;
use crate::member::Member;
use crate::{deadline, fault};

/// What log servers call again and again.
pub(super) const OFTEN: [&str; 2] = ["/tally.v1.Nodes/SetState", "/tally.v1.Nodes/Get"];

/// Rows in one answer.
const PAGE_MAX: usize = 1_000;

/// Claims in one answer; a node keeps far fewer.
const CLAIMS_MAX: usize = 10_000;

pub(super) struct NodesAnswers {
    member: Arc<Member>,
    watches: Arc<Semaphore>,
}

impl NodesAnswers {
    pub(super) fn new(member: Arc<Member>) -> Self {
        let watches = Arc::new(Semaphore::new(member.config.tuning.streams_max));
        Self { member, watches }
    }

    /// Withholds the answer for ever while `tally dev drop-replies` is on.
    async fn deliver(&self, answer: Answer) -> Answer {
        if self.member.faults.drop_replies.load(Ordering::Relaxed) {
            tracing::warn!("an answer is withheld on purpose");
            std::future::pending::<()>().await;
        }
        answer
    }

    fn check_cluster(&self, asked: &[u8]) -> Result<(), Status> {
        if asked.is_empty() {
            return Ok(());
        }
        let asked = bytes_16("cluster_id", asked).map_err(|error| fault::invalid(&error))?;
        let own = self.member.cluster();
        if own.is_some_and(|own| own.0 == asked) {
            return Ok(());
        }
        let own = own.map_or("none yet".to_owned(), |own| own.to_string());
        let found = format!("the request is for cluster {asked:032x}, this member's is {own}");
        Err(Fault::new(codes::WRONG_CLUSTER, found)
            .with_next("check the endpoints: tally cluster status")
            .into_status(Code::FailedPrecondition))
    }
}

fn limit(asked: u32) -> usize {
    match usize::try_from(asked) {
        Ok(asked) if (1..=PAGE_MAX).contains(&asked) => asked,
        _ => PAGE_MAX,
    }
}

fn of_node(node: u32) -> Option<NodeId> {
    (node > 0).then_some(NodeId(node))
}

/// Cuts a page that was read with one row more, and says whether there was one.
fn page<T>(mut rows: Vec<T>, limit: usize) -> (Vec<T>, bool) {
    let more = rows.len() > limit;
    rows.truncate(limit);
    (rows, more)
}

enum Which {
    Id(NodeId),
    Name(NodeName),
}

fn which(ask: GetRequest) -> Result<Which, DecodeError> {
    use v1::get_request::Which as Asked;
    match ask.which {
        Some(Asked::Node(id)) => Ok(Which::Id(NodeId(id))),
        Some(Asked::Name(name)) => Ok(Which::Name(NodeName::new(name)?)),
        None => Err(DecodeError {
            what: "which",
            problem: "found nothing, expected a node's id or name".to_owned(),
        }),
    }
}

#[tonic::async_trait]
impl Nodes for NodesAnswers {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let (metadata, _, ask) = request.into_parts();
        self.check_cluster(&ask.cluster_id)?;
        let answer = self
            .member
            .propose("Nodes.Register", &metadata, ask.try_into())
            .await?;
        Ok(Response::new(RegisterResponse {
            answer: Some(answer.into()),
        }))
    }

    async fn activate(
        &self,
        request: Request<ActivateRequest>,
    ) -> Result<Response<ActivateResponse>, Status> {
        let (metadata, _, ask) = request.into_parts();
        let answer = self
            .member
            .propose("Nodes.Activate", &metadata, ask.try_into())
            .await?;
        let answer = self.deliver(answer).await;
        Ok(Response::new(ActivateResponse {
            answer: Some(answer.into()),
        }))
    }

    async fn set_state(
        &self,
        request: Request<SetStateRequest>,
    ) -> Result<Response<SetStateResponse>, Status> {
        let (metadata, _, ask) = request.into_parts();
        let answer = self
            .member
            .propose("Nodes.SetState", &metadata, ask.try_into())
            .await?;
        let answer = self.deliver(answer).await;
        Ok(Response::new(SetStateResponse {
            answer: Some(answer.into()),
        }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let (metadata, _, ask) = request.into_parts();
        let asked = ask.consistency;
        let which = which(ask).map_err(|error| fault::invalid(&error))?;
        let read = self.member.read("Nodes.Get", &metadata, asked, |view| {
            let node = match &which {
                Which::Id(id) => view.node(*id),
                Which::Name(name) => view.node_by_name(name),
            };
            GetResponse {
                node: node.map(Into::into),
                revision: view.revision().0,
            }
        });
        read.await.map(Response::new)
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let (metadata, _, ask) = request.into_parts();
        let limit = limit(ask.limit);
        let read = self
            .member
            .read("Nodes.List", &metadata, ask.consistency, |view| {
                let (nodes, more) = page(view.nodes_after(of_node(ask.after), limit + 1), limit);
                ListResponse {
                    nodes: nodes.into_iter().map(Into::into).collect(),
                    revision: view.revision().0,
                    more,
                }
            });
        read.await.map(Response::new)
    }

    async fn history(
        &self,
        request: Request<HistoryRequest>,
    ) -> Result<Response<HistoryResponse>, Status> {
        let (metadata, _, ask) = request.into_parts();
        let limit = limit(ask.limit);
        let read = self
            .member
            .read("Nodes.History", &metadata, ask.consistency, |view| {
                let after = Revision(ask.after_revision);
                let lines = view.history_after(after, of_node(ask.node), limit + 1);
                let (lines, more) = page(lines, limit);
                HistoryResponse {
                    entries: lines.into_iter().map(Into::into).collect(),
                    revision: view.revision().0,
                    more,
                }
            });
        read.await.map(Response::new)
    }

    async fn claims(
        &self,
        request: Request<ClaimsRequest>,
    ) -> Result<Response<ClaimsResponse>, Status> {
        let (metadata, _, ask) = request.into_parts();
        let read = self
            .member
            .read("Nodes.Claims", &metadata, ask.consistency, |view| {
                let claims = match of_node(ask.node) {
                    Some(node) => view.claims(node),
                    None => view.claims_all(CLAIMS_MAX),
                };
                ClaimsResponse {
                    claims: claims.into_iter().map(Into::into).collect(),
                    revision: view.revision().0,
                }
            });
        read.await.map(Response::new)
    }

    type WatchStream = BoxStream<'static, Result<WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let allowed = self.member.config.tuning.streams_max;
        let Ok(permit) = self.watches.clone().try_acquire_owned() else {
            return Err(fault::overloaded(format!(
                "this member serves {allowed} watches already, which is its limit"
            )));
        };
        let deadline = deadline::of(request.metadata());
        let ask = request.into_inner();
        let stream = watch::start(
            self.member.clone(),
            of_node(ask.node),
            ask.from_revision,
            deadline,
            permit,
        );
        stream.await.map(Response::new)
    }
}
