//! What the targets share that play scripts: the first byte seeds the disk; every three after it are one operation. A
//! finding prints the operations.

use std::fmt::Debug;

/// Maximum length of a script: what takes more is found by the tests.
const OPS_MAX: usize = 200;

/// No leak checks: retired entries of a lock-free map are freed some runs later, and to look for them
/// after every run takes longer than the run.
#[unsafe(no_mangle)]
pub extern "C" fn __asan_default_options() -> *const std::ffi::c_char {
    c"detect_leaks=0".as_ptr()
}

/// Plays the script that an input stands for.
///
/// # Panics
///
/// When the script is played to a finding.
pub fn run<Op: Debug, T>(
    input: &[u8],
    decode: fn(&[u8]) -> Vec<Op>,
    play: fn(u64, &[Op]) -> Result<T, String>,
) {
    let Some((seed, bytes)) = input.split_first() else { return };
    let ops = decode(&bytes[..bytes.len().min(3 * OPS_MAX)]);
    if let Err(what) = play(u64::from(*seed), &ops) {
        for (at, op) in ops.iter().enumerate() {
            eprintln!("{at:4} {op:?}");
        }
        panic!("disk {seed}: {what}");
    }
}
