//! What members say to each other in datagrams, and over streams to compare their views.
//!
//! ```text
//! cluster (8) | sender (8) | seq (8) | incarnation (8) | version (1) | body | updates...
//! ```
//!
//! The four numbers are little-endian. Body and updates are postcard. What protects a datagram on its way names
//! cluster, sender and seq itself, so it need not carry them twice ([`Stamp`]). Everything is decoded before anything
//! is believed.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::config::ACCUSERS_MAX;
use super::member::{Incarnation, Profile, ProfileRef};
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

/// The numbers that a datagram begins with and that its protection repeats: from whom it is, and which of the sender's
/// it is. A sender's `seq` rises with each datagram that it makes in one run, and is below 2⁴⁰ for longer than a run
/// lasts: it can be the nonce of an authenticated encryption whose key is of this run only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The cluster.
    pub cluster: ClusterId,
    /// The sender.
    pub sender: MemberId,
    /// Which datagram of the sender.
    pub seq: u64,
}

impl Stamp {
    /// Bytes of a stamp.
    pub const BYTES: usize = 24;

    /// The stamp of a datagram, and what follows it. None: it is too short.
    #[must_use]
    pub fn split(datagram: &[u8]) -> Option<(Self, &[u8])> {
        let (stamp, rest) = datagram.split_first_chunk::<{ Self::BYTES }>()?;
        let [cluster, sender, seq] = words(stamp);
        let stamp = Self { cluster: ClusterId(cluster), sender: MemberId(sender), seq };
        Some((stamp, rest))
    }

    /// The datagram that [`split`](Self::split) took apart.
    #[must_use]
    pub fn join(&self, rest: &[u8]) -> Vec<u8> {
        let mut datagram = Vec::with_capacity(Self::BYTES + rest.len());
        for word in [self.cluster.0, self.sender.0, self.seq] {
            datagram.extend_from_slice(&word.to_le_bytes());
        }
        datagram.extend_from_slice(rest);
        datagram
    }
}

/// Little-endian numbers.
fn words<const N: usize>(bytes: &[u8]) -> [u64; N] {
    core::array::from_fn(|place| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[place * 8..place * 8 + 8]);
        u64::from_le_bytes(word)
    })
}

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
    Ping { to: Whom },
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

/// The last 32 bits of a member's id, little-endian. It is only to tell those apart who have one address one after the
/// other; an answer names its sender in full, so one of the wrong member counts for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Whom([u8; 4]);

impl From<MemberId> for Whom {
    fn from(member: MemberId) -> Self {
        let [a, b, c, d, ..] = member.0.to_le_bytes();
        Self([a, b, c, d])
    }
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

    /// Hands it over as it would lie in a datagram. Not if a suspicion names too many accusers, or nobody.
    pub(crate) fn with_claim(&self, take: impl FnOnce(Claim<'_>)) {
        let (member, incarnation) = (self.member(), self.incarnation());
        match self {
            Self::Alive { profile, .. } => {
                let profile = postcard::to_allocvec(profile).expect("a profile always encodes");
                take(Claim::Alive { member, incarnation, profile: &profile });
            }
            Self::Suspect { accusers, .. } => {
                if let Some(accusers) = Accusers::new(accusers) {
                    take(Claim::Suspect { member, incarnation, accusers });
                }
            }
            Self::Dead { .. } => take(Claim::Dead { member, incarnation }),
            Self::Left { .. } => take(Claim::Left { member, incarnation }),
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

/// Reads a datagram. Its updates are known to be readable then; nothing of them was copied.
pub(crate) fn decode(
    cluster: ClusterId,
    bytes: &[u8],
) -> Result<(Header, Body, Claims<'_>), Unreadable> {
    let (numbers, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(Unreadable::Malformed)?;
    let header = Header::read(numbers);
    let (version, rest) = rest.split_first().ok_or(Unreadable::Malformed)?;
    let joins = rest.first() == Some(&JOIN_TAG);
    if header.cluster != cluster {
        return Err(Unreadable::Cluster { theirs: header.cluster, joins });
    }
    if *version != VERSION {
        return Err(Unreadable::Version { joins });
    }
    let (body, rest) = postcard::take_from_bytes(rest).map_err(|_| Unreadable::Malformed)?;
    let claims = Claims { rest };
    let mut unread = rest;
    while !unread.is_empty() {
        (_, unread) = Claim::take(unread).ok_or(Unreadable::Malformed)?;
    }
    Ok((header, body, claims))
}

/// The updates of a datagram that was found readable.
#[derive(Clone, Debug)]
pub(crate) struct Claims<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Claims<'a> {
    type Item = Claim<'a>;

    fn next(&mut self) -> Option<Claim<'a>> {
        let claim;
        (claim, self.rest) = Claim::take(self.rest)?;
        Some(claim)
    }
}

/// An [`Update`] where it lies: in a datagram, or in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim<'a> {
    Alive { member: MemberId, incarnation: Incarnation, profile: &'a [u8] },
    Suspect { member: MemberId, incarnation: Incarnation, accusers: Accusers },
    Dead { member: MemberId, incarnation: Incarnation },
    Left { member: MemberId, incarnation: Incarnation },
}

/// What an [`Update`] begins with: its variant, the member, the incarnation.
type Opening = (u32, MemberId, Incarnation);
const ALIVE: u32 = 0;
const SUSPECT: u32 = 1;
const DEAD: u32 = 2;
const LEFT: u32 = 3;

impl<'a> Claim<'a> {
    pub(crate) fn member(&self) -> MemberId {
        match self {
            Self::Alive { member, .. }
            | Self::Suspect { member, .. }
            | Self::Dead { member, .. }
            | Self::Left { member, .. } => *member,
        }
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        match self {
            Self::Alive { incarnation, .. }
            | Self::Suspect { incarnation, .. }
            | Self::Dead { incarnation, .. }
            | Self::Left { incarnation, .. } => *incarnation,
        }
    }

    /// Reads the first of these bytes' updates. None: it is malformed, or a profile is out of bounds.
    fn take(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (opening, rest) = postcard::take_from_bytes::<Opening>(bytes).ok()?;
        let (variant, member, incarnation) = opening;
        match variant {
            ALIVE => {
                let len = ProfileRef::check(rest)?;
                let (profile, rest) = rest.split_at_checked(len)?;
                Some((Self::Alive { member, incarnation, profile }, rest))
            }
            SUSPECT => {
                let (accusers, rest) = Accusers::take(rest)?;
                Some((Self::Suspect { member, incarnation, accusers }, rest))
            }
            DEAD => Some((Self::Dead { member, incarnation }, rest)),
            LEFT => Some((Self::Left { member, incarnation }, rest)),
            _ => None,
        }
    }

    fn write(&self, bytes: Vec<u8>) -> Vec<u8> {
        let variant = match self {
            Self::Alive { .. } => ALIVE,
            Self::Suspect { .. } => SUSPECT,
            Self::Dead { .. } => DEAD,
            Self::Left { .. } => LEFT,
        };
        let opening: Opening = (variant, self.member(), self.incarnation());
        let mut bytes = postcard::to_extend(&opening, bytes).expect("numbers always encode");
        match self {
            Self::Alive { profile, .. } => {
                bytes.extend_from_slice(profile);
                bytes
            }
            Self::Suspect { accusers, .. } => {
                postcard::to_extend(accusers.as_slice(), bytes).expect("numbers always encode")
            }
            Self::Dead { .. } | Self::Left { .. } => bytes,
        }
    }

    /// The same as a value of its own.
    pub(crate) fn to_update(self) -> Update {
        match self {
            Self::Alive { member, incarnation, profile } => {
                let profile = Profile::decoded(profile);
                Update::Alive { member, incarnation, profile }
            }
            Self::Suspect { member, incarnation, accusers } => {
                Update::Suspect { member, incarnation, accusers: accusers.as_slice().to_vec() }
            }
            Self::Dead { member, incarnation } => Update::Dead { member, incarnation },
            Self::Left { member, incarnation } => Update::Left { member, incarnation },
        }
    }
}

/// Who suspects a member: 1 to [`ACCUSERS_MAX`] members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accusers {
    count: usize,
    ids: [MemberId; ACCUSERS_MAX],
}

impl Accusers {
    /// None if there are none, or too many.
    pub(crate) fn new(accusers: &[MemberId]) -> Option<Self> {
        let mut ids = [MemberId(0); ACCUSERS_MAX];
        ids.get_mut(..accusers.len())?.copy_from_slice(accusers);
        (!accusers.is_empty()).then_some(Self { count: accusers.len(), ids })
    }

    pub(crate) fn as_slice(&self) -> &[MemberId] {
        &self.ids[..self.count]
    }

    fn take(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (&count, mut rest) = bytes.split_first()?;
        let count = usize::from(count);
        if count == 0 || count > ACCUSERS_MAX {
            return None;
        }
        let mut ids = [MemberId(0); ACCUSERS_MAX];
        for id in &mut ids[..count] {
            (*id, rest) = postcard::take_from_bytes(rest).ok()?;
        }
        Some((Self { count, ids }, rest))
    }
}

impl Header {
    fn read(bytes: &[u8; HEADER_BYTES]) -> Self {
        let [cluster, sender, seq, incarnation] = words(bytes);
        Self {
            cluster: ClusterId(cluster),
            sender: MemberId(sender),
            incarnation: Incarnation(incarnation),
            seq,
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
        for word in [header.cluster.0, header.sender.0, header.seq, header.incarnation.0] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.push(VERSION);
        let bytes = postcard::to_extend(&body, bytes).expect("a body always encodes");
        Self { bytes, limit }
    }

    /// Adds an update if there is room.
    pub(crate) fn add(&mut self, claim: &Claim<'_>) -> bool {
        let before = self.bytes.len();
        self.bytes = claim.write(core::mem::take(&mut self.bytes));
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
