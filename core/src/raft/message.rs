//! What one group's replicas keep and say: entries, membership, messages.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use bytes::Bytes;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::ids::{GroupId, LogIndex, MemberId, ReplicaId, SnapshotId, Term};
use crate::wire::bounded::{self, ENTRIES_MAX, MEMBERS_MAX};

/// One replica of a group and the member it lives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Replica {
    /// Its name in the protocol, never used twice.
    pub id: ReplicaId,
    /// Where it lives.
    pub member: MemberId,
}

/// Who takes part in a group. While `outgoing` is not empty the group is in a joint configuration (Raft
/// dissertation, section 4.3): every decision needs a majority of `voters` and a majority of `outgoing`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Membership {
    /// Voters; in a joint configuration the new ones. Sorted by id.
    #[serde(deserialize_with = "bounded::list::<MEMBERS_MAX, _, _>")]
    pub voters: Vec<Replica>,
    /// The old voters of a joint configuration, else empty. Sorted by id.
    #[serde(deserialize_with = "bounded::list::<MEMBERS_MAX, _, _>")]
    pub outgoing: Vec<Replica>,
    /// They receive the log and never vote. Sorted by id, none of them in `voters`.
    #[serde(deserialize_with = "bounded::list::<MEMBERS_MAX, _, _>")]
    pub learners: Vec<Replica>,
    /// The directory's order that this membership follows; 0 for the genesis. See [`crate::directory`].
    pub order: u64,
}

/// One position of a group's log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// Its position.
    pub index: LogIndex,
    /// The term of the leader that made it.
    pub term: Term,
    /// What it says.
    pub body: EntryBody,
}

/// What an entry says. Part of the log's format: variants are only added, at the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EntryBody {
    /// A new leader's first entry.
    Noop,
    /// A new membership, in force from the moment it stands in the log.
    Membership(Box<Membership>),
    /// Commands of the shard (an encoded [`crate::shard::command::Payload`]); opaque to Raft.
    Data(Bytes),
}

impl EntryBody {
    /// Bytes that count against the limits.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Noop => 0,
            Self::Membership(m) => 16 * (m.voters.len() + m.outgoing.len() + m.learners.len()),
            Self::Data(data) => data.len(),
        }
    }
}

/// A message from one replica of a group to another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// The group.
    pub group: GroupId,
    /// The sending replica.
    pub from: ReplicaId,
    /// The replica meant; any other drops the message.
    pub to: ReplicaId,
    /// The sender's term (for pre-votes and their grants: the term that is asked for).
    pub term: Term,
    /// What it says.
    pub body: Body,
}

/// What a Raft message says. Part of the wire's format: variants are only added, at the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body {
    /// Would you vote for me in this term? Changes nothing at the receiver (dissertation, section 9.6).
    PreVote {
        /// Last index of the candidate's log.
        last_index: LogIndex,
        /// Its term.
        last_term: Term,
    },
    /// Answer to `PreVote`. A grant carries the asked-for term, a denial the answerer's own.
    PreVoteAnswer {
        /// Whether the answerer would vote for the asker.
        granted: bool,
    },
    /// Vote for me in this term (section 3.4).
    Vote {
        /// Last index of the candidate's log.
        last_index: LogIndex,
        /// Its term.
        last_term: Term,
        /// True when the leader itself asked for this election (section 3.10): it may be granted although a
        /// leader was heard of recently.
        transfer: bool,
    },
    /// Answer to `Vote`; a grant is sent only when it is durable.
    VoteAnswer {
        /// Whether the vote was given.
        granted: bool,
    },
    /// Entries to append (section 3.5).
    Append {
        /// Index of the entry before the first of `entries`.
        prev_index: LogIndex,
        /// Its term.
        prev_term: Term,
        /// The leader's commit index.
        commit: LogIndex,
        /// Contiguous entries from `prev_index + 1` on; may be empty (a probe).
        #[serde(deserialize_with = "entries_together")]
        entries: Vec<Entry>,
    },
    /// Answer to `Append`: my log equals yours up to `index`, durably.
    Accepted {
        /// The last index that is known to match and is durable.
        index: LogIndex,
    },
    /// Answer to `Append`: my log does not have the entry before yours.
    Rejected {
        /// `prev_index` of the refused append.
        prev_index: LogIndex,
        /// The greatest index at which the logs may still agree...
        hint_index: LogIndex,
        /// ... and the term there.
        hint_term: Term,
    },
    /// Sent at once, outside the tick, when reads wait for the leader to prove itself (section 6.4) or a
    /// follower should learn of a commit.
    Beat(Beat),
    /// Answer to `Beat`.
    BeatAnswer(BeatAnswer),
    /// A part of a snapshot (section 5). The parts are numbered from 0.
    Snapshot {
        /// Names the sending of this snapshot.
        id: SnapshotId,
        /// The last index that the snapshot contains...
        index: LogIndex,
        /// ... and its term.
        last_term: Term,
        /// Number of this chunk.
        chunk: u64,
        /// Its bytes.
        data: Bytes,
        /// True on the last chunk.
        last: bool,
    },
    /// Answer to `Snapshot`: send this chunk next.
    SnapshotNext {
        /// The sending.
        id: SnapshotId,
        /// The chunk wanted.
        chunk: u64,
    },
    /// Stand for election now: the leader hands over (section 3.10).
    TimeoutNow,
    /// What index must I have applied to read linearizably? From a follower to the leader.
    ReadIndex {
        /// The follower's number of the question.
        read: u64,
    },
    /// Answer to `ReadIndex`; none when the asked replica is not (or no longer) the leader.
    ReadIndexAnswer {
        /// The number of the question.
        read: u64,
        /// The index to wait for.
        index: Option<LogIndex>,
    },
}

impl Body {
    /// The greatest index that the message speaks of, the entries' own excepted, which follow `prev_index`.
    #[must_use]
    pub fn greatest_index(&self) -> LogIndex {
        match self {
            Self::PreVote { last_index, .. } | Self::Vote { last_index, .. } => *last_index,
            Self::Append { prev_index, commit, .. } => *prev_index.max(commit),
            Self::Accepted { index } | Self::Snapshot { index, .. } => *index,
            Self::Rejected { prev_index, hint_index, .. } => *prev_index.max(hint_index),
            Self::Beat(beat) => beat.commit,
            Self::BeatAnswer(answer) => answer.last_index,
            Self::ReadIndexAnswer { index, .. } => index.unwrap_or_default(),
            Self::PreVoteAnswer { .. }
            | Self::VoteAnswer { .. }
            | Self::SnapshotNext { .. }
            | Self::TimeoutNow
            | Self::ReadIndex { .. } => LogIndex(0),
        }
    }
}

/// A leader's sign of life for one follower of one group. All beats between two members travel in one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Beat {
    /// The least of the leader's commit index and what the follower is known to have.
    pub commit: LogIndex,
    /// Rises by one with each round of beats; the answer says which round it answers.
    pub round: u64,
}

/// A follower's answer to a beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BeatAnswer {
    /// The round answered.
    pub round: u64,
    /// The last index of the follower's log, matching or not; lets the leader notice a lost append.
    pub last_index: LogIndex,
}

/// Decodes the entries of an append, their data copied together: one allocation for all of it, shared by the
/// entries, which are appended together and cut together.
fn entries_together<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Entry>, D::Error> {
    deserializer.deserialize_seq(Entries)
}

/// An entry whose data still lies where it came.
#[derive(Deserialize)]
struct EntryThere<'a> {
    index: LogIndex,
    term: Term,
    #[serde(borrow)]
    body: BodyThere<'a>,
}

/// The twin of [`EntryBody`]: the same variants in the same order.
#[derive(Deserialize)]
enum BodyThere<'a> {
    Noop,
    Membership(Box<Membership>),
    Data(#[serde(borrow)] &'a [u8]),
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<Entry>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {ENTRIES_MAX} entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<Entry>, A::Error> {
        let count = bounded::count::<ENTRIES_MAX, _>(&elements)?;
        let mut entries = Vec::with_capacity(bounded::reserve::<Entry>(count));
        let mut together = Vec::new();
        let mut ranges: Vec<Range<usize>> = Vec::with_capacity(bounded::reserve::<Entry>(count));
        while let Some(EntryThere { index, term, body }) = elements.next_element()? {
            let begin = together.len();
            let body = match body {
                BodyThere::Noop => EntryBody::Noop,
                BodyThere::Membership(membership) => EntryBody::Membership(membership),
                BodyThere::Data(data) => {
                    together.extend_from_slice(data);
                    EntryBody::Data(Bytes::new())
                }
            };
            ranges.push(begin..together.len());
            entries.push(Entry { index, term, body });
        }
        let together = Bytes::from(together);
        for (entry, range) in entries.iter_mut().zip(ranges) {
            if let EntryBody::Data(data) = &mut entry.body {
                *data = together.slice(range);
            }
        }
        Ok(entries)
    }
}
