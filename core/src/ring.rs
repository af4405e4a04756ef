//! Where names belong: the hash that all members and languages share.
//!
//! XXH64 with seed 0 of a name gives 64 bits; the upper 16 are its *slot*, one of 65,536. Shards
//! divide the slots into equal ranges.

use twox_hash::XxHash64;

use crate::ids::GroupId;

/// Number of slots.
pub const SLOTS: u32 = 1 << 16;

/// The slot of a name.
#[must_use]
pub fn slot_of(name: &[u8]) -> u16 {
    let [high, low, ..] = XxHash64::oneshot(0, name).to_be_bytes();
    u16::from_be_bytes([high, low])
}

/// The shard, out of `shards`, that holds a partition. The first shard is group 1.
#[must_use]
pub fn shard_of(partition: &[u8], shards: u32) -> GroupId {
    let place = u64::from(slot_of(partition)) * u64::from(shards) / u64::from(SLOTS);
    GroupId(u32::try_from(place).expect("a slot is less than SLOTS")).next()
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::vec;

    use super::*;

    /// The values of the hash's specification, and what follows from them. They never change.
    #[test]
    fn names_have_the_same_place_everywhere() {
        assert_eq!(XxHash64::oneshot(0, b""), 0xef46_db37_51d8_e999);
        assert_eq!(XxHash64::oneshot(0, b"a"), 0xd24e_c4f1_a98c_6e5b);

        assert_eq!(slot_of(b""), 0xef46);
        assert_eq!(slot_of(b"a"), 0xd24e);
        assert_eq!(shard_of(b"", 64), GroupId(60));
        assert_eq!(shard_of(b"a", 64), GroupId(53));
        assert_eq!(shard_of(b"a", 1), GroupId(1));
        assert_eq!(shard_of(b"a", 3), GroupId(3));
    }

    #[test]
    fn every_shard_gets_its_share_and_none_is_out_of_range() {
        for shards in [1, 2, 3, 64, 1000] {
            let mut counts = vec![0_u32; 1 + usize::try_from(shards).expect("small")];
            for n in 0..100_000_u32 {
                let GroupId(group) = shard_of(format!("partition {n}").as_bytes(), shards);
                counts[usize::try_from(group).expect("small")] += 1;
            }
            let fair = 100_000 / shards;
            assert_eq!(counts[0], 0, "group 0 is the directory's");
            assert!(counts[1..].iter().all(|c| *c > fair / 2 && *c < fair * 2), "{counts:?}");
        }
    }
}
