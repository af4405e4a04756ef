//! Any bytes and any order of inputs: no panic, every bound and invariant holds, no incarnation falls.

use alloc::vec;
use proptest::prelude::*;

use super::rules::datagram;
use super::*;
use crate::membership::wire::{Body, SyncMessage, Update};
use crate::rng::Rng;

#[derive(Clone, Debug)]
enum Act {
    Bytes(Vec<u8>),
    Datagram {
        sender: u64,
        incarnation: Incarnation,
        seq: u64,
        body: Body,
        updates: Vec<Update>,
    },
    /// Answers what was asked last, so that a proof comes about.
    Answer {
        sender: u64,
        incarnation: Incarnation,
        back: usize,
    },
    Sync(u64, SyncMessage),
    Wait(u64),
    Wake,
    Persisted(u64),
    Join(u64),
    Leave,
    Rename(u32),
}

fn id() -> impl Strategy<Value = u64> {
    prop_oneof![1..6_u64, any::<u64>()]
}

fn incarnation() -> impl Strategy<Value = Incarnation> {
    let near = (0..3_u64, 0..3_u64).prop_map(|(start, statement)| (start << 40) + statement);
    prop_oneof![4 => near, 1 => any::<u64>(), 1 => Just(u64::MAX)].prop_map(Incarnation)
}

fn update() -> impl Strategy<Value = Update> {
    let accusers = proptest::collection::vec(id(), 1..=8);
    (id(), incarnation(), accusers, 0..4, 0..3_u32).prop_map(
        |(id, incarnation, accusers, kind, weight)| {
            let member = MemberId(id);
            let accusers = accusers.into_iter().map(MemberId).collect();
            let profile = Profile { weight, ..profile(id) };
            match kind {
                0 => Update::Alive { member, incarnation, profile },
                1 => Update::Suspect { member, incarnation, accusers },
                2 => Update::Dead { member, incarnation },
                _ => Update::Left { member, incarnation },
            }
        },
    )
}

fn body() -> impl Strategy<Value = Body> {
    (0..10, id(), any::<u64>()).prop_map(|(kind, id, echo)| match kind {
        0 => Body::Ping { to: MemberId(id).into() },
        1 => Body::Ack { echo },
        2 => Body::AckProve { echo },
        3 => Body::PingFor { target: MemberId(id) },
        4 => Body::Relayed { echo },
        5 => Body::Nack { echo },
        6 => Body::Join,
        7 => Body::Foreign,
        8 => Body::Gossip,
        _ => Body::Pull { member: MemberId(id) },
    })
}

fn act() -> impl Strategy<Value = Act> {
    let updates = || proptest::collection::vec(update(), 0..6);
    prop_oneof![
        2 => proptest::collection::vec(any::<u8>(), 0..1500).prop_map(Act::Bytes),
        8 => (id(), incarnation(), any::<u64>(), body(), updates()).prop_map(
            |(sender, incarnation, seq, body, updates)| {
                Act::Datagram { sender, incarnation, seq, body, updates }
            }
        ),
        8 => (id(), incarnation(), 0..4_usize).prop_map(|(sender, incarnation, back)| {
            Act::Answer { sender, incarnation, back }
        }),
        4 => (id(), updates(), proptest::collection::vec(0..70_u8, 0..4)).prop_map(
            |(id, updates, wanted)| Act::Sync(id, SyncMessage::Records { updates, wanted })
        ),
        1 => (id(), any::<u64>()).prop_map(|(id, hash)| Act::Sync(id, SyncMessage::Digest { hash })),
        1 => (id(), proptest::collection::vec(any::<u64>(), 63..=64))
            .prop_map(|(id, hashes)| Act::Sync(id, SyncMessage::Buckets { hashes })),
        4 => prop_oneof![0..2_000_u64, Just(100_000_000), any::<u64>()].prop_map(Act::Wait),
        12 => Just(Act::Wake),
        3 => any::<u64>().prop_map(Act::Persisted),
        2 => (0..80_u64).prop_map(Act::Join),
        1 => Just(Act::Leave),
        1 => any::<u32>().prop_map(Act::Rename),
    ]
}

struct Victim {
    machine: Membership,
    now: Instant,
    asked: Vec<u64>,
    persist: Option<Incarnation>,
    seq: u64,
}

impl Victim {
    fn act(&mut self, act: Act) {
        let now = self.now;
        let machine = &mut self.machine;
        match act {
            Act::Bytes(bytes) => machine.on_datagram(now, address(2), &bytes),
            Act::Datagram { sender, incarnation, seq, body, updates } => {
                let bytes = datagram(CLUSTER, sender, incarnation, seq, body, &updates);
                machine.on_datagram(now, address(sender), &bytes);
            }
            Act::Answer { sender, incarnation, back } => {
                let place = self.asked.len().saturating_sub(1 + back);
                let echo = self.asked.get(place).copied().unwrap_or(0);
                self.seq += 1;
                let profile = profile(sender);
                let said = Update::Alive { member: MemberId(sender), incarnation, profile };
                let body = Body::Ack { echo };
                let bytes = datagram(CLUSTER, sender, incarnation, self.seq, body, &[said]);
                machine.on_datagram(now, address(sender), &bytes);
            }
            Act::Sync(from, message) => machine.on_sync(now, MemberId(from), message),
            Act::Wait(millis) => self.now = now + Duration::from_millis(millis),
            Act::Wake => {
                self.now = now.max(machine.deadline().unwrap_or(now));
                machine.on_wakeup(self.now);
            }
            Act::Persisted(other) => {
                let durable = self.persist.take().unwrap_or(Incarnation(other));
                machine.on_persisted(now, durable);
            }
            Act::Join(id) => machine.join(now, &[address(id)]),
            Act::Leave => machine.leave(now),
            Act::Rename(weight) => {
                machine.update_profile(now, Profile { weight, ..profile(1) }).unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn nothing_that_comes_breaks_it(seed: u64, acts in proptest::collection::vec(act(), 1..80)) {
        let config = Config { members_max: 6, dead_max: 4, ..Config::new(CLUSTER) };
        let (me, restored) = (MemberId(1), Incarnation::default());
        let (now, rng) = (Instant(1_000_000_000), Rng::new(seed));
        let machine = Membership::new(config, me, profile(1), restored, rng, now).unwrap();
        let mut victim = Victim { machine, now, asked: Vec::new(), persist: None, seq: 0 };
        let mut incarnation = victim.machine.incarnation();
        let mut present = alloc::collections::BTreeSet::new();
        for act in acts {
            victim.act(act);
            victim.machine.check();
            let mut effects = Effects::default();
            victim.machine.flush(&mut effects);
            prop_assert!(victim.machine.incarnation() >= incarnation);
            incarnation = victim.machine.incarnation();
            for (_, bytes) in &effects.datagrams {
                prop_assert!(bytes.len() <= 1360);
                victim.asked.push(u64::from_le_bytes(bytes[16..24].try_into().unwrap()));
            }
            victim.persist = effects.persist.last().copied().or(victim.persist);
            for event in &effects.events {
                match event {
                    Event::Joined(member) => prop_assert!(present.insert(member.id), "{event:?}"),
                    Event::Failed(member) | Event::Left(member) => {
                        prop_assert!(present.remove(&member.id), "{event:?}");
                    }
                    Event::Suspected(member) | Event::Recovered(member) => {
                        prop_assert!(present.contains(&member.id), "{event:?}");
                    }
                    _ => {}
                }
            }
            let others = victim.machine.present().filter(|member| member.id != me);
            prop_assert_eq!(others.map(|member| member.id).collect::<Vec<_>>(),
                present.iter().copied().collect::<Vec<_>>(), "events tell the whole view");
        }
    }
}
