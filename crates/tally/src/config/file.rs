//! The configuration file: TOML, the keys of the flags at its top level. Every key and the type of its
//! value are checked, also where a flag wins over them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::key::{KEYS, Key, Kind, find};
use super::layers::{Given, Place, invalid};
use crate::exit::Failure;

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<BTreeMap<&'static str, Given>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let found = format!("cannot read {}: {error}", path.display());
        invalid(found, "a TOML file that this user may read")
    })?;
    parse(path, &text)
}

/// Checks a file's text.
pub(super) fn parse(path: &Path, text: &str) -> Result<BTreeMap<&'static str, Given>, Failure> {
    let at = |span: Range<usize>| Place::File {
        path: path.to_owned(),
        line: line(text, span.start),
    };
    let table = DeTable::parse(text).map_err(|error| {
        let offset = error.span().unwrap_or_default().start;
        let place = at(offset..offset);
        let said = Vec::from_iter(error.message().lines()).join("; ");
        let line = text.lines().nth(line(text, offset) - 1).unwrap_or_default();
        invalid(format!("{place}: {said}"), &expected_at(line))
    })?;
    let mut given = BTreeMap::new();
    let mut entries = Vec::from_iter(table.get_ref().iter());
    entries.sort_by_key(|(key, _)| key.span().start);
    for (name, value) in entries {
        let Some(key) = find(name.get_ref()) else {
            let found = format!("{}: unknown key `{}`", at(name.span()), name.get_ref());
            return Err(invalid(found, &all_keys()));
        };
        let place = at(value.span());
        let text = value_text(key, value.get_ref(), &place)?;
        given.insert(key.name, Given { text, place });
    }
    Ok(given)
}

/// What a line that is no TOML should hold: most often a value lacks its quotes.
fn expected_at(line: &str) -> String {
    let given = line.split_once('=');
    let known = given.and_then(|(name, value)| Some((find(name.trim())?, value.trim())));
    match known {
        Some((key, value)) if key.kind == Kind::Text => {
            let value = value.trim_matches(['"', '\'']);
            format!("{}: {} = {value:?}", key.kind.expected(), key.name)
        }
        Some((key, _)) => format!("`{}` is {}", key.name, key.kind.expected()),
        None => "a TOML file, for example: name = \"n1\"".to_owned(),
    }
}

/// The value as a flag would give it.
fn value_text(key: &Key, value: &DeValue<'_>, place: &Place) -> Result<String, Failure> {
    let text = match (key.kind, value) {
        (Kind::Text, DeValue::String(text)) => Some(text.to_string()),
        (Kind::Switch, DeValue::Boolean(switch)) => Some(switch.to_string()),
        (Kind::Number, DeValue::Integer(number)) => {
            let number = i128::from_str_radix(number.as_str(), number.radix());
            Some(number.map_or_else(|error| error.to_string(), |number| number.to_string()))
        }
        _ => None,
    };
    text.ok_or_else(|| {
        let found = format!(
            "{place}: `{}` is of the type {}",
            key.name,
            value.type_str()
        );
        invalid(found, key.kind.expected())
    })
}

fn all_keys() -> String {
    let names = KEYS.iter().map(|key| key.name);
    format!("one of {}", Vec::from_iter(names).join(", "))
}

/// The line, from 1, that holds the byte at `offset`.
fn line(text: &str, offset: usize) -> usize {
    let before = text.get(..offset).unwrap_or(text);
    before.bytes().filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        match parse(Path::new("t.toml"), text) {
            Ok(given) => format!("{given:?}"),
            Err(failure) => failure.to_string(),
        }
    }

    #[test]
    fn an_unknown_key_names_its_line_and_every_key() {
        let said = said("# a comment\nname = \"n1\"\n\nlisten_client = \"a:1\"\n");
        assert!(
            said.starts_with("T-015: t.toml, line 4: unknown key `listen_client`"),
            "{said}"
        );
        for key in KEYS {
            assert!(said.contains(key.name), "{} is missing in {said}", key.name);
        }
    }

    #[test]
    fn a_wrong_type_names_its_line_and_what_is_allowed() {
        let told = said("name = \"n1\"\nheartbeat-ms = \"fast\"\n");
        assert!(
            told.contains("t.toml, line 2: `heartbeat-ms` is of the type string"),
            "{told}"
        );
        assert!(told.contains("a whole number"), "{told}");
        let told = said("[name]\nfirst = 1\n");
        assert!(told.contains("line 1") && told.contains("table"), "{told}");
    }

    #[test]
    fn what_is_no_toml_names_its_line() {
        let told = said("name = \"n1\"\ndata-dir = /var/lib/tally\n");
        assert!(told.starts_with("T-015: t.toml, line 2: "), "{told}");
        assert!(
            told.contains("in quotes: data-dir = \"/var/lib/tally\""),
            "{told}"
        );
        let told = said("name = n1\n");
        assert!(told.contains("in quotes: name = \"n1\""), "{told}");
        let told = said("heartbeat-ms = 1s\n");
        assert!(told.contains("a whole number, without quotes"), "{told}");
    }

    #[test]
    fn numbers_may_be_written_in_the_ways_of_toml() {
        for number in ["1000", "1_000", "0x3e8"] {
            let told = said(&format!("snapshot-entries = {number}"));
            assert!(told.contains("\"1000\""), "{number}: {told}");
        }
    }
}
