//! Writes what each target begins with, real encodings, into the directory that is given: one
//! directory for each target.

use std::path::Path;

// The decoders are instrumented, and this has what the instrumentation calls.
use libfuzzer_sys as _;

/// Makes what a target begins with.
type Seeds = fn() -> Vec<Vec<u8>>;

fn main() -> std::io::Result<()> {
    let Some(directory) = std::env::args_os().nth(1) else {
        return Err(std::io::Error::other("usage: seeds DIRECTORY"));
    };
    let targets: [(&str, Seeds); 10] = [
        ("client", tally_client::fuzzing::client_seeds),
        ("command", tally_cli::fuzzing::command_seeds),
        ("disk", tally_storage::fuzzing::disk_seeds),
        ("json", tally_gateway::fuzzing::json_seeds),
        ("metadata", tally_service::fuzzing::metadata_seeds),
        ("peer", tally_consensus::fuzzing::peer_seeds),
        ("requests", tally_proto::fuzzing::request_seeds),
        ("rows", tally_storage::fuzzing::row_seeds),
        ("snapshot", tally_storage::fuzzing::snapshot_seeds),
        ("texts", tally_proto::fuzzing::text_seeds),
    ];
    for (target, seeds) in targets {
        let directory = Path::new(&directory).join(target);
        std::fs::create_dir_all(&directory)?;
        for (number, seed) in seeds().iter().enumerate() {
            std::fs::write(directory.join(format!("seed-{number:02}")), seed)?;
        }
    }
    Ok(())
}
