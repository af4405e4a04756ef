//! Datagrams that somebody records on their way and sends again, over real sockets.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::keys::Authority;
use common::proxy::Proxy;
use common::tap::Tap;
use common::{free_addresses, members, open_all};
use libring::security::Role;
use libring::{
    DatagramCounts, Detector, Event, Events, MemberId, MemberState, Metrics, Node, Options,
};
use tokio::time::{sleep, timeout};

/// Long enough for anything that does not hang.
const LIMIT: Duration = Duration::from_secs(20);
/// So many are sent again: more than a few of each kind.
const MANY: usize = 30;

/// Two members; what the first one sends to the second can be recorded.
struct Pair {
    nodes: Vec<Node>,
    tap: Tap,
    _proxy: Proxy,
}

impl Pair {
    async fn open(authority: Option<&Authority>) -> Self {
        let mut options = members(2, None);
        for options in &mut options {
            let keys = authority.map(|authority| authority.keys(Role::Member, &options.name));
            options.keys = keys;
            options.detector = Detector::paced(Duration::from_millis(100), None);
        }
        let (at, real) = (options[1].members[1].1.clone(), free_addresses(1).remove(0));
        let (proxy, tap) = (Proxy::new(&at, real.clone()).await, Tap::new(&at, &real).await);
        options[1] = Options { advertise: Some(at), listen: Some(real), ..options[1].clone() };
        let nodes = open_all(&options).await;
        let pair = Self { nodes, tap, _proxy: proxy };
        pair.hears(MemberState::Alive).await;
        pair
    }

    async fn metrics(&self) -> Metrics {
        self.nodes.last().unwrap().metrics().await.unwrap()
    }

    async fn datagrams(&self) -> DatagramCounts {
        self.metrics().await.datagrams.unwrap()
    }

    /// How often the second was told something again: by what the seal shows, or without keys by what core makes of it.
    async fn replayed(&self, sealed: bool) -> u64 {
        let metrics = self.metrics().await;
        let (datagrams, gossip) = (metrics.datagrams.unwrap(), metrics.gossip.unwrap());
        if sealed { datagrams.replayed } else { gossip.replayed }
    }

    /// What the second thinks of the first.
    async fn thinks(&self) -> MemberState {
        let (member, state) = self.metrics().await.status.members[0];
        assert_eq!(member, MemberId(1));
        state
    }

    async fn hears(&self, state: MemberState) {
        let thinks = async {
            while self.thinks().await != state {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LIMIT, thinks).await.unwrap_or_else(|_| panic!("never {state:?}"));
    }

    /// Waits until the second has received so many more than before.
    async fn receives(&self, before: DatagramCounts, more: usize) {
        let received = async {
            while self.datagrams().await.received < before.received + u64::try_from(more).unwrap() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LIMIT, received).await.expect("datagrams arrive");
    }
}

/// Nobody was told of anything that a datagram can bring about.
async fn nothing_happened(events: &mut Events) {
    while let Ok(event) = timeout(Duration::ZERO, events.next()).await {
        let event = event.expect("the member is up");
        let is_of_a_datagram = matches!(event, Event::Member { .. } | Event::PeerFault { .. });
        assert!(!is_of_a_datagram, "{event:?}");
    }
}

/// While both live; and when the sender is dead, whom nothing that it said in its life brings back. Each of them is told
/// apart and counted: with keys before it is opened, without by core, which believes nobody who does not answer now.
async fn what_is_sent_again_changes_nothing(authority: Option<Authority>) {
    let mut pair = Pair::open(authority.as_ref()).await;
    drop(pair.tap.take());
    let first = pair.datagrams().await;
    let recorded = async {
        while pair.tap.kept() < MANY {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, recorded).await.expect("datagrams go through the tap");
    pair.receives(first, MANY).await;
    let before = pair.datagrams().await;
    assert_eq!(before.refused, first.refused, "each is good for once");

    let sealed = authority.is_some();
    let replayed = pair.replayed(sealed).await;
    assert_eq!(replayed, 0, "nobody has sent anything again");
    let recorded = pair.tap.take();
    let many = u64::try_from(recorded.len()).unwrap();
    let mut events = pair.nodes[1].events();
    pair.tap.again(&recorded).await;
    pair.receives(before, recorded.len() + MANY).await;
    let after = pair.datagrams().await;
    assert_eq!(pair.replayed(sealed).await, many);
    assert_eq!(after.refused - before.refused, if sealed { many } else { 0 });
    assert_eq!(pair.thinks().await, MemberState::Alive);
    nothing_happened(&mut events).await;

    drop(pair.nodes.remove(0));
    pair.hears(MemberState::Dead).await;
    let before = pair.datagrams().await;
    let mut events = pair.nodes[0].events();
    pair.tap.again(&recorded).await;
    pair.receives(before, recorded.len()).await;
    assert_eq!(pair.replayed(sealed).await, 2 * many);
    assert_eq!(pair.thinks().await, MemberState::Dead);
    nothing_happened(&mut events).await;
    for node in pair.nodes {
        node.close().await.unwrap();
    }
}

#[tokio::test]
async fn what_is_sent_again_is_not_opened() {
    what_is_sent_again_changes_nothing(Some(Authority::new())).await;
}

#[tokio::test]
async fn what_is_sent_again_without_keys_changes_nothing() {
    what_is_sent_again_changes_nothing(None).await;
}
