//! Is every stream what a deep copy of it would be, after every step of any life, whichever way it is read?
//!
//! P1, P2, P7, P9, P12; F24. A script of operations makes streams with gaps (also of more than 2^32 seqs), forks them, and
//! their forks, rewinds, trims, archives, deletes, compacts and opens them again; a test keeps a copy of each that shares
//! nothing with any other. After every step each stream is read through its handle, in the process, and by a fresh
//! opening without a lock: forwards, backwards, from its seqs, from both ends in turns, and by position. At the end of
//! a script it also equals what comes of its exports and of its archive file.
//!
//! A script that fails is made as short as it can be, and is printed.
#![cfg(all(feature = "sim", feature = "json"))]

mod life;
mod reading;

use crate::support::script::{every_life, played};
use crate::support::{Rng, env_or};
use life::Life;

/// Lives of a plain run.
const LIVES: u64 = 60;
/// Steps of a life.
const STEPS: usize = 100;

/// A step of a script. Streams are chosen by number, seqs by a number that picks one of those that matter.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// A stream; a recorder has a ring for few events and drops the oldest.
    Create { recorder: bool },
    /// A stream whose second event stands behind a gap of this many seqs.
    Leap { seqs: u64 },
    /// Appends events, and commits them or not.
    Append { stream: u8, events: u8, bytes: u16, commits: bool },
    /// Commits a stream.
    Commit { stream: u8 },
    /// Commits all streams at once.
    CommitAll,
    /// A fork, a recorder or not, which gets events of its own and is committed, or not yet.
    Fork { stream: u8, seq: u16, recorder: bool, events: u8 },
    /// Goes back, and commits that or not.
    Rewind { stream: u8, seq: u16, commits: bool },
    /// Forgets what is in front of a seq, and commits that or not.
    Trim { stream: u8, seq: u16, commits: bool },
    /// Sets a label, and commits that alone.
    Label { stream: u8 },
    /// Archives a stream and takes that back.
    Archive { stream: u8 },
    /// Deletes a stream.
    Delete { stream: u8 },
    /// Drops the handle of a stream and makes another one.
    OpenStream { stream: u8 },
    /// Fills the segment that commits go to with what is deleted at once, and compacts all that is dead.
    Compact,
    /// Closes the log and opens it again.
    Reopen,
    /// Exports and archive files of all streams.
    Carry,
}

fn op(rng: &mut Rng) -> Op {
    let (stream, seq) = (rng.next() as u8, rng.next() as u16);
    match rng.below(40) {
        0..3 => Op::Create { recorder: !rng.one_in(3) },
        3 => Op::Leap { seqs: leap(rng) },
        4..13 => {
            let (events, bytes) = (1 + rng.below(14) as u8, 10 + rng.below(300) as u16);
            Op::Append { stream, events, bytes, commits: !rng.one_in(4) }
        }
        13 | 14 => Op::Commit { stream },
        15 => Op::CommitAll,
        16..22 => {
            let events = rng.below(12).saturating_sub(3) as u8;
            Op::Fork { stream, seq, recorder: rng.one_in(2), events }
        }
        22..26 => Op::Rewind { stream, seq, commits: !rng.one_in(3) },
        26..30 => Op::Trim { stream, seq, commits: !rng.one_in(3) },
        30 => Op::Label { stream },
        31 => Op::Archive { stream },
        32 => Op::Delete { stream },
        33 => Op::OpenStream { stream },
        34..38 => Op::Compact,
        38 => Op::Reopen,
        _ => Op::Carry,
    }
}

/// Lengths around those that a field of a format might hold.
fn leap(rng: &mut Rng) -> u64 {
    let bits = [8, 16, 31, 32, 33, 40, 62][rng.below(7) as usize];
    (1_u64 << bits) + rng.below(5) - 2
}

/// Plays a script, in which every stream has to be its copy after every step.
fn run(seed: u64, script: &[Op]) -> Result<(), String> {
    played(|| {
        let mut life = Life::new(seed);
        for (step, op) in script.iter().enumerate() {
            life.step(*op);
            life.check(step, *op);
        }
        life.carry();
        life.close();
        Ok(())
    })
}

fn script(seed: u64) -> Vec<Op> {
    let mut rng = Rng::new(seed);
    (0..STEPS).map(|_| op(&mut rng)).collect()
}

#[test]
fn p7_p9_p12_every_stream_equals_its_copy_whichever_way_it_is_read() {
    let from = env_or("AMBERLOG_FROM", 0);
    every_life(from..from + env_or("AMBERLOG_SEEDS", LIVES), script, run);
}

/// An engine that keeps gaps for some readers only, cuts their length, or forgets whose they were, is noticed.
#[cfg(amberlog_sabotage)]
#[test]
fn control_gaps_that_are_not_what_they_were_are_noticed() {
    use amberlog::{Sabotage, sabotage};
    for what in [Sabotage::CompactGaps, Sabotage::ShortGaps, Sabotage::ForgetCutGaps] {
        let broken = sabotage(what);
        let found = (0..LIVES).any(|seed| run(seed, &script(seed)).is_err());
        drop(broken);
        assert!(found, "{what:?} went unnoticed");
    }
}

/// Damage is reported of a stream of which a compactor dropped too much, though every byte that is left is as it was written.
#[cfg(amberlog_sabotage)]
#[test]
fn control_what_cannot_be_read_any_more_is_not_verified_as_sound() {
    use amberlog::sim::verify_on;
    use amberlog::{Sabotage, sabotage};
    let _broken = sabotage(Sabotage::CompactGaps);
    let found = (0..LIVES).any(|seed| {
        let mut life = Life::new(seed);
        script(seed).into_iter().any(|op| {
            life.step(op);
            let report = verify_on(life.disk());
            report.is_ok_and(|report| report.recovery.is_sound() && !report.is_sound())
        })
    });
    assert!(found, "it was said to be sound");
}
