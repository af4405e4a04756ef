//! See [`ring_fuzz::log_recovery`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ring_fuzz::log_recovery::run(data));
