//! Many streams, few of them hot, as in a busy server.
//!
//! Each of eight threads has its own share of the streams, all of them open, and picks the next one
//! by Zipf's law with exponent 1.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::EVENT_BYTES;
use crate::contestant::{Contestant, Purpose, Store};
use crate::measure::{Dice, Figures, Tally, payload};
use crate::race::{Outcome, Plan, in_turns};

const THREADS: u64 = 8;

pub(super) fn race(plan: &Plan, contestants: &[&dyn Contestant]) -> Outcome {
    let payload = payload(EVENT_BYTES);
    let streams = plan.size(10_000, 1_000);
    let time = Duration::from_secs_f64(plan.seconds);
    in_turns(plan, contestants, |_, contestant| {
        let dir = plan.scratch();
        let store = contestant.open(dir.path(), Purpose::Commits);
        let figures = turn(&*store, streams, &payload, time);
        store.close();
        figures
    })
}

fn turn(store: &dyn Store, streams: u64, payload: &[u8], time: Duration) -> Figures {
    let ready = Barrier::new(THREADS as usize);
    let ready = &ready;
    let mut all = Tally::default();
    std::thread::scope(|scope| {
        let write = |thread: u64| {
            move || {
                let mine = (thread..streams).step_by(THREADS as usize);
                let mut writers: Vec<_> = mine.map(|stream| store.writer(stream)).collect();
                let zipf = Zipf::new(writers.len());
                let mut dice = Dice::new(thread + 1);
                let mut tally = Tally::default();
                ready.wait();
                let begun = Instant::now();
                while begun.elapsed() < time {
                    let writer = &mut writers[zipf.pick(&mut dice)];
                    let started = Instant::now();
                    writer.append(payload);
                    writer.commit();
                    tally.push(started.elapsed());
                }
                (tally, begun.elapsed())
            }
        };
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(write(thread))).collect();
        for thread in threads {
            let (tally, elapsed) = thread.join().expect("a writer");
            all.nanos.extend(tally.nanos);
            all.elapsed = all.elapsed.max(elapsed);
        }
    });
    all.latencies()
}

/// Zipf's law: the n-th stream is picked 1/n times as often as the first.
struct Zipf {
    sums: Vec<f64>,
}

impl Zipf {
    fn new(count: usize) -> Self {
        let mut sum = 0.0;
        let sums = (1..=count).map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        });
        Self { sums: sums.collect() }
    }

    fn pick(&self, dice: &mut Dice) -> usize {
        let total = self.sums.last().copied().unwrap_or_default();
        let point = dice.fraction() * total;
        self.sums.partition_point(|sum| *sum <= point).min(self.sums.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_picked_twice_as_often_as_the_second() {
        let zipf = Zipf::new(1_000);
        let mut dice = Dice::new(7);
        let mut picked = vec![0_u32; 1_000];
        for _ in 0..100_000 {
            picked[zipf.pick(&mut dice)] += 1;
        }
        let ratio = f64::from(picked[0]) / f64::from(picked[1]);
        assert!((1.8..2.2).contains(&ratio), "{ratio}");
    }
}
