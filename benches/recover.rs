//! How long does opening take after the process was killed?
//!
//! 1,000 streams and 32 MiB of payload, events of 256 B in commits of 8. Once all in one segment that was
//! never sealed, once with all but the end in sealed segments. The log is copied while it is open, which
//! is what a kill leaves behind, files that lay ready included; the copy is synced before the clock
//! starts. `open` takes the lock, makes the end certain and is ready to write, `follow` only reads. The
//! floor reads the same segment files once and checksums them, up to where commits end.

mod common;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use amberlog::{CommitOptions, Durability, Log, Options, Snapshot};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use tempfile::TempDir;

const PAYLOAD_BYTES: usize = 256;
const PAYLOAD_BYTES_TOTAL: usize = 32 << 20;
const STREAMS: usize = 1_000;
const COMMIT_EVENTS: usize = 8;

fn killed(dir: &TempDir, name: &str, options: Options) -> PathBuf {
    let event = common::payload(PAYLOAD_BYTES);
    let path = dir.path().join("living").join(name);
    let log = options.open(&path).expect("opens");
    let mut streams: Vec<_> = (0..STREAMS).map(|_| log.stream().expect("open")).collect();
    let os = CommitOptions::new().durability(Durability::Os);
    let commits = PAYLOAD_BYTES_TOTAL / (PAYLOAD_BYTES * COMMIT_EVENTS);
    for n in 0..commits {
        let stream = &mut streams[n % STREAMS];
        for _ in 0..COMMIT_EVENTS {
            stream.append(&event[..]).expect("room");
        }
        stream.commit_with(os).wait().expect("committed");
    }
    let stream = &mut streams[0];
    stream.append(&event[..]).expect("room");
    stream.commit().wait().expect("committed");
    let copy = dir.path().join(name);
    common::copy_dir(&path, &copy);
    copy
}

/// Reads what commits may lie in, and checksums it piece by piece.
fn pass(files: &[PathBuf]) -> u32 {
    let mut left = (PAYLOAD_BYTES_TOTAL / (PAYLOAD_BYTES * COMMIT_EVENTS)
        * common::commit_bytes(COMMIT_EVENTS, PAYLOAD_BYTES)) as u64;
    let mut piece = vec![0; 1 << 20];
    let mut all = 0;
    for path in files {
        let mut file = File::open(path).expect("readable").take(left);
        loop {
            let read = file.read(&mut piece).expect("readable");
            if read == 0 {
                break;
            }
            left -= read as u64;
            let records = piece[..read].chunks(COMMIT_EVENTS * PAYLOAD_BYTES);
            all = records.fold(all, |all, record| all ^ crc32fast::hash(record));
        }
    }
    all
}

fn recover(criterion: &mut Criterion) {
    let dir = common::dir();
    let sizes = |bytes| Log::options().segment_bytes_first(bytes).segment_bytes_max(bytes);
    let cases = [("unsealed", sizes(64 << 20)), ("sealed", sizes(4 << 20))];
    let mut group = common::group(criterion, "recover", 10, 3);
    group.throughput(Throughput::Bytes(PAYLOAD_BYTES_TOTAL as u64));
    for (name, options) in cases {
        let prepared: PathBuf = killed(&dir, name, options.clone());
        let files = common::segment_files(&prepared);
        group.bench_function(BenchmarkId::new("floor_pass", name), |bencher| {
            bencher.iter(|| pass(&files));
        });
        group.bench_function(BenchmarkId::new("follow", name), |bencher| {
            bencher.iter_with_large_drop(|| Snapshot::open(&prepared).expect("readable"));
        });
        group.bench_function(BenchmarkId::new("open", name), |bencher| {
            let fresh = || copy_of(&dir, &prepared);
            let open = |copy: TempDir| {
                let log = options.clone().open(copy.path()).expect("opens");
                (log, copy)
            };
            bencher.iter_batched(fresh, open, BatchSize::PerIteration);
        });
    }
    group.finish();
}

fn copy_of(dir: &TempDir, prepared: &Path) -> TempDir {
    let copy = TempDir::new_in(dir.path()).expect("writable");
    common::copy_dir(prepared, copy.path());
    copy
}

fn main() {
    common::run(recover);
}
