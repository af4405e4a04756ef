//! The director and its plan, rule by rule.

use alloc::collections::BTreeSet;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::time::Duration;

use super::super::*;
use crate::genesis::{Founder, Genesis};
use crate::ids::{ClusterId, GroupId, MemberId, Revision, Term};
use crate::time::Instant;

const EVERYONE: usize = 255;
const NOBODY: BTreeSet<GroupId> = BTreeSet::new();

pub(super) fn genesis(members: u64, shards: u32) -> Genesis {
    let founder = |id: u64| Founder {
        id: MemberId(id),
        name: alloc::format!("m{id}"),
        address: alloc::format!("m{id}"),
        birth: id,
    };
    let members = (1..=members).map(founder).collect();
    Genesis { cluster: ClusterId(1), name: "c".to_string(), members, shards, replication: 3 }
}

pub(super) fn registration(id: u64, weight: u16) -> Change {
    Change::Register(Registration {
        id: MemberId(id),
        name: alloc::format!("m{id}"),
        address: alloc::format!("m{id}"),
        birth: id,
        weight,
    })
}

fn leave(member: u64) -> Change {
    Change::Leave { member: MemberId(member), force: false }
}

fn with(table: &Table, changes: &[Change]) -> Table {
    let apply = |table: Table, change: &Change| {
        table.with(change, EVERYONE, |_, _| false).expect("not refused").unwrap_or(table)
    };
    changes.iter().fold(table.clone(), apply)
}

fn ids(members: &[u64]) -> Vec<MemberId> {
    members.iter().copied().map(MemberId).collect()
}

fn voters(table: &Table, group: u32) -> Vec<MemberId> {
    let mut voters: Vec<MemberId> =
        table.group(GroupId(group)).unwrap().voters.iter().map(|voter| voter.member).collect();
    voters.sort_unstable();
    voters
}

/// Everyone of the table that is active and has a weight.
fn everywhere(table: &Table) -> Vec<MemberId> {
    table.active().filter(|&(_, weight)| weight > 0).map(|(member, _)| member).collect()
}

/// Moves until nothing is left to be done.
fn settled(mut table: Table, moving_max: u64) -> Table {
    for _ in 0..100 {
        let everywhere = everywhere(&table);
        let next = table.advanced(&|_| everywhere.clone(), moving_max, &NOBODY);
        let unsettled: Vec<Change> = next
            .iter()
            .flat_map(|next| &next.groups)
            .chain(&table.groups)
            .filter(|assignment| !assignment.settled)
            .map(|assignment| Change::Settle { group: assignment.group, order: assignment.order })
            .collect();
        if next.is_none() && unsettled.is_empty() {
            return table;
        }
        table = with(&next.unwrap_or(table), &unsettled);
    }
    panic!("it never comes to rest");
}

fn director() -> Director {
    Director::new(DirectorSettings {
        replace_after: Duration::from_secs(10),
        name_after: Duration::from_secs(2),
        moving_max: 8,
        members_max: EVERYONE,
    })
}

/// A director that has just begun to lead knows of nobody yet whether it is there: a lost member stays lost until
/// somebody has said that it is back.
#[test]
fn a_new_director_takes_nobody_for_returned() {
    let table = with(&Table::of_genesis(&genesis(3, 4)), &[Change::Lose(MemberId(3))]);
    let place = |table: &Table| {
        let everywhere = everywhere(table);
        move |_: GroupId| everywhere.clone()
    };
    let written = |is_seen: bool| {
        let mut director = director();
        director.on_lead(Some(Term(1)));
        assert_eq!(director.take_ask(), Some(Ask::Read));
        director.on_read(Some((table.clone(), Revision(7))));
        if is_seen {
            director.on_presence(Instant(1), MemberId(3), true);
        }
        director.drive(Instant(1), place);
        match director.take_ask() {
            Some(Ask::Write { value, .. }) => Table::decode(&value).unwrap(),
            _ => table.clone(),
        }
    };
    assert_eq!(written(false).member(MemberId(3)).unwrap().standing, Standing::Lost);
    assert_eq!(written(true).member(MemberId(3)).unwrap().standing, Standing::Active);
}

/// Whoever is left when others go can decide without those that are away.
#[test]
fn who_stays_can_decide_without_who_is_away() {
    let lost = with(&Table::of_genesis(&genesis(3, 2)), &[Change::Lose(MemberId(3))]);
    let leaving = with(&lost, &[leave(1)]);
    let next = leaving.advanced(&|_| ids(&[2]), 100, &NOBODY).unwrap();
    assert_eq!(voters(&next, 1), ids(&[2]));
    // The same when a member is drained by its weight.
    let drained = with(&lost, &[registration(1, 0)]);
    let next = drained.advanced(&|_| ids(&[2]), 100, &NOBODY).unwrap();
    assert_eq!(voters(&next, 1), ids(&[2]));

    // Two of the directory's five are away when two more go.
    let five = Table::of_genesis(&genesis(5, 1));
    let changes = [Change::Lose(MemberId(4)), Change::Lose(MemberId(5)), leave(1), leave(2)];
    let next = with(&five, &changes).advanced(&|_| ids(&[3]), 100, &NOBODY).unwrap();
    assert_eq!(voters(&next, 0), ids(&[3]));
}

/// Where nobody could hold a group it stays where it is, also when some of those who hold it are away.
#[test]
fn a_group_that_nobody_could_hold_stays() {
    let changes = [registration(1, 0), registration(2, 0), Change::Lose(MemberId(3))];
    let table = with(&Table::of_genesis(&genesis(3, 2)), &changes);
    let next = settled(table.clone(), 100);
    assert_eq!(voters(&next, 1), ids(&[1, 2, 3]));
}

/// A member is not told that it may go when those who stay may hold nothing.
#[test]
fn the_last_member_with_a_weight_stays() {
    let table = with(&Table::of_genesis(&genesis(2, 2)), &[registration(2, 0)]);
    let refused = table.with(&leave(1), EVERYONE, |_, _| false);
    assert_eq!(refused, Err(ChangeRefused::LastMember));
}

/// What becomes of a leave of the first of three members, of whom these are there: the next table, or the refusal.
fn leave_of_the_first(here: &[u64], force: bool) -> Result<Table, ChangeRefused> {
    let mut director = director();
    director.on_lead(Some(Term(1)));
    assert_eq!(director.take_ask(), Some(Ask::Read));
    director.on_read(Some((Table::of_genesis(&genesis(3, 2)), Revision(7))));
    for member in 1..=3 {
        director.on_presence(Instant(1), MemberId(member), here.contains(&member));
    }
    director.ask(Change::Leave { member: MemberId(1), force });
    director.drive(Instant(1), |table| {
        let everywhere = everywhere(table);
        move |_: GroupId| everywhere.clone()
    });
    if let Some((asker, reason)) = director.take_refused().pop() {
        assert_eq!(asker, MemberId(1));
        return Err(reason);
    }
    let Some(Ask::Write { value, .. }) = director.take_ask() else { panic!("a new table") };
    Ok(Table::decode(&value).unwrap())
}

/// With one member away for a moment another may not go: the two that stay could decide nothing, and the membership
/// that they are to have would never come into force. With all of them there it may.
#[test]
fn a_leave_that_would_lose_the_majority_is_refused() {
    assert_eq!(leave_of_the_first(&[1, 2], false), Err(ChangeRefused::NoMajority));
    assert_eq!(leave_of_the_first(&[1, 3], false), Err(ChangeRefused::NoMajority));
    let table = leave_of_the_first(&[1, 2, 3], false).unwrap();
    assert_eq!(table.member(MemberId(1)).unwrap().standing, Standing::Leaving);
    assert_eq!(voters(&table, 1), ids(&[2, 3]));
}

/// By force it may: who is away is given up, so that who stays can decide alone. Not even so if nobody stays.
#[test]
fn a_forced_leave_gives_up_who_is_away() {
    let table = leave_of_the_first(&[1, 2], true).unwrap();
    assert_eq!(table.member(MemberId(3)).unwrap().standing, Standing::Lost);
    for group in 0..=2 {
        assert_eq!(voters(&table, group), ids(&[2]), "g{group}");
    }
    assert_eq!(leave_of_the_first(&[1], true), Err(ChangeRefused::LastMember));
}

/// Orders that wait for somebody who is away do not keep other groups from moving.
#[test]
fn orders_that_wait_for_the_lost_hold_up_nobody() {
    // Two members hold everything; two more join, and one of them is lost before it has caught up.
    let table = with(&Table::of_genesis(&genesis(2, 2)), &[registration(3, 1), registration(4, 1)]);
    let mut table = table.advanced(&|_| ids(&[1, 3, 4]), 1, &NOBODY).unwrap();
    let moving: Vec<GroupId> =
        table.groups.iter().filter(|group| !group.settled).map(|group| group.group).collect();
    assert_eq!(moving, [GroupId(0)], "the directory comes first");
    table = with(&table, &[Change::Settle { group: GroupId(0), order: table.version }]);
    table = table.advanced(&|_| ids(&[1, 3, 4]), 1, &NOBODY).unwrap();
    assert!(!table.group(GroupId(1)).unwrap().settled);
    table = with(&table, &[Change::Lose(MemberId(4)), leave(2)]);
    for _ in 0..10 {
        let moving = table.groups.iter().filter(|group| !group.settled);
        let can_settle: Vec<Change> = moving
            .filter(|group| group.target().all(|replica| replica.member != MemberId(4)))
            .map(|group| Change::Settle { group: group.group, order: group.order })
            .collect();
        table = with(&table, &can_settle);
        table = table.advanced(&|_| ids(&[1, 3]), 1, &NOBODY).unwrap_or(table);
    }
    assert_eq!(voters(&table, 2), ids(&[1, 3]), "who leaves is drained");
}

/// Between two terms of one leader another may have led and written: what was read before counts no longer.
#[test]
fn a_director_reads_in_every_term() {
    let mut director = director();
    director.on_lead(Some(Term(1)));
    assert_eq!(director.take_ask(), Some(Ask::Read));
    director.on_read(Some((Table::of_genesis(&genesis(3, 1)), Revision(1))));
    director.on_lead(Some(Term(1)));
    assert_eq!(director.take_ask(), None);
    director.on_lead(Some(Term(3)));
    assert_eq!(director.take_ask(), Some(Ask::Read));
}

/// Groups that have lost their majority get no order and keep no place; those that lose it under way are not waited
/// for beyond some time.
#[test]
fn groups_without_a_majority_hold_up_nobody() {
    // Of one group two replicas of three are away, of the other one.
    let table = Table::of_genesis(&genesis(6, 8));
    let away = [MemberId(5), MemberId(6)];
    let changes = away.map(Change::Lose);
    let table = with(&table, &changes);
    let lost = |group: &&Assignment| {
        group.voters.iter().filter(|voter| away.contains(&voter.member)).count()
    };
    let dead: Vec<GroupId> =
        table.groups.iter().filter(|group| lost(group) == 2).map(|group| group.group).collect();
    let alive = table.groups.iter().skip(1).filter(|group| lost(group) == 1).count();
    assert!(!dead.is_empty() && alive > 1, "the placement has both");

    let place = |_: GroupId| ids(&[1, 2, 3]);
    let next = settled(with(&table, &[]), 1);
    for group in &next.groups[1..] {
        let was = table.group(group.group).unwrap();
        let is_dead = dead.contains(&group.group);
        assert_eq!(group.order == was.order, is_dead, "{group:?}");
    }

    // An order that is under way keeps its place, unless it is taken for stalled.
    let first = table.advanced(&place, 1, &NOBODY).unwrap();
    let moving: BTreeSet<GroupId> =
        first.groups.iter().filter(|group| !group.settled).map(|group| group.group).collect();
    assert_eq!(moving.len(), 1);
    assert_eq!(first.advanced(&place, 1, &NOBODY), None);
    let second = first.advanced(&place, 1, &moving).unwrap();
    assert_eq!(second.moving(), 2);
}

/// An order that is not settled within the time after which a member is given up takes nobody's turn any more.
#[test]
fn an_order_is_not_waited_for_for_ever() {
    let table = with(&Table::of_genesis(&genesis(3, 4)), &[registration(4, 1)]);
    let place = |_: &Table| |_: GroupId| ids(&[1, 2, 4]);
    let settings = DirectorSettings {
        replace_after: Duration::from_secs(10),
        name_after: Duration::from_secs(2),
        moving_max: 1,
        members_max: EVERYONE,
    };
    let mut director = Director::new(settings);
    director.on_lead(Some(Term(1)));
    director.take_ask();
    director.on_read(Some((table, Revision(1))));
    let second = 1_000_000_000;
    let mut orders = Vec::new();
    for time in 0..25 {
        director.drive(Instant(time * second), place);
        while let Some(Ask::Write { value, .. }) = director.take_ask() {
            orders.push((time, Table::decode(&value).unwrap().moving()));
            director.on_written(Some(Revision(time + 2)));
            director.drive(Instant(time * second), place);
        }
    }
    assert_eq!(orders, [(0, 1), (10, 2), (20, 3)]);
}

/// A link that breaks for a moment costs no member its name; where the member itself listened it is gone for sure.
#[test]
fn a_name_outlives_a_broken_link() {
    let twin = |id: u64, address: &str| {
        Change::Register(Registration {
            id: MemberId(id),
            name: "m2".to_string(),
            address: address.to_string(),
            birth: id,
            weight: 1,
        })
    };
    let answer = |seconds: u64, twin: &Change| {
        let mut director = director();
        let nowhere = |_: &Table| |_: GroupId| Vec::new();
        director.on_lead(Some(Term(1)));
        director.take_ask();
        director.on_read(Some((Table::of_genesis(&genesis(3, 1)), Revision(1))));
        director.on_presence(Instant(0), MemberId(2), false);
        director.ask(twin.clone());
        director.drive(Instant(seconds * 1_000_000_000), nowhere);
        director.take_refused().pop().map(|(_, reason)| reason)
    };
    let elsewhere = twin(9, "m9");
    assert_eq!(answer(1, &elsewhere), Some(ChangeRefused::NameTaken));
    assert_eq!(answer(2, &elsewhere), None);
    assert_eq!(answer(0, &twin(9, "m2")), None);
}
