//! The node's part in who is alive: it runs the failure detector ([`Membership`]) and says which of the *registered*
//! members are alive.
//!
//! # Who counts
//!
//! Alive is who is registered and whom the failure detector holds for present. Both are needed:
//!
//! 1. *Registered*: in the newest table that this node was told of; before there is one, a founder of the genesis. So
//!    neither a stranger who gossips nor a member that was replaced or has left, and does not know, ever owns a slot,
//!    however alive it is. Members of other clusters do not get so far: their datagrams name another cluster.
//! 2. *Present*: alive or suspect. A suspect can still refute, and slots that moved for every lost datagram would serve
//!    nobody.
//!
//! Of a member of which the failure detector knows nothing (it does not gossip, or has not been heard of yet) the link
//! decides: alive is who is connected. A node without an address for datagrams, and every client, goes by links alone.
//! One that gossips gives who was known by its link alone as long to come back as a suspect has at least: two that dial
//! each other end the one connection when the other is up, which one of them hears first.
//! Members whose tables and views are equal hold the same members for alive. No promise that needs a majority rests
//! on it: it decides where requests go and what the application is told.
//!
//! # Incarnations
//!
//! Each start begins a life of the failure detector that is greater than all before it: its upper part is the start
//! counter, which is durable before this node says anything ([`Incarnation::before_start`]). So no record is needed.
//!
//! A peer can accuse a life that is later than the present one only if a later start of this very directory has spoken:
//! the directory was put back. That is not refuted. Peers that saw the later start refuse the handshake, which
//! halts this node; until then they hold it for dead, and are right to.
//!
//! # Faults
//!
//! | fault | what it does |
//! |---|---|
//! | stopped in good order | says so, like one that leaves; the next start outranks it |
//! | crash | the next start begins a greater life; nothing else of the failure detector is needed again |
//! | a datagram or a comparison lost, late, twice | see [`membership`](crate::membership) |
//! | links lost, datagrams pass | nothing changes: others are alive as long as they answer |
//! | datagrams lost, links up | who answers on its link is vouched for; a suspect hears of it there, and refutes |
//! | an old table | a member that it lacks does not count yet, one that it still has counts while it is present |

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::mem;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{Departure, Node};
use crate::config::{Config, ConfigError};
use crate::directory::Registered;
use crate::ids::MemberId;
use crate::io::{Event, MemberChange, Output, Peer};
use crate::membership::{
    self, Effects, Event as Told, Incarnation, Membership, Profile, ProfileError, State,
    SyncMessage,
};
use crate::time::{Instant, Now};
use crate::wire::message::Message;

/// Who is alive, as far as this node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Alive {
    /// None: this node does not gossip, or not yet.
    gossip: Option<Membership>,
    /// The registered members that are alive, sorted, this one included, as of the last turn.
    members: Vec<MemberId>,
    /// Rises when `members` changes.
    version: u64,
    /// The other registered members, as the application was told.
    peers: BTreeMap<MemberId, Known>,
    /// The table that all this follows from, by its version, and whether the cluster existed.
    follows: (u64, bool),
    /// The failure detector or a link changed since.
    is_due: bool,
    /// Its own departure is told.
    is_leaving: bool,
    /// The failure detector was acted on in this turn.
    is_touched: bool,
    /// Who was asked over its link for want of an answer to a datagram, and when.
    asked: Option<(MemberId, Instant)>,
    /// Who was known by its link alone, has lost it, and counts until then.
    unlinked: BTreeMap<MemberId, Instant>,
}

/// What the application was told of a member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Known {
    peer: Peer,
    /// The life that it was in; none was heard of where only a link tells.
    life: Option<u64>,
}

impl Alive {
    /// When the failure detector waits for something.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let gossip = self.gossip.as_ref().and_then(Membership::deadline);
        self.unlinked.values().copied().chain(gossip).min()
    }

    pub(super) fn gossip(&self) -> Option<&Membership> {
        self.gossip.as_ref()
    }

    pub(super) fn members(&self) -> &[MemberId] {
        &self.members
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values().map(|known| &known.peer)
    }

    pub(super) fn peer(&self, id: MemberId) -> Option<&Peer> {
        self.peers.get(&id).map(|known| &known.peer)
    }

    pub(super) fn check(&self) {
        if let Some(gossip) = self.gossip.as_ref().filter(|_| self.is_touched) {
            gossip.check();
        }
    }

    /// What the failure detector thinks of a member. None: nothing, or it was only named in an accusation.
    fn opinion(&self, id: MemberId) -> Option<(State, u64)> {
        let gossip = self.gossip.as_ref()?;
        let (incarnation, state) = gossip.thought(id)?;
        let is_known = gossip.has_profile(id) || !state.is_present();
        is_known.then_some((state, incarnation.life()))
    }
}

impl Node {
    /// A datagram came. Whatever it is, nobody is to blame: it counts, or is dropped and counted.
    pub(super) fn on_datagram(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        if let Some(gossip) = &mut self.alive.gossip {
            gossip.on_datagram(now, from, bytes);
            self.alive.is_touched = true;
        }
    }

    /// A peer compares its view with this node's.
    pub(super) fn on_sync(&mut self, now: Instant, from: MemberId, message: SyncMessage) {
        if let Some(gossip) = &mut self.alive.gossip {
            gossip.on_sync(now, from, message);
            self.alive.is_touched = true;
        }
    }

    /// A link to a member is up: views are compared at once. That is how two members find each other's addresses for
    /// datagrams, and how the halves of a split cluster learn of each other.
    pub(super) fn compare_views(&mut self, now: Instant, with: MemberId) {
        self.alive.is_due = true;
        self.alive.unlinked.remove(&with);
        if let Some(gossip) = self.alive.gossip.as_mut().filter(|_| !with.is_client()) {
            gossip.on_connected(now, with);
            self.alive.is_touched = true;
        }
    }

    /// The link to a member is lost.
    pub(super) fn miss_link(&mut self, now: Instant, to: MemberId) {
        self.alive.is_due = true;
        let was_here = self.alive.members.binary_search(&to).is_ok();
        if let Some(gossip) = self.alive.gossip.as_ref().filter(|_| was_here)
            && self.alive.opinion(to).is_none()
        {
            let until = now + gossip.least_patience();
            self.alive.unlinked.insert(to, until);
        }
    }

    /// This node is stopped in good order, and comes back or does not: the others are told with the next flush, so that
    /// they need not find out. Its next start outranks that.
    pub fn stop(&mut self, now: Now) {
        if !self.halted {
            self.say_departure(now.instant);
        }
    }

    /// The end of a turn: the failure detector does what is due, what it asks for goes out, and what changed is told.
    pub(super) fn drive_alive(&mut self, now: Instant) {
        let follows = (self.table_version(), self.view().genesis().is_some());
        if follows != mem::replace(&mut self.alive.follows, follows) {
            self.alive.is_due = true;
            self.add_seeds(now);
        }
        self.begin_gossip(now);
        self.follow_departure(now);
        if let Some(gossip) = &mut self.alive.gossip {
            if let Some((member, since)) = self.alive.asked
                && self.links.has_heard(member, since)
            {
                gossip.vouch(member);
                self.alive.asked = None;
                self.alive.is_touched = true;
            }
            if gossip.deadline().is_some_and(|at| at <= now) {
                gossip.on_wakeup(now);
                self.alive.is_touched = true;
            }
            let mut effects = Effects::default();
            gossip.flush(&mut effects);
            // An incarnation that must be durable first is one above a later start's: see "Incarnations".
            effects.persist.clear();
            self.carry_out_gossip(now, effects);
        }
        let before = self.alive.unlinked.len();
        self.alive.unlinked.retain(|_, until| *until > now);
        self.alive.is_due |= self.alive.unlinked.len() < before;
        if mem::take(&mut self.alive.is_due) {
            let registered = self.view().registered();
            self.count_alive(&registered);
            self.tell_peers(registered);
        }
    }

    fn carry_out_gossip(&mut self, now: Instant, effects: Effects) {
        for (to, bytes) in effects.datagrams {
            self.outputs.0.push(Output::Datagram { to, bytes });
        }
        for (to, message) in effects.syncs {
            self.send(to, Message::Sync(message));
        }
        for member in effects.asks {
            if self.is_connected(member) {
                self.send(member, Message::Ping);
                self.alive.asked = Some((member, now));
            }
        }
        for event in effects.events {
            match event {
                Told::Joined(_)
                | Told::Suspected(_)
                | Told::Recovered(_)
                | Told::Failed(_)
                | Told::Left(_)
                | Told::Updated { .. } => self.alive.is_due = true,
                Told::Departed => {}
                // Seen in its counters.
                Told::Refuted { .. }
                | Told::JoinFailed { .. }
                | Told::Twin { .. }
                | Told::Stalled { .. } => {}
            }
        }
    }

    /// The failure detector begins when this member belongs to the cluster: a founder when the cluster exists, one that
    /// joins when it is registered for the first time.
    fn begin_gossip(&mut self, now: Instant) {
        let belongs = self.founding.is_founded() && (self.me.is_founder() || self.is_up);
        if self.alive.gossip.is_some() || self.config.client || !belongs {
            return;
        }
        let Some(profile) = profile(&self.config) else { return };
        let Some(genesis) = &self.genesis else { return };
        let config = membership::Config::new(genesis.cluster).paced(&self.config.detector);
        let restored = Incarnation::before_start(self.boot.count());
        let rng = self.rng.fork(GOSSIP);
        let made = Membership::new(config, self.me, profile, restored, rng, now);
        let mut gossip = made.expect("profile and pace were checked when this node was made");
        // The start counter is durable: nothing was said before that.
        gossip.on_persisted(now, gossip.incarnation());
        gossip.flush(&mut Effects::default());
        for member in self.links.connected().filter(|member| !member.is_client()) {
            gossip.on_connected(now, member);
        }
        self.alive.gossip = Some(gossip);
        self.alive.is_touched = true;
        self.add_seeds(now);
    }

    /// The failure detector looks for the members at the addresses at which they are registered, as far as these are
    /// addresses: a host's name is nothing that core could look up.
    fn add_seeds(&mut self, now: Instant) {
        let me = self.me;
        let Some(gossip) = &mut self.alive.gossip else { return };
        if self.alive.is_leaving {
            return;
        }
        let others = self.members.iter().filter(|(id, _)| **id != me);
        let seeds: Vec<SocketAddr> =
            others.filter_map(|(_, (_, address))| address.parse().ok()).collect();
        gossip.join(now, &seeds);
    }

    /// Who has left the cluster says so by gossip.
    fn follow_departure(&mut self, now: Instant) {
        if self.departure == Departure::Left && !self.alive.is_leaving {
            self.say_departure(now);
        }
    }

    fn say_departure(&mut self, now: Instant) {
        if let Some(gossip) = &mut self.alive.gossip {
            gossip.leave(now);
            self.alive.is_leaving = true;
            self.alive.is_touched = true;
        }
    }

    fn is_connected(&self, id: MemberId) -> bool {
        self.links.conn_of(id).is_some()
    }

    /// Whether a member is there as far as its link says: it is connected, or was until just now.
    fn is_linked(&self, id: MemberId) -> bool {
        self.is_connected(id) || self.alive.unlinked.contains_key(&id)
    }

    fn count_alive(&mut self, registered: &[Registered]) {
        let ids = registered.iter().map(|member| member.id);
        let mut members: Vec<MemberId> = ids.filter(|&id| self.is_alive(id)).collect();
        members.sort_unstable();
        if members != self.alive.members {
            self.alive.members = members;
            self.alive.version += 1;
            self.ring_due = true;
        }
    }

    /// Whether a registered member is alive, as far as this node knows now.
    pub(super) fn is_alive(&self, id: MemberId) -> bool {
        match self.alive.opinion(id) {
            Some((state, _)) => state.is_present(),
            None => id == self.me || self.is_linked(id),
        }
    }

    /// Tells the application what is different from what it was told.
    fn tell_peers(&mut self, registered: Vec<Registered>) {
        let registered = registered.into_iter().filter(|m| m.id != self.me);
        let registered: BTreeMap<MemberId, String> =
            registered.map(|member| (member.id, member.name)).collect();
        let gone: Vec<MemberId> =
            self.alive.peers.keys().filter(|id| !registered.contains_key(id)).copied().collect();
        for id in gone {
            let Some(Known { mut peer, .. }) = self.alive.peers.remove(&id) else { continue };
            if mem::replace(&mut peer.state, State::Left) != State::Left {
                self.event(Event::Member { peer: Box::new(peer), change: MemberChange::Left });
            }
        }
        for (id, name) in registered {
            let before = self.alive.peers.get(&id);
            let Some(now) = self.known(id, name, before) else { continue };
            for change in changes(before, &now) {
                self.event(Event::Member { peer: Box::new(now.peer.clone()), change });
            }
            self.alive.peers.insert(id, now);
        }
    }

    /// What is to be told of a member. None: nothing more than before.
    fn known(&self, id: MemberId, name: String, before: Option<&Known>) -> Option<Known> {
        let (state, life) = match self.alive.opinion(id) {
            Some((state, life)) => (state, Some(life)),
            None if self.is_linked(id) => (State::Alive, None),
            None if before.is_some_and(|known| known.peer.state.is_present()) => {
                (State::Dead, None)
            }
            None => return None,
        };
        let profile = self.alive.gossip().and_then(|gossip| gossip.profile(id));
        let tags = profile.map_or_else(Vec::new, |profile| profile.tags);
        Some(Known { peer: Peer { id, name, state, tags }, life })
    }
}

/// What leads from what was told of a member to what is to be told, in order.
fn changes(before: Option<&Known>, now: &Known) -> Vec<MemberChange> {
    let state = now.peer.state;
    let Some(before) = before else {
        return match state {
            State::Alive => alloc::vec![MemberChange::Joined],
            State::Suspect => alloc::vec![MemberChange::Joined, MemberChange::Suspect],
            State::Dead => alloc::vec![MemberChange::Failed],
            State::Left => alloc::vec![MemberChange::Left],
        };
    };
    let mut changes = Vec::new();
    let was = before.peer.state;
    if state.is_present() && !was.is_present() {
        changes.push(MemberChange::Joined);
    } else if state.is_present() {
        let restarted = before.life.is_some() && now.life.is_some() && before.life != now.life;
        if restarted || before.peer.tags != now.peer.tags || before.peer.name != now.peer.name {
            changes.push(MemberChange::Updated);
        }
    }
    match state {
        State::Alive if was == State::Suspect => changes.push(MemberChange::Recovered),
        State::Suspect if was != State::Suspect => changes.push(MemberChange::Suspect),
        State::Dead if was != State::Dead => changes.push(MemberChange::Failed),
        State::Left if was != State::Left => changes.push(MemberChange::Left),
        State::Alive | State::Suspect | State::Dead | State::Left => {}
    }
    changes
}

/// What this member says of itself by gossip; none if it does not.
fn profile(config: &Config) -> Option<Profile> {
    let address = config.gossip?;
    Some(profile_at(config, address))
}

fn profile_at(config: &Config, address: SocketAddr) -> Profile {
    Profile {
        name: config.name.clone(),
        datagram: address,
        stream: address,
        weight: u32::from(config.weight),
        tags: config.tags.clone(),
    }
}

/// Checks how this member will gossip, and what it will say of itself, also if it does not: the same is right or wrong on
/// every member.
pub(super) fn validate(config: &Config) -> Result<(), ConfigError> {
    config.detector.check()?;
    let anywhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
    let profile = profile_at(config, config.gossip.unwrap_or(anywhere));
    profile.check().map_err(|error| {
        let field = match error {
            ProfileError::Address { .. } => "gossip",
            ProfileError::Name { .. } => "name",
            ProfileError::Tags { .. }
            | ProfileError::TagOrder { .. }
            | ProfileError::TooLarge { .. } => "tags",
        };
        ConfigError { field, problem: error.to_string() }
    })
}

/// The stream of the node's dice that is the failure detector's.
const GOSSIP: u64 = 2;
