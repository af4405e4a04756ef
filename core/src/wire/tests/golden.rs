//! The format is frozen: another release must read these bytes, and this one must write them.

mod requests;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Write;

use bytes::Bytes;

use super::{frames_of, trusting};
use crate::directory::{Assignment, ChangeRefused, Registered, Standing, Table};
use crate::genesis::{Founder, Genesis};
use crate::ids::{
    Boot, ClusterId, CursorId, GroupId, LogIndex, MemberId, ReplicaId, Revision, Seq, SessionId,
    SnapshotId, Term,
};
use crate::membership::{Incarnation, Profile, State, SyncMessage, Update};
use crate::raft::message::{
    Beat, BeatAnswer, Body, Entry, EntryBody, Membership, Message as RaftMessage, Replica,
};
use crate::shard::command::{
    Answer, Changed, ItemOutcome, Outcome, Page, PartitionInfo, Query, Scan, Watch,
};
use crate::wire::message::{
    AskError, BeatOf, Founding, Gather, GroupStatus, Hello, Identity, Leave, MemberStatus, Message,
    Refusal, Role, Welcome,
};

type Golden = (&'static str, Message, &'static str);

fn b(bytes: &'static [u8]) -> Bytes {
    Bytes::from_static(bytes)
}

fn text(text: &str) -> String {
    String::from(text)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn identity() -> Identity {
    Identity {
        cluster_name: text("ring"),
        cluster: Some(ClusterId(300)),
        member: MemberId(2),
        name: text("two"),
        boot: Boot(7),
        earlier: vec![300, 1],
        birth: 1000,
        agreement: u64::MAX,
        ring: 300,
    }
}

fn genesis() -> Genesis {
    Genesis {
        cluster: ClusterId(300),
        name: text("ring"),
        members: vec![Founder {
            id: MemberId(1),
            name: text("one"),
            address: text("h:1"),
            birth: 5,
        }],
        shards: 64,
        replication: 3,
    }
}

fn raft(body: Body) -> Message {
    Message::Raft(RaftMessage {
        group: GroupId(3),
        from: ReplicaId(10),
        to: ReplicaId(11),
        term: Term(200),
        body,
    })
}

fn append() -> Body {
    let replica = |id, member| Replica { id: ReplicaId(id), member: MemberId(member) };
    let membership = Membership {
        voters: vec![replica(10, 1), replica(11, 2)],
        outgoing: vec![replica(10, 1)],
        learners: vec![replica(12, 3)],
        order: 9,
    };
    let entry = |index, body| Entry { index: LogIndex(index), term: Term(2), body };
    Body::Append {
        prev_index: LogIndex(9),
        prev_term: Term(1),
        commit: LogIndex(8),
        entries: vec![
            entry(10, EntryBody::Noop),
            entry(11, EntryBody::Membership(Box::new(membership))),
            entry(12, EntryBody::Data(b(b"data"))),
        ],
    }
}

fn beat_of<T>(beat: T) -> BeatOf<T> {
    BeatOf { group: GroupId(3), from: ReplicaId(10), to: ReplicaId(11), term: Term(200), beat }
}

fn proposed() -> Message {
    let revision = Revision(9);
    let outcomes = [
        ItemOutcome::Opened(SessionId(5)),
        ItemOutcome::Done(Outcome::Skipped),
        ItemOutcome::Done(Outcome::Written { revision }),
        ItemOutcome::Done(Outcome::Deleted { existed: true, revision }),
        ItemOutcome::Done(Outcome::Compared { swapped: true, revision }),
        ItemOutcome::Done(Outcome::Malformed),
        ItemOutcome::Gap { next: Seq(4) },
        ItemOutcome::Expired,
        ItemOutcome::Forgotten,
    ];
    Message::Proposed {
        group: GroupId(3),
        session: SessionId(5),
        outcomes: (1..).map(Seq).zip(outcomes).collect(),
    }
}

fn ask(query: Query) -> Message {
    Message::Ask { call: 200, group: GroupId(3), query, linearizable: true }
}

fn answer(answer: Answer) -> Message {
    Message::Answer { call: 200, result: Ok(answer) }
}

fn status() -> MemberStatus {
    let group = |role| GroupStatus {
        group: GroupId(3),
        replica: ReplicaId(10),
        term: Term(2),
        role,
        leader: Some(MemberId(1)),
        last: LogIndex(30),
        commit: LogIndex(20),
        applied: LogIndex(10),
    };
    let roles = [Role::Follower, Role::PreCandidate, Role::Candidate, Role::Leader, Role::Learner];
    MemberStatus {
        member: MemberId(2),
        name: text("two"),
        boot: Boot(7),
        uptime: 1000,
        connected: vec![MemberId(1), MemberId(3)],
        clients: 4,
        log_bytes: 70_000,
        groups: roles.map(group).to_vec(),
        members: vec![(MemberId(1), State::Suspect), (MemberId(3), State::Left)],
        tags: vec![(text("k"), text("v"))],
        stays: Some(ChangeRefused::NoMajority),
    }
}

fn handshakes() -> Vec<Golden> {
    vec![
        (
            "hello",
            Message::Hello(Box::new(Hello { version_min: 1, version_max: 2, who: identity() })),
            "0001020472696e6701ac02020374776f0702ac0201e807ffffffffffffffffff01ac02",
        ),
        (
            "welcome of a founded cluster",
            Message::Welcome(Box::new(Welcome {
                version: 1,
                who: identity(),
                genesis: Some(genesis()),
            })),
            "01010472696e6701ac02020374776f0702ac0201e807ffffffffffffffffff01ac0201ac020472696e6701\
             01036f6e6503683a31054003",
        ),
        (
            "welcome of an unfounded cluster",
            Message::Welcome(Box::new(Welcome { version: 1, who: identity(), genesis: None })),
            "01010472696e6701ac02020374776f0702ac0201e807ffffffffffffffffff01ac0200",
        ),
        ("refuse version", Message::Refuse(Refusal::Version { min: 1, max: 300 }), "020001ac02"),
        (
            "refuse cluster name",
            Message::Refuse(Refusal::ClusterName { expected: text("ring") }),
            "02010472696e67",
        ),
        (
            "refuse cluster",
            Message::Refuse(Refusal::Cluster { expected: ClusterId(500) }),
            "0202f403",
        ),
        ("refuse agreement", Message::Refuse(Refusal::Agreement), "0203"),
        ("refuse rolled back", Message::Refuse(Refusal::RolledBack { seen: Boot(9) }), "020409"),
        ("refuse wiped", Message::Refuse(Refusal::Wiped), "0205"),
        ("refuse stranger", Message::Refuse(Refusal::Stranger), "0206"),
        ("refuse full", Message::Refuse(Refusal::Full), "0207"),
        ("refuse twin", Message::Refuse(Refusal::Twin), "0208"),
        ("refuse certificate", Message::Refuse(Refusal::Certificate), "0209"),
        ("refuse ring", Message::Refuse(Refusal::Ring), "020a"),
        ("refuse itself", Message::Refuse(Refusal::Itself), "020b"),
        (
            "founding",
            Message::Founding(Founding {
                births: vec![(MemberId(1), 70), (MemberId(2), 80)],
                holds: Some(ClusterId(5)),
                founded: true,
            }),
            "030201460250010501",
        ),
    ]
}

fn raft_logs() -> Vec<Golden> {
    vec![
        (
            "pre-vote",
            raft(Body::PreVote { last_index: LogIndex(300), last_term: Term(2) }),
            "04030a0bc80100ac0202",
        ),
        ("pre-vote answer", raft(Body::PreVoteAnswer { granted: true }), "04030a0bc8010101"),
        (
            "vote",
            raft(Body::Vote { last_index: LogIndex(300), last_term: Term(2), transfer: true }),
            "04030a0bc80102ac020201",
        ),
        ("vote answer", raft(Body::VoteAnswer { granted: false }), "04030a0bc8010300"),
        (
            "append",
            raft(append()),
            "04030a0bc80104090108030a02000b0201020a010b02010a01010c03090c02020464617461",
        ),
        ("accepted", raft(Body::Accepted { index: LogIndex(300) }), "04030a0bc80105ac02"),
        (
            "rejected",
            raft(Body::Rejected {
                prev_index: LogIndex(9),
                hint_index: LogIndex(7),
                hint_term: Term(1),
            }),
            "04030a0bc80106090701",
        ),
    ]
}

fn raft_rest() -> Vec<Golden> {
    vec![
        ("beat", raft(Body::Beat(Beat { commit: LogIndex(8), round: 4 })), "04030a0bc801070804"),
        (
            "beat answer",
            raft(Body::BeatAnswer(BeatAnswer { round: 4, last_index: LogIndex(8) })),
            "04030a0bc801080408",
        ),
        (
            "snapshot",
            raft(Body::Snapshot {
                id: SnapshotId(6),
                index: LogIndex(8),
                last_term: Term(2),
                chunk: 1,
                data: b(b"xyz"),
                last: true,
            }),
            "04030a0bc80109060802010378797a01",
        ),
        (
            "snapshot next",
            raft(Body::SnapshotNext { id: SnapshotId(6), chunk: 2 }),
            "04030a0bc8010a0602",
        ),
        ("time-out now", raft(Body::TimeoutNow), "04030a0bc8010b"),
        ("read index", raft(Body::ReadIndex { read: 77 }), "04030a0bc8010c4d"),
        (
            "read index answer",
            raft(Body::ReadIndexAnswer { read: 77, index: Some(LogIndex(8)) }),
            "04030a0bc8010d4d0108",
        ),
        (
            "beats",
            Message::Beats(vec![beat_of(Beat { commit: LogIndex(8), round: 4 })]),
            "0501030a0bc8010804",
        ),
        (
            "beat answers",
            Message::BeatAnswers(vec![beat_of(BeatAnswer { round: 4, last_index: LogIndex(8) })]),
            "0601030a0bc8010408",
        ),
    ]
}

fn sessions() -> Vec<Golden> {
    vec![
        ("open", Message::Open { group: GroupId(3), nonce: 128 }, "07038001"),
        (
            "opened",
            Message::Opened { group: GroupId(3), nonce: 128, session: SessionId(5) },
            "0803800105",
        ),
        (
            "propose",
            Message::Propose {
                group: GroupId(3),
                session: SessionId(5),
                first: Seq(6),
                commands: vec![(Seq(7), b(b"go")), (Seq(8), b(b""))],
            },
            "09030506020702676f0800",
        ),
        (
            "proposed",
            proposed(),
            "0a030509010005020100030101090401020109050103010906010407020408030904",
        ),
        (
            "not leader",
            Message::NotLeader { group: GroupId(3), hint: Some(MemberId(2)) },
            "0b030102",
        ),
        ("busy", Message::Busy { group: GroupId(3) }, "0c03"),
    ]
}

fn questions() -> Vec<Golden> {
    vec![
        ("ask get", ask(Query::Get { partition: b(b"p"), key: b(b"k") }), "0dc80103000170016b01"),
        (
            "ask scan",
            ask(Query::Scan(Box::new(Scan {
                partition: b(b"p"),
                from: b(b"a"),
                to: Some(b(b"z")),
                reverse: true,
                limit: 1000,
                cursor: CursorId(4),
            }))),
            "0dc80103010170016101017a01e8070401",
        ),
        (
            "ask scan next",
            ask(Query::ScanNext {
                cursor: CursorId(4),
                page: 3,
                revision: Revision(5),
                limit: 1000,
            }),
            "0dc8010302040305e80701",
        ),
        ("ask scan close", ask(Query::ScanClose { cursor: CursorId(4) }), "0dc80103030401"),
        ("ask info", ask(Query::Info { partition: b(b"p") }), "0dc8010304017001"),
        (
            "ask watch",
            ask(Query::Watch(Box::new(Watch {
                partition: b(b"p"),
                from: b(b"a"),
                to: None,
                after: Some(Revision(300)),
                limit: 7,
                wait: true,
            }))),
            "0dc8010305017001610001ac02070101",
        ),
    ]
}

fn answers() -> Vec<Golden> {
    vec![
        ("answer value", answer(Answer::Value(Some((b(b"v"), Revision(9))))), "0ec801000001017609"),
        (
            "answer page",
            answer(Answer::Page(Page {
                items: vec![(b(b"k"), b(b"v"), Revision(9))],
                more: true,
                revision: Revision(10),
            })),
            "0ec801000101016b017609010a",
        ),
        ("answer no cursor", answer(Answer::NoCursor), "0ec8010002"),
        (
            "answer info",
            answer(Answer::Info(PartitionInfo {
                keys: 1,
                bytes: 2,
                revision: Revision(3),
                applied: LogIndex(4),
                applied_term: Term(5),
                group: GroupId(6),
            })),
            "0ec8010003010203040506",
        ),
        (
            "answer changes",
            answer(Answer::Changes {
                changes: vec![
                    Changed { revision: Revision(9), key: b(b"k"), value: Some(b(b"v")) },
                    Changed { revision: Revision(10), key: b(b"l"), value: None },
                ],
                upto: Revision(300),
            }),
            "0ec80100040209016b0101760a016c00ac02",
        ),
        ("answer compacted", answer(Answer::Compacted { first: Revision(300) }), "0ec8010005ac02"),
        (
            "answer not replica",
            Message::Answer { call: 200, result: Err(AskError::NotReplica) },
            "0ec8010100",
        ),
        (
            "answer no leader",
            Message::Answer { call: 200, result: Err(AskError::NoLeader) },
            "0ec8010101",
        ),
        ("answer busy", Message::Answer { call: 200, result: Err(AskError::Busy) }, "0ec8010102"),
        ("ask status", Message::AskStatus { call: 200, leave: Leave::Drained }, "0fc80101"),
        ("tell to leave", Message::AskStatus { call: 200, leave: Leave::Forced }, "0fc80102"),
        (
            "status",
            Message::Status { call: 200, status: Box::new(status()) },
            "10c801020374776f07e80702010304f0a20405030a020001011e140a030a020101011e140a030a02\
             0201011e140a030a020301011e140a030a020401011e140a020101030301016b01760104",
        ),
        ("ping", Message::Ping, "11"),
        ("pong", Message::Pong, "12"),
    ]
}

fn directory() -> Vec<Golden> {
    let replica = |id, member| Replica { id: ReplicaId(id), member: MemberId(member) };
    let table = Table {
        version: 300,
        next_replica: ReplicaId(13),
        members: vec![Registered {
            id: MemberId(2),
            name: text("two"),
            address: text("h:2"),
            birth: 1000,
            weight: 1,
            standing: Standing::Leaving,
        }],
        groups: vec![Assignment {
            group: GroupId(3),
            order: 200,
            voters: vec![replica(10, 1)],
            learners: vec![replica(11, 2)],
            retiring: vec![replica(12, 3)],
            settled: false,
        }],
    };
    vec![
        (
            "table",
            Message::Table(table),
            "13ac020d01020374776f03683a32e80701010103c801010a01010b02010c0300",
        ),
        ("table version", Message::TableVersion(300), "14ac02"),
        ("register", Message::Register { address: text("h:2"), weight: 1 }, "1503683a3201"),
        ("leave", Message::Leave { force: true }, "1601"),
        ("settled", Message::Settled { group: GroupId(3), order: 200 }, "1703c801"),
        ("change refused", Message::ChangeRefused(ChangeRefused::NameTaken), "1800"),
    ]
}

fn comparisons() -> Vec<Golden> {
    let profile = Profile {
        name: text("two"),
        datagram: "10.0.0.2:7000".parse().unwrap(),
        stream: "[::1]:300".parse().unwrap(),
        weight: 200,
        tags: vec![(text("k"), text("v"))],
    };
    let (member, incarnation) = (MemberId(2), Incarnation(0x0102));
    let accusers = vec![MemberId(1), MemberId(3)];
    let updates = vec![
        Update::Alive { member, incarnation, profile },
        Update::Suspect { member, incarnation, accusers },
        Update::Dead { member, incarnation },
        Update::Left { member, incarnation },
    ];
    let sync = Message::Sync;
    vec![
        ("digest", sync(SyncMessage::Digest { hash: 300 }), "1900ac02"),
        ("buckets", sync(SyncMessage::Buckets { hashes: vec![1, 300] }), "19010201ac02"),
        (
            "records",
            sync(SyncMessage::Records { updates, wanted: vec![7, 63] }),
            "190204000202010000000000000374776f000a000002d8360100000000000000000000000000000001ac02\
             c80101016b017601020201000000000000020103020202010000000000000302020100000000000002073f",
        ),
    ]
}

fn gathering_and_local_reads() -> Vec<Golden> {
    vec![
        (
            "gather",
            Message::Gather(Box::new(Gather {
                address: text("a1"),
                told: vec![MemberId(1)],
                is_complete: true,
                others: vec![(MemberId(2), text("b"))],
                holds: Some(ClusterId(5)),
                proposal: None,
                void: Some(ClusterId(6)),
                cluster: None,
            })),
            "1e02613101010101020162010500010600",
        ),
        (
            "local answer",
            Message::LocalAnswer {
                call: 200,
                answer: Answer::Value(Some((b(b"v"), Revision(9)))),
                age: Some(300),
            },
            "1fc801000101760901ac02",
        ),
    ]
}

fn all() -> Vec<Golden> {
    let others =
        [answers(), directory(), comparisons(), requests::requests(), gathering_and_local_reads()];
    [handshakes(), raft_logs(), raft_rest(), sessions(), questions()]
        .concat()
        .into_iter()
        .chain(others.concat())
        .collect()
}

#[test]
fn every_message_has_its_bytes_and_the_bytes_their_message() {
    for (name, message, golden) in all() {
        let bytes = postcard::to_allocvec(&message).unwrap();
        assert_eq!(hex(&bytes), golden, "{name}");
        assert_eq!(postcard::from_bytes::<Message>(&bytes), Ok(message), "{name}");
    }
}

/// A new variant shows here: its tag is known, and not among the golden ones.
#[test]
fn every_variant_has_golden_bytes() {
    let unknown = Err(postcard::Error::SerdeDeCustom);
    let mut tags: Vec<u8> = Vec::new();
    let mut raft_tags: Vec<u8> = Vec::new();
    for (_, message, _) in all() {
        let bytes = postcard::to_allocvec(&message).unwrap();
        tags.push(bytes[0]);
        if let Message::Raft(raft) = message {
            raft_tags.push(postcard::to_allocvec(&raft.body).unwrap()[0]);
        }
    }
    tags.dedup();
    assert_eq!(tags, (0..=31).collect::<Vec<u8>>());
    assert_eq!(postcard::from_bytes::<Message>(&[32]), unknown);
    assert_eq!(raft_tags, (0..=13).collect::<Vec<u8>>());
    assert_eq!(postcard::from_bytes::<Message>(&[4, 1, 1, 1, 1, 14]), unknown);
}

#[test]
fn a_frame_of_messages_has_its_bytes() {
    let busy = Message::Busy { group: GroupId(3) };
    let open = Message::Open { group: GroupId(3), nonce: 128 };
    let frames = frames_of(&[busy.clone(), Message::Ping, open.clone()]);
    assert_eq!(
        frames.iter().map(|f| hex(f)).collect::<Vec<_>>(),
        ["010000005ffef2910100000011", "06000000de973fef010000000c0307038001"]
    );
    let mut decoder = trusting();
    decoder.feed(&frames.concat());
    assert_eq!(super::drain(&mut decoder), Ok(vec![Message::Ping, busy, open]));
}

/// The heads of the chunks of a message of 70,000 bytes, and the CRC of what follows them.
#[test]
fn chunks_have_their_bytes() {
    let heads = |message: &Message| -> Vec<String> {
        let frames = frames_of(core::slice::from_ref(message));
        frames.iter().map(|frame| hex(&frame[..26])).collect()
    };
    assert_eq!(
        heads(&super::bulk(1, 70_000)),
        [
            "f4ff000076546076010100000000000000000000791101000901",
            "99110000691e8a34010101000000000001000000010101010101"
        ]
    );
    let beats = vec![beat_of(Beat { commit: LogIndex(8), round: 4 }); 9_000];
    assert_eq!(
        heads(&Message::Beats(beats)),
        ["1bf600005289f1f60100000005a846030a0bc8010804030a0bc8"]
    );
}
