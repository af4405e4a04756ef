//! See [`ring_fuzz::entries`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ring_fuzz::entries::run(data));
