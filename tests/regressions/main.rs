//! Does any bug that was found once come back?
//!
//! Each test opens with the story of its bug: what was done, what went wrong, and why.

#[cfg(feature = "sim")]
mod attacks;
#[cfg(feature = "sim")]
mod lives;
mod recovery;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, thread};

use crate::support::verified::checked;
use amberlog::verify::DamageKind;
use amberlog::{
    CommitOptions, Durability, Error, ErrorKind, Log, Position, ReadView, StreamOptions,
};
use support::segment;
use support::waiting::{ends, wait_until};
use tempfile::TempDir;

fn dir() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn small() -> amberlog::Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10)
}

fn os() -> CommitOptions {
    CommitOptions::new().durability(Durability::Os)
}

/// A leader that handed over found a commit in the queue whose ticket had no waiter yet. It asked the
/// log's own thread to lead, and noted that it had asked; but there was no such thread yet. A caller that then
/// awaited or dropped that ticket saw that the thread had been asked already, and started none: the commit
/// hung until somebody else waited, and so did every later one that was only awaited.
#[test]
fn f5_a_ticket_that_was_kept_while_another_group_was_led_can_still_be_dropped() {
    ends("a dropped ticket behind a full group", || {
        let dir = dir();
        let log = Log::open(dir.path()).expect("opens");
        let mut first = log.create_stream().expect("a stream");
        let mut second = log.create_stream().expect("a stream");
        // Together they are more than one group takes, so that the second stays in the queue.
        first.append(vec![1; 5 << 20]).expect("room");
        second.append(vec![2; 5 << 20]).expect("room");
        let waited = first.commit();
        let kept = second.commit();
        waited.wait().expect("committed");
        drop(kept);
        wait_until("a commit that is settled", || log.read_view().info(second.id()).is_some());
    });
}

/// A segment that was full and not sealed yet ends with the tail record of its last commit. Reading the whole
/// log took that tail record for damage, although the next segment goes on where this one ends.
#[test]
fn p7_reading_by_position_goes_over_a_full_segment_that_is_not_sealed_yet() {
    let dir = dir();
    let log = small().open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    for n in 0..40_u64 {
        stream.append(vec![n as u8; 1000]).expect("room");
        stream.commit_with(os()).wait().expect("committed");
        let view = log.read_view();
        let all = view.all_events(Position::START).expect("in range");
        let read: Result<Vec<_>, Error> = all.collect();
        assert_eq!(read.expect("no damage").len() as u64, n + 1);
    }
    // The same for a log that is not open: copied while its segments were not sealed.
    let copy = TempDir::new().expect("a temporary directory");
    support::write_dir(copy.path(), &support::read_dir(dir.path()));
    let (view, found) = ReadView::open(copy.path()).expect("readable");
    assert!(found.is_sound(), "{found:?}");
    let all = view.all_events(Position::START).expect("in range");
    assert_eq!(all.filter(Result::is_ok).count(), 40);
}

/// A stream was opened at the head that the writer had noted a moment before readers were shown the
/// commit. The handle then read its own stream past what was visible, and called the rest damaged.
#[test]
fn p8_p12_opening_a_stream_while_it_is_written_never_sees_damage() {
    let dir = dir();
    let log = Log::open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    stream.append(b"first").expect("room");
    stream.commit().wait().expect("committed");
    let id = stream.id();
    let stop = Arc::new(AtomicBool::new(false));
    let reader = {
        let (log, stop) = (log.clone(), Arc::clone(&stop));
        thread::spawn(move || {
            let mut looks = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let again = log.open_stream(id).expect("known");
                let head = again.head().get();
                let from = head.saturating_sub(2);
                let read =
                    again.events().expect("open").range(from..).collect::<Result<Vec<_>, _>>();
                let read = read.unwrap_or_else(|error| panic!("head {head}: {error}"));
                assert_eq!(read.last().map(|event| event.seq().get()), Some(head - 1));
                looks += 1;
            }
            looks
        })
    };
    for n in 0..3_000_u64 {
        stream.append(n.to_string()).expect("room");
        stream.commit_with(os()).wait().expect("committed");
    }
    stop.store(true, Ordering::Relaxed);
    assert!(reader.join().expect("no damage was seen") > 0);
}

/// The first segment's file said to which log the directory belongs. A file of another log in its place
/// made all the others foreign: not one event of the log could be read any more.
#[test]
fn f17_one_foreign_segment_hides_no_other() {
    let (ours, theirs) = (dir(), dir());
    let mut ids = Vec::new();
    for dir in [&ours, &theirs] {
        let log = small().open(dir.path()).expect("opens");
        for n in 0..60_u8 {
            let mut stream = log.create_stream().expect("a stream");
            stream.append(vec![n; 1000]).expect("room");
            stream.commit_with(os()).wait().expect("committed");
            ids.push(stream.id());
        }
        log.close().expect("closes");
    }
    fs::copy(segment(theirs.path(), 1), segment(ours.path(), 1)).expect("copied");
    let found = checked(ours.path()).expect("readable");
    assert_eq!(found.damages.len(), 1, "{found:?}");
    assert_eq!(found.damages[0].kind, DamageKind::Foreign);
    let (view, _) = ReadView::open(ours.path()).expect("readable");
    let last = view.events(ids[59]).expect("known").next();
    assert_eq!(last.expect("one").expect("whole").payload(), [59; 1000]);
    for id in &ids[60..] {
        assert!(view.events(*id).is_err(), "an event of another log");
    }
}

/// A commit that named its stream failed, and the stream was dropped: the name was in the commit that
/// no handle asked about any more, and stayed taken by a stream that was never there.
#[test]
fn p5_the_name_of_a_stream_whose_commit_failed_is_free_again() {
    let dir = dir();
    let path = dir.path().join("log");
    let log = Log::open(&path).expect("opens");
    fs::write(&path, b"in the way").expect("written");
    let named = StreamOptions::new().name("thread");
    let mut stream = log.create_stream_with(&named).expect("a stream");
    stream.append(b"event").expect("room");
    stream.commit().wait().expect_err("a plain file is in the way");
    drop(stream);
    fs::remove_file(&path).expect("removed");
    let mut stream = log.create_stream_with(&named).expect("the name is free");
    stream.append(b"event").expect("room");
    stream.commit().wait().expect("committed");
    assert_eq!(log.read_view().find("thread"), Some(stream.id()));
}

/// Streams that had committed everything held their buffers until they were used again; so did those of a
/// commit of several streams until the last of these was. Enough idle streams held the whole memory of the
/// log, and others were refused although nothing at all was buffered. A ring that was discarded kept its
/// memory, too.
#[test]
fn p10_what_is_committed_or_discarded_holds_no_memory_that_others_need() {
    let dir = dir();
    let log = Log::options().memory_bytes_max(4 << 20).open(dir.path()).expect("opens");
    let mut idle = Vec::new();
    for n in 0..64_u8 {
        let mut stream = log.create_stream().expect("a stream");
        let mut other = log.create_stream().expect("a stream");
        stream.append(vec![n; 300 << 10]).expect("nothing is buffered anywhere");
        other.append(vec![n; 300 << 10]).expect("nothing is buffered anywhere");
        match n % 4 {
            0 => {
                stream.commit_with(os()).wait().expect("committed");
                other.discard();
            }
            1 => {
                log.commit_all_with([&mut stream, &mut other], os()).wait().expect("committed");
            }
            2 => {
                stream.discard();
                other.discard();
            }
            _ => {
                stream.commit_with(os()).wait().expect("committed");
                other.commit_with(os()).wait().expect("committed");
                // Only now it learns that the commit is done, and takes the buffer back.
                assert_eq!(stream.discard(), 0);
            }
        }
        assert!(log.stats().memory.uncommitted_bytes <= 2 << 20, "empty rings hold at most half");
        idle.push((stream, other));
    }
}

/// A directory with the name of a segment made the whole log unreadable.
#[test]
fn f33_a_directory_named_like_a_segment_hides_nothing() {
    let dir = dir();
    let log = small().open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    stream.append(b"event").expect("room");
    stream.commit().wait().expect("committed");
    let id = stream.id();
    drop(stream);
    log.close().expect("closes");
    fs::create_dir(segment(dir.path(), 7)).expect("made");
    let (view, found) = ReadView::open(dir.path()).expect("readable");
    assert!(!found.is_sound(), "{found:?}");
    assert_eq!(view.events(id).expect("known").filter(Result::is_ok).count(), 1);
    let refused = Log::open(dir.path()).expect_err("a later segment would have to go there");
    assert!(matches!(refused.kind(), ErrorKind::Corrupt { .. }), "{refused}");
    assert!(amberlog::verify::repair(dir.path()).expect("repaired").went_on.is_some());
    let log = Log::open(dir.path()).expect("opens");
    assert_eq!(log.read_view().events(id).expect("known").filter(Result::is_ok).count(), 1);
}

/// The name of a stream stands before its first events in the log. A reader of a stream of one commit that went backwards
/// began at the name, found nothing before it, and called the events damaged; so did who came to such a
/// commit over damage.
#[test]
fn p7_a_named_stream_of_one_commit_is_read_backwards() {
    let dir = dir();
    let log = Log::open(dir.path()).expect("opens");
    let mut stream =
        log.create_stream_with(&StreamOptions::new().name("thread")).expect("a stream");
    for n in 0..3_u8 {
        stream.append([n]).expect("room");
    }
    stream.commit().wait().expect("committed");
    let view = log.read_view();
    for end in 1..=3_u64 {
        let events = view.events(stream.id()).expect("known").range(..end).rev();
        let read: Vec<u64> = events.map(|event| event.expect("whole").seq().get()).collect();
        assert_eq!(read, (0..end).rev().collect::<Vec<_>>());
    }
}

/// The first segment of a log was lost. Reading by position found no segment for the first position, and
/// ended without a word, although all later commits were there.
#[test]
fn f22_reading_by_position_tells_that_the_first_segment_is_lost_and_goes_on() {
    let dir = dir();
    let log = small().open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    for n in 0..40_u8 {
        stream.append([n; 1000]).expect("room");
        stream.commit_with(os()).wait().expect("committed");
    }
    drop(stream);
    log.close().expect("closes");
    fs::remove_file(segment(dir.path(), 1)).expect("removed");
    let (view, found) = ReadView::open(dir.path()).expect("readable");
    assert!(!found.is_sound());
    let mut all = view.all_events(Position::START).expect("in range");
    let error = all.next().expect("something").expect_err("the first is lost");
    assert!(matches!(error.kind(), ErrorKind::Corrupt { .. }), "{error}");
    let read: Vec<_> = all.collect::<Result<_, _>>().expect("the rest is whole");
    assert_eq!(read.last().expect("some").payload(), [39; 1000]);
}

/// A file was cut in the middle of a commit. The header was whole, so its length was believed, and the search
/// went on behind the end of the file: the arithmetic overflowed, or asked for all memory there is.
#[test]
fn p13_f29_a_file_that_ends_inside_a_commit_is_no_reason_to_panic() {
    let dir = dir();
    let log = small().open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    for n in 0..3_u8 {
        stream.append([n; 1000]).expect("room");
        stream.commit().wait().expect("committed");
    }
    let id = stream.id();
    drop(stream);
    log.close().expect("closes");
    let file = fs::OpenOptions::new().write(true).open(segment(dir.path(), 1)).expect("there");
    file.set_len(4096 + 500).expect("cut");
    let found = checked(dir.path()).expect("readable");
    // A repair will not cut off the half commit, so it is damage, too.
    let kinds: Vec<_> = found.damages.iter().map(|damage| damage.kind).collect();
    assert_eq!(kinds, [DamageKind::Commit, DamageKind::Cut]);
    let (view, _) = ReadView::open(dir.path()).expect("readable");
    assert!(view.events(id).is_err() && view.all_events(Position::START).is_ok());
    assert!(small().open(dir.path()).is_err(), "not before it is repaired");
}

/// A closed log was cut by a hundred bytes. The next writer took what was left for a torn tail, cleared it, and
/// gave the positions of what had been acknowledged to other commits; from then on the log read as sound.
#[test]
fn p6_f14_positions_that_a_cut_took_are_never_given_again() {
    let dir = dir();
    let log = small().open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    for n in 0..5_u8 {
        stream.append([n; 300]).expect("room");
        stream.commit().wait().expect("committed");
    }
    let id = stream.id();
    drop(stream);
    log.close().expect("closes");
    let path = segment(dir.path(), 1);
    let file = fs::OpenOptions::new().write(true).open(&path).expect("there");
    file.set_len(fs::metadata(&path).expect("there").len() - 100).expect("cut");
    let before = fs::read(&path).expect("readable");
    let error = small().open(dir.path()).expect_err("what was cut off may have been acknowledged");
    assert!(matches!(error.kind(), ErrorKind::Corrupt { .. }), "{error}");
    let report = amberlog::verify::repair(dir.path()).expect("repaired");
    assert!(report.went_on.is_some() && report.cleared_bytes == 0, "{report:?}");
    assert_eq!(fs::read(&path).expect("readable"), before, "no byte of it was touched");
    assert!(amberlog::verify::repair(dir.path()).expect("again").changed_nothing());
    let log = small().open(dir.path()).expect("opens now");
    let mut stream = log.open_stream(id).expect("known");
    stream.append("on").expect("room");
    let commit = stream.commit().wait().expect("committed");
    assert!(commit.position.get() > 6, "{commit:?}");
    drop(stream);
    log.close().expect("closes");
    let found = checked(dir.path()).expect("readable");
    assert!(!found.is_sound(), "what is lost stays told: {found:?}");
}

/// A process was killed after it had made a file and before it had synced the file's name. The next one found
/// the file in the cache, used it, and acknowledged commits in it; the name was never synced, and a power
/// cut took the file with everything in it. F1: the name is part of what an acknowledgement needs.
#[cfg(feature = "sim")]
#[test]
fn f1_what_a_killed_writer_made_ready_is_synced_before_it_is_used() {
    use amberlog::Stream;
    use amberlog::sim::{Fault, SimDisk};
    // Large enough that the next segment is not made ready, and synced, at once.
    let medium = || Log::options().segment_bytes_first(64 << 10).segment_bytes_max(64 << 10);
    let fill = |stream: &mut Stream, commits: u64| {
        for _ in 0..commits {
            let full = stream.append([7; 4_000]).is_err();
            if full || stream.commit().wait().is_err() {
                return;
            }
        }
    };
    let whole = SimDisk::new(1);
    {
        let log = medium().open_on(&whole).expect("opens");
        fill(&mut log.create_stream().expect("a stream"), 16);
    }
    for stop in 0..whole.calls() {
        let disk = SimDisk::new(1);
        disk.fail_at(stop, Fault::Crash);
        if let Ok(log) = medium().open_on(&disk) {
            fill(&mut log.create_stream().expect("a stream"), 16);
        }
        let disk = disk.after_kill();
        let log = medium().open_on(&disk).expect("opens after a kill");
        let mut stream = log.create_stream().expect("a stream");
        for n in 0..20 {
            stream.append([9; 4_000]).expect("room");
            stream.commit().wait().expect("committed");
            // Where the next segment is used, and the one after it not made ready yet.
            for chance in 0..if (9..14).contains(&n) { 8 } else { 0 } {
                let cut = disk.after_power_cut(chance);
                let log = medium().open_on(&cut).unwrap_or_else(|error| {
                    panic!("call {stop}, commit {n}, chance {chance}: {error}")
                });
                let events = log.read_view().events(stream.id());
                let events = events.map_or(0, |events| events.filter(Result::is_ok).count());
                assert_eq!(events, n + 1, "call {stop}, chance {chance}");
            }
        }
    }
}

/// A write failed, and what it may have left was overwritten with zeros: the tail record of the commit before it
/// as well. Readers in other processes no longer saw that commit, although it had been acknowledged.
#[cfg(feature = "sim")]
#[test]
fn p5_f12_after_a_failed_write_readers_still_see_all_that_was_acknowledged() {
    use amberlog::sim::{Fault, SimDisk};
    for call in 0..120 {
        let disk = SimDisk::new(5);
        disk.fail_at(call, Fault::Io);
        let Ok(log) = small().open_on(&disk) else { continue };
        let mut stream = log.create_stream().expect("a stream");
        let (mut acked, mut failed) = (0, false);
        for _ in 0..20 {
            stream.append([7; 900]).expect("room");
            match stream.commit().wait() {
                Ok(commit) => acked = commit.position.get(),
                Err(_) => failed = true,
            }
            if failed {
                break;
            }
        }
        // Where the tail record itself could not be written, nothing failed: it is a hint.
        if let (true, Ok((view, found))) = (failed, ReadView::open_on(&disk)) {
            assert!(found.is_sound(), "call {call}: {found:?}");
            assert_eq!(view.position().get(), acked, "call {call}");
        }
    }
}

/// The waker of one task panicked as its commit was done. No thread woke the other tasks and threads of the same
/// group, and the log's own thread was gone: every later commit that was awaited hung. F37: a panic in a
/// waiter is its own.
#[test]
fn f37_a_waker_that_panics_takes_nobody_with_it() {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Wake, Waker};

    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker that panics: this message is part of the test");
        }
    }
    struct Unparks(thread::Thread);
    impl Wake for Unparks {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    ends("a commit beside a waker that panics", || {
        let dir = dir();
        let log = Log::open(dir.path()).expect("opens");
        let mut streams: Vec<_> = (0..3).map(|_| log.create_stream().expect("a stream")).collect();
        for _ in 0..20 {
            let mut tickets = streams.iter_mut().map(|stream| {
                stream.append(b"event").expect("room");
                stream.commit()
            });
            let (first, second) = (tickets.next().expect("one"), tickets.next().expect("two"));
            let third = tickets.next().expect("three");
            let mut first = pin!(first);
            let _ = first.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::new(Panics))));
            let mut second = pin!(second);
            let waker = Waker::from(Arc::new(Unparks(thread::current())));
            while second.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                thread::park();
            }
            third.wait().expect("committed");
        }
    });
}

/// A commit whose directory was damaged had no batches that could be believed, and reading by position passed
/// over it as if it had been empty.
#[test]
fn p6_f22_reading_by_position_tells_of_a_damaged_directory() {
    let dir = dir();
    let log = small().open(dir.path()).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    for n in 0..3_u8 {
        stream.append([n; 100]).expect("room");
        stream.commit().wait().expect("committed");
    }
    drop(stream);
    log.close().expect("closes");
    let offset = amberlog::verify::RecordDump::open(dir.path())
        .expect("readable")
        .map(|record| record.expect("readable"))
        .filter(|record| matches!(record.body, amberlog::verify::RecordBody::Commit { .. }))
        .nth(1)
        .expect("the second")
        .offset;
    let path = segment(dir.path(), 1);
    let mut bytes = fs::read(&path).expect("readable");
    bytes[offset as usize + 40 + 5] ^= 1;
    fs::write(&path, bytes).expect("written");
    let (view, found) = ReadView::open(dir.path()).expect("readable");
    assert!(!found.is_sound());
    let all: Vec<_> = view.all_events(Position::START).expect("in range").collect();
    assert_eq!(all.len(), 3);
    assert!(all[0].is_ok() && all[1].is_err() && all[2].is_ok(), "{all:?}");
}

/// A flight recorder commits while its thread unwinds. The leader looked whether its thread was panicking, took
/// itself for the reason, and poisoned the whole log.
#[test]
fn p5_a_commit_made_while_a_thread_unwinds_is_a_commit_like_every_other() {
    struct Recorder(amberlog::Stream);
    impl Drop for Recorder {
        fn drop(&mut self) {
            self.0.append("the last words").expect("room");
            self.0.commit().wait().expect("committed");
        }
    }
    let dir = dir();
    let log = small().open(dir.path()).expect("opens");
    let recorder = Recorder(log.create_stream().expect("a stream"));
    let id = recorder.0.id();
    let thread = std::thread::spawn(move || {
        let _recorder = recorder;
        std::panic::resume_unwind(Box::new("something else"));
    });
    assert!(thread.join().is_err());
    assert_eq!(log.read_view().events(id).expect("committed").count(), 1);
    let mut other = log.create_stream().expect("a stream");
    other.append("goes on").expect("room");
    other.commit().wait().expect("the log is not poisoned");
}

/// The disk was full, and the file system gave space by the page: not even the bytes that were there could be
/// written over. So the tail record of the last commit still stood where the failed one was to go. It was taken
/// for something that the failed write had left, and the log was poisoned, although nothing had been written.
/// Seen on ext4, after a clean end had given the blocks behind it back. F12: commits work again when space
/// returns.
#[cfg(feature = "sim")]
#[test]
fn p5_f12_a_full_disk_that_leaves_the_old_tail_record_alone_poisons_nothing() {
    use amberlog::sim::{Fault, SimDisk};
    let mut full = 0;
    for seed in 0..4 {
        for call in 0..8 {
            let disk = SimDisk::new(seed);
            let log = small().open_on(&disk).expect("opens");
            let mut stream = log.create_stream().expect("a stream");
            stream.append([1; 200]).expect("room");
            stream.commit().wait().expect("committed");
            let id = stream.id();
            drop(stream);
            log.close().expect("closes");
            let log = small().open_on(&disk).expect("opens");
            let mut stream = log.open_stream(id).expect("known");
            stream.append([2; 900]).expect("room");
            disk.fail_at(disk.calls() + call, Fault::Full);
            if let Err(error) = stream.commit().wait() {
                assert_eq!(*error.kind(), ErrorKind::StorageFull, "{error}");
                assert_eq!(stream.buffered(), 1);
                full += 1;
                disk.set_capacity(u64::MAX);
                stream.commit().wait().expect("there is space again");
            }
            let cut = disk.after_power_cut(call);
            let log = small().open_on(&cut).expect("opens");
            assert_eq!(log.read_view().events(id).expect("known").filter(Result::is_ok).count(), 2);
        }
    }
    assert!(full > 0, "the disk was never full");
}

/// A stream was dropped while its first commit, the one that gives it its name, was in flight; then that commit
/// failed. The handle had given the name to the commit, the commit knew of no catalog: the name stayed taken
/// for as long as the log was open.
#[test]
fn p5_the_name_of_a_stream_that_is_dropped_before_its_commit_fails_is_free_again() {
    let dir = dir();
    let path = dir.path().join("log");
    let log = Log::open(&path).expect("opens");
    fs::write(&path, b"in the way").expect("written");
    let named = StreamOptions::new().name("thread");
    let mut stream = log.create_stream_with(&named).expect("a stream");
    stream.append(b"event").expect("room");
    let ticket = stream.commit();
    drop(stream);
    let taken = log.create_stream_with(&named).expect_err("the commit may still succeed");
    assert!(matches!(taken.kind(), ErrorKind::NameTaken { .. }), "{taken}");
    ticket.wait().expect_err("a plain file is in the way");
    fs::remove_file(&path).expect("removed");
    let mut stream = log.create_stream_with(&named).expect("the name is free");
    stream.append(b"event").expect("room");
    let ticket = stream.commit();
    let id = stream.id();
    drop(stream);
    ticket.wait().expect("committed");
    let taken = log.create_stream_with(&named).expect_err("now it is the name of a durable stream");
    assert!(matches!(taken.kind(), ErrorKind::NameTaken { .. }), "{taken}");
    assert_eq!(log.read_view().find("thread"), Some(id));
}
