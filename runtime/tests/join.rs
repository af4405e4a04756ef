//! Members that join through bad lists, that move, and that are mistaken for each other, over real sockets.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use common::keys::{Authority, subject};
use common::split::Network;
use common::{client, free_addresses, members, open_all, quick};
use libring::security::{Fault, Role, Subject};
use libring::{Data, Event, GroupId, Halt, Keys, Node, OpenError, Options, Refusal};
use ring_core::ids::{Boot, MemberId};
use ring_core::wire::message::{Identity, VERSION_MAX, VERSION_MIN, Welcome};
use ring_core::wire::{Encoder, Message};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// Long enough for anything that does not hang.
const LIMIT: Duration = Duration::from_secs(30);

/// Gives each its keys, if there are any to be had.
fn keyed(options: Vec<Options>, authority: Option<&Authority>) -> Vec<Options> {
    let keys = |o: &Options| authority.map(|authority| authority.keys(Role::Member, &o.name));
    options.into_iter().map(|o| Options { keys: keys(&o), ..o }).collect()
}

/// The first of them begins alone; the others join through all.
fn joining(addresses: &[String], dir: &Path) -> Vec<Options> {
    let options = |(n, address): (usize, &String)| {
        let name = format!("n{}", n + 1);
        Options {
            data: Data::Dir(dir.join(&name)),
            name,
            listen: Some(address.clone()),
            join: if n == 0 { Vec::new() } else { addresses.to_vec() },
            ..quick()
        }
    };
    addresses.iter().enumerate().map(options).collect()
}

/// The same members elsewhere.
fn moved(options: &[Options], addresses: &[String]) -> Vec<Options> {
    let elsewhere = |(options, address): (&Options, &String)| {
        let mut options = options.clone();
        for ((_, member), address) in options.members.iter_mut().zip(addresses) {
            member.clone_from(address);
        }
        options.listen = options.listen.map(|_| address.clone());
        options.join = options.join.iter().zip(addresses).map(|(_, new)| new.clone()).collect();
        options
    };
    options.iter().zip(addresses).map(elsewhere).collect()
}

/// Waits until a node was told of a directory in which these members are, at these addresses, and every group has
/// its voters on three of them.
async fn knows(node: &Node, addresses: &[String]) {
    let mut events = node.events();
    let told = async {
        loop {
            let table = node.directory();
            let is_there = table.is_some_and(|table| {
                let mut listed: Vec<_> = table.members.iter().map(|m| m.address.clone()).collect();
                let mut wanted = addresses.to_vec();
                listed.sort();
                wanted.sort();
                let shards = table.groups.iter().filter(|g| g.group != GroupId::DIRECTORY);
                let whole = { shards }.all(|g| g.voters.len() == addresses.len().min(3));
                listed == wanted && whole && table.moving() == 0
            });
            if is_there {
                return;
            }
            events.next().await.unwrap();
        }
    };
    let told = timeout(LIMIT, told).await;
    assert!(told.is_ok(), "{:?}: {addresses:?}, not {:#?}", node.whoami(), node.directory());
}

async fn get(node: &Node, key: &str) -> Option<String> {
    let found = node.partition("p").get(key.to_owned()).await.unwrap()?;
    Some(String::from_utf8(found.value.to_vec()).unwrap())
}

async fn close(nodes: Vec<Node>) {
    for node in nodes {
        node.close().await.unwrap();
    }
}

/// Listens, and says this to everyone who comes, whatever they say, as long as the test lives.
fn speaker(says: Vec<u8>) -> Speaker {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let callers = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&callers);
    std::thread::spawn(move || {
        for caller in listener.incoming() {
            count.fetch_add(1, Ordering::Relaxed);
            let (mut caller, says) = (caller.unwrap(), says.clone());
            std::thread::spawn(move || {
                let _ = caller.write_all(&says);
                // Until the other side has had enough.
                let _ = caller.read_to_end(&mut Vec::new());
            });
        }
    });
    Speaker { address, callers }
}

struct Speaker {
    address: String,
    callers: Arc<AtomicUsize>,
}

fn frames(message: &Message) -> Vec<u8> {
    let (mut encoder, mut bytes) = (Encoder::new(), Vec::new());
    encoder.push(message).unwrap();
    while encoder.frame(&mut bytes) {}
    bytes
}

/// A member of another version: it welcomes whoever comes in words of its own.
fn welcome_of_the_future() -> Message {
    let who = Identity {
        cluster_name: "ring".into(),
        cluster: None,
        member: MemberId(1),
        name: "future".into(),
        boot: Boot(1),
        earlier: Vec::new(),
        birth: 1,
        agreement: 0,
        ring: ring_core::ring::parameters(),
    };
    Message::Welcome(Box::new(Welcome { version: VERSION_MAX + 1, who, genesis: None }))
}

/// A member of another cluster, with keys of the same authority if there is one.
async fn stranger(authority: Option<&Authority>) -> Node {
    let cluster = String::from("other");
    let keys = authority.map(|authority| {
        let until = SystemTime::now() + Duration::from_secs(3600);
        let who = Subject { cluster: cluster.clone(), ..subject(Role::Member, "n1") };
        let pair = authority.issue(&who, until);
        let datagram = libring::security::datagram::new_file().unwrap();
        let (certificate, key) = (pair.certificate.as_bytes(), pair.key.as_bytes());
        Keys::from_pem(authority.pem().as_bytes(), certificate, key, Some(&*datagram)).unwrap()
    });
    let listen = Some(free_addresses(1).remove(0));
    let options =
        Options { name: "n1".into(), cluster, listen, data: Data::Memory, keys, ..quick() };
    Node::open(options).await.unwrap()
}

/// A list with nobody's address, another cluster's, a peer's of another version, those of programs that say something
/// else or nothing, the own one, and one that no name leads to; and one that is right, where the member comes up only
/// later. The member joins all the same, and nobody is hurt.
async fn a_bad_list_is_no_obstacle(authority: Option<Authority>) {
    let dir = tempfile::tempdir().unwrap();
    let other = stranger(authority.as_ref()).await;
    let mut told = other.events();
    let addresses = free_addresses(2);
    let mut options = keyed(joining(&addresses, dir.path()), authority.as_ref());
    let refusal = Message::Refuse(Refusal::Version { min: VERSION_MAX + 1, max: VERSION_MAX + 9 });
    let speakers = [
        frames(&welcome_of_the_future()),
        frames(&refusal),
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        vec![0xff; 4096],
        Vec::new(),
    ];
    let speakers = speakers.map(speaker);
    let mut join = vec![free_addresses(1).remove(0), other.address().unwrap().to_string()];
    join.extend(speakers.iter().map(|speaker| speaker.address.clone()));
    let own = addresses[1].clone();
    join.extend([own, String::from("256.0.0.1:1"), addresses[0].clone()]);
    options[1].join = join.clone();
    let (tell, heard) = mpsc::unbounded_channel();
    let listener = move |event| {
        // The test has heard enough.
        let _ = tell.send(event);
    };
    let late = tokio::spawn(Node::open_listening(options[1].clone(), listener));
    let refused = async {
        loop {
            let event = told.next().await.unwrap();
            if let Event::PeerRefused { address, reason, by_us: true, .. } = &event {
                let expected = Refusal::ClusterName { expected: "other".into() };
                assert_eq!(*address, None, "it is no member of this cluster, and was not dialled");
                return assert_eq!(*reason, expected);
            }
            // With keys it does not come so far.
            if authority.is_some() && matches!(event, Event::PeerFault { .. }) {
                return;
            }
        }
    };
    timeout(LIMIT, refused).await.expect("the other cluster's member is dialled, and refuses");
    let all = async {
        let is_silent = |speaker: &Speaker| speaker.callers.load(Ordering::Relaxed) == 0;
        while speakers.iter().any(is_silent) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, all).await.expect("every entry of the list is dialled");
    assert!(!late.is_finished(), "it creates no cluster of its own");
    let speakers: Vec<&str> = speakers.iter().map(|speaker| &*speaker.address).collect();
    tells_of_each(heard, &join[0], &speakers, authority.is_some()).await;

    let first = Node::open(options[0].clone()).await.unwrap();
    let late = timeout(LIMIT, late).await.expect("it joins").unwrap().unwrap();
    let nodes = vec![first, late];
    for node in &nodes {
        knows(node, &addresses).await;
        node.partition("p").put(node.whoami().to_string(), "v").await.unwrap();
    }
    assert_eq!(other.members().len(), 1, "the other cluster has no new member");
    other.close().await.unwrap();
    close(nodes).await;
}

/// Who waits to be let in is told of each entry what is wrong with it: nobody is there; it speaks another version, by its
/// welcome and by its refusal; it sends what is no message. With keys nothing is read of who does not speak TLS.
async fn tells_of_each(
    mut heard: mpsc::UnboundedReceiver<Event>,
    nobody: &str,
    speakers: &[&str],
    with_keys: bool,
) {
    let refused = |address: &str, (min, max), by_us: bool| Event::PeerRefused {
        member: by_us.then_some(MemberId(1)),
        address: Some(address.to_owned()),
        reason: Refusal::Version { min, max },
        by_us,
    };
    let fault = |what, address: &str| Event::PeerFault {
        member: None,
        address: Some(address.to_owned()),
        what,
    };
    let mut missing = vec![Event::PeerFailed { member: None, address: nobody.to_owned() }];
    if with_keys {
        missing.extend(speakers[..4].iter().map(|speaker| fault(Fault::NotTls.what(), speaker)));
    } else {
        missing.push(refused(speakers[0], (VERSION_MIN, VERSION_MAX), true));
        missing.push(refused(speakers[1], (VERSION_MAX + 1, VERSION_MAX + 9), false));
        // Of the one that speaks HTTP, and of the one that speaks nothing known.
        missing
            .extend(speakers[2..4].iter().map(|speaker| fault("sent what is no message", speaker)));
    }
    let told = async {
        while !missing.is_empty() {
            let event = heard.recv().await.unwrap();
            if let Some(place) = missing.iter().position(|one| *one == event) {
                missing.swap_remove(place);
            }
        }
    };
    let told = timeout(LIMIT, told).await;
    assert!(told.is_ok(), "never told: {missing:?}");
}

#[tokio::test]
async fn a_bad_join_list_is_no_obstacle() {
    a_bad_list_is_no_obstacle(None).await;
}

#[tokio::test]
async fn a_bad_join_list_is_no_obstacle_with_keys() {
    a_bad_list_is_no_obstacle(Some(Authority::new())).await;
}

/// Opens the first one, then the others, and waits until they are one cluster.
async fn grown(options: &[Options], addresses: &[String]) -> Vec<Node> {
    let mut nodes = vec![Node::open(options[0].clone()).await.unwrap()];
    for options in &options[1..] {
        nodes.push(timeout(LIMIT, Node::open(options.clone())).await.unwrap().unwrap());
    }
    for node in &nodes {
        knows(node, addresses).await;
    }
    nodes
}

fn addresses_of(options: &[Options]) -> Vec<String> {
    options[0].members.iter().map(|(_, address)| address.clone()).collect()
}

/// All members are stopped and started at new addresses. They find each other by the lists that they are given now, tell
/// the directory, and a client that knows one of the new ones reaches all.
async fn all_move(founders: bool, authority: Option<Authority>) {
    let dir = tempfile::tempdir().unwrap();
    let (options, nodes) = if founders {
        let options = keyed(members(3, Some(dir.path())), authority.as_ref());
        let nodes = open_all(&options).await;
        for node in &nodes {
            // With the old addresses, and durable.
            knows(node, &addresses_of(&options)).await;
        }
        (options, nodes)
    } else {
        let addresses = free_addresses(3);
        let options = keyed(joining(&addresses, dir.path()), authority.as_ref());
        (options.clone(), grown(&options, &addresses).await)
    };
    nodes[1].partition("p").put("k", "v").await.unwrap();
    close(nodes).await;

    let addresses = free_addresses(3);
    let nodes = open_all(&moved(&options, &addresses)).await;
    for node in &nodes {
        knows(node, &addresses).await;
        assert_eq!(get(node, "k").await.as_deref(), Some("v"));
    }
    let keys = authority.map(|authority| authority.keys(Role::Client, "client"));
    let caller = Options { join: vec![addresses[2].clone()], keys, ..client(&members(3, None)) };
    let caller = Node::open(caller).await.unwrap();
    for node in &nodes {
        let status = timeout(LIMIT, caller.status(node.whoami())).await.unwrap();
        assert_eq!(status.unwrap().member, node.whoami());
    }
    caller.close().await.unwrap();
    close(nodes).await;
}

#[tokio::test]
async fn founders_that_all_moved_find_each_other() {
    all_move(true, None).await;
}

#[tokio::test]
async fn founders_with_keys_that_all_moved_find_each_other() {
    all_move(true, Some(Authority::new())).await;
}

#[tokio::test]
async fn members_that_all_moved_find_each_other() {
    all_move(false, None).await;
}

#[tokio::test]
async fn members_with_keys_that_all_moved_find_each_other() {
    all_move(false, Some(Authority::new())).await;
}

/// One member comes back at another address, and nobody else is told but by itself.
async fn one_moves(authority: Option<Authority>) {
    let dir = tempfile::tempdir().unwrap();
    let options = keyed(members(3, Some(dir.path())), authority.as_ref());
    let mut nodes = open_all(&options).await;
    nodes.pop().unwrap().close().await.unwrap();
    nodes[0].partition("p").put("k", "v").await.unwrap();

    let mut addresses = addresses_of(&options);
    addresses[2] = free_addresses(1).remove(0);
    let mut there = options[2].clone();
    there.members[2].1.clone_from(&addresses[2]);
    nodes.push(Node::open(there).await.unwrap());
    for node in &nodes {
        knows(node, &addresses).await;
    }
    assert_eq!(get(&nodes[2], "k").await.as_deref(), Some("v"));

    // By a list that has its old place another one finds it too, as it knows the directory.
    nodes.remove(0).close().await.unwrap();
    nodes.push(Node::open(options[0].clone()).await.unwrap());
    for node in &nodes {
        knows(node, &addresses).await;
        assert_eq!(get(node, "k").await.as_deref(), Some("v"));
    }
    close(nodes).await;
}

#[tokio::test]
async fn a_member_that_moved_is_found() {
    one_moves(None).await;
}

#[tokio::test]
async fn a_member_with_keys_that_moved_is_found() {
    one_moves(Some(Authority::new())).await;
}

/// One joins while the cluster is split, and reaches but the side of the minority, on which the directory had its leader:
/// it is not let in, whatever that leader still takes itself for; the others go on without both. After the heal it is.
#[tokio::test]
async fn a_join_through_the_minority_waits_for_the_heal() {
    let dir = tempfile::tempdir().unwrap();
    let network = Arc::new(Network::default());
    let plugged = |options: Options, own: &str| Options {
        transport: Some(network.plug(own)),
        gossip: false,
        ..options
    };
    let mut founders = members(3, Some(dir.path()));
    for options in &mut founders {
        let own = options.members.iter().find(|(name, _)| *name == options.name).unwrap().1.clone();
        *options = plugged(options.clone(), &own);
    }
    let nodes = open_all(&founders).await;
    let mut addresses = addresses_of(&founders);
    for node in &nodes {
        knows(node, &addresses).await;
    }
    nodes[0].partition("p").put("k", "before").await.unwrap();

    let cut_off = directory_leader(&nodes).await;
    let (minority, fourth) = (addresses[cut_off].clone(), free_addresses(1).remove(0));
    network.split(&[&minority, &fourth]);
    let joins = Options {
        name: "n4".into(),
        listen: Some(fourth.clone()),
        join: addresses.clone(),
        data: Data::Dir(dir.path().join("n4")),
        ..quick()
    };
    let mut events = nodes[cut_off].events();
    let joining = tokio::spawn(Node::open(plugged(joins, &fourth)));
    let asked = async {
        let is_fourth = |id: MemberId| nodes.iter().all(|node| node.whoami() != id);
        let is_there =
            |event| matches!(event, Event::PeerConnected { member, .. } if is_fourth(member));
        while !is_there(events.next().await.unwrap()) {}
    };
    timeout(LIMIT, asked).await.expect("it reaches the minority");
    let others: Vec<&Node> =
        nodes.iter().enumerate().filter(|(n, _)| *n != cut_off).map(|(_, node)| node).collect();
    // Many times what an election takes, with one on each side.
    let until = Instant::now() + quick().timers.election_max * 8;
    while Instant::now() < until {
        others[0].partition("p").put("k", "meanwhile").await.unwrap();
        assert!(!joining.is_finished(), "a minority lets nobody in");
        sleep(Duration::from_millis(10)).await;
    }
    for node in &nodes {
        let table = node.directory().unwrap();
        assert_eq!(table.members.len(), 3, "{:?} knows no fourth: {table:?}", node.whoami());
    }

    network.heal();
    let joined = timeout(LIMIT, joining).await.expect("it joins").unwrap().unwrap();
    addresses.push(fourth);
    for node in nodes.iter().chain([&joined]) {
        knows(node, &addresses).await;
        assert_eq!(get(node, "k").await.as_deref(), Some("meanwhile"));
    }
    close(nodes).await;
    joined.close().await.unwrap();
}

/// Which of them leads the directory.
async fn directory_leader(nodes: &[Node]) -> usize {
    let found = async {
        loop {
            for (n, node) in nodes.iter().enumerate() {
                let groups = node.metrics().await.unwrap().status.groups;
                let mut directory = groups.iter().filter(|held| held.group == GroupId::DIRECTORY);
                if directory.any(|held| held.role == libring::Role::Leader) {
                    return n;
                }
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, found).await.expect("the directory has a leader")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let there = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &there);
        } else {
            fs::copy(entry.path(), there).unwrap();
        }
    }
}

/// One member's directory was copied, and both are started: the cluster goes on with one of them, and the other one
/// halts and says why. Whose directory lacks the last start that the others have seen is the one that halts.
async fn of_two_with_one_id_one_halts(copied_while_it_runs: bool) {
    let dir = tempfile::tempdir().unwrap();
    let options = members(3, Some(dir.path()));
    let mut nodes = open_all(&options).await;
    nodes[0].partition("p").put("k", "v").await.unwrap();
    let (original, twin) = (dir.path().join("n3"), dir.path().join("twin"));
    if copied_while_it_runs {
        copy(&original, &twin);
    } else {
        nodes.pop().unwrap().close().await.unwrap();
        copy(&original, &twin);
        nodes.push(Node::open(options[2].clone()).await.unwrap());
        assert_eq!(get(&nodes[2], "k").await.as_deref(), Some("v"), "it is back");
    }
    let listen = Some(free_addresses(1).remove(0));
    let twin = Options { data: Data::Dir(twin), listen, ..options[2].clone() };
    let twin = timeout(LIMIT, Node::open(twin)).await.unwrap();

    let halt = match twin {
        // It may hear of it before it is up, or after.
        Err(OpenError::Halted(halt)) if !copied_while_it_runs => halt,
        Err(error) => panic!("{error}"),
        Ok(mut halts) => {
            if copied_while_it_runs {
                std::mem::swap(&mut halts, &mut nodes[2]);
            }
            timeout(LIMIT, halts.halted()).await.expect("one of the two halts")
        }
    };
    assert!(matches!(halt, Halt::RolledBack { .. }), "{halt}");
    for (n, node) in nodes.iter().enumerate() {
        node.partition("p").put(n.to_string(), "w").await.unwrap();
        assert_eq!(get(node, "k").await.as_deref(), Some("v"));
    }
    close(nodes).await;
}

#[tokio::test]
async fn a_copy_of_a_member_that_was_started_since_halts() {
    of_two_with_one_id_one_halts(false).await;
}

#[tokio::test]
async fn a_member_whose_copy_was_started_halts() {
    of_two_with_one_id_one_halts(true).await;
}

/// Members of one machine that meet at Unix domain sockets: no port, no datagrams. Keys are as good there as elsewhere.
async fn meet_at_sockets(keys: Option<&Authority>) {
    let dir = tempfile::tempdir().unwrap();
    let address = |name: &str| format!("unix:{}", dir.path().join(name).display());
    let keyed = |role, name: &str| keys.map(|authority| authority.keys(role, name));
    let founders: Vec<_> = ["n1", "n2"].map(|name| (name.to_owned(), address(name))).into();
    let options = |name: &str| Options {
        name: name.into(),
        data: Data::Memory,
        keys: keyed(Role::Member, name),
        ..quick()
    };
    // What a process that was killed has left behind does not stand in the way.
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("n1")).unwrap());
    let two = ["n1", "n2"].map(|name| Options { members: founders.clone(), ..options(name) });
    let mut nodes = open_all(&two).await;
    let third = Options { listen: Some(address("n3")), join: vec![address("n1")], ..options("n3") };
    nodes.extend(open_all(&[third]).await);

    let join = vec![address("n2")];
    let client = Options { client: true, join, keys: keyed(Role::Client, "c"), ..options("c") };
    let client = Node::open(client).await.unwrap();
    client.partition("p").put("k", "v").await.unwrap();
    assert_eq!(nodes[2].partition("p").get("k").await.unwrap().unwrap().value, "v");
    assert!(nodes[0].datagrams().is_none() && nodes[0].address().is_none());

    // A socket at which somebody listens is not taken away.
    let again = Options { members: Vec::new(), listen: Some(address("n1")), ..options("n4") };
    let taken = Node::open(again).await.unwrap_err();
    assert!(matches!(taken, OpenError::Listen { .. }), "{taken}");
    for node in [client].into_iter().chain(nodes) {
        node.close().await.unwrap();
    }
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn members_meet_at_sockets() {
    meet_at_sockets(None).await;
}

#[tokio::test]
async fn members_meet_at_sockets_with_keys() {
    meet_at_sockets(Some(&Authority::new())).await;
}
