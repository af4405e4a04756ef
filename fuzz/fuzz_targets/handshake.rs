//! See [`ring_fuzz::handshake`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ring_fuzz::handshake::run(data));
