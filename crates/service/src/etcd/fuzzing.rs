//! Metadata of requests on arbitrary bytes, for the fuzz targets in `tests/fuzz` and, with real metadata
//! that was cut and flipped, for every test run.

use tally_model::explanation::codes;
use tally_proto::fault;
use tally_proto::metadata::{ACKNOWLEDGED, MARKER, SEQUENCE, SESSION};
use tonic::Code;
use tonic::metadata::{MetadataMap, MetadataValue};

use super::tag::{Given, given};

/// What a tag is made of, by the first byte of a line.
const NAMES: [&str; 4] = [SESSION, SEQUENCE, ACKNOWLEDGED, MARKER];

/// Metadata of a request, a line for each value: the first byte says of what, the rest is the value.
pub fn metadata(data: &[u8]) {
    let metadata = read(data);
    match given(&metadata) {
        Ok(Some(tag)) => {
            let acknowledged = 1..=tag.tag.sequence;
            assert!(acknowledged.contains(&tag.acknowledged), "{tag:?}");
            assert_ne!(tag.tag.session.0, 0, "{tag:?}");
            let again = given(&read(&written(&tag)));
            assert_eq!(again.ok().flatten(), Some(tag), "{metadata:?}");
        }
        // A write that was meant to be tagged must never be taken for one that was not.
        Ok(None) => assert!(metadata.is_empty(), "{metadata:?}"),
        Err(status) => {
            let fault = fault::read(&status).map(|fault| (fault.code, fault.found));
            let (code, found) = fault.unwrap_or_default();
            assert_eq!(code, codes::INVALID_ARGUMENT, "{status:?}");
            assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
            assert!(found.contains("found"), "{found}: it does not say what was");
        }
    }
}

fn read(data: &[u8]) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let Some((which, value)) = line.split_first() else {
            continue;
        };
        // What no header can hold does not arrive.
        if let Ok(value) = MetadataValue::try_from(value) {
            metadata.append(NAMES[usize::from(*which) % NAMES.len()], value);
        }
    }
    metadata
}

/// As a client writes it.
fn written(given: &Given) -> Vec<u8> {
    let marker = given.marker.map(|marker| marker.to_string());
    let values = [
        Some(given.tag.session.0.to_string()),
        Some(given.tag.sequence.to_string()),
        Some(given.acknowledged.to_string()),
        marker,
    ];
    let values = (0..).zip(values);
    let lines = values.filter_map(|(which, value)| Some(line(which, &value?)));
    lines.collect::<Vec<_>>().concat()
}

fn line(which: u8, value: &str) -> Vec<u8> {
    [&[which], value.as_bytes(), b"\n"].concat()
}

/// Real metadata for [`metadata`].
pub fn metadata_seeds() -> Vec<Vec<u8>> {
    let marker = "7f3a0000000000000000000000000000@1700000000000";
    let seeds: [&[(u8, &str)]; 5] = [
        &[(0, "12"), (1, "2")],
        &[(0, "12"), (1, "3"), (2, "2"), (3, marker)],
        &[(0, "12"), (1, "2"), (2, "3")],
        &[(0, "12"), (0, "13"), (1, "2")],
        &[(3, marker)],
    ];
    let seeds = seeds.iter().map(|values| {
        let lines = values.iter().map(|(which, value)| line(*which, value));
        lines.collect::<Vec<_>>().concat()
    });
    seeds.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_metadata_can_make_its_reader_panic_or_lose_a_tag() {
        for seed in metadata_seeds() {
            metadata(&seed);
            for at in 0..seed.len() {
                metadata(&seed[..at]);
                for flip in [0x01, 0x02, 0x20, 0x80, 0xff] {
                    let mut flipped = seed.clone();
                    flipped[at] ^= flip;
                    metadata(&flipped);
                }
            }
        }
    }
}
