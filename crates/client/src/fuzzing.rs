//! This crate's decoders on arbitrary bytes, for the fuzz targets in `tests/fuzz` and, with real
//! encodings that were cut and flipped, for every test run.

use prost::Message;
use tally_model::{ClusterId, Marker};
use tally_proto::v1;

use crate::answer;
use crate::marker_file::{self, MarkerFile};
use crate::token::TagToken;

/// An answer of a member, the file `MARKER`, or a token of `tally resume`; the first byte says which.
pub fn client(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else {
        return;
    };
    match which % 3 {
        0 => {
            if let Ok(message) = v1::Answer::decode(bytes) {
                let _ = answer::read(Some(message));
            }
        }
        1 => {
            if let Ok(file) = marker_file::decode(bytes) {
                let written = marker_file::encode(&file).map_err(|error| error.to_string());
                assert_eq!(
                    written.and_then(|line| marker_file::decode(&line)),
                    Ok(file)
                );
            }
        }
        _ => {
            let text = String::from_utf8_lossy(bytes);
            if let Ok(token) = text.parse::<TagToken>() {
                assert_eq!(token.to_string().parse(), Ok(token));
            }
        }
    }
}

/// Real encodings for [`client`].
pub fn client_seeds() -> Vec<Vec<u8>> {
    let file = MarkerFile {
        name: "ls1".to_owned(),
        cluster: ClusterId(0xc1),
        marker: Marker {
            bits: 0x7f3a,
            created_unix_ms: 1_700_000_000_000,
        },
    };
    let set = v1::StorageStateSet {
        node: 1,
        from: v1::StorageState::Provisioning.into(),
        to: v1::StorageState::ReadWrite.into(),
        alarms: Vec::new(),
    };
    let applied = v1::Applied {
        revision: 3,
        effect: Some(v1::Effect {
            kind: Some(v1::effect::Kind::StorageStateSet(set)),
        }),
    };
    let refused = v1::Refused {
        code: "T-310".to_owned(),
        found: "marker mismatch".to_owned(),
        details: [("node".to_owned(), "1".to_owned())].into(),
    };
    let outcomes = [
        v1::answer::Outcome::Applied(applied),
        v1::answer::Outcome::Refused(refused),
    ];
    let answers = outcomes.map(|outcome| v1::Answer {
        outcome: Some(outcome),
        repeat: true,
        now: v1::StorageState::ReadWrite.into(),
        revision: 3,
    });
    let token = b"12/3:7f3a0000000000000000000000000000@1700000000000".to_vec();
    let mut seeds = vec![[&[2], token.as_slice()].concat()];
    seeds.extend(answers.map(|answer| [&[0], answer.encode_to_vec().as_slice()].concat()));
    seeds.extend(marker_file::encode(&file).map(|line| [&[1], line.as_slice()].concat()));
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_client_reads_can_make_it_panic() {
        for seed in client_seeds() {
            client(&seed);
            for at in 0..seed.len() {
                client(&seed[..at]);
                for flip in [0x01, 0x20, 0x80, 0xff] {
                    let mut flipped = seed.clone();
                    flipped[at] ^= flip;
                    client(&flipped);
                }
            }
        }
    }
}
