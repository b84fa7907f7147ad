//! Runs the golden scripts in `tests/scripts`: commands in, outcomes and changes out, as an operator
//! would read them. `UPDATE_GOLDENFILES=1` rewrites the expectations; read the difference before
//! committing it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "golden/keys.rs"]
mod keys;
#[path = "golden/render.rs"]
mod render;
#[path = "golden/script.rs"]
mod script;

use std::path::PathBuf;

#[test]
fn every_script_gives_what_it_says() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/scripts");
    let mut scripts: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    scripts.sort();
    assert!(scripts.len() >= 10, "found only {} scripts", scripts.len());
    for path in scripts {
        println!("{}", path.display());
        goldenscript::run(&mut script::Script::default(), &path).unwrap();
    }
}
