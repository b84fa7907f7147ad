//! What the naive model reads in one map: which keys a range has, in which order, and whether a comparison holds.

use std::collections::BTreeMap;

use bytes::Bytes;
use tally_model::keys::{Bounds, Compare, Comparison, Expected, Range, RangeAnswer, SortBy};
use tally_model::{KeyRange, KeyValue, LeaseId, Revision};

pub(crate) fn within(range: &KeyRange, key: &Bytes) -> bool {
    let (start, end) = (range.start(), range.end());
    match end.as_ref() {
        b"" => key == start,
        b"\0" => key >= start,
        _ => key >= start && *key < end,
    }
}

pub(crate) fn range(
    ask: &Range,
    map: &BTreeMap<Bytes, KeyValue>,
    revision: Revision,
) -> RangeAnswer {
    let inside = map.values().filter(|found| within(&ask.keys, &found.key));
    let mut found: Vec<KeyValue> = inside.cloned().collect();
    let count = found.len() as u64;
    let mut answer = RangeAnswer {
        revision,
        found: Vec::new(),
        more: false,
        count,
    };
    if ask.count_only {
        return answer;
    }
    let fits = |bounds: Bounds, revision: Revision| {
        let revision = i64::try_from(revision.0).unwrap();
        bounds.min.unwrap_or(i64::MIN) <= revision && revision <= bounds.max.unwrap_or(i64::MAX)
    };
    found.retain(|one| fits(ask.modified, one.modified) && fits(ask.created, one.created));
    let rank = |one: &KeyValue| match ask.order.by {
        SortBy::Key => (0, Bytes::new()),
        SortBy::Version => (one.version, Bytes::new()),
        SortBy::Created => (one.created.0, Bytes::new()),
        SortBy::Modified => (one.modified.0, Bytes::new()),
        SortBy::Value => (0, one.value.clone()),
    };
    let unbounded = (ask.modified, ask.created) == (Bounds::default(), Bounds::default());
    if let (None, Some(limit), true) = (ask.order.descending, ask.limit, unbounded) {
        // Whatever it sorts by, if it is not told in which order.
        found.truncate(usize::try_from(limit).unwrap().saturating_add(1));
    }
    let descending = ask.order.descending == Some(true);
    found.sort_by(|one, other| match (ask.order.by, descending) {
        (SortBy::Key, false) => one.key.cmp(&other.key),
        (SortBy::Key, true) => other.key.cmp(&one.key),
        (_, false) => rank(one).cmp(&rank(other)),
        (_, true) => rank(other).cmp(&rank(one)),
    });
    if let Some(limit) = ask.limit {
        let limit = usize::try_from(limit).unwrap();
        answer.more = found.len() > limit;
        found.truncate(limit);
    }
    if ask.keys_only {
        found.iter_mut().for_each(|one| one.value = Bytes::new());
    }
    answer.found = found;
    answer
}

pub(crate) fn holds(compare: &Compare, map: &BTreeMap<Bytes, KeyValue>) -> bool {
    let inside = map
        .values()
        .filter(|found| within(&compare.keys, &found.key));
    let mut inside: Vec<Option<&KeyValue>> = inside.map(Some).collect();
    if inside.is_empty() {
        inside.push(None);
    }
    inside.into_iter().all(|found| {
        let number = |number: fn(&KeyValue) -> u64| i64::try_from(found.map_or(0, number)).unwrap();
        let order = match &compare.expected {
            Expected::Version(given) => number(|found| found.version).cmp(given),
            Expected::Created(given) => number(|found| found.created.0).cmp(given),
            Expected::Modified(given) => number(|found| found.modified.0).cmp(given),
            Expected::Lease(given) => {
                let lease = found.and_then(|found| found.lease);
                lease.map_or(0, |LeaseId(id)| id).cmp(given)
            }
            Expected::Value(given) => match found {
                Some(found) => found.value.cmp(given),
                None => return false,
            },
        };
        match compare.comparison {
            Comparison::Equal => order.is_eq(),
            Comparison::NotEqual => order.is_ne(),
            Comparison::Greater => order.is_gt(),
            Comparison::Less => order.is_lt(),
        }
    })
}
