//! Clusters that change while they are written to: nothing acknowledged is lost.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use libring::{GroupId, Node, Table};
use serde_json::json;
use tests::PATIENCE;
use tests::journal::{Journal, Tally};
use tests::load::{self, Load, Shape};
use tests::members::Members;
use tests::network::Network;
use tests::skip::skip;
use tokio::runtime::Runtime;

/// One member begins and is written to; two join, and every shard has three replicas; one is killed and comes back;
/// one loses its disk, comes back under its name and is whole again; a fourth joins and the very first leaves. Then
/// every acknowledged write is there.
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
    let run = Run::begin(&members);
    run.go_on();

    for k in [1, 2] {
        run.journal.fault("join", &members.name(k));
        members.start(k);
        members.wait_up(k);
    }
    run.settled(&["member-1", "member-2", "member-3"]);
    run.go_on();

    run.journal.fault("kill -9", &members.name(1));
    members.kill(1);
    run.go_on();
    members.start(1);
    members.wait_up(1);
    run.settled(&["member-1", "member-2", "member-3"]);

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

    drop(run.end());
    let listed = members.run(&["members"]);
    assert!(!listed.ok().contains("member-1 "), "{listed:?}");
    let status = members.run(&["status"]);
    assert!(status.ok().contains("nothing on the move"), "{status:?}");
}

/// Each member in turn is stopped in good order and started again, twice: no write is lost, and none fails.
#[test]
fn a_rolling_restart_loses_no_write() {
    rolling_restart(Members::new(3, SHARDS));
}

#[test]
fn a_rolling_restart_of_members_with_keys_loses_no_write() {
    rolling_restart(Members::new(3, SHARDS).with_keys());
}

fn rolling_restart(mut members: Members) {
    members.start_all();
    members.wait_led();
    let run = Run::begin(&members);
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
    let tally = run.end();
    assert!(tally.failed.is_empty(), "{:?}", tally.failed);
    assert_eq!(tally.unknown, 0, "a write is sent again to whoever leads next");
}

/// Members in networks of their own, with keys: one is cut off while it is written to, the others go on, and what it
/// missed is there after the heal. Then another.
#[test]
fn a_member_that_was_cut_off_is_whole_again() {
    let network = match Network::new(3) {
        Ok(network) => network,
        Err(why) => {
            skip("a_member_that_was_cut_off_is_whole_again", &why);
            return;
        }
    };
    let mut members = Members::joining(3, SHARDS).in_network(network).with_keys();
    for k in 0..3 {
        members.start(k);
        members.wait_up(k);
    }
    let run = Run::begin(&members);
    let all = ["member-1", "member-2", "member-3"];
    run.settled(&all);
    for k in [0, 2] {
        run.journal.fault("cut", &members.name(k));
        members.network().cut(k);
        run.go_on();
        run.journal.fault("heal", &members.name(k));
        members.network().heal(k);
        // Away for long enough to be replaced or not: it is one of the three again.
        run.settled(&all);
        members.wait_led();
        run.go_on();
    }
    drop(run.end());
}

/// A load, and the client that it comes from.
struct Run {
    runtime: Runtime,
    client: Node,
    journal: Arc<Journal>,
    load: Load,
}

impl Run {
    fn begin(members: &Members) -> Self {
        let runtime = Runtime::new().expect("worker threads can be started");
        let client = runtime.block_on(members.client());
        let history: PathBuf = members.dir().join("history.jsonl");
        let journal = Arc::new(Journal::create(&history, json!({ "shards": SHARDS })));
        let load = Load::start(&runtime, &client, &journal, LOAD);
        Self { runtime, client, journal, load }
    }

    /// Waits until something was written to each partition that was begun after this call.
    fn go_on(&self) {
        self.journal.await_puts(&load::partitions(PARTITIONS));
        let _ = self.journal.wait_puts();
    }

    fn settled(&self, names: &[&str]) {
        self.runtime.block_on(settled(&self.client, names));
    }

    /// Every acknowledged write is there; what became of all of them.
    fn end(self) -> Tally {
        self.load.stop(&self.runtime);
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
const LOAD: Shape = Shape { partitions: PARTITIONS, writers: 8, bytes_max: 0 };
