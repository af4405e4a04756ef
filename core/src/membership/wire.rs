//! What members say to each other in datagrams, and over streams to compare their views.
//!
//! ```text
//! cluster (8) | sender (8) | incarnation (8) | seq (8) | version (1) | body | updates...
//! ```
//!
//! The four numbers are little-endian. Body and updates are postcard. Sender, incarnation and seq together are never
//! used twice, so that they can be the nonce of an authenticated encryption, and the cluster its associated data: a
//! sealed datagram then needs 40 bytes more than body and updates. Everything is decoded before anything is
//! believed.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::config::ACCUSERS_MAX;
use super::member::{Incarnation, Profile};
use crate::ids::{ClusterId, MemberId};
use crate::wire::bounded;

/// The version of the protocol that this code speaks.
pub(crate) const VERSION: u8 = 1;
/// Bytes before the version.
pub(crate) const HEADER_BYTES: usize = 32;
/// Bytes before the body.
pub(crate) const PREFIX_BYTES: usize = HEADER_BYTES + 1;
/// Longest body.
pub(crate) const BODY_BYTES_MAX: usize = 1 + 10 + 10;
/// Longest update, but for the profile in it.
pub(crate) const UPDATE_BYTES_MAX: usize = 1 + 10 + 8 + 1 + ACCUSERS_MAX * 10;
/// Buckets by which two views are compared.
pub(crate) const BUCKETS: usize = 64;
/// Most updates in one message of a comparison: far more than fit in its bytes.
const RECORDS_MAX: usize = 1 << 15;

/// What each datagram begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) cluster: ClusterId,
    pub(crate) sender: MemberId,
    /// The sender's incarnation.
    pub(crate) incarnation: Incarnation,
    /// Rises with each datagram of the sender, to whomever it goes; drawn at its start.
    pub(crate) seq: u64,
}

/// What a datagram is for. Variants are only added, at the end. `echo` is the seq of the datagram that is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Body {
    /// Are you there, `to`? Whoever else has its address now does not answer.
    Ping { to: MemberId },
    /// I am.
    Ack { echo: u64 },
    /// I am, and are you? I have no proof that you sent this now: answer with an `Ack`.
    AckProve { echo: u64 },
    /// Ping `target` for me.
    PingFor { target: MemberId },
    /// It answered.
    Relayed { echo: u64 },
    /// It has not answered so far, but I am there (Lifeguard's nack).
    Nack { echo: u64 },
    /// Let me in. From a member that knows nobody's id.
    Join,
    /// I belong to another cluster or speak another version; answer to `Join`.
    Foreign,
    /// Updates only.
    Gossip,
    /// What do you know of this member?
    Pull { member: MemberId },
}

/// The place of `Join` among the bodies: read from datagrams that cannot be decoded any further.
const JOIN_TAG: u8 = 6;

/// One thing known of one member (SWIM section 4.2; `Left` as a state of its own).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Update {
    /// What the member says of itself.
    Alive {
        /// The member.
        member: MemberId,
        /// Its incarnation when it said so.
        incarnation: Incarnation,
        /// What it said.
        profile: Profile,
    },
    /// It did not answer.
    Suspect {
        /// The member.
        member: MemberId,
        /// The incarnation that is accused.
        incarnation: Incarnation,
        /// Who got no answer.
        #[serde(deserialize_with = "bounded::list::<ACCUSERS_MAX, _, _>")]
        accusers: Vec<MemberId>,
    },
    /// It did not refute.
    Dead {
        /// The member.
        member: MemberId,
        /// The incarnation that is dead.
        incarnation: Incarnation,
    },
    /// It said that it leaves.
    Left {
        /// The member.
        member: MemberId,
        /// The incarnation that left.
        incarnation: Incarnation,
    },
}

impl Update {
    /// Of whom.
    #[must_use]
    pub fn member(&self) -> MemberId {
        match self {
            Self::Alive { member, .. }
            | Self::Suspect { member, .. }
            | Self::Dead { member, .. }
            | Self::Left { member, .. } => *member,
        }
    }

    /// Of which incarnation.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        match self {
            Self::Alive { incarnation, .. }
            | Self::Suspect { incarnation, .. }
            | Self::Dead { incarnation, .. }
            | Self::Left { incarnation, .. } => *incarnation,
        }
    }

    pub(crate) fn check(&self) -> bool {
        match self {
            Self::Alive { profile, .. } => profile.check().is_ok(),
            Self::Suspect { accusers, .. } => !accusers.is_empty(),
            Self::Dead { .. } | Self::Left { .. } => true,
        }
    }
}

/// A comparison of two views, over a stream between two members that have shaken hands. Each message stands alone:
/// a lost one is made good by the next comparison.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SyncMessage {
    /// The hash of the sender's view. Answered with `Buckets` if the receiver's differs, else not at all.
    Digest {
        /// Over all members present.
        hash: u64,
    },
    /// The hashes of the parts of the sender's view. Answered with `Records` of the parts that differ.
    Buckets {
        /// Over the members present of each part.
        #[serde(deserialize_with = "bounded::list::<BUCKETS, _, _>")]
        hashes: Vec<u64>,
    },
    /// What the sender knows of the members of some parts.
    Records {
        /// One or two for each member.
        #[serde(deserialize_with = "bounded::list::<RECORDS_MAX, _, _>")]
        updates: Vec<Update>,
        /// The parts that the sender asks for in return.
        #[serde(deserialize_with = "bounded::list::<BUCKETS, _, _>")]
        wanted: Vec<u8>,
    },
}

/// Why a datagram was dropped. Nothing was changed by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Unreadable {
    Malformed,
    Cluster { theirs: ClusterId, joins: bool },
    Version { joins: bool },
}

/// Reads a datagram.
pub(crate) fn decode(
    cluster: ClusterId,
    bytes: &[u8],
) -> Result<(Header, Body, Vec<Update>), Unreadable> {
    let (numbers, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(Unreadable::Malformed)?;
    let header = Header::read(numbers);
    let (version, mut rest) = rest.split_first().ok_or(Unreadable::Malformed)?;
    let joins = rest.first() == Some(&JOIN_TAG);
    if header.cluster != cluster {
        return Err(Unreadable::Cluster { theirs: header.cluster, joins });
    }
    if *version != VERSION {
        return Err(Unreadable::Version { joins });
    }
    let body;
    (body, rest) = postcard::take_from_bytes(rest).map_err(|_| Unreadable::Malformed)?;
    let mut updates = Vec::new();
    while !rest.is_empty() {
        let update: Update;
        (update, rest) = postcard::take_from_bytes(rest).map_err(|_| Unreadable::Malformed)?;
        if !update.check() {
            return Err(Unreadable::Malformed);
        }
        updates.push(update);
    }
    Ok((header, body, updates))
}

impl Header {
    fn read(bytes: &[u8; HEADER_BYTES]) -> Self {
        let word = |place: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[place * 8..place * 8 + 8]);
            u64::from_le_bytes(word)
        };
        Self {
            cluster: ClusterId(word(0)),
            sender: MemberId(word(1)),
            incarnation: Incarnation(word(2)),
            seq: word(3),
        }
    }
}

/// A datagram that is being written.
#[derive(Debug)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    limit: usize,
}

impl Writer {
    pub(crate) fn new(header: &Header, body: Body, limit: usize) -> Self {
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + BODY_BYTES_MAX);
        for word in [header.cluster.0, header.sender.0, header.incarnation.0, header.seq] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.push(VERSION);
        let bytes = postcard::to_extend(&body, bytes).expect("a body always encodes");
        Self { bytes, limit }
    }

    /// Adds an update if there is room.
    pub(crate) fn add(&mut self, update: &Update) -> bool {
        let before = self.bytes.len();
        let bytes = core::mem::take(&mut self.bytes);
        self.bytes = postcard::to_extend(update, bytes).expect("an update always encodes");
        let fits = self.bytes.len() <= self.limit;
        if !fits {
            self.bytes.truncate(before);
        }
        fits
    }

    /// True if not even the shortest update finds room.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() + SHORTEST_UPDATE > self.limit
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// `Dead` of a member with a short id.
const SHORTEST_UPDATE: usize = 1 + 1 + 8;
