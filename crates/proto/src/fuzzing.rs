//! This crate's decoders on arbitrary bytes, for the fuzz targets in `tests/fuzz` and, with real
//! messages that were cut and flipped, for every test run. What is taken is written again as the same.

use prost::Message;
use tally_model::{Command, KeyOp, Request, Tag};
use tonic::{Code, Status};

use crate::convert::{self, DecodeError, digest};
use crate::fault::Fault;
use crate::{etcd, logserver, storage, v1};

/// As a member has it unless it is told otherwise.
const TXN_OPS_MAX: usize = 128;

/// A request of a client, or a call to a log server; the first byte says which.
pub fn requests(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else {
        return;
    };
    match which % 10 {
        0 => request::<v1::OpenSessionRequest>(bytes),
        1 => request::<v1::CloseSessionRequest>(bytes),
        2 => request::<v1::SettleRequest>(bytes),
        3 => request::<v1::RegisterRequest>(bytes),
        4 => request::<v1::ActivateRequest>(bytes),
        5 => request::<v1::SetStateRequest>(bytes),
        6 => request::<storage::Request>(bytes),
        7 => reads(bytes),
        8 => transaction(bytes),
        _ => {
            let _ = logserver::AppendRequest::decode(bytes);
            let _ = logserver::ReadRequest::decode(bytes);
        }
    }
}

/// A transaction of the etcd API, in which all its writes may stand.
fn transaction(bytes: &[u8]) {
    let Ok(message) = etcd::TxnRequest::decode(bytes) else {
        return;
    };
    match convert::txn(message, TXN_OPS_MAX) {
        Ok(txn) => reads_back(&Request {
            tagged: None,
            command: Command::Keys(KeyOp::Txn(txn)),
        }),
        Err(malformed) => assert!(!malformed.to_string().is_empty(), "{malformed:?}"),
    }
}

/// Takes a request and appends it, as it were.
fn request<M>(bytes: &[u8])
where
    M: Message + Default,
    Request: TryFrom<M, Error = DecodeError>,
{
    let Ok(message) = M::decode(bytes) else {
        return;
    };
    let asked = match Request::try_from(message) {
        Ok(asked) => asked,
        Err(refused) => {
            let said = refused.to_string();
            assert!(
                said.contains("found"),
                "{said}: it does not say what was found"
            );
            return;
        }
    };
    reads_back(&asked);
}

/// What every member applies later must be what was asked.
fn reads_back(asked: &Request) {
    let written = storage::Request::from(asked).encode_to_vec();
    let Ok(again) = storage::Request::decode(written.as_slice()) else {
        panic!("what was taken cannot be read back: {asked:?}");
    };
    let again: Result<Request, DecodeError> = again.try_into();
    let digests = again.as_ref().map(|again| digest(&again.command));
    assert_eq!(digests, Ok(digest(&asked.command)));
    assert_eq!(again.as_ref(), Ok(asked));
}

fn reads(bytes: &[u8]) {
    let _ = v1::GetRequest::decode(bytes);
    let _ = v1::ListRequest::decode(bytes);
    let _ = v1::HistoryRequest::decode(bytes);
    let _ = v1::WatchRequest::decode(bytes);
    let _ = v1::ReplaceMemberRequest::decode(bytes);
    // The details of a status, which a client gets from whoever listens there.
    let status = Status::with_details(Code::Unavailable, "T-001: none", bytes.to_vec().into());
    if let Some(fault) = Fault::read(&status) {
        let _ = fault.to_string();
    }
}

fn tag() -> Option<v1::Tag> {
    Some(v1::Tag {
        session: 12,
        sequence: 2,
        acknowledged: 1,
        marker: marker(),
    })
}

fn marker() -> Option<v1::Marker> {
    Some(v1::Marker {
        bits: vec![0x7f; 16],
        created_unix_ms: 1_700_000_000_000,
    })
}

/// A transaction with something of each kind, and another one within.
fn swap() -> etcd::TxnRequest {
    use etcd::request_op::Request::{RequestDeleteRange, RequestPut, RequestRange, RequestTxn};
    let op = |request| etcd::RequestOp {
        request: Some(request),
    };
    let compare = etcd::Compare {
        key: "k".into(),
        target_union: Some(etcd::compare::TargetUnion::Version(1)),
        ..Default::default()
    };
    let put = etcd::PutRequest {
        key: "k".into(),
        value: "v".into(),
        prev_kv: true,
        ..Default::default()
    };
    let delete = etcd::DeleteRangeRequest {
        key: "l".into(),
        range_end: "m".into(),
        prev_kv: true,
    };
    let range = etcd::RangeRequest {
        key: "a".into(),
        range_end: vec![0].into(),
        limit: 2,
        ..Default::default()
    };
    let inner = etcd::TxnRequest {
        success: vec![op(RequestRange(range))],
        ..Default::default()
    };
    etcd::TxnRequest {
        compare: vec![compare],
        success: vec![op(RequestPut(put)), op(RequestDeleteRange(delete))],
        failure: vec![op(RequestTxn(inner))],
    }
}

/// Real messages for [`requests`].
pub fn request_seeds() -> Vec<Vec<u8>> {
    let tag = tag();
    let open = v1::OpenSessionRequest { marker: marker() };
    let register = v1::RegisterRequest {
        tag: tag.clone(),
        name: "ls1".to_owned(),
        marker: marker(),
        address: "host4:7421".to_owned(),
        location: "eu.a".to_owned(),
        cluster_id: vec![0xc1; 16],
    };
    let activate = v1::ActivateRequest {
        tag: tag.clone(),
        node: 1,
        marker: marker(),
        incarnation: 4,
        attempt: 1,
    };
    let node = v1::NodeActor {
        marker: marker(),
        incarnation: 4,
    };
    let operator = v1::OperatorActor {
        expected_revision: 57,
        force: Some(v1::Force {
            confirm_name: "ls1".to_owned(),
        }),
    };
    let set = |actor| v1::SetStateRequest {
        tag: tag.clone(),
        node: 1,
        to: v1::StorageState::ReadOnly.into(),
        actor: Some(actor),
        reason: "disk swap".to_owned(),
    };
    let (close, settle) = (
        v1::CloseSessionRequest { tag: tag.clone() },
        v1::SettleRequest { tag: tag.clone() },
    );
    let by_node = set(v1::set_state_request::Actor::ByNode(node)).encode_to_vec();
    let by_operator = set(v1::set_state_request::Actor::ByOperator(operator)).encode_to_vec();
    let stored = Request::try_from(activate.clone());
    let stored = stored.map(|asked| storage::Request::from(&asked).encode_to_vec());
    let fault = Fault::new("T-001", "none").with_next("tally cluster status");
    let append = logserver::AppendRequest {
        log: 1,
        data: b"record".to_vec(),
    };
    let messages = [
        (0, open.encode_to_vec()),
        (1, close.encode_to_vec()),
        (2, settle.encode_to_vec()),
        (3, register.encode_to_vec()),
        (4, activate.encode_to_vec()),
        (5, by_node),
        (5, by_operator),
        (6, stored.unwrap_or_default()),
        (7, fault.into_status(Code::Unavailable).details().to_vec()),
        (8, swap().encode_to_vec()),
        (9, append.encode_to_vec()),
    ];
    let messages = messages.into_iter();
    messages
        .map(|(which, bytes)| [&[which], bytes.as_slice()].concat())
        .collect()
}

/// Texts: identifiers as people and files give them; the first byte says which.
pub fn texts(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match which % 6 {
        0 => same::<tally_model::Marker>(text),
        1 => same::<Tag>(text),
        2 => same::<tally_model::ClusterId>(text),
        3 => same::<tally_model::Replication>(text),
        4 => {
            if let Ok(name) = tally_model::NodeName::new(text) {
                assert_eq!(name.as_str(), text);
                assert!((1..=128).contains(&text.len()), "{text:?}");
                assert!(!text.chars().any(char::is_control), "{text:?}");
            }
        }
        _ => {
            if let Ok(location) = tally_model::Location::new(text) {
                assert_eq!(location.as_str(), text);
                assert!(text.starts_with(location.region()), "{text:?}");
            }
        }
    }
}

/// Reads a text; what was read is written as something that reads the same.
fn same<T>(text: &str)
where
    T: std::str::FromStr + std::fmt::Display + PartialEq + std::fmt::Debug,
{
    if let Ok(read) = text.parse::<T>() {
        let again = read.to_string().parse::<T>().ok();
        assert_eq!(again, Some(read), "{text:?}");
    }
}

/// Real texts for [`texts`].
pub fn text_seeds() -> Vec<Vec<u8>> {
    let texts = [
        (0, "7f3a0000000000000000000000000000@1700000000000"),
        (1, "12/3"),
        (2, "000000000000000000000000000000c1"),
        (3, "{zone: 2}"),
        (4, "ls1"),
        (5, "eu.a"),
    ];
    let texts = texts.into_iter();
    texts
        .map(|(which, text)| [&[which], text.as_bytes()].concat())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a target on each seed as it is, cut at every byte, and with every byte flipped.
    fn every_cut_and_flip(seeds: Vec<Vec<u8>>, target: fn(&[u8])) {
        for seed in seeds {
            target(&seed);
            for at in 0..seed.len() {
                target(&seed[..at]);
                for flip in [0x01, 0x20, 0x80, 0xff] {
                    let mut flipped = seed.clone();
                    flipped[at] ^= flip;
                    target(&flipped);
                }
            }
        }
    }

    #[test]
    fn no_request_can_make_a_decoder_panic() {
        every_cut_and_flip(request_seeds(), requests);
    }

    #[test]
    fn no_text_can_make_a_parser_panic() {
        every_cut_and_flip(text_seeds(), texts);
    }
}
