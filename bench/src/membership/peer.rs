//! The same with foca.

use std::net::SocketAddrV4;
use std::num::NonZeroU32;
use std::time::Duration;

use foca::{
    Config, Foca, Identity, Member, NoCustomBroadcast, Notification, PostcardCodec, Runtime, Timer,
};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use ring_core::time::Instant;
use serde::{Deserialize, Serialize};

use super::{Machine, Outbox, address_of, number, place_of};

/// Who a member is: the least that lets it come back after it was declared down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Id {
    address: SocketAddrV4,
    generation: u16,
}

impl Identity for Id {
    type Addr = SocketAddrV4;

    fn renew(&self) -> Option<Self> {
        Some(Self { generation: self.generation.wrapping_add(1), ..*self })
    }

    fn addr(&self) -> SocketAddrV4 {
        self.address
    }

    fn win_addr_conflict(&self, other: &Self) -> bool {
        self.generation > other.generation
    }
}

pub(super) struct Peer {
    machine: Foca<Id, PostcardCodec, SmallRng, NoCustomBroadcast>,
}

impl Machine for Peer {
    const NAME: &str = "foca";
    type Timer = Timer<Id>;

    fn new(place: usize, members: usize, now: Instant, out: &mut Outbox<Timer<Id>>) -> Self {
        let count = u32::try_from(members).ok().and_then(NonZeroU32::new).expect("some members");
        let config = Config::new_lan(count);
        let rng = SmallRng::seed_from_u64(number(place));
        let mut machine = Foca::new(id_of(place), config, rng, PostcardCodec);
        let others = (0..members).filter(|other| *other != place);
        let others = others.map(|other| Member::alive(id_of(other)));
        machine.apply_many(others, true, World { now, out }).expect("members that are alive");
        Self { machine }
    }

    fn on_datagram(&mut self, now: Instant, _: usize, bytes: &[u8], out: &mut Outbox<Timer<Id>>) {
        self.machine.handle_data(bytes, World { now, out }).expect("an honest datagram");
    }

    fn on_stream(&mut self, _: Instant, _: usize, _: &[u8], _: &mut Outbox<Timer<Id>>) {
        unreachable!("it has datagrams only");
    }

    fn on_timer(&mut self, now: Instant, timer: Timer<Id>, out: &mut Outbox<Timer<Id>>) {
        self.machine.handle_timer(timer, World { now, out }).expect("a timer that it asked for");
    }

    fn present(&self) -> usize {
        self.machine.num_members() + 1
    }
}

struct World<'a> {
    now: Instant,
    out: &'a mut Outbox<Timer<Id>>,
}

impl Runtime<Id> for World<'_> {
    fn notify(&mut self, _: Notification<'_, Id>) {}

    fn send_to(&mut self, to: Id, data: &[u8]) {
        self.out.datagrams.push((place_of(to.address.into()), data.to_vec()));
    }

    fn submit_after(&mut self, event: Timer<Id>, after: Duration) {
        self.out.timers.push((self.now + after, event));
    }
}

fn id_of(place: usize) -> Id {
    Id { address: address_of(place), generation: 0 }
}
