//! Requests to real processes that are killed, stopped and closed: every one is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use libring::{Error, Node, Request};
use tests::PATIENCE;
use tests::members::Members;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// Askers that ask the owners of many keys who they are, one request after another.
struct Load {
    askers: JoinSet<Vec<(Duration, Result<String, Error>)>>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
}

/// How long a request may take: longer than a silent connection is believed.
const DEADLINE: Duration = Duration::from_secs(20);
const ASKERS: u64 = 16;

impl Load {
    fn start(runtime: &Runtime, client: &Node) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut askers = JoinSet::new();
        for asker in 0..ASKERS {
            let (client, stop, answered) =
                (client.clone(), Arc::clone(&stop), Arc::clone(&answered));
            let ask = async move {
                let mut seen = Vec::new();
                for n in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let began = Instant::now();
                    let key = format!("key {}", (asker + n * ASKERS) % 97);
                    let request = Request::new("monitoring/info").deadline(DEADLINE);
                    let result = client.request(key, request).await;
                    let by = result.map(|r| String::from_utf8_lossy(&r.body).into_owned());
                    seen.push((began.elapsed(), by));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                seen
            };
            askers.spawn_on(ask, runtime.handle());
        }
        Self { askers, stop, answered }
    }

    /// Waits until so many more were answered.
    fn go_on(&self, count: u64) {
        let until = self.answered.load(Ordering::Relaxed) + count;
        let deadline = Instant::now() + PATIENCE;
        while self.answered.load(Ordering::Relaxed) < until {
            assert!(Instant::now() < deadline, "requests are not answered any more");
            std::thread::yield_now();
        }
    }

    /// Ends it: every request was answered with success. Gives the longest time that one took, and how many were
    /// answered by each of these members.
    fn end(mut self, runtime: &Runtime, names: &[String]) -> (Duration, Vec<usize>) {
        self.stop.store(true, Ordering::Relaxed);
        let mut worst = Duration::ZERO;
        let mut by = vec![0; names.len()];
        runtime.block_on(async {
            while let Some(seen) = self.askers.join_next().await {
                for (took, result) in seen.expect("an asker does not panic") {
                    let info = result.unwrap_or_else(|e| panic!("a request failed: {e}"));
                    worst = worst.max(took);
                    for (name, count) in names.iter().zip(&mut by) {
                        *count += usize::from(info.contains(&format!("\"name\":\"{name}\"")));
                    }
                }
            }
        });
        (worst, by)
    }
}

fn start(members: &mut Members, runtime: &Runtime) -> (Node, Vec<String>) {
    members.start_all();
    let client = runtime.block_on(members.client());
    let names = (0..3).map(|k| members.name(k)).collect();
    let deadline = Instant::now() + PATIENCE;
    while client.ring().owners(0, 10).len() < 3 {
        assert!(Instant::now() < deadline, "the client is not connected to all");
        std::thread::yield_now();
    }
    (client, names)
}

/// kill -9 of an owner, again and again: its keys' requests go to the next, and come back with it.
#[test]
fn no_request_is_lost_when_an_owner_is_killed() {
    let runtime = Runtime::new().expect("worker threads can be started");
    let mut members = Members::new(3, 4);
    let (client, names) = start(&mut members, &runtime);
    let load = Load::start(&runtime, &client);
    load.go_on(500);
    for k in 0..3 {
        members.kill(k);
        load.go_on(500);
        members.start(k);
        members.wait_up(k);
        load.go_on(500);
    }
    let (worst, by) = load.end(&runtime, &names);
    eprintln!("killed: the longest request took {worst:?}, answered by {by:?}");
    assert!(by.iter().all(|&count| count > 0), "each answered some: {by:?}");
}

/// SIGSTOP of an owner: its connections are open and silent. What was sent to it is answered by another as soon as the
/// silence is noticed; what comes after that at once.
#[test]
fn no_request_is_lost_when_an_owner_is_stopped() {
    let runtime = Runtime::new().expect("worker threads can be started");
    let mut members = Members::new(3, 4);
    let (client, names) = start(&mut members, &runtime);
    let load = Load::start(&runtime, &client);
    load.go_on(500);
    members.program(1).freeze();
    load.go_on(3000);
    members.program(1).thaw();
    load.go_on(3000);
    let (worst, by) = load.end(&runtime, &names);
    eprintln!("stopped: the longest request took {worst:?}, answered by {by:?}");
    assert!(worst < DEADLINE, "{worst:?}");
}

/// A member that is stopped in good order loses no request either.
#[test]
fn no_request_is_lost_when_members_are_restarted_one_by_one() {
    let runtime = Runtime::new().expect("worker threads can be started");
    let mut members = Members::new(3, 4);
    let (client, names) = start(&mut members, &runtime);
    let load = Load::start(&runtime, &client);
    for k in 0..3 {
        members.stop(k);
        load.go_on(500);
        members.start(k);
        members.wait_up(k);
        load.go_on(500);
    }
    let (worst, _) = load.end(&runtime, &names);
    eprintln!("restarted: the longest request took {worst:?}");
}

/// The command line asks owners, members and leaders, and says what came of it.
#[test]
fn the_command_line_asks() {
    let mut members = Members::new(3, 4);
    members.start_all();
    members.wait_led();
    let info = members.run(&["request", "monitoring/info", "--member", "member-2"]);
    assert!(info.ok().contains("\"name\":\"member-2\""), "{info:?}");
    let memory = members.run(&["request", "monitoring/memory", "--key", "some key", "--json"]);
    assert!(memory.ok().contains("resident"), "{memory:?}");
    let leader = members.run(&["request", "monitoring/info", "--partition", "p"]);
    assert!(leader.ok().contains("\"id\":"), "{leader:?}");
    let missing = members.run(&["request", "nobody/handles/this", "--key", "k"]);
    assert_eq!(missing.code, Some(5), "{missing:?}");
    assert!(missing.stderr.contains("nobody handles this route"), "{missing:?}");
    let nowhere = members.run(&["request", "monitoring/info"]);
    assert_eq!(nowhere.code, Some(2), "{nowhere:?}");
    let stranger = members.run(&["request", "monitoring/info", "--member", "nobody"]);
    assert_eq!(stranger.code, Some(2), "{stranger:?}");
}
