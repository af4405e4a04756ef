//! See [`ring_fuzz::node`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ring_fuzz::node::run(data));
