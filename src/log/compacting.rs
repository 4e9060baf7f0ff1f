//! Compaction under faults: does it take exactly the dead batches, whatever the disk does?
//!
//! The tests state directly which streams are live; how the catalog decides that is tested
//! elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use super::Log;
use crate::catalog::{BatchCandidate, ReadView};
use crate::disk::{Fault, SimDisk};
use crate::error::{ErrorKind, Result};
use crate::format::BatchKind;
use crate::maintenance::{CompactOptions, CompactReport};
use crate::options::{Options, Overflow, StreamOptions};
use crate::reader::Event;
use crate::recovery::{SegmentState, verify_quick_on};
use crate::types::{Position, StreamId};

type Content = BTreeMap<StreamId, Vec<(u64, Vec<u8>)>>;

fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(32 << 10)
}

/// Content of a read view: by stream, backwards as well, and by position.
fn content(view: &ReadView) -> Content {
    let mut all = Content::new();
    for info in view.streams() {
        let events = || view.events(info.id).expect("known");
        let there: Vec<_> = events().map(|event| event.expect("whole")).collect();
        let back: Vec<u64> =
            events().rev().map(|event| event.expect("whole").seq().get()).collect();
        assert!(there.iter().rev().map(|event| event.seq().get()).eq(back));
        let position_and_payload =
            |event: &Event| (event.position().map_or(0, Position::get), event.payload().to_vec());
        all.insert(info.id, there.iter().map(position_and_payload).collect());
    }
    let mut by_position = Content::new();
    for event in view.all_events(Position::START).expect("there") {
        let event = event.expect("whole");
        let position = event.position().map_or(0, Position::get);
        by_position.entry(event.stream()).or_default().push((position, event.payload().to_vec()));
    }
    assert_eq!(all, by_position);
    all
}

/// Writes live streams, dead streams, and now and then a commit of both.
fn fill(log: &Log, turns: u16) -> BTreeSet<StreamId> {
    let recorder = StreamOptions::new()
        .overflow(Overflow::OverwriteOldest)
        .ring_bytes_max(900)
        .name(format!("kept from {}", log.read_view().position()));
    let mut kept = log.create_stream_with(&recorder).expect("a stream");
    let mut other = log.create_stream().expect("a stream");
    let mut dead = BTreeSet::new();
    for turn in 0..turns {
        let mut gone = log.create_stream().expect("a stream");
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

fn compact(log: &Log, dead: &BTreeSet<StreamId>) -> Result<CompactReport> {
    let is_live = |batch: &BatchCandidate| !dead.contains(&batch.stream);
    log.0.compact_where(CompactOptions::new(), Some(&is_live))
}

fn without(content: &Content, dead: &BTreeSet<StreamId>) -> Content {
    content
        .iter()
        .filter(|(id, _)| !dead.contains(id))
        .map(|(id, all)| (*id, all.clone()))
        .collect()
}

/// Returns whether `found` is `all` without some of the dead streams, which may not be compacted
/// yet.
fn is_between(found: &Content, all: &Content, dead: &BTreeSet<StreamId>) -> bool {
    without(found, dead) == without(all, dead)
        && found.iter().all(|(id, events)| all.get(id) == Some(events))
}

fn after_compacting(seed: u64) -> (SimDisk, Log, BTreeSet<StreamId>, Content) {
    let disk = SimDisk::new(seed);
    let log = options().open_on(&disk).expect("opens");
    let dead = fill(&log, 90);
    let all = content(&log.read_view());
    (disk, log, dead, all)
}

#[test]
fn p6_p7_what_is_wanted_stays_at_its_position_and_the_rest_is_given_back() {
    let (disk, log, dead, all) = after_compacting(1);
    let before = log.read_view();
    let dry = log
        .0
        .compact_where(
            CompactOptions::new().dry_run(),
            Some(&|batch| !dead.contains(&batch.stream)),
        )
        .expect("planned");
    let files = disk.files();
    assert_eq!(content(&log.read_view()), all, "a dry run changes nothing");
    let report = compact(&log, &dead).expect("compacted");
    assert_eq!(dry.runs, report.runs, "it said what would be");
    assert!(report.refused.is_empty() && !report.runs.is_empty(), "{report:?}");
    // Files kept for `before` have names of their own.
    let is_kept = |name: &str| name.ends_with(".kept");
    let bytes = |files: &BTreeMap<String, Vec<u8>>| {
        let segments = files.iter().filter(|(name, _)| !is_kept(name));
        segments.map(|(_, bytes)| bytes.len()).sum::<usize>()
    };
    assert_eq!(bytes(&files) - bytes(&disk.files()), report.freed_bytes() as usize);
    assert!(report.freed_bytes() > 60 << 10, "{}", report.freed_bytes());
    assert_eq!(content(&before), all, "a read view goes on showing what it showed");
    let kept = || disk.files().keys().filter(|name| is_kept(name)).count();
    assert!(kept() > 0);
    drop(before);
    assert_eq!(kept(), 0, "nobody asks for them any more");
    let again = compact(&log, &dead).expect("compacted");
    assert!(again.runs.is_empty(), "{again:?}");
    // The unsealed segment was not touched; continue, compact again, and join.
    let more = fill(&log, 60);
    let dead: BTreeSet<_> = dead.union(&more).copied().collect();
    let report = compact(&log, &dead).expect("compacted");
    assert!(report.runs.iter().any(|run| run.segments.len() > 1), "{report:?}");
    let shown = log.read_view();
    log.close().expect("closes");
    let found = verify_quick_on(&disk).expect("a log");
    assert_eq!(found.damages, []);
    let (opened, _) = ReadView::open_on(&disk).expect("opens");
    assert_eq!(without(&content(&opened), &dead).len(), 4);
    for (id, events) in without(&content(&opened), &dead) {
        let seen = shown.events(id).expect("known").map(|event| event.expect("whole"));
        assert!(
            seen.map(|event| event.payload().to_vec())
                .eq(events.into_iter().map(|(_, payload)| payload))
        );
    }
    assert_eq!(opened.position(), shown.position());
}

#[test]
fn p6_f25_f30_compacting_may_be_cut_at_every_call() {
    let effort = std::env::var("AMBERLOG_EFFORT").ok().and_then(|text| text.parse().ok());
    let chances = 2 * effort.unwrap_or(1).clamp(1, 4);
    for seed in 0..2 {
        let (disk, log, dead, all) = after_compacting(seed);
        let from = disk.calls();
        drop(log);
        let run = |disk: &SimDisk| {
            let log = options().open_on(disk).expect("opens");
            let from = disk.calls();
            let result = compact(&log, &dead);
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
                ways.extend((0..chances).map(|seed| failing.after_power_cut(seed)));
                for (way, left) in ways.into_iter().enumerate() {
                    let context = format!("{fault:?} at call {call}, way {way}");
                    check(&left, &dead, &all, &context);
                }
            }
        }
    }
}

/// Checks that the log is sound with all live streams, before and after opening it for writing; the
/// opening removes what an interrupted compaction left, and the next compaction completes it.
fn check(disk: &SimDisk, dead: &BTreeSet<StreamId>, all: &Content, context: &str) {
    let found = verify_quick_on(disk).expect("a log");
    assert_eq!(found.damages, [], "{context}");
    let (view, _) = ReadView::open_on(disk).expect("opens");
    assert!(is_between(&content(&view), all, dead), "{context}");
    let log = options().open_on(disk).expect("opens for writing");
    assert!(log.recovery_report().is_sound(), "{context}");
    assert!(is_between(&content(&log.read_view()), all, dead), "{context}");
    let left = verify_quick_on(disk).expect("a log").segments;
    assert!(left.iter().all(|segment| segment.state != SegmentState::Superseded), "{context}");
    for cut in 0..2 {
        let (view, found) = ReadView::open_on(&disk.after_power_cut(cut)).expect("opens");
        assert!(found.is_sound(), "{context}, cut again");
        assert!(is_between(&content(&view), all, dead), "{context}, cut again");
    }
    compact(&log, dead).expect("compacted");
    drop(log);
    let (view, found) = ReadView::open_on(disk).expect("opens");
    assert!(found.is_sound() && is_between(&content(&view), all, dead), "{context}, again");
}

#[test]
fn p6_f26_what_is_damaged_is_never_compacted() {
    let (disk, log, dead, _) = after_compacting(3);
    drop(log);
    let sealed: Vec<String> = {
        let found = verify_quick_on(&disk).expect("a log").segments;
        let sealed = found.iter().filter(|segment| segment.state == SegmentState::Sealed);
        sealed.map(|segment| format!("segments/{:010}.seg", segment.number)).collect()
    };
    let mut refused = 0;
    for path in &sealed {
        let bytes = disk.files()[path].clone();
        for at in (4096..bytes.len()).step_by(997) {
            let damaged = disk.copy();
            let mut rotten = bytes.clone();
            rotten[at] ^= 0x40;
            damaged.write_file(path, &rotten);
            let before = verify_quick_on(&damaged).expect("a log").damages;
            let log = options().open_on(&damaged).expect("opens");
            let report = compact(&log, &dead).expect("compacted");
            refused += usize::from(!report.refused.is_empty());
            drop(log);
            if before.is_empty() {
                continue;
            }
            let kept = &damaged.files()[path];
            let after = verify_quick_on(&damaged).expect("a log").damages;
            assert_eq!(before, after, "byte {at} of {path}");
            assert!(kept.len() >= rotten.len() - 64, "byte {at} of {path}");
        }
    }
    assert!(refused > 50, "{refused}");
}

/// Checks flipped bits, cut ends and missing files of a log with sparse segments: wrong content is
/// never read, and every loss is reported.
#[test]
fn p6_p13_f17_f18_f21_damage_to_sparse_segments_is_told() {
    let (disk, log, dead, _) = after_compacting(5);
    compact(&log, &dead).expect("compacted");
    log.close().expect("closes");
    let all = content(&ReadView::open_on(&disk).expect("opens").0);
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
    let found = match verify_quick_on(disk) {
        Ok(found) => found,
        Err(error) => return assert_eq!(*error.kind(), ErrorKind::NoLog, "{context}: {error}"),
    };
    let Ok((view, _)) = ReadView::open_on(disk) else { return };
    let (mut read, mut lost) = (0, 0);
    for event in view.all_events(Position::START).expect("there") {
        match event {
            Ok(event) => {
                let position_and_payload =
                    (event.position().map_or(0, Position::get), event.payload().to_vec());
                let known = all
                    .get(&event.stream())
                    .is_some_and(|events| events.contains(&position_and_payload));
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
    assert!(read == whole || lost > 0 || found.position < view.position() || !found.is_sound());
    *told += usize::from(!found.is_sound());
}

/// Content of each live stream in a read view.
fn by_stream(view: &ReadView) -> Content {
    let shown = view.streams().into_iter().map(|info| {
        let events = view.events(info.id).expect("known").map(|event| event.expect("whole"));
        let position_and_payload =
            |event: Event| (event.position().map_or(0, Position::get), event.payload().into());
        (info.id, events.map(position_and_payload).collect())
    });
    shown.collect()
}

/// Builds a log with few open segments, and views of it from before each of several compactions.
fn views_of_every_age(disk: &SimDisk, fault: Option<(u64, Fault)>) -> Vec<(ReadView, Content)> {
    let few = options().open_segments_max(4);
    let log = few.open_on(disk).expect("opens");
    let mut views = Vec::new();
    for round in 0..3 {
        let dead = fill(&log, 60);
        let stream_view = log.read_view();
        let all = by_stream(&stream_view);
        views.push((stream_view, all));
        for id in dead {
            log.open_stream(id).expect("known").delete().wait().expect("deleted");
        }
        if let Some((call, fault)) = fault.filter(|_| round == 1) {
            disk.fail_at(disk.calls() + call, fault);
        }
        // A failed call has no effect, or its full effect.
        let _ = log.compact(CompactOptions::new());
        disk.forget_faults();
        disk.set_capacity(u64::MAX);
    }
    for (stream_view, all) in &views {
        assert_eq!(by_stream(stream_view), *all, "{fault:?}: P7, what a stream_view shows stays");
    }
    assert!(fault.is_some() || kept(disk) > 8, "{} files for three views", kept(disk));
    // After the process died, its files and views belong to no process.
    let killed = disk.after_kill();
    let found = verify_quick_on(&killed).expect("a log");
    assert_eq!(found.damages, [], "{fault:?}");
    drop(options().open_on(&killed).expect("opens"));
    assert_eq!(kept(&killed), 0, "{fault:?}: swept");
    views
}

/// Number of files with names of their own for views that show them.
fn kept(disk: &SimDisk) -> usize {
    disk.files().keys().filter(|name| name.ends_with(".kept")).count()
}

/// F49: few files are open, however many views and compactions; each file goes with its last view.
#[test]
fn p7_f49_views_of_every_age_read_on_in_files_that_were_compacted() {
    let disk = SimDisk::new(11);
    let mut views = views_of_every_age(&disk, None);
    while let Some(stream_view) = views.pop() {
        let before = kept(&disk);
        drop(stream_view);
        assert!(kept(&disk) < before, "of {before} files");
    }
    assert_eq!(kept(&disk), 0);
}

#[test]
fn p6_p7_f49_views_read_on_wherever_a_compaction_fails() {
    let calls = {
        let disk = SimDisk::new(3);
        let log = options().open_on(&disk).expect("opens");
        for id in [fill(&log, 60), fill(&log, 60)].into_iter().flatten() {
            log.open_stream(id).expect("known").delete().wait().expect("deleted");
        }
        let from = disk.calls();
        log.compact(CompactOptions::new()).expect("compacted");
        disk.calls() - from
    };
    for call in (0..calls).step_by(5) {
        for fault in [Fault::Io, Fault::Full] {
            drop(views_of_every_age(&SimDisk::new(3), Some((call, fault))));
        }
    }
}

/// Negative control: views that keep no file are noticed.
#[cfg(amberlog_sabotage)]
#[test]
fn control_views_without_their_files_are_noticed() {
    let _broken = crate::sabotage::sabotage(crate::sabotage::Sabotage::ForgetReadViews);
    std::panic::catch_unwind(p7_f49_views_of_every_age_read_on_in_files_that_were_compacted)
        .expect_err("files that a stream_view shows were removed, unnoticed");
}

/// A view in another process shows the files that it holds open; reading a compacted file is an
/// error of its own, and a new view has everything.
#[test]
fn p7_p12_f49_a_view_that_nobody_knows_of_is_outdated_and_never_wrong() {
    let (disk, log, dead, all) = after_compacting(4);
    let open = |most| {
        let how = crate::options::ReadOptions::new().open_segments_max(most);
        how.open_on(&disk).expect("opens").0
    };
    let (few, many) = (open(4), open(64));
    let shown = content(&many);
    compact(&log, &dead).expect("compacted");
    assert_eq!(content(&many), shown, "it holds every segment open");
    let (mut read, mut outdated) = (0, 0);
    for info in few.streams() {
        for event in few.events(info.id).expect("known") {
            match event {
                Ok(event) => {
                    let position_and_payload =
                        (event.position().map_or(0, Position::get), event.payload().to_vec());
                    assert!(shown[&info.id].contains(&position_and_payload));
                    read += 1;
                }
                Err(error) => {
                    assert_eq!(*error.kind(), ErrorKind::Outdated, "{error}");
                    outdated += 1;
                }
            }
        }
    }
    assert!(read > 0 && outdated > 0, "{read} read, {outdated} outdated");
    assert!(is_between(&content(&open(4)), &all, &dead));
}

/// Negative control: a compactor that removes the old files first is noticed.
#[cfg(amberlog_sabotage)]
#[test]
fn control_removing_before_the_new_file_is_durable_is_noticed() {
    let _broken = crate::sabotage::sabotage(crate::sabotage::Sabotage::RemoveEarly);
    std::panic::catch_unwind(p6_f25_f30_compacting_may_be_cut_at_every_call)
        .expect_err("files were removed before what is left of them was durable, unnoticed");
}

/// Negative control: a compactor that takes live batches is noticed.
#[test]
fn control_compacting_what_is_wanted_is_noticed() {
    let (_, log, dead, all) = after_compacting(8);
    let is_live = |batch: &BatchCandidate| {
        !dead.contains(&batch.stream) && (batch.kind != BatchKind::Events || batch.first_seq != 3)
    };
    log.0.compact_where(CompactOptions::new(), Some(&is_live)).expect("compacted");
    let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| content(&log.read_view())));
    assert!(read.is_err() || !is_between(&read.unwrap_or_default(), &all, &dead));
}
