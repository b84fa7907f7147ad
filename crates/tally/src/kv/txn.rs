//! `tally kv txn`.

use std::str::FromStr;

use clap::Args;
use tally_client::Client;
use tally_client::keys::{self, Comparison, Expected, KeyAnswer, KeyOp, Txn};

use super::document::{TxnDocument, WrittenDocument};
use super::found_text;
use super::key::Key;
use crate::exit::Failure;
use crate::output::Output;

/// Compares keys, and does one thing when all comparisons hold and another when not, in one step.
#[derive(Debug, Args)]
pub(crate) struct TxnArguments {
    /// What must hold: version, create, mod or value of a key, then =, !=, < or >. For example
    /// 'version(KEY)=0' (there is no such key) or 'value(KEY)=TEXT'.
    #[arg(long = "if", value_name = "COMPARISON")]
    compare: Vec<Condition>,
    /// Done when all hold: 'put KEY VALUE', 'get KEY' or 'del KEY'.
    #[arg(long, value_name = "OPERATION")]
    then: Vec<Operation>,
    /// Done when one does not.
    #[arg(long = "else", value_name = "OPERATION")]
    otherwise: Vec<Operation>,
}

/// `version(KEY)=N` and the like.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    key: Key,
    comparison: Comparison,
    expected: Expected,
}

/// `put KEY VALUE`, `get KEY` or `del KEY`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Operation(KeyOp);

/// As they are written; where one begins another, the longer one is first.
const COMPARISONS: [(&str, Comparison); 4] = [
    ("!=", Comparison::NotEqual),
    ("=", Comparison::Equal),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "found {text:?}, expected version(KEY)=N; also create, mod, value, and !=, <, >"
            )
        };
        let (what, rest) = text.trim().split_once('(').ok_or_else(wrong)?;
        // The key ends at the first parenthesis that a comparison follows.
        let closed = rest.match_indices(')').find_map(|(end, _)| {
            let after = rest[end + 1..].trim_start();
            let found = COMPARISONS.iter().find_map(|(sign, comparison)| {
                Some((*comparison, after.strip_prefix(sign)?.trim_start()))
            });
            found.map(|(comparison, given)| (&rest[..end], comparison, given))
        });
        let (key, comparison, given) = closed.ok_or_else(wrong)?;
        let number = || given.parse().map_err(|_| wrong());
        let expected = match what {
            "version" => Expected::Version(number()?),
            "create" => Expected::Created(number()?),
            "mod" => Expected::Modified(number()?),
            "value" => Expected::Value(given.to_owned().into()),
            _ => return Err(wrong()),
        };
        let key = typed(key);
        Ok(Self {
            key,
            comparison,
            expected,
        })
    }
}

fn typed(key: &str) -> Key {
    let Ok(key) = key.parse();
    key
}

impl FromStr for Operation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("found {text:?}, expected put KEY VALUE, get KEY or del KEY");
        let (what, rest) = text.trim_start().split_once(' ').ok_or_else(wrong)?;
        let only_key = || match rest.trim() {
            "" => Err(wrong()),
            key if key.contains(' ') => Err(wrong()),
            key => Ok(keys::one(typed(key))),
        };
        Ok(Self(match what {
            "get" => keys::get(only_key()?),
            "del" => keys::delete(only_key()?),
            "put" => {
                let (key, value) = rest.trim_start().split_once(' ').ok_or_else(wrong)?;
                keys::put(typed(key), value, None)
            }
            _ => return Err(wrong()),
        }))
    }
}

pub(super) async fn run(
    client: &Client,
    arguments: &TxnArguments,
    output: Output,
) -> Result<(), Failure> {
    let mut txn = Txn::new();
    for condition in &arguments.compare {
        let expected = condition.expected.clone();
        txn = txn.when(&condition.key, condition.comparison, expected);
    }
    for Operation(op) in &arguments.then {
        txn = txn.then(op.clone());
    }
    for Operation(op) in &arguments.otherwise {
        txn = txn.otherwise(op.clone());
    }
    let done = client.keys().txn(&txn).await;
    let done = done.map_err(|error| Failure::from(error).asked("a transaction"))?;
    output.print(&TxnDocument::from(&done), || {
        let branch = match done.answer.succeeded {
            true => "the comparisons held, --then was done",
            false => "a comparison did not hold, --else was done",
        };
        let mut lines = vec![WrittenDocument::from(&done).text(branch)];
        lines.extend(done.answer.answers.iter().map(told));
        lines.join("\n")
    })
}

/// What one operation was answered.
fn told(answer: &KeyAnswer) -> String {
    match answer {
        KeyAnswer::Range(found) => found_text(found, false),
        KeyAnswer::Put { .. } => "  put".to_owned(),
        KeyAnswer::Deleted { count, .. } => format!("  del, keys deleted: {count}"),
        // None can be asked for on a command line.
        KeyAnswer::Txn { succeeded, .. } => format!("  txn, succeeded: {succeeded}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_is_read_as_it_is_written() {
        let read = |text: &str| {
            text.parse::<Condition>()
                .map(|read| (read.key, read.comparison, read.expected))
        };
        let key = typed;
        assert_eq!(
            read("version(a)=3"),
            Ok((key("a"), Comparison::Equal, Expected::Version(3)))
        );
        assert_eq!(
            read("mod(a(1)) > 7"),
            Ok((key("a(1)"), Comparison::Greater, Expected::Modified(7)))
        );
        assert_eq!(
            read("create(a)<9"),
            Ok((key("a"), Comparison::Less, Expected::Created(9)))
        );
        assert_eq!(
            read("value(a)!=x = y"),
            Ok((
                key("a"),
                Comparison::NotEqual,
                Expected::Value("x = y".into())
            ))
        );
        for wrong in [
            "",
            "a=1",
            "version(a)",
            "version(a)=x",
            "age(a)=1",
            "version(a)~1",
        ] {
            assert!(wrong.parse::<Condition>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_operation_is_read_as_it_is_written() {
        assert_eq!(
            "put a some text".parse(),
            Ok(Operation(keys::put("a", "some text", None)))
        );
        assert_eq!("get a".parse(), Ok(Operation(keys::get(keys::one("a")))));
        assert_eq!("del a".parse(), Ok(Operation(keys::delete(keys::one("a")))));
        for wrong in ["", "put a", "get", "get a b", "move a b"] {
            assert!(wrong.parse::<Operation>().is_err(), "{wrong}");
        }
    }
}
