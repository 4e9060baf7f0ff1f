//! The events of one stream, from both ends.

use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use super::batch::{Batch, Loader};
use super::event::Event;
use crate::catalog::{Snapshot, SpanBatches, StreamEntry};
use crate::error::{Error, ErrorKind, Result};
use crate::format::BatchKind;
use crate::index::{BatchRef, Cursor, StreamBatches};
use crate::types::{Seq, StreamId};

/// The events of a stream, in order; `rev()` reads them backwards. What is damaged comes as an error
/// ([`ErrorKind::Corrupt`], with the seqs that are lost) in its place, and reading goes on behind it.
#[derive(Debug)]
pub struct Events {
    snapshot: Snapshot,
    stream: StreamId,
    entry: Option<Arc<StreamEntry>>,
    /// Seqs still to come.
    start: u64,
    end: u64,
    /// From here on events are volatile.
    durable_end: u64,
    volatile: Vec<Batch>,
    front: Side,
    back: Side,
}

/// Where one end of the iteration stands.
#[derive(Debug, Default)]
struct Side {
    walker: Option<Walker>,
    loader: Loader,
    batch: Option<Batch>,
}

impl Events {
    pub(crate) fn durable(
        snapshot: Snapshot,
        stream: StreamId,
        entry: Option<Arc<StreamEntry>>,
        head: u64,
    ) -> Self {
        Self {
            snapshot,
            stream,
            entry,
            start: 0,
            end: head,
            durable_end: head,
            volatile: Vec::new(),
            front: Side::default(),
            back: Side::default(),
        }
    }

    /// Puts volatile batches behind what is durable.
    pub(crate) fn then(mut self, volatile: Vec<Batch>) -> Self {
        self.end = volatile.last().map_or(self.end, Batch::end_seq);
        self.volatile = volatile;
        self
    }

    /// Only the events whose seq is in `range`: `events.range(10..)`, `events.range(..=5)`.
    /// Finding the first takes a logarithm of the stream's length.
    #[must_use]
    pub fn range<S: Into<u64> + Copy>(mut self, range: impl RangeBounds<S>) -> Self {
        let start = match range.start_bound() {
            Bound::Included(seq) => (*seq).into(),
            Bound::Excluded(seq) => (*seq).into().saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(seq) => (*seq).into().saturating_add(1),
            Bound::Excluded(seq) => (*seq).into(),
            Bound::Unbounded => u64::MAX,
        };
        self.start = self.start.max(start);
        self.end = self.end.min(end);
        self
    }

    fn corrupt(&self, error: Option<&Error>, seqs: std::ops::Range<u64>) -> Error {
        let kind = ErrorKind::Corrupt {
            stream: Some(self.stream),
            seqs: Some(Seq(seqs.start)..Seq(seqs.end)),
        };
        let corrupt = Error::new(kind, "read");
        match error.and_then(Error::place) {
            Some(place) => corrupt.at(place.clone()),
            None => corrupt,
        }
    }

    /// A batch that cannot be read: what it costs. Other failures than damage end the iteration.
    fn failed(&mut self, error: Error, seqs: std::ops::Range<u64>) -> Error {
        if is_damage(&error) { self.corrupt(Some(&error), seqs) } else { self.stop(error) }
    }

    /// What the disk refused once says nothing of the bytes (F22): it ends the iteration.
    fn stop(&mut self, error: Error) -> Error {
        self.start = self.end;
        error
    }

    /// Loads the batch with the first event at or after `start`, and moves `start` there.
    fn load_front(&mut self) -> Result<()> {
        if self.start >= self.durable_end {
            let found = self.volatile.iter().find(|batch| batch.end_seq() > self.start);
            self.front.batch = found.cloned();
            self.start = found.map_or(self.end, |batch| batch.first_seq.max(self.start));
            return Ok(());
        }
        let mut walker = match self.front.walker.take() {
            Some(walker) => walker.next(&self.snapshot),
            None => {
                let found = self.walker_at(self.start);
                found.map(|at| at.or_gap_before(&self.snapshot))
            }
        };
        let mut gap = None;
        while let Some(at) = walker {
            let Some(batch) = at.batch(&self.snapshot) else {
                break;
            };
            match batch.kind {
                BatchKind::Events if batch.end_seq() > self.start => {
                    return self.enter_front(at, &batch, gap);
                }
                BatchKind::Gap => gap = Some(batch),
                _ => {}
            }
            walker = at.next(&self.snapshot);
        }
        let lost = self.start..self.durable_end.min(self.end);
        self.start = self.durable_end;
        Err(self.corrupt(None, lost))
    }

    fn enter_front(&mut self, at: Walker, batch: &BatchRef, gap: Option<BatchRef>) -> Result<()> {
        let end = self.snapshot.end_in(&at.here.segment);
        let mut dropped = 0;
        if let Some(gap) = gap.filter(|gap| gap.offset == batch.offset) {
            let loader = &mut self.front.loader;
            dropped = match loader.load_gap(&at.here.segment, self.stream, &gap, end) {
                Ok(dropped) if gap.first_seq.checked_add(dropped) == Some(batch.first_seq) => {
                    dropped
                }
                Err(error) if !is_damage(&error) => return Err(self.stop(error)),
                _ => 0,
            };
        }
        if batch.first_seq - dropped.min(batch.first_seq) > self.start {
            // Seqs that no batch accounts for. Come back for this one.
            let lost = self.start..(batch.first_seq - dropped).min(self.end);
            self.start = lost.end;
            let error = at.here.segment.error("read", batch.offset);
            return Err(self.corrupt(Some(&error), lost));
        }
        let loaded = self.front.loader.load(&at.here.segment, self.stream, batch, end);
        self.front.walker = Some(at);
        match loaded {
            Ok(mut loaded) => {
                loaded.dropped = dropped;
                self.start = self.start.max(batch.first_seq);
                self.front.batch = Some(loaded);
                Ok(())
            }
            Err(error) => {
                let lost = self.start.max(batch.first_seq)..batch.end_seq().min(self.end);
                self.start = batch.end_seq();
                Err(self.failed(error, lost))
            }
        }
    }

    /// Loads the batch with the last event before `end`, and moves `end` behind it.
    fn load_back(&mut self) -> Result<()> {
        if self.end > self.durable_end {
            let found = self.volatile.iter().rev().find(|batch| batch.first_seq < self.end);
            self.back.batch = found.cloned();
            self.end = found.map_or(self.durable_end, |batch| batch.end_seq().min(self.end));
            return Ok(());
        }
        let mut walker = match self.back.walker.take() {
            Some(walker) => walker.prev(&self.snapshot),
            None => self.walker_at(self.end - 1),
        };
        let mut after = None;
        while let Some(at) = walker {
            let Some(batch) = at.batch(&self.snapshot) else {
                break;
            };
            match batch.kind {
                BatchKind::Events if batch.first_seq < self.end => {
                    return self.enter_back(at, &batch, after);
                }
                BatchKind::Gap => after = Some(batch.first_seq),
                _ => {}
            }
            walker = at.prev(&self.snapshot);
        }
        let lost = self.start..self.end;
        let gap_first = after.unwrap_or(self.end).min(self.end);
        self.end = self.start;
        if gap_first <= lost.start { Ok(()) } else { Err(self.corrupt(None, lost)) }
    }

    fn enter_back(&mut self, at: Walker, batch: &BatchRef, gap_after: Option<u64>) -> Result<()> {
        let behind = batch.end_seq();
        let is_gap = gap_after.is_some_and(|first| first == behind);
        if behind < self.end && !is_gap && self.back_gap(&at) != Some(behind) {
            let lost = behind.max(self.start)..self.end;
            self.end = behind;
            let error = at.here.segment.error("read", batch.offset);
            return Err(self.corrupt(Some(&error), lost));
        }
        self.end = self.end.min(behind);
        if self.end <= self.start {
            return Ok(());
        }
        let end = self.snapshot.end_in(&at.here.segment);
        let loaded = self.back.loader.load(&at.here.segment, self.stream, batch, end);
        let before = at.gap_before(&self.snapshot, batch);
        let dropped = match &before {
            Some(gap) => {
                let loader = &mut self.back.loader;
                match loader.load_gap(&at.here.segment, self.stream, gap, end) {
                    Err(error) if !is_damage(&error) => return Err(self.stop(error)),
                    dropped => dropped.unwrap_or(0),
                }
            }
            None => 0,
        };
        self.back.walker = Some(at);
        match loaded {
            Ok(mut loaded) => {
                loaded.dropped = dropped;
                self.back.batch = Some(loaded);
                Ok(())
            }
            Err(error) => {
                let lost = batch.first_seq.max(self.start)..self.end;
                self.end = batch.first_seq.max(self.start);
                Err(self.failed(error, lost))
            }
        }
    }

    /// The first seq of the gap right behind this batch, if there is one.
    fn back_gap(&self, at: &Walker) -> Option<u64> {
        let next = at.clone().next(&self.snapshot)?;
        let batch = next.batch(&self.snapshot)?;
        (batch.kind == BatchKind::Gap).then_some(batch.first_seq)
    }

    fn walker_at(&self, seq: u64) -> Option<Walker> {
        Walker::seek(&self.snapshot, self.entry.as_ref()?, seq)
    }
}

impl Iterator for Events {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.start < self.end {
            let seq = self.start;
            match &mut self.front.batch {
                Some(batch) if batch.holds(seq) => {
                    self.start += 1;
                    let Some(event) = batch.forward(seq) else {
                        let lost = seq..batch.end_seq().min(self.end);
                        self.start = lost.end;
                        return Some(Err(self.corrupt(None, lost)));
                    };
                    return Some(Ok(event));
                }
                _ => {
                    if let Err(error) = self.load_front() {
                        return Some(Err(error));
                    }
                }
            }
        }
        None
    }
}

impl DoubleEndedIterator for Events {
    fn next_back(&mut self) -> Option<Self::Item> {
        while self.start < self.end {
            let seq = self.end - 1;
            match &mut self.back.batch {
                Some(batch) if batch.holds(seq) => {
                    self.end -= 1;
                    let Some(event) = batch.backward(seq) else {
                        let lost = batch.first_seq.max(self.start)..seq + 1;
                        self.end = lost.start;
                        return Some(Err(self.corrupt(None, lost)));
                    };
                    return Some(Ok(event));
                }
                _ => {
                    if let Err(error) = self.load_back() {
                        return Some(Err(error));
                    }
                }
            }
        }
        None
    }
}

fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt { .. })
}

/// A place among the batches of a stream, over all segments.
#[derive(Clone, Debug)]
struct Walker {
    entry: Arc<StreamEntry>,
    span: u32,
    here: SpanBatches,
    cursor: Cursor,
}

impl Walker {
    /// At the newest batch that starts at or before `seq`, or at the first of all.
    fn seek(snapshot: &Snapshot, entry: &Arc<StreamEntry>, seq: u64) -> Option<Self> {
        let mut span = snapshot.seek_span(entry, seq)?;
        loop {
            let here = snapshot.span(entry.id, span)?;
            if let Some(cursor) = here.batches.seek(seq).or_else(|| here.batches.first()) {
                return Some(Self { entry: Arc::clone(entry), span, here, cursor });
            }
            // Nothing was left of it here.
            span = snapshot.next_span(span)?;
        }
    }

    /// A gap and the events behind it start at different seqs; who reads forward begins with the gap.
    fn or_gap_before(self, snapshot: &Snapshot) -> Self {
        let before = self.clone().prev(snapshot);
        let not_events =
            |at: &Self| at.batch(snapshot).is_some_and(|batch| batch.kind != BatchKind::Events);
        before.filter(not_events).unwrap_or(self)
    }

    /// What is here; `None` when the snapshot does not show it.
    fn batch(&self, snapshot: &Snapshot) -> Option<BatchRef> {
        let batch = self.here.batches.get(self.cursor)?;
        snapshot.shows(&self.here.segment, batch.offset).then_some(batch)
    }

    fn next(mut self, snapshot: &Snapshot) -> Option<Self> {
        if let Some(cursor) = self.here.batches.next(self.cursor) {
            self.cursor = cursor;
            return Some(self);
        }
        self.go_on(snapshot, Snapshot::next_span, StreamBatches::first)
    }

    fn prev(mut self, snapshot: &Snapshot) -> Option<Self> {
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
            let here = snapshot.span(self.entry.id, self.span)?;
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
    fn gap_before(&self, snapshot: &Snapshot, batch: &BatchRef) -> Option<BatchRef> {
        let before = self.clone().prev(snapshot)?;
        let found = before.batch(snapshot)?;
        let same = before.here.segment.number() == self.here.segment.number();
        (found.kind == BatchKind::Gap && same && found.offset == batch.offset).then_some(found)
    }
}
