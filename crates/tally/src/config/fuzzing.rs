//! The configuration file as arbitrary text; see [`crate::fuzzing`].

use std::path::Path;

use super::{Config, Layers, file};

/// A text that is refused says where and why in one line or more; any other gives a configuration.
pub(crate) fn file(text: &str) {
    let read = file::parse(Path::new("tally.toml"), text).map(Layers::of_file);
    match read.and_then(|layers| Config::read(&layers)) {
        Ok(config) => assert!(!config.name.is_empty() && config.tuning.heartbeat_ms > 0),
        Err(failure) => assert!(!failure.to_string().is_empty()),
    }
}
