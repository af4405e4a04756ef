//! Arbitrary messages on connections that a member accepted or dialled and that nobody has vouched for.
//!
//! - Nothing that a stranger says makes the member panic.
//! - Nobody is believed to be a member of the cluster who is not: a connection is up only after an honest handshake.

use arbitrary::{Result, Unstructured};
use ring_core::ids::{Boot, ClusterId, MemberId};
use ring_core::wire::message::{Hello, Identity, Message, Refusal, Welcome};
use ring_core::{Input, wire::Decoder};

use crate::world::Lone;

/// See the [module](self).
pub fn run(data: &[u8]) {
    // Too few bytes end the play.
    let _ = try_run(&mut Unstructured::new(data));
}

fn try_run(u: &mut Unstructured<'_>) -> Result<()> {
    let mut lone = if u.arbitrary()? { Lone::founded() } else { Lone::new() };
    lone.pass(std::time::Duration::from_millis(1));
    while !u.is_empty() && lone.halt.is_none() {
        match u.int_in_range(0..=9)? {
            0 => drop(lone.accept()),
            1 => drop(lone.answer_dial()),
            2 if !lone.conns.is_empty() => lone.drop_conn(u.choose_index(lone.conns.len())?),
            3 => lone.pass(std::time::Duration::from_millis(u64::from(u.arbitrary::<u16>()?))),
            4 => lone.store(1),
            5 => lone.restart(),
            kind => {
                let Some(place) = lone.conns.len().checked_sub(1) else { continue };
                let conn = lone.conns[u.int_in_range(0..=place)?].0;
                let message = match kind {
                    6 => raw(u)?,
                    7 => Some(Message::Hello(Box::new(hello(u, &mut lone)?))),
                    8 => Some(Message::Welcome(Box::new(welcome(u, &mut lone)?))),
                    _ => Some(Message::Refuse(refusal(u)?)),
                };
                if let Some(message) = message {
                    lone.input(Input::Message { conn, message });
                }
            }
        }
        let connected = lone.node.view().status(lone.now.instant).connected;
        // Who would join may talk, once there is a cluster to join.
        let founded = lone.node.view().genesis().is_some();
        let known = |member: &MemberId| {
            [MemberId(1), MemberId(3)].contains(member) || (founded && member.is_joiner())
        };
        assert!(connected.iter().all(known), "{connected:?} are not all members");
    }
    Ok(())
}

/// A message as a stranger's bytes make it, if they make one.
fn raw(u: &mut Unstructured<'_>) -> Result<Option<Message>> {
    let len = usize::from(u.arbitrary::<u8>()?).min(u.len());
    let mut frame = vec![0; 12];
    frame.extend_from_slice(u.bytes(len)?);
    let body = u32::try_from(len).expect("a byte");
    frame[..4].copy_from_slice(&body.to_le_bytes());
    frame[8] = 1;
    let crc = crc32fast::hash(&frame[8..]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    let mut decoder = Decoder::accepted();
    decoder.feed(&frame);
    Ok(decoder.next().ok().flatten())
}

fn hello(u: &mut Unstructured<'_>, lone: &mut Lone) -> Result<Hello> {
    let who = identity(u, lone)?;
    Ok(Hello { version_min: u.int_in_range(0..=2)?, version_max: u.int_in_range(0..=2)?, who })
}

fn welcome(u: &mut Unstructured<'_>, lone: &mut Lone) -> Result<Welcome> {
    let who = identity(u, lone)?;
    Ok(Welcome { version: u.int_in_range(0..=2)?, who, genesis: None })
}

/// Near an honest one, so that each check is reached.
fn identity(u: &mut Unstructured<'_>, lone: &mut Lone) -> Result<Identity> {
    let member = u.int_in_range(0..=4)?;
    let name = *u.choose(&["", "a", "b", "c", "d"])?;
    let honest = lone.introduce(MemberId(member), name);
    let mut who = honest.unwrap_or(Identity {
        cluster_name: String::from("fuzz"),
        cluster: None,
        member: MemberId(member),
        name: String::from(name),
        boot: Boot(1 << 32),
        earlier: Vec::new(),
        birth: 1,
        agreement: 0,
        ring: ring_core::ring::parameters(),
    });
    match u.int_in_range(0..=11)? {
        0 => who.boot = Boot(u.arbitrary()?),
        1 => who.birth = u.arbitrary()?,
        2 => who.agreement = u.arbitrary()?,
        3 => who.cluster = Some(ClusterId(u.arbitrary()?)),
        4 => who.cluster = None,
        5 => who.cluster_name.push('x'),
        6 => who.member = MemberId::client(u.arbitrary()?),
        7 => who.member = MemberId(u.arbitrary()?),
        8 => who.earlier = u.arbitrary()?,
        _ => {}
    }
    Ok(who)
}

fn refusal(u: &mut Unstructured<'_>) -> Result<Refusal> {
    Ok(match u.int_in_range(0..=9)? {
        0 => Refusal::Version { min: u.arbitrary()?, max: u.arbitrary()? },
        1 => Refusal::ClusterName { expected: String::from("other") },
        2 => Refusal::Cluster { expected: ClusterId(u.arbitrary()?) },
        3 => Refusal::Agreement,
        4 => Refusal::RolledBack { seen: Boot(u.arbitrary()?) },
        5 => Refusal::Wiped,
        6 => Refusal::Stranger,
        7 => Refusal::Full,
        8 => Refusal::Twin,
        _ => Refusal::Itself,
    })
}
