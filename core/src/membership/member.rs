//! Who a member is, as the others see it.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, SocketAddr};

use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::ids::{MemberId, len_u64};
use crate::wire::bounded;

/// How late a member's statement about itself is: of two, the greater holds (SWIM section 4.2).
///
/// The upper 40 bits are the *life*: the number of the start (24 bits) and a drawn number (16 bits). Each start
/// begins a life that is greater than all before it, so a member that was started again outranks whatever is said
/// of its earlier lives. The drawn number tells two lives apart that counted alike, because a disk was rolled
/// back. The lower 24 bits rise with each statement of one life.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Incarnation(#[serde(with = "postcard::fixint::le")] pub u64);

const LIFE_SHIFT: u32 = 24;
const START_SHIFT: u32 = 40;
const DRAWN_MASK: u64 = 0xffff;

impl Incarnation {
    /// Which start of the member it belongs to, with the number drawn at that start.
    #[must_use]
    pub fn life(self) -> u64 {
        self.0 >> LIFE_SHIFT
    }

    /// The first incarnation of the start after this one. Past the last start that can be counted the next
    /// incarnation; past that, this one.
    #[must_use]
    pub fn following(self, drawn: u64) -> Self {
        let start = (self.0 >> START_SHIFT) + 1;
        if start >> (64 - START_SHIFT) != 0 {
            return self.next();
        }
        Self((start << START_SHIFT) | ((drawn & DRAWN_MASK) << LIFE_SHIFT))
    }

    /// What a member restores that counts its starts by itself, durably and from 1 on: below all that it says in this
    /// start, above all that it said in those before, for the first 2^24 starts.
    #[must_use]
    pub fn before_start(start: u64) -> Self {
        Self(start.saturating_sub(1).min(u64::MAX >> START_SHIFT) << START_SHIFT)
    }

    /// The next incarnation, or this one if it is the last.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// What a member says of itself. Equal incarnations mean equal profiles.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Profile {
    /// Its name, 1 to [`NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// Where it takes datagrams. Neither a wildcard nor port 0: others send to it.
    pub datagram: SocketAddr,
    /// Where it takes connections. Neither a wildcard nor port 0.
    pub stream: SocketAddr,
    /// Its share of the ring, relative to the others. A client's is of no use.
    pub weight: u32,
    /// The application's own data, sorted by key, each key once, at most [`TAGS_MAX`].
    #[serde(deserialize_with = "bounded::list::<TAGS_MAX, _, _>")]
    pub tags: Vec<(String, String)>,
}

/// Longest name of a member, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Most tags of a member.
pub const TAGS_MAX: usize = 32;
/// Longest profile as it is sent, in bytes: name, addresses, weight and tags together.
pub const PROFILE_BYTES_MAX: usize = 512;

/// A profile that cannot be used. The caller's fault; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProfileError {
    /// An address to which nothing can be sent: a wildcard, a group's, or port 0.
    Address {
        /// Which of the two.
        field: &'static str,
        /// What it was.
        address: SocketAddr,
    },
    /// A name that is empty or longer than [`NAME_BYTES_MAX`].
    Name {
        /// Its length in bytes.
        len: usize,
    },
    /// More tags than [`TAGS_MAX`].
    Tags {
        /// How many.
        count: usize,
    },
    /// Tags that are not sorted by key, or a key twice.
    TagOrder {
        /// The first key out of order.
        key: String,
    },
    /// Longer than [`PROFILE_BYTES_MAX`] when encoded.
    TooLarge {
        /// How long it is, in bytes.
        len: usize,
    },
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { field, address } => write!(
                f,
                "profile: {field}: nothing can be sent to {address}; give an address of this host that the \
                 others can reach, and its port"
            ),
            Self::Name { len } => {
                write!(f, "profile: name: {len} bytes long, must be 1 to {NAME_BYTES_MAX}")
            }
            Self::Tags { count } => {
                write!(f, "profile: tags: {count} of them, the limit is {TAGS_MAX}")
            }
            Self::TagOrder { key } => {
                write!(f, "profile: tags: {key:?} is out of order or there twice")
            }
            Self::TooLarge { len } => write!(
                f,
                "profile: {len} bytes long when encoded, the limit is {PROFILE_BYTES_MAX}: shorten name or tags"
            ),
        }
    }
}

impl core::error::Error for ProfileError {}

impl Profile {
    /// Checks every bound.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn check(&self) -> Result<(), ProfileError> {
        for (field, address) in [("datagram", self.datagram), ("stream", self.stream)] {
            if !is_reachable(address) {
                return Err(ProfileError::Address { field, address });
            }
        }
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX {
            return Err(ProfileError::Name { len: self.name.len() });
        }
        if self.tags.len() > TAGS_MAX {
            return Err(ProfileError::Tags { count: self.tags.len() });
        }
        if let Some(pair) = self.tags.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
            return Err(ProfileError::TagOrder { key: pair[1].0.clone() });
        }
        let len = self.encoded_len();
        if len > PROFILE_BYTES_MAX {
            return Err(ProfileError::TooLarge { len });
        }
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        postcard::serialize_with_flavor(self, postcard::ser_flavors::Size::default())
            .unwrap_or(usize::MAX)
    }
}

/// A profile as it was sent, and when. A member is told of far more often than it is asked about, so what it
/// said is kept as bytes: they are compared, and copied into datagrams, as they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Statement {
    pub(crate) at: Incarnation,
    pub(crate) datagram: SocketAddr,
    pub(crate) weight: u32,
    bytes: Arc<[u8]>,
}

impl Statement {
    /// Takes a profile that was checked.
    pub(crate) fn new(at: Incarnation, profile: &Profile) -> Self {
        let bytes = postcard::to_allocvec(profile).expect("a profile always encodes");
        let Profile { datagram, weight, .. } = *profile;
        Self { at, datagram, weight, bytes: bytes.into() }
    }

    /// Takes bytes that [`ProfileRef::check`] has found to be a profile.
    pub(crate) fn read(at: Incarnation, bytes: &[u8]) -> Self {
        let profile: ProfileRef<'_> = postcard::from_bytes(bytes).expect(CHECKED);
        let ProfileRef { datagram, weight, .. } = profile;
        Self { at, datagram, weight, bytes: bytes.into() }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn profile(&self) -> Profile {
        Profile::decoded(&self.bytes)
    }
}

impl Profile {
    /// The profile in bytes that [`ProfileRef::check`] has found to be one.
    pub(crate) fn decoded(bytes: &[u8]) -> Self {
        postcard::from_bytes(bytes).expect(CHECKED)
    }
}

const CHECKED: &str = "only profiles that were checked are kept";

/// A [`Profile`] where it lies in a datagram: to check it without copying it.
#[derive(Deserialize)]
pub(crate) struct ProfileRef<'a> {
    name: &'a str,
    datagram: SocketAddr,
    stream: SocketAddr,
    weight: u32,
    tags: TagsLen,
}

impl ProfileRef<'_> {
    /// How long the profile is that these bytes begin with. None: it is malformed, out of bounds, or not encoded in
    /// the shortest way, so that equal profiles are equal bytes.
    pub(crate) fn check(bytes: &[u8]) -> Option<usize> {
        let (profile, rest) = postcard::take_from_bytes::<ProfileRef<'_>>(bytes).ok()?;
        let ProfileRef { name, datagram, stream, weight, tags } = profile;
        let len = bytes.len() - rest.len();
        let shortest = text_len(name)
            + address_len(datagram)
            + address_len(stream)
            + number_len(u64::from(weight))
            + tags.0;
        let named = !name.is_empty() && name.len() <= NAME_BYTES_MAX;
        let reachable = is_reachable(datagram) && is_reachable(stream);
        (named && reachable && len == shortest && len <= PROFILE_BYTES_MAX).then_some(len)
    }
}

/// How long sorted tags are when encoded in the shortest way.
struct TagsLen(usize);

impl<'de> Deserialize<'de> for TagsLen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(TagsVisitor)
    }
}

struct TagsVisitor;

impl<'de> Visitor<'de> for TagsVisitor {
    type Value = TagsLen;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {TAGS_MAX} tags, sorted")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut tags: A) -> Result<TagsLen, A::Error> {
        let count = bounded::count::<TAGS_MAX, _>(&tags)?;
        let mut len = number_len(len_u64(count));
        let mut before = None;
        while let Some((key, value)) = tags.next_element::<(&str, &str)>()? {
            if before.is_some_and(|before| before >= key) {
                return Err(A::Error::custom("tags out of order"));
            }
            before = Some(key);
            len += text_len(key) + text_len(value);
        }
        Ok(TagsLen(len))
    }
}

/// Shortest encodings of postcard, in bytes.
fn number_len(number: u64) -> usize {
    let bits = u64::BITS - (number | 1).leading_zeros();
    crate::ids::len_usize(u64::from(bits.div_ceil(7)))
}

fn text_len(text: &str) -> usize {
    number_len(len_u64(text.len())) + text.len()
}

fn address_len(address: SocketAddr) -> usize {
    let ip = match address {
        SocketAddr::V4(_) => 4,
        SocketAddr::V6(_) => 16,
    };
    1 + ip + number_len(u64::from(address.port()))
}

/// False for addresses that name no single host, or no port.
pub(crate) fn is_reachable(address: SocketAddr) -> bool {
    let ip = address.ip();
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

/// What is thought of a member. Of two thoughts about one incarnation the later in this list holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    /// It answers, or nobody has said otherwise.
    Alive,
    /// Somebody got no answer. It is still a member, and may refute.
    Suspect,
    /// It did not refute in time.
    Dead,
    /// It said that it leaves.
    Left,
}

impl State {
    /// True for members of the present view: alive and suspect ones.
    #[must_use]
    pub fn is_present(self) -> bool {
        match self {
            Self::Alive | Self::Suspect => true,
            Self::Dead | Self::Left => false,
        }
    }
}

/// A member as this one sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// The latest incarnation that this member has heard of.
    pub incarnation: Incarnation,
    /// What is thought of it.
    pub state: State,
    /// What it said of itself last.
    pub profile: Profile,
}
