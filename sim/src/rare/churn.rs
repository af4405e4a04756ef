//! Rare states of clusters whose members come and go.

use std::collections::{BTreeMap, BTreeSet};

use ring_core::directory::{Standing, Table};
use ring_core::ids::{GroupId, MemberId};

use super::{Lookout, Rare};
use crate::world::member_id;

/// What is known of who is a member.
#[derive(Debug, Default)]
pub(super) struct Churn {
    ids: BTreeMap<usize, MemberId>,
    newest: Option<Table>,
    /// Groups of which a machine had a replica.
    had: BTreeSet<(usize, GroupId)>,
}

impl Churn {
    /// The member that lives on a machine.
    pub(super) fn id_of(&self, machine: usize) -> MemberId {
        self.ids.get(&machine).copied().unwrap_or(member_id(machine))
    }

    /// Where a member lives.
    pub(super) fn machine_of(&self, member: MemberId) -> Option<usize> {
        self.ids.iter().find(|(_, id)| **id == member).map(|(machine, _)| *machine)
    }

    /// Somebody leads a group; true when it is the directory's and replicas move.
    pub(super) fn on_lead(&self, group: GroupId) -> bool {
        let moves = self.newest.as_ref().is_some_and(|table| table.moving() > 0);
        group == GroupId::DIRECTORY && moves
    }
}

impl Lookout {
    /// A process begins.
    pub(crate) fn on_started(&mut self, machine: usize, id: MemberId) {
        self.churn.ids.insert(machine, id);
    }

    /// A replica is made.
    pub(super) fn on_made(&mut self, machine: usize, group: GroupId) {
        let again = !self.churn.had.insert((machine, group));
        self.reached.add_if(Rare::ReplicaRemade, again);
        self.reached.add_if(Rare::ReplicaMade, !again && self.churn.newest.is_some());
    }

    /// A node has a table.
    pub(crate) fn on_table(&mut self, table: &Table) {
        let Some(before) = &self.churn.newest else {
            self.churn.newest = Some(table.clone());
            return;
        };
        if before.version >= table.version {
            return;
        }
        for member in &table.members {
            let was = before.member(member.id).map(|before| before.standing);
            let lost = was == Some(Standing::Active) && member.standing == Standing::Lost;
            let back = was == Some(Standing::Lost) && member.standing == Standing::Active;
            self.reached.add_if(Rare::MemberLost, lost);
            self.reached.add_if(Rare::MemberReturned, back);
        }
        for group in &table.groups {
            let Some(was) = before.group(group.group) else { continue };
            let superseded = was.order < group.order && !was.settled;
            self.reached.add_if(Rare::OrderSuperseded, superseded);
            let lost = |member: MemberId| {
                table.member(member).is_some_and(|member| member.standing == Standing::Lost)
            };
            let retires = group.order > was.order && group.retiring.iter().any(|r| lost(r.member));
            self.reached.add_if(Rare::Replaced, retires);
        }
        self.churn.newest = Some(table.clone());
    }
}
