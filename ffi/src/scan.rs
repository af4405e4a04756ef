//! The pages of a scan and of a watch: what to ask for next, and what came.

use bytes::{BufMut, Bytes, BytesMut};
use libring::{Action, Changed, Consistency, CursorId, Error, Failure, Reply, Revision};
use ring_core::ids::len_u64;

use crate::fault::Fault;
use crate::queue::Event;
use crate::status;
use crate::types::{
    RING_EV_CHANGED, RING_EV_DONE, RING_EV_ITEM, RING_EV_REMOVED, RING_EV_STALENESS,
    RING_EV_WATCHING,
};

/// Where something stands that is told page by page.
#[derive(Clone, Debug)]
pub(crate) enum Paging {
    Scan(Pages),
    Watch(Changes),
}

impl Paging {
    /// Asks for the next page.
    pub(crate) fn ask(&self) -> Action {
        match self {
            Self::Scan(pages) => pages.ask(),
            Self::Watch(changes) => changes.ask(),
        }
    }

    /// Lets go of what it holds elsewhere, if it does.
    pub(crate) fn close(&mut self) -> Option<Action> {
        match self {
            Self::Scan(pages) => pages.close(),
            Self::Watch(_) => None,
        }
    }

    /// Takes a page: it becomes events in `out`, and DONE if it was the last. False: it was.
    pub(crate) fn on_answer(
        &mut self,
        tag: u64,
        id: u64,
        answer: Result<Reply, Error>,
        out: &mut Vec<Event>,
    ) -> bool {
        match self {
            Self::Scan(pages) => pages.on_answer(tag, id, answer, out),
            Self::Watch(changes) => changes.on_answer(tag, id, answer, out),
        }
    }

    /// Its DONE, made for another reason than a page, with what is said of each end.
    pub(crate) fn ended(&self, event: Event) -> Event {
        match self {
            Self::Scan(_) => event,
            Self::Watch(changes) => changes.ended(event),
        }
    }
}

/// Where a watch stands.
#[derive(Clone, Debug)]
pub(crate) struct Changes {
    from: Bytes,
    to: Option<Bytes>,
    /// Everything up to here was told; none: it begins with the present.
    after: Option<Revision>,
    /// The host knows that it stands.
    stands: bool,
}

impl Changes {
    pub(crate) fn new(from: Bytes, to: Option<Bytes>, after: Option<Revision>) -> Self {
        Self { from, to, after, stands: false }
    }

    fn ask(&self) -> Action {
        let (from, to) = (self.from.clone(), self.to.clone());
        Action::Watch { from, to, after: self.after, limit: PAGE_CHANGES }
    }

    fn on_answer(
        &mut self,
        tag: u64,
        id: u64,
        answer: Result<Reply, Error>,
        out: &mut Vec<Event>,
    ) -> bool {
        let event = |kind| Event { tag, id, kind, ..Event::default() };
        match answer {
            Ok(Reply::Changes { changes, upto }) => {
                if !std::mem::replace(&mut self.stands, true) {
                    let a = self.after.unwrap_or(upto).0;
                    out.push(Event { a, ..event(RING_EV_WATCHING) });
                }
                self.after = Some(upto);
                out.extend(changes.into_iter().map(|Changed { revision, key, value }| {
                    let (a, b) = (len_u64(key.len()), revision.0);
                    match value {
                        None => Event { a, b, data: key, ..event(RING_EV_REMOVED) },
                        Some(value) => {
                            let data = joined(&key, &value);
                            Event { a, b, data, ..event(RING_EV_CHANGED) }
                        }
                    }
                }));
                true
            }
            Ok(Reply::Compacted { first }) => {
                let text = format!("changes before revision {first} are forgotten");
                let done = failed(tag, id, &Fault::new(status::RING_COMPACTED, text));
                out.push(self.ended(Event { b: first.0, ..done }));
                false
            }
            Ok(_) => {
                out.push(self.ended(failed(tag, id, &Error::Failed(Failure::Malformed).into())));
                false
            }
            Err(error) => {
                out.push(self.ended(failed(tag, id, &error.into())));
                false
            }
        }
    }

    fn ended(&self, event: Event) -> Event {
        Event { a: self.after.map_or(0, |after| after.0), ..event }
    }
}

/// A key and its value, one behind the other.
fn joined(key: &[u8], value: &[u8]) -> Bytes {
    let mut data = BytesMut::with_capacity(key.len() + value.len());
    data.put_slice(key);
    data.put_slice(value);
    data.freeze()
}

/// Where a scan stands.
#[derive(Clone, Debug)]
pub(crate) struct Pages {
    pub(crate) from: Bytes,
    pub(crate) to: Option<Bytes>,
    pub(crate) reverse: bool,
    /// Most keys; none: all.
    pub(crate) limit: Option<u64>,
    pub(crate) consistency: Consistency,
    seen: u64,
    last: Option<Bytes>,
    cursor: Option<CursorId>,
    revision: u64,
    restarts: u32,
}

impl Pages {
    pub(crate) fn new(
        from: Bytes,
        to: Option<Bytes>,
        reverse: bool,
        limit: Option<u64>,
        consistency: Consistency,
    ) -> Self {
        Self {
            from,
            to,
            reverse,
            limit,
            consistency,
            seen: 0,
            last: None,
            cursor: None,
            revision: 0,
            restarts: 0,
        }
    }

    /// Asks for the next page.
    pub(crate) fn ask(&self) -> Action {
        let left = self.limit.map_or(PAGE_KEYS, |limit| limit.saturating_sub(self.seen));
        let limit = u32::try_from(left.min(PAGE_KEYS)).unwrap_or(u32::MAX);
        match self.cursor {
            Some(cursor) => Action::ScanNext { cursor, limit },
            None => Action::Scan {
                from: self.from.clone(),
                to: self.to.clone(),
                reverse: self.reverse,
                limit,
                consistency: self.consistency,
            },
        }
    }

    /// Lets go of the snapshot, if there is one.
    pub(crate) fn close(&mut self) -> Option<Action> {
        self.cursor.take().map(|cursor| Action::ScanClose { cursor })
    }

    /// Takes a page: its keys become events in `out`, and DONE if it was the last. False: it was.
    pub(crate) fn on_answer(
        &mut self,
        tag: u64,
        id: u64,
        answer: Result<Reply, Error>,
        out: &mut Vec<Event>,
    ) -> bool {
        let (page, cursor) = match answer {
            Ok(Reply::Page { page, cursor, age }) => {
                // Of a scan that begins again the last word counts.
                if self.cursor.is_none() && self.consistency == Consistency::Local {
                    let a = crate::op::staleness(age);
                    out.push(Event { tag, id, kind: RING_EV_STALENESS, a, ..Event::default() });
                }
                (page, cursor)
            }
            Ok(_) => {
                out.push(failed(tag, id, &Error::Failed(Failure::Malformed).into()));
                return false;
            }
            Err(Error::Failed(Failure::Interrupted)) if self.restarts() => return true,
            Err(Error::Failed(Failure::Interrupted)) => {
                self.cursor = None;
                let status = status::RING_INTERRUPTED;
                let data = self.resume();
                out.push(Event { tag, id, kind: RING_EV_DONE, status, data, ..Event::default() });
                return false;
            }
            Err(error) => {
                out.push(failed(tag, id, &error.into()));
                return false;
            }
        };
        self.revision = page.revision.0;
        self.last = page.items.last().map(|(key, _, _)| key.clone()).or(self.last.take());
        self.seen += len_u64(page.items.len());
        out.extend(page.items.into_iter().map(|(key, value, revision)| Event {
            tag,
            id,
            kind: RING_EV_ITEM,
            a: len_u64(key.len()),
            b: revision.0,
            data: joined(&key, &value),
            ..Event::default()
        }));
        self.cursor = cursor.filter(|_| page.more);
        let full = self.limit.is_some_and(|limit| self.seen >= limit);
        let more = self.cursor.is_some() && !full;
        if !more {
            let (a, b) = (self.revision, self.seen);
            out.push(Event { tag, id, kind: RING_EV_DONE, a, b, ..Event::default() });
        }
        more
    }

    /// A scan of which nothing was seen begins again, a few times.
    fn restarts(&mut self) -> bool {
        self.restarts += 1;
        let again = self.last.is_none() && self.restarts <= RESTARTS;
        if again {
            self.cursor = None;
        }
        again
    }

    /// Where to scan again from; in reverse: to.
    fn resume(&self) -> Bytes {
        match &self.last {
            None => Bytes::new(),
            Some(last) if self.reverse => last.clone(),
            Some(last) => {
                let mut next = BytesMut::with_capacity(last.len() + 1);
                next.put_slice(last);
                next.put_u8(0); // the least key behind it
                next.freeze()
            }
        }
    }
}

/// The end of an operation that did not succeed.
pub(crate) fn failed(tag: u64, id: u64, fault: &Fault) -> Event {
    let data = match &fault.text {
        std::borrow::Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
        std::borrow::Cow::Owned(text) => Bytes::copy_from_slice(text.as_bytes()),
    };
    Event { tag, id, kind: RING_EV_DONE, status: fault.code, data, ..Event::default() }
}

/// Most keys on a page; a page has 1 MiB at most too.
const PAGE_KEYS: u64 = 1024;
const RESTARTS: u32 = 3;
/// Most changes on a page; a page has 1 MiB at most too.
const PAGE_CHANGES: u32 = 1024;

#[cfg(test)]
mod tests;
