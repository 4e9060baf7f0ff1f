//! Buffering an event before a commit, in the cheapest way of each contestant.
//!
//! Appends are timed in batches, because reading the clock takes longer than some appends. A writer
//! is emptied whenever it holds 256 KiB, with the clock stopped.

use std::time::{Duration, Instant};

use crate::contestant::Contestant;
use crate::measure::{Tally, payload};
use crate::race::{Open, Outcome, Plan, in_slices};

const BATCH: usize = 64;
const HELD_BYTES: usize = 256 << 10;
/// Number of bytes that a contestant without a discard may write to its files in one slice.
const SLICE_BYTES: usize = 64 << 20;

pub(super) fn race(plan: &Plan, contestants: &[&dyn Contestant], bytes: usize) -> Outcome {
    let payload = payload(bytes);
    let slice = |open: &mut Open, time: Duration| {
        let mut tally = Tally::default();
        let mut writer = open.store.appender();
        let started = Instant::now();
        let mut left = SLICE_BYTES / (BATCH * bytes);
        while started.elapsed() < time && left > 0 {
            for _ in 0..(HELD_BYTES / (BATCH * bytes)).max(1) {
                let started = Instant::now();
                writer.append_many(&payload, BATCH);
                tally.push(started.elapsed());
                left = left.saturating_sub(1);
            }
            writer.discard();
        }
        tally.elapsed = started.elapsed();
        tally
    };
    in_slices(plan, contestants, Duration::from_millis(200), slice, |tally| tally.per_event(BATCH))
}
