//! A command line that is no command, for programs. What people read of it is clap's.

use std::ffi::OsString;

use clap::error::ErrorKind;
use tally_model::explanation::codes;

use crate::exit::Failure;
use crate::output::Output;

/// How results were to be printed, as far as a command line that could not be read tells.
pub(crate) fn output_asked(arguments: impl Iterator<Item = OsString>) -> Output {
    let mut before = OsString::new();
    for argument in arguments {
        let given = (before == "-o" || before == "--output") && argument == "json";
        if given
            || ["-ojson", "-o=json", "--output=json"]
                .iter()
                .any(|one| argument == *one)
        {
            return Output::Json;
        }
        before = argument;
    }
    Output::Table
}

/// What clap found, without its usage lines.
pub(crate) fn failure(error: &clap::Error) -> Failure {
    let said = error.to_string();
    let first = said.split("\n\n").next().unwrap_or_default();
    let lines = first.lines().map(str::trim);
    let (allowed, found): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.starts_with('['));
    let found = found.join(" ");
    let found = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "no command is given",
        _ => found.strip_prefix("error: ").unwrap_or(&found),
    };
    let expected = allowed.join(" ");
    Failure::fault(codes::INVALID_CONFIG, found)
        .expected(expected.trim_matches(['[', ']']))
        .next("tally --help")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn the_output_is_known_although_the_line_is_wrong() {
        let asked = |line: &[&str]| output_asked(line.iter().map(OsString::from));
        for line in [
            &["node", "-o", "json", "frobnicate"][..],
            &["--output", "json"],
            &["--output=json"],
            &["-ojson"],
        ] {
            assert_eq!(asked(line), Output::Json, "{line:?}");
        }
        for line in [&["json"][..], &["-o", "yaml"], &["--output"], &[]] {
            assert_eq!(asked(line), Output::Table, "{line:?}");
        }
    }

    #[test]
    fn a_wrong_line_says_what_was_found_and_what_is_allowed() {
        let said = |line: &[&str]| {
            let error = crate::Cli::try_parse_from(line).expect_err("no command");
            let failure = failure(&error);
            assert_eq!(failure.exit.code(), 2);
            serde_json::json!(failure.document())
        };
        let wrong = said(&["tally", "-o", "yaml", "version"]);
        assert_eq!(
            wrong["error"]["found"],
            "invalid value 'yaml' for '--output <OUTPUT>'"
        );
        assert_eq!(wrong["error"]["expected"], "possible values: table, json");
        let missing = said(&["tally", "log-server"]);
        let found = missing["error"]["found"].as_str().unwrap_or_default();
        assert!(found.contains("--name <NAME>"), "{missing}");
        assert_eq!(
            said(&["tally", "node"])["error"]["found"],
            "no command is given"
        );
    }
}
