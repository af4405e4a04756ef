//! What an entry does: a pure function of the group's state, a view of its data and the entry.
//!
//! It must give the same result on every replica, in whatever portions the entries come, and in
//! every version of libring that knows the payload's version: a change of anything below needs a
//! new payload version.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::hash::Hasher;

use bytes::Bytes;
use twox_hash::XxHash64;

use super::command::{Change, Command, Expect, Item, ItemOutcome, Outcome, Payload};
use super::key;
use super::pending::Pending;
use super::session::Turn;
use super::state::State;
use crate::ids::{Revision, SessionId, len_u64};
use crate::raft::message::{Entry, EntryBody, Membership};
use crate::store::{StoreError, View};

/// The version of payloads that this library applies.
pub const PAYLOAD_VERSION: u8 = 1;
/// A longer key makes a command malformed, on every replica. [`crate::config::Limits`] may only be
/// lower.
pub const KEY_BYTES_MAX: usize = 64 << 10;
/// A longer value makes a command malformed, on every replica.
pub const VALUE_BYTES_MAX: usize = 16 << 20;
/// A longer name of a partition (or an empty one) makes a command malformed, on every replica.
pub const NAME_BYTES_MAX: usize = key::NAME_MAX;

/// Why nothing more can be applied: the store failed, or an entry is beyond this library. The
/// member halts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stop(pub(super) String);

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self(error.0)
    }
}

/// Applies entries to a group: its new state is in `state`, its writes are added to `pending`,
/// through which `view` is read. Answers the outcomes of each entry if they are wanted.
///
/// Panics when the entries do not follow what was applied: that is a bug, and applying them would
/// be a worse one.
pub(super) fn apply(
    state: &mut State,
    view: &impl View,
    pending: &mut Pending,
    entries: &[Entry],
    answers: bool,
) -> Result<Vec<Vec<ItemOutcome>>, Stop> {
    let mut applier =
        Applier { state, view, pending, outcomes: Vec::new(), gone: Vec::new(), trail: Vec::new() };
    let mut outcomes = Vec::with_capacity(if answers { entries.len() } else { 0 });
    for entry in entries {
        applier.apply_entry(entry)?;
        if answers {
            outcomes.push(core::mem::take(&mut applier.outcomes));
        } else {
            applier.outcomes.clear();
        }
    }
    Ok(outcomes)
}

struct Applier<'a, V> {
    state: &'a mut State,
    view: &'a V,
    pending: &'a mut Pending,
    /// Of the present entry.
    outcomes: Vec<ItemOutcome>,
    /// Sessions that the present entry ended.
    gone: Vec<SessionId>,
    /// What of the present entry, beside its writes, goes into the digest.
    trail: Vec<u8>,
}

impl<V: View> Applier<'_, V> {
    fn apply_entry(&mut self, entry: &Entry) -> Result<(), Stop> {
        let meta = &mut self.state.meta;
        assert_eq!(
            entry.index,
            meta.index.next(),
            "{}: entries must be applied in order, each once",
            meta.group
        );
        assert!(entry.term >= meta.term, "{}: terms never fall", meta.group);
        meta.index = entry.index;
        meta.term = entry.term;
        self.trail.clear();
        self.gone.clear();
        let begin = self.pending.writes().len();
        match &entry.body {
            EntryBody::Noop => self.trail.push(0),
            EntryBody::Membership(membership) => {
                self.trail.push(1);
                note(&mut self.trail, membership);
                meta.membership = Membership::clone(membership);
            }
            EntryBody::Data(data) => {
                self.trail.push(2);
                let payload = self.decode(data)?;
                self.apply_payload(&payload)?;
            }
        }
        self.state.meta.digest = self.digest(begin);
        Ok(())
    }

    fn decode<'d>(&self, data: &'d Bytes) -> Result<Payload<&'d [u8]>, Stop> {
        let meta = &self.state.meta;
        let place = format_args!("entry {} of {}", meta.index, meta.group);
        match data.first() {
            Some(&PAYLOAD_VERSION) => {}
            Some(version) => {
                return Err(Stop(format!(
                    "{place} has version {version}, this library applies {PAYLOAD_VERSION}: start \
                     this member with the newer library that the others run"
                )));
            }
            None => return Err(Stop(format!("{place} is empty"))),
        }
        match postcard::take_from_bytes(data) {
            Ok((payload, [])) => Ok(payload),
            Ok(_) | Err(_) => Err(Stop(format!("{place} cannot be decoded"))),
        }
    }

    fn apply_payload(&mut self, payload: &Payload<&[u8]>) -> Result<(), Stop> {
        let meta = &mut self.state.meta;
        meta.stamp = meta.stamp.max(payload.stamp);
        self.trail.extend_from_slice(&meta.stamp.to_be_bytes());
        self.state.sessions.expire(meta.stamp, &meta.rules, &mut self.gone);
        self.outcomes.reserve(payload.items.len());
        for item in &payload.items {
            let outcome = self.apply_item(item)?;
            note(&mut self.trail, &outcome);
            self.outcomes.push(outcome);
        }
        Ok(())
    }

    fn apply_item(&mut self, item: &Item<&[u8]>) -> Result<ItemOutcome, Stop> {
        let meta = &mut self.state.meta;
        let sessions = &mut self.state.sessions;
        match *item {
            Item::Open { member: _, nonce: _ } => {
                let id = meta.next_session;
                meta.next_session = id.next();
                sessions.open(id, meta.stamp, &meta.rules, &mut self.gone);
                Ok(ItemOutcome::Opened(id))
            }
            Item::Command { session, seq, first, command } => {
                match sessions.turn(session, seq, meta.stamp) {
                    Turn::Unknown => Ok(ItemOutcome::Expired),
                    Turn::Gap { next } => Ok(ItemOutcome::Gap { next }),
                    Turn::Before(Some(outcome)) => Ok(ItemOutcome::Done(outcome)),
                    Turn::Before(None) => Ok(ItemOutcome::Forgotten),
                    Turn::Now => {
                        let outcome = self.apply_command(command)?;
                        let State { sessions, meta, .. } = &mut *self.state;
                        sessions.record(session, first, outcome.clone(), &meta.rules);
                        Ok(ItemOutcome::Done(outcome))
                    }
                }
            }
        }
    }

    fn apply_command(&mut self, command: &[u8]) -> Result<Outcome, Stop> {
        let Ok((command, [])) = postcard::take_from_bytes::<Command<&[u8]>>(command) else {
            return Ok(Outcome::Malformed);
        };
        if !is_within_limits(&command) {
            return Ok(Outcome::Malformed);
        }
        match command {
            Command::Skip => Ok(Outcome::Skipped),
            Command::Put { partition, key, value } => {
                let revision = self.next_revision();
                self.write(partition, key, Some(value), revision);
                Ok(Outcome::Written { revision })
            }
            Command::Delete { partition, key } => self.delete(partition, key),
            Command::CompareAndSet { partition, key, expect, value } => {
                self.compare_and_set(partition, key, &expect, value)
            }
            Command::Batch { partition, changes } => Ok(self.batch(partition, &changes)),
        }
    }

    fn delete(&mut self, partition: &[u8], key: &[u8]) -> Result<Outcome, Stop> {
        let existed = self.read(partition, key)?.is_some();
        if existed {
            let revision = self.next_revision();
            self.write(partition, key, None, revision);
        }
        Ok(Outcome::Deleted { existed, revision: self.state.meta.revision })
    }

    fn compare_and_set(
        &mut self,
        partition: &[u8],
        key: &[u8],
        expect: &Expect<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<Outcome, Stop> {
        let present = self.read(partition, key)?;
        let revision = present.as_ref().map_or(Revision(0), |(revision, _)| *revision);
        let is_expected = match expect {
            Expect::Revision(expected) => *expected == revision,
            Expect::Value(expected) => {
                present.as_ref().map(|(_, value)| &value[..]) == expected.as_deref()
            }
        };
        if !is_expected {
            return Ok(Outcome::Compared { swapped: false, revision });
        }
        // Removing what is not there changes nothing and takes no revision.
        if value.is_some() || present.is_some() {
            let revision = self.next_revision();
            self.write(partition, key, value, revision);
        }
        let revision = match value {
            Some(_) => self.state.meta.revision,
            None => Revision(0),
        };
        Ok(Outcome::Compared { swapped: true, revision })
    }

    fn batch(&mut self, partition: &[u8], changes: &[Change<&[u8]>]) -> Outcome {
        if !changes.is_empty() {
            let revision = self.next_revision();
            for change in changes {
                self.write(partition, change.key, change.value, revision);
            }
        }
        Outcome::Written { revision: self.state.meta.revision }
    }

    fn next_revision(&mut self) -> Revision {
        let meta = &mut self.state.meta;
        meta.revision = meta.revision.next();
        meta.revision
    }

    fn read(&mut self, partition: &[u8], key: &[u8]) -> Result<Option<(Revision, Bytes)>, Stop> {
        let full = self.key(partition, key);
        let Some(stored) = self.pending.get(self.view, &full)? else {
            return Ok(None);
        };
        let (revision, _) = key::split_value(&stored).ok_or_else(|| damaged(&full))?;
        Ok(Some((revision, stored.slice(key::REVISION..))))
    }

    fn write(&mut self, partition: &[u8], key: &[u8], value: Option<&[u8]>, revision: Revision) {
        let stamp = self.state.meta.stamp;
        self.state.history.push((revision, stamp), partition, key, value);
        let begin = key::data_begin(partition).expect("the name was checked");
        let key = [&self.state.prefix[..], &begin, partition, key];
        let revision = key::value_begin(revision);
        let value = value.map(|value| [&revision[..], value]);
        self.pending.put(&key, value.as_ref().map(|parts| &parts[..]));
    }

    fn key(&self, partition: &[u8], key: &[u8]) -> Vec<u8> {
        key::data(&self.state.prefix, partition, key).expect("the name was checked")
    }

    /// The digest of the history that ends with the present entry, whose writes begin at `begin`.
    fn digest(&self, begin: usize) -> u64 {
        let meta = &self.state.meta;
        let mut hasher = XxHash64::with_seed(meta.digest);
        let trail = len_u64(self.trail.len());
        for number in [meta.index.0, meta.term.0, trail, len_u64(self.gone.len())] {
            hasher.write(&number.to_be_bytes());
        }
        for id in &self.gone {
            hasher.write(&id.0.to_be_bytes());
        }
        hasher.write(&self.trail);
        for (key, value) in &self.pending.writes()[begin..] {
            let suffix = &key[key::PREFIX..];
            let value_len = value.as_ref().map_or(u64::MAX, |value| len_u64(value.len()));
            hasher.write(&len_u64(suffix.len()).to_be_bytes());
            hasher.write(&value_len.to_be_bytes());
            hasher.write(suffix);
            hasher.write(value.as_deref().unwrap_or_default());
        }
        hasher.finish()
    }
}

/// A value in the store that cannot be one.
pub(super) fn damaged(key: &[u8]) -> StoreError {
    StoreError(format!("the value of key {key:02x?} is damaged"))
}

/// Adds the encoded form to a trail.
fn note(trail: &mut Vec<u8>, what: &impl serde::Serialize) {
    *trail = postcard::to_extend(what, core::mem::take(trail)).expect("memory does not fail");
}

fn is_within_limits(command: &Command<&[u8]>) -> bool {
    let fits = |partition: &[u8], key: &[u8], value: Option<&[u8]>| {
        (1..=NAME_BYTES_MAX).contains(&partition.len())
            && key.len() <= KEY_BYTES_MAX
            && value.is_none_or(|value| value.len() <= VALUE_BYTES_MAX)
    };
    match command {
        Command::Skip => true,
        Command::Put { partition, key, value } => fits(partition, key, Some(value)),
        Command::Delete { partition, key } => fits(partition, key, None),
        Command::CompareAndSet { partition, key, expect: _, value } => fits(partition, key, *value),
        Command::Batch { partition, changes } => {
            fits(partition, &[], None)
                && changes.iter().all(|change| fits(partition, change.key, change.value))
        }
    }
}
