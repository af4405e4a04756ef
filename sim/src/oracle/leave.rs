//! LEAVE: nobody is let go, unless by force, when those who would be left could decide nothing.
//!
//! Where all that are left are to hold a shard, what comes into force without whoever goes is a majority of them. If so many of
//! them are lost that there is none, and nobody is connected to these any more, the director knows it, and must refuse.

use std::collections::{BTreeMap, BTreeSet};

use ring_core::directory::{Standing, Table};
use ring_core::ids::{GroupId, MemberId, len_u64};

use super::Oracle;

/// Who asks to go.
#[derive(Debug, Default)]
pub(super) struct Leaves {
    /// By machine: whom its process has a link to.
    links: BTreeMap<usize, BTreeSet<MemberId>>,
    /// Who asked, and who was lost then, as far as everyone knew it.
    asked: BTreeMap<MemberId, BTreeSet<MemberId>>,
    forced: BTreeSet<MemberId>,
}

impl Oracle {
    /// The process on a machine has a link to a member, or has none any more.
    pub fn on_link(&mut self, machine: usize, member: MemberId, is_up: bool) {
        let links = self.leaves.links.entry(machine).or_default();
        match is_up {
            true => links.insert(member),
            false => links.remove(&member),
        };
    }

    /// The process on a machine has ended.
    pub fn on_links_lost(&mut self, machine: usize) {
        self.leaves.links.remove(&machine);
    }

    /// Whether somebody has a link to a member that is lost for good, and may take it for present.
    #[must_use]
    pub fn is_lost_linked(&self) -> bool {
        self.lost().any(|id| self.is_linked(id))
    }

    /// The member on a machine asks to go.
    pub fn on_leave_asked(&mut self, machine: usize) {
        let id = self.id_of(machine);
        let missed = self.lost().filter(|lost| !self.is_linked(*lost)).collect();
        self.leaves.forced.remove(&id);
        self.leaves.asked.insert(id, missed);
    }

    /// ... whatever it costs.
    pub fn on_leave_forced(&mut self, machine: usize) {
        let id = self.id_of(machine);
        self.leaves.forced.insert(id);
    }

    /// A table follows another.
    pub(super) fn on_departures(&mut self, before: &Table, next: &Table) {
        let leaves = |table: &Table, id: MemberId| {
            table.member(id).is_some_and(|member| member.standing == Standing::Leaving)
        };
        let goes = next.members.iter().map(|member| member.id);
        let mut goes = goes.filter(|&id| leaves(next, id) && !leaves(before, id));
        let odd = goes.find(|&id| self.must_stay(before, next, id));
        if let Some(id) = odd {
            let missed = &self.leaves.asked[&id];
            let problem = format!("{id} is let go, and {missed:?} are lost: {next:?}");
            self.fail("LEAVE", problem);
        }
    }

    fn must_stay(&self, before: &Table, next: &Table, id: MemberId) -> bool {
        let (Some(missed), Some(genesis)) = (self.leaves.asked.get(&id), self.genesis()) else {
            return false;
        };
        let left: Vec<MemberId> = next.active().map(|(member, _)| member).collect();
        let here = left.iter().filter(|member| !missed.contains(member)).count();
        let votes = before.groups.iter().any(|group| {
            let is_shard = group.group != GroupId::DIRECTORY;
            is_shard && group.voters.iter().any(|voter| voter.member == id)
        });
        let hold_all = len_u64(left.len()) <= u64::from(genesis.replication);
        !self.leaves.forced.contains(&id)
            && votes
            && hold_all
            && !left.is_empty()
            && here * 2 <= left.len()
    }

    fn lost(&self) -> impl Iterator<Item = MemberId> + '_ {
        let machines = 0..self.members.len();
        machines.filter(|machine| self.members[*machine].lost).map(|machine| self.id_of(machine))
    }

    fn is_linked(&self, id: MemberId) -> bool {
        self.leaves.links.values().any(|links| links.contains(&id))
    }
}
