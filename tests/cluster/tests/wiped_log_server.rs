//! A log server's data directory was wiped: it shows no marker, and a new one must not take the place
//! of the old.

use anyhow::{Context, Result, ensure};
use tally_proto::v1::StorageState;
use tally_testkit::{Cluster, LogServer, Reader};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_log_server_is_told_that_its_data_is_lost() -> Result<()> {
    let cluster = Cluster::start(3).await?;
    let operator = cluster.operator();
    let log_server = LogServer::new("ls1", operator.clone())?;
    log_server.start_up().await?.expect_code(0)?;
    ensure!(has_marker(&log_server)?, "files: {:?}", log_server.files()?);
    let reader = Reader::linearizable(&cluster.address("n1")?).await?;
    let before = reader.known("ls1").await?;

    log_server.wipe()?;
    for _ in 0..2 {
        let refused = log_server.start_up().await?.expect_code(4)?;
        ensure!(refused.said().contains("T-311"), "{}", refused.said());
        ensure!(
            !has_marker(&log_server)?,
            "files: {:?}",
            log_server.files()?
        );
    }

    let after = reader.known("ls1").await?;
    assert_eq!(after.binding, before.binding);
    assert_eq!(after.state(), StorageState::ReadWrite);
    let claims = reader.claims(before.id).await?;
    let claim = claims.first().context("no claim was recorded")?;
    assert_eq!((claim.marker.as_ref(), claim.attempts), (None, 2));

    let set = [
        "node",
        "set-state",
        "ls1",
        "data-loss",
        "--reason",
        "disk replaced",
    ];
    operator.run(&set).await?.expect_code(0)?;
    assert_eq!(reader.known("ls1").await?.state(), StorageState::DataLoss);
    cluster.stop().await
}

fn has_marker(log_server: &LogServer) -> Result<bool> {
    let files = log_server.files()?;
    let mut names = files.iter().filter_map(|file| file.file_name());
    Ok(names.any(|name| name.to_string_lossy().to_lowercase().contains("marker")))
}
