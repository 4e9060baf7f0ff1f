//! Does a handle show the right events, and are the right waiters woken, while commits are in flight?
//!
//! P3, P9. A simulated disk that lets syncs wait holds the moment in which a commit is written and not settled.

#![cfg(feature = "sim")]

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};

use crate::support::waiting::{wait_until, wait_until_asleep};
use amberlog::sim::SimDisk;
use amberlog::{CommitOptions, Expect, Log, Stream};

/// Seqs and payloads, as a handle shows them.
fn seen(events: amberlog::Events) -> Vec<(u64, Vec<u8>)> {
    let events = events.map(|event| event.expect("whole"));
    events.map(|event| (event.seq().get(), event.payload().to_vec())).collect()
}

/// Three events by one handle and two by another, of which the first knows nothing; on a disk with threads.
fn two_handles(disk: &SimDisk) -> (Log, Stream, Stream) {
    disk.allow_threads();
    let log = Log::options().open_on(disk).expect("opens");
    let mut one = log.create_stream().expect("a stream");
    for n in 0..3 {
        one.append([b'a', n]).expect("room");
    }
    one.commit().wait().expect("committed");
    let mut other = log.open_stream(one.id()).expect("durable");
    for n in 0..2 {
        other.append([b'b', n]).expect("room");
    }
    other.commit().wait().expect("committed");
    (log, one, other)
}

/// Waits until a commit is written, while its sync is held.
fn wait_until_written(disk: &SimDisk, calls: u64) {
    wait_until("a commit that is written", || disk.calls() > calls);
}

/// Checks that the stream is dense and has all of the first handle's events.
fn is_whole(seen: &[(u64, Vec<u8>)], own: u8) {
    assert!(seen.iter().map(|(seq, _)| *seq).eq(0..seen.len() as u64), "{seen:?}");
    assert!((0..own).all(|n| seen.iter().any(|(_, payload)| *payload == [b'a', n])), "{seen:?}");
}

/// P9: a leader puts a commit behind another handle's events before it is settled; meanwhile and afterwards the handle
/// shows all of its own, and so does a fork of it.
#[test]
fn p9_a_handle_is_whole_while_its_commits_go_behind_those_of_others() {
    let any = CommitOptions::new().expect(Expect::Any);
    let disk = SimDisk::new(1);
    let (log, mut one, _other) = two_handles(&disk);
    one.append([b'a', 3]).expect("room");
    disk.hold_syncs(true);
    let calls = disk.calls();
    let first = one.commit_with(any);
    first.start();
    wait_until_written(&disk, calls);
    one.append([b'a', 4]).expect("room");
    let second = one.commit_with(any.later());
    one.append([b'a', 5]).expect("room");
    let shown = seen(one.events().expect("open"));
    is_whole(&shown, 6);
    assert_eq!(one.head().get(), shown.len() as u64);
    let mut early = one.fork_at(one.head()).expect("a fork");
    disk.hold_syncs(false);
    first.wait().expect("committed");
    // The second one is mostly in flight yet.
    let shown = seen(one.events().expect("open"));
    is_whole(&shown, 6);
    assert_eq!((one.head().get(), shown.len()), (8, 8));
    let mut late = one.fork_at(one.head()).expect("a fork");
    second.wait().expect("committed");
    one.commit().wait().expect("committed");
    for (fork, events) in [(&mut early, 6), (&mut late, 8)] {
        fork.commit().wait().expect("committed");
        let forked = seen(log.read_view().events(fork.id()).expect("durable"));
        is_whole(&forked, 6);
        assert_eq!(forked.len(), events);
    }
    is_whole(&seen(log.read_view().events(one.id()).expect("durable")), 6);
}

/// Blocks the thread that wakes it, as if it took a lock whose holder waits for a commit.
struct Blocks {
    entered: mpsc::SyncSender<()>,
    done: Mutex<mpsc::Receiver<()>>,
    was_told: AtomicBool,
}

impl Wake for Blocks {
    fn wake(self: Arc<Self>) {
        self.entered.send(()).expect("somebody listens");
        let done = self.done.lock().expect("whole");
        wait_until("the commit that the waker waits for", || done.try_recv().is_ok());
        self.was_told.store(true, SeqCst);
    }
}

/// F5: the log's own thread was asked to lead, and is held up by a program's waker: then a thread that waits leads.
#[test]
fn f5_a_waker_that_blocks_keeps_nobody_from_leading() {
    let disk = SimDisk::new(1);
    disk.allow_threads();
    let log = Log::options().open_on(&disk).expect("opens");
    let commit = || {
        let mut stream = log.create_stream().expect("a stream");
        stream.append([1]).expect("room");
        (stream.commit(), stream)
    };
    let ((entered, is_entered), (tell, done)) = (mpsc::sync_channel(1), mpsc::channel());
    let blocks = Blocks { entered, done: Mutex::new(done), was_told: AtomicBool::new(false) };
    let blocks = Arc::new(blocks);
    let waker = Waker::from(Arc::clone(&blocks));
    let (mut awaited, _one) = commit();
    assert!(Pin::new(&mut awaited).poll(&mut Context::from_waker(&waker)).is_pending());
    is_entered.recv().expect("the log's own thread is held up");
    disk.hold_syncs(true);
    let (leads, _two) = commit();
    let calls = disk.calls();
    let leader = std::thread::spawn(move || leads.wait().expect("committed"));
    wait_until_written(&disk, calls);
    let (waits, _three) = commit();
    let (its_id, id) = mpsc::channel();
    let waiter = std::thread::spawn(move || {
        its_id.send(rustix::thread::gettid()).expect("asked for");
        waits.wait().expect("committed");
        tell.send(()).expect("the waker was not done before");
    });
    wait_until_asleep(id.recv().expect("sent"));
    let (mut asks, _four) = commit();
    assert!(Pin::new(&mut asks).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    disk.hold_syncs(false);
    leader.join().expect("no panic");
    waiter.join().expect("the waiter led");
    wait_until("a waker that was told", || blocks.was_told.load(SeqCst));
}

/// A simulated disk without threads: what is queued stays so until a ticket is waited for.
pub(super) fn on_one_thread() -> (SimDisk, Log) {
    let disk = SimDisk::new(1);
    let log = Log::options().open_on(&disk).expect("opens");
    (disk, log)
}

pub(super) fn append(stream: &mut Stream, events: &[u8]) {
    for event in events {
        stream.append([*event]).expect("room");
    }
}

/// What a handle shows, as a text of one letter an event; its seqs are dense from the start on.
pub(super) fn text(events: amberlog::Events) -> String {
    let seen = seen(events);
    let first = seen.first().map_or(0, |(seq, _)| *seq);
    assert!(seen.iter().map(|(seq, _)| *seq).eq(first..first + seen.len() as u64), "{seen:?}");
    seen.iter().map(|(_, payload)| char::from(payload[0])).collect()
}

pub(super) fn durable(log: &Log, stream: &Stream) -> String {
    text(log.read_view().events(stream.id()).expect("durable"))
}

/// P4: to cut the end of a stream and to write another is one commit, also where the end is still in flight.
#[test]
fn p4_a_rewind_of_what_is_in_flight_and_new_events_are_one_commit() {
    for to in 0..=5 {
        let (disk, log) = on_one_thread();
        let mut stream = log.create_stream().expect("a stream");
        append(&mut stream, b"ab");
        let first = stream.commit();
        append(&mut stream, b"cd");
        let second = stream.commit();
        append(&mut stream, b"e");
        stream.rewind(to).expect("at any time");
        append(&mut stream, b"xy");
        let expected = format!("{}xy", &"abcde"[..to as usize]);
        assert_eq!(text(stream.events().expect("open")), expected);
        let fork = stream.fork_at(stream.head()).expect("a fork");
        assert_eq!(text(fork.events().expect("open")), expected);
        let third = stream.commit();
        assert_eq!(text(stream.events().expect("open")), expected);
        assert_eq!(second.wait().expect("committed").seqs.end.get(), 4);
        first.wait().expect("committed");
        let third = third.wait().expect("committed");
        assert_eq!((third.position.get(), third.seqs.end), (3, stream.head()));
        assert_eq!(
            (durable(&log, &stream), text(stream.events().expect("open"))),
            (expected.clone(), expected.clone())
        );
        let log = Log::options().open_on(&disk.after_power_cut(7)).expect("opens");
        assert_eq!(durable(&log, &stream), expected);
    }
}

/// P5: commits that failed give back their events, but for those that the handle has cut since.
#[test]
fn p5_what_comes_back_is_what_was_not_cut() {
    for to in 0..=6 {
        for taken in [false, true] {
            let (disk, log) = on_one_thread();
            let mut stream = log.create_stream().expect("a stream");
            append(&mut stream, b"ab");
            stream.commit().wait().expect("committed");
            append(&mut stream, b"cd");
            let first = stream.commit();
            append(&mut stream, b"e");
            let second = stream.commit();
            append(&mut stream, b"f");
            stream.rewind(to).expect("at any time");
            append(&mut stream, b"xy");
            let third = taken.then(|| stream.commit());
            disk.set_file_bytes_max(1);
            first.wait().expect_err("no room");
            second.wait().expect_err("behind one that failed");
            third.map(|third| third.wait().expect_err("behind one that failed"));
            let expected = format!("{}xy", &"abcdef"[..to as usize]);
            assert_eq!(text(stream.events().expect("open")), expected);
            disk.set_file_bytes_max(u64::MAX);
            assert_eq!(durable(&log, &stream), "ab");
            let again = stream.commit().wait().expect("committed");
            assert_eq!(again.position.get(), 2, "one commit for all that came back");
            assert_eq!((durable(&log, &stream), stream.buffered()), (expected.clone(), 0));
            assert_eq!(stream.info().generation, u32::from(to < 2));
        }
    }
}

/// P8: a leader has put events elsewhere that a handle goes back to: the commit says so, nothing of another handle is cut,
/// and the next commit cuts what the handle meant.
#[test]
fn p8_a_rewind_into_events_that_went_elsewhere_is_a_conflict() {
    let any = CommitOptions::new().expect(Expect::Any);
    let (_disk, log) = on_one_thread();
    let mut stream = log.create_stream().expect("a stream");
    append(&mut stream, b"ab");
    stream.commit().wait().expect("committed");
    let mut other = log.open_stream(stream.id()).expect("durable");
    append(&mut stream, b"cd");
    append(&mut other, b"OO");
    other.commit().wait().expect("committed");
    let first = stream.commit_with(any);
    stream.rewind(3).expect("at any time");
    append(&mut stream, b"x");
    let second = stream.commit_with(any);
    assert_eq!(first.wait().expect("committed").seqs.start.get(), 4);
    let refused = second.wait().expect_err("what it goes back to is elsewhere");
    assert!(matches!(refused.kind(), amberlog::ErrorKind::Conflict { .. }), "{refused}");
    assert_eq!(durable(&log, &stream), "abOOcd");
    assert_eq!(text(stream.events().expect("open")), "abOOcx");
    stream.commit().wait().expect("committed");
    assert_eq!(durable(&log, &stream), "abOOcx");
}
