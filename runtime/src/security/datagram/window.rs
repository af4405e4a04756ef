//! Which counters of one start came already.

use super::Dropped;

/// A sliding window (as RFC 4303, 3.4.3.1, and appendix A2).
///
/// 1. Bit `c % WINDOW` says of each counter `c` in `end - WINDOW .. end` whether it was taken.
/// 2. No counter at or past `end` was taken; none before `end - WINDOW` or before `begin` is again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    begin: u64,
    end: u64,
    bits: [u64; WORDS],
}

impl Window {
    /// Counters before `begin` are too old.
    pub(super) fn beginning_at(begin: u64) -> Self {
        Self { begin, end: begin, bits: [0; WORDS] }
    }

    /// Moves the beginning, never back.
    pub(super) fn begin_at(&mut self, begin: u64) {
        self.begin = self.begin.max(begin);
    }

    /// Whether this counter may be taken.
    pub(super) fn look(&self, counter: u64) -> Result<(), Dropped> {
        // The last counter is never sealed with: `end` could not be past it.
        if counter == u64::MAX || counter < self.begin {
            return Err(Dropped::TooOld);
        }
        if counter >= self.end {
            return Ok(());
        }
        if self.end - counter > WINDOW {
            return Err(Dropped::TooOld);
        }
        let (word, bit) = place(counter);
        if self.bits[word] & bit == 0 { Ok(()) } else { Err(Dropped::Replayed) }
    }

    /// Takes a counter at which `look` has looked.
    pub(super) fn take(&mut self, counter: u64) {
        if counter >= self.end {
            if counter - self.end >= WINDOW {
                self.bits = [0; WORDS];
            } else {
                for passed in self.end..counter {
                    let (word, bit) = place(passed);
                    self.bits[word] &= !bit;
                }
            }
            self.end = counter + 1;
        }
        let (word, bit) = place(counter);
        self.bits[word] |= bit;
    }
}

fn place(counter: u64) -> (usize, u64) {
    let within = counter % WINDOW;
    let word = usize::try_from(within / 64).expect("less than WORDS");
    (word, 1 << (within % 64))
}

/// A datagram may come after so many that were sealed later.
pub(super) const WINDOW: u64 = 1024;
const WORDS: usize = 16;
