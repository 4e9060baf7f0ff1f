//! Times of streams' last commits, for lists that filter by them.
//!
//! No stream keeps this time in memory, and listing opens no stream. The times of the segment, or
//! of a block of it, decide whether a commit lies between two times; where they cannot, the commit
//! header does. Times need not rise: a clock that jumped affects only the commits that it dated
//! (F43).

use super::{Branch, ReadView};
use crate::format::{CommitHead, commit_header};
use crate::segment::{Segment, TimeWindow};

impl ReadView {
    /// Returns the position of the last visible commit that holds a part of the stream, if the
    /// first branch alone tells: `None` when the stream was rewound, or committed to since.
    pub(super) fn last_at_once(&self, first: &Branch) -> Option<u64> {
        let last = first.last();
        let is_shown = last > 0 && last <= self.mark.visible;
        (is_shown && !first.is_rewound()).then_some(last)
    }

    /// Tells whether the branch's last visible commit, which has this position, was made in the
    /// window. True when its header is damaged.
    pub(super) fn is_in(&self, branch: &Branch, position: u64, window: &TimeWindow) -> bool {
        if window.is_everything() {
            return true;
        }
        let Some(segment) = self.segments.of_position(position) else { return true };
        segment.commits.decide(position, window).unwrap_or_else(|| {
            let newest = self.newest(branch);
            let head = newest.and_then(|(segment, batch, _)| self.head_at(&segment, batch.offset));
            head.is_none_or(|head| window.contains(head.date.time))
        })
    }

    /// Returns the header of the commit that starts here; `None` when it cannot be read.
    pub(super) fn head_at(&self, segment: &Segment, offset: u64) -> Option<CommitHead> {
        let end = self.end_in(segment);
        let head = offset..offset.checked_add(commit_header::BYTES as u64)?;
        let window = segment.read(self.files().ok()?, head.clone(), 0, end).ok()?;
        CommitHead::decode(window.get(head)?, segment.header.salt)
    }
}
