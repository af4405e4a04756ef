//! How a command ends without success.

use std::io::{self, Write};
use std::process::ExitCode;

use libring::{Error, Failure, OpenError, RequestFailure};

/// Why a command ends early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Whoever read our stdout has gone: there is nothing left to do, and nothing wrong.
    Unread,
    /// Nothing more to say than what stands on stdout or stderr already.
    Silent(Code),
    /// An error for people.
    Error {
        /// The exit code.
        code: Code,
        /// One line: what, where, what to do.
        line: String,
    },
}

/// Exit codes; the table stands in the crate's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// The answer is no.
    No,
    /// Wrong usage or a bad configuration.
    Usage,
    /// No cluster, or no answer in time; nothing happened.
    Unreachable,
    /// A write may or may not have happened.
    Unknown,
    /// The cluster refused the call.
    Refused,
    /// A member cannot start or has halted.
    Member,
    /// A file or stream of the command itself failed.
    Io,
}

impl Stop {
    /// An error. Several lines become one.
    pub(crate) fn new(code: Code, text: impl AsRef<str>) -> Self {
        let lines: Vec<&str> =
            text.as_ref().lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        Self::Error { code, line: lines.join("; ") }
    }

    fn code_of_request(failure: &RequestFailure) -> Code {
        match failure {
            _ if failure.is_outcome_unknown() => Code::Unknown,
            RequestFailure::Deadline { .. }
            | RequestFailure::Closed { .. }
            | RequestFailure::Cancelled { .. } => Code::Unreachable,
            RequestFailure::Handler { .. }
            | RequestFailure::NoRoute
            | RequestFailure::TooLarge { .. }
            | RequestFailure::OutcomeUnknown => Code::Refused,
        }
    }

    /// A call that was refused or failed. `what` says which call.
    pub(crate) fn call(what: &str, error: &Error) -> Self {
        let code = match error {
            Error::Request(failure) => Self::code_of_request(failure),
            Error::Refused(_)
            | Error::Leave(_)
            | Error::Track(_)
            | Error::Failed(Failure::Malformed) => Code::Refused,
            Error::Failed(Failure::OutcomeUnknown | Failure::Closed { maybe: true }) => {
                Code::Unknown
            }
            Error::Failed(
                Failure::Deadline | Failure::Interrupted | Failure::Closed { maybe: false },
            ) => Code::Unreachable,
        };
        Self::new(code, format!("{what}: {error}"))
    }

    /// A node that could not be opened. `what` says which node.
    pub(crate) fn open(what: &str, error: &OpenError) -> Self {
        let code = if matches!(error, OpenError::Config(_) | OpenError::NotLoopback { .. }) {
            Code::Usage
        } else if matches!(error, OpenError::Unreachable { .. }) {
            Code::Unreachable
        } else {
            Code::Member
        };
        Self::new(code, format!("{what}: {error}"))
    }

    /// A file of the command itself that failed.
    pub(crate) fn io(what: impl AsRef<str>, error: &io::Error) -> Self {
        Self::new(Code::Io, format!("{}: {error}", what.as_ref()))
    }

    /// Says it on stderr and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::Unread => ExitCode::SUCCESS,
            Self::Silent(code) => code.into(),
            Self::Error { code, line } => {
                say(&line);
                code.into()
            }
        }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(match code {
            Code::No => 1,
            Code::Usage => 2,
            Code::Unreachable => 3,
            Code::Unknown => 4,
            Code::Refused => 5,
            Code::Member => 6,
            Code::Io => 7,
        })
    }
}

/// One line on stderr. A closed stderr is not worth a panic.
pub(crate) fn say(line: &str) {
    drop(writeln!(io::stderr(), "ring: {line}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line() {
        let stop = Stop::new(Code::No, "first\n\n   second  \n");
        assert!(matches!(&stop, Stop::Error { line, .. } if line == "first; second"), "{stop:?}");
    }

    #[test]
    fn an_unknown_outcome_is_told_apart_from_a_call_that_did_not_happen() {
        let code = |failure| match Stop::call("put", &Error::Failed(failure)) {
            Stop::Error { code, .. } => code,
            other @ (Stop::Unread | Stop::Silent(_)) => panic!("{other:?}"),
        };
        assert_eq!(code(Failure::OutcomeUnknown), Code::Unknown);
        assert_eq!(code(Failure::Closed { maybe: true }), Code::Unknown);
        assert_eq!(code(Failure::Closed { maybe: false }), Code::Unreachable);
        assert_eq!(code(Failure::Deadline), Code::Unreachable);
    }
}
