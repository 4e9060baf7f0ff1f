//! The volatile buffer of one stream: frames in their on-disk form, in one allocation.
//!
//! A frame never straddles the end of the buffer, so what is buffered is at most two slices, ready to be
//! written as they are. A commit takes the buffer away whole; nothing is copied. The ring makes no
//! system call, takes no lock, and allocates only while it grows. It does not know what a commit is.

mod edit;
#[cfg(all(test, amberlog_loom))]
mod models;

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, PoisonError};

use crate::error::RefusedReason;
use crate::format::{FrameHead, frame_crc, frame_head, frame_header, put_frame_head};
use crate::options::Overflow;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{RwLock, RwLockReadGuard};

pub(crate) use self::edit::Shut;

/// A ring that starts to fill takes this much.
const RING_BYTES_FIRST: usize = 512;
/// An overwriting ring makes room for so large a part of itself at once.
const ROOM_PART: usize = 256;
/// A buffer larger than this is not kept for the next events.
const SPARE_BYTES_MAX: usize = 1 << 20;

/// The memory of all rings of a log.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicUsize,
    pub(crate) bytes_max: usize,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { used: AtomicUsize::new(0), bytes_max }
    }

    /// Bytes that rings, and commits in flight, hold now.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// More than half is used: then nothing is kept for later.
    fn is_scarce(&self) -> bool {
        self.used() > self.bytes_max / 2
    }

    fn take(&self, bytes: usize) -> bool {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.bytes_max)
            })
            .is_ok()
    }
}

/// An allocation that is counted in the budget for as long as it lives.
#[derive(Debug)]
struct Buffer {
    bytes: Vec<u8>,
    budget: Arc<Budget>,
}

impl Buffer {
    fn empty(budget: Arc<Budget>) -> Self {
        Self { bytes: Vec::new(), budget }
    }

    fn grow(&mut self, to: usize) -> bool {
        let more = to.saturating_sub(self.bytes.len());
        let granted = self.budget.take(more);
        if granted {
            self.bytes.reserve_exact(more);
            self.bytes.resize(to, 0);
        }
        granted
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// The bounds of a ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) ring_bytes_max: usize,
    pub(crate) event_bytes_max: usize,
    pub(crate) overflow: Overflow,
}

/// The ring.
#[derive(Debug)]
pub(crate) struct Ring {
    buffer: Buffer,
    /// The oldest frame starts here.
    head: usize,
    /// The next frame goes here.
    tail: usize,
    /// Frames written now must end here.
    limit: usize,
    /// `Some(end of the frames at the head)` once the tail has gone around.
    wrapped: Option<NonZeroUsize>,
    count: u32,
    dropped: u64,
    /// Bytes that this stream's commits in flight hold.
    in_flight: usize,
    limits: Limits,
}

/// What a commit took: frames in up to two slices of a buffer that nobody writes to any more.
#[derive(Debug)]
pub(crate) struct Filled {
    /// Empty once the frames are committed and the memory was given up.
    buffer: RwLock<Buffer>,
    buffer_bytes: usize,
    slices: [Range<usize>; 2],
    pub(crate) count: u32,
    /// Events dropped before the first of these.
    pub(crate) dropped: u64,
}

impl Filled {
    /// The frames, where they are; nobody gives them up meanwhile.
    pub(crate) fn hold(&self) -> Held<'_> {
        let buffer = self.buffer.read().unwrap_or_else(PoisonError::into_inner);
        Held { buffer, slices: &self.slices }
    }

    /// The frames are committed. Their stream may be idle for a long time: if memory is scarce, it is given
    /// up here, unless somebody holds the frames just now.
    pub(crate) fn give_up_if_scarce(&self) {
        if let Ok(mut buffer) = self.buffer.try_write()
            && buffer.budget.is_scarce()
        {
            *buffer = Buffer::empty(Arc::clone(&buffer.budget));
        }
    }

    pub(crate) fn frame_bytes(&self) -> usize {
        self.slices.iter().map(ExactSizeIterator::len).sum()
    }

    pub(crate) fn buffer_bytes(&self) -> usize {
        self.buffer_bytes
    }

    pub(crate) fn crc(&self) -> u32 {
        frame_crc(self.hold().slices())
    }
}

/// Frames that stay where they are for as long as this lives.
pub(crate) struct Held<'a> {
    buffer: RwLockReadGuard<'a, Buffer>,
    slices: &'a [Range<usize>; 2],
}

impl Held<'_> {
    pub(crate) fn slices(&self) -> [&[u8]; 2] {
        self.slices.clone().map(|range| self.buffer.bytes.get(range).unwrap_or_default())
    }

    /// Their memory was given up, because they are committed.
    pub(crate) fn is_gone(&self) -> bool {
        self.buffer.bytes.is_empty()
    }
}

impl Ring {
    pub(crate) fn new(limits: Limits, budget: Arc<Budget>) -> Self {
        Self {
            buffer: Buffer::empty(budget),
            head: 0,
            tail: 0,
            limit: 0,
            wrapped: None,
            count: 0,
            dropped: 0,
            in_flight: 0,
            limits,
        }
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Puts an event behind the others, if there is room as it is. When there is none, see [`Ring::push_over`].
    #[inline]
    pub(crate) fn push(&mut self, head: &FrameHead, payload: &[u8]) -> bool {
        let need = frame_header::BYTES + payload.len();
        let fits = need <= self.limit - self.tail;
        if fits {
            self.put(need, head, payload);
        }
        fits
    }

    /// Puts an event behind the others. The ring grows for it; one that overwrites drops its oldest events.
    pub(crate) fn push_over(
        &mut self,
        head: &FrameHead,
        payload: &[u8],
    ) -> Result<(), RefusedReason> {
        let need = frame_header::BYTES + payload.len();
        if need > self.limit - self.tail {
            self.make_room(need)?;
        }
        self.put(need, head, payload);
        Ok(())
    }

    #[inline]
    fn put(&mut self, need: usize, head: &FrameHead, payload: &[u8]) {
        let frame = &mut self.buffer.bytes[self.tail..self.tail + need];
        if let Some((front, back)) = frame.split_first_chunk_mut() {
            put_frame_head(front, head);
            back.copy_from_slice(payload);
        }
        self.tail += need;
        self.count += 1;
    }

    /// Refuses an event that could never be taken.
    #[inline]
    pub(crate) fn admits(&self, event_bytes: usize) -> Result<(), RefusedReason> {
        // A ring that is shut has a bound below zero.
        if event_bytes.cast_signed() > self.limits.event_bytes_max.cast_signed() {
            let event_bytes_max = self.limits.event_bytes_max;
            return Err(RefusedReason::EventTooLarge { event_bytes, event_bytes_max });
        }
        Ok(())
    }

    fn make_room(&mut self, need: usize) -> Result<(), RefusedReason> {
        if self.count == u32::MAX {
            return Err(RefusedReason::RingFull { ring_bytes_max: self.limits.ring_bytes_max });
        }
        if self.wrapped.is_none() && self.grow(need) {
            return Ok(());
        }
        // Growing was tried and was not granted.
        let wanted = match self.limits.overflow {
            Overflow::OverwriteOldest => self.bound().min(self.tail + need),
            _ => self.tail + need,
        };
        let memory_full =
            self.wrapped.is_none() && (self.buffer.bytes.len() < wanted && wanted <= self.bound());
        let overwrites = self.limits.overflow == Overflow::OverwriteOldest;
        if !overwrites || need > self.buffer.bytes.len() {
            return Err(if memory_full {
                RefusedReason::MemoryFull { memory_bytes_max: self.buffer.budget.bytes_max }
            } else {
                RefusedReason::RingFull { ring_bytes_max: self.bound_max() }
            });
        }
        // A little more than this event needs, so that the next ones find room without coming here.
        let roomy = need.max(self.buffer.bytes.len() / ROOM_PART);
        while self.limit - self.tail < if self.wrapped.is_some() { roomy } else { need } {
            if self.wrapped.is_none() {
                self.wrapped = NonZeroUsize::new(self.tail);
                self.tail = 0;
                self.limit = self.head;
            } else {
                self.drop_oldest();
            }
        }
        Ok(())
    }

    /// Grows the buffer so that `need` more bytes fit behind the tail, if the bounds allow.
    fn grow(&mut self, need: usize) -> bool {
        let wanted = self.tail.saturating_add(need);
        let bound = self.bound();
        if wanted > bound {
            // An overwriting ring first takes all that it may have.
            let all = self.limits.overflow == Overflow::OverwriteOldest
                && bound > self.buffer.bytes.len()
                && self.buffer.grow(bound);
            self.limit = self.buffer.bytes.len();
            return all && wanted <= self.limit;
        }
        let roomy = wanted.next_power_of_two().max(RING_BYTES_FIRST).min(bound);
        let grown = self.buffer.grow(roomy) || self.buffer.grow(wanted);
        self.limit = self.buffer.bytes.len();
        grown
    }

    /// Bytes that the buffer may have, beside what is in flight. An overwriting ring may hold its bound
    /// once in memory and once in flight, or it could record nothing while a commit is under way.
    fn bound(&self) -> usize {
        match self.limits.overflow {
            Overflow::OverwriteOldest => {
                let both = self.limits.ring_bytes_max.saturating_mul(2);
                self.limits.ring_bytes_max.min(both.saturating_sub(self.in_flight))
            }
            _ => self.bound_max().saturating_sub(self.in_flight),
        }
    }

    fn bound_max(&self) -> usize {
        match self.limits.overflow {
            Overflow::Grow { ring_bytes_cap } => ring_bytes_cap.max(self.limits.ring_bytes_max),
            _ => self.limits.ring_bytes_max,
        }
    }

    fn drop_oldest(&mut self) {
        let end = self.wrapped.map_or(self.tail, NonZeroUsize::get);
        let Some(oldest) = frame_head(&self.buffer.bytes[self.head..end]) else {
            return;
        };
        self.head += oldest.frame_bytes();
        self.count -= 1;
        self.dropped += 1;
        if self.wrapped.is_some_and(|end| end.get() == self.head) {
            self.wrapped = None;
            self.head = 0;
            self.limit = self.buffer.bytes.len();
        } else if self.wrapped.is_some() {
            self.limit = self.head;
        }
    }

    fn ranges(&self) -> [Range<usize>; 2] {
        match self.wrapped {
            Some(end) => [self.head..end.get(), 0..self.tail],
            None => [self.head..self.tail, 0..0],
        }
    }

    /// The buffered frames, oldest first.
    pub(crate) fn slices(&self) -> [&[u8]; 2] {
        self.ranges().map(|range| &self.buffer.bytes[range])
    }

    /// Takes everything that is buffered, without copying it; `None` when nothing is.
    pub(crate) fn take(&mut self) -> Option<Filled> {
        if self.count == 0 {
            return None;
        }
        let slices = self.ranges();
        let empty = self.no_buffer();
        let filled = Filled {
            buffer_bytes: self.buffer.bytes.len(),
            buffer: RwLock::new(std::mem::replace(&mut self.buffer, empty)),
            slices,
            count: self.count,
            dropped: self.dropped,
        };
        self.in_flight += filled.buffer_bytes();
        self.dropped = 0;
        self.reset();
        Some(filled)
    }

    fn reset(&mut self) {
        self.head = 0;
        self.tail = 0;
        self.limit = self.buffer.bytes.len();
        self.wrapped = None;
        self.count = 0;
    }

    /// Forgets what is buffered, and returns how many events that were.
    pub(crate) fn discard(&mut self) -> u64 {
        let count = u64::from(self.count) + self.dropped;
        self.dropped = 0;
        let empty = self.no_buffer();
        let buffer = std::mem::replace(&mut self.buffer, empty);
        self.keep(buffer);
        count
    }

    /// Takes a buffer back whose events are committed. The ring uses it again if it has none.
    pub(crate) fn recycle(&mut self, filled: Filled) {
        self.in_flight -= filled.buffer_bytes();
        if self.buffer.bytes.is_empty() {
            self.keep(filled.buffer.into_inner().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Keeps a buffer for the next events, unless it is large or memory is scarce: half of the budget is for
    /// what is buffered, and never held by empty rings.
    fn keep(&mut self, buffer: Buffer) {
        let fine = buffer.bytes.len() <= SPARE_BYTES_MAX && !buffer.budget.is_scarce();
        self.buffer = if fine { buffer } else { self.no_buffer() };
        self.reset();
    }

    fn no_buffer(&self) -> Buffer {
        Buffer::empty(Arc::clone(&self.buffer.budget))
    }

    /// Notes that a buffer was committed that somebody else still holds.
    pub(crate) fn forget(&mut self, filled: &Filled) {
        self.in_flight -= filled.buffer_bytes();
    }

    /// Takes events back whose commit failed: they stand in front of what was buffered since, in order.
    /// An overwriting ring drops its oldest events if all together are over its bound.
    pub(crate) fn give_back(&mut self, failed: &[&Filled]) {
        if failed.is_empty() {
            return;
        }
        let older: usize = failed.iter().map(|filled| filled.frame_bytes()).sum();
        let newer: usize = self.slices().iter().map(|slice| slice.len()).sum();
        let mut all = Buffer::empty(Arc::clone(&self.buffer.budget));
        // The events were within the budget before; they must find room again whatever it says now.
        all.budget.used.fetch_add(older + newer, Ordering::Relaxed);
        all.bytes.reserve_exact(older + newer);
        for filled in failed {
            filled.hold().slices().into_iter().for_each(|slice| all.bytes.extend_from_slice(slice));
        }
        self.slices().into_iter().for_each(|slice| all.bytes.extend_from_slice(slice));
        for filled in failed {
            self.in_flight -= filled.buffer_bytes();
        }
        let count = failed.iter().map(|filled| filled.count).sum::<u32>() + self.count;
        // A batch has one gap, in front. What came before a later gap has to go with it.
        let last_gap = if self.dropped > 0 {
            failed.len()
        } else {
            failed.iter().rposition(|filled| filled.dropped > 0).unwrap_or(0)
        };
        let gone: u32 = failed[..last_gap].iter().map(|filled| filled.count).sum();
        let dropped = self.dropped + failed.iter().map(|filled| filled.dropped).sum::<u64>();
        self.buffer = all;
        self.reset();
        self.count = count;
        self.dropped = dropped;
        self.tail = self.buffer.bytes.len();
        for _ in 0..gone {
            self.drop_oldest();
        }
        if self.limits.overflow == Overflow::OverwriteOldest {
            while self.tail - self.head > self.limits.ring_bytes_max {
                self.drop_oldest();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Frames;
    use crate::types::{CodecId, EventKind, Timestamp};

    fn ring(bytes: usize, overflow: Overflow) -> Ring {
        let limits = Limits { ring_bytes_max: bytes, event_bytes_max: bytes, overflow };
        Ring::new(limits, Arc::new(Budget::new(1 << 20)))
    }

    fn push(ring: &mut Ring, payload: &[u8]) -> Result<(), RefusedReason> {
        let head = FrameHead {
            payload_bytes: payload.len() as u32,
            kind: EventKind(0),
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
        assert_eq!(refused, Err(RefusedReason::RingFull { ring_bytes_max: 100 }));
        push(&mut ring, &[3; 30]).expect("room for a smaller one");
        assert_eq!(payloads(ring.slices()), [vec![1; 40], vec![3; 30]]);
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
            push(&mut ring, &[0; 44]).expect("under the cap");
        }
        assert!(matches!(push(&mut ring, &[0; 44]), Err(RefusedReason::RingFull { .. })));
    }

    #[test]
    fn failed_events_come_back_in_front_and_in_order() {
        let mut ring = ring(4_096, Overflow::Reject);
        push(&mut ring, b"a").expect("room");
        let first = ring.take().expect("filled");
        push(&mut ring, b"b").expect("room");
        let second = ring.take().expect("filled");
        push(&mut ring, b"c").expect("room");
        ring.give_back(&[&first, &second]);
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
        ring.give_back(&[&failed]);
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
        let mut one = Ring::new(limits, Arc::clone(&budget));
        let mut two = Ring::new(limits, Arc::clone(&budget));
        push(&mut one, &[0; 600]).expect("room");
        let refused = push(&mut two, &[0; 600]);
        assert_eq!(refused, Err(RefusedReason::MemoryFull { memory_bytes_max: 1_024 }));
        drop(one);
        push(&mut two, &[0; 600]).expect("the other ring's memory is free");
        drop(two);
        assert_eq!(budget.used(), 0);
    }
}
