//! Where in a stream an age or a size is reached: by the index and the heads of commits. No event is read.

use std::ops::Range;

use super::batch::Loader;
use super::walker::{Site, Walker};
use crate::catalog::{Lineage, Snapshot, View};
use crate::error::{Error, ErrorKind, Result};
use crate::format::BatchKind;
use crate::index::BatchRef;
use crate::types::{Seq, StreamId, Timestamp};

/// Measures one stream, as a snapshot shows it.
pub(crate) struct Measure<'a> {
    snapshot: &'a Snapshot,
    view: &'a View<'a>,
    lineage: Lineage,
    loader: Loader,
    /// It was used for an archive file last.
    is_in_file: bool,
}

impl<'a> Measure<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, view: &'a View<'a>) -> Self {
        let lineage = snapshot.catalog.lineage(view.tip, view.head, snapshot.mark.end);
        Self { snapshot, view, lineage, loader: Loader::default(), is_in_file: false }
    }

    /// When something was committed of it last.
    pub(crate) fn last_commit(&mut self) -> Result<Timestamp> {
        let branch = self.snapshot.catalog.branch(self.view.tip);
        let newest = branch.and_then(|branch| self.snapshot.newest(branch));
        let (segment, batch) = newest.ok_or_else(|| self.lost(self.view.head))?;
        let end = self.snapshot.end_in(&segment);
        let commit = self.loader.commit_head(&segment, batch.offset, end)?;
        Ok(Timestamp::from_micros(commit.time_micros))
    }

    /// The first seq that was committed after `time`, and everything behind it. What stands in front of something old
    /// is old, whatever the clock said: so a logarithm of looks will do.
    pub(crate) fn after(&mut self, time: Timestamp) -> Result<u64> {
        let (mut from, mut until) = (self.view.start(), self.view.head);
        let mut middle = from;
        while from < until {
            let (site, at, here, batch) = self.at(middle)?;
            let end = site.view(self.snapshot).end_in(&at.here.segment);
            self.enter(&site);
            let commit = self.loader.commit_head(&at.here.segment, batch.offset, end)?;
            if commit.time_micros <= time.as_micros() {
                from = here.end.min(until);
            } else {
                until = here.start.max(from);
            }
            middle = from + (until - from) / 2;
        }
        Ok(from)
    }

    /// The first seq from which on the batches of the stream take at most so many bytes; the newest of them stays.
    pub(crate) fn within(&mut self, bytes_max: u64) -> Result<u64> {
        let (start, head) = (self.view.start(), self.view.head);
        let (mut kept, mut bytes) = (head, 0_u64);
        while kept > start {
            let Some(seqs) = self.events_before(kept)? else { return Ok(start) };
            let (seqs, more) = seqs;
            bytes = bytes.saturating_add(more);
            if bytes > bytes_max && kept < head {
                return Ok(kept);
            }
            kept = seqs.start;
        }
        Ok(start)
    }

    /// The newest events before `seq` that were committed together, and the bytes of their batch; `None` when only a
    /// gap is there.
    fn events_before(&mut self, seq: u64) -> Result<Option<(Range<u64>, u64)>> {
        let mut end = seq;
        while end > self.view.start() {
            let piece = self.lineage.piece(end - 1).cloned().ok_or_else(|| self.lost(end - 1))?;
            let found = Site::of(self.snapshot, &piece, end - 1)?;
            let site = found.ok_or_else(|| self.lost(end - 1))?;
            let view = site.view(self.snapshot);
            let mut walker = Walker::seek(view, site.branch, end - 1);
            while let Some(at) = walker {
                let Some(batch) = at.batch(view) else { break };
                if batch.kind == BatchKind::Events && batch.first_seq < end {
                    let owner = at.owner(view, self.view.first.stream);
                    let limit = view.end_in(&at.here.segment);
                    self.enter(&site);
                    let (_, head) = self.loader.head(&at.here.segment, owner, &batch, limit)?;
                    let seqs = batch.first_seq..batch.end_seq().min(end);
                    return Ok(Some((seqs, head.end - head.start)));
                }
                walker = at.prev(view);
            }
            end = piece.seqs.start;
        }
        Ok(None)
    }

    /// The batch that holds this seq, and what else of the stream it holds; or the one in front of it, or behind.
    fn at(&self, seq: u64) -> Result<(Site, Walker, Range<u64>, BatchRef)> {
        let piece = self.lineage.piece(seq).ok_or_else(|| self.lost(seq))?;
        let site = Site::of(self.snapshot, piece, seq)?.ok_or_else(|| self.lost(seq))?;
        let view = site.view(self.snapshot);
        let at = Walker::seek(view, site.branch, seq).ok_or_else(|| self.lost(seq))?;
        let batch = at.batch(view).ok_or_else(|| self.lost(seq))?;
        // What stands behind the piece in the same batch belongs to others.
        let seqs = batch.first_seq.max(piece.seqs.start)..batch.end_seq().min(piece.seqs.end);
        let holds = matches!(batch.kind, BatchKind::Events | BatchKind::Gap);
        let here = if holds && seqs.contains(&seq) { seqs } else { seq..seq + 1 };
        Ok((site, at, here, batch))
    }

    /// What was loaded is of one file.
    fn enter(&mut self, site: &Site) {
        if site.is_file() || self.is_in_file {
            self.loader = Loader::default();
            self.is_in_file = site.is_file();
        }
    }

    fn lost(&self, seq: u64) -> Error {
        let stream: StreamId = self.view.first.stream;
        let seqs = Some(Seq(seq)..Seq(seq.saturating_add(1)));
        Error::new(ErrorKind::Corrupt { stream: Some(stream), seqs }, "retain")
    }
}
