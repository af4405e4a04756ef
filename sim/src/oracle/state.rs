//! What is committed, applied and kept by the stores.

use std::collections::{BTreeMap, BTreeSet};

use ring_core::ids::{GroupId, LogIndex, ReplicaId, len_u64, len_usize};
use ring_core::raft::message::{Entry, EntryBody, Replica};
use ring_core::store::{StoreDone, StoreState, StoreTask};

use super::config::decides;
use super::{Oracle, Progress, name};
use crate::trace::Hash64;

impl Oracle {
    pub(super) fn on_store_found(&mut self, member: usize, state: &StoreState) {
        let applied = self.applied(state.group);
        let progress = self.members[member].progress.entry(state.group).or_default();
        let problem = if state.index < progress.persisted {
            Some(format!("had synced {} and holds {}", progress.persisted, state.index))
        } else if state.index > applied {
            Some(format!("holds {}, nobody applied beyond {applied}", state.index))
        } else {
            None
        };
        *progress = Progress {
            handed: state.index,
            done: state.index,
            persisted: state.index,
            ..Progress::default()
        };
        if let Some(problem) = problem {
            let problem = format!("{}: the store of {} {problem}", name(member), state.group);
            return self.fail("ONCE", problem);
        }
        self.on_digest(member, state.group, state.index, state.digest);
    }

    /// A task goes to the store.
    pub fn on_task(&mut self, member: usize, task: &StoreTask) {
        if self.members[member].lost {
            return;
        }
        match task {
            StoreTask::Apply { group, entries, .. } => self.on_apply(member, *group, entries),
            // What was handed to a state that is forgotten is owed to nobody.
            StoreTask::Drop { group } => {
                let facts = &mut self.members[member];
                facts.progress.remove(group);
                facts.dropping.insert(*group);
                if facts.durable.contains_key(group) {
                    let problem = format!(
                        "{}: its store is to forget {group}, of which its log durably has a replica",
                        name(member)
                    );
                    self.fail("RECOVER", problem);
                }
            }
            StoreTask::Create { .. }
            | StoreTask::Read { .. }
            | StoreTask::CloseCursor { .. }
            | StoreTask::CloseWatch { .. }
            | StoreTask::Persist
            | StoreTask::Load { .. }
            | StoreTask::CloseSnapshot { .. }
            | StoreTask::Install { .. } => {}
        }
    }

    fn on_apply(&mut self, member: usize, group: GroupId, entries: &[Entry]) {
        let progress = self.members[member].progress.entry(group).or_default();
        let mut expected = progress.handed.next();
        for entry in entries {
            if entry.index != expected {
                let problem = format!(
                    "{}: {group}: {} is handed out, {expected} was due",
                    name(member),
                    entry.index
                );
                return self.fail("ONCE", problem);
            }
            expected = expected.next();
        }
        progress.handed = expected.prev();
        progress.waiting.push_back(progress.handed);
        for entry in entries {
            self.on_committed(member, group, entry);
        }
    }

    fn on_committed(&mut self, member: usize, group: GroupId, entry: &Entry) {
        let hash = entry_hash(entry);
        let facts = self.groups.entry(group).or_default();
        let at = len_usize(entry.index.0 - 1);
        match facts.ledger.get(at) {
            Some(known) if *known == (entry.term, hash) => {}
            Some((term, _)) => {
                let problem = format!(
                    "{}: applies {} {} of {group}; others applied {term}{}",
                    name(member),
                    entry.index,
                    entry.term,
                    if *term == entry.term { " with other content" } else { "" }
                );
                self.fail("LEDGER", problem);
            }
            None if at == facts.ledger.len() => {
                facts.ledger.push((entry.term, hash));
                if let Err(problem) = self.directory.on_applied(group, entry) {
                    return self.fail("ORDER", format!("{}: {problem}", name(member)));
                }
                self.on_first_applied(member, group, entry);
            }
            None => {
                let problem = format!("{}: {group}: a gap before {}", name(member), entry.index);
                self.fail("LEDGER", problem);
            }
        }
    }

    fn on_first_applied(&mut self, member: usize, group: GroupId, entry: &Entry) {
        let facts = &self.groups[&group];
        let holds = |replica: &Replica| {
            let mirror = self.mirror_of(group, replica);
            mirror
                .is_some_and(|m| entry.index <= m.cut || m.term_at(entry.index) == Some(entry.term))
        };
        // Its leader counted by the last membership in its log: the one in force there, or one that came after.
        let from = facts.in_force(entry.index);
        let has_quorum = |holds: &dyn Fn(&Replica) -> bool| {
            facts.shapes.range(from..).any(|(_, shape)| {
                let replicas = || shape.voters.iter().chain(&shape.outgoing);
                decides(shape, |id| replicas().any(|r| r.id == id && holds(r)))
            })
        };
        if !has_quorum(&holds) {
            let shapes = facts.shapes.range(from..);
            let all = shapes.flat_map(|(_, s)| s.voters.iter().chain(&s.outgoing));
            let holders: BTreeSet<&Replica> = all.filter(|replica| holds(replica)).collect();
            let problem = format!(
                "{}: applies {group} {} {}, durable on {:?} only, with {:?}",
                name(member),
                entry.index,
                entry.term,
                holders,
                facts.shapes.range(from..).collect::<Vec<_>>()
            );
            return self.fail("COMMIT", problem);
        }
        let reached = |stored: &BTreeMap<(usize, Option<ReplicaId>), LogIndex>| {
            has_quorum(&|replica| {
                let machine = self.machine_ever_of(replica.member);
                let by = |id| machine.and_then(|machine| stored.get(&(machine, id)));
                let index = by(Some(replica.id)).or_else(|| by(None));
                index.is_some_and(|index| *index >= entry.index)
            })
        };
        if !facts.stored.range(entry.term..).any(|(_, stored)| reached(stored)) {
            let problem = format!(
                "{}: applies {group} {} {}; no leader had a majority for an entry of its own term there",
                name(member),
                entry.index,
                entry.term
            );
            self.fail("COMMIT", problem);
        }
    }

    /// The store has done something.
    pub fn on_done(&mut self, member: usize, done: &StoreDone) {
        if self.members[member].lost {
            return;
        }
        let dropping = self.members[member].dropping.clone();
        let of_group = |group| dropping.contains(group);
        match done {
            StoreDone::Dropped { group } => {
                self.members[member].dropping.remove(group);
            }
            StoreDone::Applied { group, .. } if of_group(group) => {}
            StoreDone::Installed { state, .. } if of_group(&state.group) => {}
            StoreDone::Applied { group, index, digest, .. } => {
                let progress = self.members[member].progress.entry(*group).or_default();
                let due = progress.waiting.pop_front();
                let rises = *index > progress.done;
                progress.done = *index;
                if due != Some(*index) || !rises {
                    let problem =
                        format!("{}: {group}: applied {index}, due {due:?}", name(member));
                    return self.fail("ONCE", problem);
                }
                self.on_digest(member, *group, *index, *digest);
            }
            StoreDone::Persisted { groups } => {
                for state in groups.iter().filter(|state| !of_group(&state.group)) {
                    let progress = self.members[member].progress.entry(state.group).or_default();
                    progress.persisted = progress.persisted.max(state.index);
                }
            }
            StoreDone::Installed { state, .. } => {
                let progress = self.members[member].progress.entry(state.group).or_default();
                if state.index < progress.done {
                    let problem = format!(
                        "{}: {}: a snapshot at {} replaces {}, which is applied",
                        name(member),
                        state.group,
                        state.index,
                        progress.done
                    );
                    return self.fail("ONCE", problem);
                }
                *progress = Progress {
                    handed: state.index,
                    done: state.index,
                    persisted: state.index,
                    ..Progress::default()
                };
                self.on_digest(member, state.group, state.index, state.digest);
            }
            StoreDone::Read { .. }
            | StoreDone::Loaded { .. }
            | StoreDone::Staged { .. }
            | StoreDone::InstallRefused { .. }
            | StoreDone::Failed { .. } => {}
        }
    }

    fn on_digest(&mut self, member: usize, group: GroupId, index: LogIndex, digest: u64) {
        let facts = self.groups.entry(group).or_default();
        let (known, first) = *facts.digests.entry(index).or_insert((digest, member));
        if known != digest {
            let problem = format!(
                "{group} {index}: the states of {} and {} differ",
                name(member),
                name(first)
            );
            self.fail("HASH", problem);
        }
    }
}

/// A hash of what an entry says.
pub(super) fn entry_hash(entry: &Entry) -> u64 {
    let mut hash = Hash64::default();
    hash.mix(entry.term.0);
    match &entry.body {
        EntryBody::Noop => hash.mix(1),
        EntryBody::Membership(membership) => {
            hash.mix(2);
            hash.mix(membership.order);
            for list in [&membership.voters, &membership.outgoing, &membership.learners] {
                hash.mix(len_u64(list.len()));
                for replica in list {
                    hash.mix(replica.id.0);
                    hash.mix(replica.member.0);
                }
            }
        }
        EntryBody::Data(data) => {
            hash.mix(3);
            hash.mix_bytes(data);
        }
    }
    hash.value()
}
