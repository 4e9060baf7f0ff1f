//! Any script of operations, on a simulated disk, against the oracle (tests/crashes/attack): nothing that was acknowledged is lost
//! and nothing appears that never was, whatever the disk does (P3 to P8, P12).

#![no_main]

#[path = "../../tests/crashes/attack/mod.rs"]
mod attack;
mod script;

use amberlog::sim::SimDisk;
use attack::{Attack, decode};

libfuzzer_sys::fuzz_target!(|input: &[u8]| script::run(input, decode, |seed, ops| Attack::script(
    SimDisk::new(seed),
    2,
    ops
)));
