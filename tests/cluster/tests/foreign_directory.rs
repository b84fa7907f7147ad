//! A process is started on a directory or a port that is not its own: it says so, ends, and leaves every
//! file as it was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use prost::Message;
use tally_proto::storage::Identity;
use tally_testkit::{Cluster, Finished, LogServer, Operator, Reader, Requester, until};

const SAID_WITHIN: Duration = Duration::from_secs(60);

/// Every file below a directory and what is in it.
fn contents(root: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.is_dir() {
                left.push(path);
            } else {
                found.insert(path.clone(), std::fs::read(&path)?);
            }
        }
    }
    Ok(found)
}

/// Runs `tally serve` to its end on a directory.
async fn serve(name: &str, data: &Path, more: &[&str]) -> Result<Finished> {
    let data = data.to_str().context("path is not UTF-8")?;
    let list = format!("{name}=127.0.0.1:1");
    let line = [
        "serve",
        "--name",
        name,
        "--data-dir",
        data,
        "--initial-cluster",
        &list,
    ];
    let mut line = line.to_vec();
    for listen in ["--listen-client", "--listen-peer", "--listen-http"] {
        if !more.contains(&listen) {
            line.extend([listen, "127.0.0.1:0"]);
        }
    }
    line.extend(more);
    Operator::new(Vec::new()).run(&line).await
}

fn says(finished: &Finished, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(
            finished.stderr.contains(part),
            "it does not say {part:?}:\n{}",
            finished.said()
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_is_not_its_own_is_refused_and_left_as_it_is() -> Result<()> {
    let mut cluster = Cluster::start(1).await?;
    let address = cluster.address("n1")?;
    Requester::open(&address)
        .await?
        .register(&address, "ls1")
        .await?;
    let data = cluster.member("n1")?.data_dir().to_owned();
    let path = data.to_str().context("path is not UTF-8")?.to_owned();

    // While its own process has it.
    let second = serve("n1", &data, &[]).await?.expect_code(1)?;
    says(&second, &["T-013", &path, "stop the other"])?;
    Reader::linearizable(&address).await?.known("ls1").await?;

    cluster.stop_member("n1").await?;
    let before = contents(&data)?;
    let other = serve("n2", &data, &[]).await?.expect_code(1)?;
    says(
        &other,
        &["T-012", &path, "belongs to member n1", "--name n1"],
    )?;
    ensure!(
        contents(&data)? == before,
        "another member's start changed files"
    );

    newer(&data.join("IDENTITY"))?;
    let before = contents(&data)?;
    let newer = serve("n1", &data, &[]).await?.expect_code(1)?;
    says(&newer, &["T-012", &path, "format 4", "newer"])?;
    ensure!(
        contents(&data)? == before,
        "an older version's start changed files"
    );
    cluster.stop().await
}

/// Rewrites an identity as a version of Tally would that does not exist yet.
fn newer(path: &Path) -> Result<()> {
    let bytes = std::fs::read(path)?;
    let (magic, message) = (&bytes[..8], &bytes[16..]);
    let identity = Identity {
        format: 4,
        ..Identity::decode(message)?
    };
    let message = identity.encode_to_vec();
    let length = u32::try_from(message.len())?.to_be_bytes();
    let checksum = crc32c::crc32c(&message).to_be_bytes();
    std::fs::write(path, [magic, &length, &checksum, &message].concat())?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_directory_of_another_cluster_takes_no_part_and_is_named() -> Result<()> {
    let (mut ours, mut theirs) = (Cluster::start(3).await?, Cluster::start(1).await?);
    let cluster_id = |id: &[u8]| {
        id.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let own = cluster_id(&ours.status("n1").await?.cluster_id);
    let foreign = cluster_id(&theirs.status("n1").await?.cluster_id);
    theirs.stop_member("n1").await?;
    // The directory of a cluster of one member would lead by itself.
    ours.kill("n1")?;
    let data = ours.member("n1")?.data_dir().to_owned();
    let kept = data.with_extension("kept");
    std::fs::rename(&data, &kept)?;
    std::fs::rename(theirs.member("n1")?.data_dir(), &data)?;
    ours.launch("n1")?;
    until("the member says whose it is", SAID_WITHIN, async || {
        let answer = ours.member("n1")?.http("/readyz").await?;
        for part in ["T-012", &own, &foreign, "--initial-cluster"] {
            ensure!(answer.body.contains(part), "{answer:?} lacks {part}");
        }
        ensure!(answer.status == 503, "{answer:?}");
        let log = ours.member("n1")?.log();
        ensure!(log.contains("T-012"), "not in the log");
        Ok(())
    })
    .await?;
    // Nobody is served from it, not even with what it holds.
    let only = Operator::new(vec![ours.address("n1")?]);
    let ended = only.run(&["node", "list", "--timeout", "2s"]).await?;
    ensure!(ended.code != Some(0), "{}", ended.said());
    says(&ended, &["T-012"])?;
    ours.kill("n1")?;
    std::fs::rename(&data, theirs.member("n1")?.data_dir())?;
    std::fs::rename(&kept, &data)?;
    ours.restart("n1").await?;
    ours.state_hashes_agree().await?;
    theirs.restart("n1").await?;
    theirs.stop().await?;
    ours.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_port_that_is_taken_is_named_and_nothing_is_formatted() -> Result<()> {
    let cluster = Cluster::start(1).await?;
    let n1 = cluster.member("n1")?;
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    for (flag, taken) in [
        ("--listen-client", n1.client_address()),
        ("--listen-peer", n1.peer_address()),
        ("--listen-http", n1.http_address()),
    ] {
        let ended = serve("n9", &data, &[flag, &taken]).await?.expect_code(1)?;
        says(&ended, &["T-014", &taken, &flag[2..], "a free port"])?;
        ensure!(!data.exists(), "{flag}: a directory was made");
    }
    let log_server = LogServer::new("ls1", cluster.operator())?;
    let running = log_server.serve().await?;
    let (taken, dir) = (running.address().to_owned(), dir.path().join("ls2"));
    let dir_text = dir.to_str().context("path is not UTF-8")?;
    let line = [
        "log-server",
        "--name",
        "ls2",
        "--data-dir",
        dir_text,
        "--listen",
        &taken,
    ];
    let ended = cluster.operator().run(&line).await?.expect_code(1)?;
    says(&ended, &["T-014", &taken])?;
    ensure!(!dir.exists(), "a directory was made");
    let reader = Reader::linearizable(&cluster.address("n1")?).await?;
    ensure!(reader.known("ls2").await.is_err(), "it was registered");
    running.stop().await?;
    cluster.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_servers_directory_is_refused_by_every_other_one() -> Result<()> {
    let (cluster, other) = (Cluster::start(1).await?, Cluster::start(1).await?);
    let log_server = LogServer::new("ls1", cluster.operator())?;
    let running = log_server.serve().await?;
    let data = log_server.data_dir();
    let data = data.to_str().context("path is not UTF-8")?;
    let start = async |operator: Operator, name: &str| {
        let line = [
            "log-server",
            "--name",
            name,
            "--data-dir",
            data,
            "--listen",
            "127.0.0.1:0",
        ];
        let line = [&line[..], &["--advertise", "host9:1", "--exit-after-start"]].concat();
        operator.run(&line).await
    };
    let second = start(cluster.operator(), "ls1").await?.expect_code(1)?;
    says(&second, &["T-013", data, "stop the other"])?;
    running.append(1, b"record").await??;
    running.stop().await?;

    // RocksDB begins new files whenever it is opened, so its records are read back instead.
    let own = || {
        let mut files = contents(Path::new(data))?;
        files.retain(|path, _| !path.starts_with(Path::new(data).join("records")));
        anyhow::Ok(files)
    };
    let before = own()?;
    let renamed = start(cluster.operator(), "ls2").await?;
    let moved = start(other.operator(), "ls1").await?;
    for (ended, found) in [(renamed, "ls1"), (moved, "cluster")] {
        let ended = ended.expect_code(1)?;
        says(&ended, &["T-012", data, found])?;
    }
    let marker = Path::new(data).join("MARKER");
    let text = std::fs::read_to_string(&marker)?;
    std::fs::write(&marker, text.replacen("\"format\":1", "\"format\":2", 1))?;
    let newer = start(cluster.operator(), "ls1").await?.expect_code(1)?;
    says(&newer, &["T-018", "MARKER", "found format 2, expected 1"])?;
    std::fs::write(&marker, &text)?;
    ensure!(own()? == before, "files were changed");
    for (cluster, name) in [(&cluster, "ls2"), (&other, "ls1")] {
        let reader = Reader::linearizable(&cluster.address("n1")?).await?;
        if reader.known(name).await.is_ok() {
            bail!("{name} was registered");
        }
    }
    let again = log_server.serve().await?;
    let records = again.read(1).await?;
    assert_eq!(records.len(), 1, "{records:?}");
    again.stop().await?;
    other.stop().await?;
    cluster.stop().await
}
