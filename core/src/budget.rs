//! How much of something may be done in a time.

use core::time::Duration;

use crate::time::Instant;

/// A token bucket that is paid afterwards: a piece may go while nothing is owed, however long it is, and what it took is
/// owed for as long as the rate takes to pay it back. So pieces of any size go, one at a time, and the mean keeps to
/// the rate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    bytes_per_second: u64,
    /// Nothing is owed from here on.
    free_at: Instant,
}

/// What was not used is forgotten after this: a budget that lay idle begins with no more than that takes.
const SAVED: Duration = Duration::from_millis(20);

impl Budget {
    /// With nothing owed.
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), free_at: Instant(0) }
    }

    /// True when a piece may go.
    pub(crate) fn is_free(&self, now: Instant) -> bool {
        self.free_at <= now
    }

    /// When the next one may.
    pub(crate) fn free_at(&self) -> Instant {
        self.free_at
    }

    /// A piece of this length went.
    pub(crate) fn spend(&mut self, now: Instant, bytes: usize) {
        let bytes = u128::try_from(bytes).unwrap_or(u128::MAX);
        let nanos = bytes * 1_000_000_000 / u128::from(self.bytes_per_second);
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        self.free_at = self.free_at.max(now - SAVED) + Duration::from_nanos(nanos);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant(0) + Duration::from_millis(millis)
    }

    /// As many pieces as the rate lets, of whatever length; time that was not used counts for little.
    #[test]
    fn the_mean_keeps_to_the_rate() {
        let mut budget = Budget::new(1 << 20);
        for length in [256 << 10, 1 << 20, 1] {
            let mut now = at(60_000);
            let (mut sent, mut pieces) = (0, 0);
            while now < at(70_000) {
                if budget.is_free(now) {
                    budget.spend(now, length);
                    sent += length;
                    pieces += 1;
                } else {
                    now = budget.free_at();
                }
            }
            let most = (10 << 20) + (1 << 15) + length;
            assert!(pieces > 0 && sent <= most, "{sent} of {most} in pieces of {length}");
            assert!(sent + length > 10 << 20, "{sent} in pieces of {length}");
            budget = Budget::new(1 << 20);
        }
    }

    #[test]
    fn what_was_spent_is_owed_for_as_long_as_it_takes() {
        let mut budget = Budget::new(1000);
        assert!(budget.is_free(at(0)));
        budget.spend(at(500), 100);
        assert_eq!(budget.free_at(), at(580), "20 ms were saved up");
        assert!(!budget.is_free(at(579)) && budget.is_free(at(580)));
        budget.spend(at(580), 100);
        assert_eq!(budget.free_at(), at(680), "none were");
    }
}
