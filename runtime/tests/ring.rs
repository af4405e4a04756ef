//! The hash ring of three members, over real sockets.

mod common;

use std::time::Duration;

use common::{members, open_all};
use libring::{Error, Event, Node, RingEvent, TrackError, Tracked};

/// Waits for something that a cluster comes to by itself.
async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("in time")
}

/// Until a node knows so many members alive.
async fn sees(node: &Node, count: usize) {
    let mut events = node.events();
    while node.ring().members().len() != count {
        events.next().await.expect("the node is up");
    }
}

#[tokio::test]
async fn owners_and_what_becomes_of_them() {
    let options = members(3, None);
    let mut nodes = open_all(&options).await;
    for node in &nodes {
        in_time(sees(node, 3)).await;
    }
    let lost = nodes.pop().unwrap();
    let (heir, gone) = (nodes[0].whoami(), lost.whoami());
    let key = (0..).map(|n| format!("key {n}"));
    let key = { key }.find(|key| nodes[0].owners(key, 2) == [gone, heir]).unwrap();
    assert_eq!(nodes[1].owner(&key), Some(gone));
    assert_eq!(nodes[1].next(&key, &[]), Some(heir));
    assert_eq!(nodes[1].next(&key, &[heir]), Some(nodes[1].whoami()));
    assert!(lost.is_mine(&key) && !nodes[0].is_mine(&key));

    let refused = nodes[0].track(&key).await.unwrap_err();
    assert_eq!(refused, Error::Track(TrackError::NotMine(Some(gone))));
    let mut tracked = lost.track_with_replica(&key).await.unwrap();
    assert_eq!(in_time(tracked.next()).await, Some(Tracked::Next { new: heir, old: None }));
    let mut awaited = nodes[0].replica(&key).await.unwrap();
    let mut events = nodes[0].events();
    lost.close().await.unwrap();
    assert_eq!(in_time(tracked.next()).await, Some(Tracked::Left { to: None }), "it closed");
    assert_eq!(tracked.next().await, None);
    assert_eq!(in_time(awaited.next()).await, Some(Tracked::Came));
    assert_eq!(awaited.next().await, None);
    let stolen = async {
        loop {
            if let Event::Ring(RingEvent::Steal { from, slots }) = events.next().await.unwrap() {
                return (from, slots);
            }
        }
    };
    let (from, slots) = in_time(stolen).await;
    assert_eq!(from, Some(gone));
    let slot = u32::from(libring::slot_of(key.as_bytes()));
    assert!(slots.iter().any(|range| range.contains(&slot)));
    assert!(nodes[0].is_mine(&key));
    drop((tracked, awaited));
    for node in nodes {
        node.close().await.unwrap();
    }
}
