//! Does a writer notice that the log is not its own any more, and leave everything alone?
//!
//! P3, P8; F31, F41. On a simulated disk, at every point of a script: the lock file is removed, the directory is removed or
//! moved, and another writer comes. What was acknowledged to either is there; what is lost is told by type.
#![cfg(feature = "sim")]

use amberlog::maintenance::CompactOptions;
use amberlog::sim::{Defect, SimDisk};
use amberlog::{Durability, Error, ErrorKind, Log, Options, Stream, StreamId};

const COMMITS: usize = 24;

fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10)
}

fn commit(stream: &mut Stream, n: usize) -> Result<(), Error> {
    stream.append(vec![n as u8; 1500]).expect("room");
    stream.commit().wait().map(drop)
}

/// Interference of another program with the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hand {
    RemovesLock,
    RemovesAll,
    Moves,
    RemovesLastSegment,
    RemovesSegments,
}

const HANDS: [Hand; 5] = [
    Hand::RemovesLock,
    Hand::RemovesAll,
    Hand::Moves,
    Hand::RemovesLastSegment,
    Hand::RemovesSegments,
];

fn last_segment(disk: &SimDisk) -> String {
    // A spare may lie behind it.
    let report = crate::support::verified::checked_on(disk).expect("readable");
    let used =
        report.segments.iter().filter(|one| one.state != amberlog::verify::SegmentState::Spare);
    format!("segments/{:010}.seg", used.map(|one| one.number).max().expect("some"))
}

fn lay(hand: Hand, dir: &SimDisk) {
    match hand {
        Hand::RemovesLock => dir.remove_file("LOCK"),
        Hand::RemovesAll => dir.remove_all(),
        Hand::Moves => dir.move_to("moved"),
        Hand::RemovesLastSegment => dir.remove_file(&last_segment(dir)),
        Hand::RemovesSegments => dir.dir("segments").remove_all(),
    }
}

fn read(disk: &SimDisk, id: StreamId) -> usize {
    let log = options().open_on(&disk.after_power_cut(1)).expect("opens");
    let view = log.read_view();
    assert!(log.recovery_report().is_sound(), "{:?}", log.recovery_report());
    let events: Result<Vec<_>, _> = view.events(id).expect("known").collect();
    events.expect("whole").len()
}

/// One writer, a hand after `at` commits, and another writer that takes its chance as soon as it can.
fn two_writers(world: &SimDisk, hand: Hand, at: usize) {
    let what = format!("{hand:?} after {at} commits");
    let dir = world.dir("log");
    let log = options().open_on(&dir).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    for n in 0..at {
        commit(&mut stream, n).expect("committed");
    }
    lay(hand, &dir);
    let other = options().open_on(&dir);
    let is_there = !matches!(hand, Hand::RemovesAll | Hand::Moves);
    if hand == Hand::RemovesLock {
        let error = other.as_ref().expect_err("the segment is still locked");
        assert_eq!(*error.kind(), ErrorKind::Locked { holder: None }, "{what}: {error}");
    }
    let mut theirs = None;
    if let Ok(other) = &other {
        let mut stream = other.create_stream().expect("a stream");
        // Their lock, when the old one is still held, is found at the first commit.
        let acked = (0..COMMITS).take_while(|n| commit(&mut stream, *n).is_ok()).count();
        theirs = Some((stream.id(), acked));
    }
    assert!(is_there || theirs.is_some_and(|(_, acked)| acked > 0), "{what}: a new log begins");
    let before = dir.files();
    let mut acked = at;
    let mut lost = None;
    for n in at..at + COMMITS {
        match commit(&mut stream, n) {
            Ok(()) => acked += 1,
            Err(error) => lost = Some(error),
        }
        let _ = log.compact(CompactOptions::new().dead_percent_min(0));
    }
    let id = stream.id();
    drop(stream);
    let closed = log.close();
    if hand == Hand::Moves {
        closed.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((acked, read(&world.dir("moved"), id)), (at + COMMITS, acked), "{what}");
    } else {
        let kind =
            if hand == Hand::RemovesLock { ErrorKind::LockLost } else { ErrorKind::DirectoryLost };
        assert_eq!(acked, at, "{what}: acknowledged into nothing");
        for error in [lost.expect("it is told"), closed.expect_err("it is told")] {
            assert_eq!(*error.kind(), kind, "{what}: {error}");
            assert!(error.place().is_some());
        }
    }
    assert!(dir.files() == before, "{what}: a file was touched");
    drop(other);
    if hand == Hand::RemovesLock {
        // What failed for this reason was written, and not acknowledged.
        assert!((acked..=acked + 1).contains(&read(&dir, id)), "{what}");
    } else if let Some((id, acked)) = theirs.filter(|(_, acked)| *acked > 0) {
        assert_eq!(read(&dir, id), acked, "{what}: the other log");
    }
}

#[test]
fn p3_f41_a_writer_that_lost_its_log_says_so_before_it_acknowledges_more() {
    for at in 1..COMMITS {
        for hand in HANDS {
            two_writers(&SimDisk::new(1), hand, at);
        }
    }
}

/// F41: a commit of nothing, one that is not synced, a compaction and the end of the log tell the truth too.
#[test]
fn f41_f7_whatever_is_asked_of_a_lost_log_is_refused_by_type() {
    type Asks = fn(&Log, &mut Stream) -> Result<(), Error>;
    let asks: [(&str, Asks); 4] = [
        ("nothing", |_, stream| stream.commit().wait().map(drop)),
        ("unsynced", |_, stream| {
            stream.append(b"unsynced").expect("room");
            let how = amberlog::CommitOptions::new().durability(Durability::Os);
            stream.commit_with(how).wait().map(drop)
        }),
        ("synced", |_, stream| commit(stream, 1)),
        ("all", |log, stream| {
            stream.append(b"all").expect("room");
            log.commit_all([stream]).wait().map(drop)
        }),
    ];
    for (what, ask) in asks {
        let dir = SimDisk::new(1).dir("log");
        let log = options().open_on(&dir).expect("opens");
        let mut stream = log.create_stream().expect("a stream");
        for n in 0..4 {
            commit(&mut stream, n).expect("committed");
        }
        dir.remove_all();
        for _ in 0..2 {
            let error = ask(&log, &mut stream).expect_err(what);
            assert_eq!(*error.kind(), ErrorKind::DirectoryLost, "{what}: {error}");
        }
        let read = log.read_view().events(stream.id()).expect("known").count();
        assert_eq!(read, 4, "{what}: what was acknowledged can still be read here");
        drop(stream);
        assert_eq!(*log.close().expect_err(what).kind(), ErrorKind::DirectoryLost, "{what}");
        assert!(dir.files().is_empty(), "{what}");
    }
}

/// F41: the directory vanishes before the first commit. There is nothing to lose, and nothing is made elsewhere.
#[test]
fn p1_f41_a_directory_that_vanished_before_the_first_commit_is_told() {
    let world = SimDisk::new(1);
    let dir = world.dir("log");
    dir.write_file("a note", b"so that the directory is there");
    let log = options().open_on(&dir).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    dir.remove_all();
    let error = commit(&mut stream, 0).expect_err("it is gone");
    assert_eq!(*error.kind(), ErrorKind::DirectoryLost, "{error}");
    assert_eq!(stream.buffered(), 1, "P5");
    assert!(world.files().is_empty());
}

/// F40: where segments can be locked twice, the lock file alone does not keep a second writer out.
#[test]
fn control_segments_that_are_locked_twice_are_noticed() {
    let world = SimDisk::new(1);
    world.set_defect(Defect::SharedLocks("*.seg"));
    std::panic::catch_unwind(|| two_writers(&world, Hand::RemovesLock, 5)).expect_err("unnoticed");
}

/// F40: a disk on which a writer does not see what others do to names is noticed.
#[test]
fn control_names_that_are_stale_are_noticed() {
    for hand in [Hand::RemovesAll, Hand::RemovesLastSegment, Hand::RemovesLock] {
        let world = SimDisk::new(1);
        world.set_defect(Defect::StaleNames);
        let found = std::panic::catch_unwind(|| two_writers(&world, hand, 5));
        assert!(found.is_err(), "{hand:?}: nobody noticed");
    }
}
