//! Small files that hold one protobuf message, replaced as a whole.
//!
//! layout: [magic, 8 bytes][payload length, u32 big-endian][CRC32C of the payload, u32 big-endian]
//! [payload]. Nothing follows the payload.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use prost::Message;

use crate::durable;

/// Longest payload that is read: far more than any of these files needs.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;

const MAGIC_BYTES: usize = 8;
const HEADER_BYTES: usize = MAGIC_BYTES + 4 + 4;

/// Why a record file could not be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// There is no such file.
    Missing,
    /// It is there and is not what was written.
    Damaged(String),
    Io(io::Error),
}

/// Replaces the file's content and makes it durable.
pub(crate) fn write(
    path: &Path,
    magic: [u8; MAGIC_BYTES],
    message: &impl Message,
) -> io::Result<()> {
    let content = encode(message, magic)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    durable::replace_file(path, &content)
}

/// The file's content.
pub(crate) fn encode(message: &impl Message, magic: [u8; MAGIC_BYTES]) -> io::Result<Vec<u8>> {
    let payload = message.encode_to_vec();
    let length = u32::try_from(payload.len())
        .ok()
        .filter(|_| payload.len() <= PAYLOAD_BYTES_MAX)
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "found {} bytes, at most {PAYLOAD_BYTES_MAX} are allowed",
                    payload.len()
                ),
            )
        })?;
    let mut content = Vec::with_capacity(HEADER_BYTES + payload.len());
    content.extend_from_slice(&magic);
    content.extend_from_slice(&length.to_be_bytes());
    content.extend_from_slice(&crc32c::crc32c(&payload).to_be_bytes());
    content.extend_from_slice(&payload);
    Ok(content)
}

/// Reads the file and checks it.
pub(crate) fn read<M: Message + Default>(
    path: &Path,
    magic: [u8; MAGIC_BYTES],
) -> Result<M, ReadError> {
    let mut content = Vec::new();
    match File::open(path) {
        Ok(file) => {
            let limit = (HEADER_BYTES + PAYLOAD_BYTES_MAX + 1) as u64;
            file.take(limit)
                .read_to_end(&mut content)
                .map_err(ReadError::Io)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ReadError::Missing),
        Err(error) => return Err(ReadError::Io(error)),
    }
    decode(&content, magic).map_err(ReadError::Damaged)
}

/// Checks a file's content and reads the message in it; the error says what is wrong.
pub(crate) fn decode<M: Message + Default>(
    content: &[u8],
    magic: [u8; MAGIC_BYTES],
) -> Result<M, String> {
    let payload = check(content, magic)?;
    M::decode(payload).map_err(|error| error.to_string())
}

fn check(content: &[u8], magic: [u8; MAGIC_BYTES]) -> Result<&[u8], String> {
    let Some((found, rest)) = content.split_first_chunk::<MAGIC_BYTES>() else {
        return Err(format!(
            "found {} bytes, expected at least {HEADER_BYTES}",
            content.len()
        ));
    };
    if *found != magic {
        return Err(format!(
            "it begins with {:?}, expected {:?}",
            String::from_utf8_lossy(found),
            String::from_utf8_lossy(&magic)
        ));
    }
    let Some((length, rest)) = rest.split_first_chunk::<4>() else {
        return Err(format!(
            "found {} bytes, expected at least {HEADER_BYTES}",
            content.len()
        ));
    };
    let Some((checksum, payload)) = rest.split_first_chunk::<4>() else {
        return Err(format!(
            "found {} bytes, expected at least {HEADER_BYTES}",
            content.len()
        ));
    };
    let length = u32::from_be_bytes(*length);
    if payload.len() as u64 != u64::from(length) {
        return Err(format!(
            "found {} bytes of payload, expected {length}",
            payload.len()
        ));
    }
    let (found, expected) = (crc32c::crc32c(payload), u32::from_be_bytes(*checksum));
    if found != expected {
        return Err(format!("checksum {found:08x}, expected {expected:08x}"));
    }
    Ok(payload)
}
