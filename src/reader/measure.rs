//! Finds the seq at which a stream reaches an age or a size, from the index and the heads of
//! commits. Reads no events.

use std::ops::Range;

use super::batch::{BatchLoader, SegmentSource};
use super::extent::{Content, Extent};
use super::walker::Walker;
use crate::catalog::{Lineage, ReadView, View};
use crate::error::{Error, ErrorKind, Result};
use crate::index::BatchRef;
use crate::sabotage::{Sabotage, broken};
use crate::types::{Seq, StreamId, Timestamp};

/// For each segment, the earliest vouched commit time of all later segments: an upper bound on the
/// commit times of the segment itself.
pub(crate) struct Vouched(Vec<(u32, u64)>);

impl Vouched {
    pub(crate) fn of(view: &ReadView) -> Self {
        let mut earliest = u64::MAX;
        let mut bounds = Vec::new();
        for segment in view.segments.iter().rev() {
            bounds.push((segment.number(), earliest));
            let first = segment.commits.times().vouched_first;
            earliest = if first > 0 { earliest.min(first) } else { earliest };
        }
        bounds.reverse();
        Self(bounds)
    }

    /// Returns whether the vouched times prove that all of the segment was committed at or before
    /// `time`.
    fn is_before(&self, segment: u32, time: Timestamp) -> bool {
        let at = self.0.partition_point(|(number, _)| *number < segment);
        self.0.get(at).is_some_and(|(_, bound)| *bound <= time.as_micros())
    }
}

/// Measures one stream of a read view.
pub(crate) struct Measure<'a> {
    view: &'a ReadView,
    vouched: &'a Vouched,
    stream_view: &'a View<'a>,
    lineage: Lineage,
    loader: BatchLoader,
}

impl<'a> Measure<'a> {
    pub(crate) fn new(view: &'a ReadView, vouched: &'a Vouched, stream_view: &'a View<'a>) -> Self {
        let lineage = Lineage::new(stream_view.tip, stream_view.head);
        Self { view, vouched, stream_view, lineage, loader: BatchLoader::default() }
    }

    /// Returns whether no commit changed the stream after `time`.
    pub(crate) fn is_idle_since(&mut self, time: Timestamp) -> Result<bool> {
        let branch = self.view.catalog.branch(self.stream_view.tip);
        let newest = branch.and_then(|branch| self.view.newest(branch));
        let (segment, batch, _) = newest.ok_or_else(|| self.lost(self.stream_view.head))?;
        let source = (&**self.view.files()?, &*segment);
        Ok(self.is_old(source, batch.offset, time)? == Some(true)
            || self.vouched.is_before(segment.number(), time))
    }

    /// Returns the seq after the events committed at or before `time`, up to the first event that
    /// was committed later. Checks every commit, because the clock may have jumped at any of them.
    pub(crate) fn after(&mut self, time: Timestamp) -> Result<u64> {
        let (start, head) = (self.stream_view.start(), self.stream_view.head);
        let mut old = start;
        let mut seq = start;
        while seq < head {
            let (at, here, batch) = self.at(seq)?;
            let segment = &at.here.segment;
            seq = here.end.clamp(seq.saturating_add(1), head);
            if self.vouched.is_before(segment.number(), time) {
                old = seq;
                continue;
            }
            match self.is_old(source(self.view, &at)?, batch.offset, time)? {
                Some(true) => old = seq,
                Some(false) => break,
                // Not vouched for: the next vouched commit decides.
                None => {}
            }
        }
        Ok(old)
    }

    /// Returns whether a commit was made at or before `time`, or `None` if its writer does not
    /// vouch for the commit's time.
    fn is_old(
        &mut self,
        source: SegmentSource<'_>,
        offset: u64,
        time: Timestamp,
    ) -> Result<Option<bool>> {
        let end = self.view.end_in(source.1);
        let date = self.loader.commit_head(source, offset, end)?.date;
        let is_believed = date.is_vouched || broken(Sabotage::BelieveClock);
        Ok(is_believed.then_some(date.time <= time))
    }

    /// Returns the first seq from which the batches of the stream take at most `bytes_max` bytes in
    /// total. Always keeps the newest batch.
    pub(crate) fn within(&mut self, bytes_max: u64) -> Result<u64> {
        let (start, head) = (self.stream_view.start(), self.stream_view.head);
        let (mut kept, mut bytes) = (head, 0_u64);
        while kept > start {
            let Some((seqs, more)) = self.events_before(kept)? else { return Ok(start) };
            bytes = bytes.saturating_add(more);
            if bytes > bytes_max && kept < head {
                return Ok(kept);
            }
            kept = seqs.start;
        }
        Ok(start)
    }

    /// Returns the seqs of the newest batch of events before `seq` and its size in bytes, or `None`
    /// if only a gap precedes `seq`.
    fn events_before(&mut self, seq: u64) -> Result<Option<(Range<u64>, u64)>> {
        let mut end = seq;
        while end > self.stream_view.start() {
            let newest = end.saturating_sub(1);
            let extent = self.extent(newest);
            match extent.content {
                Content::Events(at, batch) => {
                    let owner = at.owner(self.view, self.stream_view.first.stream);
                    let limit = self.view.end_in(&at.here.segment);
                    let (_, head) =
                        self.loader.head(source(self.view, &at)?, owner, &batch, limit)?;
                    let seqs = extent.seqs.start..extent.seqs.end.min(end);
                    return Ok(Some((seqs, head.bytes())));
                }
                Content::Gap(..) => end = extent.seqs.start,
                Content::Lost(_) => return Err(self.lost(newest)),
            }
        }
        Ok(None)
    }

    /// Returns the batch that covers a seq, and the seqs of the stream that it covers.
    fn at(&self, seq: u64) -> Result<(Walker, Range<u64>, BatchRef)> {
        let extent = self.extent(seq);
        match extent.content {
            Content::Events(at, batch) | Content::Gap(at, batch) => Ok((at, extent.seqs, batch)),
            Content::Lost(_) => Err(self.lost(seq)),
        }
    }

    fn extent(&self, seq: u64) -> Extent {
        Extent::of_view(self.view, self.lineage, seq, self.stream_view.head)
    }

    fn lost(&self, seq: u64) -> Error {
        let stream: StreamId = self.stream_view.first.stream;
        let seqs = Some(Seq(seq)..Seq(seq.saturating_add(1)));
        Error::new(ErrorKind::Corrupt { stream: Some(stream), seqs }, "retain")
    }
}

/// Returns the segment of the walker's batch and the files to read it with.
fn source<'a>(view: &'a ReadView, at: &'a Walker) -> Result<SegmentSource<'a>> {
    match at.here.batches.failure() {
        Some(error) => Err(error.clone()),
        None => Ok((view.files()?, &at.here.segment)),
    }
}
