//! What the machine asks of its world.

use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use super::member::{Incarnation, Member};
use super::wire::SyncMessage;
use crate::ids::{ClusterId, MemberId};

/// What has come together since the last flush. The world carries all of it out; order matters only for events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Effects {
    /// Datagrams, each to its address. They may be lost, repeated, late.
    pub datagrams: Vec<(SocketAddr, Vec<u8>)>,
    /// Messages for members, over a stream on which both have shaken hands. They may be lost.
    pub syncs: Vec<(MemberId, SyncMessage)>,
    /// Who did not answer a datagram in time: to be asked over a stream too, if there is one. Whoever answers it is
    /// vouched for ([`vouch`](super::Membership::vouch)).
    pub asks: Vec<MemberId>,
    /// To be made durable, the greatest suffices; then [`on_persisted`](super::Membership::on_persisted). Nothing
    /// that depends on it leaves before.
    pub persist: Vec<Incarnation>,
    /// For the application.
    pub events: Vec<Event>,
}

/// What the application may want to know. A member is `Joined` and then `Failed` or `Left`, in turns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A member is there that was not.
    Joined(Member),
    /// A member does not answer somebody. It is still a member.
    Suspected(Member),
    /// A suspect has refuted.
    Recovered(Member),
    /// A member is dead: it did not refute in time.
    Failed(Member),
    /// A member left on its own account.
    Left(Member),
    /// A present member says something else of itself than before.
    Updated {
        /// What it says now.
        member: Member,
        /// True if it was started again in between, unnoticed.
        restarted: bool,
    },
    /// Somebody accused this member, which has refuted with this incarnation.
    Refuted {
        /// Its incarnation from now on.
        incarnation: Incarnation,
    },
    /// A seed did not let this member in; it is asked again.
    JoinFailed {
        /// The seed's address.
        address: core::net::SocketAddr,
        /// How often it was asked since it answered last.
        attempts: u32,
        /// Why.
        why: JoinFailure,
    },
    /// The departure of this member is told as often as it will be: it can stop.
    Departed,
    /// Somebody else uses this member's id, or this member was put back to an earlier state.
    Twin {
        /// From where it speaks; none if it was only heard of.
        address: Option<SocketAddr>,
    },
    /// This member did not run for so long; what it thought of others meanwhile does not count.
    Stalled {
        /// How late its timer was.
        lateness: Duration,
    },
}

/// Why a seed did not let a member in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JoinFailure {
    /// It said nothing.
    Silent,
    /// It belongs to another cluster.
    OtherCluster(ClusterId),
    /// It speaks another version of the protocol.
    OtherVersion,
    /// What it said could not be read.
    Garbage,
    /// It is this member itself. It is not asked again.
    Own,
}

/// How often what happened, since the start. For metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counters {
    /// Datagrams sent.
    pub sent: u64,
    /// Bytes in them, without what authentication adds.
    pub sent_bytes: u64,
    /// Datagrams received, dropped ones included.
    pub received: u64,
    /// Dropped: too long, not to be decoded, or with a profile out of bounds.
    pub malformed: u64,
    /// Dropped: of another cluster.
    pub other_cluster: u64,
    /// Dropped: of another version.
    pub other_version: u64,
    /// Dropped: seen before, or too late to know.
    pub replayed: u64,
    /// Dropped: of an earlier life of its sender.
    pub stale: u64,
    /// Not believed: the sender has not proven that it speaks now. It was asked to.
    pub unproven: u64,
    /// Dropped: meant for who had this address before.
    pub misdirected: u64,
    /// Dropped: from one who uses this member's id.
    pub twin: u64,
    /// News of members for whom there was no room.
    pub full: u64,
    /// Probes begun.
    pub probes: u64,
    /// Probes that nobody answered.
    pub probes_failed: u64,
    /// Comparisons of views begun.
    pub syncs: u64,
}
