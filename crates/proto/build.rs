//! Compiles `proto/` without an installed protoc.

use std::path::PathBuf;

use prost::Message;

/// What clients of a member may ask for.
const PUBLIC: &[&str] = &[
    "tally/v1/types.proto",
    "tally/v1/sessions.proto",
    "tally/v1/nodes.proto",
    "tally/v1/cluster.proto",
];

const INTERNAL: &[&str] = &[
    "tally/storage/v1/command.proto",
    "tally/storage/v1/log.proto",
    "tally/storage/v1/state.proto",
    "tally/peer/v1/peer.proto",
    "tally/logserver/v1/log_server.proto",
];

fn main() -> anyhow::Result<()> {
    let root = PathBuf::from("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let public = protox::compile(PUBLIC, [&root])?;
    std::fs::write(out.join("descriptors.bin"), public.encode_to_vec())?;
    let descriptors = protox::compile(PUBLIC.iter().chain(INTERNAL), [&root])?;
    tonic_prost_build::configure()
        .bytes(".tally.peer.v1.SnapshotChunk")
        .bytes(".tally.peer.v1.ForwardCommand")
        .bytes(".tally.storage.v1.Proposal")
        .compile_fds(descriptors)?;
    Ok(())
}
