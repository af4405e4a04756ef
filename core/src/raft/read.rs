//! Linearizable reads without the log: ReadIndex (section 6.4), many reads to a round, from any replica.
//!
//! The order that makes it right: the read is asked for; *then* the leader takes its commit index and begins a
//! round of beats; *then* a quorum answers that round in the leader's term. So the leader was the leader after
//! the read was asked for, and nothing that was committed before is beyond the index.

use alloc::vec::Vec;

use super::message::{Body, Replica};
use super::{Effects, Raft, ReadFrom, ReadRound, State};
use crate::ids::LogIndex;

/// Rounds under way at once; what is asked meanwhile shares the next one.
const ROUNDS_MAX: usize = 4;

impl Raft {
    /// Asks for the index that a read of this member must wait for; answered in [`Effects::reads`], maybe never
    /// (the leader may be gone): ask again under a new number.
    pub fn read_index(&mut self, read: u64, fx: &mut Effects) {
        if let State::Leader(leader) = &mut self.state {
            leader.reads_waiting.push(ReadFrom::Here(read));
        } else if let Some(leader) = self.leader {
            self.send(leader, Body::ReadIndex { read }, fx);
        } else {
            fx.reads.push((read, None));
        }
    }

    pub(super) fn on_read_index(&mut self, sender: Replica, read: u64, fx: &mut Effects) {
        if let State::Leader(leader) = &mut self.state {
            leader.reads_waiting.push(ReadFrom::Replica(sender, read));
        } else {
            self.send(sender, Body::ReadIndexAnswer { read, index: None }, fx);
        }
    }

    /// Begins a round for the reads that wait, if this term may read already.
    pub(super) fn start_read_round(&mut self, fx: &mut Effects) {
        let commit = self.commit;
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        // Before an entry of its own term is committed a leader does not know what is (6.4, step 1).
        let may_read = commit >= leader.term_start;
        if leader.reads_waiting.is_empty() || !may_read || leader.reads_asked.len() >= ROUNDS_MAX {
            return;
        }
        let reads = core::mem::take(&mut leader.reads_waiting);
        let round = leader.round + 1;
        leader.reads_asked.push_back(ReadRound { round, index: commit, reads });
        self.beat(fx);
        self.finish_reads(fx);
    }

    /// Answers the reads whose round a quorum has answered.
    pub(super) fn finish_reads(&mut self, fx: &mut Effects) {
        let mut done: Vec<(ReadFrom, LogIndex)> = Vec::new();
        let id = self.id;
        let membership = self.log.membership();
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        while let Some(front) = leader.reads_asked.front() {
            let answered = |replica| {
                replica == id
                    || leader.progress.get(&replica).is_some_and(|p| p.round >= front.round)
            };
            if !membership.has_quorum(answered) {
                break;
            }
            let front = leader.reads_asked.pop_front().expect("looked at just now");
            done.extend(front.reads.into_iter().map(|read| (read, front.index)));
        }
        for (read, index) in done {
            match read {
                ReadFrom::Here(read) => fx.reads.push((read, Some(index))),
                ReadFrom::Replica(to, read) => {
                    self.send(to, Body::ReadIndexAnswer { read, index: Some(index) }, fx);
                }
            }
        }
    }
}
