//! What the records of a log add up to.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::ids::{GroupId, LogIndex, ReplicaId, SegmentId, Term};
use crate::raft::message::{Entry, Membership};
use crate::storage::extent::Extent;
use crate::storage::record::{Checkpoint, GroupCheckpoint, Record};
use crate::storage::{Recovered, RecoveredGroup};

/// The state after the records replayed so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Replay {
    facts: Recovered,
    groups: BTreeMap<GroupId, Group>,
    /// Whether a checkpoint was seen: the first one is believed about entries that are not there.
    based: bool,
}

impl Replay {
    /// Replays one record of a segment.
    pub(super) fn apply(&mut self, segment: SegmentId, record: Record) -> Result<(), Conflict> {
        match record {
            Record::Birth { birth } => self.facts.birth = birth,
            Record::Genesis(genesis) => self.facts.genesis = Some(genesis),
            Record::Founded => self.facts.founded = true,
            Record::Released => self.facts.genesis = None,
            Record::Boot(boot) => {
                self.facts.earlier = self.facts.starts();
                self.facts.boot = boot;
            }
            Record::PeerBoot { member, boot } => {
                // What was let in last counts: before a cluster exists that may be an older copy.
                self.facts.peers.insert(member, boot);
            }
            Record::Vote { group, replica, term, vote } => {
                let held = self.group(group, replica);
                (held.term, held.vote) = (term, vote);
            }
            Record::Entries { group, replica, entries } => {
                let held = self.group(group, replica);
                held.on_entries(segment, entries).map_err(|what| Conflict::of(group, what))?;
            }
            Record::Cut { group, replica, index, term, membership } => {
                let held = self.group(group, replica);
                held.on_cut(index, term, membership).map_err(|what| Conflict::of(group, what))?;
            }
            Record::Checkpoint(checkpoint) => self.on_checkpoint(checkpoint)?,
            Record::Replica { group, replica } => {
                self.group(group, replica);
            }
            Record::Table(table) => self.facts.table = Some(table),
            Record::Dropped { group } => {
                self.groups.remove(&group);
            }
        }
        Ok(())
    }

    /// Everything that was replayed. Fails if a group lacks entries that its log must have.
    pub(super) fn finish(self) -> Result<Recovered, Conflict> {
        let mut recovered = self.facts;
        for (group, held) in self.groups {
            let first = LogIndex(held.extent.cut_index.0.saturating_add(1));
            let lacks = match held.entries.first() {
                Some(entry) => entry.index != first,
                None => held.extent.last_index >= first,
            };
            if lacks {
                return Err(Conflict {
                    group: Some(group),
                    missing: Some(first),
                    what: "an entry is missing that its log must have",
                });
            }
            let Group { extent, term, vote, commit, membership, entries } = held;
            let restored = RecoveredGroup {
                replica: extent.replica,
                term,
                vote,
                commit,
                cut_index: extent.cut_index,
                cut_term: extent.cut_term,
                membership,
                entries,
            };
            recovered.groups.insert(group, restored);
            recovered.tail.extents.insert(group, extent);
        }
        Ok(recovered)
    }

    /// By group: replica, term, commit, cut, last index.
    pub(super) fn extents(&self) -> impl Iterator<Item = (GroupId, Term, LogIndex, &Extent)> {
        self.groups.iter().map(|(group, held)| (*group, held.term, held.commit, &held.extent))
    }

    /// A record of another replica means that the group began anew on this member: nothing of the
    /// old one counts.
    fn group(&mut self, group: GroupId, replica: ReplicaId) -> &mut Group {
        let held = self.groups.entry(group).or_insert_with(|| Group::new(Extent::new(replica)));
        if held.extent.replica != replica {
            *held = Group::new(Extent::new(replica));
        }
        held
    }

    fn on_checkpoint(&mut self, checkpoint: Checkpoint) -> Result<(), Conflict> {
        let Checkpoint { birth, genesis, founded, boot, earlier, peers, table, groups } =
            checkpoint;
        self.facts.birth = birth;
        self.facts.genesis = genesis;
        self.facts.founded = founded;
        self.facts.boot = boot;
        self.facts.earlier = earlier;
        self.facts.peers = peers.into_iter().collect();
        self.facts.table = table;
        let mut before = core::mem::take(&mut self.groups);
        let based = core::mem::replace(&mut self.based, true);
        for says in groups {
            let group = says.group;
            let mut held = before
                .remove(&group)
                .filter(|held| held.extent.replica == says.replica)
                .unwrap_or_else(|| {
                    Group::new(match based {
                        true => Extent::new(says.replica),
                        false => Extent::of_checkpoint(&says),
                    })
                });
            held.on_checkpoint(says).map_err(|what| Conflict::of(group, what))?;
            self.groups.insert(group, held);
        }
        Ok(())
    }
}

/// Records that contradict one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    pub(super) group: Option<GroupId>,
    /// The first index that should be there and is not.
    pub(super) missing: Option<LogIndex>,
    pub(super) what: &'static str,
}

impl Conflict {
    fn of(group: GroupId, what: &'static str) -> Self {
        Self { group: Some(group), missing: None, what }
    }
}

/// One group. `entries` are those of `extent` that were seen: they end at its last index, and may
/// begin too late.
#[derive(Clone, Debug)]
struct Group {
    extent: Extent,
    term: Term,
    vote: Option<ReplicaId>,
    commit: LogIndex,
    membership: Membership,
    entries: Vec<Entry>,
}

impl Group {
    fn new(extent: Extent) -> Self {
        Self {
            extent,
            term: Term(0),
            vote: None,
            commit: LogIndex(0),
            membership: Membership::default(),
            entries: Vec::new(),
        }
    }

    fn on_entries(
        &mut self,
        segment: SegmentId,
        mut entries: Vec<Entry>,
    ) -> Result<(), &'static str> {
        self.extent.on_entries(segment, &entries)?;
        let cut = self.extent.cut_index;
        entries.drain(..entries.partition_point(|entry| entry.index <= cut));
        if let Some(first) = entries.first() {
            let from = first.index;
            let kept = self.entries.partition_point(|entry| entry.index < from);
            self.entries.truncate(kept);
            self.entries.append(&mut entries);
        }
        Ok(())
    }

    fn on_cut(
        &mut self,
        index: LogIndex,
        term: Term,
        membership: Membership,
    ) -> Result<(), &'static str> {
        let before = self.extent.cut_index;
        self.extent.on_cut(index, term)?;
        if index > before {
            self.membership = membership;
            self.commit = self.commit.max(index);
            self.trim();
        }
        Ok(())
    }

    fn on_checkpoint(&mut self, says: GroupCheckpoint) -> Result<(), &'static str> {
        self.extent.on_checkpoint(&says)?;
        self.trim();
        self.term = says.term;
        self.vote = says.vote;
        self.commit = says.commit.max(says.cut_index);
        self.membership = says.membership;
        Ok(())
    }

    /// Drops the entries that the extent does not count.
    fn trim(&mut self) {
        let Extent { cut_index, last_index, .. } = self.extent;
        let end = self.entries.partition_point(|entry| entry.index <= last_index);
        self.entries.truncate(end);
        let begin = self.entries.partition_point(|entry| entry.index <= cut_index);
        self.entries.drain(..begin);
    }
}
