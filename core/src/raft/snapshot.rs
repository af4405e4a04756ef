//! Snapshots (section 5): sent chunk by chunk from the store of the leader to that of a follower whose log the
//! leader's no longer reaches.
//!
//! One chunk is on its way at a time; the follower says which it wants next, so that a lost one is sent again and
//! a broken connection goes on where it broke. The follower accepts the snapshot's index only when its store has
//! installed it durably *and* its log says so durably.

use bytes::Bytes;

use super::message::{Body, Replica};
use super::{Effects, Install, Mode, Raft, State};
use crate::ids::{LogIndex, SnapshotId, Term};
use crate::store::StoreState;
use crate::time::Instant;

/// A snapshot on its way to a follower.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Sending {
    pub(super) id: SnapshotId,
    /// The last index it contains; known when its first chunk was read.
    pub(super) index: Option<LogIndex>,
    term: Term,
    chunk: u64,
    /// The present chunk; none while it is read from the store.
    data: Option<(Bytes, bool)>,
}

/// A snapshot on its way from the leader into the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Receiving {
    id: SnapshotId,
    from: Replica,
}

/// Chunks that the store has not answered, of whichever snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Installing {
    tasks: u64,
    /// A last chunk is among them: until all are answered nothing may be applied, because what it would be
    /// applied to may be about to be replaced. (A repeated chunk's answer must not end this early.)
    closing: bool,
}

impl Installing {
    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    fn begin(&mut self, last: bool) {
        self.tasks += 1;
        self.closing |= last;
    }

    fn end(&mut self) {
        self.tasks = self.tasks.checked_sub(1).expect("an answer for each task");
        self.closing &= self.tasks > 0;
    }
}

impl Sending {
    pub(super) fn new(id: SnapshotId) -> Self {
        Self { id, index: None, term: Term(0), chunk: 0, data: None }
    }

    pub(super) fn chunk_message(&self) -> Option<Body> {
        let (data, last) = self.data.clone()?;
        Some(Body::Snapshot {
            id: self.id,
            index: self.index?,
            last_term: self.term,
            chunk: self.chunk,
            data,
            last,
        })
    }
}

impl Raft {
    /// The store has read a chunk.
    pub fn on_loaded(
        &mut self,
        id: SnapshotId,
        chunk: u64,
        data: Bytes,
        last: bool,
        state: &StoreState,
        fx: &mut Effects,
    ) {
        let State::Leader(leader) = &mut self.state else {
            fx.unloads.push(id);
            return;
        };
        let round = leader.round;
        let wanted = leader.progress.values_mut().find_map(|progress| match &mut progress.mode {
            Mode::Snapshot(sending) if sending.id == id => {
                progress.sent_round = round;
                Some((progress.replica, sending))
            }
            Mode::Snapshot(_) | Mode::Probe { .. } | Mode::Replicate { .. } => None,
        });
        let Some((to, sending)) = wanted else {
            fx.unloads.push(id);
            return;
        };
        // A store that lost the snapshot begins a new one under the same name.
        if sending.chunk != chunk && chunk != 0 {
            return;
        }
        sending.chunk = chunk;
        sending.index = Some(state.index);
        sending.term = state.term;
        sending.data = Some((data, last));
        if let Some(body) = sending.chunk_message() {
            self.send(to, body, fx);
        }
    }

    /// The least index behind which the log will be needed: of the snapshots that are being sent, and of the learners that
    /// are heard of, which would have to begin with another snapshot if what they lack were cut.
    #[must_use]
    pub fn needed_index(&self, now: Instant) -> Option<LogIndex> {
        let State::Leader(leader) = &self.state else { return None };
        let learners = &self.log.membership().learners;
        let needed = leader.progress.values().filter_map(|progress| match &progress.mode {
            Mode::Snapshot(sending) => sending.index,
            Mode::Probe { .. } | Mode::Replicate { .. } => {
                let is_brought_up = learners.contains(&progress.replica)
                    && progress.matched > LogIndex(0)
                    && now.since(progress.heard) < self.settings.election_max;
                is_brought_up.then_some(progress.matched)
            }
        });
        needed.min()
    }

    /// Whether a snapshot is sent to a voter: its group may be able to commit nothing until it has arrived.
    #[must_use]
    pub fn sends_to_voter(&self) -> bool {
        let State::Leader(leader) = &self.state else { return false };
        let membership = self.log.membership();
        leader.progress.values().any(|progress| {
            matches!(progress.mode, Mode::Snapshot(_))
                && membership.all_voters().any(|voter| *voter == progress.replica)
        })
    }

    pub(super) fn on_snapshot_next(
        &mut self,
        now: Instant,
        sender: Replica,
        id: SnapshotId,
        chunk: u64,
        fx: &mut Effects,
    ) {
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let round = leader.round;
        let Some(progress) = leader.progress.get_mut(&sender.id) else {
            return;
        };
        progress.heard = now;
        let Mode::Snapshot(sending) = &mut progress.mode else {
            return;
        };
        let Some((_, last)) = sending.data else {
            return;
        };
        if sending.id != id {
            return;
        }
        if chunk == sending.chunk + 1 && !last {
            sending.chunk = chunk;
            sending.data = None;
            progress.sent_round = round;
            fx.loads.push((id, chunk));
        } else if chunk < sending.chunk {
            // The follower has lost what it had (it was restarted): begin again.
            fx.unloads.push(id);
            progress.next = progress.matched.next();
            progress.mode = Mode::Probe { sent: false };
        }
        // Otherwise it lacks the present chunk: the next tick sends it again, unless it was only late.
    }

    pub(super) fn on_snapshot(
        &mut self,
        sender: Replica,
        index: LogIndex,
        install: Install,
        fx: &mut Effects,
    ) {
        if index <= self.commit {
            // An old snapshot must not replace a log that holds more (TRAPS R19).
            self.promise(sender, Body::Accepted { index: self.commit }, fx);
            return;
        }
        if self.installing.closing {
            return;
        }
        match &mut self.receiving {
            Some(receiving) if receiving.id == install.id => receiving.from = sender,
            Some(_) | None if install.chunk == 0 => {
                self.receiving = Some(Receiving { id: install.id, from: sender });
            }
            Some(_) | None => {
                self.send(sender, Body::SnapshotNext { id: install.id, chunk: 0 }, fx);
                return;
            }
        }
        self.installing.begin(install.last);
        fx.installs.push(install);
    }

    /// The store has put a chunk aside, or wants another one.
    pub fn on_staged(&mut self, id: SnapshotId, next: u64, fx: &mut Effects) {
        self.installing.end();
        let Some(receiving) = &mut self.receiving else { return };
        if receiving.id != id {
            return;
        }
        let to = receiving.from;
        self.send(to, Body::SnapshotNext { id, chunk: next }, fx);
    }

    /// The store has made a snapshot its state, or had done so before.
    pub fn on_installed(&mut self, state: &StoreState, fx: &mut Effects) {
        self.installing.end();
        // A repeated chunk of a finished snapshot is answered with where the store stands by now.
        if state.index <= self.handed {
            return;
        }
        let from = self.receiving.take().map(|receiving| receiving.from);
        self.adopt(state, fx);
        if let Some(leader) = self.leader.or(from) {
            self.promise(leader, Body::Accepted { index: state.index }, fx);
        }
    }

    /// The store could not make sense of a snapshot, or it was late.
    pub fn on_install_refused(&mut self, id: SnapshotId) {
        self.installing.end();
        if self.receiving.as_ref().is_some_and(|receiving| receiving.id == id) {
            self.receiving = None;
        }
    }
}
