//! Every schedule of directors, leaders and members over an abstract cluster: groups are chains of memberships, and
//! whoever acts on a table may act on any that was ever written.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

use proptest::prelude::*;

use super::super::*;
use super::director::{genesis, registration};
use crate::ids::{GroupId, MemberId, ReplicaId, Revision, Term};
use crate::raft::message::{Membership, Replica};
use crate::time::Instant;

const MEMBERS: u64 = 6;
const SHARDS: u32 = 2;
const GROUPS: u32 = SHARDS + 1;

/// What happens next. Numbers are taken modulo what there is to choose from.
#[derive(Clone, Debug)]
enum Event {
    /// A director works out a table and asks for what it needs; whether the answer reaches it.
    Direct {
        director: usize,
        is_answered: bool,
    },
    /// A director is deposed and leads again, without knowing more than that.
    Depose {
        director: usize,
    },
    /// A director sees a member, or does not.
    See {
        director: usize,
        member: u64,
        is_here: bool,
    },
    Register {
        director: usize,
        member: u64,
        weight: u16,
    },
    Leave {
        director: usize,
        member: u64,
        force: bool,
    },
    /// A leader of a group, with whatever table, takes the next step.
    Step {
        group: u32,
        table: usize,
        is_ready: bool,
    },
    /// What was appended last is committed, or its leader is deposed and it is replaced.
    Decide {
        group: u32,
        commits: bool,
    },
    /// Some leader's word of a membership that is committed, however late.
    Settle {
        director: usize,
        group: u32,
        back: usize,
    },
    /// A member hears of a table.
    Hear {
        member: u64,
        table: usize,
    },
}

struct Group {
    committed: Vec<Membership>,
    /// Appended by some leader, and perhaps committed later.
    appended: Option<Membership>,
}

impl Group {
    fn committed(&self) -> &Membership {
        self.committed.last().unwrap()
    }

    /// Everyone who takes part or may yet take part.
    fn replicas(&self) -> BTreeSet<Replica> {
        let all = self.appended.iter().chain([self.committed()]);
        all.flat_map(Membership::replicas).collect()
    }

    fn append(&mut self, next: Membership) {
        let present = self.committed();
        let outgoing =
            if next.voters == present.voters { Vec::new() } else { present.voters.clone() };
        self.appended = Some(Membership { outgoing, ..next });
    }

    fn commit(&mut self) {
        let Some(membership) = self.appended.take() else { return };
        let is_joint = membership.is_joint();
        self.committed.push(membership.clone());
        if is_joint {
            self.appended = Some(Membership { outgoing: Vec::new(), ..membership });
        }
    }
}

struct Cluster {
    /// Every table that was ever written; the place is its revision.
    tables: Vec<Table>,
    directors: Vec<Director>,
    term: Term,
    groups: Vec<Group>,
    /// What each member has heard of, and its replicas.
    members: BTreeMap<MemberId, (usize, BTreeMap<GroupId, ReplicaId>)>,
    made: BTreeSet<ReplicaId>,
}

fn placed(table: &Table) -> impl Fn(GroupId) -> Vec<MemberId> + use<> {
    let active: Vec<MemberId> =
        table.active().filter(|&(_, weight)| weight > 0).map(|(member, _)| member).collect();
    move |group| {
        let mut members = active.clone();
        members.sort_by_key(|member| (member.0 * 7 + u64::from(group.0) * 5) % 11);
        members.truncate(3);
        members
    }
}

impl Cluster {
    fn new() -> Self {
        let genesis = genesis(3, SHARDS);
        let table = Table::of_genesis(&genesis);
        let settings = DirectorSettings {
            replace_after: Duration::ZERO,
            name_after: Duration::ZERO,
            moving_max: 2,
            members_max: 5,
        };
        let mut directors = [Director::new(settings.clone()), Director::new(settings)];
        directors.iter_mut().for_each(|director| director.on_lead(Some(Term(1))));
        let group = |group| Group {
            committed: [genesis.membership(GroupId(group))].into(),
            appended: None,
        };
        let held = |member: u64| {
            let replica = |group: u32| {
                let replica = genesis.membership(GroupId(group)).on_member(MemberId(member))?;
                Some((GroupId(group), replica.id))
            };
            (MemberId(member), (0, (0..GROUPS).filter_map(replica).collect()))
        };
        let members: BTreeMap<_, (usize, BTreeMap<GroupId, ReplicaId>)> =
            (1..=MEMBERS).map(held).collect();
        let made = members.values().flat_map(|(_, held)| held.values().copied()).collect();
        Self {
            tables: [table].into(),
            directors: directors.into(),
            term: Term(1),
            groups: (0..GROUPS).map(group).collect(),
            members,
            made,
        }
    }

    fn revision(&self) -> Revision {
        Revision(crate::ids::len_u64(self.tables.len() - 1))
    }

    fn newest(&self) -> &Table {
        self.tables.last().unwrap()
    }

    fn direct(&mut self, director: usize, is_answered: bool) {
        let director = director % 2;
        self.directors[director].drive(Instant(1), placed);
        self.directors[director].take_refused();
        match self.directors[director].take_ask() {
            None => {}
            Some(Ask::Read) => {
                let answer = (self.newest().clone(), self.revision());
                self.directors[director].on_read(is_answered.then_some(answer));
            }
            Some(Ask::Write { value, on }) => {
                let counts = on == self.revision();
                if counts {
                    self.tables.push(Table::decode(&value).expect("what is written is sound"));
                }
                let revision = self.revision();
                self.directors[director].on_written((counts && is_answered).then_some(revision));
            }
        }
    }

    fn hear(&mut self, member: MemberId, table: usize) {
        let (heard, held) = self.members.get_mut(&member).unwrap();
        // Tables only get newer.
        *heard = table.max(*heard);
        let table = &self.tables[*heard];
        for group in 0..GROUPS {
            let id = GroupId(group);
            let before = held.get(&id).copied();
            let duty = table.duty(id, member, before);
            if duty == Duty::Keep {
                continue;
            }
            if let Some(dropped) = before {
                let takes_part = self.groups[usize::try_from(group).unwrap()].replicas();
                let takes_part = takes_part.iter().any(|replica| replica.id == dropped);
                assert!(!takes_part, "1: {dropped} of {id} is dropped and may take part");
                held.remove(&id);
            }
            if let Duty::Make(replica) = duty {
                assert!(self.made.insert(replica), "3: {replica} is made twice");
                held.insert(id, replica);
            }
        }
    }

    fn step(&mut self, group: u32, table: usize, is_ready: bool) {
        let place = usize::try_from(group % GROUPS).unwrap();
        let assignment = self.tables[table].group(GroupId(group % GROUPS)).unwrap();
        let group = &mut self.groups[place];
        if group.appended.is_some() {
            return; // refused: a change is pending
        }
        let held =
            |replica: ReplicaId| self.members.values().any(|m| m.1.values().any(|&r| r == replica));
        let step = assignment.next_step(group.committed(), |replica| is_ready && held(replica));
        match step {
            Step::Done | Step::Wait => {}
            Step::Learn(next) => {
                assert_eq!(next.voters, group.committed().voters, "learners change no majority");
                group.append(next);
            }
            Step::Switch(next) => {
                assert!(next.order > group.committed().order, "2: orders rise");
                group.append(next);
            }
        }
    }

    fn settle(&mut self, director: usize, group: u32, back: usize) {
        let group = GroupId(group % GROUPS);
        let committed = &self.groups[usize::try_from(group.0).unwrap()].committed;
        let membership = &committed[committed.len() - 1 - back % committed.len()];
        if !membership.is_joint() {
            let change = Change::Settle { group, order: membership.order };
            self.directors[director % 2].ask(change);
        }
    }

    fn on(&mut self, event: &Event) {
        match *event {
            Event::Direct { director, is_answered } => self.direct(director, is_answered),
            Event::Depose { director } => {
                self.term = self.term.next();
                self.directors[director % 2].on_lead(Some(self.term));
            }
            Event::See { director, member, is_here } => {
                self.directors[director % 2].on_presence(Instant(1), MemberId(member), is_here);
            }
            Event::Register { director, member, weight } => {
                self.directors[director % 2].ask(registration(member, weight));
            }
            Event::Leave { director, member, force } => {
                let member = MemberId(member);
                self.directors[director % 2].ask(Change::Leave { member, force });
            }
            Event::Step { group, table, is_ready } => {
                self.step(group, table % self.tables.len(), is_ready);
            }
            Event::Decide { group, commits } => {
                let group = &mut self.groups[usize::try_from(group % GROUPS).unwrap()];
                let leaves_joint = group.committed().is_joint();
                // Whoever leads next leaves a joint membership that is committed, too.
                if commits || leaves_joint { group.commit() } else { group.appended = None }
            }
            Event::Settle { director, group, back } => self.settle(director, group, back),
            Event::Hear { member, table } => {
                self.hear(MemberId(member), table % self.tables.len());
            }
        }
    }

    fn check(&self) {
        assert!(self.tables.windows(2).all(|pair| pair[0].version < pair[1].version));
        for (place, group) in (0..).zip(&self.groups) {
            let named: BTreeSet<Replica> =
                self.newest().group(GroupId(place)).unwrap().replicas().collect();
            let takes_part = group.replicas();
            assert!(takes_part.is_subset(&named), "1: g{place}: {takes_part:?} of {named:?}");
            // However old the table is that somebody goes by.
            let is_void = |replica: &Replica| {
                self.tables.iter().any(|table| table.is_void(GroupId(place), *replica))
            };
            assert!(!takes_part.iter().any(is_void), "5: g{place}: {takes_part:?}");
            assert!(group.committed.is_sorted_by_key(|membership| membership.order), "2");
        }
    }

    /// Everyone is here and every message arrives: everything comes to where it belongs.
    fn come_to_rest(&mut self) {
        self.directors[1].on_lead(None);
        self.on(&Event::Depose { director: 0 });
        for _ in 0..200 {
            for member in 1..=MEMBERS {
                self.directors[0].on_presence(Instant(1), MemberId(member), true);
                self.hear(MemberId(member), self.tables.len() - 1);
            }
            self.direct(0, true);
            for group in 0..GROUPS {
                self.step(group, self.tables.len() - 1, true);
                self.on(&Event::Decide { group, commits: true });
                self.settle(0, group, 0);
            }
            self.check();
        }
        let table = self.newest();
        assert_eq!(table.moving(), 0, "everything is settled: {table:?}");
        let members_of = placed(table);
        for group in 1..GROUPS {
            let wanted: BTreeSet<MemberId> = members_of(GroupId(group)).into_iter().collect();
            let membership = self.groups[usize::try_from(group).unwrap()].committed();
            let voters: BTreeSet<MemberId> = membership.voters.iter().map(|v| v.member).collect();
            assert!(wanted.is_empty() || wanted == voters, "g{group}: {wanted:?}, {voters:?}");
        }
        let leaving = table.members.iter().filter(|member| member.standing != Standing::Active);
        for member in leaving {
            assert!(table.holds_any(member.id), "who holds nothing has gone");
        }
    }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let director = 0..2_usize;
    let member = 1..=MEMBERS;
    let group = 0..GROUPS;
    let table = 0..1000_usize;
    let event = prop_oneof![
        6 => (director.clone(), prop::bool::weighted(0.8))
            .prop_map(|(director, is_answered)| Event::Direct { director, is_answered }),
        1 => director.clone().prop_map(|director| Event::Depose { director }),
        2 => (director.clone(), member.clone(), any::<bool>())
            .prop_map(|(director, member, is_here)| Event::See { director, member, is_here }),
        2 => (director.clone(), member.clone(), 0..3_u16)
            .prop_map(|(director, member, weight)| Event::Register { director, member, weight }),
        1 => (director.clone(), member.clone(), any::<bool>())
            .prop_map(|(director, member, force)| Event::Leave { director, member, force }),
        6 => (group.clone(), table.clone(), any::<bool>())
            .prop_map(|(group, table, is_ready)| Event::Step { group, table, is_ready }),
        6 => (group.clone(), prop::bool::weighted(0.8))
            .prop_map(|(group, commits)| Event::Decide { group, commits }),
        4 => (director, group, 0..4_usize)
            .prop_map(|(director, group, back)| Event::Settle { director, group, back }),
        6 => (member, table).prop_map(|(member, table)| Event::Hear { member, table }),
    ];
    prop::collection::vec(event, 0..300)
}

proptest! {
    #[test]
    fn every_schedule_keeps_the_promises(events in events()) {
        let mut cluster = Cluster::new();
        for event in &events {
            cluster.on(event);
            cluster.check();
        }
        cluster.come_to_rest();
    }
}
