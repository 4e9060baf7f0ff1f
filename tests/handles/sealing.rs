//! Segments are sealed while others read them: whichever moment that is, nothing of them is damage.
//!
//! P6, P12.

use std::path::Path;
use std::thread;

use crate::support::{env_or, read_dir, write_dir};
use amberlog::options::Reads;
use amberlog::verify::{SegmentReport, SegmentState};
use amberlog::{Log, Options};
use tempfile::TempDir;

/// Number of bytes cut from the end of a sealed file.
const TORN_BYTES: usize = 8;
const COMMITS: u64 = 400;

fn options() -> Options {
    Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10)
}

fn write(dir: &TempDir) {
    let log = options().open(dir.path()).expect("opens");
    let mut streams =
        [log.create_stream().expect("a stream"), log.create_stream().expect("a stream")];
    for n in 0..COMMITS {
        let stream = &mut streams[n as usize % 2];
        stream.append([n as u8; 600]).expect("room");
        stream.commit().wait().expect("committed");
    }
    drop(streams);
    log.close().expect("closes");
}

/// Reads all of it, from both ends.
fn read(log: &Log) -> u64 {
    let view = log.read_view();
    let mut read = 0;
    for info in view.streams() {
        let mut events = view.events(info.id).expect("known");
        while let Some(first) = events.next() {
            read += 1 + u64::from(events.next_back().transpose().expect("P6: whole").is_some());
            assert_eq!(first.expect("P6: whole").payload().len(), 600);
        }
    }
    read
}

/// Reads a log while all of its segments are sealed.
fn meet(rounds: u64) {
    let made = tempfile::tempdir().expect("a directory");
    write(&made);
    let mut files = read_dir(made.path());
    // All but the last one.
    let is_segment = |name: &Path| name.extension().is_some_and(|it| it == "seg");
    let segments = files.iter_mut().filter(|(name, _)| is_segment(name));
    for (_, bytes) in segments.rev().skip(1) {
        bytes.truncate(bytes.len() - TORN_BYTES);
    }
    for round in 0..rounds {
        let dir = tempfile::tempdir().expect("a directory");
        write_dir(dir.path(), &files);
        let reads = if round % 2 == 0 { Reads::Mapped } else { Reads::Positional };
        let log = options().reads(reads).open(dir.path()).expect("opens");
        let unsealed = |one: &&SegmentReport| one.state == SegmentState::Unsealed;
        assert!(
            log.recovery_report().segments.iter().filter(unsealed).count() > 10,
            "{:?}",
            log.recovery_report()
        );
        thread::scope(|scope| {
            let readers: Vec<_> = (0..2).map(|_| scope.spawn(|| read(&log))).collect();
            for reader in readers {
                assert_eq!(reader.join().expect("whole"), COMMITS);
            }
        });
        log.close().expect("closes");
    }
}

#[test]
fn p6_p12_what_is_being_sealed_reads_as_it_was_written() {
    meet(env_or("AMBERLOG_EFFORT", 1) * 4);
}
