//! Messages that travel in chunks, while they are incomplete.

use alloc::vec::Vec;
use core::mem;

use super::frame::{Chunk, Lane, WireError};

/// The incomplete messages of one connection: at most one of each lane. Memory grows with the bytes
/// that came, never with what a first chunk claims.
#[derive(Clone, Debug, Default)]
pub struct Assembler {
    urgent: Partial,
    bulk: Partial,
    /// Messages given up because a chunk is missing.
    lost: u64,
}

/// The message of one lane.
#[derive(Clone, Debug, Default)]
struct Partial {
    /// The last stream of which a chunk came.
    stream: Option<u32>,
    /// The message is still wanted: how long it will be, and the chunk that must come next.
    open: Option<Open>,
    data: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    total: usize,
    next: u32,
}

/// What became of a chunk.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Accepted {
    /// It was added; more must follow.
    More,
    /// It was the last: the whole message.
    Whole(Vec<u8>),
    /// It is of no use: it came before, or its message has been given up.
    Stale,
    /// A chunk before it is missing: its message is given up.
    Gap,
}

impl Assembler {
    /// With nothing to assemble.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many messages were given up because a chunk of them was lost or overtaken.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.urgent.data.capacity() + self.bulk.data.capacity()
    }

    /// Takes a chunk of a message that may have `limit` bytes. An error gives the message up.
    pub(super) fn accept(
        &mut self,
        lane: Lane,
        chunk: &Chunk<'_>,
        last: bool,
        limit: usize,
    ) -> Result<Accepted, WireError> {
        let partial = match lane {
            Lane::Urgent => &mut self.urgent,
            Lane::Bulk => &mut self.bulk,
        };
        let newer = partial.stream.is_none_or(|s| follows(chunk.stream, s));
        if newer {
            if partial.open.take().is_some() {
                self.lost += 1;
            }
            partial.begin(chunk, limit)?;
        } else if partial.stream != Some(chunk.stream) {
            return Ok(Accepted::Stale);
        }
        let Some(open) = &mut partial.open else {
            if newer {
                self.lost += 1;
                return Ok(Accepted::Gap);
            }
            return Ok(Accepted::Stale);
        };
        if chunk.number < open.next {
            return Ok(Accepted::Stale);
        }
        if chunk.number > open.next {
            partial.close();
            self.lost += 1;
            return Ok(Accepted::Gap);
        }
        // Chunks hold at least a byte each and messages are shorter than 4 GiB.
        open.next += 1;

        let total = open.total;
        let len = partial.data.len() + chunk.data.len();
        if len > total || last != (len == total) {
            partial.close();
            return Err(WireError::ChunkTotal { stream: chunk.stream, total });
        }
        partial.add(chunk.data, total);
        if !last {
            return Ok(Accepted::More);
        }
        partial.open = None;
        Ok(Accepted::Whole(mem::take(&mut partial.data)))
    }
}

impl Partial {
    /// Turns to a new stream; opens it if this is its first chunk.
    fn begin(&mut self, chunk: &Chunk<'_>, limit: usize) -> Result<(), WireError> {
        self.stream = Some(chunk.stream);
        self.data = Vec::new();
        let Some(total) = chunk.total else {
            return Ok(());
        };
        if total > limit {
            return Err(WireError::MessageTooLong { limit });
        }
        self.open = Some(Open { total, next: 0 });
        Ok(())
    }

    /// Gives the message up.
    fn close(&mut self) {
        self.open = None;
        self.data = Vec::new();
    }

    /// Doubles the memory when it is full, never past what the message needs.
    fn add(&mut self, data: &[u8], total: usize) {
        let need = self.data.len() + data.len();
        if need > self.data.capacity() {
            let capacity = need.max(2 * self.data.capacity()).min(total);
            self.data.reserve_exact(capacity - self.data.len());
        }
        self.data.extend_from_slice(data);
    }
}

/// Whether stream `a` began after stream `b`, on numbers that wrap round.
fn follows(a: u32, b: u32) -> bool {
    let ahead = a.wrapping_sub(b);
    ahead != 0 && ahead < 1 << 31
}

#[cfg(test)]
mod tests {

    use super::*;

    const LIMIT: usize = 100;

    fn first(stream: u32, total: usize, data: &[u8]) -> Chunk<'_> {
        Chunk { stream, number: 0, total: Some(total), data }
    }

    fn later(stream: u32, number: u32, data: &[u8]) -> Chunk<'_> {
        Chunk { stream, number, total: None, data }
    }

    fn whole(bytes: &[u8]) -> Accepted {
        Accepted::Whole(bytes.to_vec())
    }

    impl Assembler {
        fn bulk(&mut self, chunk: &Chunk<'_>, last: bool) -> Result<Accepted, WireError> {
            self.accept(Lane::Bulk, chunk, last, LIMIT)
        }
    }

    #[test]
    fn chunks_in_order_make_a_message_and_duplicates_change_nothing() {
        let mut a = Assembler::new();
        assert_eq!(a.bulk(&first(5, 4, b"ab"), false).unwrap(), Accepted::More);
        assert_eq!(a.bulk(&first(5, 4, b"ab"), false).unwrap(), Accepted::Stale);
        assert_eq!(a.bulk(&later(5, 1, b"c"), false).unwrap(), Accepted::More);
        assert_eq!(a.bulk(&later(5, 2, b"d"), true).unwrap(), whole(b"abcd"));
        assert_eq!(a.bulk(&later(5, 2, b"d"), true).unwrap(), Accepted::Stale);
        assert_eq!(a.bulk(&first(4, 1, b"x"), true).unwrap(), Accepted::Stale);
        assert_eq!(a.lost(), 0);
    }

    #[test]
    fn the_lanes_do_not_disturb_each_other() {
        let mut a = Assembler::new();
        assert_eq!(a.bulk(&first(1, 2, b"a"), false).unwrap(), Accepted::More);
        let urgent = first(2, 1, b"u");
        assert_eq!(a.accept(Lane::Urgent, &urgent, true, LIMIT).unwrap(), whole(b"u"));
        assert_eq!(a.bulk(&later(1, 1, b"b"), true).unwrap(), whole(b"ab"));
    }

    #[test]
    fn a_missing_chunk_gives_its_message_up_once() {
        let mut a = Assembler::new();
        assert_eq!(a.bulk(&first(1, 4, b"a"), false).unwrap(), Accepted::More);
        assert_eq!(a.bulk(&later(1, 2, b"c"), false).unwrap(), Accepted::Gap);
        assert_eq!(a.bulk(&later(1, 1, b"b"), false).unwrap(), Accepted::Stale);
        assert_eq!(a.bulk(&later(1, 3, b"d"), true).unwrap(), Accepted::Stale);
        assert_eq!(a.lost(), 1);
        assert_eq!(a.bulk(&later(2, 1, b"z"), true).unwrap(), Accepted::Gap);
        assert_eq!(a.lost(), 2);
        assert_eq!(a.bulk(&first(3, 1, b"x"), true).unwrap(), whole(b"x"));
    }

    #[test]
    fn a_newer_message_gives_the_older_one_up() {
        let mut a = Assembler::new();
        assert_eq!(a.bulk(&first(1, 4, b"a"), false).unwrap(), Accepted::More);
        assert_eq!(a.bulk(&first(2, 2, b"x"), false).unwrap(), Accepted::More);
        assert_eq!(a.bulk(&later(1, 1, b"b"), false).unwrap(), Accepted::Stale);
        assert_eq!(a.lost(), 1);
        assert_eq!(a.bulk(&later(2, 1, b"y"), true).unwrap(), whole(b"xy"));
    }

    #[test]
    fn totals_must_be_kept() {
        let total = |stream, total| Err(WireError::ChunkTotal { stream, total });
        let mut a = Assembler::new();
        assert_eq!(a.bulk(&first(1, 2, b"abc"), false), total(1, 2));
        assert_eq!(a.bulk(&first(2, 3, b"ab"), true), total(2, 3));
        assert_eq!(a.bulk(&first(3, 2, b"ab"), false), total(3, 2));
        assert_eq!(
            a.bulk(&first(4, LIMIT + 1, b"ab"), false),
            Err(WireError::MessageTooLong { limit: LIMIT })
        );
        assert_eq!(a.bulk(&later(4, 1, b"c"), true).unwrap(), Accepted::Stale);
    }

    #[test]
    fn stream_numbers_wrap_round() {
        let mut a = Assembler::new();
        let end = u32::MAX;
        assert_eq!(a.bulk(&first(end, 1, b"x"), true).unwrap(), whole(b"x"));
        assert_eq!(a.bulk(&first(0, 1, b"y"), true).unwrap(), whole(b"y"));
        assert_eq!(a.bulk(&first(end, 1, b"x"), true).unwrap(), Accepted::Stale);
    }

    /// X1, X2: a claim of megabytes costs what was sent.
    #[test]
    fn memory_grows_with_what_came() {
        let mut a = Assembler::new();
        let chunk = first(1, 16 << 20, &[7; 1000]);
        a.accept(Lane::Bulk, &chunk, false, 16 << 20).unwrap();
        assert_eq!(a.held_bytes(), 1000);
        for number in 1..100 {
            let chunk = later(1, number, &[7; 1000]);
            a.accept(Lane::Bulk, &chunk, false, 16 << 20).unwrap();
            assert!(a.held_bytes() <= 2 * 1000 * (usize::try_from(number).unwrap() + 1));
        }
    }
}
