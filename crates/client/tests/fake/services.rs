//! The services of one member.

use std::future::pending;
use std::sync::Arc;

use tally_model::explanation::codes;
use tally_model::{Command, Marker, NodeId, NodeName, Request, Tables, View};
use tally_proto::convert::DecodeError;
use tally_proto::fault::{self, Fault};
use tally_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status, async_trait};
use v1::watch_response::Kind;

use super::{Seen, Shared, Twist};

#[derive(Clone)]
pub(super) struct Member {
    pub(super) number: usize,
    pub(super) shared: Arc<Shared>,
}

impl Member {
    /// Treats a command as planned.
    pub(super) async fn command(
        &self,
        call: &'static str,
        tag: Option<v1::Tag>,
        request: Result<Request, DecodeError>,
    ) -> Result<Option<v1::Answer>, Status> {
        let request = request.map_err(|error| {
            fault::status(
                Code::InvalidArgument,
                codes::INVALID_ARGUMENT,
                error.to_string(),
            )
        })?;
        let twist = {
            let mut state = self.shared.state();
            state.seen.push(Seen {
                member: self.number,
                call,
                tag: tag.unwrap(),
            });
            state.plan.pop_front().unwrap_or(state.otherwise.clone())
        };
        self.treat(twist, &request).await
    }

    async fn treat(&self, twist: Twist, request: &Request) -> Result<Option<v1::Answer>, Status> {
        let commit = || self.shared.apply(&mut self.shared.state(), request);
        match twist {
            Twist::Serve => Ok(Some((&commit()).into())),
            Twist::DropAnswer => {
                commit();
                Err(Status::unavailable("connection reset"))
            }
            Twist::Silence => {
                commit();
                pending().await
            }
            Twist::DropRequest => Err(Status::unavailable("connection reset")),
            Twist::NoLeader(leader) => Err(Fault::new(codes::NO_LEADER, "no member leads")
                .with_leader(leader)
                .into_status(Code::Unavailable)),
            Twist::SayUnknown => Err(fault::status(
                Code::Unavailable,
                codes::OUTCOME_UNKNOWN,
                "leadership moved",
            )),
            Twist::Reject => Err(fault::status(
                Code::InvalidArgument,
                codes::INVALID_ARGUMENT,
                "never",
            )),
            Twist::EndSession => {
                let mut state = self.shared.state();
                if let Some(tagged) = &request.tagged {
                    state.memory.remove_session(tagged.tag.session);
                }
                Ok(Some((&self.shared.apply(&mut state, request)).into()))
            }
        }
    }
}

#[async_trait]
impl v1::sessions_server::Sessions for Member {
    async fn open(
        &self,
        ask: tonic::Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        let twist = {
            let mut state = self.shared.state();
            state.opened += 1;
            state.on_open.clone()
        };
        let request = ask.into_inner().try_into().unwrap();
        let answer = self.treat(twist, &request).await?;
        Ok(Response::new(v1::OpenSessionResponse {
            answer,
            idle_ms: 0,
        }))
    }

    async fn close(
        &self,
        ask: tonic::Request<v1::CloseSessionRequest>,
    ) -> Result<Response<v1::CloseSessionResponse>, Status> {
        let ask = ask.into_inner();
        let answer = self
            .command("close", ask.tag.clone(), ask.try_into())
            .await?;
        Ok(Response::new(v1::CloseSessionResponse { answer }))
    }

    async fn settle(
        &self,
        ask: tonic::Request<v1::SettleRequest>,
    ) -> Result<Response<v1::SettleResponse>, Status> {
        let ask = ask.into_inner();
        let answer = self
            .command("settle", ask.tag.clone(), ask.try_into())
            .await?;
        Ok(Response::new(v1::SettleResponse { answer }))
    }
}

#[async_trait]
impl v1::nodes_server::Nodes for Member {
    type WatchStream = ReceiverStream<Result<v1::WatchResponse, Status>>;

    async fn register(
        &self,
        ask: tonic::Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterResponse>, Status> {
        let ask = ask.into_inner();
        if !ask.cluster_id.is_empty() && ask.cluster_id != self.shared.cluster.0.to_be_bytes() {
            return Err(fault::status(
                Code::FailedPrecondition,
                codes::WRONG_CLUSTER,
                "another cluster",
            ));
        }
        let answer = self
            .command("register", ask.tag.clone(), ask.try_into())
            .await?;
        Ok(Response::new(v1::RegisterResponse { answer }))
    }

    async fn activate(
        &self,
        ask: tonic::Request<v1::ActivateRequest>,
    ) -> Result<Response<v1::ActivateResponse>, Status> {
        let ask = ask.into_inner();
        let answer = self
            .command("activate", ask.tag.clone(), ask.try_into())
            .await?;
        Ok(Response::new(v1::ActivateResponse { answer }))
    }

    async fn set_state(
        &self,
        ask: tonic::Request<v1::SetStateRequest>,
    ) -> Result<Response<v1::SetStateResponse>, Status> {
        let ask = ask.into_inner();
        let answer = self
            .command("set-state", ask.tag.clone(), ask.try_into())
            .await?;
        Ok(Response::new(v1::SetStateResponse { answer }))
    }

    async fn get(
        &self,
        ask: tonic::Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetResponse>, Status> {
        let state = self.shared.state();
        let node = match ask.into_inner().which.unwrap() {
            v1::get_request::Which::Node(id) => state.memory.node(NodeId(id)),
            v1::get_request::Which::Name(name) => {
                state.memory.node_by_name(&NodeName::new(name).unwrap())
            }
        };
        Ok(Response::new(v1::GetResponse {
            node: node.as_ref().map(Into::into),
            revision: state.memory.globals().revision.0,
        }))
    }

    /// Pages of two, so that there are several.
    async fn list(
        &self,
        ask: tonic::Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        let state = self.shared.state();
        let after = ask.into_inner().after;
        let mut nodes: Vec<v1::Node> = state.memory.nodes().iter().map(Into::into).collect();
        nodes.retain(|node| node.id > after);
        let more = nodes.len() > 2;
        nodes.truncate(2);
        let revision = state.memory.globals().revision.0;
        Ok(Response::new(v1::ListResponse {
            nodes,
            revision,
            more,
        }))
    }

    async fn history(
        &self,
        ask: tonic::Request<v1::HistoryRequest>,
    ) -> Result<Response<v1::HistoryResponse>, Status> {
        let (state, ask) = (self.shared.state(), ask.into_inner());
        let mut entries: Vec<v1::HistoryEntry> =
            state.memory.history().iter().map(Into::into).collect();
        entries.retain(|entry| entry.revision > ask.after_revision);
        entries.retain(|entry| ask.node == 0 || ask.node == entry.node);
        let more = entries.len() > 2;
        entries.truncate(2);
        let revision = state.memory.globals().revision.0;
        Ok(Response::new(v1::HistoryResponse {
            entries,
            revision,
            more,
        }))
    }

    async fn claims(
        &self,
        ask: tonic::Request<v1::ClaimsRequest>,
    ) -> Result<Response<v1::ClaimsResponse>, Status> {
        let state = self.shared.state();
        let claims = state.memory.claims(NodeId(ask.into_inner().node));
        Ok(Response::new(v1::ClaimsResponse {
            claims: claims.iter().map(Into::into).collect(),
            revision: state.memory.globals().revision.0,
        }))
    }

    async fn watch(
        &self,
        ask: tonic::Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let ask = ask.into_inner();
        let (sender, receiver) = mpsc::channel(4);
        let mut applied = self.shared.applied.subscribe();
        let mut breaks = self.shared.breaks.subscribe();
        let (started, mut from) = {
            let mut state = self.shared.state();
            state.watches += 1;
            let revision = state.memory.globals().revision.0;
            let node = state.memory.node(NodeId(ask.node));
            let from = if ask.from_revision == 0 {
                revision + 1
            } else {
                ask.from_revision
            };
            let node = node.as_ref().map(Into::into);
            (v1::WatchStarted { revision, node }, from)
        };
        let shared = self.shared.clone();
        tokio::spawn(async move {
            let kind = Some(Kind::Started(started));
            let _ = sender.send(Ok(v1::WatchResponse { kind })).await;
            loop {
                let entries: Vec<v1::HistoryEntry> = shared
                    .state()
                    .memory
                    .history()
                    .iter()
                    .map(Into::into)
                    .collect();
                for entry in entries {
                    if entry.revision >= from && (ask.node == 0 || ask.node == entry.node) {
                        from = entry.revision + 1;
                        let entry = Some(entry);
                        let kind = Some(Kind::Event(v1::WatchEvent { entry }));
                        let _ = sender.send(Ok(v1::WatchResponse { kind })).await;
                    }
                }
                tokio::select! {
                    changed = applied.changed() => if changed.is_err() { return },
                    _ = breaks.changed() => return,
                    () = sender.closed() => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

#[async_trait]
impl v1::cluster_server::Cluster for Member {
    /// Knows all members, by the endpoints at which they are.
    async fn status(
        &self,
        _: tonic::Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        let endpoints = self.shared.state().endpoints.clone();
        let members = endpoints
            .iter()
            .enumerate()
            .map(|(number, endpoint)| v1::Member {
                id: number as u64 + 1,
                name: format!("n{}", number + 1),
                peer_address: String::new(),
                client_address: endpoint.trim_start_matches("http://").to_owned(),
                voter: true,
            });
        Ok(Response::new(v1::StatusResponse {
            member: self.number as u64 + 1,
            name: format!("n{}", self.number + 1),
            cluster_id: self.shared.cluster.0.to_be_bytes().to_vec(),
            members: members.collect(),
            ..v1::StatusResponse::default()
        }))
    }

    /// The last member leads; the others say so. Follows the plan.
    async fn transfer_leader(
        &self,
        _: tonic::Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        let planned = {
            let mut state = self.shared.state();
            let leader = state.endpoints.last().cloned();
            let is_leader = state.endpoints.len() == self.number + 1;
            let twist = if is_leader {
                Twist::Serve
            } else {
                Twist::NoLeader(leader)
            };
            state.plan.pop_front().unwrap_or(twist)
        };
        if planned != Twist::Serve {
            let marker = Marker {
                bits: 0,
                created_unix_ms: 0,
            };
            let command = Command::OpenSession(tally_model::command::OpenSession { marker });
            self.treat(
                planned,
                &Request {
                    tagged: None,
                    command,
                },
            )
            .await?;
        }
        Ok(Response::new(v1::TransferLeaderResponse {
            leader: self.number as u64 + 1,
            name: format!("n{}", self.number + 1),
        }))
    }

    async fn snapshot(
        &self,
        _: tonic::Request<v1::SnapshotRequest>,
    ) -> Result<Response<v1::SnapshotResponse>, Status> {
        let index = self.shared.state().index;
        Ok(Response::new(v1::SnapshotResponse { index }))
    }

    async fn replace_member(
        &self,
        _: tonic::Request<v1::ReplaceMemberRequest>,
    ) -> Result<Response<v1::ReplaceMemberResponse>, Status> {
        Err(fault::status(
            Code::NotFound,
            codes::NOT_FOUND,
            "no such member",
        ))
    }
}
