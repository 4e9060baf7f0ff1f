//! Rewriting: makes one sparse segment of a run of sealed ones, with the live batches in commits
//! that keep their positions.
//!
//! Everything is verified as it is read; a run in which anything is not as it was written stays
//! untouched. The caller decides which batches are live.

use std::sync::Arc;

use super::throttle::Throttle;
use crate::catalog::{BatchCandidate, LivenessTest};
use crate::disk::{Disk, DiskFile};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    BatchHead, BatchKind, COMMITS_AT, CommitPlan, Covers, FooterEntry, PlannedBatch, SegmentHeader,
    SegmentTimes, Trailer, encode_commit, encode_footer, footer_bytes, index_order, record_at,
};
use crate::sabotage::{Sabotage, broken};
use crate::segment::scan::{Found, Scanner, Step};
use crate::segment::{FilePool, Moved, Sealed, Segment, place, salt, unfinished_path};
use crate::types::StreamId;

/// Outcome for a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tally {
    /// Length of the new file.
    pub(crate) bytes: u64,
    /// Number of commits of which nothing is left.
    pub(crate) commits_dropped: u64,
    pub(crate) batches_dropped: u64,
    pub(crate) events_dropped: u64,
}

/// Segment under construction; without a file it is only measured.
pub(crate) struct Rewrite<'a> {
    files: Arc<FilePool>,
    /// Returns whether to stop; called between commits.
    is_over: &'a dyn Fn() -> bool,
    header: SegmentHeader,
    file: Option<(Arc<dyn DiskFile>, Throttle)>,
    /// Bytes to write after those already in the file.
    buffer: Vec<u8>,
    written: u64,
    /// Offset at which the last commit ends.
    end: u64,
    entries: Vec<FooterEntry>,
    /// Old and new offsets of commits.
    moved: Moved,
    times: SegmentTimes,
    tally: Tally,
}

impl<'a> Rewrite<'a> {
    /// Starts a rewrite of consecutive segments, given the first and the last; `files` reads them.
    pub(crate) fn new(
        files: &Arc<FilePool>,
        (first, last): (&Segment, &Segment),
        is_over: &'a dyn Fn() -> bool,
    ) -> Option<Self> {
        let last_position = last.seal_state()?.last_position;
        let header = SegmentHeader {
            log_id: last.header.log_id,
            number: last.number(),
            reserved_bytes: 0,
            created_micros: 0,
            salt: salt(),
            covers: Some(Covers { first: first.first_position, last: last_position }),
        };
        Some(Self {
            files: Arc::clone(files),
            is_over,
            header,
            file: None,
            buffer: Vec::new(),
            written: 0,
            end: COMMITS_AT,
            entries: Vec::new(),
            moved: Moved { first: first.first_origin(), places: Vec::new() },
            times: SegmentTimes::default(),
            tally: Tally::default(),
        })
    }

    /// Creates the output file under an unfinished name, and returns the file and the name.
    pub(crate) fn write_to(
        &mut self,
        disk: &dyn Disk,
        pace: Throttle,
    ) -> Result<(String, Arc<dyn DiskFile>)> {
        self.header.created_micros = disk.now().as_micros();
        let path = unfinished_path(&self.header);
        let file = disk.create(&path).map_err(|error| self.failed(error))?;
        self.file = Some((Arc::clone(&file), pace));
        self.buffer.extend_from_slice(&self.header.encode());
        Ok((path, file))
    }

    /// Copies the live batches of a sealed segment. Fails if anything in it is not as it was
    /// written, or if writing fails.
    pub(crate) fn take(&mut self, segment: &Arc<Segment>, is_live: LivenessTest<'_>) -> Result<()> {
        let Some(sealed) = segment.seal_state() else {
            return Err(segment.error("compact", COMMITS_AT));
        };
        // To measure it, the checks made on the way suffice.
        if self.file.is_some() && !crate::recovery::is_whole(segment, &self.files)? {
            return Err(segment.error("compact", COMMITS_AT));
        }
        let footer = segment.footer(&self.files)?;
        let mut offsets: Vec<u64> =
            (0..footer.len()).filter_map(|at| Some(footer.get(at)?.offset)).collect();
        offsets.sort_unstable();
        offsets.dedup();
        let limit = sealed.footer_at;
        let files = Arc::clone(&self.files);
        let mut scanner = Scanner::new(Arc::clone(segment), limit, files);
        for offset in offsets {
            if (self.is_over)() {
                return Err(Error::new(ErrorKind::Closed, "compact"));
            }
            match scanner.step(offset)? {
                Step::Commit(found) if found.is_sound() && !found.unknown => {
                    self.take_commit(segment, &scanner, &found, is_live)?;
                }
                _ => return Err(segment.error("compact", offset)),
            }
        }
        Ok(())
    }

    fn take_commit(
        &mut self,
        segment: &Segment,
        scanner: &Scanner,
        found: &Found,
        is_live: LivenessTest<'_>,
    ) -> Result<()> {
        let asked = |batch: &BatchHead, kind| BatchCandidate {
            segment,
            offset: found.offset,
            stream: StreamId::from_bytes(batch.stream),
            kind,
            generation: Some(batch.generation),
            first_seq: batch.first_seq,
            count: batch.count,
            position: Some(found.head.position),
        };
        let mut kept: Vec<(BatchHead, BatchKind)> = Vec::with_capacity(found.batches.len());
        for batch in &found.batches {
            let Some(kind) = batch.kind else { return Err(segment.error("compact", found.offset)) };
            if is_live(&asked(batch, kind)) {
                kept.push((*batch, kind));
                continue;
            }
            self.tally.batches_dropped += 1;
            if kind == BatchKind::Events {
                self.tally.events_dropped += u64::from(batch.count);
            }
        }
        if kept.is_empty() {
            self.tally.commits_dropped += 1;
            return Ok(());
        }
        self.moved.places.push((segment.origin(found.offset), record_at(self.end)));
        self.put(found, &kept, |batch| {
            let range = found.offset + batch.start..found.offset + batch.end;
            scanner.pinned(range)
        })
        .ok_or_else(|| segment.error("compact", found.offset))?
        .map_err(|error| self.failed(error))
    }

    /// Appends a commit. Returns `None` if its bytes cannot be read.
    fn put(
        &mut self,
        found: &Found,
        kept: &[(BatchHead, BatchKind)],
        bytes_of: impl Fn(&BatchHead) -> Option<(crate::disk::Pin, std::ops::Range<usize>)>,
    ) -> Option<std::io::Result<()>> {
        let planned: Vec<PlannedBatch> =
            kept.iter().map(|(batch, kind)| plan(batch, *kind)).collect();
        let position = found.head.position;
        let plan = CommitPlan {
            position,
            date: found.head.date,
            acked: position - 1,
            durable: position - 1,
            salt: self.header.salt,
            batches: &planned,
        };
        self.times.note(plan.date, self.moved.places.len() as u64 - 1);
        let offset = record_at(self.end);
        for batch in &planned {
            self.entries.push(FooterEntry {
                stream: batch.stream,
                first_seq: batch.first_seq,
                count: batch.count,
                offset,
                kind: batch.kind,
            });
        }
        let before = std::mem::replace(&mut self.end, offset + CommitPlan::length(&planned));
        if self.file.is_none() {
            return Some(Ok(()));
        }
        self.buffer.resize(self.buffer.len() + (offset - before) as usize, 0);
        let (tail, length) = encode_commit(&plan, &mut self.buffer);
        for (batch, _) in kept {
            let (pin, range) = bytes_of(batch)?;
            self.buffer.extend_from_slice(pin.get(range)?);
        }
        self.buffer.extend_from_slice(&tail[tail.len() - length..]);
        let piece_bytes = self.file.as_ref().map_or(usize::MAX, |(_, pace)| pace.piece_bytes());
        Some(if self.buffer.len() >= piece_bytes { self.flush() } else { Ok(()) })
    }

    /// Returns the number of bytes that the commits take up to now.
    pub(crate) fn commit_bytes(&self) -> u64 {
        self.end - COMMITS_AT
    }

    /// Returns whether anything was left out.
    pub(crate) fn has_dropped(&self) -> bool {
        self.tally.batches_dropped > 0
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let Some((file, pace)) = &mut self.file else { return Ok(()) };
        pace.write(&**file, &self.buffer, self.written)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Ends the segment: footer, trailer, sync. Returns a whole segment that is durable except for
    /// its name; `None` if it was only measured.
    pub(crate) fn finish(mut self) -> Result<(Option<Arc<Segment>>, Tally)> {
        let footer_at = record_at(self.end);
        self.tally.bytes = footer_at + footer_bytes(self.entries.len());
        let tally = self.tally;
        let Some((file, _)) = &self.file else { return Ok((None, tally)) };
        let file = Arc::clone(file);
        self.entries.sort_by_key(|entry| (entry.stream, entry.offset, index_order(entry.kind)));
        let Covers { first, last } = self.header.covers.unwrap_or(Covers { first: 1, last: 1 });
        let trailer = Trailer {
            log_id: self.header.log_id,
            number: self.header.number,
            is_sparse: true,
            first_position: first,
            last_position: last,
            footer_at,
            times: self.times,
            salt: self.header.salt,
        };
        self.buffer.resize(self.buffer.len() + (footer_at - self.end) as usize, 0);
        self.buffer.extend_from_slice(&encode_footer(&self.entries, &trailer));
        self.flush().map_err(|error| self.failed(error))?;
        if !broken(Sabotage::RemoveEarly) {
            file.sync_data().map_err(|error| self.failed(error))?;
        }
        let path = || unfinished_path(&self.header);
        let sealed = Sealed::find(&self.header, &self.files, &*file, path)
            .map_err(|error| self.failed(error))?;
        let unreadable = || Error::corrupt("compact", place(self.header.number, footer_at));
        let segment = Segment::sealed(self.header, sealed.ok_or_else(unreadable)?);
        let segment = Arc::new(segment.moved_from(self.moved));
        // Until the file has its name.
        segment.hold(file);
        // Nothing is removed on the strength of a file that was not read back.
        if !crate::recovery::is_whole(&segment, &self.files)? {
            return Err(unreadable());
        }
        Ok((Some(segment), tally))
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::io("compact", place(self.header.number, self.end), error)
    }
}

fn plan(batch: &BatchHead, kind: BatchKind) -> PlannedBatch {
    PlannedBatch {
        stream: batch.stream,
        first_seq: batch.first_seq,
        count: batch.count,
        kind,
        bytes: batch.end - batch.start,
        crc: batch.crc,
        generation: batch.generation,
    }
}
