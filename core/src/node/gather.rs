//! The node's part in the gathering: members that found a cluster with whom they find.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;

use super::Node;
use super::directory::TEXT_MAX;
use crate::config::Config;
use crate::gathering::{Gathering, Progress, Step, Terms};
use crate::genesis::{Founder, Genesis};
use crate::ids::{ConnId, LogSeq, MemberId};
use crate::io::Event;
use crate::rng::Rng;
use crate::storage::Recovered;
use crate::storage::record::Record;
use crate::time::Instant;
use crate::wire::bounded::MEMBERS_MAX;
use crate::wire::message::{Gather, Message};

/// Names the gathering's dice.
const GATHERING: u64 = 4;

/// What the node notes beside its gathering.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Gathered {
    /// The batch that makes durable what the gathering asked for.
    asked_at: Option<LogSeq>,
    /// The batch that makes durable that this member belongs to a cluster: nobody is told before, nor is the application of
    /// one that it founds.
    pub(super) founded_at: Option<LogSeq>,
    /// Addresses that it was told.
    pub(super) introduced: BTreeSet<String>,
    /// What the application was told last.
    told: Option<Progress>,
}

/// The gathering of a member that has no cluster and is to found one with others, or may have agreed to.
pub(super) fn begin(
    config: &Config,
    recovered: &Recovered,
    me: MemberId,
    birth: u64,
    rng: &Rng,
) -> Option<Gathering> {
    let gathers = config.expect.is_some() || recovered.genesis.is_some();
    if config.client || !me.is_joiner() || recovered.founded || !gathers {
        return None;
    }
    let (name, address) = (config.name.clone(), config.address.clone());
    let own = Founder { id: me, name, address, birth };
    let terms = Terms {
        cluster: config.cluster.clone(),
        founders: config.expect.unwrap_or_default().into(),
        shards: config.shards,
        replication: config.replication,
    };
    let held = recovered.genesis.clone();
    Some(Gathering::new(terms, own, &config.join, held, rng.fork(GATHERING)))
}

impl Node {
    /// With each tick.
    pub(super) fn drive_gathering(&mut self, now: Instant) {
        let Some(gathering) = &mut self.gathering else { return };
        let step = gathering.drive();
        self.on_gathering_step(now, step);
        for member in self.connected_members() {
            self.say_gathering(member);
        }
        let Some(gathering) = &self.gathering else { return };
        let progress = gathering.progress();
        if self.gathered.told.as_ref() != Some(&progress) {
            self.gathered.told = Some(progress.clone());
            let expect = self.config.expect.unwrap_or_default();
            let Progress { found, missing } = progress;
            self.event(Event::Gathering { found, expect, missing });
        }
    }

    /// A link is up.
    pub(super) fn gather_with(&mut self, member: MemberId) {
        let (Some(gathering), Some(guest)) = (&mut self.gathering, self.guests.get(&member)) else {
            return;
        };
        gathering.on_connected(member, guest.name.clone(), guest.birth);
        self.say_gathering(member);
    }

    fn say_gathering(&mut self, member: MemberId) {
        if let Some(said) = self.gathering.as_mut().and_then(|gathering| gathering.say(member)) {
            self.send(member, Message::Gather(Box::new(said)));
        }
    }

    /// Who answered a dial: it may be one of those whom this member was told to join.
    pub(super) fn note_found_at(&mut self, conn: ConnId, who: MemberId) {
        if let Some(gathering) = &mut self.gathering
            && let Some(address) = self.links.dialled(conn)
        {
            gathering.on_found_at(address, who);
        }
    }

    pub(super) fn on_gather(&mut self, now: Instant, from: MemberId, said: Gather) {
        let others = said.others.iter().map(|(_, address)| address);
        if others.chain([&said.address]).any(|address| !is_address(address)) {
            return self.peer_fault(Some(from), "an address that no member can have");
        }
        if self.gathering.is_none() {
            return self.tell_cluster(from, &said);
        }
        if said.cluster.is_none() {
            let me = self.me;
            for (_, address) in said.others.iter().filter(|(id, _)| *id != me) {
                self.introduce(now, address.clone());
            }
        }
        let Some(gathering) = &mut self.gathering else { return };
        let step = gathering.on_said(from, said);
        self.on_gathering_step(now, step);
    }

    /// A member of a cluster answers those who look for one.
    fn tell_cluster(&mut self, to: MemberId, said: &Gather) {
        let Some(genesis) = self.known_genesis().filter(|_| said.cluster.is_none()) else { return };
        let void = said.holds.filter(|&held| held != genesis.cluster);
        let answer = Gather { void, cluster: Some(genesis), ..Gather::default() };
        self.send(to, Message::Gather(Box::new(answer)));
    }

    /// Dials somebody whom another one is connected to, too.
    pub(super) fn introduce(&mut self, now: Instant, address: String) {
        let is_known = address == self.config.address
            || self.config.join.contains(&address)
            || self.gathered.introduced.contains(&address);
        if !is_known && !address.is_empty() && self.gathered.introduced.len() < MEMBERS_MAX {
            self.links.add_target(now, None, address.clone());
            self.gathered.introduced.insert(address);
        }
    }

    pub(super) fn on_gathering_step(&mut self, now: Instant, step: Step) {
        match step {
            Step::Wait => return,
            Step::Hold(genesis) => {
                // From now on they promise something, above all its proposer. Of who is not here its next word counts, and
                // not that of whoever came under its name before.
                for founder in &genesis.members {
                    if let Some(conn) = self.links.conn_of(founder.id) {
                        self.boots.insert(founder.id, self.links.boot_of(conn));
                        self.note_boot(founder.id);
                    } else {
                        self.boots.remove(&founder.id);
                    }
                }
                self.records.push(Record::Genesis(genesis));
            }
            Step::Release => self.records.push(Record::Released),
            Step::Found(genesis) => return self.belong(now, genesis),
        }
        self.gathered.asked_at = Some(self.log.next_seq());
    }

    /// The cluster exists: this member takes part in it, or joins it.
    fn belong(&mut self, now: Instant, genesis: Genesis) {
        self.gathering = None;
        self.gathered.asked_at = None;
        self.take_genesis(&genesis);
        let is_founder = genesis.founder(self.me).is_some();
        for address in core::mem::take(&mut self.gathered.introduced) {
            self.links.forget_seed(&address);
        }
        self.founding.join(genesis.clone());
        self.genesis = Some(genesis);
        if is_founder {
            self.found_groups(now);
        } else {
            self.keep_links(now);
        }
    }

    pub(super) fn on_gathering_stored(&mut self, upto: LogSeq) {
        if self.gathered.founded_at.is_some_and(|at| at <= upto) {
            self.gathered.founded_at = None;
            if self.has_founded(self.me) {
                self.come_up();
            }
        }
        if self.gathered.asked_at.is_some_and(|at| at <= upto) {
            self.gathered.asked_at = None;
            if let Some(gathering) = &mut self.gathering {
                gathering.on_stored();
            }
            for member in self.connected_members() {
                self.say_gathering(member);
            }
        }
    }
}

/// As [`crate::directory`] takes it; empty where none is told.
pub(super) fn is_address(address: &str) -> bool {
    address.len() <= TEXT_MAX && !address.contains(char::is_control)
}
