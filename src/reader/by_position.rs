//! The events of the whole log, in the order of their commits.

use std::sync::Arc;

use super::batch::Batch;
use super::event::Event;
use crate::catalog::Snapshot;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{BatchKind, COMMITS_AT, decode_gap, record_at};
use crate::recovery::scan::{Found, Scanner, Step};
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
    limit: u64,
}

impl LogEvents {
    pub(crate) fn new(snapshot: Snapshot, from: u64) -> Self {
        Self { snapshot, next: from, at: None, commit: None, batch: None }
    }

    fn enter(&self, segment: &Arc<Segment>) -> At {
        let end = self.snapshot.end_in(segment);
        let limit = match segment.seal_state() {
            Some(sealed) => sealed.footer_at.min(end),
            None => end.min(segment.header.reserved_bytes),
        };
        let scanner = Scanner::new(Arc::clone(segment), limit);
        At { segment: Arc::clone(segment), scanner, offset: COMMITS_AT, limit }
    }

    /// Moves to the next commit. `Ok(false)`: there is none.
    fn next_commit(&mut self) -> Result<bool> {
        while self.next <= self.snapshot.position().get() {
            let Some(mut at) = self.at.take() else {
                let Some(segment) = self.snapshot.segments.of_position(self.next) else {
                    return Ok(false);
                };
                self.at = Some(self.enter(segment));
                continue;
            };
            let step = if at.offset < at.limit { at.scanner.step(at.offset)? } else { Step::End };
            match step {
                Step::Commit(found) if found.head.position >= self.next => {
                    let lost = self.next..found.head.position;
                    self.next = found.head.position;
                    if !lost.is_empty() {
                        let error = at.segment.error("read", at.offset);
                        self.at = Some(at);
                        return Err(error);
                    }
                    at.offset = record_at(found.end());
                    self.next += 1;
                    self.at = Some(at);
                    self.commit = Some((found, 0));
                    return Ok(true);
                }
                Step::Commit(found) => {
                    at.offset = record_at(found.end());
                    self.at = Some(at);
                }
                Step::Invalid | Step::Witness(_) if at.offset < at.limit => {
                    let error = at.segment.error("read", at.offset);
                    if let Some((offset, _)) = at.scanner.find(at.offset + 1, 0)? {
                        at.offset = offset;
                        self.at = Some(at);
                    } else {
                        self.leave(&at);
                    }
                    return Err(error);
                }
                _ => {
                    if !self.leave(&at) {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(false)
    }

    /// Goes on in the next segment, if there is one.
    fn leave(&mut self, at: &At) -> bool {
        let Some(segment) = self.snapshot.segments.after(at.segment.number()) else {
            self.next = u64::MAX;
            return false;
        };
        self.at = Some(self.enter(segment));
        true
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
