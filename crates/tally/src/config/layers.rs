//! What was given where: flags over variables over the file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use tally_model::explanation::codes;

use super::file;
use super::key::{Flags, KEYS, Key};
use super::variables::{PREFIX, known, nearest};
use crate::exit::Failure;

/// Where a value stands, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Flag { name: &'static str },
    Variable { name: String },
    File { path: PathBuf, line: usize },
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag { name } => write!(f, "flag --{name}"),
            Self::Variable { name } => write!(f, "variable {name}"),
            Self::File { path, line } => write!(f, "{}, line {line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) text: String,
    pub(super) place: Place,
}

/// For each key the value that wins.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    given: BTreeMap<&'static str, Given>,
}

impl Layers {
    /// What this process was given. A path that is empty names no file.
    pub(crate) fn of_process(flags: Flags, path: Option<&Path>) -> Result<Self, Failure> {
        let readable = std::env::vars_os()
            .filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)));
        let path = path.filter(|path| !path.as_os_str().is_empty());
        Self::gather(flags, &readable.collect(), path)
    }

    /// Reads the file, if there is one, and lays variables and flags over it.
    pub(crate) fn gather(
        flags: Flags,
        variables: &BTreeMap<String, String>,
        path: Option<&Path>,
    ) -> Result<Self, Failure> {
        // An empty variable is how a service manager says "not set".
        let set = |(name, text): &(&String, &String)| name.starts_with(PREFIX) && !text.is_empty();
        if let Some((name, _)) = variables.iter().filter(set).find(|(name, _)| !known(name)) {
            let found = format!("variable {name}: there is no such setting");
            return Err(invalid(found, &nearest(name)));
        }
        let mut given = match path {
            Some(path) => file::read(path)?,
            None => BTreeMap::new(),
        };
        for key in KEYS {
            let name = key.variable();
            if let Some(text) = variables.get(&name).filter(|text| !text.is_empty()) {
                let text = text.clone();
                let place = Place::Variable { name };
                given.insert(key.name, Given { text, place });
            }
        }
        for (name, text) in flags.given() {
            let place = Place::Flag { name };
            given.insert(name, Given { text, place });
        }
        Ok(Self { given })
    }

    /// What a file gives, when nothing else is given.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn of_file(given: BTreeMap<&'static str, Given>) -> Self {
        Self { given }
    }

    /// Where the value of a key stands.
    pub(super) fn place(&self, key: &str) -> Place {
        let given = self.given.get(key);
        given.map_or(Place::Default, |given| given.place.clone())
    }

    /// The value of a key, if it was given; `expected` says what is allowed.
    pub(super) fn optional<T, E: fmt::Display>(
        &self,
        key: &str,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Failure> {
        let Some(Given { text, place }) = self.given.get(key) else {
            return Ok(None);
        };
        match parse(text) {
            Ok(value) => Ok(Some(value)),
            Err(why) => {
                let found = format!("{place}: `{key}` is {text:?}: {why}");
                Err(invalid(found, expected))
            }
        }
    }

    /// The value of a key that must be given.
    pub(super) fn required<T, E: fmt::Display>(
        &self,
        key: &str,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<T, Failure> {
        let value = self.optional(key, expected, parse)?;
        value.ok_or_else(|| {
            let variable = super::key::find(key).map_or_else(String::new, Key::variable);
            let found = format!("`{key}` is not given");
            let places = format!("--{key}, {variable} or the key {key} in the file of --config");
            invalid(found, &format!("{places}: {expected}"))
        })
    }
}

/// A wrong configuration.
pub(super) fn invalid(found: impl Into<String>, expected: &str) -> Failure {
    Failure::fault(codes::INVALID_CONFIG, found)
        .expected(expected)
        .next("tally serve --help")
}
