use std::sync::Arc;

use parking_lot::Mutex;
use ring_core::ids::ConnId;
use ring_core::wire::Message;
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Metadata, Subscriber};

use crate::net::Link;
use crate::options::{Data, Options};
use crate::shared::{Item, Phase, Shared};
use crate::threads::{Threads, start};

/// Keeps where the library logs, and on which threads.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<(&'static str, String)>>>);

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
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        self.0.lock().push((event.metadata().name(), thread));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn memory(logger: Option<Dispatch>) -> (Arc<Shared>, Threads) {
    let options = Options { data: Data::Memory, shards: 2, logger, ..Options::default() };
    let (shared, threads, _) = start(options, None).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut phase = shared.phase();
    runtime.block_on(async { phase.wait_for(|phase| *phase == Phase::Up).await.unwrap().clone() });
    (shared, threads)
}

/// Two promises that take one subscriber in the whole process: with a second one this could not fail.
///
/// `tracing` remembers of each line whether anybody wants it: who asks first must not answer for the others. And what
/// happens in a turn on another's thread is said, once, by a thread of the node.
#[test]
fn a_line_is_heard_wherever_it_was_reached_first() {
    let heard = Heard::default();
    let (shared, threads) = memory(Some(Dispatch::new(heard.clone())));
    let (_, others) = memory(None);
    assert!(others.stop_here(true)); // the first that is closed
    // It was started on this thread.
    let started = std::mem::take(&mut *heard.0.lock());
    assert!(!started.is_empty());

    let conn = ConnId(u64::MAX);
    let link = Arc::new(Link::new(conn, None));
    shared.put_here(Item::Connected { link, dial: None }, 0).unwrap();
    // Nobody begins with that: it is refused.
    let messages = vec![Message::Beats(Vec::new())];
    shared.put_here(Item::Messages { conn, messages }, 0).unwrap();
    assert!(threads.stop_here(true));
    let heard = heard.0.lock();
    assert_eq!(heard.len(), 2, "refused, closed: {heard:?}");
    assert!(heard.iter().all(|(_, thread)| thread.starts_with("ring-")), "{heard:?}");
}
