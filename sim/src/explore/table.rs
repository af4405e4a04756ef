//! Names for things: each distinct one is kept once, and is a number from then on.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::rc::Rc;

/// Things by number, and numbers by thing.
#[derive(Debug)]
pub(super) struct Table<T> {
    numbers: HashMap<Rc<T>, u32>,
    things: Vec<Rc<T>>,
}

impl<T: Eq + Hash> Table<T> {
    pub(super) fn new() -> Self {
        Self { numbers: HashMap::new(), things: Vec::new() }
    }

    /// The number of a thing.
    pub(super) fn number(&mut self, thing: T) -> u32 {
        if let Some(&number) = self.numbers.get(&thing) {
            return number;
        }
        let number = u32::try_from(self.things.len()).expect("memory ends before");
        let thing = Rc::new(thing);
        self.things.push(Rc::clone(&thing));
        self.numbers.insert(thing, number);
        number
    }

    /// The thing that has a number.
    pub(super) fn thing(&self, number: u32) -> &Rc<T> {
        &self.things[place(number)]
    }

    pub(super) fn len(&self) -> usize {
        self.things.len()
    }
}

/// A number as a place in a list.
pub(super) fn place(number: u32) -> usize {
    usize::try_from(number).expect("usize has at least 32 bits")
}

/// 128 bits of words: states are told apart by these, so that of n states one is taken for another with a chance
/// of about n²/2^129.
pub(super) fn fingerprint(words: &[u32]) -> u128 {
    let (mut low, mut high) = (0x243f_6a88_85a3_08d3_u64, 0x1319_8a2e_0370_7344_u64);
    for &word in words {
        low = mix(low ^ u64::from(word), 0x9e37_79b9_7f4a_7c15);
        high = mix(high.rotate_left(23) ^ u64::from(word), 0xd6e8_feb8_6659_fd93);
    }
    u128::from(mix(low, 0xa076_1d64_78bd_642f)) << 64 | u128::from(mix(high, 0xe703_7ed1_a0b4_28db))
}

/// A bijection for an odd factor: nothing is lost from word to word.
fn mix(bits: u64, factor: u64) -> u64 {
    let bits = (bits ^ bits >> 32).wrapping_mul(factor);
    bits ^ bits >> 29
}

/// For keys that are made of a few numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Quick(u64);

impl Hasher for Quick {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = mix(self.0 ^ word, 0x9e37_79b9_7f4a_7c15);
    }

    fn write_u128(&mut self, word: u128) {
        // Mixed already.
        self.0 ^= u64::try_from(word & u128::from(u64::MAX)).expect("the lower half");
    }
}

pub(super) type QuickBuilder = BuildHasherDefault<Quick>;
