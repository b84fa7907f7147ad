//! openraft's own storage suite over the real stores.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use tally_consensus::conformance;
use tally_model::MemberId;
use tally_storage::{DataDir, LogOptions, LogStore, OpenOptions, StateOptions, StateStore};

/// Stores in a directory of their own, which goes with the guard.
fn open() -> ((tempfile::TempDir, DataDir), LogStore, StateStore) {
    let directory = tempfile::tempdir().unwrap();
    let options = OpenOptions {
        name: "n1".to_owned(),
        formation: Vec::new(),
        fresh_member: MemberId(1),
    };
    let data = DataDir::open(directory.path(), &options).unwrap();
    let fail: tally_storage::OnFailure = Arc::new(|what: &str| panic!("the store failed: {what}"));
    let log = data.open_log(LogOptions::new(fail.clone())).unwrap();
    let state = data.open_state(StateOptions { on_failure: fail }).unwrap();
    ((directory, data), log, state)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stores_pass_openrafts_storage_suite() {
    conformance::run(async || open()).await.unwrap();
}
