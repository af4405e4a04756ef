//! Frozen bytes. A change here means that members of two versions cannot live in one cluster.

use super::*;
use crate::ids::Epoch;
use crate::shard::session::{RULES, Session, Sessions};
use crate::shard::state::{Meta, State};

fn encoded(what: &impl serde::Serialize) -> Vec<u8> {
    postcard::to_allocvec(what).unwrap()
}

#[test]
fn payloads_are_frozen() {
    let command =
        Item::Command { session: SessionId(300), seq: Seq(5), first: Seq(4), command: bytes("c") };
    let open = Item::Open { member: MemberId(2), nonce: 128 };
    let payload = Payload { version: 1, stamp: 256, items: vec![open, command] };

    let bytes = encoded(&payload);

    assert_eq!(bytes, [1, 0x80, 2, 2, 0, 2, 0x80, 1, 1, 0xac, 2, 5, 4, 1, b'c']);
    let borrowed: Payload<&[u8]> = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(encoded(&borrowed), bytes, "borrowed and owned encode alike");
}

#[test]
fn commands_are_frozen() {
    let value = |v| Expect::Value(Some(bytes(v)));
    assert_eq!(encoded(&Command::<Bytes>::Skip), [0]);
    assert_eq!(encoded(&put("k", "v")), *b"\x01\x01p\x01k\x01v");
    assert_eq!(encoded(&delete("k")), *b"\x02\x01p\x01k");
    assert_eq!(encoded(&swap("k", value("o"), Some("n"))), *b"\x03\x01p\x01k\0\x01\x01o\x01\x01n");
    assert_eq!(encoded(&swap("k", Expect::Value(None), None)), *b"\x03\x01p\x01k\0\0\0");
    assert_eq!(
        encoded(&swap("k", Expect::Revision(Revision(7)), None)),
        *b"\x03\x01p\x01k\x01\x07\0"
    );
    assert_eq!(
        encoded(&batch(&[("k", Some("v")), ("l", None)])),
        *b"\x04\x01p\x02\x01k\x01\x01v\x01l\0"
    );
}

#[test]
fn outcomes_are_frozen() {
    let revision = Revision(200);
    assert_eq!(encoded(&Outcome::Skipped), [0]);
    assert_eq!(encoded(&Outcome::Written { revision }), [1, 0xc8, 1]);
    assert_eq!(encoded(&Outcome::Deleted { existed: true, revision }), [2, 1, 0xc8, 1]);
    assert_eq!(encoded(&Outcome::Compared { swapped: false, revision }), [3, 0, 0xc8, 1]);
    assert_eq!(encoded(&Outcome::Malformed), [4]);
    assert_eq!(encoded(&ItemOutcome::Opened(SessionId(1))), [0, 1]);
    assert_eq!(encoded(&ItemOutcome::Done(Outcome::Skipped)), [1, 0]);
    assert_eq!(encoded(&ItemOutcome::Gap { next: Seq(3) }), [2, 3]);
    assert_eq!(encoded(&ItemOutcome::Expired), [3]);
    assert_eq!(encoded(&ItemOutcome::Forgotten), [4]);
}

#[test]
fn the_state_is_frozen() {
    let mut state = State::new(GroupId(2), Epoch(1), membership(1));
    state.meta.index = LogIndex(300);
    state.meta.digest = 7;
    let mut bytes = vec![1, 2, 0xac, 2, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 7];
    bytes.extend([0x80, 0x20]); // 4096 sessions
    bytes.extend([0x80, 0xb0, 0x9d, 0xc2, 0xdf, 1]); // 60 s
    bytes.extend([0x80, 0x20, 0x80, 0x80, 0x10]); // 4096 replies a session, 262,144 in all

    assert_eq!(state.meta.encode(), bytes);
    assert_eq!(Meta::decode(&bytes), Ok(state.meta.clone()));

    let mut endless = state.meta.clone();
    endless.next_session = SessionId(u64::MAX);
    assert!(Meta::decode(&endless.encode()).is_err(), "a counter at its end");

    bytes[0] = 2;
    assert!(Meta::decode(&bytes).is_err(), "another version");
    bytes[0] = 1;
    bytes.push(0);
    assert!(Meta::decode(&bytes).is_err(), "something behind it");
}

#[test]
fn sessions_are_frozen() {
    let mut sessions = Sessions::default();
    sessions.open(SessionId(1), 128, &RULES, &mut vec![]);
    let revision = Revision(9);
    sessions.record(SessionId(1), Seq(1), Outcome::Skipped, &RULES);
    sessions.record(SessionId(1), Seq(1), Outcome::Written { revision }, &RULES);
    let mut written = Vec::new();
    sessions.write(|id, session| written.push((id, session.unwrap())));

    assert_eq!(written, vec![(SessionId(1), vec![3, 0x80, 1, 2, 0, 1, 9])]);
    assert_eq!(Session::decode(&written[0].1).unwrap().encode(), written[0].1);
    assert_eq!(Session::decode(&[1, 0, 1, 0]), None, "a reply to what was never asked");
    assert_eq!(Session::decode(&[0, 0, 0]), None, "seqs begin at 1");
    let mut endless = vec![0xff; 9];
    endless.extend([1, 0, 0]);
    assert_eq!(Session::decode(&endless), None, "a counter at its end");
    assert_eq!(Session::decode(&[1, 0, 0, 0]), None, "something behind it");
}

/// The digest of a fixed history: replicas of all versions must come to it.
#[test]
fn digests_are_frozen() {
    let mut shard = Shard::with_session();
    shard.apply(1, vec![item(1, 1, 1, &put("k", "a")), item(1, 2, 1, &delete("k"))]);
    shard.apply(61 * SECOND, vec![open(), item(1, 3, 1, &put("k", "a"))]);
    assert_eq!(shard.state().digest, 16_013_814_664_777_777_678);
}
