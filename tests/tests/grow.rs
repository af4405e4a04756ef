//! Clusters that change while they are written to and asked: nothing acknowledged is lost, and no request is left
//! unanswered.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use libring::Node;
use serde_json::{Value, json};
use tests::PATIENCE;
use tests::askers::Askers;
use tests::followers::Followers;
use tests::journal::{Journal, Tally};
use tests::load::{self, Load, Shape};
use tests::members::Members;
use tests::network::Network;
use tests::program::Program;
use tests::skip::skip;
use tests::whole::{self, Ids};
use tokio::runtime::Runtime;

/// One member begins, is written to and asked; two join, and every shard has three replicas; each is killed and comes
/// back, the one that the client was told of first; one is stopped where it is for a while; one loses its disk, comes
/// back under its name and is whole again; a fourth joins and the very first leaves. Then the others leave too, until
/// only what the wiped one was given again is left. All the while writes and requests go on, every acknowledged write is
/// there in the end, and every request was answered.
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
        run.fault("join", &members.name(k));
        members.start(k);
        members.wait_up(k);
    }
    run.whole(&["member-1", "member-2", "member-3"]);
    wait_shown(&members, 3);
    run.go_on();

    for k in 0..3 {
        run.fault("kill -9", &members.name(k));
        members.kill(k);
        run.go_on();
        members.start(k);
        members.wait_up(k);
        run.whole(&["member-1", "member-2", "member-3"]);
    }

    run.fault("SIGSTOP", &members.name(1));
    members.program(1).freeze();
    run.go_on();
    members.program(1).thaw();
    run.go_on();

    let before = run.whole(&["member-1", "member-2", "member-3"]);
    run.fault("wipe", &members.name(2));
    members.kill(2);
    fs::remove_dir_all(members.data(2)).expect("the directory is ours");
    run.go_on();
    members.start(2);
    members.wait_up(2);
    let after = run.whole(&["member-1", "member-2", "member-3"]);
    assert_ne!(after["member-3"], before["member-3"], "on another directory it is another member");
    run.go_on();

    run.fault("join", &members.name(3));
    members.start(3);
    members.wait_up(3);
    run.whole(&["member-1", "member-2", "member-3", "member-4"]);
    leave(&run, &mut members, 0);
    run.whole(&["member-2", "member-3", "member-4"]);
    run.go_on();
    let listed = members.run(&["members"]);
    assert!(!listed.ok().contains("member-1 "), "{listed:?}");
    wait_shown(&members, 3);

    leave(&run, &mut members, 1);
    run.whole(&["member-3", "member-4"]);
    leave(&run, &mut members, 3);
    run.whole(&["member-3"]);
    run.go_on();
    // A majority would hide what the wiped one was not given.
    drop(run.end(&["member-1", "member-2", "member-3", "member-4"]));
}

/// Each shard has a single replica: a member that left without handing on what it held would have taken it along.
#[test]
fn a_member_that_leaves_is_drained_first() {
    let mut members = Members::joining(2, SHARDS).replicated(1);
    for k in [0, 1] {
        members.start(k);
        members.wait_up(k);
    }
    let run = Run::begin(&members, &[0, 1]);
    run.whole(&["member-1", "member-2"]);
    let held = |name: &str| {
        let table = run.client.directory().expect("it was whole");
        let id = whole::ids(&table)[name];
        table.groups.iter().filter(|group| group.on_member(id).is_some()).count()
    };
    assert!(held("member-1") > 1 && held("member-2") > 1, "both hold shards");
    run.go_on();
    leave(&run, &mut members, 0);
    run.go_on();
    drop(run.end(&["member-1", "member-2"]));
}

/// Lets a member leave. When its process has ended its disk is gone, too.
fn leave(run: &Run, members: &mut Members, k: usize) {
    let name = members.name(k);
    run.fault("leave", &name);
    let left = members.run(&["leave", &name]);
    assert!(left.ok().contains(&format!("{name} has left")), "{left:?}");
    let gone = members.take(k);
    gone.wait_exit().ok();
    assert!(gone.output().contains("has left: it holds nothing any more"), "{}", gone.output());
    fs::remove_dir_all(members.data(k)).expect("the directory is ours");
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
        run.fault("restart", &members.name(k));
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

/// Members in networks of their own, with keys: one is cut off while it is written to and asked, until the others take
/// it for dead; they go on, one more joins meanwhile, and what the first missed is there after the heal. Then another,
/// until it is replaced.
/// Who is on the side of the minority is told that nothing was written, or that nobody knows.
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
    run.whole(&["member-1", "member-2", "member-3"]);
    let all = ["member-1", "member-2", "member-3", "member-4"];
    for k in [0, 2] {
        run.fault("cut", &members.name(k));
        members.network().cut(k);
        // Some of them to shards that it leads as far as it knows.
        nothing_is_written_through(&members, k);
        run.go_on();
        if k == 0 {
            // Nobody can take its place.
            for other in [1, 2] {
                drop(members.program(other).wait_line("member-1 is dead"));
            }
        } else {
            run.whole(&["member-1", "member-2", "member-4"]);
        }
        nothing_is_written_through(&members, k);
        if k == 0 {
            run.fault("join", &members.name(3));
            members.start(3); // through the one that is cut off, too
            members.wait_up(3);
        }
        run.go_on();
        run.fault("heal", &members.name(k));
        members.network().heal(k);
        // Replaced or not: it is one of them again, and has what it missed.
        run.whole(&all);
        run.go_on();
    }
    drop(run.end(&all));
}

/// Puts to all partitions through a member that is cut off, on its own machine: none is acknowledged.
fn nothing_is_written_through(members: &Members, k: usize) {
    let put = |partition: String| {
        let words = ["--timeout", "2s", "kv", "--partition", &partition, "put", "cut off", "v"];
        Program::spawn(members.network().inside(k, &members.calling(&[k], &words)))
    };
    let puts: Vec<Program> = load::partitions(PARTITIONS).into_iter().map(put).collect();
    for put in puts {
        let exit = put.wait_exit();
        assert!(matches!(exit.code, Some(3 | 4)), "{exit:?}");
    }
}

/// A load, and the client that it comes from.
struct Run {
    runtime: Runtime,
    client: Node,
    journal: Arc<Journal>,
    load: Load,
    askers: Askers,
    followers: Followers,
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
        let followers = Followers::start(&runtime, &client, &load::partitions(PARTITIONS));
        Self { runtime, client, journal, load, askers, followers }
    }

    /// Something is done to a member.
    fn fault(&self, fault: &str, member: &str) {
        self.journal.fault(fault, member);
        self.askers.blame(fault);
    }

    /// Waits until something was written to each partition that was begun after this call, and requests were answered
    /// that were.
    fn go_on(&self) {
        self.journal.await_puts(&load::partitions(PARTITIONS));
        let _ = self.journal.wait_puts();
        self.askers.go_on(REQUESTS);
    }

    fn whole(&self, names: &[&str]) -> Ids {
        self.runtime.block_on(whole::wait_whole(&self.client, SHARDS, names))
    }

    /// Every acknowledged write is there and was told to the watch of its partition, and every request was answered, some
    /// by each of these members; what became of the writes.
    fn end(self, names: &[&str]) -> Tally {
        self.load.stop(&self.runtime);
        let answers = self.askers.end(&self.runtime);
        eprintln!("the longest requests took {:?}, answered by {:?}", answers.worst, answers.by);
        assert!(names.iter().all(|&name| answers.by.contains_key(name)), "{:?}", answers.by);
        let found = self.runtime.block_on(load::scan_all(&self.client, PARTITIONS));
        self.journal.flush();
        let tally = self.journal.tally();
        tally.judge(&found);
        self.followers.judge(&self.runtime, &tally);
        eprintln!("{} writes acknowledged and all found", tally.acknowledged.len());
        tally
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

const SHARDS: u32 = 8;
const PARTITIONS: usize = 8;
/// Enough of them that each asker came to several members.
const REQUESTS: usize = 100;
const LOAD: Shape = Shape { partitions: PARTITIONS, writers: 8, bytes_max: 0 };
