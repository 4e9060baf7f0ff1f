//! Scanner for the records of one segment: classifies the record at an offset, and searches for the
//! next record after a bad one.
//!
//! The replay decides if a bad record is a torn tail or damage. Every length is checked against the
//! file before it is followed, and the search is bounded, so that arbitrary bytes cannot cause a
//! panic, a hang, or an allocation larger than the file.

use std::sync::Arc;

use super::{FilePool, Segment, Window};
use crate::change::{Change, Fork, Rewind};
use crate::disk::Pin;
use crate::error::Result;
use crate::format::{
    ALIGN, AttributeError, Attributes, BatchHead, BatchKind, COMMIT_BYTES_MIN, COMMITS_AT, Class,
    CommitHead, CommitPlace, TailRecord, align_up, batch_crc, classify, commit_header, decode_fork,
    decode_tail_record, index_order, is_zero, marker, padding_is_zero, tail_record,
};
use crate::sabotage::{Sabotage, broken};
use crate::types::{CommitId, StreamId, range_len};
use crate::work::step;

/// Number of bytes per read; small enough for a core's own cache.
const READ_AHEAD_BYTES: u64 = 512 << 10;
/// Number of bytes of the first read after a search for one commit; each further read doubles it.
const READ_AHEAD_BYTES_FIRST: u64 = 32 << 10;

/// Commit with a whole header.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) offset: u64,
    pub(crate) head: CommitHead,
    pub(crate) batches: Vec<BatchHead>,
    /// Indexes of the damaged batches, ascending.
    pub(crate) bad: Vec<usize>,
    /// True if the whole directory is: no other batch is missing.
    pub(crate) is_listed: bool,
    /// True if directory, marker and padding are whole.
    pub(crate) closed: bool,
    /// Changes to streams other than their events.
    pub(crate) changes: Vec<(StreamId, Change)>,
    /// Commit id that the program gave it.
    pub(crate) id: Option<CommitId>,
    /// True if it holds something that this build does not understand.
    pub(crate) unknown: bool,
    /// True if it is known to have been acknowledged; every later opening shows it.
    pub(crate) is_acknowledged: bool,
}

impl Found {
    fn new(offset: u64, head: CommitHead) -> Self {
        Self {
            offset,
            head,
            batches: Vec::new(),
            bad: Vec::new(),
            is_listed: false,
            closed: false,
            changes: Vec::new(),
            id: None,
            unknown: !head.is_known,
            is_acknowledged: false,
        }
    }

    /// Checks everything after the header; `bytes` is the whole commit. A commit without its marker
    /// has no batches; otherwise it has those whose directory entries are whole.
    fn verify(&mut self, bytes: &[u8]) {
        let Some(marker_at) = bytes.len().checked_sub(marker::BYTES) else { return };
        let Some(directory) = self.head.directory(bytes) else { return };
        if !self.head.is_closed_by(&bytes[marker_at..]) {
            return;
        }
        self.is_listed = directory.is_whole();
        self.batches.reserve_exact(directory.len());
        self.batches.extend(directory.iter());
        let mut last = self.head.head_bytes() as usize;
        for (index, batch) in self.batches.iter().enumerate() {
            let body = bytes.get(batch.start as usize..batch.end as usize).unwrap_or_default();
            last = batch.end as usize;
            if batch_crc(&[body]) != batch.crc && !broken(Sabotage::SkipChecksum) {
                self.bad.push(index);
                continue;
            }
            match read_change(batch, body, &mut self.changes, &mut self.id) {
                Ok(()) => {}
                Err(AttributeError::Unknown) => self.unknown = true,
                Err(AttributeError::Malformed) => self.bad.push(index),
            }
        }
        let padding = bytes.get(last..marker_at);
        self.closed = self.is_listed && padding.is_some_and(padding_is_zero);
        self.reject_overlaps();
    }

    /// Marks the batches that repeat seqs of another batch of their stream as damaged.
    fn reject_overlaps(&mut self) {
        let (mut first, known) = (0_usize, self.bad.len());
        for share in self.batches.chunk_by(|batch, next| batch.stream == next.stream) {
            let repeated = overlapping(share).into_iter();
            self.bad.extend(repeated.map(|at| first.saturating_add(at)));
            first = first.saturating_add(share.len());
        }
        if self.bad.len() > known {
            self.bad.sort_unstable();
            self.bad.dedup();
        }
    }

    /// Returns the batches grouped by stream, each with the stream's change.
    pub(crate) fn shares(&self) -> impl Iterator<Item = (&[BatchHead], Option<&Change>)> {
        let mut changes = self.changes.iter().peekable();
        let by_stream = self.batches.chunk_by(|batch, next| batch.stream == next.stream);
        by_stream.map(move |batches| {
            // Changes are in the order of their batches.
            let is_own = |(of, _): &&(StreamId, Change)| {
                batches.first().is_some_and(|first| *of.as_bytes() == first.stream)
            };
            (batches, changes.next_if(is_own).map(|(_, change)| change))
        })
    }

    /// Returns the indexes of the batches, with the streams in the order in which the program gave
    /// them.
    pub(crate) fn in_order(&self) -> Vec<usize> {
        let mut indexes: Vec<usize> = (0..self.batches.len()).collect();
        indexes.sort_by_key(|at| self.batches.get(*at).map(|batch| batch.order));
        indexes
    }

    /// Returns true if the batch with this index is damaged.
    pub(crate) fn is_bad(&self, index: usize) -> bool {
        self.bad.binary_search(&index).is_ok()
    }

    pub(crate) fn is_sound(&self) -> bool {
        self.closed && self.bad.is_empty()
    }

    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(self.head.length)
    }
}

/// Returns the indexes of the batches that repeat seqs of another batch. All of them are of one
/// stream and one commit.
pub(crate) fn overlapping(share: &[BatchHead]) -> Vec<usize> {
    let (mut found, mut end) = (Vec::new(), 0);
    if share.len() < 2 {
        return found;
    }
    let mut order: Vec<usize> = (0..share.len()).collect();
    order.sort_by_key(|at| share[*at].kind.map(index_order));
    for at in order {
        let Some(kind) = share[at].kind else { continue };
        match kind.seqs(share[at].count) {
            0 => {}
            _ if share[at].first_seq < end => found.push(at),
            seqs => end = share[at].first_seq.saturating_add(seqs),
        }
    }
    found
}

/// Adds a batch's change to its stream. Batches are ordered by stream.
fn read_change(
    batch: &BatchHead,
    body: &[u8],
    changes: &mut Vec<(StreamId, Change)>,
    id: &mut Option<CommitId>,
) -> Result<(), AttributeError> {
    let kind = match batch.kind.ok_or(AttributeError::Unknown)? {
        BatchKind::Gap | BatchKind::LongGap | BatchKind::Events => return Ok(()),
        BatchKind::CommitId => {
            let bytes = body.try_into().map_err(|_| AttributeError::Malformed)?;
            *id = Some(CommitId(bytes));
            return Ok(());
        }
        kind => kind,
    };
    let stream = StreamId::from_bytes(batch.stream);
    if changes.last().is_none_or(|(last, _)| *last != stream) {
        changes.push((stream, Change::default()));
    }
    let Some((_, change)) = changes.last_mut() else { return Ok(()) };
    match kind {
        BatchKind::Fork => {
            let (base, base_generation) = decode_fork(body).ok_or(AttributeError::Malformed)?;
            let (base, seq) = (StreamId::from_bytes(base), batch.first_seq);
            let generation = batch.generation;
            change.fork = Some(Fork { base, base_generation, seq, generation });
        }
        BatchKind::Rewind => change.rewind = Some(Rewind { to: batch.first_seq, seen: 0 }),
        _ => {
            for attribute in Attributes(body) {
                change.take(&attribute?);
            }
        }
    }
    Ok(())
}

/// Record or gap at an offset.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Commit(Found),
    TailRecord(TailRecord),
    Footer,
    /// Zeros over the length of a record's head, or up to the limit.
    End,
    Invalid,
}

/// Target of a search for the next record after a bad one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SearchTarget {
    /// Minimum position of the record.
    pub(crate) position: u64,
    /// Offset at which the commit of that position started, if known.
    pub(crate) started: Option<u64>,
}

impl SearchTarget {
    /// Matches any record.
    pub(crate) const ANY: Self = Self { position: 0, started: None };

    /// Returns true if a record of `position` can stand at `offset`: the commits before it had
    /// room. A record that cannot stand there is a stray piece of another part of the file.
    pub(crate) fn can_stand(self, position: u64, offset: u64) -> bool {
        let Some(between) = position.checked_sub(self.position) else { return false };
        let room = |started| offset.saturating_sub(started) / COMMIT_BYTES_MIN;
        self.started.is_none_or(|started| between <= room(started))
    }
}

/// Reads the records of a segment up to a limit.
#[derive(Debug)]
pub(crate) struct Scanner {
    files: Arc<FilePool>,
    segment: Arc<Segment>,
    limit: u64,
    /// Number of bytes of the next read.
    ahead: u64,
    window: Option<Window>,
    /// Start of the zeros up to the limit, as a search without a result has found.
    zero_from: u64,
}

impl Scanner {
    pub(crate) fn new(segment: Arc<Segment>, limit: u64, files: Arc<FilePool>) -> Self {
        let ahead = READ_AHEAD_BYTES;
        Self { files, segment, limit, ahead, window: None, zero_from: u64::MAX }
    }

    /// Reads up to another limit from now on.
    pub(crate) fn set_limit(&mut self, limit: u64) {
        (self.limit, self.zero_from) = (limit, u64::MAX);
    }

    /// Returns the record at `offset`.
    ///
    /// # Errors
    ///
    /// Only when the file cannot be read.
    pub(crate) fn step(&mut self, offset: u64) -> Result<Step> {
        self.step_until(offset, self.limit)
    }

    /// Returns the record at `offset`; does not verify a commit that ends after `end`.
    ///
    /// # Errors
    ///
    /// Only when the file cannot be read.
    pub(crate) fn step_until(&mut self, offset: u64, end: u64) -> Result<Step> {
        let salt = self.segment.header.salt;
        let room = self.limit.min(end).saturating_sub(offset);
        let head = self.bytes(offset, room.min(commit_header::BYTES as u64))?;
        Ok(match classify(head) {
            Class::End => Step::End,
            Class::Invalid => Step::Invalid,
            Class::Footer => Step::Footer,
            Class::TailRecord => {
                decode_tail_record(head, salt).map_or(Step::Invalid, Step::TailRecord)
            }
            Class::Commit { .. } => {
                let Some(head) = CommitHead::decode(head, salt) else { return Ok(Step::Invalid) };
                let mut found = Found::new(offset, head);
                if head.length <= room {
                    found.verify(self.bytes(offset, head.length)?);
                }
                Step::Commit(found)
            }
        })
    }

    /// Returns the header of the commit at `offset`, if it is whole. Reads nothing else of the
    /// commit.
    ///
    /// # Errors
    ///
    /// Only when the file cannot be read.
    pub(crate) fn head(&mut self, offset: u64) -> Result<Option<CommitHead>> {
        step();
        let salt = self.segment.header.salt;
        let room = self.limit.saturating_sub(offset);
        let head = self.bytes(offset, room.min(commit_header::BYTES as u64))?;
        Ok(CommitHead::decode(head, salt))
    }

    /// Returns the place of a commit from which the commit of `position` is reached in few steps:
    /// the nearest one in the segment's index that is where the index says. Without such a place,
    /// returns the start of the segment, and the first position that may stand there.
    ///
    /// # Errors
    ///
    /// Only when the file cannot be read.
    pub(crate) fn place_before(&mut self, position: u64) -> Result<CommitPlace> {
        self.ahead = READ_AHEAD_BYTES_FIRST;
        let (segment, files) = (Arc::clone(&self.segment), Arc::clone(&self.files));
        for place in segment.places_before(&files, position) {
            let head = self.head(place.offset)?;
            let is_it = head.is_some_and(|head| head.position == place.position);
            if is_it || broken(Sabotage::TrustPlaces) {
                return Ok(place);
            }
        }
        Ok(CommitPlace { position: segment.first_position, offset: COMMITS_AT })
    }

    /// Returns the first whole record at or after `from` that can stand where it does. Such a
    /// record proves that the log does not end before it.
    pub(crate) fn find(&mut self, from: u64, target: SearchTarget) -> Result<Option<(u64, Step)>> {
        let mut at = align_up(from);
        let (mut used, mut zero_from) = (None, at);
        while at < self.limit {
            let until = self.limit.min(at.saturating_add(READ_AHEAD_BYTES));
            let window = self.segment.read_over(&self.files, used.take(), at..until, 0, until)?;
            let bytes = window.get(at..until).unwrap_or_default();
            let mut inside = bytes.len();
            if !is_zero(bytes) {
                (inside, zero_from) = (0, until);
            }
            while let Some(hit) = next_magic(bytes, inside) {
                let offset = at.saturating_add(hit as u64);
                match self.candidate(offset, target)? {
                    Some(step) => return Ok(Some((offset, step))),
                    None => inside = hit.saturating_add(ALIGN as usize),
                }
            }
            at = until;
            used = Some(window);
        }
        self.zero_from = zero_from;
        Ok(None)
    }

    fn candidate(&mut self, offset: u64, target: SearchTarget) -> Result<Option<Step>> {
        let salt = self.segment.header.salt;
        let room = range_len(&(offset..self.limit));
        let head = self.bytes(offset, room.min(commit_header::BYTES as u64))?;
        let here = match classify(head) {
            Class::TailRecord => {
                decode_tail_record(head, salt).map(|tail_record| tail_record.position)
            }
            Class::Commit { .. } => CommitHead::decode(head, salt).map(|head| head.position),
            _ => None,
        };
        match here {
            Some(here) if target.can_stand(here, offset) => Ok(Some(self.step(offset)?)),
            _ => Ok(None),
        }
    }

    /// Returns true if any bytes after `offset` could not be read.
    pub(crate) fn is_unread_behind(&self, offset: u64) -> bool {
        self.files.unread_of(&self.segment.path()).iter().any(|lost| lost.end > offset)
    }

    /// Returns the end of the last byte at or after `from` that is not zero, or `None` if all are
    /// zero.
    pub(crate) fn last_written(&self, from: u64) -> Result<Option<u64>> {
        let mut at = self.limit.min(self.zero_from);
        let mut used = None;
        while at > from {
            let start = at.saturating_sub(READ_AHEAD_BYTES).max(from);
            let window = self.segment.read_over(&self.files, used.take(), start..at, 0, at)?;
            let bytes = window.get(start..at).unwrap_or_default();
            if !is_zero(bytes) {
                let last = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64;
                return Ok(Some(start.saturating_add(last).saturating_add(1)));
            }
            at = start;
            used = Some(window);
        }
        Ok(None)
    }

    /// Returns the pinned bytes at `range`, which the last step must have read.
    pub(crate) fn pinned(
        &self,
        range: std::ops::Range<u64>,
    ) -> Option<(Pin, std::ops::Range<usize>)> {
        self.window.as_ref()?.pinned(&range)
    }

    /// Returns up to `bytes` bytes at `offset`, and none past the limit. The offset may exceed the
    /// limit, since a whole header can state a commit length that does.
    fn bytes(&mut self, offset: u64, bytes: u64) -> Result<&[u8]> {
        if offset >= self.limit {
            return Ok(&[]);
        }
        let range = offset..offset.saturating_add(bytes).min(self.limit);
        let is_read = self.window.as_ref().is_some_and(|window| window.holds(&range));
        if !is_read {
            let used = self.window.take();
            let (files, ahead) = (&self.files, self.ahead);
            let window = self.segment.read_over(files, used, range.clone(), ahead, self.limit)?;
            self.window = Some(window);
            self.ahead = READ_AHEAD_BYTES.min(ahead.saturating_mul(2));
        }
        Ok(self.window.as_ref().and_then(|window| window.get(range)).unwrap_or_default())
    }
}

/// Returns the next multiple of [`ALIGN`] in `bytes`, at or after `from`, where a commit or a tail
/// record may start.
fn next_magic(bytes: &[u8], from: usize) -> Option<usize> {
    const STEP: usize = ALIGN as usize;
    let words = bytes.get(from..)?.chunks(STEP);
    let starts = |word: &[u8]| {
        word.get(..3)
            .is_some_and(|magic| magic == commit_header::MAGIC || magic == tail_record::MAGIC)
    };
    let index = words.enumerate().find(|(_, word)| starts(word))?.0;
    from.checked_add(index.checked_mul(STEP)?)
}
