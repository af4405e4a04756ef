//! Members that come and go, each at its moment.

use ring_core::directory::Standing;
use ring_core::ids::{GroupId, MemberId};
use ring_core::raft::message::{EntryBody, Membership};
use ring_core::storage::RecoveredGroup;

use super::{Backup, Chaos, What, find};
use crate::clock::Nanos;
use crate::cluster::Cluster;
use crate::disk::DiskFaults;
use crate::inbox::Delivery;
use crate::lock;
use crate::log::recover_disk;
use crate::net;
use crate::plan::{Change, Name, Who};
use crate::rare::Rare;
use crate::world::{Joins, MachineState};

impl Chaos {
    /// Begins a change of who is a member; false: there was nobody to hit, or more would be lost than the design bears.
    pub(super) fn change(&mut self, cluster: &mut Cluster, now: Nanos, change: &Change) -> bool {
        if !may_be_early(cluster, change) && !cluster.is_founded() {
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
                let state = machine.state();
                // Who had left, and was lost for good then, is no more.
                if !state.idle || !state.founded || state.gone {
                    return false;
                }
                lock(&machine.state).idle = false;
                cluster.boot(*m);
                cluster.sim.lookout(|lookout| lookout.reach(Rare::MemberRevived));
            }
            Change::Abandon(who, long) => return self.abandon(cluster, now + long, *who),
            Change::Copy(m) => return self.copy(cluster, *m),
            Change::Restore(m) => return self.restore(cluster, *m),
            Change::Forget(m, long) => return self.forget(cluster, now + long, *m),
            Change::Uninform(m, long) => {
                lock(&cluster.sim.machines[*m].state).uninformed = true;
                self.at(now + long, What::Informed(*m));
            }
        }
        true
    }

    /// Somebody wants to go while others are lost: first if the rest can do without, and at `then` by force.
    fn abandon(&mut self, cluster: &mut Cluster, then: Nanos, who: Who) -> bool {
        let decides = || cluster.sim.oracle(|oracle| oracle.may_lose(None, |_| false));
        let may = |m: &usize| others(cluster, *m) > 0 && decides();
        let Some(m) = find(cluster, who).filter(may) else {
            return false;
        };
        leave(cluster, m);
        let id = cluster.sim.oracle(|oracle| oracle.id_of(m));
        self.at(then, What::Force(m, id));
        true
    }

    /// A founder loses its disk before there is a cluster, and begins anew at `then`.
    fn forget(&mut self, cluster: &mut Cluster, then: Nanos, m: usize) -> bool {
        let state = cluster.sim.machines[m].state();
        let may = m < cluster.plan().begin() && !state.founded;
        if !may || !cluster.sim.oracle(|oracle| oracle.may_forget(m)) {
            return false;
        }
        empty(cluster, m);
        cluster.sim.lookout(|lookout| lookout.reach(Rare::FounderForgot));
        self.at(then, What::Start(m));
        true
    }

    /// Copies a directory. In each group that the copy knows of two voters must be missing for it to decide alone: what it
    /// would say as such a group cannot be told from the truth, by anybody.
    fn copy(&mut self, cluster: &Cluster, m: usize) -> bool {
        let machine = &cluster.sim.machines[m];
        let state = machine.state();
        if !machine.inbox.is_up() || state.lost || !state.founded {
            return false;
        }
        let mut disk = lock(&machine.disk).clone();
        *disk.faults() = DiskFaults::default();
        let Ok(log) = recover_disk(&disk) else { return false };
        let is_small = |shape: &Membership| {
            shape.voters.len() < 3 || (!shape.outgoing.is_empty() && shape.outgoing.len() < 3)
        };
        let is_alone = |group: &RecoveredGroup| {
            let later = group.entries.iter().filter_map(|entry| match &entry.body {
                EntryBody::Membership(shape) => Some(&**shape),
                EntryBody::Noop | EntryBody::Data(_) => None,
            });
            later.chain([&group.membership]).any(is_small)
        };
        if log.groups.is_empty() || log.groups.values().any(is_alone) {
            return false;
        }
        self.copies.insert(m, Backup { disk, store: machine.store.copy() });
        true
    }

    /// Whoever has left comes back as it was before. Whoever has a table that names its replicas would believe them: all
    /// others must have one that does not, durably. It is refused, or gets replicas anew; what it was must not count.
    fn restore(&mut self, cluster: &mut Cluster, m: usize) -> bool {
        let state = cluster.sim.machines[m].state();
        let may = state.idle && state.founded && !state.gone;
        let Some(copy) = self.copies.get(&m).filter(|_| may) else {
            return false;
        };
        let Ok(log) = recover_disk(&copy.disk) else { return false };
        let is_void = |other: usize| {
            let machine = &cluster.sim.machines[other];
            let mut disk = lock(&machine.disk).clone();
            disk.power_cut(&mut cluster.rng.fork(0));
            *disk.faults() = DiskFaults::default();
            let table = recover_disk(&disk).ok().and_then(|log| log.table);
            let names = |(group, found): (&GroupId, &RecoveredGroup)| {
                let assignment = table.as_ref().and_then(|table| table.group(*group));
                let named = assignment.map(|a| a.replicas().any(|r| r.id == found.replica));
                named.unwrap_or(true)
            };
            machine.state().idle || machine.state().gone || !log.groups.iter().any(names)
        };
        if self.restored || !(0..cluster.sim.members).all(|other| other == m || is_void(other)) {
            return false;
        }
        let Some(copy) = self.copies.remove(&m) else { return false };
        self.restored = true;
        let machine = &cluster.sim.machines[m];
        {
            let state = &mut *lock(&machine.state);
            (state.idle, state.restored) = (false, true);
        }
        lock(&machine.disk).roll_back(&copy.disk, &mut cluster.rng);
        machine.store.roll_back(&copy.store);
        cluster.sim.oracle(|oracle| oracle.on_restored(m));
        cluster.sim.lookout(|lookout| lookout.reach(Rare::MemberRestored));
        cluster.boot(m);
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
        self.names += 1;
        // What was copied of an earlier member is not this one's.
        self.copies.remove(&m);
        empty(cluster, m);
        let machine = &cluster.sim.machines[m];
        let own = format!("n{}", m + 1);
        let name = match name {
            Name::Own => own,
            Name::Other => format!("{own}.{}", self.names),
        };
        let through = through.iter().map(|m| net::address(*m).to_string()).collect();
        *lock(&machine.joins) = Some(Joins { name, through });
    }
}

/// Whether it may happen before there is a cluster.
fn may_be_early(cluster: &Cluster, change: &Change) -> bool {
    match change {
        Change::Forget(..) => true,
        // Who only joins may be there before the cluster is.
        Change::Join(..) => cluster.plan().birth.is_some(),
        Change::Leave(..)
        | Change::LeaveAndDie(..)
        | Change::Bury(_)
        | Change::Renew(..)
        | Change::Revive(_)
        | Change::Abandon(..)
        | Change::Copy(_)
        | Change::Restore(_)
        | Change::Uninform(..) => false,
    }
}

/// A machine gets an empty disk: whoever starts on it is another member.
fn empty(cluster: &mut Cluster, m: usize) {
    cluster.kill(m, true);
    let machine = &cluster.sim.machines[m];
    lock(&machine.disk).wipe();
    machine.store.wipe();
    cluster.sim.oracle(|oracle| oracle.on_renewed(m));
    let state = &mut *lock(&machine.state);
    let slow = state.slow;
    *state = MachineState { slow, ..MachineState::default() };
}

/// Whether those who are left decide when this one has gone too. The directory asks that as well, but may not have noticed
/// yet who was lost a moment ago.
fn may_leave(cluster: &Cluster, m: usize) -> bool {
    let leaves = |other: usize| other == m || cluster.sim.machines[other].state().leaving;
    cluster.sim.oracle(|oracle| oracle.may_lose(None, leaves))
}

fn leave(cluster: &mut Cluster, m: usize) {
    lock(&cluster.sim.machines[m].state).leaving = true;
    cluster.sim.oracle(|oracle| oracle.on_leave_asked(m));
    cluster.sim.machines[m].inbox.push(Delivery::Leave { force: false });
}

/// Somebody who asked to go and is still there goes by force.
pub(super) fn force(cluster: &Cluster, m: usize, id: MemberId) {
    let machine = &cluster.sim.machines[m];
    let is_there = machine.inbox.is_up() && !machine.state().left;
    if !is_there || cluster.sim.oracle(|oracle| oracle.id_of(m)) != id {
        return;
    }
    cluster.sim.oracle(|oracle| oracle.on_leave_forced(m));
    cluster.sim.lookout(|lookout| lookout.reach(Rare::LeaveForced));
    machine.inbox.push(Delivery::Leave { force: true });
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
