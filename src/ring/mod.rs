//! The volatile buffer of one stream: frames in their on-disk form, in one allocation.
//!
//! A frame never straddles the end of the buffer, so the buffered frames form at most two slices,
//! ready to be written unchanged. A commit takes the whole buffer; no frame is copied. The ring
//! makes no system call, takes no lock, and allocates only while it grows. It knows nothing about
//! commits.

mod budget;
mod edit;
#[cfg(all(test, amberlog_loom))]
mod models;
#[cfg(all(test, not(any(amberlog_loom, amberlog_shuttle))))]
mod tests;

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, PoisonError};

use crate::error::AppendError;
use crate::format::{FrameHead, frame_crc, frame_head, frame_header, put_frame_head};
use crate::options::Overflow;
use crate::sync::{RwLock, RwLockReadGuard};

pub(crate) use self::budget::{Budget, Charge};
pub(crate) use self::edit::{Admission, Returned};

/// Initial size of a ring's buffer.
const RING_BYTES_FIRST: usize = 512;
/// Fraction of an overwriting ring that is freed at once when it is full.
const ROOM_PART: usize = 256;
/// Maximum size of a buffer that is kept for later events.
const SPARE_BYTES_MAX: usize = 1 << 20;

/// Allocation that is charged to the budget until it is dropped.
#[derive(Debug)]
struct Buffer {
    bytes: Vec<u8>,
    budget: Arc<Budget>,
}

impl Buffer {
    fn empty(budget: Arc<Budget>) -> Self {
        Self { bytes: Vec::new(), budget }
    }

    /// Adds frames that were charged before, regardless of the bound.
    fn extend(&mut self, slices: [&[u8]; 2]) {
        for slice in slices {
            self.budget.add(slice.len());
            self.bytes.extend_from_slice(slice);
        }
    }

    /// Releases all bytes from `end` on.
    fn truncate(&mut self, end: usize) {
        self.budget.give_back(self.bytes.len().saturating_sub(end));
        self.bytes.truncate(end);
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
        self.budget.give_back(self.bytes.len());
    }
}

/// Bounds of a ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) ring_bytes_max: usize,
    pub(crate) event_bytes_max: usize,
    pub(crate) overflow: Overflow,
}

/// Buffer of a stream's events, in the order of their appends.
#[derive(Debug)]
pub(crate) struct Ring {
    buffer: Buffer,
    /// Offset of the oldest frame.
    head: usize,
    /// Offset of the next frame.
    tail: usize,
    /// Offset at which frames written now must end.
    limit: usize,
    /// End of the frames at the head, once the tail has wrapped around.
    wrapped: Option<NonZeroUsize>,
    count: u32,
    dropped: u64,
    /// Bytes held by this stream's commits in flight.
    in_flight: usize,
    limits: Limits,
}

/// Frames taken by a commit: up to two slices of a buffer that is never written again.
#[derive(Debug)]
pub(crate) struct Filled {
    /// Empty once the frames are committed and their memory was released.
    buffer: RwLock<Buffer>,
    buffer_bytes: usize,
    slices: [Range<usize>; 2],
    pub(crate) count: u32,
    /// Number of events dropped before the first of these frames.
    pub(crate) dropped: u64,
}

impl Filled {
    /// Returns the frames in place. Their memory is not released while the guard lives.
    pub(crate) fn hold(&self) -> FramesGuard<'_> {
        let buffer = self.buffer.read().unwrap_or_else(PoisonError::into_inner);
        FramesGuard { buffer, slices: &self.slices }
    }

    /// Releases the memory of committed frames if memory is scarce, because their stream may stay
    /// idle for a long time. Does nothing while a reader holds the frames.
    pub(crate) fn release_if_scarce(&self) {
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

/// Guard that keeps frames in place.
pub(crate) struct FramesGuard<'a> {
    buffer: RwLockReadGuard<'a, Buffer>,
    slices: &'a [Range<usize>; 2],
}

impl FramesGuard<'_> {
    pub(crate) fn slices(&self) -> [&[u8]; 2] {
        self.slices.clone().map(|range| self.buffer.bytes.get(range).unwrap_or_default())
    }

    /// Returns true if the frames are committed and their memory was released.
    pub(crate) fn is_released(&self) -> bool {
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

    /// Appends an event if the current buffer has room for it. Otherwise call [`Ring::push_over`].
    #[inline]
    pub(crate) fn push(&mut self, head: &FrameHead, payload: &[u8]) -> bool {
        let need = frame_header::BYTES + payload.len();
        let fits = need <= self.limit - self.tail;
        if fits {
            self.put(need, head, payload);
        }
        fits
    }

    /// Appends an event. The ring grows for it; an overwriting ring drops its oldest events.
    pub(crate) fn push_over(
        &mut self,
        head: &FrameHead,
        payload: &[u8],
    ) -> Result<(), AppendError> {
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

    /// Refuses an event that could never fit.
    #[inline]
    pub(crate) fn admits(&self, event_bytes: usize) -> Result<(), AppendError> {
        // The bound of a closed ring is negative.
        if event_bytes.cast_signed() > self.limits.event_bytes_max.cast_signed() {
            let event_bytes_max = self.limits.event_bytes_max;
            return Err(AppendError::EventTooLarge { event_bytes, event_bytes_max });
        }
        Ok(())
    }

    fn make_room(&mut self, need: usize) -> Result<(), AppendError> {
        if self.count == u32::MAX {
            return Err(self.full());
        }
        if self.wrapped.is_none() && self.grow(need) {
            return Ok(());
        }
        // The ring could not grow.
        let wanted = match self.limits.overflow {
            Overflow::OverwriteOldest => self.bound().min(self.tail + need),
            _ => self.tail + need,
        };
        let memory_full =
            self.wrapped.is_none() && (self.buffer.bytes.len() < wanted && wanted <= self.bound());
        let overwrites = self.limits.overflow == Overflow::OverwriteOldest;
        if !overwrites || need > self.buffer.bytes.len() {
            return Err(if memory_full {
                AppendError::MemoryFull { memory_bytes_max: self.buffer.budget.bytes_max }
            } else {
                self.full()
            });
        }
        // Free a little more than this event needs, so that the next ones take the fast path.
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
            // An overwriting ring grows to its bound before it drops an event.
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

    /// Returns the maximum size of the buffer, given the bytes in flight. An overwriting ring may
    /// hold its bound once in memory and once in flight; otherwise it could record nothing during a
    /// commit.
    fn bound(&self) -> usize {
        match self.limits.overflow {
            Overflow::OverwriteOldest => {
                let both = self.limits.ring_bytes_max.saturating_mul(2);
                self.limits.ring_bytes_max.min(both.saturating_sub(self.in_flight))
            }
            _ => self.bound_max().saturating_sub(self.in_flight),
        }
    }

    fn full(&self) -> AppendError {
        let (ring_bytes_max, in_flight_bytes) = (self.bound_max(), self.in_flight);
        AppendError::RingFull { ring_bytes_max, in_flight_bytes }
    }

    fn bound_max(&self) -> usize {
        match self.limits.overflow {
            Overflow::Grow { ring_bytes_cap } => ring_bytes_cap.max(self.limits.ring_bytes_max),
            _ => self.limits.ring_bytes_max,
        }
    }

    /// Drops the oldest frame and counts it. Every call leaves fewer frames; an empty ring starts
    /// at the front of its buffer again.
    fn drop_oldest(&mut self) {
        let end = self.wrapped.map_or(self.tail, NonZeroUsize::get);
        let Some(oldest) = frame_head(&self.buffer.bytes[self.head..end]) else {
            self.dropped += u64::from(self.count);
            self.reset();
            return;
        };
        self.head += oldest.frame_bytes();
        self.count -= 1;
        self.dropped += 1;
        if self.count == 0 {
            self.reset();
        } else if self.wrapped.is_some_and(|end| end.get() == self.head) {
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

    /// Returns the buffered frames, oldest first.
    pub(crate) fn slices(&self) -> [&[u8]; 2] {
        self.ranges().map(|range| &self.buffer.bytes[range])
    }

    /// Takes all buffered frames without copying them; `None` if the ring is empty.
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

    /// Removes all frames and restarts at the front of the buffer. Every empty ring starts there:
    /// elsewhere it would have no oldest frame whose end makes room.
    fn reset(&mut self) {
        self.head = 0;
        self.tail = 0;
        self.limit = self.buffer.bytes.len();
        self.wrapped = None;
        self.count = 0;
    }

    /// Discards all buffered events and returns their number, dropped ones included.
    pub(crate) fn discard(&mut self) -> u64 {
        let count = u64::from(self.count) + self.dropped;
        self.dropped = 0;
        let empty = self.no_buffer();
        let buffer = std::mem::replace(&mut self.buffer, empty);
        self.keep(buffer);
        count
    }

    /// Takes back a buffer whose events are committed, and reuses it if the ring has none.
    pub(crate) fn recycle(&mut self, filled: Filled) {
        self.in_flight -= filled.buffer_bytes();
        if self.buffer.bytes.is_empty() {
            self.keep(filled.buffer.into_inner().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Keeps a buffer for later events, unless it is large or memory is scarce: empty rings never
    /// hold more than half of the budget.
    fn keep(&mut self, buffer: Buffer) {
        let is_kept = buffer.bytes.len() <= SPARE_BYTES_MAX && !buffer.budget.is_scarce();
        self.buffer = if is_kept { buffer } else { self.no_buffer() };
        self.reset();
    }

    fn no_buffer(&self) -> Buffer {
        Buffer::empty(Arc::clone(&self.buffer.budget))
    }

    /// Releases the in-flight bytes of a committed buffer that another owner still holds.
    pub(crate) fn forget(&mut self, filled: &Filled) {
        self.in_flight -= filled.buffer_bytes();
    }
}
