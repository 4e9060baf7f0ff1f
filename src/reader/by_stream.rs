//! The events of one stream, from both ends.

use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use super::batch::{Batch, Check, Loader, Owner};
use super::event::{Event, EventRef, FrameAt};
use super::walker::{Site, Walker};
use crate::catalog::{Catalog, Cold, ColdFile, Lineage, LogPlace, Piece, Snapshot};
use crate::error::{Error, ErrorKind, Result};
use crate::format::BatchKind;
use crate::index::BatchRef;
use crate::recovery::cold::open as open_cold;
use crate::types::{Seq, StreamId};

/// The events of a stream, in order; `rev()` reads them backwards. What is damaged comes as an error
/// ([`ErrorKind::Corrupt`], with the seqs that are lost) in its place, and reading goes on behind it.
#[derive(Debug)]
pub struct Events {
    snapshot: Snapshot,
    stream: StreamId,
    lineage: Lineage,
    /// Where the stream now starts, as long as seqs before that were asked for and not refused yet.
    trimmed: Option<u64>,
    /// The stream starts here.
    first: u64,
    /// Seqs still to come.
    start: u64,
    end: u64,
    /// From here on events are volatile.
    durable_end: u64,
    volatile: Vec<Batch>,
    /// Why what is not there is not missed.
    overtaken: Option<ErrorKind>,
    front: Side,
    back: Side,
}

/// What went wrong, and which seqs that costs.
type Lost = (Error, Range<u64>);

/// Where one end of the iteration stands.
#[derive(Debug, Default)]
struct Side {
    /// The part of the lineage that the walker is in; of what is cold, that of the file's own.
    piece: Option<Piece>,
    /// The archive file that it is in.
    file: Option<Arc<ColdFile>>,
    walker: Option<Walker>,
    loader: Loader,
    batch: Option<Batch>,
}

impl Side {
    /// Whether the piece is known that this seq is in.
    fn is_in(&self, seq: u64) -> bool {
        self.piece.as_ref().is_some_and(|piece| piece.seqs.contains(&seq))
    }

    /// Goes to the piece that this seq is in, to none if there is none. What walked in another one starts anew.
    fn enter(&mut self, catalog: &Catalog, lineage: &Lineage, seq: u64) -> Result<(), Lost> {
        self.walker = None;
        self.piece = lineage.piece(seq).cloned();
        let cold = self.piece.as_ref().and_then(|piece| piece.cold.clone());
        if cold.is_some() || self.file.is_some() {
            self.enter_file(catalog, cold.as_ref(), seq)?;
        }
        Ok(())
    }

    /// Where it walks: in the log, or in a file.
    fn view<'a>(&'a self, log: &'a Snapshot) -> &'a Snapshot {
        self.file.as_deref().map_or(log, |file| &file.snapshot)
    }

    /// From the log to a file, or from one to another, or back.
    #[cold]
    fn enter_file(
        &mut self,
        catalog: &Catalog,
        cold: Option<&Arc<Cold>>,
        seq: u64,
    ) -> Result<(), Lost> {
        // Segments of different files have the same numbers.
        (self.file, self.loader) = (None, Loader::default());
        let Some(cold) = cold else { return Ok(()) };
        let Some(piece) = self.piece.take() else { return Ok(()) };
        let file = open_cold(catalog, cold).map_err(|error| (error, piece.seqs.clone()))?;
        let inside = file.snapshot.catalog.lineage(file.tip, piece.seqs.end, LogPlace::default());
        self.piece = inside.piece(seq).cloned();
        self.file = Some(file);
        Ok(())
    }
}

impl Events {
    pub(crate) fn durable(
        snapshot: Snapshot,
        stream: StreamId,
        lineage: Lineage,
        seqs: Range<u64>,
    ) -> Self {
        Self {
            snapshot,
            stream,
            lineage,
            trimmed: None,
            first: seqs.start,
            start: seqs.start,
            end: seqs.end,
            durable_end: seqs.end,
            volatile: Vec::new(),
            overtaken: None,
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

    /// As a handle sees them for which nothing is kept any more, for this reason, if there is one.
    pub(crate) fn unless_overtaken(mut self, overtaken: Option<ErrorKind>) -> Self {
        self.overtaken = overtaken;
        self
    }

    /// Only the events from `first` on: what is before it is trimmed.
    pub(crate) fn from(mut self, first: u64) -> Self {
        (self.first, self.start) = (first, self.start.max(first));
        self
    }

    /// Only the events whose seq is in `range`: `events.range(10..)`, `events.range(..=5)`.
    /// Finding the first takes a logarithm of the stream's length. A range that says a start before which the stream
    /// was trimmed is refused in its place: with one [`ErrorKind::Trimmed`], and then goes on.
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
        if start < self.first && !matches!(range.start_bound(), Bound::Unbounded) {
            self.trimmed = Some(self.first);
        }
        self.start = self.start.max(start);
        self.end = self.end.min(end);
        self
    }

    fn corrupt(&self, error: Option<&Error>, seqs: Range<u64>) -> Error {
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

    /// No batch has these seqs: they are lost, unless nobody had to keep them.
    fn missing(&self, error: Option<&Error>, seqs: Range<u64>) -> Error {
        let gone = self.overtaken.as_ref().map(|kind| Error::new(kind.clone(), "read"));
        gone.unwrap_or_else(|| self.corrupt(error, seqs))
    }

    /// A batch, or a file, that cannot be read: what it costs. Other failures than damage end the iteration.
    fn failed(&mut self, error: Error, seqs: Range<u64>) -> Error {
        match error.kind() {
            ErrorKind::ArchiveMissing(_) | ErrorKind::WrongArchive(_) => error,
            ErrorKind::Corrupt { .. } => self.corrupt(Some(&error), seqs),
            _ => self.stop(error),
        }
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
            self.start = found.map_or(self.end, |batch| batch.first_seq().max(self.start));
            self.front.batch = found.map(|batch| self.show_gap(batch));
            return Ok(());
        }
        if !self.front.is_in(self.start) {
            let entered = self.front.enter(&self.snapshot.catalog, &self.lineage, self.start);
            entered.map_err(|(error, seqs)| {
                let lost = self.start..seqs.end.min(self.end);
                self.start = lost.end;
                self.failed(error, lost)
            })?;
        }
        let Some(piece) = &self.front.piece else {
            // What came before this branch cannot be found.
            let starts = self.lineage.pieces().map(|piece| piece.seqs.start);
            let next = starts.filter(|start| *start > self.start).min();
            let lost = self.start..next.unwrap_or(self.durable_end).min(self.end);
            self.start = lost.end;
            return Err(self.missing(None, lost));
        };
        let (branch, limit) = (piece.branch, piece.seqs.end);
        let walker = self.front.walker.take();
        let view = self.front.view(&self.snapshot);
        let mut walker = match walker {
            Some(walker) => walker.next(view),
            None => {
                let found = Walker::seek(view, branch, self.start);
                found.map(|at| at.or_gap_before(view))
            }
        };
        let mut gap: Option<BatchRef> = None;
        while let Some(at) = walker {
            let Some(batch) = at.batch(view) else {
                break;
            };
            match batch.kind {
                BatchKind::Events if batch.first_seq >= limit => break,
                BatchKind::Events if batch.end_seq() > self.start => {
                    return self.enter_front(at, &batch, gap, limit);
                }
                BatchKind::Gap => gap = Some(batch),
                _ => {}
            }
            walker = at.next(view);
        }
        let lost = self.start..limit.min(self.end);
        self.start = limit;
        // The branch may go on, but what is shared with it ends here, in a gap perhaps. Whether anybody still wants the
        // events behind the gap is not known here.
        if gap.is_some_and(|gap| gap.first_seq <= lost.start && gap_end(&gap) >= limit) {
            return Ok(());
        }
        Err(self.missing(None, lost))
    }

    fn enter_front(
        &mut self,
        at: Walker,
        batch: &BatchRef,
        gap: Option<BatchRef>,
        limit: u64,
    ) -> Result<()> {
        let view = self.front.view(&self.snapshot);
        let (end, owner) = (view.end_in(&at.here.segment), at.owner(view, self.stream));
        let mut dropped = 0;
        if let Some(gap) = gap.filter(|gap| gap.offset == batch.offset) {
            let loader = &mut self.front.loader;
            dropped = match loader.load_gap(&at.here.segment, owner, &gap, end) {
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
            return Err(self.missing(Some(&error), lost));
        }
        let whole = batch.first_seq >= self.start && batch.end_seq() <= self.end.min(limit);
        // Who looks up one event waits for several pages of this commit, who reads on for those of the next one.
        let expected = if whole { at.next_here() } else { Some(*batch) };
        if let Some(expected) = expected {
            self.front.loader.expect(&at.here.segment, expected.offset);
        }
        let dropped = self.shown_gap(self.front.piece.as_ref(), batch.first_seq, dropped);
        let loaded = self.front.load(&at, owner, (batch, dropped, whole), end);
        self.front.walker = Some(at);
        match loaded {
            Ok(()) => {
                if let Some(batch) = &mut self.front.batch {
                    batch.end_at(limit);
                }
                self.start = self.start.max(batch.first_seq);
                Ok(())
            }
            Err(error) => {
                let end = batch.end_seq().min(limit);
                let lost = self.start.max(batch.first_seq)..end.min(self.end);
                self.start = end;
                Err(self.failed(error, lost))
            }
        }
    }

    /// Loads the batch with the last event before `end`, and moves `end` behind it.
    fn load_back(&mut self) -> Result<()> {
        if self.end > self.durable_end {
            let found = self.volatile.iter().rev().find(|batch| batch.first_seq() < self.end);
            self.end = found.map_or(self.durable_end, |batch| batch.end_seq().min(self.end));
            self.back.batch = found.map(|batch| self.show_gap(batch));
            return Ok(());
        }
        if !self.back.is_in(self.end - 1) {
            let entered = self.back.enter(&self.snapshot.catalog, &self.lineage, self.end - 1);
            entered.map_err(|(error, seqs)| {
                let lost = seqs.start.max(self.start)..self.end;
                self.end = lost.start;
                self.failed(error, lost)
            })?;
        }
        let Some(piece) = &self.back.piece else {
            let ends = self.lineage.pieces().map(|piece| piece.seqs.end);
            let before = ends.filter(|end| *end < self.end).max().unwrap_or(0);
            let lost = before.max(self.start)..self.end;
            self.end = lost.start;
            return Err(self.missing(None, lost));
        };
        let (branch, first) = (piece.branch, piece.seqs.start.max(self.start));
        let walker = self.back.walker.take();
        let view = self.back.view(&self.snapshot);
        let mut walker = match walker {
            Some(walker) => walker.prev(view),
            None => Walker::seek(view, branch, self.end - 1),
        };
        let mut after = None;
        while let Some(at) = walker {
            let Some(batch) = at.batch(view) else {
                break;
            };
            match batch.kind {
                BatchKind::Events if batch.first_seq < self.end => {
                    return self.enter_back(at, &batch, after);
                }
                BatchKind::Gap => after = Some(batch.first_seq),
                _ => {}
            }
            walker = at.prev(view);
        }
        let lost = first..self.end;
        let gap_first = after.unwrap_or(self.end).min(self.end);
        self.end = first;
        if gap_first <= lost.start { Ok(()) } else { Err(self.missing(None, lost)) }
    }

    fn enter_back(&mut self, at: Walker, batch: &BatchRef, gap_after: Option<u64>) -> Result<()> {
        let behind = batch.end_seq();
        let is_gap = gap_after.is_some_and(|first| first == behind);
        if behind < self.end && !is_gap && self.back_gap(&at) != Some(behind) {
            let lost = behind.max(self.start)..self.end;
            self.end = behind;
            let error = at.here.segment.error("read", batch.offset);
            return Err(self.missing(Some(&error), lost));
        }
        self.end = self.end.min(behind);
        if self.end <= self.start {
            return Ok(());
        }
        let view = self.back.view(&self.snapshot);
        let (end, owner) = (view.end_in(&at.here.segment), at.owner(view, self.stream));
        let before = at.gap_before(view, batch);
        let dropped = match &before {
            Some(gap) => {
                let loader = &mut self.back.loader;
                match loader.load_gap(&at.here.segment, owner, gap, end) {
                    Err(error) if !is_damage(&error) => return Err(self.stop(error)),
                    dropped => dropped.unwrap_or(0),
                }
            }
            None => 0,
        };
        if let Some(next) = at.prev_here() {
            self.back.loader.expect(&at.here.segment, next.offset);
        }
        let whole = batch.first_seq >= self.start && batch.end_seq() <= self.end;
        let dropped = self.shown_gap(self.back.piece.as_ref(), batch.first_seq, dropped);
        let loaded = self.back.load(&at, owner, (batch, dropped, whole), end);
        self.back.walker = Some(at);
        match loaded {
            Ok(()) => Ok(()),
            Err(error) => {
                let lost = batch.first_seq.max(self.start)..self.end;
                self.end = batch.first_seq.max(self.start);
                Err(self.failed(error, lost))
            }
        }
    }

    /// The first seq of the gap right behind this batch, if there is one.
    fn back_gap(&self, at: &Walker) -> Option<u64> {
        let view = self.back.view(&self.snapshot);
        let next = at.clone().next(view)?;
        let batch = next.batch(view)?;
        (batch.kind == BatchKind::Gap).then_some(batch.first_seq)
    }

    /// How many seqs in front of `first_seq` the stream shows to be dropped, when the batch there says that `own` were.
    fn shown_gap(&self, piece: Option<&Piece>, first_seq: u64, own: u64) -> u64 {
        let start = first_seq.saturating_sub(own);
        let is_first = piece.is_some_and(|piece| piece.seqs.start == start);
        let cut = if is_first { self.cut_gap(start) } else { 0 };
        // What is trimmed is no gap any more.
        own.saturating_add(cut).min(first_seq.saturating_sub(self.first))
    }

    /// The same for a batch in memory.
    fn show_gap(&self, batch: &Batch) -> Batch {
        let (first_seq, own) = (batch.first_seq(), batch.dropped());
        let start = first_seq.saturating_sub(own);
        let cut = if start == self.durable_end { self.cut_gap(start) } else { 0 };
        let shown = own.saturating_add(cut).min(first_seq.saturating_sub(self.first));
        batch.clone().dropped_as(shown)
    }

    /// The seqs of a gap that end in front of `seq` without an event of the same batch: a fork or a rewind went there.
    fn cut_gap(&self, seq: u64) -> u64 {
        let mut start = seq;
        while start > self.first {
            let Some(piece) = self.lineage.piece(start - 1) else { break };
            let Ok(Some(site)) = Site::of(&self.snapshot, piece, start - 1) else { break };
            let view = site.view(&self.snapshot);
            let found = Walker::seek(view, site.branch, start - 1).and_then(|at| at.batch(view));
            let gap = found.filter(|batch| {
                let holds = batch.first_seq < start && gap_end(batch) >= start;
                batch.kind == BatchKind::Gap && holds
            });
            let Some(gap) = gap else { break };
            start = gap.first_seq.max(piece.seqs.start);
            if start > piece.seqs.start {
                break;
            }
        }
        seq - start
    }

    /// What was asked for and is trimmed is refused once.
    fn refuse_trimmed<T>(&mut self) -> Option<Result<T>> {
        let start = Seq(self.trimmed.take()?);
        Some(Err(Error::new(ErrorKind::Trimmed { stream: self.stream, start }, "read")))
    }
}

impl Side {
    /// Loads a batch in place of the last one. Who wants the whole of it has it verified; who looks up a part of it,
    /// if nobody did since the log was opened.
    fn load(
        &mut self,
        at: &Walker,
        owner: Owner,
        (batch, dropped, whole): (&BatchRef, u64, bool),
        end: u64,
    ) -> Result<()> {
        let table = self.batch.take().map(Batch::into_table);
        let segment = &at.here.segment;
        let known = !whole && segment.is_known_sound(at.cursor);
        let check = if known { Check::Place } else { Check::Bytes };
        let mut loaded = self.loader.load(segment, owner, (batch, dropped, check), end)?;
        if check == Check::Bytes {
            segment.note_sound(at.cursor);
        }
        loaded.use_table(table.unwrap_or_default());
        self.batch = Some(loaded);
        Ok(())
    }

    #[inline]
    fn lend(&self, found: Result<FrameAt>) -> Option<Result<EventRef<'_>>> {
        match found {
            Ok(frame) => self.batch.as_ref().map(|batch| Ok(batch.lend(frame))),
            Err(error) => Some(Err(error)),
        }
    }
}

impl Events {
    /// Lends the next event: as `next()`, without the cost of taking hold of it.
    ///
    /// # Errors
    ///
    /// As the iterator's items.
    #[inline]
    pub fn lend(&mut self) -> Option<Result<EventRef<'_>>> {
        let found = self.find_next()?;
        self.front.lend(found)
    }

    /// Lends the last event: as `next_back()`, without the cost of taking hold of it.
    ///
    /// # Errors
    ///
    /// As the iterator's items.
    #[inline]
    pub fn lend_back(&mut self) -> Option<Result<EventRef<'_>>> {
        let found = self.find_back()?;
        self.back.lend(found)
    }

    #[inline]
    fn find_next(&mut self) -> Option<Result<FrameAt>> {
        if self.trimmed.is_some() {
            return self.refuse_trimmed();
        }
        while self.start < self.end {
            let seq = self.start;
            match &mut self.front.batch {
                Some(batch) if batch.holds(seq) => {
                    self.start += 1;
                    let Some(frame) = batch.forward(seq) else {
                        let lost = seq..batch.shown_end().min(self.end);
                        self.start = lost.end;
                        return Some(Err(self.missing(None, lost)));
                    };
                    return Some(Ok(frame));
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

    #[inline]
    fn find_back(&mut self) -> Option<Result<FrameAt>> {
        while self.start < self.end {
            let seq = self.end - 1;
            match &mut self.back.batch {
                Some(batch) if batch.holds(seq) => {
                    self.end -= 1;
                    let Some(frame) = batch.backward(seq) else {
                        let lost = batch.first_seq().max(self.start)..seq + 1;
                        self.end = lost.start;
                        return Some(Err(self.missing(None, lost)));
                    };
                    return Some(Ok(frame));
                }
                _ => {
                    if let Err(error) = self.load_back() {
                        return Some(Err(error));
                    }
                }
            }
        }
        self.refuse_trimmed()
    }
}

impl Iterator for Events {
    type Item = Result<Event>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.lend().map(|event| event.map(|event| event.hold()))
    }
}

impl DoubleEndedIterator for Events {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        self.lend_back().map(|event| event.map(|event| event.hold()))
    }
}

/// The seq behind a gap, as the index has it.
fn gap_end(gap: &BatchRef) -> u64 {
    if gap.count == u32::MAX { u64::MAX } else { gap.end_seq() }
}

fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt { .. })
}
