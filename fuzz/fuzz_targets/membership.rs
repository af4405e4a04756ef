//! See [`ring_fuzz::membership`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ring_fuzz::membership::run(data));
