//! Measures the cost of a commit of a stream that is on disk already, by one writer and by many.
//!
//! One writer: the time from `commit` to durable, without the appends. Many writers: each thread
//! has its own stream, appends one event and waits; the time is that of all commits together. The
//! floors write and sync the same bytes, and form groups without checksums or an index.

mod common;

use std::sync::Barrier;
use std::time::{Duration, Instant};

use amberlog::Log;
use criterion::{BenchmarkId, Criterion, Throughput};

const PAYLOAD_BYTES: usize = 256;

fn one_writer(criterion: &mut Criterion) {
    let dir = common::dir();
    let log = common::warm_log(&dir);
    let event = common::payload(PAYLOAD_BYTES);
    let mut overwrite = common::Overwrite::new(dir.path(), 64 << 20);
    let mut group = common::group(criterion, "commit", 100, 4);
    for events in [1, 32] {
        let same = common::payload(common::commit_bytes(events, PAYLOAD_BYTES));
        group.throughput(Throughput::Elements(1));

        group.bench_function(BenchmarkId::new("floor_overwrite", events), |bencher| {
            bencher.iter(|| overwrite.commit(&same));
        });

        group.bench_function(BenchmarkId::new("amberlog", events), |bencher| {
            let mut stream = log.create_stream().expect("open");
            bencher.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                for _ in 0..iterations {
                    for _ in 0..events {
                        stream.append(&event[..]).expect("room");
                    }
                    let started = Instant::now();
                    stream.commit().wait().expect("committed");
                    spent += started.elapsed();
                }
                spent
            });
        });
    }
    group.finish();
}

/// Measures the time of `commits` commits shared by `threads` threads. `make` creates the function
/// that a thread calls for each commit.
fn shared<F: FnMut()>(threads: u64, commits: u64, make: impl Fn() -> F + Sync) -> Duration {
    let each = commits.div_ceil(threads);
    let ready = Barrier::new(threads as usize + 1);
    let mut started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut commit = make();
                commit();
                ready.wait();
                for _ in 0..each {
                    commit();
                }
            });
        }
        ready.wait();
        started = Instant::now();
    });
    started.elapsed().mul_f64(commits as f64 / (each * threads) as f64)
}

fn many_writers(criterion: &mut Criterion) {
    let dir = common::dir();
    let log = common::warm_log(&dir);
    let event = common::payload(PAYLOAD_BYTES);
    let bare = common::BareGroup::new(common::Overwrite::new(dir.path(), 64 << 20));
    let same = common::payload(common::commit_bytes(1, PAYLOAD_BYTES));
    let mut group = common::group(criterion, "commit_group", 30, 4);
    group.throughput(Throughput::Elements(1));
    for threads in [8, 64] {
        group.bench_function(BenchmarkId::new("floor_bare_group", threads), |bencher| {
            bencher.iter_custom(|commits| shared(threads, commits, || || bare.commit(&same)));
        });

        group.bench_function(BenchmarkId::new("amberlog", threads), |bencher| {
            bencher.iter_custom(|commits| shared(threads, commits, || committer(&log, &event)));
        });
    }
    group.finish();
}

fn committer<'a>(log: &Log, event: &'a [u8]) -> impl FnMut() + use<'a> {
    let mut stream = log.create_stream().expect("open");
    move || {
        stream.append(event).expect("room");
        stream.commit().wait().expect("committed");
    }
}

fn main() {
    common::run(|criterion| {
        one_writer(criterion);
        many_writers(criterion);
    });
}
