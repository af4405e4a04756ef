//! Three members in one process, over real sockets.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::{client, members, open_all};
use libring::{Event, MemberId, Node, Options, Partition, Range, Refusal, Role};

/// Writes until it works: a member that was just lost may have led.
async fn put(partition: &Partition, key: &str, value: &str) {
    partition.put(key.to_owned(), value.to_owned()).await.unwrap();
}

async fn get(partition: &Partition, key: &str) -> Option<String> {
    let found = partition.get(key.to_owned()).await.unwrap()?;
    Some(String::from_utf8(found.value.to_vec()).unwrap())
}

/// Leaders of shards, by what each member says of itself.
async fn leaders(node: &Node, ids: &[MemberId]) -> usize {
    let mut leaders = 0;
    for id in ids {
        let status = node.status(*id).await.unwrap();
        assert_eq!(status.member, *id);
        leaders += status.groups.iter().filter(|group| group.role == Role::Leader).count();
    }
    leaders
}

async fn close(nodes: Vec<Node>) {
    for node in nodes {
        node.close().await.unwrap();
    }
}

#[tokio::test]
async fn what_one_writes_all_read() {
    let nodes = open_all(&members(3, None)).await;
    let parts: Vec<_> = nodes.iter().map(|node| node.partition("p")).collect();
    for n in 0..30 {
        put(&parts[n % 3], &format!("k{n:02}"), &n.to_string()).await;
    }
    for part in &parts {
        for n in 0..30 {
            assert_eq!(get(part, &format!("k{n:02}")).await, Some(n.to_string()));
        }
        let (mut scan, mut seen) = (part.scan(Range::all()), 0);
        while scan.next().await.unwrap().is_some() {
            seen += 1;
        }
        assert_eq!(seen, 30);
        assert_eq!(part.info().await.unwrap().replicas.len(), 3);
    }
    let ids: Vec<_> = nodes.iter().map(Node::whoami).collect();
    for node in &nodes {
        assert_eq!(node.members().iter().map(|m| m.id).collect::<Vec<_>>(), ids);
        // Leadership may be on its way to the preferred leader: asked again until it has arrived.
        let settled = async { while leaders(node, &ids).await != 5 {} };
        tokio::time::timeout(Duration::from_secs(10), settled).await.expect("one for each shard");
    }
    drop(parts);
    close(nodes).await;
}

#[tokio::test]
async fn a_lost_member_is_missed_by_nobody_and_catches_up() {
    let dir = tempfile::tempdir().unwrap();
    let options = members(3, Some(dir.path()));
    let mut nodes = open_all(&options).await;
    put(&nodes[0].partition("p"), "a", "1").await;

    drop(nodes.pop());
    let p = nodes[0].partition("p");
    for n in 0..20 {
        put(&p, &format!("k{n}"), "v").await;
    }
    assert_eq!(get(&nodes[1].partition("p"), "a").await.as_deref(), Some("1"));

    let back = Node::open(options[2].clone()).await.unwrap();
    let own = back.partition("p");
    assert_eq!(get(&own, "k19").await.as_deref(), Some("v"));
    assert_eq!(get(&own, "a").await.as_deref(), Some("1"));
    nodes.push(back);
    drop((p, own));
    close(nodes).await;
}

#[tokio::test]
async fn all_come_back_after_all_were_lost() {
    let dir = tempfile::tempdir().unwrap();
    let options = members(3, Some(dir.path()));
    for round in 0..3 {
        let nodes = open_all(&options).await;
        let p = nodes[round].partition("p");
        for old in 0..round {
            assert_eq!(get(&p, &old.to_string()).await.as_deref(), Some("v"));
        }
        put(&p, &round.to_string(), "v").await;
        drop((p, nodes)); // at once, all of them
    }
}

#[tokio::test]
async fn a_client_calls_through_any_member() {
    let options = members(3, None);
    let mut nodes = open_all(&options).await;
    let caller = Node::open(client(&options)).await.unwrap();
    assert!(caller.whoami().is_client());
    assert_eq!(caller.members().len(), 3);
    let p = caller.partition("p");
    put(&p, "k", "v").await;
    assert_eq!(get(&nodes[2].partition("p"), "k").await.as_deref(), Some("v"));
    for node in &nodes {
        let status = caller.status(node.whoami()).await.unwrap();
        assert_eq!(status.clients, 1);
        let view = node.view();
        assert_eq!((view.me, view.clients), (node.whoami(), vec![caller.whoami()]));
        assert_eq!(view.members, node.members());
        assert!(view.is_ready && view.members.iter().all(|member| member.connected));
    }
    assert_eq!((caller.view().clients, caller.view().me), (Vec::new(), caller.whoami()));
    let mut events = caller.events();
    let gone = nodes.remove(0);
    let id = gone.whoami();
    gone.close().await.unwrap();
    let is_lost =
        |event: &Event| matches!(event, Event::PeerDisconnected { member, .. } if *member == id);
    while !is_lost(&events.next().await.unwrap()) {}
    let connected = caller.view().members.into_iter().filter(|member| member.connected);
    assert!(connected.map(|member| member.id).eq(nodes.iter().map(Node::whoami)));
    put(&p, "k", "w").await;
    assert_eq!(get(&p, "k").await.as_deref(), Some("w"));
    drop(p);
    caller.close().await.unwrap();
    close(nodes).await;
}

#[tokio::test]
async fn events_tell_of_peers() {
    let options = members(3, None);
    let mut nodes = open_all(&options).await;
    let mut events = nodes[0].events();
    let lost = nodes.pop().unwrap();
    let id = lost.whoami();
    lost.close().await.unwrap();
    let address = options[2].members[2].1.clone();
    let disconnected = Event::PeerDisconnected { member: id, address: Some(address.clone()) };
    let failed = Event::PeerFailed { member: Some(id), address: address.clone() };
    let again = Event::PeerReconnecting { member: id, address };
    let told = async {
        for expected in [disconnected, again, failed] {
            while events.next().await.unwrap() != expected {}
        }
        // With the second gone, too, there is no majority any more; it comes back with it.
        let other = nodes.pop().unwrap();
        other.close().await.unwrap();
        while events.next().await.unwrap() != Event::NotReady {}
    };
    tokio::time::timeout(Duration::from_secs(10), told).await.unwrap();
    assert_eq!(events.missed(), 0);
    close(nodes).await;
    while events.next().await.is_some() {}
}

/// A member that was told another cluster's name is refused, both sides say so, and it disturbs
/// nobody.
#[tokio::test]
async fn another_clusters_member_stays_out() {
    let options = members(3, None);
    let mut nodes = open_all(&options).await;
    nodes.pop().unwrap().close().await.unwrap();
    let mut events = nodes[0].events();
    let stray = Options { cluster: "other".into(), ..options[2].clone() };
    let opening = tokio::spawn(Node::open(stray));
    let refused = async {
        loop {
            if let Some(Event::PeerRefused { reason, .. }) = events.next().await {
                return reason;
            }
        }
    };
    let reason = tokio::time::timeout(Duration::from_secs(10), refused).await.unwrap();
    assert_eq!(reason, Refusal::ClusterName { expected: "other".into() });
    put(&nodes[0].partition("p"), "k", "v").await;
    assert!(!opening.is_finished(), "it goes on trying");
    opening.abort();
    close(nodes).await;
}

/// Noise, silence and half a frame on the port: each is closed, counted, and disturbs nobody.
#[tokio::test]
async fn strangers_on_the_port_disturb_nobody() {
    let options = members(3, None);
    let nodes = open_all(&options).await;
    let address = nodes[0].address().unwrap();
    let noise: &[&[u8]] = &[b"GET / HTTP/1.1\r\n\r\n", &[0; 64], &[0xff; 4096], b"", b"\x04\0\0\0"];
    let mut peers = Vec::new();
    for bytes in noise {
        let mut peer = TcpStream::connect(address).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        peer.write_all(bytes).unwrap();
        peers.push(peer);
    }
    put(&nodes[0].partition("p"), "k", "v").await;
    let closed = tokio::task::spawn_blocking(move || {
        for peer in &mut peers {
            // The handshake's time limit ends those that say nothing.
            let read = peer.read(&mut [0; 64]);
            let closed = match &read {
                Ok(0) => true,
                Ok(_) => false,
                Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
            };
            assert!(closed, "{read:?}");
        }
    });
    closed.await.unwrap();
    let counted = nodes[0].connections();
    assert!(counted.garbage >= 2, "{counted:?}");
    put(&nodes[1].partition("p"), "k", "w").await;
    close(nodes).await;
}
