//! Walking the batches of one branch, over all segments that hold a part of it.

use std::sync::Arc;

use super::batch::Owner;
use crate::catalog::{Branch, ColdFile, LogPlace, Piece, Snapshot, SpanBatches};
use crate::error::Result;
use crate::format::BatchKind;
use crate::index::{At, BatchRef, Cursor, StreamBatches};
use crate::recovery::cold::open as open_cold;
use crate::types::StreamId;

/// Where a piece of a view is read: in the log, or in an archive file.
pub(super) struct Site {
    file: Option<Arc<ColdFile>>,
    pub(super) branch: At,
}

impl Site {
    /// Where this seq of the piece is; `None` when the file does not know it.
    pub(super) fn of(log: &Snapshot, piece: &Piece, seq: u64) -> Result<Option<Self>> {
        let Some(cold) = &piece.cold else {
            return Ok(Some(Self { file: None, branch: piece.branch }));
        };
        let file = open_cold(&log.catalog, cold)?;
        let inside = file.snapshot.catalog.lineage(file.tip, piece.seqs.end, LogPlace::default());
        let branch = inside.piece(seq).map(|piece| piece.branch);
        Ok(branch.map(|branch| Self { file: Some(file), branch }))
    }

    pub(super) fn view<'a>(&'a self, log: &'a Snapshot) -> &'a Snapshot {
        self.file.as_deref().map_or(log, |file| &file.snapshot)
    }

    /// Segments of different files have the same numbers.
    pub(super) fn is_file(&self) -> bool {
        self.file.is_some()
    }
}

/// A place among the batches of a branch, over all segments.
#[derive(Clone, Debug)]
pub(super) struct Walker {
    branch: At,
    span: u32,
    pub(super) here: SpanBatches,
    pub(super) cursor: Cursor,
}

impl Walker {
    /// At the newest batch that starts at or before `seq`, or at the first of all.
    pub(super) fn seek(snapshot: &Snapshot, at: At, seq: u64) -> Option<Self> {
        let branch = snapshot.catalog.branch(at)?;
        let mut span = snapshot.seek_span(branch, seq)?;
        loop {
            let here = snapshot.span(branch, span)?;
            if let Some(cursor) = here.batches.seek(seq).or_else(|| here.batches.first()) {
                return Some(Self { branch: at, span, here, cursor });
            }
            // Nothing was left of it here.
            span = snapshot.next_span(span)?;
        }
    }

    /// The next batch in this segment, shown or not.
    pub(super) fn next_here(&self) -> Option<BatchRef> {
        self.here.batches.get(self.here.batches.next(self.cursor)?)
    }

    pub(super) fn prev_here(&self) -> Option<BatchRef> {
        self.here.batches.get(self.here.batches.prev(self.cursor)?)
    }

    /// Whose batches these are, for a reader of the stream `shown_as`.
    pub(super) fn owner(&self, snapshot: &Snapshot, shown_as: StreamId) -> Owner {
        let branch = snapshot.catalog.branch(self.branch);
        let stream = branch.map_or(shown_as, |branch| branch.stream);
        Owner { stream, generation: branch.map_or(0, Branch::generation), shown_as }
    }

    /// A gap and the events behind it start at different seqs; who reads forward begins with the gap.
    pub(super) fn or_gap_before(self, snapshot: &Snapshot) -> Self {
        let before = self.clone().prev(snapshot);
        let not_events =
            |at: &Self| at.batch(snapshot).is_some_and(|batch| batch.kind != BatchKind::Events);
        before.filter(not_events).unwrap_or(self)
    }

    /// What is here; `None` when the snapshot does not show it.
    pub(super) fn batch(&self, snapshot: &Snapshot) -> Option<BatchRef> {
        let batch = self.here.batches.get(self.cursor)?;
        snapshot.shows(&self.here.segment, batch.offset).then_some(batch)
    }

    pub(super) fn next(mut self, snapshot: &Snapshot) -> Option<Self> {
        if let Some(cursor) = self.here.batches.next(self.cursor) {
            self.cursor = cursor;
            return Some(self);
        }
        self.go_on(snapshot, Snapshot::next_span, StreamBatches::first)
    }

    pub(super) fn prev(mut self, snapshot: &Snapshot) -> Option<Self> {
        if let Some(cursor) = self.here.batches.prev(self.cursor) {
            self.cursor = cursor;
            return Some(self);
        }
        self.go_on(snapshot, Snapshot::prev_span, StreamBatches::last)
    }

    /// To the nearest span that leads to another segment with something in it: where segments were collected,
    /// several spans lead to the same one.
    fn go_on(
        mut self,
        snapshot: &Snapshot,
        neighbour: impl Fn(&Snapshot, u32) -> Option<u32>,
        enter: impl Fn(&StreamBatches) -> Option<Cursor>,
    ) -> Option<Self> {
        let left = self.here.segment.number();
        loop {
            self.span = neighbour(snapshot, self.span)?;
            let here = snapshot.span(snapshot.catalog.branch(self.branch)?, self.span)?;
            if here.segment.number() == left {
                continue;
            }
            if let Some(cursor) = enter(&here.batches) {
                (self.here, self.cursor) = (here, cursor);
                return Some(self);
            }
        }
    }

    /// The gap right before this batch, in the same commit.
    pub(super) fn gap_before(&self, snapshot: &Snapshot, batch: &BatchRef) -> Option<BatchRef> {
        let before = self.clone().prev(snapshot)?;
        let found = before.batch(snapshot)?;
        let same = before.here.segment.number() == self.here.segment.number();
        (found.kind == BatchKind::Gap && same && found.offset == batch.offset).then_some(found)
    }
}
