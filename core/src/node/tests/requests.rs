//! Requests in a whole cluster: the owner handles them, and another when it is gone.

use super::*;
use crate::request::{Effect, Failure, Handle, Kind, Request, Response, Target};
use crate::ring::shard_of;

fn me(cluster: &Cluster, member: usize) -> MemberId {
    cluster.members[member].node.view().me()
}

fn start() -> Cluster {
    let mut cluster = Cluster::start(3);
    for member in &mut cluster.members {
        member.node.serve_requests();
    }
    cluster.run(Duration::from_secs(3));
    cluster
}

/// A key of this member.
fn key_of(cluster: &mut Cluster, owner: usize) -> Bytes {
    let owner = me(cluster, owner);
    let ring = cluster.members[0].node.ring();
    let keys = (0..).map(|n: u32| alloc::format!("key {n}"));
    let mut mine = keys.filter(|key| ring.owner(key.as_bytes()) == Some(owner));
    Bytes::from(mine.next().unwrap())
}

fn ask(cluster: &mut Cluster, member: usize, target: Target, kind: Kind) -> RequestId {
    let request = RequestId(cluster.next_request);
    cluster.next_request += 1;
    let what = Request {
        target,
        kind,
        route: "echo".to_string(),
        headers: Vec::new(),
        body: Bytes::from("body"),
        streams: Vec::new(),
        deadline: cluster.now.instant + Duration::from_secs(10),
    };
    cluster.members[member].node.request(cluster.now, request, what).unwrap();
    cluster.settle();
    request
}

/// Requests that wait for this member's answer.
fn handles(cluster: &mut Cluster, member: usize) -> Vec<Handle> {
    let effects = core::mem::take(&mut cluster.members[member].effects);
    let handles = effects.into_iter().filter_map(|effect| match effect {
        Effect::Handle(handle) => Some(*handle),
        _ => None,
    });
    handles.collect()
}

fn respond(cluster: &mut Cluster, member: usize, handle: &Handle) {
    let response = Response { body: handle.body.clone(), ..Response::default() };
    cluster.members[member].node.respond(handle.handle, Ok(response));
    cluster.settle();
}

fn answers(cluster: &Cluster, member: usize) -> Vec<(RequestId, Result<Bytes, Failure>)> {
    let effects = cluster.members[member].effects.iter();
    let answers = effects.filter_map(|effect| match effect {
        Effect::Answered { request, result } => {
            Some((*request, result.clone().map(|response| response.body)))
        }
        _ => None,
    });
    answers.collect()
}

#[test]
fn the_owner_answers_whoever_asks() {
    let mut cluster = start();
    for owner in 0..3 {
        let key = key_of(&mut cluster, owner);
        for caller in 0..3 {
            let request = ask(&mut cluster, caller, Target::Key(key.clone()), Kind::Retried);
            let handles = handles(&mut cluster, owner);
            let [handle] = &handles[..] else { panic!("{handles:?}") };
            assert_eq!((handle.id.caller, handle.attempt), (me(&cluster, caller), 1));
            respond(&mut cluster, owner, handle);
            assert_eq!(answers(&cluster, caller), [(request, Ok(Bytes::from("body")))]);
            cluster.members[caller].effects.clear();
        }
    }
}

#[test]
fn when_the_owner_falls_silent_the_next_in_line_answers() {
    let mut cluster = start();
    let key = key_of(&mut cluster, 2);
    let request = ask(&mut cluster, 0, Target::Key(key.clone()), Kind::Retried);
    assert_eq!(handles(&mut cluster, 2).len(), 1);
    cluster.net.isolated.insert(2);
    cluster.run(Duration::from_secs(6));
    let next = (0..2).find(|&member| {
        let is_handle = |effect: &Effect| matches!(effect, Effect::Handle(_));
        cluster.members[member].effects.iter().any(is_handle)
    });
    let next = next.expect("somebody else is asked");
    let handles = handles(&mut cluster, next);
    let [handle] = &handles[..] else { panic!("{handles:?}") };
    assert_eq!((handle.id.number, handle.attempt), (request.0, 2));
    respond(&mut cluster, next, handle);
    assert_eq!(answers(&cluster, 0), [(request, Ok(Bytes::from("body")))]);
}

#[test]
fn a_partitions_leader_answers() {
    let mut cluster = start();
    let target = Target::Partition(Bytes::from("p"));
    let group = shard_of(b"p", 4);
    let leader = cluster.leaders(group)[0];
    for caller in 0..3 {
        let request = ask(&mut cluster, caller, target.clone(), Kind::Retried);
        let handles = handles(&mut cluster, leader);
        let [handle] = &handles[..] else { panic!("{handles:?}") };
        respond(&mut cluster, leader, handle);
        assert_eq!(answers(&cluster, caller), [(request, Ok(Bytes::from("body")))]);
        cluster.members[caller].effects.clear();
    }
}

/// A request to a partition that nobody leads yet reaches its leader in the turn in which its caller hears of one, however
/// long its next try is off.
#[test]
fn a_request_to_a_partition_goes_to_a_new_leader_at_once() {
    let (partition, group) = (Bytes::from("p"), shard_of(b"p", 4));
    let mut cluster = Cluster::start(3);
    for member in &mut cluster.members {
        member.node.serve_requests();
    }
    let step = |cluster: &mut Cluster, until: &dyn Fn(&Member) -> bool| {
        let steps = (0..10_000).take_while(|_| {
            let is_done = cluster.members.iter().all(until);
            cluster.run(Duration::from_millis(u64::from(!is_done)));
            !is_done
        });
        assert!(steps.count() < 10_000, "it comes to that");
    };
    step(&mut cluster, &|member| member.events.iter().any(|e| matches!(e, Event::Up { .. })));
    for caller in 0..3 {
        ask(&mut cluster, caller, Target::Partition(partition.clone()), Kind::Once);
    }
    assert_eq!(cluster.leaders(group), []);
    let is_led = |event: &Event| matches!(event, Event::LeaderChanged { group: of, leader: Some(_), .. } if *of == group);
    step(&mut cluster, &|member| member.events.iter().any(is_led));
    let leader = cluster.leaders(group)[0];
    assert_eq!(handles(&mut cluster, leader).len(), 3, "nobody waits for the next try");
}

#[test]
fn a_request_to_a_member_waits_for_it() {
    let mut cluster = start();
    let target = Target::Member(me(&cluster, 1));
    cluster.net.isolated.insert(1);
    cluster.run(Duration::from_secs(6));
    let request = ask(&mut cluster, 0, target, Kind::Once);
    cluster.run(Duration::from_secs(2));
    assert_eq!(answers(&cluster, 0), []);
    cluster.net.isolated.clear();
    cluster.run(Duration::from_secs(3));
    let handles = handles(&mut cluster, 1);
    let [handle] = &handles[..] else { panic!("{handles:?}") };
    respond(&mut cluster, 1, handle);
    assert_eq!(answers(&cluster, 0), [(request, Ok(Bytes::from("body")))]);
}

#[test]
fn a_member_alone_asks_itself() {
    let mut cluster = Cluster::start(1);
    cluster.members[0].node.serve_requests();
    cluster.run(Duration::from_secs(2));
    let request = ask(&mut cluster, 0, Target::Key(Bytes::from("k")), Kind::Retried);
    let handles = handles(&mut cluster, 0);
    respond(&mut cluster, 0, &handles[0]);
    assert_eq!(answers(&cluster, 0), [(request, Ok(Bytes::from("body")))]);
}
