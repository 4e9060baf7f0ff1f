//! The events of the whole log, in the order of their commits.

use std::sync::Arc;

use super::batch::Batch;
use super::event::Event;
use crate::catalog::Snapshot;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{BatchKind, COMMITS_AT, decode_gap, record_at};
use crate::recovery::scan::{Found, Scanner, Step, Wanted};
use crate::segment::Segment;
use crate::types::{Seq, StreamId};

/// All events of a log, commit by commit; inside a commit, stream by stream. What is damaged comes as an
/// error in its place, and reading goes on behind it.
#[derive(Debug)]
pub struct LogEvents {
    snapshot: Snapshot,
    /// The next commit that is wanted.
    next: u64,
    at: Option<At>,
    /// The commit that is being read, and the next of its batches.
    commit: Option<(Found, usize)>,
    batch: Option<(Batch, u64)>,
}

#[derive(Debug)]
struct At {
    segment: Arc<Segment>,
    scanner: Scanner,
    offset: u64,
}

impl At {
    /// At the end of a sparse segment, the position behind all that it speaks for.
    fn behind_what_is_left(&self) -> Option<u64> {
        let sealed = self.segment.seal_state()?;
        let at_end = self.segment.is_sparse() && self.offset >= sealed.footer_at;
        at_end.then_some(sealed.last_position + 1)
    }
}

impl LogEvents {
    pub(crate) fn new(snapshot: Snapshot, from: u64) -> Self {
        Self { snapshot, next: from, at: None, commit: None, batch: None }
    }

    fn enter(&self, segment: &Arc<Segment>) -> Result<At> {
        let end = self.snapshot.end_in(segment);
        let limit = match segment.seal_state() {
            Some(sealed) => sealed.footer_at.min(end),
            None => {
                let failed = |error| segment.io_error("read", 0, error);
                end.min(segment.file.len().map_err(failed)?)
            }
        };
        let scanner = Scanner::new(Arc::clone(segment), limit);
        Ok(At { segment: Arc::clone(segment), scanner, offset: COMMITS_AT })
    }

    /// Moves to the next commit. `Ok(false)`: there is none.
    fn next_commit(&mut self) -> Result<bool> {
        while self.next <= self.snapshot.position().get() {
            let Some(mut at) = self.at.take() else {
                let Some(segment) = self.snapshot.segments.of_position(self.next) else {
                    return self.begin();
                };
                self.at = Some(self.enter(segment)?);
                continue;
            };
            let following = self.snapshot.segments.after(at.segment.number());
            if following.is_some_and(|segment| segment.first_position == self.next) {
                // All of this one was read; what stands behind is a witness, a footer or nothing.
                self.at = None;
                continue;
            }
            if let Some(behind) = at.behind_what_is_left() {
                if self.next < behind {
                    self.next = behind;
                    continue;
                }
                // The segment that should come next is lost.
                self.skip(&at);
                return Err(at.segment.error("read", at.offset));
            }
            let step = match at.scanner.step(at.offset) {
                Ok(step) => step,
                Err(error) => {
                    self.skip(&at);
                    return Err(error);
                }
            };
            match step {
                Step::Commit(found) if self.is_next(&at, found.head.position) => {
                    if found.head.position > self.snapshot.position().get() {
                        return Ok(false);
                    }
                    at.offset = record_at(found.end());
                    self.next = found.head.position + 1;
                    let unknown = found.batches.is_empty();
                    let error = at.segment.error("read", found.offset);
                    self.at = Some(at);
                    if unknown {
                        // Its directory is damaged: nobody knows what was in it.
                        return Err(error);
                    }
                    self.commit = Some((found, 0));
                    return Ok(true);
                }
                Step::Commit(found) if found.head.position < self.next => {
                    at.offset = record_at(found.end());
                    self.at = Some(at);
                }
                _ => return Err(self.missed(at)),
            }
        }
        Ok(false)
    }

    /// Whether a commit of this position is the next one here. In a sparse segment those before it were collected.
    fn is_next(&self, at: &At, position: u64) -> bool {
        position == self.next || at.segment.is_sparse() && position > self.next
    }

    /// No segment holds the next commit: those before the first one that is there are lost.
    fn begin(&mut self) -> Result<bool> {
        let first = self.snapshot.segments.after(0).cloned();
        self.next = first.as_ref().map_or(u64::MAX, |segment| segment.first_position);
        first.map_or(Ok(false), |segment| Err(segment.error("read", 0)))
    }

    /// The next commit is not where it should be. Goes on behind what is lost.
    fn missed(&mut self, mut at: At) -> Error {
        let error = at.segment.error("read", at.offset);
        let mut from = at.offset;
        // At the start of a segment nothing tells which commit should stand there.
        let started = (from > COMMITS_AT && !at.segment.is_sparse()).then_some(from);
        loop {
            match at.scanner.find(from, Wanted { position: self.next, started }) {
                Ok(Some((offset, Step::Commit(found)))) => {
                    at.offset = offset;
                    self.next = found.head.position;
                    self.at = Some(at);
                    return error;
                }
                Ok(Some((offset, _))) => from = offset + crate::format::ALIGN,
                Ok(None) => break,
                Err(unreadable) => {
                    self.skip(&at);
                    return unreadable;
                }
            }
        }
        self.skip(&at);
        error
    }

    /// Goes on with the first commit of the next segment, if there is one.
    fn skip(&mut self, at: &At) {
        let following = self.snapshot.segments.after(at.segment.number());
        self.next = following.map_or(u64::MAX, |segment| segment.first_position.max(self.next));
    }

    /// Moves to the next batch of events of the commit. `Ok(false)`: there is none.
    fn next_batch(&mut self) -> Result<bool> {
        let (Some((found, index)), Some(at)) = (&mut self.commit, &self.at) else {
            return Ok(false);
        };
        let mut dropped = 0;
        while let Some(head) = found.batches.get(*index) {
            let bad = found.bad.contains(index);
            *index += 1;
            let stream = StreamId::from_bytes(head.stream);
            let range = found.offset + head.start..found.offset + head.end;
            match (head.kind, at.scanner.pinned(range)) {
                (Some(BatchKind::Gap), Some((pin, range))) if !bad => {
                    dropped = (*pin).as_ref().get(range).and_then(decode_gap).unwrap_or(0);
                }
                (Some(BatchKind::Events), Some((pin, frames))) if !bad => {
                    let count = u64::from(head.count);
                    let mut batch = Batch::new(stream, head.first_seq, count, pin, frames);
                    batch.position = Some(found.head.position);
                    batch.dropped = dropped;
                    batch.generation = head.generation;
                    self.batch = Some((batch, head.first_seq));
                    return Ok(true);
                }
                (Some(BatchKind::Events), _) => {
                    let end = head.first_seq.saturating_add(u64::from(head.count));
                    let seqs = Some(Seq(head.first_seq)..Seq(end));
                    let kind = ErrorKind::Corrupt { stream: Some(stream), seqs };
                    let place = crate::segment::place(at.segment.number(), found.offset);
                    return Err(Error::new(kind, "read").at(place));
                }
                _ => {}
            }
        }
        self.commit = None;
        Ok(false)
    }
}

impl Iterator for LogEvents {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((batch, seq)) = &mut self.batch {
                if batch.holds(*seq) {
                    let event = batch.forward(*seq);
                    *seq += 1;
                    if let Some(event) = event {
                        return Some(Ok(event));
                    }
                }
                self.batch = None;
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
