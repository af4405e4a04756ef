//! Members that come and go, as the oracle sees them: which machine a member lives on, and whether what the directory
//! asks for and what the groups do about it fit together.
//!
//! | check | what must hold |
//! |---|---|
//! | TABLE | one content a version, whoever holds it; a node's version never falls within a life; a replica id has one owner |
//! | ORDER | a group's committed memberships never follow an older order than before; the newest table names every replica of a committed membership, and of that of the leader of the highest term; who drops a replica is in no committed membership, who leaves in none but as a learner that was never made; no replica is made twice |
//! | READY | a voter that an order brings in was a learner, and holds what was applied when the membership was written that has it as one, before the voters change |
//! | R22 | a replica promises nothing that its member's log does not have, and none that was dropped ever promises again |
//!
//! A table is known from the moment when any node has it, a committed membership from the moment when any replica knows
//! that it is committed. A leader says that an order is settled only after that, so neither is ever behind the other.

use std::collections::{BTreeMap, BTreeSet};

use ring_core::directory::Table;
use ring_core::ids::{GroupId, LogIndex, MemberId, ReplicaId, Term};
use ring_core::raft::message::{Entry, EntryBody, Membership, Replica};

use super::config::decides;
use super::mirror::{Fact, LogMirror};
use super::{MemberFacts, Oracle, name};
use crate::world::member_id;

/// What is known of the directory and of replicas as such.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// Where members live or lived.
    machines: BTreeMap<MemberId, usize>,
    tables: BTreeMap<u64, Table>,
    /// The version that the process on a machine has.
    known: BTreeMap<usize, u64>,
    owners: BTreeMap<(GroupId, ReplicaId), MemberId>,
    made: BTreeSet<(GroupId, ReplicaId)>,
    gone: BTreeSet<(GroupId, ReplicaId)>,
    /// The newest membership that any replica knows to be committed, and where.
    committed: BTreeMap<GroupId, (LogIndex, Membership)>,
    /// What was applied when the leader of the highest term wrote its last membership that has a replica as a learner.
    learned: BTreeMap<(GroupId, ReplicaId), (Term, LogIndex)>,
    /// The order of the last membership that was applied.
    orders: BTreeMap<GroupId, u64>,
}

/// What a replica goes by at the end of a turn.
#[derive(Clone, Copy, Debug)]
pub struct GoesBy<'a> {
    /// The group.
    pub group: GroupId,
    /// The term that it leads in, if it does.
    pub leads: Option<Term>,
    /// The last membership in its log.
    pub present: &'a Membership,
    /// The index of that, once it is committed.
    pub committed: Option<LogIndex>,
}

type Found = Result<(), String>;

impl Directory {
    /// A record goes to a member's log; `mirror` is what the log says of the group so far.
    pub(super) fn on_fact(&self, fact: &Fact, mirror: Option<&LogMirror>) -> Found {
        match fact {
            Fact::Made { group, replica } if self.made.contains(&(*group, *replica)) => {
                Err(format!("{group}: makes {replica}, which was made before"))
            }
            Fact::Dropped { group } => {
                let replica = mirror.and_then(|mirror| mirror.replica);
                let (Some(replica), Some((at, shape))) = (replica, self.committed.get(group))
                else {
                    return Ok(());
                };
                if all(shape).any(|one| one.id == replica) {
                    return Err(format!(
                        "{group}: drops {replica}, which takes part in {shape:?} of {at}"
                    ));
                }
                Ok(())
            }
            Fact::Made { .. }
            | Fact::Vote { .. }
            | Fact::Entries { .. }
            | Fact::Cut { .. }
            | Fact::Checkpoint { .. } => Ok(()),
        }
    }

    /// A replica is durably there.
    pub(super) fn on_made(&mut self, group: GroupId, replica: ReplicaId) {
        self.made.insert((group, replica));
    }

    /// A replica is durably gone.
    pub(super) fn on_gone(&mut self, group: GroupId, replica: ReplicaId) {
        self.gone.insert((group, replica));
    }

    /// An entry is applied for the first time.
    pub(super) fn on_applied(&mut self, group: GroupId, entry: &Entry) -> Found {
        let EntryBody::Membership(shape) = &entry.body else { return Ok(()) };
        let before = self.orders.entry(group).or_default();
        if shape.order < *before {
            let (index, order) = (entry.index, shape.order);
            return Err(format!("{group} {index}: order {order} follows order {before}"));
        }
        *before = shape.order;
        Ok(())
    }

    pub(super) fn newest(&self) -> Option<&Table> {
        self.tables.last_key_value().map(|(_, table)| table)
    }

    /// The newest table names everyone in this membership of a group.
    fn names(&self, group: GroupId, shape: &Membership) -> Found {
        let Some(table) = self.newest() else { return Ok(()) };
        let Some(assignment) = table.group(group) else {
            return Err(format!("the directory forgot {group}"));
        };
        match all(shape).find(|one| !assignment.replicas().any(|named| named == **one)) {
            None => Ok(()),
            Some(one) => Err(format!(
                "{group}: {one:?} takes part in {shape:?}; table {} says {assignment:?}",
                table.version
            )),
        }
    }

    fn on_owner(&mut self, group: GroupId, replica: Replica) -> Found {
        let owner = *self.owners.entry((group, replica.id)).or_insert(replica.member);
        if owner == replica.member {
            return Ok(());
        }
        Err(format!("{group}: {} is {owner}'s and {}'s", replica.id, replica.member))
    }

    fn on_table(&mut self, machine: usize, table: &Table) -> Found {
        let version = table.version;
        let known = self.known.entry(machine).or_insert(version);
        if *known > version {
            return Err(format!("goes back from table {known} to {version}"));
        }
        *known = version;
        match self.tables.get(&version) {
            Some(other) if other == table => return Ok(()),
            Some(other) => {
                return Err(format!("has {table:?}; another table {version} is {other:?}"));
            }
            None => {}
        }
        self.tables.insert(version, table.clone());
        table.groups.iter().try_for_each(|assignment| {
            assignment.replicas().try_for_each(|replica| self.on_owner(assignment.group, replica))
        })
    }
}

impl Oracle {
    /// A process of a member begins on a machine.
    pub fn on_started(&mut self, machine: usize, id: MemberId) {
        let other = *self.directory.machines.entry(id).or_insert(machine);
        if other != machine {
            let problem = format!("{id} starts on n{}; it was on n{}", machine + 1, other + 1);
            self.fail("R22", problem);
        }
        self.members[machine].id = Some(id);
        self.directory.known.remove(&machine);
    }

    /// A machine has another, empty disk from now on: whoever starts on it is another member. What the one before
    /// had stored and said stays known.
    pub fn on_renewed(&mut self, machine: usize) {
        self.on_birth_forgotten(machine);
        let facts = std::mem::take(&mut self.members[machine]);
        for (group, mirror) in facts.durable {
            if let Some(replica) = mirror.replica {
                self.buried.insert((group, replica), mirror);
                self.directory.on_gone(group, replica);
            }
        }
        if let Some(id) = facts.id {
            self.directory.machines.insert(id, machine);
        }
        // Until a process has started nobody lives there.
        self.members[machine] = MemberFacts { id: Some(MemberId(0)), ..MemberFacts::default() };
    }

    /// A machine whose member has gone for good has its disk as it was before: it may come back under its id, but nothing
    /// that it was counts any more.
    pub fn on_restored(&mut self, machine: usize) {
        let id = self.members[machine].id;
        self.on_renewed(machine);
        self.members[machine] = MemberFacts { id, restored: true, ..MemberFacts::default() };
    }

    /// The member that lives on a machine.
    #[must_use]
    pub fn id_of(&self, machine: usize) -> MemberId {
        self.members[machine].id.unwrap_or(member_id(machine))
    }

    /// Where a member lives.
    #[must_use]
    pub fn machine_of(&self, member: MemberId) -> Option<usize> {
        let machine = self.machine_ever_of(member)?;
        (self.id_of(machine) == member).then_some(machine)
    }

    /// Where a member lives or lived.
    #[must_use]
    pub fn machine_ever_of(&self, member: MemberId) -> Option<usize> {
        let by_place = || (0..self.members.len()).find(|machine| member_id(*machine) == member);
        self.directory.machines.get(&member).copied().or_else(by_place)
    }

    /// The newest directory that any node has.
    #[must_use]
    pub fn newest_table(&self) -> Option<&Table> {
        self.directory.newest()
    }

    /// The version of the directory that the process on a machine has.
    #[must_use]
    pub fn table_version(&self, machine: usize) -> u64 {
        self.directory.known.get(&machine).copied().unwrap_or_default()
    }

    /// The newest membership of a group that is known to be committed.
    #[must_use]
    pub fn membership(&self, group: GroupId) -> Option<Membership> {
        let committed = self.directory.committed.get(&group).map(|(_, shape)| shape.clone());
        committed.or_else(|| Some(self.genesis()?.membership(group)))
    }

    /// What a replica has stored, or had when it was dropped or its disk was lost.
    pub(super) fn mirror_of(&self, group: GroupId, replica: &Replica) -> Option<&LogMirror> {
        let lives = || {
            let mirror = self.members[self.machine_of(replica.member)?].durable.get(&group)?;
            mirror.is_of(Some(replica.id)).then_some(mirror)
        };
        lives().or_else(|| self.buried.get(&(group, replica.id)))
    }

    /// A replica says something that binds it.
    pub(super) fn on_promise_of(&mut self, member: usize, group: GroupId, from: ReplicaId) {
        if self.members[member].lost {
            return; // another check is about those
        }
        let gone = self.directory.gone.contains(&(group, from));
        let mirror = self.members[member].written.get(&group);
        let other = mirror.is_some_and(|mirror| !mirror.is_of(Some(from)));
        if gone || other || (mirror.is_none() && self.directory.made.contains(&(group, from))) {
            let problem = format!(
                "{}: {from} of {group} promises; its log has {:?}{}",
                name(member),
                mirror.and_then(|mirror| mirror.replica),
                if gone { ", and that one is gone" } else { "" }
            );
            self.fail("R22", problem);
        }
    }

    /// A node has a table.
    pub fn on_table(&mut self, machine: usize, table: &Table) {
        if self.directory.known.get(&machine) == Some(&table.version) {
            return;
        }
        let before = self.directory.newest().cloned();
        if let Err(problem) = self.directory.on_table(machine, table) {
            return self.fail("TABLE", format!("{}: {problem}", name(machine)));
        }
        if let Some(before) = before.filter(|before| before.version < table.version) {
            self.on_departures(&before, table);
        }
        for (group, (_, shape)) in &self.directory.committed {
            if let Err(problem) = self.directory.names(*group, shape) {
                return self.fail("ORDER", problem);
            }
        }
    }

    /// What a replica goes by.
    pub fn on_replica(
        &mut self,
        machine: usize,
        GoesBy { group, leads, present, committed }: GoesBy<'_>,
    ) {
        if self.members[machine].lost {
            return;
        }
        let highest = self.groups.get(&group).and_then(|facts| facts.leaders.last_key_value());
        if leads.is_some_and(|term| highest.is_none_or(|(known, _)| *known <= term))
            && let Err(problem) = self.directory.names(group, present)
        {
            return self.fail("ORDER", format!("{} leads {problem}", name(machine)));
        }
        let known = self.directory.committed.get(&group);
        if let Some(index) = committed
            && known.is_none_or(|(known, _)| *known < index)
        {
            if let Err(problem) = self.directory.names(group, present) {
                return self.fail("ORDER", problem);
            }
            self.directory.committed.insert(group, (index, present.clone()));
        }
    }

    /// A membership stands in a leader's own log for the first time.
    pub(super) fn on_ordered(&mut self, member: usize, group: GroupId, entry: &Entry, before: u64) {
        let EntryBody::Membership(shape) = &entry.body else { return };
        for replica in all(shape) {
            if let Err(problem) = self.directory.on_owner(group, *replica) {
                return self.fail("TABLE", problem);
            }
        }
        let Some(facts) = self.groups.get(&group) else { return };
        let leads = facts.leaders.get(&entry.term) == Some(&self.id_of(member));
        if !leads {
            return;
        }
        let applied = self.applied(group);
        for learner in &shape.learners {
            // Not what a leader writes that has been deposed and has not noticed.
            let learned = self.directory.learned.entry((group, learner.id)).or_default();
            *learned = (*learned).max((entry.term, applied));
        }
        if !shape.is_joint() || shape.order <= before {
            return;
        }
        let new = shape.voters.iter().filter(|voter| !shape.outgoing.contains(voter));
        let late: Vec<&Replica> = new.filter(|voter| self.is_late(group, voter)).collect();
        if !late.is_empty() {
            let problem = format!(
                "{}: {group} {}: {late:?} become voters without what was applied when they became learners",
                name(member),
                entry.index
            );
            self.fail("READY", problem);
        }
    }

    /// Whether a replica that is to be a voter does not hold what was applied when it became a learner, if it did.
    fn is_late(&self, group: GroupId, voter: &Replica) -> bool {
        let first = self.genesis.as_ref().map(|genesis| genesis.membership(group));
        let founding = first.is_some_and(|first| first.learners.contains(voter));
        let learned = self.directory.learned.get(&(group, voter.id));
        let otherwise = if founding { LogIndex(0) } else { self.applied(group) };
        let least = learned.map_or(otherwise, |(_, applied)| *applied);
        self.mirror_of(group, voter).is_none_or(|mirror| mirror.last() < least)
    }

    /// A member says that it may be closed for good. One that does not know that it is registered may be named as a
    /// learner that it never made: nothing of that can count, and the cluster takes it for lost.
    pub fn on_left(&mut self, machine: usize) {
        let id = self.id_of(machine);
        let made = &self.directory.made;
        let table = self.directory.known.get(&machine);
        let table = table.and_then(|version| self.directory.tables.get(version));
        let knows = table.is_some_and(|table| table.member(id).is_some());
        let committed = self.directory.committed.iter();
        let mut holds = committed.filter(|(group, (_, shape))| {
            let votes = shape.voters.iter().chain(&shape.outgoing).any(|r| r.member == id);
            let learners = &mut shape.learners.iter();
            votes || learners.any(|r| r.member == id && (knows || made.contains(&(**group, r.id))))
        });
        if let Some((group, (at, shape))) = holds.next() {
            let problem = format!("{id} has left {group}, and is in {shape:?} of {at}");
            self.fail("ORDER", problem);
        }
    }

    /// Whether a machine's disk may be lost: of every membership that is, or is ordered and so may come, into force in
    /// any group the replicas that are left decide. Who leads may put in force what is ordered before it can know of the loss,
    /// but not while an ordered voter is late, which stays so when it is lost.
    #[must_use]
    pub fn may_lose(&self, machine: Option<usize>, leaves: impl Fn(usize) -> bool) -> bool {
        let there = |replica: &Replica| self.machine_of(replica.member);
        let intact = |replica: &Replica| {
            // Who came back on a copy may yet be refused by somebody who knows better.
            let is_sound = |m: usize| !self.members[m].lost && !self.members[m].restored;
            there(replica).is_some_and(|m| Some(m) != machine && is_sound(m))
        };
        let stays = |replica: &&Replica| there(replica).is_none_or(|m| !leaves(m));
        self.groups.iter().all(|(group, facts)| {
            let Some(present) = self.membership(*group) else { return false };
            let from = self.directory.committed.get(group).map_or(LogIndex(0), |(at, _)| *at);
            let logged = facts.shapes.range((from, Term(0))..).map(|(_, shape)| shape);
            let ordered = self.newest_table().and_then(|table| table.group(*group));
            let is_new = |voter: &&Replica| !present.voters.contains(voter);
            let never = |voter: &Replica| !intact(voter) && self.is_late(*group, voter);
            let ordered =
                ordered.filter(|assignment| !assignment.voters.iter().filter(is_new).any(never));
            let ordered = ordered.map(|assignment| Membership {
                voters: assignment.voters.clone(),
                outgoing: present.voters.clone(),
                ..present.clone()
            });
            logged.chain([&present]).chain(&ordered).all(|shape| {
                let rest = Membership {
                    voters: shape.voters.iter().filter(stays).copied().collect(),
                    outgoing: shape.outgoing.iter().filter(stays).copied().collect(),
                    ..shape.clone()
                };
                [shape, &rest].into_iter().filter(|shape| !shape.voters.is_empty()).all(|shape| {
                    let voters = || shape.voters.iter().chain(&shape.outgoing);
                    decides(shape, |id| voters().any(|voter| voter.id == id && intact(voter)))
                })
            })
        })
    }
}

/// Everyone who takes part.
fn all(shape: &Membership) -> impl Iterator<Item = &Replica> {
    shape.voters.iter().chain(&shape.outgoing).chain(&shape.learners)
}

#[cfg(test)]
mod tests;
