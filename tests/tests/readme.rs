//! What the README tells users to type works. (Its Rust example is a doctest of this crate.)

use std::process::Command;

use tests::ports::Ports;
use tests::program::{Program, ring};

#[test]
fn what_the_readme_says_to_type_works() {
    let home = tempfile::tempdir().expect("the temporary directory can be written");
    let ports = Ports::reserve(3);
    let command = |words: &[&str]| -> Command {
        let mut command = ring();
        command.args(words).env("XDG_STATE_HOME", home.path()).current_dir(home.path());
        command
    };
    let port = ports.first().to_string();
    let dev = Program::spawn(command(&["dev", "--port", &port]));
    drop(dev.wait_line("ready."));

    let mut typed = 0;
    for line in block("## Talk to it") {
        let (words, expected) = match line.split_once(" # ") {
            Some((words, expected)) => (words, Some(expected.trim())),
            None => (line, None),
        };
        let words: Vec<&str> = words.split_whitespace().collect();
        assert_eq!(words.first(), Some(&"ring"), "{line}");
        let exit = Program::spawn(command(&words[1..])).wait_exit();
        let said = exit.ok();
        if let Some(expected) = expected {
            assert_eq!(said.trim_end(), expected, "{line}");
        }
        typed += 1;
    }
    assert!(typed > 5, "the README shows how to talk to a cluster");
}

#[test]
fn the_members_of_the_readme_form_a_cluster() {
    let home = tempfile::tempdir().expect("the temporary directory can be written");
    let ports = Ports::reserve(3);
    let lines = block("## Members as processes");
    let members: Vec<Program> = lines
        .iter()
        .filter(|line| line.contains(" serve "))
        .map(|line| {
            let mut line = String::from(*line);
            for k in 0..3 {
                line = line.replace(&format!("127.0.0.1:470{}", k + 1), &ports.address(k));
            }
            let mut command = ring();
            command.args(line.split_whitespace().skip(1)).current_dir(home.path());
            Program::spawn(command)
        })
        .collect();
    assert_eq!(members.len(), 3);
    for member in &members {
        drop(member.wait_line(" is up: "));
    }
}

/// One begins, two join, the cluster is looked at, and the first leaves.
#[test]
fn the_cluster_of_the_readme_grows() {
    let home = tempfile::tempdir().expect("the temporary directory can be written");
    let ports = Ports::reserve(3);
    let mut members = Vec::new();
    let mut typed = 0;
    for line in block("## A cluster that grows") {
        let mut line = line.split(" # ").next().unwrap_or_default().to_owned();
        for k in 0..3 {
            line = line.replace(&format!("127.0.0.1:471{}", k + 1), &ports.address(k));
        }
        let mut command = ring();
        command.args(line.split_whitespace().skip(1)).current_dir(home.path());
        if line.contains(" serve ") {
            let member = Program::spawn(command);
            drop(member.wait_line(" is up: "));
            members.push(member);
        } else {
            Program::spawn(command).wait_exit().ok();
            typed += 1;
        }
    }
    assert_eq!((members.len(), typed), (3, 3));
    let left = members.remove(0).wait_exit();
    assert!(left.ok().contains("a has left: it holds nothing any more"), "{left:?}");
}

/// The lines of the first `sh` block below a heading.
fn block(heading: &str) -> Vec<&'static str> {
    let (_, section) = README.split_once(heading).expect("the heading stands in the README");
    let (_, block) = section.split_once("```sh\n").expect("a block follows the heading");
    let (block, _) = block.split_once("```").expect("the block has an end");
    block.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

const README: &str = include_str!("../../README.md");
