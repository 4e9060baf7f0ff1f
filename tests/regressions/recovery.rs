//! Bugs of recovery and repair.

use std::fs;

use amberlog::{DamageKind, ErrorKind, Snapshot, survey};
use tempfile::TempDir;

use super::support::{read_dir, segment, write_dir};
use super::{dir, small};

/// A closed log of two segments.
fn fill(dir: &TempDir) {
    let log = small().open(dir.path()).expect("opens");
    let mut stream = log.stream().expect("a stream");
    for n in 0..18_u8 {
        stream.append([n; 1000]).expect("room");
        stream.commit().wait().expect("committed");
    }
    drop(stream);
    log.close().expect("closes");
}

/// All bytes of a log's only segment read as zeros. That was taken for a beginning that a crash had cut, and the
/// log began anew at the first position, without a word. Now a file has a header before it has its name.
#[test]
fn p6_f28_a_segment_of_zeros_is_no_beginning() {
    let dir = dir();
    let log = small().open(dir.path()).expect("opens");
    let mut stream = log.stream().expect("a stream");
    stream.append("event").expect("room");
    stream.commit().wait().expect("committed");
    drop(stream);
    log.close().expect("closes");
    let length = fs::metadata(segment(dir.path(), 1)).expect("there").len() as usize;
    fs::write(segment(dir.path(), 1), vec![0; length]).expect("written");
    assert_eq!(survey(dir.path()).expect("readable").damages[0].kind, DamageKind::Header);
    assert!(matches!(
        small().open(dir.path()).expect_err("lost").kind(),
        ErrorKind::Corrupt { .. }
    ));
    assert!(amberlog::repair(dir.path()).expect("repaired").went_on.is_some());
    let log = small().open(dir.path()).expect("opens");
    let mut stream = log.stream().expect("a stream");
    stream.append("new").expect("room");
    assert!(stream.commit().wait().expect("committed").position.get() > 1, "never given again");
}

/// Something had been appended to the file of a log that was closed. Opening cleared it and wrote a witness that
/// did not say any more that the log had been closed. If the process died then, the file, which a close had cut,
/// seemed to have lost its end, and the log could not be opened again.
#[test]
fn f25_what_stands_behind_a_clean_close_is_cleared_and_the_close_stays() {
    let (dir, copy) = (dir(), dir());
    let log = small().open(dir.path()).expect("opens");
    let mut stream = log.stream().expect("a stream");
    stream.append("event").expect("room");
    stream.commit().wait().expect("committed");
    drop(stream);
    log.close().expect("closes");
    let mut bytes = fs::read(segment(dir.path(), 1)).expect("readable");
    bytes.extend([7; 3000]);
    fs::write(segment(dir.path(), 1), bytes).expect("written");
    let log = small().open(dir.path()).expect("opens");
    assert_eq!(log.survey().torn_tail.as_ref().map(|torn| torn.bytes), Some(3000));
    write_dir(copy.path(), &read_dir(dir.path()));
    drop(log);
    let log = small().open(copy.path()).expect("opens after a kill");
    assert!(log.survey().is_sound() && log.survey().torn_tail.is_none(), "{:?}", log.survey());
}

/// One of two used segments was overwritten with one of another log. The spare had the casting vote on whose log
/// it was; when a close removed the spare, all that had just been committed belonged to a stranger.
#[test]
fn f17_whose_log_it_is_does_not_change_with_a_spare() {
    let (dir, other) = (dir(), dir());
    for dir in [&dir, &other] {
        fill(dir);
    }
    fs::copy(segment(other.path(), 1), segment(dir.path(), 1)).expect("copied");
    let ids = |dir: &TempDir| {
        let (snapshot, _) = Snapshot::open(dir.path()).expect("readable");
        snapshot.streams().into_iter().map(|one| one.id).collect::<Vec<_>>()
    };
    let before = ids(&dir);
    // A spare as an open log has it, and one that a kill leaves.
    let spare = spare_of(&dir, 3);
    fs::write(segment(dir.path(), 3), spare).expect("written");
    assert_eq!(ids(&dir), before);
}

/// An empty segment of the same log as segment 2.
fn spare_of(dir: &TempDir, number: u8) -> Vec<u8> {
    let from = fs::read(segment(dir.path(), 2)).expect("readable");
    let mut spare = vec![0; 16 << 10];
    spare[..4096].copy_from_slice(&from[..4096]);
    for at in [0, 2048] {
        spare[at + 32] = number;
        let crc = crc32fast::hash(&spare[at..at + 76]);
        spare[at + 76..at + 80].copy_from_slice(&crc.to_le_bytes());
    }
    spare
}

/// A segment was lost, and of the one behind it nothing could be read. The log went on in that one, at the
/// positions that the lost one had given.
#[test]
fn p6_f17_nobody_goes_on_where_no_record_tells_the_position() {
    let dir = dir();
    fill(&dir);
    let mut behind = spare_of(&dir, 3);
    behind[5000..6000].fill(7);
    fs::write(segment(dir.path(), 3), behind).expect("written");
    fs::remove_file(segment(dir.path(), 2)).expect("removed");
    assert!(small().open(dir.path()).is_err(), "not before it is repaired");
    let report = amberlog::repair(dir.path()).expect("repaired");
    assert!(report.went_on.expect("in segment 4").first.get() > 18);
    assert!(amberlog::repair(dir.path()).expect("again").changed_nothing());
    assert!(!small().open(dir.path()).expect("opens").survey().is_sound());
}

/// What seems to be a spare is looked at while the rest of the log is read, and what was read counts for nothing if
/// it is none: the first commits of the last segment read as zeros, more of it does not.
#[test]
fn p6_f28_a_segment_whose_first_commits_are_zeros_is_no_spare() {
    let (living, copy) = (dir(), dir());
    let log = small().open(living.path()).expect("opens");
    let mut stream = log.stream().expect("a stream");
    for n in 0..18_u8 {
        stream.append([n; 1000]).expect("room");
        stream.commit().wait().expect("committed");
    }
    write_dir(copy.path(), &read_dir(living.path()));
    let last = (1..9).rev().map(|number| segment(copy.path(), number)).find(|path| {
        let bytes = fs::read(path).unwrap_or_default();
        bytes.len() > 4096 && bytes[4096..].iter().any(|byte| *byte != 0)
    });
    let last = last.expect("a segment with commits");
    let mut bytes = fs::read(&last).expect("readable");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("not empty");
    assert!(end > 4096 + 2000, "more than one commit");
    bytes[4096..4096 + 1000].fill(0);
    fs::write(&last, bytes).expect("written");
    let found = survey(copy.path()).expect("readable");
    assert!(!found.is_sound(), "the lost commit is told: {found:?}");
    assert_eq!(found.position.get(), 18, "and what stands behind it is there");
    let (snapshot, quick) = Snapshot::open(copy.path()).expect("readable");
    assert_eq!((quick.damages, snapshot.position().get()), (found.damages, 18));
}
