//! Who is alive, as processes find out: one that is stopped where it is becomes a suspect, then dead, and alive again
//! when it goes on.

use std::collections::BTreeMap;
use std::time::Instant;

use tests::members::Members;
use tests::program::run_ring;

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

/// The key that seals datagrams is changed as the README says, while all are up: three steps, after each of which the
/// members are started again one after the other. Nobody takes another for dead in the mean time, and once two members
/// have shaken hands each opens all that the other seals, whichever of the keys each of them has.
#[test]
fn datagrams_are_opened_while_their_key_is_changed() {
    let mut members = Members::new(3, 4).with_keys().with_metrics();
    // Little has to be waited for, and on a slow machine a suspect has time to answer.
    members = members.saying(&["--probe-interval", "200ms", "--suspicion-min", "100"]);
    members.start_all();
    members.wait_led();
    wait_states(&members, ["alive", "alive", "alive"]);
    all_is_opened(&members);
    let keys = members.keys().to_string_lossy().into_owned();
    for said in ["key 2 added", "key 2 promoted", "key 1 dropped"] {
        let exit = run_ring(&["keys", "rotate-datagram", &keys]);
        assert!(exit.ok().contains(said), "{exit:?}");
        for k in 0..3 {
            nobody_was_dead(&members);
            members.stop(k);
            members.start(k);
            members.wait_up(k);
            wait_states(&members, ["alive", "alive", "alive"]);
            all_is_opened(&members);
        }
    }
    nobody_was_dead(&members);
}

/// Waits until all members are connected. From then on they open every datagram: none is refused while each receives
/// several of both others.
fn all_is_opened(members: &Members) {
    let deadline = Instant::now() + tests::PATIENCE;
    let measure = || -> Vec<BTreeMap<String, u64>> { (0..3).map(|k| members.metrics(k)).collect() };
    let of = |what: &str, measured: &[BTreeMap<String, u64>]| -> Vec<u64> {
        measured.iter().map(|metrics| metrics[what]).collect()
    };
    let mut before = measure();
    while of("ring_members_connected", &before) != [2, 2, 2] {
        assert!(Instant::now() < deadline, "not all are connected: {before:?}");
        before = measure();
    }
    loop {
        let now = measure();
        let refused = |measured| of("ring_datagrams_total{what=\"refused\"}", measured);
        assert_eq!(refused(&now), refused(&before), "datagrams were not opened");
        let received = |measured| of("ring_datagrams_total{what=\"received\"}", measured);
        let (then, more) = (received(&before), received(&now));
        if more.iter().zip(&then).all(|(more, then)| *more >= then + 10) {
            return;
        }
        assert!(Instant::now() < deadline, "no datagrams: {now:?}");
    }
}

/// No running member has told that another one is dead.
fn nobody_was_dead(members: &Members) {
    for k in 0..3 {
        let output = members.program(k).output();
        assert!(!output.contains("is dead"), "{output}");
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
