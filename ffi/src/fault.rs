//! Why a call failed.

use std::borrow::Cow;

use libring::{
    ConfigError, Error, Failure, HandleError, OpenError, Refused, RequestFailure, TrackError,
};

use crate::status::{self, ring_status_t};

/// A call's failure, on its way to a `ring_error_t` or an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: ring_status_t,
    pub(crate) text: Cow<'static, str>,
}

impl Fault {
    pub(crate) fn new(code: ring_status_t, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, text: text.into() }
    }

    pub(crate) fn invalid(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(status::RING_INVALID, text)
    }

    pub(crate) fn forked() -> Self {
        Self::new(status::RING_FORKED, "made before fork(): open another one in this process")
    }

    /// Of a defect of the library, by what it said.
    pub(crate) fn panicked(what: &str) -> Self {
        Self::new(status::RING_PANICKED, format!("a defect of libring: {what}"))
    }

    pub(crate) fn closed() -> Self {
        Self::new(status::RING_CLOSED, "it is closed; nothing happened")
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Refused(refused) => code_of_refused(refused),
            Error::Failed(failure) => code_of_failure(failure),
            Error::Request(failure) => code_of_request(failure),
            Error::Leave(_) => status::RING_INVALID,
            Error::Track(TrackError::NotMine(_) | TrackError::Mine) => status::RING_CONFLICT,
            Error::Track(TrackError::Full) => status::RING_AGAIN,
        };
        Self::new(code, error.to_string())
    }
}

pub(crate) fn code_of_refused(refused: &Refused) -> ring_status_t {
    match refused {
        Refused::Full { .. } => status::RING_AGAIN,
        Refused::TooLarge { .. } | Refused::Invalid { .. } => status::RING_INVALID,
        Refused::Halted => status::RING_HALTED,
    }
}

pub(crate) fn code_of_request(failure: &RequestFailure) -> ring_status_t {
    if failure.is_outcome_unknown() {
        return status::RING_OUTCOME_UNKNOWN;
    }
    match failure {
        RequestFailure::Deadline { .. } => status::RING_TIMEOUT,
        RequestFailure::Closed { .. } => status::RING_CLOSED,
        RequestFailure::Handler { .. } => status::RING_HANDLER_ERROR,
        RequestFailure::NoRoute => status::RING_NO_HANDLER,
        RequestFailure::Cancelled { .. } => status::RING_CANCELLED,
        RequestFailure::TooLarge { .. } | RequestFailure::OutcomeUnknown => status::RING_INVALID,
    }
}

pub(crate) fn code_of_failure(failure: &Failure) -> ring_status_t {
    match failure {
        Failure::Deadline => status::RING_TIMEOUT,
        Failure::OutcomeUnknown | Failure::Closed { maybe: true } => status::RING_OUTCOME_UNKNOWN,
        Failure::Interrupted => status::RING_INTERRUPTED,
        Failure::Malformed => status::RING_INVALID,
        Failure::Closed { maybe: false } => status::RING_CLOSED,
    }
}

impl From<HandleError> for Fault {
    fn from(error: HandleError) -> Self {
        let code = match error {
            HandleError::Length(_) => status::RING_INVALID,
            HandleError::Taken => status::RING_CONFLICT,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ConfigError> for Fault {
    fn from(error: ConfigError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<OpenError> for Fault {
    fn from(error: OpenError) -> Self {
        let code = match &error {
            OpenError::Config(_) | OpenError::NotLoopback { .. } => status::RING_INVALID,
            OpenError::Listen { .. }
            | OpenError::InUse { .. }
            | OpenError::Foreign { .. }
            | OpenError::Format { .. }
            | OpenError::Directory { .. }
            | OpenError::Log { .. }
            | OpenError::Torn { .. }
            | OpenError::Store { .. }
            | OpenError::System(_) => status::RING_IO,
            OpenError::Unreachable { .. } => status::RING_TIMEOUT,
            OpenError::Halted(_) => status::RING_HALTED,
            OpenError::Closed => status::RING_CLOSED,
        };
        Self::new(code, error.to_string())
    }
}
