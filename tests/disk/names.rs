//! Is anything removed, emptied or overwritten for its name alone?
//!
//! P6, P14; F33, F42. Files and directories of others lie where the log's own would, and links lead out of it: they are
//! kept as they are, told where that helps, and do not stop an opening.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::support::verified::checked;
use crate::support::{read_dir, segment};
use amberlog::maintenance::CompactOptions;
use amberlog::verify::DamageKind;
use amberlog::{ErrorKind, Log, Options, ReadView, Stream, StreamId};
use tempfile::TempDir;

const TEXT: &[u8] = b"somebody else's, and dear to them\n";

fn dir() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10)
}

fn commit(stream: &mut Stream, events: u8) {
    for n in 0..events {
        stream.append([n; 1000]).expect("room");
        stream.commit().wait().expect("committed");
    }
}

/// A log of several segments, closed.
fn write(path: &Path) -> StreamId {
    let log = options().open(path).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    commit(&mut stream, 40);
    let id = stream.id();
    drop(stream);
    log.close().expect("closes");
    id
}

fn events(path: &Path, id: StreamId) -> usize {
    let (view, _) = ReadView::open(path).expect("readable");
    view.events(id).expect("known").filter(|event| event.is_ok()).count()
}

/// Opens the log, commits, and closes it.
fn goes_on(path: &Path, id: StreamId) {
    let before = events(path, id);
    let log = options().open(path).expect("opens");
    let mut stream = log.open_stream(id).expect("known");
    commit(&mut stream, 40);
    drop(stream);
    log.close().expect("closes");
    assert_eq!(events(path, id), before + 40);
}

fn all(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    read_dir(path)
}

/// F42: a link in the place of the lock file leads to a foreign file, which used to be emptied.
#[test]
fn f42_a_lock_file_that_is_a_link_is_not_followed() {
    let top = dir();
    let (path, foreign) = (top.path().join("log"), top.path().join("foreign"));
    let id = write(&path);
    fs::write(&foreign, TEXT).expect("written");
    let lock = path.join("LOCK");
    fs::remove_file(&lock).expect("removed");
    symlink(&foreign, &lock).expect("made");
    let error = options().open(&path).expect_err("a link is no lock file");
    assert_eq!(*error.kind(), ErrorKind::Io, "{error}");
    assert_eq!(error.place().expect("it has a place").path, Path::new("LOCK"));
    assert!(error.to_string().contains("symbolic link"), "{error}");
    assert_eq!(fs::read(&foreign).expect("there"), TEXT);
    // Of a log that does not exist yet, and by another name of the same file: locked, and left as it is.
    let fresh = top.path().join("fresh");
    fs::create_dir(&fresh).expect("made");
    symlink(&foreign, fresh.join("LOCK")).expect("made");
    assert_eq!(*options().open(&fresh).expect_err("a link").kind(), ErrorKind::Io);
    fs::remove_file(&lock).expect("removed");
    fs::hard_link(&foreign, &lock).expect("made");
    goes_on(&path, id);
    assert_eq!(fs::read(&foreign).expect("there"), TEXT);
}

/// F33, F42: whatever has the name of an unfinished segment is kept unless it is one, and stops nothing.
#[test]
fn f33_f42_what_only_looks_unfinished_is_kept_and_stops_nothing() {
    let (dir, other) = (dir(), dir());
    let id = write(dir.path());
    write(other.path());
    let at = |name: &str| dir.path().join("segments").join(name);
    fs::create_dir(at("0000000002.seg.new")).expect("made");
    fs::create_dir(at("0000000002.0badf00d.seg.new")).expect("made");
    fs::write(at("0000000003.0badf00d.seg.new"), TEXT).expect("written");
    fs::copy(segment(other.path(), 2), at("0000000004.0badf00d.seg.new")).expect("copied");
    symlink(at("0000000003.0badf00d.seg.new"), at("0000000005.0badf00d.seg.new")).expect("made");
    // What an interrupted writer leaves: nothing yet, zeros, or the log's own header.
    fs::write(at("0000000006.0badf00d.seg.new"), b"").expect("written");
    fs::write(at("0000000007.0badf00d.seg.new"), [0; 9000]).expect("written");
    let foreign: Vec<String> =
        (2..=5).map(|n| format!("segments/000000000{n}.0badf00d.seg.new")).collect();
    let found = checked(dir.path()).expect("readable");
    assert!(found.is_sound());
    let mut told: Vec<_> =
        found.foreign.iter().map(|place| place.path.to_string_lossy().into_owned()).collect();
    told.sort();
    assert_eq!(told, foreign);
    goes_on(dir.path(), id);
    for path in foreign {
        assert!(dir.path().join(&path).symlink_metadata().is_ok(), "{path} is gone");
    }
    assert_eq!(fs::read(at("0000000003.0badf00d.seg.new")).expect("there"), TEXT);
    assert!(at("0000000002.seg.new").is_dir());
    assert!(!at("0000000006.0badf00d.seg.new").exists());
    assert!(!at("0000000007.0badf00d.seg.new").exists());
}

/// F42: a link in the place of a segment is not followed, for writing least of all.
#[test]
fn p6_f42_a_segment_that_is_a_link_is_not_followed() {
    let top = dir();
    let path = top.path().join("log");
    let id = write(&path);
    let outside = top.path().join("outside");
    let last = checked(&path).expect("readable").segments.last().expect("some").number;
    for number in [2, last] {
        fs::rename(segment(&path, number), &outside).expect("moved");
        symlink(&outside, segment(&path, number)).expect("made");
        let before = fs::read(&outside).expect("there");
        let found = checked(&path).expect("readable");
        let is_told = |kind| found.damages.iter().any(|one| one.kind == kind);
        assert!(is_told(DamageKind::Foreign), "{:?}", found.damages);
        if let Ok(log) = options().open(&path) {
            let mut stream = log.open_stream(id).expect("known");
            commit(&mut stream, 1);
            drop(stream);
            log.close().expect("closes");
        }
        assert!(fs::read(&outside).expect("there") == before);
        fs::remove_file(segment(&path, number)).expect("removed");
        fs::rename(&outside, segment(&path, number)).expect("moved");
    }
    // The directory of the segments.
    fs::rename(path.join("segments"), &outside).expect("moved");
    symlink(&outside, path.join("segments")).expect("made");
    let before = all(&outside);
    let error = options().open(&path).expect_err("not followed");
    assert!(error.to_string().contains("symbolic link"), "{error}");
    assert!(all(&outside) == before);
}

/// F42: a foreign file where the next segment would be. The commit that needs the place says so, and goes
/// through when the file is gone.
#[test]
fn p5_f42_a_file_in_the_place_of_the_next_segment_is_kept() {
    let dir = dir();
    let log = options().open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    commit(&mut stream, 1);
    fs::write(segment(dir.path(), 2), TEXT).expect("written");
    let mut refused = None;
    for _ in 0..20 {
        stream.append([1; 1000]).expect("room");
        if let Err(error) = stream.commit().wait() {
            refused = Some(error);
            break;
        }
    }
    let error = refused.expect("there is no place for it");
    assert_eq!(*error.kind(), ErrorKind::Io, "{error}");
    assert_eq!(error.place().and_then(|place| place.segment), Some(2), "{error}");
    assert_eq!(fs::read(segment(dir.path(), 2)).expect("there"), TEXT);
    fs::remove_file(segment(dir.path(), 2)).expect("removed");
    stream.commit().wait().expect("committed");
    commit(&mut stream, 20);
    let id = stream.id();
    drop(stream);
    log.close().expect("closes");
    goes_on(dir.path(), id);
}

/// F42: a compaction removes and replaces only what it has read. Another file in the place of a segment stays.
#[test]
fn p6_f42_a_compaction_keeps_what_is_not_its_own() {
    let [dir, other] = [dir(), dir()];
    write(other.path());
    for number in [1, 3] {
        let path = dir.path().join(number.to_string());
        let log = options().open(&path).expect("opens");
        let (mut dead, mut live) =
            (log.create_stream().expect("new"), log.create_stream().expect("new"));
        commit(&mut dead, 60);
        dead.delete().wait().expect("deleted");
        commit(&mut live, 20);
        let id = live.id();
        drop((dead, live));
        // Closed, so that all segments are sealed.
        log.close().expect("closes");
        let log = options().open(&path).expect("opens");
        // As long as the log is open what it reads is the old file.
        let place = segment(&path, number);
        fs::rename(&place, dir.path().join("own")).expect("moved");
        fs::copy(segment(other.path(), number), &place).expect("copied");
        let foreign = fs::read(&place).expect("there");
        let report = log.compact(CompactOptions::new()).expect("compacts");
        assert!(!report.refused.is_empty(), "{report:?}");
        assert!(fs::read(&place).expect("there") == foreign, "segment {number}");
        fs::rename(dir.path().join("own"), &place).expect("moved");
        log.close().expect("closes");
        goes_on(&path, id);
        assert!(checked(&path).expect("readable").is_sound());
    }
}

/// F42: a copy of a stream replaces an earlier one, and nothing else.
#[test]
fn f42_a_copy_of_a_stream_replaces_only_a_copy() {
    let dir = dir();
    let log = options().open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    commit(&mut stream, 3);
    let path = dir.path().join(stream.id().archive_path());
    fs::create_dir_all(path.parent().expect("has one")).expect("made");
    fs::write(&path, TEXT).expect("written");
    let error = log.write_archive(stream.id()).expect_err("another file has the name");
    assert_eq!(*error.kind(), ErrorKind::Io, "{error}");
    assert_eq!(fs::read(&path).expect("there"), TEXT);
    fs::remove_file(&path).expect("removed");
    for _ in 0..2 {
        log.write_archive(stream.id()).expect("written");
        assert_eq!(events(&path, stream.id()), 3);
    }
}

/// F40: an engine that removes by name alone is noticed.
#[cfg(amberlog_sabotage)]
#[test]
fn control_what_is_removed_unread_is_noticed() {
    use amberlog::{Sabotage, sabotage};
    let broken = std::panic::catch_unwind(|| {
        let _broken = sabotage(Sabotage::RemoveUnread);
        p5_f42_a_file_in_the_place_of_the_next_segment_is_kept();
    });
    assert!(broken.is_err(), "nobody noticed");
}
