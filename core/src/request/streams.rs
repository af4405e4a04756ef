//! The open streams of both sides: what may be written, what has come, how they end.
//!
//! A stream has one or two directions, and each is of its own. Its writer may be [`STREAM_WINDOW`] ahead of its reader, who
//! says how far he has come. A direction ends well with its last byte; or it breaks, and both of its ends are told.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use bytes::Bytes;

use super::message::{Part, StreamOf};
use super::{
    Broken, Effect, Half, Requests, STREAM_CHUNK_MAX, STREAM_WINDOW, Side, StreamId, Via, Way,
};
use crate::ids::{ConnId, len_u64};
use crate::io::Refused;
use crate::wire::Message;

/// All ends of streams on this node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Streams {
    open: BTreeMap<StreamId, Stream>,
}

/// One end of a stream, with its open directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Stream {
    write: Option<Writing>,
    read: Option<Reading>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Writing {
    sent: u64,
    /// The reader allows so many bytes in all. 0: nobody reads yet.
    credit: u64,
    /// It ends as soon as somebody reads.
    end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum End {
    Well,
    GivenUp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Reading {
    came: u64,
    taken: u64,
    /// The writer was told that it may write so many bytes in all.
    credit: u64,
}

/// The writer is told when it may write so much more than it knows of.
const TELL_EVERY: u64 = STREAM_WINDOW / 4;

impl Streams {
    /// Opens this node's end. `writes` is the way in which this side writes, and `credit` what it may write now.
    pub(super) fn open(&mut self, side: Side, index: u16, way: Way, writes: Way, credit: u64) {
        let is_written = way == Way::Both || way == writes;
        let is_read = way == Way::Both || way != writes;
        let stream = Stream {
            write: is_written.then_some(Writing { sent: 0, credit, end: None }),
            read: is_read.then_some(Reading { came: 0, taken: 0, credit: STREAM_WINDOW }),
        };
        self.open.insert(StreamId { side, index }, stream);
    }

    /// Open streams of both sides.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn is_open(&self, side: Side) -> bool {
        self.of(side, 0).next().is_some()
    }

    /// All sides that have open streams.
    pub(super) fn sides(&self) -> Vec<Side> {
        let mut sides: Vec<Side> = self.open.keys().map(|stream| stream.side).collect();
        sides.dedup();
        sides
    }

    fn of(&self, side: Side, first: u16) -> impl Iterator<Item = (StreamId, &Stream)> {
        let range = StreamId { side, index: first }..=StreamId { side, index: u16::MAX };
        self.open.range(range).map(|(&stream, open)| (stream, open))
    }

    /// All streams of a side break.
    pub(super) fn break_all(&mut self, side: Side, why: Broken, effects: &mut Vec<Effect>) {
        let all: Vec<StreamId> = self.of(side, 0).map(|(stream, _)| stream).collect();
        for stream in all {
            let Some(open) = self.open.remove(&stream) else { continue };
            if open.read.is_some() {
                effects.push(Effect::Broken { stream, half: Half::Read, why });
            }
            if open.write.is_some() {
                effects.push(Effect::Broken { stream, half: Half::Write, why });
            }
        }
    }

    /// Forgets a direction; true when it was open.
    fn close(&mut self, stream: StreamId, half: Half) -> bool {
        let Some(open) = self.open.get_mut(&stream) else { return false };
        let was_open = match half {
            Half::Read => open.read.take().is_some(),
            Half::Write => open.write.take().is_some(),
        };
        if open.read.is_none() && open.write.is_none() {
            self.open.remove(&stream);
        }
        was_open
    }

    fn writing(&mut self, stream: StreamId) -> Option<&mut Writing> {
        self.open.get_mut(&stream)?.write.as_mut()
    }

    fn reading(&mut self, stream: StreamId) -> Option<&mut Reading> {
        self.open.get_mut(&stream)?.read.as_mut()
    }
}

impl Requests {
    /// The application writes to a stream, or ends it. Nothing happens if the stream has ended.
    ///
    /// # Errors
    /// More than [`STREAM_CHUNK_MAX`], or than the reader's credit allows: nothing has changed.
    pub(crate) fn stream_write(
        &mut self,
        stream: StreamId,
        data: Bytes,
        last: bool,
    ) -> Result<(), Refused> {
        if data.len() > STREAM_CHUNK_MAX {
            let (len, limit) = (len_u64(data.len()), len_u64(STREAM_CHUNK_MAX));
            return Err(Refused::TooLarge { what: "a write to a stream", len, limit });
        }
        let Some(writing) = self.streams.writing(stream) else { return Ok(()) };
        let offset = writing.sent;
        if writing.end.is_some() || offset + len_u64(data.len()) > writing.credit {
            return Err(Refused::Invalid { what: "a write beyond a stream's credit" });
        }
        if data.is_empty() && !last {
            return Ok(());
        }
        if writing.credit == 0 {
            writing.end = Some(End::Well);
            return Ok(());
        }
        writing.sent += len_u64(data.len());
        if let Some((via, of)) = self.address(stream) {
            self.send(via, Part::Data { of, offset, data, last });
        }
        if last {
            self.close_half(stream, Half::Write);
        }
        Ok(())
    }

    /// The application has done with so many more bytes of a stream.
    pub(crate) fn stream_taken(&mut self, stream: StreamId, bytes: u64) {
        let Some(reading) = self.streams.reading(stream) else { return };
        reading.taken = reading.came.min(reading.taken.saturating_add(bytes));
        let upto = reading.taken + STREAM_WINDOW;
        if upto - reading.credit < TELL_EVERY {
            return;
        }
        reading.credit = upto;
        if let Some((via, of)) = self.address(stream) {
            self.send_credit(via, of, upto);
        }
    }

    /// The application gives a direction of a stream up.
    pub(crate) fn stream_give_up(&mut self, stream: StreamId, half: Half) {
        if half == Half::Write
            && let Some(writing) = self.streams.writing(stream)
            && writing.credit == 0
        {
            writing.end = Some(End::GivenUp);
            return;
        }
        let address = self.address(stream);
        if !self.streams.close(stream, half) {
            return;
        }
        // A request that is not sent yet has nothing to stop: its stream's first bytes are answered so.
        if let Some((via, of)) = address {
            let part = match half {
                Half::Read => Part::Stop { of },
                Half::Write => Part::Abort { of },
            };
            self.send(via, part);
        }
        self.forget_if_done(stream.side);
    }

    pub(super) fn on_data(
        &mut self,
        via: Via,
        of: StreamOf,
        offset: u64,
        data: Bytes,
        last: bool,
    ) -> Result<(), &'static str> {
        let Some(stream) = self.stream_of(via, of) else { return Ok(()) };
        let Some(reading) = self.streams.reading(stream) else {
            // Nobody reads it any more, or its writer has not heard that yet.
            self.stop(stream);
            return Ok(());
        };
        let end = offset.saturating_add(len_u64(data.len()));
        if offset != reading.came || end > reading.credit {
            let is_gap = offset != reading.came;
            self.stop(stream);
            let why = Broken::Lost;
            self.effects.push(Effect::Broken { stream, half: Half::Read, why });
            self.close_half(stream, Half::Read);
            return if is_gap { Ok(()) } else { Err("more of a stream than its reader allows") };
        }
        reading.came = end;
        self.effects.push(Effect::Data { stream, data, last });
        if last {
            self.close_half(stream, Half::Read);
        }
        Ok(())
    }

    /// The other end gave a direction up. `half` is how this end sees it.
    pub(super) fn on_given_up(&mut self, via: Via, of: StreamOf, half: Half) {
        let Some(stream) = self.stream_of(via, of) else { return };
        if self.streams.close(stream, half) {
            self.effects.push(Effect::Broken { stream, half, why: Broken::GivenUp });
            self.forget_if_done(stream.side);
        }
    }

    /// The reader of a stream allows its writer, here, so many bytes in all.
    pub(crate) fn on_credit(&mut self, conn: ConnId, of: StreamOf, upto: u64) {
        self.on_credit_via(Via::Conn(conn), of, upto);
    }

    fn on_credit_via(&mut self, via: Via, of: StreamOf, upto: u64) {
        let Some(stream) = self.stream_of(via, of) else { return };
        let Some(writing) = self.streams.writing(stream) else { return };
        // Whatever a reader says, this node holds no more for it.
        let upto = upto.min(writing.sent + STREAM_WINDOW);
        if upto <= writing.credit {
            return;
        }
        writing.credit = upto;
        match writing.end.take() {
            None => self.effects.push(Effect::Credit { stream, upto }),
            Some(End::Well) => {
                let done = self.stream_write(stream, Bytes::new(), true);
                done.expect("an empty write is within any credit");
            }
            Some(End::GivenUp) => self.stream_give_up(stream, Half::Write),
        }
    }

    /// Tells the world what it may write to the streams of a side from an index on.
    pub(super) fn tell_credit(&mut self, side: Side, first: u16) {
        for (stream, open) in self.streams.of(side, first) {
            if let Some(upto) = open.write.map(|writing| writing.credit).filter(|&upto| upto > 0) {
                self.effects.push(Effect::Credit { stream, upto });
            }
        }
    }

    /// Tells the caller that its streams are read: the request is handled.
    pub(super) fn announce_credit(&mut self, side: Side) {
        let read = self.streams.of(side, 0).filter_map(|(stream, open)| {
            let reading = open.read?;
            Some((self.address(stream)?, reading.credit))
        });
        let read: Vec<_> = read.collect();
        for ((via, of), upto) in read {
            self.send_credit(via, of, upto);
        }
    }

    fn send_credit(&mut self, via: Via, of: StreamOf, upto: u64) {
        match via {
            Via::Local => self.on_credit_via(via, of, upto),
            Via::Conn(conn) => self.sends.push((conn, Message::StreamCredit { of, upto })),
        }
    }

    fn stop(&mut self, stream: StreamId) {
        if let Some((via, of)) = self.address(stream) {
            self.reply(via, Part::Stop { of }, 0);
        }
    }

    fn close_half(&mut self, stream: StreamId, half: Half) {
        self.streams.close(stream, half);
        self.forget_if_done(stream.side);
    }
}
