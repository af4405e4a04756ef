use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use core::iter;
use core::ops::Range;

use proptest::prelude::*;

use super::*;
use crate::ids::MemberId;
use crate::rng::Rng;

mod golden;
mod shards;
mod slots;
mod view;

type Set = Vec<(MemberId, u16)>;

/// Members 1 to `count`, all of weight 1.
fn equal(count: u64) -> Set {
    (1..=count).map(|id| (MemberId(id), 1)).collect()
}

/// So many members with drawn ids, all of weight 1.
fn drawn(count: u64, rng: &mut Rng) -> Set {
    (0..count).map(|_| (MemberId(rng.next() >> 1), 1)).collect()
}

/// Up to `count` members out of 20, with weights of all sizes.
fn sets(count: usize) -> impl Strategy<Value = Set> {
    let weight = prop_oneof![Just(1), 0..=4_u16, 0..=300_u16, any::<u16>()];
    let member = (1..=20_u64, weight);
    prop::collection::vec(member, 0..=count).prop_map(|members| {
        let set: BTreeMap<u64, u16> = members.into_iter().collect();
        set.into_iter().map(|(id, weight)| (MemberId(id), weight)).collect()
    })
}

/// The same in another order, with one member named twice.
fn shuffled(set: &Set, seed: u64) -> Set {
    let mut rng = Rng::new(seed);
    let mut set: Set = set.iter().chain(set.first()).copied().collect();
    set.sort_by_cached_key(|_| rng.next());
    set
}

/// The ranges of a member that owns every slot.
fn everything() -> Vec<Range<u32>> {
    iter::once(0..SLOTS).collect()
}

fn place(set: &Set) -> Placement {
    Placement::new(set.iter().copied())
}

/// The values of the hash's specification, and what follows from them. They never change.
#[test]
fn names_have_the_same_place_everywhere() {
    assert_eq!(XxHash64::oneshot(0, b""), 0xef46_db37_51d8_e999);
    assert_eq!(XxHash64::oneshot(0, b"a"), 0xd24e_c4f1_a98c_6e5b);
    // The sanity buffer of the reference implementation, in lengths of all code paths.
    let mut byte_gen = 2_654_435_761_u64;
    let sanity: Vec<u8> = (0..222)
        .map(|_| {
            let [byte, ..] = byte_gen.to_be_bytes();
            byte_gen = byte_gen.wrapping_mul(11_400_714_785_074_694_797);
            byte
        })
        .collect();
    let hashes = [
        (1, 0xe934_a84a_db05_2768),
        (4, 0x9136_a0dc_a574_57ee),
        (14, 0x8282_dcc4_994e_35c8),
        (222, 0xb641_ae8c_b691_c174),
    ];
    for (len, hash) in hashes {
        assert_eq!(XxHash64::oneshot(0, &sanity[..len]), hash, "{len} bytes");
    }

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
