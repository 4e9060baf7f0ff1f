//! Whose directory is it?
//!
//! P1, P14; F41. On real directories: the process changes its working directory, the log's own is moved, another log or a
//! link stands where it was. What was acknowledged is where it was, and no other log is touched.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use crate::support::read_dir;
use crate::support::verified::checked;
use amberlog::maintenance::CompactOptions;
use amberlog::options::Compaction;
use amberlog::verify::repair;
use amberlog::{Error, ErrorKind, Log, Options, ReadView, Stream, StreamId};
use tempfile::TempDir;

/// Names the test whose body runs in this process.
const ALONE: &str = "AMBERLOG_DIRECTORY_ALONE";

fn dir() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10)
}

/// Runs the body in a process of its own: a working directory belongs to all threads.
fn alone(test: &str, body: impl FnOnce()) {
    if env::var_os(ALONE).is_some_and(|name| name == test) {
        return body();
    }
    let process = Command::new(env::current_exe().expect("this binary"))
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ALONE, test)
        .output()
        .expect("another process");
    let said = [process.stdout, process.stderr].concat();
    assert!(process.status.success(), "{}", String::from_utf8_lossy(&said));
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
    commit(&mut stream, 60);
    let id = stream.id();
    drop(stream);
    log.close().expect("closes");
    id
}

/// All events of the stream, and nothing that is damaged.
fn is_whole(path: &Path, id: StreamId, events: usize) {
    let (view, found) = ReadView::open(path).expect("readable");
    assert!(found.is_sound(), "{}: {:?}", path.display(), found.damages);
    let read = view.events(id).expect("known").filter(|event| event.is_ok()).count();
    assert_eq!(read, events, "{}", path.display());
    assert!(checked(path).expect("readable").is_sound());
}

/// Everything but the lock, which names its last holder.
fn content(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = read_dir(path);
    files.remove(Path::new("LOCK"));
    files
}

/// F41: a relative path leads to where it led when the log was opened, before its first commit and after.
#[test]
fn p14_f41_a_change_of_the_working_directory_changes_nothing() {
    alone("directory::p14_f41_a_change_of_the_working_directory_changes_nothing", || {
        let top = dir();
        let [here, there] = ["here", "there"].map(|name| top.path().join(name));
        for path in [&here, &there] {
            fs::create_dir(path).expect("made");
        }
        let theirs = write(&there.join("log"));
        let before = content(&there);
        env::set_current_dir(&here).expect("there");
        let fresh = options().open("deep/in/fresh").expect("opens");
        let log = options().open("log").expect("opens");
        let mut stream = log.create_stream().expect("a stream");
        commit(&mut stream, 1);
        env::set_current_dir(&there).expect("there");
        commit(&mut stream, 60);
        let mut first = fresh.create_stream().expect("a stream");
        commit(&mut first, 60);
        // What deletes works in its own directory too.
        let mut dead = log.create_stream().expect("a stream");
        commit(&mut dead, 60);
        dead.delete().wait().expect("deleted");
        commit(&mut stream, 20);
        let compacted = log.compact(CompactOptions::new()).expect("compacts");
        assert!(compacted.freed_bytes() > 0 && compacted.refused.is_empty(), "{compacted:?}");
        log.backup("../backup").expect("backed up");
        let ids = [stream.id(), first.id()];
        drop((stream, first, dead));
        log.close().expect("closes");
        fresh.close().expect("closes");
        env::set_current_dir("/").expect("there");
        is_whole(&here.join("log"), ids[0], 81);
        is_whole(&here.join("deep/in/fresh"), ids[1], 60);
        is_whole(&top.path().join("backup"), ids[0], 81);
        assert!(content(&there) == before, "the other log was touched");
        is_whole(&there.join("log"), theirs, 60);
    });
}

/// F41: a program that becomes a daemon leaves the directory that it was started in.
#[test]
fn p14_f41_a_daemon_goes_on_where_it_was_started() {
    alone("directory::p14_f41_a_daemon_goes_on_where_it_was_started", || {
        let top = dir();
        env::set_current_dir(top.path()).expect("there");
        let log = options().open("data/log").expect("opens");
        let mut stream = log.create_stream().expect("a stream");
        env::set_current_dir("/").expect("there");
        commit(&mut stream, 60);
        let id = stream.id();
        drop(stream);
        log.close().expect("closes");
        is_whole(&top.path().join("data/log"), id, 60);
    });
}

/// Object at the old path by then: nothing, another log, or a link to one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Instead {
    Nothing,
    Log,
    Link,
}

/// F41: the directory is moved while the log is open, as `logrotate` does.
#[test]
fn p14_f41_a_log_goes_with_its_directory() {
    for instead in [Instead::Nothing, Instead::Log, Instead::Link] {
        let top = dir();
        let [path, moved, elsewhere] =
            ["log", "log.old", "elsewhere"].map(|at| top.path().join(at));
        let log = options().open(&path).expect("opens");
        let mut stream = log.create_stream().expect("a stream");
        commit(&mut stream, 3);
        let (reader, _) = ReadView::open(&path).expect("readable");
        fs::rename(&path, &moved).expect("moved");
        let mut others = None;
        match instead {
            Instead::Nothing => {}
            Instead::Log => others = Some((path.clone(), write(&path))),
            Instead::Link => {
                others = Some((elsewhere.clone(), write(&elsewhere)));
                symlink(&elsewhere, &path).expect("made");
            }
        }
        let before = others.as_ref().map(|(path, _)| content(path));
        commit(&mut stream, 60);
        assert_eq!(reader.events(stream.id()).expect("known").count(), 3, "{instead:?}");
        let id = stream.id();
        drop(stream);
        log.close().expect("closes");
        is_whole(&moved, id, 63);
        match others {
            None => assert!(!path.exists()),
            Some((other, theirs)) => {
                assert!(before == Some(content(&other)), "{instead:?}: it was touched");
                is_whole(&other, theirs, 60);
            }
        }
    }
}

/// P1, F41: a log that does not exist yet is made in the directory that was above it when it was opened.
#[test]
fn p1_p14_f41_a_fresh_log_is_made_below_what_was_there() {
    let top = dir();
    let [above, moved] = ["above", "moved"].map(|at| top.path().join(at));
    fs::create_dir(&above).expect("made");
    let log = options().open(above.join("a/b/log")).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    fs::rename(&above, &moved).expect("moved");
    assert!(read_dir(top.path()).is_empty(), "P1");
    commit(&mut stream, 60);
    let id = stream.id();
    drop(stream);
    log.close().expect("closes");
    assert!(!above.exists());
    is_whole(&moved.join("a/b/log"), id, 60);
}

// ---------------------------------------------------------------- whose it is

/// A log that neither rolls nor makes a segment ready: nothing but the threads of the test touches its files.
fn quiet() -> Options {
    Log::options().segment_bytes_first(4 << 20)
}

/// Commits between two looks at names, at most.
const COMMITS_UNTIL_LOOK: u8 = 16;

fn one_commit(stream: &mut Stream) -> Result<(), Error> {
    stream.append([9; 1000]).expect("room");
    stream.commit().wait().map(drop)
}

/// F31, F41: the lock file is removed, "because it is stale", or another one takes its place.
#[test]
fn f31_f41_without_its_lock_file_a_writer_stops_and_no_other_is_let_in_before() {
    for replaced in [false, true] {
        let dir = dir();
        let log = quiet().open(dir.path()).expect("opens");
        let mut stream = log.create_stream().expect("a stream");
        commit(&mut stream, 20);
        let lock = dir.path().join("LOCK");
        if replaced {
            fs::write(dir.path().join("another"), b"").expect("written");
            fs::rename(dir.path().join("another"), &lock).expect("renamed");
        } else {
            fs::remove_file(&lock).expect("removed");
        }
        for again in [options().open(dir.path()).map(drop), repair(dir.path()).map(drop)] {
            let error = again.expect_err("the segment is still locked");
            assert!(matches!(error.kind(), ErrorKind::Locked { .. }), "{error}");
        }
        let late = (0..=COMMITS_UNTIL_LOOK).take_while(|_| one_commit(&mut stream).is_ok()).count();
        assert!(late <= usize::from(COMMITS_UNTIL_LOOK), "it was not noticed");
        for _ in 0..2 {
            let error = one_commit(&mut stream).expect_err("its lock is gone");
            assert_eq!(*error.kind(), ErrorKind::LockLost, "{error}");
            assert_eq!(error.place().expect("it has a place").path, Path::new("LOCK"));
        }
        let id = stream.id();
        drop(stream);
        let before = content(dir.path());
        assert_eq!(*log.close().expect_err("it is told").kind(), ErrorKind::LockLost);
        assert!(content(dir.path()) == before, "it was not its own any more");
        let log = options().open(dir.path()).expect("nobody has it");
        let read = log.read_view().events(id).expect("known").count();
        assert_eq!(read, 20 + late);
    }
}

/// F41: `rm -rf` under a writer: the very next commit that is synced says so, without any wait.
#[test]
fn f41_what_is_removed_under_a_writer_is_not_acknowledged_into() {
    for new_log in [false, true] {
        let top = dir();
        let path = top.path().join("log");
        let log = quiet().compaction(Compaction::Background).open(&path).expect("opens");
        let mut stream = log.create_stream().expect("a stream");
        commit(&mut stream, 20);
        fs::remove_dir_all(&path).expect("removed");
        let theirs = new_log.then(|| write(&path));
        let before = new_log.then(|| content(&path));
        for _ in 0..40 {
            let error = one_commit(&mut stream).expect_err("there is nothing to commit to");
            assert_eq!(*error.kind(), ErrorKind::DirectoryLost, "{error}");
        }
        drop(stream);
        assert_eq!(*log.close().expect_err("it is told").kind(), ErrorKind::DirectoryLost);
        match theirs {
            None => assert!(!path.exists()),
            Some(id) => {
                assert!(before == Some(content(&path)));
                is_whole(&path, id, 60);
            }
        }
    }
}

/// F41: other segments in the place of the log's own.
#[test]
fn f41_f42_segments_that_were_put_in_the_place_of_others_are_left_alone() {
    let top = dir();
    let [path, other] = ["log", "other"].map(|name| top.path().join(name));
    let theirs = write(&other);
    let log = quiet().open(&path).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    commit(&mut stream, 20);
    fs::rename(path.join("segments"), path.join("aside")).expect("moved");
    fs::rename(other.join("segments"), path.join("segments")).expect("moved");
    let before = content(&path.join("segments"));
    let late = (0..=COMMITS_UNTIL_LOOK).take_while(|_| one_commit(&mut stream).is_ok()).count();
    assert!(late <= usize::from(COMMITS_UNTIL_LOOK), "it was not noticed");
    for _ in 0..40 {
        let error = one_commit(&mut stream).expect_err("those are not its segments");
        assert_eq!(*error.kind(), ErrorKind::DirectoryLost, "{error}");
    }
    let _ = log.compact(CompactOptions::new().dead_percent_min(0));
    drop(stream);
    assert_eq!(*log.close().expect_err("it is told").kind(), ErrorKind::DirectoryLost);
    assert!(content(&path.join("segments")) == before);
    fs::rename(path.join("segments"), other.join("segments")).expect("moved");
    is_whole(&other, theirs, 60);
}
