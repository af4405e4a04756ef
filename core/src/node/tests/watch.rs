//! Watches through a whole cluster, whoever leads.

use super::*;
use crate::shard::command::Changed;

fn watch(after: u64) -> Action {
    Action::Watch { from: Bytes::new(), to: None, after: Some(Revision(after)), limit: 10 }
}

/// The answer that has come to a call, if one has.
fn answer(
    cluster: &mut Cluster,
    member: usize,
    request: RequestId,
) -> Option<(Vec<Changed>, Revision)> {
    match cluster.members[member].replies.remove(&request)? {
        Ok(Reply::Changes { changes, upto }) => Some((changes, upto)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_watch_is_told_at_once_and_ends_empty_when_nothing_happens() {
    let mut cluster = Cluster::start(3);
    cluster.run(Duration::from_secs(30));
    cluster.call(0, put("k", "1")).unwrap();
    for member in 0..3 {
        let waiting = cluster.submit(member, "p", watch(1));
        cluster.run(Duration::from_secs(1));
        assert_eq!(answer(&mut cluster, member, waiting), None, "it waits");
        cluster.run(Duration::from_secs(5));
        let told = answer(&mut cluster, member, waiting);
        assert_eq!(told, Some((Vec::new(), Revision(1))), "asked again, it is told anew");
    }
    let waiting = cluster.submit(2, "p", watch(1));
    cluster.run(Duration::from_secs(1));
    let begin = cluster.now.instant;
    let written = cluster.submit(1, "p", put("k", "2"));
    while !cluster.members[2].replies.contains_key(&waiting) {
        cluster.run(Duration::from_millis(10));
    }
    assert!(cluster.now.instant.since(begin) < Duration::from_millis(300));
    let (changes, upto) = answer(&mut cluster, 2, waiting).unwrap();
    assert_eq!((changes.len(), upto), (1, Revision(2)));
    assert_eq!(changes[0].value.as_deref(), Some(&b"2"[..]));
    cluster.run(Duration::from_secs(1));
    assert!(cluster.members[1].replies.contains_key(&written));
}

/// The member that was asked is cut off while the question waits: another is asked, and nothing is missed.
#[test]
fn a_watch_outlives_the_replica_that_was_asked() {
    let mut cluster = Cluster::start(3);
    cluster.run(Duration::from_secs(30));
    let group = crate::ring::shard_of(b"p", 4);
    let leader = cluster.leaders(group)[0];
    let (cut, caller) = (leader, (leader + 1) % 3);
    cluster.call(caller, put("k", "1")).unwrap();
    cluster.net.isolated.insert(cut);
    let mut seen = Vec::new();
    let mut after = 0;
    let mut waiting = cluster.submit(caller, "p", watch(after));
    for number in 2..=6 {
        let value = alloc::format!("{number}");
        let action = Action::Put { key: Bytes::from("k"), value: Bytes::from(value) };
        cluster.submit(caller, "p", action);
        cluster.run(Duration::from_secs(8));
        if number == 4 {
            cluster.net.isolated.clear();
        }
        while let Some((changes, upto)) = answer(&mut cluster, caller, waiting) {
            seen.extend(changes.iter().map(|changed| changed.revision.0));
            after = upto.0;
            waiting = cluster.submit(caller, "p", watch(after));
            cluster.run(Duration::from_millis(200));
        }
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
}
