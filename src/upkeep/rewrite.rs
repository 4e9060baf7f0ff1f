//! One sparse segment from a run of sealed ones: the batches that are wanted, in commits that keep their positions.
//!
//! Everything is verified as it is read; of a run in which anything is not as it was written nothing is taken away.
//! Nothing here decides what is wanted.

use std::sync::Arc;

use super::pace::Pace;
use crate::catalog::{Candidate, Wants};
use crate::disk::{Disk, DiskFile};
use crate::error::{Error, Result};
use crate::format::{
    BatchHead, BatchKind, COMMITS_AT, CommitPlan, Covers, FooterEntry, PlannedBatch, SegmentHeader,
    Trailer, encode_commit, encode_footer, footer_bytes, record_at,
};
use crate::recovery::fold::order;
use crate::recovery::scan::{Found, Scanner, Step};
use crate::sabotage::{Sabotage, broken};
use crate::segment::{Moved, Sealed, Segment, create_anew, place, salt, unfinished_path};
use crate::types::{StreamId, Timestamp};

/// What became of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tally {
    /// The new file's length.
    pub(crate) bytes: u64,
    /// Commits of which nothing is left, batches and events that are gone.
    pub(crate) commits_dropped: u64,
    pub(crate) batches_dropped: u64,
    pub(crate) events_dropped: u64,
}

/// A segment in the making; without a file it is only measured.
pub(crate) struct Rewrite {
    header: SegmentHeader,
    file: Option<(Arc<dyn DiskFile>, Pace)>,
    /// Behind what is written to the file.
    buffer: Vec<u8>,
    written: u64,
    /// Where the last commit ends.
    end: u64,
    entries: Vec<FooterEntry>,
    /// Where commits stood, and where they stand now.
    moved: Moved,
    tally: Tally,
}

impl Rewrite {
    /// Of a run of segments in a row, the first and the last of which are these.
    pub(crate) fn new(first: &Segment, last: &Segment) -> Option<Self> {
        let last_position = last.seal_state()?.last_position;
        let header = SegmentHeader {
            log_id: last.header.log_id,
            number: last.number(),
            reserved_bytes: 0,
            created_micros: Timestamp::now().as_micros(),
            salt: salt(),
            covers: Some(Covers { first: first.first_position, last: last_position }),
        };
        Some(Self {
            header,
            file: None,
            buffer: Vec::new(),
            written: 0,
            end: COMMITS_AT,
            entries: Vec::new(),
            moved: Moved { first: first.first_origin(), places: Vec::new() },
            tally: Tally::default(),
        })
    }

    /// Lets it be written, under the name of what is not finished.
    pub(crate) fn write_to(&mut self, disk: &dyn Disk, pace: Pace) -> Result<()> {
        let path = unfinished_path(self.header.number);
        let file = create_anew(disk, &path).map_err(|error| self.failed(error))?;
        self.file = Some((file, pace));
        self.buffer.extend_from_slice(&self.header.encode());
        Ok(())
    }

    /// Takes over what is wanted of a sealed segment. An error: something of it is not as it was written, or not
    /// wanted to be written.
    pub(crate) fn take(&mut self, segment: &Arc<Segment>, wants: Wants<'_>) -> Result<()> {
        let Some(sealed) = segment.seal_state() else {
            return Err(segment.error("collect", COMMITS_AT));
        };
        // To measure it, what is looked at on the way is enough.
        if self.file.is_some() && !crate::recovery::is_whole(segment)? {
            return Err(segment.error("collect", COMMITS_AT));
        }
        let mut offsets: Vec<u64> =
            (0..sealed.footer.len()).filter_map(|at| Some(sealed.footer.get(at)?.offset)).collect();
        offsets.sort_unstable();
        offsets.dedup();
        let mut scanner = Scanner::new(Arc::clone(segment), sealed.footer_at);
        for offset in offsets {
            match scanner.step(offset)? {
                Step::Commit(found) if found.is_sound() && !found.unknown => {
                    self.take_commit(segment, &scanner, &found, wants)?;
                }
                _ => return Err(segment.error("collect", offset)),
            }
        }
        Ok(())
    }

    fn take_commit(
        &mut self,
        segment: &Segment,
        scanner: &Scanner,
        found: &Found,
        wants: Wants<'_>,
    ) -> Result<()> {
        let asked = |batch: &BatchHead, kind| Candidate {
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
            let Some(kind) = batch.kind else { return Err(segment.error("collect", found.offset)) };
            if wants(&asked(batch, kind)) {
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
        .ok_or_else(|| segment.error("collect", found.offset))?
        .map_err(|error| self.failed(error))
    }

    /// Puts a commit behind the others. `None`: its bytes cannot be had.
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
            time_micros: found.head.time_micros,
            acked: position - 1,
            durable: position - 1,
            salt: self.header.salt,
            batches: &planned,
        };
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
            self.buffer.extend_from_slice((*pin).as_ref().get(range)?);
        }
        self.buffer.extend_from_slice(&tail[tail.len() - length..]);
        let piece_bytes = self.file.as_ref().map_or(usize::MAX, |(_, pace)| pace.piece_bytes());
        Some(if self.buffer.len() >= piece_bytes { self.flush() } else { Ok(()) })
    }

    /// What its commits take so far.
    pub(crate) fn commit_bytes(&self) -> u64 {
        self.end - COMMITS_AT
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let Some((file, pace)) = &mut self.file else { return Ok(()) };
        pace.write(&**file, &self.buffer, self.written)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Ends the segment: footer, trailer, sync. What comes back is whole and durable but for its name; `None`
    /// if it was only measured.
    pub(crate) fn finish(mut self) -> Result<(Option<Arc<Segment>>, Tally)> {
        let footer_at = record_at(self.end);
        self.tally.bytes = footer_at + footer_bytes(self.entries.len());
        let tally = self.tally;
        let Some((file, _)) = &self.file else { return Ok((None, tally)) };
        let file = Arc::clone(file);
        self.entries.sort_by_key(|entry| (entry.stream, entry.offset, order(entry.kind)));
        let Covers { first, last } = self.header.covers.unwrap_or(Covers { first: 1, last: 1 });
        let trailer = Trailer {
            log_id: self.header.log_id,
            number: self.header.number,
            first_position: first,
            last_position: last,
            footer_at,
            salt: self.header.salt,
        };
        self.buffer.resize(self.buffer.len() + (footer_at - self.end) as usize, 0);
        self.buffer.extend_from_slice(&encode_footer(&self.entries, &trailer));
        self.flush().map_err(|error| self.failed(error))?;
        if !broken(Sabotage::RemoveEarly) {
            file.sync_data().map_err(|error| self.failed(error))?;
        }
        let sealed = Sealed::open(&self.header, &*file).map_err(|error| self.failed(error))?;
        let unreadable = || Error::corrupt("collect", place(self.header.number, footer_at));
        let segment = Segment::sealed(self.header, file, sealed.ok_or_else(unreadable)?);
        let segment = Arc::new(segment.moved_from(self.moved));
        // Nothing is taken away on the word of what was just written.
        if !crate::recovery::is_whole(&segment)? {
            return Err(unreadable());
        }
        Ok((Some(segment), tally))
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::io("collect", place(self.header.number, self.end), error)
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
