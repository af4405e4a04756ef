//! Sealing of datagrams: nobody without the cluster's key reads one, makes one, or plays one again.
//!
//! Bytes in, bytes out: sockets, and who is asked what, are elsewhere.
//!
//! # A datagram
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version of this format, 1 |
//! | 1 | id of the key: its last 8 bits |
//! | 8 | id of the sender |
//! | 5 | counter: each datagram of a start has a greater one than those before |
//! | n | what was sealed |
//! | 16 | tag |
//!
//! Numbers are little-endian. AES-256-GCM (NIST SP 800-38D) under a key of the start's own: HKDF
//! with SHA-256 (RFC 5869) over the cluster's key, with cluster, sender and the sender's start (its
//! start counter, and a number drawn at it) as `info`. The nonce is the counter, which comes with what
//! is sealed and is refused unless it is greater than all before. So a nonce is never used twice under
//! one key, whatever all members of a cluster and all their starts do, and none of them needs to know
//! of another: the one thing that AES-GCM asks for (SP 800-38D, 8.2.1, deterministic construction).
//! The header and the cluster's id are associated data. The start is not sent: who opens knows it from
//! the introduction, and a datagram of another start is sealed with a key that it does not have.
//!
//! # Replay
//!
//! A window over the counters of one start finds what came before (as RFC 4303, 3.4.3). What it has
//! forgotten would be new again: after a restart of the receiver, or from an earlier start of the
//! sender. So nobody is heard before being introduced ([`Opener::introduce`]): which start is the
//! present one, and from which counter on. An introduction must come from the sender itself over a
//! connection that is secured (or be passed on by one who has it from there), not in a datagram of
//! this sender. Then:
//!
//! 1. A datagram is opened at most once by an [`Opener`].
//! 2. One that was sealed before the introduction is never opened, whoever has kept it for however
//!    long, and neither needs clocks.
//! 3. One that was sealed in an earlier start is never opened after a later start was introduced; an
//!    introduction cannot go back to a lower start counter.
//!
//! # Rotation
//!
//! A file of keys names one that seals and others that only open. A new key first opens everywhere,
//! then seals everywhere, and then the old one goes: [`rotate`], three times, each brought to all
//! members before the next. No datagram is lost in between.
//!
//! # Limits
//!
//! All members share a key: it proves that a datagram comes from *a* member of the cluster, and its
//! sender is believed. A process that is copied while it runs, as a snapshot of a virtual machine that is
//! resumed twice, seals with the same counters twice.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use ring_core::ids::{ClusterId, MemberId};
use ring_core::time::Instant;

pub use self::file::{DatagramKeys, KEYS_MAX, KeyFileError, Step, new_file, rotate};
use self::window::Window;

mod file;
mod window;

/// Bytes that a sealed datagram is longer than what is in it.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;
/// The longest datagram: what fits UDP over IPv4.
pub const DATAGRAM_BYTES_MAX: usize = 65_507;
/// The most senders that an [`Opener`] hears.
pub const SENDERS_MAX: usize = 4096;
/// A sender that was silent for so long, in seconds, gives its place to another when all are taken.
pub const SILENCE_SECONDS: u64 = 600;

const COUNTER_BYTES: usize = 5;
const HEADER_BYTES: usize = 1 + 1 + 8 + COUNTER_BYTES;
const TAG_BYTES: usize = 16;
const VERSION: u8 = 1;
/// Counters are below this: enough for a thousand datagrams a second over 34 years of one start.
const COUNTER_END: u64 = 1 << (8 * COUNTER_BYTES);

/// Which start of a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Rises with each start of the sender.
    pub counter: u64,
    /// Drawn at the start: two starts that count the same are still two.
    pub drawn: u64,
}

/// What a sender says of itself, over a secured connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// Its present start.
    pub start: Start,
    /// The counter of the next datagram that it will seal: earlier ones are not heard.
    pub next: u64,
}

/// Seals the datagrams of one start.
pub struct Sealer {
    key_id: u8,
    key: LessSafeKey,
    cluster: ClusterId,
    sender: MemberId,
    start: Start,
    next: u64,
}

/// A datagram cannot be sealed; nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// It would be longer than [`DATAGRAM_BYTES_MAX`].
    TooLong,
    /// The counter is not greater than those before, or there is none so great.
    Counter,
}

/// Opens the datagrams of all senders that were introduced.
pub struct Opener {
    keys: DatagramKeys,
    cluster: ClusterId,
    senders: BTreeMap<MemberId, Sender>,
    dropped: [u64; Dropped::ALL.len()],
}

struct Sender {
    start: Start,
    window: Window,
    /// Derived keys by id: as many as the cluster has keys, at most.
    keys: Vec<(u8, LessSafeKey)>,
    /// When it was introduced or last heard.
    heard: Instant,
}

/// What a datagram held.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// Who sealed it.
    pub from: MemberId,
    /// The counter that it was sealed with.
    pub counter: u64,
    /// What was sealed.
    pub plain: &'a [u8],
}

/// Why a datagram was not opened. It changed nothing but its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dropped {
    /// Shorter than an empty one, or longer than the longest.
    Length,
    /// Of another version of the format.
    Version,
    /// Sealed with a key that is not there (any more, or yet).
    UnknownKey,
    /// The sender was not introduced.
    UnknownSender,
    /// It was opened before.
    Replayed,
    /// Sealed before the introduction, or so long ago that nobody knows whether it was opened.
    TooOld,
    /// It was changed on the way, or made by somebody without the key, for another cluster, or in another start than
    /// the one that was introduced.
    Forged,
}

/// An introduction was not taken; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotIntroduced {
    /// A later start of this sender is known.
    Older,
    /// [`SENDERS_MAX`] others are known, and none has been silent for long.
    Full,
}

impl Sealer {
    /// For `sender` in its start number `counter`, which must rise with each start.
    #[must_use]
    pub fn new(keys: &DatagramKeys, cluster: ClusterId, sender: MemberId, start: Start) -> Self {
        let (key_id, prk) = keys.sealing();
        let key = derive(prk, cluster, sender, start);
        Self { key_id, key, cluster, sender, start, next: 0 }
    }

    /// What others must hear before they open what is sealed from now on.
    #[must_use]
    pub fn introduction(&self) -> Introduction {
        Introduction { start: self.start, next: self.next }
    }

    /// Seals with other keys from now on.
    pub fn set_keys(&mut self, keys: &DatagramKeys) {
        let (key_id, prk) = keys.sealing();
        self.key = derive(prk, self.cluster, self.sender, self.start);
        self.key_id = key_id;
    }

    /// Appends the sealed datagram to `out`. Its counter must be greater than those before.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn seal(&mut self, counter: u64, plain: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        if plain.len() > DATAGRAM_BYTES_MAX - OVERHEAD_BYTES {
            return Err(SealError::TooLong);
        }
        if !(self.next..COUNTER_END).contains(&counter) {
            return Err(SealError::Counter);
        }
        self.next = counter + 1;
        let header = Header { key: self.key_id, sender: self.sender, counter };
        let header = header.encode();
        let begin = out.len();
        out.extend_from_slice(&header);
        out.extend_from_slice(plain);
        let body = begin + HEADER_BYTES;
        let aad = Aad::from(associated(&header, self.cluster));
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(counter), aad, &mut out[body..])
            .expect("a datagram is far shorter than what AES-GCM can seal");
        out.extend_from_slice(tag.as_ref());
        Ok(())
    }
}

impl Opener {
    /// Nobody is heard yet.
    #[must_use]
    pub fn new(keys: DatagramKeys, cluster: ClusterId) -> Self {
        Self { keys, cluster, senders: BTreeMap::new(), dropped: [0; Dropped::ALL.len()] }
    }

    /// Opens with other keys from now on.
    pub fn set_keys(&mut self, keys: DatagramKeys) {
        for sender in self.senders.values_mut() {
            // An id may stand for another key now.
            sender.keys.clear();
        }
        self.keys = keys;
    }

    /// From now on this sender is heard, in this start, from this counter on. The start that is
    /// heard already stays as it is, except that its counters begin no earlier.
    ///
    /// # Errors
    /// See [`NotIntroduced`].
    pub fn introduce(
        &mut self,
        now: Instant,
        from: MemberId,
        introduction: Introduction,
    ) -> Result<(), NotIntroduced> {
        let Introduction { start, next } = introduction;
        if let Some(known) = self.senders.get_mut(&from) {
            if start.counter < known.start.counter {
                return Err(NotIntroduced::Older);
            }
            if start == known.start {
                known.heard = now;
                known.window.begin_at(next);
                return Ok(());
            }
        } else if self.senders.len() >= SENDERS_MAX {
            let longest = self.senders.iter().min_by_key(|(_, sender)| sender.heard);
            let silent = longest
                .filter(|(_, sender)| now.since(sender.heard).as_secs() >= SILENCE_SECONDS)
                .map(|(&silent, _)| silent)
                .ok_or(NotIntroduced::Full)?;
            self.senders.remove(&silent);
        }
        let window = Window::beginning_at(next);
        self.senders.insert(from, Sender { start, window, keys: Vec::new(), heard: now });
        Ok(())
    }

    /// This sender is not heard any more, until it is introduced again.
    pub fn forget(&mut self, from: MemberId) {
        self.senders.remove(&from);
    }

    /// Opens a datagram where it lies. Allocates nothing that a sender could choose.
    ///
    /// # Errors
    /// See [`Dropped`]; it is counted. What the datagram held is lost.
    pub fn open<'a>(
        &mut self,
        now: Instant,
        datagram: &'a mut [u8],
    ) -> Result<Opened<'a>, Dropped> {
        let opened = self.try_open(now, datagram);
        if let Err(why) = opened {
            self.dropped[why.place()] += 1;
        }
        opened
    }

    /// How many datagrams were dropped for this reason.
    #[must_use]
    pub fn dropped(&self, why: Dropped) -> u64 {
        self.dropped[why.place()]
    }

    fn try_open<'a>(
        &mut self,
        now: Instant,
        datagram: &'a mut [u8],
    ) -> Result<Opened<'a>, Dropped> {
        if !(OVERHEAD_BYTES..=DATAGRAM_BYTES_MAX).contains(&datagram.len()) {
            return Err(Dropped::Length);
        }
        let (head, body) = datagram.split_at_mut(HEADER_BYTES);
        let header = Header::decode(head).ok_or(Dropped::Version)?;
        let prk = self.keys.opening(header.key).ok_or(Dropped::UnknownKey)?;
        let from = header.sender;
        let sender = self.senders.get_mut(&from).ok_or(Dropped::UnknownSender)?;
        sender.window.look(header.counter)?;
        let key = match sender.keys.iter().position(|(id, _)| *id == header.key) {
            Some(place) => &sender.keys[place].1,
            None => {
                let key = derive(prk, self.cluster, from, sender.start);
                sender.keys.push((header.key, key));
                &sender.keys[sender.keys.len() - 1].1
            }
        };
        let aad = Aad::from(associated(head, self.cluster));
        let plain =
            key.open_in_place(nonce(header.counter), aad, body).map_err(|_| Dropped::Forged)?;
        // Only now: who has no key must not move the window.
        sender.window.take(header.counter);
        sender.heard = now;
        Ok(Opened { from, counter: header.counter, plain })
    }
}

impl Dropped {
    /// All reasons.
    pub const ALL: [Self; 7] = [
        Self::Length,
        Self::Version,
        Self::UnknownKey,
        Self::UnknownSender,
        Self::Replayed,
        Self::TooOld,
        Self::Forged,
    ];

    fn place(self) -> usize {
        Self::ALL.iter().position(|why| *why == self).expect("`ALL` has all of them")
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Length => "too short or too long",
            Self::Version => "of another version",
            Self::UnknownKey => "sealed with an unknown key",
            Self::UnknownSender => "of a sender who was not introduced",
            Self::Replayed => "opened before",
            Self::TooOld => "too old",
            Self::Forged => {
                "not sealed with the cluster's key in the sender's present start, or changed"
            }
        })
    }
}

impl std::error::Error for Dropped {}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => {
                write!(f, "a datagram holds at most {} bytes", DATAGRAM_BYTES_MAX - OVERHEAD_BYTES)
            }
            Self::Counter => write!(f, "a datagram's counter must be greater than those before"),
        }
    }
}

impl std::error::Error for SealError {}

impl fmt::Display for NotIntroduced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Older => write!(f, "a later start of this sender is known"),
            Self::Full => write!(f, "{SENDERS_MAX} other senders are known"),
        }
    }
}

impl std::error::Error for NotIntroduced {}

/// Nothing of the key.
impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("key", &self.key_id)
            .field("sender", &self.sender)
            .field("introduction", &self.introduction())
            .finish_non_exhaustive()
    }
}

/// Nothing of the keys.
impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener")
            .field("keys", &self.keys)
            .field("senders", &self.senders.len())
            .field("dropped", &self.dropped)
            .finish_non_exhaustive()
    }
}

struct Header {
    key: u8,
    sender: MemberId,
    counter: u64,
}

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = VERSION;
        bytes[1] = self.key;
        bytes[2..10].copy_from_slice(&self.sender.0.to_le_bytes());
        bytes[10..].copy_from_slice(&self.counter.to_le_bytes()[..COUNTER_BYTES]);
        bytes
    }

    /// None: another version.
    fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.first() != Some(&VERSION) {
            return None;
        }
        let mut counter = [0; 8];
        counter[..COUNTER_BYTES].copy_from_slice(bytes.get(10..HEADER_BYTES)?);
        Some(Self {
            key: *bytes.get(1)?,
            sender: MemberId(u64::from_le_bytes(bytes.get(2..10)?.try_into().ok()?)),
            counter: u64::from_le_bytes(counter),
        })
    }
}

fn associated(header: &[u8], cluster: ClusterId) -> [u8; HEADER_BYTES + 8] {
    let mut bytes = [0; HEADER_BYTES + 8];
    bytes[..HEADER_BYTES].copy_from_slice(header);
    bytes[HEADER_BYTES..].copy_from_slice(&cluster.0.to_le_bytes());
    bytes
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[NONCE_LEN - 8..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// What HKDF is given of a key of the file.
fn extract(secret: &[u8; 32]) -> Prk {
    Salt::new(HKDF_SHA256, PURPOSE).extract(secret)
}

fn derive(prk: &Prk, cluster: ClusterId, sender: MemberId, start: Start) -> LessSafeKey {
    let numbers = [cluster.0, sender.0, start.counter, start.drawn].map(u64::to_le_bytes);
    let info = numbers.as_flattened();
    let info = [info];
    let okm = prk.expand(&info, &AES_256_GCM).expect("a key is shorter than HKDF's limit");
    LessSafeKey::new(UnboundKey::from(okm))
}

/// Keeps these keys apart from all other uses of the same secret.
const PURPOSE: &[u8] = b"libring datagram 1";

#[cfg(test)]
mod tests;
