//! Requests between nodes in one process, over real sockets.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::keys::Authority;
use common::{client, members, open_all, quick};
use libring::security::Role;
use libring::{
    Broken, Bytes, Data, Error, HandleError, HandlerError, Incoming, Node, Options, Request,
    RequestFailure, Response, STREAM_WINDOW, StreamReader, Waited, Way,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// Long enough for anything that does not hang.
const LIMIT: Duration = Duration::from_secs(20);

async fn three() -> Vec<Node> {
    let nodes = open_all(&members(3, None)).await;
    linked(&nodes).await;
    nodes
}

/// Waits until all members own keys, as each of them sees it.
async fn linked(nodes: &[Node]) {
    let all = async {
        while nodes.iter().any(|node| node.ring().owners(0, 10).len() < nodes.len()) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, all).await.expect("connected");
}

async fn alone() -> Node {
    Node::open(Options { data: Data::Memory, ..quick() }).await.unwrap()
}

/// A key that this member owns.
fn key_of(node: &Node) -> String {
    let keys = (0..).map(|n: u32| format!("key {n}"));
    keys.into_iter().find(|key| node.is_mine(key)).unwrap()
}

fn name_of(node: &Node) -> String {
    node.whoami().to_string()
}

/// Each node answers with its name and what it was asked.
fn echo(nodes: &[Node]) {
    for node in nodes {
        let name = name_of(node);
        let echo = move |incoming: Incoming| {
            let name = name.clone();
            async move {
                let header = incoming.header("h").cloned().unwrap_or_default();
                let body = incoming.body().clone();
                Ok(Response::new(body).header("by", name).header("h", header))
            }
        };
        node.handle("echo", echo).unwrap();
    }
}

fn by(response: &Response) -> &Bytes {
    &response.headers.iter().find(|(name, _)| name == "by").unwrap().1
}

fn failure(result: Result<Response, Error>) -> RequestFailure {
    match result {
        Err(Error::Request(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

async fn close(nodes: Vec<Node>) {
    for node in nodes {
        node.close().await.unwrap();
    }
}

#[tokio::test]
async fn the_owner_answers_whoever_asks_and_all_get_the_same() {
    let nodes = three().await;
    echo(&nodes);
    for owner in &nodes {
        let key = key_of(owner);
        for caller in &nodes {
            let request = Request::new("echo").header("h", "v").body("body");
            let response = caller.request(key.clone(), request).await.unwrap();
            assert_eq!(response.body, "body");
            assert_eq!(*by(&response), name_of(owner));
            assert_eq!(response.headers[1], ("h".to_owned(), Bytes::from("v")));
        }
    }
    close(nodes).await;
}

#[tokio::test]
async fn a_client_asks_too() {
    let options = members(3, None);
    let nodes = open_all(&options).await;
    linked(&nodes).await;
    echo(&nodes);
    let client = Node::open(client(&options)).await.unwrap();
    let all = async {
        while client.ring().owners(0, 10).len() < 3 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, all).await.expect("connected");
    for owner in &nodes {
        let response = client.request(key_of(owner), Request::new("echo")).await.unwrap();
        assert_eq!(*by(&response), name_of(owner));
    }
    let mine = client.request_to(nodes[1].whoami(), Request::new("echo")).await.unwrap();
    assert_eq!(*by(&mine), name_of(&nodes[1]));
    drop(client);
    close(nodes).await;
}

/// A handler's error, a route without a handler, a body too large, a panic: each says what it is, and the same when
/// the caller is the owner.
#[tokio::test]
async fn errors_reach_the_caller_alike_from_near_and_far() {
    let nodes = three().await;
    let owner = &nodes[0];
    owner
        .handle("fail", |_| async { Err::<Response, _>(HandlerError::new(7, "no such thing")) })
        .unwrap();
    owner.handle("parse", |_| async { Ok("x".parse::<u32>()?.to_string()) }).unwrap();
    owner
        .handle("panic", |incoming: Incoming| async move {
            let body = incoming.body().clone();
            let text = std::str::from_utf8(&body)?;
            assert!(text.is_empty(), "a defect of {text}");
            Ok("")
        })
        .unwrap();
    let key = key_of(owner);
    for caller in &nodes {
        let ask = |route: &str| caller.request(key.clone(), Request::new(route).body("ours"));
        let told = |code, text: &str| RequestFailure::Handler { code, text: text.to_owned() };
        assert_eq!(failure(ask("fail").await), told(7, "no such thing"));
        assert_eq!(failure(ask("parse").await), told(0, "invalid digit found in string"));
        let RequestFailure::Handler { code, text } = failure(ask("panic").await) else {
            panic!("a handler's error")
        };
        assert_eq!(code, HandlerError::PANICKED);
        assert!(text.contains("a defect of ours"), "{text}");
        assert_eq!(failure(ask("nobody").await), RequestFailure::NoRoute);
        let long = Request::new("fail").body(vec![0; (8 << 20) + 1]);
        let refused = caller.request(key.clone(), long).await.unwrap_err();
        assert!(matches!(&refused, Error::Refused(_)), "{refused:?}");
        assert!(refused.to_string().contains("8388608"), "{refused}");
        assert!(!refused.is_outcome_unknown());
    }
    // After all that it still answers.
    assert_eq!(
        failure(nodes[1].request(key, Request::new("nobody")).await),
        RequestFailure::NoRoute
    );
    close(nodes).await;
}

#[tokio::test]
async fn the_largest_body_goes_both_ways() {
    let nodes = three().await;
    echo(&nodes);
    let body: Bytes = (0..8_u32 << 20).map(|n| n.to_le_bytes()[1]).collect::<Vec<u8>>().into();
    let request = Request::new("echo").body(body.clone());
    let response = nodes[1].request(key_of(&nodes[0]), request).await.unwrap();
    assert!(response.body == body, "8 MiB there and back");
    close(nodes).await;
}

#[tokio::test]
async fn a_route_has_one_handler_and_the_rest_has_one() {
    let node = alone().await;
    let ok = |_: Incoming| async { Ok("route") };
    node.handle("r", ok).unwrap();
    assert_eq!(node.handle("r", ok), Err(HandleError::Taken));
    assert_eq!(node.handle("", ok), Err(HandleError::Length(0)));
    assert_eq!(node.handle(&"r".repeat(256), ok), Err(HandleError::Length(256)));
    let rest = |incoming: Incoming| async move { Ok(format!("rest of {}", incoming.route())) };
    node.handle_rest(rest).unwrap();
    assert_eq!(node.handle_rest(rest), Err(HandleError::Taken));
    assert_eq!(node.request("k", Request::new("r")).await.unwrap().body, "route");
    assert_eq!(node.request("k", Request::new("s")).await.unwrap().body, "rest of s");
    node.close().await.unwrap();
}

/// A handler that never answers is dropped at the deadline, and its caller is told in time.
/// Before its handlers are there a member turns requests away, and certainly does not handle them.
#[tokio::test]
async fn a_member_that_holds_requests_is_asked_again() {
    let mut options = members(3, None);
    options[1].hold_requests = true;
    let nodes = open_all(&options).await;
    linked(&nodes).await;
    let held = &nodes[1];
    for caller in &nodes {
        let request = Request::new("echo").deadline(Duration::from_millis(200));
        let failed = failure(caller.request_to(held.whoami(), request).await);
        assert_eq!(failed, RequestFailure::Deadline { waited: Waited::Room });
    }
    let waiting = nodes.iter().map(|node| {
        let (node, id) = (node.clone(), held.whoami());
        tokio::spawn(async move { node.request_to(id, Request::new("echo").once()).await })
    });
    let waiting: Vec<_> = waiting.collect();
    echo(&nodes);
    held.serve();
    for answer in waiting {
        assert_eq!(*by(&answer.await.unwrap().unwrap()), name_of(held));
    }
    let failed = failure(nodes[0].request_to(held.whoami(), Request::new("none")).await);
    assert_eq!(failed, RequestFailure::NoRoute);
    close(nodes).await;
}

#[tokio::test]
async fn a_handler_that_never_answers_ends_at_the_deadline() {
    struct Dropped(mpsc::UnboundedSender<()>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let nodes = three().await;
    let (dropped, mut drops) = mpsc::unbounded_channel();
    let handler = move |_: Incoming| {
        let dropped = Dropped(dropped.clone());
        async move {
            std::future::pending::<()>().await;
            drop(dropped);
            Ok("")
        }
    };
    nodes[0].handle("never", handler).unwrap();
    for caller in &nodes {
        let started = Instant::now();
        let request = Request::new("never").deadline(Duration::from_millis(300));
        let result = caller.request(key_of(&nodes[0]), request).await;
        assert_eq!(failure(result), RequestFailure::OutcomeUnknown);
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(3), "{took:?}");
        timeout(LIMIT, drops.recv()).await.expect("dropped").unwrap();
    }
    close(nodes).await;
}

#[tokio::test]
async fn a_handler_hears_that_its_caller_gave_up() {
    let nodes = three().await;
    let (begun, mut begins) = mpsc::unbounded_channel();
    let (told, mut tells) = mpsc::unbounded_channel();
    let handler = move |incoming: Incoming| {
        let (begun, told) = (begun.clone(), told.clone());
        async move {
            begun.send(())?;
            incoming.cancelled().await;
            told.send(incoming.is_cancelled())?;
            Ok("")
        }
    };
    nodes[0].handle("wait", handler).unwrap();
    for caller in &nodes {
        let call = caller.call(key_of(&nodes[0]), Request::new("wait")).unwrap();
        begins.recv().await.unwrap();
        drop(call);
        assert!(timeout(LIMIT, tells.recv()).await.expect("told").unwrap());
    }
    close(nodes).await;
}

#[tokio::test]
async fn nobody_waits_for_a_one_way_request() {
    let nodes = three().await;
    let handled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&handled);
    let handler = move |incoming: Incoming| {
        let count = Arc::clone(&count);
        async move {
            assert!(incoming.is_one_way());
            count.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<()>().await;
            Ok("")
        }
    };
    nodes[0].handle("note", handler).unwrap();
    echo(&nodes);
    for n in 0..150 {
        let caller = &nodes[n % 3];
        caller.fire(key_of(&nodes[0]), Request::new("note")).await.unwrap();
    }
    let all = async {
        while handled.load(Ordering::Relaxed) < 150 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, all).await.expect("all are handled");
    // None of them, although none has ended, holds up another.
    let response = nodes[1].request(key_of(&nodes[0]), Request::new("echo")).await.unwrap();
    assert_eq!(*by(&response), name_of(&nodes[0]));
    close(nodes).await;
}

#[tokio::test]
async fn a_request_that_nobody_can_handle_says_why_at_its_deadline() {
    let nodes = three().await;
    let nobody = libring::MemberId(77);
    let request = Request::new("r").deadline(Duration::from_millis(200));
    let result = nodes[0].request_to(nobody, request).await;
    assert!(!result.as_ref().unwrap_err().is_outcome_unknown());
    assert_eq!(failure(result), RequestFailure::Deadline { waited: Waited::Connection });
    close(nodes).await;
}

#[tokio::test]
async fn requests_end_when_their_node_is_closed() {
    let node = alone().await;
    let (begun, mut begins) = mpsc::unbounded_channel();
    let handler = move |incoming: Incoming| {
        let begun = begun.clone();
        async move {
            begun.send(())?;
            std::future::pending::<()>().await;
            drop(incoming);
            Ok("")
        }
    };
    node.handle("never", handler).unwrap();
    let request = Request::new("never").stream("s", Way::Both);
    let mut call = node.call("k", request).unwrap();
    let (mut reader, mut writer) = (call.reader("s").unwrap(), call.writer("s").unwrap());
    begins.recv().await.unwrap();
    node.clone().close().await.unwrap();
    let closed = RequestFailure::Closed { maybe: true };
    assert_eq!(failure(timeout(LIMIT, call.response()).await.unwrap()), closed);
    let ended = timeout(LIMIT, reader.next()).await.unwrap();
    assert_eq!(ended, Err(Broken::Closed));
    assert_eq!(timeout(LIMIT, writer.write("x")).await.unwrap(), Err(Broken::Closed));
    let never = node.request("k", Request::new("never")).await;
    assert_eq!(failure(never), RequestFailure::Closed { maybe: false });
}

/// What a handler captures, the node itself too, is let go when the node is closed.
#[tokio::test]
async fn handlers_are_dropped_with_their_node() {
    let node = alone().await;
    let held = Arc::new(());
    let (kept, own) = (Arc::clone(&held), node.clone());
    let handler = move |_: Incoming| {
        let _ = (&kept, &own);
        async { Ok("") }
    };
    node.handle("r", handler).unwrap();
    assert_eq!(Arc::strong_count(&held), 2);
    node.close().await.unwrap();
    assert_eq!(Arc::strong_count(&held), 1);
}

async fn read_all(mut reader: StreamReader) -> Result<Vec<u8>, Broken> {
    let mut all = Vec::new();
    while let Some(part) = reader.next().await? {
        all.extend_from_slice(&part);
    }
    Ok(all)
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

/// Upper case, piece by piece.
fn shout(node: &Node) {
    let handler = |mut incoming: Incoming| async move {
        let (mut from, mut to) = (incoming.reader("s").unwrap(), incoming.writer("s").unwrap());
        let mut total = 0;
        while let Some(part) = from.next().await? {
            total += part.len();
            to.write(part.to_ascii_uppercase()).await?;
        }
        to.finish().await?;
        Ok(total.to_string())
    };
    node.handle("shout", handler).unwrap();
}

#[tokio::test]
async fn a_stream_goes_both_ways_whole_and_in_order() {
    let nodes = three().await;
    shout(&nodes[0]);
    let text = bytes(5_000_000);
    for caller in &nodes {
        let request = Request::new("shout").stream("s", Way::Both);
        let mut call = caller.call(key_of(&nodes[0]), request).unwrap();
        let (reader, mut writer) = (call.reader("s").unwrap(), call.writer("s").unwrap());
        assert!(call.reader("s").is_none() && call.writer("t").is_none());
        let text = text.clone();
        let expected = text.to_ascii_uppercase();
        let writing = tokio::spawn(async move {
            writer.write(text).await?;
            writer.finish().await
        });
        assert!(read_all(reader).await.unwrap() == expected);
        writing.await.unwrap().unwrap();
        assert_eq!(call.response().await.unwrap().body, "5000000");
    }
    close(nodes).await;
}

#[tokio::test]
async fn streams_are_readers_and_writers_of_tokio() {
    let nodes = three().await;
    shout(&nodes[0]);
    let request = Request::new("shout").stream("s", Way::Both);
    let mut call = nodes[1].call(key_of(&nodes[0]), request).unwrap();
    let (mut reader, mut writer) = (call.reader("s").unwrap(), call.writer("s").unwrap());
    writer.write_all(b"hello").await.unwrap();
    let mut first = [0; 2];
    reader.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HE");
    writer.shutdown().await.unwrap();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "LLO");
    assert_eq!(call.response().await.unwrap().body, "5");
    close(nodes).await;
}

/// Streams that the response adds, and those of the request, go on after the answer.
#[tokio::test]
async fn streams_outlive_the_answer() {
    let nodes = three().await;
    let handler = |mut incoming: Incoming| async move {
        let mut more = incoming.add_writer("more").unwrap();
        let back = incoming.add_reader("back").unwrap();
        let mut log = incoming.writer("log").unwrap();
        tokio::spawn(async move {
            let heard = read_all(back).await.unwrap();
            more.write(heard).await.unwrap();
            more.finish().await.unwrap();
            log.write("the end").await.unwrap();
            log.finish().await.unwrap();
        });
        Ok("at once")
    };
    nodes[0].handle("later", handler).unwrap();
    for caller in &nodes {
        let request = Request::new("later").stream("log", Way::Down);
        let mut response = caller.request(key_of(&nodes[0]), request).await.unwrap();
        assert_eq!(response.body, "at once");
        let mut back = response.writer("back").unwrap();
        let (more, log) = (response.reader("more").unwrap(), response.reader("log").unwrap());
        back.write("over to you").await.unwrap();
        back.finish().await.unwrap();
        assert_eq!(read_all(more).await.unwrap(), b"over to you");
        assert_eq!(read_all(log).await.unwrap(), b"the end");
    }
    close(nodes).await;
}

/// N2: a reader that never reads stops its writer at a window, and delays nobody else.
#[tokio::test]
async fn a_reader_that_never_reads_holds_up_its_own_stream_alone() {
    let nodes = three().await;
    shout(&nodes[0]);
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let handler = move |mut incoming: Incoming| {
        let count = Arc::clone(&count);
        async move {
            let mut to = incoming.writer("s").unwrap();
            loop {
                to.write(vec![7; 16 << 10]).await?;
                count.fetch_add(16 << 10, Ordering::Relaxed);
            }
            #[allow(unreachable_code, reason = "the type of the answer")]
            Ok("")
        }
    };
    nodes[0].handle("flood", handler).unwrap();
    let key = key_of(&nodes[0]);
    let request = Request::new("flood").stream("s", Way::Down);
    let flood = nodes[1].call(key.clone(), request).unwrap();
    let window = usize::try_from(STREAM_WINDOW).unwrap();
    let full = async {
        while written.load(Ordering::Relaxed) < window {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, full).await.expect("a window is written");

    let mut call =
        nodes[1].call(key.clone(), Request::new("shout").stream("s", Way::Both)).unwrap();
    let (reader, mut writer) = (call.reader("s").unwrap(), call.writer("s").unwrap());
    let text = bytes(5_000_000);
    let writing = tokio::spawn(async move {
        writer.write(text).await?;
        writer.finish().await
    });
    let heard = timeout(LIMIT, read_all(reader)).await.expect("the others go on").unwrap();
    assert_eq!(heard.len(), 5_000_000);
    writing.await.unwrap().unwrap();
    assert_eq!(written.load(Ordering::Relaxed), window, "no more than a window waits");
    drop(flood);
    close(nodes).await;
}

/// Either end of a stream that is dropped breaks it at the other, and nothing else.
#[tokio::test]
async fn an_abandoned_stream_breaks_at_its_other_end() {
    let nodes = three().await;
    let (told, mut tells) = mpsc::unbounded_channel();
    let handler = move |mut incoming: Incoming| {
        let told = told.clone();
        async move {
            let (mut from, mut to) = (incoming.reader("s").unwrap(), incoming.writer("s").unwrap());
            if incoming.body() == "reader" {
                drop(from);
                to.write("still here").await?;
                to.finish().await?;
            } else {
                let first = from.next().await;
                told.send((first, from.next().await, to.broken().await))?;
            }
            Ok("done")
        }
    };
    nodes[0].handle("half", handler).unwrap();
    for caller in &nodes {
        let request = || Request::new("half").stream("s", Way::Both);
        let mut call = caller.call(key_of(&nodes[0]), request().body("reader")).unwrap();
        let (reader, mut writer) = (call.reader("s").unwrap(), call.writer("s").unwrap());
        let broken = async {
            loop {
                if let Err(why) = writer.write(vec![0; 1000]).await {
                    return why;
                }
            }
        };
        assert_eq!(timeout(LIMIT, broken).await.unwrap(), Broken::GivenUp);
        assert_eq!(read_all(reader).await.unwrap(), b"still here");
        assert_eq!(call.response().await.unwrap().body, "done");

        let mut call = caller.call(key_of(&nodes[0]), request().body("both")).unwrap();
        let (reader, mut writer) = (call.reader("s").unwrap(), call.writer("s").unwrap());
        writer.write("x").await.unwrap();
        drop((reader, writer));
        let (first, then, write) = timeout(LIMIT, tells.recv()).await.unwrap().unwrap();
        assert_eq!(first, Ok(Some(Bytes::from("x"))));
        assert_eq!((then, write), (Err(Broken::GivenUp), Broken::GivenUp));
        assert_eq!(call.response().await.unwrap().body, "done");
    }
    close(nodes).await;
}

/// The ends that a handler has of its response's streams may end before the response is on its way.
#[tokio::test]
async fn a_responses_streams_that_end_before_it_end_with_it() {
    let node = alone().await;
    let (told, mut tells) = mpsc::unbounded_channel();
    let handler = move |mut incoming: Incoming| {
        let told = told.clone();
        async move {
            incoming.add_writer("finished").unwrap().finish().await?;
            drop(incoming.add_writer("dropped"));
            drop(incoming.add_reader("unread"));
            drop(incoming.add_stream("both", Way::Both));
            incoming.on_answered(move |is_given| told.send(is_given).unwrap());
            Ok("done")
        }
    };
    node.handle("early", handler).unwrap();
    let mut response = node.request("key", Request::new("early")).await.unwrap();
    assert_eq!(timeout(LIMIT, tells.recv()).await.unwrap(), Some(true));
    let mut writer = |name| response.writer(name).unwrap();
    for mut writer in [writer("unread"), writer("both")] {
        assert_eq!(timeout(LIMIT, writer.broken()).await.unwrap(), Broken::GivenUp);
    }
    for (name, end) in
        [("finished", Ok(None)), ("dropped", Err(Broken::GivenUp)), ("both", Err(Broken::GivenUp))]
    {
        let mut reader = response.reader(name).unwrap();
        assert_eq!(timeout(LIMIT, reader.next()).await.unwrap(), end, "{name}");
    }
    node.close().await.unwrap();
}

/// A partition's handler runs beside its data, and reaches the other partitions.
#[tokio::test]
async fn a_partitions_handler_has_its_data_at_hand() {
    let nodes = three().await;
    for node in &nodes {
        let handler = |incoming: Incoming| async move {
            let partition = incoming.partition().unwrap();
            let count = partition.get("count").await?.map_or(0, |count| count.value.len());
            partition.put("count", vec![b'x'; count + 1]).await?;
            let other = incoming.other_partition("log").unwrap();
            other.put(format!("entry {count}"), incoming.body().clone()).await?;
            let leader = partition.info().await?.leader;
            let here = incoming.node().unwrap().whoami();
            Ok(format!("{} {}", count + 1, leader == Some(here)))
        };
        node.handle("count", handler).unwrap();
    }
    for (n, node) in nodes.iter().cycle().take(9).enumerate() {
        let request = Request::new("count").body("note");
        let response = node.partition("counter").request(request).await.unwrap();
        assert_eq!(response.body, format!("{} true", n + 1));
    }
    let note = nodes[1].partition("log").get("entry 8").await.unwrap().unwrap();
    assert_eq!(note.value, "note");
    close(nodes).await;
}

#[tokio::test]
async fn every_member_can_be_looked_at() {
    let nodes = three().await;
    let info = nodes[0].request_to(nodes[2].whoami(), Request::new("monitoring/info")).await;
    let info = String::from_utf8(info.unwrap().body.to_vec()).unwrap();
    assert!(info.contains(&format!("\"id\":\"{}\",\"name\":\"n3\"", name_of(&nodes[2]))), "{info}");
    let memory = nodes[0].request_to(nodes[0].whoami(), Request::new("monitoring/memory")).await;
    let memory = String::from_utf8(memory.unwrap().body.to_vec()).unwrap();
    assert!(memory.starts_with("{\"resident\":"), "{memory}");

    echo(&nodes);
    let request = Request::new("monitoring/trace").stream("keys", Way::Down);
    let mut trace = nodes[0].request_to(nodes[1].whoami(), request).await.unwrap();
    let mut keys = trace.reader("keys").unwrap();
    let key = key_of(&nodes[1]);
    let seen = async {
        loop {
            nodes[0].request(key.clone(), Request::new("echo")).await.unwrap();
            let next = timeout(Duration::from_millis(20), keys.next()).await;
            if let Ok(lines) = next {
                return lines.unwrap().unwrap();
            }
        }
    };
    let lines = timeout(LIMIT, seen).await.expect("the key is shown");
    let lines = String::from_utf8(lines.to_vec()).unwrap();
    assert!(lines.starts_with(&format!("{{\"key\":\"{key}\",\"slot\":")), "{lines}");
    close(nodes).await;
}

/// Many at once, from all to all: each gets its own answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_many_gets_its_own_answer() {
    let nodes = three().await;
    echo(&nodes);
    let mut calls = Vec::new();
    for n in 0..3000_usize {
        let node = nodes[n % 3].clone();
        calls.push(tokio::spawn(async move {
            let body = format!("body {n}");
            let request = Request::new("echo").body(body.clone());
            let response = node.request(format!("key {n}"), request).await.unwrap();
            assert_eq!(response.body, body);
        }));
    }
    for call in calls {
        timeout(LIMIT, call).await.unwrap().unwrap();
    }
    close(nodes).await;
}

/// Requests and streams over TLS: whole, in order, longer than a window and than many records.
#[tokio::test]
async fn bodies_and_streams_go_over_tls() {
    let authority = Authority::new();
    let keys = |o: &Options| Some(authority.keys(Role::Member, &o.name));
    let options = members(3, None).into_iter().map(|o| Options { keys: keys(&o), ..o });
    let nodes = open_all(&options.collect::<Vec<_>>()).await;
    linked(&nodes).await;
    echo(&nodes);
    shout(&nodes[0]);
    let key = key_of(&nodes[0]);
    let body = Bytes::from(bytes(3_000_000));
    let response = nodes[1].request(key.clone(), Request::new("echo").body(body.clone())).await;
    assert!(response.unwrap().body == body);
    let request = Request::new("shout").stream("s", Way::Both);
    let mut call = nodes[2].call(key, request).unwrap();
    let (reader, mut writer) = (call.reader("s").unwrap(), call.writer("s").unwrap());
    let writing = tokio::spawn(async move {
        writer.write(body).await?;
        writer.finish().await
    });
    assert!(read_all(reader).await.unwrap() == bytes(3_000_000).to_ascii_uppercase());
    writing.await.unwrap().unwrap();
    assert_eq!(call.response().await.unwrap().body, "3000000");
    close(nodes).await;
}
