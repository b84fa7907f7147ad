//! What `tally kv` prints for programs. They rely on these names.

use serde::Serialize;
use tally_client::keys::{KeyAnswer, KeyEvent, KeyValue, RangeAnswer, TxnAnswer, Written};

/// Bytes: a string when they are UTF-8, else `{"hex": …}`.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Text {
    Plain(String),
    Bytes { hex: String },
}

impl From<&[u8]> for Text {
    fn from(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Plain(text.to_owned()),
            Err(_) => Self::Bytes {
                hex: crate::output::hex(bytes),
            },
        }
    }
}

/// Bytes as people read them, on one line.
pub(super) fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        Ok(_) | Err(_) => bytes.escape_ascii().to_string(),
    }
}

#[derive(Debug, Serialize)]
pub(super) struct KeyDocument {
    key: Text,
    /// Null when values were left out.
    value: Option<Text>,
    version: u64,
    created: u64,
    modified: u64,
    lease: Option<String>,
}

impl KeyDocument {
    fn new(found: &KeyValue, with_value: bool) -> Self {
        Self {
            key: found.key.as_ref().into(),
            value: with_value.then(|| found.value.as_ref().into()),
            version: found.version,
            created: found.created.0,
            modified: found.modified.0,
            lease: found.lease.map(|lease| lease.to_string()),
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct FoundDocument {
    /// The store's revision when it was read.
    revision: u64,
    /// Keys that there are, told or not.
    count: u64,
    more: bool,
    keys: Vec<KeyDocument>,
}

impl FoundDocument {
    pub(super) fn new(answer: &RangeAnswer, with_values: bool) -> Self {
        let keys = answer.found.iter();
        Self {
            revision: answer.revision.0,
            count: answer.count,
            more: answer.more,
            keys: keys
                .map(|found| KeyDocument::new(found, with_values))
                .collect(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct WrittenDocument {
    /// `applied` or `replayed`.
    pub(super) outcome: &'static str,
    /// The store's revision after it.
    pub(super) revision: u64,
    /// Keys that a deletion deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) deleted: Option<u64>,
}

impl<T> From<&Written<T>> for WrittenDocument {
    fn from(written: &Written<T>) -> Self {
        Self {
            outcome: match written.replayed {
                true => "replayed",
                false => "applied",
            },
            revision: written.revision,
            deleted: None,
        }
    }
}

impl WrittenDocument {
    /// As the other commands tell of an answer.
    pub(super) fn text(&self, done: &str) -> String {
        format!("{} r{}: {done}", self.outcome, self.revision)
    }
}

#[derive(Debug, Serialize)]
pub(super) struct TxnDocument {
    #[serde(flatten)]
    written: WrittenDocument,
    /// True when every comparison held.
    succeeded: bool,
    answers: Vec<OpDocument>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum OpDocument {
    Get(FoundDocument),
    Put {
        revision: u64,
    },
    Del {
        revision: u64,
        deleted: u64,
    },
    Txn {
        succeeded: bool,
        answers: Vec<OpDocument>,
    },
}

impl From<&Written<TxnAnswer>> for TxnDocument {
    fn from(written: &Written<TxnAnswer>) -> Self {
        Self {
            written: written.into(),
            succeeded: written.answer.succeeded,
            answers: written.answer.answers.iter().map(Into::into).collect(),
        }
    }
}

impl From<&KeyAnswer> for OpDocument {
    fn from(answer: &KeyAnswer) -> Self {
        match answer {
            KeyAnswer::Range(found) => Self::Get(FoundDocument::new(found, true)),
            KeyAnswer::Put { revision, .. } => Self::Put {
                revision: revision.0,
            },
            KeyAnswer::Deleted {
                revision, count, ..
            } => Self::Del {
                revision: revision.0,
                deleted: *count,
            },
            KeyAnswer::Txn { succeeded, answers } => Self::Txn {
                succeeded: *succeeded,
                answers: answers.iter().map(Into::into).collect(),
            },
        }
    }
}

/// One revision of a watch.
#[derive(Debug, Serialize)]
pub(super) struct ChangedDocument {
    revision: u64,
    events: Vec<EventDocument>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum EventDocument {
    Put(KeyDocument),
    Deleted { key: Text },
}

impl ChangedDocument {
    pub(super) fn new(revision: u64, events: &[KeyEvent]) -> Self {
        let events = events.iter().map(|event| match event {
            KeyEvent::Put(made) => EventDocument::Put(KeyDocument::new(made, true)),
            KeyEvent::Deleted { key } => EventDocument::Deleted {
                key: key.as_ref().into(),
            },
        });
        Self {
            revision,
            events: events.collect(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct LeaseDocument {
    pub(super) lease: String,
    /// Seconds that it lives from each sign of life on.
    pub(super) ttl_s: u64,
    /// `applied` or `replayed`, for one that was granted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) outcome: Option<&'static str>,
    /// Seconds that it still lives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) left_s: Option<u64>,
    /// The keys that end with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) keys: Option<Vec<Text>>,
}

#[derive(Debug, Serialize)]
pub(super) struct LeasesDocument {
    pub(super) leases: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_told_as_digits() {
        let told = |bytes: &[u8]| serde_json::json!(Text::from(bytes));
        assert_eq!(told(b"plain"), serde_json::json!("plain"));
        assert_eq!(told(b"\xff\x00"), serde_json::json!({ "hex": "ff00" }));
        assert_eq!(shown("größe".as_bytes()), "größe");
        assert_eq!(shown(b"a\nb"), "a\\nb");
        assert_eq!(shown(b"\xff"), "\\xff");
    }
}
