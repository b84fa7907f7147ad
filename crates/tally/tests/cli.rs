//! The built command, as far as it goes without a cluster.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Runs `tally` without any variable that could change what it does.
fn tally(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let variables = std::env::vars_os().map(|(name, _)| name);
    let ours = variables.filter(|name| name.to_string_lossy().starts_with("TALLY_"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_tally"));
    for name in ours {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn a_known_code_is_explained() {
    let output = tally(&["explain", "t-310"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(out(&output).starts_with("T-310  "), "{output:?}");
    let all = out(&tally(&["explain"]));
    for code in ["T-001", "T-310", "T-420"] {
        assert!(all.contains(code), "{all}");
    }
}

#[test]
fn explanations_are_documents_for_programs() {
    let entry = json(&tally(&["-o", "json", "explain", "T-310"]));
    assert_eq!(entry["code"], "T-310");
    assert!(entry["text"].is_string());
    let all = json(&tally(&["explain", "-o", "json"]));
    assert!(all.as_array().unwrap().len() > 20);
}

#[test]
fn an_unknown_code_is_not_found() {
    let output = tally(&["explain", "T-999"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        err(&output).starts_with("T-019: there is no code T-999"),
        "{output:?}"
    );
    assert!(err(&output).contains("tally explain"), "{output:?}");
}

#[test]
fn the_version_is_told() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(out(&tally(&["version"])), format!("tally {version}\n"));
    assert_eq!(json(&tally(&["version", "-o", "json"]))["version"], version);
}

#[test]
fn shells_get_a_completion() {
    let output = tally(&["completion", "bash"]);
    assert_eq!(output.status.code(), Some(0));
    let script = out(&output);
    for word in ["complete ", "log-server", "set-state", "--initial-cluster"] {
        assert!(script.contains(word), "{word} is missing");
    }
}

#[test]
fn a_wrong_key_names_its_line_and_all_keys() {
    let file = file("name = \"n1\"\n\nlisten-clients = \"127.0.0.1:1\"\n");
    let path = file.path().to_str().unwrap();
    let output = tally(&["serve", "--config", path]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = err(&output);
    let first = format!("T-015: {path}, line 3: unknown key `listen-clients`");
    assert!(said.starts_with(&first), "{said}");
    assert!(
        said.contains("listen-client,") && said.contains("snapshot-entries"),
        "{said}"
    );
}

#[test]
fn a_wrong_type_names_its_line() {
    let file = file("name = \"n1\"\nheartbeat-ms = \"100\"\n");
    let output = tally(&["serve", "--config", file.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(
        err(&output).contains("line 2: `heartbeat-ms` is of the type string"),
        "{output:?}"
    );
}

#[test]
fn the_relaxed_check_is_refused_until_it_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let arguments = [
        "serve",
        "--name",
        "n1",
        "--data-dir",
        data.to_str().unwrap(),
        "--initial-cluster",
        "n1=127.0.0.1:1",
        "--retry-check",
        "relaxed",
    ];
    let output = tally(&arguments);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(err(&output).starts_with("T-016: "), "{output:?}");
    assert!(
        err(&output).contains("--i-know-this-is-unsafe"),
        "{output:?}"
    );
    assert!(!data.exists(), "the directory was formatted");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let arguments = [
        "serve",
        "--name",
        "n1",
        "--data-dir",
        data.to_str().unwrap(),
        "--initial-cluster",
        "n1=127.0.0.1:1",
        "--listen-client",
        &address,
    ];
    let output = tally(&arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        err(&output).contains("T-014: ") && err(&output).contains(&address),
        "{output:?}"
    );
}

#[test]
fn nobody_there_is_told_quickly() {
    let began = Instant::now();
    let lines: [&[&str]; 5] = [
        &["kv", "get", "a"],
        &["kv", "put", "a", "1"],
        &["node", "list"],
        &["cluster", "status"],
        &["node", "set-state", "ls1", "read-only"],
    ];
    for line in lines {
        // Port 1 is reserved and nobody listens on it.
        let nobody = ["--endpoints", "http://127.0.0.1:1", "--timeout", "1s"];
        let output = tally(&[line, &nobody].concat());
        assert_eq!(output.status.code(), Some(5), "{output:?}");
        assert!(err(&output).starts_with("T-001: "), "{output:?}");
    }
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_bad_command_line_is_usage() {
    for line in [
        &["node", "set-state", "ls1", "writable"][..],
        &[
            "node",
            "set-state",
            "ls1",
            "gone",
            "--force",
            "--reason",
            "why",
        ],
        &["node", "list", "--timeout", "0s"],
        &["node", "list", "--endpoints", "not an address"],
        &["resume", "12"],
        &["kv", "get"],
        &["kv", "get", "a", "--prefix", "--to", "b"],
        &["kv", "put", "a", "1", "--lease", "none"],
        &["kv", "txn", "--if", "age(a)=1"],
        &["kv", "txn", "--then", "put a"],
        &["kv", "lease", "grant", "0"],
        &["serve"],
        &["frobnicate"],
        &["dev", "--log-level", "loud"],
        &[
            "log-server",
            "--name",
            "ls1",
            "--data-dir",
            "/nowhere/d",
            "--listen",
            "nonsense",
        ],
    ] {
        let output = tally(line);
        assert_eq!(output.status.code(), Some(2), "{line:?}: {output:?}");
        assert!(!err(&output).is_empty());
    }
}

#[test]
fn an_order_without_a_running_dev_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let output = tally(&["dev", "kill", "leader", "--data-dir", data]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        err(&output).contains("no `tally dev` runs on"),
        "{output:?}"
    );
}

#[test]
fn a_log_server_without_a_cluster_ends_without_a_marker() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let arguments = [
        "log-server",
        "--name",
        "ls1",
        "--data-dir",
        data.to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
        "--exit-after-start",
        "--endpoints",
        "http://127.0.0.1:1",
        "--timeout",
        "1s",
    ];
    let output = tally(&arguments);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert!(err(&output).starts_with("T-001: "), "{output:?}");
    assert!(
        !data.join("MARKER").exists(),
        "a marker without a registration"
    );
}

#[test]
fn a_failure_is_one_document_for_programs() {
    let nobody = ["--endpoints", "http://127.0.0.1:1", "--timeout", "1s"];
    let output = tally(&[&["-o", "json", "node", "list"], &nobody[..]].concat());
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    let error = &json(&output)["error"];
    assert_eq!(error["code"], "T-001");
    assert_eq!(error["exit"], 5);
    assert!(error["resume"].is_null());
    assert!(error["found"].is_string() && error["next"].is_string());
    assert!(err(&output).starts_with("T-001: "), "{output:?}");

    let output = tally(&["node", "set-state", "ls1", "writable", "-o", "json"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let error = &json(&output)["error"];
    assert_eq!(error["exit"], 2);
    assert!(
        error["found"].as_str().unwrap().contains("writable"),
        "{error}"
    );

    let output = tally(&["explain", "T-999"]);
    assert_eq!(out(&output), "", "people read standard error");
    assert!(out(&tally(&["--help"])).contains("\"resume\""));
}

#[test]
fn a_result_that_could_not_be_written_is_a_failure() {
    for line in [
        &["version"][..],
        &["version", "-o", "json"],
        &["completion", "bash"],
        &["explain"],
        &["explain", "T-310"],
        &["--help"],
    ] {
        let full = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let output = command(line).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{line:?}: {output:?}");
        assert!(
            err(&output).contains("cannot write the result"),
            "{output:?}"
        );
    }
}

#[test]
fn an_empty_variable_of_endpoints_is_named() {
    for (arguments, place) in [
        (&["node", "list"][..], "variable TALLY_ENDPOINTS"),
        (
            &["node", "list", "--endpoints", ","],
            "variable TALLY_ENDPOINTS",
        ),
    ] {
        let output = command(arguments)
            .env("TALLY_ENDPOINTS", "")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(err(&output).contains(place), "{output:?}");
    }
    let output = tally(&["node", "list", "--endpoints", ","]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(err(&output).contains("flag --endpoints"), "{output:?}");
}

/// A member of a cluster of one on free ports.
fn serve(data: &std::path::Path, more: &[&str]) -> Command {
    let data = data.to_str().unwrap();
    let line = ["serve", "--name", "n1", "--data-dir", data];
    let listen = ["--listen-client", "--listen-peer", "--listen-http"];
    let listen = listen.map(|flag| [flag, "127.0.0.1:0"]).concat();
    let cluster = ["--initial-cluster", "n1=127.0.0.1:1"];
    command(&[&line[..], &listen, &cluster, more].concat())
}

#[test]
fn a_variable_that_serve_does_not_know_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let output = serve(&data, &[])
        .env("TALLY_LISTENCLIENT", "127.0.0.1:0")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = err(&output);
    assert!(said.contains("variable TALLY_LISTENCLIENT"), "{said}");
    assert!(said.contains("one of TALLY_LISTEN_CLIENT, "), "{said}");
    assert!(!data.exists());
}

#[test]
fn a_level_that_is_none_is_refused_wherever_it_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let toml = file("log-level = \"loud\"\n");
    let path = toml.path().to_str().unwrap();
    let mut by_variable = serve(&data, &[]);
    by_variable.env("TALLY_LOG_LEVEL", "loud");
    for (mut command, place) in [
        (serve(&data, &["--log-level", "loud"]), "flag --log-level"),
        (by_variable, "variable TALLY_LOG_LEVEL"),
        (serve(&data, &["--config", path]), ", line 1"),
    ] {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = err(&output);
        assert!(said.contains(place) && said.contains("warn"), "{said}");
    }
}

#[test]
fn a_data_directory_that_is_a_file_is_broken_and_no_wrong_usage() {
    let file = file("");
    let output = serve(file.path(), &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let path = file.path().to_str().unwrap();
    assert!(err(&output).contains(path), "{output:?}");
}

#[test]
fn a_relaxed_member_warns_at_its_start() {
    let file = file("");
    let relaxed = ["--retry-check", "relaxed", "--i-know-this-is-unsafe"];
    // It ends at once, because its directory is a file.
    let output = serve(file.path(), &relaxed).output().unwrap();
    let said = err(&output);
    assert!(said.contains("WARN") && said.contains("unsafe"), "{said}");
    let output = serve(file.path(), &[]).output().unwrap();
    assert!(!err(&output).contains("unsafe"), "{output:?}");
}

#[test]
fn dev_leaves_the_directory_of_a_serving_member_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("IDENTITY"), "").unwrap();
    let output = tally(&["dev", "--data-dir", dir.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(err(&output).starts_with("T-012: "), "{output:?}");
    assert!(!dir.path().join("n1").exists());
}

#[test]
fn dev_notices_a_ready_file_that_cannot_be_before_it_starts_members() {
    let dir = tempfile::tempdir().unwrap();
    let ready = dir.path().join("missing").join("ready.json");
    let data = dir.path().join("data");
    let output = tally(&[
        "dev",
        "--data-dir",
        data.to_str().unwrap(),
        "--ready-file",
        ready.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(err(&output).contains(ready.to_str().unwrap()), "{output:?}");
    assert!(!data.join("n1").exists(), "a member was started");
}

#[test]
fn the_advertised_address_is_explained_with_an_example() {
    let help = out(&tally(&["log-server", "--help"]));
    let words = Vec::from_iter(help.split_whitespace()).join(" ");
    assert!(words.contains("--advertise ls1.example:7421"), "{help}");
}
