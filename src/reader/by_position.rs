//! Reads the events of the whole log in commit order.
//!
//! A reader finds its first commit by the position index of the segment and steps over the headers
//! of the commits between. From then on it reads every record. It names the damage that may have
//! hit commits at or after its start, wherever the index let it begin
//! (`p6_p13_every_start_gives_the_same_events_and_names_the_same_damage`).

use std::ops::Range;
use std::sync::Arc;

use super::batch::{Batch, unsupported};
use super::event::{BatchContext, Event, EventRef, FrameAt};
use crate::catalog::ReadView;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{ALIGN, BatchHead, BatchKind, COMMITS_AT, CommitPlace, record_at};
use crate::segment::Segment;
use crate::segment::scan::{Found, Scanner, SearchTarget, Step};
use crate::types::{Seq, StreamId};

/// Iterator over all events of a log in commit order. Within a commit, the streams come in the
/// order in which the program gave them ([`crate::Log::commit_all`]). Includes events of deleted
/// streams and events that were trimmed or rewound, until a compaction drops them. The iterator
/// returns damage as an error at its place, and goes on with the next readable event.
#[derive(Debug)]
pub struct AllEvents {
    view: ReadView,
    /// Position of the next commit.
    next: u64,
    at: Option<SegmentScan>,
    /// The current commit, and the indexes of its batches that are left.
    commit: Option<(Found, std::vec::IntoIter<usize>)>,
    /// The current batch, and the seq of its next event.
    batch: Option<(Batch, u64)>,
}

/// Scan of one segment, up to an offset.
#[derive(Debug)]
struct SegmentScan {
    segment: Arc<Segment>,
    scanner: Scanner,
    offset: u64,
    /// Position that should come next at the offset. It is less than that of the reader's next
    /// commit while the scan looks for the start.
    expected: u64,
    /// True if the reader goes on in a view that does not have this segment.
    is_outdated: bool,
}

impl SegmentScan {
    /// Steps over the commits before this position, as far as their headers are whole.
    fn walk_to(&mut self, position: u64) -> Result<()> {
        while self.expected < position {
            match self.scanner.head(self.offset)? {
                Some(head) if head.position < position => {
                    self.offset = record_at(self.offset.saturating_add(head.length));
                    self.expected = self.expected.max(head.position.saturating_add(1));
                }
                _ => break,
            }
        }
        Ok(())
    }

    /// Returns the position after all that a sparse segment covers, once the scan is at its end.
    fn end_of_sparse(&self) -> Option<u64> {
        let sealed = self.segment.seal_state()?;
        let at_end = self.segment.is_sparse() && self.offset >= sealed.footer_at;
        at_end.then_some(sealed.last_position.saturating_add(1))
    }
}

impl AllEvents {
    pub(crate) fn new(view: ReadView, from: u64) -> Self {
        Self { view, next: from, at: None, commit: None, batch: None }
    }

    /// Continues in `view`, a later read view of the same log. An iterator that has returned all
    /// events of its view returns those of the later commits next. It searches for its place again
    /// only if a compaction has replaced the segment in which it stands.
    ///
    /// An iterator that has returned an error other than [`ErrorKind::Corrupt`] has ended for good.
    ///
    /// ```
    /// # use amberlog::{Log, Position, Result};
    /// # fn main() -> Result<()> {
    /// # let dir = tempfile::tempdir().expect("a directory");
    /// # let log = Log::open(dir.path())?;
    /// # let mut stream = log.create_stream()?;
    /// # stream.append("first")?;
    /// # stream.commit().wait()?;
    /// let mut all = log.read_view().all_events(Position::START)?;
    /// assert_eq!(all.by_ref().count(), 1);
    /// stream.append("second")?;
    /// stream.commit().wait()?;
    /// all.continue_in(&log.read_view());
    /// assert_eq!(all.next().expect("one more")?.payload(), b"second");
    /// # Ok(())
    /// # }
    /// ```
    pub fn continue_in(&mut self, view: &ReadView) {
        self.view = view.clone();
        let Some(mut at) = self.at.take() else { return };
        let now = view.segments.get(at.segment.number());
        let is_same = now.is_some_and(|segment| Arc::ptr_eq(segment, &at.segment));
        match self.limit_in(&at.segment) {
            Ok(limit) if is_same => at.scanner.set_limit(limit),
            // The batches left of its current commit are in memory.
            _ => at.is_outdated = true,
        }
        self.at = Some(at);
    }

    /// Enters a segment near the reader's next commit.
    fn enter(&self, segment: &Arc<Segment>) -> Result<SegmentScan> {
        let limit = self.limit_in(segment)?;
        let files = Arc::clone(self.view.files()?);
        let mut scanner = Scanner::new(Arc::clone(segment), limit, files);
        let mut first = CommitPlace { position: segment.first_position, offset: COMMITS_AT };
        if first.position < self.next {
            first = scanner.place_before(self.next)?;
        }
        let CommitPlace { position: expected, offset } = first;
        let segment = Arc::clone(segment);
        Ok(SegmentScan { segment, scanner, offset, expected, is_outdated: false })
    }

    /// Returns the end of the bytes of a segment that the view shows.
    fn limit_in(&self, segment: &Segment) -> Result<u64> {
        let end = self.view.end_in(segment);
        match segment.seal_state() {
            Some(sealed) => Ok(sealed.footer_at.min(end)),
            None => Ok(end.min(segment.file_bytes(self.view.files()?)?)),
        }
    }

    /// Moves to the next commit. Returns `Ok(false)` after the last one.
    fn next_commit(&mut self) -> Result<bool> {
        while self.next <= self.view.position().get() {
            let Some(mut at) = self.at.take().filter(|at| !at.is_outdated) else {
                let Some(segment) = self.view.segments.of_position(self.next) else {
                    return self.begin();
                };
                let number = segment.number();
                self.at = Some(self.enter(segment).inspect_err(|_| self.skip(number))?);
                continue;
            };
            let following = self.view.segments.after(at.segment.number());
            if following.is_some_and(|segment| segment.first_position == self.next) {
                // All commits of this segment are read: a tail record, a footer or nothing follows.
                self.at = None;
                continue;
            }
            if at.expected < self.next {
                at.walk_to(self.next).inspect_err(|_| self.skip(at.segment.number()))?;
            }
            if let Some(end) = at.end_of_sparse() {
                if self.next < end {
                    self.next = end;
                    continue;
                }
                // The next segment is lost.
                self.skip(at.segment.number());
                return Err(at.segment.error("read", at.offset));
            }
            let step = at.scanner.step(at.offset);
            match step.inspect_err(|_| self.skip(at.segment.number()))? {
                Step::Commit(found) if self.is_next(&at, found.head.position) => {
                    if found.head.position > self.view.position().get() {
                        self.at = Some(at);
                        return Ok(false);
                    }
                    at.offset = record_at(found.end());
                    self.next = found.head.position.saturating_add(1);
                    at.expected = self.next;
                    if found.unknown {
                        return Err(unsupported(&at.segment, found.offset));
                    }
                    // Streams in damaged entries of the directory are unknown.
                    let lost = (!found.is_listed).then(|| at.segment.error("read", found.offset));
                    self.at = Some(at);
                    let order = found.in_order().into_iter();
                    self.commit = Some((found, order));
                    return lost.map_or(Ok(true), Err);
                }
                Step::Commit(found) if found.head.position < self.next => {
                    at.offset = record_at(found.end());
                    self.at = Some(at);
                }
                _ => self.missed(at).map_or(Ok(()), Err)?,
            }
        }
        Ok(false)
    }

    /// Returns whether a commit of this position is the next one. Compaction may have removed the
    /// commits before it from a sparse segment.
    fn is_next(&self, at: &SegmentScan, position: u64) -> bool {
        position == self.next || at.segment.is_sparse() && position > self.next
    }

    /// Skips to the first segment, because no segment holds the next commit. Reports the commits
    /// before it as lost.
    fn begin(&mut self) -> Result<bool> {
        let first = self.view.segments.after(0).cloned();
        self.next = first.as_ref().map_or_else(|| self.end(), |segment| segment.first_position);
        first.map_or(Ok(false), |segment| Err(segment.error("read", 0)))
    }

    /// Searches for the next readable commit, because the expected one is not at its offset.
    /// Returns the error that reports the loss; `None` if only commits before the start are lost.
    fn missed(&mut self, mut at: SegmentScan) -> Option<Error> {
        let error = at.segment.error("read", at.offset);
        let mut from = at.offset;
        let is_walking = at.expected < self.next;
        // At the start of a segment no commit before it confirms the expected position.
        let started = (from > COMMITS_AT && !at.segment.is_sparse()).then_some(from);
        loop {
            match at.scanner.find(from, SearchTarget { position: at.expected, started }) {
                Ok(Some((offset, Step::Commit(found)))) => {
                    (at.offset, at.expected) = (offset, found.head.position);
                    let is_before = is_walking && at.expected <= self.next;
                    self.next = self.next.max(at.expected);
                    self.at = Some(at);
                    return (!is_before).then_some(error);
                }
                Ok(Some((offset, _))) => from = offset.saturating_add(ALIGN),
                Ok(None) => break,
                Err(unreadable) => {
                    self.skip(at.segment.number());
                    return Some(unreadable);
                }
            }
        }
        self.skip(at.segment.number());
        Some(error)
    }

    /// Continues with the first commit of the segment after this one, if any.
    fn skip(&mut self, number: u32) {
        let following = self.view.segments.after(number);
        let first = following.map_or_else(|| self.end(), |segment| segment.first_position);
        self.next = first.max(self.next);
    }

    /// Returns the position after the last commit of the view.
    fn end(&self) -> u64 {
        self.view.position().get().saturating_add(1)
    }

    /// Moves to the next batch of events of the commit. Returns `Ok(false)` after the last one.
    fn next_batch(&mut self) -> Result<bool> {
        let (Some((found, left)), Some(at)) = (&mut self.commit, &self.at) else {
            return Ok(false);
        };
        for this in left {
            let Some(head) = found.batches.get(this) else { break };
            let bad = found.is_bad(this);
            let stream = StreamId::from_bytes(head.stream);
            match (head.kind, at.scanner.pinned(head.range_in(found.offset))) {
                (Some(BatchKind::Events), Some((pin, frames))) if !bad => {
                    let context = BatchContext {
                        stream,
                        first_seq: head.first_seq,
                        generation: head.generation,
                        position: Some(found.head.position),
                        dropped: dropped_in(&found.batches, this),
                        pin,
                    };
                    let batch = Batch::new(context, u64::from(head.count), frames);
                    self.batch = Some((batch, head.first_seq));
                    return Ok(true);
                }
                (Some(BatchKind::Events), _) => {
                    let seqs = head.first_seq..head.first_seq.saturating_add(u64::from(head.count));
                    let place = crate::segment::place(at.segment.number(), found.offset);
                    return Err(lost(stream, seqs).at(place));
                }
                _ => {}
            }
        }
        self.commit = None;
        Ok(false)
    }

    /// Lends the next event. Unlike `next()`, it does not touch a reference count.
    ///
    /// # Errors
    ///
    /// The errors of the iterator's items.
    #[inline]
    pub fn lend(&mut self) -> Option<Result<EventRef<'_>>> {
        match self.find_next()? {
            Ok(frame) => self.batch.as_ref().map(|(batch, _)| Ok(batch.lend(frame))),
            Err(error) => Some(Err(error)),
        }
    }

    #[inline]
    fn find_next(&mut self) -> Option<Result<FrameAt>> {
        if let Some((batch, seq)) = &mut self.batch
            && batch.holds(*seq)
            && let Some(frame) = batch.forward(*seq)
        {
            *seq = seq.saturating_add(1);
            return Some(Ok(frame));
        }
        self.find_further()
    }

    /// Ends the iteration at an event of the current commit that this version does not know.
    fn refuse(&mut self) -> Error {
        self.next = u64::MAX;
        match (self.commit.take(), &self.at) {
            (Some((found, _)), Some(at)) => unsupported(&at.segment, found.offset),
            _ => Error::new(ErrorKind::UnsupportedFeature, "read"),
        }
    }

    fn find_further(&mut self) -> Option<Result<FrameAt>> {
        loop {
            if let Some((mut batch, seq)) = self.batch.take()
                && batch.holds(seq)
            {
                let frame = batch.forward(seq);
                let seqs = seq..batch.end_seq();
                let stream = batch.stream();
                match frame {
                    Some(frame) => {
                        self.batch = Some((batch, seq.saturating_add(1)));
                        return Some(Ok(frame));
                    }
                    None if batch.is_unknown(seq) => return Some(Err(self.refuse())),
                    None => return Some(Err(lost(stream, seqs))),
                }
            }
            let more = if self.commit.is_some() {
                self.next_batch().map(|_| true)
            } else {
                self.next_commit()
            };
            match more {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    if !matches!(error.kind(), ErrorKind::Corrupt { .. }) {
                        self.next = u64::MAX;
                        self.commit = None;
                    }
                    return Some(Err(error));
                }
            }
        }
    }
}

/// Returns the number of seqs that the commit records as dropped right before the events of its
/// batch `index`. Does not count a gap that compaction removed.
fn dropped_in(batches: &[BatchHead], index: usize) -> u64 {
    let (before, after) = batches.split_at(index);
    let Some(events) = after.first() else { return 0 };
    // Batches are ordered by stream.
    let is_own = |batch: &&BatchHead| batch.stream == events.stream;
    let own =
        || before.iter().rev().take_while(is_own).chain(after.iter().skip(1).take_while(is_own));
    let start =
        [BatchKind::Gap, BatchKind::LongGap].iter().fold(events.first_seq, |start, kind| {
            let ends_here = |gap: &&BatchHead| {
                gap.kind == Some(*kind)
                    && gap.first_seq.checked_add(kind.seqs(gap.count)) == Some(start)
            };
            own().find(ends_here).map_or(start, |gap| gap.first_seq)
        });
    events.first_seq.saturating_sub(start)
}

/// Returns the error for lost events.
fn lost(stream: StreamId, seqs: Range<u64>) -> Error {
    let seqs = Some(Seq(seqs.start)..Seq(seqs.end));
    Error::new(ErrorKind::Corrupt { stream: Some(stream), seqs }, "read")
}

impl Iterator for AllEvents {
    type Item = Result<Event>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.lend().map(|event| event.map(|event| event.hold()))
    }
}
