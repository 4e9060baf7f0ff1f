//! Dropping the last handle closes the log, whatever its own threads do and whatever thread drops
//! it (F51).
//!
//! The log's own threads are simulated by threads of the test that hold an [`Engine`] like those.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use super::Engine;
use crate::catalog::BatchCandidate;
use crate::commit::Ticket;
use crate::disk::SimDisk;
use crate::error::{ErrorKind, Result};
use crate::log::Log;
use crate::maintenance::{CompactOptions, CompactReport, Nameless, Steps, archive};
#[cfg(amberlog_sabotage)]
use crate::sabotage::Sabotage;
use crate::segment::{Spare, UNFINISHED_COPY, Zero};
use crate::stream::Stream;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Mutex, mpsc};

fn open(disk: &SimDisk) -> Result<Log> {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10).open_on(disk)
}

fn opened(disk: &SimDisk) -> (Log, Arc<Engine>) {
    let log = open(disk).expect("opens");
    let engine = log.0.engine();
    (log, engine)
}

/// Opens a log that may have threads of its own.
fn opened_with_threads(disk: &SimDisk) -> (Log, Arc<Engine>) {
    disk.allow_threads();
    opened(disk)
}

/// Fills some sealed segments with streams, most of them deleted.
fn mostly_dead(log: &Log) {
    for n in 0..60 {
        let mut stream = appended(log);
        stream.commit().wait().expect("committed");
        if n % 8 != 0 {
            stream.delete().wait().expect("deleted");
        }
    }
}

fn appended(log: &Log) -> Stream {
    let mut stream = log.create_stream().expect("a stream");
    stream.append([7; 1_500]).expect("room");
    stream
}

/// Waker of a program that drops the last owner of the log.
struct Drops<T>(Mutex<Option<T>>);

impl<T: Send + 'static> Wake for Drops<T> {
    fn wake(self: Arc<Self>) {
        drop(self.0.lock().take());
    }
}

/// Drops `kept` when the commit is settled, on the thread that leads for it.
fn drop_when_settled<T: Send + 'static>(ticket: &mut Ticket, kept: T) {
    let waker = Waker::from(Arc::new(Drops(Mutex::new(Some(kept)))));
    assert!(Pin::new(ticket).poll(&mut Context::from_waker(&waker)).is_pending());
}

/// Starts a thread that leads and is blocked until syncs are allowed. The next commits that are
/// queued then form one group.
fn leads_for_long(disk: &SimDisk, log: &Log) -> JoinHandle<()> {
    disk.hold_syncs(true);
    let calls = disk.calls();
    let leader = waits_for(appended(log).commit());
    wait_until(|| disk.calls() > calls);
    leader
}

/// Starts a thread that waits for a commit, and leads if necessary.
fn waits_for(ticket: Ticket) -> JoinHandle<()> {
    thread::spawn(move || {
        ticket.wait().expect("committed");
    })
}

fn wait_until(is_so: impl Fn() -> bool) {
    while !is_so() {
        thread::yield_now();
    }
}

/// Starts a thread that takes the maintenance lock and then waits for a commit that proves what was
/// acknowledged, as a compaction does.
fn moves_files(engine: &Arc<Engine>) -> JoinHandle<bool> {
    let engine = Arc::clone(engine);
    let queued = engine.queue.queued();
    let works = thread::spawn({
        let engine = Arc::clone(&engine);
        move || {
            let _alone = engine.alone("test").expect("open");
            engine.prove().expect("proven");
            engine.is_closed()
        }
    });
    wait_until(|| engine.queue.queued() > queued);
    works
}

/// Checks that an operation was stopped by the close.
fn is_stopped<T: std::fmt::Debug>(ended: Result<T>) {
    let stopped = ended.expect_err("it was stopped");
    assert!(matches!(stopped.kind(), ErrorKind::Closed), "{stopped}");
}

fn is_closed(disk: &SimDisk, engine: &Engine) {
    assert!(engine.is_closed());
    open(disk).expect("the lock is free").close().expect("closes");
}

#[test]
fn f51_the_last_handle_closes_the_log_and_no_other_does() {
    let disk = SimDisk::new(1);
    let (log, engine) = opened(&disk);
    let stream = appended(&log);
    let copy = log.clone();
    drop(log);
    assert!(!engine.is_closed());
    drop(copy);
    assert!(!engine.is_closed());
    drop(stream);
    is_closed(&disk, &engine);
}

#[test]
fn f51_the_last_handle_waits_for_work_in_progress() {
    let disk = SimDisk::new(1);
    let (log, engine) = opened(&disk);
    mostly_dead(&log);
    let (tell, has_begun) = mpsc::channel();
    let works = thread::spawn({
        let engine = Arc::clone(&engine);
        move || {
            let is_live = |_: &BatchCandidate| {
                let _ = tell.send(());
                wait_until(|| engine.is_closed());
                true
            };
            engine
                .compact_where(CompactOptions::new(), Some(&is_live))
                .map(|report| report.runs.len())
        }
    });
    has_begun.recv().expect("it compacts");
    drop(log);
    is_closed(&disk, &engine);
    is_stopped(works.join().expect("no panic"));
}

#[test]
fn f51_a_waker_may_drop_the_last_handle_on_the_logs_own_thread() {
    let disk = SimDisk::new(1);
    let (log, engine) = opened_with_threads(&disk);
    let mut stream = appended(&log);
    let mut ticket = stream.commit();
    let (tell, is_dropped) = mpsc::channel();
    let told = TellWhenDropped(tell);
    drop_when_settled(&mut ticket, (log, stream, told));
    is_dropped.recv().expect("dropped");
    is_closed(&disk, &engine);
    ticket.wait().expect("committed");
}

struct TellWhenDropped(mpsc::Sender<()>);

impl Drop for TellWhenDropped {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// The maintenance thread leads for its own commit, and for another whose waker drops the last
/// handle.
#[test]
fn f51_a_waker_may_drop_the_last_handle_on_the_thread_that_moves_files() {
    let disk = SimDisk::new(1);
    let (log, engine) = opened_with_threads(&disk);
    let leader = leads_for_long(&disk, &log);
    closes_beside_a_mover(&disk, log, &engine, vec![leader]);
}

/// Drops the last handle in a waker, after these leaders and next to a maintenance thread.
fn closes_beside_a_mover(
    disk: &SimDisk,
    log: Log,
    engine: &Arc<Engine>,
    leaders: Vec<JoinHandle<()>>,
) {
    let mut stream = appended(&log);
    let mut ticket = stream.commit();
    let (tell, is_dropped) = mpsc::channel();
    drop_when_settled(&mut ticket, (log, stream, TellWhenDropped(tell)));
    let works = moves_files(engine);
    disk.hold_syncs(false);
    for leader in leaders {
        leader.join().expect("no panic");
    }
    works.join().expect("no panic");
    ticket.wait().expect("committed");
    is_dropped.recv().expect("dropped");
    is_closed(disk, engine);
}

/// Another thread leads for all of them. The maintenance thread is woken before any waker runs;
/// otherwise the close would wait for that thread, and the thread for its own commit.
#[test]
fn f51_a_waker_may_drop_the_last_handle_while_the_thread_that_moves_files_waits() {
    let disk = SimDisk::new(1);
    let (log, engine) = opened_with_threads(&disk);
    let leader = leads_for_long(&disk, &log);
    let queued = engine.queue.queued();
    let leads_next = waits_for(appended(&log).commit());
    wait_until(|| engine.queue.queued() > queued);
    closes_beside_a_mover(&disk, log, &engine, vec![leader, leads_next]);
}

/// A compaction touches no file of a log that was closed on the compacting thread.
#[test]
fn f51_a_compaction_ends_where_a_waker_closes_the_log() {
    let disk = SimDisk::new(1);
    let (log, engine) = opened(&disk);
    mostly_dead(&log);
    let alone = engine.alone("test").expect("open");
    let files = std::cell::RefCell::new(None);
    let prove = || {
        engine.close()?;
        *files.borrow_mut() = Some(disk.files());
        Ok(())
    };
    let mut report = CompactReport::default();
    let mut nameless = Nameless::default();
    let ended = engine.compact_segments(
        (CompactOptions::new(), None),
        &prove,
        Steps::All,
        &mut report,
        &mut nameless,
    );
    is_stopped(ended);
    drop(alone);
    assert!(files.take().expect("it was to be proven") == disk.files(), "it touched a closed log");
    is_closed(&disk, &engine);
}

/// Closes the log on another thread while this one, which backs up to `copy`, waits for a sync.
/// Syncs continue once the log counts as closed.
fn closed_within<T>(disk: &SimDisk, engine: &Arc<Engine>, work: impl FnOnce() -> T) -> T {
    disk.hold_syncs(true);
    let disk = disk.clone();
    let engine = Arc::clone(engine);
    let closes = thread::spawn(move || {
        wait_until(|| !disk.dir("copy").files().is_empty());
        let closes = thread::spawn({
            let engine = Arc::clone(&engine);
            move || engine.close()
        });
        wait_until(|| engine.is_closed());
        disk.hold_syncs(false);
        closes.join().expect("no panic").expect("closes");
    });
    let done = work();
    closes.join().expect("no panic");
    done
}

/// A running backup stops at its next piece, reports it, and leaves an unfinished copy that no
/// reader takes for a backup.
#[test]
fn f51_closing_stops_a_backup() {
    let disk = SimDisk::new(1);
    let (log, engine) = opened_with_threads(&disk);
    mostly_dead(&log);
    let ended = closed_within(&disk, &engine, || log.backup("copy"));
    is_stopped(ended);
    assert!(disk.dir("copy").files().keys().any(|name| name == UNFINISHED_COPY));
    is_closed(&disk, &engine);
}

/// An unfinished archive file is removed when its log is closed.
#[test]
fn f51_closing_stops_an_archive() {
    let disk = SimDisk::new(1);
    let (log, engine) = opened(&disk);
    let mut stream = appended(&log);
    for _ in 0..100 {
        stream.append([7; 1_500]).expect("room");
    }
    stream.commit().wait().expect("committed");
    let before = disk.files();
    let view = log.read_view();
    let left = Cell::new(50);
    let is_over = || left.replace(left.get() - 1) == 0;
    let ended = archive(&*engine.disk, &view, stream.id(), &is_over);
    is_stopped(ended);
    assert!(disk.files() == before, "an unfinished file is left");
}

/// An unfinished segment is abandoned when its log is closed.
#[test]
fn f51_closing_stops_the_making_of_a_segment() {
    let disk = SimDisk::new(1);
    let (log, engine) = opened(&disk);
    appended(&log).commit().wait().expect("committed");
    let before = disk.files();
    let stops = |_| Err(std::io::ErrorKind::Interrupted.into());
    let made = Spare::prepare(&*engine.disk, [7; 16], 9, 8 << 20, Zero::Gently(&stops));
    made.expect_err("stopped");
    assert!(disk.files() == before, "an unfinished file is left");
}

/// Without these guards the tests above fail.
#[cfg(amberlog_sabotage)]
#[test]
fn control_a_log_that_does_not_end_when_it_is_closed_is_noticed() {
    use crate::sabotage::sabotage;

    let fails = |what, test: fn()| {
        let _broken = sabotage(what);
        assert!(std::panic::catch_unwind(test).is_err(), "{what:?} was not noticed");
    };
    fails(Sabotage::LeaveOpen, f51_the_last_handle_closes_the_log_and_no_other_does);
    fails(Sabotage::GoOnWhenClosed, f51_closing_stops_a_backup);
}
