//! Durable commits from many threads and from many tasks, which may share a sync.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::EVENT_BYTES;
use crate::contestant::{Contestant, Store};
use crate::measure::{Tally, payload};
use crate::race::{Open, Outcome, Plan, in_slices};

const SLICE: Duration = Duration::from_millis(500);

/// Races threads with a stream each and commits of one event.
pub(super) fn threads(plan: &Plan, contestants: &[&dyn Contestant], threads: u64) -> Outcome {
    let payload = payload(EVENT_BYTES);
    let slice = |open: &mut Open, time: Duration| {
        let first = open.streams;
        open.streams += threads;
        write_in_threads(&*open.store, first, threads, &payload, time)
    };
    in_slices(plan, contestants, SLICE, slice, Tally::latencies)
}

/// Races tasks with a stream each and commits of one event.
pub(super) fn tasks(plan: &Plan, contestants: &[&dyn Contestant], tasks: u64) -> Outcome {
    let payload = payload(EVENT_BYTES);
    let slice = |open: &mut Open, time: Duration| open.store.run_tasks(tasks, &payload, time);
    in_slices(plan, contestants, SLICE, slice, Tally::latencies)
}

/// Commits one event at a time from several threads for a limited time.
fn write_in_threads(
    store: &dyn Store,
    first_stream: u64,
    threads: u64,
    payload: &[u8],
    time: Duration,
) -> Tally {
    let stop = AtomicBool::new(false);
    let ready = Barrier::new(threads as usize + 1);
    let (stop, ready) = (&stop, &ready);
    std::thread::scope(|scope| {
        let write = |stream: u64| {
            move || {
                let mut tally = Tally::default();
                let mut writer = store.writer(stream);
                ready.wait();
                while !stop.load(Ordering::Relaxed) {
                    let started = Instant::now();
                    writer.append(payload);
                    writer.commit();
                    tally.push(started.elapsed());
                }
                tally
            }
        };
        let writers: Vec<_> =
            (0..threads).map(|thread| scope.spawn(write(first_stream + thread))).collect();
        ready.wait();
        let started = Instant::now();
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for writer in writers {
            all.then(writer.join().expect("a writer"));
        }
        all.elapsed = started.elapsed();
        all
    })
}
