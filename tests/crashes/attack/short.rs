//! Short scripts, for attacks that leave nothing to chance: every call is where the machine stops, or where
//! something goes wrong.

use amberlog::Durability;
use amberlog::sim::{Fault, SimDisk};

use super::ops::{Op, Then};
use super::run::{Attack, Stats};
use super::script::RingKind;

/// Makes the disk of each attack from its seed.
pub type Disks<'a> = &'a dyn Fn(u64) -> SimDisk;

const DISK: Durability = Durability::Disk;
const SMALL: u8 = 3;
const SECTOR_OR_SO: u8 = 10;
const MIDDLING: u8 = 13;
const LARGE: u8 = 14;
const LARGER_THAN_A_SEGMENT: u8 = 15;

/// Offset of the first commit in a segment (`docs/format.md`).
const COMMITS_AT: usize = 4096;
/// More commits of [`MIDDLING`] events than any segment of an attack takes.
const ROLL_COMMITS_MAX: usize = 40;

const COMPACT: Op = Op::Compact { dry_run: false, percent: 0 };

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
        ("a group", group()),
        ("a group and a commit", {
            [group(), vec![append(0, SMALL), commit(0, DISK, Then::Wait)]].concat()
        }),
        ("an unsynced commit before a synced one", {
            let os = Durability::Os;
            let mut ops = vec![create, append(0, SMALL), commit(0, os, Then::Wait)];
            ops.extend([append(0, SMALL), commit(0, os, Then::Wait)]);
            ops.extend([append(0, SECTOR_OR_SO), commit(0, DISK, Then::Wait)]);
            ops
        }),
        ("two that write one stream", {
            let mut ops = vec![create, append(0, SMALL), commit(0, DISK, Then::Wait)];
            ops.extend([Op::OpenStream { stream: 0 }, append(0, SMALL), append(1, SECTOR_OR_SO)]);
            ops.extend([commit(0, DISK, Then::Keep), commit(1, DISK, Then::Wait)]);
            ops
        }),
        ("a segment made ready", { vec![create, append(0, LARGE), commit(0, DISK, Then::Wait)] }),
        ("a roll", {
            let mut ops = vec![create];
            for _ in 0..4 {
                ops.extend([append(0, LARGE), commit(0, DISK, Then::Wait)]);
            }
            ops
        }),
        ("a roll behind unsynced commits", {
            let os = Durability::Os;
            let mut ops = vec![create, append(0, LARGE), commit(0, os, Then::Wait)];
            ops.extend([append(0, LARGE), commit(0, os, Then::Wait)]);
            ops.extend([append(0, SMALL), commit(0, DISK, Then::Wait)]);
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
            ops.extend([Op::Close, Op::OpenStream { stream: 0 }]);
            ops.extend([append(0, SECTOR_OR_SO), commit(0, DISK, Then::Wait), Op::Close]);
            ops
        }),
        ("a life after a clean close that was written back", {
            let mut ops = vec![create, append(0, SECTOR_OR_SO), commit(0, DISK, Then::Wait)];
            ops.extend([Op::Close, Op::WriteBack, Op::OpenStream { stream: 0 }]);
            ops.extend([append(0, SECTOR_OR_SO), commit(0, DISK, Then::Wait)]);
            ops
        }),
        ("a rewind behind a commit", {
            let mut ops = vec![create, append(0, SMALL), append(0, SECTOR_OR_SO)];
            ops.extend([commit(0, DISK, Then::Wait), Op::Rewind { handle: 0, to: 1 }]);
            ops.extend([append(0, SMALL), commit(0, DISK, Then::Wait)]);
            ops.extend([Op::Rewind { handle: 0, to: 0 }, commit(0, DISK, Then::Wait)]);
            ops
        }),
        ("a fork and its parent at once", {
            let mut ops = vec![create, append(0, SMALL), append(0, SMALL)];
            ops.extend([commit(0, DISK, Then::Wait), append(0, SMALL)]);
            ops.extend([Op::Fork { handle: 0, at: 1 }, Op::Fork { handle: 0, at: 3 }]);
            ops.extend([append(1, SECTOR_OR_SO), together, commit(2, DISK, Then::Wait)]);
            ops.extend([Op::Close, Op::LookAgain, Op::Look]);
            ops
        }),
        ("labels, an archive, a trim, a delete", {
            let mut ops = vec![named, append(0, SMALL), append(0, SMALL), Op::Label { handle: 0 }];
            ops.extend([commit(0, DISK, Then::Wait), Op::Label { handle: 0 }]);
            ops.extend([Op::State { handle: 0, state: 0 }, append(0, SMALL)]);
            ops.extend([Op::State { handle: 0, state: 2 }, Op::Trim { handle: 0, to: 1 }]);
            ops.push(commit(0, DISK, Then::Wait));
            ops.extend([Op::State { handle: 0, state: 4 }, named, append(0, SMALL)]);
            ops.extend([commit(0, DISK, Then::Wait), Op::Look]);
            ops
        }),
        ("a trim behind a commit in flight, and one with a rewind and new events", {
            let mut ops = vec![create, append(0, SMALL), append(0, SECTOR_OR_SO)];
            ops.extend([commit(0, DISK, Then::Keep), append(0, SMALL)]);
            ops.extend([Op::Trim { handle: 0, to: 2 }, commit(0, DISK, Then::Wait), Op::Look]);
            ops.extend([Op::Rewind { handle: 0, to: 2 }, append(0, SMALL), append(0, SMALL)]);
            ops.extend([Op::Trim { handle: 0, to: 3 }, commit(0, DISK, Then::Wait), Op::Look]);
            ops
        }),
        ("an archive that another handle does not know of", {
            let mut ops = vec![create, append(0, SMALL), commit(0, DISK, Then::Wait)];
            ops.extend([append(0, SMALL), Op::State { handle: 0, state: 0 }]);
            ops.push(commit(0, DISK, Then::Wait));
            ops
        }),
        ("a compaction", {
            let mut ops = vec![named];
            ops.extend([append(0, LARGE), commit(0, DISK, Then::Wait)].repeat(6));
            ops.extend([create, append(1, SMALL), commit(1, DISK, Then::Wait)]);
            ops.extend([Op::Fork { handle: 0, at: 1 }, Op::Look]);
            ops.extend([Op::State { handle: 0, state: 4 }, COMPACT, Op::LookAgain]);
            // What a fork shares counts once more as such when it is committed.
            ops.extend([append(1, SMALL), commit(1, DISK, Then::Wait), append(1, SMALL)]);
            ops.extend([COMPACT, COMPACT]);
            ops
        }),
        ("a compaction of what was only just dropped", {
            let mut ops = vec![named];
            ops.extend([append(0, LARGE), commit(0, DISK, Then::Wait)].repeat(4));
            ops.extend([Op::Rewind { handle: 0, to: 0 }, append(0, SMALL)]);
            ops.extend([commit(0, Durability::Os, Then::Wait), COMPACT]);
            ops
        }),
        ("an archive that comes back and is archived again", {
            let (archive, back) =
                (Op::State { handle: 0, state: 0 }, Op::State { handle: 0, state: 2 });
            let mut ops = vec![named];
            ops.extend([append(0, LARGE), commit(0, DISK, Then::Wait)].repeat(4));
            ops.extend([archive, Op::Look, COMPACT, Op::LookAgain]);
            ops.extend([Op::Fork { handle: 0, at: 1 }, append(1, SMALL), back, append(0, SMALL)]);
            ops.extend([together, archive, COMPACT, Op::LookAgain, Op::Look]);
            ops
        }),
        ("an import that is made again", {
            let mut ops = vec![Op::Create { ring: RingKind::Overwriting, name: 1 }];
            ops.extend([append(0, SMALL), append(0, SECTOR_OR_SO), commit(0, DISK, Then::Wait)]);
            ops.extend([append(0, MIDDLING); 3]);
            ops.extend([commit(0, DISK, Then::Wait), create, append(1, SMALL), append(1, SMALL)]);
            ops.extend([Op::Label { handle: 1 }, commit(1, DISK, Then::Wait)]);
            ops.extend([Op::Rewind { handle: 1, to: 1 }, append(1, SMALL)]);
            ops.extend([commit(1, DISK, Then::Wait), Op::Trim { handle: 1, to: 1 }]);
            let (once, again) = (Op::Import { resumes: false }, Op::Import { resumes: true });
            ops.extend([Op::State { handle: 1, state: 0 }, Op::Export { streams: 0b11 }, once]);
            ops.extend([Op::Look, again, once, Op::Look]);
            ops
        }),
        ("two streams over their bound", {
            let mut ops = vec![create, named];
            ops.extend([append(0, SMALL), append(1, SMALL)].repeat(7));
            ops.extend([together, Op::Retain { dry_run: false }, append(0, SMALL)]);
            ops.extend([commit(0, DISK, Then::Wait), Op::Retain { dry_run: false }, Op::Look]);
            ops
        }),
        ("a retry after a kill", {
            let again = Op::CommitId { handle: 0, id: 1 };
            let mut ops = vec![create, append(0, SMALL), again, append(0, SMALL), again];
            ops.extend([Op::Kill, Op::OpenStream { stream: 0 }, append(0, SMALL), again]);
            ops
        }),
        ("a life after a kill", {
            let mut ops = vec![create, append(0, SECTOR_OR_SO), commit(0, DISK, Then::Wait)];
            ops.extend([Op::Kill, Op::OpenStream { stream: 0 }]);
            ops.extend([append(0, SECTOR_OR_SO), commit(0, DISK, Then::Wait)]);
            ops
        }),
    ]
}

fn group() -> Vec<Op> {
    let mut ops = vec![Op::Create { ring: RingKind::Usual, name: 0 }; 3];
    for handle in 0..3 {
        ops.extend([append(handle, SECTOR_OR_SO), commit(handle, DISK, Then::Keep)]);
    }
    ops.push(Op::Settle);
    ops
}

/// Number of calls that a script makes when nothing goes wrong.
fn calls(disks: Disks<'_>, script: &[Op]) -> Result<u64, String> {
    let mut attack = Attack::new(disks(1), 1)?;
    attack.until_stopped(script)?;
    Ok(attack.calls())
}

/// Those calls, or each `step`th of them; where they begin depends on the script, so that like ones are met at others.
fn some_calls(
    disks: Disks<'_>,
    script: &[Op],
    step: u64,
) -> Result<impl Iterator<Item = u64> + use<>, String> {
    Ok((script.len() as u64 % step..calls(disks, script)?).step_by(step as usize))
}

/// Stops the machine at every call of a script, and looks at every way in which that leaves the disk, if
/// there are at most so many; at so many of them otherwise. Returns also at how many calls it was all.
pub fn every_crash(
    disks: Disks<'_>,
    script: &[Op],
    most: u64,
) -> Result<(Stats, u64, u64), String> {
    let (mut total, mut all) = (Stats::default(), 0);
    let calls = calls(disks, script)?;
    for call in 0..calls {
        let mut attack = Attack::new(disks(1), 1)?;
        attack.fail(call, Fault::Crash);
        attack.until_stopped(script).map_err(|what| format!("call {call}: {what}"))?;
        all += u64::from(attack.every_cut(most).map_err(|what| format!("call {call}: {what}"))?);
        total.add(attack.stats());
    }
    Ok((total, all, calls))
}

/// Stops the machine at every `step`th call of a script, and kills the recovery from that at every call of its own.
pub fn every_recovery(
    disks: Disks<'_>,
    script: &[Op],
    step: u64,
    ways: u64,
    most: u64,
) -> Result<Stats, String> {
    let mut total = Stats::default();
    for call in some_calls(disks, script, step)? {
        let mut attack = Attack::new(disks(call), 1)?;
        attack.fail(call, Fault::Crash);
        attack.until_stopped(script).map_err(|what| format!("call {call}: {what}"))?;
        attack.every_recovery(ways, most).map_err(|what| format!("call {call}: {what}"))?;
        total.add(attack.stats());
    }
    Ok(total)
}

/// Kills the process at every `step`th call of a script; what it left, nothing of it synced, is gone on with, over
/// the next rolls, and the power fails on the way: also once the first commit behind a roll was acknowledged. Each so
/// often with other chances.
pub fn every_kill(
    disks: Disks<'_>,
    script: &[Op],
    step: u64,
    seeds: u64,
    most: u64,
) -> Result<Stats, String> {
    let mut total = Stats::default();
    let os = Durability::Os;
    let first = [
        Op::Create { ring: RingKind::Usual, name: 0 },
        append(0, SMALL),
        commit(0, os, Then::Wait),
    ];
    let rest = [append(0, LARGE), commit(0, DISK, Then::Wait)].repeat(3);
    for (call, seed) in
        some_calls(disks, script, step)?.flat_map(|call| (0..seeds).map(move |n| (call, n)))
    {
        let mut attack = Attack::new(disks(call * seeds + seed), 1)?;
        attack.fail(call, Fault::Crash);
        let mut after_kill = || {
            attack.until_stopped(script)?;
            attack.step(Op::Kill)?;
            each_cut(&mut attack, &first, most)?;
            until_rolled(&mut attack)?;
            attack.every_cut(most)?;
            each_cut(&mut attack, &rest, most)
        };
        after_kill()
            .map_err(|what| format!("call {call}, seed {}: {what}", call * seeds + seed))?;
        total.add(attack.stats());
    }
    Ok(total)
}

/// Does these operations, and lets the power fail after each.
fn each_cut(attack: &mut Attack, ops: &[Op], most: u64) -> Result<(), String> {
    for op in ops {
        attack.step(*op)?;
        attack.every_cut(most)?;
    }
    Ok(())
}

/// Commits until one begins a segment. That commit is too small to ask for the segment behind it: its file was made ready
/// earlier, maybe by a process that was killed, and nothing that this one makes syncs the name along with its own.
fn until_rolled(attack: &mut Attack) -> Result<(), String> {
    let before = begun(attack);
    for _ in 0..ROLL_COMMITS_MAX {
        attack.step(append(0, MIDDLING))?;
        attack.step(commit(0, DISK, Then::Wait))?;
        if begun(attack) > before {
            return Ok(());
        }
    }
    Err("no segment was begun".into())
}

/// Number of segments that hold commits.
fn begun(attack: &Attack) -> usize {
    let first = COMMITS_AT..COMMITS_AT + 8;
    let holds = |bytes: &[u8]| bytes.get(first.clone()).is_some_and(|magic| magic != [0; 8]);
    let files = attack.disk().files();
    files.iter().filter(|(path, bytes)| path.ends_with(".seg") && holds(bytes)).count()
}

/// Lets every `step`th call of a script go wrong, goes on with commits as far as the log lets it, once with the same
/// handles, once with others, whose commits have the size of those that failed; after each of them the power
/// fails in every way there is, or in so many.
pub fn every_fault(
    disks: Disks<'_>,
    script: &[Op],
    step: u64,
    seeds: u64,
    most: u64,
) -> Result<Stats, String> {
    const FAULTS: [Fault; 6] = [
        Fault::Io,
        Fault::DoneAndFailed,
        Fault::LostSync,
        Fault::Full,
        Fault::Short,
        Fault::Interrupted,
    ];
    let mut total = Stats::default();
    let more = [append(0, SECTOR_OR_SO), commit(0, DISK, Then::Wait), Op::Look].repeat(2);
    let others = [vec![Op::Drop { handle: 0 }; 8], more.clone()].concat();
    for call in some_calls(disks, script, step)? {
        for (fault, seed) in FAULTS.iter().flat_map(|fault| (0..seeds).map(move |n| (*fault, n))) {
            let rest = if seed % 2 == 0 { &others } else { &more };
            let mut attack = Attack::new(disks(call * seeds + seed), 1)?;
            attack.fail(call, fault);
            with_fault(&mut attack, script, rest, most).map_err(|what| {
                format!("{fault:?} at call {call}, seed {}: {what}", call * seeds + seed)
            })?;
            total.add(attack.stats());
        }
    }
    Ok(total)
}

/// A write fails though it was done, and so does what was to make it harmless; the process is killed, and what it
/// left is opened. Then the power fails in every way, or in so many.
pub fn every_double_fault(
    disks: Disks<'_>,
    script: &[Op],
    step: u64,
    most: u64,
) -> Result<Stats, String> {
    let mut total = Stats::default();
    let ways = some_calls(disks, script, step)?
        .flat_map(|call| (1..4).map(move |behind| (call, behind)))
        .flat_map(|one| [Fault::LostSync, Fault::Io].map(|fault| (one, fault)));
    for ((call, behind), fault) in ways {
        let mut attack = Attack::new(disks(call), 1)?;
        attack.fail(call, Fault::DoneAndFailed);
        attack.fail(call + behind, fault);
        let mut run = || {
            for op in script.iter().chain(&[Op::Kill]) {
                attack.step(*op)?;
            }
            attack.every_cut(most)
        };
        run().map_err(|what| format!("{fault:?} {behind} behind call {call}: {what}"))?;
        total.add(attack.stats());
    }
    Ok(total)
}

fn with_fault(attack: &mut Attack, script: &[Op], rest: &[Op], most: u64) -> Result<(), String> {
    for op in [script, &[Op::Look, Op::Space]].concat() {
        attack.step(op)?;
    }
    for op in rest {
        attack.step(*op)?;
        if matches!(op, Op::Commit { .. }) {
            attack.every_cut(most)?;
        }
    }
    attack.step(Op::LookAgain)?;
    attack.step(Op::PowerCut { seed: 0 })
}
