//! How long a suspect has to refute (Lifeguard, "LHA-Suspicion").

use alloc::vec::Vec;
use core::time::Duration;

use super::config::{ACCUSERS_MAX, Config};
use crate::ids::{MemberId, len_u64};
use crate::time::Instant;

/// A suspicion of one incarnation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Suspicion {
    /// Who got no answer, sorted; at most [`ACCUSERS_MAX`].
    pub(crate) accusers: Vec<MemberId>,
    pub(crate) since: Instant,
}

impl Suspicion {
    /// Adds accusers. True if one of them is new: then the suspicion is news to others as well.
    pub(crate) fn add(&mut self, accusers: &[MemberId]) -> bool {
        let before = self.accusers.len();
        for accuser in accusers {
            if self.accusers.len() < ACCUSERS_MAX
                && let Err(place) = self.accusers.binary_search(accuser)
            {
                self.accusers.insert(place, *accuser);
            }
        }
        self.accusers.len() > before
    }

    /// True if one of these accusers is new, and there is room for it.
    pub(crate) fn is_shortened_by(&self, accusers: &[MemberId]) -> bool {
        self.accusers.len() < ACCUSERS_MAX
            && accusers.iter().any(|accuser| self.accusers.binary_search(accuser).is_err())
    }

    /// When the suspect is taken for dead, in a cluster of `present` members.
    pub(crate) fn until(&self, config: &Config, present: usize) -> Instant {
        self.since + timeout(config, present, self.accusers.len())
    }
}

/// The time that a suspect has: from `suspicion_max` times the least, when one member suspects it, down to the
/// least, when `suspicion_confirmations` others do; the logarithm of their number decides in between. Where fewer
/// others exist, they suffice.
pub(crate) fn timeout(config: &Config, present: usize, accusers: usize) -> Duration {
    let present = len_u64(present).max(1);
    let log10 =
        u128::from(log2_fixed(present)) * u128::from(FIXED_ONE) / u128::from(log2_fixed(10));
    let scale = u64::try_from(log10).unwrap_or(u64::MAX).max(FIXED_ONE);
    let period = nanos(config.period);
    let min = period * u128::from(config.suspicion_min) * u128::from(scale) / u128::from(FIXED_ONE);
    let max = min * u128::from(config.suspicion_max);
    // The suspect and the first accuser confirm nothing.
    let wanted = u64::from(config.suspicion_confirmations).min(present.saturating_sub(2));
    let confirmed = len_u64(accusers).saturating_sub(1).min(wanted);
    let nanos = if wanted == 0 {
        min
    } else {
        let share = u128::from(log2_fixed(confirmed + 1));
        max - (max - min) * share / u128::from(log2_fixed(wanted + 1))
    };
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

fn nanos(duration: Duration) -> u128 {
    duration.as_nanos()
}

const FIXED_BITS: u32 = 16;
const FIXED_ONE: u64 = 1 << FIXED_BITS;

/// log2 of a number from 1 on, in units of 1/65,536, rounded down: the integer part is the place of the highest
/// bit; each further bit comes from squaring what is left.
fn log2_fixed(number: u64) -> u64 {
    let whole = number.max(1).ilog2();
    // The fraction's argument, 1 to 2 in units of 2^-32.
    let mut rest = if whole > 32 { number >> (whole - 32) } else { number.max(1) << (32 - whole) };
    let mut log = u64::from(whole) << FIXED_BITS;
    for bit in (0..FIXED_BITS).rev() {
        let square = (u128::from(rest) * u128::from(rest)) >> 32;
        rest = u64::try_from(square).unwrap_or(u64::MAX);
        if rest >= 2 << 32 {
            rest >>= 1;
            log |= 1 << bit;
        }
    }
    log
}

/// ceil(log2(present + 1)): rounds until an epidemic has reached all of so many members, about.
pub(crate) fn rounds(present: usize) -> u32 {
    len_u64(present).saturating_add(1).next_power_of_two().trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ClusterId;

    #[test]
    fn logarithms_are_exact_to_the_last_bit() {
        assert_eq!(log2_fixed(1), 0);
        assert_eq!(log2_fixed(2), FIXED_ONE);
        assert_eq!(log2_fixed(1 << 40), 40 * FIXED_ONE);
        // log2(10) = 3.3219280948...
        assert_eq!(log2_fixed(10), 217_705);
        assert_eq!(log2_fixed(3), 103_872);
    }

    #[test]
    fn a_suspicion_alone_lasts_longest_and_confirmations_shorten_it() {
        let config = Config::new(ClusterId(1));
        let times = [1, 2, 3, 4, 5].map(|accusers| timeout(&config, 100, accusers).as_millis());
        // 5 * log10(100) = 10 periods at least, 6 times that at most, and halfway with the first of three.
        assert_eq!(times[0].div_ceil(10), 6_000);
        assert_eq!(times[1].div_ceil(10), 3_500);
        assert!(times[2] < times[1] && times[2] > times[3], "{times:?}");
        assert_eq!(times[3].div_ceil(10), 1_000);
        assert_eq!(times[4], times[3], "more confirm nothing more");
    }

    #[test]
    fn with_nobody_to_confirm_the_least_time_counts() {
        let config = Config::new(ClusterId(1));
        assert_eq!(timeout(&config, 2, 1), Duration::from_secs(5));
        assert_eq!(timeout(&config, 3, 1), Duration::from_secs(30));
        assert_eq!(timeout(&config, 3, 2), Duration::from_secs(5));
    }

    #[test]
    fn accusers_are_counted_once_and_bounded() {
        let mut suspicion = Suspicion { accusers: Vec::new(), since: Instant(0) };
        assert!(suspicion.add(&[MemberId(3), MemberId(1), MemberId(3)]));
        assert!(!suspicion.add(&[MemberId(1)]));
        assert_eq!(suspicion.accusers, [MemberId(1), MemberId(3)]);
        let many: Vec<MemberId> = (10..50).map(MemberId).collect();
        assert!(suspicion.add(&many));
        assert_eq!(suspicion.accusers.len(), ACCUSERS_MAX);
        assert!(!suspicion.add(&[MemberId(99)]), "what is not kept is no news");
    }

    #[test]
    fn rounds_grow_with_the_logarithm() {
        assert_eq!([0, 1, 3, 4, 100, 1000].map(rounds), [0, 1, 2, 3, 7, 10]);
    }
}
