//! How much a member and a slot want each other: one number for both, so that a placement is stable.
//!
//! Each member ranks all slots by a permutation that its id alone determines. The rank becomes a *distance*: the
//! expected value of that order statistic of 65,536 exponential draws, divided by the member's weight. The least of
//! several exponential draws falls to each in proportion to its rate, so a slot is nearest to a member with a chance
//! proportional to its weight, and stays nearest to it whoever else comes or goes (rendezvous hashing: Thaler and
//! Ravishankar 1998; with weights: Schindelhauer and Schomaker 2005).
//!
//! A permutation can be walked in both directions. From rank to slot, a member names the slots nearest to it one after
//! another, which is what makes a placement cheap; from slot to rank, the members can be ordered around one slot.
//! All arithmetic is on integers and so the same everywhere.

use twox_hash::XxHash64;

use super::SLOTS;
use crate::ids::MemberId;

/// A member's ranking of the slots.
#[derive(Clone, Debug)]
pub(super) struct Ranking {
    rounds: [Round; ROUNDS],
    /// Parts the distances of members that rank a slot alike.
    phase: u16,
    /// Moves the rounding of the member's bound, so that the bounds of all do not step at once.
    pub(super) rounding: u16,
    /// 2^32 divided by the weight.
    slowness: u64,
}

/// One round: multiply and add modulo 2^16, then fold the upper byte into the lower one.
#[derive(Clone, Copy, Debug)]
struct Round {
    factor: u16,
    inverse: u16,
    addend: u16,
}

/// How far a slot is from a member: 48 bits, and below them the member's place in the order of ids, so that no two
/// members are equally far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Distance(pub(super) u64);

impl Distance {
    /// Further than every slot.
    pub(super) const NONE: Self = Self(u64::MAX);

    /// Which member's distance it is: its place in the order of ids.
    pub(super) fn member(self) -> u16 {
        let [.., high, low] = self.0.to_be_bytes();
        u16::from_be_bytes([high, low])
    }
}

impl Ranking {
    /// The ranking of a member; `weight` is not zero.
    pub(super) fn new(member: MemberId, weight: u16) -> Self {
        let id = member.0.to_le_bytes();
        let mut words = [0_u16; 2 * ROUNDS + 2];
        for (seed, four) in (1_u64..).zip(words.chunks_mut(4)) {
            let hash = XxHash64::oneshot(seed, &id).to_le_bytes();
            for (word, pair) in four.iter_mut().zip(hash.chunks(2)) {
                *word = u16::from_le_bytes([pair[0], pair[1]]);
            }
        }
        let round = |k: usize| {
            let factor = words[2 * k] | 1;
            Round { factor, inverse: inverse(factor), addend: words[2 * k + 1] }
        };
        Self {
            rounds: core::array::from_fn(round),
            phase: words[2 * ROUNDS] | 1,
            rounding: words[2 * ROUNDS + 1],
            slowness: (1 << 32) / u64::from(weight.max(1)),
        }
    }

    /// The slot of a rank.
    #[inline]
    pub(super) fn slot(&self, rank: u16) -> u16 {
        self.rounds.iter().fold(rank, |x, round| {
            let x = x.wrapping_mul(round.factor).wrapping_add(round.addend);
            x ^ (x >> 8)
        })
    }

    /// The rank of a slot.
    pub(super) fn rank(&self, slot: u16) -> u16 {
        self.rounds.iter().rev().fold(slot, |x, round| {
            let x = x ^ (x >> 8);
            x.wrapping_sub(round.addend).wrapping_mul(round.inverse)
        })
    }

    /// How far the slot of this rank is from this member, whose place in the order of ids is `member`.
    #[inline]
    pub(super) fn distance(&self, rank: u16, slot: u16, member: u16) -> Distance {
        let at = usize::from(rank);
        let (low, high) = (u64::from(DISTANCES[at]), u64::from(DISTANCES[at + 1]));
        let phase = u64::from(slot.wrapping_mul(self.phase));
        let distance = low + (((high - low) * phase) >> 16);
        Distance(((distance * self.slowness) & !0xffff) | u64::from(member))
    }

    /// How far a slot is from this member.
    pub(super) fn distance_of(&self, slot: u16, member: u16) -> Distance {
        self.distance(self.rank(slot), slot, member)
    }
}

/// The inverse of an odd number modulo 2^16, by Newton's iteration: each step doubles the bits that are right.
fn inverse(odd: u16) -> u16 {
    (0..4).fold(odd, |x, _| x.wrapping_mul(2_u16.wrapping_sub(odd.wrapping_mul(x))))
}

/// The sum over k below `rank` of 2^28 / (65,536 - k), each term rounded down: the expected value of the order
/// statistics of 65,536 exponential draws, with 28 bits after the point.
static DISTANCES: [u32; 65_537] = {
    let mut table = [0; 65_537];
    let mut rank = 0;
    let mut left = SLOTS;
    while left > 0 {
        table[rank + 1] = table[rank] + (1 << 28) / left;
        rank += 1;
        left -= 1;
    }
    table
};

const ROUNDS: usize = 3;
