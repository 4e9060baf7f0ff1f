//! Operations on a ring besides append and commit: cut its newest events, add a gap, refuse all
//! events.

use std::sync::Arc;

use super::{Budget, Buffer, Filled, Ring};
use crate::format::Frames;
use crate::sync::RwLock;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Open,
    Closed,
}

impl Ring {
    /// Returns the size of the buffer in bytes.
    #[cfg(all(test, feature = "sim", not(any(amberlog_loom, amberlog_shuttle))))]
    pub(crate) fn held_bytes(&self) -> usize {
        self.buffer.bytes.len()
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
