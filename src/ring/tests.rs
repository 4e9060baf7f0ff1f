//! Events that a ring keeps, refuses and drops: by example, and against a plain deque.

use std::collections::VecDeque;

use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::*;
use crate::format::Frames;
use crate::types::{CodecId, EventKind, Timestamp};

fn ring(bytes: usize, overflow: Overflow) -> Ring {
    let limits = Limits { ring_bytes_max: bytes, event_bytes_max: bytes, overflow };
    Ring::new(limits, Arc::new(Budget::new(1 << 20)))
}

fn push(ring: &mut Ring, payload: &[u8]) -> Result<(), AppendError> {
    let head = FrameHead {
        payload_bytes: payload.len() as u32,
        kind: EventKind(0),
        schema_version: 0,
        codec: CodecId::RAW,
        time: Timestamp::from_micros(1),
    };
    if ring.push(&head, payload) { Ok(()) } else { ring.push_over(&head, payload) }
}

fn payloads(slices: [&[u8]; 2]) -> Vec<Vec<u8>> {
    let walk = |slice: &[u8]| -> Vec<Vec<u8>> {
        Frames::new(slice)
            .map(|(at, head)| slice[at + frame_header::BYTES..at + head.frame_bytes()].to_vec())
            .collect()
    };
    slices.into_iter().flat_map(walk).collect()
}

#[test]
fn reject_refuses_at_the_bound_and_keeps_what_it_has() {
    let mut ring = ring(100, Overflow::Reject);
    push(&mut ring, &[1; 40]).expect("room");
    let refused = push(&mut ring, &[2; 40]);
    assert_eq!(refused, Err(AppendError::RingFull { ring_bytes_max: 100, in_flight_bytes: 0 }));
    push(&mut ring, &[3; 28]).expect("room for a smaller one");
    assert_eq!(payloads(ring.slices()), [vec![1; 40], vec![3; 28]]);
}

#[test]
fn overwrite_keeps_the_newest_and_counts_the_dropped() {
    let mut ring = ring(200, Overflow::OverwriteOldest);
    for n in 0..100_u8 {
        push(&mut ring, &vec![n; usize::from(n % 7) * 5]).expect("always room");
        let kept = payloads(ring.slices());
        assert_eq!(kept.len() as u64 + ring.dropped(), u64::from(n) + 1);
        let first = ring.dropped() as u8;
        for (at, payload) in kept.iter().enumerate() {
            let n = first + at as u8;
            assert_eq!(*payload, vec![n; usize::from(n % 7) * 5]);
        }
    }
}

#[test]
fn grow_goes_on_to_its_cap() {
    let mut ring = ring(100, Overflow::Grow { ring_bytes_cap: 1_000 });
    for _ in 0..17 {
        push(&mut ring, &[0; 42]).expect("under the cap");
    }
    assert!(matches!(push(&mut ring, &[0; 42]), Err(AppendError::RingFull { .. })));
}

#[test]
fn failed_events_come_back_in_front_and_in_order() {
    let mut ring = ring(4_096, Overflow::Reject);
    push(&mut ring, b"a").expect("room");
    let first = ring.take().expect("filled");
    push(&mut ring, b"b").expect("room");
    let second = ring.take().expect("filled");
    push(&mut ring, b"c").expect("room");
    ring.give_back(&[&first, &second].map(|filled| Returned { filled, keep: 1 }));
    assert_eq!(payloads(ring.slices()), [b"a", b"b", b"c"]);
    assert_eq!(ring.in_flight, 0);
}

#[test]
fn events_that_come_back_into_an_overwriting_ring_leave_one_gap_in_front() {
    let mut ring = ring(120, Overflow::OverwriteOldest);
    push(&mut ring, &[1; 40]).expect("room");
    push(&mut ring, &[2; 40]).expect("room");
    let failed = ring.take().expect("filled");
    for n in 3..8 {
        push(&mut ring, &[n; 40]).expect("room");
    }
    assert_eq!(ring.dropped(), 3);
    ring.give_back(&[Returned { filled: &failed, keep: 2 }]);
    assert_eq!(payloads(ring.slices()), [vec![6; 40], vec![7; 40]]);
    assert_eq!(ring.dropped(), 5);
}

#[test]
fn what_is_in_flight_counts() {
    let mut ring = ring(512, Overflow::Reject);
    push(&mut ring, &[0; 400]).expect("room");
    let filled = ring.take().expect("filled");
    assert!(push(&mut ring, &[0; 1]).is_err());
    ring.recycle(filled);
    push(&mut ring, &[0; 400]).expect("room again");
}

#[test]
fn the_budget_holds_over_all_rings() {
    let budget = Arc::new(Budget::new(1_024));
    let limits =
        Limits { ring_bytes_max: 4_096, event_bytes_max: 4_096, overflow: Overflow::Reject };
    let mut first = Ring::new(limits, Arc::clone(&budget));
    let mut second = Ring::new(limits, Arc::clone(&budget));
    push(&mut first, &[0; 600]).expect("room");
    let refused = push(&mut second, &[0; 600]);
    assert_eq!(refused, Err(AppendError::MemoryFull { memory_bytes_max: 1_024 }));
    drop(first);
    push(&mut second, &[0; 600]).expect("the other ring's memory is free");
    drop(second);
    assert_eq!(budget.used(), 0);
}

/// Expected content of a ring: all events since the last commit took it, the oldest possibly
/// dropped, and those of the commits in flight.
struct Model {
    ring: Ring,
    budget: Arc<Budget>,
    all: VecDeque<Vec<u8>>,
    in_flight: VecDeque<(Filled, Vec<Vec<u8>>)>,
    pushed: usize,
}

/// Placeholder for events that were dropped before a commit in flight.
const DROPPED: &[u8] = b"dropped";

impl Model {
    fn new(rng: &mut TestRng) -> Self {
        let max = 64 + below(rng, 1_500);
        let overflow = match below(rng, 4) {
            0 => Overflow::Reject,
            1 => Overflow::Grow { ring_bytes_cap: max * 2 },
            _ => Overflow::OverwriteOldest,
        };
        let event_bytes_max = max - frame_header::BYTES;
        let limits = Limits { ring_bytes_max: max, event_bytes_max, overflow };
        let memory = if below(rng, 4) == 0 { max * 3 } else { 1 << 20 };
        let budget = Arc::new(Budget::new(memory));
        let ring = Ring::new(limits, Arc::clone(&budget));
        Self { ring, budget, all: VecDeque::new(), in_flight: VecDeque::new(), pushed: 0 }
    }

    fn step(&mut self, rng: &mut TestRng) {
        let total = u64::from(self.ring.count()) + self.ring.dropped();
        match below(rng, 24) {
            0 | 1 => {
                // Often empties the ring: cuts to the dropped events, or before them.
                let keep = match below(rng, 3) {
                    0 => self.ring.dropped(),
                    _ => below(rng, total as usize + 1) as u64,
                };
                self.ring.cut(keep);
                self.all.truncate(keep as usize);
            }
            2 => {
                assert_eq!(self.ring.discard(), total);
                self.all.clear();
            }
            3 => {
                let more = below(rng, 3) as u64;
                self.ring.skip(more);
                self.all.extend((0..more).map(|_| DROPPED.to_vec()));
            }
            4 | 5 => self.take(),
            6 => {
                if let Some((filled, _)) = self.in_flight.pop_front() {
                    self.ring.recycle(filled);
                }
            }
            7 => {
                if let Some((filled, _)) = self.in_flight.pop_front() {
                    self.ring.forget(&filled);
                }
            }
            8 => self.give_back(rng),
            _ => self.push(rng),
        }
    }

    fn take(&mut self) {
        let Some(filled) = self.ring.take() else { return };
        let taken: Vec<_> = self.all.drain(..).collect();
        let kept = &taken[filled.dropped as usize..];
        assert_eq!(payloads(filled.hold().slices()), kept, "what a commit takes");
        self.in_flight.push_back((filled, taken));
    }

    fn give_back(&mut self, rng: &mut TestRng) {
        let failed: Vec<_> = self.in_flight.drain(..).collect();
        let since = std::mem::take(&mut self.all);
        let mut returned = Vec::new();
        for (filled, taken) in &failed {
            // A rewind may have cut some.
            let keep = below(rng, 2 * taken.len() + 1).min(taken.len());
            returned.push(Returned { filled, keep: keep as u64 });
            self.all.extend(taken[..keep].iter().cloned());
        }
        self.ring.give_back(&returned);
        self.all.extend(since);
    }

    fn push(&mut self, rng: &mut TestRng) {
        let max = self.ring.limits.event_bytes_max;
        let bytes = if below(rng, 4) == 0 { below(rng, max + 1) } else { below(rng, 40).min(max) };
        let mut payload = format!("{:08}", self.pushed).into_bytes();
        payload.resize(bytes, b'.');
        let before = (self.ring.count(), self.ring.dropped());
        self.ring.admits(bytes).expect("within the bound");
        match push(&mut self.ring, &payload) {
            Ok(()) => {
                self.pushed += 1;
                self.all.push_back(payload);
            }
            Err(_) => {
                assert_eq!((self.ring.count(), self.ring.dropped()), before, "nothing changed");
                let overwrites = self.ring.limits.overflow == Overflow::OverwriteOldest;
                let is_scarce = self.budget.bytes_max < 1 << 20;
                assert!(
                    !overwrites || is_scarce || self.ring.in_flight > 0,
                    "an overwriting ring takes every event that it may have"
                );
            }
        }
        let overwrites = self.ring.limits.overflow == Overflow::OverwriteOldest;
        assert!(overwrites || self.ring.dropped() == before.1, "only these drop anything");
    }

    fn check(&self) {
        let held = payloads(self.ring.slices());
        assert_eq!(held.len() as u64, u64::from(self.ring.count()));
        assert_eq!(held.len() as u64 + self.ring.dropped(), self.all.len() as u64);
        assert!(held.iter().eq(self.all.iter().skip(self.ring.dropped() as usize)), "the newest");
    }
}

fn below(rng: &mut TestRng, bound: usize) -> usize {
    rng.random_range(0..bound)
}

/// P5, P10, F47: after any sequence of cuts, takes, returns, gaps, overwrites and growth, the ring
/// holds the newest events, counts the rest, and every push terminates. (An overwriting ring that a
/// cut emptied in the middle of its buffer used to search for an oldest event forever.)
#[test]
fn f47_a_ring_is_a_deque_that_forgets_its_oldest() {
    let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    for round in 0..5_000 {
        let mut model = Model::new(&mut rng);
        for step in 0..60 {
            model.step(&mut rng);
            model.check();
            assert!(model.budget.used() < 1 << 20, "round {round}, step {step}");
        }
        let Model { ring, budget, in_flight, .. } = model;
        drop((ring, in_flight));
        assert_eq!(budget.used(), 0, "round {round}: all memory is back");
    }
}
