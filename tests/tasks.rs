//! Thousands of tasks on two threads: what does a commit cost a program that awaits it?
//!
//! P3, and the rules of the commit path: one sync for each group; a task that awaits a ticket is woken once; nothing
//! of the engine blocks a thread of the runtime; a ticket is one allocation. Everything is counted and nothing
//! is timed.

#![cfg(feature = "sim")]

#[path = "support/counting.rs"]
mod counting;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::task::{Context, Wake, Waker};

use amberlog::sim::SimDisk;
use amberlog::{Commit, CommitOptions, Log, Result, Stream, Ticket};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Barrier;

use self::counting::allocations_here;

const TASKS: usize = 4096;
const ROUNDS: u64 = 3;
/// Number of times that the watchdog runs while the disk stands still.
const TICKS: u64 = 1_000;
const RUNTIME: &str = "runtime";

/// Counts the wake-ups that it passes on.
struct Counted {
    inner: Waker,
    wakes: AtomicU64,
}

impl Wake for Counted {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, SeqCst);
        self.inner.wake_by_ref();
    }
}

/// Awaits a ticket. Returns how often it was polled and how often woken, too.
async fn counted(ticket: Ticket) -> (Result<Commit>, u64, u64) {
    let mut ticket = pin!(ticket);
    let (mut polls, mut waker) = (0, None);
    let outcome = poll_fn(|context: &mut Context<'_>| {
        polls += 1;
        let inner = context.waker().clone();
        let waker =
            waker.get_or_insert_with(|| Arc::new(Counted { inner, wakes: AtomicU64::new(0) }));
        ticket.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(waker))))
    })
    .await;
    (outcome, polls, waker.map_or(0, |waker| waker.wakes.load(SeqCst)))
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).thread_name(RUNTIME).build().expect("a runtime")
}

/// A log that is on disk, with room, on a disk that its own threads may use.
fn log() -> (SimDisk, Log) {
    let disk = SimDisk::new(1);
    disk.allow_threads();
    let size = 16 << 20;
    let options = Log::options().segment_bytes_first(size).segment_bytes_max(size);
    let log = options.open_on(&disk).expect("opens");
    let mut stream = log.create_stream().expect("open");
    stream.append(b"the first").expect("room");
    stream.commit().wait().expect("committed");
    (disk, log)
}

/// One task's commits, all tasks in step. Returns the most allocations that a ticket took once all was warm.
async fn commits(mut stream: Stream, barrier: Arc<Barrier>) -> u64 {
    let mut most = 0;
    for round in 0..ROUNDS {
        stream.append(b"one event").expect("room");
        let before = allocations_here();
        let ticket = stream.commit_with(CommitOptions::new().later());
        let took = allocations_here() - before;
        // The first time lists grow that are used again.
        most = most.max(if round == 0 { 0 } else { took });
        barrier.wait().await;
        let (outcome, polls, wakes) = counted(ticket).await;
        assert!(outcome.is_ok(), "{outcome:?}");
        assert!(wakes <= 1, "woken {wakes} times for one commit");
        assert_eq!(polls, wakes + 1, "polled without need");
        barrier.wait().await;
    }
    most
}

#[test]
fn p3_thousands_of_tasks_share_a_sync_and_block_no_thread() {
    let runtime = runtime();
    in_step(&runtime);
    while_the_disk_stands_still(&runtime);
    one_behind_the_other();
}

/// All commit, and only then the first one waits: one write, one sync and one tail record for all.
fn in_step(runtime: &Runtime) {
    let (disk, log) = log();
    let (calls, syncs) = (disk.calls(), disk.syncs());
    let barrier = Arc::new(Barrier::new(TASKS));
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| commits(log.create_stream().expect("open"), Arc::clone(&barrier)))
        .map(|task| runtime.spawn(task))
        .collect();
    let most = tasks.into_iter().map(|task| runtime.block_on(task).expect("done")).max();
    // The commit thread may be so late behind a round that it leads for the first commits of the next one.
    let groups = disk.syncs() - syncs;
    assert!((ROUNDS..2 * ROUNDS).contains(&groups), "{groups} groups of {TASKS} commits");
    assert_eq!(disk.calls() - calls, 3 * groups, "a group is a write, a sync and a tail record");
    assert_eq!(log.read_view().position().get(), 1 + ROUNDS * TASKS as u64);
    assert_eq!(most, Some(1), "allocations by a ticket");
    no_runtime_thread_called(&disk);
}

fn no_runtime_thread_called(disk: &SimDisk) {
    let callers = disk.callers();
    assert!(callers.iter().any(|name| name == "amberlog-commit"), "{callers:?}");
    assert!(!callers.iter().any(|name| name.contains(RUNTIME)), "{callers:?}");
}

/// While a sync takes its time, all tasks commit and wait, and others go on: the sync ends only when the watchdog
/// has run often enough, so a blocked runtime would never end.
fn while_the_disk_stands_still(runtime: &Runtime) {
    let (disk, log) = log();
    let syncs = disk.syncs();
    disk.hold_syncs(true);
    let mut stream = log.create_stream().expect("open");
    stream.append(b"in flight").expect("room");
    let calls = disk.calls();
    let first = stream.commit();
    first.start();
    // The first one is written: its group is closed, and later commits are in the next.
    while disk.calls() == calls {
        std::thread::yield_now();
    }
    let polled = Arc::new(AtomicU64::new(0));
    let task = |mut stream: Stream| {
        let polled = Arc::clone(&polled);
        async move {
            stream.append(b"one event").expect("room");
            let mut ticket = pin!(stream.commit());
            let mut is_first = true;
            poll_fn(|context| {
                let outcome = ticket.as_mut().poll(context);
                assert!(!is_first || outcome.is_pending(), "acknowledged without a sync");
                polled.fetch_add(u64::from(is_first), SeqCst);
                is_first = false;
                outcome
            })
            .await
        }
    };
    let tasks: Vec<_> =
        (0..TASKS).map(|_| runtime.spawn(task(log.create_stream().expect("open")))).collect();
    let seen = Arc::clone(&polled);
    let watchdog = async move {
        let mut ticks = 0;
        while ticks < TICKS || seen.load(SeqCst) < TASKS as u64 {
            tokio::task::yield_now().await;
            ticks += 1;
        }
    };
    runtime.block_on(runtime.spawn(watchdog)).expect("it ran");
    assert_eq!(disk.syncs(), syncs, "nothing was synced meanwhile");
    disk.hold_syncs(false);
    first.wait().expect("committed");
    for task in tasks {
        runtime.block_on(task).expect("done").expect("committed");
    }
    assert_eq!(disk.syncs() - syncs, 2, "the one in flight, and one for all the others");
    no_runtime_thread_called(&disk);
}

/// A commit behind one that is still in flight is one allocation, too.
fn one_behind_the_other() {
    let (_, log) = log();
    let mut stream = log.create_stream().expect("open");
    let mut most = 0;
    for round in 0..3 {
        let tickets: Vec<Ticket> = (0..64)
            .map(|_| {
                stream.append(b"one event").expect("room");
                let before = allocations_here();
                let ticket = stream.commit_with(CommitOptions::new().later());
                let took = allocations_here() - before;
                most = most.max(if round == 0 { 0 } else { took });
                ticket
            })
            .collect();
        for ticket in tickets {
            ticket.wait().expect("committed");
        }
    }
    assert_eq!(most, 1, "allocations by a ticket behind another");
}

#[test]
fn a_waker_that_is_called_twice_is_counted_twice() {
    let waker = Arc::new(Counted { inner: Waker::noop().clone(), wakes: AtomicU64::new(0) });
    Waker::from(Arc::clone(&waker)).wake();
    Waker::from(Arc::clone(&waker)).wake_by_ref();
    assert_eq!(waker.wakes.load(SeqCst), 2);
}
