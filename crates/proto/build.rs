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

/// What clients of etcd may ask for. Apart from the public files because reflection describes an API
/// only where it is served.
const ETCD: &[&str] = &["etcd/kv.proto", "etcd/rpc.proto"];

fn main() -> anyhow::Result<()> {
    let root = PathBuf::from("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let public = protox::compile(PUBLIC, [&root])?;
    std::fs::write(out.join("descriptors.bin"), public.encode_to_vec())?;
    let etcd = protox::compile(ETCD, [&root])?;
    std::fs::write(out.join("etcd_descriptors.bin"), etcd.encode_to_vec())?;
    let descriptors = protox::compile(PUBLIC.iter().chain(INTERNAL).chain(ETCD), [&root])?;
    tonic_prost_build::configure()
        .codec_path("crate::codec::Messages")
        .bytes(".tally.peer.v1.SnapshotChunk")
        .bytes(".tally.peer.v1.ForwardCommand")
        .bytes(".tally.storage.v1.Proposal")
        .bytes(".tally.storage.v1.KeyEvent")
        .bytes(".mvccpb.KeyValue")
        .bytes(".etcdserverpb.PutRequest")
        .bytes(".etcdserverpb.RangeRequest")
        .bytes(".etcdserverpb.DeleteRangeRequest")
        .bytes(".etcdserverpb.Compare")
        .compile_fds(descriptors)?;
    #[cfg(feature = "json")]
    write_json(&etcd.encode_to_vec())?;
    Ok(())
}

/// Messages of the etcd API as JSON, in the form that etcd 3.5 gives them: names as in the proto files, what is at its
/// default left out, and members that are not known not looked at.
#[cfg(feature = "json")]
fn write_json(etcd: &[u8]) -> anyhow::Result<()> {
    pbjson_build::Builder::new()
        .register_descriptors(etcd)?
        .preserve_proto_field_names()
        .ignore_unknown_fields()
        .build(&[".mvccpb", ".etcdserverpb"])?;
    Ok(())
}
