//! `ring dev` from end to end, as a user sees it: one shell runs the cluster, another talks to it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;
use tests::ports::Ports;
use tests::program::{Exit, Program, ring};

/// A user: a home and a current directory.
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

    fn command(&self, words: &[&str]) -> Command {
        let mut command = ring();
        command
            .args(words)
            .env("XDG_STATE_HOME", self.home.path().join("state"))
            .current_dir(self.home.path());
        command
    }

    fn run(&self, words: &[&str]) -> Exit {
        Program::spawn(self.command(words)).wait_exit()
    }

    fn dev(&self, words: &[&str]) -> Program {
        let port = self.ports.first().to_string();
        let mut all = vec!["dev", "--port", &port, "--shards", "8"];
        all.extend(words);
        Program::spawn(self.command(&all))
    }

    fn state_file(&self) -> PathBuf {
        self.home.path().join("state").join("ring").join("dev.json")
    }
}

#[test]
fn a_cluster_is_found_without_flags_and_keeps_its_data() {
    let user = User::new();
    let dev = user.dev(&[]);
    let line = dev.wait_line("kv put greeting hello");
    assert!(!line.contains("--connect"), "no flags needed: {line}");

    user.run(&["kv", "put", "greeting", "hello"]).ok();
    user.run(&["kv", "put", "number", "-5"]).ok();
    assert_eq!(user.run(&["kv", "get", "greeting"]).ok(), "hello\n");
    assert_eq!(user.run(&["kv", "scan"]).ok(), "greeting\thello\nnumber\t-5\n");
    let status = user.run(&["status"]);
    for name in ["dev-1", "dev-2", "dev-3"] {
        assert!(status.ok().contains(name), "{status:?}");
    }

    dev.terminate();
    assert!(dev.wait_exit().ok().contains("the data is kept in"));
    assert!(!user.state_file().exists(), "a clean stop removes it");
    user.run(&["kv", "get", "greeting"]).refused(3, &["no `ring dev` runs"]);

    // Without the flags that it was made with: the directory knows.
    let dev = Program::spawn(user.command(&["dev"]));
    drop(dev.wait_line("ready."));
    assert_eq!(user.run(&["kv", "scan"]).ok(), "greeting\thello\nnumber\t-5\n");
    dev.terminate();
    dev.wait_exit().ok();
}

#[test]
fn a_killed_cluster_is_noticed_and_comes_back_with_its_data() {
    let user = User::new();
    let dev = user.dev(&[]);
    drop(dev.wait_line("ready."));
    user.run(&["kv", "put", "k", "v"]).ok();

    dev.kill();
    let get = user.run(&["kv", "get", "k"]);
    get.refused(3, &["was killed", "start one with `ring dev`"]);

    let dev = user.dev(&[]);
    drop(dev.wait_line("ready."));
    assert_eq!(user.run(&["kv", "get", "k"]).ok(), "v\n");
}

#[test]
fn a_data_directory_keeps_the_shape_that_it_was_made_with() {
    let user = User::new();
    let dev = user.dev(&["-n", "1"]);
    drop(dev.wait_line("ready."));
    dev.terminate();
    dev.wait_exit().ok();

    user.dev(&["-n", "3"]).wait_exit().refused(2, &["-n 1, not 3"]);
    user.run(&["dev", "--shards", "9"]).refused(2, &["--shards 8, not 9"]);

    fs::create_dir(user.home.path().join("photos")).expect("the directory is ours");
    fs::write(user.home.path().join("photos").join("cat.jpg"), "cat")
        .expect("the directory is ours");
    let photos = user.dev(&["--data", "photos"]).wait_exit();
    photos.refused(6, &["photos", "not made by `ring dev`"]);
}

#[test]
fn a_second_cluster_says_what_is_in_its_way() {
    let user = User::new();
    let dev = user.dev(&["--memory"]);
    drop(dev.wait_line("ready."));

    let second = user.dev(&["--memory"]).wait_exit();
    second.refused(6, &[&user.ports.address(0), "already in use", "--port"]);

    // On other ports it runs, and says how to reach it; the first one stays the one without flags.
    let other = Ports::reserve(1);
    let port = other.first().to_string();
    let second = Program::spawn(user.command(&["dev", "--memory", "-n", "1", "--port", &port]));
    let line = second.wait_line("kv put greeting hello");
    assert!(line.contains("--connect"), "{line}");
    let address = other.address(0);
    user.run(&["--connect", &address, "kv", "put", "here", "second"]).ok();
    user.run(&["kv", "get", "here"]).refused(1, &["no key \"here\""]);
    second.terminate();
    assert!(second.wait_exit().ok().contains("is gone"));

    user.run(&["kv", "put", "here", "first"]).ok();
    assert_eq!(user.run(&["kv", "get", "here"]).ok(), "first\n");
}
