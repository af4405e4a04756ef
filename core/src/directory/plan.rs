//! The next table: what follows from who is registered. Pure functions of the table before.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::table::{Assignment, Registered, Standing, Table};
use serde::{Deserialize, Serialize};

use crate::ids::{GroupId, MemberId, len_u64};
use crate::raft::message::Replica;

/// How many of so many members vote in the directory's own group: an odd number, since one of two would be no
/// majority without the other, and at most five.
pub(crate) fn directory_voters(members: usize) -> usize {
    match members {
        0..=2 => members.min(1),
        3 | 4 => 3,
        _ => 5,
    }
}

/// What a member says of itself when it asks to be registered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Registration {
    /// Its id.
    pub id: MemberId,
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// The number that its directory drew at its making.
    pub birth: u64,
    /// Its weight.
    pub weight: u16,
}

/// A change that the directory is asked for. Each may come twice, late, or not at all: who asks repeats it until the
/// table shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// A member asks to be one of the cluster's, or says that its address or weight is another now.
    Register(Registration),
    /// A member asks to go.
    Leave {
        /// The member.
        member: MemberId,
        /// Also if those who are there could not decide without it and those who are away, who are given up then.
        force: bool,
    },
    /// A member has been away for too long.
    Lose(MemberId),
    /// A member that had been away is back, on the directory that is known.
    Return(MemberId),
    /// A group's leader says that the membership of this order is committed.
    Settle {
        /// The group.
        group: GroupId,
        /// The order.
        order: u64,
    },
}

impl Change {
    /// Who is to hear of a refusal.
    #[must_use]
    pub fn asker(&self) -> Option<MemberId> {
        match self {
            Self::Register(who) => Some(who.id),
            Self::Leave { member, .. } => Some(*member),
            Self::Lose(_) | Self::Return(_) | Self::Settle { .. } => None,
        }
    }
}

/// Why a change is refused; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ChangeRefused {
    /// Another member has the name, and is there.
    NameTaken,
    /// The id is another directory's.
    IdTaken,
    /// There is no room for more members.
    Full,
    /// It is the only member that could hold the data.
    LastMember,
    /// Those who would hold its replicas with it gone could decide nothing: too many of them are away.
    NoMajority,
}

impl fmt::Display for ChangeRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NameTaken => "another member of this name is there: give this one another name, or stop the other",
            Self::IdTaken => "another directory's member has this id: start on an empty data directory",
            Self::Full => "the cluster has as many members as it may have",
            Self::LastMember => {
                "it is the only member that holds the data: close it instead, or let another one join first"
            }
            Self::NoMajority => {
                "members are away, and without this one too there would be no majority for what they hold: \
                 start them first, or leave by force: then they are given up"
            }
        })
    }
}

/// Where the shards belong: by group, the members asked for, the preferred leader first. A pure function of the
/// active members.
pub trait Placement {
    /// The members that should hold the group.
    fn members_of(&self, group: GroupId) -> Vec<MemberId>;
}

impl<F: Fn(GroupId) -> Vec<MemberId>> Placement for F {
    fn members_of(&self, group: GroupId) -> Vec<MemberId> {
        self(group)
    }
}

impl Table {
    /// The table with a change in it; none when it has it already. `is_gone` says whether a member can be taken for gone
    /// by one that comes under its name.
    ///
    /// # Errors
    /// See [`ChangeRefused`].
    pub fn with(
        &self,
        change: &Change,
        members_max: usize,
        is_gone: impl Fn(&Registered, &Registration) -> bool,
    ) -> Result<Option<Self>, ChangeRefused> {
        let mut next = self.clone();
        match change {
            Change::Register(who) => next.register(who, members_max, is_gone)?,
            Change::Leave { member, force: _ } => {
                let stays = |(id, weight): &(MemberId, u16)| id != member && *weight > 0;
                if self.member(*member).is_some() && !self.active().any(|one| stays(&one)) {
                    return Err(ChangeRefused::LastMember);
                }
                next.set_standing(*member, |_| Standing::Leaving);
            }
            Change::Lose(member) => next.give_up(*member),
            Change::Return(member) => next.set_standing(*member, |standing| match standing {
                Standing::Active | Standing::Lost => Standing::Active,
                Standing::Leaving => Standing::Leaving,
            }),
            Change::Settle { group, order } => {
                let place = next.groups.binary_search_by_key(group, |g| g.group);
                if let Ok(place) = place
                    && next.groups[place].order == *order
                {
                    next.groups[place].settled = true;
                    next.groups[place].retiring.clear();
                }
            }
        }
        if next == *self {
            return Ok(None);
        }
        next.version += 1;
        Ok(Some(next))
    }

    fn register(
        &mut self,
        who: &Registration,
        members_max: usize,
        is_gone: impl Fn(&Registered, &Registration) -> bool,
    ) -> Result<(), ChangeRefused> {
        if let Some(known) = self.members.iter_mut().find(|member| member.id == who.id) {
            if known.birth != who.birth || known.name != who.name {
                return Err(ChangeRefused::IdTaken);
            }
            known.address.clone_from(&who.address);
            known.weight = who.weight;
            // It is here and wants to be: also when it had been given up, or was about to go and started anew.
            known.standing = Standing::Active;
            return Ok(());
        }
        if let Some(namesake) = self.members.iter_mut().find(|member| member.name == who.name) {
            if !is_gone(namesake, who) {
                return Err(ChangeRefused::NameTaken);
            }
            // The directory that had the name is gone: its member is on a new one. What it held moves, and until it
            // has, the old id stays on under a name that nobody can ask for.
            namesake.standing = Standing::Lost;
            namesake.name = former_name(namesake.id);
        }
        if self.members.len() >= members_max {
            return Err(ChangeRefused::Full);
        }
        let Registration { id, name, address, birth, weight } = who.clone();
        let standing = Standing::Active;
        self.members.push(Registered { id, name, address, birth, weight, standing });
        self.members.sort_unstable_by_key(|member| member.id);
        Ok(())
    }

    /// The table in which these are given up.
    pub(super) fn without(&self, away: impl Iterator<Item = MemberId>) -> Self {
        let mut next = self.clone();
        away.for_each(|member| next.give_up(member));
        next
    }

    fn give_up(&mut self, member: MemberId) {
        self.set_standing(member, |standing| match standing {
            Standing::Active | Standing::Lost => Standing::Lost,
            Standing::Leaving => Standing::Leaving,
        });
    }

    /// True when a member that goes would leave a group that it votes in to members of whom no majority is there:
    /// nothing could be written to that group, and nobody but those who are away could end that. This is the table in
    /// which it goes.
    pub(super) fn lacks_majority(
        &self,
        leaving: MemberId,
        placement: &impl Placement,
        is_here: impl Fn(MemberId) -> bool,
    ) -> bool {
        let votes = |group: &Assignment| group.voters.iter().any(|v| v.member == leaving);
        let mut groups = self.groups.iter().enumerate().filter(|(_, group)| votes(group));
        groups.any(|(place, _)| {
            let voters = self.wanted(place, placement).voters;
            let here = voters.iter().filter(|&&member| is_here(member)).count();
            here * 2 <= voters.len()
        })
    }

    fn set_standing(&mut self, id: MemberId, of: impl FnOnce(Standing) -> Standing) {
        if let Ok(place) = self.members.binary_search_by_key(&id, |member| member.id) {
            let member = &mut self.members[place];
            member.standing = of(member.standing);
        }
    }

    /// The table one step nearer to what the placement asks for, with at most `moving_max` orders under way; none
    /// when it is there, or when the orders under way must be settled first. Groups that cannot go on take nobody's
    /// turn: those that `stalled` names, those whose order waits for somebody who is away, and those that could
    /// decide nothing, which get no order.
    #[must_use]
    pub fn advanced(
        &self,
        placement: &impl Placement,
        moving_max: u64,
        stalled: &BTreeSet<GroupId>,
    ) -> Option<Self> {
        let mut next = self.clone();
        next.forget_who_is_gone();
        let order = self.version + 1;
        let waits_for_lost = |assignment: &Assignment| {
            assignment.target().any(|replica| !self.is_active(replica.member))
        };
        let goes_on = |assignment: &&Assignment| {
            !assignment.settled
                && !waits_for_lost(assignment)
                && !stalled.contains(&assignment.group)
        };
        let mut moving = len_u64(self.groups.iter().filter(goes_on).count());
        for place in 0..next.groups.len() {
            let wanted = next.wanted(place, placement);
            let assignment = &next.groups[place];
            if wanted.is_met_by(assignment) {
                next.prefer(place, &wanted);
                continue;
            }
            let may_begin = match assignment.settled {
                true => moving < moving_max && self.can_decide(assignment),
                // An order that cannot be settled as long as somebody is away gives way to a new one.
                false => waits_for_lost(assignment),
            };
            if may_begin {
                moving += u64::from(assignment.settled);
                next.order(place, order, &wanted);
            }
        }
        if next == *self {
            return None;
        }
        next.version = order;
        Some(next)
    }

    fn forget_who_is_gone(&mut self) {
        let gone: BTreeSet<MemberId> = self
            .members
            .iter()
            .filter(|member| member.standing != Standing::Active && !self.holds_any(member.id))
            .map(|member| member.id)
            .collect();
        self.members.retain(|member| !gone.contains(&member.id));
    }

    fn is_active(&self, id: MemberId) -> bool {
        self.member(id).is_some_and(|member| member.standing == Standing::Active)
    }

    fn is_lost(&self, id: MemberId) -> bool {
        self.member(id).is_some_and(|member| member.standing == Standing::Lost)
    }

    /// Whether the voters of a group whose order is settled, which are those in force, can decide without who is away.
    fn can_decide(&self, assignment: &Assignment) -> bool {
        let away = assignment.voters.iter().filter(|voter| self.is_lost(voter.member)).count();
        away * 2 < assignment.voters.len()
    }

    /// Who should hold a group.
    fn wanted(&self, place: usize, placement: &impl Placement) -> Wanted {
        let assignment = &self.groups[place];
        if assignment.group == GroupId::DIRECTORY {
            return self.wanted_of_directory(assignment);
        }
        let mut voters = placement.members_of(assignment.group);
        voters.retain(|&member| self.is_active(member));
        self.keep_lost(assignment, &mut voters);
        Wanted { voters, learners: Vec::new() }
    }

    /// A replica that is away is worth more than none: it stays a voter until another takes its place. But those who
    /// are there must stay able to decide without those who are away, if they are now: a membership that could not
    /// would never come into force, and never be left again. And as long as an order is under way, who is away may yet
    /// have to become a voter, and cannot: the order would never be settled.
    fn keep_lost(&self, assignment: &Assignment, voters: &mut Vec<MemberId>) {
        // Nobody to hold it: it stays as it is.
        if voters.is_empty() || !assignment.settled {
            return;
        }
        let stays = |replica: &&Replica| {
            // Those who leave go without a substitute, if there is none: they have said so.
            self.is_active(replica.member) || self.is_lost(replica.member)
        };
        let room = assignment.voters.iter().filter(stays).count().saturating_sub(voters.len());
        let somebody_leaves = !assignment.voters.iter().all(|replica| stays(&replica));
        let voting = assignment.voters.iter().map(|voter| voter.member);
        let lost: Vec<MemberId> = voting.filter(|&member| self.is_lost(member)).collect();
        // Who leaves takes its vote along.
        let must_decide = self.can_decide(assignment) || somebody_leaves;
        let most = if must_decide { voters.len() - 1 } else { lost.len() };
        voters.extend(lost.into_iter().take(room.min(most)));
    }

    /// An odd number of voters, those that are there first; the second member of a cluster of two learns.
    fn wanted_of_directory(&self, assignment: &Assignment) -> Wanted {
        let place = |member: &MemberId| assignment.voters.iter().position(|v| v.member == *member);
        let mut there: Vec<MemberId> = self.active().map(|(member, _)| member).collect();
        // Who votes stays, in the order in which they stand; the sort is stable, so that the rest come by id.
        there.sort_by_key(|member| place(member).unwrap_or(usize::MAX));
        let lost = assignment.voters.iter().map(|r| r.member);
        let lost = lost.filter(|&member| assignment.settled && self.is_lost(member));
        // Fewer than those who are there, who must be able to decide without them.
        let most = there.len().saturating_sub(1).max(usize::from(there.len() == 1));
        there.extend(lost.take(most).collect::<Vec<_>>());
        let count = directory_voters(there.len());
        let learners = if there.len() == 2 { alloc::vec![there[1]] } else { Vec::new() };
        there.truncate(count);
        Wanted { voters: there, learners }
    }

    /// Who leads is a wish, not an order.
    fn prefer(&mut self, place: usize, wanted: &Wanted) {
        let voters = &mut self.groups[place].voters;
        voters.sort_by_key(|replica| wanted.voters.iter().position(|&m| m == replica.member));
    }

    fn order(&mut self, place: usize, order: u64, wanted: &Wanted) {
        let known: Vec<Replica> = self.groups[place].replicas().collect();
        let mut replica_on = |member: MemberId| {
            // A member keeps the replica it has: a new id is for who has none that could still take part.
            if let Some(replica) = known.iter().find(|replica| replica.member == member) {
                return *replica;
            }
            let id = self.next_replica;
            self.next_replica = id.next();
            Replica { id, member }
        };
        let voters: Vec<Replica> = wanted.voters.iter().map(|&m| replica_on(m)).collect();
        let learners: Vec<Replica> = wanted.learners.iter().map(|&m| replica_on(m)).collect();
        let assignment = &mut self.groups[place];
        let asked = |replica: &Replica| voters.contains(replica) || learners.contains(replica);
        let retiring = known.into_iter().filter(|replica| !asked(replica)).collect();
        *assignment = Assignment {
            group: assignment.group,
            order,
            voters,
            learners,
            retiring,
            settled: false,
        };
    }
}

/// The name of a member whose name another one has now: not valid for anybody who asks.
fn former_name(id: MemberId) -> String {
    alloc::format!("\u{0}{}", id.0)
}

/// Who should hold a group's replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    voters: Vec<MemberId>,
    learners: Vec<MemberId>,
}

impl Wanted {
    fn is_met_by(&self, assignment: &Assignment) -> bool {
        let same = |wanted: &[MemberId], held: &[Replica]| {
            len_u64(wanted.len()) == len_u64(held.len())
                && held.iter().all(|replica| wanted.contains(&replica.member))
        };
        // Nobody to hold it: it stays as it is.
        self.voters.is_empty()
            || (same(&self.voters, &assignment.voters)
                && same(&self.learners, &assignment.learners))
    }
}
