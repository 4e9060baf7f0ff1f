//! Does a handle ever differ from a copy of all that it should show, whatever is done through it and others?
//!
//! P2, P5, P8, P9, P10. Lives of chance over several handles of few streams (see `several`), a script of 150 operations
//! each. A life that fails is made as short as it can be; its seed and its operations are printed.

use super::several::{Op, Tally, decode, play};
use super::support::script::{every_life, played};
use super::support::{Rng, env_or};

/// Lives of a plain run.
const LIVES: u64 = 300;
/// Operations of a life.
const OPS: usize = 150;

fn script(seed: u64) -> Vec<Op> {
    let mut rng = Rng::new(seed);
    let bytes: Vec<u8> = (0..3 * OPS).map(|_| (rng.next() >> 32) as u8).collect();
    decode(&bytes)
}

fn run(seed: u64, script: &[Op]) -> Result<Tally, String> {
    played(|| play(seed, script))
}

/// P2, P5, P8, P9, P10: every handle and every stream equals its copy after every step, and every commit ends as it must.
#[test]
fn p5_p8_p9_p10_every_handle_equals_its_copy() {
    let (from, lives) = (env_or("AMBERLOG_FROM", 0), LIVES * env_or("AMBERLOG_EFFORT", 1));
    let mut tally = Tally::default();
    every_life(from..from + lives, script, run).iter().for_each(|life| tally.add(life));
    for what in [
        "moved",
        "gap",
        "conflict",
        "full",
        "failure",
        "poisoned",
        "fault",
        "gave back",
        "refused",
        "went back",
        "too late",
        "fork",
        "rewind",
        "rewind in flight",
        "rewind behind",
        "trim",
        "trim of volatile events",
        "trim and events",
        "deletion",
        "opening",
    ] {
        assert!(tally.count(what) > lives / 10, "{what}: {tally:?}");
    }
}

/// An engine whose savepoints are seqs, that loses, repeats or miscounts what a failed commit gives back, writes where it
/// should not, or reads an old generation is noticed within the lives of a plain run.
#[cfg(amberlog_sabotage)]
#[test]
fn control_what_a_handle_should_not_show_is_noticed() {
    use amberlog::{Sabotage, sabotage};
    for what in [
        Sabotage::SaveSeqs,
        Sabotage::LoseFailedEvents,
        Sabotage::RepeatFailedEvents,
        Sabotage::MiscountGaps,
        Sabotage::SkipConflict,
        Sabotage::KeepGeneration,
        Sabotage::KeepCutEvents,
        Sabotage::CutUnseen,
    ] {
        let broken = sabotage(what);
        let found = (0..LIVES).any(|seed| run(seed, &script(seed)).is_err());
        drop(broken);
        assert!(found, "{what:?} went unnoticed");
    }
}
