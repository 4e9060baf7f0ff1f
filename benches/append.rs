//! Measures the cost of buffering an event. Nothing here becomes durable.
//!
//! All contestants run in their steady state, in one warm mebibyte. `overwrite` is a flight
//! recorder with a full ring, so every append also drops the oldest event. `discard` is the default
//! ring, emptied whenever it is full in the cheapest way, so it measures append itself. The floor
//! copies the same bytes, 16 of head and the payload, into a plain ring.

mod common;

use std::hint::black_box;

use amberlog::{Log, Overflow, StreamOptions};
use criterion::{BenchmarkId, Criterion, Throughput};

const RING_BYTES: usize = 1 << 20;

fn append(criterion: &mut Criterion) {
    let dir = common::dir();
    let log = Log::open(dir.path().join("log")).expect("opens");
    let mut group = common::group(criterion, "append", 50, 2);
    for bytes in [64, 256, 4096] {
        let payload = common::payload(bytes);
        let payload = payload.as_slice();
        group.throughput(Throughput::Bytes(bytes as u64));

        group.bench_function(BenchmarkId::new("floor", bytes), |bencher| {
            let mut ring = common::RingCopy::new(RING_BYTES);
            let head = [7; common::FRAME_BYTES];
            bencher.iter(|| black_box(ring.push(black_box(&head), black_box(payload))));
        });

        group.bench_function(BenchmarkId::new("discard", bytes), |bencher| {
            let options = StreamOptions::new().ring_bytes_max(RING_BYTES);
            let mut stream = log.create_stream_with(&options).expect("open");
            let fits = RING_BYTES / (common::FRAME_BYTES + bytes);
            let mut room = fits;
            bencher.iter(|| {
                if room == 0 {
                    stream.discard();
                    room = fits;
                }
                room -= 1;
                stream.append(black_box(payload)).expect("room")
            });
        });

        group.bench_function(BenchmarkId::new("overwrite", bytes), |bencher| {
            let options =
                StreamOptions::new().overflow(Overflow::OverwriteOldest).ring_bytes_max(RING_BYTES);
            let mut stream = log.create_stream_with(&options).expect("open");
            for _ in 0..2 * RING_BYTES / bytes {
                stream.append(payload).expect("always room");
            }
            bencher.iter(|| stream.append(black_box(payload)).expect("always room"));
        });
    }
    group.finish();
}

fn main() {
    common::run(append);
}
