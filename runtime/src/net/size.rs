//! How much memory a message takes, nearly.

use bytes::Bytes;
use ring_core::directory::Assignment;
use ring_core::genesis::Genesis;
use ring_core::ids::len_usize;
use ring_core::membership::{SyncMessage, Update};
use ring_core::raft::message::{Body, Entry, Replica};
use ring_core::shard::command::{Answer, Query};
use ring_core::wire::Message;
use ring_core::wire::message::{Identity, MemberStatus, Refusal};

/// Bytes that a queued message holds, nearly: counted without touching what it carries.
pub(super) fn size(message: &Message) -> usize {
    size_of::<Message>()
        + match message {
            Message::Hello(hello) => identity(&hello.who),
            Message::Welcome(welcome) => {
                identity(&welcome.who) + welcome.genesis.as_ref().map_or(0, genesis)
            }
            Message::Gather(said) => {
                let others = said.others.iter().map(|other| size_of_val(other) + other.1.len());
                let known = said.proposal.iter().chain(&said.cluster);
                said.address.len()
                    + size_of_val(&*said.told)
                    + others.sum::<usize>()
                    + known.map(genesis).sum::<usize>()
            }
            Message::Refuse(Refusal::ClusterName { expected }) => expected.len(),
            Message::Founding(founding) => size_of_val(&*founding.births),
            Message::Raft(raft) => body(&raft.body),
            Message::Beats(beats) => size_of_val(&**beats),
            Message::BeatAnswers(answers) => size_of_val(&**answers),
            Message::Propose { commands, .. } => {
                commands.iter().map(|(seq, c)| size_of_val(seq) + bytes(c)).sum()
            }
            Message::Proposed { outcomes, .. } => size_of_val(&**outcomes),
            Message::Ask { query, .. } => match query {
                Query::Get { partition, key } => partition.len() + key.len(),
                Query::Scan(scan) => {
                    scan.partition.len() + scan.from.len() + scan.to.as_ref().map_or(0, Bytes::len)
                }
                Query::Watch(watch) => {
                    let to = watch.to.as_ref().map_or(0, Bytes::len);
                    watch.partition.len() + watch.from.len() + to
                }
                Query::Info { partition } => partition.len(),
                Query::ScanNext { .. } | Query::ScanClose { .. } => 0,
            },
            Message::Answer { result: Ok(found), .. }
            | Message::LocalAnswer { answer: found, .. } => answer(found),
            Message::Table(table) => {
                let members = table.members.iter();
                let replicas = |group: &Assignment| size_of::<Replica>() * group.replicas().count();
                members.map(|m| size_of_val(m) + m.name.len() + m.address.len()).sum::<usize>()
                    + table.groups.iter().map(|g| size_of_val(g) + replicas(g)).sum::<usize>()
            }
            Message::Register { address, .. } => address.len(),
            Message::Status { status, .. } => self::status(status),
            Message::Sync(sync) => comparison(sync),
            Message::Request { part, .. } => len_usize(part.weight()),
            Message::Refuse(_)
            | Message::Open { .. }
            | Message::Opened { .. }
            | Message::NotLeader { .. }
            | Message::Busy { .. }
            | Message::Answer { result: Err(_), .. }
            | Message::AskStatus { .. }
            | Message::TableVersion(_)
            | Message::Leave { .. }
            | Message::Settled { .. }
            | Message::ChangeRefused(_)
            | Message::RequestsTaken { .. }
            | Message::RequestsSent { .. }
            | Message::StreamCredit { .. }
            | Message::Ping
            | Message::Pong => 0,
        }
}

fn comparison(sync: &SyncMessage) -> usize {
    match sync {
        SyncMessage::Digest { .. } => 0,
        SyncMessage::Buckets { hashes } => size_of_val(&**hashes),
        SyncMessage::Records { updates, wanted } => {
            let held = |update: &Update| match update {
                Update::Alive { profile, .. } => {
                    let tags = profile.tags.iter();
                    profile.name.len()
                        + tags.map(|t| size_of_val(t) + t.0.len() + t.1.len()).sum::<usize>()
                }
                Update::Suspect { accusers, .. } => size_of_val(&**accusers),
                Update::Dead { .. } | Update::Left { .. } => 0,
            };
            wanted.len() + updates.iter().map(|u| size_of_val(u) + held(u)).sum::<usize>()
        }
    }
}

fn genesis(genesis: &Genesis) -> usize {
    let members = genesis.members.iter();
    members.map(|m| size_of_val(m) + m.name.len() + m.address.len()).sum()
}

fn identity(who: &Identity) -> usize {
    who.cluster_name.len() + who.name.len() + size_of_val(&*who.earlier)
}

fn body(body: &Body) -> usize {
    match body {
        Body::Append { entries, .. } => {
            entries.iter().map(|e: &Entry| size_of_val(e) + e.body.size()).sum()
        }
        Body::Snapshot { data, .. } => data.len(),
        Body::PreVote { .. }
        | Body::PreVoteAnswer { .. }
        | Body::Vote { .. }
        | Body::VoteAnswer { .. }
        | Body::Accepted { .. }
        | Body::Rejected { .. }
        | Body::Beat(_)
        | Body::BeatAnswer(_)
        | Body::SnapshotNext { .. }
        | Body::TimeoutNow
        | Body::ReadIndex { .. }
        | Body::ReadIndexAnswer { .. } => 0,
    }
}

fn answer(answer: &Answer) -> usize {
    match answer {
        Answer::Value(value) => value.as_ref().map_or(0, |(value, _)| value.len()),
        Answer::Page(page) => {
            page.items.iter().map(|(k, v, r)| bytes(k) + bytes(v) + size_of_val(r)).sum()
        }
        Answer::Changes { changes, .. } => {
            let value = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
            changes.iter().map(|c| size_of_val(c) + c.key.len() + value(&c.value)).sum()
        }
        Answer::NoCursor | Answer::Info(_) | Answer::Compacted { .. } => 0,
    }
}

fn status(status: &MemberStatus) -> usize {
    let tags = status.tags.iter().map(|tag| size_of_val(tag) + tag.0.len() + tag.1.len());
    status.name.len()
        + size_of_val(&*status.connected)
        + size_of_val(&*status.groups)
        + size_of_val(&*status.members)
        + tags.sum::<usize>()
}

fn bytes(bytes: &Bytes) -> usize {
    size_of::<Bytes>() + bytes.len()
}
