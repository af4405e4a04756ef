//! Who is alive, as processes find out: one that is stopped where it is becomes a suspect, then dead, and alive again
//! when it goes on.

use std::time::Instant;

use tests::members::Members;

/// With datagrams in the clear, and sealed. The network sees nothing of a stopped process: its system takes what is
/// sent to it and keeps its connections.
#[test]
fn a_stopped_process_fails_and_returns() {
    for with_keys in [false, true] {
        let mut members = Members::new(3, 4);
        if with_keys {
            members = members.with_keys();
        }
        members.start_all();
        members.wait_led();
        wait_states(&members, ["alive", "alive", "alive"]);

        members.program(2).freeze();
        for k in [0, 1] {
            drop(members.program(k).wait_line("member-3 does not answer"));
            drop(members.program(k).wait_line("member-3 is dead"));
        }
        wait_states(&members, ["alive", "alive", "failed"]);

        members.program(2).thaw();
        for k in [0, 1] {
            members.program(k).wait_line_after("member-3 is dead", "member-3 is alive");
        }
        wait_states(&members, ["alive", "alive", "alive"]);
        for k in 0..3 {
            members.stop(k);
        }
    }
}

/// Waits until `ring members` shows the three so, whichever of them it asks.
fn wait_states(members: &Members, expected: [&str; 3]) {
    let deadline = Instant::now() + tests::PATIENCE;
    loop {
        let found = states(members);
        if found == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{found:?}, not {expected:?}");
    }
}

/// What `ring members` shows of the three.
fn states(members: &Members) -> Vec<String> {
    let exit = members.run(&["--json", "members"]);
    let said: serde_json::Value = serde_json::from_str(exit.ok()).expect("JSON was asked for");
    let members = said["members"].as_array().expect("a list of members");
    let state = |member: &serde_json::Value| member["state"].as_str().map(str::to_owned);
    members.iter().map(|member| state(member).expect("each has a state")).collect()
}
