//! Operations on a ring besides append and commit: cut its newest events, add a gap, refuse all
//! events, take back those of failed commits.

use std::sync::Arc;

use super::{Budget, Buffer, Filled, Ring};
use crate::format::Frames;
use crate::options::Overflow;
use crate::sabotage::{Sabotage, broken};
use crate::sync::RwLock;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Open,
    Closed,
}

/// Events of a failed commit that return to their ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Returned<'a> {
    pub(crate) filled: &'a Filled,
    /// Number of events that no rewind has cut since, dropped ones included.
    pub(crate) keep: u64,
}

impl Ring {
    /// Returns the size of the buffer in bytes.
    #[cfg(all(test, feature = "sim", not(any(amberlog_loom, amberlog_shuttle))))]
    pub(crate) fn held_bytes(&self) -> usize {
        self.buffer.bytes.len()
    }

    /// Replaces the policy at the ring's bound, and returns the former one.
    pub(crate) fn set_overflow(&mut self, overflow: Overflow) -> Overflow {
        std::mem::replace(&mut self.limits.overflow, overflow)
    }

    /// Opens the ring to events or closes it.
    pub(crate) fn set_admission(&mut self, admission: Admission) {
        let bound = &mut self.limits.event_bytes_max;
        // A closed ring stores the complement of its bound: negative, hence below every event size,
        // and reversible.
        if (bound.cast_signed() < 0) != (admission == Admission::Closed) {
            *bound = !*bound;
        }
    }

    /// Removes the newest events and keeps the first `keep`, dropped ones included.
    pub(crate) fn cut(&mut self, keep: u64) {
        let Some(frames) = keep.checked_sub(self.dropped) else {
            self.discard();
            self.dropped = keep;
            return;
        };
        let mut left = frames.min(u64::from(self.count)) as u32;
        if left == 0 {
            self.reset();
            return;
        }
        self.count = left;
        for (nth, range) in self.ranges().into_iter().enumerate() {
            let bytes = &self.buffer.bytes[range.clone()];
            let mut end = range.start;
            for (at, head) in Frames::new(bytes).take(left as usize) {
                left -= 1;
                end = range.start + at + head.frame_bytes();
            }
            if left > 0 {
                continue;
            }
            self.tail = end;
            if nth == 0 {
                self.wrapped = None;
                self.limit = self.buffer.bytes.len();
            }
            break;
        }
    }

    /// Adds `dropped` events to the gap. Events buffered before them are dropped as well, because a
    /// batch has a single gap, before its first event.
    pub(crate) fn skip(&mut self, dropped: u64) {
        if dropped > 0 {
            self.dropped += u64::from(self.count) + dropped;
            self.reset();
        }
    }

    /// Puts what failed commits took back before the newer events, in order, without those that
    /// were cut since. An overwriting ring drops its oldest events if all of them exceed its bound.
    ///
    /// A batch has a single gap, before its first event: events before a later gap are dropped.
    pub(crate) fn give_back(&mut self, returned: &[Returned<'_>]) {
        if returned.is_empty() {
            return;
        }
        let empty = self.no_buffer();
        let (newer, ranges) = (std::mem::replace(&mut self.buffer, empty), self.ranges());
        let (count, dropped) = (self.count, std::mem::take(&mut self.dropped));
        self.reset();
        let twice = returned.first().filter(|_| broken(Sabotage::RepeatFailedEvents));
        twice.into_iter().chain(returned).for_each(|failed| self.add_returned(*failed));
        for failed in returned {
            self.in_flight -= failed.filled.buffer_bytes();
        }
        let slices = ranges.map(|range| newer.bytes.get(range).unwrap_or_default());
        self.add_frames(slices, count, dropped);
        self.buffer.truncate(self.tail);
        self.buffer.bytes.shrink_to_fit();
        self.limit = self.tail;
        if self.limits.overflow == Overflow::OverwriteOldest {
            while self.tail - self.head > self.limits.ring_bytes_max {
                self.drop_oldest();
            }
        }
    }

    fn add_returned(&mut self, Returned { filled, keep }: Returned<'_>) {
        let keep = if broken(Sabotage::KeepCutEvents) { u64::MAX } else { keep };
        if keep == 0 {
            return;
        }
        let before = u64::from(self.count) + self.dropped;
        let dropped = if broken(Sabotage::MiscountGaps) { 0 } else { filled.dropped };
        self.add_frames(filled.hold().slices(), filled.count, dropped);
        if keep < u64::from(filled.count) + filled.dropped {
            self.cut(before + keep);
        }
    }

    /// Adds a gap and frames to a ring whose buffer starts with its oldest frame.
    fn add_frames(&mut self, slices: [&[u8]; 2], count: u32, dropped: u64) {
        self.skip(dropped);
        self.buffer.truncate(self.tail);
        self.buffer.extend(slices);
        self.tail = self.buffer.bytes.len();
        self.count += count;
    }

    /// Takes the gap of a ring that holds no events; `None` if there is no gap.
    #[cfg(feature = "json")]
    pub(crate) fn take_gap(&mut self) -> Option<Filled> {
        let dropped = if self.count == 0 { std::mem::take(&mut self.dropped) } else { 0 };
        (dropped > 0).then(|| Filled { dropped, ..self.nothing() })
    }

    /// Returns the frames of a commit without events.
    pub(crate) fn nothing(&self) -> Filled {
        Filled::nothing(&self.buffer.budget)
    }
}

impl Filled {
    /// Returns the size of the buffer in bytes; zero once it was released.
    #[cfg(all(test, feature = "sim", not(any(amberlog_loom, amberlog_shuttle))))]
    pub(crate) fn held_bytes(&self) -> usize {
        self.hold().buffer.bytes.len()
    }

    /// Returns an empty set of frames for this budget.
    pub(crate) fn nothing(budget: &Arc<Budget>) -> Self {
        Self {
            buffer_bytes: 0,
            buffer: RwLock::new(Buffer::empty(Arc::clone(budget))),
            slices: [0..0, 0..0],
            count: 0,
            dropped: 0,
        }
    }
}
