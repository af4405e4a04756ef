//! Small clusters of real nodes in one thread, with a disk and a network that do as they are told.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;

use bytes::Bytes;

mod alive;
mod directory;
mod gather;
mod local;
mod requests;
mod ring;
mod watch;

use super::*;
use crate::ids::{ConnId, RequestId, Revision, SegmentId};
use crate::io::{Action, Call, Consistency, Dial, Failure, Outbox, Reply, World, carry_out};
use crate::shard::Worker;
use crate::storage::record::Batch;
use crate::store::{MemoryStore, StoreTask};
use crate::wire::message::Role;

/// One member and what its world holds.
struct Member {
    node: Node,
    outbox: Outbox,
    worker: Worker<MemoryStore>,
    /// Appended and not stored.
    appended: Vec<Batch>,
    inputs: VecDeque<Input>,
    replies: BTreeMap<RequestId, Result<Reply, Failure>>,
    halt: Option<Halt>,
    events: Vec<Event>,
    effects: Vec<crate::request::Effect>,
    /// While set, appended batches are not stored.
    disk_stalls: bool,
}

impl Member {
    fn new(node: Node, worker: Worker<MemoryStore>) -> Self {
        Self {
            node,
            outbox: Outbox::new(),
            worker,
            appended: Vec::new(),
            inputs: VecDeque::new(),
            replies: BTreeMap::new(),
            halt: None,
            events: Vec::new(),
            effects: Vec::new(),
            disk_stalls: false,
        }
    }
}

/// Connections between members: who is at which end.
#[derive(Default)]
struct Net {
    ends: BTreeMap<ConnId, (usize, ConnId)>,
    next: u64,
    cut: bool,
    /// How often each address was dialled.
    dials: BTreeMap<String, u64>,
    /// They reach nobody, and nobody them.
    isolated: BTreeSet<usize>,
    /// They reach each other, and nobody else.
    aside: BTreeSet<usize>,
    /// They have no connections; datagrams pass.
    unlinked: BTreeSet<usize>,
    /// Nobody lets datagrams through; connections pass.
    no_datagrams: bool,
}

impl Net {
    fn carries(&self, from: usize, to: usize) -> bool {
        let same_side = self.aside.contains(&from) == self.aside.contains(&to);
        !self.cut && same_side && !self.isolated.contains(&from) && !self.isolated.contains(&to)
    }

    fn links(&self, from: usize, to: usize) -> bool {
        self.carries(from, to) && !self.unlinked.contains(&from) && !self.unlinked.contains(&to)
    }
}

struct Cluster {
    now: Now,
    members: Vec<Member>,
    net: Net,
    next_request: u64,
}

struct Effects<'a> {
    from: usize,
    net: &'a mut Net,
    addresses: &'a [String],
    deliver: Vec<(usize, Input)>,
    tasks: Vec<StoreTask>,
    appended: &'a mut Vec<Batch>,
    replies: &'a mut BTreeMap<RequestId, Result<Reply, Failure>>,
    events: &'a mut Vec<Event>,
    effects: &'a mut Vec<crate::request::Effect>,
    halt: &'a mut Option<Halt>,
}

impl World for Effects<'_> {
    fn connect(&mut self, dial: Dial, address: String) {
        *self.net.dials.entry(address.clone()).or_default() += 1;
        let address = address.replace("alias", "m");
        let to = self.addresses.iter().position(|known| *known == address);
        let Some(to) = to.filter(|&to| self.net.links(self.from, to)) else {
            self.deliver.push((self.from, Input::ConnectFailed { dial }));
            return;
        };
        let (here, there) = (ConnId(self.net.next), ConnId(self.net.next + 1));
        self.net.next += 2;
        self.net.ends.insert(here, (to, there));
        self.net.ends.insert(there, (self.from, here));
        self.deliver.push((self.from, Input::Connected { conn: here, dial: Some(dial) }));
        self.deliver.push((to, Input::Connected { conn: there, dial: None }));
    }
    fn disconnect(&mut self, conn: ConnId) {
        if let Some((to, there)) = self.net.ends.remove(&conn) {
            self.net.ends.remove(&there);
            self.deliver.push((to, Input::Disconnected { conn: there }));
        }
    }
    fn send(&mut self, conn: ConnId, message: Message) {
        let encoded = crate::wire::Encoder::new().push(&message);
        encoded.expect("no message is larger than the wire allows");
        if let Some(&(to, conn)) = self.net.ends.get(&conn)
            && self.net.links(self.from, to)
        {
            self.deliver.push((to, Input::Message { conn, message }));
        }
    }
    fn datagram(&mut self, to: SocketAddr, bytes: Vec<u8>) {
        let to = usize::from(to.port() - PORT);
        if self.net.carries(self.from, to) && !self.net.no_datagrams {
            let from = datagram_address(self.from);
            self.deliver.push((to, Input::Datagram { from, bytes }));
        }
    }
    fn append(&mut self, batch: Batch) {
        self.appended.push(batch);
    }
    fn discard(&mut self, _below: SegmentId) {}
    fn store(&mut self, task: StoreTask) {
        self.tasks.push(task);
    }
    fn reply(&mut self, request: RequestId, result: Result<Reply, Failure>) {
        assert!(self.replies.insert(request, result).is_none(), "one reply a call");
    }
    fn request(&mut self, effect: crate::request::Effect) {
        self.effects.push(effect);
    }
    fn event(&mut self, event: Event) {
        self.events.push(event);
    }
    fn halt(&mut self, reason: Halt) {
        *self.halt = Some(reason);
    }
}

fn config(names: &[String], name: &str) -> Config {
    let members = names.iter().map(|name| (name.clone(), name.clone())).collect();
    let place = names.iter().position(|known| known == name).unwrap();
    let gossip = Some(datagram_address(place));
    Config { name: name.to_string(), members, shards: 4, gossip, ..Config::default() }
}

/// Where the member at this place takes datagrams.
fn datagram_address(place: usize) -> SocketAddr {
    let port = PORT + u16::try_from(place).unwrap();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

const PORT: u16 = 7000;

impl Cluster {
    fn start(count: usize) -> Self {
        let names: Vec<String> = (0..count).map(|i| alloc::format!("m{i}")).collect();
        let now = Now { instant: Instant(1_000_000_000), wall_ms: 0 };
        let mut cluster = Self { now, members: Vec::new(), net: Net::default(), next_request: 1 };
        for (i, name) in names.iter().enumerate() {
            let seed = crate::ids::len_u64(i) + 100;
            let config = config(&names, name);
            let (worker, store) = Worker::new(MemoryStore::new(), &config.limits).unwrap();
            let restored = Restored { log: Recovered::default(), store };
            let node = Node::new(config, restored, seed, now).unwrap();
            cluster.members.push(Member::new(node, worker));
        }
        cluster
    }

    /// A client that knows this address only; its place.
    fn client(&mut self, address: &str, config: Config) -> usize {
        let members = alloc::vec![("x".to_string(), address.to_string())];
        let config = Config { name: "client".to_string(), client: true, members, ..config };
        let (worker, store) = Worker::new(MemoryStore::new(), &config.limits).unwrap();
        let restored = Restored { log: Recovered::default(), store };
        let node = Node::new(config, restored, 77, self.now).unwrap();
        self.members.push(Member::new(node, worker));
        self.members.len() - 1
    }

    /// What the log of a member says to its next start.
    fn log_of(&self, member: usize) -> Recovered {
        let node = &self.members[member].node;
        Recovered {
            birth: node.birth,
            genesis: node.genesis.clone(),
            founded: true,
            boot: node.boot,
            earlier: node.earlier.clone(),
            ..Recovered::default()
        }
    }

    /// The connections of such pairs break, and both ends hear of it.
    fn break_links(&mut self, between: impl Fn(usize, usize) -> bool) {
        let ends = core::mem::take(&mut self.net.ends);
        for (&conn, &(to, there)) in &ends {
            let (from, _) = ends[&there];
            if between(from, to) || between(to, from) {
                self.members[from].inputs.push_back(Input::Disconnected { conn });
            } else {
                self.net.ends.insert(conn, (to, there));
            }
        }
    }

    /// One turn of every member; true when anything happened.
    fn turn(&mut self) -> bool {
        let addresses: Vec<String> =
            (0..self.members.len()).map(|i| alloc::format!("m{i}")).collect();
        let mut busy = false;
        for i in 0..self.members.len() {
            let member = &mut self.members[i];
            busy |= !member.inputs.is_empty();
            for input in member.inputs.drain(..) {
                member.node.handle(self.now, input);
            }
            member.node.flush(self.now, &mut member.outbox);
            member.node.check();
            busy |= !member.outbox.outputs().is_empty();
            let mut world = Effects {
                from: i,
                net: &mut self.net,
                addresses: &addresses,
                deliver: Vec::new(),
                tasks: Vec::new(),
                appended: &mut member.appended,
                replies: &mut member.replies,
                events: &mut member.events,
                effects: &mut member.effects,
                halt: &mut member.halt,
            };
            carry_out(&mut member.outbox, &mut world);
            let (deliver, tasks) = (world.deliver, world.tasks);
            let mut done = Vec::new();
            member.worker.run(tasks, &mut done);
            member.inputs.extend(done.into_iter().map(Input::Store));
            if !member.disk_stalls
                && let Some(last) = member.appended.last()
            {
                member.inputs.push_back(Input::Stored { upto: last.seq });
                member.appended.clear();
            }
            for (to, input) in deliver {
                self.members[to].inputs.push_back(input);
            }
        }
        busy
    }

    fn settle(&mut self) {
        for _ in 0..1000 {
            if !self.turn() {
                return;
            }
        }
        panic!("the members never come to rest");
    }

    /// Lets time pass, from deadline to deadline.
    fn run(&mut self, time: Duration) {
        let end = self.now.instant + time;
        loop {
            self.settle();
            let next = self.members.iter().filter_map(|m| m.node.wakeup()).map(|w| w.at).min();
            match next {
                Some(at) if at <= end => self.now.instant = at.max(self.now.instant),
                Some(_) | None => break,
            }
        }
        self.now.instant = end;
    }

    fn submit(&mut self, member: usize, partition: &str, action: Action) -> RequestId {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        let deadline = self.now.instant + Duration::from_secs(10);
        let call = Call { deadline, partition: partition.to_string(), action };
        self.members[member].node.submit(self.now, request, call).unwrap();
        request
    }

    fn call(&mut self, member: usize, action: Action) -> Result<Reply, Failure> {
        let request = self.submit(member, "p", action);
        self.run(Duration::from_secs(11));
        self.members[member].replies.remove(&request).expect("answered by its deadline")
    }

    fn leaders(&self, group: GroupId) -> Vec<usize> {
        let leads = |i: &usize| {
            let view = self.members[*i].node.view();
            view.group(group).is_some_and(|group| group.raft().role() == Role::Leader)
        };
        (0..self.members.len()).filter(leads).collect()
    }
}

fn put(key: &'static str, value: &'static str) -> Action {
    Action::Put { key: Bytes::from(key), value: Bytes::from(value) }
}

fn get(key: &'static str) -> Action {
    Action::Get { key: Bytes::from(key), consistency: Consistency::Linearizable }
}

#[test]
fn a_cluster_of_one_answers_at_once() {
    let mut cluster = Cluster::start(1);
    cluster.run(Duration::from_secs(2));
    assert_eq!(cluster.leaders(GroupId(1)), [0]);
    let written = cluster.call(0, put("k", "v")).unwrap();
    assert_eq!(written, Reply::Written { revision: Revision(1) });
    let value = cluster.call(0, get("k")).unwrap();
    assert_eq!(value, Reply::Value(Some((Bytes::from("v"), Revision(1)))));
}

#[test]
fn three_members_found_one_cluster_and_any_answers() {
    let mut cluster = Cluster::start(3);
    cluster.run(Duration::from_secs(3));
    let ids: Vec<_> =
        cluster.members.iter().map(|m| m.node.view().genesis().unwrap().cluster).collect();
    assert_eq!(ids[0], ids[1]);
    assert_eq!(ids[0], ids[2]);
    for group in 1..=4 {
        assert_eq!(cluster.leaders(GroupId(group)).len(), 1, "one leader a group");
    }
    cluster.call(0, put("k", "v1")).unwrap();
    for member in 0..3 {
        let value = cluster.call(member, get("k")).unwrap();
        assert_eq!(value, Reply::Value(Some((Bytes::from("v1"), Revision(1)))));
    }
    let swap = Action::CompareAndSet {
        key: Bytes::from("k"),
        expect: crate::shard::command::Expect::Revision(Revision(1)),
        value: Some(Bytes::from("v2")),
    };
    let swapped = cluster.call(2, swap.clone()).unwrap();
    assert_eq!(swapped, Reply::Compared { swapped: true, revision: Revision(2) });
    let again = cluster.call(1, swap).unwrap();
    assert_eq!(again, Reply::Compared { swapped: false, revision: Revision(2) });
}

/// Leaderships go to the members that the placement prefers.
#[test]
fn leaderships_spread() {
    let mut cluster = Cluster::start(3);
    cluster.run(Duration::from_secs(30));
    for group in 1..=4 {
        let genesis = cluster.members[0].node.view().genesis().unwrap().clone();
        let preferred = genesis.preferred_leader(GroupId(group)).unwrap();
        let leader = cluster.leaders(GroupId(group))[0];
        assert_eq!(cluster.members[leader].node.view().me(), preferred);
    }
}

/// A leader counts its own copy only when its disk has it, and nobody is answered before a majority has.
#[test]
fn nothing_is_answered_before_a_majority_has_stored_it() {
    let mut cluster = Cluster::start(3);
    cluster.run(Duration::from_secs(30));
    for member in &mut cluster.members[1..] {
        member.disk_stalls = true;
    }
    let request = cluster.submit(0, "p", put("k", "v"));
    cluster.run(Duration::from_millis(400));
    assert!(!cluster.members[0].replies.contains_key(&request), "only one disk has it");
    cluster.members[1].disk_stalls = false;
    cluster.run(Duration::from_secs(5));
    let reply = cluster.members[0].replies.remove(&request).unwrap().unwrap();
    assert_eq!(reply, Reply::Written { revision: Revision(1) });
}

/// A write that was sent and not answered is unknown at its deadline; one that was never sent did not happen.
#[test]
fn deadlines_tell_what_can_have_happened() {
    let mut cluster = Cluster::start(3);
    cluster.run(Duration::from_secs(30));
    cluster.call(0, put("k", "v")).unwrap();
    cluster.net.cut = true;
    let sent = cluster.submit(0, "p", put("k", "w"));
    cluster.run(Duration::from_secs(11));
    let result = cluster.members[0].replies.remove(&sent).unwrap();
    let unsent = cluster.submit(0, "q", put("k", "w"));
    cluster.run(Duration::from_secs(11));
    let never = cluster.members[0].replies.remove(&unsent).unwrap();
    assert_eq!(never, Err(Failure::Deadline));
    assert!(matches!(result, Err(Failure::OutcomeUnknown | Failure::Deadline)), "{result:?}");

    cluster.net.cut = false;
    cluster.run(Duration::from_secs(30));
    cluster.call(0, put("k", "x")).unwrap();
    let value = cluster.call(1, get("k")).unwrap();
    let Reply::Value(Some((value, _))) = value else { panic!("{value:?}") };
    assert_eq!(value, "x", "what was given up does not apply later");
}

impl Cluster {
    /// Member `i` is started again on this log; all connections break.
    fn restart(&mut self, i: usize, log: Recovered) {
        let names: Vec<String> = (0..self.members.len()).map(|i| alloc::format!("m{i}")).collect();
        let config = config(&names, &names[i]);
        let (worker, store) = Worker::new(MemoryStore::new(), &config.limits).unwrap();
        self.next_request += 1;
        let node = Node::new(config, Restored { log, store }, self.next_request, self.now).unwrap();
        self.break_links(|_, _| true);
        let member = &mut self.members[i];
        member.node = node;
        member.worker = worker;
        member.inputs.clear();
        member.appended.clear();
    }
}

/// TRAPS R21: a member on an empty directory is told so by those who know it, and halts; whoever dialled.
#[test]
fn a_wiped_member_halts() {
    for i in 0..3 {
        let mut cluster = Cluster::start(3);
        cluster.run(Duration::from_secs(3));
        cluster.restart(i, Recovered::default());
        cluster.run(Duration::from_secs(5));
        assert_eq!(cluster.members[i].halt, Some(Halt::Wiped));
        assert!(cluster.members.iter().filter(|m| m.halt.is_some()).count() == 1);
    }
}

/// A directory that is older than what its peers have seen of it halts its member, also when both counted to the
/// same number of starts.
#[test]
fn a_rolled_back_member_halts() {
    for i in 0..3 {
        let mut cluster = Cluster::start(3);
        cluster.run(Duration::from_secs(3));
        let old = cluster.log_of(i);
        cluster.restart(i, old.clone());
        cluster.run(Duration::from_secs(5));
        assert_eq!(cluster.members[i].halt, None, "its second start");
        cluster.restart(i, old);
        cluster.run(Duration::from_secs(5));
        let halt = cluster.members[i].halt.clone();
        assert!(matches!(halt, Some(Halt::RolledBack { .. })), "{halt:?}");
    }
}

/// A directory that was put back is recognised however often it was started before it met a peer, and one that was
/// only started often is let in.
#[test]
fn starts_that_nobody_saw_hide_no_rollback() {
    for is_rolled_back in [true, false] {
        let mut cluster = Cluster::start(3);
        cluster.run(Duration::from_secs(3));
        let old = cluster.log_of(0);
        cluster.restart(0, old.clone());
        cluster.run(Duration::from_secs(5));
        let seen = cluster.members[0].node.boot;
        assert_eq!(cluster.members[1].node.boots[&MemberId(1)], seen);

        let mut unseen = match is_rolled_back {
            true => old,
            false => Recovered { boot: seen, earlier: old.starts(), ..old },
        };
        for drawn in 100..105 {
            unseen.earlier = unseen.starts();
            unseen.boot = unseen.boot.following(drawn);
        }
        cluster.restart(0, unseen);
        cluster.run(Duration::from_secs(5));
        let halt = cluster.members[0].halt.clone();
        assert_eq!(matches!(halt, Some(Halt::RolledBack { .. })), is_rolled_back, "{halt:?}");
    }
}

/// A start counts once it is durable with who has seen it, whichever connection brought it first.
#[test]
fn a_second_connection_waits_for_the_start_too() {
    let mut cluster = Cluster::start(3);
    cluster.run(Duration::from_secs(3));
    let log = cluster.log_of(0);
    cluster.members[1].disk_stalls = true;
    cluster.restart(0, log);
    let is_up = |cluster: &Cluster| cluster.members[1].node.links.conn_of(MemberId(1)).is_some();
    for _ in 0..3 {
        cluster.run(Duration::from_secs(1));
        let seen = cluster.members[1].node.boots[&MemberId(1)];
        assert_eq!(seen, cluster.members[0].node.boot, "they are connected");
        assert!(!is_up(&cluster));
        cluster.break_links(|_, _| true);
    }
    cluster.members[1].disk_stalls = false;
    cluster.run(Duration::from_secs(3));
    assert!(is_up(&cluster));
}

/// Who cannot talk is told why, and by the kind of it what to do; the connection is closed.
#[test]
fn strangers_are_refused_with_the_reason() {
    use crate::ids::ClusterId;
    use crate::wire::message::{Hello, Identity, Refusal};

    let mut cluster = Cluster::start(3);
    cluster.run(Duration::from_secs(3));
    let genesis = cluster.members[2].node.view().genesis().unwrap().clone();
    let birth = genesis.members[0].birth;
    let agreement = {
        let members = (1..).map(MemberId).zip(&genesis.members);
        let members = members.map(|(id, founder)| (id, (founder.name.clone(), None))).collect();
        crate::link::agreement("ring", &members, 4, 3)
    };
    let good = Identity {
        cluster_name: "ring".to_string(),
        cluster: Some(genesis.cluster),
        member: MemberId(1),
        name: "m0".to_string(),
        boot: Boot(9 << 32),
        earlier: Vec::new(),
        birth,
        agreement,
        ring: crate::ring::parameters(),
    };
    let hello = |who: Identity| Hello { version_min: 1, version_max: 1, who };
    let with = |change: &dyn Fn(&mut Identity)| {
        let mut who = good.clone();
        change(&mut who);
        hello(who)
    };
    let seen = cluster.members[2].node.boots[&MemberId(1)];
    let me = &cluster.members[2].node;
    let cases = [
        (
            Hello { version_min: 2, version_max: 9, ..hello(good.clone()) },
            Refusal::Version { min: 1, max: 1 },
        ),
        (
            with(&|who| who.cluster_name = "other".to_string()),
            Refusal::ClusterName { expected: "ring".to_string() },
        ),
        (
            with(&|who| who.cluster = Some(ClusterId(1))),
            Refusal::Cluster { expected: genesis.cluster },
        ),
        (with(&|who| who.ring = 1), Refusal::Ring),
        (with(&|who| who.agreement = 1), Refusal::Agreement),
        (with(&|who| who.member = MemberId(9)), Refusal::Stranger),
        (with(&|who| who.name = "m1".to_string()), Refusal::Stranger),
        (with(&|who| who.member = MemberId(3)), Refusal::Twin),
        (
            hello(Identity { boot: me.boot, birth: me.birth, member: me.me, ..good.clone() }),
            Refusal::Itself,
        ),
        (with(&|who| who.birth = 1), Refusal::Wiped),
        (with(&|who| who.boot = Boot(0)), Refusal::RolledBack { seen }),
        (with(&|who| who.earlier = alloc::vec![!seen.drawn(); 9]), Refusal::RolledBack { seen }),
    ];
    for (number, (hello, reason)) in (1000..).zip(cases) {
        let conn = ConnId(number);
        let node = &mut cluster.members[2].node;
        node.handle(cluster.now, Input::Connected { conn, dial: None });
        node.handle(cluster.now, Input::Message { conn, message: Message::Hello(Box::new(hello)) });
        let mut out = Outbox::new();
        node.flush(cluster.now, &mut out);
        let refuse = Output::Send { conn, message: Message::Refuse(reason.clone()) };
        assert!(out.outputs().contains(&refuse), "{reason:?}: {:?}", out.outputs());
        assert!(out.outputs().contains(&Output::Disconnect { conn }));
    }
}

/// A connection that does not shake hands in time is closed, and there are never more of them than allowed.
#[test]
fn silence_is_not_waited_for() {
    let mut cluster = Cluster::start(3);
    cluster.run(Duration::from_secs(3));
    let node = &mut cluster.members[2].node;
    let strangers = node.config.limits.strangers;
    for number in 0..strangers + 1 {
        let conn = ConnId(1000 + crate::ids::len_u64(number));
        node.handle(cluster.now, Input::Connected { conn, dial: None });
    }
    let closed = |node: &mut Node, now| {
        let mut out = Outbox::new();
        node.flush(now, &mut out);
        let close = |output: &&Output| matches!(output, Output::Disconnect { .. });
        out.outputs().iter().filter(close).count()
    };
    assert_eq!(closed(node, cluster.now), 1, "one too many");
    let mut later = cluster.now;
    later.instant = later.instant + node.config.timers.handshake;
    assert_eq!(closed(node, later), strangers + 2, "and the two links, silent as long");
}

/// More than fits one message is sent in several, and all of it is done.
#[test]
fn a_flood_of_large_values_is_sent_in_parts() {
    let mut cluster = Cluster::start(3);
    cluster.run(Duration::from_secs(30));
    let value = Bytes::from(alloc::vec![7; 1 << 20]);
    let requests: Vec<RequestId> = (0..40_u32)
        .map(|i| {
            let key = Bytes::copy_from_slice(&i.to_be_bytes());
            cluster.submit(0, "p", Action::Put { key, value: value.clone() })
        })
        .collect();
    cluster.run(Duration::from_secs(9));
    for request in requests {
        let reply = cluster.members[0].replies.remove(&request);
        assert!(matches!(reply, Some(Ok(Reply::Written { .. }))), "{reply:?}");
    }
}

/// Two values that each are allowed and together fit no message are refused before anything happens.
#[test]
fn a_comparison_of_large_values_is_refused() {
    let mut cluster = Cluster::start(1);
    cluster.run(Duration::from_secs(3));
    let big = Bytes::from(alloc::vec![7; 8 << 20]);
    let action = Action::CompareAndSet {
        key: Bytes::from("k"),
        expect: crate::shard::command::Expect::Value(Some(big.clone())),
        value: Some(big),
    };
    let deadline = cluster.now.instant + Duration::from_secs(1);
    let call = Call { deadline, partition: "p".to_string(), action };
    let refused = cluster.members[0].node.submit(cluster.now, RequestId(1000), call);
    assert!(matches!(refused, Err(crate::io::Refused::TooLarge { .. })), "{refused:?}");
}

/// A late answer to a question of this member's last life is not taken for one of this life.
#[test]
fn an_answer_to_an_earlier_life_is_not_taken() {
    let mut cluster = Cluster::start(5);
    cluster.run(Duration::from_secs(30));
    let genesis = cluster.members[0].node.view().genesis().unwrap().clone();
    let membership = genesis.membership(crate::ring::shard_of(b"p", 4));
    let is_outside =
        |i: &usize| membership.on_member(cluster.members[*i].node.view().me()).is_none();
    let outside = (0..5).find(is_outside).unwrap();
    let inside = (0..5).find(|i| *i != outside).unwrap();
    cluster.call(inside, put("x", "value of x")).unwrap();
    cluster.call(inside, put("y", "value of y")).unwrap();
    cluster.restart(outside, cluster.log_of(outside));
    cluster.run(Duration::from_secs(3));
    cluster.submit(outside, "p", get("x"));
    let is_read = |input: &Input| matches!(input, Input::Store(StoreDone::Read { .. }));
    let mut late = None;
    while late.is_none() {
        cluster.turn();
        late = (0..5).find_map(|i| {
            let inputs = &mut cluster.members[i].inputs;
            let place = inputs.iter().position(is_read)?;
            Some((i, inputs.remove(place).unwrap()))
        });
    }
    cluster.restart(outside, cluster.log_of(outside));
    cluster.run(Duration::from_millis(300));
    let request = cluster.submit(outside, "p", get("y"));
    let (member, answer) = late.unwrap();
    cluster.members[member].inputs.push_back(answer);
    cluster.run(Duration::from_secs(1));

    let reply = &cluster.members[outside].replies[&request];
    let Ok(Reply::Value(Some((value, _)))) = reply else { panic!("{reply:?}") };
    assert_eq!(value, "value of y");
}

/// Only those whom a member dialled, or whom it knows, can tell it that its directory is void.
#[test]
fn a_strangers_refusal_halts_nobody() {
    use crate::wire::message::Refusal;

    let mut cluster = Cluster::start(3);
    cluster.run(Duration::from_secs(3));
    let conn = ConnId(100_000);
    let node = &mut cluster.members[0].node;
    node.handle(cluster.now, Input::Connected { conn, dial: None });
    let message = Message::Refuse(Refusal::Wiped);
    node.handle(cluster.now, Input::Message { conn, message });
    assert!(!node.view().is_halted());
}

/// A client that was told another address of a member than the members use keeps one connection to it.
#[test]
fn two_addresses_of_one_member_are_one_link() {
    let mut cluster = Cluster::start(3);
    cluster.run(Duration::from_secs(3));
    cluster.client("alias0", Config::default());
    cluster.run(Duration::from_secs(10));
    let is_connected = |event: &&Event| matches!(event, Event::PeerConnected { .. });
    assert_eq!(cluster.members[3].events.iter().filter(is_connected).count(), 3);
}

/// A call ends at its deadline even while the member waits for its disk to begin.
#[test]
fn a_deadline_holds_before_the_first_sync() {
    let mut cluster = Cluster::start(1);
    cluster.members[0].disk_stalls = true;
    let request = cluster.submit(0, "p", put("k", "v"));
    cluster.run(Duration::from_secs(11));
    assert_eq!(cluster.members[0].replies.get(&request), Some(&Err(Failure::Deadline)));
}

/// The store's snapshot for a scan that nobody continues is given up.
#[test]
fn an_abandoned_scan_is_closed() {
    let mut cluster = Cluster::start(1);
    cluster.run(Duration::from_secs(3));
    for key in ["a", "b", "c"] {
        cluster.call(0, put(key, "v")).unwrap();
    }
    let (from, to, reverse, limit) = (Bytes::new(), None, false, 1);
    let consistency = Consistency::Local;
    cluster.submit(0, "p", Action::Scan { from, to, reverse, limit, consistency });
    cluster.run(Duration::from_secs(1));
    assert_eq!(cluster.members[0].node.cursors.len(), 1);
    cluster.now.instant = cluster.now.instant + Duration::from_secs(31);
    let member = &mut cluster.members[0];
    member.node.flush(cluster.now, &mut member.outbox);
    let is_close = |output: &Output| matches!(output, Output::Store(StoreTask::CloseCursor { .. }));
    assert!(member.outbox.outputs().iter().any(is_close));
    assert!(member.node.cursors.is_empty());
}

/// A connection that the network lost without telling anyone is noticed, and dialled again.
#[test]
fn a_silent_link_is_broken_off() {
    let mut cluster = Cluster::start(3);
    cluster.run(Duration::from_secs(30));
    let events = |cluster: &Cluster, i: usize| {
        let is_lost = |event: &&Event| matches!(event, Event::PeerDisconnected { .. });
        cluster.members[i].events.iter().filter(is_lost).count()
    };
    assert_eq!(events(&cluster, 0), 0, "an idle link lives");
    cluster.net.cut = true;
    cluster.run(Duration::from_secs(3));
    assert_eq!(events(&cluster, 0), 0);
    cluster.run(Duration::from_secs(2));
    assert_eq!(events(&cluster, 0), 2);
    cluster.net.cut = false;
    cluster.run(Duration::from_secs(10));
    cluster.call(0, put("k", "v")).unwrap();
}

/// What no message or no directory could hold is refused before anything is started, with the field's name.
#[test]
fn configurations_that_cannot_be_used_are_refused() {
    let check = |change: &dyn Fn(&mut Config)| {
        let mut config = config(&["m0".to_string(), "m1".to_string()], "m0");
        change(&mut config);
        super::calls::validate(&config).err().map(|error| error.field)
    };
    let long = "m".repeat(256);
    assert_eq!(check(&|_| {}), None);
    assert_eq!(check(&|config| config.limits.members = 1024), None);
    assert_eq!(check(&|config| config.limits.members = 1025), Some("limits"));
    assert_eq!(check(&|config| config.limits.members = 0), Some("limits"));
    for bad in ["", "a\nb", "\u{0}7", &long] {
        assert_eq!(check(&|config| config.cluster = bad.to_string()), Some("cluster"));
        assert_eq!(check(&|config| config.name = bad.to_string()), Some("name"));
        assert_eq!(check(&|config| config.members[1].0 = bad.to_string()), Some("members"));
    }
    for bad in ["a\tb", &long] {
        assert_eq!(check(&|config| config.address = bad.to_string()), Some("address"));
        assert_eq!(check(&|config| config.members[1].1 = bad.to_string()), Some("members"));
    }
}
