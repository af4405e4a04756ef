//! Partitions: replicated maps of keys to values.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ring_core::ids::{CursorId, GroupId, LogIndex, MemberId, Revision, Term, len_u64};
use ring_core::io::{Action, Consistency, Failure, Refused, Reply};
use ring_core::shard::command::{Change, Expect};
use tokio::sync::oneshot;

use crate::error::{Error, ScanError};
use crate::node::Inner;
use crate::shared::Answer;
use crate::watch::Watch;

/// A partition: a replicated map of keys to values, both byte strings, ordered by key. Cheap to
/// clone; the node stays up while there is one.
///
/// A partition exists as soon as something is written to it. All calls are linearizable unless they
/// say otherwise, go through any member or client, and end within their deadline. Errors are those
/// of [`Error`]; after one whose [`Error::is_outcome_unknown`] is true a change may have happened,
/// after any other it did not.
#[derive(Clone, Debug)]
pub struct Partition {
    node: Arc<Inner>,
    name: Arc<str>,
    deadline: Duration,
}

/// A key's value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Value {
    /// The value.
    pub value: Bytes,
    /// When it last changed: rises with each change in the partition's shard.
    pub revision: Revision,
}

/// A key's value as one replica has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Local {
    /// The value; none: no such key.
    pub value: Option<Value>,
    /// How stale it can be, at most: every write that was acknowledged longer than this before the
    /// answer came is seen. It is the time since the replica last proved to its leader's majority
    /// that it lacks nothing, so it grows while the replica is cut off. None: it has not done so
    /// since it was started.
    pub staleness: Option<Duration>,
}

/// How a compare-and-set ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Compared {
    /// Whether the key was as expected and is now set.
    pub swapped: bool,
    /// The key's revision now; 0 when it does not exist.
    pub revision: Revision,
}

/// Numbers about a partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Info {
    /// The shard that holds it.
    pub shard: GroupId,
    /// The members that hold replicas of the shard.
    pub replicas: Vec<MemberId>,
    /// The shard's leader, as far as known.
    pub leader: Option<MemberId>,
    /// Keys in the partition.
    pub keys: u64,
    /// Bytes of keys and values in it.
    pub bytes: u64,
    /// The revision of the shard's last change.
    pub revision: Revision,
    /// The last entry of the shard's log that the asked replica had applied...
    pub applied: LogIndex,
    /// ... and its term.
    pub applied_term: Term,
}

/// A key that a scan has found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Item {
    /// The key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// When it last changed.
    pub revision: Revision,
}

impl Partition {
    pub(crate) fn new(node: Arc<Inner>, name: &str) -> Self {
        let deadline = node.shared().options.deadline;
        Self { node, name: name.into(), deadline }
    }

    /// The same partition, whose calls wait this long.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// How long its calls wait.
    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    pub(crate) fn shared(&self) -> &Arc<crate::shared::Shared> {
        self.node.shared()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sets a key; says at which revision.
    ///
    /// # Errors
    /// See [`Partition`].
    pub async fn put(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<Revision, Error> {
        let (key, value) = (key.into(), value.into());
        let reply = self.call(Action::Put { key, value }).await?;
        let Reply::Written { revision } = reply else {
            return wrong(&reply);
        };
        Ok(revision)
    }

    /// The value of a key; none: no such key.
    ///
    /// # Errors
    /// See [`Partition`].
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Value>, Error> {
        let action = Action::Get { key: key.into(), consistency: Consistency::Linearizable };
        let reply = self.call(action).await?;
        let Reply::Value(found) = reply else {
            return wrong(&reply);
        };
        Ok(found.map(|(value, revision)| Value { value, revision }))
    }

    /// The value of a key as some replica has it, this member's own if it has one: it may be stale,
    /// says how stale, and needs no majority.
    ///
    /// # Errors
    /// See [`Partition`].
    pub async fn get_local(&self, key: impl Into<Bytes>) -> Result<Local, Error> {
        let action = Action::Get { key: key.into(), consistency: Consistency::Local };
        let reply = self.call(action).await?;
        let Reply::Local { found, age } = reply else {
            return wrong(&reply);
        };
        let value = found.map(|(value, revision)| Value { value, revision });
        Ok(Local { value, staleness: age })
    }

    /// Removes a key; says whether it existed.
    ///
    /// # Errors
    /// See [`Partition`].
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<bool, Error> {
        let reply = self.call(Action::Delete { key: key.into() }).await?;
        let Reply::Deleted { existed, .. } = reply else {
            return wrong(&reply);
        };
        Ok(existed)
    }

    /// Sets a key, or removes it when `value` is none, if it is as expected.
    ///
    /// # Errors
    /// See [`Partition`]. A key that was not as expected is no error: see [`Compared::swapped`].
    pub async fn compare_and_set(
        &self,
        key: impl Into<Bytes>,
        expect: Expect<Bytes>,
        value: Option<Bytes>,
    ) -> Result<Compared, Error> {
        let action = Action::CompareAndSet { key: key.into(), expect, value };
        let reply = self.call(action).await?;
        let Reply::Compared { swapped, revision } = reply else {
            return wrong(&reply);
        };
        Ok(Compared { swapped, revision })
    }

    /// Makes several changes at one revision: all of them or none. A later one on a key wins.
    ///
    /// # Errors
    /// See [`Partition`].
    pub async fn batch(&self, changes: Vec<Change<Bytes>>) -> Result<Revision, Error> {
        let reply = self.call(Action::Batch { changes }).await?;
        let Reply::Written { revision } = reply else {
            return wrong(&reply);
        };
        Ok(revision)
    }

    /// Reads a range of keys, all from one consistent state of the partition.
    #[must_use]
    pub fn scan(&self, range: Range) -> Scan {
        Scan {
            partition: self.clone(),
            range,
            seen: 0,
            last: None,
            page: VecDeque::new(),
            more: More::Begin,
            waiting: None,
            restarts: 0,
            revision: None,
            staleness: None,
        }
    }

    /// What changes in a range of keys from now on.
    ///
    /// # Errors
    /// See [`Partition`]; [`Refused::Invalid`] for a range that is reversed or limited.
    pub async fn watch(&self, range: Range) -> Result<Watch, Error> {
        let mut watch = self.watch_after(range, Revision(0))?;
        watch.begin_now().await?;
        Ok(watch)
    }

    /// What changes in a range of keys after a revision: that of a scan, or of another watch of this partition.
    ///
    /// # Errors
    /// [`Refused::Invalid`] for a range that is reversed or limited.
    pub fn watch_after(&self, range: Range, revision: Revision) -> Result<Watch, Error> {
        if range.reverse || range.limit.is_some() {
            let what = "a watch of a range that is reversed or limited";
            return Err(Refused::Invalid { what }.into());
        }
        Ok(Watch::new(self.clone(), range.from, range.to, revision))
    }

    /// Numbers about the partition. Its keys are counted: that takes a while on a large one.
    ///
    /// # Errors
    /// See [`Partition`].
    pub async fn info(&self) -> Result<Info, Error> {
        let reply = self.call(Action::Info).await?;
        let Reply::Info { info, replicas, leader } = reply else {
            return wrong(&reply);
        };
        Ok(Info {
            shard: info.group,
            replicas,
            leader,
            keys: info.keys,
            bytes: info.bytes,
            revision: info.revision,
            applied: info.applied,
            applied_term: info.applied_term,
        })
    }

    /// Begins a call.
    pub(crate) fn ask(&self, action: Action) -> Result<oneshot::Receiver<Answer>, Error> {
        self.node.shared().call(&self.name, action, self.deadline)
    }

    async fn call(&self, action: Action) -> Result<Reply, Error> {
        self.node.shared().ask(&self.name, action, self.deadline).await
    }
}

/// Which keys a scan reads. Everything by default.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Range {
    from: Bytes,
    to: Option<Bytes>,
    reverse: bool,
    limit: Option<u64>,
    consistency: Consistency,
}

impl Range {
    /// Every key.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// The keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let from = prefix.into();
        let to = Self::after_prefix(&from);
        Self { from, to, ..Self::default() }
    }

    /// The first key behind all that begin with `prefix`; none: there is no key behind them.
    #[must_use]
    pub fn after_prefix(prefix: &[u8]) -> Option<Bytes> {
        let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
        let mut next = prefix.get(..=last)?.to_vec();
        *next.last_mut()? += 1;
        Some(next.into())
    }

    /// From this key on (inclusive).
    #[must_use]
    pub fn from(self, key: impl Into<Bytes>) -> Self {
        Self { from: key.into(), ..self }
    }

    /// Up to this key (exclusive).
    #[must_use]
    pub fn to(self, key: impl Into<Bytes>) -> Self {
        Self { to: Some(key.into()), ..self }
    }

    /// From the end of the range to its beginning.
    #[must_use]
    pub fn reverse(self) -> Self {
        Self { reverse: true, ..self }
    }

    /// At most so many keys.
    #[must_use]
    pub fn limit(self, keys: u64) -> Self {
        Self { limit: Some(keys), ..self }
    }

    /// How fresh what it reads must be.
    #[must_use]
    pub fn consistency(self, consistency: Consistency) -> Self {
        Self { consistency, ..self }
    }
}

/// A scan under way. Reads page by page; a future of [`Scan::next`] may be dropped and called again
/// without loss.
#[derive(Debug)]
pub struct Scan {
    partition: Partition,
    range: Range,
    /// Keys given out.
    seen: u64,
    /// The last of them.
    last: Option<Bytes>,
    /// Fetched and not given out.
    page: VecDeque<Item>,
    more: More,
    /// The page that was asked for.
    waiting: Option<oneshot::Receiver<Answer>>,
    restarts: u32,
    revision: Option<Revision>,
    staleness: Option<Duration>,
}

/// How a scan goes on behind its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum More {
    Begin,
    Cursor(CursorId),
    End,
}

impl Scan {
    /// The next key; none at the end of the range.
    ///
    /// # Errors
    /// [`ScanError::Interrupted`] when the snapshot is gone; any error ends the scan.
    pub async fn next(&mut self) -> Result<Option<Item>, ScanError> {
        loop {
            if self.range.limit.is_some_and(|limit| self.seen >= limit) {
                self.close();
                return Ok(None);
            }
            if let Some(item) = self.page.pop_front() {
                self.seen += 1;
                self.last = Some(item.key.clone());
                return Ok(Some(item));
            }
            if self.more == More::End {
                return Ok(None);
            }
            if let Err(error) = self.fetch().await {
                self.more = More::End;
                return Err(error);
            }
        }
    }

    /// The revision of the last change that the scan sees; none before the first page.
    #[must_use]
    pub fn revision(&self) -> Option<Revision> {
        self.revision
    }

    /// Of a scan with [`Consistency::Local`], after its first key: how stale it can be, as
    /// [`Local::staleness`]. None: that is not known.
    #[must_use]
    pub fn staleness(&self) -> Option<Duration> {
        self.staleness
    }

    /// Fetches a page.
    async fn fetch(&mut self) -> Result<(), ScanError> {
        if self.waiting.is_none() {
            self.waiting = Some(self.ask().map_err(ScanError::Call)?);
        }
        let waiting = self.waiting.as_mut().expect("set above");
        let answer = waiting.await.unwrap_or(Err(Failure::Closed { maybe: false }.into()));
        self.waiting = None;
        match answer {
            Ok(Reply::Page { page, cursor, age }) => {
                if self.more == More::Begin {
                    self.staleness = age;
                }
                self.revision = Some(page.revision);
                self.more = match cursor {
                    Some(cursor) if page.more => More::Cursor(cursor),
                    Some(_) | None => More::End,
                };
                let items = page.items.into_iter();
                self.page.extend(items.map(|(key, value, revision)| Item { key, value, revision }));
                Ok(())
            }
            Ok(other) => wrong(&other).map_err(ScanError::Call),
            Err(Error::Failed(Failure::Interrupted)) => self.interrupted(),
            Err(error) => Err(ScanError::Call(error)),
        }
    }

    /// A scan of which nothing was seen begins again; any other says where it stopped.
    fn interrupted(&mut self) -> Result<(), ScanError> {
        let Some(last) = &self.last else {
            self.restarts += 1;
            self.more = More::Begin;
            return if self.restarts <= RESTARTS {
                Ok(())
            } else {
                Err(ScanError::Call(Failure::Interrupted.into()))
            };
        };
        let resume = if self.range.reverse {
            last.clone()
        } else {
            // The least key behind the last one.
            let mut next = last.to_vec();
            next.push(0);
            next.into()
        };
        Err(ScanError::Interrupted { resume })
    }

    fn ask(&self) -> Result<oneshot::Receiver<Answer>, Error> {
        let shared = self.partition.node.shared();
        let page = len_u64(shared.options.limits.scan_keys);
        let left = self.range.limit.map_or(page, |limit| page.min(limit - self.seen));
        let limit = u32::try_from(left).unwrap_or(u32::MAX);
        let action = match self.more {
            More::Cursor(cursor) => Action::ScanNext { cursor, limit },
            More::Begin | More::End => Action::Scan {
                from: self.range.from.clone(),
                to: self.range.to.clone(),
                reverse: self.range.reverse,
                limit,
                consistency: self.range.consistency,
            },
        };
        self.partition.ask(action)
    }

    /// Lets go of the snapshot.
    fn close(&mut self) {
        if let More::Cursor(cursor) = std::mem::replace(&mut self.more, More::End) {
            let action = Action::ScanClose { cursor };
            let shared = self.partition.node.shared();
            // Nobody waits for it: if it fails the snapshot goes when it has idled for long enough.
            let _: Result<_, Error> =
                shared.call(&self.partition.name, action, self.partition.deadline);
        }
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        self.close();
    }
}

/// Each action has its own kind of reply. Another one is a defect of ours, or of the member that
/// was asked.
pub(crate) fn wrong<T>(reply: &Reply) -> Result<T, Error> {
    tracing::error!(?reply, "a call got a reply of the wrong kind");
    Err(Failure::Malformed.into())
}

/// A scan of which nothing was seen begins again so often.
const RESTARTS: u32 = 3;

/// Calls that the API makes.
impl crate::shared::Shared {
    /// Makes a call and waits for its answer.
    pub(crate) async fn ask(
        &self,
        partition: &str,
        action: Action,
        deadline: Duration,
    ) -> Result<Reply, Error> {
        let answer = self.call(partition, action, deadline)?;
        answer.await.unwrap_or(Err(Refused::Halted.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        assert_eq!(Range::after_prefix(b"ab"), Some(Bytes::from_static(b"ac")));
        assert_eq!(Range::after_prefix(b"a\xff\xff"), Some(Bytes::from_static(b"b")));
        assert_eq!(Range::after_prefix(b"\xff"), None);
        assert_eq!(Range::after_prefix(b""), None);
    }

    #[test]
    fn a_range_is_built_step_by_step() {
        let range = Range::prefix("a").reverse().limit(3).consistency(Consistency::Local);
        assert_eq!((&*range.from, range.to.as_deref()), (&b"a"[..], Some(&b"b"[..])));
        assert!(range.reverse);
        assert_eq!(range.limit, Some(3));
        assert_eq!(Range::all().from("x").to("y"), Range::default().to("y").from("x"));
    }
}
