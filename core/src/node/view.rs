//! Questions about a node that change nothing.

use alloc::string::String;
use alloc::vec::Vec;

use super::Node;
use crate::directory::{Registered, Table};
use crate::genesis::Genesis;
use crate::group::Group;
use crate::ids::{Boot, ConnId, GroupId, LogIndex, LogSeq, MemberId};
use crate::io::Peer;
use crate::membership::Membership;
use crate::raft::Raft;
use crate::time::Instant;
use crate::wire::message::MemberStatus;

/// A node, read-only.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(&'a Node);

/// One replica, read-only.
#[derive(Clone, Copy, Debug)]
pub struct GroupView<'a>(&'a Group);

impl Node {
    /// Questions about this node.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        View(self)
    }
}

impl<'a> View<'a> {
    /// This node's id.
    #[must_use]
    pub fn me(&self) -> MemberId {
        self.0.me
    }

    /// The cluster, once it exists and is known here.
    #[must_use]
    pub fn genesis(&self) -> Option<&'a Genesis> {
        self.0.genesis.as_ref().filter(|_| self.0.config.client || self.0.founding.is_founded())
    }

    /// The directory, as far as this node knows it.
    #[must_use]
    pub fn directory(&self) -> Option<&'a Table> {
        self.0.table.as_ref()
    }

    /// Everyone who is registered, sorted by id, as far as this node knows; before the first directory the founders.
    #[must_use]
    pub fn registered(&self) -> Vec<Registered> {
        let table = self.0.table.as_ref().map(|table| table.members.clone());
        table.unwrap_or_else(|| self.genesis().into_iter().flat_map(Registered::founders).collect())
    }

    /// The members and clients that are connected, sorted.
    pub fn connected(&self) -> impl Iterator<Item = MemberId> + use<'a> {
        self.0.links.connected()
    }

    /// Members by id, with name and address.
    pub fn members(&self) -> impl Iterator<Item = (MemberId, &'a String, &'a String)> + use<'a> {
        self.0.members.iter().map(|(&id, (name, address))| (id, name, address))
    }

    /// Who leads a group, as far as this node knows.
    #[must_use]
    pub fn leader(&self, group: GroupId) -> Option<MemberId> {
        let local = self.0.groups.get(&group).and_then(|group| group.raft.leader());
        local.map(|leader| leader.member).or_else(|| self.0.router.leader(group))
    }

    /// The registered members that are alive, sorted by id, as of the last turn; this one included, if it is
    /// registered. Alive is who is registered and who is present by gossip; who does not gossip, while it is connected.
    pub fn alive(&self) -> impl Iterator<Item = MemberId> + use<'a> {
        self.0.alive.members().iter().copied()
    }

    /// Rises when the members that are alive change.
    #[must_use]
    pub fn alive_version(&self) -> u64 {
        self.0.alive.version()
    }

    /// The other registered members of whom anything was heard, sorted by id, as the application was told of them.
    pub fn peers(&self) -> impl Iterator<Item = &'a Peer> + use<'a> {
        self.0.alive.peers()
    }

    /// One of them.
    #[must_use]
    pub fn peer(&self, id: MemberId) -> Option<&'a Peer> {
        self.0.alive.peer(id)
    }

    /// The failure detector, if this node gossips.
    #[must_use]
    pub fn gossip(&self) -> Option<&'a Membership> {
        self.0.alive.gossip()
    }

    /// This start.
    #[must_use]
    pub fn boot(&self) -> Boot {
        self.0.boot
    }

    /// This member's replicas.
    pub fn groups(&self) -> impl Iterator<Item = (GroupId, GroupView<'a>)> + use<'a> {
        self.0.groups.iter().map(|(&id, group)| (id, GroupView(group)))
    }

    /// One of this member's replicas.
    #[must_use]
    pub fn group(&self, group: GroupId) -> Option<GroupView<'a>> {
        self.0.groups.get(&group).map(GroupView)
    }

    /// The replicas that the last turn touched.
    pub fn touched(&self) -> impl Iterator<Item = (GroupId, GroupView<'a>)> + use<'a> {
        let node = self.0;
        node.touched.iter().filter_map(|&id| node.groups.get(&id).map(|g| (id, GroupView(g))))
    }

    /// What this member says of itself.
    #[must_use]
    pub fn status(&self, now: Instant) -> MemberStatus {
        self.0.status(now)
    }

    /// Calls of the application under way.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.0.router.len()
    }

    /// Requests of this node that wait for an answer, and requests that it handles.
    #[must_use]
    pub fn requests(&self) -> (usize, usize) {
        (self.0.requests.asked(), self.0.requests.handled())
    }

    /// The last durable batch of the log.
    #[must_use]
    pub fn stored(&self) -> LogSeq {
        self.0.log.stored()
    }

    /// Messages of peers that broke the protocol and were dropped.
    #[must_use]
    pub fn peer_faults(&self) -> u64 {
        self.0.peer_faults
    }

    /// True for a connection whose peer is checked, and is believed once what it said is durable.
    #[must_use]
    pub fn is_pending(&self, conn: ConnId) -> bool {
        self.0.links.is_pending(conn)
    }

    /// True when the node has halted.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.0.halted
    }
}

impl<'a> GroupView<'a> {
    /// The Raft replica.
    #[must_use]
    pub fn raft(&self) -> &'a Raft {
        &self.0.raft
    }

    /// The last index that the store has applied.
    #[must_use]
    pub fn applied(&self) -> LogIndex {
        self.0.applied
    }

    /// Hash over the applied history; equal on all replicas that have applied the same index.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.0.digest
    }
}
