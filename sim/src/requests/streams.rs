//! This process's ends of streams: writers that end well, give up or fall silent, readers that are quick, slow or idle.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use ring_core::Node;
use ring_core::ids::len_u64;
use ring_core::request::{Half, STREAM_CHUNK_MAX, StreamId};
use ring_core::rng::Rng;

use super::Chore;
use crate::oracle::Pipe;
use crate::world::Sim;

/// All open ends of a process.
#[derive(Debug, Default)]
pub(super) struct Ends {
    writers: BTreeMap<StreamId, Writer>,
    readers: BTreeMap<StreamId, Reader>,
    /// Writers that ended before anybody had begun to read: they may yet hear that nobody ever did.
    early: BTreeSet<StreamId>,
    /// Ends that this process closed in this turn: core may have closed them just before, and says so in a moment.
    closed: BTreeSet<(StreamId, Half)>,
}

#[derive(Debug)]
struct Writer {
    pipe: Pipe,
    sent: u64,
    credit: u64,
    /// It writes so much...
    total: u64,
    /// ... and then does this.
    then: Then,
    /// A write is under way.
    busy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    End,
    GiveUp,
    Nothing,
}

#[derive(Debug)]
struct Reader {
    pipe: Pipe,
    came: u64,
    /// How long it takes for what has come, about; none: it takes nothing.
    pace: Option<Duration>,
    /// It gives up when so much has come.
    enough: Option<u64>,
}

type Chores = Vec<(Duration, Chore)>;

/// Whoever is willing waits for this long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most bytes of a stream, over which its window opens again and again.
const TOTAL_MAX: u64 = 1_300_000;

impl Ends {
    /// One end of one direction of a stream.
    pub(super) fn open(
        &mut self,
        sim: &Sim,
        me: usize,
        (stream, pipe): (StreamId, Pipe),
        writes: bool,
        wide: bool,
        rng: &mut Rng,
    ) -> Chores {
        let half = if writes { Half::Write } else { Half::Read };
        let hasty = rng.chance(1, 6);
        let patience = match hasty {
            true => rng.duration(Duration::from_millis(200), Duration::from_secs(8)),
            false => PATIENCE,
        };
        let willing = if writes {
            let writer = Writer::draw(pipe, wide, rng);
            let willing = writer.then == Then::End;
            self.writers.insert(stream, writer);
            willing
        } else {
            let reader = Reader::draw(pipe, rng);
            let willing = reader.enough.is_none() && reader.pace.is_some_and(|pace| pace < SLOW);
            self.readers.insert(stream, reader);
            willing
        };
        let now = sim.now();
        sim.oracle(|oracle| oracle.on_end_opened(me, pipe, half, willing && !hasty, now));
        let mut chores = vec![(patience, Chore::Leave(stream, half))];
        if writes {
            chores.extend(self.stir(stream, rng));
        }
        chores
    }

    /// The writer goes on soon, unless it does already.
    fn stir(&mut self, stream: StreamId, rng: &mut Rng) -> Option<(Duration, Chore)> {
        let writer = self.writers.get_mut(&stream).filter(|writer| !writer.busy)?;
        writer.busy = true;
        let wait = rng.duration(Duration::ZERO, Duration::from_millis(4));
        Some((wait, Chore::Write(stream)))
    }

    /// The writer may write up to there.
    pub(super) fn on_credit(
        &mut self,
        sim: &Sim,
        stream: StreamId,
        upto: u64,
        rng: &mut Rng,
    ) -> Option<(Duration, Chore)> {
        let Some(writer) = self.writers.get_mut(&stream) else {
            self.over(sim, stream, Half::Write, "credit");
            return None;
        };
        if upto <= writer.credit {
            over(sim, stream, "less credit than before");
        }
        writer.credit = upto;
        let pipe = writer.pipe;
        sim.oracle(|oracle| oracle.on_credit(pipe, upto));
        self.stir(stream, rng)
    }

    /// Writes what is allowed, or ends.
    pub(super) fn write(
        &mut self,
        sim: &Sim,
        node: &mut Node,
        stream: StreamId,
        rng: &mut Rng,
    ) -> Option<(Duration, Chore)> {
        let writer = self.writers.get_mut(&stream)?;
        writer.busy = false;
        let left = writer.total - writer.sent;
        if left == 0 {
            return match writer.then {
                Then::End => {
                    self.put(sim, node, stream, 0, true);
                    None
                }
                Then::GiveUp => {
                    self.leave(sim, node, stream, Half::Write);
                    None
                }
                Then::Nothing => None,
            };
        }
        let room = left.min(writer.credit - writer.sent);
        if room == 0 {
            return None; // more credit goes on
        }
        let most = room.min(len_u64(STREAM_CHUNK_MAX));
        let bytes = if rng.chance(1, 2) { most } else { 1 + rng.below(most) };
        let last = bytes == left && writer.then == Then::End && rng.chance(1, 2);
        self.put(sim, node, stream, bytes, last);
        if rng.chance(1, 4) {
            return self.write(sim, node, stream, rng); // at once, as far as it may
        }
        self.stir(stream, rng)
    }

    fn put(&mut self, sim: &Sim, node: &mut Node, stream: StreamId, bytes: u64, last: bool) {
        let Some(writer) = self.writers.get_mut(&stream) else { return };
        let pipe = writer.pipe;
        let data: Vec<u8> = (writer.sent..writer.sent + bytes).map(|at| pipe.byte(at)).collect();
        writer.sent += bytes;
        sim.trace(|trace| trace.mix(pipe.number ^ bytes << 20 ^ 15 << 56));
        sim.oracle(|oracle| oracle.on_wrote(pipe, bytes, last));
        if last {
            self.close(stream, Half::Write);
            self.closed.insert((stream, Half::Write));
        }
        if let Err(refused) = node.stream_write(stream, Bytes::from(data), last) {
            let problem = format!("{pipe:?}: a write within the credit was refused: {refused}");
            sim.oracle(|oracle| oracle.fail("STREAM", problem));
        }
    }

    /// Bytes have come.
    pub(super) fn on_data(
        &mut self,
        sim: &Sim,
        stream: StreamId,
        data: &[u8],
        last: bool,
        rng: &mut Rng,
    ) -> Option<(Duration, Chore)> {
        let Some(reader) = self.readers.get_mut(&stream) else {
            self.over(sim, stream, Half::Read, "data");
            return None;
        };
        let (pipe, at) = (reader.pipe, reader.came);
        reader.came += len_u64(data.len());
        sim.trace(|trace| trace.mix(pipe.number ^ reader.came << 20 ^ 16 << 56));
        let wrong = (at..).zip(data).find(|&(at, &byte)| pipe.byte(at) != byte);
        if let Some((at, byte)) = wrong {
            let problem = format!("{pipe:?}: reads {byte} at {at}, not {}", pipe.byte(at));
            sim.oracle(|oracle| oracle.fail("STREAM", problem));
        }
        let now = sim.now();
        sim.oracle(|oracle| oracle.on_read(pipe, len_u64(data.len()), last, now));
        if last {
            self.readers.remove(&stream);
            return None;
        }
        if reader.enough.is_some_and(|enough| reader.came >= enough) {
            return Some((Duration::ZERO, Chore::Leave(stream, Half::Read)));
        }
        let pace = reader.pace?;
        let wait = rng.duration(pace / 2, pace);
        Some((wait, Chore::Take(stream, len_u64(data.len()))))
    }

    pub(super) fn take(&mut self, sim: &Sim, node: &mut Node, stream: StreamId, bytes: u64) {
        let Some(reader) = self.readers.get(&stream) else { return };
        let pipe = reader.pipe;
        sim.oracle(|oracle| oracle.on_took(pipe, bytes));
        node.stream_taken(stream, bytes);
    }

    /// An end is given up, if it is open.
    pub(super) fn leave(&mut self, sim: &Sim, node: &mut Node, stream: StreamId, half: Half) {
        if let Some(pipe) = self.close(stream, half) {
            let now = sim.now();
            self.closed.insert((stream, half));
            sim.oracle(|oracle| oracle.on_gave_up(pipe, half, now));
            node.stream_give_up(stream, half);
        }
    }

    pub(super) fn on_broken(&mut self, sim: &Sim, stream: StreamId, half: Half) {
        match self.close(stream, half) {
            Some(pipe) => {
                if half == Half::Write {
                    self.early.remove(&stream);
                }
                let now = sim.now();
                sim.oracle(|oracle| oracle.on_broken(pipe, half, now));
            }
            None if half == Half::Write && self.early.remove(&stream) => {}
            None => self.over(sim, stream, half, &format!("the {half:?} end")),
        }
    }

    /// Something is said of an end that this process does not have: right only in the turn in which it gave that up.
    fn over(&self, sim: &Sim, stream: StreamId, half: Half, what: &str) {
        if !self.closed.contains(&(stream, half)) {
            over(sim, stream, what);
        }
    }

    /// The turn is over, and what core said in it was heard.
    pub(super) fn end_turn(&mut self) {
        self.closed.clear();
    }

    fn close(&mut self, stream: StreamId, half: Half) -> Option<Pipe> {
        match half {
            Half::Write => {
                let writer = self.writers.remove(&stream)?;
                if writer.credit == 0 {
                    self.early.insert(stream);
                }
                Some(writer.pipe)
            }
            Half::Read => self.readers.remove(&stream).map(|reader| reader.pipe),
        }
    }

    /// Shows the oracle which ends are open, now that this process has had a turn.
    pub(super) fn show(&self, sim: &Sim) {
        if self.writers.is_empty() && self.readers.is_empty() {
            return;
        }
        let now = sim.now();
        sim.oracle(|oracle| {
            for writer in self.writers.values() {
                oracle.on_end_shown(writer.pipe, Half::Write, now);
            }
            for reader in self.readers.values() {
                oracle.on_end_shown(reader.pipe, Half::Read, now);
            }
        });
    }
}

/// Who takes longer than this for what has come is slow.
const SLOW: Duration = Duration::from_millis(50);

impl Writer {
    fn draw(pipe: Pipe, wide: bool, rng: &mut Rng) -> Self {
        let total = match rng.below(40) {
            0 | 1 if wide => rng.below(TOTAL_MAX),
            2..=6 if wide => rng.below(40_000),
            7..=9 => 0,
            _ => rng.below(2_000),
        };
        let then = match rng.below(16) {
            0 => Then::Nothing,
            1 => Then::GiveUp,
            _ => Then::End,
        };
        Self { pipe, sent: 0, credit: 0, total, then, busy: false }
    }
}

impl Reader {
    fn draw(pipe: Pipe, rng: &mut Rng) -> Self {
        let pace = match rng.below(10) {
            0 => None,
            1 | 2 => Some(rng.duration(SLOW, SLOW * 10)),
            _ => Some(rng.duration(Duration::ZERO, SLOW / 10)),
        };
        let most = if rng.chance(1, 2) { 100 } else { 100_000 };
        let enough = rng.chance(1, 10).then(|| rng.below(most));
        Self { pipe, came: 0, pace, enough }
    }
}

fn over(sim: &Sim, stream: StreamId, what: &str) {
    let problem = format!("{what} of {stream:?}, which is over or was never open here");
    sim.oracle(|oracle| oracle.fail("STREAM", problem));
}
