//! Reads the events of one stream, from both ends.
//!
//! Each end of the iteration has a cursor, and both follow the same rule: resolve the extent at the
//! next seq (`super::extent`), then act on its content. The direction only decides which batch is
//! the neighbour, so both directions return the same events and report the same gaps.
//!
//! ```text
//! at the next seq         action                           `dropped_before` of the first event
//! | events | EVENTS |     load the batch                   0
//! | gap    | EVENTS |     load the batch                   the gap
//! | gap | gap | EVENTS |  load the batch                   both gaps, also across branches
//! | ^start in gap | EVENTS |  load the batch               the gap from the start on
//! | lost   | EVENTS |     load the batch                   0: the loss is an error of its own
//! | GAP |                 pass over, no item               (reported by the event after it)
//! | LOST |                pass over, one error             (the error names the seqs)
//! | durable | VOLATILE |  take the batch from memory     its own gap and one right before it
//! ```

use std::ops::{Bound, Range, RangeBounds};

use super::batch::{Batch, BatchCheck, BatchLoader, Owner, unsupported};
use super::event::{Event, EventRef, FrameAt};
use super::extent::{Content, Extent, dropped_before};
use super::walker::Walker;
use crate::catalog::{Lineage, Piece, ReadView};
use crate::error::{Error, ErrorKind, Result};
use crate::format::BatchKind;
use crate::index::BatchRef;
use crate::sabotage::{Sabotage, broken};
use crate::segment::FilePool;
use crate::types::{Seq, StreamId};

/// Double-ended iterator over the events of a stream.
///
/// Returns damage as an error at its place ([`ErrorKind::Corrupt`], with the lost seqs) and
/// continues after it. A disk error ends the iteration, and so does [`ErrorKind::Outdated`]: open a
/// new view and continue after the last seq.
///
/// `last()` reads from the end, as `next_back()` does. `nth()`, `skip()` and `count()` read every
/// event that they pass, because seqs may be gaps; to start at a seq, use [`Events::range`].
#[derive(Debug)]
pub struct Events {
    view: ReadView,
    stream: StreamId,
    lineage: Lineage,
    /// Start of the stream, if seqs before it were requested and the refusal is still to be
    /// returned.
    trimmed: Option<u64>,
    /// Start of the stream.
    first: u64,
    /// Requested seqs, without those that were returned from the front.
    asked: Range<u64>,
    /// Remaining seqs: `start..end`.
    start: u64,
    end: u64,
    /// End of the durable events; those from here on are volatile.
    durable_end: u64,
    volatile: Vec<Batch>,
    /// Error that replaces `Corrupt` for missing seqs, because the handle no longer keeps them.
    overtaken: Option<ErrorKind>,
    front: Cursor,
    back: Cursor,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Direction {
    Forward,
    Backward,
}

/// One end of the iteration.
#[derive(Debug, Default)]
struct Cursor {
    /// Part of the lineage that the walker is in.
    piece: Option<Piece>,
    walker: Option<Walker>,
    loader: BatchLoader,
    batch: Option<Batch>,
    /// End of the last batch of events that was reached.
    last_end: Option<u64>,
}

impl Cursor {
    /// Resolves the extent at a seq, which usually is the neighbour of the last one.
    fn extent(
        &mut self,
        direction: Direction,
        (view, lineage): (&ReadView, Lineage),
        seq: u64,
        durable_end: u64,
    ) -> Extent {
        if !self.piece.as_ref().is_some_and(|piece| piece.seqs.contains(&seq)) {
            self.walker = None;
            self.piece = view.catalog.piece(lineage, seq);
        }
        let Some(piece) = self.piece.as_ref().filter(|piece| piece.seqs.contains(&seq)) else {
            return Extent::outside(view, lineage, seq, durable_end);
        };
        let next = self.walker.take().and_then(|walker| match direction {
            Direction::Forward => walker.next_seqs(view),
            Direction::Backward => walker.prev_seqs(view),
        });
        match next {
            Some((at, batch)) if (batch.first_seq..batch.end_seq()).contains(&seq) => {
                Extent::of(at, batch, piece)
            }
            _ => Extent::find(view, piece, seq),
        }
    }
}

/// Returns the first seq of a range and the seq after its last.
fn seqs_of<S: Into<Seq> + Copy>(range: &impl RangeBounds<S>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(seq) => (*seq).into(),
        Bound::Excluded(seq) => (*seq).into().next(),
        Bound::Unbounded => Seq(0),
    };
    let end = match range.end_bound() {
        Bound::Included(seq) => (*seq).into().next(),
        Bound::Excluded(seq) => (*seq).into(),
        Bound::Unbounded => Seq(u64::MAX),
    };
    (start.0, end.0)
}

impl Events {
    pub(crate) fn durable(
        view: ReadView,
        stream: StreamId,
        lineage: Lineage,
        seqs: Range<u64>,
    ) -> Self {
        Self {
            view,
            stream,
            lineage,
            trimmed: None,
            first: seqs.start,
            asked: 0..u64::MAX,
            start: seqs.start,
            end: seqs.end,
            durable_end: seqs.end,
            volatile: Vec::new(),
            overtaken: None,
            front: Cursor::default(),
            back: Cursor::default(),
        }
    }

    /// Appends volatile batches to the durable events.
    pub(crate) fn then(mut self, volatile: Vec<Batch>) -> Self {
        self.end = volatile.last().map_or(self.end, Batch::end_seq);
        self.volatile = volatile;
        self
    }

    /// Reports missing seqs with this error, if any, instead of as damage: the view of an overtaken
    /// handle keeps nothing alive.
    pub(crate) fn unless_overtaken(mut self, overtaken: Option<ErrorKind>) -> Self {
        self.overtaken = overtaken;
        self
    }

    /// Drops the events before `first`, which are trimmed.
    pub(crate) fn from(mut self, first: u64) -> Self {
        self.first = first;
        self.start = self.start.max(first);
        self
    }

    /// Keeps only the events with a seq in `range`. Its ends are numbers or [`Seq`]s.
    ///
    /// Finds the first event in time logarithmic in the length of the stream. If the range starts
    /// in the trimmed part of the stream, the iterator first returns one [`ErrorKind::Trimmed`] and
    /// then continues with the stream's start. [`Events::range_clamped`] begins at the stream's
    /// start without an error.
    ///
    /// Of an iterator that was narrowed or advanced before, only what it has left counts: a range
    /// that reaches back requests nothing that is trimmed.
    ///
    /// ```
    /// # use amberlog::{Log, Result};
    /// # fn main() -> Result<()> {
    /// # let dir = tempfile::tempdir().expect("a directory");
    /// # let log = Log::open(dir.path())?;
    /// # let mut stream = log.create_stream()?;
    /// # for _ in 0..12 { stream.append("event")?; }
    /// assert_eq!(stream.events()?.range(10..).count(), 2);
    /// assert_eq!(stream.events()?.range(..=5).count(), 6);
    /// let seen = stream.head();
    /// stream.append("one more")?;
    /// assert_eq!(stream.events()?.range(seen..).count(), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A commit's position is not a seq:
    ///
    /// ```compile_fail,E0277
    /// # fn since(view: &amberlog::ReadView, events: amberlog::Events) -> amberlog::Events {
    /// events.range(view.position()..)
    /// # }
    /// ```
    #[must_use]
    pub fn range<S: Into<Seq> + Copy>(mut self, range: impl RangeBounds<S>) -> Self {
        let is_bounded = !matches!(range.start_bound(), Bound::Unbounded);
        let (start, end) = seqs_of(&range);
        let had = is_bounded || self.trimmed.is_some();
        self = self.narrow(start, end);
        let asks_trimmed = self.asked.start < self.first.min(self.asked.end);
        self.trimmed = (had && asks_trimmed).then_some(self.first);
        self
    }

    /// Keeps only the events with a seq in `range`, like [`Events::range`], but skips the trimmed
    /// part without an error.
    #[must_use]
    pub fn range_clamped<S: Into<Seq> + Copy>(mut self, range: impl RangeBounds<S>) -> Self {
        let (start, end) = seqs_of(&range);
        self.trimmed = None;
        let first = self.first;
        self.narrow(start.max(first), end)
    }

    fn narrow(mut self, start: u64, end: u64) -> Self {
        if self.start > self.first {
            self.asked.start = self.start;
        }
        self.asked = self.asked.start.max(start)..self.asked.end.min(end);
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
        match error {
            Some(error) => corrupt.at_that_of(error),
            None => corrupt,
        }
    }

    /// Returns the error for seqs that no batch covers: they are lost, unless the handle was
    /// overtaken.
    fn missing(&self, error: Option<&Error>, seqs: Range<u64>) -> Error {
        let gone = self.overtaken.as_ref().map(|kind| Error::new(kind.clone(), "read"));
        gone.unwrap_or_else(|| self.corrupt(error, seqs))
    }

    /// Returns the error for a batch that cannot be loaded. Ends the iteration unless the batch is
    /// damaged.
    fn failed(&mut self, error: Error, seqs: Range<u64>) -> Error {
        match error.kind() {
            ErrorKind::Corrupt { .. } => self.corrupt(Some(&error), seqs),
            _ => self.stop(error),
        }
    }

    /// Ends the iteration: a failure of the disk says nothing about the bytes (F22).
    fn stop(&mut self, error: Error) -> Error {
        self.start = self.end;
        error
    }

    fn cursor(&mut self, direction: Direction) -> &mut Cursor {
        match direction {
            Direction::Forward => &mut self.front,
            Direction::Backward => &mut self.back,
        }
    }

    /// Removes the next seqs in this direction from the iteration.
    fn pass(&mut self, direction: Direction, seqs: &Range<u64>) {
        match direction {
            Direction::Forward => self.start = seqs.end,
            Direction::Backward => self.end = seqs.start,
        }
    }

    /// Resolves the next extent in this direction, and loads its events or passes over it.
    fn load(&mut self, direction: Direction) -> Result<()> {
        let seq = match direction {
            Direction::Forward => self.start,
            Direction::Backward => self.end.saturating_sub(1),
        };
        if seq >= self.durable_end {
            self.load_volatile(direction);
            return Ok(());
        }
        let (durable_end, cursor) = match direction {
            Direction::Forward => (self.durable_end, &mut self.front),
            Direction::Backward => (self.durable_end, &mut self.back),
        };
        let Extent { seqs, content } =
            cursor.extent(direction, (&self.view, self.lineage), seq, durable_end);
        let seqs = seqs.start.max(self.start)..seqs.end.min(self.end).min(durable_end);
        match content {
            Content::Events(at, batch) => self.enter(direction, at, &batch, seqs),
            Content::Gap(at, _) => {
                self.cursor(direction).walker = Some(at);
                self.pass(direction, &seqs);
                Ok(())
            }
            Content::Lost(place) => {
                self.pass(direction, &seqs);
                Err(self.missing(place.as_ref(), seqs))
            }
        }
    }

    /// Takes the next batch from memory, or passes to the end of the volatile events.
    fn load_volatile(&mut self, direction: Direction) {
        let found = match direction {
            Direction::Forward => {
                let passed = self.volatile.partition_point(|batch| batch.end_seq() <= self.start);
                self.volatile.get(passed)
            }
            Direction::Backward => {
                let ahead = self.volatile.partition_point(|batch| batch.first_seq() < self.end);
                self.volatile[..ahead].last()
            }
        };
        let batch = found.map(|batch| self.show_gap(batch));
        match direction {
            Direction::Forward => {
                self.start = found.map_or(self.end, |batch| batch.first_seq().max(self.start));
            }
            Direction::Backward => {
                self.end = found.map_or(self.durable_end, |batch| batch.end_seq().min(self.end));
            }
        }
        self.cursor(direction).batch = batch;
    }

    /// Loads a batch of which these seqs are read.
    fn enter(
        &mut self,
        direction: Direction,
        at: Walker,
        batch: &BatchRef,
        seqs: Range<u64>,
    ) -> Result<()> {
        let view = &self.view;
        let (limit, owner) = (view.end_in(&at.here.segment), at.owner(view, self.stream));
        let dropped = self.dropped_before(direction, &at, batch.first_seq);
        let cursor = match direction {
            Direction::Forward => &mut self.front,
            Direction::Backward => &mut self.back,
        };
        let whole = seqs == (batch.first_seq..batch.end_seq());
        // A lookup waits for several pages of this commit, a scan for those of the next one.
        let expected = match direction {
            Direction::Forward if whole => at.next_here(),
            Direction::Forward => Some(*batch),
            Direction::Backward => at.prev_here(),
        };
        if let Some(expected) = expected {
            cursor.loader.expect(&at.here.batches, expected.offset);
        }
        let loaded = cursor.load(view.files()?, &at, owner, (batch, dropped, whole), limit);
        let shown_end = cursor.piece.as_ref().map_or(u64::MAX, |piece| piece.seqs.end);
        (cursor.walker, cursor.last_end) = (Some(at), Some(batch.end_seq().min(shown_end)));
        match loaded {
            Ok(()) => {
                if let Some(batch) = &mut cursor.batch {
                    batch.end_at(shown_end);
                }
                Ok(())
            }
            Err(error) => {
                self.pass(direction, &seqs);
                Err(self.failed(error, seqs))
            }
        }
    }

    /// Returns the number of dropped seqs that the stream shows right before the batch at `at`.
    fn dropped_before(&self, direction: Direction, at: &Walker, first_seq: u64) -> u64 {
        let cursor = match direction {
            Direction::Forward => &self.front,
            Direction::Backward => &self.back,
        };
        // Nearly always, events end right before the batch.
        let follows = match direction {
            Direction::Forward => cursor.last_end == Some(first_seq),
            Direction::Backward => {
                let is_inside =
                    cursor.piece.as_ref().is_some_and(|piece| piece.seqs.start < first_seq);
                let before = is_inside.then(|| at.clone().prev_seqs(&self.view)).flatten();
                before.is_some_and(|(_, before)| {
                    before.kind == BatchKind::Events && before.end_seq() == first_seq
                })
            }
        };
        if follows || first_seq <= self.first {
            return 0;
        }
        // A sabotaged reader looks for the gap in this branch alone.
        let first = match &cursor.piece {
            Some(piece) if broken(Sabotage::ForgetCutGaps) => self.first.max(piece.seqs.start),
            _ => self.first,
        };
        dropped_before(&self.view, self.lineage, first_seq, first)
    }

    /// Returns a volatile batch with the number of dropped seqs that the stream shows before it.
    fn show_gap(&self, batch: &Batch) -> Batch {
        let (first_seq, own) = (batch.first_seq(), batch.dropped());
        let start = first_seq.saturating_sub(own);
        let before = match start == self.durable_end && start > self.first {
            true => dropped_before(&self.view, self.lineage, start, self.first),
            false => 0,
        };
        // The trimmed part of a gap does not count.
        let shown = own.saturating_add(before).min(first_seq.saturating_sub(self.first));
        batch.clone().dropped_as(shown)
    }

    /// Returns the refusal of a range that starts in the trimmed part, once.
    fn refuse_trimmed<T>(&mut self) -> Option<Result<T>> {
        let start = Seq(self.trimmed.take()?);
        self.asked.start = self.first;
        Some(Err(Error::new(ErrorKind::Trimmed { stream: self.stream, start }, "read")))
    }
}

impl Cursor {
    /// Loads a batch in place of the last one. Verifies its checksum if the whole batch is read, or
    /// if it was not verified since the log was opened.
    fn load(
        &mut self,
        files: &FilePool,
        at: &Walker,
        owner: Owner,
        (batch, dropped, whole): (&BatchRef, u64, bool),
        end: u64,
    ) -> Result<()> {
        let table = self.batch.take().map(Batch::into_table);
        let (segment, batches) = (&at.here.segment, &at.here.batches);
        if let Some(error) = batches.failure() {
            return Err(error.clone());
        }
        let known = !whole && batches.is_known_sound(at.cursor);
        let check = if known { BatchCheck::Head } else { BatchCheck::Bytes };
        let mut loaded = self.loader.load((files, segment), owner, (batch, dropped, check), end)?;
        if check == BatchCheck::Bytes {
            batches.note_sound(at.cursor);
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
    /// Lends the next event. Unlike `next()`, it does not touch a reference count.
    ///
    /// # Errors
    ///
    /// The errors of the iterator's items.
    #[inline]
    pub fn lend(&mut self) -> Option<Result<EventRef<'_>>> {
        let found = self.find(Direction::Forward)?;
        self.front.lend(found)
    }

    /// Lends the last event. Unlike `next_back()`, it does not touch a reference count.
    ///
    /// # Errors
    ///
    /// The errors of the iterator's items.
    #[inline]
    pub fn lend_back(&mut self) -> Option<Result<EventRef<'_>>> {
        let found = self.find(Direction::Backward)?;
        self.back.lend(found)
    }

    #[inline]
    fn find(&mut self, direction: Direction) -> Option<Result<FrameAt>> {
        if direction == Direction::Forward && self.trimmed.is_some() {
            return self.refuse_trimmed();
        }
        while self.start < self.end {
            let (seq, cursor) = match direction {
                Direction::Forward => (self.start, &mut self.front),
                Direction::Backward => (self.end.saturating_sub(1), &mut self.back),
            };
            let Some(batch) = cursor.batch.as_mut().filter(|batch| batch.holds(seq)) else {
                match self.load(direction) {
                    Ok(()) => continue,
                    Err(error) => return Some(Err(error)),
                }
            };
            let found = match direction {
                Direction::Forward => batch.forward(seq),
                Direction::Backward => batch.backward(seq),
            };
            let Some(frame) = found else { return Some(Err(self.lose(direction, seq))) };
            self.pass(direction, &(seq..seq.saturating_add(1)));
            return Some(Ok(frame));
        }
        match direction {
            Direction::Forward => None,
            Direction::Backward => self.refuse_trimmed(),
        }
    }

    /// Ends the iteration if this version does not know the frame of `seq`. Otherwise passes over
    /// the rest of the current batch, because its frames do not match its head from `seq` on or
    /// earlier.
    #[cold]
    fn lose(&mut self, direction: Direction, seq: u64) -> Error {
        let cursor = self.cursor(direction);
        let batch = cursor.batch.as_ref();
        if batch.is_some_and(|batch| batch.is_unknown(seq))
            && let Some(at) = &cursor.walker
        {
            let offset = at.here.batches.get(at.cursor).map_or(0, |batch| batch.offset);
            let error = unsupported(&at.here.segment, offset);
            return self.stop(error);
        }
        let lost = batch
            .map_or(seq..seq.saturating_add(1), |batch| batch.first_bad(seq)..batch.shown_end());
        let lost = lost.start.max(self.start)..lost.end.min(self.end);
        self.pass(direction, &lost);
        self.missing(None, lost)
    }
}

impl Iterator for Events {
    type Item = Result<Event>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.lend().map(|event| event.map(|event| event.hold()))
    }

    /// Each event and each error takes at least one seq, and a gap takes seqs without an item.
    fn size_hint(&self) -> (usize, Option<usize>) {
        let seqs = self.end.saturating_sub(self.start);
        let items = seqs.saturating_add(u64::from(self.trimmed.is_some()));
        (0, usize::try_from(items).ok())
    }

    fn last(mut self) -> Option<Self::Item> {
        self.next_back()
    }
}

impl DoubleEndedIterator for Events {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        self.lend_back().map(|event| event.map(|event| event.hold()))
    }
}
