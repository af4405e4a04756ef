//! BIRTH: a cluster is created once.
//!
//! 1. It exists only when every founder holds its genesis durably, or did when its disk was emptied: nothing is founded
//!    while one of the expected is missing. It has as many founders as were expected, each once.
//! 2. There is one. Nobody writes down that another one exists, and no founder lets go of the genesis of one that does.
//! 3. What a member says that it holds, proposes or belongs to is durable; what its proposer calls void it does not hold
//!    and never founds.
//!
//! That it is born when the faults have ended is asked at the end of a run.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ring_core::genesis::Genesis;
use ring_core::ids::{ClusterId, LogSeq, MemberId};
use ring_core::storage::Recovered;
use ring_core::storage::record::{Batch, Record};
use ring_core::wire::message::Gather;

use super::{Oracle, name};

/// What is known of how the cluster is created.
#[derive(Debug, Default)]
pub(super) struct Births {
    /// So many are to found it, where they find each other.
    expected: Option<usize>,
    /// By machine.
    logs: BTreeMap<usize, Log>,
    /// What each member holds durably, also who has lost its disk since.
    held: BTreeMap<MemberId, ClusterId>,
    /// What was ever written down.
    genesis: BTreeMap<ClusterId, Genesis>,
    /// What their proposers have given up.
    void: BTreeSet<ClusterId>,
    /// The one that exists, as somebody has durably.
    founded: Option<ClusterId>,
}

/// What a machine's log says of it.
#[derive(Debug, Default)]
struct Log {
    durable: Held,
    written: Held,
    queue: VecDeque<(LogSeq, Held)>,
}

/// The genesis that is held, and whether it is known that the cluster exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Held {
    genesis: Option<Genesis>,
    founded: bool,
}

type Found = Result<(), String>;

impl Held {
    fn cluster(&self) -> Option<ClusterId> {
        self.genesis.as_ref().map(|genesis| genesis.cluster)
    }
}

impl Births {
    fn on_append(&mut self, machine: usize, me: MemberId, batch: &Batch) -> Found {
        let log = self.logs.entry(machine).or_default();
        let mut next = log.written.clone();
        for record in &batch.records {
            match record {
                Record::Genesis(genesis) => {
                    self.genesis.insert(genesis.cluster, genesis.clone());
                    next.genesis = Some(genesis.clone());
                }
                Record::Released => next.genesis = None,
                Record::Founded => next.founded = true,
                Record::Birth { .. }
                | Record::Boot(_)
                | Record::PeerBoot { .. }
                | Record::Vote { .. }
                | Record::Entries { .. }
                | Record::Cut { .. }
                | Record::Checkpoint(_)
                | Record::Replica { .. }
                | Record::Dropped { .. }
                | Record::Table(_) => {}
            }
        }
        if next == log.written {
            return Ok(());
        }
        let begins = next.founded && !log.written.founded;
        log.written = next.clone();
        log.queue.push_back((batch.seq, next.clone()));
        match next.genesis.filter(|_| begins) {
            Some(genesis) => self.may_exist(me, &genesis),
            None => Ok(()),
        }
    }

    /// Somebody writes down that this cluster exists.
    fn may_exist(&self, by: MemberId, genesis: &Genesis) -> Found {
        let cluster = genesis.cluster;
        if self.founded.is_some_and(|founded| founded != cluster) {
            return Err(format!("{by} founds {genesis:?}; another cluster exists"));
        }
        if self.void.contains(&cluster) {
            return Err(format!("{by} founds {genesis:?}, which was given up"));
        }
        let ids: BTreeSet<MemberId> = genesis.members.iter().map(|founder| founder.id).collect();
        let births: BTreeSet<u64> = genesis.members.iter().map(|founder| founder.birth).collect();
        let expected = self.expected.unwrap_or(genesis.members.len());
        if [ids.len(), births.len(), genesis.members.len()] != [expected; 3] {
            return Err(format!("{by} founds {genesis:?}; {expected} are expected"));
        }
        let holds = |id: &MemberId| *id == by || self.held.get(id) == Some(&cluster);
        match ids.iter().find(|id| !holds(id)) {
            Some(missing) => {
                Err(format!("{by} founds {genesis:?}, and {missing} does not hold it"))
            }
            None => Ok(()),
        }
    }

    fn on_stored(&mut self, machine: usize, me: MemberId, upto: LogSeq) -> Found {
        let Some(log) = self.logs.get_mut(&machine) else { return Ok(()) };
        while let Some((_, held)) = log.queue.pop_front_if(|(seq, _)| *seq <= upto) {
            log.durable = held;
            match log.durable.cluster() {
                Some(cluster) => self.held.insert(me, cluster),
                None => self.held.remove(&me),
            };
            if let Some(genesis) = log.durable.genesis.as_ref().filter(|_| log.durable.founded) {
                self.founded = Some(genesis.cluster);
            }
        }
        let Some(founded) = self.founded else { return Ok(()) };
        let genesis = self.genesis.get(&founded).filter(|genesis| genesis.founder(me).is_some());
        if genesis.is_some() && log.durable.cluster() != Some(founded) {
            return Err(format!("{me} founded {founded:?} and holds {:?}", log.durable));
        }
        Ok(())
    }

    fn on_said(&mut self, machine: usize, me: MemberId, said: &Gather) -> Found {
        let log = self.logs.entry(machine).or_default();
        let durable = &log.durable;
        if said.holds.is_some() && said.holds != durable.cluster() {
            return Err(format!("{me} says that it holds {:?}; durable: {durable:?}", said.holds));
        }
        if said.proposal.is_some() && said.proposal != durable.genesis {
            return Err(format!("{me} proposes {:?}; durable: {durable:?}", said.proposal));
        }
        if said.cluster.is_some() && !(durable.founded && said.cluster == durable.genesis) {
            return Err(format!("{me} is of {:?}; durable: {durable:?}", said.cluster));
        }
        let Some(void) = said.void else { return Ok(()) };
        if [durable, &log.written].iter().any(|held| held.cluster() == Some(void)) {
            return Err(format!("{me} calls {void:?} void; durable: {durable:?}"));
        }
        if self.genesis.get(&void).is_some_and(|genesis| genesis.proposer() == me) {
            self.void.insert(void);
        }
        Ok(())
    }
}

impl Oracle {
    /// So many members are to find each other and found the cluster.
    pub fn expect_founders(&mut self, founders: usize) {
        self.births.expected = Some(founders);
    }

    /// A batch goes to a member's log.
    pub(super) fn on_birth_written(&mut self, machine: usize, batch: &Batch) {
        let written = self.births.on_append(machine, self.id_of(machine), batch);
        self.judge_birth(machine, written);
    }

    pub(super) fn on_birth_stored(&mut self, machine: usize, upto: LogSeq) {
        let stored = self.births.on_stored(machine, self.id_of(machine), upto);
        self.judge_birth(machine, stored);
    }

    /// A member says where its birth stands.
    pub(super) fn on_gather(&mut self, machine: usize, said: &Gather) {
        let said = self.births.on_said(machine, self.id_of(machine), said);
        self.judge_birth(machine, said);
    }

    /// A member was started: what it found is what was written, up to some batch.
    pub(super) fn on_birth_recovered(&mut self, machine: usize, log: &Recovered) {
        let found = Held { genesis: log.genesis.clone(), founded: log.founded };
        // Of a directory that was put back nothing is known yet.
        let births = self
            .births
            .logs
            .entry(machine)
            .or_insert_with(|| Log { durable: found.clone(), ..Log::default() });
        births.queue.clear();
        births.written = found.clone();
        if found != births.durable {
            let problem = format!("{}: found {found:?}, not {:?}", name(machine), births.durable);
            self.fail("RECOVER", problem);
        }
    }

    /// A machine has an empty disk from now on.
    pub(super) fn on_birth_forgotten(&mut self, machine: usize) {
        self.births.logs.remove(&machine);
    }

    fn judge_birth(&mut self, machine: usize, found: Found) {
        if let Err(problem) = found {
            self.fail("BIRTH", format!("{}: {problem}", name(machine)));
        }
    }

    /// Whether the cluster exists, as somebody has durably.
    #[must_use]
    pub fn is_born(&self) -> bool {
        self.births.founded.is_some()
    }

    /// A machine whose member has proposed a cluster, and not decided over it, or not told everybody.
    #[must_use]
    pub fn proposer(&self) -> Option<usize> {
        let mut waiting = self.undecided();
        waiting.find_map(|(_, genesis)| {
            let machine = self.machine_of(genesis.proposer())?;
            let held = self.births.logs.get(&machine)?.written.cluster();
            (held == Some(genesis.cluster)).then_some(machine)
        })
    }

    /// A machine whose member holds a cluster that another one decides over, and has heard nothing yet.
    #[must_use]
    pub fn founder(&self) -> Option<usize> {
        let mut waiting = self.undecided();
        let found = waiting.find(|(machine, genesis)| genesis.proposer() != self.id_of(*machine));
        found.map(|(machine, _)| machine)
    }

    /// Who holds a genesis and does not know whether that cluster exists.
    fn undecided(&self) -> impl Iterator<Item = (usize, &Genesis)> {
        let logs = self.births.logs.iter().filter(|(_, log)| !log.written.founded);
        logs.filter_map(|(machine, log)| Some((*machine, log.written.genesis.as_ref()?)))
    }

    /// Whether a machine's disk may be emptied before the cluster exists. Whoever has proposed one must be there to decide;
    /// and a majority of what a founder holds must be left, should it be founded.
    #[must_use]
    pub fn may_forget(&self, machine: usize) -> bool {
        let me = self.id_of(machine);
        let births = &self.births;
        let has_proposed = births.genesis.values().any(|genesis| genesis.proposer() == me);
        let is_left = |id: MemberId| id != me && self.machine_of(id).is_some();
        let bears = |genesis: &Genesis| {
            let layout = genesis.layout();
            genesis.all_groups().all(|group| {
                let voters = layout.membership(group).voters;
                let left = voters.iter().filter(|voter| is_left(voter.member)).count();
                left * 2 > voters.len()
            })
        };
        let mut named = births.genesis.values().filter(|genesis| genesis.founder(me).is_some());
        births.founded.is_none() && !has_proposed && named.all(bears)
    }
}
