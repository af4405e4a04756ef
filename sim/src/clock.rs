//! The clocks of one machine: a monotonic one that drifts, a wall clock that jumps.

use ring_core::time::{Instant, Now};

/// True time, in nanoseconds since the run began.
pub type Nanos = u64;

/// Maps true time to what one machine reads, and back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clock {
    /// What the monotonic clock shows at true time 0.
    offset: u64,
    /// How much faster than true time it runs, in millionths; negative: slower.
    drift_ppm: i64,
    /// What the wall clock shows at true time 0, in milliseconds since 1970.
    wall_ms: u64,
}

/// Where wall clocks begin, before the plan sets them apart: 2025-01-01.
pub const WALL_START_MS: u64 = 1_735_689_600_000;

const MILLION: i128 = 1_000_000;

impl Clock {
    /// A clock that shows `offset` at true time 0 and drifts by `drift_ppm` millionths.
    ///
    /// # Panics
    /// The drift is 100 % or more.
    #[must_use]
    pub fn new(offset: u64, drift_ppm: i64, wall_ms: u64) -> Self {
        assert!(i128::from(drift_ppm).abs() < MILLION, "a clock must go on");
        Self { offset, drift_ppm, wall_ms }
    }

    /// What the machine reads at true time `at`.
    #[must_use]
    pub fn now(&self, at: Nanos) -> Now {
        let run = i128::from(at) * (MILLION + i128::from(self.drift_ppm)) / MILLION;
        let run = u64::try_from(run).expect("drift is less than 100 %");
        Now { instant: Instant(self.offset + run), wall_ms: self.wall_ms + run / 1_000_000 }
    }

    /// The first true time at which the monotonic clock shows `instant`; 0 if it lies before the run.
    #[must_use]
    pub fn true_time(&self, instant: Instant) -> Nanos {
        if instant == Instant::NEVER {
            return Nanos::MAX;
        }
        let run = i128::from(instant.0.saturating_sub(self.offset));
        let rate = MILLION + i128::from(self.drift_ppm);
        let at = (run * MILLION + rate - 1) / rate;
        Nanos::try_from(at).unwrap_or(Nanos::MAX)
    }

    /// The wall clock jumps by so many milliseconds, either way.
    pub fn jump(&mut self, ms: i64) {
        self.wall_ms = self.wall_ms.saturating_add_signed(ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drifts_by_its_rate() {
        let fast = Clock::new(5, 10_000, WALL_START_MS);
        let now = fast.now(1_000_000_000);
        assert_eq!(now.instant, Instant(1_010_000_005));
        assert_eq!(now.wall_ms, WALL_START_MS + 1010);
    }

    #[test]
    fn a_deadline_is_reached_at_its_true_time_and_not_before() {
        for drift in [-10_000, -1, 0, 1, 333, 10_000] {
            let clock = Clock::new(77, drift, 0);
            for instant in [0, 77, 78, 1_000, 123_456_789, 60_000_000_000] {
                let at = clock.true_time(Instant(instant));
                assert!(clock.now(at).instant >= Instant(instant));
                assert!(at == 0 || clock.now(at - 1).instant < Instant(instant));
            }
        }
        assert_eq!(Clock::new(0, 5, 0).true_time(Instant::NEVER), Nanos::MAX);
    }

    #[test]
    fn only_the_wall_clock_jumps() {
        let mut clock = Clock::new(0, 0, WALL_START_MS);
        let before = clock.now(9);
        clock.jump(-86_400_000);
        let after = clock.now(9);
        assert_eq!(after.instant, before.instant);
        assert_eq!(after.wall_ms + 86_400_000, before.wall_ms);
    }
}
