//! `tally serve` under a service manager: what it is told and when, and the unit and health check that go
//! with it. The manager is a socket of this test that speaks systemd's protocol, sd_notify(3).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A start or an election on a machine that is busy with other tests.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// No message is longer.
const MESSAGE_BYTES_MAX: usize = 4096;

fn tally() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tally"));
    command.stdin(Stdio::null()).env("NO_COLOR", "1");
    command
}

/// The service manager's end of the socket.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    /// Every line so far.
    told: Vec<String>,
}

impl Manager {
    fn new(dir: &Path, name: &str) -> Self {
        let path = dir.join(format!("{name}.notify"));
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(LOOK_EVERY)).unwrap();
        let told = Vec::new();
        Self { socket, path, told }
    }

    fn listen(&mut self) {
        let mut message = [0; MESSAGE_BYTES_MAX];
        while let Ok(length) = self.socket.recv(&mut message) {
            let text = std::str::from_utf8(&message[..length]).unwrap();
            self.told.extend(text.lines().map(str::to_owned));
        }
    }

    /// Waits until a line that begins like this was told, and gives its place among all.
    fn hears(&mut self, begin: &str) -> usize {
        let deadline = Instant::now() + SETTLED_WITHIN;
        loop {
            self.listen();
            if let Some(place) = self.place(begin) {
                return place;
            }
            let late = Instant::now() >= deadline;
            assert!(!late, "waited in vain for {begin}: {:#?}", self.told);
        }
    }

    fn place(&self, begin: &str) -> Option<usize> {
        self.told.iter().position(|line| line.starts_with(begin))
    }
}

/// A member with a manager of its own. Killed when dropped, so that a test that fails leaves nothing.
struct Member {
    process: Child,
    manager: Manager,
}

impl Drop for Member {
    fn drop(&mut self) {
        // An error says that it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Member {
    fn start(cluster: &Members, index: usize) -> Self {
        let name = format!("n{}", index + 1);
        let path = cluster.dir.path();
        // A socket's path is bound once.
        let _ = std::fs::remove_file(path.join(format!("{name}.notify")));
        let manager = Manager::new(path, &name);
        let mut command = tally();
        let process = command
            .args(["serve", "--name", &name, "--data-dir"])
            .arg(path.join(&name))
            .args(["--listen-client", "127.0.0.1:0"])
            .args(["--listen-peer", &cluster.peers[index]])
            .args(["--listen-http", &cluster.http[index]])
            .args(["--initial-cluster", &cluster.list()])
            .env("NOTIFY_SOCKET", &manager.path)
            .env("WATCHDOG_USEC", "3000000")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, manager }
    }

    fn end(&mut self) -> ExitStatus {
        let pid = self.process.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.unwrap().success());
        self.process.wait().unwrap()
    }
}

/// Addresses of a cluster that starts here, member by member.
struct Members {
    dir: TempDir,
    peers: Vec<String>,
    http: Vec<String>,
}

impl Members {
    fn new(count: usize) -> Self {
        // Held until all are known, so that no two are equal.
        let listeners = (0..2 * count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let listeners: Vec<_> = listeners.collect();
        let addresses = listeners.iter().map(|one| one.local_addr().unwrap());
        let mut peers: Vec<_> = addresses.map(|address| address.to_string()).collect();
        let http = peers.split_off(count);
        let dir = tempfile::tempdir().unwrap();
        Self { dir, peers, http }
    }

    fn list(&self) -> String {
        let peers = self.peers.iter().enumerate();
        let members = peers.map(|(index, peer)| format!("n{}={peer}", index + 1));
        members.collect::<Vec<_>>().join(",")
    }

    fn health(&self, index: usize) -> Output {
        let mut command = tally();
        command.args(["-o", "json", "health"]);
        let command = command.env("TALLY_LISTEN_HTTP", &self.http[index]);
        command.output().unwrap()
    }
}

#[test]
fn a_member_tells_its_service_manager_what_it_does() {
    let members = Members::new(2);
    let unhealthy = members.health(0);
    assert_eq!(unhealthy.status.code(), Some(1), "{unhealthy:?}");

    // A first start: ready when it listens, because whoever starts it must go on to start the other.
    let mut first = Member::start(&members, 0);
    first.manager.hears("READY=1");
    let waits = first.manager.hears("STATUS=waits: T-006: ");
    assert!(!first.manager.told[waits].contains('\n'));
    let unhealthy = members.health(0);
    assert_eq!(unhealthy.status.code(), Some(1), "{unhealthy:?}");
    let document: serde_json::Value = serde_json::from_slice(&unhealthy.stdout).unwrap();
    assert_eq!(document["error"]["code"], "T-006", "{document}");

    let mut second = Member::start(&members, 1);
    first.manager.hears("STATUS=serves");
    second.manager.hears("STATUS=serves");
    let pings = first.manager.told.len();
    first.manager.hears("WATCHDOG=1");
    assert!(first.manager.told.len() >= pings);
    let healthy = members.health(0);
    assert_eq!(healthy.status.code(), Some(0), "{healthy:?}");
    let document: serde_json::Value = serde_json::from_slice(&healthy.stdout).unwrap();
    assert_eq!(document["ready"], true, "{document}");

    assert!(second.end().success());
    second.manager.listen();
    let stopping = second.manager.place("STOPPING=1");
    assert!(stopping.is_some(), "{:#?}", second.manager.told);
    second.manager.hears("STATUS=ending");

    // A later start: ready when it serves, which takes a majority; until then it asks for more time.
    assert!(first.end().success());
    drop((first, second));
    let mut first = Member::start(&members, 0);
    first.manager.hears("EXTEND_TIMEOUT_USEC=");
    first.manager.hears("STATUS=waits: T-001: ");
    first.manager.hears("WATCHDOG=1");
    assert_eq!(first.manager.place("READY=1"), None);
    let mut second = Member::start(&members, 1);
    let ready = first.manager.hears("READY=1");
    let serves = first.manager.hears("STATUS=serves");
    assert!(serves < ready, "{:#?}", first.manager.told);
    second.manager.hears("READY=1");
    assert!(second.end().success());
    assert!(first.end().success());
}

/// The unit as it is installed, with a binary that exists.
#[test]
fn the_unit_is_understood_and_keeps_the_member_in_its_place() {
    let unit = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../deploy/systemd/tally.service"
    );
    let unit = std::fs::read_to_string(unit).unwrap();
    let there = unit.replace("/usr/local/bin/tally", env!("CARGO_BIN_EXE_tally"));
    assert_ne!(unit, there, "ExecStart does not name the installed binary");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tally.service");
    std::fs::write(&path, there).unwrap();
    let analyze = |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        let output = command.args(arguments).arg(&path).output();
        match output {
            Ok(output) => assert!(output.status.success(), "{arguments:?}: {output:?}"),
            Err(error) => {
                let ci = std::env::var_os("CI").is_some();
                assert!(!ci, "systemd-analyze is needed where CI is set: {error}");
                eprintln!("NOT TESTED: the systemd unit: systemd-analyze: {error}");
            }
        }
    };
    analyze(&["verify", "--man=no"]);
    // 0 is a service that can do nothing, 100 one that can do everything.
    analyze(&["security", "--offline=true", "--threshold=20"]);
}
