//! Several handles of few streams, against a copy of everything.
//!
//! A script of operations makes handles of the same streams, appends through them, overwrites, commits with every
//! expectation while other commits are queued, goes back to savepoints, forks, rewinds, trims, deletes, and lets groups
//! fail. The oracle is the one of the crash tests, with a model of each handle: what it has seen of the durable events, the
//! shares of its commits in flight, and its ring with its gap. Outcomes are predicted before a group is led, by kind and
//! fields; after every step each handle is read both ways and each stream in a read view. Every step runs in this thread, so
//! a script and its disk repeat exactly.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "the tests and the fuzz target `handles` take their own part of it"
)]

mod hand;
mod life;
mod ops;
#[path = "../../crashes/attack/oracle.rs"]
mod oracle;
#[path = "../../crashes/attack/reading.rs"]
mod reading;
#[path = "../../crashes/attack/script.rs"]
mod script;
mod settle;
mod tally;

pub use life::Life;
pub use ops::Op;
pub use script::decode;
pub use tally::Tally;

/// Plays a script on an empty disk with this seed, and returns what it amounted to.
///
/// # Errors
///
/// The first operation after which something is not as the oracle says.
pub fn play(seed: u64, script: &[Op]) -> Result<Tally, String> {
    let mut life = Life::new(seed)?;
    for (at, op) in script.iter().enumerate() {
        life.step(*op).map_err(|what| format!("operation {at}, {op:?}: {what}"))?;
    }
    life.end().map_err(|what| format!("at the end: {what}"))
}
