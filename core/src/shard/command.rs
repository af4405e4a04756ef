//! What callers ask of a shard, as it stands in the log and on the wire. Every format here is frozen: golden-byte
//! tests beside the types. `B` is [`bytes::Bytes`] where bytes are owned and `&[u8]` where they are borrowed; both
//! encode alike.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{CursorId, GroupId, LogIndex, MemberId, Revision, Seq, SessionId, Term};
use crate::wire::bounded::{self, CHANGES_MAX, PAGE_KEYS_MAX};

/// A shard's log entry: everything its leader gathered in one turn.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Payload<B> {
    /// Version of this format: 1. An applier that does not know it halts the member.
    pub version: u8,
    /// Shard time in nanoseconds: time that passed under leaders since the group began. Never falls.
    pub stamp: u64,
    /// In the order in which they apply.
    pub items: Vec<Item<B>>,
}

/// One item of a payload. Variants are only added, at the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Item<B> {
    /// Opens a session for a member; answered with [`ItemOutcome::Opened`].
    Open {
        /// Whose session.
        member: MemberId,
        /// The opener's number of this attempt.
        nonce: u64,
    },
    /// A command of a session; applied once, in order of `seq`.
    Command {
        /// The session.
        session: SessionId,
        /// Number of the command in its session.
        seq: Seq,
        /// All commands before this one are answered: their replies may be forgotten.
        first: Seq,
        /// An encoded [`Command`].
        command: B,
    },
}

/// A change to one partition. Variants are only added, at the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Command<B> {
    /// Takes the place of a command that its caller gave up, so that it can never apply later.
    Skip,
    /// Sets a key.
    Put {
        /// The partition.
        partition: B,
        /// The key.
        key: B,
        /// Its new value.
        value: B,
    },
    /// Removes a key.
    Delete {
        /// The partition.
        partition: B,
        /// The key.
        key: B,
    },
    /// Sets (or removes) a key if it is as expected.
    CompareAndSet {
        /// The partition.
        partition: B,
        /// The key.
        key: B,
        /// What it must be.
        expect: Expect<B>,
        /// The new value; none removes the key.
        value: Option<B>,
    },
    /// Several changes of one partition, all at one revision. Later ones win over earlier ones.
    Batch {
        /// The partition.
        partition: B,
        /// In order.
        #[serde(deserialize_with = "bounded::list::<CHANGES_MAX, _, _>")]
        changes: Vec<Change<B>>,
    },
}

/// What a compare-and-set expects.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Expect<B> {
    /// The key has exactly this value; none: the key does not exist.
    Value(Option<B>),
    /// The key's value was last changed at this revision; 0: the key does not exist.
    Revision(Revision),
}

/// One change of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Change<B> {
    /// The key.
    pub key: B,
    /// Its new value; none removes the key.
    pub value: Option<B>,
}

/// What a command did. Kept with its session, so that a repeated command gets the same answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// A skip applied: the command it stands for never will.
    Skipped,
    /// Put or batch: done at this revision.
    Written {
        /// The revision of the change.
        revision: Revision,
    },
    /// Delete: done.
    Deleted {
        /// Whether the key existed.
        existed: bool,
        /// The revision of the change; of the last change before when nothing was there.
        revision: Revision,
    },
    /// Compare-and-set: decided.
    Compared {
        /// Whether the key was as expected and is now set.
        swapped: bool,
        /// The key's revision now; 0 when it does not exist.
        revision: Revision,
    },
    /// The command could not be decoded, or breaks a limit that all replicas share; nothing changed.
    Malformed,
}

/// What became of one item of an applied entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ItemOutcome {
    /// A session was opened.
    Opened(SessionId),
    /// The command was applied, now or when it came first.
    Done(Outcome),
    /// Commands before this one are missing: send again from `next` on. Not applied.
    Gap {
        /// The seq that the session expects.
        next: Seq,
    },
    /// The group does not know the session (any more). Not applied by this item; if the command was sent before,
    /// it may have been applied then.
    Expired,
    /// The command was applied when it came first, and its reply has been forgotten since.
    Forgotten,
}

/// A question to one partition; changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Query {
    /// The value of a key. Answered with [`Answer::Value`].
    Get {
        /// The partition.
        partition: Bytes,
        /// The key.
        key: Bytes,
    },
    /// The first page of a range. Answered with [`Answer::Page`].
    Scan(Box<Scan>),
    /// The next page of a scan, from the same snapshot. Answered with [`Answer::Page`] or [`Answer::NoCursor`].
    ScanNext {
        /// As the page before said.
        cursor: CursorId,
        /// Number of the page, counted from 1 (the scan's answer was page 0): a repeated question finds another
        /// number there and skips nothing; it is answered with `NoCursor`, and the cursor stays.
        page: u32,
        /// The revision that the page before showed: a question that was repeated on its way may have opened the
        /// scan twice, and one scan shows one snapshot.
        revision: Revision,
        /// Most keys wanted on this page.
        limit: u32,
    },
    /// The scan is not continued. Answered with an empty last page.
    ScanClose {
        /// As the page before said.
        cursor: CursorId,
    },
    /// Numbers about the partition, counted on one snapshot. Answered with [`Answer::Info`].
    Info {
        /// The partition.
        partition: Bytes,
    },
    /// What changed in a range after a revision. Answered with [`Answer::Changes`] or [`Answer::Compacted`].
    Watch(Box<Watch>),
}

/// How long a replica lets a question wait for a change.
pub const WATCH_WAIT: Duration = Duration::from_secs(5);

/// Which changes of a partition are asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Watch {
    /// The partition.
    pub partition: Bytes,
    /// First key of the range (inclusive); empty: from the beginning.
    pub from: Bytes,
    /// End of the range (exclusive); none: to the end.
    pub to: Option<Bytes>,
    /// Those after this revision; none: none of those so far, the answer only says which revision it is.
    pub after: Option<Revision>,
    /// Most changes wanted (the replica may answer fewer, and more where they are all of one revision).
    pub limit: u32,
    /// With nothing to tell the answer waits for a change, for some seconds.
    pub wait: bool,
}

/// A range of keys of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Scan {
    /// The partition.
    pub partition: Bytes,
    /// First key of the range (inclusive); empty: from the beginning.
    pub from: Bytes,
    /// End of the range (exclusive); none: to the end.
    pub to: Option<Bytes>,
    /// From the end of the range to its beginning.
    pub reverse: bool,
    /// Most keys wanted on the first page (the replica may answer fewer).
    pub limit: u32,
    /// Names the snapshot if the range does not fit on one page: the replica keeps it under this cursor.
    pub cursor: CursorId,
}

/// What a query found.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Answer {
    /// The value and when it last changed; none: no such key.
    Value(Option<(Bytes, Revision)>),
    /// Part of a range.
    Page(Page),
    /// The replica no longer has the scan's snapshot: continue with a new scan, from the key after the last.
    NoCursor,
    /// Numbers.
    Info(PartitionInfo),
    /// What changed, in the order in which it was committed. A revision is told as a whole.
    Changes {
        /// The changes.
        #[serde(deserialize_with = "bounded::list::<CHANGES_MAX, _, _>")]
        changes: Vec<Changed>,
        /// Everything up to this revision is told: ask for what comes after it.
        upto: Revision,
    },
    /// Some of what was asked for is forgotten: read the data anew.
    Compacted {
        /// The first revision that this replica remembers.
        first: Revision,
    },
}

/// A change of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Changed {
    /// When.
    pub revision: Revision,
    /// The key.
    pub key: Bytes,
    /// Its new value; none: it was removed.
    pub value: Option<Bytes>,
}

/// Part of a range.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Page {
    /// Keys with value and revision, in the order asked for.
    #[serde(deserialize_with = "bounded::list::<PAGE_KEYS_MAX, _, _>")]
    pub items: Vec<(Bytes, Bytes, Revision)>,
    /// True when there is more: the snapshot is kept for a `ScanNext` with the scan's cursor.
    pub more: bool,
    /// The revision of the last change that the snapshot contains.
    pub revision: Revision,
}

/// Numbers about one partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct PartitionInfo {
    /// Keys in it.
    pub keys: u64,
    /// Bytes of keys and values in it.
    pub bytes: u64,
    /// The revision of the shard's last change.
    pub revision: Revision,
    /// The last entry that the asked replica had applied...
    pub applied: LogIndex,
    /// ... and its term.
    pub applied_term: Term,
    /// The shard that holds the partition.
    pub group: GroupId,
}

/// A partition's name is UTF-8; this shows one for messages.
#[must_use]
pub fn show_name(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
