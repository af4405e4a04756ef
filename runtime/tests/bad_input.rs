//! Whatever is wrong when a node is opened is told so that one knows what to do, and harms nothing.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{alone, client, free_addresses, members, quick};
use libring::{Data, Node, OpenError, Options};

async fn error(options: Options) -> OpenError {
    match Node::open(options).await {
        Ok(node) => panic!("{node:?} is up"),
        Err(error) => error,
    }
}

/// Writes something and closes: a directory with a log and a store.
async fn lived_in(dir: &Path) {
    let node = Node::open(alone(dir)).await.unwrap();
    node.partition("p").put("k", "v").await.unwrap();
    node.close().await.unwrap();
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("log")).unwrap();
    let mut segments: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    segments
}

#[tokio::test]
async fn a_port_in_use_is_named_and_the_directory_stays_usable() {
    let dir = tempfile::tempdir().unwrap();
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap().to_string();
    let options = Options { listen: Some(address.clone()), ..alone(dir.path()) };
    let error = error(options.clone()).await;
    assert!(matches!(error, OpenError::Listen { .. }), "{error}");
    assert!(error.to_string().contains(&address), "{error}");
    drop(held);
    Node::open(options).await.unwrap().close().await.unwrap();
}

#[tokio::test]
async fn other_machines_are_kept_out_unless_asked_for() {
    let options = Options { listen: Some("0.0.0.0:0".into()), data: Data::Memory, ..quick() };
    let error = error(options.clone()).await;
    assert!(matches!(error, OpenError::NotLoopback { .. }), "{error}");
    assert!(error.to_string().contains("`insecure`"), "{error}");
    let node = Node::open(Options { insecure: true, ..options }).await.unwrap();
    assert!(node.address().is_some());
    node.close().await.unwrap();
}

/// An address that stands for all of a machine's is none that others reach: it is not told to them.
#[tokio::test]
async fn where_a_member_listens_need_not_be_where_it_is_reached() {
    let open = Options {
        listen: Some("0.0.0.0:4701".into()),
        insecure: true,
        data: Data::Memory,
        ..quick()
    };
    let (join, members) =
        (vec!["127.0.0.1:4702".into()], vec![("n1".into(), "0.0.0.0:4701".into())]);
    let wrong = [
        ("advertise", Options { join: join.clone(), ..open.clone() }),
        ("advertise", Options { advertise: Some("[::]:4701".into()), join, ..open.clone() }),
        ("members", Options { name: "n1".into(), members, ..open.clone() }),
    ];
    for (field, options) in wrong {
        let error = error(options).await;
        assert!(matches!(&error, OpenError::Config(wrong) if wrong.field == field), "{error}");
        assert!(error.to_string().contains("reach"), "{error}");
    }

    let free = free_addresses(1).remove(0);
    let everywhere = free.replace("127.0.0.1", "0.0.0.0");
    for (members, told) in
        [(vec![("n1".to_string(), free.clone())], free), (Vec::new(), String::new())]
    {
        let listen = Some(everywhere.clone());
        let options = Options { name: "n1".into(), members, listen, ..open.clone() };
        let node = Node::open(options).await.unwrap();
        let mut events = node.events();
        let table = loop {
            match node.directory() {
                Some(table) => break table,
                None => events.next().await.unwrap(),
            };
        };
        assert_eq!(table.members[0].address, told);
        node.close().await.unwrap();
    }
}

#[tokio::test]
async fn one_node_in_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(alone(dir.path())).await.unwrap();
    let error = error(alone(dir.path())).await;
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    node.partition("p").put("k", "v").await.unwrap();
    node.close().await.unwrap();
    lived_in(dir.path()).await;
}

#[tokio::test]
async fn directories_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("letter.txt"), "dear").unwrap();
    let foreign = error(alone(dir.path())).await;
    assert!(matches!(foreign, OpenError::Foreign { .. }), "{foreign}");
    assert!(foreign.to_string().contains("letter.txt"), "{foreign}");

    let file = error(alone(&dir.path().join("letter.txt"))).await;
    assert!(matches!(file, OpenError::Directory { .. }), "{file}");
    let nowhere = error(alone(Path::new("/proc/nowhere/data"))).await;
    assert!(nowhere.to_string().contains("/proc/nowhere"), "{nowhere}");
}

#[tokio::test]
async fn a_log_that_is_damaged_is_named_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    lived_in(dir.path()).await;
    lived_in(dir.path()).await; // what the first life wrote is now sealed
    let sealed = segments(dir.path()).remove(0);
    let mut bytes = fs::read(&sealed).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&sealed, &bytes).unwrap();
    let error = error(alone(dir.path())).await;
    assert!(matches!(error, OpenError::Log { .. }), "{error}");
    let name = sealed.file_name().unwrap().to_string_lossy().into_owned();
    assert!(error.to_string().contains(&name), "{error}");
    assert_eq!(fs::read(&sealed).unwrap(), bytes, "nothing is repaired behind one's back");
}

#[tokio::test]
async fn half_a_directory_is_no_member() {
    let dir = tempfile::tempdir().unwrap();
    lived_in(dir.path()).await;
    fs::rename(dir.path().join("store"), dir.path().join("store.kept")).unwrap();
    let no_store = error(alone(dir.path())).await;
    assert!(matches!(no_store, OpenError::Torn { .. }), "{no_store}");
    fs::rename(dir.path().join("store.kept"), dir.path().join("store")).unwrap();

    for segment in segments(dir.path()) {
        fs::remove_file(segment).unwrap();
    }
    let no_log = error(alone(dir.path())).await;
    assert!(matches!(no_log, OpenError::Torn { .. }), "{no_log}");
    assert!(no_log.to_string().contains("log is gone"), "{no_log}");
}

#[tokio::test]
async fn options_that_cannot_be_meant() {
    let memory = || Options { data: Data::Memory, ..quick() };
    let listening = || Options { listen: Some("127.0.0.1:0".into()), ..memory() };
    let tag = |n: u32| (n.to_string(), "v".to_owned());
    // Too long beside such a name, and not beside a shorter one.
    let long = vec![("k".to_owned(), "v".repeat(300))];
    let wrong = [
        ("join", Options { client: true, ..memory() }),
        ("listen", Options { join: free_addresses(1), ..memory() }),
        ("join", Options { join: free_addresses(1), ..members(3, None).remove(0) }),
        ("listen", Options { listen: Some("127.0.0.1:0".into()), ..client(&members(1, None)) }),
        ("join", Options { join: vec!["nowhere".into()], ..listening() }),
        ("join", Options { join: vec![String::new()], ..listening() }),
        ("join", Options { join: vec!["unix:relative/socket".into()], ..listening() }),
        ("listen", Options { listen: Some(format!("unix:/{}", "long/".repeat(40))), ..memory() }),
        ("members", Options { members: vec![("one".into(), "localhost:http".into())], ..memory() }),
        ("advertise", Options { advertise: Some(":4701".into()), ..listening() }),
        ("tags", Options { tags: vec![("k".into(), "v".repeat(600))], ..listening() }),
        ("tags", Options { tags: (0..33).map(tag).collect(), ..listening() }),
        ("tags", Options { tags: vec![tag(1), tag(2), tag(1)], ..listening() }),
        ("tags", Options { name: "n".repeat(255), tags: long, ..listening() }),
        ("deadline", Options { deadline: Duration::ZERO, ..memory() }),
        ("name", Options { name: "nobody".into(), ..members(3, None).remove(0) }),
        ("cluster", Options { cluster: String::new(), ..memory() }),
        ("shards", Options { shards: 0, ..memory() }),
    ];
    for (field, options) in wrong {
        let error = error(options).await;
        let OpenError::Config(config) = &error else { panic!("{field}: {error}") };
        assert_eq!(config.field, field, "{error}");
    }
}

/// Options that are refused leave no trace.
#[tokio::test]
async fn a_wrong_option_makes_no_directory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    error(Options { cluster: String::new(), ..alone(&path) }).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_client_of_nobody_gives_up_in_time() {
    let options = Options {
        client: true,
        join: free_addresses(1),
        deadline: Duration::from_millis(500),
        ..quick()
    };
    let join = options.join.join("");
    let error = error(options).await;
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&join), "{error}");
}

#[tokio::test]
async fn a_client_of_another_cluster_is_told() {
    let address = free_addresses(1).remove(0);
    let options = Options { listen: Some(address.clone()), data: Data::Memory, ..quick() };
    let node = Node::open(options).await.unwrap();
    let stray = Options {
        cluster: "other".into(),
        client: true,
        join: vec![address],
        deadline: Duration::from_secs(2),
        ..quick()
    };
    let error = error(stray).await;
    let OpenError::Unreachable { refused: Some(why), .. } = &error else { panic!("{error}") };
    assert!(why.contains("\"ring\""), "{error}");
    node.close().await.unwrap();
}
