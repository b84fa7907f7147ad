//! `tally explain`: the handbook of codes.

use clap::Args;
use serde::Serialize;
use tally_model::explanation::{EXPLANATIONS, Explanation, codes, explain};

use crate::exit::Failure;
use crate::output::{Output, say, table, wrapped};

/// Characters in a line of an explanation.
const WIDTH: usize = 90;

/// What a code means and what to do about it.
#[derive(Debug, Args)]
pub(crate) struct ExplainArguments {
    /// A code, for example T-310; all of them are listed without one.
    code: Option<String>,
}

#[derive(Serialize)]
struct Entry {
    code: &'static str,
    title: &'static str,
    text: &'static str,
}

impl From<&Explanation> for Entry {
    fn from(entry: &Explanation) -> Self {
        Self {
            code: entry.code,
            title: entry.title,
            text: entry.text,
        }
    }
}

pub(crate) fn run(arguments: &ExplainArguments, output: Output) -> Result<(), Failure> {
    let Some(code) = &arguments.code else {
        let all = Vec::from_iter(EXPLANATIONS.iter().map(Entry::from));
        return output.print(&all, || {
            let rows = all
                .iter()
                .map(|entry| [entry.code, entry.title].map(str::to_owned));
            table(["CODE", "MEANING"], rows)
        });
    };
    let Some(entry) = explain(code) else {
        let failure = Failure::fault(codes::NOT_FOUND, format!("there is no code {code}"));
        return Err(failure
            .expected("T- and three digits, for example T-310")
            .next("tally explain"));
    };
    output.print(&Entry::from(entry), || {
        format!(
            "{}  {}\n\n{}",
            entry.code,
            entry.title,
            wrapped(entry.text, WIDTH)
        )
    })
}

/// `tally version`.
pub(crate) fn version(output: Output) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Version {
        name: &'static str,
        version: &'static str,
    }
    let version = Version {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
    };
    output.print(&version, || format!("{} {}", version.name, version.version))
}

/// `tally completion`.
pub(crate) fn completion(
    shell: clap_complete::Shell,
    command: &mut clap::Command,
) -> Result<(), Failure> {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, command, name, &mut script);
    say(String::from_utf8_lossy(&script).trim_end())
}
