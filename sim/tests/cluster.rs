//! Whole clusters in the hands of a test.

use ring_core::ids::GroupId;
use sim::check::{Checker, Linearizable};
use sim::cluster::{Cluster, secs};
use sim::history::Value;

/// What one node acknowledged, every other node reads.
#[madsim::test]
async fn a_write_is_seen_everywhere() {
    let mut cluster = Cluster::start(3).await;
    cluster.on(1).put("p", "a", 7).await.expect("nothing is wrong");
    for node in 1..=3 {
        assert_eq!(cluster.on(node).get("p", "a").await, Some(Some(Value::Number(7))));
    }

    cluster.on(2).delete("p", "a").await.expect("nothing is wrong");
    assert_eq!(cluster.on(3).get("p", "a").await, Some(None));
    cluster.settle().await;
    assert!(Linearizable::default().check(&cluster.history()).is_ok());
}

/// The majority goes on without the minority, which answers nothing that is false and catches up afterwards.
#[madsim::test]
async fn a_majority_goes_on_across_a_split() {
    let mut cluster = Cluster::start(5).await;
    cluster.on(1).put("p", "a", 1).await.expect("nothing is wrong");

    cluster.split([1, 2], [3, 4, 5]);
    cluster.run(secs(15)).await;
    cluster.on(4).put("p", "a", 2).await.expect("a majority is left");
    assert_ne!(cluster.on(1).get("p", "a").await, Some(Some(Value::Number(1))));

    cluster.heal();
    cluster.settle().await;
    assert_eq!(cluster.on(1).get("p", "a").await, Some(Some(Value::Number(2))));
    assert!(Linearizable::default().check(&cluster.history()).is_ok());
}

/// What was acknowledged survives when all members lose their power at once.
#[madsim::test]
async fn acknowledged_writes_survive_a_blackout() {
    let mut cluster = Cluster::start(3).await;
    for n in 1..=20 {
        cluster.on(1).put("p", &format!("k{n}"), n).await.expect("nothing is wrong");
    }
    for member in 1..=3 {
        cluster.power_cut(member);
    }
    cluster.run(secs(10)).await;
    for member in 1..=3 {
        cluster.restart(member);
    }

    cluster.settle().await;
    for n in 1..=20 {
        let found = cluster.on(2).get("p", &format!("k{n}")).await;
        assert_eq!(found, Some(Some(Value::Number(n))), "k{n}");
    }
}

/// A leader that stops is replaced, and does not lead on when it wakes.
#[madsim::test]
async fn a_paused_leader_is_replaced() {
    let mut cluster = Cluster::start(3).await;
    cluster.settle().await;
    let old = cluster.leader(GroupId(1)).expect("it settled");

    cluster.pause(old);
    let replaced = |sim: &sim::world::Sim| {
        let leader = sim.oracle(|oracle| oracle.leader(GroupId(1)));
        leader.is_some_and(|leader| usize::try_from(leader.0).ok() != Some(old))
    };
    cluster.until(secs(20), replaced).await;

    cluster.resume(old);
    cluster.settle().await;
}

/// Two members that cannot reach each other do not pass for settled, though neither leads anything.
#[madsim::test]
#[should_panic(expected = "has no connection with")]
async fn who_is_apart_has_not_settled() {
    let mut cluster = Cluster::start_with(5, |plan| plan.shards = 1).await;
    cluster.settle().await;
    let leaders: Vec<_> = (0..=1).map(|group| cluster.leader(GroupId(group))).collect();
    let mut others = (1..=5).filter(|member| !leaders.contains(&Some(*member)));
    let (one, other) = (others.next(), others.next());
    let (Some(one), Some(other)) = (one, other) else { panic!("{leaders:?} lead") };

    cluster.split([one], [other]);
    cluster.run(secs(30)).await;
    cluster.settle().await;
}
