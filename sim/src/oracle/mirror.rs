//! One replica's log as the oracle mirrors it: terms and positions, no data.

use std::collections::{BTreeMap, VecDeque};

use ring_core::ids::{GroupId, LogIndex, ReplicaId, Term, len_u64, len_usize};
use ring_core::storage::RecoveredGroup;
use ring_core::storage::record::{Batch, Record};

use super::state::entry_hash;

/// Term, vote and log of one replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LogMirror {
    /// Whose log it is; none where no record told of its making.
    pub(super) replica: Option<ReplicaId>,
    pub(super) term: Term,
    pub(super) vote: Option<ReplicaId>,
    /// What is cut off the log.
    pub(super) cut: LogIndex,
    cut_term: Term,
    /// Terms of the entries behind the cut.
    terms: VecDeque<Term>,
}

/// What one record says.
#[derive(Clone, Debug)]
pub(super) enum Fact {
    Vote {
        group: GroupId,
        term: Term,
        vote: Option<ReplicaId>,
    },
    Entries {
        group: GroupId,
        entries: Vec<EntryFact>,
    },
    Cut {
        group: GroupId,
        index: LogIndex,
        term: Term,
    },
    /// A new, empty replica takes the place of whatever there was.
    Made {
        group: GroupId,
        replica: ReplicaId,
    },
    /// There is no replica any more.
    Dropped {
        group: GroupId,
    },
    Checkpoint {
        group: GroupId,
        term: Term,
        vote: Option<ReplicaId>,
        cut: LogIndex,
        cut_term: Term,
        last: LogIndex,
    },
}

/// One entry without its data.
#[derive(Clone, Copy, Debug)]
pub(super) struct EntryFact {
    pub(super) index: LogIndex,
    pub(super) term: Term,
    pub(super) hash: u64,
}

impl LogMirror {
    pub(super) fn of(found: &RecoveredGroup) -> Self {
        Self {
            replica: Some(found.replica),
            term: found.term,
            vote: found.vote,
            cut: found.cut_index,
            cut_term: found.cut_term,
            terms: found.entries.iter().map(|e| e.term).collect(),
        }
    }

    /// Whether it is, as far as is known, this replica's.
    pub(super) fn is_of(&self, replica: Option<ReplicaId>) -> bool {
        self.replica.is_none() || replica.is_none() || self.replica == replica
    }

    pub(super) fn last(&self) -> LogIndex {
        LogIndex(self.cut.0 + len_u64(self.terms.len()))
    }

    /// The term of the entry at an index, if the log still says it.
    pub(super) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.cut {
            return Some(self.cut_term);
        }
        let place = index.0.checked_sub(self.cut.0 + 1)?;
        self.terms.get(len_usize(place)).copied()
    }

    /// Says how a recovered log differs; where one of the two is cut only what both hold is compared.
    pub(super) fn differs_from(&self, found: &Self) -> Option<String> {
        if !found.is_of(self.replica) {
            return Some(format!("is of {:?}, not {:?}", found.replica, self.replica));
        }
        if (self.term, self.vote) != (found.term, found.vote) {
            let (term, vote) = (found.term, found.vote);
            return Some(format!(
                "says {term}, vote {vote:?}; {}, {:?} was written",
                self.term, self.vote
            ));
        }
        if self.last() != found.last() {
            return Some(format!("ends at {}, not {}", found.last(), self.last()));
        }
        let from = self.cut.max(found.cut).0;
        (from..=self.last().0).map(LogIndex).find_map(|index| {
            let (mine, theirs) = (self.term_at(index), found.term_at(index));
            (mine != theirs).then(|| format!("says {theirs:?} at {index}, not {mine:?}"))
        })
    }

    fn truncate_from(&mut self, index: LogIndex) {
        let kept = index.0.saturating_sub(self.cut.0 + 1);
        self.terms.truncate(len_usize(kept));
    }

    fn cut(&mut self, index: LogIndex, term: Term) {
        let goes_on = self.term_at(index) == Some(term);
        if goes_on {
            self.terms.drain(..len_usize(index.0 - self.cut.0));
        } else if index > self.cut || self.term_at(index).is_some() {
            self.terms.clear();
        } else {
            return;
        }
        self.cut = index;
        self.cut_term = term;
    }
}

impl Fact {
    pub(super) fn group(&self) -> GroupId {
        match self {
            Self::Vote { group, .. }
            | Self::Entries { group, .. }
            | Self::Cut { group, .. }
            | Self::Made { group, .. }
            | Self::Dropped { group }
            | Self::Checkpoint { group, .. } => *group,
        }
    }

    /// The vote that it records, if it records one.
    pub(super) fn vote(&self) -> Option<(GroupId, Term, ReplicaId)> {
        match self {
            Self::Vote { group, term, vote } => Some((*group, *term, (*vote)?)),
            Self::Entries { .. }
            | Self::Cut { .. }
            | Self::Made { .. }
            | Self::Dropped { .. }
            | Self::Checkpoint { .. } => None,
        }
    }

    /// Whether it may follow what the log says already.
    pub(super) fn fits(&self, mirror: Option<&LogMirror>) -> Result<(), String> {
        let Some(mirror) = mirror else {
            return Ok(());
        };
        match self {
            Self::Vote { group, term, vote } => {
                let other = mirror.vote.is_some() && mirror.vote != *vote;
                if *term < mirror.term || (*term == mirror.term && other) {
                    let (old, voted) = (mirror.term, mirror.vote);
                    return Err(format!("{group}: {term} {vote:?} follows {old} {voted:?}"));
                }
            }
            Self::Entries { group, entries } => {
                let first = entries[0].index;
                if first <= mirror.cut || first > mirror.last().next() {
                    let (cut, last) = (mirror.cut, mirror.last());
                    return Err(format!("{group}: entries at {first}, the log is {cut}..{last}"));
                }
            }
            Self::Cut { .. } | Self::Dropped { .. } => {}
            Self::Made { group, .. } => {
                return Err(format!("{group}: a replica is made where there is one"));
            }
            Self::Checkpoint { group, term, vote, last, .. } => {
                if (*term, *vote, *last) != (mirror.term, mirror.vote, mirror.last()) {
                    return Err(format!(
                        "{group}: the checkpoint says {term} {vote:?} {last}, the log {} {:?} {}",
                        mirror.term,
                        mirror.vote,
                        mirror.last()
                    ));
                }
            }
        }
        Ok(())
    }

    pub(super) fn apply(&self, mirrors: &mut BTreeMap<GroupId, LogMirror>) {
        if let Self::Dropped { group } = self {
            mirrors.remove(group);
            return;
        }
        let mirror = mirrors.entry(self.group()).or_default();
        match self {
            Self::Made { replica, .. } => mirror.replica = Some(*replica),
            Self::Dropped { .. } => {}
            Self::Vote { term, vote, .. } => {
                mirror.term = *term;
                mirror.vote = *vote;
            }
            Self::Entries { entries, .. } => {
                mirror.truncate_from(entries[0].index);
                mirror.terms.extend(entries.iter().map(|e| e.term));
            }
            Self::Cut { index, term, .. } => mirror.cut(*index, *term),
            Self::Checkpoint { term, vote, cut, cut_term, .. } => {
                mirror.term = *term;
                mirror.vote = *vote;
                mirror.cut(*cut, *cut_term);
            }
        }
    }
}

/// What a batch says about groups.
pub(super) fn facts_of(batch: &Batch) -> Vec<Fact> {
    let mut facts = Vec::with_capacity(batch.records.len());
    for record in &batch.records {
        match record {
            Record::Vote { group, term, vote, .. } => {
                facts.push(Fact::Vote { group: *group, term: *term, vote: *vote })
            }
            Record::Entries { group, entries, .. } => {
                let entries = entries.iter().map(|e| EntryFact {
                    index: e.index,
                    term: e.term,
                    hash: entry_hash(e),
                });
                facts.push(Fact::Entries { group: *group, entries: entries.collect() });
            }
            Record::Cut { group, index, term, .. } => {
                facts.push(Fact::Cut { group: *group, index: *index, term: *term })
            }
            Record::Replica { group, replica } => {
                facts.push(Fact::Made { group: *group, replica: *replica });
            }
            Record::Dropped { group } => facts.push(Fact::Dropped { group: *group }),
            Record::Checkpoint(checkpoint) => {
                facts.extend(checkpoint.groups.iter().map(|g| Fact::Checkpoint {
                    group: g.group,
                    term: g.term,
                    vote: g.vote,
                    cut: g.cut_index,
                    cut_term: g.cut_term,
                    last: g.last_index,
                }));
            }
            Record::Birth { .. }
            | Record::Genesis(_)
            | Record::Founded
            | Record::Released
            | Record::Boot(_)
            | Record::PeerBoot { .. }
            | Record::Table(_) => {}
        }
    }
    facts
}
