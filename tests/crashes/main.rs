//! Does anything that was acknowledged get lost, or anything appear that never was, whatever the disk does?
//!
//! P3–P8, P12; F1–F9, F11, F12, F16, F20, F24–F28, F39. Scripts of operations (tests/attack) run on a
//! simulated disk that is stopped, fails or fills up at some call. What is left of it is opened again and
//! compared with the oracle: by chance for long scripts, in every way there is for short ones (a plain run stops some of
//! them at every fourth call).
//!
//! A failure prints the script's number; `AMBERLOG_REPLAY=<number>` runs that one alone, with its operations
//! printed. `AMBERLOG_EFFORT` says how much is tried: 1 for a quick run, 32 in the gate, more for longer;
//! `AMBERLOG_FROM` with which script to begin.
#![cfg(feature = "sim")]

mod attack;
mod controls;
mod lies;
#[path = "../support/mod.rs"]
mod support;

use std::thread;

use amberlog::sim::{Fault, SimDisk};
use amberlog::{Log, StreamId};
use attack::{Attack, Op, Stats, decode, options, short};
use proptest::prelude::{ProptestConfig, TestCaseError, any, proptest};
use proptest::test_runner::RngSeed;
use support::{Rng, env_or, sparsely};

/// In how many ways each power cut is looked at.
const CUTS: u64 = 8;

fn effort() -> u64 {
    env_or("AMBERLOG_EFFORT", 1).max(1)
}

/// Returns the number of random scripts.
fn seeds() -> u64 {
    effort().min(4)
}

/// Returns the number of outcomes of a power cut that are tried in the middle of a longer story.
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
    Attack::script(SimDisk::new(number), cuts, &script(number))
}

/// Runs one script and says what happens: before each operation, the number of the disk's next call.
fn replay(number: u64) {
    let mut attack = Attack::new(SimDisk::new(number), CUTS).expect("opens");
    for (at, op) in script(number).into_iter().enumerate() {
        println!("{at:4} call {:5} {op:?}", attack.calls());
        let step = attack.step(op);
        if step.is_err() {
            println!(
                "the disk: {:#?}",
                crate::support::verified::checked_on(&attack.disk().copy())
            );
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
        let (stats, all, calls) = short::every_crash(&SimDisk::new, &script, most)
            .unwrap_or_else(|found| panic!("{what}: {found}"));
        tell(&format!("{what}: {all} of {calls} calls in every way"), &stats);
    }
}

/// F1, F27: what a process that is killed leaves to the next one is in memory only.
#[test]
fn p3_p6_killed_at_every_call_and_then_the_power_fails() {
    let mut total = Stats::default();
    for (what, script) in short::scripts() {
        let stats = short::every_kill(&SimDisk::new, &script, sparsely(), seeds(), ways());
        total.add(stats.unwrap_or_else(|found| panic!("{what}: {found}")));
    }
    tell("every kill", &total);
}

/// F25, F27: recovery may be cut anywhere, and still ends in the same place.
#[test]
fn p6_f25_every_recovery_is_killed_at_every_call() {
    let mut total = Stats::default();
    for (what, script) in short::scripts() {
        let stats = short::every_recovery(
            &SimDisk::new,
            &script,
            sparsely(),
            effort().min(3),
            ways().min(8) / 2,
        );
        total.add(stats.unwrap_or_else(|found| panic!("{what}: {found}")));
    }
    tell("every recovery", &total);
}

/// F5, F8, F9, F10, F11, F12: whatever goes wrong, once, at any call.
#[test]
fn p5_every_call_goes_wrong_in_every_way() {
    let mut total = Stats::default();
    for (what, script) in short::scripts() {
        let stats = short::every_fault(&SimDisk::new, &script, sparsely(), seeds(), ways());
        total.add(stats.unwrap_or_else(|found| panic!("{what}: {found}")));
        let stats = short::every_double_fault(&SimDisk::new, &script, sparsely(), ways());
        total.add(stats.unwrap_or_else(|found| panic!("{what}: {found}")));
    }
    tell("every fault", &total);
}

/// The same as the first, as a property: what is found is shrunk to the shortest script that shows it.
#[test]
fn p3_p8_any_script_as_a_property() {
    let config = ProptestConfig {
        cases: 24 * effort() as u32,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(env_or("AMBERLOG_FROM", 1)),
        ..ProptestConfig::default()
    };
    let scripts = proptest::collection::vec(proptest::array::uniform3(any::<u8>()), 1..120);
    proptest!(config, |(bytes in scripts)| {
        let ops = decode(&bytes.concat());
        if let Err(what) = Attack::script(SimDisk::new(1), 2, &ops) {
            return Err(TestCaseError::fail(format!("{what}, in {ops:?}")));
        }
    });
}

/// F4, F32: as above, with threads of the system, the log's own among them, on one disk that stops at some call. No
/// two runs are the same, so this asks little, of many orders: what was acknowledged is there, each stream
/// dense, and of a commit over two streams both parts or none.
#[test]
fn p3_p4_p7_real_threads_and_a_power_cut() {
    for round in 0..12 * effort() {
        let disk = SimDisk::new(round);
        disk.allow_threads();
        disk.fail_at(20 + round * 7 % 300, Fault::Crash);
        let log = options().open_on(&disk).expect("nothing is there to be read");
        let acked: Vec<_> = thread::scope(|scope| {
            let writers: Vec<_> = (0..4).map(|_| scope.spawn(|| write_pairs(&log))).collect();
            writers.into_iter().map(|writer| writer.join().expect("no panic")).collect()
        });
        for way in 0..4 {
            let cut = options().open_on(&disk.after_power_cut(way)).expect("opens");
            let length = |id| cut.read_view().events(id).map_or(Ok(0), dense);
            for (one, two, commits) in &acked {
                let lengths = (length(*one).expect("readable"), length(*two).expect("readable"));
                let context =
                    format!("round {round}, way {way}: {lengths:?}, {commits} acknowledged");
                assert!(lengths.0 == lengths.1 && lengths.0 >= *commits, "{context}");
            }
        }
    }
}

/// Commits pairs of events over two streams until the machine stops; how many were acknowledged.
fn write_pairs(log: &Log) -> (StreamId, StreamId, u64) {
    let (mut one, mut two) = (log.create_stream().expect("one"), log.create_stream().expect("two"));
    let (ids, mut acked) = ((one.id(), two.id()), 0);
    for number in 0..60_u64 {
        one.append(number.to_le_bytes()).expect("room");
        two.append(vec![number as u8; 300]).expect("room");
        if log.commit_all([&mut one, &mut two]).wait().is_err() {
            break;
        }
        acked += 1;
    }
    (ids.0, ids.1, acked)
}

fn dense(events: amberlog::Events) -> amberlog::Result<u64> {
    let mut next = 0;
    for event in events {
        assert_eq!(event?.seq().get(), next, "P7");
        next += 1;
    }
    Ok(next)
}

fn tell(what: &str, stats: &Stats) {
    let Stats { operations, commits, faults, crashes, states } = stats;
    let states = states.len();
    println!(
        "{what}: {crashes} crashes, {states} states of the disk, {faults} faults, {commits} commits, \
         {operations} operations"
    );
}
