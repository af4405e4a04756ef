//! The end of a turn: timers, calls, groups, the log's batch, and everything that is sent.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::mem;

use super::Node;
use crate::directory::Table;
use crate::genesis::Genesis;
use crate::group::Group;
use crate::ids::{GroupId, LogSeq, MemberId};
use crate::io::{Outbox, Output};
use crate::link::Links;
use crate::router::Reach;
use crate::time::{Instant, Now};
use crate::wire::message::Message;

/// More rounds than this of a node's talk with itself in one turn are a defect.
const SETTLE_MAX: usize = 10_000;

/// Whom this node can reach.
pub(super) struct Reachable<'a> {
    pub(super) me: MemberId,
    pub(super) client: bool,
    pub(super) links: &'a Links,
    pub(super) genesis: Option<&'a Genesis>,
    pub(super) table: Option<&'a Table>,
    pub(super) groups: &'a BTreeMap<GroupId, Group>,
}

impl Reach for Reachable<'_> {
    fn is_connected(&self, member: MemberId) -> bool {
        (member == self.me && !self.client) || self.links.conn_of(member).is_some()
    }

    fn replicas(&self, group: GroupId) -> Vec<MemberId> {
        if let Some(assignment) = self.table.and_then(|table| table.group(group)) {
            // Who is about to go may still have what who comes lacks.
            return assignment.replicas().map(|replica| replica.member).collect();
        }
        let Some(genesis) = self.genesis else { return Vec::new() };
        genesis.layout().voters(group).iter().map(|replica| replica.member).collect()
    }

    fn local_replica(&self, group: GroupId) -> Option<MemberId> {
        self.groups.contains_key(&group).then_some(self.me)
    }
}

impl Node {
    /// Ends a turn: everything that the node asks of the world because of this turn's inputs, in order.
    pub fn flush(&mut self, now: Now, out: &mut Outbox) {
        let now = now.instant;
        self.touched.clear();
        if !self.halted && self.awake_at.is_none() {
            self.on_timers(now);
            self.settle(now);
            self.load_next_chunk(now);
            self.drive_alive(now);
            self.drive_requests(now);
            self.tell_ring();
            self.tell_ready();
        } else {
            self.router.expire(now, &mut self.outputs.0);
            self.expire_requests(now);
        }
        if !self.halted && !self.config.client {
            self.maybe_persist();
            self.seal();
            self.send_beats();
        }
        if out.outputs.is_empty() {
            core::mem::swap(&mut out.outputs, &mut self.outputs.0);
        } else {
            out.outputs.append(&mut self.outputs.0);
        }
    }

    fn on_timers(&mut self, now: Instant) {
        self.links.drive(now, &mut self.outputs.0);
        while let Some(&(at, id)) = self.deadlines.first() {
            if at > now {
                break;
            }
            self.with_group(now, id, |group, fx| group.raft.on_wakeup(now, fx));
        }
        if now < self.next_beat {
            return;
        }
        self.keep_alive(now);
        if self.config.client {
            self.next_beat = now + self.config.timers.election_max / 2;
            if now >= self.next_hand_over {
                self.next_hand_over = now + self.config.timers.election_max * 2;
                self.compare_tables();
            }
            return;
        }
        self.next_beat = now + self.config.timers.heartbeat;
        for id in self.group_ids() {
            if self.groups.get(&id).is_some_and(|group| group.raft.is_leader()) {
                self.with_group(now, id, |group, fx| group.raft.on_beat_due(now, fx));
            }
        }
        self.drive_gathering(now);
        if !self.founding.is_founded() && self.me.is_founder() {
            self.advance_founding(now);
            self.say_founding();
        }
        self.directory_tick(now);
        self.drive_local_reads(now);
        self.give_up_old_reads(now);
        self.close_idle_cursors(now);
        if now >= self.next_hand_over {
            self.next_hand_over = now + self.config.timers.election_max * 2;
            self.hand_over(now);
            self.compare_tables();
        }
    }

    /// Lets everything that this node says to itself arrive, until nothing is left to do.
    fn settle(&mut self, now: Instant) {
        for _ in 0..SETTLE_MAX {
            let reach = Reachable {
                me: self.me,
                client: self.config.client,
                links: &self.links,
                genesis: self.genesis.as_ref(),
                table: self.table.as_ref(),
                groups: &self.groups,
            };
            let mut sends = Vec::new();
            self.router.drive(now, &reach, &mut sends, &mut self.outputs.0);
            for (to, message) in sends {
                self.send(to, message);
            }
            self.on_own_answers(now);
            if self.directory_due {
                self.drive_director(now);
                continue;
            }
            if self.local.is_empty() && self.dirty.is_empty() {
                return;
            }
            while let Some(message) = self.local.pop_front() {
                self.on_peer_message(now, self.me, message);
            }
            for id in mem::take(&mut self.dirty) {
                self.drive_group(now, id);
            }
        }
        panic!("the node talks to itself for ever");
    }

    /// Hands this turn's records to the log; a full segment is followed by a new one at once, while what the
    /// replicas hold is exactly what was handed over.
    fn seal(&mut self) {
        for record in self.records.drain(..) {
            self.log.push(record);
        }
        let mut batches: Vec<Output> = Vec::new();
        for _ in 0..2 {
            if let Some(batch) = self.log.seal() {
                self.unstored_batches.push_back((batch.seq, batch.len));
                self.unstored_bytes += batch.len;
                batches.push(Output::Append(batch));
            }
            if !self.log.wants_segment() {
                break;
            }
            let checkpoint = self.checkpoint();
            self.log.open_segment(checkpoint);
        }
        if mem::take(&mut self.persist.settling) {
            self.persist.log_bytes = self.log.bytes();
        }
        // First of all, so that the disk works while the rest is carried out.
        self.outputs.0.splice(0..0, batches);
    }

    fn send_beats(&mut self) {
        for (to, beats) in mem::take(&mut self.beats) {
            self.send(to, Message::Beats(beats));
        }
        for (to, answers) in mem::take(&mut self.beat_answers) {
            self.send(to, Message::BeatAnswers(answers));
        }
    }

    /// All batches up to this one are durable: whatever waited for them goes on.
    pub(super) fn on_stored(&mut self, now: Instant, upto: LogSeq) {
        assert!(upto < self.log.next_seq(), "only what was appended is stored");
        self.log.on_stored(upto);
        while let Some(&(seq, bytes)) = self.unstored_batches.front() {
            if seq > upto {
                break;
            }
            self.unstored_batches.pop_front();
            self.unstored_bytes -= bytes;
        }
        if self.awake_at.is_some_and(|at| at <= upto) {
            self.awake_at = None;
            self.wake(now);
        }
        if self.genesis_at.is_some_and(|at| at <= upto) {
            self.genesis_at = None;
            self.founding.on_held();
            self.advance_founding(now);
            self.say_founding();
        }
        self.on_gathering_stored(upto);
        while let Some(first) = self.held.first_entry() {
            if *first.key() > upto {
                break;
            }
            for (to, message) in first.remove() {
                self.send(to, message);
            }
        }
        while let Some(first) = self.unstored.first_entry() {
            if *first.key() > upto {
                break;
            }
            for id in first.remove() {
                self.with_group(now, id, |group, fx| group.raft.on_stored(now, upto, fx));
            }
        }
        self.drop_states(upto);
        self.open_ready_links(now);
        if let Some(below) = self.log.discardable() {
            self.outputs.0.push(Output::Discard { below });
        }
    }

    /// This start's counter is durable: the member may speak.
    fn wake(&mut self, now: Instant) {
        self.next_beat = now;
        if self.founding.is_founded() {
            self.come_up();
        }
        if let Some(table) = &self.table {
            self.event(crate::io::Event::DirectoryChanged { table: Box::new(table.clone()) });
        }
        self.keep_links(now);
        self.do_duties(now);
        self.advance_founding(now);
    }

    /// Of two members the one with the lower id dials, and the other a little later if it has not: the first may not know
    /// of it, or not where it is.
    ///
    /// A client dials all that the directory knows.
    pub(super) fn keep_links(&mut self, now: Instant) {
        if self.config.client {
            let listed = self.table.iter().flat_map(|table| &table.members);
            for member in listed.filter(|member| !member.address.is_empty()) {
                self.links.add_target(now, Some(member.id), member.address.clone());
            }
            return;
        }
        let others = self.members.iter().filter(|(id, _)| **id != self.me);
        for (&id, (_, address)) in others.filter(|(_, (_, address))| !address.is_empty()) {
            let at = if id > self.me { now } else { now + self.config.timers.redial_max };
            self.links.add_target(at, Some(id), address.clone());
        }
    }
}
