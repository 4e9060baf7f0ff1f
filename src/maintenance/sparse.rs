//! Sparse segment under construction: commits that keep their positions, then footer and trailer.
//!
//! Holds the bytes that are not in the file yet. The caller writes the header.

use std::io;

use super::throttle::Throttle;
use crate::disk::DiskFile;
use crate::format::{
    COMMITS_AT, CommitDate, CommitPlace, CommitPlan, Covers, FooterEntry, PlannedBatch,
    SegmentHeader, SegmentTimes, Trailer, encode_commit, encode_footer, footer_bytes, index_order,
    place_block, record_at,
};

/// Builder of a sparse segment.
pub(super) struct SparseBuilder {
    pub(super) header: SegmentHeader,
    /// True if the segment is only measured: no byte of it is kept.
    pub(super) is_measured: bool,
    /// Last bytes up to `end`, which are not in the file yet.
    buffer: Vec<u8>,
    end: u64,
    commits: u64,
    entries: Vec<FooterEntry>,
    /// Place of the first commit of each block.
    places: Vec<CommitPlace>,
    times: SegmentTimes,
}

impl SparseBuilder {
    pub(super) fn new(header: SegmentHeader, is_measured: bool) -> Self {
        Self {
            header,
            is_measured,
            buffer: Vec::new(),
            end: COMMITS_AT,
            commits: 0,
            entries: Vec::new(),
            places: Vec::new(),
            times: SegmentTimes::default(),
        }
    }

    /// Returns the offset at which the last record ends.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Returns the number of bytes to be written.
    pub(super) fn unwritten_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Appends a commit, whose batches' bytes `put` appends to the buffer, and returns its offset;
    /// `None` if `put` does. A measured segment calls no `put`.
    pub(super) fn commit(
        &mut self,
        position: u64,
        date: CommitDate,
        batches: &[PlannedBatch],
        put: impl FnOnce(&mut Vec<u8>) -> Option<()>,
    ) -> Option<u64> {
        self.times.note(date, self.commits);
        self.commits += 1;
        let offset = self.pad();
        let is_same = |last: &CommitPlace| place_block(last.offset) == place_block(offset);
        if !self.places.last().is_some_and(is_same) {
            self.places.push(CommitPlace { position, offset });
        }
        self.entries.extend(batches.iter().map(|batch| FooterEntry {
            stream: batch.stream,
            first_seq: batch.first_seq,
            kind: batch.kind,
            count: batch.count,
            offset,
            position,
            generation: batch.generation,
        }));
        self.end = offset + CommitPlan::length(batches);
        if self.is_measured {
            return Some(offset);
        }
        let (acked, durable) = (position - 1, position - 1);
        let plan = CommitPlan { position, date, acked, durable, salt: self.header.salt, batches };
        let (tail, length) = encode_commit(&plan, &mut self.buffer);
        put(&mut self.buffer)?;
        self.buffer.extend_from_slice(&tail[tail.len() - length..]);
        Some(offset)
    }

    /// Appends footer and trailer, and returns the length of the file.
    pub(super) fn finish(&mut self) -> u64 {
        let Covers { first, last } = self.header.covers.unwrap_or(Covers { first: 1, last: 1 });
        self.entries.sort_by_key(|entry| (entry.stream, entry.offset, index_order(entry.kind)));
        let trailer = Trailer {
            log_id: self.header.log_id,
            number: self.header.number,
            is_sparse: true,
            first_position: first,
            last_position: last,
            footer_at: self.pad(),
            times: self.times,
            salt: self.header.salt,
        };
        self.end += footer_bytes(&self.entries, &self.places, first);
        if !self.is_measured {
            self.buffer.extend_from_slice(&encode_footer(&self.entries, &self.places, &trailer));
        }
        self.end
    }

    /// Writes the bytes that are not in the file yet.
    pub(super) fn write(&mut self, file: &dyn DiskFile, pace: &mut Throttle) -> io::Result<()> {
        pace.write(file, &self.buffer, self.end - self.buffer.len() as u64)?;
        self.buffer.clear();
        Ok(())
    }

    /// Pads up to the offset of the next record, and returns it.
    fn pad(&mut self) -> u64 {
        let offset = record_at(self.end);
        if !self.is_measured {
            self.buffer.resize(self.buffer.len() + (offset - self.end) as usize, 0);
        }
        self.end = offset;
        offset
    }
}
