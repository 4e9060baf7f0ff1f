//! Any script of operations, on a simulated disk, against the oracle (tests/attack): nothing that was acknowledged is lost
//! and nothing appears that never was, whatever the disk does (P3 to P8, P12).
//!
//! The first byte seeds the disk; every three after it are one operation. A finding prints the operations.

#![no_main]

#[path = "../../tests/attack/mod.rs"]
mod attack;

use attack::{Attack, decode};

/// No script is longer: what takes more is found by the crash tests.
const OPS_MAX: usize = 200;

/// No leak checks: retired entries of a lock-free map are freed some runs later, and to look for them
/// after every run takes longer than the run.
#[unsafe(no_mangle)]
pub extern "C" fn __asan_default_options() -> *const std::ffi::c_char {
    c"detect_leaks=0".as_ptr()
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((seed, bytes)) = input.split_first() else { return };
    let ops = decode(&bytes[..bytes.len().min(3 * OPS_MAX)]);
    if let Err(what) = Attack::script(u64::from(*seed), 2, &ops) {
        for (at, op) in ops.iter().enumerate() {
            eprintln!("{at:4} {op:?}");
        }
        panic!("disk {seed}: {what}");
    }
});
