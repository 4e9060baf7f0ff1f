//! Any bytes, taken for any record (P13).

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| amberlog::fuzzing::frame(bytes));
