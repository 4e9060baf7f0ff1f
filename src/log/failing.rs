//! Failures without a caller: are they reported, and is unreported work done?
//!
//! Every call of the disk fails once, in every way, during maintenance and while segments are made
//! and sealed. Either the failure is reported, or the log is as if nothing had failed.

use std::collections::BTreeMap;
use std::future::Future as _;
use std::time::Duration;

use super::{Log, ReadView};
use crate::disk::{Fault, SimDisk};
use crate::engine::BackgroundProgress;
use crate::error::ErrorKind;
use crate::failures::{BackgroundError, BackgroundTask};
use crate::options::{Options, Retention};
use crate::types::Timestamp;

const FAULTS: [Fault; 4] = [Fault::Io, Fault::DoneAndFailed, Fault::LostSync, Fault::Full];

fn options() -> Options {
    Log::options()
        .segment_bytes_first(16 << 10)
        .segment_bytes_max(16 << 10)
        .retain(Retention::new().events_max(2))
}

fn look(log: &Log) {
    log.0.run_background(&mut BackgroundProgress { visible: 0, retained: Duration::ZERO });
}

fn of(errors: &[BackgroundError], task: BackgroundTask) -> Option<&BackgroundError> {
    errors.iter().find(|error| error.task == task)
}

/// Names and lengths of the files, the position visible to a reader in another process, and the
/// number of seqs kept.
type Outcome = (BTreeMap<String, usize>, u64, u64);

fn outcome(disk: &SimDisk) -> Outcome {
    let files = disk.files().into_iter().map(|(name, bytes)| (name, bytes.len())).collect();
    let (view, _) = ReadView::open_on(&disk.copy()).expect("opens");
    let kept = view.streams().iter().map(|info| info.head.get() - info.start.get()).sum();
    (files, view.position().get(), kept)
}

/// Builds a log with something to trim and with wholly dead segments.
fn untidy() -> SimDisk {
    let disk = SimDisk::new(1);
    let log = options().open_on(&disk).expect("opens");
    let mut kept = log.create_stream().expect("a stream");
    let mut gone = log.create_stream().expect("a stream");
    for n in 0..60 {
        let stream = if n % 8 == 0 { &mut kept } else { &mut gone };
        stream.append([n; 1_000]).expect("room");
        stream.commit().wait().expect("committed");
    }
    gone.delete().wait().expect("deleted");
    drop((kept, gone));
    log.close().expect("closes");
    disk
}

fn every_call_of_a_look_fails() {
    let untidy = untidy();
    let tidy = |disk: &SimDisk| {
        let log = options().open_on(disk).expect("opens");
        look(&log);
        log
    };
    let sound = untidy.copy();
    let first = {
        let log = options().open_on(&sound).expect("opens");
        let first = sound.calls();
        look(&log);
        assert!(log.background_errors().is_empty(), "{:?}", log.background_errors());
        first
    };
    let sound = untidy.copy();
    let log = tidy(&sound);
    let (last, done) = (sound.calls(), outcome(&sound));
    assert!(done.0.len() < untidy.files().len() && done.2 == 2, "{done:?}");
    drop(log);
    let tasks = [BackgroundTask::Retain, BackgroundTask::Compact, BackgroundTask::RemoveCompacted];
    let (mut told, mut cases) = ([0; 3], 0);
    for call in first..last {
        for fault in FAULTS {
            let disk = untidy.copy();
            disk.fail_at(call, fault);
            let log = tidy(&disk);
            let (errors, context) = (log.background_errors(), format!("{fault:?} at call {call}"));
            cases += 1;
            let is_told = errors.iter().any(|error| error.count > 0 && !error.is_over);
            assert!(is_told || outcome(&disk) == done, "{context}: {errors:?}");
            for (task, told) in tasks.iter().zip(&mut told) {
                *told += u64::from(of(&errors, *task).is_some());
            }
            // Failed work is retried and succeeds; a poisoned log says so.
            disk.forget_faults();
            disk.set_capacity(u64::MAX);
            look(&log);
            let is_poisoned = |error: &BackgroundError| *error.error.kind() == ErrorKind::Poisoned;
            let again = log.background_errors();
            for error in again.iter().filter(|error| error.task == BackgroundTask::Retain) {
                assert!(error.is_over || is_poisoned(error), "{context}: {again:?}");
            }
        }
    }
    assert!(told.iter().all(|told| *told > 5), "{told:?} of {cases} were told");
}

#[test]
fn what_fails_of_forgetting_and_compacting_is_told() {
    every_call_of_a_look_fails();
}

/// Fills segments with commits while new ones are made and sealed. Returns false if a commit
/// failed.
fn fill(log: &Log) -> bool {
    let mut stream = log.create_stream().expect("a stream");
    (0..50).all(|n| {
        stream.append([n; 1_000]).expect("room");
        stream.commit().wait().is_ok()
    })
}

fn every_call_of_a_writer_fails() {
    let run = |disk: &SimDisk| {
        let log = Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10);
        let log = log.open_on(disk).expect("opens");
        let is_fine = fill(&log);
        (log, is_fine)
    };
    let sound = SimDisk::new(2);
    let (log, is_fine) = run(&sound);
    assert!(is_fine && log.background_errors().is_empty());
    let (last, done) = (sound.calls(), outcome(&sound));
    drop(log);
    let mut told = BTreeMap::new();
    for call in 0..last {
        for fault in FAULTS {
            let disk = SimDisk::new(2);
            disk.fail_at(call, fault);
            let (log, is_fine) = run(&disk);
            let errors = log.background_errors();
            let is_told = !is_fine || !errors.is_empty();
            let context = format!("{fault:?} at call {call}: {errors:?}");
            assert!(is_told || outcome(&disk) == done, "{context}");
            errors.iter().for_each(|error| *told.entry(error.task.as_str()).or_insert(0) += 1);
        }
    }
    for task in
        [BackgroundTask::MakeSegment, BackgroundTask::SealSegment, BackgroundTask::WriteTailRecord]
    {
        assert!(told.get(task.as_str()).is_some_and(|told| *told > 5), "{task:?}: {told:?}");
    }
}

#[test]
fn what_fails_of_making_and_sealing_segments_is_told() {
    every_call_of_a_writer_fails();
}

/// Negative control: unreported failures are noticed.
#[cfg(amberlog_sabotage)]
#[test]
fn control_failures_that_nobody_is_told_of_are_noticed() {
    let _broken = crate::sabotage::sabotage(crate::sabotage::Sabotage::ForgetFailures);
    for attack in
        [every_call_of_a_look_fails, every_call_of_a_writer_fails, dropped_tickets_are_told]
    {
        std::panic::catch_unwind(attack).expect_err("something failed, and nobody was told");
    }
}

/// Without a thread no background work is done, and the log reports that.
#[cfg(amberlog_sabotage)]
#[test]
fn a_thread_that_is_not_to_be_had_is_told() {
    let _broken = crate::sabotage::sabotage(crate::sabotage::Sabotage::NoThread);
    let dir = tempfile::tempdir().expect("a directory");
    let options = options().compaction(crate::options::Compaction::Background);
    let log = options.open(dir.path()).expect("opens");
    assert!(of(&log.background_errors(), BackgroundTask::StartThread).is_some());
}

/// A background error says since when it occurs, how often, and whether it is over.
#[test]
fn a_failure_tells_since_when_and_how_often() {
    let disk = SimDisk::new(3);
    let at = |seconds: u64| Timestamp::from_micros(1_767_225_600_000_000 + seconds * 1_000_000);
    disk.set_clock(at(0));
    let log = options().open_on(&disk).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    let mut more = |log: &Log| {
        for n in 0..4 {
            stream.append([n; 10]).expect("room");
            stream.commit().wait().expect("committed");
        }
        log.read_view().position()
    };
    let fails = |log: &Log| {
        // The trim cannot be written; the next commit can.
        disk.fail_at(disk.calls(), Fault::Io);
        look(log);
    };
    more(&log);
    for round in 1..=3 {
        disk.set_clock(at(round * 10));
        fails(&log);
        let errors = log.background_errors();
        let error = of(&errors, BackgroundTask::Retain).expect("told");
        assert_eq!((error.first, error.last, error.count), (at(10), at(round * 10), round));
        assert!(!error.is_over && *error.error.kind() == ErrorKind::Io, "{error}");
    }
    disk.set_clock(at(40));
    look(&log);
    let over = log.background_errors();
    let over = of(&over, BackgroundTask::Retain).expect("still told");
    assert!(over.is_over && over.count == 3, "{over}");
    more(&log);
    disk.set_clock(at(50));
    fails(&log);
    let again = log.background_errors();
    let again = of(&again, BackgroundTask::Retain).expect("told");
    assert_eq!((again.first, again.last, again.count, again.is_over), (at(50), at(50), 1, false));
}

/// Commits with dropped tickets fail: before the failure is known, after it, and together with one
/// that is awaited.
fn dropped_tickets_are_told() {
    let disk = SimDisk::new(4);
    let log = Log::options().open_on(&disk).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    let told = |log: &Log| {
        of(&log.background_errors(), BackgroundTask::Commit).map_or(0, |failed| failed.count)
    };
    let mut commit = |fails: bool| {
        stream.append([1; 10]).expect("room");
        disk.forget_faults();
        if fails {
            disk.fail_at(disk.calls(), Fault::Io);
        }
        stream.commit()
    };
    commit(false).wait().expect("committed");
    drop(commit(false));
    commit(false).wait().expect("committed");
    commit(true).wait().expect_err("the disk failed");
    assert_eq!(told(&log), 0, "nothing failed without being told: {:?}", log.background_errors());
    // Simulated disks allow no threads: the drop leads. A start leads as well, and then the outcome
    // is known.
    drop(commit(true));
    assert_eq!(told(&log), 1, "dropped");
    let ticket = commit(true);
    ticket.start();
    assert!(ticket.is_settled());
    assert_eq!(told(&log), 1, "it may still be asked");
    drop(ticket);
    assert_eq!(told(&log), 2, "started and dropped");
    let mut other = log.create_stream().expect("a stream");
    other.append([2; 10]).expect("room");
    let ticket = other.commit();
    let waited_for = commit(true);
    ticket.start();
    drop(ticket);
    waited_for.wait().expect_err("the disk failed");
    assert_eq!(told(&log), 3, "one of a group of two");
    let failed = log.background_errors();
    let failed = of(&failed, BackgroundTask::Commit).expect("told");
    assert!(!failed.is_over && *failed.error.kind() == ErrorKind::Io, "{failed}");
    assert_eq!(stream.buffered(), 4, "the events are back");
}

#[test]
fn p5_a_commit_that_fails_without_its_ticket_is_told() {
    dropped_tickets_are_told();
}

/// A poll that returned the outcome reported it; dropping the ticket then hides nothing.
#[test]
fn p5_a_failure_that_a_poll_returned_is_told_once() {
    let disk = SimDisk::new(5);
    let log = Log::options().open_on(&disk).expect("opens");
    let mut stream = log.create_stream().expect("a stream");
    stream.append([1; 10]).expect("room");
    disk.fail_at(disk.calls(), Fault::Io);
    let mut ticket = stream.commit();
    ticket.start();
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let polled = std::pin::Pin::new(&mut ticket).poll(&mut context);
    assert!(matches!(polled, std::task::Poll::Ready(Err(_))), "{polled:?}");
    drop(ticket);
    assert!(log.background_errors().is_empty(), "{:?}", log.background_errors());
    // A commit that is refused at once is no different.
    stream.delete().wait().expect("deleted");
    drop(stream.commit());
    let failed = log.background_errors();
    let failed = of(&failed, BackgroundTask::Commit).expect("told");
    assert!(matches!(failed.error.kind(), ErrorKind::Deleted(_)), "{failed}");
}
