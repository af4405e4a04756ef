//! A group's state on its way to another replica, in chunks.
//!
//! A chunk is a [`Head`] and then pairs of suffix and value, in order of the suffixes, until its
//! end. Meta has the least suffix: it comes first in chunk 0 and says which state this is. Every
//! head repeats the state's index and digest and carries the hash of all chunks before, so that
//! chunks of two snapshots can never be mixed.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash64;

use super::apply::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use super::kept::Kept;
use super::key;
use super::pending::Pending;
use super::session::Session;
use super::state::{Meta, State};
use crate::ids::{Epoch, GroupId, LogIndex, Revision, SessionId, SnapshotId};
use crate::store::{Store, StoreDone, StoreError, StoreState, View};

/// Version of the chunks' format.
const VERSION: u8 = 1;
/// Most snapshots kept open for receivers.
const SNAPSHOTS_MAX: usize = 16;

/// What each chunk begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    version: u8,
    group: GroupId,
    index: LogIndex,
    digest: u64,
    /// Hash of all chunks before this one, each hashed with the hash before as its seed; 0 on the
    /// first.
    chain: u64,
}

/// Hands out chunks.
pub(super) struct Sender<S: Store> {
    snapshots: Kept<SnapshotId, Sending<S::Snapshot>>,
    chunk_bytes: usize,
}

struct Sending<V> {
    snapshot: V,
    state: StoreState,
    /// The last chunk answered: its number, where it begins...
    chunk: u64,
    from: Vec<u8>,
    /// ... and the hash of all before it.
    chain: u64,
    /// The same of the chunk after it; none: it was the last.
    next: Option<(Vec<u8>, u64)>,
}

impl<S: Store> Sender<S> {
    pub(super) fn new(chunk_bytes: usize) -> Self {
        Self { snapshots: Kept::new(SNAPSHOTS_MAX), chunk_bytes }
    }

    /// Whether that chunk is read from the snapshot that is open; else it begins anew.
    pub(super) fn has(&mut self, id: SnapshotId, group: GroupId, chunk: u64) -> bool {
        let kept = self.snapshots.get_mut(id);
        kept.is_some_and(|sending| {
            sending.state.group == group && chunk != 0 && sending.can_go_to(chunk)
        })
    }

    /// Reads a chunk of the snapshot `id`. Nothing of the group may wait to be written when it begins.
    pub(super) fn load(
        &mut self,
        state: &State,
        store: &S,
        id: SnapshotId,
        chunk: u64,
    ) -> Result<StoreDone, StoreError> {
        let group = state.meta.group;
        let has_chunk = self.has(id, group, chunk);
        if has_chunk {
            self.snapshots.get_mut(id).expect("just found").go_to(chunk);
        } else {
            let sending = Sending {
                snapshot: store.snapshot(),
                state: state.store_state(),
                chunk: 0,
                from: state.prefix.to_vec(),
                chain: 0,
                next: None,
            };
            self.snapshots.insert(id, sending);
        }
        let sending = self.snapshots.get_mut(id).expect("just found or made");
        let data = sending.read(self.chunk_bytes)?;
        Ok(StoreDone::Loaded {
            id,
            chunk: sending.chunk,
            data,
            last: sending.next.is_none(),
            state: Box::new(sending.state.clone()),
        })
    }

    pub(super) fn close(&mut self, id: SnapshotId) {
        self.snapshots.remove(id);
    }
}

impl<V: View> Sending<V> {
    /// Whether the chunk is the last answered or the one after it.
    fn can_go_to(&self, chunk: u64) -> bool {
        chunk == self.chunk || (chunk == self.chunk + 1 && self.next.is_some())
    }

    fn go_to(&mut self, chunk: u64) {
        if chunk != self.chunk
            && let Some((from, chain)) = self.next.take()
        {
            (self.chunk, self.from, self.chain) = (chunk, from, chain);
        }
    }

    /// The chunk at which it stands.
    fn read(&mut self, chunk_bytes: usize) -> Result<Bytes, StoreError> {
        let head = Head {
            version: VERSION,
            group: self.state.group,
            index: self.state.index,
            digest: self.state.digest,
            chain: self.chain,
        };
        let mut data = postcard::to_allocvec(&head).expect("memory does not fail");
        let begin = data.len();
        let mut stopped_at = None;
        let end = key::after(&key::epoch(self.state.group, self.state.epoch));
        self.snapshot.scan(&self.from, &end, false, &mut |full, value| {
            let suffix = &full[key::PREFIX..];
            // Ten bytes are more than the two lengths take. A pair beyond all bounds goes
            // alone.
            let size = suffix.len() + value.len() + 10;
            if data.len() > begin && data.len() + size > chunk_bytes {
                stopped_at = Some(full.to_vec());
                return false;
            }
            let pair = (Raw(suffix), Raw(value));
            let pair = postcard::to_extend(&pair, core::mem::take(&mut data));
            data = pair.expect("memory does not fail");
            true
        })?;
        self.next = stopped_at.map(|key| (key, XxHash64::oneshot(self.chain, &data)));
        Ok(Bytes::from(data))
    }
}

/// An installation under way: what was written aside under its own epoch.
#[derive(Clone, Debug)]
pub(super) struct Receiving {
    pub(super) id: SnapshotId,
    pub(super) epoch: Epoch,
    /// The chunk wanted next.
    pub(super) next: u64,
    /// The state that arrives.
    pub(super) meta: Meta,
    /// Hash of all chunks before.
    chain: u64,
    /// The last suffix so far; they must rise.
    last: Vec<u8>,
    /// Sessions so far.
    sessions: u32,
}

impl Receiving {
    /// Begins an installation with chunk 0, whose pairs are added to `pending` under `epoch`.
    /// Refuses bytes that make no sense: they are a peer's.
    pub(super) fn begin(
        group: GroupId,
        id: SnapshotId,
        epoch: Epoch,
        data: &[u8],
        pending: &mut Pending,
    ) -> Result<Self, String> {
        let (head, pairs) = decode_head(data)?;
        let ((suffix, value), _) = decode_pair(pairs)?;
        if suffix != [key::META] {
            return Err(String::from("the state does not come first"));
        }
        let meta = Meta::decode(value).map_err(String::from)?;
        if meta.group != group || meta.index != head.index || meta.digest != head.digest {
            return Err(String::from("the state is not the one it says it is"));
        }
        let mut receiving =
            Self { id, epoch, next: 0, meta, chain: 0, last: Vec::new(), sessions: 0 };
        receiving.accept(data, pending)?;
        Ok(receiving)
    }

    /// Takes the next chunk, whose pairs are added to `pending`. After an error it cannot go on.
    pub(super) fn accept(&mut self, data: &[u8], pending: &mut Pending) -> Result<(), String> {
        let (head, mut pairs) = decode_head(data)?;
        let expected = Head {
            version: VERSION,
            group: self.meta.group,
            index: self.meta.index,
            digest: self.meta.digest,
            chain: self.chain,
        };
        if head != expected {
            return Err(format!("chunk {} belongs to another snapshot", self.next));
        }
        if pairs.is_empty() {
            return Err(format!("chunk {} is empty", self.next));
        }
        let prefix = key::epoch(self.meta.group, self.epoch);
        while !pairs.is_empty() {
            let ((suffix, value), rest) = decode_pair(pairs)?;
            pairs = rest;
            if suffix <= &self.last[..] {
                return Err(format!("key {suffix:02x?} is out of order"));
            }
            self.check(suffix, value).map_err(|what| format!("{what} at key {suffix:02x?}"))?;
            self.last.clear();
            self.last.extend_from_slice(suffix);
            pending.push(key::join(&prefix, suffix), Some(Bytes::copy_from_slice(value)));
        }
        self.chain = XxHash64::oneshot(self.chain, data);
        self.next += 1;
        Ok(())
    }

    /// A snapshot must never take back what was applied, however late it comes.
    pub(super) fn check_newer(&self, applied: Option<LogIndex>) -> Result<(), String> {
        match applied {
            Some(applied) if self.meta.index <= applied => Err(format!(
                "the snapshot at {} is not newer than {applied}, which is applied here",
                self.meta.index
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// True if chunk 0 came again and nothing after it.
    pub(super) fn is_repeated(&self, id: SnapshotId, data: &[u8]) -> bool {
        self.id == id && self.next == 1 && self.chain == first_hash(data)
    }

    /// Hash of all chunks so far.
    pub(super) fn hash(&self) -> u64 {
        self.chain
    }

    fn check(&mut self, suffix: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match suffix.first() {
            Some(&key::META) if suffix.len() == 1 => Ok(()),
            Some(&key::SESSION) => {
                let id = key::session_id(suffix).ok_or("no session")?;
                Session::decode(value).ok_or("a damaged session")?;
                if id == SessionId(0) || id >= self.meta.next_session {
                    return Err("a session from the future");
                }
                self.sessions += 1;
                if self.sessions > self.meta.rules.sessions {
                    return Err("too many sessions");
                }
                Ok(())
            }
            Some(&key::DATA) => {
                let (_, key) = key::split_data(suffix).ok_or("no partition")?;
                let (revision, value) = key::split_value(value).ok_or("a damaged value")?;
                if key.len() > KEY_BYTES_MAX || value.len() > VALUE_BYTES_MAX {
                    return Err("too much");
                }
                if revision == Revision(0) || revision > self.meta.revision {
                    return Err("a revision from the future");
                }
                Ok(())
            }
            Some(_) | None => Err("an unknown kind"),
        }
    }
}

/// The hash of chunk 0.
pub(super) fn first_hash(data: &[u8]) -> u64 {
    XxHash64::oneshot(0, data)
}

fn decode_head(data: &[u8]) -> Result<(Head, &[u8]), String> {
    if data.first() != Some(&VERSION) {
        return Err(String::from("the snapshot's version is not known to this library"));
    }
    postcard::take_from_bytes(data).map_err(|_| String::from("a chunk's head is damaged"))
}

type Pair<'a> = (&'a [u8], &'a [u8]);

/// Bytes that are encoded in one go, as a slice is one by one: the form is the same.
struct Raw<'a>(&'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

fn decode_pair(data: &[u8]) -> Result<(Pair<'_>, &[u8]), String> {
    postcard::take_from_bytes(data).map_err(|_| String::from("a chunk is damaged"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_is_frozen() {
        let head =
            Head { version: 1, group: GroupId(2), index: LogIndex(300), digest: 1, chain: 128 };
        let bytes = postcard::to_allocvec(&head).expect("memory does not fail");
        assert_eq!(bytes, [1, 2, 0xac, 2, 1, 0x80, 1]);
    }
}
