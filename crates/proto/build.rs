//! Compiles `proto/` without an installed protoc.

use std::path::PathBuf;

use prost::Message;

const FILES: &[&str] = &[
    "tally/v1/types.proto",
    "tally/v1/sessions.proto",
    "tally/v1/nodes.proto",
    "tally/v1/cluster.proto",
    "tally/storage/v1/command.proto",
    "tally/storage/v1/log.proto",
    "tally/storage/v1/state.proto",
    "tally/peer/v1/peer.proto",
    "tally/logserver/v1/log_server.proto",
];

fn main() -> anyhow::Result<()> {
    let root = PathBuf::from("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let descriptors = protox::compile(FILES, [&root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".tally.peer.v1.SnapshotChunk")
        .compile_fds(descriptors)?;
    Ok(())
}
