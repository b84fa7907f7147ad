//! The file `IDENTITY`: whose directory this is. Written when the directory is formatted and once
//! more when the member joins its cluster; removed with the directory only.
//!
//! layout: a record file with the magic `TALLYID1`, holding tally.storage.v1.Identity

use std::io;
use std::path::Path;

use tally_model::ClusterId;
use tally_proto::storage::Identity;

use super::{OpenError, OpenOptions};
use crate::record_file::{self, ReadError};

pub(super) const FILE: &str = "IDENTITY";
const MAGIC: [u8; 8] = *b"TALLYID1";

/// The format that this build writes, and the newest that it reads.
const FORMAT: u32 = 3;

pub(super) fn fresh(options: &OpenOptions) -> Identity {
    Identity {
        format: FORMAT,
        member: options.fresh_member.0,
        name: options.name.clone(),
        formation: options.formation.clone(),
        cluster_id: Vec::new(),
    }
}

pub(super) fn write(directory: &Path, identity: &Identity) -> io::Result<()> {
    record_file::write(&directory.join(FILE), MAGIC, identity)
}

/// `None` when the directory has no identity.
pub(super) fn read(directory: &Path, name: &str) -> Result<Option<Identity>, OpenError> {
    let path = directory.join(FILE);
    match record_file::read::<Identity>(&path, MAGIC) {
        Ok(identity) => Ok(Some(identity)),
        Err(ReadError::Missing) => Ok(None),
        Err(ReadError::Damaged(why)) => Err(OpenError::damaged(path, name, why)),
        Err(ReadError::Io(source)) => Err(OpenError::Io { path, source }),
    }
}

/// Refuses what this build or this member must not touch.
pub(super) fn check(directory: &Path, identity: &Identity, name: &str) -> Result<(), OpenError> {
    if identity.format != FORMAT {
        return Err(OpenError::Foreign {
            path: directory.to_path_buf(),
            found: format!("has format {}", identity.format),
            expected: format!("{FORMAT}, the only one that this version reads"),
            next: "start the version of tally that last ran on this directory, or a newer one"
                .to_owned(),
        });
    }
    if identity.name != name {
        return Err(OpenError::Foreign {
            path: directory.to_path_buf(),
            found: format!("belongs to member {}", identity.name),
            expected: name.to_owned(),
            next: format!(
                "start it with --name {}, or give {name} its own --data-dir",
                identity.name
            ),
        });
    }
    if identity.member == 0 || !matches!(identity.cluster_id.len(), 0 | 16) {
        return Err(OpenError::damaged(
            directory.join(FILE),
            name,
            format!(
                "member id {} and a cluster id of {} bytes, expected an id above 0 and 0 or 16 bytes",
                identity.member,
                identity.cluster_id.len()
            ),
        ));
    }
    Ok(())
}

pub(super) fn cluster(identity: &Identity) -> Option<ClusterId> {
    let bytes: [u8; 16] = identity.cluster_id.as_slice().try_into().ok()?;
    Some(ClusterId(u128::from_be_bytes(bytes)))
}
