//! One test a rule: a state, an input, what exactly comes out.

mod bounds;

use super::*;
use crate::membership::wire::{
    Body, Claim, Header, SyncMessage, Update, VERSION, Whom, Writer, decode,
};

/// A member 1 that runs, and others played by the test.
pub(super) struct Bench {
    pub(super) machine: Membership,
    pub(super) now: Instant,
    seqs: alloc::collections::BTreeMap<u64, u64>,
}

/// A datagram that came out: to whom, its header, body and updates.
pub(super) type Said = (SocketAddr, Header, Body, Vec<Update>);

/// The first incarnation of a peer's start.
pub(super) fn life(start: u64) -> Incarnation {
    Incarnation(start << 40)
}

pub(super) fn alive(id: u64, incarnation: Incarnation) -> Update {
    Update::Alive { member: MemberId(id), incarnation, profile: profile(id) }
}

pub(super) fn suspect(id: u64, incarnation: Incarnation, accusers: &[u64]) -> Update {
    let accusers = accusers.iter().map(|id| MemberId(*id)).collect();
    Update::Suspect { member: MemberId(id), incarnation, accusers }
}

pub(super) fn dead(id: u64, incarnation: Incarnation) -> Update {
    Update::Dead { member: MemberId(id), incarnation }
}

pub(super) fn left(id: u64, incarnation: Incarnation) -> Update {
    Update::Left { member: MemberId(id), incarnation }
}

pub(super) fn datagram(
    cluster: ClusterId,
    sender: u64,
    incarnation: Incarnation,
    seq: u64,
    body: Body,
    updates: &[Update],
) -> Vec<u8> {
    let header = Header { cluster, sender: MemberId(sender), incarnation, seq };
    let mut writer = Writer::new(&header, body, 65_507);
    for update in updates {
        update.with_claim(|claim| assert!(writer.add(&claim)));
    }
    writer.finish()
}

pub(super) fn read(bytes: &[u8]) -> (Header, Body, Vec<Update>) {
    let (header, body, claims) = decode(CLUSTER, bytes).unwrap();
    (header, body, claims.map(Claim::to_update).collect())
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(Config::new(CLUSTER))
    }

    pub(super) fn with(config: Config) -> Self {
        let now = Instant(1_000_000_000);
        let rng = Rng::new(1);
        let restored = Incarnation::default();
        let mut machine =
            Membership::new(config, MemberId(1), profile(1), restored, rng, now).unwrap();
        let mut effects = Effects::default();
        machine.flush(&mut effects);
        machine.on_persisted(now, effects.persist[0]);
        Self { machine, now, seqs: alloc::collections::BTreeMap::new() }
    }

    /// Member 1 with these others, each of which has proven itself.
    pub(super) fn among(ids: &[u64]) -> Self {
        let mut bench = Self::new();
        ids.iter().for_each(|id| bench.introduce(*id));
        bench.flush();
        bench
    }

    /// A member joins, proves itself and is known.
    pub(super) fn introduce(&mut self, id: u64) {
        self.flush();
        self.receive(id, life(1), Body::Join, &[alive(id, life(1))]);
        let asked = self.said();
        let [(to, header, Body::AckProve { .. }, _)] = &asked[..] else { panic!("{asked:?}") };
        assert_eq!(*to, address(id));
        self.receive(id, life(1), Body::Ack { echo: header.seq }, &[alive(id, life(1))]);
        // No time passed; a round trip of nothing is no sample.
        self.machine.table.contact(MemberId(id)).unwrap().1.take();
    }

    pub(super) fn seq(&mut self, id: u64) -> u64 {
        let seq = self.seqs.entry(id).or_insert(1000 * id);
        *seq += 1;
        *seq
    }

    pub(super) fn receive(
        &mut self,
        id: u64,
        incarnation: Incarnation,
        body: Body,
        updates: &[Update],
    ) {
        let seq = self.seq(id);
        let bytes = datagram(CLUSTER, id, incarnation, seq, body, updates);
        self.machine.on_datagram(self.now, address(id), &bytes);
        self.machine.check();
    }

    /// News from a member that has proven itself.
    pub(super) fn hear(&mut self, id: u64, updates: &[Update]) {
        self.receive(id, life(1), Body::Gossip, updates);
    }

    pub(super) fn flush(&mut self) -> Effects {
        let mut effects = Effects::default();
        self.machine.flush(&mut effects);
        effects
    }

    pub(super) fn said(&mut self) -> Vec<Said> {
        let datagrams = self.flush().datagrams;
        let said = |(to, bytes): (SocketAddr, Vec<u8>)| {
            let (header, body, updates) = read(&bytes);
            (to, header, body, updates)
        };
        datagrams.into_iter().map(said).collect()
    }

    pub(super) fn events(&mut self) -> Vec<Event> {
        self.flush().events
    }

    /// Lets time pass as far as the next deadline, and acts on it.
    pub(super) fn wake(&mut self) {
        self.now = self.machine.deadline().expect("a running member waits for something");
        self.machine.on_wakeup(self.now);
        self.machine.check();
    }

    /// Acts on every deadline of so long a time. Nobody answers.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.machine.deadline().is_some_and(|at| at <= end) {
            self.wake();
        }
        self.now = end;
    }

    /// Acts on deadlines until a ping goes out; who was asked, and its number.
    pub(super) fn until_ping(&mut self) -> (MemberId, u64) {
        self.flush();
        loop {
            self.wake();
            let ping = self.said().into_iter().find_map(|(_, header, body, _)| match body {
                Body::Ping { to } => Some((member_of(to), header.seq)),
                _ => None,
            });
            if let Some(ping) = ping {
                return ping;
            }
        }
    }

    pub(super) fn state(&self, id: u64) -> Option<State> {
        self.machine.state(MemberId(id))
    }

    pub(super) fn incarnation(&self, id: u64) -> Incarnation {
        self.machine.table.get(MemberId(id)).unwrap().incarnation
    }
}

fn names(events: &[Event]) -> Vec<(&'static str, u64)> {
    let name = |event: &Event| match event {
        Event::Joined(member) => ("joined", member.id.0),
        Event::Suspected(member) => ("suspected", member.id.0),
        Event::Recovered(member) => ("recovered", member.id.0),
        Event::Failed(member) => ("failed", member.id.0),
        Event::Left(member) => ("left", member.id.0),
        Event::Updated { member, restarted: false } => ("updated", member.id.0),
        Event::Updated { member, restarted: true } => ("restarted", member.id.0),
        Event::Refuted { .. } => ("refuted", 0),
        Event::JoinFailed { attempts, .. } => ("join failed", u64::from(*attempts)),
        Event::Departed => ("departed", 0),
        Event::Twin { .. } => ("twin", 0),
        Event::Stalled { .. } => ("stalled", 0),
    };
    events.iter().map(name).collect()
}

#[test]
fn a_member_is_silent_until_its_incarnation_is_durable() {
    let (config, now) = (Config::new(CLUSTER), Instant(5));
    let restored = Incarnation((7 << 40) | 99);
    let mut machine =
        Membership::new(config, MemberId(1), profile(1), restored, Rng::new(1), now).unwrap();
    machine.join(now, &[address(2)]);
    let ping = datagram(CLUSTER, 2, life(1), 1, Body::Ping { to: MemberId(1).into() }, &[]);
    machine.on_datagram(now, address(2), &ping);
    let mut effects = Effects::default();
    machine.flush(&mut effects);
    let first = machine.incarnation();
    assert_eq!(first.0 >> 40, 8, "the next start");
    assert_eq!(effects, Effects { persist: alloc::vec![first], ..Effects::default() });
    assert_eq!(machine.deadline(), None);

    machine.on_persisted(now, Incarnation(first.0 - 1));
    assert_eq!(machine.deadline(), None, "something older is not it");
    machine.on_persisted(now, first);
    machine.flush(&mut effects);
    let [(to, join)] = &effects.datagrams[..] else { panic!("{effects:?}") };
    let (header, body, updates) = read(join);
    assert_eq!((*to, body, updates), (address(2), Body::Join, alloc::vec![alive(1, first)]));
    assert_eq!(header.incarnation, first);
}

/// SWIM 3.1: a ping is answered.
#[test]
fn a_ping_is_answered_with_its_number() {
    let mut bench = Bench::among(&[2]);
    bench.machine.news = News::default();
    let seq = bench.seq(2) + 1;
    bench.receive(2, life(1), Body::Ping { to: MemberId(1).into() }, &[]);
    let said = bench.said();
    let [(to, header, body, updates)] = &said[..] else { panic!("{said:?}") };
    assert_eq!((*to, *body, updates.len()), (address(2), Body::Ack { echo: seq }, 0));
    assert_eq!((header.cluster, header.sender), (CLUSTER, MemberId(1)));
    assert_eq!(header.incarnation, bench.machine.incarnation());
}

/// SWIM 3.1: first direct, then through k others, then a suspicion. Lifeguard: the suspect hears of it at once.
#[test]
fn a_probe_without_an_answer_goes_through_its_steps() {
    let mut bench = Bench::among(&[2, 3, 4, 5, 6]);
    let (target, _) = bench.until_ping();
    let begun = bench.now;

    bench.wake();
    assert_eq!(bench.now.since(begun), millis(300), "the round-trip time is not known");
    let said = bench.said();
    let helpers = said.iter().filter(|(.., body, _)| *body == Body::PingFor { target }).count();
    assert_eq!((helpers, said.len()), (3, 4));
    let (to, _, body, _) = &said[3];
    assert_eq!(
        (*to, *body),
        (address(target.0), Body::Ping { to: target.into() }),
        "once more itself"
    );

    bench.wake();
    assert_eq!(bench.now.since(begun), millis(750));
    let effects = bench.flush();
    assert_eq!(names(&effects.events), [("suspected", target.0)]);
    let [(to, bytes)] = &effects.datagrams[..] else { panic!("{effects:?}") };
    let (_, body, updates) = read(bytes);
    assert_eq!((*to, body), (address(target.0), Body::Ping { to: target.into() }));
    assert_eq!(updates[0], suspect(target.0, life(1), &[1]));
}

#[test]
fn any_answer_ends_a_probe() {
    let mut bench = Bench::among(&[2, 3, 4]);
    let (target, seq) = bench.until_ping();
    bench.receive(target.0, life(1), Body::Ack { echo: seq }, &[]);
    assert_eq!(bench.machine.probe, None);

    // The next: through another.
    let (target, _) = bench.until_ping();
    bench.now = bench.now + millis(320);
    bench.machine.on_wakeup(bench.now);
    let said = bench.said();
    let request = said.iter().find(|(.., body, _)| *body == Body::PingFor { target });
    let (to, header, ..) = request.expect("somebody was asked");
    let helper = u64::from(to.port()) - 7000;
    bench.receive(helper, life(1), Body::Relayed { echo: header.seq }, &[]);
    assert_eq!(bench.machine.probe, None);
}

#[test]
fn an_answer_of_somebody_else_ends_no_probe() {
    let mut bench = Bench::among(&[2, 3]);
    let (target, seq) = bench.until_ping();
    let other = 5 - target.0;
    bench.receive(other, life(1), Body::Ack { echo: seq }, &[]);
    bench.receive(other, life(1), Body::Relayed { echo: seq }, &[]);
    assert!(bench.machine.probe.is_some());
}

#[test]
fn the_direct_wait_follows_the_round_trip_time() {
    let mut bench = Bench::among(&[2]);
    for _ in 0..20 {
        let (_, seq) = bench.until_ping();
        bench.now = bench.now + millis(20);
        bench.receive(2, life(1), Body::Ack { echo: seq }, &[]);
    }
    bench.until_ping();
    let begun = bench.now;
    bench.wake();
    assert_eq!(bench.now.since(begun), millis(50), "the least wait, for 20 ms and no deviation");
}

/// Lifeguard: who pings for another says before the end when there was no answer.
#[test]
fn a_helper_pings_relays_and_says_when_there_was_no_answer() {
    let mut bench = Bench::among(&[2, 3]);
    let asked = bench.seq(2) + 1;
    bench.receive(2, life(1), Body::PingFor { target: MemberId(3) }, &[]);
    let said = bench.said();
    let [(to, ping, Body::Ping { to: whom }, _)] = &said[..] else { panic!("{said:?}") };
    assert_eq!(*whom, MemberId(3).into());
    assert_eq!(*to, address(3));

    bench.pass(millis(400));
    let nacks = bench.said();
    let nacks: Vec<_> = nacks.iter().filter(|(to, ..)| *to == address(2)).collect();
    assert!(nacks.iter().any(|(.., body, _)| *body == Body::Nack { echo: asked }), "{nacks:?}");

    bench.receive(3, life(1), Body::Ack { echo: ping.seq }, &[]);
    let said = bench.said();
    let [(to, _, body, _)] = &said[..] else { panic!("{said:?}") };
    assert_eq!((*to, *body), (address(2), Body::Relayed { echo: asked }), "late is not too late");
}

/// Lifeguard, local health: nobody even said that it had no answer either.
#[test]
fn a_member_that_hears_nothing_becomes_patient_and_recovers() {
    let mut bench = Bench::among(&[2, 3, 4, 5]);
    bench.until_ping();
    bench.pass(millis(760));
    assert_eq!(bench.machine.health(), 3, "three helpers said nothing");
    let begun = bench.now;
    let (target, seq) = bench.until_ping();
    bench.receive(target.0, life(1), Body::Ack { echo: seq }, &[]);
    assert_eq!(bench.machine.health(), 2);
    bench.until_ping();
    assert!(bench.now.since(begun) > secs(3), "periods are stretched");
}

#[test]
fn helpers_that_say_that_there_was_no_answer_leave_health_alone() {
    let mut bench = Bench::among(&[2, 3, 4, 5]);
    let (target, _) = bench.until_ping();
    bench.wake();
    for (to, header, body, _) in bench.said() {
        if body == (Body::PingFor { target }) {
            let helper = u64::from(to.port()) - 7000;
            bench.receive(helper, life(1), Body::Nack { echo: header.seq }, &[]);
            bench.receive(helper, life(1), Body::Nack { echo: header.seq }, &[]);
        }
    }
    bench.wake();
    assert_eq!(bench.state(target.0), Some(State::Suspect));
    assert_eq!(bench.machine.health(), 0);
}

/// SWIM 4.2 and Lifeguard: alone 30 s among five, with three confirmations 5 s.
#[test]
fn a_suspicion_ends_sooner_the_more_share_it() {
    let mut bench = Bench::among(&[2, 3, 4, 5, 6]);
    let table = |bench: &Bench| bench.machine.table.next_end().unwrap().0;
    bench.hear(2, &[suspect(6, life(1), &[2])]);
    let begun = bench.now;
    assert_eq!(table(&bench).since(begun), secs(30));
    bench.hear(2, &[suspect(6, life(1), &[2])]);
    assert_eq!(table(&bench).since(begun), secs(30), "the same one confirms nothing");
    bench.hear(3, &[suspect(6, life(1), &[3])]);
    assert_eq!(table(&bench).since(begun).as_millis().div_ceil(10), 1750, "half way");
    bench.hear(4, &[suspect(6, life(1), &[4, 5])]);
    assert_eq!(table(&bench).since(begun), secs(5));
    assert_eq!(names(&bench.events()), [("suspected", 6)]);
}

#[test]
fn a_refutation_ends_a_suspicion_and_a_silent_suspect_is_buried() {
    let mut bench = Bench::among(&[2, 3]);
    bench.hear(2, &[suspect(3, life(1), &[2])]);
    bench.hear(3, &[alive(3, life(1).next())]);
    assert_eq!(names(&bench.events()), [("suspected", 3), ("recovered", 3)]);
    assert_eq!(bench.machine.table.next_end(), None);

    let version = bench.machine.version();
    bench.hear(2, &[suspect(3, life(1).next(), &[2, 1])]);
    bench.pass(secs(6));
    assert_eq!(bench.state(3), Some(State::Dead));
    assert!(bench.machine.version() > version);
    assert_eq!(bench.machine.present().map(|member| member.id.0).collect::<Vec<_>>(), [1, 2]);
}

/// SWIM 4.2: of two things said the one with the greater incarnation holds; of one incarnation the graver.
#[test]
fn the_order_in_which_news_comes_does_not_matter() {
    let one = life(1);
    let news = [alive(9, one), suspect(9, one, &[2]), dead(9, one.next()), alive(9, one.next())];
    let mut outcomes = alloc::collections::BTreeSet::new();
    for first in 0..4 {
        for second in 0..4 {
            for third in 0..4 {
                let mut order: Vec<usize> = alloc::vec![first, second, third];
                order.extend((0..4).filter(|place| ![first, second, third].contains(place)));
                let mut bench = Bench::among(&[2]);
                order.iter().for_each(|place| bench.hear(2, &[news[*place].clone()]));
                outcomes.insert((bench.incarnation(9), bench.state(9)));
            }
        }
    }
    assert_eq!(outcomes.len(), 1, "{outcomes:?}");
    assert!(outcomes.contains(&(one.next(), Some(State::Dead))));
}

#[test]
fn an_accused_member_refutes_with_a_greater_incarnation() {
    let mut bench = Bench::among(&[2]);
    let mine = bench.machine.incarnation();
    bench.hear(2, &[suspect(1, mine, &[2])]);
    assert_eq!(bench.machine.incarnation(), mine.next());
    let effects = bench.flush();
    assert_eq!(effects.events, [Event::Refuted { incarnation: mine.next() }]);
    assert_eq!(effects.persist, [], "a restart begins above the whole life");
    assert_eq!(bench.machine.health(), 1, "it may have been slow");

    bench.receive(2, life(1), Body::Ping { to: MemberId(1).into() }, &[dead(1, mine)]);
    let said = bench.said();
    assert!(said[0].3.contains(&alive(1, mine.next())), "who accuses hears it: {said:?}");
    assert_eq!(bench.machine.incarnation(), mine.next(), "an old accusation needs no refutation");
}

/// A member whose disk was put back hears of its own later life.
#[test]
fn above_a_later_life_nothing_is_said_before_it_is_durable() {
    let mut bench = Bench::among(&[2]);
    let mine = bench.machine.incarnation();
    bench.hear(2, &[alive(1, life(9))]);
    let effects = bench.flush();
    let [next] = effects.persist[..] else { panic!("{effects:?}") };
    assert_eq!(next.0 >> 40, 10);
    assert_eq!(effects.events, [Event::Twin { address: None }]);
    assert_eq!(bench.machine.incarnation(), mine, "not yet");

    bench.machine.on_persisted(bench.now, next);
    assert_eq!(bench.machine.incarnation(), next);
    assert_eq!(bench.events(), [Event::Refuted { incarnation: next }]);
}

/// Lifeguard, buddy notice: the accused hears of it from whoever talks to it.
#[test]
fn a_suspect_is_told_whenever_it_is_talked_to() {
    let mut bench = Bench::among(&[2, 3]);
    bench.hear(2, &[suspect(3, life(1), &[2])]);
    bench.machine.news = News::default();
    for _ in 0..50 {
        bench.receive(3, life(1), Body::Ping { to: MemberId(1).into() }, &[]);
        let said = bench.said();
        assert_eq!(said[0].3, [suspect(3, life(1), &[2])]);
    }
}

/// SWIM 4.1: an update is told a bounded number of times.
#[test]
fn news_is_told_so_often_and_no_more() {
    let mut bench = Bench::among(&[2, 3]);
    bench.machine.news = News::default();
    bench.hear(2, &[dead(9, life(4))]);
    bench.flush();
    let mut told = 0;
    for _ in 0..50 {
        bench.receive(2, life(1), Body::Ping { to: MemberId(1).into() }, &[]);
        let said = bench.said();
        told += said[0].3.iter().filter(|update| **update == dead(9, life(4))).count();
    }
    assert_eq!(told, 3 * 2, "3 * ceil(log2(4))");
}

#[test]
fn a_datagram_is_never_longer_than_its_bound() {
    let mut bench = Bench::among(&[2]);
    for id in 10..200 {
        let mut long = profile(id);
        long.tags = (10..30).map(|tag| (format!("{tag}"), format!("value {tag}"))).collect();
        let incarnation = life(1);
        let update = Update::Alive { member: MemberId(id), incarnation, profile: long };
        bench.hear(2, &[update]);
    }
    bench.flush();
    bench.receive(2, life(1), Body::Ping { to: MemberId(1).into() }, &[]);
    let effects = bench.flush();
    let (_, bytes) = &effects.datagrams[0];
    assert!(bytes.len() <= 1400 - AUTHENTICATION_BYTES && bytes.len() > 900, "{}", bytes.len());
}

#[test]
fn what_a_member_says_of_itself_can_change() {
    let mut bench = Bench::among(&[2]);
    let (mine, version) = (bench.machine.incarnation(), bench.machine.version());
    let ring = bench.machine.ring_hash();
    let heavier = Profile { weight: 200, ..profile(1) };
    bench.machine.update_profile(bench.now, heavier.clone()).unwrap();
    assert_eq!(bench.machine.incarnation(), mine.next());
    assert_ne!((bench.machine.version(), bench.machine.ring_hash()), (version, ring));
    assert_eq!(bench.machine.member(MemberId(1)).unwrap().profile, heavier);

    let nowhere = Profile { datagram: "0.0.0.0:7000".parse().unwrap(), ..profile(1) };
    let refused = bench.machine.update_profile(bench.now, nowhere);
    assert!(matches!(refused, Err(ProfileError::Address { field: "datagram", .. })));
    assert_eq!(bench.machine.incarnation(), mine.next(), "nothing was changed");
}

/// A departure before the first word, and a return: still nothing is said before it is durable.
#[test]
fn a_member_that_left_before_its_first_word_waits_when_it_comes_back() {
    let (config, now) = (Config::new(CLUSTER), Instant(5));
    let (restored, rng) = (Incarnation::default(), Rng::new(1));
    let mut machine = Membership::new(config, MemberId(1), profile(1), restored, rng, now).unwrap();
    machine.leave(now);
    machine.join(now, &[address(2)]);
    let first = machine.incarnation();
    let mut effects = Effects::default();
    machine.flush(&mut effects);
    let (persist, events) = (alloc::vec![first], alloc::vec![Event::Departed]);
    assert_eq!(effects, Effects { persist, events, ..Effects::default() });

    machine.on_persisted(now, first);
    machine.flush(&mut effects);
    assert_eq!((effects.datagrams.len(), machine.incarnation()), (1, first));
}

#[test]
fn others_hear_of_changes_and_of_restarts() {
    let mut bench = Bench::among(&[2]);
    let moved = Profile { datagram: address(77), ..profile(2) };
    let (member, incarnation) = (MemberId(2), life(1).next());
    bench.hear(2, &[Update::Alive { member, incarnation, profile: moved }]);
    bench.hear(2, &[alive(2, life(2))]);
    assert_eq!(names(&bench.events()), [("updated", 2), ("restarted", 2)]);
}

#[test]
fn a_departure_is_told_and_ends_in_silence() {
    let mut bench = Bench::among(&[2, 3, 4]);
    let mine = bench.machine.incarnation();
    bench.machine.leave(bench.now);
    let said = bench.said();
    assert!(!said.is_empty(), "at once");
    for (_, _, body, updates) in &said {
        assert_eq!((*body, &updates[0]), (Body::Gossip, &left(1, mine)));
    }
    bench.hear(2, &[suspect(1, mine, &[2])]);
    assert_eq!(bench.machine.incarnation(), mine, "nothing to refute any more");
    bench.pass(secs(6));
    assert_eq!(names(&bench.events()), [("departed", 0)]);
    bench.receive(2, life(1), Body::Ping { to: MemberId(1).into() }, &[]);
    assert_eq!((bench.flush(), bench.machine.deadline()), (Effects::default(), None));
}

#[test]
fn who_left_is_not_thought_dead_and_not_brought_back() {
    let mut bench = Bench::among(&[2, 3]);
    bench.hear(3, &[left(3, life(1))]);
    bench.hear(2, &[dead(3, life(1)), suspect(3, life(1), &[2]), alive(3, life(1))]);
    assert_eq!(names(&bench.events()), [("left", 3)]);
    assert_eq!(bench.state(3), Some(State::Left));
    bench.hear(2, &[alive(3, life(2))]);
    assert_eq!(names(&bench.events()), [("joined", 3)], "a later life");
}

#[test]
fn equal_views_cost_one_hash_and_different_ones_only_what_differs() {
    let mut bench = Bench::among(&[2, 3, 4]);
    let hash = bench.machine.digest();
    bench.machine.on_sync(bench.now, MemberId(2), SyncMessage::Digest { hash });
    assert_eq!(bench.flush().syncs, []);

    bench.machine.on_sync(bench.now, MemberId(2), SyncMessage::Digest { hash: hash ^ 1 });
    let hashes = bench.machine.table.buckets().to_vec();
    let buckets = SyncMessage::Buckets { hashes: hashes.clone() };
    assert_eq!(bench.flush().syncs, [(MemberId(2), buckets)]);

    let part = crate::membership::table::bucket_of(MemberId(3));
    let mut others = hashes;
    others[part] ^= 1;
    bench.machine.on_sync(bench.now, MemberId(2), SyncMessage::Buckets { hashes: others });
    let syncs = bench.flush().syncs;
    let [(_, SyncMessage::Records { updates, wanted })] = &syncs[..] else { panic!("{syncs:?}") };
    assert!(updates.contains(&alive(3, life(1))) && updates.len() < 4);
    assert_eq!(*wanted, [u8::try_from(part).unwrap()]);

    let (updates, wanted) = (alloc::vec![alive(8, life(1))], wanted.clone());
    bench.machine.on_sync(bench.now, MemberId(2), SyncMessage::Records { updates, wanted });
    let effects = bench.flush();
    assert_eq!(names(&effects.events), [("joined", 8)]);
    let [(_, SyncMessage::Records { wanted, .. })] = &effects.syncs[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(*wanted, [], "it ends here");
}

/// A death told in a comparison is a suspicion: the accused is heard first.
#[test]
fn a_comparison_buries_nobody_at_once() {
    let mut bench = Bench::among(&[2, 3]);
    let updates = alloc::vec![dead(3, life(1)), dead(9, life(1))];
    let records = SyncMessage::Records { updates, wanted: Vec::new() };
    bench.machine.on_sync(bench.now, MemberId(2), records);
    assert_eq!(bench.state(3), Some(State::Suspect));
    assert_eq!(bench.state(9), Some(State::Dead), "of whom nothing else is known");
}

#[test]
fn the_dead_are_probed_and_forgotten_in_time() {
    let mut bench = Bench::among(&[2, 3]);
    bench.hear(2, &[dead(3, life(1))]);
    bench.flush();
    let mut tries = 0;
    for _ in 0..40 {
        let (to, _) = bench.until_ping();
        if to == MemberId(3) {
            tries += 1;
        }
    }
    assert!(tries > 0, "now and then");
    bench.pass(secs(3700));
    assert_eq!(bench.state(3), None);
}

#[test]
fn memory_is_bounded() {
    let config = Config { members_max: 10, dead_max: 10, ..Config::new(CLUSTER) };
    let mut bench = Bench::with(config);
    bench.introduce(2);
    for id in 100..200 {
        bench.hear(
            2,
            &[alive(id, life(1)), dead(id + 1000, life(1)), suspect(id + 2000, life(1), &[2])],
        );
    }
    assert_eq!((bench.machine.table.known(), bench.machine.table.gone()), (10, 10));
    assert!(bench.machine.counters().full > 0);
}

/// News that comes while it leaves does not take its own place.
#[test]
fn a_member_that_comes_back_finds_room_for_itself() {
    let mut bench = Bench::with(Config { members_max: 3, ..Config::new(CLUSTER) });
    bench.introduce(2);
    bench.machine.leave(bench.now);
    bench.hear(2, &[alive(100, life(1)), alive(101, life(1)), alive(102, life(1))]);
    bench.pass(secs(6));
    bench.machine.join(bench.now, &[]);
    bench.machine.check();
    assert_eq!((bench.machine.present_len(), bench.machine.counters().full), (3, 2));
}

#[test]
fn seeds_are_asked_again_and_again_with_growing_pauses() {
    let mut bench = Bench::new();
    bench.machine.join(bench.now, &[address(9)]);
    let mut asked = Vec::new();
    let begun = bench.now;
    for _ in 0..400 {
        let joins = bench.said().into_iter().filter(|(.., body, _)| *body == Body::Join).count();
        asked.extend((0..joins).map(|_| bench.now.since(begun).as_secs()));
        bench.wake();
    }
    let pauses: Vec<u64> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses[0] <= 2 && pauses[3] >= 7 && pauses[3] <= 11, "{pauses:?}");
    assert!(pauses[7..].iter().all(|pause| (29..=38).contains(pause)), "{pauses:?}");
}

#[test]
fn a_seed_says_why_it_does_not_let_a_member_in() {
    let mut bench = Bench::new();
    bench.machine.join(bench.now, &[address(5), address(6), address(7), address(8), address(1)]);
    let joins = bench.flush().datagrams;
    assert_eq!(joins.len(), 4, "its own address is not asked");
    let other = datagram(ClusterId(5), 5, life(1), 1, Body::Foreign, &[]);
    bench.machine.on_datagram(bench.now, address(5), &other);
    let mut version = datagram(CLUSTER, 6, life(1), 1, Body::Foreign, &[]);
    version[32] = VERSION + 1;
    bench.machine.on_datagram(bench.now, address(6), &version);
    bench.machine.on_datagram(bench.now, address(7), b"HTTP/1.1 400 Bad Request");
    // Through another name this member met itself.
    let own = joins.iter().find(|(to, _)| *to == address(8)).unwrap().1.clone();
    bench.machine.on_datagram(bench.now, address(1), &own);

    bench.pass(secs(2));
    let failures = bench.events().into_iter().filter_map(|event| match event {
        Event::JoinFailed { address, why, .. } => Some((address, why)),
        _ => None,
    });
    let failures: Vec<_> = failures.collect();
    let expected = [
        (address(8), JoinFailure::Own),
        (address(5), JoinFailure::OtherCluster(ClusterId(5))),
        (address(6), JoinFailure::OtherVersion),
        (address(7), JoinFailure::Garbage),
    ];
    assert!(expected.iter().all(|failure| failures.contains(failure)), "{failures:?}");
    assert_eq!(failures.iter().filter(|(at, _)| *at == address(8)).count(), 1, "not asked again");
}

#[test]
fn a_member_that_is_alone_again_asks_its_seeds() {
    let mut bench = Bench::new();
    bench.machine.join(bench.now, &[address(2)]);
    let join = bench.said().remove(0).1.seq;
    bench.receive(2, life(1), Body::AckProve { echo: join }, &[alive(2, life(1))]);
    assert_eq!(bench.flush().syncs.len(), 1, "it wants to know everybody");
    bench.pass(secs(1));
    assert!(bench.said().iter().all(|(.., body, _)| *body != Body::Join), "it is in");
    bench.hear(2, &[dead(2, life(1))]);
    bench.pass(secs(2));
    assert!(bench.said().iter().any(|(.., body, _)| *body == Body::Join));
}

/// Tests use few and small ids.
fn member_of(whom: Whom) -> MemberId {
    (0..1000).map(MemberId).find(|&id| Whom::from(id) == whom).expect("a small id")
}
