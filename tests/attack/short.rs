//! Short scripts, for attacks that leave nothing to chance: every call is where the machine stops, or where
//! something goes wrong.

use amberlog::{Durability, Fault};

use super::ops::{Op, RingKind, Then};
use super::run::{Attack, Stats};

const DISK: Durability = Durability::Disk;
const SMALL: u8 = 3;
const SECTOR_OR_SO: u8 = 10;
const LARGE: u8 = 14;
const LARGER_THAN_A_SEGMENT: u8 = 15;

fn append(handle: u8, size: u8) -> Op {
    Op::Append { handle, size }
}

fn commit(handle: u8, durability: Durability, then: Then) -> Op {
    Op::Commit { handle, durability, then }
}

/// The scripts, with the question that each asks.
pub fn scripts() -> Vec<(&'static str, Vec<Op>)> {
    let create = Op::Create { ring: RingKind::Usual, name: 0 };
    let named = Op::Create { ring: RingKind::Usual, name: 1 };
    let together = Op::CommitAll { handles: 0b11, durability: DISK, then: Then::Wait };
    vec![
        ("a first commit", vec![named, append(0, SMALL), commit(0, DISK, Then::Wait)]),
        (
            "several streams at once",
            vec![create, named, append(0, SECTOR_OR_SO), append(1, SECTOR_OR_SO), together],
        ),
        ("a group", {
            let mut ops = vec![create, create, create];
            for handle in 0..3 {
                ops.extend([append(handle, SECTOR_OR_SO), commit(handle, DISK, Then::Keep)]);
            }
            ops.extend([Op::Settle, append(0, SMALL), commit(0, DISK, Then::Wait)]);
            ops
        }),
        ("an unsynced commit before a synced one", {
            let os = Durability::Os;
            let mut ops = vec![create, append(0, SMALL), commit(0, os, Then::Wait)];
            ops.extend([append(0, SMALL), commit(0, os, Then::Wait)]);
            ops.extend([append(0, SECTOR_OR_SO), commit(0, DISK, Then::Wait)]);
            ops
        }),
        ("a roll", {
            let mut ops = vec![create];
            for _ in 0..4 {
                ops.extend([append(0, LARGE), commit(0, DISK, Then::Wait)]);
            }
            ops
        }),
        ("a commit larger than a segment", {
            let large = [append(0, LARGER_THAN_A_SEGMENT), commit(0, DISK, Then::Wait)];
            let mut ops = vec![create, append(0, SMALL), commit(0, DISK, Then::Wait)];
            ops.extend(large);
            ops.extend([append(0, SMALL), commit(0, DISK, Then::Wait)]);
            ops
        }),
        ("a life after a clean close", {
            let mut ops = vec![create, append(0, SECTOR_OR_SO), commit(0, DISK, Then::Wait)];
            ops.extend([Op::Close, Op::Resume { stream: 0 }]);
            ops.extend([append(0, SECTOR_OR_SO), commit(0, DISK, Then::Wait), Op::Close]);
            ops
        }),
        ("a life after a kill", {
            let mut ops = vec![create, append(0, SECTOR_OR_SO), commit(0, DISK, Then::Wait)];
            ops.extend([Op::Kill, Op::Resume { stream: 0 }]);
            ops.extend([append(0, SECTOR_OR_SO), commit(0, DISK, Then::Wait)]);
            ops
        }),
    ]
}

/// How many calls a script makes when nothing goes wrong.
fn calls(script: &[Op]) -> Result<u64, String> {
    let mut attack = Attack::new(1, 1)?;
    attack.until_stopped(script)?;
    Ok(attack.calls())
}

/// Stops the machine at every call of a script, and looks at every way in which that leaves the disk, if
/// there are at most so many; at so many of them otherwise. Returns also at how many calls it was all.
pub fn every_crash(script: &[Op], most: u64) -> Result<(Stats, u64, u64), String> {
    let (mut total, mut all) = (Stats::default(), 0);
    let calls = calls(script)?;
    for call in 0..calls {
        let mut attack = Attack::new(1, 1)?;
        attack.fail(call, Fault::Crash);
        attack.until_stopped(script).map_err(|what| format!("call {call}: {what}"))?;
        all += u64::from(attack.every_cut(most).map_err(|what| format!("call {call}: {what}"))?);
        total.add(attack.stats());
    }
    Ok((total, all, calls))
}

/// Lets every call of a script go wrong, then goes on with commits as far as the log lets it, and cuts the power.
pub fn every_fault(script: &[Op], cuts: u64) -> Result<Stats, String> {
    let mut total = Stats::default();
    let faults = [Fault::Io, Fault::LostSync, Fault::Full, Fault::Short, Fault::Interrupted];
    for (call, fault) in (0..calls(script)?).flat_map(|call| faults.map(|fault| (call, fault))) {
        let mut attack = Attack::new(call, cuts)?;
        attack.fail(call, fault);
        let mut ops = script.to_vec();
        ops.extend([Op::Look, Op::Space]);
        ops.extend([append(0, SECTOR_OR_SO), commit(0, DISK, Then::Wait), Op::Look]);
        ops.extend([append(0, SECTOR_OR_SO), commit(0, DISK, Then::Wait), Op::LookAgain]);
        ops.push(Op::PowerCut { seed: call as u8 });
        for op in ops {
            attack.step(op).map_err(|what| format!("{fault:?} at call {call}, {op:?}: {what}"))?;
        }
        total.add(attack.stats());
    }
    Ok(total)
}
