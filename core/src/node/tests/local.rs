//! Reads of what a replica has, and how stale they say they are.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

impl Cluster {
    /// What a member's replica says of the key, and how stale that may be.
    fn read_local(&mut self, member: usize) -> (Option<Bytes>, Option<Duration>) {
        let action = Action::Get { key: Bytes::from("k"), consistency: Consistency::Local };
        let request = self.submit(member, "p", action);
        self.run(SECOND);
        let reply = self.members[member].replies.remove(&request);
        let Some(Ok(Reply::Local { found, age })) = reply else { panic!("{reply:?}") };
        (found.map(|(value, _)| value), age)
    }
}

/// A replica that hears its leader is fresh. One that is cut off says since when, the leader of before too; what is
/// written meanwhile is not in it, and was written later than it says.
#[test]
fn staleness_grows_while_a_replica_is_cut_off() {
    for cut_off in 0..3 {
        let mut cluster = Cluster::start(3);
        cluster.run(SECOND * 5);
        cluster.call(0, put("k", "old")).unwrap();
        for member in 0..3 {
            let (value, age) = cluster.read_local(member);
            assert_eq!(value, Some(Bytes::from("old")));
            assert!(age.is_some_and(|age| age < SECOND), "member {member}: {age:?}");
        }

        cluster.net.isolated.insert(cut_off);
        let since = cluster.now.instant;
        cluster.run(SECOND * 5);
        let other = (cut_off + 1) % 3;
        cluster.call(other, put("k", "new")).unwrap();
        let mut before = Duration::ZERO;
        for _ in 0..3 {
            cluster.run(SECOND * 5);
            let begin = cluster.now.instant.since(since);
            let (value, age) = cluster.read_local(cut_off);
            assert_eq!(value, Some(Bytes::from("old")));
            let age = age.expect("it was fresh before");
            assert!(age >= begin, "{age:?} is less than the {begin:?} since it was cut off");
            assert!(age <= begin + SECOND * 4 && age > before, "{age:?} of {begin:?}");
            before = age;
        }

        cluster.net.isolated.remove(&cut_off);
        cluster.run(SECOND * 10);
        let (value, age) = cluster.read_local(cut_off);
        assert_eq!(value, Some(Bytes::from("new")));
        assert!(age.is_some_and(|age| age < SECOND), "{age:?}");
    }
}

/// A replica that nobody has read knows how stale it is, too, once it is cut off.
#[test]
fn a_replica_that_nobody_reads_asks_now_and_then() {
    let mut cluster = Cluster::start(3);
    cluster.run(SECOND * 60);
    cluster.net.isolated.insert(2);
    cluster.run(SECOND * 5);
    let (_, age) = cluster.read_local(2);
    assert!(age.is_some_and(|age| age >= SECOND * 5 && age < SECOND * 20), "{age:?}");
}

/// While no leader is known a local read is answered at once, and says that it knows nothing.
#[test]
fn without_a_leader_nothing_is_known() {
    let mut cluster = Cluster::start(3);
    while cluster.members[0].node.view().genesis().is_none() {
        if !cluster.turn() {
            cluster.now.instant = cluster.now.instant + Duration::from_millis(1);
        }
    }
    let group = |cluster: &Cluster| {
        let view = cluster.members[0].node.view();
        view.groups().next().map(|(_, group)| group.raft().leader())
    };
    assert_eq!(group(&cluster), Some(None), "founded, and nobody is elected");
    cluster.net.cut = true;
    let (value, age) = cluster.read_local(0);
    assert_eq!((value, age), (None, None));
}

/// A scan says how stale its snapshot is, on its first page.
#[test]
fn a_local_scan_tells_it_too() {
    let mut cluster = Cluster::start(3);
    cluster.run(SECOND * 5);
    cluster.call(0, put("k", "v")).unwrap();
    let scan = Action::Scan {
        from: Bytes::new(),
        to: None,
        reverse: false,
        limit: 10,
        consistency: Consistency::Local,
    };
    let reply = cluster.call(1, scan).unwrap();
    let Reply::Page { page, age, .. } = reply else { panic!("{reply:?}") };
    assert_eq!(page.items.len(), 1);
    assert!(age.is_some_and(|age| age < SECOND), "{age:?}");
}
