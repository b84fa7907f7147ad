//! The gRPC service: checks bounds and standing, and passes on to the records.

use std::sync::Arc;

use tally_model::explanation::codes;
use tally_proto::fault::{self, Fault};
use tally_proto::logserver as api;
use tokio::sync::Semaphore;
use tonic::{Code, Request, Response, Status, async_trait};

use crate::error::RecordsError;
use crate::records::{Append, DATA_BYTES_MAX, READ_RECORDS_MAX, Records};
use crate::standing::{Ended, Shared, disk_full};
use crate::writer::Writer;

/// Longest request: a record of full length and its frame.
pub(crate) const MESSAGE_BYTES_MAX: usize = DATA_BYTES_MAX + (64 << 10);

/// Reads at the same time; each holds a thread.
pub(crate) const READS_MAX: usize = 64;

/// One log server's answers.
pub(crate) struct Service {
    pub(crate) node: u32,
    pub(crate) records: Arc<Records>,
    pub(crate) writer: Writer,
    pub(crate) reads: Arc<Semaphore>,
    pub(crate) standing: Shared,
}

impl Service {
    fn failed(&self, error: RecordsError) -> Status {
        match error {
            RecordsError::Full(_) => {
                let found = error.to_string();
                self.standing.write_found_no_room(&found);
                disk_full(&found, true)
            }
            RecordsError::Failed(_) => {
                let found = error.to_string();
                self.standing.end(Ended::halted(found.as_str()));
                let found = format!("the log server has stopped: {found}");
                fault::status(Code::DataLoss, codes::HALTED, found)
            }
            RecordsError::Overloaded(_) => overloaded(error.to_string()),
        }
    }
}

fn overloaded(found: String) -> Status {
    fault::status(Code::ResourceExhausted, codes::OVERLOADED, found)
}

#[async_trait]
impl api::log_server_server::LogServer for Service {
    async fn append(
        &self,
        request: Request<api::AppendRequest>,
    ) -> Result<Response<api::AppendResponse>, Status> {
        let api::AppendRequest { log, data } = request.into_inner();
        if data.len() > DATA_BYTES_MAX {
            let found = format!(
                "found {} bytes, at most {DATA_BYTES_MAX} are allowed",
                data.len()
            );
            return Err(Fault::new(codes::TOO_LARGE, found).into_status(Code::InvalidArgument));
        }
        self.standing.get().check_append()?;
        let appended = self.writer.append(Append { log, data }).await;
        let offset = appended.map_err(|error| self.failed(error))?;
        Ok(Response::new(api::AppendResponse { offset }))
    }

    async fn read(
        &self,
        request: Request<api::ReadRequest>,
    ) -> Result<Response<api::ReadResponse>, Status> {
        let api::ReadRequest { log, from, limit } = request.into_inner();
        self.standing.get().check_read()?;
        let permit = self.reads.clone().try_acquire_owned();
        let permit = permit.map_err(|_| overloaded(format!("{READS_MAX} reads are under way")))?;
        let limit = match usize::try_from(limit) {
            Ok(limit @ 1..=READ_RECORDS_MAX) => limit,
            _ => READ_RECORDS_MAX,
        };
        let records = self.records.clone();
        let read = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            records.read(log, from, limit)
        });
        let read = read
            .await
            .map_err(|error| Status::internal(error.to_string()))?;
        let read = read.map_err(|error| self.failed(error))?;
        let records = read
            .into_iter()
            .map(|(offset, data)| api::Record { offset, data });
        Ok(Response::new(api::ReadResponse {
            records: records.collect(),
        }))
    }

    async fn state(
        &self,
        _: Request<api::StateRequest>,
    ) -> Result<Response<api::StateResponse>, Status> {
        Ok(Response::new(state(self.node, &self.standing)))
    }
}

/// What the log server says of itself.
pub(crate) fn state(node: u32, standing: &Shared) -> api::StateResponse {
    let standing = standing.get();
    api::StateResponse {
        node,
        storage_state: standing.state.to_string(),
        revision: standing.revision,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use api::log_server_server::LogServer as _;
    use tally_client::StorageState;

    use super::*;

    fn service(dir: &std::path::Path, fails_with: RecordsError) -> Service {
        let (writer, _) = Writer::start(move |_| Err(fails_with.clone())).unwrap();
        Service {
            node: 1,
            records: Arc::new(Records::open(dir).unwrap()),
            writer,
            reads: Arc::new(Semaphore::new(1)),
            standing: Shared::new(StorageState::ReadWrite, 3),
        }
    }

    async fn append(service: &Service) -> (Code, String) {
        let ask = api::AppendRequest {
            log: 1,
            data: Vec::new(),
        };
        let status = service.append(Request::new(ask)).await.unwrap_err();
        (status.code(), fault::read(&status).unwrap().code)
    }

    fn coded(status: Code, code: &str) -> (Code, String) {
        (status, code.to_owned())
    }

    #[tokio::test]
    async fn a_write_without_room_stops_appends_at_once_and_reads_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let service = service(dir.path(), RecordsError::Full("no room".to_owned()));
        // All were let in before the first one found out.
        let (one, two) = tokio::join!(append(&service), append(&service));
        let refused = coded(Code::FailedPrecondition, codes::NOT_PERMITTED);
        assert_eq!((&one, &two), (&refused, &refused));
        let standing = service.standing.get();
        assert!(standing.disk_full.is_some() && standing.write_failed);
        assert_eq!(standing.ended, None, "it still has to tell the cluster");
        assert_eq!(append(&service).await, refused);
        let ask = api::ReadRequest {
            log: 1,
            from: 1,
            limit: 0,
        };
        assert!(service.read(Request::new(ask)).await.is_ok());
    }

    #[tokio::test]
    async fn a_failed_write_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let service = service(dir.path(), RecordsError::Failed("i/o error".to_owned()));
        let failed = coded(Code::DataLoss, codes::HALTED);
        assert_eq!(append(&service).await, failed);
        assert!(service.standing.get().ended.is_some());
        let ended = coded(Code::FailedPrecondition, codes::HALTED);
        assert_eq!(append(&service).await, ended);
    }
}
