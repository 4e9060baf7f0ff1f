//! Is a backup that was made under load a whole log, whatever happens while it is made?
//!
//! P3, P6, P7, P14; F25, F30, F36. On a real disk beside threads that commit; on the simulated one the machine stops
//! at every call of a backup, and every call of it fails.
#![cfg(feature = "sim")]

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::support::oracle::{How, Sample, disk_of};
use crate::support::read_dir;
use crate::support::verified::{checked, checked_on};
use crate::support::waiting::wait_until;
use amberlog::maintenance::backup;
use amberlog::maintenance::{BackupReport, CompactOptions};
use amberlog::sim::{Defect, Fault, SimDisk, backup_on};
use amberlog::{Durability, ErrorKind, Log, Options, ReadView, StreamId, StreamOptions};

/// Payloads by stream.
type Content = BTreeMap<StreamId, Vec<Vec<u8>>>;

fn content(view: &ReadView) -> Content {
    let read = |id| {
        let events = view.events(id).expect("known");
        events.map(|event| event.expect("whole").payload().to_vec()).collect()
    };
    view.streams().into_iter().map(|info| (info.id, read(info.id))).collect()
}

fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(32 << 10)
}

/// Some sealed segments, one that is full, one that is written.
fn fill(log: &Log, commits: u8) {
    let name = format!("from {}", log.read_view().position());
    let mut named = log.create_stream_with(&StreamOptions::new().name(name)).expect("a stream");
    let mut other = log.create_stream().expect("a stream");
    for turn in 0..commits {
        named.append([turn; 700]).expect("room");
        if turn % 3 == 0 {
            other.append([turn; 300]).expect("room");
            log.commit_all([&mut named, &mut other]).wait().expect("committed");
        } else {
            named.commit().wait().expect("committed");
        }
    }
}

/// A closed log, sound, that ends where the report says, with this in it; and one that can be gone on with.
fn is_whole(disk: &SimDisk, report: &BackupReport, expected: &Content) {
    let found = checked_on(disk).expect("a log");
    assert_eq!(found.damages, [], "nothing is damaged");
    assert!(found.closed_cleanly && found.torn_tail.is_none());
    assert_eq!(found.position, report.position);
    let (view, _) = ReadView::open_on(disk).expect("opens");
    assert_eq!(content(&view), *expected);
    let log = options().open_on(disk).expect("can be written");
    let mut stream = log.create_stream().expect("a stream");
    stream.append("behind the backup").expect("room");
    let commit = stream.commit().wait().expect("committed");
    assert_eq!(commit.position.get(), report.position.get() + 1);
}

#[test]
fn p6_p7_a_backup_is_the_log_as_it_stood_at_one_position() {
    for commits in [0, 1, 20, 41, 90] {
        let disk = SimDisk::new(u64::from(commits));
        let log = options().open_on(&disk).expect("opens");
        fill(&log, commits);
        let before = disk.files();
        let report = log.backup("b").expect("backed up");
        let kept = |files: &BTreeMap<String, Vec<u8>>| -> BTreeMap<String, Vec<u8>> {
            let own = |path: &&String| path.starts_with("segments/");
            files.keys().filter(own).map(|path| (path.clone(), files[path].clone())).collect()
        };
        assert_eq!(kept(&disk.files()), kept(&before), "the log is not touched");
        assert_eq!(report.position, log.read_view().position());
        let expected = content(&log.read_view());
        if commits > 0 {
            is_whole(&disk.dir("b").copy(), &report, &expected);
        }
        assert!(commits < 90 || report.shared_bytes > 0, "sealed segments are shared");
        // What is committed later is not in it, and what is written to it is not in the log.
        fill(&log, 9);
        let again = log.backup("c").expect("backed up");
        is_whole(&disk.dir("c").copy(), &again, &content(&log.read_view()));
        assert!(again.position > report.position);
        let refused = log.backup("b").expect_err("it is there");
        assert_eq!(*refused.kind(), ErrorKind::NotEmpty);
        log.close().expect("closes");
        let closed = backup_on(&disk, "d").expect("backed up");
        assert_eq!((closed.position, closed.segments), (again.position, again.segments));
    }
}

#[test]
fn p3_f30_what_a_backup_returned_survives_every_power_cut() {
    survives_every_power_cut(&SimDisk::new(7));
}

fn survives_every_power_cut(disk: &SimDisk) {
    let log = options().open_on(disk).expect("opens");
    fill(&log, 90);
    let report = log.backup("b").expect("backed up");
    let expected = content(&log.read_view());
    for seed in 0..40 {
        is_whole(&disk.dir("b").after_power_cut(seed), &report, &expected);
    }
}

#[test]
fn p6_f25_a_backup_that_is_cut_anywhere_says_so_and_hurts_nothing() {
    let disk = SimDisk::new(4);
    let log = options().open_on(&disk).expect("opens");
    fill(&log, 60);
    let expected = content(&log.read_view());
    let from = disk.calls();
    let whole = disk.copy();
    drop(log);
    let (mut unfinished, mut finished) = (0, 0);
    let mut states = HashSet::new();
    let report = backup_on(&whole, "b").expect("backed up");
    for fault in [Fault::Crash, Fault::Io, Fault::LostSync, Fault::Full, Fault::Short] {
        for call in from..whole.calls() {
            let failing = disk.copy();
            failing.fail_at(call, fault);
            let result = backup_on(&failing, "b");
            let mut left = vec![failing.after_kill()];
            let cuts = (0..6).map(|seed| failing.after_power_cut(seed));
            left.extend(cuts.filter(|cut| states.insert((cut.fingerprint(), result.is_ok()))));
            for (way, left) in left.into_iter().enumerate() {
                // Events are not committed into the last room of a disk.
                left.set_capacity(u64::MAX);
                match checked_on(&left.dir("b")) {
                    Ok(_) => {
                        is_whole(&left.dir("b"), &report, &expected);
                        finished += 1;
                    }
                    Err(error) => {
                        let context = format!("{fault:?} at call {call}, way {way}");
                        let kind = error.kind();
                        assert!(result.is_err(), "it was said to be finished: {context}");
                        assert!(
                            matches!(kind, ErrorKind::UnfinishedBackup | ErrorKind::NoLog),
                            "{context}: {error}"
                        );
                        if *kind == ErrorKind::UnfinishedBackup {
                            let refused = options().open_on(&left.dir("b")).expect_err("refused");
                            assert_eq!(*refused.kind(), ErrorKind::UnfinishedBackup);
                            unfinished += 1;
                        }
                    }
                }
                let (view, found) = ReadView::open_on(&left).expect("opens");
                assert!(found.is_sound());
                assert_eq!(content(&view), expected, "the log itself");
            }
        }
    }
    assert!(unfinished > 100 && finished > 10, "{unfinished} unfinished, {finished} whole");
}

/// A backup of damaged bytes is damaged in the same places: it repairs nothing.
#[test]
fn p6_f26_the_backup_of_a_damaged_log_has_the_same_damage() {
    let mut compared = 0;
    for how in [How::Closed, How::Killed] {
        let sample = Sample::new(how, 60);
        for (path, bytes) in &sample.files {
            for at in (0..bytes.len()).step_by(1_999) {
                let mut files = sample.files.clone();
                files.get_mut(path).expect("there")[at] ^= 4;
                let disk = disk_of(&files);
                let Ok(report) = backup_on(&disk, "b") else { continue };
                let (here, there) = (checked_on(&disk), checked_on(&disk.dir("b")));
                let (here, there) = (here.expect("a log"), there.expect("a log"));
                // A torn tail stays behind, and with it what may be damage behind the last acknowledgement.
                let proven = |found: &amberlog::verify::RecoveryReport| {
                    let own =
                        found.damages.iter().filter(|one| one.positions.start <= report.position);
                    own.map(|one| (one.kind, one.place.clone())).collect::<Vec<_>>()
                };
                assert_eq!(proven(&here), proven(&there), "byte {at} of {path}");
                compared += 1;
            }
        }
        let mut missing = sample.files.clone();
        missing.remove("segments/0000000002.seg");
        let disk = disk_of(&missing);
        backup_on(&disk, "b").expect("backed up");
        let found = checked_on(&disk.dir("b")).expect("a log");
        assert_eq!(found.damages, checked_on(&disk).expect("a log").damages);
    }
    assert!(compared > 20, "{compared} backups of damaged logs");
}

/// On a real file system, beside threads that commit: everything that was acknowledged before a backup began is
/// in it, and streams are dense.
#[test]
fn p3_p7_f36_backups_under_load_on_a_real_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = options().segment_bytes_max(256 << 10).open(dir.path().join("log")).expect("opens");
    let (done, acked) = (AtomicBool::new(false), [AtomicU64::new(0), AtomicU64::new(0)]);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|n| {
                let (mut stream, done, acked) =
                    (log.create_stream().expect("one"), &done, &acked[n]);
                let id = stream.id();
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        stream.append([7; 3_000]).expect("room");
                        stream.commit().wait().expect("committed");
                        acked.fetch_add(1, Ordering::SeqCst);
                    }
                });
                id
            })
            .collect();
        let acknowledged =
            || acked.iter().map(|one| one.load(Ordering::SeqCst)).collect::<Vec<_>>();
        for round in 0..6 {
            wait_until("writers that go on", || {
                acknowledged().iter().all(|acked| *acked >= 4 * (round + 1))
            });
            let before = acknowledged();
            let target = dir.path().join(format!("backup {round}"));
            let report = if round % 2 == 0 {
                log.backup(&target).expect("backed up")
            } else {
                backup(dir.path().join("log"), &target).expect("backed up")
            };
            let found = checked(&target).expect("a log");
            assert!(found.is_sound() && found.closed_cleanly, "{:?}", found.damages);
            assert_eq!(found.position, report.position);
            let (view, _) = ReadView::open(&target).expect("opens");
            for (id, acked) in writers.iter().zip(before) {
                let count = view
                    .events(*id)
                    .map_or(0, |all| all.inspect(|event| assert!(event.is_ok())).count() as u64);
                assert!(count >= acked, "round {round}: {count} of {acked}");
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    is_private(&dir.path().join("backup 0"));
    let files = read_dir(&dir.path().join("backup 0"));
    // A backup may be written: the log does not change with it.
    let before = content(&log.read_view());
    drop(options().open(dir.path().join("backup 5")).map(|log| fill(&log, 30)));
    assert_eq!(content(&log.read_view()), before);
    assert_eq!(read_dir(&dir.path().join("backup 0")), files);
}

/// Another process backs up a log whose writer deletes and compacts meanwhile. The backup read the
/// state of the log first and took the files afterwards: events were missing of streams that lived
/// in the backup, because a compaction in between had removed them, and the backup was called
/// finished. Now the files are held first.
#[test]
fn p6_p12_a_backup_by_others_has_all_that_it_shows_while_the_log_is_compacted() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("log");
    let log = options().durability(Durability::Os).open(&root).expect("opens");
    fill(&log, 3);
    let (done, turns) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut living = std::collections::VecDeque::new();
            // It ends by itself when the other thread has panicked.
            for round in 0..20_000 {
                if done.load(Ordering::Relaxed) {
                    return;
                }
                turns.fetch_add(1, Ordering::SeqCst);
                let mut stream = log.create_stream().expect("a stream");
                for _ in 0..3 {
                    stream.append([7; 1_500]).expect("room");
                    stream.commit().wait().expect("committed");
                }
                living.push_back(stream);
                if living.len() > 40 {
                    let gone = living.remove(round * 7 % 30);
                    gone.expect("there").delete().wait().expect("deleted");
                }
                if round % 3 == 0 {
                    let how = CompactOptions::new().dead_percent_min(10);
                    log.compact(how).expect("compacted");
                }
            }
        });
        for round in 0..12 {
            let seen = turns.load(Ordering::SeqCst);
            wait_until("a writer that goes on", || turns.load(Ordering::SeqCst) > seen + 3);
            let target = dir.path().join(format!("backup {round}"));
            backup(&root, &target).expect("backed up");
            let (view, found) = ReadView::open(&target).expect("opens");
            assert!(found.is_sound(), "{:?}", found.damages);
            for info in view.streams() {
                let mut events = view.events(info.id).expect("known");
                let whole = events.try_for_each(|event| event.map(drop));
                whole.unwrap_or_else(|error| panic!("round {round}: {error}"));
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

fn is_private(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(dir), 0o700);
    for entry in dir.join("segments").read_dir().expect("a directory") {
        assert_eq!(mode(&entry.expect("an entry").path()), 0o600);
    }
}

/// Without the sync of its files a backup does not survive.
#[test]
fn control_a_backup_that_is_not_synced_is_noticed() {
    let disk = SimDisk::new(7);
    disk.set_defect(Defect::UnsyncedBytes("b/*"));
    std::panic::catch_unwind(|| survives_every_power_cut(&disk))
        .expect_err("a backup that was not synced was whole after every power cut");
}
