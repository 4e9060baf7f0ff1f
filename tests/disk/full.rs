//! Can a log on a full disk be emptied, and then go on?
//!
//! P5, P7; F45. Disks of many sizes are filled with events until there is no space, without and with a life of the log
//! between filling and emptying: every stream can be deleted, a compaction gives their space back, and as much can be
//! written again.
#![cfg(feature = "sim")]

use crate::support::verified::checked_on;
use amberlog::maintenance::CompactOptions;
use amberlog::sim::SimDisk;
use amberlog::{ErrorKind, Log, Options, StreamId, StreamState};

/// Segments that double, as those of a log with default options do.
fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(1 << 20)
}

/// Number of times that the tests empty a log until nothing is left of it.
const ROUNDS_MAX: usize = 3;

fn open(disk: &SimDisk) -> Log {
    options().open_on(disk).expect("opens")
}

/// Commits events of `bytes` bytes to eight streams in turn until there is no space. Returns the streams, and how many bytes
/// of events were committed.
fn fill(log: &Log, bytes: usize) -> (Vec<StreamId>, u64) {
    let mut streams: Vec<_> = (0..8).map(|_| log.create_stream().expect("a stream")).collect();
    let mut committed = 0;
    let error = 'full: loop {
        for stream in &mut streams {
            stream.append(vec![7; bytes]).expect("room");
            match stream.commit().wait() {
                Ok(_) => committed += bytes as u64,
                Err(error) => {
                    stream.discard();
                    break 'full error;
                }
            }
        }
    };
    assert_eq!(*error.kind(), ErrorKind::StorageFull, "{error}");
    assert!(error.place().is_some(), "{error}");
    (streams.iter().map(|stream| stream.id()).collect(), committed)
}

/// Deletes the streams that have a commit, one by one, and compacts. Where there is no room for all of the deletes there is
/// for one, and after a compaction and a reopening for more.
fn empty(disk: &SimDisk, mut log: Log, ids: &[StreamId], context: &str) -> Log {
    let left =
        |log: &Log| ids.iter().filter(|id| log.state(**id) == Some(StreamState::Active)).count();
    for _ in 0..ROUNDS_MAX {
        let before = left(&log);
        for id in ids.iter().filter(|id| log.state(**id) == Some(StreamState::Active)) {
            if let Err(error) = log.open_stream(*id).expect("known").delete().wait() {
                assert_eq!(*error.kind(), ErrorKind::StorageFull, "{context}: {error}");
                assert!(left(&log) < before, "{context}: not one can be deleted: {error}");
                break;
            }
        }
        log.compact(CompactOptions::new()).unwrap_or_else(|error| panic!("{context}: {error}"));
        if left(&log) == 0 {
            return log;
        }
        log.close().expect("closes");
        log = open(disk);
    }
    panic!("{context}: {} streams are left", left(&log));
}

/// Fills and empties a disk of this size three times; the log is opened again where `reopens` says so.
fn fill_and_empty(capacity: u64, bytes: usize, reopens: bool) {
    let context = format!("{capacity} bytes, events of {bytes}, reopened: {reopens}");
    let disk = SimDisk::new(2 * capacity);
    disk.set_capacity(capacity);
    let mut log = open(&disk);
    let mut first = None;
    for round in 0..3 {
        let (ids, committed) = fill(&log, bytes);
        let first = *first.get_or_insert(committed);
        assert!(committed >= first / 4, "{context}, round {round}: {committed} of {first}");
        if reopens {
            log.close().expect("closes");
            log = open(&disk);
        }
        log = empty(&disk, log, &ids, &context);
        // A full segment gets its footer at the latest now, and is compacted too.
        log.close().expect("closes");
        log = empty(&disk, open(&disk), &[], &context);
        let mut next = log.create_stream().expect("a stream");
        for _ in 0..2 {
            next.append(vec![1; bytes]).expect("room");
            next.commit()
                .wait()
                .unwrap_or_else(|error| panic!("{context}, round {round}: {error}"));
        }
        let id = next.id();
        drop(next);
        log = empty(&disk, log, &[id], &context);
        assert_eq!(checked_on(&disk).expect("a log").damages, [], "{context}");
    }
}

/// Disks that one segment of the largest size does not fill up nearly alone, and events of these sizes.
fn sizes() -> impl Iterator<Item = (u64, usize)> {
    let capacities = (0..16).map(|nth: u64| (64 << 10) + nth * nth * 3_584 + nth * 512);
    let capacities = capacities.chain([3 << 20, 4_000_256]);
    capacities.flat_map(|capacity| [1_000, 2_000, 5_000].map(|bytes| (capacity, bytes)))
}

#[test]
fn p5_p7_f45_full_disks_of_many_sizes_can_be_emptied_and_filled_again() {
    for (capacity, bytes) in sizes() {
        fill_and_empty(capacity, bytes, false);
    }
}

#[test]
fn p5_p7_f45_full_disks_of_many_sizes_can_be_emptied_after_reopening() {
    // On larger ones sealing may take at the opening what the close gave back.
    for (capacity, bytes) in sizes().filter(|(capacity, _)| *capacity < 1 << 20) {
        fill_and_empty(capacity, bytes, true);
    }
}

/// F40: the ways in which a full disk was a dead end.
#[cfg(amberlog_sabotage)]
#[test]
fn control_a_log_that_cannot_be_emptied_on_a_full_disk_is_noticed() {
    use amberlog::{Sabotage, sabotage};
    for what in [Sabotage::WholeSegments, Sabotage::KeepNoRoom] {
        let broken = sabotage(what);
        let filled = std::panic::catch_unwind(|| {
            sizes().for_each(|(capacity, bytes)| fill_and_empty(capacity, bytes, false));
        });
        drop(broken);
        assert!(filled.is_err(), "{what:?} went unnoticed");
    }
}
