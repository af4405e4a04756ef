//! Parts of the library for its own benchmarks, which cannot reach them otherwise. Nobody else's: not in the
//! documentation, without any promise.

use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use ring_core::ids::LogSeq;
use ring_core::io::Input;
use ring_core::storage::record::Batch;
use ring_core::storage::{self, Recovered};

use crate::directory::Segments;
use crate::error::OpenError;
use crate::log::{self, Files, LogTask, Writer};
use crate::mailbox::{Mailbox, Taken};
use crate::options::Options;
use crate::shared::{Item, Shared};

/// The log thread of a node without the node. Dropped, it ends.
pub struct LogThread {
    shared: Arc<Shared>,
    tasks: Arc<Mailbox<LogTask>>,
    thread: Option<JoinHandle<()>>,
    taken: Vec<Item>,
}

impl LogThread {
    /// Starts it on a directory without a log.
    #[must_use]
    pub fn start(dir: &Path) -> Self {
        let shared = Arc::new(Shared::new(Options::default()));
        let tasks = Arc::new(Mailbox::new());
        let thread = {
            let (shared, tasks, files) = (Arc::clone(&shared), Arc::clone(&tasks), Files::of(dir));
            thread::spawn(move || log::run(Writer::new(files), &tasks, &shared))
        };
        Self { shared, tasks, thread: Some(thread), taken: Vec::new() }
    }

    /// Hands it a batch, as the core thread does.
    pub fn append(&self, batch: Batch) {
        self.tasks.push_all(&mut vec![LogTask::Append(batch)]);
    }

    /// Waits until it says how far the log is durable.
    ///
    /// # Errors
    /// The log has failed; says why.
    pub fn stored(&mut self) -> Result<LogSeq, String> {
        let mut stored = None;
        while stored.is_none() {
            if self.shared.take(&mut self.taken, None) == Taken::Closed {
                return Err(String::from("the log thread has ended"));
            }
            for item in self.taken.drain(..) {
                match item {
                    Item::Stored { upto } => stored = Some(upto),
                    Item::Input(Input::LogFailed { problem }) => return Err(problem),
                    // Nothing else reaches a node that is only its log.
                    Item::Connected { .. }
                    | Item::Messages { .. }
                    | Item::Disconnected { .. }
                    | Item::Store(_)
                    | Item::Input(_)
                    | Item::Track(_)
                    | Item::Untrack(_)
                    | Item::Datagrams(_)
                    | Item::Call { .. }
                    | Item::Join { .. }
                    | Item::Measure(_)
                    | Item::Talk(_) => {}
                }
            }
        }
        stored.ok_or_else(|| String::from("nothing was stored"))
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        self.tasks.close();
        if let Some(thread) = self.thread.take() {
            // It catches its own panics.
            drop(thread.join());
        }
    }
}

/// Reads a log, as a node that opens does first: what comes of it is all that Raft needs.
///
/// # Errors
/// It cannot be read or trusted.
pub fn recover(log: &Path) -> Result<Recovered, OpenError> {
    storage::recover(&mut Segments::of(log)?)
        .map_err(|source| OpenError::Log { dir: log.to_path_buf(), source })
}
