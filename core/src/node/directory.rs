//! The node's part in the directory: it takes the newest table it is told of, does what the table asks of its
//! replicas and of the groups it leads, and, while it leads the directory's group, gives the orders.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::OnceCell;

use bytes::Bytes;

use super::{Departure, Node};
use crate::directory::{
    Ask, Assignment, Change, ChangeRefused, Duty, Registration, Standing, Step, Table,
};
use crate::genesis::Genesis;
use crate::ids::{GroupId, LogSeq, MemberId, RequestId, Revision, Term};
use crate::io::{Event, Output};
use crate::ring::ShardPlacement;
use crate::router::Own;
use crate::shard::command::{Command, Expect, Query};
use crate::storage::Recovered;
use crate::storage::record::Record;
use crate::store::StoreTask;
use crate::time::Instant;
use crate::wire::message::{AskError, Message};

/// The partition of the directory's group that holds the table, and its key.
const PARTITION: &[u8] = b"directory";
const KEY: &[u8] = b"table";
/// The call with which the director reads the table, and the one with which it writes it; numbers follow.
const READ: u64 = 0;
const WRITE: u64 = 1;
/// Most bytes of a name and of an address.
pub(super) const TEXT_MAX: usize = 255;

impl Node {
    /// With each tick: what was asked for and is not in the table yet is asked for again, and the groups that this
    /// member leads go on with their orders.
    pub(super) fn directory_tick(&mut self, now: Instant) {
        if self.config.client {
            return;
        }
        self.note_presence(now);
        self.ask_to_be_registered();
        self.follow_orders(now);
        self.directory_due = true;
    }

    /// Now and then one peer is told which table this node has, so that a table that was lost on its way is noticed.
    pub(super) fn compare_tables(&mut self) {
        self.forget_guests();
        let peers = self.connected_members();
        let len = crate::ids::len_u64(peers.len());
        if len > 0 {
            let peer = peers[crate::ids::len_usize(self.rng.below(len))];
            self.send(peer, Message::TableVersion(self.table_version()));
        }
    }

    /// What is known of members that are neither registered nor connected is forgotten: whoever comes on ever new
    /// directories must not fill the memory and the log's checkpoints. They have promised nothing that counts.
    fn forget_guests(&mut self) {
        let (links, table, former) = (&self.links, &self.table, &self.former);
        let is_listed = |id: MemberId| table.as_ref().is_some_and(|t| t.member(id).is_some());
        self.guests.retain(|&id, _| links.has_conn(id));
        if table.is_some() {
            let genesis = self.genesis.as_ref();
            let is_founder = |id| genesis.is_some_and(|genesis| genesis.founder(id).is_some());
            self.boots.retain(|&id, _| {
                let is_known = is_listed(id) || is_founder(id) || former.contains(&id);
                !id.is_joiner() || links.has_conn(id) || is_known
            });
        }
    }

    pub(super) fn table_version(&self) -> u64 {
        self.table.as_ref().map_or(0, |table| table.version)
    }

    /// Who has no link to the director is away, whatever gossip says: replicas live by links, and what cannot be reached
    /// for so long that it is replaced is of no use. Where only these two cannot reach each other that moves more than it had
    /// to, and loses nothing.
    fn note_presence(&mut self, now: Instant) {
        self.director.on_lead(self.directory_term());
        let Some(table) = self.table.as_ref().filter(|_| self.director.leads()) else { return };
        for member in &table.members {
            let is_here = member.id == self.me || self.links.conn_of(member.id).is_some();
            self.director.on_presence(now, member.id, is_here);
        }
    }

    /// The term in which this node leads the directory's group, if it does.
    fn directory_term(&self) -> Option<Term> {
        let raft = self.groups.get(&GroupId::DIRECTORY).map(|group| &group.raft);
        raft.filter(|raft| raft.is_leader()).map(|raft| raft.term())
    }

    /// A step of the director, if this node leads the directory's group. What it asks is asked like any call.
    pub(super) fn drive_director(&mut self, now: Instant) {
        self.directory_due = false;
        // Who is there is known before anything is judged by it.
        self.note_presence(now);
        if !self.director.leads() {
            return;
        }
        let Some(genesis) = &self.genesis else { return };
        self.director.drive(now, |table| placed(table, genesis));
        for (member, reason) in self.director.take_refused() {
            self.send(member, Message::ChangeRefused(reason));
        }
        let Some(ask) = self.director.take_ask() else { return };
        let deadline = now + self.config.timers.retry * 10;
        let number = self.next_own << 1;
        self.next_own += 1;
        let (partition, key) = (Bytes::from_static(PARTITION), Bytes::from_static(KEY));
        let group = GroupId::DIRECTORY;
        match ask {
            Ask::Read => {
                let request = RequestId::internal(number | READ);
                self.own_asked = Some(request);
                let query = Query::Get { partition, key };
                self.router.query(now, request, deadline, group, query, true);
            }
            Ask::Write { value, on } => {
                let request = RequestId::internal(number | WRITE);
                self.own_asked = Some(request);
                let (expect, value) = (Expect::Revision(on), Some(Bytes::from(value)));
                let command = Command::CompareAndSet { partition, key, expect, value };
                self.router.write(now, request, deadline, group, &command);
            }
        }
    }

    /// Answers to what the director asked. What it asked before it ceased to lead and leads again may be answered only
    /// now, and says nothing about what it has asked since: taken for that, an earlier write would pass off a table
    /// that was never written as the directory.
    pub(super) fn on_own_answers(&mut self, now: Instant) {
        for (request, answer) in self.router.take_own() {
            if self.own_asked != Some(request) {
                continue;
            }
            self.own_asked = None;
            if request.0 & WRITE == 0 {
                let read = match answer {
                    Own::Value(None) => {
                        self.genesis.as_ref().map(Table::of_genesis).map(|t| (t, Revision(0)))
                    }
                    Own::Value(Some((bytes, revision))) => match Table::decode(&bytes) {
                        Ok(table) => Some((table, revision)),
                        Err(what) => {
                            self.peer_fault(None, what);
                            None
                        }
                    },
                    Own::Swapped(_) | Own::Failed => None,
                };
                if let Some((table, _)) =
                    read.as_ref().filter(|(_, revision)| *revision > Revision(0))
                {
                    self.take_table(now, table.clone());
                }
                self.director.on_read(read);
                self.director.on_version(self.table_version());
            } else {
                let revision = match answer {
                    Own::Swapped(revision) => Some(revision),
                    Own::Value(_) | Own::Failed => None,
                };
                if let Some(table) = self.director.on_written(revision) {
                    self.take_table(now, table);
                }
            }
            self.directory_due = true;
        }
    }

    /// What peers say about the directory. To any other message it does nothing.
    pub(super) fn on_directory_message(&mut self, now: Instant, from: MemberId, message: Message) {
        if let Message::Table(table) = message {
            self.on_table(now, from, table);
        } else if let Message::TableVersion(version) = message {
            self.on_table_version(from, version);
        } else if let Message::Register { address, weight } = message {
            if let Some(registration) = self.registration(from, address, weight) {
                self.on_change(from, Change::Register(registration));
            }
        } else if let Message::Leave { force } = message {
            self.on_change(from, Change::Leave { member: from, force });
        } else if let Message::Settled { group, order } = message {
            self.on_change(from, Change::Settle { group, order });
        } else if let Message::ChangeRefused(reason) = message {
            // Answers to a leave; what else is refused was asked for before. One that came to be forced is not refused
            // for what force is for.
            let is_answer = match self.departure {
                Departure::Leaves { force } => {
                    reason == ChangeRefused::LastMember
                        || (reason == ChangeRefused::NoMajority && !force)
                }
                Departure::Stays | Departure::Left => false,
            };
            if is_answer {
                self.departure = Departure::Stays;
                self.stays = Some(reason);
            }
            // Who has left asks for nothing any more but to be forgotten.
            if self.departure != Departure::Left {
                self.event(Event::ChangeRefused { reason });
            }
        }
    }

    /// A member asks the director for something.
    fn on_change(&mut self, from: MemberId, change: Change) {
        if self.director.leads() {
            self.director.ask(change);
            self.directory_due = true;
        } else if matches!(change, Change::Settle { .. }) {
            // It is repeated, to whoever leads then.
        } else {
            // Who asks the wrong one learns whom to ask, if it does not know that yet.
            self.send(from, Message::TableVersion(self.table_version()));
        }
    }

    /// A peer's table. It is believed from founders and from who is registered, be it in this very table: a member that
    /// was just born, or was away while all others were replaced, knows none of those who could tell it. Who is not
    /// registered has nothing to tell (see [`Node::on_table_version`]), and could name whomever it likes.
    fn on_table(&mut self, now: Instant, from: MemberId, table: Table) {
        // A member whose genesis a crash has taken may hear of the directory before it has the genesis again.
        let Some(genesis) = &self.genesis else { return };
        if !table.is_of(genesis) {
            return self.peer_fault(Some(from), "a directory that is not this cluster's");
        }
        let is_listed = |table: &Table| table.member(from).is_some();
        let is_known =
            genesis.founder(from).is_some() || self.table.as_ref().is_some_and(is_listed);
        if !is_known && !is_listed(&table) {
            return self.peer_fault(Some(from), "a directory from a member that is in none");
        }
        self.take_table(now, table);
    }

    /// True when others believe what this node says of the directory.
    fn may_tell(&self) -> bool {
        let is_listed = self.table.as_ref().is_some_and(|table| table.member(self.me).is_some());
        is_listed || self.has_founded(self.me)
    }

    /// True for those whom the cluster's genesis names.
    pub(super) fn has_founded(&self, id: MemberId) -> bool {
        self.genesis.as_ref().is_some_and(|genesis| genesis.founder(id).is_some())
    }

    /// A peer's word of which table it has. Clients, and members that are not registered, only ask.
    pub(super) fn on_table_version(&mut self, from: MemberId, version: u64) {
        match &self.table {
            Some(table) if table.version > version && self.may_tell() => {
                let table = table.clone();
                self.send(from, Message::Table(table));
            }
            _ if self.table_version() < version => {
                self.send(from, Message::TableVersion(self.table_version()));
            }
            _ => {}
        }
    }

    /// Takes a table if it is newer than the one this node has; tells the others if this node leads the directory.
    pub(super) fn take_table(&mut self, now: Instant, table: Table) {
        if table.version <= self.table_version() || !table.is_sound() {
            return;
        }
        if self.director.leads() {
            let peers: Vec<MemberId> = self.links.connected().collect();
            for peer in peers {
                self.send(peer, Message::Table(table.clone()));
            }
        }
        self.event(Event::DirectoryChanged { table: Box::new(table.clone()) });
        if !self.config.client {
            // Before anything that follows from it: a member that knew an older one after its next start could make a
            // replica under an id that it had and dropped.
            self.record_table(&table);
        }
        self.director.on_version(table.version);
        self.directory_due = true;
        self.ring_due = true;
        self.ready_due = true;
        let before = self.table.replace(table);
        self.take_members(now, before.as_ref());
        if !self.config.client {
            self.do_duties(now);
            self.follow_orders(now);
        }
        self.note_departure();
    }

    /// A batch holds one table, however many came in one turn: the newest, in the place of the first. It is durable as a
    /// whole or not at all, so nothing that followed from an earlier one stands in it without this.
    fn record_table(&mut self, table: &Table) {
        let staged = self.records.iter_mut().find_map(|record| match record {
            Record::Table(staged) => Some(staged),
            Record::Birth { .. }
            | Record::Genesis(_)
            | Record::Founded
            | Record::Released
            | Record::Boot(_)
            | Record::PeerBoot { .. }
            | Record::Vote { .. }
            | Record::Entries { .. }
            | Record::Cut { .. }
            | Record::Checkpoint(_)
            | Record::Replica { .. }
            | Record::Dropped { .. } => None,
        });
        match staged {
            Some(staged) => **staged = table.clone(),
            None => self.records.push(Record::Table(Box::new(table.clone()))),
        }
    }

    /// Names, addresses and links follow the table.
    fn take_members(&mut self, now: Instant, before: Option<&Table>) {
        let table = self.table.clone().expect("just taken");
        for member in before.iter().flat_map(|table| &table.members) {
            // Founders are dialled on: they cannot ask to be let in again, or hear that they have left, where the
            // other side dials. What is known of them stands in the genesis.
            if table.member(member.id).is_none() && !self.has_founded(member.id) {
                self.members.remove(&member.id);
                self.links.readdress(now, member.id, None);
            }
            if table.member(member.id).is_none() && member.id.is_joiner() {
                self.former.insert(member.id);
            }
        }
        self.former.retain(|&id| table.member(id).is_none());
        while self.former.len() > FORMER_MAX {
            self.former.pop_first();
        }
        for member in &table.members {
            let known = self.members.get(&member.id).map(|(_, address)| address);
            if known.is_some_and(|known| !known.is_empty() && member.address.is_empty()) {
                continue; // a founder that was named to this node only
            }
            let is_new = known.is_none();
            self.members.insert(member.id, (member.name.clone(), member.address.clone()));
            self.links.readdress(now, member.id, Some(&member.address));
            if is_new && !self.config.client {
                self.note_boot(member.id);
            }
        }
        self.keep_links(now);
        let me = self.me;
        let listed = |table: &Table| table.member(me).is_some();
        // One of the cluster's for the first time: a founder was from the beginning, and one that starts again is
        // when it wakes.
        if self.me.is_joiner() && !self.is_up && listed(&table) {
            self.come_up();
        }
    }

    /// A member's start is remembered from the moment when it may be given replicas, or founds a cluster with this member.
    pub(super) fn note_boot(&mut self, member: MemberId) {
        if let Some(&boot) = self.boots.get(&member) {
            self.records.push(Record::PeerBoot { member, boot });
            self.boots_at = self.log.next_seq();
        }
    }

    /// Makes and drops replicas as the table says.
    pub(super) fn do_duties(&mut self, now: Instant) {
        if !self.founding.is_founded() || self.awake_at.is_some() {
            return;
        }
        let Some(table) = self.table.clone() else { return };
        let Some(genesis) = self.genesis.clone() else { return };
        let layout = OnceCell::new();
        for assignment in &table.groups {
            let id = assignment.group;
            // What is being dropped is made anew only when the store is done with it.
            if self.dropping.contains(&id) {
                continue;
            }
            let held = self.groups.get(&id).map(|group| group.raft.id());
            match table.duty(id, self.me, held) {
                Duty::Keep => {}
                Duty::Drop => self.drop_replica(id),
                Duty::Make(_) if held.is_some() => self.drop_replica(id),
                // Its application may end any moment: who has left promises nothing any more.
                Duty::Make(_) if self.departure == Departure::Left => {}
                Duty::Make(replica) => {
                    // Before its first entry a group's membership is that of the genesis; this replica learns of
                    // its own part from the log, or with a snapshot.
                    let layout = layout.get_or_init(|| genesis.layout());
                    self.records.push(Record::Replica { group: id, replica });
                    self.add_new_group(now, id, replica, layout);
                }
            }
        }
    }

    /// Forgets a replica: nothing that it promised can be needed any more. Its state goes only when the log durably says
    /// so: a log that was cut and has no state left contradicts itself.
    pub(super) fn drop_replica(&mut self, id: GroupId) {
        let Some(mut group) = self.groups.remove(&id) else { return };
        self.deadlines.remove(&(group.raft.deadline(), id));
        self.persist.memory_bytes -= group.counted_bytes;
        self.proposals_bytes -= group.counted_waiting;
        self.dirty.remove(&id);
        for groups in self.unstored.values_mut() {
            groups.remove(&id);
        }
        for held in self.held.values_mut() {
            held.retain(|(_, message)| !matches!(message, Message::Raft(raft) if raft.group == id));
        }
        // It says nothing more, not even what it might: its end comes first in this turn's batch.
        self.outputs.0.retain(|output| {
            !matches!(output, Output::Send { message: Message::Raft(raft), .. } if raft.group == id)
        });
        // Its own records of this turn would follow its end in the log.
        self.records.retain(|record| record.group() != Some(id));
        self.records.push(Record::Dropped { group: id });
        for member in group.drop_waiters() {
            self.send(member, Message::NotLeader { group: id, hint: None });
        }
        let asked: Vec<_> = self
            .reads
            .iter()
            .filter(|(_, read)| read.is_waiting_for(id))
            .map(|(&id, _)| id)
            .collect();
        for read in asked {
            let read = self.reads.remove(read).expect("just listed");
            let result = Err(AskError::NotReplica);
            self.send(read.asker, Message::Answer { call: read.call, result });
        }
        for snapshot in self.transfers.end_group(id) {
            self.outputs.0.push(Output::Store(StoreTask::CloseSnapshot { id: snapshot }));
        }
        self.beats_forget(id);
        self.store.remove(&id);
        self.dropping.insert(id);
        self.drops.push_back((self.log.next_seq(), id));
        self.event(Event::LeaderChanged { group: id, term: group.raft.term(), leader: None });
    }

    /// The log says durably which replicas are gone: the store may forget them.
    pub(super) fn drop_states(&mut self, upto: LogSeq) {
        while let Some(&(seq, group)) = self.drops.front()
            && seq <= upto
        {
            self.drops.pop_front();
            self.outputs.0.push(Output::Store(StoreTask::Drop { group }));
        }
    }

    /// The store has forgotten a group: what the table gives this member of it can be made now.
    pub(super) fn on_dropped(&mut self, now: Instant, group: GroupId) {
        self.dropping.remove(&group);
        self.do_duties(now);
        self.note_departure();
    }

    /// A member that was told to go has gone when it is not registered, and what it held is forgotten. It may never
    /// have been registered, or not know that it is by now: what it may have asked for is taken back, and again as often
    /// as it finds itself registered. It takes no replicas then; if it is not there any more, the cluster takes it for
    /// lost later, and nothing is lost with it.
    fn note_departure(&mut self) {
        let is_gone = self.table.as_ref().is_some_and(|table| table.member(self.me).is_none());
        let holds = !self.groups.is_empty() || !self.dropping.is_empty();
        let leaves = matches!(self.departure, Departure::Leaves { .. });
        if leaves && !self.config.client && is_gone && !holds {
            self.departure = Departure::Left;
            self.tell_directory(Message::Leave { force: false });
            self.event(Event::Left);
        }
    }

    fn beats_forget(&mut self, id: GroupId) {
        for beats in self.beats.values_mut() {
            beats.retain(|beat| beat.group != id);
        }
        for answers in self.beat_answers.values_mut() {
            answers.retain(|answer| answer.group != id);
        }
    }

    /// The groups that this member leads take the next step of their orders.
    fn follow_orders(&mut self, now: Instant) {
        let span = self.config.timers.election_max / 2;
        for group in self.groups.values_mut() {
            group.note_commit(now, span);
        }
        let Some(table) = &self.table else { return };
        let mut settled = Vec::new();
        let mut steps: Vec<Assignment> = Vec::new();
        for assignment in table.groups.iter().filter(|assignment| !assignment.settled) {
            let Some(group) = self.groups.get(&assignment.group) else { continue };
            if !group.raft.is_leader() {
                continue;
            }
            match group.raft.committed_membership() {
                Some(committed) if assignment.is_settled_by(committed) => {
                    settled.push((assignment.group, assignment.order));
                }
                Some(_) => steps.push(assignment.clone()),
                None => {}
            }
        }
        for assignment in steps {
            self.with_group(now, assignment.group, |group, fx| {
                let present = group.raft.membership().clone();
                let is_ready = |replica| {
                    replica == group.raft.id()
                        || (group.has_caught_up(replica) && group.raft.hears(now, replica))
                };
                let (Step::Learn(next) | Step::Switch(next)) =
                    assignment.next_step(&present, is_ready)
                else {
                    return;
                };
                // Refused while a change is under way or leadership is handed over: asked again with the next tick.
                let _ =
                    group.raft.change_membership(now, next.voters, next.learners, next.order, fx);
            });
        }
        for (group, order) in settled {
            self.tell_directory(Message::Settled { group, order });
        }
    }

    /// To every member that may lead the directory: the one that does takes it up.
    fn tell_directory(&mut self, message: Message) {
        let assigned = self.table.as_ref().and_then(|table| table.group(GroupId::DIRECTORY));
        let mut voters: Vec<MemberId> =
            assigned.iter().flat_map(|a| a.replicas()).map(|replica| replica.member).collect();
        if voters.is_empty() {
            voters = self.connected_members();
        }
        for member in voters {
            self.send(member, message.clone());
        }
    }

    /// A member that is not in the table as it would be says so; one that goes says that.
    fn ask_to_be_registered(&mut self) {
        if !self.founding.is_founded() {
            return;
        }
        let listed = self.table.as_ref().and_then(|table| table.member(self.me));
        let leaves = match self.departure {
            Departure::Stays => None,
            Departure::Leaves { force } => Some(force),
            // An earlier word of its own may come late, and it is registered after all.
            Departure::Left => Some(false),
        };
        if let Some(force) = leaves {
            if listed.is_some_and(|listed| listed.standing != Standing::Leaving) {
                self.tell_directory(Message::Leave { force });
            }
            return self.note_departure();
        }
        // Without a table nobody knows yet whom to ask, unless this member is none of the founders.
        if self.table.is_none() && self.has_founded(self.me) {
            return;
        }
        let (address, weight) = (self.own_address(), self.config.weight);
        let as_wished = |listed: &crate::directory::Registered| {
            listed.standing == Standing::Active
                && listed.weight == weight
                && (address.is_empty() || listed.address == address)
        };
        if !listed.is_some_and(as_wished) {
            self.tell_directory(Message::Register { address, weight });
        }
    }

    pub(super) fn own_address(&self) -> String {
        if !self.config.address.is_empty() {
            return self.config.address.clone();
        }
        // What it was told at this start counts more than where it was at an earlier one.
        let named = self.config.members.iter().find(|(name, _)| *name == self.config.name);
        let known = || self.members.get(&self.me).map(|(_, address)| address.clone());
        named.map(|(_, address)| address.clone()).or_else(known).unwrap_or_default()
    }

    /// What a member that asks to be registered said of itself in its handshake. None when that could not stand in
    /// the table: the table goes to everyone, and a name of the form that former members have must be nobody's.
    pub(super) fn registration(
        &mut self,
        id: MemberId,
        address: String,
        weight: u16,
    ) -> Option<Registration> {
        let guest = self.guests.get(&id).map(|guest| (guest.name.clone(), guest.birth));
        let (name, birth) = guest.or_else(|| {
            let listed = self.table.as_ref().and_then(|table| table.member(id));
            let listed = listed.map(|listed| (listed.name.clone(), listed.birth));
            // A founder that was forgotten while it was away.
            listed.or_else(|| {
                let mut founders = self.genesis.as_ref()?.members.iter();
                let founder = founders.find(|founder| founder.id == id)?;
                Some((founder.name.clone(), founder.birth))
            })
        })?;
        let is_name = (1..=TEXT_MAX).contains(&name.len()) && !name.contains(char::is_control);
        if !is_name || address.len() > TEXT_MAX || address.contains(char::is_control) {
            self.peer_fault(Some(id), "a name or an address that no member can have");
            return None;
        }
        Some(Registration { id, name, address, birth, weight })
    }

    /// Asks to be let go: what this member holds moves elsewhere, then [`Event::Left`] says that it may be closed for
    /// good. Until then it serves as before. [`Event::ChangeRefused`] says that it may not go; where that is because
    /// others are away ([`ChangeRefused::NoMajority`]), `force` gives those up.
    pub fn leave(&mut self, force: bool) {
        let forced = self.departure == Departure::Leaves { force: true };
        if self.departure == Departure::Left {
            // Who asks now has not heard it.
            self.event(Event::Left);
        } else {
            self.departure = Departure::Leaves { force: force || forced };
            self.stays = None;
        }
    }
}

/// Who was registered before this start, as far as starts of those who are not any more are known.
pub(super) fn former(recovered: &Recovered) -> BTreeSet<MemberId> {
    let is_listed =
        |id: MemberId| recovered.table.as_ref().is_some_and(|table| table.member(id).is_some());
    let former = recovered.peers.keys().copied();
    former.filter(|&id| id.is_joiner() && !is_listed(id)).take(FORMER_MAX).collect()
}

/// Former members whose starts are remembered: as many as can be registered at once by default.
const FORMER_MAX: usize = 1024;

/// Where the shards belong, on the members that are to hold replicas.
fn placed(table: &Table, genesis: &Genesis) -> impl Fn(GroupId) -> Vec<MemberId> + use<> {
    let placement = ShardPlacement::new(table.active(), genesis.shards, genesis.replication);
    move |group| placement.replicas(group).to_vec()
}
