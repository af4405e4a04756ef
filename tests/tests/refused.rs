//! What a member tells that may not join: it says so while it asks on, and stops when it is told to.

use std::ffi::OsString;
use std::process::Command;

use tests::members::Members;
use tests::program::{Program, ring};

/// The command of a member with another word after a flag of it, or with the flag.
fn with(command: &Command, flag: &str, value: &str) -> Command {
    let mut words: Vec<OsString> = command.get_args().map(OsString::from).collect();
    match words.iter().position(|word| word == flag) {
        Some(at) => words[at + 1] = value.into(),
        None => words.extend([flag.into(), value.into()]),
    }
    let mut other = ring();
    other.args(words);
    other
}

fn refuse(mut members: Members) {
    members.start(0);
    members.wait_up(0);
    let name = members.name(0);
    let namesake = Program::spawn(with(&members.command(1), "--name", &name));
    drop(namesake.wait_line("is refused: another member of this name is there"));
    namesake.terminate();
    let said = namesake.wait_exit();
    assert!(said.ok().contains("stopped before its cluster came up"), "{said:?}");

    // The same directory under a name of its own: nothing of the attempt is in the way.
    members.start(1);
    members.wait_up(1);
    for k in [1, 0] {
        members.stop(k);
    }
}

#[test]
fn a_taken_name_is_told_and_another_is_let_in() {
    refuse(Members::joining(2, 4));
}

#[test]
fn a_member_of_another_cluster_is_told_so() {
    let mut members = Members::joining(2, 4);
    members.start(0);
    members.wait_up(0);
    let stranger = Program::spawn(with(&members.command(1), "--cluster", "another"));
    let told = stranger.wait_line(" refused ");
    assert!(told.contains("its cluster is called \"ring\""), "{told}");
    stranger.terminate();
    assert!(stranger.wait_exit().ok().contains("stopped before its cluster came up"));
    members.stop(0);
}
