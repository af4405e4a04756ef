use std::net::SocketAddr;

use bytes::Bytes;
use ring_core::ids::{Boot, GroupId, MemberId, Seq, SessionId};
use ring_core::io::Event;
use ring_core::wire::Encoder;
use ring_core::wire::message::{Hello, Identity, VERSION_MAX, VERSION_MIN, Welcome};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::options::Options;

/// A listening net without a core behind it: tests take its inbox themselves.
struct World {
    shared: Arc<Shared>,
    net: Arc<Net>,
    gone: mpsc::Receiver<()>,
    address: SocketAddr,
    listening: tokio::task::JoinHandle<()>,
}

impl World {
    async fn new(options: Options) -> Self {
        let shared = Arc::new(Shared::new(options));
        let (net, gone) = Net::new(Arc::clone(&shared), Handle::current(), 3);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let listening = tokio::spawn(Arc::clone(&net).listen(Entrance::Tcp(listener)));
        Self { shared, net, gone, address, listening }
    }

    /// The next things that core's thread would get; at least one.
    async fn items(&self) -> Vec<Item> {
        let shared = Arc::clone(&self.shared);
        let take = move || {
            let mut items = Vec::new();
            let until = std::time::Instant::now() + Duration::from_secs(10);
            shared.take(&mut items, Some(until));
            items
        };
        let items = tokio::task::spawn_blocking(take).await.unwrap();
        assert!(!items.is_empty(), "nothing came");
        items
    }

    /// The next one thing.
    async fn item(&self) -> Item {
        let mut items = self.items().await;
        assert_eq!(items.len(), 1);
        items.remove(0)
    }

    async fn accepted(&self) -> Arc<Link> {
        let Item::Connected { link, dial: None } = self.item().await else { panic!("accepted") };
        link
    }

    async fn until_disconnected(&self, conn: ConnId) {
        let ends = |item: &Item| matches!(item, Item::Disconnected { conn: gone } if *gone == conn);
        while !self.items().await.iter().any(ends) {}
    }
}

fn identity(member: MemberId) -> Identity {
    Identity {
        cluster_name: "ring".into(),
        cluster: None,
        member,
        name: "one".into(),
        boot: Boot(1),
        earlier: Vec::new(),
        birth: 7,
        agreement: 9,
        ring: ring_core::ring::parameters(),
    }
}

fn hello(member: MemberId) -> Message {
    let who = identity(member);
    Message::Hello(Box::new(Hello { version_min: VERSION_MIN, version_max: VERSION_MAX, who }))
}

fn welcome() -> Message {
    let who = identity(MemberId(1));
    Message::Welcome(Box::new(Welcome { version: VERSION_MAX, who, genesis: None }))
}

fn bulk(bytes: usize) -> Message {
    Message::Propose {
        group: GroupId(1),
        session: SessionId(1),
        first: Seq(1),
        commands: vec![(Seq(1), Bytes::from(vec![7; bytes]))],
    }
}

fn frames(messages: &[Message]) -> Vec<u8> {
    let (mut encoder, mut bytes) = (Encoder::new(), Vec::new());
    for message in messages {
        encoder.push(message).unwrap();
    }
    while encoder.frame(&mut bytes) {}
    bytes
}

#[tokio::test]
async fn two_nets_shake_hands_and_talk_in_large_messages() {
    let (a, b) = (World::new(Options::default()).await, World::new(Options::default()).await);
    a.net.dial(Dial(5), b.address.to_string());
    let Item::Connected { link: to_b, dial: Some(Dial(5)) } = a.item().await else {
        panic!("dialled")
    };
    let to_a = b.accepted().await;
    to_b.send(hello(MemberId(1))).unwrap();
    let Item::Messages { messages, .. } = b.item().await else { panic!("hello") };
    assert_eq!(messages, [hello(MemberId(1))]);

    to_a.send(welcome()).unwrap();
    let Item::Messages { messages, .. } = a.item().await else { panic!("welcome") };
    assert_eq!(messages, [welcome()]);
    to_b.send(bulk(5 << 20)).unwrap();
    let Item::Messages { conn, messages } = b.item().await else { panic!("bulk") };
    assert_eq!((conn, messages), (to_a.conn(), vec![bulk(5 << 20)]));

    // What was queued before a close arrives, and then both sides end.
    to_a.send(bulk(3 << 20)).unwrap();
    to_a.close();
    to_a.send(Message::Ping).unwrap();
    let (mut got, mut ended) = (Vec::new(), false);
    while !ended {
        for item in a.items().await {
            if let Item::Messages { messages, .. } = item {
                got.extend(messages);
            } else if let Item::Disconnected { conn } = item {
                ended = conn == to_b.conn();
            }
        }
    }
    assert_eq!(got, [bulk(3 << 20)]);
    b.until_disconnected(to_a.conn()).await;
}

#[tokio::test]
async fn a_dial_that_fails_is_answered() {
    let world = World::new(Options::default()).await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    world.net.dial(Dial(3), address.to_string());
    let Item::Input(Input::ConnectFailed { dial: Dial(3) }) = world.item().await else {
        panic!("failed")
    };
    world.net.dial(Dial(4), "no address".into());
    let Item::Input(Input::ConnectFailed { dial: Dial(4) }) = world.item().await else {
        panic!("failed")
    };
}

#[tokio::test]
async fn garbage_is_counted_and_its_connection_closed() {
    let world = World::new(Options::default()).await;
    let mut events = world.shared.events().unwrap();
    let mut peer = TcpStream::connect(world.address).await.unwrap();
    let link = world.accepted().await;
    peer.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    world.until_disconnected(link.conn()).await;
    assert_eq!(peer.read(&mut [0; 16]).await.unwrap_or(0), 0, "closed");
    assert_eq!(world.shared.counters.garbage.load(Ordering::Relaxed), 1);
    assert!(matches!(
        events.recv().await,
        Ok(Event::PeerFault { member: None, address: Some(_), .. })
    ));
}

/// What came whole before the garbage still counts.
#[tokio::test]
async fn messages_before_garbage_arrive() {
    let world = World::new(Options::default()).await;
    let mut peer = TcpStream::connect(world.address).await.unwrap();
    let link = world.accepted().await;
    let mut bytes = frames(&[hello(MemberId(2))]);
    bytes.extend([0xff; 64]);
    peer.write_all(&bytes).await.unwrap();
    let items = world.items().await;
    let Item::Messages { messages, .. } = &items[0] else { panic!("hello") };
    assert_eq!(*messages, [hello(MemberId(2))]);
    if items.len() == 1 {
        world.until_disconnected(link.conn()).await;
    }
}

/// A stranger that claims a long frame gets no memory for it.
#[tokio::test]
async fn a_stranger_may_not_send_long_frames() {
    let world = World::new(Options::default()).await;
    let mut peer = TcpStream::connect(world.address).await.unwrap();
    let link = world.accepted().await;
    peer.write_all(&frames(&[bulk(32 << 10)])).await.unwrap();
    world.until_disconnected(link.conn()).await;
    assert_eq!(world.shared.counters.garbage.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn strangers_are_few_and_give_their_place_back() {
    let mut options = Options::default();
    options.limits.strangers = 2;
    let world = World::new(options).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let peer = TcpStream::connect(world.address).await.unwrap();
        held.push((peer, world.accepted().await));
    }
    let mut third = TcpStream::connect(world.address).await.unwrap();
    assert_eq!(third.read(&mut [0; 16]).await.unwrap_or(0), 0, "turned away");
    assert_eq!(world.shared.counters.turned_away.load(Ordering::Relaxed), 1);

    held[0].1.send(welcome()).unwrap();
    let _fourth = TcpStream::connect(world.address).await.unwrap();
    world.accepted().await;
}

/// The queue of a peer that does not read is bounded in bytes; past that its connection is closed.
#[tokio::test]
async fn a_peer_that_never_reads_is_cut_off() {
    let world = World::new(Options::default()).await;
    let mut peer = TcpStream::connect(world.address).await.unwrap();
    let link = world.accepted().await;
    peer.write_all(&frames(&[hello(MemberId::client(1))])).await.unwrap();
    world.item().await;
    link.send(welcome()).unwrap();
    let mut sent = 0;
    let overflow = loop {
        tokio::task::yield_now().await;
        match link.send(bulk(256 << 10)) {
            Ok(()) => sent += 256 << 10,
            Err(overflow) => break overflow,
        }
        assert!(sent < 64 << 20, "it must end");
    };
    assert_eq!(overflow.most, 16 << 20);
    world.until_disconnected(link.conn()).await;
    link.send(Message::Ping).unwrap(); // silently dropped
}

/// When core is slow its peers wait in their sockets.
#[tokio::test]
async fn readers_wait_while_the_inbox_is_full() {
    let world = World::new(Options::default()).await;
    let mut peer = TcpStream::connect(world.address).await.unwrap();
    let link = world.accepted().await;
    link.send(welcome()).unwrap();
    let writer = tokio::spawn(async move {
        let mut encoder = Encoder::new();
        for _ in 0..100 {
            let mut frames = Vec::new();
            encoder.push(&bulk(1 << 20)).unwrap();
            while encoder.frame(&mut frames) {}
            peer.write_all(&frames).await.unwrap();
        }
        peer
    });
    assert!(
        timeout(Duration::from_millis(500), async {
            while !writer.is_finished() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .is_err(),
        "100 MiB do not fit"
    );
    let mut got = 0;
    while got < 100 {
        for item in world.items().await {
            let Item::Messages { messages, .. } = item else { panic!("messages") };
            got += messages.len();
        }
    }
    drop(writer.await.unwrap());
}

#[tokio::test]
async fn when_the_node_ends_its_connections_do() {
    let World { shared, net, mut gone, address, listening } = World::new(Options::default()).await;
    let mut peer = TcpStream::connect(address).await.unwrap();
    shared.end();
    peer.write_all(&frames(&[hello(MemberId(2))])).await.unwrap();
    assert_eq!(peer.read(&mut [0; 16]).await.unwrap_or(0), 0, "closed");
    listening.abort();
    drop(net);
    assert_eq!(gone.recv().await, None, "nothing is left");
}

#[tokio::test]
async fn a_closed_connection_that_is_not_read_is_dropped_after_a_while() {
    let world = World::new(Options::default()).await;
    let peer = TcpStream::connect(world.address).await.unwrap();
    let link = world.accepted().await;
    link.send(welcome()).unwrap();
    link.note(&hello(MemberId(2)));
    for _ in 0..32 {
        link.send(bulk(1 << 20)).unwrap(); // more than the sockets' buffers hold
    }
    link.close();
    let started = std::time::Instant::now();
    world.until_disconnected(link.conn()).await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    drop(peer);
}

/// More than goes into one write: bulk messages keep their order, whatever their lengths, and what is urgent overtakes those
/// that are in no frame yet.
#[tokio::test]
async fn what_waits_keeps_its_order_and_is_overtaken_by_what_is_urgent() {
    let link = Link::new(ConnId(1), None);
    link.note(&hello(MemberId(2)));
    let (near, mut far) = tokio::io::duplex(64 << 20);
    link.open(near);
    let lengths = [10, 700, 20_000, 65_000, 65_536, 3_000, 400_000];
    let numbered = |number: usize| {
        let Message::Propose { group, session, commands, .. } =
            bulk(lengths[number % lengths.len()])
        else {
            panic!("bulk")
        };
        let first = Seq(number.try_into().unwrap());
        Message::Propose { group, session, first, commands }
    };
    let mut sent = 0..70;
    for number in sent.by_ref().take(50) {
        link.send(numbered(number)).unwrap();
    }
    assert_eq!(link.send_some().await.unwrap(), Sent::Some);
    link.send(Message::Ping).unwrap();
    for number in sent {
        link.send(numbered(number)).unwrap();
    }
    while link.send_some().await.unwrap() == Sent::Some {}
    link.end();

    let mut bytes = Vec::new();
    far.read_to_end(&mut bytes).await.unwrap();
    let mut decoder = ring_core::wire::Decoder::dialled();
    decoder.authenticated();
    decoder.feed(&bytes);
    let mut got = Vec::new();
    while let Some(message) = decoder.next().unwrap() {
        got.push(message);
    }
    let overtakes = got.iter().position(|message| *message == Message::Ping);
    assert!(overtakes.is_some_and(|place| (1..20).contains(&place)), "{overtakes:?}");
    got.retain(|message| *message != Message::Ping);
    assert_eq!(got.len(), 70);
    for (number, message) in got.into_iter().enumerate() {
        assert!(message == numbered(number), "the {number}th");
    }
}

/// Two vectors for messages go round between a connection's reader and core; what is longer than need be is not kept.
#[test]
fn vectors_for_messages_go_round() {
    let link = Link::new(ConnId(1), None);
    assert_eq!(link.spare().capacity(), 0, "the first is new");
    let of = |capacity| Vec::<Message>::with_capacity(capacity);
    let (one, two) = (of(10), of(20));
    let places = [one.as_ptr(), two.as_ptr()];
    for spare in [one, two, of(30), of(1 << 20)] {
        link.put_back(spare);
    }
    let mut spares = [link.spare(), link.spare()];
    spares.reverse();
    assert_eq!(spares.each_ref().map(|spare| spare.as_ptr()), places);
    assert_eq!(link.spare().capacity(), 0, "no more are kept");
    link.put_back(of(1 << 20));
    assert_eq!(link.spare().capacity(), 0, "it is too long");
}
