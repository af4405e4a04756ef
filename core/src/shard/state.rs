//! One group's state as the store thread holds it in memory: everything that every entry touches.
//! It goes to the store in the batch of the data that it belongs to, once a batch.

use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::history::History;
use super::key;
use super::pending::Pending;
use super::session::{RULES, Rules, Session, Sessions};
use crate::ids::{Epoch, GroupId, LogIndex, Revision, SessionId, Term};
use crate::raft::message::Membership;
use crate::store::{StoreError, StoreState, View};

/// No counter gets this far.
pub(super) const COUNTER_MAX: u64 = 1 << 62;
/// Version of everything that this module stores.
const VERSION: u8 = 1;

/// What a group has next to its sessions and data. Stored as one value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    /// Version of the stored form.
    version: u8,
    /// The group, so that another group's state cannot be taken for this one's.
    pub(super) group: GroupId,
    /// The last entry applied...
    pub(super) index: LogIndex,
    /// ... and its term.
    pub(super) term: Term,
    /// The membership there.
    pub(super) membership: Membership,
    /// Shard time.
    pub(super) stamp: u64,
    /// The last change.
    pub(super) revision: Revision,
    /// The id of the next session.
    pub(super) next_session: SessionId,
    /// Hash over the group's history.
    pub(super) digest: u64,
    /// What all replicas bound alike.
    pub(super) rules: Rules,
}

impl Meta {
    /// Reads the stored form; an error says what is wrong with it.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.first() != Some(&VERSION) {
            return Err("its state is of a version that this library does not know");
        }
        match postcard::take_from_bytes::<Self>(bytes) {
            Ok((meta, [])) if meta.rules.are_sane() && meta.can_go_on() => Ok(meta),
            Ok(_) | Err(_) => Err("its state is damaged"),
        }
    }

    /// No run comes near the end of these counters. A peer could say otherwise, and the next step
    /// would panic.
    fn can_go_on(&self) -> bool {
        let counters = [self.index.0, self.term.0, self.revision.0, self.next_session.0];
        counters.iter().all(|counter| *counter < COUNTER_MAX)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("memory does not fail")
    }
}

/// One group.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) meta: Meta,
    pub(super) sessions: Sessions,
    /// The last changes.
    pub(super) history: History,
    /// What its keys begin with.
    pub(super) prefix: [u8; key::PREFIX],
    epoch: Epoch,
    /// Whether the store does not have it as it is here.
    touched: bool,
}

impl State {
    /// A group without history.
    pub(super) fn new(group: GroupId, epoch: Epoch, membership: Membership) -> Self {
        let meta = Meta {
            version: VERSION,
            group,
            index: LogIndex(0),
            term: Term(0),
            membership,
            stamp: 0,
            revision: Revision(0),
            next_session: SessionId(1),
            digest: 0,
            rules: RULES,
        };
        Self::of(meta, epoch)
    }

    /// Reads an epoch of a group.
    pub(super) fn load(view: &impl View, group: GroupId, epoch: Epoch) -> Result<Self, StoreError> {
        let prefix = key::epoch(group, epoch);
        let damaged = |what: &str| StoreError(format!("{group} epoch {epoch}: {what}"));
        let meta = view
            .get(&key::join(&prefix, &[key::META]))?
            .ok_or_else(|| damaged("its state is missing"))?;
        let mut state = Self::of(Meta::decode(&meta).map_err(damaged)?, epoch);
        if state.meta.group != group {
            return Err(damaged("it holds another group's state"));
        }
        let from = key::join(&prefix, &[key::SESSION]);
        let to = key::join(&prefix, &[key::SESSION + 1]);
        let mut all_well = true;
        view.scan(&from, &to, false, &mut |full, value| {
            let id = full.get(key::PREFIX..).and_then(key::session_id);
            match (id, Session::decode(value)) {
                (Some(id), Some(session)) => state.sessions.restore(id, session),
                (None, _) | (_, None) => all_well = false,
            }
            all_well
        })?;
        if !all_well {
            return Err(damaged("a session is damaged"));
        }
        Ok(state)
    }

    pub(super) fn store_state(&self) -> StoreState {
        StoreState {
            group: self.meta.group,
            index: self.meta.index,
            term: self.meta.term,
            membership: self.meta.membership.clone(),
            stamp: self.meta.stamp,
            digest: self.meta.digest,
            epoch: self.epoch,
        }
    }

    /// Notes that the store no longer has it as it is; true the first time since it was written.
    pub(super) fn touch(&mut self) -> bool {
        !core::mem::replace(&mut self.touched, true)
    }

    /// Adds what changed since the last time to the writes.
    pub(super) fn write(&mut self, pending: &mut Pending) {
        self.touched = false;
        let prefix = self.prefix;
        self.sessions.write(|id, session| {
            let key = key::join(&prefix, &key::session(id));
            pending.push(key, session.map(Bytes::from));
        });
        let meta = Bytes::from(self.meta.encode());
        pending.push(key::join(&prefix, &[key::META]), Some(meta));
    }

    fn of(meta: Meta, epoch: Epoch) -> Self {
        Self {
            sessions: Sessions::default(),
            history: History::after(meta.revision),
            prefix: key::epoch(meta.group, epoch),
            meta,
            epoch,
            touched: false,
        }
    }
}
