//! Carries a plan's faults out, each at its moment, and calls them off again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use ring_core::ids::{GroupId, MemberId};
use serde_json::Map;

use crate::clock::Nanos;
use crate::cluster::Cluster;
use crate::disk::Disk;
use crate::inbox::Delivery;
use crate::lock;
use crate::member::may_start_again;
use crate::oracle::Violation;
use crate::plan::{Change, Fault, Loss, Plan, Who};
use crate::store::SimStore;
use crate::world::member_id;

mod churn;

/// The faults of a run, on their way.
pub(crate) struct Chaos {
    steps: BinaryHeap<Reverse<Step>>,
    count: u64,
    /// Faults that were carried out, and those that had nobody to hit.
    pub(crate) done: u64,
    pub(crate) skipped: u64,
    shards: u32,
    /// Numbers the names that nobody had.
    names: u64,
    /// Directories as they were, by machine.
    copies: BTreeMap<usize, Backup>,
    /// One of them was put back.
    restored: bool,
}

struct Step {
    at: Nanos,
    number: u64,
    what: What,
}

enum What {
    /// It is waited for somebody to hit until then.
    Begin(Fault, Nanos),
    Start(usize),
    /// The power fails, whatever the machine does.
    Strike(usize),
    /// The process dies, and is started again soon.
    Die(usize),
    /// A member that was not let go goes by force.
    Force(usize, MemberId),
    /// The disk is as it was.
    RollBack(usize, Box<Backup>),
    Resume(usize),
    Clear(u64),
    Quick(usize),
    Informed(usize),
    /// A group gets all its replicas as voters again.
    Regrow(GroupId),
    NotFull(usize),
    Readable(usize),
    Patrol,
}

/// A disk and a store as they were.
struct Backup {
    disk: Disk,
    store: SimStore,
}

/// Somebody who sends or receives a snapshot, or stands for election, is looked for this often...
const LOOK_EVERY: Nanos = 1_000_000;
/// ... and this long.
const LOOK_MAX: Nanos = 20_000_000_000;
/// Who halted is looked for this often, and started again.
const PATROL_EVERY: Nanos = 1_500_000_000;
/// Who dies in the middle of leaving is started again after this.
const DEAD_FOR: Nanos = 300_000_000;
/// A disk falls back by this long, or longer.
const ROLL_BACK_AFTER: Nanos = 6_000_000_000;

impl Chaos {
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut chaos = Self {
            steps: BinaryHeap::new(),
            count: 0,
            done: 0,
            skipped: 0,
            shards: plan.shards,
            names: 0,
            copies: BTreeMap::new(),
            restored: false,
        };
        for scheduled in &plan.faults {
            chaos.at(scheduled.at, What::Begin(scheduled.fault.clone(), scheduled.at + LOOK_MAX));
        }
        chaos.at(PATROL_EVERY, What::Patrol);
        chaos
    }

    fn at(&mut self, at: Nanos, what: What) {
        self.count += 1;
        let number = self.count;
        self.steps.push(Reverse(Step { at, number, what }));
    }

    /// Carries out everything that is due until `end`.
    pub(crate) async fn run(&mut self, cluster: &mut Cluster, end: Nanos) -> Result<(), Violation> {
        while let Some(Reverse(step)) = self.steps.peek()
            && step.at < end
        {
            cluster.pass(step.at).await?;
            let Some(Reverse(step)) = self.steps.pop() else {
                break;
            };
            self.carry_out(cluster, step.what);
        }
        cluster.pass(end).await
    }

    /// Ends every fault: links well, disks mended, all machines up that may be.
    pub(crate) fn end(&mut self, cluster: &mut Cluster) {
        self.steps.clear();
        cluster.heal();
        for group in (1..=self.shards).map(GroupId) {
            cluster.regrow(group);
        }
        for m in 0..cluster.sim.machines.len() {
            cluster.sim.machines[m].inbox.resume();
            lock(&cluster.sim.machines[m].state).slow = 1;
            lock(&cluster.sim.machines[m].state).uninformed = false;
            mend(cluster, m);
        }
        self.patrol(cluster);
        cluster.boot_all_that_may();
    }

    fn carry_out(&mut self, cluster: &mut Cluster, what: What) {
        match what {
            What::Begin(fault, until) => {
                let now = cluster.sim.now();
                if waits(cluster, &fault) && now < until {
                    self.at(now + LOOK_EVERY, What::Begin(fault, until));
                } else if self.begin(cluster, now, &fault) {
                    self.done += 1;
                    cluster.recorder.fault(now, fault.to_string(), Map::new());
                } else {
                    self.skipped += 1;
                }
            }
            What::Start(m) => {
                if !cluster.sim.machines[m].state().down_for_good() {
                    cluster.boot(m);
                }
            }
            What::Strike(m) => cluster.kill(m, true),
            What::Die(m) => {
                cluster.kill(m, false);
                self.at(cluster.sim.now() + DEAD_FOR, What::Start(m));
            }
            What::Force(m, id) => churn::force(cluster, m, id),
            What::RollBack(m, backup) => self.roll_back(cluster, m, backup),
            What::Resume(m) => cluster.sim.machines[m].inbox.resume(),
            What::Clear(number) => cluster.clear(number),
            What::Quick(m) => lock(&cluster.sim.machines[m].state).slow = 1,
            What::Informed(m) => lock(&cluster.sim.machines[m].state).uninformed = false,
            What::Regrow(group) => cluster.regrow(group),
            What::NotFull(m) => lock(&cluster.sim.machines[m].disk).faults().full = false,
            What::Readable(m) => {
                lock(&cluster.sim.machines[m].disk).faults().reads_fail = false;
            }
            What::Patrol => {
                self.patrol(cluster);
                self.at(cluster.sim.now() + PATROL_EVERY, What::Patrol);
            }
        }
    }

    /// Starts again who halted because its disk failed. Whoever stopped for another reason broke a rule, unless its
    /// disk was lost.
    fn patrol(&mut self, cluster: &mut Cluster) {
        cluster.ask_for_shapes();
        cluster.close_who_left();
        for m in 0..cluster.sim.machines.len() {
            let state = cluster.sim.machines[m].state();
            if let Some(halt) = &state.halted
                && !state.lost
                && !may_start_again(halt)
            {
                let problem = format!("{}: halted: {halt}", member_id(m));
                cluster.sim.oracle(|oracle| oracle.fail("HALT", problem));
            }
            let failed = state.halted.is_some() || state.unrecoverable.is_some();
            if failed && !state.lost {
                // After a failed sync only a restart of the system shows what is durable.
                cluster.kill(m, true);
                cluster.boot(m);
            }
        }
    }

    /// Begins a fault; false: there was nobody to hit.
    fn begin(&mut self, cluster: &mut Cluster, now: Nanos, fault: &Fault) -> bool {
        match fault {
            Fault::Blackout(long) => {
                for m in 0..cluster.sim.members {
                    if cluster.sim.machines[m].inbox.is_up() {
                        cluster.kill(m, true);
                    }
                    self.at(now + long, What::Start(m));
                }
            }
            Fault::Split(side, long) => {
                let others = (0..cluster.sim.machines.len()).filter(|m| !side.contains(m));
                let others: Vec<usize> = others.collect();
                let number = cluster.block(side, &others);
                self.at(now + long, What::Clear(number));
            }
            Fault::OneWay(from, to, long) => {
                let number = cluster.block_one_way(*from, *to);
                self.at(now + long, What::Clear(number));
            }
            Fault::Storm(link, long) => {
                let number = cluster.worsen(None, *link);
                self.at(now + long, What::Clear(number));
            }
            Fault::BadLink(machine, link, long) => {
                let number = cluster.worsen(Some(*machine), *link);
                self.at(now + long, What::Clear(number));
            }
            Fault::Reset(a, b) => {
                cluster.sim.machines[*a].inbox.push(Delivery::Reset { peer: *b });
            }
            Fault::Jump(m, ms) => lock(&cluster.sim.machines[*m].clock).jump(*ms),
            Fault::Reshape(group, voters, learners, long) => {
                cluster.shape(*group, voters, learners);
                self.at(now + long, What::Regrow(*group));
            }
            Fault::Lose(m, loss) => return self.lose(cluster, now, *m, *loss),
            Fault::Churn(change) => return self.change(cluster, now, change),
            Fault::Crash(who, _)
            | Fault::PowerCut(who, _)
            | Fault::Relapse(who, _, _)
            | Fault::Pause(who, _)
            | Fault::Isolate(who, _)
            | Fault::Island(who, _, _)
            | Fault::Slow(who, _, _)
            | Fault::SyncFails(who)
            | Fault::WriteFails(who)
            | Fault::Full(who, _)
            | Fault::StoreWriteFails(who)
            | Fault::StoreSyncFails(who)
            | Fault::Unreadable(who, _) => {
                let Some(m) = find(cluster, *who) else {
                    return false;
                };
                self.begin_at(cluster, now, fault, m);
            }
        }
        true
    }

    /// Begins a fault of one machine that runs.
    fn begin_at(&mut self, cluster: &mut Cluster, now: Nanos, fault: &Fault, m: usize) {
        let machine = &cluster.sim.machines[m];
        match fault {
            Fault::Crash(_, long) => {
                cluster.kill(m, false);
                self.at(now + long, What::Start(m));
            }
            Fault::PowerCut(_, long) => {
                cluster.kill(m, true);
                self.at(now + long, What::Start(m));
            }
            Fault::Relapse(_, long, again) => {
                cluster.kill(m, true);
                self.at(now + long, What::Start(m));
                self.at(now + long + again, What::Strike(m));
                self.at(now + 2 * long + again, What::Start(m));
            }
            Fault::Pause(_, long) => {
                machine.inbox.pause();
                self.at(now + long, What::Resume(m));
            }
            Fault::Isolate(_, long) => self.isolate(cluster, now + long, &[m]),
            Fault::Island(_, with, long) => {
                let island: Vec<usize> = with.iter().copied().chain([m]).collect();
                self.isolate(cluster, now + long, &island);
            }
            Fault::Slow(_, times, long) => {
                lock(&machine.state).slow = *times;
                self.at(now + long, What::Quick(m));
            }
            Fault::SyncFails(_) => lock(&machine.disk).faults().sync_fails = true,
            Fault::WriteFails(_) => lock(&machine.disk).faults().write_fails = true,
            Fault::Full(_, long) => {
                lock(&machine.disk).faults().full = true;
                self.at(now + long, What::NotFull(m));
            }
            Fault::StoreWriteFails(_) => machine.store.fail_next_write(),
            Fault::StoreSyncFails(_) => machine.store.fail_next_sync(),
            Fault::Unreadable(_, long) => {
                cluster.kill(m, false);
                lock(&cluster.sim.machines[m].disk).faults().reads_fail = true;
                self.at(now + long, What::Readable(m));
                self.at(now + long / 2, What::Start(m));
                self.at(now + long + 1, What::Start(m));
            }
            Fault::Blackout(_)
            | Fault::Split(..)
            | Fault::OneWay(..)
            | Fault::Storm(..)
            | Fault::BadLink(..)
            | Fault::Reset(..)
            | Fault::Jump(..)
            | Fault::Reshape(..)
            | Fault::Churn(_)
            | Fault::Lose(..) => unreachable!("not a fault of one machine"),
        }
    }

    /// These machines cannot talk to the others until then.
    fn isolate(&mut self, cluster: &mut Cluster, until: Nanos, island: &[usize]) {
        let others = (0..cluster.sim.machines.len()).filter(|other| !island.contains(other));
        let others: Vec<usize> = others.collect();
        let number = cluster.block(island, &others);
        self.at(until, What::Clear(number));
    }

    /// A member loses its disk, if the cluster was founded. It may be started on what is left, and must then notice.
    fn lose(&mut self, cluster: &mut Cluster, now: Nanos, m: usize, loss: Loss) -> bool {
        let machines = &cluster.sim.machines[..cluster.sim.members];
        if !machines.iter().all(|machine| machine.state().founded) {
            return false;
        }
        cluster.kill(m, true);
        let rng = &mut cluster.rng.fork(now);
        let machine = &cluster.sim.machines[m];
        if loss == Loss::RolledBack {
            let disk = lock(&machine.disk).clone();
            let backup = Box::new(Backup { disk, store: machine.store.copy() });
            self.at(now + 1_000_000_000, What::Start(m));
            self.at(now + ROLL_BACK_AFTER, What::RollBack(m, backup));
            return true;
        }
        lock(&machine.state).lost = true;
        let back = now + 2_000_000_000;
        match loss {
            Loss::Wiped => {
                lock(&machine.disk).wipe();
                machine.store.wipe();
                cluster.sim.oracle(|oracle| oracle.on_lost(m));
                self.at(back, What::Start(m));
            }
            Loss::Rotten => {
                let _ = lock(&machine.disk).rot(rng);
                self.at(back, What::Start(m));
            }
            Loss::Misdirected => {
                let _ = lock(&machine.disk).misdirect(rng);
                self.at(back, What::Start(m));
            }
            Loss::Gone => {
                lock(&machine.state).halted = None;
                lock(&machine.state).gone = true;
            }
            Loss::RolledBack => unreachable!("that is for later"),
        }
        true
    }

    /// A member's disk is what it was. Only what a member has said since can be missed: it is waited until every
    /// other one has spoken with its present process, as any of them must then notice.
    fn roll_back(&mut self, cluster: &mut Cluster, m: usize, backup: Box<Backup>) {
        let now = cluster.sim.now();
        let others = cluster.sim.members - 1;
        if cluster.sim.lookout(|lookout| lookout.known_to(m)) < others {
            return self.at(now + LOOK_EVERY, What::RollBack(m, backup));
        }
        cluster.kill(m, true);
        let rng = &mut cluster.rng.fork(now);
        let machine = &cluster.sim.machines[m];
        lock(&machine.state).lost = true;
        lock(&machine.disk).roll_back(&backup.disk, rng);
        machine.store.roll_back(&backup.store);
        cluster.sim.oracle(|oracle| oracle.on_lost(m));
        self.at(now + 1_000_000_000, What::Start(m));
    }
}

impl Cluster {
    /// Starts every machine whose disk is not lost.
    pub(crate) fn boot_all_that_may(&mut self) {
        for m in 0..self.sim.machines.len() {
            if !self.sim.machines[m].state().lost {
                self.boot(m);
            }
        }
    }
}

fn mend(cluster: &Cluster, m: usize) {
    let disk = &mut *lock(&cluster.sim.machines[m].disk);
    *disk.faults() = crate::disk::DiskFaults::default();
    cluster.sim.machines[m].store.mend();
}

/// Whether a fault is for somebody who sends or receives a snapshot or stands for election, and nobody does.
fn waits(cluster: &Cluster, fault: &Fault) -> bool {
    if let Fault::Churn(Change::Abandon(..)) = fault {
        // Whoever is lost may be taken for present as long as somebody has a link to it.
        return cluster.sim.oracle(|oracle| oracle.is_lost_linked());
    }
    let (Fault::Crash(who, _) | Fault::PowerCut(who, _) | Fault::Isolate(who, _)) = fault else {
        return false;
    };
    let waits = match who {
        Who::Sender | Who::Receiver | Who::Candidate => true,
        Who::Proposer | Who::Founder => !cluster.sim.oracle(|oracle| oracle.is_born()),
        Who::Machine(_) | Who::Leader(_) => false,
    };
    waits && find(cluster, *who).is_none()
}

/// The machine that a fault hits; none if it does not run.
fn find(cluster: &Cluster, who: Who) -> Option<usize> {
    let m = match who {
        Who::Machine(m) => m,
        Who::Leader(group) => {
            cluster.sim.oracle(|oracle| oracle.machine_of(oracle.leader(group)?))?
        }
        Who::Sender => cluster.sim.lookout(|lookout| lookout.sender())?,
        Who::Receiver => cluster.sim.lookout(|lookout| lookout.receiver())?,
        Who::Candidate => cluster.sim.lookout(|lookout| lookout.candidate())?,
        Who::Proposer => cluster.sim.oracle(|oracle| oracle.proposer())?,
        Who::Founder => cluster.sim.oracle(|oracle| oracle.founder())?,
    };
    cluster.sim.machines[m].inbox.is_up().then_some(m)
}

impl PartialEq for Step {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Step {}

impl PartialOrd for Step {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Step {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}
