//! What an operator asks of a node: numbers, and more addresses.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{alone, client, members, open_all};
use libring::{Event, Node, Options, Refused};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What is answered to this head: status line and body.
async fn ask(address: std::net::SocketAddr, head: &str) -> (String, String) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(10), socket.read_to_string(&mut answer))
        .await
        .expect("an answer, and the end of it")
        .unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

fn sample(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in:\n{text}")).parse().unwrap()
}

#[tokio::test]
async fn metrics_are_told_over_http() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { metrics: Some("127.0.0.1:0".into()), ..alone(dir.path()) };
    let node = Node::open(options).await.unwrap();
    let p = node.partition("p");
    for key in ["a", "b", "c"] {
        p.put(key, "v").await.unwrap();
    }
    let address = node.metrics_address().unwrap();
    let all_led = async {
        loop {
            let (status, text) = ask(address, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert_eq!(status, "HTTP/1.1 200 OK");
            // The puts needed one of the groups.
            if sample(&text, "ring_replicas_leaderless") == 0 {
                return text;
            }
        }
    };
    let text = tokio::time::timeout(Duration::from_secs(10), all_led).await.unwrap();
    assert_eq!(sample(&text, "ring_calls_answered_total"), 3);
    assert_eq!(sample(&text, "ring_calls_open"), 0);
    assert_eq!(sample(&text, "ring_members_registered"), 1);
    assert_eq!(sample(&text, "ring_ready"), 1);
    assert_eq!(sample(&text, "ring_replicas_leading"), sample(&text, "ring_replicas"));
    assert!(sample(&text, "ring_log_bytes") > 0 && sample(&text, "ring_log_batches_total") > 0);
    let metrics = node.metrics().await.unwrap();
    assert_eq!((metrics.calls.answered, metrics.calls.open, metrics.registered), (3, 0, 1));

    let (status, _) = ask(address, "POST /metrics HTTP/1.1\r\n\r\n").await;
    assert_eq!(status, "HTTP/1.1 405 Method Not Allowed");
    let (status, _) = ask(address, "GET /secrets HTTP/1.1\r\n\r\n").await;
    assert_eq!(status, "HTTP/1.1 404 Not Found");
    let (status, _) = ask(address, &"x".repeat(8 << 10)).await;
    assert_eq!(status, "HTTP/1.1 431 Request Header Fields Too Large");
    node.close().await.unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "the port is free again");
}

/// Addresses that are told later are dialled, too; what is no address is refused.
#[tokio::test]
async fn more_addresses_may_be_told_later() {
    let options = members(3, None);
    let nodes = open_all(&options).await;
    let lone = Options { join: vec![options[0].members[0].1.clone()], ..client(&options) };
    let caller = Node::open(lone).await.unwrap();
    let nobody = common::free_addresses(1).remove(0);
    let mut events = caller.events();
    caller.join([&nobody, &options[1].members[1].1]).await.unwrap();
    let failed = Event::PeerFailed { member: None, address: nobody };
    let told = async { while events.next().await.unwrap() != failed {} };
    tokio::time::timeout(Duration::from_secs(10), told).await.unwrap();
    caller.partition("p").put("k", "v").await.unwrap();
    let refused = caller.join(["a\nb"]).await.unwrap_err();
    let invalid = Refused::Invalid { what: "an address that is neither host:port nor unix:/path" };
    assert_eq!(refused, libring::Error::Refused(invalid));
    assert_eq!(caller.slot("k"), nodes[0].slot("k"));
    assert!(caller.slot("k") < libring::SLOTS);
    caller.close().await.unwrap();
    for node in nodes {
        node.close().await.unwrap();
    }
}
