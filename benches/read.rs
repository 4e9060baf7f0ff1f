//! How fast is what was written read again, every checksum verified?
//!
//! 16 streams of events of 256 B, committed in turns of 32 events, as many bytes of payload as
//! `AMBERLOG_BENCH_MIB` says in mebibytes (64 by default). Once in sealed segments, which are read where
//! they are mapped, and once in one active segment, which is read through buffers. The floors pass over
//! the bytes of the same segments in memory: with a checksum for every 8 KiB, and with a plain sum.

mod common;

use std::hint::black_box;
use std::path::{Path, PathBuf};

use amberlog::{CommitOptions, Durability, Log, Options, Position, Snapshot, StreamId};
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, measurement::WallTime};
use tempfile::TempDir;

const PAYLOAD_BYTES: usize = 256;
const STREAMS: usize = 16;
const COMMIT_EVENTS: usize = 32;

struct Case {
    name: &'static str,
    snapshot: Snapshot,
    streams: Vec<StreamId>,
    events_each: u64,
    bytes: Vec<u8>,
}

fn mebibytes() -> usize {
    let asked = std::env::var("AMBERLOG_BENCH_MIB").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(64)
}

fn prepare(dir: &TempDir, name: &'static str, options: Options) -> Case {
    let path: PathBuf = dir.path().join(name);
    let event = common::payload(PAYLOAD_BYTES);
    let rounds = (mebibytes() << 20) / (PAYLOAD_BYTES * STREAMS * COMMIT_EVENTS);
    let log: Log = options.open(&path).expect("opens");
    let mut streams: Vec<_> = (0..STREAMS).map(|_| log.stream().expect("open")).collect();
    let os = CommitOptions::new().durability(Durability::Os);
    for _ in 0..rounds.max(1) {
        for stream in &mut streams {
            for _ in 0..COMMIT_EVENTS {
                stream.append(&event[..]).expect("room");
            }
            stream.commit_with(os).wait().expect("committed");
        }
    }
    let ids = streams.iter().map(amberlog::Stream::id).collect();
    drop(streams);
    log.close().expect("closes");
    let (snapshot, survey) = Snapshot::open(&path).expect("readable");
    assert!(survey.is_sound());
    Case {
        name,
        snapshot,
        streams: ids,
        events_each: (rounds.max(1) * COMMIT_EVENTS) as u64,
        bytes: all_bytes(&path),
    }
}

fn all_bytes(log: &Path) -> Vec<u8> {
    let files = common::segment_files(log);
    let read = |file: &PathBuf| std::fs::read(file).expect("readable");
    files.iter().flat_map(read).collect()
}

fn floors(group: &mut BenchmarkGroup<'_, WallTime>, case: &Case) {
    group.bench_function(BenchmarkId::new("floor_crc", case.name), |bencher| {
        bencher.iter(|| {
            let pieces = case.bytes.chunks(COMMIT_EVENTS * PAYLOAD_BYTES);
            pieces.fold(0, |all, piece| all ^ crc32fast::hash(piece))
        });
    });
    group.bench_function(BenchmarkId::new("floor_sum", case.name), |bencher| {
        bencher.iter(|| {
            let sum = |sum: u64, byte: &u8| sum.wrapping_add(u64::from(*byte));
            case.bytes.iter().fold(0, sum)
        });
    });
}

fn scan(criterion: &mut Criterion, cases: &[Case]) {
    let mut group = common::group(criterion, "read", 10, 3);
    for case in cases {
        let total = case.events_each * STREAMS as u64;
        group.throughput(Throughput::Bytes(total * PAYLOAD_BYTES as u64));
        floors(&mut group, case);
        let events = |id: &StreamId| case.snapshot.events(*id).expect("known");
        group.bench_function(BenchmarkId::new("forward", case.name), |bencher| {
            bencher.iter(|| {
                let mut count = 0;
                for event in case.streams.iter().flat_map(events) {
                    black_box(event.expect("sound").payload());
                    count += 1;
                }
                assert_eq!(count, total);
            });
        });
        group.bench_function(BenchmarkId::new("backward", case.name), |bencher| {
            bencher.iter(|| {
                let mut count = 0;
                for event in case.streams.iter().flat_map(|id| events(id).rev()) {
                    black_box(event.expect("sound").payload());
                    count += 1;
                }
                assert_eq!(count, total);
            });
        });
        group.bench_function(BenchmarkId::new("by_position", case.name), |bencher| {
            bencher.iter(|| {
                let mut count = 0;
                for event in case.snapshot.read_all(Position::START).expect("in range") {
                    black_box(event.expect("sound").payload());
                    count += 1;
                }
                assert_eq!(count, total);
            });
        });
    }
    group.finish();
}

fn random(criterion: &mut Criterion, cases: &[Case]) {
    let mut group = common::group(criterion, "read_one", 50, 2);
    group.throughput(Throughput::Elements(1));
    for case in cases {
        let mut state = 1_u64;
        let mut dice = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        };
        group.bench_function(BenchmarkId::new("floor_crc", case.name), |bencher| {
            let piece = COMMIT_EVENTS * (PAYLOAD_BYTES + common::FRAME_BYTES);
            let last = (case.bytes.len() - piece) as u64;
            bencher.iter(|| {
                let at = (dice() % last) as usize;
                crc32fast::hash(&case.bytes[at..at + piece])
            });
        });
        group.bench_function(BenchmarkId::new("amberlog", case.name), |bencher| {
            bencher.iter(|| {
                let id = case.streams[dice() as usize % STREAMS];
                let seq = dice() % case.events_each;
                let events = case.snapshot.events(id).expect("known");
                let event = events.range(seq..=seq).next().expect("there");
                black_box(event.expect("sound").payload()[0])
            });
        });
    }
    group.finish();
}

fn main() {
    common::run(|criterion| {
        let dir = common::dir();
        let sealed = Log::options().segment_bytes_first(4 << 20).segment_bytes_max(4 << 20);
        let active = Log::options().segment_bytes_first(1 << 30).segment_bytes_max(1 << 30);
        let cases = [prepare(&dir, "sealed", sealed), prepare(&dir, "active", active)];
        scan(criterion, &cases);
        random(criterion, &cases);
    });
}
