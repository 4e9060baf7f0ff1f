//! One language of operations and one oracle, for every test that attacks the log: property tests, crash
//! tests, negative controls and the fuzz target `ops` all speak it.
//!
//! A script is a list of [`Op`]s. It runs on a simulated disk, against an oracle that shares no code with the
//! engine: lists of payloads, and the rules of docs/testing.md. Everything follows from the script and the
//! seed of the disk, so a failure is repeated by running the same again.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "every user takes its own part of it"
)]

#[cfg(feature = "json")]
mod carry;
mod commits;
mod crash;
mod keep;
mod life;
mod ops;
mod oracle;
mod reading;
mod run;
mod script;
pub mod short;

pub use ops::Op;
pub use run::{Attack, Stats, options};
pub use script::decode;
