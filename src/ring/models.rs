//! Models of the hand-over: a ring's buffer goes to a commit, and comes back (P5, P10).

use std::sync::Arc;

use super::{Budget, Limits, Ring};
use crate::commit::{Commit, Part, Pending, Seat};
use crate::format::FrameHead;
use crate::options::{CommitOptions, Overflow};
use crate::sync::{model, thread};
use crate::types::{CodecId, Durability, EventKind, Position, Seq, StreamId, Timestamp};

/// When the leader gives up the memory of frames, if it is scarce.
#[derive(Clone, Copy, PartialEq, Eq)]
enum GiveUp {
    Settled,
    /// Too early: nobody can know yet that the events are on disk.
    Written,
}

fn push(ring: &mut Ring, payload: &[u8]) -> Result<(), crate::error::RefusedReason> {
    let head = FrameHead {
        payload_bytes: payload.len() as u32,
        kind: EventKind(0),
        codec: CodecId::RAW,
        time: Timestamp::from_micros(1),
    };
    ring.push_over(&head, payload)
}

fn settle(pending: &Pending) {
    pending.settle(Ok(Commit {
        position: Position(1),
        seqs: Seq(0)..Seq(1),
        time: Timestamp::from_micros(0),
        durability: Durability::Disk,
    }));
}

/// A leader writes a buffer and gives it up while its own stream reads it, appends, and takes it back: what
/// is read is whole or known to be on disk, and in the end all memory is free.
fn ring_hand_over(memory_bytes_max: usize, give_up: GiveUp) {
    let budget = Arc::new(Budget::new(memory_bytes_max));
    let limits =
        Limits { ring_bytes_max: 1_024, event_bytes_max: 1_024, overflow: Overflow::Reject };
    let mut ring = Ring::new(limits, Arc::clone(&budget));
    push(&mut ring, b"first").expect("room");
    let filled = ring.take().expect("filled");
    let frames = filled.hold().slices().concat();
    let stream = StreamId::new();
    let crc = filled.crc();
    let part = Part { stream, root: None, filled, crc, seat: Seat::new(0, 0), change: None };
    let pending = Pending::of_one(part, CommitOptions::new(), Vec::new());
    let leader = thread::spawn({
        let (pending, frames) = (Arc::clone(&pending), frames.clone());
        move || {
            let filled = &pending.parts()[0].filled;
            assert_eq!(filled.hold().slices().concat(), frames, "written whole");
            if give_up == GiveUp::Written {
                filled.give_up_if_scarce();
            }
            settle(&pending);
            filled.give_up_if_scarce();
        }
    });
    {
        let held = pending.parts()[0].filled.hold();
        if held.is_gone() {
            assert_eq!(pending.failed(), Some(false), "lost: neither here nor on disk");
        } else {
            assert_eq!(held.slices().concat(), frames, "torn");
        }
    }
    let early = pending.failed().is_some();
    let mut pending = Some(pending);
    if early && let Some(pending) = pending.take() {
        pending.reclaim(stream, &mut ring);
    }
    let second = push(&mut ring, b"second").is_ok();
    leader.join().expect("no panic");
    if let Some(pending) = pending {
        pending.reclaim(stream, &mut ring);
    }
    assert_eq!(ring.in_flight, 0);
    assert_eq!(ring.count(), u32::from(second));
    assert!(budget.used() <= memory_bytes_max);
    drop(ring);
    assert_eq!(budget.used(), 0, "all memory is back");
}

#[test]
fn p10_ring_hand_over() {
    model(None, None, || ring_hand_over(1 << 20, GiveUp::Settled));
}

#[test]
fn p10_ring_hand_over_when_memory_is_scarce() {
    model(None, None, || ring_hand_over(900, GiveUp::Settled));
}

#[test]
#[should_panic(expected = "lost")]
fn p10_ring_hand_over_is_noticed() {
    model(None, None, || ring_hand_over(900, GiveUp::Written));
}
