//! See [`ring_fuzz::datagrams`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ring_fuzz::datagrams::run(data));
