//! Members that come and go, each at its moment.

use ring_core::directory::Standing;

use super::{Chaos, What, find};
use crate::clock::Nanos;
use crate::cluster::Cluster;
use crate::inbox::Delivery;
use crate::lock;
use crate::net;
use crate::plan::{Change, Name};
use crate::rare::Rare;
use crate::world::Joins;

impl Chaos {
    /// Begins a change of who is a member; false: there was nobody to hit, or more would be lost than the design bears.
    pub(super) fn change(&mut self, cluster: &mut Cluster, now: Nanos, change: &Change) -> bool {
        if !cluster.is_founded() {
            return false;
        }
        match change {
            Change::Join(m, name, through) => {
                if !cluster.sim.machines[*m].state().idle {
                    return false;
                }
                self.renew(cluster, *m, *name, through);
                cluster.boot(*m);
            }
            Change::Leave(who, least) => {
                let may = |m: &usize| others(cluster, *m) >= *least && may_leave(cluster, *m);
                let Some(m) = find(cluster, *who).filter(may) else {
                    return false;
                };
                leave(cluster, m);
            }
            Change::LeaveAndDie(who, long) => {
                let may = |m: &usize| others(cluster, *m) > 0 && may_leave(cluster, *m);
                let Some(m) = find(cluster, *who).filter(may) else {
                    return false;
                };
                leave(cluster, m);
                self.at(now + long, What::Die(m));
            }
            Change::Bury(who) => {
                let Some(m) = self.may_lose(cluster, find(cluster, *who)) else {
                    return false;
                };
                cluster.kill(m, true);
                lock(&cluster.sim.machines[m].state).lost = true;
                lock(&cluster.sim.machines[m].state).gone = true;
                cluster.sim.oracle(|oracle| oracle.on_lost(m));
                cluster.sim.lookout(|lookout| lookout.reach(Rare::MemberBuried));
            }
            Change::Renew(who, long, name, through) => {
                let Some(m) = self.may_lose(cluster, find(cluster, *who)) else {
                    return false;
                };
                self.renew(cluster, m, *name, through);
                cluster.sim.lookout(|lookout| lookout.reach(Rare::MemberRenewed));
                self.at(now + long, What::Start(m));
            }
            Change::Revive(m) => {
                let machine = &cluster.sim.machines[*m];
                if !machine.state().idle || !lock(&machine.state).founded {
                    return false;
                }
                lock(&machine.state).idle = false;
                cluster.boot(*m);
                cluster.sim.lookout(|lookout| lookout.reach(Rare::MemberRevived));
            }
            Change::Uninform(m, long) => {
                lock(&cluster.sim.machines[*m].state).uninformed = true;
                self.at(now + long, What::Informed(*m));
            }
        }
        true
    }

    /// The machine, if its disk may be lost.
    fn may_lose(&self, cluster: &Cluster, machine: Option<usize>) -> Option<usize> {
        let is_member =
            |m: &usize| *m < cluster.sim.members && !cluster.sim.machines[*m].state().lost;
        let may = |m: &usize| {
            let leaves = |other: usize| cluster.sim.machines[other].state().leaving;
            cluster.sim.oracle(|oracle| oracle.may_lose(Some(*m), leaves))
        };
        machine.filter(is_member).filter(may)
    }

    /// A machine gets an empty disk; what starts on it from now on joins the cluster.
    fn renew(&mut self, cluster: &mut Cluster, m: usize, name: Name, through: &[usize]) {
        cluster.kill(m, true);
        self.names += 1;
        let machine = &cluster.sim.machines[m];
        lock(&machine.disk).wipe();
        machine.store.wipe();
        cluster.sim.oracle(|oracle| oracle.on_renewed(m));
        let own = format!("n{}", m + 1);
        let name = match name {
            Name::Own => own,
            Name::Other => format!("{own}.{}", self.names),
        };
        let through = through.iter().map(|m| net::address(*m).to_string()).collect();
        *lock(&machine.joins) = Some(Joins { name, through });
        let state = &mut *lock(&machine.state);
        let slow = state.slow;
        *state = crate::world::MachineState { slow, ..Default::default() };
    }
}

/// Whether those who are left decide when this one has gone too. The directory asks that as well, but may not have noticed
/// yet who was lost a moment ago.
fn may_leave(cluster: &Cluster, m: usize) -> bool {
    let leaves = |other: usize| other == m || cluster.sim.machines[other].state().leaving;
    cluster.sim.oracle(|oracle| oracle.may_lose(None, leaves))
}

fn leave(cluster: &mut Cluster, m: usize) {
    lock(&cluster.sim.machines[m].state).leaving = true;
    cluster.sim.machines[m].inbox.push(Delivery::Leave);
}

/// How many other members are there to stay, as the newest directory says.
fn others(cluster: &Cluster, m: usize) -> usize {
    let stays = |other: usize| {
        let machine = &cluster.sim.machines[other];
        other != m && machine.inbox.is_up() && !machine.state().leaving
    };
    cluster.sim.oracle(|oracle| {
        let table = oracle.newest_table();
        let members = table.iter().flat_map(|table| &table.members);
        let active = members.filter(|member| member.standing == Standing::Active);
        active.filter(|one| oracle.machine_of(one.id).is_some_and(stays)).count()
    })
}
