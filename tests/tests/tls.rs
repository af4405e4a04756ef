//! Keys and TLS from end to end, as a user sees them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use tests::ports::Ports;
use tests::program::{Exit, Program, ring};

/// A user with a directory, and ports for a cluster of three.
struct User {
    home: TempDir,
    ports: Ports,
}

impl User {
    fn new() -> Self {
        Self {
            home: tempfile::tempdir().expect("the temporary directory can be written"),
            ports: Ports::reserve(3),
        }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = ring();
        command
            .args(line.split_whitespace())
            .env("XDG_STATE_HOME", self.home.path().join("state"))
            .current_dir(self.home.path());
        command
    }

    fn start(&self, line: &str) -> Program {
        Program::spawn(self.command(line))
    }

    fn run(&self, line: &str) -> Exit {
        self.start(line).wait_exit()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.home.path().join(path)
    }

    /// A member of a cluster of three, with these keys; what it logs can be read.
    fn serve(&self, name: &str, keys: &str) -> Program {
        let members: Vec<String> = ["a", "b", "c"]
            .iter()
            .enumerate()
            .map(|(k, name)| format!("--member {name}={}", self.ports.address(k)))
            .collect();
        let members = members.join(" ");
        let data = format!("data/{name}");
        let mut command =
            self.command(&format!("serve --name {name} --data {data} {members} {keys}"));
        command.env("RING_LOG", "warn");
        Program::spawn(command)
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory");
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it exists").permissions().mode() & 0o777
}

#[test]
fn keys_are_for_their_owner_and_never_overwritten() {
    let user = User::new();
    let made = user.run("keys new k --cluster shop --member a --member b --client ops");
    assert!(made.ok().contains("k/members/a"), "{made:?}");
    let before = files(&user.path("k"));
    assert_eq!(before.len(), 4 + 2 * 4 + 3, "{before:?}");
    for file in &before {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
    for dir in ["k", "k/members", "k/members/a", "k/clients/ops"] {
        assert_eq!(mode(&user.path(dir)), 0o700, "{dir}");
    }
    let read = |files: &[PathBuf]| -> Vec<Vec<u8>> {
        files.iter().map(|file| fs::read(file).expect("it can be read")).collect()
    };
    let content = read(&before);
    for key in before.iter().filter(|file| file.ends_with("key.pem")) {
        let text = fs::read_to_string(key).expect("it can be read");
        let secret = text.lines().nth(1).expect("a key has lines");
        assert!(!made.stdout.contains(secret) && !made.stderr.contains(secret));
    }

    user.run("keys new k --member a").refused(2, &["k is not empty", "ring keys add"]);
    user.run("keys add k --member c --member a").refused(2, &["k/members/a exists"]);
    assert_eq!(files(&user.path("k")), before, "not even the first of the two");
    assert_eq!(read(&before), content);

    user.run("keys add k --member c --client bob --days 30").ok();
    assert!(user.path("k/members/c/certificate.pem").exists());
    assert!(user.path("k/clients/bob/key.pem").exists());
    user.run("keys add k --cluster other --client x").refused(2, &["shop"]);
    user.run("keys add nowhere --client x").refused(7, &["nowhere/ca.key", "ring keys new"]);
    user.run("keys new other").refused(2, &["--member"]);
    user.run("keys new other --member ../x").refused(2, &["../x"]);
    user.run("keys new other --member a --member a").refused(2, &["twice"]);
    assert!(!user.path("other").exists());
}

#[test]
fn a_rotation_of_datagram_keys_takes_three_steps() {
    let user = User::new();
    user.run("keys new k --member a --member b").ok();
    let read = || fs::read_to_string(user.path("k/datagram.keys")).expect("it was made");
    let words = || -> Vec<String> {
        let text = read();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.rsplit_once(' ').expect("three words").0.to_owned()).collect()
    };
    assert_eq!(words(), ["seal 1"]);
    let steps: [(&str, &[&str]); 3] = [
        ("key 2 added", &["seal 1", "open 2"]),
        ("key 2 promoted", &["open 1", "seal 2"]),
        ("key 1 dropped", &["seal 2"]),
    ];
    for (said, expected) in steps {
        let exit = user.run("keys rotate-datagram k");
        assert!(exit.ok().contains(said), "{exit:?}");
        assert_eq!(words(), expected);
        for copy in ["k/members/a/datagram.keys", "k/members/b/datagram.keys"] {
            let copy = user.path(copy);
            assert_eq!(fs::read_to_string(&copy).expect("it was made"), read());
            assert_eq!(mode(&copy), 0o600);
        }
    }
    fs::write(user.path("k/datagram.keys"), "seal 1 abc\n").expect("the directory is ours");
    user.run("keys rotate-datagram k").refused(7, &["datagram.keys", "line 1"]);
}

#[test]
fn a_dev_cluster_with_tls_is_found_with_its_keys() {
    let user = User::new();
    let port = user.ports.first();
    let start = || user.start(&format!("dev --tls --shards 8 --port {port}"));
    let dev = start();
    drop(dev.wait_line("ready."));
    user.run("kv put greeting hello").ok();
    assert_eq!(user.run("kv get greeting").ok(), "hello\n");
    user.run("status").ok();

    let connect = format!("--connect {}", user.ports.address(0));
    let keys = ".ring-dev/keys/clients/dev";
    let got = user.run(&format!("kv get greeting {connect} --keys {keys}"));
    assert_eq!(got.ok(), "hello\n");
    user.run(&format!("kv get greeting {connect} --timeout 2s"))
        .refused(3, &["speaks TLS", "--keys"]);
    // Keys of another cluster of the same name: each says what it sees.
    user.run("keys new strange --member dev-1 --client ops").ok();
    user.run(&format!("kv get greeting {connect} --keys strange/clients/ops --timeout 2s"))
        .refused(3, &["its certificate is of another authority"]);
    drop(dev.wait_line("refused this node's certificate as another authority's"));
    user.run(&format!("kv get greeting {connect} --keys strange/members/dev-1"))
        .refused(2, &["keys", "a client needs a client's"]);
    user.run(&format!("kv get greeting {connect} --keys nowhere"))
        .refused(2, &["nowhere/ca.pem", "ring keys new"]);

    // The same keys the next time.
    dev.terminate();
    dev.wait_exit().ok();
    let dev = start();
    drop(dev.wait_line("ready."));
    let got = user.run(&format!("kv get greeting {connect} --keys {keys}"));
    assert_eq!(got.ok(), "hello\n");
}

/// One of three has the keys of another cluster, then those of another member, then none. The two
/// others go on, and all sides say what is wrong. With its own keys it is let in.
#[test]
fn a_member_with_wrong_keys_stays_out_and_hurts_nobody() {
    let user = User::new();
    user.run("keys new k --member a --member b --member c --client ops").ok();
    user.run("keys new strange --member c").ok();
    let a = user.serve("a", "--keys k/members/a");
    let b = user.serve("b", "--keys k/members/b");
    let c = user.serve("c", "--keys k/members/c");
    for member in [&a, &b, &c] {
        drop(member.wait_line(" is up: "));
    }
    let connect = format!("--connect {},{}", user.ports.address(0), user.ports.address(1));
    let client = |line: &str| user.run(&format!("{connect} --keys k/clients/ops {line}"));
    client("kv put k 1").ok();
    c.terminate();
    c.wait_exit().ok();

    // Of two members the one with the lower id dials: here the others dial c.
    let c = user.serve("c", "--keys strange/members/c");
    drop(a.wait_line("its certificate is of another authority: make its keys where"));
    drop(c.wait_line("refused this node's certificate, which is of another authority"));
    client("kv put k 2").ok();
    c.kill();

    let c = user.serve("c", "--keys k/members/b");
    c.wait_exit().refused(2, &["give each member its own"]);

    let c = user.serve("c", "");
    drop(a.wait_line("closed the connection in the TLS handshake: has it keys, as this node has?"));
    drop(c.wait_line("it speaks TLS and this node has no keys: give it those of the cluster"));
    client("kv put k 3").ok();
    c.kill();

    let c = user.serve("c", "--keys k/members/c");
    drop(c.wait_line(" is up: "));
    let own = format!("--connect {} --keys k/clients/ops kv get k", user.ports.address(2));
    assert_eq!(user.run(&own).ok(), "3\n");
}

/// What is sent is not what can be read on the way, and no log holds a key.
#[test]
fn no_log_holds_a_secret() {
    let user = User::new();
    user.run("keys new k --member a --client ops").ok();
    let address = user.ports.address(0);
    let mut command = user.command(&format!(
        "serve --name a --data data --member a={address} --keys k/members/a --log trace"
    ));
    command.env_remove("RING_LOG");
    let member = Program::spawn(command);
    drop(member.wait_line(" is up: "));
    user.run(&format!("--connect {address} --keys k/clients/ops kv put k v")).ok();
    user.run(&format!("--connect {address} --timeout 1s kv put k v")).refused(3, &["TLS"]);
    member.terminate();
    let exit = member.wait_exit();
    assert!(exit.stderr.len() > 1000, "it has logged: {exit:?}");
    for file in ["k/members/a/key.pem", "k/members/a/datagram.keys"] {
        let text = fs::read_to_string(user.path(file)).expect("it was made");
        let secret = text.split_whitespace().filter(|word| word.len() >= 32);
        let secrets: Vec<&str> = secret.collect();
        assert!(!secrets.is_empty(), "{file}");
        for secret in secrets {
            assert!(!exit.stderr.contains(&secret[..16]), "a part of {file} was logged");
        }
    }
}

/// What the README tells to type on three machines, on one.
#[test]
fn the_three_machines_of_the_readme_form_a_cluster() {
    let user = User::new();
    let (_, section) = README.split_once("## Three machines with TLS").expect("the heading");
    let (_, block) = section.split_once("```sh\n").expect("a block follows the heading");
    let (block, _) = block.split_once("```").expect("the block has an end");
    let (mut members, mut typed) = (Vec::new(), 0);
    for line in block.lines().filter(|line| line.starts_with("ring ")) {
        let mut line = line.to_owned();
        for k in 0..3 {
            line = line.replace(&format!("10.0.0.{}:4701", k + 1), &user.ports.address(k));
        }
        let (words, expected) = match line.split_once(" # ") {
            Some((words, expected)) => (words, Some(expected.trim())),
            None => (&*line, None),
        };
        let words = words.strip_prefix("ring ").expect("filtered");
        if words.starts_with("serve") {
            members.push(user.start(words));
            continue;
        }
        if members.len() == 3 {
            members.iter().for_each(|member| drop(member.wait_line(" is up: ")));
        }
        let exit = user.run(words);
        if let Some(expected) = expected {
            assert_eq!(exit.ok().trim_end(), expected, "{line}");
        } else {
            exit.ok();
        }
        typed += 1;
    }
    assert_eq!(members.len(), 3);
    assert!(typed >= 4, "keys, and calls");
}

const README: &str = include_str!("../../README.md");
