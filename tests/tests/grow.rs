//! Clusters that change while they are written to and asked: nothing acknowledged is lost, and no request is left
//! unanswered.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use libring::{GroupId, Node, Table};
use serde_json::{Value, json};
use tests::PATIENCE;
use tests::askers::Askers;
use tests::journal::{Journal, Tally};
use tests::load::{self, Load, Shape};
use tests::members::Members;
use tests::network::Network;
use tests::skip::skip;
use tokio::runtime::Runtime;

/// One member begins, is written to and asked; two join, and every shard has three replicas; each is killed and comes
/// back, the one that the client was told of first; one is stopped where it is for a while; one loses its disk, comes
/// back under its name and is whole again; a fourth joins and the very first leaves. All the while writes and requests
/// go on, every acknowledged write is there in the end, and every request was answered.
#[test]
fn a_cluster_grows_and_changes_under_load() {
    grows_and_changes(Members::joining(4, SHARDS));
}

#[test]
fn a_cluster_with_keys_grows_and_changes_under_load() {
    grows_and_changes(Members::joining(4, SHARDS).with_keys());
}

fn grows_and_changes(mut members: Members) {
    members.start(0);
    members.wait_up(0);
    let run = Run::begin(&members, &[0]);
    run.go_on();

    for k in [1, 2] {
        run.journal.fault("join", &members.name(k));
        members.start(k);
        members.wait_up(k);
    }
    run.settled(&["member-1", "member-2", "member-3"]);
    wait_shown(&members, 3);
    run.go_on();

    for k in 0..3 {
        run.journal.fault("kill -9", &members.name(k));
        members.kill(k);
        run.go_on();
        members.start(k);
        members.wait_up(k);
        run.settled(&["member-1", "member-2", "member-3"]);
    }

    run.journal.fault("SIGSTOP", &members.name(1));
    members.program(1).freeze();
    run.go_on();
    members.program(1).thaw();
    run.go_on();

    run.journal.fault("wipe", &members.name(2));
    members.kill(2);
    fs::remove_dir_all(members.data(2)).expect("the directory is ours");
    run.go_on();
    members.start(2);
    members.wait_up(2);
    run.settled(&["member-1", "member-2", "member-3"]);
    run.go_on();

    run.journal.fault("join", &members.name(3));
    members.start(3);
    members.wait_up(3);
    run.settled(&["member-1", "member-2", "member-3", "member-4"]);
    run.journal.fault("leave", &members.name(0));
    let left = members.run(&["leave", "member-1"]);
    assert!(left.ok().contains("member-1 has left"), "{left:?}");
    let gone = members.take(0);
    gone.wait_exit().ok();
    assert!(gone.output().contains("has left: it holds nothing any more"), "{}", gone.output());
    run.settled(&["member-2", "member-3", "member-4"]);
    run.go_on();

    drop(run.end(&["member-1", "member-2", "member-3", "member-4"]));
    let listed = members.run(&["members"]);
    assert!(!listed.ok().contains("member-1 "), "{listed:?}");
    wait_shown(&members, 3);
}

/// Each member in turn is stopped in good order and started again, twice: no write and no request is lost, and none
/// fails.
#[test]
fn a_rolling_restart_loses_nothing() {
    rolling_restart(Members::new(3, SHARDS));
}

#[test]
fn a_rolling_restart_of_members_with_keys_loses_nothing() {
    rolling_restart(Members::new(3, SHARDS).with_keys());
}

fn rolling_restart(mut members: Members) {
    members.start_all();
    members.wait_led();
    let run = Run::begin(&members, &[0, 1, 2]);
    run.go_on();
    for k in (0..3).chain(0..3) {
        run.journal.fault("restart", &members.name(k));
        members.stop(k);
        run.go_on();
        members.start(k);
        members.wait_up(k);
        members.wait_led();
        run.go_on();
    }
    let tally = run.end(&["member-1", "member-2", "member-3"]);
    assert!(tally.failed.is_empty(), "{:?}", tally.failed);
    assert_eq!(tally.unknown, 0, "a write is sent again to whoever leads next");
}

/// Members in networks of their own, with keys: one is cut off while it is written to and asked, the others go on, one
/// more joins meanwhile, and what the first missed is there after the heal. Then another.
#[test]
fn a_member_that_was_cut_off_is_whole_again() {
    let network = match Network::new(4) {
        Ok(network) => network,
        Err(why) => {
            skip("a_member_that_was_cut_off_is_whole_again", &why);
            return;
        }
    };
    let mut members = Members::joining(4, SHARDS).in_network(network).with_keys();
    for k in 0..3 {
        members.start(k);
        members.wait_up(k);
    }
    let run = Run::begin(&members, &[0]);
    run.settled(&["member-1", "member-2", "member-3"]);
    let all = ["member-1", "member-2", "member-3", "member-4"];
    for k in [0, 2] {
        run.journal.fault("cut", &members.name(k));
        members.network().cut(k);
        run.go_on();
        if k == 0 {
            run.journal.fault("join", &members.name(3));
            members.start(3); // through the one that is cut off, too
            members.wait_up(3);
        }
        run.journal.fault("heal", &members.name(k));
        members.network().heal(k);
        // Away for long enough to be replaced or not: it is one of them again.
        run.settled(&all);
        members.wait_led();
        run.go_on();
    }
    drop(run.end(&all));
}

/// A load, and the client that it comes from.
struct Run {
    runtime: Runtime,
    client: Node,
    journal: Arc<Journal>,
    load: Load,
    askers: Askers,
}

impl Run {
    /// By a client that is told of these members.
    fn begin(members: &Members, known: &[usize]) -> Self {
        let runtime = Runtime::new().expect("worker threads can be started");
        let client = runtime.block_on(members.client_through(known));
        let history: PathBuf = members.dir().join("history.jsonl");
        let journal = Arc::new(Journal::create(&history, json!({ "shards": SHARDS })));
        let load = Load::start(&runtime, &client, &journal, LOAD);
        let askers = Askers::start(&runtime, &client);
        Self { runtime, client, journal, load, askers }
    }

    /// Waits until something was written to each partition that was begun after this call, and requests were answered
    /// that were.
    fn go_on(&self) {
        self.journal.await_puts(&load::partitions(PARTITIONS));
        let _ = self.journal.wait_puts();
        self.askers.go_on(REQUESTS);
    }

    fn settled(&self, names: &[&str]) {
        self.runtime.block_on(settled(&self.client, names));
    }

    /// Every acknowledged write is there, and every request was answered, some by each of these members; what became of
    /// the writes.
    fn end(self, names: &[&str]) -> Tally {
        self.load.stop(&self.runtime);
        let answers = self.askers.end(&self.runtime);
        eprintln!("the longest request took {:?}, answered by {:?}", answers.worst, answers.by);
        assert!(names.iter().all(|&name| answers.by.contains_key(name)), "{:?}", answers.by);
        let found = self.runtime.block_on(load::scan_all(&self.client, PARTITIONS));
        self.journal.flush();
        let tally = self.journal.tally();
        tally.judge(&found);
        eprintln!("{} writes acknowledged and all found", tally.acknowledged.len());
        tally
    }
}

/// Waits until these members are registered and every shard has a voter on min(3, members) of them, with nothing on
/// the move.
async fn settled(client: &Node, names: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    let mut events = client.events();
    loop {
        let table = client.directory();
        if table.as_deref().is_some_and(|table| is_settled(table, names)) {
            return;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let news = tokio::time::timeout(left, events.next()).await;
        assert!(news.is_ok(), "{names:?} are not settled: {table:#?}");
    }
}

/// Waits until `ring status` shows all shards with a leader and so many replicas, nothing on the move and nothing that
/// is not as it should be.
fn wait_shown(members: &Members, replicas: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = members.run(&["status", "--json"]);
        let said: Value = serde_json::from_str(&status.stdout).expect("JSON was asked for");
        let shards = said["shards"].as_array().expect("a list of shards");
        let whole = shards.iter().filter(|shard| {
            let held = shard["replicas"].as_array().expect("a list of replicas");
            !shard["leader"].is_null() && held.len() == replicas
        });
        let is_whole = whole.count() == usize::try_from(SHARDS).expect("few");
        let is_quiet = said["directory"]["moving"] == 0 && said["problems"] == json!([]);
        if status.code == Some(0) && is_whole && is_quiet {
            return;
        }
        assert!(Instant::now() < deadline, "not {replicas} replicas everywhere: {status:?}");
    }
}

fn is_settled(table: &Table, names: &[&str]) -> bool {
    let mut listed: Vec<&str> = table.members.iter().map(|member| member.name.as_str()).collect();
    listed.sort_unstable();
    let shards = table.groups.iter().filter(|group| group.group != GroupId::DIRECTORY);
    listed == names
        && table.moving() == 0
        && shards.clone().count() == usize::try_from(SHARDS).expect("few")
        && shards.clone().all(|group| group.voters.len() == names.len().min(3))
}

const SHARDS: u32 = 8;
const PARTITIONS: usize = 8;
/// Enough of them that each asker came to several members.
const REQUESTS: usize = 100;
const LOAD: Shape = Shape { partitions: PARTITIONS, writers: 8, bytes_max: 0 };
