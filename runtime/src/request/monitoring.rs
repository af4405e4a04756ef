//! Routes that every member has: what it is, how much memory it takes, which keys it is asked for. Answers are JSON.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use ring_core::ids::len_u64;
use ring_core::ring::slot_of;

use super::{HandleError, Handler, HandlerError, Incoming, Response, StreamWriter};
use crate::node::Inner;

/// Memory of the process: `{"resident":…,"virtual":…}` in bytes.
const MEMORY: &str = "monitoring/memory";
/// The member: id, name, cluster, version of the library, address, number of routes.
const INFO: &str = "monitoring/info";
/// Keys that requests ask for: a line `{"key":…,"slot":…}` each, on the stream `keys`, the newest 100 every 500 ms.
const TRACE: &str = "monitoring/trace";

/// The newest keys that requests asked for.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    readers: AtomicUsize,
    newest: Mutex<Newest>,
}

#[derive(Debug, Default)]
struct Newest {
    /// How many there were before the first of them.
    before: u64,
    keys: VecDeque<Bytes>,
}

impl Trace {
    /// Notes a key, if anybody looks.
    pub(super) fn note(&self, key: &Bytes) {
        if self.readers.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut newest = self.newest.lock();
        newest.keys.push_back(key.clone());
        if newest.keys.len() > TRACED {
            newest.keys.pop_front();
            newest.before += 1;
        }
    }

    /// The newest keys from a place on, as lines; and the place behind them.
    fn lines(&self, from: u64) -> (String, u64) {
        let newest = self.newest.lock();
        let end = newest.before + len_u64(newest.keys.len());
        let skip = from.saturating_sub(newest.before);
        let mut lines = String::new();
        for (place, key) in (newest.before..).zip(&newest.keys) {
            if place >= newest.before + skip {
                let text = String::from_utf8_lossy(key);
                let _: std::fmt::Result =
                    writeln!(lines, "{{\"key\":{},\"slot\":{}}}", quoted(&text), slot_of(key));
            }
        }
        (lines, end)
    }
}

/// Adds the routes.
pub(crate) fn add(inner: &Inner) -> Result<(), HandleError> {
    let routes = &inner.shared.routes;
    let own = || inner.own_executor();
    routes.add(Some(MEMORY), Handler::new(|_| async { memory() }, own()))?;
    routes.add(Some(INFO), Handler::new(|incoming| async move { info(&incoming) }, own()))?;
    routes.add(Some(TRACE), Handler::new(trace, own()))
}

fn memory() -> Result<Response, HandlerError> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let unknown = || HandlerError::new(HandlerError::UNNAMED, "the system says nothing of memory");
    let of = |name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.map(|kib| kib << 10).ok_or_else(unknown)
    };
    let (resident, size) = (of("VmRSS:")?, of("VmSize:")?);
    Ok(Response::new(format!("{{\"resident\":{resident},\"virtual\":{size}}}")))
}

fn info(incoming: &Incoming) -> Result<Response, HandlerError> {
    let gone = || HandlerError::new(HandlerError::DROPPED, "the node is being dropped");
    let node = incoming.node().ok_or_else(gone)?;
    let shared = node.inner.shared();
    let address = node.address().map_or_else(|| "null".to_owned(), |a| quoted(&a.to_string()));
    Ok(Response::new(format!(
        "{{\"id\":{},\"name\":{},\"cluster\":{},\"version\":{},\"address\":{address},\"routes\":{}}}",
        quoted(&node.whoami().to_string()),
        quoted(&shared.options.name),
        quoted(&shared.options.cluster),
        quoted(env!("CARGO_PKG_VERSION")),
        shared.routes.len(),
    )))
}

async fn trace(mut incoming: Incoming) -> Result<Response, HandlerError> {
    let missing =
        || HandlerError::new(HandlerError::UNNAMED, "open the stream \"keys\" to this side");
    let keys = incoming.writer("keys").ok_or_else(missing)?;
    let shared = Arc::clone(&incoming.shared);
    tokio::spawn(async move {
        shared.trace.readers.fetch_add(1, Ordering::Relaxed);
        trace_to(&shared.trace, keys).await;
        shared.trace.readers.fetch_sub(1, Ordering::Relaxed);
    });
    Ok(Response::default())
}

/// Writes until the reader is gone.
async fn trace_to(trace: &Trace, mut keys: StreamWriter) {
    let mut from = trace.lines(0).1;
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = keys.broken() => return,
        }
        let (lines, next) = trace.lines(from);
        from = next;
        if keys.write(lines).await.is_err() {
            return;
        }
    }
}

/// A string of JSON.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            char if u32::from(char) < 0x20 => {
                let _: std::fmt::Result = write!(quoted, "\\u{:04x}", u32::from(char));
            }
            char => quoted.push(char),
        }
    }
    quoted.push('"');
    quoted
}

const TRACED: usize = 100;
const EVERY: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_holds_the_newest_keys_while_somebody_reads() {
        let trace = Trace::default();
        trace.note(&Bytes::from("nobody looks"));
        assert_eq!(trace.lines(0), (String::new(), 0));
        trace.readers.store(1, Ordering::Relaxed);
        for n in 0..150 {
            trace.note(&Bytes::from(format!("k{n}")));
        }
        let (lines, end) = trace.lines(0);
        assert_eq!((lines.lines().count(), end), (100, 150));
        let slot = slot_of(b"k149");
        assert_eq!(trace.lines(149).0, format!("{{\"key\":\"k149\",\"slot\":{slot}}}\n"));
        assert_eq!(trace.lines(150), (String::new(), 150));
    }

    #[test]
    fn strings_are_quoted_as_json_wants_it() {
        assert_eq!(quoted("a\"b\\c\n\u{e9}"), "\"a\\\"b\\\\c\\u000a\u{e9}\"");
    }
}
