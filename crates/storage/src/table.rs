//! The rows of the replicated state, one file for each kind: its tag, its key, its value and how
//! long it lives. The tag is the key's first byte; tags are never used again for something else.
//!
//! | tag | file | part of the state hash |
//! |---|---|---|
//! | 1 | `applied` | no |
//! | 2 | `state_hash` | no |
//! | 3 | `globals` | yes |
//! | 4 | `node` | yes |
//! | 5 | `node_name` | yes |
//! | 6 | `claim` | yes |
//! | 7 | `session` | yes |
//! | 8 | `session_use` | yes |
//! | 9 | `outcome` | yes |
//! | 10 | `history` | yes |
//! | 11 | `node_history` | yes |
//! | 12 | `key` | yes |
//! | 13 | `key_event` | yes |
//! | 14 | `key_version` | yes |
//! | 15 | `lease` | yes |
//! | 16 | `lease_end` | yes |
//! | 17 | `lease_key` | yes |
//! | 18 | `key_count` | yes |

pub(crate) mod applied;
pub(crate) mod claim;
pub(crate) mod globals;
pub(crate) mod history;
pub(crate) mod key;
pub(crate) mod key_count;
pub(crate) mod key_event;
pub(crate) mod key_version;
pub(crate) mod lease;
pub(crate) mod lease_end;
pub(crate) mod lease_key;
pub(crate) mod node;
pub(crate) mod node_history;
pub(crate) mod node_name;
pub(crate) mod outcome;
pub(crate) mod session;
pub(crate) mod session_use;
pub(crate) mod state_hash;

use std::fmt::Display;

use prost::Message;

/// The first tag whose rows count for the state hash; all later ones do.
pub(crate) const FIRST_HASHED_TAG: u8 = globals::TAG;

/// Encodes what the model knows as the message that stands on disk.
pub(crate) fn encode<'a, Stored, Known>(known: &'a Known) -> Vec<u8>
where
    Stored: Message + From<&'a Known>,
{
    Stored::from(known).encode_to_vec()
}

/// Decodes a row's value; the error says what is wrong.
pub(crate) fn decode<Stored, Known>(value: &[u8]) -> Result<Known, String>
where
    Stored: Message + Default,
    Known: TryFrom<Stored, Error: Display>,
{
    let stored = Stored::decode(value).map_err(|error| error.to_string())?;
    Known::try_from(stored).map_err(|error| error.to_string())
}

/// The key that follows every key with this prefix. The prefix begins with a tag, so it is not all
/// ones.
pub(crate) fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

/// A big-endian number at the end of a key.
pub(crate) fn last_u64(key: &[u8]) -> Result<u64, String> {
    key.last_chunk::<8>()
        .map(|bytes| u64::from_be_bytes(*bytes))
        .ok_or_else(|| format!("the key {key:02x?} is too short for a number"))
}
