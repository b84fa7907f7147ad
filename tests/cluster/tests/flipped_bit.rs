//! One bit on a member's disk is not what it was: the member names the file and does not start, and
//! what it prints as the way out is one.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tally_proto::v1::Role;
use tally_testkit::{Cluster, Load, Reader, rounds, seed, until, while_observing};

const LOADED_WITHIN: Duration = Duration::from_secs(60);
const ENDS_WITHIN: Duration = Duration::from_secs(30);
/// Several election timeouts.
const OBSERVED_FOR: Duration = Duration::from_secs(5);
const ANSWERED: usize = 150;

/// A part of a file, in which any bit may be flipped.
struct Place {
    what: &'static str,
    /// In the data directory; numbers are left out of the names.
    file: &'static str,
    /// From and until, in hundredths of the file.
    part: (usize, usize),
    /// What the message names, if not the file: numbers are left out here too.
    named: &'static str,
}

const fn place(what: &'static str, file: &'static str, part: (usize, usize)) -> Place {
    Place {
        what,
        file,
        part,
        named: file,
    }
}

const fn place_in_snapshot(what: &'static str, file: &'static str) -> Place {
    Place {
        what,
        file,
        part: (0, 100),
        named: "snapshots/snap-",
    }
}

const PLACES: [Place; 12] = [
    place("the log's tail", "log/.log", (99, 100)),
    place("the log's middle", "log/.log", (20, 80)),
    place("a table of the log", "log/.sst", (0, 100)),
    place("the log's list of files", "log/MANIFEST-", (0, 100)),
    place("the log's current list", "log/CURRENT", (0, 100)),
    place("a table of the state", "state/gen-/.sst", (0, 100)),
    place(
        "the state's list of files",
        "state/gen-/MANIFEST-",
        (0, 100),
    ),
    place("which state counts", "state/CURRENT_GENERATION", (0, 100)),
    place("the identity", "IDENTITY", (0, 100)),
    place_in_snapshot("a snapshot's metadata", "snapshots/snap-/META"),
    place_in_snapshot("a snapshot's table", "snapshots/snap-/files/.sst"),
    place_in_snapshot(
        "a snapshot's list of files",
        "snapshots/snap-/files/MANIFEST-",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_on_damaged_data_does_not_start_and_can_be_repaired_as_it_says() -> Result<()> {
    let mut random = SmallRng::seed_from_u64(seed()?);
    let arguments = ["--snapshot-entries", "100", "--keep-entries", "50"];
    let mut cluster = Cluster::start_with(3, &arguments).await?;
    let load = Load::start(&cluster)?;
    load.answers(ANSWERED, LOADED_WITHIN).await?;
    let victim = cluster.followers().await?.remove(0);
    // A restart makes tables of what was in write-ahead logs.
    cluster.stop_member(&victim).await?;
    cluster.restart(&victim).await?;
    until("a snapshot", LOADED_WITHIN, async || {
        let taken = cluster.status(&victim).await?.snapshot_index;
        ensure!(taken > 0, "none yet");
        Ok(())
    })
    .await?;
    load.answers(ANSWERED / 3, LOADED_WITHIN).await?;
    cluster.kill(&victim)?;
    let data = cluster.member(&victim)?.data_dir().to_owned();
    let sound = data.with_extension("sound");
    copy(&data, &sound)?;

    let places = PLACES.iter().cycle().take(PLACES.len() * rounds(1, 10));
    for place in places {
        fs::remove_dir_all(&data)?;
        copy(&sound, &data)?;
        flip(&data, place, &mut random)?;
        let answered = load.answered();
        let said = refuses(&mut cluster, &victim).await?;
        println!("{}: {said}", place.what);
        ensure!(
            without_digits(&said).contains(place.named),
            "{}: {} is not named: {said}",
            place.what,
            place.named
        );
        load.answers(1, LOADED_WITHIN)
            .await
            .with_context(|| format!("the others stand still, {answered} answers"))?;
    }
    repair(&mut cluster, &victim).await?;
    load.answers(ANSWERED / 3, LOADED_WITHIN).await?;
    println!("{}", load.stop().await?.check(&cluster).await?);
    cluster.stop().await
}

/// With one other member stopped, the vote of the damaged one is all that is lacking for a leader. It does
/// not give it, and does once the bit is as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_on_damaged_data_does_not_vote_although_nobody_leads_without_it() -> Result<()> {
    let mut random = SmallRng::seed_from_u64(seed()?);
    let mut cluster = Cluster::start(3).await?;
    let load = Load::start(&cluster)?;
    load.answers(ANSWERED, LOADED_WITHIN).await?;
    let mut recorded = load.stop().await?;
    let leader = cluster.leader().await?;
    let followers = cluster.followers().await?;
    let [victim, alone] = &followers[..] else {
        bail!("expected two followers: {followers:?}");
    };
    cluster.kill_all()?;
    let data = cluster.member(victim)?.data_dir().to_owned();
    let sound = data.with_extension("sound");
    copy(&data, &sound)?;
    flip(&data, &place("the log", "log/.log", (0, 100)), &mut random)?;

    cluster.launch(alone)?;
    println!("{}", refuses(&mut cluster, victim).await?);
    let address = cluster.address(alone)?;
    while_observing("nobody leads", OBSERVED_FOR, async || {
        let role = cluster.status(alone).await?.role();
        ensure!(role != Role::Leader, "{alone} leads");
        Ok(())
    })
    .await?;
    let fresh = Reader::linearizable(&address).await?.nodes().await;
    ensure!(fresh.is_err(), "a fresh read was answered: {fresh:?}");
    // It runs, and serves what needs no leader.
    let stale = Reader::stale(&address).await?.nodes().await?;
    ensure!(!stale.is_empty(), "{alone} knows no nodes");

    fs::remove_dir_all(&data)?;
    fs::rename(&sound, &data)?;
    cluster.launch(victim)?;
    cluster.leader_among(&followers).await?;
    cluster.restart(&leader).await?;
    println!("{}", recorded.check(&cluster).await?);
    cluster.stop().await
}

/// The leader finds out when another member needs the snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_snapshot_was_damaged_ends_instead_of_sending_it() -> Result<()> {
    let mut random = SmallRng::seed_from_u64(seed()?);
    let mut cluster = Cluster::start_with(3, &["--keep-entries", "5"]).await?;
    let leader = cluster.leader().await?;
    let away = cluster.followers().await?.remove(0);
    let load = Load::start(&cluster)?;
    load.answers(ANSWERED / 3, LOADED_WITHIN).await?;
    cluster.kill(&away)?;
    load.answers(ANSWERED, LOADED_WITHIN).await?;
    let mut recorded = load.stop().await?;
    let snapshot = cluster.operator().run(&["cluster", "snapshot"]).await?;
    println!("{}", snapshot.said());
    until("the log is purged", LOADED_WITHIN, async || {
        let status = cluster.status(&leader).await?;
        ensure!(
            status.purged_index + 20 > status.applied_index,
            "{status:?}"
        );
        Ok(())
    })
    .await?;
    let data = cluster.member(&leader)?.data_dir().to_owned();
    flip(
        &data,
        &place_in_snapshot(
            "a snapshot's list of files",
            "snapshots/snap-/files/MANIFEST-",
        ),
        &mut random,
    )?;

    cluster.launch(&away)?;
    let code = cluster.ended(&leader, ENDS_WITHIN).await?;
    ensure!(code == Some(1), "{leader} ended with {code:?}");
    let said = last_words(&cluster, &leader)?;
    println!("{said}");
    for part in ["T-008", "snapshots/snap-", "damaged", "next"] {
        ensure!(said.contains(part), "does not say {part}: {said}");
    }
    // The other one has a sound snapshot.
    cluster.ready(&away).await?;
    cluster.state_hashes_agree().await?;

    cluster.launch(&leader)?;
    let code = cluster.ended(&leader, ENDS_WITHIN).await?;
    ensure!(code == Some(1), "{leader} ended with {code:?}");
    let said = last_words(&cluster, &leader)?;
    ensure!(
        said.contains("T-018") && said.contains("snapshots/snap-"),
        "{said}"
    );
    repair(&mut cluster, &leader).await?;
    println!("{}", recorded.check(&cluster).await?);
    cluster.stop().await
}

/// Starts the member, which must not start, and returns what it says.
async fn refuses(cluster: &mut Cluster, victim: &str) -> Result<String> {
    cluster.launch(victim)?;
    let code = cluster.ended(victim, ENDS_WITHIN).await?;
    let said = last_words(cluster, victim)?;
    ensure!(code == Some(1), "{victim} ended with {code:?}: {said}");
    let command = format!("tally member replace {victim}");
    for part in ["T-018", "is damaged", &command] {
        ensure!(said.contains(part), "does not say {part}: {said}");
    }
    Ok(said)
}

/// What it printed at its end.
fn last_words(cluster: &Cluster, name: &str) -> Result<String> {
    let log = cluster.member(name)?.log();
    let end = log.rfind("\nT-").context("no code in its log")?;
    Ok(log[end..].trim().to_owned())
}

/// Does what the message says.
async fn repair(cluster: &mut Cluster, victim: &str) -> Result<()> {
    let data = cluster.member(victim)?.data_dir().to_owned();
    fs::rename(&data, data.with_extension("damaged"))?;
    cluster.launch(victim)?;
    cluster.says_it_was_emptied(victim).await?;
    let replace = ["member", "replace", victim];
    cluster.operator().run(&replace).await?.expect_code(0)?;
    cluster.all_ready().await?;
    cluster.state_hashes_agree().await?;
    Ok(())
}

fn without_digits(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

fn files_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => files.extend(files_below(&entry.path())?),
            false => files.push(entry.path()),
        }
    }
    files.sort();
    Ok(files)
}

/// Copies every file by itself: a snapshot's tables are no longer those of the state.
fn copy(from: &Path, to: &Path) -> Result<()> {
    for file in files_below(from)? {
        let copy = to.join(file.strip_prefix(from)?);
        fs::create_dir_all(copy.parent().context("no parent")?)?;
        fs::copy(&file, &copy)?;
    }
    Ok(())
}

/// Flips one bit of the newest file of its kind.
fn flip(data: &Path, place: &Place, random: &mut SmallRng) -> Result<()> {
    let mut files = files_below(data)?;
    files.retain(|file| {
        let within = file.strip_prefix(data).map(Path::to_string_lossy);
        within.is_ok_and(|within| without_digits(&within) == place.file)
    });
    let file = files.last().with_context(|| format!("no {}", place.file))?;
    let mut content = fs::read(file)?;
    let (from, until) = place.part;
    let bytes = content.len() * from / 100..(content.len() * until / 100).max(1);
    ensure!(!bytes.is_empty(), "{} is too short", file.display());
    let byte = random.random_range(bytes);
    let bit = random.random_range(0..8);
    println!("bit {bit} of byte {byte} of {}", file.display());
    content[byte] ^= 1 << bit;
    fs::write(file, content)?;
    Ok(())
}
