//! Which datagrams of a sender were seen already: a sliding window, as in RFC 4303 section 3.4.3.

/// The window over the sequence numbers of one sender's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Window {
    life: u64,
    /// The greatest number seen.
    top: u64,
    /// Bit i: `top - i` was seen.
    seen: u64,
}

impl Window {
    /// The window of a sender that has just proven that it sent number `top` now: nothing before it counts.
    pub(crate) fn proven(life: u64, top: u64) -> Self {
        Self { life, top, seen: u64::MAX }
    }

    pub(crate) fn life(self) -> u64 {
        self.life
    }

    /// True if the number was not seen and is not too old to know; then it counts as seen.
    pub(crate) fn accept(&mut self, seq: u64) -> bool {
        if seq > self.top {
            let ahead = seq - self.top;
            let shift = u32::try_from(ahead).unwrap_or(u32::MAX);
            self.seen = self.seen.checked_shl(shift).unwrap_or(0) | 1;
            self.top = seq;
            return true;
        }
        let Ok(behind) = u32::try_from(self.top - seq) else { return false };
        let Some(bit) = 1_u64.checked_shl(behind) else { return false };
        let fresh = self.seen & bit == 0;
        self.seen |= bit;
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    #[test]
    fn nothing_before_the_proof_counts() {
        let mut window = Window::proven(1, 100);
        assert!(!window.accept(100) && !window.accept(99) && !window.accept(3));
        assert!(window.accept(101) && !window.accept(101));
        assert!(window.accept(103) && window.accept(102) && !window.accept(102));
    }

    #[test]
    fn numbers_too_old_to_know_do_not_count() {
        let mut window = Window::proven(1, 0);
        assert!(window.accept(1000));
        assert!(window.accept(1000 - 63) && !window.accept(1000 - 64));
        assert!(window.accept(u64::MAX) && !window.accept(1000));
    }

    proptest! {
        /// The slow twin remembers every number.
        #[test]
        fn accepts_each_number_once(
            seqs in proptest::collection::vec(prop_oneof![0..200_u64, any::<u64>()], 0..300),
        ) {
            let mut window = Window::proven(1, 50);
            let (mut top, mut seen) = (50, BTreeSet::new());
            for seq in seqs {
                let known = seq <= 50 || seen.contains(&seq) || (seq < top && top - seq > 63);
                prop_assert_eq!(window.accept(seq), !known);
                seen.insert(seq);
                top = top.max(seq);
            }
        }
    }
}
