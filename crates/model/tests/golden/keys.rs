//! The commands about keys and leases in a golden script.

use bytes::Bytes;
use goldenscript::ArgumentConsumer;
use tally_model::command::Compact;
use tally_model::keys::{Compare, Comparison, DeleteRange, Expected, LeaseOf, Put, Range, Txn};
use tally_model::lease::{GrantLease, PassLeaseTime};
use tally_model::memory::MemoryState;
use tally_model::{Command, KeyOp, KeyRange, LeaseId, Revision, View};

use crate::script::Result;

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// `KEY=VALUE`, or `KEY` alone to keep its value.
pub(crate) fn put(_: &MemoryState, args: &mut ArgumentConsumer<'_>) -> Result<Command> {
    let lease = args.take_key("lease").map(str::parse).transpose()?;
    let text = args.next_pos().ok_or("put needs KEY VALUE")?;
    let (key, value) = (bytes(text), args.next_pos().map(bytes));
    Ok(Command::Keys(KeyOp::Put(Put {
        key,
        value,
        lease: LeaseOf::Given(lease.map(LeaseId)),
        want_previous: true,
    })))
}

fn range(args: &mut ArgumentConsumer<'_>) -> Result<KeyRange> {
    let key = bytes(args.next_pos().ok_or("a key is needed")?);
    let end = args.next_pos().map(bytes).unwrap_or_default();
    Ok(KeyRange::new(key, end))
}

pub(crate) fn delete(_: &MemoryState, args: &mut ArgumentConsumer<'_>) -> Result<Command> {
    Ok(Command::Keys(KeyOp::Delete(DeleteRange {
        keys: range(args)?,
        want_previous: true,
    })))
}

/// As of now, or `at=` a revision.
pub(crate) fn get(args: &mut ArgumentConsumer<'_>) -> Result<KeyOp> {
    let at = args.take_key("at");
    let at = at
        .map(|text| text.trim_start_matches('r').parse())
        .transpose()?;
    Ok(KeyOp::Range(Range {
        at: at.map(Revision),
        ..Range::of(range(args)?)
    }))
}

/// `KEY VALUE version=N`: puts the value if the key has this version, else gets the key.
pub(crate) fn swap(_: &MemoryState, args: &mut ArgumentConsumer<'_>) -> Result<Command> {
    let version = args
        .take_key("version")
        .ok_or("swap needs version=")?
        .parse()?;
    let key = bytes(args.next_pos().ok_or("swap needs KEY VALUE")?);
    let value = bytes(args.next_pos().ok_or("swap needs KEY VALUE")?);
    let put = Put {
        key: key.clone(),
        value: Some(value),
        lease: LeaseOf::Given(None),
        want_previous: true,
    };
    Ok(Command::Keys(KeyOp::Txn(Txn {
        compare: vec![Compare {
            keys: KeyRange::One(key.clone()),
            comparison: Comparison::Equal,
            expected: Expected::Version(version),
        }],
        success: vec![KeyOp::Put(put)],
        failure: vec![KeyOp::Range(Range::of(KeyRange::One(key)))],
    })))
}

pub(crate) fn compact(_: &MemoryState, args: &mut ArgumentConsumer<'_>) -> Result<Command> {
    let revision = args.next_pos().ok_or("compact needs a revision")?;
    let revision = Revision(revision.trim_start_matches('r').parse()?);
    Ok(Command::Compact(Compact { revision }))
}

fn lease(args: &mut ArgumentConsumer<'_>) -> Result<LeaseId> {
    let id = args.next_pos().ok_or("a lease is needed")?;
    Ok(LeaseId(id.parse()?))
}

pub(crate) fn grant(_: &MemoryState, args: &mut ArgumentConsumer<'_>) -> Result<Command> {
    let ttl_s = args.take_key("ttl").ok_or("grant needs ttl=")?.parse()?;
    let lease = lease(args)?;
    Ok(Command::GrantLease(GrantLease { lease, ttl_s }))
}

pub(crate) fn revoke(_: &MemoryState, args: &mut ArgumentConsumer<'_>) -> Result<Command> {
    Ok(Command::RevokeLease(lease(args)?))
}

pub(crate) fn renew(args: &mut ArgumentConsumer<'_>) -> Result<Command> {
    Ok(Command::RenewLease(lease(args)?))
}

/// `MS term=N`, from where the clock stands unless `from=` says otherwise.
pub(crate) fn pass(state: &MemoryState, args: &mut ArgumentConsumer<'_>) -> Result<Command> {
    let passed_ms = args.next_pos().ok_or("pass needs milliseconds")?.parse()?;
    let now = state.globals().lease_clock_ms;
    Ok(Command::PassLeaseTime(PassLeaseTime {
        term: args.take_key("term").map_or(Ok(1), str::parse)?,
        from_ms: args.take_key("from").map_or(Ok(now), str::parse)?,
        passed_ms,
    }))
}
