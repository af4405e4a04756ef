//! Streams: what was read of each direction is what was written (check STREAM).
//!
//! 1. What is read was written, in order and without a gap; a direction that ends well was read to its end.
//! 2. A writer is never further ahead of its reader than [`STREAM_WINDOW`], and is never allowed more; so neither end
//!    holds more than that.
//! 3. Each end is over once, and nothing is said of it afterwards (asked by the process).
//! 4. When one end is over, so is the other after bounded time; on wild links that lose what core takes for sent a
//!    direction may stay until its ends give it up.
//! 5. When all is well, a direction whose ends both do their part is read to its end within bounded time, whatever other
//!    streams do on the same connections.

use std::collections::BTreeMap;

use ring_core::request::{Half, STREAM_WINDOW};

use super::{Oracle, name};
use crate::clock::Nanos;

/// One direction of a stream, in the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pipe {
    /// The request that it belongs to.
    pub number: u64,
    /// Which stream of it.
    pub index: u16,
    /// From the caller to the handler.
    pub upward: bool,
}

impl Pipe {
    /// What its writer writes at an offset.
    #[must_use]
    pub fn byte(self, at: u64) -> u8 {
        let stream = self.number << 17 | u64::from(self.index) << 1 | u64::from(self.upward);
        let [byte, ..] = (stream << 24 ^ at).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        byte
    }
}

/// All directions of streams of a run.
#[derive(Debug, Default)]
pub(super) struct Streams {
    all: BTreeMap<Pipe, Facts>,
    /// Connections may lose what they were given.
    lossy: bool,
    done: u64,
}

#[derive(Debug, Default)]
struct Facts {
    writer: Option<End>,
    reader: Option<End>,
    written: u64,
    /// The writer has come to its end.
    complete: bool,
    read: u64,
    taken: u64,
    /// Read to its end.
    done: bool,
}

#[derive(Clone, Copy, Debug)]
struct End {
    machine: usize,
    opened: Nanos,
    /// It does its part.
    willing: bool,
    over: Option<Nanos>,
    /// How often it was still open when the other end was over.
    shown: u32,
}

/// The other end of one that is over has heard of it after so long...
const ORPHAN_MAX: Nanos = 25_000_000_000;
/// ... in which its process had so many turns.
const ORPHAN_TURNS: u32 = 20;
/// When all is well a stream is read to its end within this.
const DONE_WITHIN: Nanos = 3_000_000_000;

impl Facts {
    fn end(&mut self, half: Half) -> &mut Option<End> {
        match half {
            Half::Write => &mut self.writer,
            Half::Read => &mut self.reader,
        }
    }

    /// When it must be done, if both ends do their part.
    fn due(&self) -> Option<Nanos> {
        let (writer, reader) = (self.writer?, self.reader?);
        let willing = writer.willing && reader.willing;
        willing.then_some(writer.opened.max(reader.opened) + DONE_WITHIN)
    }
}

impl Oracle {
    /// Connections may lose what they were given.
    pub fn expect_losses(&mut self) {
        self.streams.lossy = true;
    }

    /// An end is open on a machine.
    pub fn on_end_opened(
        &mut self,
        machine: usize,
        pipe: Pipe,
        half: Half,
        willing: bool,
        now: Nanos,
    ) {
        let facts = self.streams.all.entry(pipe).or_default();
        let end = End { machine, opened: now, willing, over: None, shown: 0 };
        if let Some(before) = facts.end(half).replace(end) {
            let problem =
                format!("{pipe:?}: its {half:?} end is open twice, at {before:?}, {end:?}");
            self.fail("STREAM", problem);
        }
    }

    /// A writer may write so much in all.
    pub fn on_credit(&mut self, pipe: Pipe, upto: u64) {
        let Some(facts) = self.streams.all.get(&pipe) else { return };
        if upto > facts.taken + STREAM_WINDOW {
            let problem = format!("{pipe:?}: {upto} bytes are allowed: {facts:?}");
            self.fail("STREAM", problem);
        }
    }

    /// A writer writes, and ends the direction if these are the last bytes; its end is over when those are read.
    pub fn on_wrote(&mut self, pipe: Pipe, bytes: u64, last: bool) {
        let Some(facts) = self.streams.all.get_mut(&pipe) else { return };
        facts.written += bytes;
        facts.complete = last;
        // It has no end yet if nobody has begun to read; then its bytes would wait somewhere.
        if facts.written > facts.taken + STREAM_WINDOW {
            let problem = format!("{pipe:?}: more is written than the window holds: {facts:?}");
            self.fail("STREAM", problem);
        }
    }

    /// A reader gets bytes, the last of all perhaps.
    pub fn on_read(&mut self, pipe: Pipe, bytes: u64, last: bool, now: Nanos) {
        let Some(facts) = self.streams.all.get_mut(&pipe) else { return };
        facts.read += bytes;
        let is_true = facts.read <= facts.written
            && facts.read <= facts.taken + STREAM_WINDOW
            && (!last || (facts.complete && facts.read == facts.written));
        if last {
            facts.done = true;
            self.streams.done += 1;
            for end in [&mut facts.reader, &mut facts.writer].into_iter().flatten() {
                end.over.get_or_insert(now);
            }
        }
        if !is_true {
            let problem = format!("{pipe:?}: what is read was not written so: {facts:?}");
            self.fail("STREAM", problem);
        }
    }

    /// A reader has done with so many bytes more.
    pub fn on_took(&mut self, pipe: Pipe, bytes: u64) {
        let Some(facts) = self.streams.all.get_mut(&pipe) else { return };
        facts.taken += bytes;
    }

    /// An end was given up by its process.
    pub fn on_gave_up(&mut self, pipe: Pipe, half: Half, now: Nanos) {
        let Some(facts) = self.streams.all.get_mut(&pipe) else { return };
        if let Some(end) = facts.end(half) {
            end.willing = false;
            end.over.get_or_insert(now);
        }
    }

    /// A process hears that a direction has ended before its time.
    pub fn on_broken(&mut self, pipe: Pipe, half: Half, now: Nanos) {
        let is_due = self.is_request_due(pipe.number);
        let Some(facts) = self.streams.all.get_mut(&pipe) else { return };
        let is_wrong = is_due && facts.due().is_some();
        if let Some(end) = facts.end(half) {
            end.over.get_or_insert(now);
        }
        if is_wrong {
            let problem = format!("{pipe:?}: it breaks, and all is well: {facts:?}");
            self.fail("STREAM", problem);
        }
    }

    /// An end is open, and its process runs.
    pub fn on_end_shown(&mut self, pipe: Pipe, half: Half, now: Nanos) {
        let lossy = self.streams.lossy;
        let Some(facts) = self.streams.all.get_mut(&pipe) else { return };
        let other = match half {
            Half::Write => facts.reader,
            Half::Read => facts.writer,
        };
        let Some(end) = facts.end(half) else { return };
        let Some(over) = other.and_then(|other| other.over) else { return };
        end.shown += 1;
        let since = now.saturating_sub(over.max(end.opened));
        if !lossy && since > ORPHAN_MAX && end.shown > ORPHAN_TURNS {
            let machine = name(end.machine);
            let problem = format!("{pipe:?}: {machine} is left behind for {since} ns: {facts:?}");
            self.fail("STREAM", problem);
        }
    }

    /// A process is dead, with its ends of streams.
    pub fn on_streams_lost(&mut self, machine: usize, now: Nanos) {
        let ends = self.streams.all.values_mut().flat_map(|f| [&mut f.writer, &mut f.reader]);
        for end in ends.flatten().filter(|end| end.machine == machine) {
            end.over.get_or_insert(now);
        }
    }

    /// The run ends: whatever had to be read to its end by now was.
    pub fn on_streams_over(&mut self, now: Nanos) {
        let open = self.streams.all.iter().find(|(pipe, facts)| {
            !facts.done
                && facts.due().is_some_and(|due| due < now)
                && self.is_request_due(pipe.number)
        });
        if let Some((pipe, facts)) = open {
            let problem = format!("{pipe:?}: it does not end, and all is well: {facts:?}");
            self.fail("STREAM", problem);
        }
    }

    /// Directions of streams that were begun, and those that were read to their end.
    #[must_use]
    pub fn streams(&self) -> (u64, u64) {
        (ring_core::ids::len_u64(self.streams.all.len()), self.streams.done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPE: Pipe = Pipe { number: 3, index: 1, upward: true };
    const SECOND: Nanos = 1_000_000_000;

    /// Both ends are open, 10 bytes are written and 4 of them read and done with.
    fn open() -> Oracle {
        let mut oracle = Oracle::new(2);
        oracle.on_end_opened(0, PIPE, Half::Write, true, 0);
        oracle.on_end_opened(1, PIPE, Half::Read, true, 5);
        oracle.on_credit(PIPE, STREAM_WINDOW);
        oracle.on_wrote(PIPE, 10, false);
        oracle.on_read(PIPE, 4, false, 6);
        oracle.on_took(PIPE, 4);
        oracle
    }

    fn show(oracle: &mut Oracle, half: Half, from: Nanos) {
        (0..60).for_each(|turn| oracle.on_end_shown(PIPE, half, from + turn * SECOND));
    }

    #[test]
    fn honest_streams_pass() {
        let mut oracle = open();
        oracle.on_wrote(PIPE, 0, true);
        oracle.on_credit(PIPE, STREAM_WINDOW + 4);
        oracle.on_read(PIPE, 6, true, 7);
        let other = Pipe { upward: false, ..PIPE };
        oracle.on_end_opened(1, other, Half::Write, true, 0);
        oracle.on_end_opened(0, other, Half::Read, false, 0);
        oracle.on_gave_up(other, Half::Read, 8);
        oracle.on_end_shown(other, Half::Write, 9);
        oracle.on_broken(other, Half::Write, 10);
        oracle.on_streams_over(100 * SECOND);
        assert_eq!(oracle.violation(), None);
        assert_eq!(oracle.streams(), (2, 1));
    }

    #[test]
    fn each_lie_is_noticed() {
        let lies: [fn(&mut Oracle); 9] = [
            // Read what was not written, an end that is none, and one that is too early.
            |oracle| oracle.on_read(PIPE, 7, false, 7),
            |oracle| oracle.on_read(PIPE, 6, true, 7),
            |oracle| {
                oracle.on_wrote(PIPE, 0, true);
                oracle.on_read(PIPE, 5, true, 7);
            },
            // Beyond the window: allowed, written.
            |oracle| oracle.on_credit(PIPE, STREAM_WINDOW + 5),
            |oracle| oracle.on_wrote(PIPE, STREAM_WINDOW, false),
            // An end is open twice.
            |oracle| oracle.on_end_opened(1, PIPE, Half::Read, true, 7),
            // An end is left behind by one that was given up, by a dead process, by a broken connection.
            |oracle| {
                oracle.on_gave_up(PIPE, Half::Write, 7);
                show(oracle, Half::Read, 7);
            },
            |oracle| {
                oracle.on_streams_lost(1, 7);
                show(oracle, Half::Write, 7);
            },
            |oracle| {
                oracle.on_broken(PIPE, Half::Read, 7);
                show(oracle, Half::Write, 7);
            },
        ];
        for (number, lie) in lies.iter().enumerate() {
            let mut oracle = open();
            assert_eq!(oracle.violation(), None);
            lie(&mut oracle);
            assert!(oracle.violation().is_some(), "lie {number}");
        }
    }

    #[test]
    fn links_that_lose_may_leave_an_end_behind() {
        let mut oracle = open();
        oracle.expect_losses();
        oracle.on_gave_up(PIPE, Half::Write, 7);
        show(&mut oracle, Half::Read, 7);
        assert_eq!(oracle.violation(), None);
    }
}
