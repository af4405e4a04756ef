//! Reads of what a replica has, and how stale that can be.
//!
//! A replica asks its leader for a read index (Raft dissertation, section 6.4) and notes when. When it has applied that
//! index it has every write that was acknowledged before it *asked*: this is proven by the leader's quorum after
//! the question, so a leader that was deposed without knowing it proves nothing, and no clock but the replica's own is
//! looked at. What is lost, late or repeated only makes the bound larger: an answer counts for the question that it
//! names. Nothing of it is durable: after a restart nothing is known until the leader was asked again.
//!
//! A local read tells the age of the last such question. If that is long ago, and there is a leader to ask, the read waits a
//! moment for a newer one; without a leader it is answered at once. Every replica asks now and then of its own accord, so
//! that one that is cut off can say since when.

use alloc::vec::Vec;
use core::time::Duration;

use super::Node;
use super::reads::{PendingRead, ReadStage};
use crate::ids::{GroupId, LogIndex, ReadId};
use crate::io::Output;
use crate::shard::command::Query;
use crate::store::StoreTask;
use crate::time::Instant;

/// A replica asks its leader at least this often.
const CONFIRM_EVERY: Duration = Duration::from_secs(10);

/// How fresh a replica is known to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Freshness {
    /// Every write that was acknowledged before this moment has been handed to the store.
    known: Option<Instant>,
    asked: Option<Question>,
}

/// A question to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Question {
    read: ReadId,
    at: Instant,
    /// Its answer, which the store has yet to be handed.
    index: Option<LogIndex>,
}

impl Freshness {
    pub(crate) fn known(&self) -> Option<Instant> {
        self.known
    }

    fn is_known_since(&self, since: Instant) -> bool {
        self.known.is_some_and(|known| known >= since)
    }

    fn ask(&mut self, read: ReadId, at: Instant) {
        self.asked = Some(Question { read, at, index: None });
    }

    /// The leader's answer, or word that there is none. False if it answers no question that is open.
    fn on_answer(&mut self, read: ReadId, index: Option<LogIndex>) -> bool {
        let Some(asked) = self.asked.as_mut().filter(|asked| asked.read == read) else {
            return false;
        };
        match index {
            // A repeated answer says the same.
            Some(_) => asked.index = index,
            None => self.asked = None,
        }
        true
    }

    /// Everything up to this index was handed to the store.
    pub(crate) fn on_handed(&mut self, handed: LogIndex) {
        if let Some(Question { at, index: Some(index), .. }) = self.asked
            && index <= handed
        {
            self.known = self.known.max(Some(at));
            self.asked = None;
        }
    }
}

impl Node {
    /// A read of what this replica has.
    pub(super) fn read_local(
        &mut self,
        now: Instant,
        read: ReadId,
        mut pending: PendingRead,
        query: Query,
    ) {
        let id = pending.group;
        let (heartbeat, patience) = (self.config.timers.heartbeat, self.config.timers.election_max);
        let group = self.groups.get(&id).expect("checked by the caller");
        let is_new = group.freshness.is_known_since(now - heartbeat);
        let may_do = group.freshness.is_known_since(now - patience);
        let is_led = group.raft.leader().is_some();
        pending.stage = ReadStage::Confirming(query);
        self.reads.insert(read, pending);
        self.groups.get_mut(&id).expect("looked at just now").confirming.insert(read);
        if !is_new && is_led {
            self.confirm(now, id);
        }
        if may_do || !is_led {
            self.read_now(now, read);
        }
    }

    /// With each tick: every replica asks now and then, and local reads whose leader does not answer wait no more.
    pub(super) fn drive_local_reads(&mut self, now: Instant) {
        if now >= self.next_confirm {
            self.next_confirm = now + CONFIRM_EVERY;
            for id in self.group_ids() {
                self.confirm(now, id);
            }
        }
        let patience = self.config.timers.heartbeat * 2;
        let waiting = self.groups.values().flat_map(|group| &group.confirming).copied();
        let is_late =
            |read: &ReadId| self.reads.get(*read).is_some_and(|r| now.since(r.since) >= patience);
        let late: Vec<ReadId> = waiting.filter(is_late).collect();
        for read in late {
            self.read_now(now, read);
        }
    }

    /// Asks the leader, unless a question is under way that may yet be answered.
    fn confirm(&mut self, now: Instant, id: GroupId) {
        let patience = self.config.timers.election_max;
        let read = self.next_read;
        let Some(group) = self.groups.get(&id) else { return };
        if group.freshness.asked.is_some_and(|asked| now.since(asked.at) < patience) {
            return;
        }
        self.next_read = read.next();
        self.with_group(now, id, |group, fx| {
            group.freshness.ask(read, now);
            group.raft.read_index(read.0, fx);
        });
    }

    /// The leader has answered a question of a replica. False: it was none of these.
    pub(super) fn on_confirmed(
        &mut self,
        id: GroupId,
        read: ReadId,
        index: Option<LogIndex>,
    ) -> bool {
        let Some(group) = self.groups.get_mut(&id) else { return false };
        let is_taken = group.freshness.on_answer(read, index);
        if is_taken {
            self.dirty.insert(id);
        }
        is_taken
    }

    /// At the end of a group's turn: what the store was handed may be what a question asked for.
    pub(super) fn note_freshness(&mut self, now: Instant, id: GroupId) {
        let patience = self.config.timers.election_max;
        let group = self.groups.get_mut(&id).expect("driven just now");
        group.freshness.on_handed(group.raft.handed());
        let freshness = group.freshness;
        if freshness.is_known_since(now - patience) || freshness.asked.is_none() {
            for read in group.confirming.clone() {
                self.read_now(now, read);
            }
        }
    }

    /// The store is asked. What was known until then is what the answer tells.
    fn read_now(&mut self, now: Instant, read: ReadId) {
        let Some(pending) = self.reads.get_mut(read) else { return };
        let stage = core::mem::replace(&mut pending.stage, ReadStage::Stored);
        let ReadStage::Confirming(query) = stage else {
            pending.stage = stage;
            return;
        };
        let group = pending.group;
        pending.since = now;
        if let Some(group) = self.groups.get_mut(&group) {
            group.confirming.remove(&read);
            pending.known = group.freshness.known();
        }
        self.outputs.0.push(Output::Store(StoreTask::Read { read, group, query }));
    }
}
