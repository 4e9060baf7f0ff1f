//! Durable commits from one thread. The clock runs from the first append to the return of the
//! commit: one contestant works while events are appended, another at the end.

use std::time::{Duration, Instant};

use super::EVENT_BYTES;
use crate::contestant::Contestant;
use crate::measure::{Tally, payload};
use crate::race::{Open, Outcome, Plan, in_slices};

const SLICE: Duration = Duration::from_millis(250);
const FRESH_EVENTS: usize = 64;

/// Races commits of a number of events to one stream.
pub(super) fn one_writer(plan: &Plan, contestants: &[&dyn Contestant], events: usize) -> Outcome {
    let payload = payload(EVENT_BYTES);
    let slice = |open: &mut Open, time: Duration| {
        open.streams += 1;
        let mut writer = open.store.writer(open.streams);
        let mut tally = Tally::default();
        let started = Instant::now();
        while started.elapsed() < time {
            let started = Instant::now();
            writer.append_many(&payload, events);
            writer.commit();
            tally.push(started.elapsed());
        }
        tally.elapsed = started.elapsed();
        tally
    };
    in_slices(plan, contestants, SLICE, slice, Tally::latencies)
}

/// Races commits that each create a stream.
pub(super) fn fresh(plan: &Plan, contestants: &[&dyn Contestant]) -> Outcome {
    let payload = payload(EVENT_BYTES);
    let slice = |open: &mut Open, time: Duration| {
        let mut tally = Tally::default();
        let started = Instant::now();
        while started.elapsed() < time {
            open.streams += 1;
            let started = Instant::now();
            let mut writer = open.store.writer(open.streams);
            writer.append_many(&payload, FRESH_EVENTS);
            writer.commit();
            tally.push(started.elapsed());
        }
        tally.elapsed = started.elapsed();
        tally
    };
    in_slices(plan, contestants, SLICE, slice, Tally::latencies)
}
