//! What a group's leader does about an order, step by step.

use alloc::vec;
use alloc::vec::Vec;

use crate::directory::{Assignment, Step};
use crate::ids::{GroupId, MemberId, ReplicaId};
use crate::raft::message::{Membership, Replica};

fn replicas(ids: &[u64]) -> Vec<Replica> {
    ids.iter().map(|&id| Replica { id: ReplicaId(id), member: MemberId(id) }).collect()
}

fn present(voters: &[u64], learners: &[u64], order: u64) -> Membership {
    let (voters, learners) = (replicas(voters), replicas(learners));
    Membership { voters, outgoing: Vec::new(), learners, order }
}

fn order(voters: &[u64], order: u64) -> Assignment {
    Assignment {
        group: GroupId(1),
        order,
        voters: replicas(voters),
        learners: Vec::new(),
        retiring: Vec::new(),
        settled: false,
    }
}

fn ready(ids: &[u64]) -> impl Fn(ReplicaId) -> bool {
    move |replica| ids.contains(&replica.0)
}

/// A group of three that loses one on purpose while another of them is away stays as it is: of the two that would be left
/// one could decide nothing, nor take the change back.
#[test]
fn voters_that_are_away_hold_a_change_up() {
    let order = order(&[1, 2], 7);
    let before = present(&[1, 2, 3], &[], 3);
    assert_eq!(order.next_step(&before, ready(&[1, 3])), Step::Wait);
    let after = present(&[1, 2], &[], 7);
    assert_eq!(order.next_step(&before, ready(&[1, 2])), Step::Switch(after));
}

/// One of three may be away for as long as the others are a majority of what is asked for.
#[test]
fn a_minority_that_is_away_holds_nothing_up() {
    let order = order(&[1, 2, 4], 7);
    let before = present(&[1, 2, 3], &[4], 3);
    let after = present(&[1, 2, 4], &[], 7);
    assert_eq!(order.next_step(&before, ready(&[1, 4])), Step::Switch(after));
    assert_eq!(order.next_step(&before, ready(&[1, 2])), Step::Wait, "who is new has caught up");
}

/// New voters are learners first; an order that is not newer than the one in force is over.
#[test]
fn an_order_is_followed_once_and_in_steps() {
    let order = order(&[1, 2, 4], 7);
    let learning = present(&[1, 2, 3], &[4], 3);
    assert_eq!(
        order.next_step(&present(&[1, 2, 3], &[], 3), ready(&[1, 2, 3])),
        Step::Learn(learning)
    );
    assert_eq!(order.next_step(&present(&[1, 2, 3], &[], 7), ready(&[1, 2, 3])), Step::Done);
    let joint = Membership { outgoing: replicas(&[1, 2, 3]), ..present(&[1, 2, 4], &[], 6) };
    assert_eq!(order.next_step(&joint, ready(&[1, 2, 3, 4])), Step::Wait);
    let unsorted = Assignment { voters: replicas(&[4, 1, 2]), ..order };
    let after = vec![ReplicaId(1), ReplicaId(2), ReplicaId(4)];
    let Step::Switch(shape) = unsorted.next_step(&present(&[1, 2, 3], &[4], 3), ready(&[1, 2, 4]))
    else {
        panic!("all are ready");
    };
    assert!(shape.voters.iter().map(|voter| voter.id).eq(after));
}
