//! Requests and streams when a member dies, is closed, or its connections are cut or fall silent.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::keys::Authority;
use common::proxy::Proxy;
use common::{members, open_all};
use libring::security::Role;
use libring::{
    Broken, Error, Event, Incoming, Limits, MemberId, Node, Request, RequestFailure, Way,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Long enough for anything that does not hang.
const LIMIT: Duration = Duration::from_secs(60);
/// A fault is noticed, and what was waiting is answered or ends, within this: a silent link is believed for 3 s, and
/// machines are slow.
const NOTICED: Duration = Duration::from_secs(10);
/// What a request may take that says nothing else: it must not be what ends one.
const DEADLINE: Duration = Duration::from_secs(20);

/// Three members, each reached through a proxy.
struct Cluster {
    nodes: Vec<Node>,
    proxies: Vec<Proxy>,
    silence: Duration,
}

/// What happens to the last member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// As if its process had been killed.
    Dropped,
    /// It ends in good order.
    Closed,
    /// It lives, and all connections are lost.
    Cut,
    /// It lives, and nothing comes through any connection any more.
    Silent,
}

const FATES: [Fate; 4] = [Fate::Dropped, Fate::Closed, Fate::Cut, Fate::Silent];

impl Cluster {
    async fn open(authority: Option<&Authority>, limits: Limits) -> Self {
        let mut options = members(3, None);
        let proxies = common::behind_proxies(&mut options).await;
        for options in &mut options {
            let name = options.name.clone();
            options.keys = authority.map(|authority| authority.keys(Role::Member, &name));
            options.limits = limits.clone();
            options.deadline = DEADLINE;
            // Machines stop for more than a second, and no link may be lost that nobody hurt.
            options.timers.election_max = Duration::from_millis(750);
        }
        let cluster = Self {
            nodes: open_all(&options).await,
            proxies,
            silence: options[0].timers.election_max * 4,
        };
        cluster.linked().await;
        cluster
    }

    /// Waits until all members own keys, as each of them sees it.
    async fn linked(&self) {
        let all = async {
            while self.nodes.iter().any(|node| node.ring().owners(0, 10).len() < 3) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LIMIT, all).await.expect("connected");
    }

    /// The last member meets its fate. One that lives on is given back.
    async fn befalls(&mut self, fate: Fate) -> Option<Node> {
        let last = self.nodes.pop().unwrap();
        match fate {
            Fate::Dropped => drop(last),
            Fate::Closed => last.close().await.unwrap(),
            Fate::Cut => {
                self.cut();
                return Some(last);
            }
            Fate::Silent => {
                self.carry(false);
                return Some(last);
            }
        }
        None
    }

    fn cut(&self) {
        for proxy in &self.proxies {
            proxy.cut();
        }
    }

    /// Nothing goes through these proxies, until those who ask whoever can answer have gone on and so many members have
    /// lost a link; then all of it. Datagrams pass: gossip goes on to call all members alive, and only the silence of
    /// their links tells.
    async fn falls_silent(&self, silent: &[&Proxy], losers: usize, askers: &Askers) {
        let mut losing = JoinSet::new();
        for node in &self.nodes {
            losing.spawn(loses(node.events()));
        }
        for proxy in silent {
            proxy.carry(false);
        }
        // What began before may end only when the bytes go on; what began afterwards must not wait for that.
        askers.go_on(Kind::goes_elsewhere).await;
        for _ in 0..losers {
            losing.join_next().await.unwrap().unwrap();
        }
        for proxy in silent {
            proxy.carry(true);
        }
        self.linked().await;
        askers.go_on(|_| true).await;
    }

    fn carry(&self, carries: bool) {
        for proxy in &self.proxies {
            proxy.carry(carries);
        }
    }

    async fn close(self, last: Option<Node>) {
        self.carry(true);
        for node in self.nodes.into_iter().chain(last) {
            node.close().await.unwrap();
        }
    }
}

/// A key that this member owns.
fn key_of(node: &Node) -> String {
    let keys = (0..).map(|n: u32| format!("key {n}"));
    keys.into_iter().find(|key| node.is_mine(key)).unwrap()
}

/// Whatever happens to the owner of a key while it handles a request: the request is handled again, by another member
/// or by the same, which sees that it is a retry.
#[tokio::test]
async fn a_request_survives_its_owner() {
    for fate in FATES {
        let mut cluster = Cluster::open(None, Limits::default()).await;
        let (begun, mut begins) = mpsc::unbounded_channel();
        for (n, node) in cluster.nodes.iter().enumerate() {
            let begun = begun.clone();
            let handler = move |incoming: Incoming| {
                let begun = begun.clone();
                async move {
                    begun.send((n, incoming.attempt(), incoming.id()))?;
                    if incoming.attempt() == 1 {
                        std::future::pending::<()>().await;
                    }
                    Ok("done")
                }
            };
            node.handle("work", handler).unwrap();
        }
        let (key, caller) = (key_of(&cluster.nodes[2]), cluster.nodes[0].clone());
        let call = tokio::spawn(async move { caller.request(key, Request::new("work")).await });
        let (first, attempt, id) = begins.recv().await.unwrap();
        assert_eq!((first, attempt), (2, 1));
        let last = cluster.befalls(fate).await;
        let response = timeout(NOTICED, call).await.unwrap_or_else(|_| panic!("{fate:?}"));
        assert_eq!(response.unwrap().unwrap().body, "done");
        let (second, attempt, again) = begins.recv().await.unwrap();
        assert!(attempt > 1 && (second < 2 || fate == Fate::Cut), "{fate:?}: by {second}");
        assert_eq!(id, again);
        cluster.close(last).await;
    }
}

/// A request for once, whatever happens to its owner meanwhile, says that it may have happened, and is not handled again.
#[tokio::test]
async fn a_request_for_once_is_not_handled_again() {
    for fate in FATES {
        let mut cluster = Cluster::open(None, Limits::default()).await;
        let (begun, mut begins) = mpsc::unbounded_channel();
        for node in &cluster.nodes {
            let begun = begun.clone();
            let handler = move |_: Incoming| {
                let begun = begun.clone();
                async move {
                    begun.send(())?;
                    std::future::pending::<()>().await;
                    Ok("")
                }
            };
            node.handle("work", handler).unwrap();
        }
        let (key, caller) = (key_of(&cluster.nodes[2]), cluster.nodes[0].clone());
        let request = Request::new("work").once();
        let call = tokio::spawn(async move { caller.request(key, request).await });
        begins.recv().await.unwrap();
        let last = cluster.befalls(fate).await;
        let result = timeout(NOTICED, call).await.unwrap_or_else(|_| panic!("{fate:?}")).unwrap();
        let unknown = Error::Request(RequestFailure::OutcomeUnknown);
        assert_eq!(result.unwrap_err(), unknown, "{fate:?}");
        assert!(unknown.is_outcome_unknown());
        cluster.close(last).await;
        assert!(begins.try_recv().is_err(), "{fate:?}: handled once");
    }
}

/// With streams nothing is tried again: all ends with an error.
#[tokio::test]
async fn streams_break_with_their_owner() {
    for fate in FATES {
        let mut cluster = Cluster::open(None, Limits::default()).await;
        for node in &cluster.nodes {
            let handler = |mut incoming: Incoming| async move {
                let (mut from, mut to) =
                    (incoming.reader("s").unwrap(), incoming.writer("s").unwrap());
                while let Some(part) = from.next().await? {
                    to.write(part).await?;
                }
                Ok("the end")
            };
            node.handle("echo", handler).unwrap();
        }
        let request = Request::new("echo").stream("s", Way::Both);
        let key = key_of(&cluster.nodes[2]);
        let mut call = cluster.nodes[0].call(key, request).unwrap();
        let (mut reader, mut writer) = (call.reader("s").unwrap(), call.writer("s").unwrap());
        writer.write("x").await.unwrap();
        assert_eq!(reader.next().await.unwrap().unwrap(), "x");
        let last = cluster.befalls(fate).await;
        let all = async { (reader.next().await, writer.broken().await, call.response().await) };
        let ended = timeout(NOTICED, all).await.unwrap_or_else(|_| panic!("{fate:?}: open"));
        let unknown = Error::Request(RequestFailure::OutcomeUnknown);
        assert_eq!((ended.0, ended.1), (Err(Broken::Lost), Broken::Lost), "{fate:?}");
        assert_eq!(ended.2.unwrap_err(), unknown, "{fate:?}");
        cluster.close(last).await;
    }
}

/// A caller that is gone, and not just tired of waiting, is told to its handler, its streams break, and the place that
/// its request held is another's.
#[tokio::test]
async fn a_handler_hears_that_its_caller_is_gone() {
    for fate in FATES {
        let limits = Limits { handlers: 1, ..Limits::default() };
        let mut cluster = Cluster::open(None, limits).await;
        let (begun, mut begins) = mpsc::unbounded_channel();
        let (told, mut tells) = mpsc::unbounded_channel();
        let handler = move |mut incoming: Incoming| {
            let (begun, told) = (begun.clone(), told.clone());
            async move {
                let (mut from, mut to) =
                    (incoming.reader("s").unwrap(), incoming.writer("s").unwrap());
                begun.send(())?;
                incoming.cancelled().await;
                told.send((from.next().await, to.write("x").await))?;
                Ok("")
            }
        };
        cluster.nodes[0].handle("wait", handler).unwrap();
        cluster.nodes[0].handle("next", |_: Incoming| async { Ok("served") }).unwrap();
        let request = Request::new("wait").stream("s", Way::Both);
        let call = cluster.nodes[2].call(key_of(&cluster.nodes[0]), request).unwrap();
        timeout(LIMIT, begins.recv()).await.expect("it is handled").unwrap();
        let handles = cluster.nodes[0].whoami();
        let next = || Request::new("next").once().deadline(Duration::from_millis(200));
        let busy = cluster.nodes[1].request_to(handles, next()).await;
        assert!(busy.is_err(), "its place is taken");

        let last = cluster.befalls(fate).await;
        let told = timeout(NOTICED, tells.recv()).await.unwrap_or_else(|_| panic!("{fate:?}"));
        let told = told.unwrap();
        assert!(matches!(told, (Err(_), Err(_))), "{fate:?}: {told:?}");
        cluster.carry(true);
        let next = Request::new("next").deadline(NOTICED);
        let served = cluster.nodes[1].request_to(handles, next).await;
        assert_eq!(served.unwrap().body, "served", "{fate:?}: its place is free");
        drop(call);
        cluster.close(last).await;
    }
}

/// What a load of requests asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// The owner of a key; tried again.
    Owner,
    /// The owner of a key; never tried again.
    Once,
    /// The owner of a key, without an answer.
    Fire,
    /// One member; tried again.
    Member,
    /// The leader of a partition; tried again.
    Leader,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Owner, Self::Once, Self::Fire, Self::Member, Self::Leader];

    /// Whether others can answer in place of whom it is for.
    fn goes_elsewhere(self) -> bool {
        matches!(self, Self::Owner | Self::Once | Self::Fire)
    }
}

/// Requests of every kind from all members, one after another, of which none may stay unanswered.
struct Askers {
    tasks: JoinSet<()>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    act: AtomicU64,
    /// By asker, how many requests were answered that began in the act.
    answered: Mutex<BTreeMap<usize, usize>>,
    worst: Mutex<BTreeMap<Kind, Duration>>,
}

impl Askers {
    fn start(nodes: &[Node]) -> Self {
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        let members: Vec<MemberId> = nodes.iter().map(Node::whoami).collect();
        for asker in 0..ASKERS {
            let (node, shared) = (nodes[asker % 3].clone(), Arc::clone(&shared));
            let members = members.clone();
            tasks.spawn(async move {
                let kind = kind_of(asker);
                for asked in 0.. {
                    if shared.stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let (act, began) = (shared.act.load(Ordering::SeqCst), Instant::now());
                    ask(&node, kind, members[asked % 3], format!("{asker} {asked}")).await;
                    let mut worst = shared.worst.lock().unwrap();
                    let worst = worst.entry(kind).or_default();
                    *worst = began.elapsed().max(*worst);
                    let mut answered = shared.answered.lock().unwrap();
                    if act == shared.act.load(Ordering::SeqCst) {
                        *answered.entry(asker).or_default() += 1;
                    }
                }
            });
        }
        Self { tasks, shared }
    }

    /// Waits until each of those asked for had many requests answered that began after this call.
    async fn go_on(&self, whom: impl Fn(Kind) -> bool) {
        self.shared.answered.lock().unwrap().clear();
        self.shared.act.fetch_add(1, Ordering::SeqCst);
        let all = async {
            loop {
                let answered = self.shared.answered.lock().unwrap().clone();
                let missing = (0..ASKERS).filter(|asker| whom(kind_of(*asker)));
                let many = |asker| answered.get(&asker).is_some_and(|count| *count >= 10);
                if missing.into_iter().all(many) {
                    return;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        let ended = timeout(LIMIT, all).await;
        ended.unwrap_or_else(|_| panic!("not all go on: {:?}", self.shared.answered.lock()));
    }

    /// Lets them end what they are at; gives the longest time that one took, by kind.
    async fn end(mut self) -> BTreeMap<Kind, Duration> {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = timeout(LIMIT, self.tasks.join_next()).await.expect("all end") {
            ended.unwrap();
        }
        self.shared.worst.lock().unwrap().clone()
    }
}

fn kind_of(asker: usize) -> Kind {
    // All members ask in every way.
    Kind::ALL[asker / 3 % Kind::ALL.len()]
}

/// One request; it ends as it may.
async fn ask(node: &Node, kind: Kind, member: MemberId, body: String) {
    let request = Request::new("work").body(body.clone()).deadline(LIMIT);
    let response = match kind {
        Kind::Owner => node.request(body.clone(), request).await,
        Kind::Once => match node.request(body.clone(), request.once()).await {
            Err(error) if error.is_outcome_unknown() => return,
            ended => ended,
        },
        Kind::Fire => return node.fire(body, request).await.unwrap(),
        Kind::Member => node.request_to(member, request).await,
        Kind::Leader => node.partition(&body).request(request).await,
    };
    assert_eq!(response.unwrap_or_else(|e| panic!("{kind:?}: {e}")).body, body);
}

/// Waits until a member has lost a link.
async fn loses(mut events: libring::Events) {
    let lost =
        async { while !matches!(events.next().await.unwrap(), Event::PeerDisconnected { .. }) {} };
    timeout(LIMIT, lost).await.expect("a silent link is not believed for ever");
}

/// Connections between members that live are cut, while many requests are under way and after a time without any; and
/// they fall silent: no request stays without an answer, during and after.
async fn no_request_stays_unanswered(authority: Option<Authority>) {
    let cluster = Cluster::open(authority.as_ref(), Limits::default()).await;
    for node in &cluster.nodes {
        let handler = |incoming: Incoming| async move {
            sleep(Duration::from_millis(5)).await;
            Ok(incoming.body().clone())
        };
        node.handle("work", handler).unwrap();
    }
    let askers = Askers::start(&cluster.nodes);
    askers.go_on(|_| true).await;
    // The one link, or the two, of which both ends know.
    let busiest = cluster.proxies.iter().max_by_key(|proxy| proxy.connections()).unwrap();
    cluster.falls_silent(&[busiest], 2, &askers).await;
    for round in 0..8_u64 {
        // Young connections, and older ones.
        sleep(Duration::from_millis(30 * (1 + round % 4))).await;
        cluster.cut();
    }
    cluster.linked().await;
    askers.go_on(|_| true).await;
    let all: Vec<&Proxy> = cluster.proxies.iter().collect();
    cluster.falls_silent(&all, 3, &askers).await;
    let worst = askers.end().await;
    let bounded = |(kind, took): (&Kind, &Duration)| !kind.goes_elsewhere() || *took < NOTICED;
    assert!(worst.iter().all(bounded), "{worst:?}");

    // No request was on them for longer than a silent one is believed.
    sleep(cluster.silence + cluster.silence / 4).await;
    for kind in Kind::ALL {
        cluster.cut();
        for node in &cluster.nodes {
            for other in &cluster.nodes {
                let began = Instant::now();
                ask(node, kind, other.whoami(), key_of(other)).await;
                let took = began.elapsed();
                assert!(took < NOTICED, "{kind:?}, the first after a cut, took {took:?}");
            }
        }
    }
    cluster.close(None).await;
}

#[tokio::test]
async fn cut_connections_leave_no_request_unanswered() {
    no_request_stays_unanswered(None).await;
}

#[tokio::test]
async fn cut_connections_with_keys_leave_no_request_unanswered() {
    no_request_stays_unanswered(Some(Authority::new())).await;
}

const ASKERS: usize = 30;
