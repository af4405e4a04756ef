//! The clocks of one member.

use std::time::{SystemTime, UNIX_EPOCH};

use ring_core::time::{Instant, Now};

/// Monotonic time since the clock was made, and the wall clock.
///
/// Where the system has one, the monotonic clock runs on while the machine sleeps, so that a member
/// that slept knows that its peers have given it up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: u64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { origin: raw() }
    }

    /// What the clocks say.
    pub(crate) fn now(self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        Now {
            instant: self.instant(),
            wall_ms: wall.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// The monotonic clock alone.
    pub(crate) fn instant(self) -> Instant {
        Instant(raw().saturating_sub(self.origin))
    }
}

/// Nanoseconds since some fixed moment.
#[cfg(target_os = "linux")]
fn raw() -> u64 {
    use rustix::time::{ClockId, clock_gettime};
    let t = clock_gettime(ClockId::Boottime);
    let (s, ns) = (u64::try_from(t.tv_sec), u64::try_from(t.tv_nsec));
    s.unwrap_or(0).saturating_mul(1_000_000_000) + ns.unwrap_or(0)
}

/// Nanoseconds since some fixed moment.
#[cfg(not(target_os = "linux"))]
fn raw() -> u64 {
    use std::sync::LazyLock;
    static ORIGIN: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
    u64::try_from(ORIGIN.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_begins_at_zero_and_rises() {
        let clock = Clock::start();
        let a = clock.now();
        let b = clock.instant();
        assert!(a.instant <= b);
        assert!(b.0 < 60_000_000_000, "{b:?}");
        assert!(a.wall_ms > 1_600_000_000_000);
    }
}
