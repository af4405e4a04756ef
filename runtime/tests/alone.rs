//! A cluster of one.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::{Duration, Instant};

use common::{alone, quick};
use libring::{
    Bytes, Change, Data, Error, Expect, Failure, Halt, Node, Options, Partition, Range, Refused,
    Revision, WatchError,
};

async fn memory() -> Node {
    Node::open(Options { data: Data::Memory, ..quick() }).await.unwrap()
}

async fn value(partition: &Partition, key: &str) -> Option<Bytes> {
    partition.get(key.to_owned()).await.unwrap().map(|found| found.value)
}

async fn keys(partition: &Partition, range: Range) -> Vec<String> {
    let (mut scan, mut keys) = (partition.scan(range), Vec::new());
    while let Some(item) = scan.next().await.unwrap() {
        keys.push(String::from_utf8(item.key.to_vec()).unwrap());
    }
    keys
}

#[tokio::test]
async fn every_call_of_a_partition() {
    let node = memory().await;
    let p = node.partition("p");
    assert_eq!(p.get("a").await.unwrap(), None);
    let first = p.put("a", "1").await.unwrap();
    let found = p.get("a").await.unwrap().unwrap();
    assert_eq!((&*found.value, found.revision), (&b"1"[..], first));
    let local = p.get_local("a").await.unwrap();
    assert_eq!(local.value, Some(found));
    assert!(local.staleness.is_some_and(|age| age < Duration::from_secs(10)), "{local:?}");
    assert_eq!(value(&node.partition("q"), "a").await, None);

    let expect = Expect::Revision(Revision(0));
    let lost = p.compare_and_set("a", expect, Some("2".into())).await.unwrap();
    assert_eq!((lost.swapped, lost.revision), (false, first));
    let expect = Expect::Value(Some("1".into()));
    let won = p.compare_and_set("a", expect, Some("2".into())).await.unwrap();
    assert!(won.swapped && won.revision > first);

    let change = |key: &'static str, value: Option<&'static str>| Change {
        key: key.into(),
        value: value.map(Bytes::from),
    };
    let changes = vec![change("a", None), change("b", Some("3")), change("c", Some("4"))];
    let revision = p.batch(changes).await.unwrap();
    assert!(revision > won.revision);
    assert_eq!(value(&p, "a").await, None);
    assert!(p.delete("b").await.unwrap());
    assert!(!p.delete("b").await.unwrap());

    let info = p.info().await.unwrap();
    assert_eq!((info.keys, info.leader), (1, Some(node.whoami())));
    assert_eq!(info.replicas, [node.whoami()]);
    let status = node.status(node.whoami()).await.unwrap();
    assert_eq!(status.groups.len(), 5, "four shards and the directory");
    assert_eq!(node.members().len(), 1);
    node.close().await.unwrap();
}

#[tokio::test]
async fn a_scan_reads_every_page_in_both_directions() {
    let mut options = Options { data: Data::Memory, ..quick() };
    options.limits.scan_keys = 10;
    let node = Node::open(options).await.unwrap();
    let p = node.partition("p");
    let name = |n: u32| format!("k{n:03}");
    for n in 0..105 {
        p.put(name(n), "v").await.unwrap();
    }
    let all: Vec<_> = (0..105).map(name).collect();
    assert_eq!(keys(&p, Range::all()).await, all);
    assert_eq!(keys(&p, Range::all().limit(12)).await, all[..12]);
    assert_eq!(keys(&p, Range::prefix("k03")).await, all[30..40]);
    assert_eq!(keys(&p, Range::all().from("k007").to("k009")).await, all[7..9]);
    let backwards: Vec<_> = all.iter().rev().cloned().collect();
    assert_eq!(keys(&p, Range::all().reverse()).await, backwards);
    assert_eq!(keys(&p, Range::prefix("x")).await, Vec::<String>::new());

    // A scan sees one state, and a dropped future of it loses nothing.
    let mut scan = p.scan(Range::all());
    let mut seen = vec![scan.next().await.unwrap().unwrap().key];
    p.delete("k104").await.unwrap();
    p.put("k0500", "new").await.unwrap();
    loop {
        let next = tokio::time::timeout(Duration::from_micros(20), scan.next()).await;
        match next {
            Err(_) => {}
            Ok(item) => match item.unwrap() {
                Some(item) => seen.push(item.key),
                None => break,
            },
        }
    }
    let old: Vec<_> = all.iter().cloned().map(Bytes::from).collect();
    assert_eq!(seen, old);
    assert!(scan.revision().is_some());
    drop(scan);
    node.close().await.unwrap();
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..4 {
        let node = Node::open(alone(dir.path())).await.unwrap();
        let p = node.partition("p");
        for old in 0..round {
            assert_eq!(value(&p, &format!("k{old}")).await.unwrap(), "v", "round {round}");
        }
        p.put(format!("k{round}"), "v").await.unwrap();
        if round % 2 == 0 {
            node.close().await.unwrap();
        } else {
            drop((node, p)); // at once
        }
    }
}

/// The log is cut, the store takes over, and nothing is lost on the way.
#[tokio::test]
async fn a_log_that_is_cut_many_times_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = alone(dir.path());
    options.limits.segment_bytes = 64 << 10;
    options.limits.log_bytes = 256 << 10;
    let node = Node::open(options.clone()).await.unwrap();
    let p = node.partition("p");
    for n in 0..200_u32 {
        p.put(format!("k{n}"), vec![7; 16 << 10]).await.unwrap();
    }
    let bytes = |dir: &std::path::Path| -> u64 {
        let files = std::fs::read_dir(dir.join("log")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    };
    let left = bytes(dir.path());
    assert!(left < 2 << 20, "{left} bytes of log are left");
    drop((node, p));
    let node = Node::open(options).await.unwrap();
    let p = node.partition("p");
    for n in 0..200 {
        assert_eq!(value(&p, &format!("k{n}")).await.unwrap().len(), 16 << 10);
    }
    node.close().await.unwrap();
}

#[tokio::test]
async fn a_closed_node_answers_everyone() {
    let node = memory().await;
    let (other, p) = (node.clone(), node.partition("p"));
    let mut events = node.events();
    let calls: Vec<_> = (0..100)
        .map(|n| {
            let p = p.clone();
            tokio::spawn(async move { p.put(format!("k{n}"), "v").await })
        })
        .collect();
    tokio::task::yield_now().await;
    node.close().await.unwrap();
    for call in calls {
        match call.await.unwrap() {
            Ok(_) | Err(Error::Failed(Failure::Closed { .. })) => {}
            Err(error) => panic!("{error}"),
        }
    }
    let late = p.put("k", "v").await.unwrap_err();
    assert_eq!(late, Error::Failed(Failure::Closed { maybe: false }));
    assert!(late.certainly_not());
    while events.next().await.is_some() {}
    other.close().await.unwrap();
}

/// More calls than the table holds: the rest is refused at once, and memory stays bounded.
#[tokio::test]
async fn a_flood_is_refused() {
    let mut options = Options { data: Data::Memory, ..quick() };
    options.limits.calls = 500;
    let node = Node::open(options).await.unwrap();
    let p = node.partition("p");
    let (mut done, mut full) = (0, 0);
    let calls: Vec<_> = (0..20_000)
        .map(|n| {
            let p = p.clone();
            tokio::spawn(async move { p.put(format!("k{}", n % 100), vec![0; 1024]).await })
        })
        .collect();
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => done += 1,
            Err(Error::Refused(Refused::Full { limit: 500, .. })) => full += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(done >= 500 && full > 0, "{done} done, {full} refused");
    p.put("after", "v").await.unwrap();
    node.close().await.unwrap();
}

#[tokio::test]
async fn what_is_too_large_is_refused_with_its_limit() {
    let node = memory().await;
    let p = node.partition("p");
    for (key, value) in [(64 << 10, 8 << 20), (0, 0)] {
        p.put(vec![1; key], vec![2; value]).await.unwrap();
    }
    for (key, value) in [((64 << 10) + 1, 0), (0, (8 << 20) + 1), (0, 100 << 20)] {
        let error = p.put(vec![1; key], vec![2; value]).await.unwrap_err();
        assert!(matches!(error, Error::Refused(Refused::TooLarge { .. })), "{error}");
    }
    let long = node.partition(&"n".repeat(256)).put("k", "v").await.unwrap_err();
    assert!(matches!(long, Error::Refused(Refused::TooLarge { limit: 255, .. })), "{long}");
    node.close().await.unwrap();
}

/// A log that cannot be written stops the member, and no one waits for it in vain.
#[tokio::test]
async fn a_member_whose_disk_fails_halts() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = alone(dir.path());
    options.limits.segment_bytes = 4 << 10;
    let node = Node::open(options).await.unwrap();
    let (p, mut events) = (node.partition("p"), node.events());
    p.put("k", "v").await.unwrap();
    std::fs::remove_dir_all(dir.path().join("log")).unwrap(); // the next segment has no place
    let error = loop {
        if let Err(error) = p.put("k", vec![0; 1024]).await {
            break error;
        }
    };
    assert!(matches!(error, Error::Failed(Failure::Closed { maybe: true })), "{error}");
    let halt = node.halted().await;
    let Halt::Log { problem } = &halt else { panic!("{halt}") };
    assert!(problem.contains(&*dir.path().join("log").to_string_lossy()), "{halt}");
    while events.next().await.is_some() {}
    assert_eq!(p.get("k").await.unwrap_err(), Error::Refused(Refused::Halted));
    node.clone().close().await.unwrap();
    assert_eq!(p.get("k").await.unwrap_err(), Error::Refused(Refused::Halted));
    assert_eq!(node.halted().await, halt);
}

/// A caller that does not wait any more loses its answer, not the node.
#[tokio::test]
async fn futures_may_be_dropped_anywhere() {
    let node = memory().await;
    let p = node.partition("p");
    for n in 0..200_u64 {
        let wait = Duration::from_micros(n % 40);
        let _ = tokio::time::timeout(wait, p.put(format!("k{n}"), "v")).await;
    }
    let _ = tokio::time::timeout(Duration::from_millis(1), Node::open(quick_memory())).await;
    p.put("after", "v").await.unwrap();
    node.close().await.unwrap();
}

fn quick_memory() -> Options {
    Options { data: Data::Memory, ..quick() }
}

/// Calls need no tokio around them.
#[test]
fn any_executor_will_do() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let node = runtime.block_on(memory());
    let p = node.partition("p");
    let put = runtime.block_on(p.put("k", "v"));
    put.unwrap();
    drop(runtime);
    drop((p, node)); // outside of any executor
}

#[tokio::test]
async fn a_dropped_node_is_gone_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(alone(dir.path())).await.unwrap();
    let started = Instant::now();
    drop(node);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    drop(Node::open(alone(dir.path())).await.unwrap());
}

#[tokio::test]
async fn a_watch_tells_every_change_once_and_goes_on_after_a_revision() {
    let node = memory().await;
    let p = node.partition("p");
    p.put("a", "0").await.unwrap();
    let mut watch = p.watch(Range::prefix("a")).await.unwrap();
    let before = watch.revision();
    p.put("a", "1").await.unwrap();
    p.put("b", "1").await.unwrap();
    let change = |key: &'static str| Change { key: key.into(), value: Some("2".into()) };
    p.batch(vec![change("a"), change("aa")]).await.unwrap();
    p.delete("a").await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..4 {
        let changed = watch.next().await.unwrap();
        let value = changed.value.map(|value| String::from_utf8(value.to_vec()).unwrap());
        seen.push((String::from_utf8(changed.key.to_vec()).unwrap(), value));
    }
    let some = |text: &str| Some(text.to_owned());
    let expected = [("a", some("1")), ("a", some("2")), ("aa", some("2")), ("a", None)];
    assert_eq!(seen, expected.map(|(key, value)| (key.to_owned(), value)));

    // The future is dropped while it waits, and nothing is lost.
    let short = Duration::from_millis(1);
    assert!(tokio::time::timeout(short, watch.next()).await.is_err());
    let revision = p.put("a", "3").await.unwrap();
    assert_eq!(watch.next().await.unwrap().revision, revision);
    assert!(watch.revision() >= revision);

    let mut again = p.watch_after(Range::prefix("aa"), before).unwrap();
    assert_eq!(&*again.next().await.unwrap().key, b"aa");
    let refused = p.watch_after(Range::all().reverse(), before).unwrap_err();
    assert!(matches!(refused, Error::Refused(Refused::Invalid { .. })));
    drop((watch, again, p));
    node.close().await.unwrap();
}

#[tokio::test]
async fn a_watch_that_fell_behind_says_so() {
    let mut options = Options { data: Data::Memory, ..quick() };
    options.limits.history_bytes = 1000;
    let node = Node::open(options).await.unwrap();
    let p = node.partition("p");
    let mut watch = p.watch(Range::all()).await.unwrap();
    for n in 0..50 {
        p.put(format!("k{n}"), "value").await.unwrap();
    }
    let Err(WatchError::Compacted { first }) = watch.next().await else { panic!("it has") };
    assert!(first > Revision(1) && first <= Revision(51));
    drop((watch, p));
    node.close().await.unwrap();
}
