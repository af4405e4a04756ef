//! Scans against a sorted list, page by page, while writes go on.

use alloc::format;

use proptest::prelude::*;

use super::*;
use crate::shard::command::Page;

fn page<S: Store>(worker: &mut Worker<S>, query: Query) -> Option<Page> {
    match ask(worker, query) {
        Answer::Page(page) => Some(page),
        Answer::NoCursor => None,
        other => panic!("{other:?}"),
    }
}

fn keys(page: &Page) -> Vec<&str> {
    page.items.iter().map(|(key, ..)| core::str::from_utf8(key).unwrap()).collect()
}

fn next(cursor: u64, page: u32, revision: u64, limit: u32) -> Query {
    Query::ScanNext { cursor: CursorId(cursor), page, revision: Revision(revision), limit }
}

fn shard_with(count: u64) -> Shard {
    let mut shard = Shard::with_session();
    let puts = (1..=count).map(|n| item(1, n, n, &put(&format!("k{n:02}"), &format!("{n}"))));
    shard.apply(0, puts.collect());
    shard
}

#[test]
fn a_range_begins_with_its_start_and_ends_before_its_end() {
    let mut shard = shard_with(5);
    let worker = &mut shard.worker;
    let mut scan = |from, to, reverse| {
        let page = page(worker, scan_of(from, to, reverse, 10, 1)).unwrap();
        assert!(!page.more);
        assert_eq!(page.revision, Revision(5));
        keys(&page).join(" ")
    };
    assert_eq!(scan("", None, false), "k01 k02 k03 k04 k05");
    assert_eq!(scan("", None, true), "k05 k04 k03 k02 k01");
    assert_eq!(scan("k02", Some("k04"), false), "k02 k03");
    assert_eq!(scan("k02", Some("k04"), true), "k03 k02");
    assert_eq!(scan("k04", Some("k02"), false), "", "upside down");
    assert_eq!(scan("k02", Some("k02"), true), "");
    assert_eq!(scan("x", None, true), "");
    assert_eq!(scan("", Some(""), false), "");
}

#[test]
fn pages_come_from_one_snapshot_while_writes_go_on() {
    let mut shard = shard_with(4);
    let first = page(&mut shard.worker, scan_of("", None, false, 2, 7)).unwrap();
    assert_eq!((keys(&first), first.more), (vec!["k01", "k02"], true));
    let items = vec![
        item(1, 5, 5, &put("k03", "new")),
        item(1, 6, 5, &delete("k04")),
        item(1, 7, 5, &put("k05", "new")),
    ];
    shard.apply(0, items);

    assert_eq!(page(&mut shard.worker, next(7, 2, 4, 2)), None, "not this page's turn");
    assert_eq!(page(&mut shard.worker, next(7, 1, 5, 2)), None, "not this snapshot");
    let second = page(&mut shard.worker, next(7, 1, 4, 2)).unwrap();

    assert_eq!((keys(&second), second.more), (vec!["k03", "k04"], false));
    assert_eq!(second.revision, Revision(4));
    assert_eq!(page(&mut shard.worker, next(7, 2, 4, 2)), None, "the last page closes it");
    let fresh = page(&mut shard.worker, scan_of("k03", None, false, 5, 7)).unwrap();
    assert_eq!((keys(&fresh), fresh.revision), (vec!["k03", "k05"], Revision(7)));
}

#[test]
fn a_page_has_its_bounds_and_at_least_one_key() {
    let mut shard = shard_with(9);
    let worker = &mut shard.worker;
    let count = |worker: &mut _, limit| {
        page(worker, scan_of("", None, false, limit, 1)).unwrap().items.len()
    };
    assert_eq!(count(worker, 100), 5, "the replica's own limit");
    assert_eq!(count(worker, 0), 1);

    let big = "x".repeat(150);
    let puts = (10..=12).map(|n| item(1, n, n, &put(&format!("k{n:02}"), &big)));
    shard.apply(0, puts.collect());
    let first = page(&mut shard.worker, scan_of("k09", None, false, 5, 1)).unwrap();
    assert_eq!((keys(&first), first.more), (vec!["k09"], true));
    let second = page(&mut shard.worker, next(1, 1, 12, 5)).unwrap();
    assert_eq!((keys(&second), second.more), (vec!["k10"], true), "alone beyond the limit");
}

#[test]
fn cursors_are_bounded_belong_to_a_group_and_can_be_closed() {
    let mut shard = shard_with(3);
    let other = GroupId(2);
    run(&mut shard.worker, [StoreTask::Create { group: other, membership: membership(1) }]);
    let worker = &mut shard.worker;
    for cursor in 1..=3 {
        assert!(page(worker, scan_of("", None, false, 1, cursor)).unwrap().more);
    }
    assert_eq!(page(worker, next(1, 1, 3, 1)), None, "two are kept");

    let query = next(2, 1, 3, 1);
    let stolen = StoreTask::Read { read: ReadId(1), group: other, query };
    let answer = Answer::NoCursor;
    assert_eq!(run(worker, [stolen]), vec![StoreDone::Read { read: ReadId(1), answer }]);
    assert_eq!(keys(&page(worker, next(2, 1, 3, 1)).unwrap()), ["k02"]);

    let closed = page(worker, Query::ScanClose { cursor: CursorId(2) }).unwrap();
    assert_eq!(closed, Page { revision: Revision(3), ..Page::default() });
    assert_eq!(page(worker, next(2, 2, 3, 1)), None);
    assert_eq!(run(worker, [StoreTask::CloseCursor { cursor: CursorId(3) }]), vec![]);
    assert_eq!(page(worker, next(3, 1, 3, 1)), None);
}

#[test]
fn info_counts_one_partition() {
    let mut shard = shard_with(3);
    let Answer::Info(info) = ask(&mut shard.worker, Query::Info { partition: bytes("p") }) else {
        panic!("info answers info");
    };
    assert_eq!((info.keys, info.bytes), (3, 3 * 4));
    assert_eq!(
        (info.revision, info.applied, info.applied_term),
        (Revision(3), LogIndex(2), Term(1))
    );
    assert_eq!(info.group, GROUP);
    let Answer::Info(info) = ask(&mut shard.worker, Query::Info { partition: bytes("q") }) else {
        panic!("info answers info");
    };
    assert_eq!((info.keys, info.bytes, info.applied), (0, 0, LogIndex(2)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// All pages together are the sorted list, cut to the range, in the order asked for.
    #[test]
    fn pages_together_are_the_range(
        present in proptest::collection::btree_set(0..40_u32, 0..30),
        from in 0..45_u32,
        to in proptest::option::of(0..45_u32),
        reverse: bool,
        limits in proptest::collection::vec(0..8_u32, 1..6),
    ) {
        let name = |n: u32| format!("k{n:02}");
        let mut shard = Shard::with_session();
        let puts = (1..).zip(&present).map(|(seq, n)| item(1, seq, seq, &put(&name(*n), "v")));
        shard.apply(0, puts.collect());
        let to_name = to.map(name);

        let mut limits = limits.iter().cycle();
        let mut limit = || *limits.next().unwrap();
        let mut shown: Vec<Bytes> = Vec::new();
        let mut pages = 0;
        let mut query = scan_of(&name(from), to_name.as_deref(), reverse, limit(), 1);
        loop {
            let page = page(&mut shard.worker, query).unwrap();
            let (more, shown_at) = (page.more, page.revision.0);
            prop_assert!(!more || !page.items.is_empty());
            shown.extend(page.items.into_iter().map(|(key, ..)| key));
            if !more {
                break;
            }
            let key = shown.last().unwrap().clone();
            let command = Command::Delete { partition: bytes("p"), key };
            let seq = u64::try_from(present.len() + shown.len()).unwrap();
            shard.apply(0, vec![item(1, seq, seq, &command)]);
            pages += 1;
            query = next(1, pages, shown_at, limit());
        }

        let wanted = present.iter().filter(|n| **n >= from && to.is_none_or(|to| **n < to));
        let mut wanted: Vec<Bytes> = wanted.map(|n| Bytes::from(name(*n))).collect();
        if reverse {
            wanted.reverse();
        }
        prop_assert_eq!(shown, wanted);
    }
}
