//! Any message, for proptest.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::directory::ChangeRefused;
use crate::genesis::{Founder, Genesis};
use crate::ids::{
    Boot, ClusterId, CursorId, GroupId, LogIndex, MemberId, ReplicaId, Revision, Seq, SessionId,
    SnapshotId, Term,
};
use crate::membership::{Incarnation, Profile, State, SyncMessage, Update};
use crate::raft::message::{
    Beat, BeatAnswer, Body, Entry, EntryBody, Membership, Message as RaftMessage, Replica,
};
use crate::request::message::{Ask, Fault, Kind, Large, Part, Response, StreamOf, Target, Way};
use crate::shard::command::{
    Answer, Changed, ItemOutcome, Outcome, Page, PartitionInfo, Query, Scan, Watch,
};
use crate::wire::message::{
    AskError, BeatOf, Founding, Gather, GroupStatus, Hello, Identity, Leave, MemberStatus, Message,
    Refusal, Role, Welcome,
};

/// Numbers of every length on the wire.
fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64_u32).prop_map(|(number, shift)| number >> shift)
}

macro_rules! ids {
    ($($strategy:ident: $name:ident;)*) => {$(
        fn $strategy() -> impl Strategy<Value = $name> {
            number().prop_map($name)
        }
    )*};
}

ids! {
    boot: Boot;
    cluster: ClusterId;
    cursor: CursorId;
    index: LogIndex;
    member: MemberId;
    replica: ReplicaId;
    revision: Revision;
    seq: Seq;
    session: SessionId;
    snapshot: SnapshotId;
    term: Term;
}

fn group() -> impl Strategy<Value = GroupId> {
    any::<u32>().prop_map(GroupId)
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,12}"
}

fn data() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn identity() -> impl Strategy<Value = Identity> {
    let starts = (boot(), vec(any::<u32>(), 0..4));
    let rules = (number(), number());
    (text(), option::of(cluster()), member(), text(), starts, number(), rules).prop_map(
        |(cluster_name, cluster, member, name, (boot, earlier), birth, rules)| Identity {
            cluster_name,
            cluster,
            member,
            name,
            boot,
            earlier,
            birth,
            agreement: rules.0,
            ring: rules.1,
        },
    )
}

fn genesis() -> impl Strategy<Value = Genesis> {
    let founder = (member(), text(), text(), number())
        .prop_map(|(id, name, address, birth)| Founder { id, name, address, birth });
    (cluster(), text(), vec(founder, 0..4), any::<u32>(), any::<u32>()).prop_map(
        |(cluster, name, members, shards, replication)| Genesis {
            cluster,
            name,
            members,
            shards,
            replication,
        },
    )
}

fn refusal() -> impl Strategy<Value = Refusal> {
    prop_oneof![
        any::<(u16, u16)>().prop_map(|(min, max)| Refusal::Version { min, max }),
        text().prop_map(|expected| Refusal::ClusterName { expected }),
        cluster().prop_map(|expected| Refusal::Cluster { expected }),
        Just(Refusal::Agreement),
        boot().prop_map(|seen| Refusal::RolledBack { seen }),
        Just(Refusal::Wiped),
        Just(Refusal::Stranger),
        Just(Refusal::Full),
        Just(Refusal::Twin),
        prop_oneof![Just(Refusal::Certificate), Just(Refusal::Ring), Just(Refusal::Itself)],
    ]
}

fn handshake() -> impl Strategy<Value = Message> {
    prop_oneof![
        (any::<u16>(), any::<u16>(), identity()).prop_map(|(version_min, version_max, who)| {
            Message::Hello(Box::new(Hello { version_min, version_max, who }))
        }),
        (any::<u16>(), identity(), option::of(genesis())).prop_map(|(version, who, genesis)| {
            Message::Welcome(Box::new(Welcome { version, who, genesis }))
        }),
        refusal().prop_map(Message::Refuse),
        (vec((member(), number()), 0..4), option::of(cluster()), any::<bool>()).prop_map(
            |(births, holds, founded)| { Message::Founding(Founding { births, holds, founded }) }
        ),
        Just(Message::Ping),
        Just(Message::Pong),
        gather().prop_map(|said| Message::Gather(Box::new(said))),
    ]
}

fn gather() -> impl Strategy<Value = Gather> {
    let told = (vec(member(), 0..4), any::<bool>());
    let known = (option::of(cluster()), option::of(genesis()), option::of(cluster()));
    (text(), told, vec((member(), text()), 0..4), known, option::of(genesis())).prop_map(
        |(address, (told, is_complete), others, (holds, proposal, void), cluster)| Gather {
            address,
            told,
            is_complete,
            others,
            holds,
            proposal,
            void,
            cluster,
        },
    )
}

fn entry() -> impl Strategy<Value = Entry> {
    let replicas =
        || vec((replica(), member()).prop_map(|(id, member)| Replica { id, member }), 0..3);
    let body = prop_oneof![
        Just(EntryBody::Noop),
        (replicas(), replicas(), replicas()).prop_map(|(voters, outgoing, learners)| {
            EntryBody::Membership(Box::new(Membership { voters, outgoing, learners, order: 7 }))
        }),
        data().prop_map(EntryBody::Data),
    ];
    (index(), term(), body).prop_map(|(index, term, body)| Entry { index, term, body })
}

fn beat() -> impl Strategy<Value = Beat> {
    (index(), number()).prop_map(|(commit, round)| Beat { commit, round })
}

fn beat_answer() -> impl Strategy<Value = BeatAnswer> {
    (number(), index()).prop_map(|(round, last_index)| BeatAnswer { round, last_index })
}

fn vote_body() -> impl Strategy<Value = Body> {
    prop_oneof![
        (index(), term())
            .prop_map(|(last_index, last_term)| Body::PreVote { last_index, last_term }),
        any::<bool>().prop_map(|granted| Body::PreVoteAnswer { granted }),
        (index(), term(), any::<bool>()).prop_map(|(last_index, last_term, transfer)| {
            Body::Vote { last_index, last_term, transfer }
        }),
        any::<bool>().prop_map(|granted| Body::VoteAnswer { granted }),
        Just(Body::TimeoutNow),
        beat().prop_map(Body::Beat),
        beat_answer().prop_map(Body::BeatAnswer),
        number().prop_map(|read| Body::ReadIndex { read }),
        (number(), option::of(index()))
            .prop_map(|(read, index)| Body::ReadIndexAnswer { read, index }),
    ]
}

fn log_body() -> impl Strategy<Value = Body> {
    prop_oneof![
        (index(), term(), index(), vec(entry(), 0..5)).prop_map(
            |(prev_index, prev_term, commit, entries)| Body::Append {
                prev_index,
                prev_term,
                commit,
                entries
            }
        ),
        index().prop_map(|index| Body::Accepted { index }),
        (index(), index(), term()).prop_map(|(prev_index, hint_index, hint_term)| {
            Body::Rejected { prev_index, hint_index, hint_term }
        }),
        (snapshot(), index(), term(), number(), data(), any::<bool>()).prop_map(
            |(id, index, last_term, chunk, data, last)| Body::Snapshot {
                id,
                index,
                last_term,
                chunk,
                data,
                last
            }
        ),
        (snapshot(), number()).prop_map(|(id, chunk)| Body::SnapshotNext { id, chunk }),
    ]
}

fn beats<T: core::fmt::Debug>(
    beat: impl Strategy<Value = T>,
) -> impl Strategy<Value = Vec<BeatOf<T>>> {
    vec(
        (group(), replica(), replica(), term(), beat)
            .prop_map(|(group, from, to, term, beat)| BeatOf { group, from, to, term, beat }),
        0..5,
    )
}

fn raft() -> impl Strategy<Value = Message> {
    let body = prop_oneof![vote_body(), log_body()];
    prop_oneof![
        3 => (group(), replica(), replica(), term(), body).prop_map(
            |(group, from, to, term, body)| Message::Raft(RaftMessage {
                group, from, to, term, body
            })
        ),
        1 => beats(beat()).prop_map(Message::Beats),
        1 => beats(beat_answer()).prop_map(Message::BeatAnswers),
    ]
}

fn outcome() -> impl Strategy<Value = ItemOutcome> {
    let done = prop_oneof![
        Just(Outcome::Skipped),
        revision().prop_map(|revision| Outcome::Written { revision }),
        (any::<bool>(), revision())
            .prop_map(|(existed, revision)| Outcome::Deleted { existed, revision }),
        (any::<bool>(), revision())
            .prop_map(|(swapped, revision)| Outcome::Compared { swapped, revision }),
        Just(Outcome::Malformed),
    ];
    prop_oneof![
        session().prop_map(ItemOutcome::Opened),
        done.prop_map(ItemOutcome::Done),
        seq().prop_map(|next| ItemOutcome::Gap { next }),
        Just(ItemOutcome::Expired),
        Just(ItemOutcome::Forgotten),
    ]
}

fn sessions() -> impl Strategy<Value = Message> {
    prop_oneof![
        (group(), number()).prop_map(|(group, nonce)| Message::Open { group, nonce }),
        (group(), number(), session()).prop_map(|(group, nonce, session)| Message::Opened {
            group,
            nonce,
            session
        }),
        (group(), session(), seq(), vec((seq(), data()), 0..6)).prop_map(
            |(group, session, first, commands)| Message::Propose {
                group,
                session,
                first,
                commands
            }
        ),
        (group(), session(), vec((seq(), outcome()), 0..6))
            .prop_map(|(group, session, outcomes)| Message::Proposed { group, session, outcomes }),
        (group(), option::of(member()))
            .prop_map(|(group, hint)| Message::NotLeader { group, hint }),
        group().prop_map(|group| Message::Busy { group }),
    ]
}

fn query() -> impl Strategy<Value = Query> {
    prop_oneof![
        (data(), data()).prop_map(|(partition, key)| Query::Get { partition, key }),
        (data(), data(), option::of(data()), any::<bool>(), any::<u32>(), cursor()).prop_map(
            |(partition, from, to, reverse, limit, cursor)| {
                Query::Scan(Box::new(Scan { partition, from, to, reverse, limit, cursor }))
            }
        ),
        (cursor(), any::<(u32, u32)>(), revision()).prop_map(
            |(cursor, (page, limit), revision)| Query::ScanNext { cursor, page, revision, limit }
        ),
        cursor().prop_map(|cursor| Query::ScanClose { cursor }),
        data().prop_map(|partition| Query::Info { partition }),
        (data(), data(), option::of(data()), option::of(revision()), any::<(u32, bool)>())
            .prop_map(|(partition, from, to, after, (limit, wait))| {
                Query::Watch(Box::new(Watch { partition, from, to, after, limit, wait }))
            }),
    ]
}

fn changed() -> impl Strategy<Value = Changed> {
    (revision(), data(), option::of(data())).prop_map(|(revision, key, value)| Changed {
        revision,
        key,
        value,
    })
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        option::of((data(), revision())).prop_map(Answer::Value),
        (vec((data(), data(), revision()), 0..5), any::<bool>(), revision())
            .prop_map(|(items, more, revision)| Answer::Page(Page { items, more, revision })),
        Just(Answer::NoCursor),
        (vec(changed(), 0..4), revision())
            .prop_map(|(changes, upto)| Answer::Changes { changes, upto }),
        revision().prop_map(|first| Answer::Compacted { first }),
        (number(), number(), revision(), index(), term(), group()).prop_map(
            |(keys, bytes, revision, applied, applied_term, group)| Answer::Info(PartitionInfo {
                keys,
                bytes,
                revision,
                applied,
                applied_term,
                group
            })
        ),
    ]
}

fn group_status() -> impl Strategy<Value = GroupStatus> {
    let role = prop_oneof![
        Just(Role::Follower),
        Just(Role::PreCandidate),
        Just(Role::Candidate),
        Just(Role::Leader),
        Just(Role::Learner)
    ];
    (group(), replica(), term(), role, option::of(member()), index(), index(), index()).prop_map(
        |(group, replica, term, role, leader, last, commit, applied)| GroupStatus {
            group,
            replica,
            term,
            role,
            leader,
            last,
            commit,
            applied,
        },
    )
}

fn questions() -> impl Strategy<Value = Message> {
    let ask_error =
        prop_oneof![Just(AskError::NotReplica), Just(AskError::NoLeader), Just(AskError::Busy)];
    let result = prop_oneof![answer().prop_map(Ok), ask_error.prop_map(Err)];
    let status = (
        (member(), text(), boot(), number()),
        (vec(member(), 0..4), number(), number()),
        (vec(group_status(), 0..4), vec((member(), state()), 0..4), vec((text(), text()), 0..4)),
        option::of(refused()),
    )
        .prop_map(
            |((member, name, boot, uptime), (connected, clients, log_bytes), rest, stays)| {
                let (groups, members, tags) = rest;
                MemberStatus {
                    member,
                    name,
                    boot,
                    uptime,
                    connected,
                    clients,
                    log_bytes,
                    groups,
                    members,
                    tags,
                    stays,
                }
            },
        );
    let leave = prop_oneof![Just(Leave::No), Just(Leave::Drained), Just(Leave::Forced)];
    prop_oneof![
        (number(), answer(), option::of(number()))
            .prop_map(|(call, answer, age)| Message::LocalAnswer { call, answer, age }),
        (number(), group(), query(), any::<bool>()).prop_map(
            |(call, group, query, linearizable)| Message::Ask { call, group, query, linearizable }
        ),
        (number(), result).prop_map(|(call, result)| Message::Answer { call, result }),
        (number(), leave).prop_map(|(call, leave)| Message::AskStatus { call, leave }),
        (number(), status.prop_map(Box::new))
            .prop_map(|(call, status)| Message::Status { call, status }),
    ]
}

fn refused() -> impl Strategy<Value = ChangeRefused> {
    prop_oneof![
        Just(ChangeRefused::NameTaken),
        Just(ChangeRefused::IdTaken),
        Just(ChangeRefused::Full),
        Just(ChangeRefused::LastMember),
        Just(ChangeRefused::NoMajority),
    ]
}

fn state() -> impl Strategy<Value = State> {
    prop_oneof![Just(State::Alive), Just(State::Suspect), Just(State::Dead), Just(State::Left)]
}

fn update() -> impl Strategy<Value = Update> {
    let incarnation = || number().prop_map(Incarnation);
    let address =
        || (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::from((ip, port)));
    let profile = (text(), address(), address(), any::<u32>(), vec((text(), text()), 0..3));
    let profile = profile.prop_map(|(name, datagram, stream, weight, tags)| Profile {
        name,
        datagram,
        stream,
        weight,
        tags,
    });
    prop_oneof![
        (member(), incarnation(), profile).prop_map(|(member, incarnation, profile)| {
            Update::Alive { member, incarnation, profile }
        }),
        (member(), incarnation(), vec(member(), 0..8)).prop_map(
            |(member, incarnation, accusers)| Update::Suspect { member, incarnation, accusers }
        ),
        (member(), incarnation())
            .prop_map(|(member, incarnation)| Update::Dead { member, incarnation }),
        (member(), incarnation())
            .prop_map(|(member, incarnation)| Update::Left { member, incarnation }),
    ]
}

fn comparisons() -> impl Strategy<Value = Message> {
    prop_oneof![
        number().prop_map(|hash| Message::Sync(SyncMessage::Digest { hash })),
        vec(number(), 0..64).prop_map(|hashes| Message::Sync(SyncMessage::Buckets { hashes })),
        (vec(update(), 0..4), vec(any::<u8>(), 0..4))
            .prop_map(|(updates, wanted)| Message::Sync(SyncMessage::Records { updates, wanted })),
    ]
}

/// Boxed: a strategy that holds all of these by value does not fit on a test's stack.
fn requests() -> BoxedStrategy<Message> {
    let way = || prop_oneof![Just(Way::Up), Just(Way::Down), Just(Way::Both)];
    let headers = || vec((text(), data()), 0..3);
    let streams = move || vec((text(), way()), 0..3);
    let kind = prop_oneof![Just(Kind::Retried), Just(Kind::Once), Just(Kind::OneWay)];
    let target = prop_oneof![
        data().prop_map(Target::Key),
        member().prop_map(Target::Member),
        data().prop_map(Target::Partition),
    ];
    let ask = (
        (number(), any::<u32>(), kind, target, vec(member(), 0..3), number()),
        (text(), headers(), data(), streams()),
    )
        .prop_map(
            |((number, attempt, kind, target, skipped, left), (route, headers, body, streams))| {
                Ask { number, attempt, kind, target, skipped, left, route, headers, body, streams }
            },
        );
    let large = prop_oneof![
        Just(Large::Key),
        Just(Large::Name),
        Just(Large::Headers),
        Just(Large::Body),
        Just(Large::Streams),
        Just(Large::Text),
    ];
    let fault = prop_oneof![
        (any::<u32>(), text()).prop_map(|(code, text)| Fault::Handler { code, text }),
        Just(Fault::NoRoute),
        option::of(member()).prop_map(|hint| Fault::NotOwner { hint }),
        Just(Fault::Busy),
        (large, number()).prop_map(|(what, limit)| Fault::TooLarge { what, limit }),
    ];
    let response = (headers(), data(), streams())
        .prop_map(|(headers, body, streams)| Ok(Box::new(Response { headers, body, streams })));
    let result = prop_oneof![response, fault.prop_map(Err)];
    let of =
        || {
            (any::<bool>(), number(), any::<u16>())
                .prop_map(|(by_caller, number, index)| StreamOf { by_caller, number, index })
        };
    let part =
        prop_oneof![
            ask.prop_map(|ask| Part::Ask(Box::new(ask))).boxed(),
            (number(), result).prop_map(|(number, result)| Part::Answer { number, result }).boxed(),
            number().prop_map(|number| Part::Cancel { number }),
            (of(), number(), data(), any::<bool>())
                .prop_map(|(of, offset, data, last)| Part::Data { of, offset, data, last }),
            of().prop_map(|of| Part::Abort { of }),
            of().prop_map(|of| Part::Stop { of }),
        ];
    prop_oneof![
        4 => (number(), part).prop_map(|(at, part)| Message::Request { at, part }),
        1 => number().prop_map(|upto| Message::RequestsTaken { upto }),
        1 => number().prop_map(|upto| Message::RequestsSent { upto }),
        1 => (of(), number()).prop_map(|(of, upto)| Message::StreamCredit { of, upto }),
    ]
    .boxed()
}

/// Any small message.
pub(super) fn message() -> impl Strategy<Value = Message> {
    prop_oneof![handshake(), raft(), sessions(), questions(), comparisons(), requests()]
}

/// Any message, now and then one that goes in chunks.
pub(super) fn message_of_any_size() -> impl Strategy<Value = Message> {
    prop_oneof![
        8 => message(),
        1 => (0..1000_u64, 60_000..300_000_usize).prop_map(|(n, bytes)| super::bulk(n, bytes)),
    ]
}
