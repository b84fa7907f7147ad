//! `tally dev`, from its start over orders to its end.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Formation or an election on a machine that is busy with other tests.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A running `tally dev`. Killed when dropped, so that a test that fails leaves nothing behind.
struct Dev {
    process: Child,
    dir: PathBuf,
}

impl Drop for Dev {
    fn drop(&mut self) {
        // An error says that it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn tally() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tally"));
    command.stdin(Stdio::null()).env("NO_COLOR", "1");
    command
}

/// Looks again and again until there is something.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

impl Dev {
    fn start(dir: &Path) -> Self {
        let process = tally()
            .args(["dev", "--log-level", "warn", "--data-dir"])
            .arg(dir)
            .arg("--ready-file")
            .arg(dir.join("ready.json"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let dir = dir.to_owned();
        Self { process, dir }
    }

    /// Waits for the ready file.
    fn ready(&self) -> Value {
        until("a leader", || {
            let text = std::fs::read_to_string(self.dir.join("ready.json")).ok()?;
            Some(serde_json::from_str(&text).expect("it appears as a whole"))
        })
    }

    fn order(&self, order: &[&str]) -> Output {
        let mut command = tally();
        command.args(["-o", "json", "dev"]).args(order);
        command.arg("--data-dir").arg(&self.dir).output().unwrap()
    }

    fn done(&self, order: &[&str]) -> Value {
        let output = self.order(order);
        assert_eq!(output.status.code(), Some(0), "{order:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The error of an order that could not be carried out.
    fn failed(&self, order: &[&str]) -> Value {
        let output = self.order(order);
        assert_eq!(output.status.code(), Some(1), "{order:?}: {output:?}");
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["error"]["code"], "T-010", "{document}");
        document["error"].clone()
    }

    fn member(&self, name: &str) -> Value {
        let status = self.done(&["status"]);
        let mut members = status["members"].as_array().unwrap().iter();
        members
            .find(|member| member["name"] == name)
            .unwrap()
            .clone()
    }

    /// Ends it as Ctrl-C does.
    fn interrupt(mut self) {
        let id = self.process.id().to_string();
        let sent = Command::new("kill").args(["-INT", &id]).status().unwrap();
        assert!(sent.success());
        let status = until("the end", || self.process.try_wait().unwrap());
        assert_eq!(status.code(), Some(0));
    }

    /// Waits until it ends by itself.
    fn ends_by_itself(mut self) -> Option<i32> {
        until("its end", || self.process.try_wait().unwrap()).code()
    }
}

fn connects(address: &Value) -> bool {
    TcpStream::connect(address.as_str().unwrap()).is_ok()
}

#[test]
fn a_killed_leader_is_gone_until_it_is_started_again_on_its_ports() {
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path());
    let ready = dev.ready();
    let members = ready["members"].as_array().unwrap();
    assert_eq!(members.len(), 3);
    let client = members[0]["client"].as_str().unwrap();
    assert_eq!(ready["endpoints"][0], format!("http://{client}"));

    let killed = dev.done(&["kill", "leader"]);
    assert_eq!(killed["role"], "leader");
    let name = killed["member"].as_str().unwrap();
    let gone = dev.member(name);
    assert_eq!(gone["running"], false);
    for listener in ["client", "peer", "http"] {
        assert!(
            !connects(&gone[listener]),
            "{name} still listens for {listener}"
        );
    }
    let data_dir = format!("--data-dir {}", dir.path().display());
    let error = dev.failed(&["kill", name]);
    assert_eq!(error["found"], format!("{name} does not run"));
    assert_eq!(error["expected"], "a member that runs");
    assert_eq!(error["next"], format!("tally dev start {name} {data_dir}"));
    let next = until("another leader", || {
        let status = dev.done(&["status"]);
        let mut members = status["members"].as_array().unwrap().iter();
        let leader = members.find(|member| member["role"] == "leader")?;
        Some(leader["name"].as_str().unwrap().to_owned())
    });
    assert_ne!(next, name);

    dev.done(&["start", name]);
    let error = dev.failed(&["start", name]);
    assert_eq!(error["found"], format!("{name} runs already"));
    assert_eq!(error["next"], format!("tally dev status {data_dir}"));
    let back = dev.member(name);
    let id = back["id"].as_str().unwrap();
    assert_eq!(id.len(), 16, "as in `cluster status`: {id}");
    assert_eq!(back["running"], true);
    assert_eq!(back["client"], gone["client"]);
    assert!(connects(&back["client"]));
    dev.interrupt();
}

#[test]
fn members_keep_their_ports_when_the_directory_is_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path());
    let first = dev.ready();
    let second = Dev::start(dir.path());
    let refused = second.ends_by_itself();
    assert_eq!(refused, Some(1), "a second dev ran on the directory");
    dev.done(&["drop-replies", "on"]);
    assert_eq!(dev.done(&["status"])["drop_replies"], true);
    dev.interrupt();
    let output = tally()
        .args(["dev", "status", "--data-dir"])
        .arg(dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");

    let dev = Dev::start(dir.path());
    until("the ready file of this run", || {
        let output = dev.order(&["status"]);
        (output.status.code() == Some(0)).then_some(())
    });
    assert_eq!(dev.ready(), first);
    assert_eq!(
        dev.done(&["status"])["drop_replies"],
        false,
        "a switch is not remembered"
    );
    dev.interrupt();
}

#[test]
fn an_order_about_nobody_names_who_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path());
    dev.ready();
    let output = dev.order(&["start", "n9"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("n1, n2, n3"), "{said}");
    let output = dev.order(&["start", "n1"]);
    assert_eq!(output.status.code(), Some(1), "it runs already: {output:?}");
    dev.interrupt();
}

#[test]
fn a_request_of_a_session_that_is_gone_is_not_taken_for_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path());
    let ready = dev.ready();
    // Entry 1 opened no session.
    let token = "1/1:7f3a0000000000000000000000000000@1700000000000";
    let output = tally()
        .args(["-o", "json", "resume", token])
        .env("TALLY_ENDPOINTS", ready["endpoints"][0].as_str().unwrap())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let error = &document["error"];
    assert_eq!(error["code"], "T-201");
    assert_eq!(error["next"], "tally node history NAME");
    let found = error["found"].as_str().unwrap();
    assert!(found.contains("can no longer be told"), "{found}");
    dev.interrupt();
}
