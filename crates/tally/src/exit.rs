//! How a command ends: its exit code, and what it says when it did not do what was asked.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use tally_model::explanation::codes;

/// What the process's exit code means. The numbers are promised in the README.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// A member, a file or a name is not as it should be.
    Broken = 1,
    /// The command line, the environment or the configuration is wrong.
    Usage = 2,
    /// The cluster decided against it.
    Refused = 3,
    /// The node belongs to another marker.
    MarkerConflict = 4,
    /// Nobody leads or can be reached; nothing was done.
    NoLeader = 5,
    /// It may have been done; only the same tag may be sent again.
    OutcomeUnknown = 6,
}

impl Exit {
    /// The exit of a failure with this code that is not a refusal by the state machine.
    pub(crate) fn of_fault(code: &str) -> Self {
        match code {
            codes::INVALID_ARGUMENT | codes::INVALID_CONFIG | codes::UNSAFE_NOT_ACKNOWLEDGED => {
                Self::Usage
            }
            codes::NO_LEADER | codes::NOT_READY | codes::READ_TIMED_OUT => Self::NoLeader,
            codes::OUTCOME_UNKNOWN => Self::OutcomeUnknown,
            _ => Self::Broken,
        }
    }

    /// The exit of a refusal with this code.
    pub(crate) fn of_refusal(code: &str) -> Self {
        match code {
            MARKER_MISMATCH | MARKER_MISSING => Self::MarkerConflict,
            _ => Self::Refused,
        }
    }

    pub(crate) const fn code(self) -> u8 {
        self as u8
    }
}

/// The refusals that say "this node belongs to another marker".
const MARKER_MISMATCH: &str = "T-310";
const MARKER_MISSING: &str = "T-311";

/// Why a command did not do what was asked. Shown on standard error as a line with the code and what
/// was found, then one line each for what was asked, what was expected and what to run next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) code: String,
    pub(crate) found: String,
    /// By label; their order is the one in which they are shown: asked, expected, next.
    details: BTreeMap<&'static str, String>,
    /// Names a request whose outcome `tally resume` still settles.
    resume: Option<String>,
    /// A document on standard output tells of it already.
    documented: bool,
}

/// A failure for programs: `{"error": {…}}`. Programs rely on these names.
#[derive(Debug, Serialize)]
pub(crate) struct FailureDocument<'a> {
    error: ErrorDocument<'a>,
}

#[derive(Debug, Serialize)]
struct ErrorDocument<'a> {
    code: &'a str,
    found: &'a str,
    expected: Option<&'a str>,
    next: Option<&'a str>,
    exit: u8,
    /// The token for `tally resume`; null when there is nothing to settle.
    resume: Option<&'a str>,
}

const ASKED: &str = "asked";
const EXPECTED: &str = "expected";
const NEXT: &str = "next";

impl Failure {
    /// A failure that is not a refusal; its exit follows from the code.
    pub(crate) fn fault(code: &str, found: impl Into<String>) -> Self {
        Self::with_exit(Exit::of_fault(code), code, found)
    }

    /// A refusal by the state machine; its exit follows from the code.
    pub(crate) fn refusal(code: &str, found: impl Into<String>) -> Self {
        Self::with_exit(Exit::of_refusal(code), code, found)
    }

    fn with_exit(exit: Exit, code: &str, found: impl Into<String>) -> Self {
        Self {
            exit,
            code: code.to_owned(),
            found: found.into(),
            details: BTreeMap::new(),
            resume: None,
            documented: false,
        }
    }

    /// The same failure with another exit than its code has.
    #[must_use]
    pub(crate) fn ends_with(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The token under which `tally resume` settles it.
    #[must_use]
    pub(crate) fn resumed_by(mut self, token: Option<String>) -> Self {
        self.resume = token;
        self
    }

    /// The result that was printed tells of the failure, so that no other document is printed.
    #[must_use]
    pub(crate) fn documented(mut self, printed: bool) -> Self {
        self.documented = printed;
        self
    }

    /// What is printed for programs; `None` when a document was.
    pub(crate) fn document(&self) -> Option<FailureDocument<'_>> {
        let error = ErrorDocument {
            code: &self.code,
            found: &self.found,
            expected: self.expectation(),
            next: self.next_command(),
            exit: self.exit.code(),
            resume: self.resume.as_deref(),
        };
        (!self.documented).then_some(FailureDocument { error })
    }

    #[must_use]
    pub(crate) fn asked(self, asked: impl Into<String>) -> Self {
        self.detailed(ASKED, asked.into())
    }

    #[must_use]
    pub(crate) fn expected(self, expected: impl Into<String>) -> Self {
        self.detailed(EXPECTED, expected.into())
    }

    /// The command that would help; an empty one is left out.
    #[must_use]
    pub(crate) fn next(self, next: impl Into<String>) -> Self {
        self.detailed(NEXT, next.into())
    }

    fn detailed(mut self, label: &'static str, text: String) -> Self {
        if !text.is_empty() {
            self.details.insert(label, text);
        }
        self
    }

    /// What was expected, if that was told.
    pub(crate) fn expectation(&self) -> Option<&str> {
        self.details.get(EXPECTED).map(String::as_str)
    }

    /// The command that would help, if there is one.
    pub(crate) fn next_command(&self) -> Option<&str> {
        self.details.get(NEXT).map(String::as_str)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if matches!(self.exit, Exit::Refused | Exit::MarkerConflict) {
            f.write_str("refused ")?;
        }
        write!(f, "{}: {}", self.code, self.found)?;
        for (label, text) in &self.details {
            write!(f, "\n  {label:<9} {text}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_end_with_3_and_marker_conflicts_with_4() {
        assert_eq!(Exit::of_refusal("T-410").code(), 3);
        assert_eq!(Exit::of_refusal("T-206").code(), 3);
        assert_eq!(Exit::of_refusal("T-310").code(), 4);
        assert_eq!(Exit::of_refusal("T-311").code(), 4);
        assert_eq!(Exit::of_refusal("T-312").code(), 3);
    }

    #[test]
    fn faults_end_with_the_code_that_the_readme_promises() {
        let expected = [
            (codes::INVALID_CONFIG, 2),
            (codes::INVALID_ARGUMENT, 2),
            (codes::UNSAFE_NOT_ACKNOWLEDGED, 2),
            (codes::NO_LEADER, 5),
            (codes::NOT_READY, 5),
            (codes::OUTCOME_UNKNOWN, 6),
            (codes::NOT_FOUND, 1),
            (codes::HALTED, 1),
            (codes::ADDRESS_IN_USE, 1),
        ];
        for (code, exit) in expected {
            assert_eq!(Exit::of_fault(code).code(), exit, "{code}");
        }
    }

    #[test]
    fn a_failure_is_one_document_unless_the_result_tells_of_it() {
        let failure = Failure::fault(codes::OUTCOME_UNKNOWN, "the outcome is unknown")
            .next("tally resume 1/2:3@4")
            .resumed_by(Some("1/2:3@4".to_owned()));
        let expected = serde_json::json!({ "error": {
            "code": "T-002",
            "found": "the outcome is unknown",
            "expected": null,
            "next": "tally resume 1/2:3@4",
            "exit": 6,
            "resume": "1/2:3@4",
        } });
        assert_eq!(serde_json::json!(failure.document()), expected);
        assert!(failure.documented(true).document().is_none());
    }

    #[test]
    fn a_failure_says_what_was_found_and_what_to_run() {
        let failure = Failure::refusal("T-410", "no transition from gone to read-write")
            .asked("ls1 gone -> read-write")
            .next("tally explain T-410");
        let said = "refused T-410: no transition from gone to read-write\n  \
                    asked     ls1 gone -> read-write\n  \
                    next      tally explain T-410";
        assert_eq!(failure.to_string(), said);
        let plain = Failure::fault("T-019", "no node is called x").next("");
        assert_eq!(plain.to_string(), "T-019: no node is called x");
    }
}
