//! Does collecting take exactly what nobody wants, whatever the disk does meanwhile?
//!
//! Here it is told directly what is wanted; how the catalog knows that is tested elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use super::Log;
use crate::catalog::{Candidate, Snapshot};
use crate::disk::{Fault, SimDisk};
use crate::error::{ErrorKind, Result};
use crate::format::BatchKind;
use crate::options::{Options, Overflow, StreamOptions};
use crate::reader::Event;
use crate::recovery::{SegmentState, survey_on};
use crate::types::{Position, StreamId};
use crate::upkeep::{CollectOptions, CollectReport};

type Content = BTreeMap<StreamId, Vec<(u64, Vec<u8>)>>;

fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(32 << 10)
}

/// What a snapshot shows: by stream, backwards as well, and the same by position.
fn content(snapshot: &Snapshot) -> Content {
    let mut all = Content::new();
    for info in snapshot.streams() {
        let events = || snapshot.events(info.id).expect("known");
        let there: Vec<_> = events().map(|event| event.expect("whole")).collect();
        let back: Vec<u64> =
            events().rev().map(|event| event.expect("whole").seq().get()).collect();
        assert!(there.iter().rev().map(|event| event.seq().get()).eq(back));
        let one =
            |event: &Event| (event.position().map_or(0, Position::get), event.payload().to_vec());
        all.insert(info.id, there.iter().map(one).collect());
    }
    let mut by_position = Content::new();
    for event in snapshot.read_all(Position::START).expect("there") {
        let event = event.expect("whole");
        let position = event.position().map_or(0, Position::get);
        by_position.entry(event.stream()).or_default().push((position, event.payload().to_vec()));
    }
    assert_eq!(all, by_position);
    all
}

/// Streams that live, streams that do not, and a commit of both now and then.
fn fill(log: &Log, turns: u16) -> BTreeSet<StreamId> {
    let recorder = StreamOptions::new()
        .overflow(Overflow::OverwriteOldest)
        .ring_bytes_max(900)
        .name(format!("kept from {}", log.snapshot().position()));
    let mut kept = log.stream_with(&recorder).expect("a stream");
    let mut other = log.stream().expect("a stream");
    let mut dead = BTreeSet::new();
    for turn in 0..turns {
        let mut gone = log.stream().expect("a stream");
        dead.insert(gone.id());
        gone.append(vec![turn as u8; 900 + usize::from(turn % 7) * 40]).expect("room");
        match turn % 5 {
            0 => {
                for n in 0..4 {
                    kept.append([n; 300]).expect("room");
                }
                log.commit_all([&mut gone, &mut kept]).wait().expect("committed");
            }
            1 => {
                other.append([turn as u8; 90]).expect("room");
                other.commit().wait().expect("committed");
                gone.commit().wait().expect("committed");
            }
            _ => drop(gone.commit().wait().expect("committed")),
        }
    }
    dead
}

fn collect(log: &Log, dead: &BTreeSet<StreamId>) -> Result<CollectReport> {
    let wants = |batch: &Candidate<'_>| !dead.contains(&batch.stream);
    log.0.collect_where(CollectOptions::new(), Some(&wants))
}

fn without(content: &Content, dead: &BTreeSet<StreamId>) -> Content {
    content
        .iter()
        .filter(|(id, _)| !dead.contains(id))
        .map(|(id, all)| (*id, all.clone()))
        .collect()
}

/// Of the dead, those that were not collected yet may be there.
fn is_between(found: &Content, all: &Content, dead: &BTreeSet<StreamId>) -> bool {
    without(found, dead) == without(all, dead)
        && found.iter().all(|(id, events)| all.get(id) == Some(events))
}

fn after_collecting(seed: u64) -> (SimDisk, Log, BTreeSet<StreamId>, Content) {
    let disk = SimDisk::new(seed);
    let log = options().open_on(&disk).expect("opens");
    let dead = fill(&log, 90);
    let all = content(&log.snapshot());
    (disk, log, dead, all)
}

#[test]
fn p6_p7_what_is_wanted_stays_at_its_position_and_the_rest_is_given_back() {
    let (disk, log, dead, all) = after_collecting(1);
    let before = log.snapshot();
    let dry = log
        .0
        .collect_where(
            CollectOptions::new().dry_run(),
            Some(&|batch| !dead.contains(&batch.stream)),
        )
        .expect("planned");
    let files = disk.files();
    assert_eq!(content(&log.snapshot()), all, "a dry run changes nothing");
    let report = collect(&log, &dead).expect("collected");
    assert_eq!(dry.runs, report.runs, "it said what would be");
    assert!(report.refused.is_empty() && !report.runs.is_empty(), "{report:?}");
    let bytes = |files: &BTreeMap<String, Vec<u8>>| files.values().map(Vec::len).sum::<usize>();
    assert_eq!(bytes(&files) - bytes(&disk.files()), report.freed_bytes() as usize);
    assert!(report.freed_bytes() > 60 << 10, "{}", report.freed_bytes());
    assert_eq!(content(&before), all, "a snapshot goes on showing what it showed");
    let again = collect(&log, &dead).expect("collected");
    assert!(again.runs.is_empty(), "{again:?}");
    // What is not sealed yet was not touched; go on, collect again, and join.
    let more = fill(&log, 60);
    let dead: BTreeSet<_> = dead.union(&more).copied().collect();
    let report = collect(&log, &dead).expect("collected");
    assert!(report.runs.iter().any(|run| run.segments.len() > 1), "{report:?}");
    let shown = log.snapshot();
    log.close().expect("closes");
    let found = survey_on(&disk).expect("a log");
    assert_eq!(found.damages, []);
    let (opened, _) = Snapshot::open_on(&disk).expect("opens");
    assert_eq!(without(&content(&opened), &dead).len(), 4);
    for (id, events) in without(&content(&opened), &dead) {
        let seen = shown.events(id).expect("known").map(|event| event.expect("whole"));
        assert!(seen.map(|event| event.payload().to_vec()).eq(events.into_iter().map(|one| one.1)));
    }
    assert_eq!(opened.position(), shown.position());
}

#[test]
fn p6_f25_f30_collecting_may_be_cut_at_every_call() {
    for seed in 0..2 {
        let (disk, log, dead, all) = after_collecting(seed);
        let from = disk.calls();
        drop(log);
        let run = |disk: &SimDisk| {
            let log = options().open_on(disk).expect("opens");
            let from = disk.calls();
            let result = collect(&log, &dead);
            (from, disk.calls(), result, disk.after_kill())
        };
        let (first, last, ..) = run(&disk.copy());
        assert!(first > from);
        for fault in [Fault::Crash, Fault::Io, Fault::LostSync, Fault::DoneAndFailed] {
            for call in first..last {
                let failing = disk.copy();
                failing.fail_at(call, fault);
                let (_, _, _, killed) = run(&failing);
                let mut ways = vec![killed];
                ways.extend((0..8).map(|seed| failing.after_power_cut(seed)));
                for (way, left) in ways.into_iter().enumerate() {
                    let context = format!("{fault:?} at call {call}, way {way}");
                    check(&left, &dead, &all, &context);
                }
            }
        }
    }
}

/// Sound, with everything that is wanted, before and after opening it for writing; what an interrupted collection
/// left is gone then, and the next one ends it.
fn check(disk: &SimDisk, dead: &BTreeSet<StreamId>, all: &Content, context: &str) {
    let found = survey_on(disk).expect("a log");
    assert_eq!(found.damages, [], "{context}");
    let (snapshot, _) = Snapshot::open_on(disk).expect("opens");
    assert!(is_between(&content(&snapshot), all, dead), "{context}");
    let log = options().open_on(disk).expect("opens for writing");
    assert!(log.survey().is_sound(), "{context}");
    assert!(is_between(&content(&log.snapshot()), all, dead), "{context}");
    let left = survey_on(disk).expect("a log").segments;
    assert!(left.iter().all(|one| one.state != SegmentState::Superseded), "{context}");
    for cut in 0..2 {
        let (snapshot, found) = Snapshot::open_on(&disk.after_power_cut(cut)).expect("opens");
        assert!(found.is_sound(), "{context}, cut again");
        assert!(is_between(&content(&snapshot), all, dead), "{context}, cut again");
    }
    collect(&log, dead).expect("collected");
    drop(log);
    let (snapshot, found) = Snapshot::open_on(disk).expect("opens");
    assert!(found.is_sound() && is_between(&content(&snapshot), all, dead), "{context}, again");
}

#[test]
fn p6_f26_what_is_damaged_is_never_collected() {
    let (disk, log, dead, _) = after_collecting(3);
    drop(log);
    let sealed: Vec<String> = {
        let found = survey_on(&disk).expect("a log").segments;
        let sealed = found.iter().filter(|one| one.state == SegmentState::Sealed);
        sealed.map(|one| format!("segments/{:010}.seg", one.number)).collect()
    };
    let mut refused = 0;
    for path in &sealed {
        let bytes = disk.files()[path].clone();
        for at in (4096..bytes.len()).step_by(997) {
            let damaged = disk.copy();
            let mut rotten = bytes.clone();
            rotten[at] ^= 0x40;
            damaged.write_file(path, &rotten);
            let before = survey_on(&damaged).expect("a log").damages;
            let log = options().open_on(&damaged).expect("opens");
            let report = collect(&log, &dead).expect("collected");
            refused += usize::from(!report.refused.is_empty());
            drop(log);
            if before.is_empty() {
                continue;
            }
            let kept = &damaged.files()[path];
            let after = survey_on(&damaged).expect("a log").damages;
            assert_eq!(before, after, "byte {at} of {path}");
            assert!(kept.len() >= rotten.len() - 64, "byte {at} of {path}");
        }
    }
    assert!(refused > 50, "{refused}");
}

/// Flipped bits, cut ends and missing files of a log with sparse segments: nothing wrong is read, and what is lost is
/// told.
#[test]
fn p6_p13_f17_f18_f21_damage_to_sparse_segments_is_told() {
    let (disk, log, dead, _) = after_collecting(5);
    collect(&log, &dead).expect("collected");
    log.close().expect("closes");
    let all = content(&Snapshot::open_on(&disk).expect("opens").0);
    let mut told = 0;
    for (path, bytes) in disk.files().into_iter().filter(|(path, _)| path.ends_with(".seg")) {
        let missing = disk.copy();
        missing.remove_file(&path);
        judge(&missing, &all, &format!("without {path}"), &mut told);
        for at in (0..bytes.len()).step_by(53) {
            let mut rotten = bytes.clone();
            rotten[at] ^= 1 << (at % 8);
            let damaged = disk.copy();
            damaged.write_file(&path, &rotten);
            judge(&damaged, &all, &format!("{path}, byte {at}"), &mut told);
        }
        for at in (0..bytes.len()).step_by(509) {
            let damaged = disk.copy();
            damaged.write_file(&path, &bytes[..at]);
            judge(&damaged, &all, &format!("{path}, cut at {at}"), &mut told);
        }
    }
    assert!(told > 100, "{told}");
}

fn judge(disk: &SimDisk, all: &Content, context: &str, told: &mut usize) {
    let found = match survey_on(disk) {
        Ok(found) => found,
        Err(error) => return assert_eq!(*error.kind(), ErrorKind::NoLog, "{context}: {error}"),
    };
    let Ok((snapshot, _)) = Snapshot::open_on(disk) else { return };
    let (mut read, mut lost) = (0, 0);
    for event in snapshot.read_all(Position::START).expect("there") {
        match event {
            Ok(event) => {
                let one = (event.position().map_or(0, Position::get), event.payload().to_vec());
                let known = all.get(&event.stream()).is_some_and(|events| events.contains(&one));
                assert!(known, "{context}: something was read that was never written");
                read += 1;
            }
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Corrupt { .. }), "{context}: {error}");
                lost += 1;
            }
        }
    }
    let whole: usize = all.values().map(Vec::len).sum();
    assert!(read == whole || !found.is_sound(), "{context}: {read} of {whole}, and nothing said");
    assert!(read == whole || lost > 0 || found.position < snapshot.position() || !found.is_sound());
    *told += usize::from(!found.is_sound());
}

/// A collector that removes the old files first is noticed.
#[cfg(amberlog_sabotage)]
#[test]
fn control_removing_before_the_new_file_is_durable_is_noticed() {
    let _broken = crate::sabotage::sabotage(crate::sabotage::Sabotage::RemoveEarly);
    std::panic::catch_unwind(p6_f25_f30_collecting_may_be_cut_at_every_call)
        .expect_err("files were removed before what is left of them was durable, unnoticed");
}

/// A collector that takes what is wanted is noticed.
#[test]
fn control_collecting_what_is_wanted_is_noticed() {
    let (_, log, dead, all) = after_collecting(8);
    let wants = |batch: &Candidate<'_>| {
        !dead.contains(&batch.stream) && (batch.kind != BatchKind::Events || batch.first_seq != 3)
    };
    log.0.collect_where(CollectOptions::new(), Some(&wants)).expect("collected");
    let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| content(&log.snapshot())));
    assert!(read.is_err() || !is_between(&read.unwrap_or_default(), &all, &dead));
}
