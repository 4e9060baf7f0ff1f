//! What is done to a ring beside appending and committing: forgetting its newest events, leaving some out, and
//! refusing all.

use std::sync::Arc;

use super::{Budget, Buffer, Filled, Ring};
use crate::format::Frames;
use crate::sync::RwLock;

/// Whether a ring takes events at all.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shut {
    Yes,
    No,
}

impl Ring {
    /// Refuses every event from now on, or no longer.
    pub(crate) fn shut(&mut self, is_shut: Shut) {
        let bound = &mut self.limits.event_bytes_max;
        // Below zero, and so below every event, without forgetting what it was.
        if (bound.cast_signed() < 0) != (is_shut == Shut::Yes) {
            *bound = !*bound;
        }
    }

    /// Forgets the newest events, so that `keep` of them are left, those that were dropped counted as well.
    pub(crate) fn cut(&mut self, keep: u64) {
        let Some(frames) = keep.checked_sub(self.dropped) else {
            self.discard();
            self.dropped = keep;
            return;
        };
        let mut left = frames.min(u64::from(self.count)) as u32;
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

    /// Counts events as dropped that were never here. What is buffered before them goes with them: there is
    /// one gap, in front.
    pub(crate) fn skip(&mut self, dropped: u64) {
        if dropped > 0 {
            self.dropped += u64::from(self.count) + dropped;
            self.reset();
        }
    }

    /// What a commit takes that holds no events.
    pub(crate) fn nothing(&self) -> Filled {
        Filled::nothing(&self.buffer.budget)
    }
}

impl Filled {
    /// No events, of a ring with this budget.
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
