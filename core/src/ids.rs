//! Names for numbers that could be swapped. Each is one word on the wire and in the log.

use core::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident($inner:ty), $short:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl $name {
            /// The number that follows this one. Panics past the type's end, which no run reaches.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("ids do not wrap"))
            }

            /// The number before this one, or zero at zero.
            #[must_use]
            pub fn prev(self) -> Self {
                Self(self.0.saturating_sub(1))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($short, "{}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self, f)
            }
        }
    )*};
}

id! {
    /// A cluster, drawn at its creation; two clusters never share one.
    ClusterId(u64), "cluster-";
    /// A member of the cluster. Clients have ids with the highest bit set.
    MemberId(u64), "m";
    /// A replica of one group. Never used twice: a member that lost its disk gets new ones.
    ReplicaId(u64), "r";
    /// A Raft group. 0 is kept for the directory, shards are 1..=S.
    GroupId(u32), "g";
    /// A Raft term.
    Term(u64), "t";
    /// A position in a group's log, counted from 1; 0 is "before the first entry".
    LogIndex(u64), "i";
    /// A position in the member's own log: the number of a batch. Cumulative in `Input::Stored`.
    LogSeq(u64), "s";
    /// A file of the member's own log.
    SegmentId(u64), "seg";
    /// A connection, numbered by the world, never used twice in one run of a member.
    ConnId(u64), "c";
    /// An application's call, numbered by the world, never used twice in one run of a member.
    RequestId(u64), "q";
    /// A client session of one group; assigned by the group, never used twice.
    SessionId(u64), "session-";
    /// The number of a command in its session, counted from 1.
    Seq(u64), "#";
    /// The number of the last change of a value; rises by one with each change in a shard.
    Revision(u64), "v";
    /// One start of a member on its directory: a counter that rises with each start in the upper half, a drawn
    /// number in the lower, so that two histories that counted to the same number are told apart.
    Boot(u64), "b";
    /// Which installation of a group's state the keys in the store belong to.
    Epoch(u32), "e";
    /// A question to the store, numbered by core.
    ReadId(u64), "read-";
    /// A scan's snapshot that a replica keeps open between two pages.
    CursorId(u64), "cursor-";
    /// A snapshot of a group that its leader sends.
    SnapshotId(u64), "snap-";
}

impl Boot {
    /// Which start it was, counted from 1; 0 before the first.
    #[must_use]
    pub fn count(self) -> u64 {
        self.0 >> 32
    }

    /// So many earlier starts a directory remembers.
    pub const EARLIER_MAX: usize = 512;

    /// The number that was drawn at this start.
    #[must_use]
    pub fn drawn(self) -> u32 {
        u32::try_from(self.0 & 0xffff_ffff).expect("32 bits")
    }

    /// The next start.
    #[must_use]
    pub fn following(self, drawn: u64) -> Self {
        Self(((self.count() + 1) << 32) | (drawn & 0xffff_ffff))
    }

    /// True when a peer that was seen in start `seen` and now says it is in this one has lost what it did since.
    ///
    /// `earlier` holds what the peer's directory drew at its starts before this one, the latest last. A counter alone
    /// would not do: a directory that was put back counts on, and passes the start that it lost at the next but one.
    /// A start that lies further back than `earlier` reaches is believed: otherwise a member that was restarted over
    /// and over while a peer was down could never talk to that peer again.
    #[must_use]
    pub fn is_rolled_back_from(self, seen: Self, earlier: &[u32]) -> bool {
        if self.count() <= seen.count() {
            return self != seen;
        }
        let back = len_usize(self.count() - seen.count());
        let then = earlier.len().checked_sub(back).map(|place| earlier[place]);
        then.is_some_and(|drawn| drawn != seen.drawn())
    }
}

impl RequestId {
    const INTERNAL_BIT: u64 = 1 << 63;

    /// A call that a node makes of itself. Its answer is not told to the world.
    #[must_use]
    pub(crate) fn internal(number: u64) -> Self {
        Self(number | Self::INTERNAL_BIT)
    }

    /// True for calls that a node makes of itself.
    #[must_use]
    pub(crate) fn is_internal(self) -> bool {
        self.0 & Self::INTERNAL_BIT != 0
    }
}

impl GroupId {
    /// The directory's group. Reserved; the shards begin at 1.
    pub const DIRECTORY: Self = Self(0);
}

impl MemberId {
    const CLIENT_BIT: u64 = 1 << 63;
    const JOINER_BIT: u64 = 1 << 62;

    /// The id of a member that joined a cluster after its creation: it follows from what its directory drew at its
    /// making, so that another directory is another member.
    #[must_use]
    pub fn joiner(birth: u64) -> Self {
        Self((birth | Self::JOINER_BIT) & !Self::CLIENT_BIT)
    }

    /// True for members that joined after the cluster's creation.
    #[must_use]
    pub fn is_joiner(self) -> bool {
        self.0 & (Self::CLIENT_BIT | Self::JOINER_BIT) == Self::JOINER_BIT
    }

    /// True for members that created the cluster.
    #[must_use]
    pub fn is_founder(self) -> bool {
        self.0 & (Self::CLIENT_BIT | Self::JOINER_BIT) == 0
    }

    /// The id of a client, from 63 drawn bits.
    #[must_use]
    pub fn client(drawn: u64) -> Self {
        Self(drawn | Self::CLIENT_BIT)
    }

    /// True for clients: they route and call, and own nothing.
    #[must_use]
    pub fn is_client(self) -> bool {
        self.0 & Self::CLIENT_BIT != 0
    }
}

/// A length as the 64-bit number it is on the wire and on disk.
#[must_use]
pub fn len_u64(len: usize) -> u64 {
    u64::try_from(len).expect("usize has at most 64 bits")
}

/// A 64-bit number that is known to be a length in memory.
#[must_use]
pub fn len_usize(len: u64) -> usize {
    usize::try_from(len).expect("lengths in memory fit in usize")
}
