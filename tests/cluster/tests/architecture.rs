//! Holds the arrows of ARCHITECTURE.md: which crate may depend on which, and who may name whom.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

/// A crate, the crates of this workspace that it may depend on, and why no others.
const ARROWS: &[(&str, &[&str], &str)] = &[
    (
        "tally-model",
        &[],
        "the model is pure: what a command does must depend on nothing",
    ),
    (
        "base2histogram",
        &[],
        "openraft depends on it, and is to have another one again some day",
    ),
    (
        "tally-proto",
        &["tally-model"],
        "messages are converted to and from the model, nothing else",
    ),
    (
        "tally-storage",
        &["tally-model", "tally-proto"],
        "storage must not know of peers or leadership",
    ),
    (
        "tally-consensus",
        &["tally-model", "tally-proto", "tally-storage"],
        "consensus agrees on an order; it must not know how calls are carried",
    ),
    (
        "tally-listener",
        &["tally-model", "tally-proto"],
        "it lets connections in; it must not know what is served",
    ),
    (
        "tally-gateway",
        &["tally-model", "tally-proto"],
        "it carries calls to services; it must not know what they do",
    ),
    (
        "tally-service",
        &[
            "tally-gateway",
            "tally-listener",
            "tally-model",
            "tally-proto",
            "tally-storage",
            "tally-consensus",
        ],
        "the service carries calls; it must not know clients",
    ),
    (
        "tally-client",
        &["tally-model", "tally-proto"],
        "a log server embeds it: nothing of the server",
    ),
    (
        "tally-log-server",
        &[
            "tally-client",
            "tally-listener",
            "tally-model",
            "tally-proto",
        ],
        "it is a user of the client",
    ),
];

/// A library that only some crates may name directly.
const OWNED: &[(&str, &[&str], &str)] = &[
    (
        "openraft",
        &["tally-consensus"],
        "its types stop at the edge of consensus",
    ),
    (
        "rocksdb",
        &["tally-storage", "tally-log-server"],
        "bytes on disk are storage's business",
    ),
    (
        "tonic",
        &[
            "tally-proto",
            "tally-gateway",
            "tally-listener",
            "tally-service",
            "tally-client",
            "tally-log-server",
            "tally",
            "tally-testkit",
            "tally-cluster-tests",
        ],
        "only these carry calls",
    ),
    (
        "clap",
        &["tally", "tally-testkit"],
        "flags belong to programs",
    ),
];

fn normal_dependencies(package: &Package) -> BTreeSet<String> {
    package
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind == DependencyKind::Normal)
        .map(|dependency| dependency.name.clone())
        .collect()
}

#[test]
fn crates_depend_only_in_the_direction_of_the_arrows() {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    let ours: BTreeSet<String> = metadata
        .workspace_packages()
        .iter()
        .map(|package| package.name.to_string())
        .collect();
    for (name, allowed, reason) in ARROWS {
        let package = metadata
            .workspace_packages()
            .into_iter()
            .find(|package| package.name == *name)
            .unwrap_or_else(|| panic!("the workspace has no crate {name}"));
        let found = normal_dependencies(package);
        let wrong: Vec<_> = found
            .iter()
            .filter(|dependency| {
                ours.contains(*dependency) && !allowed.contains(&dependency.as_str())
            })
            .collect();
        assert!(
            wrong.is_empty(),
            "{name} depends on {wrong:?}, but {reason}"
        );
    }
}

#[test]
fn libraries_are_named_only_by_the_crates_that_own_them() {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    for package in metadata.workspace_packages() {
        let found = normal_dependencies(package);
        for (library, owners, reason) in OWNED {
            assert!(
                !found.contains(*library) || owners.contains(&package.name.as_str()),
                "{} depends on {library}, but {reason}",
                package.name
            );
        }
    }
}

#[test]
fn the_model_needs_no_runtime() {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    let model = metadata
        .workspace_packages()
        .into_iter()
        .find(|package| package.name == "tally-model")
        .unwrap();
    for library in ["tokio", "futures", "rand", "rocksdb", "prost", "tonic"] {
        assert!(
            !normal_dependencies(model).contains(library),
            "the model must not depend on {library}"
        );
    }
}
