//! Sees all members at once and fails the run when two of them contradict each other, or one its own promises.
//!
//! | check | what must hold |
//! |---|---|
//! | ELECT | one leader for each group and term; who votes for a candidate has no log that is newer than the candidate's (section 3.6.1) |
//! | MATCH | equal index and term: equal entry, and equal term of the entry before; a replica's log ends where what it wrote ends; a snapshot takes nothing from a log that holds its last entry (asked by the process) |
//! | LEDGER | what is applied at an index is the same everywhere; no leader is without it, nobody overwrites it |
//! | COMMIT | what is applied is durable on a majority of the group's voters; and a majority stored, while in some term, an entry of that very term at its index or behind it |
//! | PROMISE | what a vote or an acceptance says is durable on its sender |
//! | READ | a leader that is asked which index a read must wait for names none before what was applied anywhere when it was asked |
//! | CONFIG | each membership shares a voter of every majority with the one before it in its log; a replica goes by the last membership that its log holds |
//! | HASH | equal applied index: equal digest of the state |
//! | ONCE | entries are handed out and applied one after the other, each once, from where the store stood |
//! | ORDER, TABLE, R22 | what the directory asks for and what the groups do about it fit together: see `oracle/directory.rs` |
//! | BEAT | who leads shows itself tick by tick, whatever its disk does (asked by the process) |
//! | RECOVER | what a log says after a crash is what was written, up to some batch, and never less than was durable; nothing is cut off a log that its store does not hold durably, and no state is forgotten before the log says durably that its replica is gone |
//! | REQUEST | what is to be handled once is, an answer is of its request, and every request ends by its deadline, and when all is well it is answered: see `oracle/requests.rs` |
//! | STREAM | what is read of a stream is what was written, within its window, and every stream ends: see `oracle/streams.rs` |
//! | WATCH | a watch tells exactly what was committed in its range, in order and once, or that it cannot: see `oracle/watches.rs` |
//! | LEAVE | nobody is let go, unless by force, when those who would be left could decide nothing: see `oracle/leave.rs` |
//! | BIRTH | a cluster is created once, by as many as were expected, all of whom hold its genesis: see `oracle/birth.rs` |
//! | MEMBER | incarnations of members never fall and nobody makes one up; nobody who lives is dead when all is well: see `oracle/member.rs` |
//!
//! It keeps a mirror of each log: what was appended, and how far it is durable.
//!
//! | file | what it sees |
//! |---|---|
//! | `oracle.rs` | what is known, and of whom |
//! | `birth.rs` | how the cluster is created |
//! | `leave.rs` | who asks to go, and who is missed then |
//! | `log.rs`, `mirror.rs` | batches on their way to the log, durable, and found after a crash |
//! | `messages.rs` | what members say and promise |
//! | `state.rs` | what is committed, applied and kept |
//! | `config.rs`, `directory.rs` | who takes part in which group |
//! | `member.rs` | what members think of each other |
//! | `requests.rs`, `streams.rs` | what nodes ask of each other |
//! | `watches.rs` | what watches tell |

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use ring_core::genesis::Genesis;
use ring_core::ids::{GroupId, LogIndex, LogSeq, MemberId, ReplicaId, Term, len_u64, len_usize};
use ring_core::raft::message::Membership;

mod birth;
mod config;
mod directory;
mod leave;
mod log;
mod member;
mod messages;
mod mirror;
mod requests;
mod state;
mod streams;
mod watches;

use birth::Births;
use directory::Directory;
pub use directory::GoesBy;
use leave::Leaves;
use member::Views;
use mirror::{Fact, LogMirror};
use requests::Requests;
pub use requests::{Asked, Asking, RequestCounts};
pub use streams::Pipe;
use streams::Streams;
pub use watches::WatchId;
use watches::Watches;

/// A rule was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The check, as in the table.
    pub check: &'static str,
    /// Who, where, what.
    pub problem: String,
}

/// What the oracle knows. Members are numbered as the machines that they live on.
#[derive(Debug, Default)]
pub struct Oracle {
    genesis: Option<Genesis>,
    groups: BTreeMap<GroupId, GroupFacts>,
    members: Vec<MemberFacts>,
    directory: Directory,
    births: Births,
    leaves: Leaves,
    views: Views,
    requests: Requests,
    streams: Streams,
    watches: Watches,
    /// Logs of replicas that are no more, as they were last durable: what they said before still counts.
    buried: BTreeMap<(GroupId, ReplicaId), LogMirror>,
    violation: Option<Violation>,
    promises: u64,
    messages: u64,
}

#[derive(Debug, Default)]
struct GroupFacts {
    leaders: BTreeMap<Term, MemberId>,
    /// What was applied, from index 1 on.
    ledger: Vec<(Term, u64)>,
    /// By index: digest of the state and who said it first.
    digests: BTreeMap<LogIndex, (u64, usize)>,
    /// By index and term: hash of the entry and term of the one before.
    entries: BTreeMap<(LogIndex, Term), (u64, Term)>,
    /// By index and term: the memberships that any log holds or held; at 0 that of the genesis.
    shapes: BTreeMap<(LogIndex, Term), Membership>,
    /// By term and replica: the last index of that term which the replica has stored while in that term. A leader
    /// commits by counting these, and nothing else.
    stored: BTreeMap<Term, BTreeMap<(usize, Option<ReplicaId>), LogIndex>>,
    /// By term and candidate: with which last entry it stood.
    candidates: BTreeMap<(Term, ReplicaId), (Term, LogIndex)>,
    /// By asker and number: what was applied when a read index was asked for.
    asked: BTreeMap<(ReplicaId, u64), LogIndex>,
}

#[derive(Debug, Default)]
struct MemberFacts {
    /// Its id, once a process of it has started; a founder's follows from its place.
    id: Option<MemberId>,
    durable: BTreeMap<GroupId, LogMirror>,
    written: BTreeMap<GroupId, LogMirror>,
    votes: BTreeMap<(GroupId, Term), ReplicaId>,
    queue: VecDeque<(LogSeq, Vec<Fact>)>,
    durable_upto: LogSeq,
    progress: BTreeMap<GroupId, Progress>,
    /// Groups whose state the store is to forget: what it did before concerns nobody.
    dropping: BTreeSet<GroupId>,
    /// It came back on an earlier copy of its disk: nothing that it was counts.
    restored: bool,
    /// Its disk is gone: what it promised stays known, and it must not promise anything again.
    lost: bool,
}

#[derive(Debug, Default)]
struct Progress {
    handed: LogIndex,
    done: LogIndex,
    waiting: VecDeque<LogIndex>,
    persisted: LogIndex,
}

impl Oracle {
    /// Watches so many members.
    #[must_use]
    pub fn new(members: usize) -> Self {
        Self { members: (0..members).map(|_| MemberFacts::default()).collect(), ..Self::default() }
    }

    /// The first rule that was broken.
    #[must_use]
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// The leader of the highest term known of a group.
    #[must_use]
    pub fn leader(&self, group: GroupId) -> Option<MemberId> {
        let (_, leader) = self.groups.get(&group)?.leaders.last_key_value()?;
        Some(*leader)
    }

    /// The last index that anyone has applied.
    #[must_use]
    pub fn applied(&self, group: GroupId) -> LogIndex {
        LogIndex(self.groups.get(&group).map_or(0, |g| len_u64(g.ledger.len())))
    }

    /// The term of what a member has written at an index of a group's log, if its log holds it.
    #[must_use]
    pub fn written(&self, member: usize, group: GroupId, index: LogIndex) -> Option<Term> {
        self.members[member].written.get(&group)?.term_at(index)
    }

    /// How many promises were looked at.
    #[must_use]
    pub fn promises(&self) -> u64 {
        self.promises
    }

    /// How many messages members sent.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// The cluster's founding record, once any member knows it.
    #[must_use]
    pub fn genesis(&self) -> Option<&Genesis> {
        self.genesis.as_ref()
    }

    /// A rule was broken that something else checks.
    pub fn fail(&mut self, check: &'static str, problem: String) {
        self.violation.get_or_insert(Violation { check, problem });
    }

    /// A member says that the cluster exists.
    pub fn on_up(&mut self, member: usize, genesis: &Genesis) {
        if let Some(known) = &self.genesis {
            if known != genesis {
                let problem = format!("{} has another genesis: {genesis:?}", name(member));
                self.fail("ELECT", problem);
            }
            return;
        }
        let layout = genesis.layout();
        for group in genesis.all_groups() {
            let facts = self.groups.entry(group).or_default();
            facts.shapes.insert((LogIndex(0), Term(0)), layout.membership(group));
        }
        self.genesis = Some(genesis.clone());
    }

    /// A member's disk is gone. It must not take part in any group again.
    pub fn on_lost(&mut self, member: usize) {
        self.members[member].lost = true;
    }
}

impl GroupFacts {
    /// Where the membership stands that is in force at an index of what was applied.
    fn in_force(&self, index: LogIndex) -> (LogIndex, Term) {
        let applied = |at: LogIndex, term: Term| {
            let known = at.0.checked_sub(1).and_then(|i| self.ledger.get(len_usize(i)));
            at <= index && known.is_none_or(|(known, _)| *known == term)
        };
        let found = self.shapes.keys().rev().find(|(at, term)| applied(*at, *term));
        found.copied().unwrap_or_default()
    }

    fn on_stored(
        &mut self,
        member: usize,
        replica: Option<ReplicaId>,
        term: Term,
        index: LogIndex,
    ) {
        let stored = self.stored.entry(term).or_default().entry((member, replica)).or_default();
        *stored = index.max(*stored);
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.problem)
    }
}

fn name(member: usize) -> String {
    MemberId(len_u64(member) + 1).to_string()
}

#[cfg(test)]
mod tests;
