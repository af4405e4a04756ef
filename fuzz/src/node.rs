//! A member of a founded cluster whose peers say anything, while its own disk and store are honest.
//!
//! - Nothing that a peer says makes the member panic, and every invariant holds after each turn (`Node::check`).
//! - The disk is never the reason for a halt; and whatever peers said, the member starts again on what it wrote.
//! - What is held stays bounded (the fuzzer's own limit), and so do the outputs of a turn.
//! - A request of its application ends once, at its deadline at the latest, and a stream loses no byte and repeats none:
//!   the rules are at `world::Talk`.

use std::time::Duration;

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use ring_core::Input;
use ring_core::directory::{Assignment, Registered, Standing, Table};
use ring_core::ids::{
    ConnId, CursorId, GroupId, LogIndex, MemberId, ReplicaId, Revision, Seq, SessionId, SnapshotId,
    Term,
};
use ring_core::io::{Action, Call, Consistency, Halt};
use ring_core::raft::message::{Beat, BeatAnswer, Body, Entry, Message as RaftMessage, Replica};
use ring_core::shard::command::{Query, Scan, Watch};
use ring_core::wire::message::{BeatOf, Leave, Message};

mod requests;

use crate::entries::{body, command};
use crate::world::Lone;

/// See the [module](self).
pub fn run(data: &[u8]) {
    // Too few bytes end the play.
    let _ = try_run(&mut Unstructured::new(data));
}

fn try_run(u: &mut Unstructured<'_>) -> Result<()> {
    let mut lone = Lone::founded();
    while !u.is_empty() && lone.halt.is_none() {
        step(&mut lone, u)?;
    }
    if let Some(Halt::Contradiction { what } | Halt::Defect { what }) = &lone.halt {
        panic!("the disk and the store are honest: {what}");
    }
    if lone.halt.is_none() && !lone.talk.asked().is_empty() {
        lone.pass(requests::PATIENCE);
    }
    assert!(lone.talk.asked().is_empty(), "a request has passed its deadline, or the halt");
    if lone.halt.is_none() {
        lone.store(usize::MAX);
        lone.run(usize::MAX);
        lone.restart();
    }
    Ok(())
}

fn step(lone: &mut Lone, u: &mut Unstructured<'_>) -> Result<()> {
    match u.int_in_range(0..=19)? {
        0 => lone.pass(Duration::from_millis(u64::from(u.arbitrary::<u8>()?) * 8)),
        1 => lone.store(1 + usize::from(u.arbitrary::<u8>()? % 4)),
        2 => lone.run(1 + usize::from(u.arbitrary::<u8>()? % 4)),
        3 => submit(lone, u)?,
        4 => match u.int_in_range(0..=7)? {
            0 => lone.restart(),
            1 if !lone.conns.is_empty() => lone.drop_conn(u.choose_index(lone.conns.len())?),
            2 => drop(lone.accept()),
            _ => lone.meet(),
        },
        5 => {
            lone.store(usize::MAX);
            lone.run(usize::MAX);
        }
        6 | 7 => requests::act(lone, u)?,
        kind => {
            let Some(place) = lone.conns.len().checked_sub(1) else {
                lone.meet();
                return Ok(());
            };
            let (conn, member) = lone.conns[u.int_in_range(0..=place)?];
            let message = match kind {
                8 => call(u, lone)?,
                9 => beats(u, lone, member)?,
                10 | 11 => requests::said(u, lone, conn)?,
                _ => Message::Raft(raft(u, lone, member)?),
            };
            hear(lone, conn, message);
        }
    }
    Ok(())
}

fn hear(lone: &mut Lone, conn: ConnId, message: Message) {
    // What the wire would not carry cannot arrive.
    if ring_core::wire::Encoder::new().push(&message).is_ok() {
        lone.input(Input::Message { conn, message });
    }
}

/// A group, the member's replica of it, and that of a peer.
fn replicas(
    u: &mut Unstructured<'_>,
    lone: &Lone,
    peer: Option<MemberId>,
) -> Result<(GroupId, ReplicaId, ReplicaId)> {
    let group = GroupId(if u.ratio(1, 32)? { u.arbitrary()? } else { u.int_in_range(1..=2)? });
    let view = lone.node.view();
    let to = view.group(group).map_or(ReplicaId(1), |group| group.raft().id());
    let membership = view.group(group).map(|group| group.raft().membership().clone());
    let honest = membership.and_then(|membership| membership.on_member(peer?)).map(|peer| peer.id);
    let from = match honest {
        Some(from) if !u.ratio(1, 32)? => from,
        Some(_) | None => ReplicaId(u.int_in_range(0..=8)?),
    };
    Ok((group, to, from))
}

/// A number near the ones that count, sometimes anything.
fn near(u: &mut Unstructured<'_>, marks: &[u64]) -> Result<u64> {
    if u.ratio(1, 32)? {
        return u.arbitrary();
    }
    let mark = *u.choose(marks)?;
    let by = u.int_in_range(-2i64..=2)?;
    Ok(mark.saturating_add_signed(by))
}

fn raft(u: &mut Unstructured<'_>, lone: &Lone, peer: Option<MemberId>) -> Result<RaftMessage> {
    let (group, to, from) = replicas(u, lone, peer)?;
    let view = lone.node.view();
    let replica = view.group(group).map(|group| group.raft().clone());
    let (term, marks) = match &replica {
        Some(raft) => {
            let log = raft.log();
            let marks = [log.last_index().0, raft.commit().0, log.cut_index().0, log.stored().0];
            (raft.term().0, marks)
        }
        None => (0, [0; 4]),
    };
    let term = match u.int_in_range(0..=7)? {
        0 => term.saturating_add(1),
        1 => near(u, &[term])?,
        _ => term,
    };
    let at = |index: u64| replica.as_ref().and_then(|raft| raft.log().term_at(LogIndex(index)));
    let place = |u: &mut Unstructured<'_>| -> Result<(LogIndex, Term)> {
        let index = near(u, &marks)?;
        let term =
            if u.ratio(1, 8)? { Term(near(u, &[term])?) } else { at(index).unwrap_or(Term(term)) };
        Ok((LogIndex(index), term))
    };
    let body = match u.int_in_range(0..=14)? {
        0 => {
            let (last_index, last_term) = place(u)?;
            Body::PreVote { last_index, last_term }
        }
        1 => Body::PreVoteAnswer { granted: u.arbitrary()? },
        2 => {
            let (last_index, last_term) = place(u)?;
            Body::Vote { last_index, last_term, transfer: u.arbitrary()? }
        }
        3 | 4 => Body::VoteAnswer { granted: u.ratio(7, 8)? },
        5 => {
            let index = if u.arbitrary()? { appended(lone, from).1 } else { place(u)?.0 };
            Body::Accepted { index }
        }
        6 => {
            let prev_index = if u.arbitrary()? { appended(lone, from).0 } else { place(u)?.0 };
            let (hint_index, hint_term) = place(u)?;
            Body::Rejected { prev_index, hint_index, hint_term }
        }
        7 => {
            let (id, (index, last_term)) = (SnapshotId(u.int_in_range(0..=2)?), place(u)?);
            let len = usize::from(u.arbitrary::<u8>()?).min(u.len());
            let data = Bytes::copy_from_slice(u.bytes(len)?);
            let (chunk, last) = (u.int_in_range(0..=2)?, u.arbitrary()?);
            Body::Snapshot { id, index, last_term, chunk, data, last }
        }
        8 => Body::SnapshotNext { id: sending(u, lone)?, chunk: u.int_in_range(0..=3)? },
        9 => Body::TimeoutNow,
        10 => Body::ReadIndex { read: u.arbitrary()? },
        11 => Body::ReadIndexAnswer { read: u.arbitrary()?, index: Some(place(u)?.0) },
        _ => {
            let ((prev_index, prev_term), commit) = (place(u)?, LogIndex(near(u, &marks)?));
            let entries = follow(u, prev_index, term)?;
            Body::Append { prev_index, prev_term, commit, entries }
        }
    };
    Ok(RaftMessage { group, from, to, term: Term(term), body })
}

/// What the member last asked a replica to append: the index before, and the last.
fn appended(lone: &Lone, to: ReplicaId) -> (LogIndex, LogIndex) {
    let asked = lone.sent.iter().rev().find_map(|(_, message)| match message {
        Message::Raft(RaftMessage {
            to: asked,
            body: Body::Append { prev_index, entries, .. },
            ..
        }) if *asked == to => {
            let last = entries.last().map_or(*prev_index, |entry| entry.index);
            Some((*prev_index, last))
        }
        _ => None,
    });
    asked.unwrap_or_default()
}

/// The snapshot that the member sends, or another.
fn sending(u: &mut Unstructured<'_>, lone: &Lone) -> Result<SnapshotId> {
    let sent = lone.sent.iter().rev().find_map(|(_, message)| match message {
        Message::Raft(RaftMessage { body: Body::Snapshot { id, .. }, .. }) => Some(*id),
        _ => None,
    });
    Ok(sent.unwrap_or(SnapshotId(u.int_in_range(0..=2)?)))
}

fn follow(u: &mut Unstructured<'_>, prev: LogIndex, term: u64) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut index = prev.0;
    for _ in 0..u.int_in_range(0..=4)? {
        index = index.saturating_add(1);
        if u.ratio(1, 32)? {
            index = u.arbitrary()?;
        }
        let term = if u.ratio(1, 16)? { near(u, &[term])? } else { term };
        entries.push(Entry { index: LogIndex(index), term: Term(term), body: body(u)? });
    }
    Ok(entries)
}

fn beats(u: &mut Unstructured<'_>, lone: &Lone, peer: Option<MemberId>) -> Result<Message> {
    let (group, to, from) = replicas(u, lone, peer)?;
    let view = lone.node.view();
    let (term, last) = view
        .group(group)
        .map_or((0, 0), |group| (group.raft().term().0, group.raft().log().last_index().0));
    let term = Term(near(u, &[term, term, term])?);
    let (index, round) = (LogIndex(near(u, &[last])?), near(u, &[1, 8])?);
    Ok(if u.arbitrary()? {
        let beat = Beat { commit: index, round };
        Message::Beats(vec![BeatOf { group, from, to, term, beat }])
    } else {
        let beat = BeatAnswer { round, last_index: index };
        Message::BeatAnswers(vec![BeatOf { group, from, to, term, beat }])
    })
}

/// What a router at a peer could send, and answers to what this member's router sent.
fn call(u: &mut Unstructured<'_>, lone: &Lone) -> Result<Message> {
    let group = GroupId(u.int_in_range(0..=3)?);
    let session = SessionId(u.int_in_range(0..=4)?);
    let first = Seq(near(u, &[1, 4])?);
    Ok(match u.int_in_range(0..=12)? {
        0 => Message::Open { group, nonce: u.int_in_range(0..=3)? },
        1 => {
            let mut commands = Vec::new();
            for _ in 0..u.int_in_range(0..=3)? {
                commands.push((Seq(near(u, &[first.0])?), command(u)?));
            }
            Message::Propose { group, session, first, commands }
        }
        2 => {
            let nonce = lone.sent.iter().rev().find_map(|(_, message)| match message {
                Message::Open { nonce, .. } => Some(*nonce),
                _ => None,
            });
            Message::Opened { group, nonce: nonce.unwrap_or(u.arbitrary()?), session }
        }
        3 => {
            use ring_core::shard::command::{ItemOutcome, Outcome};
            let outcome = match u.int_in_range(0..=4)? {
                0 => ItemOutcome::Opened(session),
                1 => ItemOutcome::Done(Outcome::Written { revision: Revision(u.arbitrary()?) }),
                2 => ItemOutcome::Gap { next: Seq(near(u, &[first.0])?) },
                3 => ItemOutcome::Expired,
                _ => ItemOutcome::Forgotten,
            };
            Message::Proposed { group, session, outcomes: vec![(first, outcome)] }
        }
        4 => Message::NotLeader { group, hint: Some(MemberId(u.int_in_range(0..=4)?)) },
        5 => Message::Busy { group },
        6 => Message::Ask {
            call: u.arbitrary()?,
            group,
            query: query(u)?,
            linearizable: u.arbitrary()?,
        },
        7 => {
            let leaves = [Leave::No, Leave::No, Leave::No, Leave::Drained, Leave::Forced];
            Message::AskStatus { call: u.arbitrary()?, leave: *u.choose(&leaves)? }
        }

        9 => Message::Table(table(u)?),
        10 => Message::TableVersion(u.arbitrary()?),
        11 => match u.int_in_range(0..=2)? {
            0 => Message::Register { address: String::from("h:9"), weight: u.arbitrary()? },
            1 => Message::Leave { force: u.arbitrary()? },
            _ => Message::Settled { group, order: u.int_in_range(0..=9)? },
        },
        8 => Message::Ping,
        _ => {
            let len = usize::from(u.arbitrary::<u8>()?).min(u.len());
            postcard::from_bytes(u.bytes(len)?).unwrap_or(Message::Pong)
        }
    })
}

/// A directory as a peer could tell of it: mostly sound, and seldom sensible.
fn table(u: &mut Unstructured<'_>) -> Result<Table> {
    let mut members = Vec::new();
    for id in 1..=u.int_in_range(1..=4)? {
        members.push(Registered {
            id: MemberId(id),
            name: format!("m{id}"),
            address: format!("h:{id}"),
            birth: u.int_in_range(0..=2)?,
            weight: u.int_in_range(0..=2)?,
            standing: *u.choose(&[Standing::Active, Standing::Leaving, Standing::Lost])?,
        });
    }
    let mut groups = Vec::new();
    for group in 0..=u.int_in_range(0..=4)? {
        let mut replicas = Vec::new();
        for member in 1..=u.int_in_range(1..=4)? {
            let id = ReplicaId(u64::from(group) * 8 + member + u.int_in_range(0..=1)? * 64);
            replicas.push(Replica { id, member: MemberId(member) });
        }
        let mut rest = replicas.split_off(u.int_in_range(1..=replicas.len())?);
        let retiring = rest.split_off(u.int_in_range(0..=rest.len())?);
        let settled = retiring.is_empty() && u.arbitrary()?;
        let (order, learners) = (u.int_in_range(0..=9)?, rest);
        let group = GroupId(group);
        groups.push(Assignment { group, order, voters: replicas, learners, retiring, settled });
    }
    let (version, next_replica) = (u.int_in_range(0..=20)?, ReplicaId(1 << 20));
    Ok(Table { version, next_replica, members, groups })
}

fn query(u: &mut Unstructured<'_>) -> Result<Query> {
    let partition = Bytes::from_static(b"p");
    let cursor = CursorId(u.int_in_range(0..=5)?);
    Ok(match u.int_in_range(0..=5)? {
        0 => Query::Get { partition, key: Bytes::from_static(b"k") },
        1 => {
            let (from, to) = (Bytes::new(), None);
            let (reverse, limit) = (u.arbitrary()?, u.arbitrary()?);
            Query::Scan(Box::new(Scan { partition, from, to, reverse, limit, cursor }))
        }
        2 => {
            let (page, revision) = (u.int_in_range(0..=2)?, Revision(u.int_in_range(0..=4)?));
            Query::ScanNext { cursor, page, revision, limit: u.arbitrary()? }
        }
        3 => Query::ScanClose { cursor },
        4 => Query::Info { partition },
        _ => {
            let (after, limit, wait) =
                (u.arbitrary::<Option<u8>>()?, u.arbitrary()?, u.arbitrary()?);
            let after = after.map(|after| Revision(after.into()));
            let from = Bytes::from_static(b"a");
            Query::Watch(Box::new(Watch { partition, from, to: None, after, limit, wait }))
        }
    })
}

fn submit(lone: &mut Lone, u: &mut Unstructured<'_>) -> Result<()> {
    let key = Bytes::from_static(b"k");
    let consistency = if u.arbitrary()? { Consistency::Linearizable } else { Consistency::Local };
    let action = match u.int_in_range(0..=6)? {
        0 => {
            let len = usize::from(u.arbitrary::<u8>()?);
            Action::Put { key, value: Bytes::from(vec![7; len * 8]) }
        }
        1 => Action::Delete { key },
        2 => Action::Get { key, consistency },
        3 => {
            let (from, to, reverse) = (Bytes::new(), None, u.arbitrary()?);
            Action::Scan { from, to, reverse, limit: 2, consistency }
        }
        4 => Action::ScanNext { cursor: CursorId(u.int_in_range(0..=3)?), limit: 2 },
        5 => Action::Status { member: MemberId(u.int_in_range(0..=4)?) },
        _ => Action::Info,
    };
    let deadline = lone.now.instant + Duration::from_millis(u64::from(u.arbitrary::<u16>()?));
    let partition = String::from(*u.choose(&["p", "q", ""])?);
    lone.submit(Call { deadline, partition, action });
    Ok(())
}
