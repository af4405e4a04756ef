use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::ToString;

use super::*;

fn terms(founders: usize) -> Terms {
    Terms { cluster: "c".to_string(), founders, shards: 4, replication: 3 }
}

fn founder(birth: u64) -> Founder {
    let id = MemberId::joiner(birth);
    Founder { id, name: format!("m{birth}"), address: format!("a{birth}"), birth }
}

/// One that knows who is at every address that it was told to join.
fn gathering(birth: u64, founders: usize, join: &[u64]) -> Gathering {
    let addresses: Vec<String> = join.iter().map(|birth| format!("a{birth}")).collect();
    let mut made =
        Gathering::new(terms(founders), founder(birth), &addresses, None, Rng::new(birth));
    for &birth in join {
        made.on_found_at(&format!("a{birth}"), founder(birth).id);
    }
    made
}

fn connect(one: &mut Gathering, birth: u64) -> MemberId {
    let Founder { id, name, birth, .. } = founder(birth);
    one.on_connected(id, name, birth);
    id
}

/// What a member says that was told to join these.
fn said(birth: u64, told: &[u64], holds: Option<ClusterId>) -> Gather {
    let told = told.iter().map(|&birth| founder(birth).id).collect();
    Gather { address: founder(birth).address, told, is_complete: true, holds, ..Gather::default() }
}

/// The proposer of two, when it has proposed.
fn proposer() -> (Gathering, Genesis) {
    let mut one = gathering(1, 2, &[2]);
    let two = connect(&mut one, 2);
    assert_eq!(one.on_said(two, said(2, &[1], None)), Step::Wait);
    let Step::Hold(genesis) = one.drive() else { panic!("all are there") };
    one.on_stored();
    (one, genesis)
}

#[test]
fn the_lowest_id_proposes_when_all_expected_are_there() {
    let mut one = gathering(1, 3, &[2]);
    let two = connect(&mut one, 2);
    one.on_said(two, said(2, &[1], None));
    assert_eq!(one.drive(), Step::Wait, "one of three is missing");

    let three = connect(&mut one, 3);
    assert_eq!(one.drive(), Step::Wait, "it has said nothing");
    one.on_said(three, said(3, &[1], None));
    let Step::Hold(genesis) = one.drive() else { panic!("all are there") };
    assert_eq!(genesis.members, [founder(1), founder(2), founder(3)]);
    assert_eq!(one.say(two).unwrap().proposal, None, "it is not durable");
    one.on_stored();
    assert_eq!(one.say(two).unwrap().proposal, Some(genesis));

    let mut other = gathering(2, 3, &[1]);
    for birth in [1, 3] {
        let id = connect(&mut other, birth);
        other.on_said(id, said(birth, &[2], None));
    }
    assert_eq!(other.drive(), Step::Wait, "it is not the lowest");
}

#[test]
fn a_set_is_closed() {
    let mut one = gathering(1, 2, &[]);
    let two = connect(&mut one, 2);
    one.on_said(two, said(2, &[3], None));
    assert_eq!(one.drive(), Step::Wait, "the third is not there");
    let three = connect(&mut one, 3);
    one.on_said(three, said(3, &[], None));
    let Step::Hold(genesis) = one.drive() else { panic!("without the second it is closed") };
    assert_eq!(genesis.members, [founder(1), founder(3)]);

    let mut unsure = gathering(1, 2, &[2]);
    unsure.told.insert("a9".to_string(), None);
    let two = connect(&mut unsure, 2);
    unsure.on_said(two, said(2, &[1], None));
    assert_eq!(unsure.drive(), Step::Wait, "nobody was found at one address");
    unsure.on_found_at("a9", two);
    assert!(matches!(unsure.drive(), Step::Hold(_)));
}

#[test]
fn the_cluster_exists_when_all_hold_it() {
    let (mut one, genesis) = proposer();
    let (first, two) = (founder(1).id, founder(2).id);
    assert_eq!(one.drive(), Step::Wait, "the second does not hold it");

    let mut other = gathering(2, 2, &[1]);
    connect(&mut other, 1);
    let proposal = one.say(two).unwrap();
    assert_eq!(other.on_said(first, proposal), Step::Hold(genesis.clone()));
    assert_eq!(other.say(first).unwrap().holds, None, "it is not durable");
    other.on_stored();
    one.on_said(two, other.say(first).unwrap());
    assert_eq!(one.drive(), Step::Found(genesis.clone()));

    let word = Gather { cluster: Some(genesis.clone()), ..Gather::default() };
    assert_eq!(other.on_said(first, word), Step::Found(genesis));
}

#[test]
fn what_is_given_up_is_let_go() {
    let (mut one, genesis) = proposer();
    let (first, two) = (founder(1).id, founder(2).id);
    let mut other = gathering(2, 2, &[1]);
    connect(&mut other, 1);
    other.on_said(first, one.say(two).unwrap());
    other.on_stored();

    one.on_lost(two);
    assert_eq!(one.drive(), Step::Release);
    connect(&mut one, 2);
    one.on_said(two, other.say(first).unwrap());
    assert_eq!(one.say(two).unwrap().void, None, "it is not durable");
    one.on_stored();
    let void = one.say(two).unwrap();
    assert_eq!(void.void, Some(genesis.cluster));

    let stranger = connect(&mut other, 3);
    assert_eq!(other.on_said(stranger, void.clone()), Step::Wait, "not its proposer");
    assert_eq!(other.on_said(first, void), Step::Release);
    assert_eq!(other.written(), None);
    let later = one.draw(&BTreeSet::from([first, two]));
    assert_ne!(later.cluster, genesis.cluster, "another one each time");
}

#[test]
fn who_holds_a_genesis_takes_no_other() {
    let (_, genesis) = proposer();
    let first = founder(1).id;
    let mut other = gathering(2, 2, &[1]);
    connect(&mut other, 1);
    let proposal =
        Gather { proposal: Some(genesis.clone()), ..said(1, &[2], Some(genesis.cluster)) };
    assert!(matches!(other.on_said(first, proposal), Step::Hold(_)));
    other.on_stored();

    let zero = connect(&mut other, 0);
    let mut another = genesis.clone();
    another.cluster = ClusterId(7);
    another.members[0] = founder(0);
    let proposal = Gather { proposal: Some(another.clone()), ..said(0, &[], Some(ClusterId(7))) };
    assert_eq!(other.on_said(zero, proposal), Step::Wait);
    assert_eq!(other.on_cluster(zero, another.clone()), Step::Wait, "the first may have founded");
    assert_eq!(other.on_cluster(first, another.clone()), Step::Found(another), "it has not");
}

#[test]
fn a_proposal_must_fit() {
    let (_, genesis) = proposer();
    let change = |change: fn(&mut Genesis)| {
        let mut changed = genesis.clone();
        change(&mut changed);
        changed
    };
    let wrong = [
        change(|g| g.shards += 1),
        change(|g| g.replication += 1),
        change(|g| g.name.push('x')),
        change(|g| g.members.swap(0, 1)),
        change(|g| g.members.truncate(1)),
        change(|g| g.members.push(founder(3))),
        change(|g| g.members[0].birth += 1),
        change(|g| g.members[1].address.push('x')),
        change(|g| g.members[0].name = "m2".to_string()),
        change(|g| g.members.clear()),
    ];
    for proposal in wrong {
        let mut other = gathering(2, 2, &[1]);
        let first = connect(&mut other, 1);
        let proposal = Gather { proposal: Some(proposal), ..said(1, &[2], None) };
        assert_eq!(other.on_said(first, proposal.clone()), Step::Wait, "{proposal:?}");
    }
    let mut other = gathering(2, 2, &[3]);
    let first = connect(&mut other, 1);
    let proposal = Gather { proposal: Some(genesis), ..said(1, &[2], None) };
    assert_eq!(other.on_said(first, proposal), Step::Wait, "without whom it was told to join");
}

/// A member of the model: what is durable of it, and the machine that is rebuilt from that.
struct Member {
    own: Founder,
    join: Vec<String>,
    durable: Durable,
    writes: VecDeque<Durable>,
    gathering: Option<Gathering>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Durable {
    held: Option<Genesis>,
    founded: bool,
}

/// Members that tick, talk, crash, lose their links and their disks as the dice fall.
struct Model {
    rng: Rng,
    expect: usize,
    members: Vec<Member>,
    /// Connections, and what is under way on them.
    links: BTreeMap<(usize, usize), VecDeque<Gather>>,
    next_birth: u64,
    /// The cluster, once it exists.
    cluster: Option<Genesis>,
}

impl Model {
    fn start(seed: u64, expect: usize, joins: Vec<Vec<usize>>) -> Self {
        let mut rng = Rng::new(seed);
        let members = joins.into_iter().enumerate().map(|(place, join)| {
            let birth = rng.next();
            let own = Founder {
                id: MemberId::joiner(birth),
                name: format!("m{place}"),
                address: format!("a{place}"),
                birth,
            };
            let join = join.into_iter().map(|place| format!("a{place}")).collect();
            let (durable, writes) = (Durable::default(), VecDeque::new());
            Member { own, join, durable, writes, gathering: None }
        });
        let members: Vec<Member> = members.collect();
        let next_birth = rng.next();
        let mut model =
            Self { rng, expect, members, links: BTreeMap::new(), next_birth, cluster: None };
        for place in 0..model.members.len() {
            model.restart(place);
        }
        model
    }

    fn restart(&mut self, place: usize) {
        self.unlink(place, None);
        let rng = Rng::new(self.rng.next());
        let member = &mut self.members[place];
        member.writes.clear();
        let Durable { held, founded } = member.durable.clone();
        let (own, join) = (member.own.clone(), member.join.clone());
        let made = Gathering::new(terms(self.expect), own, &join, held, rng);
        member.gathering = (!founded).then_some(made);
    }

    /// Some of what was being written has become durable, and all else is lost.
    fn crash(&mut self, place: usize) {
        for _ in 0..self.rng.below(3) {
            self.write(place);
        }
        self.restart(place);
    }

    /// Its directory is emptied: another member is there. Not that of one on whose word others wait.
    fn wipe(&mut self, place: usize) {
        let id = self.members[place].own.id;
        let waits = |member: &Member| {
            let states = member.writes.iter().chain([&member.durable]);
            let mut held = states.filter(|d| !d.founded).filter_map(|d| d.held.as_ref());
            held.any(|held| held.proposer() == id)
        };
        let proposed = self.members[place].gathering.as_ref().and_then(Gathering::written);
        if self.members.iter().any(waits)
            || proposed.is_some_and(|held| held.proposer() == id)
            || !self.is_remembered_without(place)
        {
            return;
        }
        self.unlink(place, None);
        let member = &mut self.members[place];
        self.next_birth = self.next_birth.wrapping_add(0x9e37_79b9_7f4a_7c15);
        member.own.birth = self.next_birth;
        member.own.id = MemberId::joiner(self.next_birth);
        member.durable = Durable::default();
        self.restart(place);
    }

    fn unlink(&mut self, place: usize, other: Option<usize>) {
        let ends = |&(a, b): &(usize, usize)| match other {
            Some(other) => (a, b) == (place, other) || (b, a) == (place, other),
            None => a == place || b == place,
        };
        let gone: Vec<(usize, usize)> = self.links.keys().copied().filter(ends).collect();
        for (from, to) in gone {
            self.links.remove(&(from, to));
            let id = self.members[from].own.id;
            if let Some(gathering) = &mut self.members[to].gathering {
                gathering.on_lost(id);
            }
        }
    }

    fn link(&mut self, a: usize, b: usize) {
        if a == b || self.links.contains_key(&(a, b)) {
            return;
        }
        for (from, to) in [(a, b), (b, a)] {
            self.links.insert((from, to), VecDeque::new());
            let Founder { id, name, birth, address } = self.members[from].own.clone();
            if let Some(gathering) = &mut self.members[to].gathering {
                gathering.on_found_at(&address, id);
                gathering.on_connected(id, name, birth);
            }
        }
    }

    /// What a member says to all.
    fn say(&mut self, place: usize) {
        let peers: Vec<usize> =
            self.links.keys().filter(|(from, _)| *from == place).map(|&(_, to)| to).collect();
        for to in peers {
            let id = self.members[to].own.id;
            let said = self.members[place].gathering.as_mut().and_then(|g| g.say(id));
            if let Some(said) = said {
                self.links.get_mut(&(place, to)).unwrap().push_back(said);
            }
        }
    }

    fn tick(&mut self, place: usize) {
        if let Some(gathering) = &mut self.members[place].gathering {
            let step = gathering.drive();
            self.step(place, step);
            self.say(place);
        }
    }

    fn deliver(&mut self, from: usize, to: usize) {
        let Some(said) = self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front) else {
            return;
        };
        let id = self.members[from].own.id;
        let member = &mut self.members[to];
        if let Some(gathering) = &mut member.gathering {
            let step = gathering.on_said(id, said);
            self.step(to, step);
        } else if let Durable { held: Some(cluster), founded: true } = &member.durable
            && said.cluster.is_none()
        {
            let void = said.holds.filter(|&held| held != cluster.cluster);
            let answer = Gather { void, cluster: Some(cluster.clone()), ..Gather::default() };
            self.links.get_mut(&(to, from)).unwrap().push_back(answer);
        }
    }

    fn step(&mut self, place: usize, step: Step) {
        let me = self.members[place].own.id;
        let write = match step {
            Step::Wait => return,
            Step::Hold(genesis) => Durable { held: Some(genesis), founded: false },
            Step::Release => Durable::default(),
            Step::Found(genesis) => {
                if genesis.proposer() == me {
                    self.assert_may_exist(&genesis);
                }
                self.members[place].gathering = None;
                Durable { held: Some(genesis), founded: true }
            }
        };
        self.members[place].writes.push_back(write);
    }

    /// Every founder holds it, durably.
    fn assert_may_exist(&self, genesis: &Genesis) {
        assert_eq!(genesis.members.len(), self.expect);
        for founder in &genesis.members {
            let found = self.members.iter().find(|member| member.own == *founder);
            // One that is gone with its disk held it, and never let it go.
            let held = found.map(|member| &member.durable.held);
            assert!(held.is_none_or(|held| held.as_ref() == Some(genesis)), "{founder:?}");
        }
    }

    fn store(&mut self, place: usize) {
        if self.write(place)
            && let Some(gathering) = &mut self.members[place].gathering
        {
            gathering.on_stored();
            self.say(place);
        }
    }

    /// The oldest write becomes durable.
    fn write(&mut self, place: usize) -> bool {
        let Some(write) = self.members[place].writes.pop_front() else { return false };
        if let Durable { held: Some(genesis), founded: true } = &write {
            let known = self.cluster.get_or_insert_with(|| genesis.clone());
            assert_eq!(known.cluster, genesis.cluster, "a second cluster");
        }
        self.members[place].durable = write;
        true
    }

    /// Whether everyone would meet, in whatever closed set, somebody who knows the cluster, if it exists.
    fn is_remembered_without(&self, place: usize) -> bool {
        let knows = |at: usize| at != place && self.members[at].durable.founded;
        let remembers = |at: usize| {
            let mut seen = BTreeSet::new();
            let mut open = vec![at];
            while let Some(at) = open.pop() {
                if seen.insert(at) {
                    let join = self.members[at].join.iter();
                    open.extend(join.filter_map(|told| {
                        self.members.iter().position(|member| member.own.address == *told)
                    }));
                }
            }
            seen.into_iter().any(knows)
        };
        self.cluster.is_none() || (0..self.members.len()).all(remembers)
    }

    /// One event, drawn.
    fn stir(&mut self, faults: u64) {
        let len = crate::ids::len_u64(self.members.len());
        let draw = |rng: &mut Rng| crate::ids::len_usize(rng.below(len));
        let (a, b) = (draw(&mut self.rng), draw(&mut self.rng));
        match self.rng.below(100 + faults) {
            0..10 => self.tick(a),
            10..25 => self.store(a),
            25..30 => self.link(a, b),
            30..100 => self.deliver(a, b),
            100..103 => self.unlink(a, Some(b)),
            103..106 => self.crash(a),
            _ => self.wipe(a),
        }
    }

    /// Without faults all belong to the one cluster in bounded time.
    #[track_caller]
    fn settle(&mut self) {
        let count = self.members.len();
        for _ in 0..400 {
            for a in 0..count {
                for b in 0..count {
                    self.link(a, b);
                }
                self.tick(a);
            }
            for _ in 0..3 {
                for a in 0..count {
                    self.store(a);
                    for b in 0..count {
                        while self.links.get(&(a, b)).is_some_and(|queue| !queue.is_empty()) {
                            self.deliver(a, b);
                        }
                    }
                }
            }
            let Some(cluster) = &self.cluster else { continue };
            let whole = Durable { held: Some(cluster.clone()), founded: true };
            if self.members.iter().all(|member| member.durable == whole) {
                return;
            }
        }
        let states: Vec<_> = self.members.iter().map(|m| (&m.own, &m.durable)).collect();
        panic!("no cluster: {states:#?}");
    }
}

/// Whatever is lost, crashes or is emptied, there is one cluster, and in the end all belong to it.
#[test]
fn there_is_one_cluster_whatever_happens() {
    let all = |count: usize| alloc::vec![(0..count).collect::<Vec<usize>>(); count];
    for seed in 0..1500 {
        let (expect, joins) = match seed % 5 {
            0 => (3, all(3)),
            // All were told to join the first.
            1 => (3, alloc::vec![Vec::new(), alloc::vec![0], alloc::vec![0]]),
            2 => (3, alloc::vec![alloc::vec![0]; 6]),
            // Each was told of the next.
            3 => (4, alloc::vec![alloc::vec![1], alloc::vec![2], alloc::vec![3], alloc::vec![0]]),
            // Two pairs of three, over the same two.
            _ => (3, alloc::vec![alloc::vec![0, 1]; 5]),
        };
        let mut model = Model::start(seed, expect, joins);
        for _ in 0..1500 {
            model.stir(8);
        }
        model.settle();
    }
}

/// Without one of the expected nothing is founded, however long the others wait.
#[test]
fn without_one_nothing_is_founded() {
    for seed in 0..100 {
        let joins = alloc::vec![alloc::vec![0, 1, 2]; 3];
        let mut model = Model::start(seed, 3, joins);
        model.members.pop();
        for _ in 0..3000 {
            model.stir(6);
        }
        assert_eq!(model.cluster, None);
        assert!(model.members.iter().all(|member| member.durable == Durable::default()));
    }
}
