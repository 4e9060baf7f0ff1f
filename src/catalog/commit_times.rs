//! Times of streams' last commits, for lists that filter by them.
//!
//! No stream keeps this time in memory, and listing opens no stream. The times of the segment, or
//! of a block of it, decide whether a commit lies between two times; where they cannot, the commit
//! header does. Times need not rise: a clock that jumped affects only the commits that it dated
//! (F43).

use super::{Branch, ReadView};
use crate::format::{CommitHead, Lsn, commit_header};
use crate::segment::{Segment, TimeWindow};
use crate::types::Timestamp;

impl ReadView {
    /// Returns the start of the last visible commit that holds a part of the stream, if the first
    /// branch alone tells: `None` when the stream was rewound, or committed to since.
    pub(super) fn place_at_once(&self, first: &Branch) -> Option<Lsn> {
        let last = first.last();
        let is_shown = last < self.mark.end && last != Lsn::default();
        (is_shown && !first.is_rewound()).then_some(last)
    }

    /// Tells whether the commit at this place was made in the window. True when its header is
    /// damaged.
    pub(super) fn is_in(&self, place: Lsn, window: &TimeWindow) -> bool {
        if window.is_everything() {
            return true;
        }
        let segment = self.segments.get(place.segment());
        let found = segment.and_then(|segment| Some((segment, segment.offset_of(place)?)));
        let Some((segment, offset)) = found else { return true };
        segment.commits.decide(offset, window).unwrap_or_else(|| {
            self.time_at(segment, offset).is_none_or(|time| window.contains(time))
        })
    }

    /// Returns the time of the commit that starts here; `None` when its header cannot be read.
    fn time_at(&self, segment: &Segment, offset: u64) -> Option<Timestamp> {
        let end = self.end_in(segment);
        let head = offset..offset.checked_add(commit_header::BYTES as u64)?;
        let window = segment.read(self.files().ok()?, head.clone(), 0, end).ok()?;
        Some(CommitHead::decode(window.get(head)?, segment.header.salt)?.date.time)
    }
}
