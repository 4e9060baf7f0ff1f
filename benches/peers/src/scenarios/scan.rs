//! Reading everything: 16 streams, committed in turns of 32 events.
//!
//! The store is filled, closed, opened again and read once before the clock starts, so that its
//! memory and the page cache are warm. A pass counts its events, and a wrong count stops the race.

use std::time::Instant;

use super::EVENT_BYTES;
use crate::contestant::{Contestant, Purpose, Sink, Store};
use crate::measure::{Figures, payload};
use crate::race::{Outcome, Plan, disk_bytes, in_turns, sync_files};

const STREAMS: u64 = 16;
const COMMIT_EVENTS: usize = 32;

/// Order of reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    Streams,
    Commits,
}

pub(super) fn race(plan: &Plan, contestants: &[&dyn Contestant], order: Order) -> Outcome {
    let rounds = (plan.size(256, 8) << 20) / (EVENT_BYTES * COMMIT_EVENTS) as u64 / STREAMS;
    let events = rounds * STREAMS * COMMIT_EVENTS as u64;
    let prepared = contestants.iter().map(|contestant| {
        let dir = plan.scratch();
        let store = contestant.open(dir.path(), Purpose::Keep);
        fill(&*store, rounds);
        store.close();
        sync_files(dir.path());
        let ratio = disk_bytes(dir.path()) as f64 / (events * EVENT_BYTES as u64) as f64;
        (dir, ratio)
    });
    let prepared: Vec<_> = prepared.collect();
    in_turns(plan, contestants, |at, contestant| {
        let (dir, ratio) = &prepared[at];
        let store = contestant.open(dir.path(), Purpose::Keep);
        pass(&*store, order, events);
        let mut times: Vec<f64> = Vec::new();
        let begun = Instant::now();
        while times.is_empty() || begun.elapsed().as_secs_f64() < plan.seconds {
            let started = Instant::now();
            pass(&*store, order, events);
            times.push(started.elapsed().as_secs_f64());
        }
        store.close();
        let (seconds, _, _) = crate::measure::median(&times).expect("one pass at least");
        figures(seconds, events, *ratio)
    })
}

/// Commits once to each stream in every round.
fn fill(store: &dyn Store, rounds: u64) {
    let payload = payload(EVENT_BYTES);
    let mut writers: Vec<_> = (0..STREAMS).map(|stream| store.writer(stream)).collect();
    for round in 0..rounds {
        for writer in &mut writers {
            writer.append_many(&payload, COMMIT_EVENTS);
            if round + 1 == rounds {
                writer.commit();
            } else {
                writer.commit_unsynced();
            }
        }
    }
}

fn pass(store: &dyn Store, order: Order, events: u64) {
    let mut sink = Sink::default();
    match order {
        Order::Streams => (0..STREAMS).for_each(|stream| store.read_stream(stream, &mut sink)),
        Order::Commits => store.read_log(&mut sink),
    }
    assert_eq!(sink.events, events, "a scan reads everything");
    assert_eq!(sink.bytes, events * EVENT_BYTES as u64, "and nothing else");
}

fn figures(seconds: f64, events: u64, disk_per_payload: f64) -> Figures {
    let bytes = events as f64 * EVENT_BYTES as f64;
    [
        ("gb_per_s".to_owned(), bytes / seconds / 1e9),
        ("event_ns".to_owned(), seconds * 1e9 / events as f64),
        ("disk_per_payload".to_owned(), disk_per_payload),
    ]
    .into()
}
