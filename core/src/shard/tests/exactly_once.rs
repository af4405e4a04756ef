//! One test a rule: sessions, commands, and what makes the worker stop.

use super::*;
use alloc::boxed::Box;

#[test]
fn a_repeated_command_changes_nothing_and_gets_its_first_reply() {
    let mut shard = Shard::with_session();
    assert_eq!(shard.command(1, &put("k", "a")), written(1));
    assert_eq!(shard.command(2, &put("k", "b")), written(2));

    assert_eq!(shard.command(1, &put("k", "a")), written(1));

    assert_eq!(get(&mut shard.worker, "k"), Some((bytes("b"), Revision(2))));
}

#[test]
fn a_command_that_comes_too_early_is_not_applied() {
    let mut shard = Shard::with_session();

    assert_eq!(shard.command(2, &put("k", "b")), ItemOutcome::Gap { next: Seq(1) });
    assert_eq!(get(&mut shard.worker, "k"), None);
    assert_eq!(shard.command(1, &put("k", "a")), written(1));
    assert_eq!(shard.command(2, &put("k", "b")), written(2));
}

#[test]
fn seq_zero_never_applies() {
    let mut shard = Shard::with_session();
    assert_eq!(shard.command(0, &put("k", "a")), ItemOutcome::Forgotten);
}

#[test]
fn a_reply_declared_answered_is_forgotten_and_its_command_still_never_applies_again() {
    let mut shard = Shard::with_session();
    shard.command(1, &put("k", "a"));
    shard.command(2, &put("k", "b"));
    shard.apply(0, vec![item(1, 3, 3, &put("k", "c"))]);

    assert_eq!(shard.command(2, &put("k", "b")), ItemOutcome::Forgotten);
    assert_eq!(shard.command(3, &put("k", "c")), written(3));
    assert_eq!(get(&mut shard.worker, "k"), Some((bytes("c"), Revision(3))));
}

#[test]
fn a_command_cannot_declare_itself_answered() {
    let mut shard = Shard::with_session();
    shard.apply(0, vec![item(1, 1, u64::MAX, &put("k", "a"))]);
    assert_eq!(shard.command(1, &put("k", "a")), written(1));
}

#[test]
fn an_unknown_session_changes_nothing_and_is_not_made_by_a_retry() {
    let mut shard = Shard::with_session();
    for _ in 0..2 {
        let outcomes = shard.apply(0, vec![item(7, 1, 1, &put("k", "a"))]);
        assert_eq!(outcomes, [ItemOutcome::Expired]);
    }
    assert_eq!(get(&mut shard.worker, "k"), None);
}

#[test]
fn a_skip_takes_the_place_of_the_command_it_stands_for() {
    let mut shard = Shard::with_session();
    let skipped = ItemOutcome::Done(Outcome::Skipped);
    assert_eq!(shard.command(1, &Command::Skip), skipped);
    assert_eq!(shard.command(1, &put("k", "a")), skipped);
    assert_eq!(get(&mut shard.worker, "k"), None);
}

#[test]
fn sessions_end_when_idle_for_longer_than_the_limit_in_shard_time() {
    let mut shard = Shard::new();
    shard.apply(5 * SECOND, vec![open(), open()]);
    shard.apply(65 * SECOND, vec![item(1, 1, 1, &Command::Skip)]); // just in time
    let late = 65 * SECOND + 1;

    let outcomes =
        shard.apply(late, vec![item(1, 2, 1, &Command::Skip), item(2, 1, 1, &Command::Skip)]);

    assert_eq!(outcomes, [ItemOutcome::Done(Outcome::Skipped), ItemOutcome::Expired]);
    assert_eq!(shard.apply(0, vec![open()]), [ItemOutcome::Opened(SessionId(3))]);
    assert_eq!(shard.state().stamp, late, "shard time never falls");
}

#[test]
fn an_entry_without_items_lets_time_pass() {
    let mut shard = Shard::with_session();
    shard.apply(61 * SECOND, vec![]);
    assert_eq!(shard.command(1, &Command::Skip), ItemOutcome::Expired);
}

#[test]
fn the_session_idle_for_longest_gives_way() {
    let mut shard = Shard::new();
    shard.apply(1, (0..4096).map(|_| open()).collect());
    shard.apply(2, vec![item(1, 1, 1, &Command::Skip)]);

    assert_eq!(shard.apply(2, vec![open()]), [ItemOutcome::Opened(SessionId(4097))]);

    let outcomes = shard.apply(2, (1..=3).map(|s| item(s, 2, 1, &Command::Skip)).collect());
    let gap = ItemOutcome::Gap { next: Seq(1) };
    assert_eq!(outcomes, [ItemOutcome::Done(Outcome::Skipped), ItemOutcome::Expired, gap]);
    let mut shard = shard.reopen();
    let outcomes = shard.apply(2, vec![item(2, 1, 1, &Command::Skip)]);
    assert_eq!(outcomes, [ItemOutcome::Expired], "the store has forgotten it too");
}

#[test]
fn a_session_keeps_a_bounded_number_of_replies() {
    let mut shard = Shard::with_session();
    shard.apply(0, (1..=4097).map(|seq| item(1, seq, 1, &Command::Skip)).collect());

    assert_eq!(shard.command(1, &Command::Skip), ItemOutcome::Forgotten);
    assert_eq!(shard.command(2, &Command::Skip), ItemOutcome::Done(Outcome::Skipped));
}

#[test]
fn a_group_keeps_a_bounded_number_of_replies() {
    let mut shard = Shard::new();
    shard.apply(1, (0..65).map(|_| open()).collect());
    for session in 1..=64 {
        let items = (1..=4096).map(|seq| item(session, seq, 1, &Command::Skip));
        shard.apply(1 + session, items.collect());
    }
    let skipped = ItemOutcome::Done(Outcome::Skipped);
    let kept = shard.apply(70, vec![item(2, 1, 1, &Command::Skip)]);
    assert_eq!(kept, vec![skipped.clone()]);

    shard.apply(70, vec![item(65, 1, 1, &Command::Skip)]);
    let mut shard = shard.reopen(); // the store has forgotten them too

    let retries = (1..=3).map(|session| item(session, 1, 1, &Command::Skip)).collect();
    let outcomes = shard.apply(70, retries);
    assert_eq!(outcomes, [ItemOutcome::Forgotten, skipped.clone(), skipped]);
}

#[test]
fn sessions_and_replies_survive_a_restart() {
    let mut shard = Shard::with_session();
    shard.command(1, &put("k", "a"));
    shard.command(2, &put("k", "b"));

    let mut shard = shard.reopen();

    assert_eq!(shard.command(1, &put("k", "a")), written(1));
    assert_eq!(shard.command(3, &put("k", "c")), written(3));
    assert_eq!(shard.apply(0, vec![open()]), [ItemOutcome::Opened(SessionId(2))]);
}

#[test]
fn a_delete_of_nothing_takes_no_revision() {
    let mut shard = Shard::with_session();
    let deleted = |existed, revision| {
        ItemOutcome::Done(Outcome::Deleted { existed, revision: Revision(revision) })
    };
    let items = vec![
        item(1, 1, 1, &delete("k")),
        item(1, 2, 1, &put("k", "a")),
        item(1, 3, 1, &delete("k")),
        item(1, 4, 1, &delete("k")),
    ];
    assert_eq!(
        shard.apply(0, items),
        [deleted(false, 0), written(1), deleted(true, 2), deleted(false, 2)],
        "each sees what stands before it in the same batch"
    );
}

#[test]
fn compare_and_set_decides_on_value_or_revision() {
    let mut shard = Shard::with_session();
    let mut seq = 0;
    let mut swap = |shard: &mut Shard, expect, value| {
        seq += 1;
        match shard.command(seq, &swap("k", expect, value)) {
            ItemOutcome::Done(Outcome::Compared { swapped, revision }) => (swapped, revision.0),
            other => panic!("{other:?}"),
        }
    };
    let value = |text| Expect::Value(Some(bytes(text)));
    let revision = |n| Expect::Revision(Revision(n));

    assert_eq!(swap(&mut shard, Expect::Value(None), None), (true, 0), "still nothing");
    assert_eq!(swap(&mut shard, revision(0), Some("a")), (true, 1));
    assert_eq!(swap(&mut shard, Expect::Value(None), Some("x")), (false, 1));
    assert_eq!(swap(&mut shard, value("b"), Some("x")), (false, 1));
    assert_eq!(swap(&mut shard, value("a"), Some("b")), (true, 2));
    assert_eq!(swap(&mut shard, revision(1), Some("x")), (false, 2));
    assert_eq!(swap(&mut shard, revision(2), Some("c")), (true, 3));
    assert_eq!(swap(&mut shard, value("c"), None), (true, 0));
    assert_eq!(get(&mut shard.worker, "k"), None);
    assert_eq!(swap(&mut shard, value("c"), Some("x")), (false, 0));
    assert_eq!(swap(&mut shard, Expect::Value(None), Some("d")), (true, 5), "4 was the removal");
}

#[test]
fn a_batch_has_one_revision_and_its_later_changes_win() {
    let mut shard = Shard::with_session();
    shard.command(1, &put("c", "old"));
    let changes = [("a", Some("1")), ("b", Some("2")), ("a", Some("3")), ("c", None), ("b", None)];

    assert_eq!(shard.command(2, &batch(&changes)), written(2));
    assert_eq!(shard.command(3, &batch(&[])), written(2), "nothing changed");

    assert_eq!(get(&mut shard.worker, "a"), Some((bytes("3"), Revision(2))));
    assert_eq!(get(&mut shard.worker, "b"), None);
    assert_eq!(get(&mut shard.worker, "c"), None);
}

#[test]
fn malformed_commands_take_their_place_and_change_nothing() {
    let mut shard = Shard::with_session();
    let long = |len| Bytes::from(vec![b'x'; len]);
    let put = |name: usize, key, value| Command::Put {
        partition: long(name),
        key: long(key),
        value: long(value),
    };
    let malformed = ItemOutcome::Done(Outcome::Malformed);

    for (seq, command) in [
        (1, put(0, 1, 1)),
        (2, put(256, 1, 1)),
        (3, put(1, (64 << 10) + 1, 1)),
        (4, put(1, 1, (16 << 20) + 1)),
    ] {
        assert_eq!(shard.command(seq, &command), malformed);
    }
    let raw = |seq, command: &'static [u8]| Item::Command {
        session: SessionId(1),
        seq: Seq(seq),
        first: Seq(1),
        command: Bytes::from_static(command),
    };
    let items = vec![
        raw(5, &[]),
        raw(6, &[200]),
        raw(7, &[0, 0]), // a skip and something behind it
        raw(8, &[1, 1, b'p', 0xff, 0xff, 0xff, 0xff, 15]), // a key of 4 GiB
        raw(9, &[4, 1, b'p', 0xff, 0xff, 0xff, 0xff, 15]), // 4 Gi changes
    ];
    assert_eq!(shard.apply(0, items), vec![malformed; 5]);
    assert_eq!(shard.command(10, &put(255, 64 << 10, 16 << 20)), written(1), "just within");
}

#[test]
fn names_of_partitions_do_not_run_into_keys() {
    let mut shard = Shard::with_session();
    let put = |partition, key| Command::Put {
        partition: bytes(partition),
        key: bytes(key),
        value: bytes("v"),
    };
    shard.command(1, &put("p", "ak"));
    shard.command(2, &put("pa", "k"));
    let get = |partition, key| Query::Get { partition: bytes(partition), key: bytes(key) };

    let at = |revision| Answer::Value(Some((bytes("v"), Revision(revision))));
    assert_eq!(ask(&mut shard.worker, get("p", "ak")), at(1));
    assert_eq!(ask(&mut shard.worker, get("pa", "k")), at(2));
    assert_eq!(ask(&mut shard.worker, get("", "ak")), Answer::Value(None));
}

#[test]
fn membership_is_kept_with_what_is_applied() {
    let mut shard = Shard::new();
    let body = EntryBody::Membership(Box::new(membership(5)));
    run(&mut shard.worker, [apply(&[entry(1, EntryBody::Noop), entry(2, body)])]);

    let state = shard.reopen().state();
    assert_eq!((state.index, state.term), (LogIndex(2), Term(1)));
    assert_eq!(state.membership, membership(5));
}

#[test]
fn a_newer_payload_stops_the_worker_for_good() {
    for payload in [&[2, 0, 0][..], &[], &[1, 0, 1, 9], &[1, 0, 0, 0]] {
        let mut shard = Shard::with_session();
        let before = shard.worker.store().clone();
        let good = entry(2, data(0, vec![item(1, 1, 1, &put("k", "a"))]));
        let bad = entry(3, EntryBody::Data(Bytes::copy_from_slice(payload)));

        let done = run(&mut shard.worker, [apply(&[good]), apply(&[bad]), StoreTask::Persist]);

        assert!(matches!(&done[..], [StoreDone::Failed { .. }]), "{done:?}");
        assert_eq!(run(&mut shard.worker, [StoreTask::Persist, create()]), vec![]);
        assert_eq!(shard.worker.store().len(), before.len(), "nothing was written");
    }
}

#[test]
#[should_panic(expected = "entries must be applied in order, each once")]
fn an_entry_cannot_be_left_out() {
    let mut shard = Shard::new();
    run(&mut shard.worker, [apply(&[entry(2, EntryBody::Noop)])]);
}

#[test]
fn answers_come_in_the_order_of_the_tasks() {
    let mut shard = Shard::with_session();
    let get = |n| StoreTask::Read {
        read: ReadId(n),
        group: GROUP,
        query: Query::Get { partition: bytes("p"), key: bytes("k") },
    };
    let put = |index, seq, value| {
        apply(&[entry(index, data(0, vec![item(1, seq, 1, &put("k", value))]))])
    };
    let tasks = [get(1), put(2, 1, "a"), get(2), put(3, 2, "b"), get(3), StoreTask::Persist];

    let done = run(&mut shard.worker, tasks);

    let value = |n, value: Option<(&str, u64)>| StoreDone::Read {
        read: ReadId(n),
        answer: Answer::Value(value.map(|(value, revision)| (bytes(value), Revision(revision)))),
    };
    assert_eq!(done.len(), 6);
    assert_eq!(done[0], value(1, None));
    assert_eq!(done[2], value(2, Some(("a", 1))));
    assert_eq!(done[4], value(3, Some(("b", 2))));
    assert_eq!(done[5], StoreDone::Persisted { groups: vec![shard.state()] });
}

#[test]
fn outcomes_are_left_out_when_nobody_wants_them() {
    let mut shard = Shard::with_session();
    let task = StoreTask::Apply {
        group: GROUP,
        entries: vec![entry(2, data(7, vec![item(1, 1, 1, &put("k", "a"))]))],
        answers: false,
    };
    let done = run(&mut shard.worker, [task]);
    let state = shard.state();
    let (index, digest, stamp) = (LogIndex(2), state.digest, 7);
    assert_eq!(
        done,
        vec![StoreDone::Applied { group: GROUP, index, outcomes: vec![], digest, stamp }]
    );
}
