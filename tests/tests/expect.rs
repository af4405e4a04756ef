//! Members that are told how many they are, and found a cluster when all are there.

use std::fs;
use std::time::Instant;

use tests::PATIENCE;
use tests::members::Members;

/// Two of three wait. The third makes it a cluster, once: whoever comes later joins it, with the same words, and so
/// does one whose disk was lost; all of them are killed and go on.
fn found_one_cluster(mut members: Members) {
    members.start(0);
    members.start(1);
    for k in [0, 1] {
        drop(members.program(k).wait_line(": 1 of 3 members missing; here: member-1, member-2"));
        assert!(!members.program(k).output().contains(" is up: "), "one is missing");
    }
    members.start(2);
    for k in 0..3 {
        let up = members.program(k).wait_line(" is up: ");
        assert!(up.ends_with("of 3 members"), "{up}");
    }
    members.start_all();
    wait_registered(&members, 4);
    drop(members.run(&["kv", "put", "k", "v"]).ok().to_owned());

    for k in 0..4 {
        members.kill(k);
    }
    fs::remove_dir_all(members.data(1)).expect("the directory is ours");
    members.start_all();
    wait_registered(&members, 4);
    members.wait_led();
    assert_eq!(members.run(&["kv", "get", "k"]).ok(), "v\n");
    for k in 0..4 {
        members.stop(k);
    }
}

#[test]
fn members_that_expect_each_other_found_one_cluster() {
    found_one_cluster(Members::expecting(4, 3, 4));
}

#[test]
fn members_with_keys_that_expect_each_other_found_one_cluster() {
    found_one_cluster(Members::expecting(4, 3, 4).with_keys());
}

/// Waits until so many members are registered, and all of them are there.
fn wait_registered(members: &Members, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let exit = members.run(&["--json", "members"]);
        let said: serde_json::Value = serde_json::from_str(exit.ok()).expect("JSON was asked for");
        let listed = said["members"].as_array().expect("a list of members");
        if listed.len() == count && listed.iter().all(|member| member["state"] == "alive") {
            return;
        }
        assert!(Instant::now() < deadline, "{said}");
    }
}
