//! Walks the batches of one branch across all segments that hold a part of it.

use super::batch::Owner;
use crate::catalog::{Branch, ReadView, SpanBatches};
use crate::index::{ArenaId, BatchCursor, BatchRef, StreamBatches};
use crate::types::StreamId;

/// Position in the sequence of a branch's batches, across segments.
#[derive(Clone, Debug)]
pub(super) struct Walker {
    branch: ArenaId,
    span: u32,
    pub(super) here: SpanBatches,
    pub(super) cursor: BatchCursor,
}

/// A walker and the batch at it, which covers seqs.
pub(super) type Placed = (Walker, BatchRef);

impl Walker {
    /// Finds the newest batch that covers seqs and starts at or before `seq`.
    pub(super) fn seek(view: &ReadView, at: ArenaId, seq: u64) -> Option<Placed> {
        let branch = view.catalog.branch(at)?;
        let mut span = view.seek_span(branch, seq)?;
        loop {
            // Compaction may have left nothing of the branch in this segment.
            if let Some(here) = view.span(branch, span)
                && let Some(cursor) = here.batches.seek(seq)
            {
                return Self { branch: at, span, here, cursor }.or_prev_seqs(view);
            }
            span = view.prev_span(span)?;
        }
    }

    /// Finds the oldest batch that covers seqs.
    pub(super) fn first(view: &ReadView, at: ArenaId) -> Option<Placed> {
        let branch = view.catalog.branch(at)?;
        let mut span = branch.first_span()?;
        loop {
            if let Some(here) = view.span(branch, span)
                && let Some(cursor) = here.batches.first()
            {
                let first = Self { branch: at, span, here, cursor };
                return match first.batch(view)? {
                    batch if batch.takes_seqs() => Some((first, batch)),
                    _ => first.next_seqs(view),
                };
            }
            span = view.next_span(span)?;
        }
    }

    /// Returns the next batch in this segment, even if the read view does not show it.
    pub(super) fn next_here(&self) -> Option<BatchRef> {
        self.here.batches.get(self.here.batches.next(self.cursor)?)
    }

    /// Returns the previous batch in this segment.
    pub(super) fn prev_here(&self) -> Option<BatchRef> {
        self.here.batches.get(self.here.batches.prev(self.cursor)?)
    }

    /// Returns the owner of these batches, for a reader of the stream `shown_as`.
    pub(super) fn owner(&self, view: &ReadView, shown_as: StreamId) -> Owner {
        let branch = view.catalog.branch(self.branch);
        let stream = branch.map_or(shown_as, |branch| branch.stream);
        Owner { stream, generation: branch.map_or(0, Branch::generation), shown_as }
    }

    /// Moves to the next batch that covers seqs.
    pub(super) fn next_seqs(mut self, view: &ReadView) -> Option<Placed> {
        loop {
            self = self.next(view)?;
            let batch = self.batch(view)?;
            if batch.takes_seqs() {
                return Some((self, batch));
            }
        }
    }

    /// Moves to the previous batch that covers seqs.
    pub(super) fn prev_seqs(self, view: &ReadView) -> Option<Placed> {
        self.prev(view)?.or_prev_seqs(view)
    }

    /// Stays at the current batch if it covers seqs and the read view shows it; otherwise moves to
    /// the nearest such batch before it.
    fn or_prev_seqs(mut self, view: &ReadView) -> Option<Placed> {
        loop {
            if let Some(batch) = self.batch(view).filter(BatchRef::takes_seqs) {
                return Some((self, batch));
            }
            self = self.prev(view)?;
        }
    }

    /// Returns the current batch, or `None` if the read view does not show it.
    fn batch(&self, view: &ReadView) -> Option<BatchRef> {
        let batch = self.here.batches.get(self.cursor)?;
        view.shows(&self.here.segment, batch.offset).then_some(batch)
    }

    fn next(mut self, view: &ReadView) -> Option<Self> {
        if let Some(cursor) = self.here.batches.next(self.cursor) {
            self.cursor = cursor;
            return Some(self);
        }
        self.go_on(view, ReadView::next_span, StreamBatches::first)
    }

    fn prev(mut self, view: &ReadView) -> Option<Self> {
        if let Some(cursor) = self.here.batches.prev(self.cursor) {
            self.cursor = cursor;
            return Some(self);
        }
        self.go_on(view, ReadView::prev_span, StreamBatches::last)
    }

    /// Moves to the nearest span that leads to a batch in another segment. After a compaction,
    /// several spans lead to the same segment.
    fn go_on(
        mut self,
        view: &ReadView,
        neighbour: impl Fn(&ReadView, u32) -> Option<u32>,
        enter: impl Fn(&StreamBatches) -> Option<BatchCursor>,
    ) -> Option<Self> {
        let left = self.here.segment.number();
        loop {
            self.span = neighbour(view, self.span)?;
            let here = view.span(view.catalog.branch(self.branch)?, self.span)?;
            if here.segment.number() == left {
                continue;
            }
            if let Some(cursor) = enter(&here.batches) {
                (self.here, self.cursor) = (here, cursor);
                return Some(self);
            }
        }
    }
}
