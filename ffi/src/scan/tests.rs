use libring::Revision;
use ring_core::shard::command::Page;

use super::*;

fn page(keys: &[&'static str], cursor: Option<u64>) -> Result<Reply, Error> {
    let item = |key: &&'static str| (Bytes::from(*key), Bytes::from("v"), Revision(7));
    let items = keys.iter().map(item).collect();
    let page = Page { items, more: cursor.is_some(), revision: Revision(9) };
    Ok(Reply::Page { page, cursor: cursor.map(CursorId), age: None })
}

fn all(limit: Option<u64>, reverse: bool) -> Pages {
    Pages::new(Bytes::new(), None, reverse, limit, Consistency::Linearizable)
}

#[test]
fn pages_follow_their_cursor_to_the_end() {
    let (mut pages, mut out) = (all(None, false), Vec::new());
    assert!(matches!(pages.ask(), Action::Scan { limit: 1024, .. }));
    assert!(pages.on_answer(1, 2, page(&["a", "bc"], Some(5)), &mut out));
    assert!(matches!(pages.ask(), Action::ScanNext { cursor: CursorId(5), limit: 1024 }));
    assert!(!pages.on_answer(1, 2, page(&["d"], None), &mut out));
    let got: Vec<_> = out.iter().map(|e| (e.kind, e.a, e.b, &*e.data)).collect();
    let expected: [(u32, u64, u64, &[u8]); 4] = [
        (RING_EV_ITEM, 1, 7, b"av"),
        (RING_EV_ITEM, 2, 7, b"bcv"),
        (RING_EV_ITEM, 1, 7, b"dv"),
        (RING_EV_DONE, 9, 3, b""),
    ];
    assert_eq!(got, expected);
    assert_eq!(pages.close(), None);
}

#[test]
fn a_limit_ends_a_scan_and_lets_go_of_its_snapshot() {
    let (mut pages, mut out) = (all(Some(2), false), Vec::new());
    assert!(matches!(pages.ask(), Action::Scan { limit: 2, .. }));
    assert!(!pages.on_answer(1, 2, page(&["a", "b"], Some(5)), &mut out));
    assert_eq!(pages.close(), Some(Action::ScanClose { cursor: CursorId(5) }));
}

#[test]
fn an_interrupted_scan_says_where_to_go_on() {
    for (reverse, resume) in [(false, &b"b\0"[..]), (true, &b"b"[..])] {
        let (mut pages, mut out) = (all(None, reverse), Vec::new());
        let gone = || Err(Error::Failed(Failure::Interrupted));
        assert!(pages.on_answer(1, 2, gone(), &mut out), "nothing was seen: it begins again");
        assert!(matches!(pages.ask(), Action::Scan { .. }));
        assert!(pages.on_answer(1, 2, page(&["b"], Some(5)), &mut out));
        assert!(!pages.on_answer(1, 2, gone(), &mut out));
        let last = out.last().expect("the scan has ended");
        assert_eq!((last.status, &*last.data), (status::RING_INTERRUPTED, resume));
    }
}

#[test]
fn a_scan_that_never_begins_gives_up() {
    let (mut pages, mut out) = (all(None, false), Vec::new());
    let gone = || Err(Error::Failed(Failure::Interrupted));
    while pages.on_answer(1, 2, gone(), &mut out) {}
    assert_eq!(out.len(), 1);
    assert!(out.iter().all(|e| e.status == status::RING_INTERRUPTED && e.data.is_empty()));
}
