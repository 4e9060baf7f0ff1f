//! Measures the cost of a stream's first commit.
//!
//! The log is open and warm, the stream is new, and its events are buffered before the clock
//! starts. The floors write the same number of bytes: over existing blocks, and into a new file.

mod common;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};

const PAYLOAD_BYTES: usize = 256;

fn materialize(criterion: &mut Criterion) {
    let dir = common::dir();
    let log = common::warm_log(&dir);
    let event = common::payload(PAYLOAD_BYTES);
    let mut overwrite = common::Overwrite::new(dir.path(), 64 << 20);
    let mut files = common::CreateFiles::new(dir.path());
    let mut group = common::group(criterion, "materialize", 50, 3);
    for events in [1, 64, 1_000, 10_000] {
        let same = common::payload(common::commit_bytes(events, PAYLOAD_BYTES));
        group.throughput(Throughput::Elements(events as u64));

        group.bench_function(BenchmarkId::new("floor_overwrite", events), |bencher| {
            let each = BatchSize::PerIteration;
            bencher.iter_batched(|| (), |()| overwrite.commit(&same), each);
        });

        group.bench_function(BenchmarkId::new("amberlog", events), |bencher| {
            let fresh = || {
                let mut stream = log.create_stream().expect("open");
                for _ in 0..events {
                    stream.append(&event[..]).expect("room");
                }
                stream
            };
            bencher.iter_batched(
                fresh,
                |mut stream| {
                    stream.commit().wait().expect("committed");
                    stream
                },
                BatchSize::PerIteration,
            );
        });

        group.bench_function(BenchmarkId::new("floor_create", events), |bencher| {
            bencher.iter_batched(
                || files.next_path(),
                |path| common::CreateFiles::commit(path, &same),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn main() {
    common::run(materialize);
}
