//! Who watches sees every change once, in order, or is told that some are forgotten.

use super::*;
use crate::shard::command::{Changed, Watch};

fn watch(after: Option<u64>, wait: bool) -> Query {
    let after = after.map(Revision);
    Query::Watch(Box::new(Watch {
        partition: bytes("p"),
        from: bytes("k"),
        to: None,
        after,
        limit: 100,
        wait,
    }))
}

fn task(read: u64, query: Query) -> StoreTask {
    StoreTask::Read { read: ReadId(read), group: GROUP, query }
}

fn told(done: &[StoreDone]) -> Vec<(u64, Answer)> {
    let answer = |done: &StoreDone| match done {
        StoreDone::Read { read, answer } => Some((read.0, answer.clone())),
        _ => None,
    };
    done.iter().filter_map(answer).collect()
}

fn changes(of: &[(u64, &str, Option<&str>)], upto: u64) -> Answer {
    let changed = |&(revision, key, value): &(u64, &str, Option<&str>)| Changed {
        revision: Revision(revision),
        key: bytes(key),
        value: value.map(bytes),
    };
    Answer::Changes { changes: of.iter().map(changed).collect(), upto: Revision(upto) }
}

#[test]
fn changes_are_told_in_order_with_their_values() {
    let mut shard = Shard::with_session();
    shard.command(1, &put("k1", "a"));
    shard.command(2, &put("another", "x"));
    shard.command(3, &delete("k1"));
    shard.command(4, &batch(&[("k2", Some("b")), ("k3", None)]));
    shard.command(5, &swap("k2", Expect::Revision(Revision(9)), Some("no")));
    let worker = &mut shard.worker;
    let all = [(1, "k1", Some("a")), (3, "k1", None), (4, "k2", Some("b")), (4, "k3", None)];
    assert_eq!(ask(worker, watch(Some(0), false)), changes(&all, 4));
    assert_eq!(ask(worker, watch(Some(3), true)), changes(&all[2..], 4));
    assert_eq!(ask(worker, watch(Some(4), false)), changes(&[], 4));
    assert_eq!(ask(worker, watch(None, true)), changes(&[], 4), "from now on");
}

/// A question waits for a change of its range, is answered once, and gives up when it is told to.
#[test]
fn a_question_waits_for_its_change() {
    let mut shard = Shard::with_session();
    shard.command(1, &put("k1", "a"));
    assert_eq!(run(&mut shard.worker, [task(7, watch(Some(1), true))]), []);
    assert_eq!(run(&mut shard.worker, [task(8, watch(Some(1), true))]), []);
    let close = |read| StoreTask::CloseWatch { read: ReadId(read), group: GROUP };

    let apply_at = |shard: &mut Shard, seq, command: &Command<Bytes>| {
        shard.last += 1;
        let items = vec![item(1, seq, 1, command)];
        run(&mut shard.worker, [apply(&[entry(shard.last, data(0, items))])])
    };
    let done = apply_at(&mut shard, 2, &put("elsewhere", "x"));
    assert_eq!(told(&done), [], "not in its range");
    assert_eq!(told(&run(&mut shard.worker, [close(8)])), [(8, changes(&[], 2))]);
    assert_eq!(run(&mut shard.worker, [close(8)]), [], "once");

    let done = apply_at(&mut shard, 3, &put("k2", "b"));
    assert!(matches!(done[0], StoreDone::Applied { .. }), "what is told is written");
    assert_eq!(told(&done), [(7, changes(&[(3, "k2", Some("b"))], 3))]);
    assert_eq!(told(&apply_at(&mut shard, 4, &put("k3", "c"))), []);
}

/// A replica that is started anew, or gets a snapshot, does not remember what was before.
#[test]
fn what_is_not_remembered_is_said() {
    let mut shard = Shard::with_session();
    for seq in 1..=3 {
        shard.command(seq, &put("k1", "a"));
    }
    let chunks = chunks(&mut shard.worker, 1);
    let mut again = shard.reopen();
    let forgotten = Answer::Compacted { first: Revision(4) };
    assert_eq!(ask(&mut again.worker, watch(Some(2), true)), forgotten);
    assert_eq!(ask(&mut again.worker, watch(Some(3), false)), changes(&[], 3));

    let mut behind = Shard::with_session();
    behind.command(1, &put("k1", "a"));
    assert_eq!(run(&mut behind.worker, [task(7, watch(Some(1), true))]), []);
    let last = chunks.len() - 1;
    for (chunk, data) in (0..).zip(&chunks[..last]) {
        run(&mut behind.worker, [install(1, chunk, data, false)]);
    }
    let number = u64::try_from(last).unwrap();
    let done = run(&mut behind.worker, [install(1, number, &chunks[last], true)]);
    assert_eq!(told(&done), [(7, forgotten)], "it has jumped over what was waited for");
}

/// Who waits for a group that is dropped is answered, and asks elsewhere.
#[test]
fn a_dropped_group_lets_nobody_wait() {
    let mut shard = Shard::with_session();
    run(&mut shard.worker, [task(7, watch(Some(0), true))]);
    let done = run(&mut shard.worker, [StoreTask::Drop { group: GROUP }]);
    assert_eq!(told(&done), [(7, changes(&[], 0))]);
}
