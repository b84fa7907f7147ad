//! What commands print: JSON documents for programs, tables and lines for people.

use std::io::{ErrorKind, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;
use tally_model::explanation::codes;
use tally_proto::v1;

use crate::exit::{Exit, Failure};

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs: one JSON document on standard output.
    Json,
}

impl Output {
    /// Prints the document, or the text that `text` makes for people. Fails as [`say`] does.
    pub(crate) fn print(
        self,
        document: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        match self {
            // Our documents have string keys and no fallible serializers.
            Self::Json => say(&serde_json::to_string_pretty(document).unwrap_or_default()),
            Self::Table => say(&text()),
        }
    }

    /// As [`Output::print`], of one document among many: each on a line of its own.
    pub(crate) fn print_line(
        self,
        document: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        match self {
            Self::Json => say(&serde_json::to_string(document).unwrap_or_default()),
            Self::Table => say(&text()),
        }
    }
}

/// Prints a line. A reader that went away, as in `tally … | head`, is no failure; a result that could
/// not be written is one.
pub(crate) fn say(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    written(writeln!(out, "{text}").and_then(|()| out.flush()))
}

/// What became of writing to standard output.
pub(crate) fn written(result: std::io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            let found = format!("cannot write the result to standard output: {error}");
            Err(Failure::fault(codes::HALTED, found)
                .expected("a standard output that takes it; what was asked may be done")
                .ends_with(Exit::Broken))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A table without borders and without trailing blanks.
pub(crate) fn table<const COLUMNS: usize>(
    header: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Labels and values below one another; empty values are left out.
pub(crate) fn fields(fields: &[(&str, String)]) -> String {
    let shown = fields.iter().filter(|(_, value)| !value.is_empty());
    let width = shown
        .clone()
        .map(|(label, _)| label.len())
        .max()
        .unwrap_or(0);
    let lines = shown.map(|(label, value)| format!("{label:<width$}  {value}"));
    Vec::from_iter(lines).join("\n")
}

/// A text broken into lines of at most `width` characters, each indented by two.
pub(crate) fn wrapped(text: &str, width: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        let line = &mut lines[last];
        let length = line.chars().count();
        if length == 0 {
            line.push_str(word);
        } else if length + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    let lines = lines.iter().map(|line| format!("  {line}"));
    Vec::from_iter(lines).join("\n")
}

/// A storage state's name; `None` when there is none, or one that this version does not know.
pub(crate) fn state_name(number: i32) -> Option<&'static str> {
    let state = v1::StorageState::decode_optional(number).ok().flatten();
    state.map(tally_model::StorageState::as_str)
}

/// Who acted.
pub(crate) fn actor_name(actor: v1::Actor) -> Option<&'static str> {
    match actor {
        v1::Actor::Unspecified => None,
        v1::Actor::Node => Some("node"),
        v1::Actor::Operator => Some("operator"),
    }
}

/// A member's role.
pub(crate) fn role_name(role: v1::Role) -> &'static str {
    match role {
        v1::Role::Unspecified => "unknown",
        v1::Role::Follower => "follower",
        v1::Role::Candidate => "candidate",
        v1::Role::Leader => "leader",
        v1::Role::Learner => "learner",
        v1::Role::Stopped => "stopped",
    }
}

/// A marker in full: 32 hexadecimal digits, `@`, milliseconds.
pub(crate) fn marker_text(marker: &v1::Marker) -> String {
    format!("{}@{}", hex(&marker.bits), marker.created_unix_ms)
}

/// A marker as people tell it apart: `7f3a…c2`.
pub(crate) fn marker_short(marker: Option<&v1::Marker>) -> String {
    let Some(marker) = marker else {
        return "-".to_owned();
    };
    match (marker.bits.as_slice(), marker.bits.last()) {
        ([first, second, ..], Some(last)) => format!("{first:02x}{second:02x}…{last:02x}"),
        _ => hex(&marker.bits),
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A member id as it is written everywhere: 16 hexadecimal digits.
pub(crate) fn member_id(id: u64) -> String {
    format!("{id:016x}")
}

/// The largest unit of the time since a moment: `2h ago`.
pub(crate) fn ago(unix_ms: u64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let then = Duration::from_millis(unix_ms);
    format!("{} ago", coarse(now.saturating_sub(then)))
}

fn coarse(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A moment for people and programs: RFC 3339, UTC, milliseconds.
pub(crate) fn moment(unix_ms: u64) -> String {
    match UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms)) {
        Some(time) if unix_ms < YEAR_9999_MS => humantime::format_rfc3339_millis(time).to_string(),
        _ => format!("{unix_ms} ms"),
    }
}

/// Later moments have no RFC 3339 text.
const YEAR_9999_MS: u64 = 253_370_764_800_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_no_colours_borders_or_trailing_blanks() {
        let rows = [
            ["1".to_owned(), "ls1".to_owned()],
            ["12".to_owned(), String::new()],
        ];
        assert_eq!(table(["ID", "NAME"], rows), "ID  NAME\n1   ls1\n12");
    }

    #[test]
    fn a_span_is_told_by_its_largest_unit() {
        let told = [0, 59, 60, 7_300, 200_000].map(|s| coarse(Duration::from_secs(s)));
        assert_eq!(told, ["0s", "59s", "1m", "2h", "2d"]);
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure_and_a_full_disk_is_one() {
        assert_eq!(written(Err(ErrorKind::BrokenPipe.into())), Ok(()));
        let failure = written(Err(ErrorKind::StorageFull.into())).expect_err("not written");
        assert_eq!(failure.exit.code(), 1);
    }

    #[test]
    fn words_are_never_cut() {
        assert_eq!(wrapped("one two three", 7), "  one two\n  three");
        assert_eq!(
            wrapped("incomprehensibilities", 3),
            "  incomprehensibilities"
        );
    }

    #[test]
    fn a_marker_is_told_by_its_ends() {
        let marker = v1::Marker {
            bits: vec![0x7f, 0x3a, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0xc2],
            created_unix_ms: 5,
        };
        assert_eq!(marker_short(Some(&marker)), "7f3a…c2");
        assert_eq!(marker_text(&marker), "7f3a0102030405060708090a0b0c0dc2@5");
        assert_eq!(marker_short(None), "-");
    }

    #[test]
    fn moments_are_told_in_utc() {
        assert_eq!(moment(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(moment(u64::MAX), format!("{} ms", u64::MAX));
    }
}
