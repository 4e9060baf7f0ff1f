//! Window: a part of a segment that was read.

use std::ops::Range;
use std::sync::Arc;

use crate::disk::{Pin, Unread};

/// Bytes of a segment, in a buffer or mapped in place.
pub(crate) struct Window {
    pub(super) pin: Pin,
    /// Offsets in the file where the pin starts and ends.
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Unreadable ranges of the window, where other bytes stand.
    pub(super) unread: Option<Arc<Unread>>,
}

impl Window {
    /// Returns the bytes of the file at `range`, if this window holds them.
    #[inline]
    pub(crate) fn get(&self, range: Range<u64>) -> Option<&[u8]> {
        self.pin.get(self.within(&range)?)
    }

    /// Reports whether this window holds the bytes of the file at `range`.
    #[inline]
    pub(crate) fn holds(&self, range: &Range<u64>) -> bool {
        self.within(range).is_some()
    }

    #[inline]
    fn within(&self, range: &Range<u64>) -> Option<Range<usize>> {
        let start = range.start.checked_sub(self.start)?;
        let end = range.end.checked_sub(self.start)?;
        (start <= end && range.end <= self.end).then_some(start as usize..end as usize)
    }

    /// Returns the pin, and the range in it that holds the bytes of the file at `range`.
    pub(crate) fn pinned(&self, range: &Range<u64>) -> Option<(Pin, Range<usize>)> {
        Some((Arc::clone(&self.pin), self.within(range)?))
    }

    /// Returns the read failures that overlap `range`.
    pub(crate) fn unread(&self, range: &Range<u64>) -> Option<&Unread> {
        let unread = self.unread.as_deref()?;
        let meets = |lost: &Range<u64>| lost.start < range.end && lost.end > range.start;
        unread.ranges.iter().any(meets).then_some(unread)
    }
}

impl std::fmt::Debug for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Window({}..{})", self.start, self.end)
    }
}
