//! The tag of a write, from the metadata of its request: what makes it safe to send again.
//!
//! | metadata | value |
//! |---|---|
//! | `tally-session` | the session that `tally.v1.Sessions/Open` gave |
//! | `tally-sequence` | which of the session's requests this is, from 1 |
//! | `tally-acknowledged` | every request below is answered; 1 when it is left out |
//! | `tally-marker` | the session's marker, `32 hex digits@milliseconds`; not compared when it is left out |
//!
//! Numbers are decimal.

use tally_model::explanation::codes;
use tally_model::{Marker, SessionId, Tag};
use tally_proto::fault::Fault;
use tally_proto::metadata::{ACKNOWLEDGED, APPLIED, MARKER, OUTCOME, REPLAYED, SEQUENCE, SESSION};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Response, Status};

/// What a client said of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) tag: Tag,
    pub(super) acknowledged: u64,
    pub(super) marker: Option<Marker>,
}

/// The tag of a request; `None` when it has none.
///
/// # Errors
/// When a part of it is missing, or is no number.
pub(super) fn given(metadata: &MetadataMap) -> Result<Option<Given>, Status> {
    let (session, sequence) = (number(metadata, SESSION)?, number(metadata, SEQUENCE)?);
    let acknowledged = number(metadata, ACKNOWLEDGED)?;
    let marker = text(metadata, MARKER)?.map(|text| {
        let marker: Result<Marker, _> = text.parse();
        marker.map_err(|error| invalid(MARKER, &error.to_string()))
    });
    let marker = marker.transpose()?;
    match (session, sequence) {
        (Some(_), Some(sequence)) if acknowledged.is_some_and(|below| below > sequence) => {
            Err(invalid(
                ACKNOWLEDGED,
                "found more than the sequence of the request itself",
            ))
        }
        (Some(session), Some(sequence)) => Ok(Some(Given {
            tag: Tag {
                session: SessionId(session),
                sequence,
            },
            acknowledged: acknowledged.unwrap_or(1),
            marker,
        })),
        (Some(_), None) => Err(invalid(SEQUENCE, "found nothing, and a session is named")),
        (None, Some(_)) => Err(invalid(SESSION, "found nothing, and a sequence is given")),
        (None, None) if acknowledged.is_some() || marker.is_some() => Err(invalid(
            SESSION,
            "found nothing, and other parts of a tag are given",
        )),
        (None, None) => Ok(None),
    }
}

fn text<'m>(metadata: &'m MetadataMap, name: &'static str) -> Result<Option<&'m str>, Status> {
    let value = metadata.get(name).map(MetadataValue::to_str);
    value
        .transpose()
        .map_err(|_| invalid(name, "found bytes that are no text"))
}

fn number(metadata: &MetadataMap, name: &'static str) -> Result<Option<u64>, Status> {
    let Some(text) = text(metadata, name)? else {
        return Ok(None);
    };
    match text.parse() {
        Ok(number) if number > 0 && number < u64::MAX => Ok(Some(number)),
        Ok(_) | Err(_) => Err(invalid(
            name,
            &format!("found {text:?}, expected a number from 1 on"),
        )),
    }
}

fn invalid(name: &str, problem: &str) -> Status {
    Fault::new(codes::INVALID_ARGUMENT, format!("{name}: {problem}"))
        .with_next("correct the request; nothing of it was appended")
        .into_status(Code::InvalidArgument)
}

/// Says in the answer's metadata whether it is the first one to this tag.
pub(super) fn tell<T>(response: &mut Response<T>, replayed: bool) {
    let outcome = match replayed {
        true => REPLAYED,
        false => APPLIED,
    };
    let value = MetadataValue::from_static(outcome);
    response.metadata_mut().insert(OUTCOME, value);
}
