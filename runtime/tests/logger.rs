//! Nodes with a logger of their own: each is heard there, and nowhere else.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fmt::{Debug, Write as _};
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use common::quick;
use libring::{Action, Bytes, Data, Dispatch, Node, Options};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};

/// Keeps what it hears of the library.
#[derive(Clone, Default)]
struct Heard {
    lines: Arc<(Mutex<Vec<String>>, Condvar)>,
    /// Called whenever something is heard.
    calls: Arc<Mutex<Option<Node>>>,
}

impl Heard {
    fn dispatch(&self) -> Dispatch {
        Dispatch::new(self.clone())
    }

    fn lines(&self, of: &str) -> Vec<String> {
        let lines = self.lines.0.lock().unwrap();
        lines.iter().filter(|line| line.starts_with(of)).cloned().collect()
    }

    /// Waits for a line that begins so.
    fn wait(&self, of: &str) {
        let (lines, came) = &*self.lines;
        let is_there = |lines: &mut Vec<String>| !lines.iter().any(|line| line.starts_with(of));
        let limit = Duration::from_secs(30);
        let (lines, late) =
            came.wait_timeout_while(lines.lock().unwrap(), limit, is_there).unwrap();
        assert!(!late.timed_out(), "{of} is not in {lines:#?}");
    }
}

impl Subscriber for Heard {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("libring")
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        self.lines.0.lock().unwrap().push(line.message + &line.fields);
        self.lines.1.notify_all();
        if let Some(node) = &*self.calls.lock().unwrap() {
            node.submit("p", put(), None, |_, _| {}).unwrap();
        }
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            write!(self.message, "{value:?}").unwrap();
        } else {
            write!(self.fields, " {}={value:?}", field.name()).unwrap();
        }
    }
}

fn options(name: &str, logger: Option<Dispatch>) -> Options {
    Options { name: name.into(), data: Data::Memory, logger, ..quick() }
}

#[test]
fn each_node_is_heard_where_it_was_told_to_log() {
    let (global, one, two, caller) =
        (Heard::default(), Heard::default(), Heard::default(), Heard::default());
    tracing::dispatcher::set_global_default(global.dispatch()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let open = |options| runtime.block_on(Node::open(options)).unwrap();
    let first = open(Options {
        data: Data::Dir(dir.path().to_path_buf()),
        listen: Some("127.0.0.1:0".into()),
        ..options("one", Some(one.dispatch()))
    });
    let second = open(options("two", Some(two.dispatch())));
    let third = open(options("three", None));

    // The log's thread, and those of the sockets.
    one.wait("log segment opened");
    TcpStream::connect(first.address().unwrap()).unwrap().write_all(&[0xff; 64]).unwrap();
    one.wait("closed: it sent what is no message");
    // The threads of a caller, which work for the node: what is said meanwhile is the node's, also inside of a subscriber.
    let refused = || runtime.block_on(first.tell_to_leave(first.whoami(), false)).unwrap();
    tracing::dispatcher::with_default(&caller.dispatch(), || {
        refused();
        first.submit("p", put(), None, |_, _| {}).unwrap();
    });
    one.wait("refused by the directory");
    *two.calls.lock().unwrap() = Some(first.clone());
    runtime.block_on(second.tell_to_leave(second.whoami(), false)).unwrap();
    two.wait("refused by the directory");
    runtime.block_on(second.partition("p").put("k", "v")).unwrap();
    *two.calls.lock().unwrap() = None;

    for node in [first, second, third] {
        runtime.block_on(node.close()).unwrap();
    }
    for (heard, name) in [(&one, "one"), (&two, "two"), (&global, "three")] {
        let started = heard.lines("started");
        assert!(
            started.len() == 1 && started[0].contains(&format!("name=\"{name}\"")),
            "{started:?}"
        );
        assert_eq!(heard.lines("up").len(), 1, "{name}");
        assert_eq!(heard.lines("closed").len(), if name == "one" { 2 } else { 1 }, "{name}");
    }
    assert_eq!(caller.lines(""), [""; 0]);
    assert_eq!(global.lines("refused"), [""; 0]);
}

fn put() -> Action {
    Action::Put { key: Bytes::from("k"), value: Bytes::from("v") }
}
