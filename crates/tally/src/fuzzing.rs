//! The parsers of this crate on arbitrary bytes, for the fuzz targets in `tests/fuzz` and, with real
//! texts that were cut and flipped, for every test run.

use crate::{config, dev};

/// The configuration file, what `dev` remembers, or an order to it; the first byte says which.
pub fn command(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(bytes);
    match which % 2 {
        0 => config::fuzzing::file(&text),
        _ => dev::fuzzing::json(&text),
    }
}

/// Real texts for [`command`].
pub fn command_seeds() -> Vec<Vec<u8>> {
    let config = include_str!("../../../deploy/tally.toml");
    let mut seeds = vec![[&[0], config.as_bytes()].concat()];
    seeds.extend(dev::fuzzing::seeds().map(|text| [&[1], text.as_bytes()].concat()));
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_can_make_a_parser_panic() {
        for seed in command_seeds() {
            command(&seed);
            for at in 0..seed.len() {
                command(&seed[..at]);
                for flip in [0x01, 0x20, 0xff] {
                    let mut flipped = seed.clone();
                    flipped[at] ^= flip;
                    command(&flipped);
                }
            }
        }
    }
}
