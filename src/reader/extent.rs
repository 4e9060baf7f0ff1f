//! Extents: the content of a stream view at a seq.
//!
//! A stream view is a sequence of pieces, each a range of seqs of one branch (`catalog::Lineage`).
//! The batches of a branch cover seqs in order: events, and gaps where an overwriting ring dropped
//! events. An extent is the part of one batch that a piece shows, or a range between two batches
//! that no batch covers and that is therefore lost. Every seq of a view is in exactly one extent,
//! independent of the start and the direction of the read.
//!
//! ```text
//! parent's batches   |  events  |///// gap /////|  events  |
//! parent's piece     |---------------------|              fork point inside the gap
//! fork's batches                           |// gap //| events |
//! fork's extents     |  events  |/// gap //|// gap //| events |   dropped before: both gaps
//!
//! trimmed in a gap               ^start              dropped before: from `start` on
//! compacted                     |///// gap /////|    the gap is kept, the events after it are not
//! lost               |  events  |....... lost .......| events |   no batch: an error
//! ```
//!
//! A gap is reported by the event after it, and so are several gaps in a row, across branches, back
//! to the start of the stream. A gap at the end shows only in the head of the stream.
//!
//! An extent is found by the index alone: what it points to is verified when it is loaded.

use std::ops::Range;

use super::walker::Walker;
use crate::catalog::{Lineage, Piece, ReadView};
use crate::error::Error;
use crate::index::BatchRef;

/// Seqs of a view, and their content.
#[derive(Debug)]
pub(super) struct Extent {
    pub(super) seqs: Range<u64>,
    pub(super) content: Content,
}

/// Content of an extent.
#[derive(Debug)]
pub(super) enum Content {
    Events(Walker, BatchRef),
    Gap(Walker, BatchRef),
    /// No batch covers these seqs. The error names the batch after them, if any.
    Lost(Option<Error>),
}

impl Extent {
    /// Returns the extent that contains a seq of the piece.
    pub(super) fn find(view: &ReadView, piece: &Piece, seq: u64) -> Self {
        let floor = Walker::seek(view, piece.branch, seq);
        let (from, mut after) = match floor {
            Some((at, batch)) if batch.end_seq() > seq => return Self::of(at, batch, piece),
            Some((at, batch)) => (batch.end_seq(), at.next_seqs(view)),
            None => (0, Walker::first(view, piece.branch)),
        };
        // A damaged index may hold batches in any order.
        while let Some((at, batch)) = after.take_if(|(_, batch)| batch.first_seq <= seq) {
            if batch.end_seq() > seq {
                return Self::of(at, batch, piece);
            }
            after = at.next_seqs(view);
        }
        let place = after.as_ref().map(|(at, batch)| at.here.segment.error("read", batch.offset));
        let to = after.map_or(u64::MAX, |(_, batch)| batch.first_seq);
        let from = from.min(seq);
        let seqs = from.max(piece.seqs.start)..to.min(piece.seqs.end);
        Self { seqs, content: Content::Lost(place) }
    }

    /// Returns the extent that contains a seq before `end`. The seq may be in no piece: then the
    /// branch that the stream shares with its parent cannot be found.
    pub(super) fn of_view(view: &ReadView, lineage: Lineage, seq: u64, end: u64) -> Self {
        match view.catalog.piece(lineage, seq) {
            Some(piece) => Self::find(view, &piece, seq),
            None => Self::outside(view, lineage, seq, end),
        }
    }

    /// Returns the lost extent around a seq that is in no piece: all seqs before the first known
    /// one, or those after the view.
    pub(super) fn outside(view: &ReadView, lineage: Lineage, seq: u64, end: u64) -> Self {
        let (first, last) = (view.catalog.first_seq(lineage), lineage.end.max(end));
        let seqs = if seq < first { 0..first } else { lineage.end.min(seq)..last };
        Self { seqs, content: Content::Lost(None) }
    }

    /// Returns the part of a batch that a piece shows.
    pub(super) fn of(at: Walker, batch: BatchRef, piece: &Piece) -> Self {
        let seqs = batch.first_seq.max(piece.seqs.start)..batch.end_seq().min(piece.seqs.end);
        let is_gap = batch.kind.is_gap();
        let content = if is_gap { Content::Gap(at, batch) } else { Content::Events(at, batch) };
        Self { seqs, content }
    }
}

/// Returns the number of seqs dropped right before `seq`, not counting any before `first`.
pub(super) fn dropped_before(view: &ReadView, lineage: Lineage, seq: u64, first: u64) -> u64 {
    let mut start = seq;
    while start > first {
        let extent = Extent::of_view(view, lineage, start.saturating_sub(1), start);
        if !matches!(extent.content, Content::Gap(..)) {
            break;
        }
        start = extent.seqs.start.max(first);
    }
    seq.saturating_sub(start)
}
