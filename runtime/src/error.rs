//! What can go wrong, told so that the reader knows what, where and what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ring_core::config::ConfigError;
use ring_core::directory::ChangeRefused;
use ring_core::io::{Failure, Halt, Refused};
use ring_core::node::StartError;
use ring_core::request;
use ring_core::ring::TrackError;
use ring_core::storage::RecoveryError;

/// A call did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// It was not accepted; nothing happened.
    Refused(Refused),
    /// It was accepted and did not succeed.
    Failed(Failure),
    /// A request was accepted and not answered with a response.
    Request(request::Failure),
    /// The directory does not let the member go.
    Leave(ChangeRefused),
    /// The key cannot be tracked.
    Track(TrackError),
}

impl Error {
    /// True when the call may have happened, or may still happen. Repeating it may do it twice.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Leave(_) | Self::Track(_) => false,
            Self::Request(failure) => failure.is_outcome_unknown(),
            Self::Failed(failure) => match failure {
                Failure::OutcomeUnknown | Failure::Closed { maybe: true } => true,
                Failure::Deadline
                | Failure::Interrupted
                | Failure::Malformed
                | Failure::Closed { maybe: false } => false,
            },
        }
    }

    /// True when the call certainly did not happen and never will.
    #[must_use]
    pub fn certainly_not(&self) -> bool {
        !self.is_outcome_unknown()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refused) => refused.fmt(f),
            Self::Failed(failure) => failure.fmt(f),
            Self::Request(failure) => failure.fmt(f),
            Self::Leave(reason) => write!(f, "the member cannot leave: {reason}"),
            Self::Track(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<request::Failure> for Error {
    fn from(failure: request::Failure) -> Self {
        Self::Request(failure)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// A scan cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScanError {
    /// The replica that held the scan's snapshot is gone, or the scan idled too long. A new scan
    /// sees a newer state; to go on where this one stopped, begin it (or end it, if it runs in
    /// reverse) at `resume`.
    Interrupted {
        /// Forwards: the first key (inclusive) that was not seen. In reverse: the end (exclusive)
        /// of what was not seen.
        resume: Bytes,
    },
    /// A page could not be had for another reason.
    Call(Error),
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted { resume } => write!(
                f,
                "the scan's snapshot is gone: scan again from \"{}\"",
                resume.escape_ascii()
            ),
            Self::Call(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ScanError {}

/// A node could not be started. Its data directory is as it was, unless the variant says otherwise.
#[derive(Debug)]
pub enum OpenError {
    /// The options cannot be used; names the field.
    Config(ConfigError),
    /// The address cannot be listened on.
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The address can be reached from other machines, where nothing is encrypted and nobody proves
    /// who they are.
    NotLoopback {
        /// The address.
        address: String,
    },
    /// Another node, in this process or another, works in the directory.
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory holds something that is not a member's data.
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// A file that does not belong there.
        found: String,
    },
    /// The directory was written by a version of libring that this one does not understand.
    Format {
        /// The file that says so.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// A file or directory cannot be read or written.
    Directory {
        /// Which.
        path: PathBuf,
        /// What was tried.
        attempt: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The log is damaged, or cannot be read; says file, offset and the way out.
    Log {
        /// The directory of the log.
        dir: PathBuf,
        /// What recovery found.
        source: RecoveryError,
    },
    /// The store and the log of a directory do not belong together.
    Torn {
        /// The directory.
        dir: PathBuf,
        /// What is missing.
        problem: String,
    },
    /// The store cannot be opened.
    Store {
        /// Its directory.
        path: PathBuf,
        /// What happened.
        problem: String,
    },
    /// The system has no thread, no random number or no event queue for us.
    System(io::Error),
    /// A client could not connect to any member within its deadline.
    Unreachable {
        /// The addresses that it tried first.
        join: Vec<String>,
        /// What a member that refused it said last, if one did.
        refused: Option<String>,
    },
    /// The node stopped for good before it was up.
    Halted(Halt),
    /// The node was closed before it was up.
    Closed,
}

impl OpenError {
    /// For `map_err` on something done to a path.
    pub(crate) fn directory(
        path: &Path,
        attempt: &'static str,
    ) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Directory { path, attempt, source }
    }
}

impl From<StartError> for OpenError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Config(error) => Self::Config(error),
            StartError::Halt(halt) => Self::Halted(halt),
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Listen { address, source } => write!(
                f,
                "cannot listen on {address}: {source}; stop what listens there or choose another \
                 address"
            ),
            Self::NotLoopback { address } => write!(
                f,
                "will not listen on {address}: it can be reached from other machines, and without \
                 keys nothing is encrypted and nobody proves who they are; give it keys (`ring keys \
                 new`), listen on 127.0.0.1, or set `insecure` if you trust the network"
            ),
            Self::InUse { dir } => write!(
                f,
                "the data directory {} is in use by another member; give each member its own",
                dir.display()
            ),
            Self::Foreign { dir, found } => write!(
                f,
                "{} is not empty and not a data directory of libring (it holds \"{found}\"): \
                 choose an empty or a new directory",
                dir.display()
            ),
            Self::Format { path, found } => write!(
                f,
                "{} says \"{found}\", which this version of libring does not know: use the version \
                 that wrote it",
                path.display()
            ),
            Self::Directory { path, attempt, source } => write!(
                f,
                "cannot {attempt} {}: {source}; check its permissions and its disk",
                path.display()
            ),
            Self::Log { dir, source } => write!(f, "the log in {}: {source}", dir.display()),
            Self::Torn { dir, problem } => write!(
                f,
                "the data directory {} is incomplete: {problem}; bring the missing part back, or \
                 replace this member by a new one on an empty directory",
                dir.display()
            ),
            Self::Store { path, problem } => write!(
                f,
                "cannot open the store in {}: {problem}; check its permissions and its disk, or \
                 replace this member by a new one on an empty directory",
                path.display()
            ),
            Self::System(source) => write!(f, "the system refused what a node needs: {source}"),
            Self::Unreachable { join, refused } => {
                write!(f, "no member answers at {}", join.join(", "))?;
                match refused {
                    Some(why) => write!(f, "; one refused: {why}"),
                    None => {
                        write!(f, "; check that the cluster runs and that the addresses are right")
                    }
                }
            }
            Self::Halted(halt) => write!(f, "halted: {halt}"),
            Self::Closed => write!(f, "closed before it was up"),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            Self::Listen { source, .. } | Self::Directory { source, .. } => Some(source),
            Self::System(source) => Some(source),
            Self::Log { source, .. } => Some(source),
            Self::Halted(halt) => Some(halt),
            Self::NotLoopback { .. }
            | Self::InUse { .. }
            | Self::Foreign { .. }
            | Self::Format { .. }
            | Self::Torn { .. }
            | Self::Store { .. }
            | Self::Unreachable { .. }
            | Self::Closed => None,
        }
    }
}
