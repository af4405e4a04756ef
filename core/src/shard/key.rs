//! Every key that shards keep in the store. Frozen: golden bytes in the tests. Numbers are
//! big-endian, so that keys sort by them.
//!
//! | key | value |
//! |---|---|
//! | `01 group:4` | [`Pointer`]: the epoch that counts |
//! | `02 group:4 epoch:4 00` | the group's [`Meta`](super::state::Meta) |
//! | `02 group:4 epoch:4 01 session:8` | a [`Session`](super::session::Session) |
//! | `02 group:4 epoch:4 02 len:1 name:len key` | revision:8, then the value |
//!
//! So one epoch of one group is one range, and one partition in it is one range. What follows the
//! first nine bytes is a key's *suffix*: it is the same on all replicas and is what snapshots
//! carry.

use alloc::vec::Vec;

use crate::ids::{Epoch, GroupId, Revision, SessionId};

/// Bytes before a key's suffix.
pub(super) const PREFIX: usize = 9;
/// Bytes before a value: its revision.
pub(super) const REVISION: usize = 8;
/// Longest name of a partition: its length is one byte.
pub(super) const NAME_MAX: usize = 255;

/// First byte of a suffix.
pub(super) const META: u8 = 0;
pub(super) const SESSION: u8 = 1;
pub(super) const DATA: u8 = 2;

const POINTER: u8 = 1;
const STATE: u8 = 2;

/// Says which epoch of a group counts. Turning it is what makes an installed snapshot current.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pointer {
    /// The epoch of the current state; 0: the group has none.
    pub(super) current: Epoch,
    /// The next epoch to use: higher than every one under which a key was ever written.
    pub(super) next: Epoch,
}

impl Default for Pointer {
    fn default() -> Self {
        Self { current: Epoch(0), next: Epoch(1) }
    }
}

impl Pointer {
    pub(super) fn encode(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&self.current.0.to_be_bytes());
        bytes[4..].copy_from_slice(&self.next.0.to_be_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (current, next) = bytes.split_at_checked(4)?;
        let pointer = Self {
            current: Epoch(u32::from_be_bytes(current.try_into().ok()?)),
            next: Epoch(u32::from_be_bytes(next.try_into().ok()?)),
        };
        (pointer.current < pointer.next).then_some(pointer)
    }
}

pub(super) fn pointer(group: GroupId) -> [u8; 5] {
    let mut key = [POINTER; 5];
    key[1..].copy_from_slice(&group.0.to_be_bytes());
    key
}

/// The range of all pointers.
pub(super) fn pointers() -> ([u8; 1], [u8; 1]) {
    ([POINTER], [STATE])
}

/// The group that a pointer's key names.
pub(super) fn pointer_group(key: &[u8]) -> Option<GroupId> {
    let (kind, group) = key.split_first()?;
    let group = u32::from_be_bytes(group.try_into().ok()?);
    (*kind == POINTER).then_some(GroupId(group))
}

/// What all keys of one epoch of a group begin with.
pub(super) fn epoch(group: GroupId, epoch: Epoch) -> [u8; PREFIX] {
    let mut key = [STATE; PREFIX];
    key[1..5].copy_from_slice(&group.0.to_be_bytes());
    key[5..].copy_from_slice(&epoch.0.to_be_bytes());
    key
}

/// A key from its suffix.
pub(super) fn join(prefix: &[u8; PREFIX], suffix: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(PREFIX + suffix.len());
    key.extend_from_slice(prefix);
    key.extend_from_slice(suffix);
    key
}

/// The suffix of a session.
pub(super) fn session(id: SessionId) -> [u8; 9] {
    let mut suffix = [SESSION; 9];
    suffix[1..].copy_from_slice(&id.0.to_be_bytes());
    suffix
}

/// The session that a suffix names.
pub(super) fn session_id(suffix: &[u8]) -> Option<SessionId> {
    let (kind, id) = suffix.split_first()?;
    let id = u64::from_be_bytes(id.try_into().ok()?);
    (*kind == SESSION).then_some(SessionId(id))
}

/// What stands before the name in the suffix of a partition's key. None when the name is empty or too long: no such
/// partition can exist.
pub(super) fn data_begin(name: &[u8]) -> Option<[u8; 2]> {
    let len = u8::try_from(name.len()).ok().filter(|len| *len > 0)?;
    Some([DATA, len])
}

/// The key of a partition's key. None when no such partition can exist.
pub(super) fn data(prefix: &[u8; PREFIX], name: &[u8], key: &[u8]) -> Option<Vec<u8>> {
    let begin = data_begin(name)?;
    let mut full = Vec::with_capacity(PREFIX + 2 + name.len() + key.len());
    full.extend_from_slice(prefix);
    full.extend_from_slice(&begin);
    full.extend_from_slice(name);
    full.extend_from_slice(key);
    Some(full)
}

/// Splits a data suffix into name and key.
pub(super) fn split_data(suffix: &[u8]) -> Option<(&[u8], &[u8])> {
    let [DATA, len, rest @ ..] = suffix else {
        return None;
    };
    rest.split_at_checked(usize::from(*len)).filter(|(name, _)| !name.is_empty())
}

/// What a stored value begins with.
pub(super) fn value_begin(revision: Revision) -> [u8; REVISION] {
    revision.0.to_be_bytes()
}

/// Splits a stored value. None when it is damaged.
pub(super) fn split_value(stored: &[u8]) -> Option<(Revision, &[u8])> {
    let (revision, value) = stored.split_first_chunk::<REVISION>()?;
    Some((Revision(u64::from_be_bytes(*revision)), value))
}

/// The least key greater than every key that begins with `prefix`.
pub(super) fn after(prefix: &[u8]) -> Vec<u8> {
    let mut key = prefix.to_vec();
    while let Some(last) = key.pop() {
        if let Some(next) = last.checked_add(1) {
            key.push(next);
            return key;
        }
    }
    unreachable!("all keys begin with a byte far below 255");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_frozen() {
        let prefix = epoch(GroupId(0x0a0b), Epoch(3));

        assert_eq!(pointer(GroupId(0x0a0b)), [1, 0, 0, 0x0a, 0x0b]);
        assert_eq!(prefix, [2, 0, 0, 0x0a, 0x0b, 0, 0, 0, 3]);
        assert_eq!(join(&prefix, &[META]), [2, 0, 0, 0x0a, 0x0b, 0, 0, 0, 3, 0]);
        assert_eq!(session(SessionId(0x0102)), [1, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(
            data(&prefix, b"ab", b"key").expect("a valid name"),
            *b"\x02\0\0\x0a\x0b\0\0\0\x03\x02\x02abkey"
        );
        assert_eq!(value_begin(Revision(258)), *b"\0\0\0\0\0\0\x01\x02");
        let pointer = Pointer { current: Epoch(1), next: Epoch(2) };
        assert_eq!(pointer.encode(), [0, 0, 0, 1, 0, 0, 0, 2]);
    }

    #[test]
    fn keys_can_be_read_back() {
        let prefix = epoch(GroupId(7), Epoch(1));
        let full = data(&prefix, b"name", b"key").expect("a valid name");

        assert_eq!(split_data(&full[PREFIX..]), Some((&b"name"[..], &b"key"[..])));
        assert_eq!(session_id(&session(SessionId(9))), Some(SessionId(9)));
        assert_eq!(pointer_group(&pointer(GroupId(7))), Some(GroupId(7)));
        assert_eq!(
            split_value(&[&value_begin(Revision(4))[..], b"v"].concat()),
            Some((Revision(4), &b"v"[..]))
        );
    }

    #[test]
    fn what_is_damaged_is_not_read() {
        assert_eq!(Pointer::decode(&[0; 7]), None);
        assert_eq!(Pointer::decode(&[0; 9]), None);
        assert_eq!(Pointer::decode(&[0, 0, 0, 2, 0, 0, 0, 2]), None, "next is above");
        assert_eq!(split_value(&[0; 7]), None);
        assert_eq!(split_data(&[DATA]), None);
        assert_eq!(split_data(&[DATA, 0, 1]), None, "no name");
        assert_eq!(split_data(&[DATA, 2, 1]), None, "shorter than it says");
        assert_eq!(session_id(&[SESSION, 1]), None);
    }

    #[test]
    fn a_partition_is_one_range_and_so_is_an_epoch() {
        let prefix = epoch(GroupId(7), Epoch(255));
        let partition = data(&prefix, b"ab", b"").expect("a valid name");
        let end = after(&partition);

        for key in [&b""[..], &[0], &[255, 255]] {
            let full = data(&prefix, b"ab", key).expect("a valid name");
            assert!(partition <= full && full < end);
            assert!(prefix[..] < full[..] && full < after(&prefix));
        }
        for name in [&b"a"[..], b"abc", b"aa", b"ac"] {
            let other = data(&prefix, name, b"").expect("a valid name");
            assert!(other < partition || other >= end, "{name:?}");
        }
        assert_eq!(after(&prefix), epoch(GroupId(7), Epoch(256))[..8]);
        assert_eq!(data(&prefix, b"", b"k"), None);
        assert_eq!(data(&prefix, &[b'x'; 256], b"k"), None);
    }
}
