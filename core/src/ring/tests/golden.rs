//! Placements that never change, in any language. Whoever changes one on purpose changes `PARAMETERS` too.

use alloc::string::String;

use super::*;

/// XXH64, seed 0, of the ids in the order of the slots, eight bytes each, least significant first.
fn digest(of: impl Fn(u16) -> Option<MemberId>) -> u64 {
    let bytes: Vec<u8> =
        (0..=u16::MAX).flat_map(|slot| of(slot).unwrap_or_default().0.to_le_bytes()).collect();
    XxHash64::oneshot(0, &bytes)
}

fn assert_slots(set: Set, owners: u64, nexts: u64, first: [u64; 16], order: &[u64]) {
    let placement = place(&set);
    let found: Vec<u64> = (0..16).map(|slot| placement.owner(slot).unwrap().0).collect();
    assert_eq!(found, first);
    assert_eq!(placement.owners(1000, 5), order.iter().copied().map(MemberId).collect::<Vec<_>>());
    assert_eq!(digest(|slot| placement.owner(slot)), owners);
    assert_eq!(digest(|slot| placement.next(slot, &[])), nexts);
}

#[test]
fn slots_fall_to_the_same_members_for_ever() {
    assert_slots(equal(1), 0x4901_0c2b_53e2_f17d, 0x091a_b0b4_b605_c552, [1; 16], &[1]);
    assert_slots(
        equal(3),
        0x5f9f_bdef_473c_225a,
        0x59fa_9d54_b93b_ebc1,
        [2, 2, 3, 2, 1, 2, 1, 3, 2, 1, 3, 2, 3, 1, 2, 2],
        &[1, 3, 2],
    );
    assert_slots(
        equal(100),
        0xfe83_253e_ca5b_4334,
        0x9c1e_d5be_52cd_b283,
        [66, 42, 46, 56, 65, 30, 42, 5, 99, 45, 34, 70, 83, 13, 19, 59],
        &[87, 16, 88, 53, 20],
    );
    assert_slots(
        equal(1000),
        0xef34_9994_97b9_19b0,
        0x4b67_6ad5_f735_beef,
        [799, 42, 581, 926, 920, 709, 210, 261, 741, 583, 754, 745, 970, 13, 709, 456],
        &[142, 87, 555, 664, 280],
    );
    assert_slots(
        vec![(MemberId(1), 1), (MemberId(2), 2), (MemberId(3), 300)],
        0x47e6_940f_eff1_38e3,
        0xbdb3_7f8a_938a_e22e,
        [3; 16],
        &[3, 1, 2],
    );
}

fn assert_shards(set: Set, shards: u32, replicas: u32, expected: &str) {
    let placement = ShardPlacement::new(set, shards, replicas);
    let line = |line: &[MemberId]| line.iter().map(|member| format!("{}", member.0)).collect();
    let lines: Vec<String> = placement.iter().map(|(_, members)| line(members)).collect();
    assert_eq!(lines, expected.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn shards_fall_to_the_same_members_for_ever() {
    assert_shards(
        equal(3),
        64,
        3,
        "213 231 312 321 231 312 213 321 321 231 312 132 213 213 312 321 312 123 231 123 321 312 \
         213 231 213 321 231 132 312 231 321 321 213 132 123 231 312 132 123 123 213 132 231 213 \
         123 312 132 213 123 321 312 132 231 132 231 123 132 123 123 132 321 312 123 132",
    );
    assert_shards(
        equal(5),
        64,
        3,
        "421 523 531 453 231 432 243 354 435 423 324 134 512 215 453 345 345 143 254 124 314 314 \
         521 423 213 351 231 541 534 231 341 324 512 153 512 213 531 154 314 412 452 123 253 213 \
         145 351 124 251 412 432 543 145 235 154 425 541 134 241 521 125 534 315 132 413",
    );
    assert_shards(
        vec![(MemberId(1), 1), (MemberId(2), 2), (MemberId(3), 3), (MemberId(4), 1)],
        16,
        2,
        "23 23 32 23 32 34 23 34 23 13 42 14 41 32 31 32",
    );
}

#[test]
fn the_parameters_have_a_number() {
    assert_eq!(parameters(), 0xe21b_eaa9_b14d_3024);
}
