//! Checksum of a batch: computed event by event at append, or over all events at commit.

use std::hint::black_box;
use std::time::Instant;

use crc32fast::Hasher;

/// Head of each payload.
const HEAD_BYTES: usize = 24;
const EVENTS: usize = 32;
const ROUNDS: usize = 20_000;

/// Measures appending and committing in turns, in nanoseconds per event; prints medians of eleven.
pub(crate) fn report() {
    for payload in [64, 256, 4_096] {
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..11 {
            times[0].push(per_event(payload, |_, _| {}, |_| 0));
            times[1].push(per_event(payload, |hasher, event| hasher.update(event), |_| 0));
            times[2].push(per_event(payload, |_, _| {}, crc32fast::hash));
        }
        let [copy, each, all] = times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        });
        println!(
            "{payload:6} bytes: copied {copy:6.1} ns, each hashed {each:6.1} ns, {EVENTS} hashed together {all:6.1} ns"
        );
    }
}

fn per_event(
    payload: usize,
    append: impl Fn(&mut Hasher, &[u8]),
    commit: impl Fn(&[u8]) -> u32,
) -> f64 {
    let event = vec![7; HEAD_BYTES + payload];
    let mut ring = Vec::with_capacity(EVENTS * event.len());
    let rounds = ROUNDS * 256 / payload.max(256);
    let began = Instant::now();
    for _ in 0..rounds {
        let mut hasher = Hasher::new();
        ring.clear();
        for _ in 0..EVENTS {
            let from = ring.len();
            ring.extend_from_slice(black_box(&event));
            append(&mut hasher, &ring[from..]);
        }
        black_box((hasher.finalize(), commit(&ring)));
    }
    began.elapsed().as_nanos() as f64 / (rounds * EVENTS) as f64
}
