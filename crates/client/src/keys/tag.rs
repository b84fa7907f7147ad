//! A tag as metadata of a request of the etcd API, and what the answer says of it. `docs/etcd.md` has the
//! names and their meaning.

use tally_model::Marker;
use tally_proto::metadata::{ACKNOWLEDGED, MARKER, OUTCOME, REPLAYED, SEQUENCE, SESSION};
use tally_proto::v1;
use tonic::Status;
use tonic::metadata::{MetadataMap, MetadataValue};

/// Puts the tag of a request.
pub(super) fn put(metadata: &mut MetadataMap, tag: &v1::Tag) -> Result<(), Status> {
    metadata.insert(SESSION, tag.session.into());
    metadata.insert(SEQUENCE, tag.sequence.into());
    metadata.insert(ACKNOWLEDGED, tag.acknowledged.into());
    if let Some(marker) = tag.marker.clone() {
        let unusable = |problem: String| Status::invalid_argument(format!("marker: {problem}"));
        let marker = Marker::try_from(marker).map_err(|error| unusable(error.to_string()))?;
        let text = MetadataValue::try_from(marker.to_string());
        metadata.insert(MARKER, text.map_err(|error| unusable(error.to_string()))?);
    }
    Ok(())
}

/// True when the answer is that of an earlier attempt.
pub(super) fn is_replayed(metadata: &MetadataMap) -> bool {
    metadata.get(OUTCOME).is_some_and(|value| value == REPLAYED)
}
