//! Does a repair keep all that can be proven, name all that is lost, and lose no byte itself?
//!
//! P6, P7, P13; F14 to F18, F21, F22, F24 to F27, F30. Logs of known content are damaged in every way that a disk or a
//! hand can think of. What must be left of each, to the event, and what must be named, to the position, is
//! computed from the damaged bytes by an oracle that knows where each commit stood (`support/oracle.rs`). The
//! repair is asked to keep exactly that, to be idempotent, and to keep every original byte.
//!
//! `AMBERLOG_EVERY_BIT` is the distance, in the mean, of the bits that are flipped: 1 flips every one.
//! `AMBERLOG_REPAIR_SEED` chooses other places for everything else.
#![cfg(feature = "sim")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::{fs, thread};

use crate::support::oracle::{
    Files, How, Sample, Strictness, disk_of, files_of, restored, segment_path,
};
use crate::support::{Rng, env_or, segment, sparsely};
use amberlog::Log;
use amberlog::options::Privacy;
use amberlog::sim::{Fault, repair_on};
use amberlog::verify::RecoveryReport;
use amberlog::verify::repair;

const SECTOR: usize = 512;
/// Commits in a sample: three full segments and part of a fourth.
const TURNS: u64 = 135;

fn seed() -> u64 {
    env_or("AMBERLOG_REPAIR_SEED", 1)
}

fn check(sample: &Sample, case: &str, damaged: &Files, strictness: Strictness) {
    let outcome = catch_unwind(AssertUnwindSafe(|| sample.check(damaged, strictness)));
    assert!(outcome.is_ok(), "{:?} log, seed {}, {case}", sample.how, seed());
}

/// One change to one file.
fn change(sample: &Sample, case: &str, path: &str, with: impl FnOnce(&mut Vec<u8>)) {
    let mut files = sample.files.clone();
    with(files.get_mut(path).expect("there"));
    check(sample, &format!("{path}: {case}"), &files, Strictness::Exact);
}

fn paths(sample: &Sample) -> Vec<String> {
    sample.files.keys().filter(|path| path.ends_with(".seg")).cloned().collect()
}

fn on_each_sample(work: impl Fn(&Sample) + Sync) {
    thread::scope(|scope| {
        for how in [How::Closed, How::Killed, How::Unsynced] {
            let work = &work;
            scope.spawn(move || work(&Sample::new(how, TURNS)));
        }
    });
}

#[test]
fn f24_a_whole_log_is_not_touched() {
    on_each_sample(|sample| {
        assert_eq!(sample.segments, 4, "change TURNS");
        check(sample, "untouched", &sample.files, Strictness::Exact);
        let report = repair_on(&disk_of(&sample.files)).expect("repaired");
        assert!(report.changed_nothing() && report.before.is_sound(), "{report:?}");
        assert_eq!(report.before.torn_tail, None);
    });
}

/// What replaces a damaged part may be damaged as well: a header's second copy, the trailer that
/// names the segment, the index that says where its commits are.
#[test]
fn p6_p13_f14_two_places_of_a_segment_at_once() {
    on_each_sample(|sample| {
        for path in paths(sample) {
            let (length, commits_end) = (sample.files[&path].len(), sample.commits_end(&path));
            let places = [
                ("header", 0..4096),
                ("its first copy", 0..SECTOR),
                ("its second copy", 4096 - SECTOR..4096),
                ("first commit", 4096..4096 + SECTOR),
                ("footer", commits_end..(commits_end + 16).min(length)),
                ("trailer", length - 16..length),
                ("all behind the commits", commits_end..length),
            ];
            for (nth, (one, first)) in places.iter().enumerate() {
                for (other, second) in &places[nth + 1..] {
                    for flipped in [false, true] {
                        let mut files = sample.files.clone();
                        let bytes = files.get_mut(&path).expect("there");
                        for place in [first, second] {
                            match flipped {
                                true => bytes[place.start] ^= 0x41,
                                false => bytes[place.clone()].fill(0),
                            }
                        }
                        let case = format!("{path}: {one} and {other}, flipped: {flipped}");
                        check(sample, &case, &files, Strictness::AtMost);
                    }
                }
            }
        }
    });
}

#[test]
fn p6_f18_f21_flipped_bits() {
    let stride = env_or("AMBERLOG_EVERY_BIT", 2_003 * sparsely());
    on_each_sample(|sample| {
        let mut rng = Rng::new(seed());
        for path in paths(sample) {
            let bits = sample.files[&path].len() as u64 * 8;
            let mut bit = rng.below(stride);
            while bit < bits {
                change(sample, &format!("bit {bit}"), &path, |bytes| {
                    bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
                });
                bit += 1 + if stride > 1 { rng.below(2 * stride - 1) } else { 0 };
            }
        }
    });
}

/// A log of one segment and few commits, so that most of its bits mean something.
#[test]
fn p6_f18_f21_flipped_bits_of_a_small_log() {
    let stride = env_or("AMBERLOG_EVERY_BIT", 61 * sparsely());
    thread::scope(|scope| {
        for how in [How::Closed, How::Killed, How::Unsynced] {
            scope.spawn(move || {
                let sample = Sample::new(how, 6);
                let path = segment_path(1);
                let mut rng = Rng::new(seed());
                let used = sample.files[&path].iter().rposition(|byte| *byte != 0).expect("some");
                let mut bit = rng.below(stride);
                while bit < (used as u64 + 64).min(sample.files[&path].len() as u64) * 8 {
                    change(&sample, &format!("small, bit {bit}"), &path, |bytes| {
                        bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
                    });
                    bit += 1 + if stride > 1 { rng.below(2 * stride - 1) } else { 0 };
                }
            });
        }
    });
}

#[test]
fn p6_f14_f15_zeroed_sectors() {
    on_each_sample(|sample| {
        for path in paths(sample) {
            for at in (0..sample.files[&path].len()).step_by(SECTOR * sparsely() as usize) {
                change(sample, &format!("sector at {at} zeroed"), &path, |bytes| {
                    let end = bytes.len().min(at + SECTOR);
                    bytes[at..end].fill(0);
                });
            }
        }
    });
}

#[test]
fn p6_f20_swapped_and_repeated_sectors() {
    on_each_sample(|sample| {
        let mut rng = Rng::new(seed() + 11);
        let paths = paths(sample);
        for n in 0..200 / sparsely() as usize {
            let path = &paths[n % paths.len()];
            let other = &paths[(n / 2) % paths.len()];
            let sector = |path: &String, rng: &mut Rng| {
                rng.below((sample.files[path].len() / SECTOR) as u64) as usize * SECTOR
            };
            let (a, b) = (sector(path, &mut rng), sector(other, &mut rng));
            let first = sample.files[path][a..a + SECTOR].to_vec();
            let second = sample.files[other][b..b + SECTOR].to_vec();
            // A footer tells where each commit belongs. Without one, a record that stands where another belongs may
            // hide its neighbours: more than was hit may be lost, and all of it is named.
            let unsealed = |path: &str, at: usize| {
                let footer_hit = at + SECTOR > sample.commits_end(path);
                footer_hit || path >= segment_path(sample.segments - 1).as_str()
            };
            let strictness = match unsealed(path, a) || unsealed(other, b) {
                true => Strictness::Named,
                false => Strictness::AtMost,
            };
            let mut files = sample.files.clone();
            files.get_mut(other).expect("there")[b..b + SECTOR].copy_from_slice(&first);
            check(sample, &format!("{path} {a} also at {other} {b}"), &files, strictness);
            files.get_mut(path).expect("there")[a..a + SECTOR].copy_from_slice(&second);
            check(sample, &format!("{path} {a} and {other} {b} swapped"), &files, strictness);
        }
    });
}

/// The first sector of one file over that of another: the second copy of the header still says whose it is.
#[test]
fn p6_f17_a_header_over_another() {
    let foreign = Sample::new(How::Closed, TURNS);
    on_each_sample(|sample| {
        for number in 1..=sample.segments {
            let path = segment_path(number);
            for from in
                [&sample.files[&segment_path(number % sample.segments + 1)], &foreign.files[&path]]
            {
                change(sample, "another header", &path, |bytes| {
                    bytes[..SECTOR].copy_from_slice(&from[..SECTOR]);
                });
            }
        }
    });
}

/// The sector with the head of the last commit is swapped with each that its bytes are in: the head must not be
/// followed over the tail record, which proves that the commit was there.
#[test]
fn p6_f16_f20_a_head_behind_itself() {
    on_each_sample(|sample| {
        let (path, bytes) = sample.last_commit();
        let head = bytes.start / SECTOR * SECTOR;
        for other in (head + SECTOR..bytes.end / SECTOR * SECTOR).step_by(SECTOR) {
            let mut files = sample.files.clone();
            let bytes = files.get_mut(&path).expect("there");
            (0..SECTOR).for_each(|n| bytes.swap(head + n, other + n));
            let case = format!("{path}: sectors {head} and {other} swapped");
            check(sample, &case, &files, Strictness::AtMost);
        }
    });
}

#[test]
fn p6_f28_f29_cut_files() {
    on_each_sample(|sample| {
        let mut rng = Rng::new(seed() + 12);
        for path in paths(sample) {
            let length = sample.files[&path].len() as u64;
            let edges = [0, 1, 79, 80, 4_095, 4_096, 4_097, length - 65, length - 64, length - 1];
            let lengths = edges.into_iter().chain((0..40 / sparsely()).map(|_| rng.below(length)));
            for length in lengths.collect::<Vec<_>>() {
                change(sample, &format!("cut to {length}"), &path, |bytes| {
                    bytes.truncate(length as usize);
                });
            }
        }
    });
}

#[test]
fn p6_f17_segments_that_are_missing_repeated_renamed_or_foreign() {
    let foreign = Sample::new(How::Closed, TURNS);
    on_each_sample(|sample| {
        // Nothing proves that the last segment of a log without a single sync was ever there.
        let provable = sample.segments - u32::from(sample.how == How::Unsynced);
        let with = |case: &str, edit: &dyn Fn(&mut Files)| {
            let mut files = sample.files.clone();
            edit(&mut files);
            check(sample, case, &files, Strictness::Exact);
        };
        for number in 1..=sample.segments {
            let path = segment_path(number);
            let bytes = &sample.files[&path];
            with(&format!("{number} all zeros"), &|files| {
                files.get_mut(&path).expect("there").fill(0);
            });
            with(&format!("{number} empty"), &|files| drop(files.insert(path.clone(), Vec::new())));
            with(&format!("{number} again at the end"), &|files| {
                files.insert(segment_path(sample.segments + 1), bytes.clone());
            });
            with(&format!("{number} of another log"), &|files| {
                files.insert(path.clone(), foreign.files[&path].clone());
            });
            for other in (1..=sample.segments).filter(|other| *other != number) {
                let other = segment_path(other);
                with(&format!("{number} over {other}"), &|files| {
                    files.insert(other.clone(), bytes.clone());
                });
                with(&format!("{number} and {other} swapped"), &|files| {
                    files.insert(path.clone(), sample.files[&other].clone());
                    files.insert(other.clone(), bytes.clone());
                });
            }
            if number <= provable {
                with(&format!("{number} deleted"), &|files| drop(files.remove(&path)));
                with(&format!("{number} moved to the end"), &|files| {
                    files.remove(&path);
                    files.insert(segment_path(sample.segments + 2), bytes.clone());
                });
            }
        }
    });
}

/// Damages of each kind that makes a repair do something, and one that leaves it nothing to do.
fn repairable(sample: &Sample) -> Vec<(&'static str, Files)> {
    let last = segment_path(sample.segments);
    let with = |edit: &dyn Fn(&mut Files)| {
        let mut files = sample.files.clone();
        edit(&mut files);
        files
    };
    let end = |files: &Files| files[&last].iter().rposition(|byte| *byte != 0).expect("some") + 1;
    vec![
        ("a hole", with(&|files| files.get_mut(&segment_path(2)).expect("there")[9_000] ^= 1)),
        (
            "a torn tail",
            with(&|files| {
                let at = end(files) + 40;
                let bytes = files.get_mut(&last).expect("there");
                bytes.resize(bytes.len().max(at + 3_000), 0);
                (0..1_500).for_each(|n| bytes[at + n] = n as u8 | 1);
            }),
        ),
        (
            "a cut",
            with(&|files| {
                let to = end(files) - 700;
                files.get_mut(&last).expect("there").truncate(to);
            }),
        ),
        ("a header", with(&|files| files.get_mut(&last).expect("there")[..4_096].fill(7))),
        ("a missing segment", with(&|files| drop(files.remove(&last)))),
    ]
}

/// F25: a repair that is cut at any call, by a kill or by a power cut, is finished by the next one; it ends where
/// one that was not cut ends, and no original byte is lost on the way.
#[test]
fn f25_f30_a_repair_may_be_cut_anywhere() {
    let chances = 8 / sparsely();
    thread::scope(|scope| {
        for how in [How::Closed, How::Killed] {
            scope.spawn(move || {
                let sample = Sample::new(how, TURNS);
                for (case, damaged) in repairable(&sample) {
                    cut_everywhere(&sample, case, &damaged, chances);
                }
            });
        }
    });
}

/// A repair that was cut before it cut the file leaves that to the next opening: behind the end there are zeros.
fn but_for_lengths(recovery: &RecoveryReport) -> RecoveryReport {
    let mut recovery = recovery.clone();
    recovery.closed_cleanly = false;
    recovery.segments.iter_mut().for_each(|segment| segment.bytes = 0);
    recovery
}

fn cut_everywhere(sample: &Sample, case: &str, damaged: &Files, chances: u64) {
    let whole = disk_of(damaged);
    let report = repair_on(&whole).expect("repaired");
    let calls = whole.calls();
    let repaired = files_of(&whole);
    let content = sample.content(&whole);
    for call in first_change(damaged, calls)..calls {
        let disk = disk_of(damaged);
        disk.fail_at(call, Fault::Crash);
        if repair_on(&disk).is_ok() {
            break;
        }
        for chance in 0..=chances {
            let case = format!("{:?} log, {case}, call {call} of {calls}, {chance}", sample.how);
            let after = match chance {
                0 => disk.after_kill(),
                _ => disk.after_power_cut(seed() + call * 100 + chance),
            };
            let again = repair_on(&after).unwrap_or_else(|error| panic!("{case}: {error:?}"));
            let files = files_of(&after);
            assert!(files.keys().eq(repaired.keys()), "{case}: {:?}", files.keys());
            assert_eq!(but_for_lengths(&again.after), but_for_lengths(&report.after), "{case}");
            let original = without_lock(damaged);
            assert!(restored(&files, &original) == original, "{case}: an original byte is lost");
            assert!(repair_on(&after).expect("again").changed_nothing(), "{case}");
            assert_eq!(sample.content(&after), content, "{case}");
        }
    }
}

/// The call before which a repair has changed nothing.
fn first_change(damaged: &Files, calls: u64) -> u64 {
    let unchanged = |call: u64| {
        let disk = disk_of(damaged);
        disk.fail_at(call, Fault::Crash);
        let _ = repair_on(&disk);
        files_of(&disk) == without_lock(damaged)
    };
    let (mut low, mut high) = (0, calls);
    while low < high {
        let middle = low.midpoint(high);
        if unchanged(middle) { low = middle + 1 } else { high = middle }
    }
    low.saturating_sub(2)
}

fn without_lock(files: &Files) -> Files {
    files
        .iter()
        .filter(|(path, _)| *path != "LOCK")
        .map(|(path, bytes)| (path.clone(), bytes.clone()))
        .collect()
}

/// P14: what a repair makes on a real disk can be read by the readers of the log, and by no other user.
#[test]
fn p14_what_a_repair_makes_is_as_private_as_the_log() {
    use std::os::unix::fs::PermissionsExt;
    for (privacy, mode) in [(Privacy::Private, 0o600), (Privacy::Readable, 0o644)] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = Log::options().segment_bytes_first(16 << 10).privacy(privacy);
        let log = options.open(dir.path()).expect("opens");
        let mut stream = log.create_stream().expect("a stream");
        stream.append([1; 1000]).expect("room");
        stream.commit().wait().expect("committed");
        drop(stream);
        log.close().expect("closes");
        let first = segment(dir.path(), 1);
        let whole = fs::read(&first).expect("readable");
        let mut longer = whole.clone();
        longer.extend([7; 100]);
        let mode_of = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        fs::write(&first, longer).expect("written");
        let report = repair(dir.path()).expect("repaired");
        assert_eq!(report.cleared_bytes, 100);
        assert_eq!(mode_of(&dir.path().join(&report.set_aside[0].path)), mode, "the copy");
        fs::write(&first, &whole[..whole.len() - 100]).expect("written");
        let report = repair(dir.path()).expect("repaired");
        let new = report.went_on.expect("a new segment");
        assert_eq!(mode_of(&dir.path().join(new.place.path)), mode, "the new segment");
        assert!(repair(dir.path()).expect("again").changed_nothing());
    }
}
