//! Clusters whose members come and go: who is there, and when all of it has come to rest.

use std::collections::{BTreeMap, BTreeSet};

use ring_core::directory::{Standing, Table};
use ring_core::ids::{GroupId, MemberId};
use ring_core::io::Halt;
use ring_core::wire::message::{MemberStatus, Role};

use super::Cluster;
use crate::inbox::Delivery;
use crate::lock;
use crate::net;
use crate::rare::Rare;

impl Cluster {
    /// True when everyone who began has known at some time that the cluster exists.
    pub(crate) fn is_founded(&mut self) -> bool {
        let founders = &self.sim.machines[..self.plan.begin()];
        self.founded_once |= founders.iter().all(|machine| machine.state().founded);
        self.founded_once
    }

    /// Whoever has left is closed for good, and who came back on an old copy and was refused.
    pub(crate) fn close_who_left(&mut self) {
        for m in 0..self.sim.members {
            self.close_if_refused(m);
            if self.sim.machines[m].state().left {
                self.kill(m, false);
            }
        }
    }

    /// Who was told only of machines where nobody is any more cannot come in by itself: somebody tells him where the others are.
    pub(crate) fn tell_the_stranded(&self) {
        let table = self.sim.oracle(|oracle| oracle.newest_table().cloned());
        let registered = table.iter().flat_map(|table| &table.members);
        let there: BTreeMap<String, MemberId> = registered
            .filter_map(|member| {
                let machine = self.sim.oracle(|oracle| oracle.machine_of(member.id))?;
                let is_up = self.sim.machines[machine].inbox.is_up();
                is_up.then(|| (net::address(machine).to_string(), member.id))
            })
            .collect();
        for m in 0..self.sim.members {
            let id = self.sim.oracle(|oracle| oracle.id_of(m));
            let config = self.sim.machines[m].config(m);
            let may_come_in = config.join.iter().any(|address| there.contains_key(address));
            let is_in = there.values().any(|member| *member == id);
            if config.members.is_empty() && !is_in && !may_come_in {
                let addresses = there.keys().cloned().collect();
                self.sim.machines[m].inbox.push(Delivery::Join { addresses });
            }
        }
    }

    fn close_if_refused(&self, m: usize) {
        let state = &mut *lock(&self.sim.machines[m].state);
        if state.restored && !state.gone && matches!(state.halted, Some(Halt::RolledBack { .. })) {
            (state.lost, state.gone) = (true, true);
            self.sim.oracle(|oracle| oracle.on_lost(m));
            self.sim.lookout(|lookout| lookout.reach(Rare::RestoredRefused));
        }
    }

    /// After a death: who has left stays away.
    pub(super) fn note_departure(&self, m: usize) {
        let state = &mut *lock(&self.sim.machines[m].state);
        state.leaving = false;
        if std::mem::take(&mut state.left) {
            state.idle = true;
        }
    }

    /// What is not yet as the directory's rules want it, when all is well and nobody does anything.
    pub(super) fn unrest(&self, statuses: &[MemberStatus]) -> Option<String> {
        let there: BTreeSet<MemberId> = (0..self.sim.members)
            .filter(|m| {
                let state = self.sim.machines[*m].state();
                !state.idle && !state.lost
            })
            .map(|m| self.sim.oracle(|oracle| oracle.id_of(m)))
            .collect();
        let Some(table) = self.sim.oracle(|oracle| oracle.newest_table().cloned()) else {
            return Some(String::from("nobody has a directory"));
        };
        if let Some(problem) = self.unrest_of_members(&table, &there) {
            return Some(format!("table {}: {problem}", table.version));
        }
        let all = core::iter::once(GroupId::DIRECTORY).chain((1..=self.plan.shards).map(GroupId));
        all.map(|group| self.unrest_of_group(&table, group, statuses)).find_map(|unrest| unrest)
    }

    fn unrest_of_members(&self, table: &Table, there: &BTreeSet<MemberId>) -> Option<String> {
        let active: BTreeSet<MemberId> = table.active().map(|(member, _)| member).collect();
        if active != *there {
            return Some(format!(
                "{active:?} are active; {there:?} are there; {:?}",
                table.members
            ));
        }
        // Who is lost stays for what nobody else could hold.
        let held = |id: MemberId| {
            table.groups.iter().any(|group| group.voters.iter().any(|voter| voter.member == id))
        };
        let odd = table.members.iter().find(|member| match member.standing {
            Standing::Active => false,
            Standing::Lost => !held(member.id),
            Standing::Leaving => true,
        });
        if let Some(member) = odd {
            return Some(format!("{member:?} is still there"));
        }
        if table.moving() > 0 {
            let moving = table.groups.iter().filter(|group| !group.settled);
            let what = moving.map(|group| {
                let present = self.sim.oracle(|oracle| oracle.membership(group.group));
                format!("{group:?}; in force is {present:?}")
            });
            let what: Vec<String> = what.collect();
            return Some(format!("groups move: {}; members {:?}", what.join("; "), table.members));
        }
        let behind = (0..self.sim.members).find(|m| {
            let up = self.sim.machines[*m].inbox.is_up();
            up && self.sim.oracle(|oracle| oracle.table_version(*m)) < table.version
        });
        behind.map(|m| format!("n{} does not know it", m + 1))
    }

    fn unrest_of_group(
        &self,
        table: &Table,
        group: GroupId,
        statuses: &[MemberStatus],
    ) -> Option<String> {
        let Some(assignment) = table.group(group) else {
            return Some(format!("{group} is in no table"));
        };
        let active: BTreeSet<MemberId> = table.active().map(|(member, _)| member).collect();
        let wanted = match (group, active.len()) {
            (GroupId::DIRECTORY, 0..=2) => 1,
            (GroupId::DIRECTORY, 3 | 4) => 3,
            (GroupId::DIRECTORY, _) => 5,
            (_, count) => count.min(usize::try_from(self.plan.replication).expect("small")),
        };
        let present = assignment.voters.iter().filter(|v| active.contains(&v.member)).count();
        let odd = group == GroupId::DIRECTORY && assignment.voters.len() > present;
        if present != wanted && !odd {
            return Some(format!("{group}: {wanted} voters are wanted: {assignment:?}"));
        }
        let Some(shape) = self.sim.oracle(|oracle| oracle.membership(group)) else {
            return Some(format!("{group} was never founded"));
        };
        let mut voters = assignment.voters.clone();
        voters.sort_unstable();
        if shape.is_joint() || shape.voters != voters {
            return Some(format!("{group}: {shape:?} is in force, not {assignment:?}"));
        }
        let replicas = statuses.iter().flat_map(|s| s.groups.iter().map(move |g| (s.member, g)));
        let replicas: Vec<_> = replicas.filter(|(_, r)| r.group == group).collect();
        let stray = replicas.iter().find(|(member, replica)| {
            !assignment.target().any(|r| (r.member, r.id) == (*member, replica.replica))
        });
        if let Some(stray) = stray {
            return Some(format!("{group}: {stray:?} is none of {assignment:?}"));
        }
        let there = assignment.target().filter(|replica| active.contains(&replica.member));
        if there.count() != replicas.len() {
            return Some(format!("{group}: {assignment:?}; there are {replicas:?}"));
        }
        let leaders = replicas.iter().filter(|(_, r)| r.role == Role::Leader).count();
        let (_, first) = replicas.first()?;
        let equal = replicas.iter().all(|(_, r)| {
            (r.applied, r.commit, r.last, r.term)
                == (first.last, first.last, first.last, first.term)
        });
        if leaders != 1 || !equal {
            return Some(format!("{group}: {leaders} leaders; {replicas:?}"));
        }
        None
    }
}
