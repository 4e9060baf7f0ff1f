//! Rewriting: makes one sparse segment of a run of sealed ones, with the live batches in commits
//! that keep their positions.
//!
//! Everything is verified as it is read; a run in which anything is not as it was written stays
//! untouched. The caller decides which batches are live.

use std::io::IoSlice;
use std::sync::Arc;

use super::merged::{Encoded, MergedBatches, Remainder};
use super::sparse::SparseBuilder;
use super::throttle::Throttle;
use crate::catalog::{BatchCandidate, LivenessTest};
use crate::disk::{Disk, DiskFile, write_all_at};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    BatchHead, BatchKind, COMMITS_AT, Covers, Lsn, PlannedBatch, SegmentHeader, batch_crc,
};
use crate::sabotage::{Sabotage, broken};
use crate::segment::scan::{Found, Scanner, Step};
use crate::segment::{FilePool, Sealed, Segment, place, remove_made, salt, unfinished_path};
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

/// Batch that stays, its kind, and the attributes that replace its own, if any.
type Kept<'a> = (BatchHead, BatchKind, Option<&'a Encoded>);

/// Segment under construction; without a file it is only measured.
pub(crate) struct Rewrite<'a> {
    files: Arc<FilePool>,
    /// Returns whether to stop; called between commits.
    is_over: &'a dyn Fn() -> bool,
    segment: SparseBuilder,
    file: Option<(Arc<dyn DiskFile>, Throttle)>,
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
            segment: SparseBuilder::new(header, true),
            file: None,
            tally: Tally::default(),
        })
    }

    /// Creates the output file under an unfinished name, and returns the file and the name.
    pub(crate) fn write_to(
        &mut self,
        disk: &dyn Disk,
        pace: Throttle,
    ) -> Result<(String, Arc<dyn DiskFile>)> {
        self.segment.is_measured = false;
        let header = &mut self.segment.header;
        header.created_micros = disk.now().as_micros();
        let path = unfinished_path(header);
        let bytes = header.encode();
        let make = || {
            let file = disk.create(&path)?;
            let written = write_all_at(&*file, &mut [IoSlice::new(&bytes)], 0);
            written.inspect_err(|_| drop(remove_made(disk, &path, &*file))).map(|()| file)
        };
        let file = make().map_err(|error| self.failed(error))?;
        self.file = Some((Arc::clone(&file), pace));
        Ok((path, file))
    }

    /// Copies the live batches of a sealed segment, with `merged` in place of the catalog batches
    /// that it stands for. Fails if anything in the segment is not as it was written, or if writing
    /// fails.
    pub(super) fn take(
        &mut self,
        segment: &Arc<Segment>,
        is_live: LivenessTest<'_>,
        merged: &MergedBatches,
    ) -> Result<()> {
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
                    self.take_commit(segment, &scanner, &found, (is_live, merged))?;
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
        (is_live, merged): (LivenessTest<'_>, &MergedBatches),
    ) -> Result<()> {
        let place = Lsn::new(segment.number(), found.offset);
        let asked = |batch: &BatchHead, kind| BatchCandidate {
            stream: StreamId::from_bytes(batch.stream),
            kind,
            generation: batch.generation,
            first_seq: batch.first_seq,
            count: batch.count,
            position: found.head.position,
        };
        let mut kept: Vec<Kept<'_>> = Vec::with_capacity(found.batches.len());
        for batch in &found.batches {
            let Some(kind) = batch.kind else { return Err(segment.error("compact", found.offset)) };
            let remainder = match is_live(&asked(batch, kind)) {
                true if kind == BatchKind::Catalog => {
                    merged.remainder(StreamId::from_bytes(batch.stream), place)
                }
                true => Remainder::Unchanged,
                false => Remainder::Nothing,
            };
            if !matches!(remainder, Remainder::Unchanged) {
                self.tally.batches_dropped += 1;
            }
            match remainder {
                Remainder::Unchanged => kept.push((*batch, kind, None)),
                Remainder::Replaced(other) => kept.push((*batch, kind, Some(other))),
                Remainder::Nothing if kind == BatchKind::Events => {
                    self.tally.events_dropped += u64::from(batch.count);
                }
                Remainder::Nothing => {}
            }
        }
        if kept.is_empty() {
            self.tally.commits_dropped += 1;
            return Ok(());
        }
        let planned: Vec<PlannedBatch> = kept.iter().map(plan).collect();
        let put = |buffer: &mut Vec<u8>| {
            kept.iter().try_for_each(|(batch, _, other)| {
                if let Some((bytes, _)) = other {
                    buffer.extend_from_slice(bytes);
                    return Some(());
                }
                let range = found.offset + batch.start..found.offset + batch.end;
                let (pin, range) = scanner.pinned(range)?;
                buffer.extend_from_slice(pin.get(range)?);
                Some(())
            })
        };
        let made = self.segment.commit(found.head.position, found.head.date, &planned, put);
        made.ok_or_else(|| segment.error("compact", found.offset))?;
        match &self.file {
            Some((_, pace)) if self.segment.unwritten_bytes() >= pace.piece_bytes() => self.write(),
            _ => Ok(()),
        }
    }

    /// Returns the number of bytes that the commits take up to now.
    pub(crate) fn commit_bytes(&self) -> u64 {
        self.segment.end() - COMMITS_AT
    }

    /// Returns whether anything was left out.
    pub(crate) fn has_dropped(&self) -> bool {
        self.tally.batches_dropped > 0
    }

    fn write(&mut self) -> Result<()> {
        let Some((file, pace)) = &mut self.file else { return Ok(()) };
        self.segment.write(&**file, pace).map_err(|error| self.failed(error))
    }

    /// Ends the segment: footer, trailer, sync. Returns a whole segment that is durable except for
    /// its name; `None` if it was only measured.
    pub(crate) fn finish(mut self) -> Result<(Option<Arc<Segment>>, Tally)> {
        let footer_at = self.segment.end();
        self.tally.bytes = self.segment.finish();
        self.write()?;
        let tally = self.tally;
        let Some((file, _)) = &self.file else { return Ok((None, tally)) };
        let (file, header) = (Arc::clone(file), self.segment.header);
        if !broken(Sabotage::RemoveEarly) {
            file.sync_data().map_err(|error| self.failed(error))?;
        }
        let sealed = Sealed::find(&header, &self.files, &*file, || unfinished_path(&header))
            .map_err(|error| self.failed(error))?;
        let unreadable = || Error::corrupt("compact", place(header.number, footer_at));
        let segment = Segment::sealed(header, sealed.ok_or_else(unreadable)?);
        let segment = Arc::new(segment);
        // Until the file has its name.
        segment.hold(file);
        // Nothing is removed on the strength of a file that was not read back.
        if !crate::recovery::is_whole(&segment, &self.files)? {
            return Err(unreadable());
        }
        Ok((Some(segment), tally))
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::io("compact", place(self.segment.header.number, self.segment.end()), error)
    }
}

fn plan((batch, kind, other): &Kept<'_>) -> PlannedBatch {
    let (bytes, count, crc) = match other {
        None => (batch.bytes(), batch.count, batch.crc),
        Some((bytes, count)) => (bytes.len() as u64, *count, batch_crc(&[bytes])),
    };
    PlannedBatch {
        stream: batch.stream,
        first_seq: batch.first_seq,
        count,
        kind: *kind,
        bytes,
        crc,
        generation: batch.generation,
        order: batch.order,
    }
}
