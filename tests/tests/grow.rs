//! A cluster of one grows to three, loses members and disks, shrinks again, all under load: nothing acknowledged is lost.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use libring::{GroupId, Node, Table};
use serde_json::json;
use tests::PATIENCE;
use tests::journal::Journal;
use tests::load::{self, Load, Shape};
use tests::members::Members;
use tests::program::run_ring;
use tokio::runtime::Runtime;

/// One member begins and is written to; two join, and every shard has three replicas; one is killed and comes back;
/// one loses its disk, comes back under its name and is whole again; a fourth joins and the very first leaves. Then
/// every acknowledged write is there.
#[test]
fn a_cluster_grows_and_changes_under_load() {
    let runtime = Runtime::new().expect("worker threads can be started");
    let mut members = Members::joining(4, SHARDS);
    members.start(0);
    members.wait_up(0);
    let client = runtime.block_on(members.client());
    let history = members.dir().join("history.jsonl");
    let journal = Arc::new(Journal::create(&history, json!({ "shards": SHARDS })));
    let load = Load::start(&runtime, &client, &journal, LOAD);
    let go_on = || {
        journal.await_puts(&load::partitions(PARTITIONS));
        let _ = journal.wait_puts();
    };
    go_on();

    for k in [1, 2] {
        journal.fault("join", &members.name(k));
        members.start(k);
        members.wait_up(k);
    }
    let whole = |names: &[&str]| runtime.block_on(settled(&client, names));
    whole(&["member-1", "member-2", "member-3"]);
    go_on();

    journal.fault("kill -9", &members.name(1));
    members.kill(1);
    go_on();
    members.start(1);
    members.wait_up(1);
    whole(&["member-1", "member-2", "member-3"]);

    journal.fault("wipe", &members.name(2));
    members.kill(2);
    fs::remove_dir_all(members.data(2)).expect("the directory is ours");
    go_on();
    members.start(2);
    members.wait_up(2);
    whole(&["member-1", "member-2", "member-3"]);
    go_on();

    journal.fault("join", &members.name(3));
    members.start(3);
    members.wait_up(3);
    whole(&["member-1", "member-2", "member-3", "member-4"]);
    journal.fault("leave", &members.name(0));
    let left = run_ring(&["--connect", &members.addresses(), "leave", "member-1"]);
    assert!(left.ok().contains("member-1 has left"), "{left:?}");
    let gone = members.take(0);
    gone.wait_exit().ok();
    assert!(gone.output().contains("has left: it holds nothing any more"), "{}", gone.output());
    whole(&["member-2", "member-3", "member-4"]);
    go_on();

    load.stop(&runtime);
    let found = runtime.block_on(load::scan_all(&client, PARTITIONS));
    journal.flush();
    let tally = journal.tally();
    tally.judge(&found);
    eprintln!("{} writes acknowledged and all found", tally.acknowledged.len());
    let listed = run_ring(&["--connect", &members.addresses(), "members"]);
    assert!(!listed.ok().contains("member-1 "), "{listed:?}");
    let status = run_ring(&["--connect", &members.addresses(), "status"]);
    assert!(status.ok().contains("nothing on the move"), "{status:?}");
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
