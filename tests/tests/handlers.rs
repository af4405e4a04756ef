//! Members are killed, stopped where they are and closed while an application's handlers run on them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use libring::{
    Call, Error, MemberId, Node, Options, Request, RequestFailure, StreamReader, StreamWriter, Way,
};
use tests::PATIENCE;
use tests::handled::{self, ByToken, ECHO, RECORD, STREAM, TAKES, WORK};
use tests::lock;
use tests::members::Members;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Each member in turn is interrupted while it handles requests and streams: a request that may be tried again is
/// answered all the same; one for once is answered or its outcome is unknown, and no member handles it a second time;
/// an open stream breaks, and those of others go on.
#[test]
fn handlers_are_interrupted() {
    interrupt(Members::new(3, 4));
}

#[test]
fn handlers_of_members_with_keys_are_interrupted() {
    interrupt(Members::new(3, 4).with_keys());
}

/// What is done to a member while its handlers run.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    Freeze,
    Close,
}

fn interrupt(members: Members) {
    let mut members = members.running(env!("CARGO_BIN_EXE_handler"));
    let record = members.dir().join("handled");
    members.set_env(RECORD, &record);
    members.start_all();
    let runtime = Runtime::new().expect("worker threads can be started");
    let options = Options { timers: handled::timers(), ..members.client_options(&[0, 1, 2]) };
    let client = runtime.block_on(members.client_with(options));
    runtime.block_on(all_own_keys(&client));
    let load = Load::start(&runtime, &client);
    let mut interrupted = BTreeMap::new();
    for (k, fault) in [Fault::Kill, Fault::Freeze, Fault::Close].into_iter().enumerate() {
        interrupted.insert(k, befall(&runtime, &client, &mut members, &load, (k, fault)));
    }
    let outcomes = load.end(&runtime);
    judge(&outcomes, &handled::read(&record), &interrupted);
    for k in 0..3 {
        members.stop(k);
    }
}

/// Does this to a member while its handlers run, and lets it return. Gives what was interrupted.
fn befall(
    runtime: &Runtime,
    client: &Node,
    members: &mut Members,
    load: &Load,
    (k, fault): (usize, Fault),
) -> BTreeSet<String> {
    let record = members.dir().join("handled");
    let name = members.name(k);
    let (victim, other) = (id(k), id((k + 1) % 3));
    let mut open: Vec<Echo> =
        (0..STREAMS).map(|_| runtime.block_on(Echo::open(client, victim))).collect();
    let mut others = runtime.block_on(Echo::open(client, other));

    runtime.block_on(until(
        || under_way(&record, &name).len() >= 4,
        &format!("{name} handles several requests at once"),
    ));
    match fault {
        Fault::Kill => members.kill(k),
        Fault::Freeze => members.program(k).freeze(),
        Fault::Close => members.stop(k),
    }
    let began = Instant::now();
    let interrupted = under_way(&record, &name);
    assert!(!interrupted.is_empty(), "{fault:?} came while no handler ran");
    for echo in &mut open {
        runtime.block_on(echo.breaks(fault));
    }
    let took = began.elapsed();
    eprintln!(
        "{fault:?}: {} handlers interrupted, streams broke after {took:?}",
        interrupted.len()
    );
    runtime.block_on(others.works());
    runtime.block_on(load.go_on());

    let before = begun_by(&record, &name);
    match fault {
        Fault::Kill | Fault::Close => {
            members.start(k);
            members.wait_up(k);
        }
        Fault::Freeze => members.program(k).thaw(),
    }
    let is_back = || begun_by(&record, &name) >= before + CALLERS;
    runtime.block_on(until(is_back, &format!("{name} handles requests again")));
    runtime.block_on(others.works());
    runtime.block_on(load.go_on());
    interrupted
}

/// Compares what callers were told with what was handled.
fn judge(
    outcomes: &BTreeMap<String, Outcome>,
    handled: &ByToken,
    interrupted: &BTreeMap<usize, BTreeSet<String>>,
) {
    for (token, outcome) in outcomes {
        let all = handled.get(token).map_or(&[][..], |all| &all[..]);
        let ids: BTreeSet<&String> = all.iter().map(|one| &one.id).collect();
        assert!(ids.len() <= 1, "{token} has one id: {all:?}");
        let is_once = token.starts_with(ONCE);
        assert!(!is_once || all.len() <= 1, "{token} was handled twice: {all:?}");
        match outcome {
            Outcome::Answered => {
                assert!(all.iter().any(|one| one.is_done), "{token} was answered: {all:?}");
            }
            Outcome::Unknown => assert!(is_once, "{token} may be tried again: {all:?}"),
            Outcome::Failed(error) => panic!("{token}: {error}, {all:?}"),
        }
    }
    for token in interrupted.values().flatten() {
        let (outcome, all) = (&outcomes[token], &handled[token]);
        if token.starts_with(ONCE) {
            assert!(matches!(outcome, Outcome::Unknown), "{token}: {outcome:?}, {all:?}");
        } else {
            assert!(all.len() > 1 && all[1].attempt > all[0].attempt, "{token}: {all:?}");
        }
    }
    let kinds = |once: bool| {
        let tokens = interrupted.values().flatten();
        tokens.filter(|token| token.starts_with(ONCE) == once).count()
    };
    assert!(kinds(true) > 0 && kinds(false) > 0, "both kinds were interrupted: {interrupted:?}");
    eprintln!(
        "{} requests, {} once and {} others interrupted",
        outcomes.len(),
        kinds(true),
        kinds(false)
    );
}

/// What a caller was told.
#[derive(Clone, Debug)]
enum Outcome {
    Answered,
    Unknown,
    Failed(String),
}

impl Outcome {
    fn is_failed(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

/// Callers that ask for work, one request after another; every second one asks for it once.
struct Load {
    callers: JoinSet<()>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    act: AtomicU64,
    /// Whose requests that began in the act were answered.
    answered: Mutex<BTreeSet<usize>>,
    outcomes: Mutex<BTreeMap<String, Outcome>>,
}

impl Load {
    fn start(runtime: &Runtime, client: &Node) -> Self {
        let shared = Arc::new(Shared::default());
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let asks = ask(caller, client.clone(), Arc::clone(&shared));
            callers.spawn_on(asks, runtime.handle());
        }
        Self { callers, shared }
    }

    /// Waits until each caller was told the outcome of a request that began after this call.
    async fn go_on(&self) {
        self.shared.act.fetch_add(1, Ordering::SeqCst);
        lock(&self.shared.answered).clear();
        let all = || {
            let outcomes = lock(&self.shared.outcomes);
            let failed = outcomes.iter().find(|(_, outcome)| outcome.is_failed());
            assert!(failed.is_none(), "{failed:?}");
            let answered = lock(&self.shared.answered);
            (0..CALLERS).all(|caller| answered.contains(&caller))
        };
        until(all, "every caller goes on").await;
    }

    /// Lets them end what they are at; what they were told.
    fn end(mut self, runtime: &Runtime) -> BTreeMap<String, Outcome> {
        self.shared.stop.store(true, Ordering::Relaxed);
        runtime.block_on(async {
            while let Some(ended) = self.callers.join_next().await {
                ended.expect("a caller does not panic");
            }
        });
        lock(&self.shared.outcomes).clone()
    }
}

async fn ask(caller: usize, client: Node, shared: Arc<Shared>) {
    for n in 0.. {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let act = shared.act.load(Ordering::SeqCst);
        let is_once = caller.is_multiple_of(2);
        let token = format!("{}-{caller}-{n}", if is_once { ONCE } else { AGAIN });
        let request = Request::new(WORK).body(token.clone());
        let request = if is_once { request.once() } else { request };
        let outcome = match client.request(format!("key {}", caller + n * CALLERS), request).await {
            Ok(response) if response.body == token => Outcome::Answered,
            Ok(response) => Outcome::Failed(format!("answered with {:?}", response.body)),
            Err(error) if error.is_outcome_unknown() => Outcome::Unknown,
            Err(error) => Outcome::Failed(error.to_string()),
        };
        let is_failed = outcome.is_failed();
        lock(&shared.outcomes).insert(token, outcome);
        if is_failed {
            return;
        }
        if act == shared.act.load(Ordering::SeqCst) {
            let mut answered = lock(&shared.answered);
            answered.insert(caller);
        }
    }
}

/// A stream of which each piece comes back.
struct Echo {
    call: Option<Call>,
    reader: StreamReader,
    writer: StreamWriter,
}

impl Echo {
    async fn open(client: &Node, member: MemberId) -> Self {
        let deadline = PATIENCE;
        let request = Request::new(ECHO).stream(STREAM, Way::Both).deadline(deadline);
        let mut call = client.call_member(member, request).expect("it is well formed");
        let reader = call.reader(STREAM).expect("asked for");
        let writer = call.writer(STREAM).expect("asked for");
        let mut echo = Self { call: Some(call), reader, writer };
        echo.works().await;
        echo
    }

    async fn works(&mut self) {
        self.writer.write("x").await.expect("it is open");
        let piece = timeout(NOTICED, self.reader.next()).await.expect("it is answered soon");
        assert_eq!(piece.expect("it is open").expect("not at its end"), "x");
    }

    /// Both ends break soon, and the request that it belongs to is not tried again.
    async fn breaks(&mut self, fault: Fault) {
        let call = self.call.take().expect("a stream breaks once");
        let all = async {
            let ends = (self.reader.next().await, self.writer.broken().await);
            (ends.0, ends.1, call.response().await)
        };
        let ended = timeout(NOTICED, all).await;
        let (read, _, response) = ended.unwrap_or_else(|_| panic!("{fault:?}: still open"));
        read.expect_err("it is broken, and not at its end");
        let response = response.expect_err("it was not answered");
        assert_eq!(response, Error::Request(RequestFailure::OutcomeUnknown), "{fault:?}");
    }
}

/// What a member has begun to handle and not ended.
fn under_way(record: &PathBuf, member: &str) -> BTreeSet<String> {
    let handled = handled::read(record);
    let is_under_way =
        |all: &Vec<handled::Handled>| all.iter().any(|one| one.member == member && !one.is_done);
    let open = handled.iter().filter(|(_, all)| is_under_way(all));
    open.map(|(token, _)| token.clone()).collect()
}

/// How often a member has begun to handle something.
fn begun_by(record: &PathBuf, member: &str) -> usize {
    let handled = handled::read(record);
    handled.values().flatten().filter(|one| one.member == member).count()
}

async fn all_own_keys(client: &Node) {
    until(|| client.ring().owners(0, 3).len() == 3, "all members own keys").await;
}

/// Waits until something is so.
async fn until(is_so: impl Fn() -> bool, what: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(AGAIN_AFTER).await;
    }
}

/// Founders have ids counted from 1.
fn id(k: usize) -> MemberId {
    MemberId(u64::try_from(k + 1).expect("few"))
}

const CALLERS: usize = 24;
const STREAMS: usize = 4;
const ONCE: &str = "once";
const AGAIN: &str = "again";
/// What is not told is asked again: the record is a file.
const AGAIN_AFTER: Duration = Duration::from_millis(10);
/// A fault is noticed within this: a silent connection is believed for 2 s, and machines are slow.
const NOTICED: Duration = Duration::from_secs(8);

const _: () = assert!(TAKES.as_millis() >= 100, "long enough to be interrupted");
