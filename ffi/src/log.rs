//! Where a node logs, for its host: lines to a function of the host's.
//!
//! Invariants:
//! 1. The host's `say` is not called once `free` is, and no call of it is under way then. `free` is called once.
//! 2. In a child of fork() neither is called.
//! 3. No lock is held while one of them runs, and a line that would be said inside of a callback is dropped.
//!
//! A [`Log`] belongs to the handle of its node, and ends with that, whatever of the node still runs: a thread that hangs on
//! a disk, a start that nobody waits for any more. Those go on in silence.

use std::fmt::{self, Debug, Write};
use std::sync::{Arc, Condvar, Mutex, OnceLock};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::NoSubscriber;
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};

use crate::fault::Fault;
use crate::guard;
use crate::sync::{lock, wait};
use crate::types::{RING_LOG_DEBUG, RING_LOG_ERROR, RING_LOG_INFO, RING_LOG_TRACE, RING_LOG_WARN};

/// The host's function for lines, each with its level.
pub(crate) type Say = Box<dyn Fn(i32, &str) + Send + Sync>;
/// The host's function that is told that there is no more to come.
pub(crate) type Free = Box<dyn FnOnce() + Send>;

/// A node's log. Dropped, it ends.
pub(crate) struct Log {
    host: Arc<Host>,
    free: Option<Free>,
}

/// The host, as far as it listens.
struct Host {
    forks: u32,
    say: Option<Say>,
    calls: Mutex<Calls>,
    /// No call is under way any more.
    quiet: Condvar,
}

#[derive(Default)]
struct Calls {
    under_way: usize,
    ended: bool,
}

impl Log {
    pub(crate) fn new(say: Option<Say>, free: Option<Free>) -> Self {
        let (calls, quiet) = (Mutex::default(), Condvar::new());
        Self { host: Arc::new(Host { forks: guard::forks(), say, calls, quiet }), free }
    }

    /// What the node is to log to: lines up to this level, 0: up to RING_LOG_INFO. None: the host does not listen.
    pub(crate) fn dispatch(&self, level: i32) -> Result<Option<Dispatch>, Fault> {
        let most = match level {
            0 | RING_LOG_INFO => LevelFilter::INFO,
            RING_LOG_ERROR => LevelFilter::ERROR,
            RING_LOG_WARN => LevelFilter::WARN,
            RING_LOG_DEBUG => LevelFilter::DEBUG,
            RING_LOG_TRACE => LevelFilter::TRACE,
            _ => {
                return Err(Fault::invalid(format!(
                    "log_level: {level}; RING_LOG_ERROR to _TRACE"
                )));
            }
        };
        // Before the first that listens: while `tracing` knows of one subscriber, a thread that is not its own silences for
        // ever each line that it reaches first. Libring sees to that as well, but later.
        static SECOND: OnceLock<Dispatch> = OnceLock::new();
        SECOND.get_or_init(|| Dispatch::new(NoSubscriber::default()));
        let host = Arc::clone(&self.host);
        Ok(self.host.say.as_ref().map(|_| Dispatch::new(Lines { host, most })))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if guard::forks() != self.host.forks {
            return;
        }
        self.host.end();
        if let Some(free) = self.free.take() {
            guard::callback(free);
        }
    }
}

impl Host {
    fn say(&self, level: i32, line: &str) {
        let Some(say) = &self.say else { return };
        if guard::in_callback() || guard::forks() != self.forks {
            return;
        }
        let mut calls = lock(&self.calls);
        if calls.ended {
            return;
        }
        calls.under_way += 1;
        drop(calls);
        guard::callback(|| say(level, line));
        let mut calls = lock(&self.calls);
        calls.under_way -= 1;
        if calls.ended && calls.under_way == 0 {
            self.quiet.notify_all();
        }
    }

    /// Says nothing more; waits for calls under way. The caller is in none: who is has no business with the node.
    fn end(&self) {
        let mut calls = lock(&self.calls);
        calls.ended = true;
        while calls.under_way > 0 {
            calls = wait(&self.quiet, calls);
        }
    }
}

/// Makes a line of each event. The library has no spans.
struct Lines {
    host: Arc<Host>,
    most: LevelFilter,
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.most
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.most)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.host.say(code_of(*event.metadata().level()), &line_of(event));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn code_of(level: Level) -> i32 {
    match level {
        Level::ERROR => RING_LOG_ERROR,
        Level::WARN => RING_LOG_WARN,
        Level::INFO => RING_LOG_INFO,
        Level::DEBUG => RING_LOG_DEBUG,
        Level::TRACE => RING_LOG_TRACE,
    }
}

/// An event in one line: what it says, its fields, where in the library.
fn line_of(event: &Event<'_>) -> String {
    let place = event.metadata().target();
    let around = place.len() + ELLIPSIS.len_utf8() + " []".len();
    let mut line =
        Line { text: String::new(), most: LINE_BYTES.saturating_sub(around), is_full: false };
    event.record(&mut Message(&mut line));
    event.record(&mut Fields(&mut line));
    let mut text = line.text;
    text.extend([" [", place, "]"]);
    text
}

/// A line that is being written: without control characters, which could come from peers, and bounded.
struct Line {
    text: String,
    /// So many bytes it may have, and then an ellipsis.
    most: usize,
    is_full: bool,
}

impl Line {
    fn push(&mut self, char: char) -> fmt::Result {
        if self.is_full {
            return Err(fmt::Error);
        }
        if self.text.len() + char.len_utf8() > self.most {
            self.is_full = true;
            self.text.push(ELLIPSIS);
            return Err(fmt::Error);
        }
        self.text.push(char);
        Ok(())
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            if is_hidden(char) {
                char.escape_debug().try_for_each(|escaped| self.push(escaped))?;
            } else {
                self.push(char)?;
            }
        }
        Ok(())
    }
}

/// Whether a character would end the line, or show it other than it is.
fn is_hidden(char: char) -> bool {
    let changes_direction = matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    char.is_control() || changes_direction || matches!(char, '\u{2028}' | '\u{2029}')
}

/// Writes what an event says. A line that is full takes no more: its end is not written.
struct Message<'a>(&'a mut Line);

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == MESSAGE {
            let _: fmt::Result = write!(self.0, "{value:?}");
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == MESSAGE {
            let _: fmt::Result = self.0.write_str(value);
        }
    }
}

/// Writes the rest of an event, likewise.
struct Fields<'a>(&'a mut Line);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() != MESSAGE {
            let _: fmt::Result = write!(self.0, " {}={value:?}", field.name());
        }
    }
}

const MESSAGE: &str = "message";
const ELLIPSIS: char = '\u{2026}';
/// No line is longer.
const LINE_BYTES: usize = 4096;

#[cfg(test)]
mod tests;
