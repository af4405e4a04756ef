//! Connections and the handshake: who may talk to this node, and over which connection.
//!
//! Of two members the one with the lower id dials first; a client dials every member. The dialler says `Hello`, the
//! other side `Welcome` or `Refuse`. A link is up only when the peer's start counter is durable here: otherwise a
//! peer whose disk was rolled back could be believed again after this member's own crash.
//!
//! Each member that the directory has is a *target*, dialled where the directory has it for as long as it is there. An
//! address that this node was told is a *seed*: it is dialled as long as that can lead to somebody who is not connected,
//! and no directory says better where to find him. What answers at one address takes nobody's place at another.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use crate::config::Timers;
use crate::genesis::Genesis;
use crate::ids::{Boot, ClusterId, ConnId, LogSeq, MemberId};
use crate::io::{Dial, Event, Output};
use crate::request::WINDOW;
use crate::request::message::Part;
use crate::time::Instant;
use crate::wire::message::{Hello, Identity, Message, Refusal, VERSION_MAX, VERSION_MIN, Welcome};

/// All connections of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Links {
    timers: Timers,
    strangers_max: usize,
    clients_max: usize,
    /// As many members that are not registered are let in as connections that have not shaken hands.
    guests_max: usize,
    conns: BTreeMap<ConnId, Conn>,
    up: BTreeMap<MemberId, ConnId>,
    /// Members that were connected once.
    reached: BTreeSet<MemberId>,
    /// By number, in the order in which they came.
    targets: BTreeMap<u64, Target>,
    next_target: u64,
    next_dial: u64,
    clients: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Conn {
    /// Which target it was dialled for, though that may be gone; none if it was accepted.
    target: Option<u64>,
    stage: Stage,
    /// When anything last came on it.
    heard: Instant,
    /// Which start of the peer's speaks on it, once it has said so.
    boot: Boot,
    /// Parts of requests that came before the link was up on this side, with their places, and what they weigh.
    early: Vec<(u64, Part)>,
    early_weight: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// The handshake must be over by then.
    Handshake {
        until: Instant,
    },
    /// Checked; up when this batch is durable.
    Pending {
        who: MemberId,
        seq: LogSeq,
        welcome: Option<Box<Welcome>>,
    },
    Up(MemberId),
}

/// An address that is dialled: where the directory has a member, of which there is one for each, or a *seed*, which this
/// node was told and where somebody may be, one after the other, or several.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Target {
    address: String,
    /// Who is to be there; none for a seed.
    member: Option<MemberId>,
    /// Who answered there last instead, or at all.
    found: Option<MemberId>,
    state: TargetState,
    backoff: Duration,
    /// Dials in a row that nobody answered.
    failures: u32,
    /// Dials in a row that led to no link.
    fruitless: u32,
    /// The link that it was dialled for was lost, and it was not dialled since.
    was_lost: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum TargetState {
    Idle { dial_at: Instant },
    Dialling(u64),
    Connected(ConnId),
}

impl Target {
    /// Who is there, as far as is known.
    fn who(&self) -> Option<MemberId> {
        self.member.or(self.found)
    }

    /// Is dialled after a while, and after a longer one the next time.
    fn wait(&mut self, now: Instant, redial_max: Duration) {
        self.state = TargetState::Idle { dial_at: now + self.backoff };
        self.backoff = (self.backoff * 2).min(redial_max);
    }
}

/// After so many dials in a row that led to no link a member is also looked for where it was found before.
const FRUITLESS: u32 = 3;

/// So many idle times without a sign of life break a link.
const SILENCE: u32 = 4;

/// A link that was lost, with both its ends alive, is up again within this: it is noticed on either side, and dialled.
pub(crate) fn flap(timers: &Timers) -> Duration {
    timers.election_max * SILENCE * 2 + timers.redial_max
}

/// What became of a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Handshake {
    /// The peer may talk.
    Accepted(Box<Accepted>),
    /// It may not.
    Refused { who: Option<MemberId>, reason: Refusal },
}

/// A peer that may talk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) who: Identity,
    /// Its start counter, if it is new and must be durable first.
    pub(crate) new_boot: Option<Boot>,
    /// What the dialled side said.
    pub(crate) welcome: Option<Welcome>,
}

/// What this node knows when it judges a peer.
pub(crate) struct Judge<'a> {
    /// What it would say of itself.
    pub(crate) me: &'a Identity,
    /// Members by id with name, and birth where it is agreed on.
    pub(crate) members: &'a BTreeMap<MemberId, (String, Option<u64>)>,
    /// The starts in which they were let in last.
    pub(crate) boots: &'a BTreeMap<MemberId, Boot>,
    /// Who was registered, and is not any more.
    pub(crate) former: &'a BTreeSet<MemberId>,
    /// A genesis that this node holds: whom it names may have founded the cluster.
    pub(crate) held: Option<&'a Genesis>,
}

impl Judge<'_> {
    /// True for a member that is not registered: it may talk, to ask for that.
    fn is_guest(&self, who: MemberId) -> bool {
        who.is_joiner() && !self.members.contains_key(&who)
    }

    fn is_held(&self, who: MemberId) -> bool {
        self.held.is_some_and(|held| held.founder(who).is_some())
    }

    fn judge(&self, who: &Identity, is_full: bool) -> Result<(), Refusal> {
        if who.cluster_name != self.me.cluster_name {
            return Err(Refusal::ClusterName { expected: self.me.cluster_name.clone() });
        }
        if let (Some(mine), Some(theirs)) = (self.me.cluster, who.cluster)
            && mine != theirs
        {
            return Err(Refusal::Cluster { expected: mine });
        }
        if who.ring != self.me.ring {
            return Err(Refusal::Ring);
        }
        if who.member == self.me.member {
            let is_me = (who.birth, who.boot) == (self.me.birth, self.me.boot);
            return Err(if is_me { Refusal::Itself } else { Refusal::Twin });
        }
        if who.member.is_client() {
            return if is_full { Err(Refusal::Full) } else { Ok(()) };
        }
        if self.me.member.is_client() {
            return Ok(());
        }
        let joins = |member: MemberId| member.is_joiner();
        let gathers =
            |one: &Identity| one.cluster.is_none() && joins(one.member) && one.agreement != 0;
        if gathers(who) && gathers(self.me) && who.agreement != self.me.agreement {
            return Err(Refusal::Agreement);
        }
        if !joins(who.member) && !joins(self.me.member) && who.agreement != self.me.agreement {
            return Err(Refusal::Agreement);
        }
        let Some((name, birth)) = self.members.get(&who.member) else {
            // A former member on a copy of its directory is not who has left: what it did since then is lost. So is what
            // one has promised that founds a cluster.
            if self.former.contains(&who.member) || self.is_held(who.member) {
                self.judge_start(who)?;
            }
            // Who is not registered yet may ask for it, once there is a cluster; whom a joiner finds it believes.
            let may_join = joins(who.member) && self.me.cluster.is_some();
            return match may_join || joins(self.me.member) {
                true if is_full => Err(Refusal::Full),
                true => Ok(()),
                false => Err(Refusal::Stranger),
            };
        };
        if *name != who.name {
            return Err(Refusal::Stranger);
        }
        // Until the founders have agreed nobody has promised anything, and a directory may be made anew.
        let Some(birth) = birth else { return Ok(()) };
        // Another birth than the founders agreed on: the directory is not the one that made promises.
        if *birth != who.birth {
            return Err(Refusal::Wiped);
        }
        self.judge_start(who)
    }

    fn judge_start(&self, who: &Identity) -> Result<(), Refusal> {
        match self.boots.get(&who.member) {
            Some(&seen) if who.boot.is_rolled_back_from(seen, &who.earlier) => {
                Err(Refusal::RolledBack { seen })
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl Links {
    pub(crate) fn new(timers: Timers, strangers_max: usize, clients_max: usize) -> Self {
        Self {
            timers,
            strangers_max,
            clients_max,
            guests_max: strangers_max,
            conns: BTreeMap::new(),
            up: BTreeMap::new(),
            reached: BTreeSet::new(),
            targets: BTreeMap::new(),
            next_target: 0,
            next_dial: 1,
            clients: 0,
        }
    }

    /// The address of a member is another now, or there is nothing to dial it for any more. A link that is up stays for as
    /// long as the other side keeps it.
    pub(crate) fn readdress(&mut self, now: Instant, member: MemberId, address: Option<&String>) {
        let Some(address) = address else {
            self.targets.retain(|_, target| target.member != Some(member));
            return;
        };
        let is_its = |target: &&mut Target| target.member == Some(member);
        let moved = |target: &&mut Target| !address.is_empty() && target.address != *address;
        let Some(target) = self.targets.values_mut().find(is_its).filter(moved) else { return };
        target.address.clone_from(address);
        target.backoff = self.timers.redial_min;
        // What is under way there does not count any more.
        let is_up = |conn| matches!(self.conns.get(&conn), Some(Conn { stage: Stage::Up(_), .. }));
        if !matches!(target.state, TargetState::Connected(conn) if is_up(conn)) {
            target.state = TargetState::Idle { dial_at: now };
        }
        // It may not be any more where it was found.
        for target in self.targets.values_mut().filter(|target| target.member.is_some()) {
            target.found = target.found.filter(|found| *found != member);
        }
    }

    /// Keeps a connection to this member, or to whoever is at this address, from then on.
    pub(crate) fn add_target(&mut self, at: Instant, member: Option<MemberId>, address: String) {
        let is_there = |target: &Target| match member {
            Some(_) => target.member == member,
            None => target.member.is_none() && target.address == address,
        };
        if self.targets.values().any(is_there) {
            return;
        }
        let target = Target {
            address,
            member,
            found: None,
            state: TargetState::Idle { dial_at: at },
            backoff: self.timers.redial_min,
            failures: 0,
            fruitless: 0,
            was_lost: false,
        };
        self.targets.insert(self.next_target, target);
        self.next_target += 1;
    }

    /// Whether a dial would reach nobody new: a second connection would only take the place of the one that is in use.
    fn is_needless(&self, number: u64, target: &Target) -> bool {
        let is_up = |who: Option<MemberId>| who.is_some_and(|who| self.up.contains_key(&who));
        if is_up(target.member) || is_up(target.found) {
            return true;
        }
        let idle = |other: &Target| matches!(other.state, TargetState::Idle { .. });
        let others = || self.targets.iter().filter(|(other, _)| **other != number);
        let is_served = |other: &Target| {
            other.address == target.address && (!idle(other) || is_up(other.member))
        };
        if others().any(|(_, other)| is_served(other)) {
            return true;
        }
        if target.member.is_some() {
            return false;
        }
        // A seed: where the directory has somebody, or the same one as an earlier seed, it need not be dialled, too.
        let is_listed = |address: &String| {
            let listed = |other: &Target| other.member.is_some() && other.address == *address;
            self.targets.values().any(listed)
        };
        is_listed(&target.address)
            || others().any(|(&other_number, other)| {
                let is_same = target.found.is_some() && other.who() == target.found;
                let is_tried = match other.member {
                    Some(_) => other.fruitless < FRUITLESS && !is_up(other.found),
                    None => other_number < number && !is_listed(&other.address),
                };
                is_same && is_tried
            })
    }

    /// Dials who is due, and closes handshakes that took too long.
    pub(crate) fn drive(&mut self, now: Instant, out: &mut Vec<Output>) {
        let is_due = |target: &Target| matches!(target.state, TargetState::Idle { dial_at } if dial_at <= now);
        let due = self.targets.iter().filter(|(_, target)| is_due(target));
        let due: Vec<u64> = due.map(|(&number, _)| number).collect();
        for number in due {
            let is_needless = self.is_needless(number, &self.targets[&number]);
            let Some(target) = self.targets.get_mut(&number) else { continue };
            if is_needless {
                target.state = TargetState::Idle { dial_at: now + self.timers.redial_max };
                continue;
            }
            let dial = self.next_dial;
            self.next_dial += 1;
            target.state = TargetState::Dialling(dial);
            if mem::take(&mut target.was_lost)
                && let Some(member) = target.who()
            {
                let address = target.address.clone();
                out.push(Output::Event(Event::PeerReconnecting { member, address }));
            }
            out.push(Output::Connect { dial: Dial(dial), address: target.address.clone() });
        }
        let late: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, conn)| matches!(conn.stage, Stage::Handshake { until } if until <= now))
            .map(|(&id, _)| id)
            .collect();
        for conn in late {
            self.drop_conn(now, conn);
            out.push(Output::Disconnect { conn });
        }
    }

    /// Something came on a connection.
    pub(crate) fn on_heard(&mut self, now: Instant, conn: ConnId) {
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.heard = now;
        }
    }

    /// Whether something came from this member after a moment, on the connection that is up.
    pub(crate) fn has_heard(&self, member: MemberId, after: Instant) -> bool {
        let conn = self.conn_of(member).and_then(|conn| self.conns.get(&conn));
        conn.is_some_and(|conn| conn.heard > after)
    }

    /// Links on which nothing has come for `idle`, and among them those silent for so long, although they were asked,
    /// that they are taken for broken.
    pub(crate) fn idle(&self, now: Instant, idle: Duration) -> Vec<(ConnId, bool)> {
        let up = self.conns.iter().filter(|(_, conn)| matches!(conn.stage, Stage::Up(_)));
        up.filter(|(_, conn)| now.since(conn.heard) >= idle)
            .map(|(&id, conn)| (id, now.since(conn.heard) >= idle * SILENCE))
            .collect()
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let dials = self.targets.values().filter_map(|target| match target.state {
            TargetState::Idle { dial_at } => Some(dial_at),
            TargetState::Dialling(_) | TargetState::Connected(_) => None,
        });
        let handshakes = self.conns.values().filter_map(|conn| match conn.stage {
            Stage::Handshake { until } => Some(until),
            Stage::Pending { .. } | Stage::Up(_) => None,
        });
        dials.chain(handshakes).min()
    }

    pub(crate) fn on_connected(
        &mut self,
        now: Instant,
        conn: ConnId,
        dial: Option<Dial>,
        me: &Identity,
        out: &mut Vec<Output>,
    ) {
        let target = match dial {
            None => None,
            Some(dial) => {
                let Some((number, target)) = self.target_of(dial) else {
                    out.push(Output::Disconnect { conn });
                    return;
                };
                target.state = TargetState::Connected(conn);
                Some(number)
            }
        };
        let strangers =
            self.conns.values().filter(|c| matches!(c.stage, Stage::Handshake { .. })).count();
        if target.is_none() && strangers >= self.strangers_max {
            out.push(Output::Disconnect { conn });
            return;
        }
        let until = now + self.timers.handshake;
        self.conns.insert(
            conn,
            Conn {
                target,
                stage: Stage::Handshake { until },
                heard: now,
                boot: Boot(0),
                early: Vec::new(),
                early_weight: 0,
            },
        );
        if target.is_some() {
            let hello =
                Hello { version_min: VERSION_MIN, version_max: VERSION_MAX, who: me.clone() };
            out.push(Output::Send { conn, message: Message::Hello(Box::new(hello)) });
        }
    }

    /// Nobody answers. Returns what to tell of it: the first time since somebody did.
    pub(crate) fn on_connect_failed(&mut self, now: Instant, dial: Dial) -> Option<Event> {
        let redial_max = self.timers.redial_max;
        let (_, target) = self.target_of(dial)?;
        target.wait(now, redial_max);
        target.failures = target.failures.saturating_add(1);
        target.fruitless = target.fruitless.saturating_add(1);
        let (member, address) = (target.who(), target.address.clone());
        target.found = None;
        (target.failures == 1).then_some(Event::PeerFailed { member, address })
    }

    /// A handshake's message. `None` when the connection is not shaking hands (any more).
    pub(crate) fn on_handshake(
        &mut self,
        conn: ConnId,
        message: &Message,
        judge: &Judge<'_>,
    ) -> Option<Handshake> {
        let state = self.conns.get(&conn)?;
        let Stage::Handshake { .. } = state.stage else { return None };
        let accepted = state.target.is_none();
        let (who, versions, welcome) = if let Message::Hello(hello) = message
            && accepted
        {
            (&hello.who, (hello.version_min, hello.version_max), None)
        } else if let Message::Welcome(welcome) = message
            && !accepted
        {
            (&welcome.who, (welcome.version, welcome.version), Some((**welcome).clone()))
        } else if let Message::Refuse(reason) = message
            && !accepted
        {
            let who = state.target.and_then(|number| self.targets.get(&number)?.who());
            return Some(Handshake::Refused { who, reason: reason.clone() });
        } else {
            // No other message is allowed before the handshake is over.
            return Some(Handshake::Refused { who: None, reason: Refusal::Stranger });
        };
        if versions.0 > VERSION_MAX || versions.1 < VERSION_MIN {
            let reason = Refusal::Version { min: VERSION_MIN, max: VERSION_MAX };
            return Some(Handshake::Refused { who: Some(who.member), reason });
        }
        let is_full = accepted && self.is_full_for(who.member, judge);
        if let Err(reason) = judge.judge(who, is_full) {
            return Some(Handshake::Refused { who: Some(who.member), reason });
        }
        let seen = judge.boots.get(&who.member).copied().unwrap_or_default();
        let founded = judge.members.get(&who.member).is_some_and(|(_, birth)| birth.is_some());
        let is_kept = founded || judge.is_held(who.member);
        let new_boot = (is_kept && who.boot != seen).then_some(who.boot);
        Some(Handshake::Accepted(Box::new(Accepted { who: who.clone(), new_boot, welcome })))
    }

    /// True when there is no room for one more like this one. What it has itself is given up for the new connection.
    fn is_full_for(&self, member: MemberId, judge: &Judge<'_>) -> bool {
        if member.is_client() {
            return self.clients >= self.clients_max;
        }
        let guests = self.conns.values().filter(|conn| match conn.stage {
            Stage::Pending { who, .. } | Stage::Up(who) => who != member && judge.is_guest(who),
            Stage::Handshake { .. } => false,
        });
        judge.is_guest(member) && guests.count() >= self.guests_max
    }

    /// At the address that was dialled there is this node itself. An address that is a member's is dialled on: the
    /// member may come back to it.
    pub(crate) fn on_dialled_itself(&mut self, conn: ConnId) {
        let Some(number) = self.conns.get(&conn).and_then(|conn| conn.target) else { return };
        if self.targets.get(&number).is_some_and(|target| target.member.is_none()) {
            self.targets.remove(&number);
        }
    }

    /// The address that was dialled for a connection.
    pub(crate) fn dialled(&self, conn: ConnId) -> Option<&str> {
        let number = self.conns.get(&conn)?.target?;
        Some(&self.targets.get(&number)?.address)
    }

    /// Nobody is dialled at this address any more, unless the directory has a member there.
    pub(crate) fn forget_seed(&mut self, address: &str) {
        let is_it = |target: &Target| target.member.is_none() && target.address == address;
        self.targets.retain(|_, target| !is_it(target));
    }

    /// Who answers at the address that was dialled.
    pub(crate) fn identify(&mut self, now: Instant, conn: ConnId, who: MemberId) {
        let Some(number) = self.conns.get(&conn).and_then(|conn| conn.target) else { return };
        let Some(target) = self.targets.get_mut(&number) else { return };
        if target.state != TargetState::Connected(conn) {
            return; // it is dialled elsewhere by now
        }
        target.found = Some(who).filter(|_| target.member != Some(who));
        if target.member.is_some_and(|member| member != who) {
            // It is another one's connection: this member may come back while that stays.
            target.state = TargetState::Idle { dial_at: now + self.timers.redial_max };
        }
    }

    /// The peer is believed once this batch is durable.
    pub(crate) fn hold(
        &mut self,
        conn: ConnId,
        (who, boot): (MemberId, Boot),
        seq: LogSeq,
        welcome: Option<Welcome>,
    ) {
        if let Some(state) = self.conns.get_mut(&conn) {
            state.boot = boot;
            let welcome = welcome.map(Box::new);
            state.stage = Stage::Pending { who, seq, welcome };
        }
    }

    /// Whether the peer is checked, and only what it said is not durable yet.
    pub(crate) fn is_pending(&self, conn: ConnId) -> bool {
        self.conns.get(&conn).is_some_and(|conn| matches!(conn.stage, Stage::Pending { .. }))
    }

    /// Keeps a part of a request that came on a connection which is pending: its peer takes it for up, and would send the part
    /// again only if the connection ended. False: that is more than its window lets it send.
    pub(crate) fn keep_early(&mut self, conn: ConnId, at: u64, part: Part) -> bool {
        let Some(state) = self.conns.get_mut(&conn) else { return true };
        if state.early_weight >= WINDOW {
            return false;
        }
        state.early_weight += part.weight();
        state.early.push((at, part));
        true
    }

    /// What was kept of a connection that is up now.
    pub(crate) fn take_early(&mut self, conn: ConnId) -> Vec<(u64, Part)> {
        self.conns.get_mut(&conn).map(|state| mem::take(&mut state.early)).unwrap_or_default()
    }

    /// Connections whose peer can be believed now.
    pub(crate) fn ready(&mut self, stored: LogSeq) -> Vec<(ConnId, MemberId, Option<Welcome>)> {
        let mut ready = Vec::new();
        for (&id, conn) in &self.conns {
            if let Stage::Pending { who, seq, welcome } = &conn.stage
                && *seq <= stored
            {
                ready.push((id, *who, welcome.as_deref().cloned()));
            }
        }
        ready
    }

    /// The link is up, unless the two have a better one. Returns the connection that is given up for the other: the
    /// one that the peer had so far, or this one.
    ///
    /// Of two that the same starts of both have, that of the lower id's dialling stays: each side for itself would
    /// otherwise keep the later one, which is another for each, and both would end, again and again.
    pub(crate) fn set_up(&mut self, me: MemberId, conn: ConnId, who: MemberId) -> Option<ConnId> {
        let dialled = |conn: &Conn| if conn.target.is_some() { me } else { who };
        let before = self.up.get(&who).and_then(|before| self.conns.get(before));
        let this = self.conns.get(&conn).expect("a ready connection exists");
        if before.is_some_and(|b| b.boot == this.boot && dialled(b) < dialled(this)) {
            return Some(conn);
        }
        let state = self.conns.get_mut(&conn).expect("a ready connection exists");
        state.stage = Stage::Up(who);
        if let Some(target) = state.target.and_then(|number| self.targets.get_mut(&number)) {
            target.backoff = self.timers.redial_min;
            (target.failures, target.fruitless) = (0, 0);
        }
        if who.is_client() {
            self.clients += 1;
        }
        if !who.is_client() {
            self.reached.insert(who);
        }
        self.up.insert(who, conn)
    }

    /// Forgets a connection. Returns the member to which it was the link.
    pub(crate) fn drop_conn(&mut self, now: Instant, conn: ConnId) -> Option<MemberId> {
        let state = self.conns.remove(&conn)?;
        if let Some(target) = state.target.and_then(|number| self.targets.get_mut(&number))
            && target.state == TargetState::Connected(conn)
        {
            if matches!(state.stage, Stage::Handshake { .. }) {
                // Whoever answers there does not let this node in, or is nobody that it looks for.
                target.fruitless = target.fruitless.saturating_add(1);
                target.found = None;
            }
            target.wait(now, self.timers.redial_max);
        }
        let Stage::Up(who) = state.stage else { return None };
        if who.is_client() {
            self.clients -= 1;
        }
        // A newer connection of the same peer stays.
        if self.up.get(&who) == Some(&conn) {
            self.up.remove(&who);
            for target in self.targets.values_mut() {
                if target.member.is_some() && target.found == Some(who) {
                    target.found = None; // where it comes back is to be seen
                }
                if target.who() != Some(who) {
                    continue;
                }
                target.was_lost = true;
                // Who has dialled dials again, though it may have been at a seed.
                if state.target.is_some()
                    && let TargetState::Idle { dial_at } = &mut target.state
                {
                    *dial_at = (*dial_at).min(now + target.backoff);
                }
            }
            return Some(who);
        }
        None
    }

    /// True for a member that was connected before.
    pub(crate) fn was_up(&self, member: MemberId) -> bool {
        self.reached.contains(&member)
    }

    /// Which start of the peer's speaks on a connection.
    pub(crate) fn boot_of(&self, conn: ConnId) -> Boot {
        self.conns.get(&conn).map_or(Boot(0), |conn| conn.boot)
    }

    pub(crate) fn conn_of(&self, member: MemberId) -> Option<ConnId> {
        self.up.get(&member).copied()
    }

    /// True when a connection to this member is up, or about to be.
    pub(crate) fn has_conn(&self, member: MemberId) -> bool {
        self.conns.values().any(|conn| match conn.stage {
            Stage::Pending { who, .. } | Stage::Up(who) => who == member,
            Stage::Handshake { .. } => false,
        })
    }

    /// Who speaks on a connection that is up.
    pub(crate) fn member_of(&self, conn: ConnId) -> Option<MemberId> {
        match self.conns.get(&conn)?.stage {
            Stage::Up(who) => Some(who),
            Stage::Handshake { .. } | Stage::Pending { .. } => None,
        }
    }

    /// How many addresses are dialled, or were.
    pub(crate) fn targets(&self) -> usize {
        self.targets.len()
    }

    pub(crate) fn connected(&self) -> impl Iterator<Item = MemberId> + '_ {
        self.up.keys().copied()
    }

    pub(crate) fn clients(&self) -> usize {
        self.clients
    }

    pub(crate) fn check(&self) {
        for (member, conn) in &self.up {
            let state = self.conns.get(conn).expect("a link's connection exists");
            assert_eq!(state.stage, Stage::Up(*member), "a link's connection is its member's");
        }
    }

    fn target_of(&mut self, dial: Dial) -> Option<(u64, &mut Target)> {
        let is_it = |target: &Target| target.state == TargetState::Dialling(dial.0);
        let found = self.targets.iter_mut().find(|(_, target)| is_it(target));
        found.map(|(&number, target)| (number, target))
    }
}

/// The version both sides speak, for the `Welcome`.
pub(crate) fn common_version(hello: &Hello) -> u16 {
    hello.version_max.min(VERSION_MAX)
}

/// Hash of what the founders must agree on: every name, the numbers of shards and replicas.
pub(crate) fn agreement(
    cluster: &str,
    members: &BTreeMap<MemberId, (String, Option<u64>)>,
    shards: u32,
    replication: u32,
) -> u64 {
    let mut text = Vec::new();
    for word in core::iter::once(cluster).chain(members.values().map(|(name, _)| name.as_str())) {
        text.extend_from_slice(word.as_bytes());
        // No name contains this byte: it is not valid in UTF-8.
        text.push(0xff);
    }
    text.extend_from_slice(&shards.to_le_bytes());
    text.extend_from_slice(&replication.to_le_bytes());
    twox_hash::XxHash64::oneshot(0, &text)
}

/// The same for those who find each other: how many they are, the numbers of shards and replicas. Never 0.
pub(crate) fn agreement_to_gather(
    cluster: &str,
    expect: usize,
    shards: u32,
    replication: u32,
) -> u64 {
    let mut text = Vec::from(cluster.as_bytes());
    text.push(0xff);
    text.extend_from_slice(&crate::ids::len_u64(expect).to_le_bytes());
    text.extend_from_slice(&shards.to_le_bytes());
    text.extend_from_slice(&replication.to_le_bytes());
    twox_hash::XxHash64::oneshot(1, &text).max(1)
}

/// The cluster's id: a hash over the founders' births, which each drew by itself.
pub(crate) fn cluster_id(name: &str, births: impl Iterator<Item = (MemberId, u64)>) -> ClusterId {
    let mut text = Vec::from(name.as_bytes());
    for (member, birth) in births {
        text.extend_from_slice(&member.0.to_le_bytes());
        text.extend_from_slice(&birth.to_le_bytes());
    }
    ClusterId(twox_hash::XxHash64::oneshot(0, &text))
}

#[cfg(test)]
mod tests;
