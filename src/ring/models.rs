//! Models of the hand-over: a commit takes a ring's buffer and returns it (P5, P10).

use std::sync::Arc;

use super::{Budget, Limits, Ring};
use crate::commit::{Commit, Part, Pending, Placement};
use crate::format::FrameHead;
use crate::options::{CommitOptions, Expect, Overflow};
use crate::sync::{model, thread};
use crate::types::{CodecId, Durability, EventKind, Position, Seq, StreamId, Timestamp};

/// Moment at which the leader releases the memory of frames, if it is scarce.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Release {
    Settled,
    /// Too early: no thread can know yet that the events are on disk.
    Written,
}

fn push(ring: &mut Ring, payload: &[u8]) -> Result<(), crate::error::AppendError> {
    let head = FrameHead {
        payload_bytes: payload.len() as u32,
        kind: EventKind(0),
        schema_version: 0,
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

/// A leader writes a buffer and releases it while its stream reads it, appends, and reclaims it.
/// The read is either complete or known to be on disk, and in the end all memory is free.
fn ring_hand_over(memory_bytes_max: usize, release: Release) {
    let budget = Arc::new(Budget::new(memory_bytes_max));
    let limits =
        Limits { ring_bytes_max: 1_024, event_bytes_max: 1_024, overflow: Overflow::Reject };
    let mut ring = Ring::new(limits, Arc::clone(&budget));
    push(&mut ring, b"first").expect("room");
    let filled = ring.take().expect("filled");
    let frames = filled.hold().slices().concat();
    let stream = StreamId::new();
    let crc = filled.crc();
    let part = Part {
        stream,
        root: None,
        filled,
        crc,
        placement: Placement::new(0, 0),
        change: None,
        expect: Expect::Seen,
    };
    let pending = Pending::of_one(Some(part), CommitOptions::new(), None);
    let leader = thread::spawn({
        let pending = Arc::clone(&pending);
        let frames = frames.clone();
        move || {
            let filled = &pending.parts()[0].filled;
            assert_eq!(filled.hold().slices().concat(), frames, "written whole");
            if release == Release::Written {
                filled.release_if_scarce();
            }
            settle(&pending);
            filled.release_if_scarce();
        }
    });
    {
        let held = pending.parts()[0].filled.hold();
        if held.is_released() {
            assert_eq!(pending.failed(), Some(false), "lost: neither here nor on disk");
        } else {
            assert_eq!(held.slices().concat(), frames, "torn");
        }
    }
    let early = pending.failed().is_some();
    let mut pending = Some(pending);
    if early && let Some(pending) = pending.take() {
        pending.reclaim(0, &mut ring);
    }
    let second = push(&mut ring, b"second").is_ok();
    leader.join().expect("no panic");
    if let Some(pending) = pending {
        pending.reclaim(0, &mut ring);
    }
    assert_eq!(ring.in_flight, 0);
    assert_eq!(ring.count(), u32::from(second));
    assert!(budget.used() <= memory_bytes_max);
    drop(ring);
    assert_eq!(budget.used(), 0, "all memory is back");
}

#[test]
fn p10_ring_hand_over() {
    model(None, None, || ring_hand_over(1 << 20, Release::Settled));
}

#[test]
fn p10_ring_hand_over_when_memory_is_scarce() {
    model(None, None, || ring_hand_over(900, Release::Settled));
}

#[test]
#[should_panic(expected = "lost")]
fn p10_ring_hand_over_is_noticed() {
    model(None, None, || ring_hand_over(900, Release::Written));
}
