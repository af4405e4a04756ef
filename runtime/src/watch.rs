//! Watches: what changes in a partition, as it happens.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use ring_core::ids::Revision;
use ring_core::io::{Action, Failure, Reply};
use ring_core::shard::command::Changed;
use tokio::sync::oneshot;

use crate::error::Error;
use crate::partition::{Partition, wrong};
use crate::shared::Answer;

/// The changes of a range of keys, in the order in which they were committed, each once and none left out. A future of
/// [`Watch::next`] may be dropped and called again without loss.
///
/// A replica remembers the changes of the last minutes, up to some bytes ([`crate::Limits::history_time`],
/// [`crate::Limits::history_bytes`]), and forgets them when it is started anew. A watch that has fallen behind, or that
/// goes on at a replica which does not remember far enough, ends with [`WatchError::Compacted`]: scan the range, and
/// watch after the scan's revision.
#[derive(Debug)]
pub struct Watch {
    partition: Partition,
    from: Bytes,
    to: Option<Bytes>,
    /// Everything up to here was fetched.
    fetched: Revision,
    /// Everything up to here was given out.
    seen: Revision,
    /// Fetched and not given out.
    page: VecDeque<Changed>,
    /// The page that was asked for.
    waiting: Option<oneshot::Receiver<Answer>>,
}

/// A watch cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchError {
    /// Some of the changes are forgotten.
    Compacted {
        /// The first revision that the asked replica remembers.
        first: Revision,
    },
    /// Nobody could be asked. [`Watch::next`] tries again, and nothing is lost.
    Call(Error),
}

impl fmt::Display for WatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compacted { first } => write!(
                f,
                "changes before revision {first} are forgotten: scan the range, and watch after the scan's revision"
            ),
            Self::Call(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for WatchError {}

impl Watch {
    pub(crate) fn new(
        partition: Partition,
        from: Bytes,
        to: Option<Bytes>,
        revision: Revision,
    ) -> Self {
        let (fetched, seen) = (revision, revision);
        Self { partition, from, to, fetched, seen, page: VecDeque::new(), waiting: None }
    }

    /// Everything up to this revision was given out: a watch that is to go on where this one is begins after it.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.seen
    }

    /// The next change; waits for it.
    ///
    /// # Errors
    /// See [`WatchError`].
    pub async fn next(&mut self) -> Result<Changed, WatchError> {
        loop {
            if let Some(changed) = self.page.pop_front() {
                // A revision may hold several changes: it is seen with the last.
                match self.page.front() {
                    Some(next) if next.revision == changed.revision => {}
                    Some(_) => self.seen = changed.revision,
                    None => self.seen = self.fetched,
                }
                return Ok(changed);
            }
            self.fetch(Some(self.fetched)).await?;
        }
    }

    /// What was committed before this call is not told.
    pub(crate) async fn begin_now(&mut self) -> Result<(), Error> {
        match self.fetch(None).await {
            Ok(()) => Ok(()),
            Err(WatchError::Call(error)) => Err(error),
            // Nothing of before was asked for.
            Err(WatchError::Compacted { first: _ }) => Err(Failure::Malformed.into()),
        }
    }

    async fn fetch(&mut self, after: Option<Revision>) -> Result<(), WatchError> {
        if self.waiting.is_none() {
            let (from, to) = (self.from.clone(), self.to.clone());
            let action = Action::Watch { from, to, after, limit: PAGE };
            self.waiting = Some(self.partition.ask(action).map_err(WatchError::Call)?);
        }
        let waiting = self.waiting.as_mut().expect("set above");
        let answer = waiting.await.unwrap_or(Err(Failure::Closed { maybe: false }.into()));
        self.waiting = None;
        match answer {
            Ok(Reply::Changes { changes, upto }) => {
                self.fetched = upto;
                if changes.is_empty() {
                    self.seen = upto;
                }
                self.page.extend(changes);
                Ok(())
            }
            Ok(Reply::Compacted { first }) => Err(WatchError::Compacted { first }),
            Ok(other) => wrong(&other).map_err(WatchError::Call),
            Err(error) => Err(WatchError::Call(error)),
        }
    }
}

/// Most changes in one answer.
const PAGE: u32 = 1024;
