//! Does a compaction give back the space of wholly dead segments, also on a full disk?
//!
//! P4, P6, P7, P12; F17, F25, F30, F42, F45, F46. Streams that fill whole segments are deleted, the
//! disk is full, and the log is compacted: an empty file stands for each run of segments. Then the
//! machine stops at every call of that, and the log holds what it held before or what it should
//! hold afterwards.
#![cfg(feature = "sim")]

use super::deleting::{Shown, by_position, delete, facts, options, shown, stopped_at_every_call};
use crate::support::verified::checked_on;
use amberlog::maintenance::{CompactOptions, CompactReport};
use amberlog::sim::{Defect, Fault, SimDisk};
use amberlog::verify::{DamageKind, RecordBody, RecordDump, SegmentState};
use amberlog::{CommitId, CommitOptions, ErrorKind, Log, ReadView, Stream, StreamId, StreamState};

/// Commits events of 2,000 bytes, of which eight fill a segment.
fn fill(stream: &mut Stream, commits: u8) {
    for turn in 0..commits {
        stream.append([turn; 2_000]).expect("room");
        stream.commit().wait().expect("committed");
    }
}

fn compact(log: &Log) -> CompactReport {
    log.compact(CompactOptions::new()).expect("compacted")
}

fn names(disk: &SimDisk, ending: &str) -> Vec<String> {
    disk.files().into_keys().filter(|path| path.ends_with(ending)).collect()
}

fn segment_bytes(disk: &SimDisk) -> usize {
    disk.files().values().map(Vec::len).sum()
}

fn same_again(disk: &SimDisk, log: &Log) {
    let before = shown(&log.read_view());
    let found = checked_on(disk).expect("a log");
    assert_eq!(found.damages, []);
    assert_eq!(found.foreign, []);
    let (view, _) = ReadView::open_on(disk).expect("opens");
    assert_eq!(shown(&view), before);
    assert_eq!(by_position(&view), by_position(&log.read_view()));
}

/// Says that there is no space, as a full disk and as a quota; both also fail to make a file where they begin.
const NO_SPACE: [Fault; 2] = [Fault::Full, Fault::OverQuota];

#[test]
fn p5_p7_f45_on_a_full_disk_a_log_of_which_everything_is_deleted_gives_its_space_back() {
    for (fault, seed) in NO_SPACE.into_iter().flat_map(|fault| [(fault, 0), (fault, 1)]) {
        let disk = SimDisk::new(seed);
        let log = options().open_on(&disk).expect("opens");
        let mut streams: Vec<Stream> =
            (0..3).map(|_| log.create_stream().expect("a stream")).collect();
        let id = CommitOptions::new().id(CommitId::from(7));
        streams[0].append("named").expect("room");
        let named = streams[0].commit_with(id).wait().expect("committed").position;
        streams.iter_mut().for_each(|stream| fill(stream, 17));
        let (ids, pinned) = (streams.iter().map(Stream::id).collect::<Vec<_>>(), log.read_view());
        let (before, position) = (shown(&pinned), pinned.position());
        // From here on no byte goes where there was none.
        disk.fail_at(disk.calls(), fault);
        ids.iter().for_each(|id| delete(&log, *id));
        drop((streams, pinned));
        assert!(before.values().all(|events| events.len() >= 17));
        let full = segment_bytes(&disk);
        let dry = log.compact(CompactOptions::new().dry_run()).expect("planned");
        assert_eq!(segment_bytes(&disk), full, "a dry run changes nothing");
        let report = compact(&log);
        assert_eq!(dry.runs, report.runs);
        assert!(report.refused.is_empty(), "{:?}", report.refused);
        // The first segment holds what a commit was called, and stays.
        let left = names(&disk, ".seg");
        assert!(report.freed_bytes() > 60_000 && left.len() <= 4, "{left:?}, {report:?}");
        assert_eq!((full - segment_bytes(&disk)) as u64, report.freed_bytes());
        assert_eq!(report.runs[0].bytes_after, 0, "{report:?}");
        assert_eq!(names(&disk, ".gone").len(), 1);
        assert!(compact(&log).runs.iter().all(|run| run.bytes_after > 0), "nothing else is dead");
        same_again(&disk, &log);
        // There is room again, for all that there was room for before.
        let mut next = log.create_stream().expect("a stream");
        fill(&mut next, 30);
        same_again(&disk, &log);
        let (next, kept) = (next.id(), shown(&log.read_view()));
        log.close().expect("closes");
        let log = options().open_on(&disk).expect("opens");
        assert_eq!(shown(&log.read_view()), kept);
        assert_eq!(kept[&next].len(), 30);
        assert!(kept[&next][0].0 > position.get(), "positions go on");
        assert!(ids.iter().all(|id| log.state(*id) == Some(StreamState::Deleted)));
        let mut retry = log.create_stream().expect("a stream");
        retry.append("again").expect("room");
        let made = retry.commit_with(id).wait().expect_err("it was made");
        assert_eq!(*made.kind(), ErrorKind::AlreadyCommitted { position: named });
    }
}

/// A log in which each compaction meets another case: what is dead lies first, behind it, between what is alive, and before
/// what is partly dead.
struct Layout {
    kept: StreamId,
    dead: [StreamId; 4],
}

impl Layout {
    fn write(disk: &SimDisk) -> Self {
        let log = options().open_on(disk).expect("opens");
        let mut streams: Vec<Stream> =
            (0..5).map(|_| log.create_stream().expect("a stream")).collect();
        let [kept, first, second, third, fourth] = &mut streams[..] else { unreachable!() };
        fill(first, 17);
        fill(second, 17);
        for _ in 0..3 {
            fill(third, 7);
            fill(kept, 1);
        }
        fill(fourth, 17);
        fill(kept, 4);
        let dead = [first.id(), second.id(), third.id(), fourth.id()];
        let kept = kept.id();
        drop(streams);
        log.close().expect("closes");
        Self { kept, dead }
    }

    /// Deletes in turn, and compacts after each delete: a run; one that joins it; one that is rewritten behind a stand-in.
    fn run(&self, disk: &SimDisk) {
        let Ok(log) = options().open_on(disk) else { return };
        for id in self.dead {
            let _ = log.open_stream(id).map(|mut stream| stream.delete().wait());
            let _ = log.compact(CompactOptions::new());
        }
    }

    /// Everything that is not deleted is whole, at its position, and nothing else is there.
    fn check(&self, disk: &SimDisk, all: &Shown, context: &str) {
        let is_some_of = |now: &Shown| {
            now.contains_key(&self.kept)
                && now.iter().all(|(id, events)| all.get(id) == Some(events))
        };
        let found = amberlog::sim::verify_quick_on(disk).expect("a log");
        assert_eq!(found.damages, [], "{context}");
        let (view, _) = ReadView::open_on(disk).expect("opens");
        assert!(is_some_of(&shown(&view)), "{context}");
        by_position(&view);
        let log = options().open_on(disk).expect("opens for writing");
        assert!(log.recovery_report().is_sound(), "{context}");
        let after = shown(&log.read_view());
        assert!(is_some_of(&after), "{context}");
        let left = amberlog::sim::verify_quick_on(disk).expect("a log").segments;
        assert!(
            left.iter().all(|one| one.state != SegmentState::Superseded),
            "{context}: {left:?}"
        );
        for cut in 0..2 {
            let (view, found) = ReadView::open_on(&disk.after_power_cut(cut)).expect("opens");
            assert!(found.is_sound() && is_some_of(&shown(&view)), "{context}, cut again");
        }
        self.dead.iter().filter(|id| after.contains_key(id)).for_each(|id| delete(&log, *id));
        compact(&log);
        let expected = Shown::from([(self.kept, all[&self.kept].clone())]);
        assert_eq!(shown(&log.read_view()), expected, "{context}");
        log.close().expect("closes");
        let (view, found) = ReadView::open_on(&disk.after_power_cut(7)).expect("opens");
        assert_eq!(found.damages, [], "{context}");
        assert_eq!(shown(&view), expected, "{context}");
    }
}

#[test]
fn p4_p6_p7_f25_f30_f45_f46_dropping_may_be_stopped_at_every_call() {
    may_be_stopped(&SimDisk::new(3));
}

/// Control: stand-ins whose names are not durable, for which segments are removed all the same.
#[test]
fn control_stand_ins_that_are_not_durable_are_noticed() {
    let disk = SimDisk::new(3);
    disk.set_defect(Defect::UnsyncedNames("*.gone"));
    std::panic::catch_unwind(|| may_be_stopped(&disk))
        .expect_err("segments went before their stand-in was there, unnoticed");
}

fn may_be_stopped(disk: &SimDisk) {
    let layout = Layout::write(disk);
    let all = shown(&ReadView::open_on(disk).expect("opens").0);
    let run = |disk: &SimDisk, fault: Option<Fault>, _: &str| {
        layout.run(disk);
        if fault.is_none() {
            assert!(names(disk, ".gone").len() == 1, "{:?}", disk.files().keys());
        }
    };
    stopped_at_every_call(disk, run, |left, context| layout.check(left, &all, context));
}

/// A read view stays readable, by stream and by position, and its space is given back when it is
/// dropped. Other readers of the log meanwhile read the same or fail as outdated. A backup has the
/// stand-ins too.
#[test]
fn p6_p12_what_somebody_reads_stays_and_backups_are_whole() {
    let disk = SimDisk::new(4);
    let layout = Layout::write(&disk);
    let log = options().open_on(&disk).expect("opens");
    let (pinned, other) = (log.read_view(), ReadView::open_on(&disk).expect("opens").0);
    let (before, positions) = (shown(&pinned), by_position(&pinned));
    for (round, id) in layout.dead.into_iter().enumerate() {
        delete(&log, id);
        let middle = log.read_view();
        let (of_middle, positions_of_middle) = (shown(&middle), by_position(&middle));
        let report = compact(&log);
        assert!(report.refused.is_empty() && report.freed_bytes() > 0, "{report:?}");
        assert_eq!(shown(&pinned), before);
        assert_eq!(by_position(&pinned), positions);
        assert_eq!(shown(&middle), of_middle);
        assert_eq!(by_position(&middle), positions_of_middle);
        for event in other.events(id).expect("known") {
            match event {
                Ok(event) => assert!(before[&id].contains(&facts(&event))),
                Err(error) => assert_eq!(*error.kind(), ErrorKind::Outdated, "{error}"),
            }
        }
        same_again(&disk, &log);
        let expected = shown(&log.read_view());
        for (kind, target) in ["open", "closed"].map(|kind| (kind, format!("{kind}-{round}"))) {
            if kind == "open" {
                log.backup(&target).expect("backed up");
            } else {
                amberlog::sim::backup_on(&disk, &target).expect("backed up");
            }
            let backup = disk.dir(&target);
            assert_eq!(
                amberlog::sim::verify_quick_on(&backup).expect("a log").damages,
                [],
                "{kind}"
            );
            assert_eq!(shown(&ReadView::open_on(&backup).expect("opens").0), expected, "{kind}");
        }
    }
    assert!(!names(&disk, ".kept").is_empty());
    drop((pinned, other));
    assert_eq!(names(&disk, ".kept"), Vec::<String>::new());
    let records = RecordDump::open_on(&disk).expect("opens");
    let bodies = records.map(|record| record.expect("readable").body);
    let is_stand_in = |body: &RecordBody| matches!(body, RecordBody::Dropped { bytes: 0, .. });
    assert_eq!(bodies.filter(is_stand_in).count(), names(&disk, "segments").len() + 1);
    log.close().expect("closes");
    let files = disk.files();
    assert!(amberlog::sim::repair_on(&disk).expect("looked").changed_nothing());
    assert!(disk.files() == files);
}

/// A stand-in that is missing, renamed or no empty file is told; what only has such a name is kept.
#[test]
fn p6_f17_f42_what_becomes_of_a_stand_in_is_told() {
    let disk = SimDisk::new(5);
    let layout = Layout::write(&disk);
    let before = disk.copy();
    layout.run(&disk);
    let [path] = &names(&disk, ".gone")[..] else { panic!("{:?}", disk.files().keys()) };
    let missing = disk.copy();
    missing.remove_file(path);
    let found = checked_on(&missing).expect("a log");
    assert!(found.damages.iter().any(|one| one.kind == DamageKind::Missing), "{found:?}");
    // A stand-in for other positions has another check.
    let other = path.replace('-', "-1");
    for (name, bytes) in [(path.clone(), &b"x"[..]), (other, b"")] {
        let wrong = missing.copy();
        wrong.write_file(&name, bytes);
        let found = checked_on(&wrong).expect("a log");
        assert!(found.damages.iter().any(|one| one.kind == DamageKind::Missing), "{found:?}");
        let is_named = |place: &amberlog::Place| place.path.to_string_lossy() == name;
        assert!(found.foreign.iter().any(is_named), "{found:?}");
    }
    // Another file has the name of the first stand-in that will be made.
    let first = before.copy();
    let log = options().open_on(&first).expect("opens");
    delete(&log, layout.dead[0]);
    assert_eq!(compact(&log).refused.len(), 0);
    let [path] = &names(&first, ".gone")[..] else { panic!("{:?}", first.files().keys()) };
    before.write_file(path, b"not the log's");
    let log = options().open_on(&before).expect("opens");
    let all = shown(&log.read_view());
    delete(&log, layout.dead[0]);
    assert!(!compact(&log).refused.is_empty());
    assert_eq!(before.files()[path], b"not the log's");
    log.close().expect("closes");
    let now = shown(&ReadView::open_on(&before).expect("opens").0);
    assert!(now.len() == 4 && now.iter().all(|(id, events)| all[id] == *events));
    assert_eq!(amberlog::sim::verify_quick_on(&before).expect("a log").damages, []);
}

/// Controls: a compactor that needs space for what is dead, and those that take files away too early.
#[cfg(amberlog_sabotage)]
#[test]
fn control_dropping_that_needs_space_or_is_not_durable_is_noticed() {
    use amberlog::{Sabotage, sabotage};
    use std::panic::catch_unwind;
    let full = p5_p7_f45_on_a_full_disk_a_log_of_which_everything_is_deleted_gives_its_space_back;
    let stopped = p4_p6_p7_f25_f30_f45_f46_dropping_may_be_stopped_at_every_call;
    let controls: [(_, fn()); 3] = [
        (Sabotage::RewriteDead, full),
        (Sabotage::RemoveEarly, stopped),
        (Sabotage::CompactUnproven, stopped),
    ];
    for (what, test) in controls {
        let broken = sabotage(what);
        let found = catch_unwind(test);
        drop(broken);
        assert!(found.is_err(), "{what:?} went unnoticed");
    }
}
