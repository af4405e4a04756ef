//! What two nodes say to each other about requests. Every count and length is bounded when it is decoded, or by the length
//! of its message; what a member allows beyond that is its own limit, checked when a request comes.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{MemberId, len_u64};
use crate::wire::bounded;

/// Most headers of a request or a response.
pub const HEADERS_MAX: usize = 64;
/// Most streams that a request opens, and most that its response adds.
pub const STREAMS_MAX: usize = 64;
/// Most members that a request says it has passed over.
pub const SKIPPED_MAX: usize = 16;

/// One part of the talk about requests on one connection. Variants are only added, at the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Part {
    /// Handle this.
    Ask(Box<Ask>),
    /// How a request ended, from whom was asked.
    Answer {
        /// The caller's number of the request.
        number: u64,
        /// The response, or why there is none.
        result: Result<Box<Response>, Fault>,
    },
    /// The caller wants no answer any more.
    Cancel {
        /// The caller's number of the request.
        number: u64,
    },
    /// The next bytes of a stream.
    Data {
        /// Which stream.
        of: StreamOf,
        /// Bytes that went before on this stream.
        offset: u64,
        /// The bytes.
        data: Bytes,
        /// None follow.
        last: bool,
    },
    /// The sender of this writes no more on a stream, and has not come to its end.
    Abort {
        /// Which stream.
        of: StreamOf,
    },
    /// The sender of this reads no more of a stream.
    Stop {
        /// Which stream.
        of: StreamOf,
    },
}

/// A stream, as both ends of a connection call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StreamOf {
    /// True when who says this is the caller of the request.
    pub by_caller: bool,
    /// The caller's number of the request.
    pub number: u64,
    /// The stream: the request's own from 0, then those of its response.
    pub index: u16,
}

/// A request on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ask {
    /// The caller's number of it, the same in every attempt, used for no other request of this run of the caller.
    pub number: u64,
    /// How often it was sent before, plus one.
    pub attempt: u32,
    /// What the caller expects.
    pub kind: Kind,
    /// Who is to handle it.
    pub target: Target,
    /// Members before the one asked that the caller could not reach.
    #[serde(deserialize_with = "bounded::list::<SKIPPED_MAX, _, _>")]
    pub skipped: Vec<MemberId>,
    /// Nanoseconds until the caller gives up.
    pub left: u64,
    /// What is asked for.
    pub route: String,
    /// Names and values.
    #[serde(deserialize_with = "bounded::list::<HEADERS_MAX, _, _>")]
    pub headers: Vec<(String, Bytes)>,
    /// The body.
    pub body: Bytes,
    /// The streams that it opens.
    #[serde(deserialize_with = "bounded::list::<STREAMS_MAX, _, _>")]
    pub streams: Vec<(String, Way)>,
}

/// What a caller expects of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// One response. Sent again, to the next in line, when it is not known whether it was handled.
    Retried,
    /// One response. Handled once at most.
    Once,
    /// No response, and no word of what became of it. Handled once at most.
    OneWay,
}

/// Who is to handle a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Target {
    /// The owner of a key, by the ring.
    Key(Bytes),
    /// A member, or a client that is connected to the caller.
    Member(MemberId),
    /// The leader of the shard that holds a partition.
    Partition(Bytes),
}

/// Which way a stream goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Way {
    /// From the caller to the handler.
    Up,
    /// From the handler to the caller.
    Down,
    /// Both.
    Both,
}

/// What a handler answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Response {
    /// Names and values.
    #[serde(deserialize_with = "bounded::list::<HEADERS_MAX, _, _>")]
    pub headers: Vec<(String, Bytes)>,
    /// The body.
    pub body: Bytes,
    /// Streams that it adds to those of the request.
    #[serde(deserialize_with = "bounded::list::<STREAMS_MAX, _, _>")]
    pub streams: Vec<(String, Way)>,
}

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Fault {
    /// The handler says so.
    Handler {
        /// Its code.
        code: u32,
        /// Its text.
        text: String,
    },
    /// Nobody handles this route there. It was not handled.
    NoRoute,
    /// Who was asked is not the one. It was not handled.
    NotOwner {
        /// Who is, as far as known there.
        hint: Option<MemberId>,
    },
    /// Too many requests are being handled there. It was not handled.
    Busy,
    /// It is larger than allowed there. It was not handled.
    TooLarge {
        /// What.
        what: Large,
        /// The limit.
        limit: u64,
    },
}

/// What of a request or a response is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Large {
    /// The key, or the name of the partition.
    Key,
    /// The route, or the name of a header or a stream.
    Name,
    /// All headers together, or their number.
    Headers,
    /// The body.
    Body,
    /// The number of streams.
    Streams,
    /// The text of an error.
    Text,
}

impl Large {
    /// As a user knows it.
    #[must_use]
    pub fn what(self) -> &'static str {
        match self {
            Self::Key => "key of a request",
            Self::Name => "route, header name or stream name",
            Self::Headers => "headers",
            Self::Body => "body",
            Self::Streams => "number of streams",
            Self::Text => "text of an error",
        }
    }
}

/// Nothing counts less.
pub(super) const WEIGHT_MIN: u64 = 64;

impl Part {
    /// What it counts in the window of its connection. The same on both sides.
    #[must_use]
    pub fn weight(&self) -> u64 {
        let held = match self {
            Self::Ask(ask) => {
                let target = match &ask.target {
                    Target::Key(name) | Target::Partition(name) => name.len(),
                    Target::Member(_) => 0,
                };
                target
                    + ask.route.len()
                    + headers_bytes(&ask.headers)
                    + ask.body.len()
                    + streams_bytes(&ask.streams)
            }
            Self::Answer { result: Ok(response), .. } => response.bytes(),
            Self::Answer { result: Err(Fault::Handler { text, .. }), .. } => text.len(),
            Self::Data { data, .. } => data.len(),
            Self::Answer {
                result:
                    Err(
                        Fault::NoRoute
                        | Fault::NotOwner { .. }
                        | Fault::Busy
                        | Fault::TooLarge { .. },
                    ),
                ..
            }
            | Self::Cancel { .. }
            | Self::Abort { .. }
            | Self::Stop { .. } => 0,
        };
        WEIGHT_MIN + len_u64(held)
    }
}

impl Response {
    pub(super) fn bytes(&self) -> usize {
        headers_bytes(&self.headers) + self.body.len() + streams_bytes(&self.streams)
    }
}

/// Bytes of names and values, with something for each.
pub(super) fn headers_bytes(headers: &[(String, Bytes)]) -> usize {
    headers.iter().map(|(name, value)| name.len() + value.len() + 32).sum()
}

pub(super) fn streams_bytes(streams: &[(String, Way)]) -> usize {
    streams.iter().map(|(name, _)| name.len() + 32).sum()
}
