//! Connections, handshakes, the founding, and the messages of peers and clients.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use super::{Guest, Node};
use crate::founding::Step;
use crate::gathering::Gathering;
use crate::genesis::Genesis;
use crate::ids::{Boot, ConnId, GroupId, MemberId, ReplicaId, Seq, SessionId};
use crate::io::{Dial, Event, Halt, Output, Refused};
use crate::link::{Accepted, Handshake, Judge, agreement, agreement_to_gather, common_version};
use crate::raft::message::{Body, Replica};
use crate::storage::record::Record;
use crate::time::{Instant, Now};
use crate::wire::bounded::MEMBERS_MAX;
use crate::wire::message::{
    AskError, BeatOf, Founding as Said, Identity, Leave, MemberStatus, Message, Refusal, Welcome,
};

/// Most addresses that are dialled: those of all members, and as many more.
const TARGETS_MAX: usize = 2 * MEMBERS_MAX;

/// No command is longer: with its entry it must fit one message.
const COMMAND_BYTES_MAX: usize = 14 << 20;

impl Node {
    pub(super) fn on_connected(&mut self, now: Instant, conn: ConnId, dial: Option<Dial>) {
        if self.awake_at.is_some() || (self.config.client && dial.is_none()) {
            self.outputs.0.push(Output::Disconnect { conn });
            return;
        }
        let me = self.identity();
        self.links.on_connected(now, conn, dial, &me, &mut self.outputs.0);
    }

    pub(super) fn on_disconnected(&mut self, now: Instant, conn: ConnId) {
        self.requests.on_conn_lost(now, conn);
        if let Some(member) = self.links.drop_conn(now, conn) {
            self.router.on_disconnected(now, member);
            self.miss_link(now, member);
            if let Some(gathering) = &mut self.gathering {
                gathering.on_lost(member);
            }
            self.ready_due = true;
            let address = self.address_of(member);
            self.event(Event::PeerDisconnected { member, address });
        }
    }

    pub(super) fn on_message(&mut self, now: Instant, conn: ConnId, message: Message) {
        self.links.on_heard(now, conn);
        match self.links.member_of(conn) {
            // The side that was dialled is done with the handshake when it has said welcome; the dialler judges it
            // only then.
            Some(from) if let Message::Refuse(reason) = message => {
                if from.is_client() {
                    self.peer_fault(Some(from), "a client refused its member");
                } else {
                    self.on_refused(now, conn, Some(from), reason, false);
                }
            }
            Some(from) => {
                if let Some(message) = self.on_request_message(now, from, conn, message) {
                    self.on_peer_message(now, from, message);
                }
            }
            None if self.links.is_pending(conn)
                && let Message::Request { at, part } = message =>
            {
                if !self.links.keep_early(conn, at, part) {
                    self.peer_fault(None, "more requests at once than its window lets it send");
                    self.on_disconnected(now, conn);
                    self.outputs.0.push(Output::Disconnect { conn });
                }
            }
            None => self.on_handshake(now, conn, &message),
        }
    }

    fn address_of(&self, member: MemberId) -> Option<String> {
        let known = self.members.get(&member).map(|(_, address)| address.clone());
        known.filter(|address| !address.is_empty())
    }

    /// Dials these addresses, too, from now on: of members of this node's cluster, or of one that it is to join.
    ///
    /// # Errors
    /// [`Refused::Invalid`] for what is no address, [`Refused::Full`] when there are too many; nothing was changed.
    pub fn join(&mut self, now: Now, addresses: &[String]) -> Result<(), Refused> {
        if self.halted {
            return Err(Refused::Halted);
        }
        let is_address =
            |address: &String| !address.is_empty() && super::gather::is_address(address);
        if !addresses.iter().all(is_address) {
            return Err(Refused::Invalid { what: "an address that no member can have" });
        }
        if self.links.targets() + addresses.len() > TARGETS_MAX {
            let limit = crate::ids::len_u64(TARGETS_MAX);
            return Err(Refused::Full { what: "the list of addresses to dial", limit });
        }
        for address in addresses {
            self.links.add_target(now.instant, None, address.clone());
        }
        Ok(())
    }

    /// Tells whether a majority of the registered members is connected, when that has changed.
    pub(super) fn tell_ready(&mut self) {
        if !core::mem::take(&mut self.ready_due)
            || (self.is_up, self.config.client) == (false, false)
        {
            return;
        }
        let registered: Vec<MemberId> = match (&self.table, &self.genesis) {
            (Some(table), _) => table.members.iter().map(|member| member.id).collect(),
            (None, Some(genesis)) => genesis.members.iter().map(|founder| founder.id).collect(),
            (None, None) => return,
        };
        let is_here = |id: &&MemberId| **id == self.me || self.links.conn_of(**id).is_some();
        let is_ready = registered.iter().filter(is_here).count() * 2 > registered.len();
        if is_ready != self.is_ready {
            self.is_ready = is_ready;
            self.event(if is_ready { Event::Ready } else { Event::NotReady });
        }
    }

    /// A link that went silent is asked for a sign of life, and broken off if none comes: a network can lose a
    /// connection without telling either end.
    pub(super) fn keep_alive(&mut self, now: Instant) {
        for (conn, is_broken) in self.links.idle(now, self.config.timers.election_max) {
            if is_broken {
                self.on_disconnected(now, conn);
                self.outputs.0.push(Output::Disconnect { conn });
            } else {
                self.outputs.0.push(Output::Send { conn, message: Message::Ping });
            }
        }
    }

    fn on_handshake(&mut self, now: Instant, conn: ConnId, message: &Message) {
        let me = self.identity();
        let members = self.judged();
        let (boots, former) = (&self.boots, &self.former);
        let held = self.gathering.as_ref().and_then(Gathering::written);
        let judge = Judge { me: &me, members: &members, boots, former, held };
        match self.links.on_handshake(conn, message, &judge) {
            None => {}
            Some(Handshake::Refused { who, reason }) => {
                let by_us = !matches!(message, Message::Refuse(_));
                self.on_refused(now, conn, who, reason, by_us);
            }
            Some(Handshake::Accepted(accepted)) => {
                let Accepted { who, new_boot, welcome } = *accepted;
                // A client comes again when there is a cluster to tell it about.
                if who.member.is_client() && !self.may_tell_genesis() {
                    self.links.drop_conn(now, conn);
                    self.outputs.0.push(Output::Disconnect { conn });
                    return;
                }
                // Who has no cluster yet has no use for a link over which it learns of none.
                let is_unborn = self.me.is_joiner() && self.genesis.is_none();
                let gathers = self.gathering.is_some()
                    && (who.agreement != 0 || who.cluster.is_some())
                    && !who.member.is_client();
                if is_unborn
                    && !gathers
                    && welcome.as_ref().is_none_or(|welcome| welcome.genesis.is_none())
                {
                    self.links.drop_conn(now, conn);
                    self.outputs.0.push(Output::Disconnect { conn });
                    return;
                }
                let is_listed =
                    self.table.as_ref().is_some_and(|table| table.member(who.member).is_some());
                if !who.member.is_client() {
                    // Also of one that is registered: it may be forgotten while the link is up, and ask again.
                    let guest = Guest { name: who.name.clone(), birth: who.birth, boot: who.boot };
                    self.guests.insert(who.member, guest);
                }
                if who.member.is_joiner() && !is_listed {
                    // Not durable until it is registered: nobody has let it promise anything. The latest start
                    // counts: it is the one that may be given replicas.
                    self.boots.insert(who.member, who.boot);
                }
                // A client remembers nothing, and promises nothing that a peer's lost memory could break.
                if let Some(boot) = new_boot.filter(|_| !self.config.client) {
                    self.boots.insert(who.member, boot);
                    self.note_boot(who.member);
                }
                if who.member.is_founder() && self.me.is_founder() {
                    self.founding.on_birth(who.member, who.birth);
                    if self.genesis.is_none() {
                        self.boots.insert(who.member, who.boot);
                    }
                }
                // To the side that dialled the answer is still owed.
                let answer = if let Message::Hello(hello) = message {
                    let wants = who.member.is_client() || who.cluster.is_none();
                    let genesis = if wants { self.known_genesis() } else { None };
                    let version = common_version(hello);
                    Some(Welcome { version, who: me.clone(), genesis })
                } else {
                    self.links.identify(now, conn, who.member);
                    self.note_found_at(conn, who.member);
                    let genesis = welcome.and_then(|welcome| welcome.genesis);
                    if self.config.client {
                        self.learn_genesis(now, genesis);
                    } else if self.me.is_joiner() {
                        self.join_cluster(now, who.member, genesis);
                    }
                    None
                };
                // Also of a start that another connection has brought and that is not durable yet. A client has none.
                let is_client = who.member.is_client();
                let seq = if is_client { self.log.stored() } else { self.boots_at };
                self.links.hold(conn, (who.member, who.boot), seq, answer);
                self.open_ready_links(now);
            }
        }
    }

    /// Links whose peer's counter is durable by now are up.
    pub(super) fn open_ready_links(&mut self, now: Instant) {
        for (conn, member, answer) in self.links.ready(self.log.stored()) {
            let surplus = self.links.set_up(self.me, conn, member);
            // Who looks for others learns from it who is at the address that it dialled.
            if (surplus != Some(conn) || self.gathering.is_some())
                && let Some(welcome) = answer
            {
                self.outputs
                    .0
                    .push(Output::Send { conn, message: Message::Welcome(Box::new(welcome)) });
            }
            if let Some(surplus) = surplus {
                self.requests.on_conn_lost(now, surplus);
                self.links.drop_conn(now, surplus);
                self.outputs.0.push(Output::Disconnect { conn: surplus });
            }
            if surplus == Some(conn) {
                continue;
            }
            self.ready_due = true;
            let address = self.address_of(member);
            self.event(Event::PeerConnected { member, address });
            self.compare_views(now, member);
            self.requests.on_change();
            if self.founding.is_founded() || self.config.client {
                self.send(member, Message::TableVersion(self.table_version()));
            }
            self.gather_with(member);
            if member.is_founder() && self.me.is_founder() {
                let said = self.founding.say();
                self.send(member, Message::Founding(said));
                self.advance_founding(now);
            }
            // The side that was dialled has the link up as soon as it has said welcome, and sends what waited for it.
            for (at, part) in self.links.take_early(conn) {
                self.on_request_message(now, member, conn, Message::Request { at, part });
            }
        }
    }

    fn on_refused(
        &mut self,
        now: Instant,
        conn: ConnId,
        who: Option<MemberId>,
        reason: Refusal,
        by_us: bool,
    ) {
        let dialled = self.links.dialled(conn).map(String::from);
        let address = dialled.or_else(|| self.address_of(who?));
        if by_us {
            let message = Message::Refuse(reason.clone());
            self.outputs.0.push(Output::Send { conn, message });
        }
        let met_itself = reason == Refusal::Itself;
        if met_itself && !by_us {
            self.note_found_at(conn, self.me);
            // A name may lead to this node now and elsewhere next time: as long as it knows no other address it asks on.
            if self.table.is_some() {
                self.links.on_dialled_itself(conn);
            }
        }
        self.on_disconnected(now, conn);
        self.outputs.0.push(Output::Disconnect { conn });
        if !by_us && !self.config.client {
            match &reason {
                Refusal::RolledBack { seen } => self.halt(Halt::RolledBack { seen: *seen }),
                Refusal::Wiped => self.halt(Halt::Wiped),
                Refusal::Agreement if !self.founding.is_founded() => self.halt(Halt::Agreement),
                Refusal::Agreement
                | Refusal::Version { .. }
                | Refusal::ClusterName { .. }
                | Refusal::Cluster { .. }
                | Refusal::Stranger
                | Refusal::Full
                | Refusal::Twin
                | Refusal::Certificate
                | Refusal::Ring
                | Refusal::Itself => {}
            }
        }
        // One list of addresses may serve all members: that its own is among them is nothing to tell, unless another
        // member is to be there.
        let is_anothers = who.filter(|who| *who != self.me).is_some_and(|who| match &self.table {
            Some(table) => table.member(who).is_some(),
            None => self.members.contains_key(&who),
        });
        if !met_itself || (!by_us && is_anothers) {
            self.event(Event::PeerRefused { member: who, address, reason, by_us });
        }
    }

    /// A client learns the cluster from the first member that welcomes it.
    fn learn_genesis(&mut self, now: Instant, genesis: Option<Genesis>) {
        let Some(genesis) = genesis else { return };
        if self.genesis.is_some() {
            return;
        }
        for founder in &genesis.members {
            if !founder.address.is_empty() {
                self.links.add_target(now, Some(founder.id), founder.address.clone());
            }
            let named = (founder.name.clone(), founder.address.clone());
            self.members.insert(founder.id, named);
        }
        self.genesis = Some(genesis);
        self.come_up();
    }

    /// A member that joins takes the cluster's genesis for its own, durably, before it asks for anything.
    pub(super) fn join_cluster(&mut self, now: Instant, from: MemberId, genesis: Option<Genesis>) {
        let Some(genesis) = genesis.filter(|_| self.genesis.is_none()) else { return };
        if let Some(gathering) = &mut self.gathering {
            let step = gathering.on_cluster(from, genesis);
            return self.on_gathering_step(now, step);
        }
        self.take_genesis(&genesis);
        self.founding.join(genesis.clone());
        self.genesis = Some(genesis);
        self.keep_links(now);
    }

    /// The cluster that this member belongs to from now on becomes durable, with the starts of the founders that are
    /// connected: it may be given replicas, and hears none of them on a copy of its directory that lacks those.
    pub(super) fn take_genesis(&mut self, genesis: &Genesis) {
        for founder in &genesis.members {
            let named = (founder.name.clone(), founder.address.clone());
            self.members.insert(founder.id, named);
            // On another directory somebody else may have had its id.
            let guest = self.guests.get(&founder.id).filter(|guest| guest.birth == founder.birth);
            if let Some(guest) = guest {
                self.boots.insert(founder.id, guest.boot);
            }
            self.note_boot(founder.id);
        }
        self.records.push(Record::Genesis(genesis.clone()));
        self.records.push(Record::Founded);
        self.gathered.founded_at = Some(self.log.next_seq());
    }

    /// Whether this member durably belongs to a cluster that exists.
    fn may_tell_genesis(&self) -> bool {
        self.founding.is_founded() && self.gathered.founded_at.is_none()
    }

    /// The genesis, once the cluster exists; with the addresses that this member was configured with.
    pub(super) fn known_genesis(&self) -> Option<Genesis> {
        let mut genesis = self.genesis.clone().filter(|_| self.may_tell_genesis())?;
        for founder in &mut genesis.members {
            if let Some((_, address)) = self.members.get(&founder.id)
                && !address.is_empty()
            {
                founder.address.clone_from(address);
            }
        }
        Some(genesis)
    }

    fn identity(&self) -> Identity {
        let client = self.config.client;
        let (shards, replication) = (self.config.shards, self.config.replication);
        let cluster = &self.config.cluster;
        Identity {
            cluster_name: cluster.clone(),
            cluster: self.genesis.as_ref().map(|genesis| genesis.cluster),
            member: self.me,
            name: self.config.name.clone(),
            boot: if client { Boot(0) } else { self.boot },
            earlier: if client { Vec::new() } else { self.earlier.clone() },
            birth: if client { 0 } else { self.birth },
            agreement: if client {
                0
            } else if self.me.is_joiner() {
                let expect = self.config.expect.filter(|_| self.gathering.is_some());
                expect.map_or(0, |expect| {
                    agreement_to_gather(cluster, expect.into(), shards, replication)
                })
            } else {
                agreement(cluster, &self.founders(), shards, replication)
            },
            ring: crate::ring::parameters(),
        }
    }

    fn judged(&self) -> BTreeMap<MemberId, (String, Option<u64>)> {
        let births = self.genesis.as_ref().map(|genesis| &genesis.members);
        let birth = |id: &MemberId| {
            let listed = self.table.as_ref().and_then(|table| table.member(*id));
            let founder = births.and_then(|founders| founders.iter().find(|f| f.id == *id));
            listed.map(|listed| listed.birth).or_else(|| founder.map(|founder| founder.birth))
        };
        // A founder that was forgotten while it was away is no stranger: it may ask to be registered again.
        let founders =
            births.into_iter().flatten().map(|f| (f.id, (f.name.clone(), Some(f.birth))));
        let known = self.members.iter().map(|(&id, (name, _))| (id, (name.clone(), birth(&id))));
        founders.chain(known).collect()
    }

    /// Those whom the founders were configured with: members that join later are none of their agreement.
    fn founders(&self) -> BTreeMap<MemberId, (String, Option<u64>)> {
        match &self.genesis {
            Some(genesis) => {
                let all = genesis.members.iter();
                all.map(|f| (f.id, (f.name.clone(), Some(f.birth)))).collect()
            }
            None => self.judged(),
        }
    }

    /// A step of the founding, as far as this member can go.
    pub(super) fn advance_founding(&mut self, now: Instant) {
        if self.me.is_joiner() {
            return;
        }
        let (shards, replication) = (self.config.shards, self.config.replication);
        let name = self.config.cluster.clone();
        let step = self.founding.advance(&name, &self.members, shards, replication);
        self.on_founding_step(now, step);
    }

    pub(super) fn on_founding_step(&mut self, now: Instant, step: Step) {
        match step {
            Step::Wait => {}
            Step::Hold(genesis) => {
                self.genesis = Some(genesis.clone());
                self.records.push(Record::Genesis(genesis));
                let seen: Vec<MemberId> = self.boots.keys().copied().collect();
                for member in seen {
                    self.note_boot(member);
                }
                self.genesis_at = Some(self.log.next_seq());
            }
            Step::Founded => {
                self.records.push(Record::Founded);
                self.found_groups(now);
                self.come_up();
            }
            Step::Split(theirs) => self.halt(Halt::Contradiction {
                what: format!(
                    "another founder agreed on {theirs}: a directory was emptied while the cluster was being \
                     created; nothing has been stored yet, empty all members' directories and start again"
                ),
            }),
        }
    }

    /// What this member knows of the founding, to all: with each tick until everyone is done.
    pub(super) fn say_founding(&mut self) {
        let said = self.founding.say();
        for member in self.connected_members() {
            self.send(member, Message::Founding(said.clone()));
        }
    }

    pub(super) fn connected_members(&self) -> Vec<MemberId> {
        self.links.connected().filter(|member| !member.is_client()).collect()
    }

    fn on_founding(&mut self, now: Instant, from: MemberId, said: &Said) {
        if self.me.is_joiner() {
            return;
        }
        let step = self.founding.on_said(from, said);
        let was_told = said.founded;
        self.on_founding_step(now, step);
        self.advance_founding(now);
        // Who is not done yet hears from those who are.
        if !was_told && self.founding.is_founded() {
            let said = self.founding.say();
            self.send(from, Message::Founding(said));
        }
    }

    /// What a message breaks that its sender may not send.
    fn breach(&self, from: MemberId, message: &Message) -> Option<&'static str> {
        let of_member = matches!(
            message,
            Message::Raft(_)
                | Message::Beats(_)
                | Message::BeatAnswers(_)
                | Message::Founding(_)
                | Message::Register { .. }
                | Message::Leave { .. }
                | Message::Settled { .. }
                | Message::Sync(_)
                | Message::Gather(_)
        );
        if of_member && (from.is_client() || self.config.client) {
            return Some("a client spoke as a member");
        }
        if !from.is_client() {
            return None;
        }
        if matches!(message, Message::Table(_) | Message::ChangeRefused(_)) {
            return Some("a client told what the directory says");
        }
        // The directory's own commands come from its leader, by the way of its own calls.
        let writes = matches!(
            message,
            Message::Open { group: GroupId::DIRECTORY, .. }
                | Message::Propose { group: GroupId::DIRECTORY, .. }
        );
        writes.then_some("a client wrote to the directory")
    }

    pub(super) fn on_peer_message(&mut self, now: Instant, from: MemberId, message: Message) {
        if let Some(what) = self.breach(from, &message) {
            self.peer_fault(Some(from), what);
            return;
        }
        match message {
            // Repeated or late: the handshake is over.
            Message::Hello(_) | Message::Welcome(_) | Message::Refuse(_) | Message::Pong => {}
            // Taken with their connection.
            Message::Request { .. }
            | Message::RequestsTaken { .. }
            | Message::RequestsSent { .. }
            | Message::StreamCredit { .. } => {}
            Message::Ping => self.send(from, Message::Pong),
            Message::Founding(said) => self.on_founding(now, from, &said),
            Message::Gather(said) => self.on_gather(now, from, *said),
            Message::Raft(message) if self.is_void(from, message.group, message.from) => {}
            Message::Raft(message) => {
                self.with_group(now, message.group, |group, fx| {
                    group.raft.on_message(now, from, message, fx);
                });
            }
            Message::Beats(beats) => {
                for beat in beats {
                    self.on_beat(now, from, beat, Body::Beat);
                }
            }
            Message::BeatAnswers(answers) => {
                for answer in answers {
                    self.on_beat(now, from, answer, Body::BeatAnswer);
                }
            }
            Message::Open { group, nonce } => self.on_open(from, group, nonce),
            Message::Propose { group, session, first, commands } => {
                if group != GroupId::DIRECTORY {
                    self.transfers.on_call(now);
                }
                self.on_propose(from, group, session, first, commands);
            }
            Message::Opened { group, nonce, session } => {
                self.router.on_opened(now, from, group, nonce, session);
            }
            Message::Proposed { group, session, outcomes } => {
                self.router.on_proposed(now, group, session, outcomes, &mut self.outputs.0);
            }
            Message::NotLeader { group, hint } => {
                // Without a link to the leader the same question would go round in circles.
                let hint = hint.filter(|&hint| self.links.conn_of(hint).is_some());
                self.router.on_not_leader(now, from, group, hint);
            }
            Message::Busy { group } => self.router.on_busy(now, from, group),
            Message::Ask { call, group, query, linearizable } => {
                self.transfers.on_call(now);
                self.on_ask(now, from, call, group, query, linearizable);
            }
            Message::Answer { call, result } => self.on_answer(now, from, call, result),
            Message::LocalAnswer { call, answer, age } => {
                self.router.on_local_answer(now, from, call, answer, age, &mut self.outputs.0);
            }
            Message::AskStatus { call, leave } => {
                if leave != Leave::No {
                    self.leave(leave == Leave::Forced);
                }
                let status = self.status(now);
                self.send(from, Message::Status { call, status: Box::new(status) });
            }
            Message::Status { call, status } => {
                self.router.on_status(call, status, &mut self.outputs.0);
            }
            Message::Sync(message) => self.on_sync(now, from, message),
            Message::Table(_)
            | Message::TableVersion(_)
            | Message::Register { .. }
            | Message::Leave { .. }
            | Message::Settled { .. }
            | Message::ChangeRefused(_) => self.on_directory_message(now, from, message),
        }
    }

    fn on_beat<T>(
        &mut self,
        now: Instant,
        from: MemberId,
        beat: BeatOf<T>,
        body: impl FnOnce(T) -> Body,
    ) {
        let (group, to, term) = (beat.group, beat.to, beat.term);
        if self.is_void(from, group, beat.from) {
            return;
        }
        let body = body(beat.beat);
        let message = crate::raft::message::Message { group, from: beat.from, to, term, body };
        self.with_group(now, group, |group, fx| group.raft.on_message(now, from, message, fx));
    }

    /// Whether a replica is one that the directory names no more.
    fn is_void(&self, member: MemberId, group: GroupId, id: ReplicaId) -> bool {
        let replica = Replica { id, member };
        self.table.as_ref().is_some_and(|table| table.is_void(group, replica))
    }

    fn on_open(&mut self, from: MemberId, id: GroupId, nonce: u64) {
        let bytes_max = self.room_for(id);
        let Some(group) = self.groups.get_mut(&id).filter(|group| group.raft.is_leader()) else {
            self.answer_not_leader(from, id);
            return;
        };
        if !group.stage_open(from, nonce, bytes_max) {
            self.send(from, Message::Busy { group: id });
        }
        self.dirty.insert(id);
    }

    fn on_propose(
        &mut self,
        from: MemberId,
        id: GroupId,
        session: SessionId,
        first: Seq,
        commands: Vec<(Seq, Bytes)>,
    ) {
        let bytes_max = self.room_for(id);
        let Some(group) = self.groups.get_mut(&id).filter(|group| group.raft.is_leader()) else {
            self.answer_not_leader(from, id);
            return;
        };
        for command in commands {
            if command.1.len() > COMMAND_BYTES_MAX {
                self.peer_fault(Some(from), "a command that no append could carry");
                break;
            }
            if !group.stage_command(from, session, first, command, bytes_max) {
                // The rest would leave a gap; all that is not answered comes again.
                self.send(from, Message::Busy { group: id });
                break;
            }
        }
        self.dirty.insert(id);
    }

    /// How many bytes of proposals a group may hold, given what the others do.
    fn room_for(&self, id: GroupId) -> usize {
        let own = self.groups.get(&id).map_or(0, |group| group.counted_waiting);
        // What the own disk has not stored counts too: a quorum of others commits without it, and nothing else
        // would ever slow the callers down.
        let unstored = usize::try_from(self.unstored_bytes).unwrap_or(usize::MAX);
        let held = (self.proposals_bytes - own).saturating_add(unstored.saturating_sub(own));
        self.config.limits.proposal_bytes.saturating_sub(held)
    }

    fn answer_not_leader(&mut self, to: MemberId, group: GroupId) {
        let leader = self.groups.get(&group).and_then(|group| group.raft.leader());
        let hint = leader.map(|leader| leader.member).filter(|&member| member != self.me);
        self.send(to, Message::NotLeader { group, hint });
    }

    fn on_answer(
        &mut self,
        now: Instant,
        from: MemberId,
        call: u64,
        result: Result<crate::shard::command::Answer, AskError>,
    ) {
        let (genesis, router) = (&self.genesis, &self.router);
        let known: BTreeMap<GroupId, (Vec<MemberId>, Option<MemberId>)> = match &result {
            Ok(crate::shard::command::Answer::Info(info)) => {
                let id = info.group;
                let local = self.groups.get(&id).and_then(|group| group.raft.leader());
                let leader = local.map(|leader| leader.member).or_else(|| router.leader(id));
                let assigned = self.table.as_ref().and_then(|table| table.group(id));
                let first = || genesis.as_ref().map_or(Vec::new(), |g| g.membership(id).voters);
                let voters = assigned.map_or_else(first, |assignment| assignment.voters.clone());
                let mut replicas: Vec<MemberId> = voters.iter().map(|r| r.member).collect();
                replicas.sort_unstable();
                BTreeMap::from([(id, (replicas, leader))])
            }
            Ok(_) | Err(_) => BTreeMap::new(),
        };
        let describe = |group| known.get(&group).cloned().unwrap_or_default();
        self.router.on_answer(now, from, call, result, &mut self.outputs.0, describe);
    }

    /// Sends a message to a member or client; to this node itself by a short cut. Dropped if there is no link.
    pub(super) fn send(&mut self, to: MemberId, message: Message) {
        if to == self.me {
            self.local.push_back(message);
        } else if let Some(conn) = self.links.conn_of(to) {
            self.outputs.0.push(Output::Send { conn, message });
        }
    }

    pub(super) fn peer_fault(&mut self, member: Option<MemberId>, what: &'static str) {
        self.peer_faults += 1;
        self.event(Event::PeerFault { member, address: None, what });
    }

    pub(super) fn status(&self, now: Instant) -> MemberStatus {
        MemberStatus {
            member: self.me,
            name: self.config.name.clone(),
            boot: self.boot,
            uptime: u64::try_from(now.since(self.started).as_nanos()).unwrap_or(u64::MAX),
            connected: self.connected_members(),
            clients: crate::ids::len_u64(self.links.clients()),
            log_bytes: self.log.bytes(),
            groups: self.groups.iter().map(|(&id, group)| group.status(id)).collect(),
            tags: self.config.tags.clone(),
            members: self.alive.peers().map(|peer| (peer.id, peer.state)).collect(),
            stays: self.stays,
        }
    }
}
