//! Opens the log and trusts nothing: that no record of the write-ahead log has changed, every entry's
//! checksum, that no index is missing, and that it reaches the floor.

use std::path::{Path, PathBuf};

use rocksdb::DB;
use tally_proto::storage::{LogId, Vote};

use super::LogBounds;
use super::floor::{self, Floor, Level};
use super::tail::Tail;
use super::{entry, row};
use crate::directory::OpenError;
use crate::{durable, rocks, torn};

/// A log that was found sound.
pub(super) struct Recovered {
    pub(super) db: DB,
    pub(super) floor: Floor,
    pub(super) tail: Tail,
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
}

/// Opens the log of a data directory that belongs to the member `name`.
pub(super) fn open(
    directory: &Path,
    name: &str,
    tail_bytes_max: usize,
) -> Result<Recovered, OpenError> {
    let path = directory.join("log");
    let io = |path: &PathBuf, source| OpenError::Io {
        path: path.clone(),
        source,
    };
    let floor_path = floor::path(directory);
    let floor = Floor::open(directory)
        .map_err(|source| io(&floor_path, source))?
        .map_err(|why| OpenError::damaged(floor_path.clone(), name, why))?;
    durable::create_directory(&path).map_err(|source| io(&path, source))?;
    // Before RocksDB, which would drop what it cannot read.
    torn::check(&path)
        .map_err(|source| io(&path, source))?
        .map_err(|damage| OpenError::damaged(damage.file, name, damage.why))?;
    let db = rocks::open_log(&path).map_err(|error| match rocks::is_environment(&error) {
        true => io(&path, std::io::Error::other(error.into_string())),
        false => OpenError::damaged(path.clone(), name, error.into_string()),
    })?;
    let damaged = |why: String| OpenError::damaged(path.clone(), name, why);
    rocks::read_all(&db).map_err(damaged)?;
    rocks::merge_from_now_on(&db).map_err(|source| io(&path, source))?;
    let purged: Option<LogId> = row::message(&db, row::PURGED, "the purged id").map_err(damaged)?;
    let vote: Option<Vote> = row::message(&db, row::VOTE, "the vote").map_err(damaged)?;
    let committed = row::message(&db, row::COMMITTED, "the committed id").map_err(damaged)?;
    let tail = read_entries(&db, purged, floor.level(), tail_bytes_max).map_err(damaged)?;
    check_floor(floor.level(), tail.bounds(), vote).map_err(damaged)?;
    let last_index = tail.bounds().last.map(|last| last.index);
    Ok(Recovered {
        committed: committed.filter(|committed: &LogId| Some(committed.index) <= last_index),
        db,
        floor,
        tail,
        vote,
    })
}

/// Reads every entry, and keeps the newest in memory.
fn read_entries(
    db: &DB,
    purged: Option<LogId>,
    floor: Level,
    tail_bytes_max: usize,
) -> Result<Tail, String> {
    let after_purged = purged.map_or(0, |purged| purged.index + 1);
    let first = row::begins(db)?.unwrap_or(0).max(after_purged);
    let mut tail = Tail::new(
        LogBounds {
            purged,
            last: purged,
        },
        first,
        tail_bytes_max,
    );
    let mut expected = first;
    entry::visit(&db.snapshot(), 0..u64::MAX, |index, entry, bytes| {
        if index != expected {
            return Err(format!(
                "entry {expected} is missing; the next one is {index}"
            ));
        }
        if let (Some(id), Some(floor)) = (entry.id, floor.last)
            && id.index == floor.index
            && id != floor
        {
            return Err(format!(
                "entry {index} is {id:?}, and {floor:?} was acknowledged"
            ));
        }
        expected += 1;
        tail.keep_recovered(entry, bytes);
        Ok(true)
    })?;
    Ok(tail)
}

/// Refuses a log that has lost what was acknowledged.
fn check_floor(floor: Level, bounds: LogBounds, vote: Option<Vote>) -> Result<(), String> {
    let ends = bounds.last.map(|last| last.index);
    if let Some(acknowledged) = floor.last
        && ends < Some(acknowledged.index)
    {
        let found = ends.map_or("holds no entry".to_owned(), |index| {
            format!("ends at entry {index}")
        });
        return Err(format!(
            "the log {found}, and entry {} was acknowledged",
            acknowledged.index
        ));
    }
    let term = vote.map_or(0, |vote| vote.term);
    if term < floor.vote_term {
        return Err(format!(
            "the last vote is of term {term}, and one of term {} was acknowledged",
            floor.vote_term
        ));
    }
    Ok(())
}
