//! A failure detector that hears anything: bytes, well-formed datagrams of members and strangers, comparisons.
//!
//! - No panic, every invariant holds after each input (`Membership::check`).
//! - Its incarnation never falls, and nothing leaves before the first one is durable.
//! - What it sends is bounded: each datagram in bytes, and their number for each input.
//! - Its events tell its view: who is present is who joined and has neither failed nor left.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use ring_core::ids::{ClusterId, MemberId};
use ring_core::membership::{
    AUTHENTICATION_BYTES, Config, Effects, Event, Incarnation, Membership, Profile, SyncMessage,
    Update,
};
use ring_core::rng::Rng;
use ring_core::time::Instant;
use serde::Serialize;

/// See the [module](self).
pub fn run(data: &[u8]) {
    // Too few bytes end the play.
    let _ = try_run(&mut Unstructured::new(data));
}

fn try_run(u: &mut Unstructured<'_>) -> Result<()> {
    let mut play = Play::new(u)?;
    while !u.is_empty() {
        play.step(u)?;
        play.look();
    }
    Ok(())
}

/// The bodies of datagrams, as they are on the wire.
#[derive(Serialize)]
enum Body {
    Ping { to: [u8; 4] },
    Ack { echo: u64 },
    AckProve { echo: u64 },
    PingFor { target: MemberId },
    Relayed { echo: u64 },
    Nack { echo: u64 },
    Join,
    Foreign,
    Gossip,
    Pull { member: MemberId },
}

struct Play {
    machine: Membership,
    config: Config,
    now: Instant,
    incarnation: Incarnation,
    persist: Option<Incarnation>,
    speaks: bool,
    /// Numbers of datagrams that went out, the latest last.
    asked: Vec<u64>,
    seq: u64,
    present: BTreeSet<MemberId>,
}

const CLUSTER: ClusterId = ClusterId(7);
const ME: MemberId = MemberId(1);
const VERSION: u8 = 1;
/// Datagrams and messages that one input may make: a step of a probe, each seed, each request of others; and parts
/// of a view.
const OUTPUTS_MAX: usize = 16_384;

impl Play {
    fn new(u: &mut Unstructured<'_>) -> Result<Self> {
        let bounds = if u.arbitrary()? { (6, 4) } else { (4096, 1024) };
        let config = Config { members_max: bounds.0, dead_max: bounds.1, ..Config::new(CLUSTER) };
        let now = Instant(1_000_000_000);
        let (restored, rng) = (Incarnation(u.arbitrary::<u64>()? >> 1), Rng::new(u.arbitrary()?));
        let machine = Membership::new(config.clone(), ME, profile(1, 0), restored, rng, now);
        let machine = machine.expect("an honest start");
        let incarnation = machine.incarnation();
        assert!(incarnation > restored, "each start is above the last");
        let mut play = Self {
            machine,
            config,
            now,
            incarnation,
            persist: None,
            speaks: false,
            asked: Vec::new(),
            seq: 0,
            present: BTreeSet::new(),
        };
        play.look();
        if u.ratio(7, 8)? {
            play.persisted();
            play.look();
        }
        Ok(play)
    }

    fn persisted(&mut self) {
        if let Some(durable) = self.persist.take() {
            self.speaks = true;
            self.machine.on_persisted(self.now, durable);
        }
    }

    fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let now = self.now;
        match u.int_in_range(0..=15)? {
            0 => {
                let len = usize::from(u.arbitrary::<u16>()? % 1500).min(u.len());
                let bytes = u.bytes(len)?;
                self.machine.on_datagram(now, address(u.int_in_range(0..=5)?), bytes);
            }
            1 => {
                // A well-formed start, then anything.
                let mut bytes = self.datagram(u)?;
                let len = usize::from(u.arbitrary::<u8>()?).min(u.len());
                bytes.extend_from_slice(u.bytes(len)?);
                self.machine.on_datagram(now, address(u.int_in_range(0..=5)?), &bytes);
            }
            2..=5 => {
                let bytes = self.datagram(u)?;
                self.machine.on_datagram(now, address(u.int_in_range(0..=5)?), &bytes);
            }
            6..=8 => self.answer(u)?,
            9 | 10 => {
                let from = MemberId(id(u)?);
                let message = sync(u)?;
                self.machine.on_sync(now, from, message);
            }
            11 => {
                let millis =
                    if u.ratio(1, 16)? { u.arbitrary()? } else { u.arbitrary::<u16>()?.into() };
                self.now = now + Duration::from_millis(millis);
            }
            12 | 13 => {
                self.now = now.max(self.machine.deadline().unwrap_or(now));
                self.machine.on_wakeup(self.now);
            }
            14 => self.persisted(),
            _ => match u.int_in_range(0..=2)? {
                0 => self.machine.join(now, &[address(u.int_in_range(0..=80)?)]),
                1 => self.machine.leave(now),
                _ => {
                    let said = profile(1, u.arbitrary()?);
                    self.machine.update_profile(now, said).expect("an honest profile");
                }
            },
        }
        Ok(())
    }

    /// One that answers what was asked last, and so proves that it speaks now.
    fn answer(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let back = u.int_in_range(0..=3usize)?;
        let place = self.asked.len().checked_sub(1 + back);
        let echo = place.map_or(0, |place| self.asked[place]);
        let sender = u.int_in_range(2..=6)?;
        let incarnation = incarnation(u)?;
        let body = if u.arbitrary()? { Body::Ack { echo } } else { Body::AckProve { echo } };
        let mut updates = vec![Update::Alive {
            member: MemberId(sender),
            incarnation,
            profile: profile(sender, 0),
        }];
        updates.extend(list(u)?);
        self.seq += 1;
        let bytes = encode(CLUSTER, sender, incarnation, self.seq, VERSION, &body, &updates);
        self.machine.on_datagram(self.now, address(sender), &bytes);
        Ok(())
    }

    fn datagram(&mut self, u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        let cluster = if u.ratio(1, 32)? { ClusterId(u.arbitrary()?) } else { CLUSTER };
        let version = if u.ratio(1, 32)? { u.arbitrary()? } else { VERSION };
        let sender = id(u)?;
        let incarnation = incarnation(u)?;
        self.seq += 1;
        let seq = if u.ratio(1, 8)? { u.arbitrary()? } else { self.seq };
        let place = self.asked.len().checked_sub(1 + u.int_in_range(0..=3usize)?);
        let echo = place.map_or(0, |place| self.asked[place]);
        let member = MemberId(id(u)?);
        let body = match u.int_in_range(0..=10)? {
            0 => Body::Ping { to: whom(ME) },
            1 => Body::Ping { to: whom(member) },
            2 => Body::Ack { echo },
            3 => Body::AckProve { echo },
            4 => Body::PingFor { target: member },
            5 => Body::Relayed { echo },
            6 => Body::Nack { echo },
            7 => Body::Join,
            8 => Body::Foreign,
            9 => Body::Gossip,
            _ => Body::Pull { member },
        };
        Ok(encode(cluster, sender, incarnation, seq, version, &body, &list(u)?))
    }

    /// What came of it.
    fn look(&mut self) {
        self.machine.check();
        let mut effects = Effects::default();
        self.machine.flush(&mut effects);
        let incarnation = self.machine.incarnation();
        assert!(incarnation >= self.incarnation, "an incarnation fell");
        self.incarnation = incarnation;
        let silent = effects.datagrams.is_empty() && effects.syncs.is_empty();
        assert!(self.speaks || silent, "nothing leaves before the first incarnation is durable");
        assert!(
            effects.datagrams.len() + effects.syncs.len() <= OUTPUTS_MAX,
            "outputs are bounded"
        );
        for (to, bytes) in &effects.datagrams {
            assert!(to.port() != 0, "nobody can be reached there");
            assert!(bytes.len() + AUTHENTICATION_BYTES <= self.config.datagram_bytes, "too long");
            let seq = bytes[24..32].try_into().expect("a datagram has a header");
            self.asked.push(u64::from_le_bytes(seq));
        }
        self.asked.drain(..self.asked.len().saturating_sub(8));
        self.persist = effects.persist.iter().copied().chain(self.persist).max();
        for event in &effects.events {
            match event {
                Event::Joined(member) => assert!(self.present.insert(member.id), "{event:?}"),
                Event::Failed(member) | Event::Left(member) => {
                    assert!(self.present.remove(&member.id), "{event:?}");
                }
                Event::Suspected(member)
                | Event::Recovered(member)
                | Event::Updated { member, .. } => {
                    assert!(self.present.contains(&member.id), "{event:?}");
                }
                Event::Refuted { .. }
                | Event::JoinFailed { .. }
                | Event::Departed
                | Event::Twin { .. }
                | Event::Stalled { .. } => {}
            }
        }
        let others = self.machine.present().map(|member| member.id).filter(|id| *id != ME);
        assert!(others.eq(self.present.iter().copied()), "events tell the whole view");
    }
}

fn encode(
    cluster: ClusterId,
    sender: u64,
    incarnation: Incarnation,
    seq: u64,
    version: u8,
    body: &Body,
    updates: &[Update],
) -> Vec<u8> {
    let numbers = [cluster.0, sender, incarnation.0, seq].map(u64::to_le_bytes);
    let mut bytes = numbers.concat();
    bytes.push(version);
    bytes.extend(postcard::to_allocvec(body).expect("a body always encodes"));
    for update in updates {
        bytes.extend(postcard::to_allocvec(update).expect("an update always encodes"));
    }
    bytes
}

fn sync(u: &mut Unstructured<'_>) -> Result<SyncMessage> {
    Ok(match u.int_in_range(0..=5)? {
        0 => SyncMessage::Digest { hash: u.arbitrary()? },
        1 => {
            let count = if u.ratio(7, 8)? { 64 } else { u.int_in_range(0..=64)? };
            let hash = u.arbitrary()?;
            SyncMessage::Buckets { hashes: vec![hash; count] }
        }
        _ => {
            let parts = u.int_in_range(0..=4)?;
            let wanted = (0..parts).map(|_| u.int_in_range(0..=70u8)).collect::<Result<_>>()?;
            SyncMessage::Records { updates: list(u)?, wanted }
        }
    })
}

fn list(u: &mut Unstructured<'_>) -> Result<Vec<Update>> {
    let count = u.int_in_range(0..=6)?;
    (0..count).map(|_| update(u)).collect()
}

fn update(u: &mut Unstructured<'_>) -> Result<Update> {
    let number = id(u)?;
    let (member, incarnation) = (MemberId(number), incarnation(u)?);
    Ok(match u.int_in_range(0..=4)? {
        0 | 1 => {
            let mut said = profile(number, u.arbitrary::<u8>()?.into());
            match u.int_in_range(0..=15)? {
                0 => said.datagram = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7000)),
                1 => said.stream.set_port(0),
                2 => said.name = "x".repeat(u.int_in_range(0..=600)?),
                3 => said.tags.push((String::new(), "x".repeat(u.int_in_range(0..=600)?))),
                4 => said.tags = (0..u.int_in_range(0..=40u8)?).map(tag).collect(),
                _ => {}
            }
            Update::Alive { member, incarnation, profile: said }
        }
        2 => {
            let count = u.int_in_range(0..=9)?;
            let accusers = (0..count).map(|_| Ok(MemberId(id(u)?))).collect::<Result<_>>()?;
            Update::Suspect { member, incarnation, accusers }
        }
        3 => Update::Dead { member, incarnation },
        _ => Update::Left { member, incarnation },
    })
}

fn tag(number: u8) -> (String, String) {
    (format!("{number:02}"), String::from("value"))
}

fn id(u: &mut Unstructured<'_>) -> Result<u64> {
    if u.ratio(1, 16)? { u.arbitrary() } else { u.int_in_range(1..=6) }
}

/// Starts and statements near each other, sometimes anything.
fn incarnation(u: &mut Unstructured<'_>) -> Result<Incarnation> {
    Ok(Incarnation(match u.int_in_range(0..=15)? {
        0 => u.arbitrary()?,
        1 => u64::MAX - u.int_in_range(0..=1)?,
        _ => (u.int_in_range(0..=2)? << 40) + u.int_in_range(0..=3)?,
    }))
}

fn address(member: u64) -> SocketAddr {
    let port = 7000 + u16::try_from(member % 50_000).expect("a small number");
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn profile(member: u64, weight: u32) -> Profile {
    Profile {
        name: format!("member-{member}"),
        datagram: address(member),
        stream: address(member),
        weight,
        tags: Vec::new(),
    }
}

/// The last 32 bits of an id.
fn whom(member: MemberId) -> [u8; 4] {
    let [a, b, c, d, ..] = member.0.to_le_bytes();
    [a, b, c, d]
}
