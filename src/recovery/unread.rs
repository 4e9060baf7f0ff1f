//! Unreadable parts of a log, as a verification reports them.
//!
//! The loss they cause is found like any other damage: the read fills them with bytes that fit no
//! checksum.

use super::replay::End;
use super::report::Unreadable;
use crate::error::Place;
use crate::segment::{FilePool, Segment, parse_path};
use crate::types::range_len;

/// Returns every place that could not be read so far.
pub(super) fn places(files: &FilePool) -> Vec<Unreadable> {
    let parts = files.unread().into_iter().flat_map(|(path, ranges)| {
        ranges.into_iter().map(move |range| Unreadable {
            place: Place {
                path: path.as_str().into(),
                segment: parse_path(&path),
                offset: Some(range.start),
            },
            bytes: range_len(&range),
        })
    });
    parts.collect()
}

/// Returns the offsets of unreadable bytes after the segment's last commit that is known to be
/// synced: they may hold its index or further commits. Nothing stands behind the tail record of the
/// last segment, because the next commit overwrites that record.
pub(super) fn after_commits(
    files: &FilePool,
    segment: &Segment,
    end: &End,
    is_followed: bool,
) -> Vec<u64> {
    let from = end.offset_behind(end.durable);
    let to = if end.witnessed.is_some() && !is_followed { end.offset } else { u64::MAX };
    let unread = files.unread_of(&segment.path()).into_iter();
    unread
        .filter(|lost| lost.end > from && lost.start < to)
        .map(|lost| lost.start.max(from))
        .collect()
}
