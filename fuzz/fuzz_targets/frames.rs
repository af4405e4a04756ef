//! See [`ring_fuzz::frames`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ring_fuzz::frames::run(data));
