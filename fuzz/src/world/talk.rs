//! What the harness knows of requests and streams, and the rules that the member keeps when it tells of them:
//!
//! 1. A request of its application ends once.
//! 2. A request of a peer is handed out once, and never more at a time than the limit.
//! 3. A stream's bytes come in order, none twice and none left out; nothing comes after its end.
//! 4. A stream's credit never falls, and a write that it allows is accepted.

use std::collections::BTreeMap;

use bytes::Bytes;
use ring_core::ids::{ConnId, RequestId, len_u64};
use ring_core::request::message::{Part, StreamOf};
use ring_core::request::{Effect, Gone, Half, HandleId, Side, StreamId};

/// Requests and streams of one member in one start, and what its peers have said of them.
#[derive(Clone, Debug, Default)]
pub struct Talk {
    /// Requests of its application that have not ended, with the number of their streams.
    asked: BTreeMap<RequestId, usize>,
    /// Requests that its application handles, with the number of their streams.
    handles: BTreeMap<HandleId, usize>,
    /// The greatest that was handed out.
    handled: Option<HandleId>,
    /// Streams that the application may use, or that have ended.
    streams: Vec<StreamId>,
    reads: BTreeMap<StreamId, Read>,
    writes: BTreeMap<StreamId, Write>,
    /// The place of each connection's next part.
    places: BTreeMap<ConnId, u64>,
    /// Bytes that peers have said of each stream.
    said: BTreeMap<(ConnId, bool, u64, u16), u64>,
    /// The number of the last request that a peer has asked.
    asked_by_peers: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Read {
    came: u64,
    taken: u64,
    has_ended: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Write {
    sent: u64,
    credit: u64,
}

/// So many streams are used again.
const STREAMS_KEPT: usize = 32;

/// The bytes of any stream from an offset on: each tells its offset, so that order and losses show.
#[must_use]
pub fn stream_bytes(from: u64, len: usize) -> Bytes {
    let offsets = (0..len_u64(len)).map(|index| from.wrapping_add(index));
    offsets.map(|offset| offset.to_le_bytes()[0]).collect()
}

impl Talk {
    /// The member starts again: its application knows of nothing.
    pub(super) fn on_restart(&mut self) {
        let places = std::mem::take(&mut self.places);
        *self = Self { places, asked_by_peers: self.asked_by_peers, ..Self::default() };
    }

    /// Requests of the application that have not ended.
    #[must_use]
    pub fn asked(&self) -> Vec<RequestId> {
        self.asked.keys().copied().collect()
    }

    /// Requests that the application handles.
    #[must_use]
    pub fn handles(&self) -> Vec<HandleId> {
        self.handles.keys().copied().collect()
    }

    /// Streams that the application may use, or that have ended.
    #[must_use]
    pub fn streams(&self) -> &[StreamId] {
        &self.streams
    }

    /// The number of the last request that a peer has asked.
    #[must_use]
    pub fn asked_by_peers(&self) -> u64 {
        self.asked_by_peers
    }

    /// The place of the next part that a peer says on a connection.
    #[must_use]
    pub fn place(&self, conn: ConnId) -> u64 {
        self.places.get(&conn).copied().unwrap_or_default()
    }

    /// Bytes that the peer on a connection has said of a stream.
    #[must_use]
    pub fn said(&self, conn: ConnId, of: StreamOf) -> u64 {
        self.said.get(&(conn, of.by_caller, of.number, of.index)).copied().unwrap_or_default()
    }

    /// A peer says a part at this place.
    pub fn say(&mut self, conn: ConnId, at: u64, part: &Part) {
        let place = self.places.entry(conn).or_default();
        if at < *place {
            return; // the member takes no place twice
        }
        *place = at.saturating_add(part.weight());
        match part {
            Part::Ask(ask) => self.asked_by_peers = ask.number,
            Part::Data { of, offset, data, .. } => {
                let end = offset.saturating_add(len_u64(data.len()));
                self.said.insert((conn, of.by_caller, of.number, of.index), end);
            }
            Part::Answer { .. } | Part::Cancel { .. } | Part::Abort { .. } | Part::Stop { .. } => {}
        }
    }

    /// The application's request was accepted.
    pub(super) fn on_asked(&mut self, request: RequestId, streams: usize) {
        self.asked.insert(request, streams);
        self.begin(Side::Caller(request), 0, streams);
    }

    /// The application answers what it handles; `streams`, if this is a response, and on its way.
    pub(super) fn on_responded(&mut self, handle: HandleId, streams: Option<usize>) {
        let first = self.handles.remove(&handle);
        match (first, streams) {
            (Some(first), Some(count)) => self.begin(Side::Handler(handle), first, count),
            (None, Some(_)) => panic!("2: {handle:?} is answered twice, or after its deadline"),
            (_, None) => {}
        }
    }

    /// How much the application has written to a stream.
    pub(super) fn written(&self, stream: StreamId) -> u64 {
        self.writes.get(&stream).map_or(0, |write| write.sent)
    }

    /// The application has written so much more.
    pub(super) fn on_written(&mut self, stream: StreamId, len: usize, is_accepted: bool) {
        let write = self.writes.entry(stream).or_default();
        let sent = write.sent + len_u64(len);
        let is_allowed = write.credit > 0 && sent <= write.credit;
        assert!(
            is_accepted || !is_allowed,
            "4: a write within the credit of {stream:?} is refused"
        );
        if is_accepted {
            write.sent = sent;
        }
    }

    /// The application takes so many bytes of a stream, at most what has come.
    pub(super) fn take(&mut self, stream: StreamId, bytes: u64) -> u64 {
        let Some(read) = self.reads.get_mut(&stream) else { return 0 };
        let bytes = bytes.min(read.came - read.taken);
        read.taken += bytes;
        bytes
    }

    /// The application gives a direction of a stream up.
    pub(super) fn on_given_up(&mut self, stream: StreamId, half: Half) {
        if half == Half::Read {
            self.reads.entry(stream).or_default().has_ended = true;
        }
    }

    /// What the member tells of requests; `handlers` is its limit.
    pub(super) fn on_effect(&mut self, effect: Effect, handlers: usize) {
        match effect {
            Effect::Handle(handle) => {
                let (id, count) = (handle.handle, handle.streams.len());
                assert!(self.handled < Some(id), "2: {id:?} is handed out again");
                self.handled = Some(id);
                self.handles.insert(id, count);
                assert!(self.handles.len() <= handlers, "2: {} handlers", self.handles.len());
                self.begin(Side::Handler(id), 0, count);
            }
            Effect::Gone { handle, why: Gone::Late } => {
                self.handles.remove(&handle);
            }
            // It may be answered, in vain.
            Effect::Gone { handle, why: Gone::Caller } => {
                assert!(self.handles.contains_key(&handle), "2: {handle:?} is gone after its end");
            }
            Effect::Answered { request, result } => {
                let first = self.asked.remove(&request);
                let Some(first) = first else { panic!("1: {request} ends twice") };
                if let Ok(response) = result {
                    self.begin(Side::Caller(request), first, response.streams.len());
                }
            }
            Effect::Data { stream, data, last } => self.on_data(stream, &data, last),
            Effect::Credit { stream, upto } => {
                let write = self.writes.entry(stream).or_default();
                assert!(write.credit <= upto, "4: the credit of {stream:?} falls to {upto}");
                write.credit = upto;
            }
            Effect::Broken { stream, half: Half::Read, .. } => {
                let read = self.reads.entry(stream).or_default();
                assert!(!read.has_ended, "3: {stream:?} ends twice");
                read.has_ended = true;
            }
            Effect::Broken { half: Half::Write, .. } => {}
        }
    }

    fn on_data(&mut self, stream: StreamId, data: &Bytes, last: bool) {
        let read = self.reads.entry(stream).or_default();
        assert!(!read.has_ended, "3: {stream:?} has ended, and goes on");
        let is_next = *data == stream_bytes(read.came, data.len());
        assert!(is_next, "3: {stream:?} has lost bytes or repeats some at {}", read.came);
        read.came += len_u64(data.len());
        read.has_ended = last;
    }

    fn begin(&mut self, side: Side, first: usize, count: usize) {
        let indices = (first..first + count).filter_map(|index| u16::try_from(index).ok());
        self.streams.extend(indices.map(|index| StreamId { side, index }));
        let least = self.streams.len().saturating_sub(STREAMS_KEPT);
        self.streams.drain(..least);
    }
}
