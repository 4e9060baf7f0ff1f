//! Writing while readers catch up: eight threads commit, and two read everything from the
//! beginning, repeatedly, including new commits. The readers read at full speed, or pause when they
//! are ahead of a pace that all contestants keep, so that every contestant has the same share of
//! the processors.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::EVENT_BYTES;
use crate::contestant::{Contestant, Purpose, Sink, Store, Work};
use crate::measure::{Figures, Tally, payload};
use crate::race::{Outcome, Plan, in_turns};

const WRITERS: u64 = 8;
const READERS: u64 = 2;
const COMMIT_EVENTS: usize = 32;

/// Maximum number of bytes per second for each reader; `None` for full speed.
pub(super) type Pace = Option<f64>;

pub(super) fn race(plan: &Plan, contestants: &[&dyn Contestant], pace: Pace) -> Outcome {
    let rounds = (plan.size(64, 4) << 20) / (EVENT_BYTES * COMMIT_EVENTS) as u64 / WRITERS;
    let time = Duration::from_secs_f64(plan.seconds);
    in_turns(plan, contestants, |_, contestant| {
        let dir = plan.scratch();
        let store = contestant.open(dir.path(), Purpose::Keep);
        let by_stream = contestant.refuses(Work::ScanLog).is_some();
        let figures = turn(&*store, rounds, by_stream, time, pace);
        store.close();
        figures
    })
}

fn turn(store: &dyn Store, rounds: u64, by_stream: bool, time: Duration, pace: Pace) -> Figures {
    let payload = payload(EVENT_BYTES);
    let mut writers: Vec<_> = (0..WRITERS).map(|stream| store.writer(stream)).collect();
    for _ in 0..rounds {
        for writer in &mut writers {
            writer.append_many(&payload, COMMIT_EVENTS);
            writer.commit_unsynced();
        }
    }
    for writer in &mut writers {
        writer.append(&payload);
        writer.commit();
    }
    let stop = AtomicBool::new(false);
    let (stop, payload) = (&stop, &payload);
    let started = Instant::now();
    let mut all = Tally::default();
    let mut read = 0;
    std::thread::scope(|scope| {
        let write = |mut writer: Box<dyn crate::contestant::Writer + '_>| {
            let mut tally = Tally::default();
            while !stop.load(Ordering::Relaxed) {
                let started = Instant::now();
                writer.append(payload);
                writer.commit();
                tally.push(started.elapsed());
            }
            tally
        };
        let writing: Vec<_> =
            writers.into_iter().map(|writer| scope.spawn(move || write(writer))).collect();
        let reading: Vec<_> =
            (0..READERS).map(|_| scope.spawn(|| catch_up(store, by_stream, stop, pace))).collect();
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        for thread in writing {
            all.then(thread.join().expect("a writer"));
        }
        all.elapsed = started.elapsed();
        read = reading.into_iter().map(|thread| thread.join().expect("a reader")).sum();
    });
    let mut figures = all.latencies();
    figures.insert("read_mb_per_s".to_owned(), read as f64 / started.elapsed().as_secs_f64() / 1e6);
    figures
}

/// Reads until the flag is set. Returns the number of bytes read.
fn catch_up(store: &dyn Store, by_stream: bool, stop: &AtomicBool, pace: Pace) -> u64 {
    const REST: Duration = Duration::from_millis(10);
    let mut sink = Sink::default();
    let started = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        if pace.is_some_and(|pace| sink.bytes as f64 > started.elapsed().as_secs_f64() * pace) {
            std::thread::sleep(REST);
            continue;
        }
        if !by_stream {
            store.read_log(&mut sink);
            continue;
        }
        for stream in 0..WRITERS {
            if !stop.load(Ordering::Relaxed) {
                store.read_stream(stream, &mut sink);
            }
        }
    }
    sink.bytes
}
