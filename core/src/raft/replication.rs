//! Replication: appends (section 3.5), commit (3.6.2), beats, check-quorum (6.2), membership changes (4.3).

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem;

use bytes::Bytes;

use super::message::{Beat, BeatAnswer, Body, Entry, EntryBody, Membership, Replica};
use super::snapshot::Sending;
use super::{Effects, Mode, Progress, ProposeRefused, Raft, State};
use crate::ids::{LogIndex, ReplicaId, Term};
use crate::time::Instant;

impl Raft {
    /// Appends an entry of the application. Sent by the next [`Raft::flush`].
    ///
    /// # Errors
    /// This replica does not lead, or is handing over. Nothing changed.
    pub fn propose(&mut self, data: Bytes, fx: &mut Effects) -> Result<LogIndex, ProposeRefused> {
        let State::Leader(leader) = &self.state else {
            return Err(ProposeRefused::NotLeader);
        };
        if leader.transfer.is_some() {
            return Err(ProposeRefused::Transferring);
        }
        Ok(self.append_own(EntryBody::Data(data), fx))
    }

    /// Begins to change who takes part: to these voters and learners. A change of voters goes through a joint
    /// configuration, which the leader leaves by itself once it is committed.
    ///
    /// # Errors
    /// See [`ProposeRefused`]. Nothing changed.
    pub fn change_membership(
        &mut self,
        now: Instant,
        mut voters: Vec<Replica>,
        mut learners: Vec<Replica>,
        order: u64,
        fx: &mut Effects,
    ) -> Result<LogIndex, ProposeRefused> {
        let State::Leader(leader) = &self.state else {
            return Err(ProposeRefused::NotLeader);
        };
        if leader.transfer.is_some() {
            return Err(ProposeRefused::Transferring);
        }
        // A change before a commit in the own term can give two majorities without a common member
        // (Ongaro's correction of 2015).
        if self.commit < leader.term_start {
            return Err(ProposeRefused::NoCommitInTerm);
        }
        let present = self.membership();
        if present.is_joint() || self.log.membership_index() > self.commit {
            return Err(ProposeRefused::ChangePending);
        }
        voters.sort_unstable();
        learners.sort_unstable();
        let outgoing = if voters == present.voters { Vec::new() } else { present.voters.clone() };
        let membership = Membership { voters, outgoing, learners, order };
        if !membership.is_sound() || membership == *present {
            return Err(ProposeRefused::BadMembership);
        }
        let index = self.append_own(EntryBody::Membership(Box::new(membership)), fx);
        self.rebuild_progress(now, fx);
        Ok(index)
    }

    /// Ends a turn: reads that waited begin their round, and whatever the followers lack is sent.
    pub fn flush(&mut self, fx: &mut Effects) {
        self.start_read_round(fx);
        self.send_appends(fx);
    }

    /// The node's tick: a leader shows itself.
    pub fn on_beat_due(&mut self, now: Instant, fx: &mut Effects) {
        let patience = self.settings.election_max;
        let State::Leader(leader) = &mut self.state else { return };
        // Everything sent before this round and unanswered after it is asked about.
        for progress in leader.progress.values_mut() {
            progress.tick_round = leader.round + 1;
            // Who has fallen silent takes no snapshot, and others may be waiting for one.
            if let Mode::Snapshot(sending) = &progress.mode
                && now.since(progress.heard) > patience
            {
                fx.unloads.push(sending.id);
                progress.mode = Mode::Probe { sent: true };
            }
        }
        self.beat(fx);
    }

    pub(super) fn beat(&mut self, fx: &mut Effects) {
        let commit = self.commit;
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        leader.round += 1;
        let round = leader.round;
        let beats: Vec<(Replica, Beat)> = leader
            .progress
            .values()
            .map(|progress| {
                (progress.replica, Beat { commit: commit.min(progress.matched), round })
            })
            .collect();
        for (to, beat) in beats {
            self.send(to, Body::Beat(beat), fx);
        }
    }

    pub(super) fn on_append(
        &mut self,
        sender: Replica,
        mut prev_index: LogIndex,
        prev_term: Term,
        commit: LogIndex,
        mut entries: Vec<Entry>,
        fx: &mut Effects,
    ) {
        if !is_contiguous(prev_index, prev_term, &entries, self.term) {
            fx.faults.push("an append whose entries do not follow each other");
            return;
        }
        // A store that does not keep up must not fill the memory with what it has yet to apply: the leader asks
        // again, tick by tick.
        if self.handed < self.commit && self.log.bytes() > self.settings.log_bytes_max {
            return;
        }
        let last_new = entries.last().map_or(prev_index, |entry| entry.index);
        if prev_index < self.commit {
            // What is committed here is in every later leader's log (section 3.6.3): it matches unseen.
            entries.retain(|entry| entry.index > self.commit);
            prev_index = self.commit;
        } else if self.log.term_at(prev_index) != Some(prev_term) {
            let (hint_index, hint_term) = self.log.agree_at_most(prev_index, prev_term);
            self.send(sender, Body::Rejected { prev_index, hint_index, hint_term }, fx);
            return;
        }
        let last_new = last_new.max(prev_index);
        // Only a conflict truncates: a late, shorter append must not shorten a log that matches (TRAPS R6).
        let known = entries
            .iter()
            .take_while(|entry| self.log.term_at(entry.index) == Some(entry.term))
            .count();
        let fresh = entries.split_off(known);
        if let Some(first) = fresh.first() {
            if self.log.term_at(first.index.prev()).is_none_or(|before| before > first.term) {
                fx.faults.push("an append whose terms fall behind what is committed");
                return;
            }
            assert!(first.index > self.commit, "nothing committed is truncated");
            if first.index <= self.log.last_index() {
                self.log.truncate_from(first.index);
            }
            for entry in &fresh {
                self.log.push(entry.clone());
            }
            self.record_entries(fresh, fx);
        }
        self.commit = self.commit.max(commit.min(last_new));
        self.promise(sender, Body::Accepted { index: last_new }, fx);
    }

    pub(super) fn on_beat(&mut self, sender: Replica, beat: Beat, fx: &mut Effects) {
        let last_index = self.log.last_index();
        if beat.commit > last_index {
            fx.faults.push("a beat that commits what this log does not have");
            return;
        }
        self.commit = self.commit.max(beat.commit);
        let answer = BeatAnswer { round: beat.round, last_index };
        self.send(sender, Body::BeatAnswer(answer), fx);
    }

    pub(super) fn on_beat_answer(
        &mut self,
        now: Instant,
        sender: Replica,
        answer: BeatAnswer,
        fx: &mut Effects,
    ) {
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        if answer.round > leader.round {
            fx.faults.push("an answer to a round that was never sent");
            return;
        }
        let round = leader.round;
        let Some(progress) = leader.progress.get_mut(&sender.id) else {
            return;
        };
        progress.heard = now;
        progress.round = progress.round.max(answer.round);
        // Sent before the last tick and still unanswered: lost, or its answer was. Ask once a tick.
        let overdue =
            progress.tick_round > progress.sent_round && answer.round >= progress.tick_round;
        if overdue {
            match &mut progress.mode {
                // Beats overtake entries: what is unanswered may only be late, so the entries are not sent again
                // before the follower has said that it lacks them.
                Mode::Probe { sent: true } => {
                    progress.sent_round = round;
                    let prev_index = progress.next.prev();
                    self.send_probe(sender, prev_index, fx);
                }
                Mode::Probe { sent: false } => {}
                Mode::Replicate { .. } if progress.matched.next() < progress.next => {
                    progress.sent_round = round;
                    let prev_index = progress.next.prev();
                    self.send_probe(sender, prev_index, fx);
                }
                Mode::Replicate { .. } => {}
                Mode::Snapshot(sending) => {
                    progress.sent_round = round;
                    if let Some(body) = sending.chunk_message() {
                        self.send(sender, body, fx);
                    }
                }
            }
        }
        self.finish_reads(fx);
    }

    /// An append without entries: do you have everything up to here? If the log no longer reaches back to that
    /// place, what was lost on the way cannot be sent again, and only a snapshot helps.
    fn send_probe(&mut self, to: Replica, prev_index: LogIndex, fx: &mut Effects) {
        let Some(prev_term) = self.log.term_at(prev_index) else {
            self.begin_snapshot(to.id, fx);
            return;
        };
        let (commit, entries) = (self.commit, Vec::new());
        self.send(to, Body::Append { prev_index, prev_term, commit, entries }, fx);
    }

    pub(super) fn on_accepted(
        &mut self,
        now: Instant,
        sender: Replica,
        index: LogIndex,
        fx: &mut Effects,
    ) {
        let (cut, last) = (self.log.cut_index(), self.log.last_index());
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let Some(progress) = leader.progress.get_mut(&sender.id) else {
            return;
        };
        if index > last {
            fx.faults.push("accepted what was never sent");
            return;
        }
        progress.heard = now;
        let news = index > progress.matched;
        progress.matched = progress.matched.max(index);
        progress.next = progress.next.max(progress.matched.next());
        match &mut progress.mode {
            Mode::Probe { .. } => {
                progress.next = progress.matched.next();
                progress.mode = Mode::Replicate { flight: VecDeque::new() };
            }
            Mode::Replicate { flight } => {
                while flight.front().is_some_and(|&(last, _)| last <= index) {
                    flight.pop_front();
                }
            }
            Mode::Snapshot(sending) => {
                // It has the snapshot, or caught up without it.
                if sending.index.is_some_and(|upto| index >= upto) || index >= cut {
                    fx.unloads.push(sending.id);
                    progress.next = progress.matched.next();
                    progress.mode = Mode::Replicate { flight: VecDeque::new() };
                }
            }
        }
        if news {
            self.advance_commit(now, fx);
            self.drive_transfer(fx);
        }
    }

    pub(super) fn on_rejected(
        &mut self,
        now: Instant,
        sender: Replica,
        prev_index: LogIndex,
        (hint_index, hint_term): (LogIndex, Term),
        fx: &mut Effects,
    ) {
        let cut = (self.log.cut_index(), self.log.cut_term());
        let (agree, agree_term) = self.log.agree_at_most(hint_index, hint_term);
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let Some(progress) = leader.progress.get_mut(&sender.id) else {
            return;
        };
        progress.heard = now;
        let stale = match &progress.mode {
            Mode::Probe { .. } => prev_index != progress.next.prev(),
            Mode::Replicate { .. } => prev_index <= progress.matched,
            Mode::Snapshot(_) => true,
        };
        if stale {
            return;
        }
        // The logs agree nowhere behind the cut: only a snapshot helps.
        if hint_index < cut.0 || ((agree, agree_term) == cut && agree_term > hint_term) {
            self.begin_snapshot(sender.id, fx);
            return;
        }
        progress.next = agree.max(progress.matched).next();
        progress.mode = Mode::Probe { sent: false };
    }

    fn send_appends(&mut self, fx: &mut Effects) {
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let round = leader.round;
        let mut behind_cut = Vec::new();
        // Taken out for the loop, so that the log can be read while followers' progress is written.
        let mut all = mem::take(&mut leader.progress);
        for progress in all.values_mut() {
            loop {
                let full = match &progress.mode {
                    Mode::Probe { sent } => *sent,
                    Mode::Replicate { flight } => {
                        flight.len() >= self.settings.appends_in_flight
                            || flight.iter().map(|(_, bytes)| bytes).sum::<usize>()
                                >= self.settings.append_bytes * FLIGHT_APPENDS
                            || progress.next > self.log.last_index()
                    }
                    Mode::Snapshot(_) => true,
                };
                if full {
                    break;
                }
                let prev_index = progress.next.prev();
                let Some(prev_term) = self.log.term_at(prev_index) else {
                    behind_cut.push(progress.replica.id);
                    break;
                };
                let entries = self.log.slice(
                    progress.next,
                    self.log.last_index(),
                    self.settings.append_entries,
                    self.settings.append_bytes,
                );
                progress.sent_round = round;
                match &mut progress.mode {
                    Mode::Probe { sent } => *sent = true,
                    Mode::Replicate { flight } => {
                        let last = entries.last().expect("there is something to send").index;
                        let bytes = entries.iter().map(|entry| entry.body.size()).sum();
                        flight.push_back((last, bytes));
                        progress.next = last.next();
                    }
                    Mode::Snapshot(_) => {}
                }
                let commit = self.commit;
                let body = Body::Append { prev_index, prev_term, commit, entries };
                self.send(progress.replica, body, fx);
            }
        }
        if let State::Leader(leader) = &mut self.state {
            leader.progress = all;
        }
        for replica in behind_cut {
            self.begin_snapshot(replica, fx);
        }
    }

    fn begin_snapshot(&mut self, replica: ReplicaId, fx: &mut Effects) {
        let id = crate::ids::SnapshotId(self.rng.next());
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let Some(progress) = leader.progress.get_mut(&replica) else {
            return;
        };
        progress.mode = Mode::Snapshot(Sending::new(id));
        progress.sent_round = leader.round;
        fx.loads.push((id, 0));
    }

    /// Commits what a quorum has stored, if it is of this term: an entry of an earlier one may still be replaced
    /// although a majority has it (section 3.6.2, figure 3.7). The own copy counts only when it is durable.
    pub(super) fn advance_commit(&mut self, now: Instant, fx: &mut Effects) {
        let State::Leader(leader) = &self.state else {
            return;
        };
        let stored = self.log.stored();
        let reached = |id: ReplicaId| {
            if id == self.id {
                stored
            } else {
                leader.progress.get(&id).map_or(LogIndex(0), |progress| progress.matched)
            }
        };
        let index = self.membership().quorum_index(reached);
        if index <= self.commit || self.log.term_at(index) != Some(self.term) {
            return;
        }
        self.commit = index;
        if self.log.membership_index() <= index {
            self.on_membership_committed(now, fx);
        }
    }

    fn on_membership_committed(&mut self, now: Instant, fx: &mut Effects) {
        let membership = self.membership();
        if membership.is_joint() {
            let next = Membership { outgoing: Vec::new(), ..membership.clone() };
            self.append_own(EntryBody::Membership(Box::new(next)), fx);
            self.rebuild_progress(now, fx);
            return;
        }
        if self.is_voter() {
            return;
        }
        // The leader has removed itself and its work is done (section 4.2.2): the best of the rest takes over.
        let last = self.log.last_index();
        let State::Leader(leader) = &self.state else {
            return;
        };
        let heir = membership
            .voters
            .iter()
            .find(|v| leader.progress.get(&v.id).is_some_and(|p| p.matched == last))
            .copied();
        if let Some(heir) = heir {
            self.send(heir, Body::TimeoutNow, fx);
        }
        self.become_follower(now, self.term, None, fx);
    }

    pub(super) fn on_quorum_check_timeout(&mut self, now: Instant, fx: &mut Effects) {
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        if leader.transfer.as_ref().is_some_and(|transfer| transfer.until <= now) {
            leader.transfer = None;
        }
        let (id, patience) = (self.id, self.settings.election_max);
        let heard = |replica: ReplicaId| {
            replica == id
                || leader
                    .progress
                    .get(&replica)
                    .is_some_and(|progress| now.since(progress.heard) < patience)
        };
        if self.log.membership().has_quorum(heard) {
            self.schedule_quorum_check(now);
        } else {
            self.become_follower(now, self.term, None, fx);
        }
    }

    pub(super) fn schedule_quorum_check(&mut self, now: Instant) {
        self.deadline = now + self.settings.election_min / 2;
    }

    /// Follows whoever the membership in force names, and nobody else.
    pub(super) fn rebuild_progress(&mut self, now: Instant, fx: &mut Effects) {
        let next = self.log.last_index().next();
        let replicas = self.membership().replicas();
        let id = self.id;
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let mut old = mem::take(&mut leader.progress);
        for replica in replicas.into_iter().filter(|replica| replica.id != id) {
            let progress = old.remove(&replica.id).unwrap_or(Progress {
                replica,
                matched: LogIndex(0),
                next,
                mode: Mode::Probe { sent: false },
                heard: now,
                round: 0,
                sent_round: 0,
                tick_round: 0,
            });
            leader.progress.insert(replica.id, progress);
        }
        for gone in old.values() {
            if let Mode::Snapshot(sending) = &gone.mode {
                fx.unloads.push(sending.id);
            }
        }
        // Rounds that waited for somebody who has no voice any more may be complete, and nobody else answers them.
        self.finish_reads(fx);
    }
}

/// So many full appends' bytes may be on their way to one follower.
const FLIGHT_APPENDS: usize = 2;

fn is_contiguous(prev_index: LogIndex, prev_term: Term, entries: &[Entry], term: Term) -> bool {
    let mut last = (prev_index, prev_term);
    for entry in entries {
        if entry.index != last.0.next() || entry.term < last.1 || entry.term > term {
            return false;
        }
        last = (entry.index, entry.term);
    }
    true
}
