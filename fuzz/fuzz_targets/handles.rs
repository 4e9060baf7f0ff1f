//! Any script over several handles of few streams, on a simulated disk, against a copy of everything (tests/handles/several):
//! each handle shows what it should and every commit ends as it must, whatever leaders move, rings drop and disks refuse
//! (P2, P5, P8 to P10).

#![no_main]

mod script;
#[path = "../../tests/handles/several/mod.rs"]
mod several;

use several::{decode, play};

libfuzzer_sys::fuzz_target!(|input: &[u8]| script::run(input, decode, play));
