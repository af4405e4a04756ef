//! Everything that users and disks do wrong: one clear line, the right exit code, nothing lost.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tests::members::Members;
use tests::ports::Ports;
use tests::program::{Exit, Program, ring, run_ring};
use tests::skip::skip;
use tokio::runtime::Runtime;

/// A cluster of one with a directory, and clients of it.
struct One {
    dir: TempDir,
    ports: Ports,
}

impl One {
    fn new() -> Self {
        Self { dir: temporary(), ports: Ports::reserve(2) }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn command(&self) -> Command {
        let mut command = serve(&self.data(), &self.ports.address(0));
        command.args(["--shards", "4"]);
        command
    }

    fn start(&self) -> Program {
        let member = Program::spawn(self.command());
        drop(member.wait_line(" is up: "));
        member
    }

    fn client(&self, words: &[&str]) -> Command {
        let mut command = ring();
        command.args(["--connect", &self.ports.address(0)]).args(words);
        command
    }

    fn run(&self, words: &[&str]) -> Exit {
        Program::spawn(self.client(words)).wait_exit()
    }

    /// Starts it, writes, kills it, twice: its log has a sealed segment with data, and another.
    fn with_sealed_segment(&self) -> PathBuf {
        for value in ["first", "second"] {
            let member = self.start();
            self.run(&["kv", "put", value, value]).ok();
            member.kill();
        }
        let mut segments: Vec<PathBuf> = fs::read_dir(self.data().join("log"))
            .expect("the log is there")
            .map(|entry| entry.expect("it can be read").path())
            .collect();
        segments.sort();
        assert!(segments.len() >= 2, "each start opens a segment: {segments:?}");
        segments.swap_remove(0)
    }
}

fn temporary() -> TempDir {
    tempfile::tempdir().expect("the temporary directory can be written")
}

fn serve(data: &Path, listen: &str) -> Command {
    let mut command = ring();
    command.arg("serve").arg("--data").arg(data).args(["--listen", listen]);
    command
}

fn end(command: Command) -> Exit {
    Program::spawn(command).wait_exit()
}

#[test]
fn a_mistyped_command_is_one_line() {
    run_ring(&["kv", "get", "k", "--tiemout", "3s"]).refused(2, &["--tiemout"]);
    run_ring(&["kv", "put", "k"]).refused(2, &["VALUE"]);
    run_ring(&["frobnicate"]).refused(2, &["frobnicate"]);
    run_ring(&["kv", "get", "k", "--timeout", "soon"]).refused(2, &["--timeout", "soon"]);
    run_ring(&["dev", "-n", "1000"]).refused(2, &["1000"]);
    run_ring(&["serve", "--member", "a"]).refused(2, &["NAME=ADDR"]);
    assert!(run_ring(&["--help"]).ok().contains("Exit codes"));
    assert!(run_ring(&["completions", "bash"]).ok().contains("ring"));
}

#[test]
fn a_cluster_that_is_not_there_is_noticed_at_once() {
    let ports = Ports::reserve(1);
    let address = ports.address(0);
    let began = Instant::now();
    for words in [&["kv", "get", "k"][..], &["status"], &["bench"]] {
        let mut all = vec!["--connect", &address];
        all.extend(words);
        run_ring(&all).refused(3, &[&address, "is it running"]);
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    run_ring(&["kv", "get", "k"]).refused(3, &["ring dev", "--connect"]);
}

#[test]
fn somebody_who_never_answers_is_given_up_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = silent.local_addr().expect("it is bound").to_string();
    let words = ["--connect", &address, "--timeout", "500ms", "kv", "get", "k"];
    run_ring(&words).refused(3, &[&address]);
}

#[test]
fn a_bad_configuration_names_the_field() {
    let dir = temporary();
    let path = dir.path().join("ring.toml");
    let data = dir.path().join("data");
    let text = |line: &str| format!("data = {data:?}\n{line}\n");
    let refused = |line: &str, needles: &[&str]| {
        fs::write(&path, text(line)).expect("the directory is ours");
        let mut command = ring();
        command.arg("serve").arg("--config").arg(&path);
        end(command).refused(2, needles);
        assert!(!data.exists(), "nothing is made for a bad configuration");
    };
    refused("adress = '127.0.0.1:1'", &["ring.toml:2", "adress"]);
    refused("shards = 'many'", &["ring.toml:2"]);
    refused("shards = 0", &["shards"]);
    refused("replication = 0", &["replication"]);
    refused("name = 'x'\n[members]\na = '127.0.0.1:1'", &["name", "x"]);
    refused("listen = '0.0.0.0:0'", &["insecure"]);
    run_ring(&["serve"]).refused(2, &["data"]);
    let long = format!("k={}", "v".repeat(600));
    let words = ["serve", "--memory", "--listen", "127.0.0.1:0", "--tag", &long];
    run_ring(&words).refused(2, &["tags"]);
    run_ring(&["serve", "--config", "/nowhere/ring.toml"]).refused(2, &["/nowhere/ring.toml"]);
}

#[test]
fn a_port_in_use_is_named() {
    let dir = temporary();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound").to_string();
    end(serve(&dir.path().join("data"), &address)).refused(6, &[&address]);
}

#[test]
fn two_members_do_not_share_a_directory() {
    let one = One::new();
    let _member = one.start();
    let data = one.data();
    end(serve(&data, &one.ports.address(1))).refused(6, &["in use"]);
    let mut fsck = ring();
    fsck.arg("fsck").arg(&data);
    end(fsck).refused(6, &["in use"]);
    one.run(&["kv", "put", "k", "v"]).ok();
}

#[test]
fn a_directory_of_something_else_stays_as_it_is() {
    let one = One::new();
    fs::create_dir(one.data()).expect("the directory is ours");
    let photo = one.data().join("cat.jpg");
    fs::write(&photo, "cat").expect("the directory is ours");
    end(one.command()).refused(6, &["cat.jpg"]);
    let left: Vec<_> = fs::read_dir(one.data()).expect("it is there").collect();
    assert_eq!(left.len(), 1, "{left:?}");
    let mut fsck = ring();
    fsck.arg("fsck").arg(one.data());
    end(fsck).refused(6, &["not a member's data directory"]);
}

#[test]
fn a_directory_of_another_cluster_is_refused() {
    let one = One::new();
    let member = one.start();
    one.run(&["kv", "put", "k", "v"]).ok();
    member.terminate();
    member.wait_exit().ok();

    let mut other = one.command();
    other.args(["--cluster", "other"]);
    let exit = end(other);
    assert!(matches!(exit.code, Some(2 | 6)), "{exit:?}");
    exit.refused(exit.code.unwrap_or(-1), &["ring", "other"]);

    let _member = one.start();
    assert_eq!(one.run(&["kv", "get", "k"]).ok(), "v\n");
}

#[test]
fn a_client_of_another_cluster_is_refused() {
    let one = One::new();
    let _member = one.start();
    let words = ["--cluster", "other", "--timeout", "1s", "kv", "get", "k"];
    one.run(&words).refused(3, &["other", "ring"]);
}

#[test]
fn keys_and_values_are_shown_safely_and_come_back_exactly() {
    let one = One::new();
    let _member = one.start();
    let missing = one.run(&["kv", "get", "k"]);
    missing.refused(1, &["no key \"k\""]);
    assert_eq!(missing.stdout, "");
    one.run(&["kv", "del", "k"]).refused(1, &["no key"]);

    let binary = b"\x1b[31m\xff\x00end";
    let file = one.dir.path().join("value");
    fs::write(&file, binary).expect("the directory is ours");
    let stdin = fs::File::open(&file).expect("just written");
    let put = Program::spawn_with_input(one.client(&["kv", "put", "k", "-"]), Stdio::from(stdin));
    put.wait_exit().ok();
    assert_eq!(one.run(&["kv", "get", "k"]).ok(), "\\x1b[31m\\xff\\x00end\n");
    assert!(one.run(&["kv", "get", "k", "--json"]).ok().contains("1b5b33316dff00656e64"));
    let raw = one.client(&["kv", "get", "k", "--raw"]).output().expect("it runs");
    assert_eq!(raw.stdout, binary);

    let long = "k".repeat((64 << 10) + 1);
    one.run(&["kv", "put", &long, "v"]).refused(5, &["65537", "65536"]);
    let long = "p".repeat(256);
    one.run(&["kv", "--partition", &long, "put", "k", "v"]).refused(5, &["256", "255"]);
}

#[test]
fn compare_and_set_says_what_it_found() {
    let one = One::new();
    let _member = one.start();
    one.run(&["kv", "cas", "k", "one", "--absent"]).ok();
    one.run(&["kv", "cas", "k", "two", "--absent"]).refused(1, &["not as expected", "revision"]);
    one.run(&["kv", "cas", "k", "two", "--expect", "one"]).ok();
    assert_eq!(one.run(&["kv", "get", "k"]).ok(), "two\n");
    one.run(&["kv", "cas", "k", "--delete", "--expect", "two"]).ok();
    one.run(&["kv", "cas", "k", "three", "--expect", "two"]).refused(1, &["no such key"]);
}

#[test]
fn scans_go_where_they_are_told() {
    let one = One::new();
    let _member = one.start();
    for key in ["a1", "a2", "b1"] {
        one.run(&["kv", "put", key, "v"]).ok();
    }
    let keys = |words: &[&str]| {
        let mut all = vec!["kv", "scan", "--keys-only"];
        all.extend(words);
        one.run(&all).ok().replace('\n', " ")
    };
    assert_eq!(keys(&[]), "a1 a2 b1 ");
    assert_eq!(keys(&["--prefix", "a"]), "a1 a2 ");
    assert_eq!(keys(&["--from", "a2"]), "a2 b1 ");
    assert_eq!(keys(&["--to", "b1"]), "a1 a2 ");
    assert_eq!(keys(&["--reverse", "--limit", "2"]), "b1 a2 ");
    assert_eq!(keys(&["--local"]), "a1 a2 b1 ");

    let batch =
        ["kv", "batch", "--put", "c1", "w", "--put", "c2", "-1", "--del", "a1", "--del", "b1"];
    assert_eq!(one.run(&batch).ok(), "revision 4\n");
    assert_eq!(one.run(&["kv", "scan"]).ok(), "a2\tv\nc1\tw\nc2\t-1\n");
    one.run(&["kv", "batch", "--put", "k", "v", "--del", "k"]).refused(2, &["'k' is given twice"]);
    one.run(&["kv", "batch"]).refused(2, &["--put"]);

    let info = one.run(&["kv", "info"]);
    let row: Vec<&str> = info.ok().lines().last().unwrap_or_default().split_whitespace().collect();
    assert_eq!((row[0], row[2], row[4]), ("default", "one", "3"), "{info:?}");
}

#[test]
fn a_watch_shows_what_was_and_what_comes() {
    let one = One::new();
    let _member = one.start();
    one.run(&["kv", "put", "a1", "v"]).ok();
    one.run(&["kv", "put", "b1", "v"]).ok();
    let words = ["kv", "watch", "--prefix", "a", "--after", "0", "--limit", "3"];
    let watch = Program::spawn(one.client(&words));
    drop(watch.wait_line("a1\tv"));
    one.run(&["kv", "put", "a2", "w"]).ok();
    one.run(&["kv", "del", "a1"]).ok();
    assert_eq!(watch.wait_exit().ok(), "1\tput\ta1\tv\n3\tput\ta2\tw\n4\tdel\ta1\n");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let one = One::new();
    let _member = one.start();
    let value = "x".repeat(100_000);
    for key in ["a", "b", "c"] {
        one.run(&["kv", "put", key, &value]).ok();
    }
    let mut scan = one.client(&["kv", "scan"]);
    scan.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut scan = scan.spawn().expect("it runs");
    drop(scan.stdout.take());
    let ended = scan.wait_with_output().expect("it ends");
    assert!(ended.status.success(), "{ended:?}");
    assert!(ended.stderr.is_empty(), "{ended:?}");
}

#[test]
fn bench_measures_and_counts_errors() {
    let one = One::new();
    let _member = one.start();
    let words =
        ["bench", "--seconds", "1", "--warmup", "0", "--callers", "8", "--key-count", "100"];
    for mix in ["put", "get", "mixed:50"] {
        let mut all = words.to_vec();
        all.extend(["--mix", mix, "--json"]);
        let exit = one.run(&all);
        let said = exit.ok();
        assert!(said.contains("per_second") && said.contains("p99_us"), "{said}");
        assert!(said.contains("\"errors\":{}"), "{said}");
    }
}

#[test]
fn a_shard_without_a_leader_makes_status_fail() {
    let mut members = Members::new(3, 4);
    members.start_all();
    members.wait_led();
    let addresses = members.addresses();
    let status = || run_ring(&["--connect", &addresses, "status"]);
    assert!(status().ok().contains("LEADER"));

    members.kill(0);
    members.kill(1);
    let deadline = Instant::now() + tests::PATIENCE;
    while status().code == Some(0) {
        assert!(Instant::now() < deadline, "two of three are dead, and status is content");
    }
    let exit = status();
    exit.refused(1, &["without a leader"]);
    assert!(exit.stdout.contains("no answer") && exit.stdout.contains("member-1 cannot be asked"));
}

/// While one of three is away another is not let go, and the command line says who is missing and what force would
/// risk. By force it goes; what was written is there. Who is away cannot be told to go.
#[test]
fn a_leave_that_would_lose_the_majority_is_refused_and_can_be_forced() {
    let mut members = Members::joining(3, 4).replaced_after("5m");
    members.start_all();
    members.run(&["kv", "put", "k", "v"]).ok();
    let deadline = Instant::now() + tests::PATIENCE;
    loop {
        let status = members.run(&["--json", "status"]).stdout;
        let said: serde_json::Value = serde_json::from_str(&status).expect("JSON was asked for");
        // Only then does each shard have three replicas, and any one of them may be lost.
        let is_whole = said["members"].as_array().is_some_and(|members| members.len() == 3)
            && said["problems"].as_array().is_some_and(Vec::is_empty)
            && said["directory"]["moving"] == 0;
        if is_whole {
            break;
        }
        assert!(Instant::now() < deadline, "three members, and something is missing: {said}");
    }
    members.kill(2);
    let refused = members.run(&["leave", "member-2"]);
    refused.refused(5, &["\"member-2\" cannot leave", "start member-3", "--force, which gives up"]);
    let away = members.run(&["leave", "member-3", "--timeout", "1s"]);
    away.refused(3, &["member-3", "does not answer", "--replace-after"]);
    members.run(&["kv", "put", "k", "w"]).ok();

    let forced = members.run(&["leave", "member-2", "--force"]);
    assert!(forced.ok().contains("given up: member-3"), "{forced:?}");
    assert!(forced.ok().contains("member-2 has left"), "{forced:?}");
    members.take(1).wait_exit().ok();
    assert_eq!(members.run(&["kv", "get", "k"]).ok(), "w\n");
    members.run(&["leave", "member-1"]).refused(5, &["the only member"]);

    members.start(2);
    members.wait_up(2);
    assert_eq!(members.run(&["kv", "get", "k"]).ok(), "w\n");
}

/// The old directory may come back; an empty one in its place may not, as the member's votes would
/// be forgotten.
#[test]
fn a_wiped_member_is_refused() {
    let mut members = Members::new(3, 4);
    members.start_all();
    let addresses = members.addresses();
    run_ring(&["--connect", &addresses, "kv", "put", "k", "v"]).ok();

    members.stop(2);
    let aside = members.dir().join("aside");
    fs::rename(members.data(2), &aside).expect("the directory is ours");
    members.start(2);
    let wiped = members.take(2).wait_exit();
    wiped.refused(6, &["this data directory is new", "bring the old directory back"]);

    fs::remove_dir_all(members.data(2)).expect("the directory is ours");
    fs::rename(&aside, members.data(2)).expect("the directory is ours");
    members.start(2);
    members.wait_up(2);
    assert_eq!(run_ring(&["--connect", &addresses, "kv", "get", "k"]).ok(), "v\n");
}

#[test]
fn a_rolled_back_directory_is_refused() {
    let mut members = Members::new(3, 4);
    members.start_all();
    members.stop(2);
    let backup = members.dir().join("backup");
    copy(&members.data(2), &backup);
    for _start in 0..2 {
        members.start(2);
        members.wait_up(2);
        run_ring(&["--connect", &members.addresses(), "kv", "put", "k", "v"]).ok();
        members.stop(2);
    }

    fs::remove_dir_all(members.data(2)).expect("the directory is ours");
    fs::rename(&backup, members.data(2)).expect("the directory is ours");
    members.start(2);
    // What the directory says is enough to be up; the peers refuse it as soon as they are asked.
    let exit = members.take(2).wait_exit();
    exit.refused(6, &["older than what a peer has seen", "bring back the newer directory"]);
}

#[test]
fn damage_in_the_log_is_named_with_its_place_and_a_way_out() {
    let one = One::new();
    let segment = one.with_sealed_segment();
    let name = segment.file_name().and_then(|name| name.to_str());
    let name = name.expect("segments have plain names");
    let fsck = || {
        let mut fsck = ring();
        fsck.arg("fsck").arg(one.data());
        end(fsck)
    };
    assert!(fsck().ok().contains("the log is sound"));

    let mut bytes = fs::read(&segment).expect("it is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&segment, &bytes).expect("the directory is ours");

    let exit = end(one.command());
    exit.refused(6, &[name, "replace this member"]);
    assert!(mentions_place(&exit.stderr, middle), "no offset: {exit:?}");
    let checked = fsck();
    checked.refused(1, &[name]);
    assert!(checked.stdout.contains(name), "{checked:?}");

    bytes[middle] ^= 0x10;
    fs::write(&segment, &bytes).expect("the directory is ours");
    let _member = one.start();
    assert_eq!(one.run(&["kv", "get", "first"]).ok(), "first\n");
}

/// Whether a line names an offset at or before a damaged byte: that of the batch it is in.
fn mentions_place(line: &str, damaged: usize) -> bool {
    let (_, tail) = line.split_once("at byte ").unwrap_or_default();
    let digits: String = tail.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().is_ok_and(|offset: usize| offset <= damaged)
}

#[test]
fn a_member_with_a_full_disk_halts_and_the_others_go_on() {
    let mut members = Members::new(3, 4);
    let disk = members.disk(2);
    fs::create_dir(&disk).expect("the directory is ours");
    let Some(_mounted) = Mounted::tmpfs(&disk, "48m") else {
        return skip(
            "a_member_with_a_full_disk_halts_and_the_others_go_on",
            "cannot mount a tmpfs",
        );
    };
    members.start_all();
    let full = members.take(2);
    let runtime = Runtime::new().expect("worker threads can be started");
    runtime.block_on(async {
        let client = members.client().await;
        let value = vec![b'x'; 256 << 10];
        let mut written = 0;
        while !full.has_ended() {
            let partition = client.partition(&format!("p{}", written % 4));
            let put = partition.put(format!("k{written}"), value.clone()).await;
            put.unwrap_or_else(|e| panic!("two of three can write: {e}"));
            written += 1;
            assert!(written < 4_000, "a gigabyte fits on a disk of 48 megabytes");
        }
        for k in 0..written {
            let partition = client.partition(&format!("p{}", k % 4));
            let found = partition.get(format!("k{k}")).await;
            let found = found.unwrap_or_else(|e| panic!("two of three can read: {e}"));
            assert!(found.is_some(), "k{k} was acknowledged");
        }
    });
    full.wait_exit().refused(6, &["No space left on device", "start this member again"]);
}

/// A file system of its own, gone when this is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(dir: &Path, size: &str) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(dir);
        let mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        mounted.then(|| Self(dir.to_path_buf()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a member that a failed test has left may still be there for a moment.
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            drop(writeln!(std::io::stderr(), "{} stays mounted", self.0.display()));
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "cannot copy {}", from.display());
}
