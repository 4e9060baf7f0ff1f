//! Does anything that was acknowledged get lost, or anything appear that never was, whatever the disk does?
//!
//! P3–P8, P12; F1–F9, F11, F12, F16, F20, F24–F28, F39. Scripts of operations (tests/attack) run on a
//! simulated disk that is stopped, fails or fills up at some call. What is left of it is opened again and
//! compared with the oracle: by chance for long scripts, in every way there is for short ones.
//!
//! A failure prints the script's number; `AMBERLOG_REPLAY=<number>` runs that one alone, with its operations
//! printed. `AMBERLOG_EFFORT` says how much is tried: 1 for a quick run, 32 in the gate, more for longer;
//! `AMBERLOG_FROM` with which script to begin.
#![cfg(feature = "sim")]

mod attack;
mod support;

use attack::{Attack, Op, Stats, decode, short};
use support::{Rng, env_or};

/// In how many ways each power cut is looked at.
const CUTS: u64 = 8;

fn effort() -> u64 {
    env_or("AMBERLOG_EFFORT", 1).max(1)
}

/// How often what chance decides is decided anew.
fn seeds() -> u64 {
    effort().min(4)
}

/// How many ways of a power cut are looked at in the middle of a longer story.
fn ways() -> u64 {
    (4 * effort()).min(64)
}

/// The script of this number: of chance, but some are of one kind, for what chance alone never brings.
fn script(number: u64) -> Vec<Op> {
    let mut rng = Rng::new(number);
    let uniform = rng.one_in(3);
    let calm = rng.one_in(2);
    let length = 20 + rng.below(140);
    let mut bytes = Vec::new();
    for _ in 0..length {
        let (mut op, a, mut b) = (rng.below(256) as u8, rng.below(256) as u8, rng.below(256) as u8);
        if calm && op % 32 >= 28 && !rng.one_in(4) {
            op = 8;
        }
        if uniform && op % 32 < 8 {
            // Events of one size: then what an earlier life left lies where a record may start.
            b = 10;
        }
        if uniform && (8..17).contains(&(op % 32)) && !rng.one_in(4) {
            b = 12;
        }
        bytes.extend([op, a, b]);
    }
    decode(&bytes)
}

fn attack(number: u64, cuts: u64) -> Result<Stats, String> {
    Attack::script(number, cuts, &script(number))
}

/// Runs one script and says what happens: before each operation, the number of the disk's next call.
fn replay(number: u64) {
    let mut attack = Attack::new(number, CUTS).expect("opens");
    for (at, op) in script(number).into_iter().enumerate() {
        println!("{at:4} call {:5} {op:?}", attack.calls());
        let step = attack.step(op);
        if step.is_err() {
            println!("the disk: {:#?}", amberlog::survey_on(&attack.disk().copy()));
        }
        step.expect("no finding");
    }
    attack.step(Op::PowerCut { seed: 0 }).expect("no finding at the end");
}

#[test]
fn p3_p4_p5_p6_whatever_the_disk_does() {
    if let Ok(number) = std::env::var("AMBERLOG_REPLAY") {
        let number = number.parse().expect("the number of a script");
        replay(number);
        return;
    }
    let first = env_or("AMBERLOG_FROM", 1);
    let mut total = Stats::default();
    for number in first..first + 60 * effort() {
        let found = attack(number, CUTS);
        total.add(found.unwrap_or_else(|what| panic!("AMBERLOG_REPLAY={number}: {what}")));
    }
    tell("scripts of chance", &total);
}

/// F1, F2, F25, F39: nothing is left to chance where there are few enough ways.
#[test]
fn p3_p4_p6_every_way_of_every_power_cut() {
    let most = 16 * effort();
    for (what, script) in short::scripts() {
        let (stats, all, calls) =
            short::every_crash(&script, most).unwrap_or_else(|found| panic!("{what}: {found}"));
        tell(&format!("{what}: {all} of {calls} calls in every way"), &stats);
    }
}

/// F1, F27: what a process that is killed leaves to the next one is in memory only.
#[test]
fn p3_p6_killed_at_every_call_and_then_the_power_fails() {
    let mut total = Stats::default();
    for (what, script) in short::scripts() {
        let stats = short::every_kill(&script, seeds(), ways());
        total.add(stats.unwrap_or_else(|found| panic!("{what}: {found}")));
    }
    tell("every kill", &total);
}

/// F25, F27: recovery may be cut anywhere, and still ends in the same place.
#[test]
fn p6_f25_every_recovery_is_killed_at_every_call() {
    let mut total = Stats::default();
    for (what, script) in short::scripts() {
        let stats = short::every_recovery(&script, effort().min(3), ways().min(8) / 2);
        total.add(stats.unwrap_or_else(|found| panic!("{what}: {found}")));
    }
    tell("every recovery", &total);
}

/// F5, F8, F9, F10, F11, F12: whatever goes wrong, once, at any call.
#[test]
fn p5_every_call_goes_wrong_in_every_way() {
    let mut total = Stats::default();
    for (what, script) in short::scripts() {
        let stats = short::every_fault(&script, seeds(), ways());
        total.add(stats.unwrap_or_else(|found| panic!("{what}: {found}")));
        let stats = short::every_double_fault(&script, ways());
        total.add(stats.unwrap_or_else(|found| panic!("{what}: {found}")));
    }
    tell("every fault", &total);
}

fn tell(what: &str, stats: &Stats) {
    let Stats { operations, commits, faults, crashes, states } = stats;
    let states = states.len();
    println!(
        "{what}: {crashes} crashes, {states} states of the disk, {faults} faults, {commits} commits, \
         {operations} operations"
    );
}
