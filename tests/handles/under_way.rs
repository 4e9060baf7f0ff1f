//! Does a handle show the right events, and are the right waiters woken, while commits are under way?
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

/// What is dense, and has all of the first handle's events.
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
    let second = one.commit_with(any);
    one.append([b'a', 5]).expect("room");
    let shown = seen(one.events().expect("open"));
    is_whole(&shown, 6);
    assert_eq!(one.head().get(), shown.len() as u64);
    let mut early = one.fork_at(one.head()).expect("a fork");
    disk.hold_syncs(false);
    first.wait().expect("committed");
    assert!(!second.is_settled());
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
