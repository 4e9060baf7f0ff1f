//! Walking the records of one segment: what stands at an offset, and what stands after something bad.
//!
//! It classifies and never judges: whether a bad record is a torn tail or damage is for the walk above.
//! Every length is checked against the file before it is followed, and the search for a later record has
//! a bound on its work, so that no bytes whatever make it panic, hang or allocate beyond the file.

use std::sync::Arc;

use crate::catalog::{Change, Fork, Rewind};
use crate::disk::Pin;
use crate::error::Result;
use crate::format::{
    AttributeError, Attributes, BatchHead, BatchKind, COMMIT_BYTES_MIN, Class, CommitHead, Witness,
    batch_crc, classify, commit_header, decode_fork, decode_witness, is_zero, marker,
    padding_is_zero, witness,
};
use crate::sabotage::{Sabotage, broken};
use crate::segment::{Segment, Window};
use crate::types::{CommitId, StreamId};

/// How much is read at once: what stays in a core's own cache, so that it comes from memory once.
const READ_AHEAD_BYTES: u64 = 512 << 10;

/// A commit whose header is whole.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) offset: u64,
    pub(crate) head: CommitHead,
    pub(crate) batches: Vec<BatchHead>,
    /// The batches whose bytes are not what was written, by index.
    pub(crate) bad: Vec<usize>,
    /// Directory, marker and padding are whole.
    pub(crate) closed: bool,
    /// What it says of streams beside their events.
    pub(crate) changes: Vec<(StreamId, Change)>,
    /// What its caller called it.
    pub(crate) id: Option<CommitId>,
    /// It says something that this build does not understand.
    pub(crate) unknown: bool,
}

impl Found {
    fn new(offset: u64, head: CommitHead) -> Self {
        Self {
            offset,
            head,
            batches: Vec::new(),
            bad: Vec::new(),
            closed: false,
            changes: Vec::new(),
            id: None,
            unknown: !head.is_known,
        }
    }

    /// Checks everything behind the header; `bytes` are the whole commit's. If the marker does not prove
    /// the directory, nothing of it is believed.
    fn verify(&mut self, bytes: &[u8], salt: u32) {
        let Some(marker_at) = bytes.len().checked_sub(marker::BYTES) else { return };
        let Some(directory) = self.head.directory(bytes, &bytes[marker_at..], salt) else { return };
        self.batches = directory.iter().collect();
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
        self.closed = bytes.get(last..marker_at).is_some_and(padding_is_zero);
    }

    /// What it says of one stream beside its events.
    pub(crate) fn change(&self, stream: StreamId) -> Option<&Change> {
        let mut changes = self.changes.iter();
        changes.find(|(of, _)| *of == stream).map(|(_, change)| change)
    }

    pub(crate) fn is_sound(&self) -> bool {
        self.closed && self.bad.is_empty()
    }

    pub(crate) fn end(&self) -> u64 {
        self.offset + self.head.length
    }
}

/// Adds what a batch says beside events. Batches are in the order of their streams.
fn read_change(
    batch: &BatchHead,
    body: &[u8],
    changes: &mut Vec<(StreamId, Change)>,
    id: &mut Option<CommitId>,
) -> Result<(), AttributeError> {
    let kind = match batch.kind.ok_or(AttributeError::Unknown)? {
        BatchKind::Gap | BatchKind::Events => return Ok(()),
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

/// What stands at an offset.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Commit(Found),
    Witness(Witness),
    Footer,
    /// Zeros, as wide as a record's head or up to the limit.
    End,
    Invalid,
}

/// Which record is looked for behind something bad.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Its position is this or a later one.
    pub(crate) position: u64,
    /// Where the commit of that position started, if that is known.
    pub(crate) started: Option<u64>,
}

impl Wanted {
    /// Any record at all.
    pub(crate) const ANY: Self = Self { position: 0, started: None };

    /// Whether a record of `position` can stand at `offset`: those before it had room. What cannot is a piece of
    /// another part of the file.
    fn can_stand(self, position: u64, offset: u64) -> bool {
        let Some(between) = position.checked_sub(self.position) else { return false };
        let room = |started| offset.saturating_sub(started) / COMMIT_BYTES_MIN;
        self.started.is_none_or(|started| between <= room(started))
    }
}

/// Reads the records of a segment up to a limit.
#[derive(Debug)]
pub(crate) struct Scanner {
    segment: Arc<Segment>,
    limit: u64,
    window: Option<Window>,
    /// From here to the limit everything is zero, as a search that came to nothing has seen.
    zero_from: u64,
}

impl Scanner {
    pub(crate) fn new(segment: Arc<Segment>, limit: u64) -> Self {
        Self { segment, limit, window: None, zero_from: u64::MAX }
    }

    /// What stands at `offset`.
    ///
    /// # Errors
    ///
    /// Only when the file cannot be read.
    pub(crate) fn step(&mut self, offset: u64) -> Result<Step> {
        self.step_until(offset, self.limit)
    }

    /// What stands at `offset`; a commit that ends behind `end` is not verified.
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
            Class::Witness => decode_witness(head, salt).map_or(Step::Invalid, Step::Witness),
            Class::Commit { .. } => {
                let Some(head) = CommitHead::decode(head, salt) else { return Ok(Step::Invalid) };
                let mut found = Found::new(offset, head);
                if head.length <= room {
                    found.verify(self.bytes(offset, head.length)?, salt);
                }
                Step::Commit(found)
            }
        })
    }

    /// The first whole record at or after `from` that belongs where it stands, as far as `wanted` can tell: the
    /// proof that what stands before it is not the end.
    pub(crate) fn find(&mut self, from: u64, wanted: Wanted) -> Result<Option<(u64, Step)>> {
        let mut at = from.next_multiple_of(crate::format::ALIGN);
        let (mut used, mut zero_from) = (None, at);
        while at < self.limit {
            let until = self.limit.min(at + READ_AHEAD_BYTES);
            let window = self.segment.read_over(used.take(), at..until, 0, until)?;
            let bytes = window.get(at..until).unwrap_or_default();
            let mut inside = bytes.len();
            if !is_zero(bytes) {
                (inside, zero_from) = (0, until);
            }
            while let Some(hit) = next_magic(bytes, inside) {
                let offset = at + hit as u64;
                match self.candidate(offset, wanted)? {
                    Some(step) => return Ok(Some((offset, step))),
                    None => inside = hit + crate::format::ALIGN as usize,
                }
            }
            at = until;
            used = Some(window);
        }
        self.zero_from = zero_from;
        Ok(None)
    }

    fn candidate(&mut self, offset: u64, wanted: Wanted) -> Result<Option<Step>> {
        let salt = self.segment.header.salt;
        let room = self.limit - offset;
        let head = self.bytes(offset, room.min(commit_header::BYTES as u64))?;
        let here = match classify(head) {
            Class::Witness => decode_witness(head, salt).map(|witness| witness.position),
            Class::Commit { .. } => CommitHead::decode(head, salt).map(|head| head.position),
            _ => None,
        };
        match here {
            Some(here) if wanted.can_stand(here, offset) => Ok(Some(self.step(offset)?)),
            _ => Ok(None),
        }
    }

    /// Whether anything but zeros stands in the file from `from` on, and where the last of it ends.
    pub(crate) fn last_written(&self, from: u64) -> Result<Option<u64>> {
        let mut at = self.limit.min(self.zero_from);
        let mut used = None;
        while at > from {
            let start = at.saturating_sub(READ_AHEAD_BYTES).max(from);
            let window = self.segment.read_over(used.take(), start..at, 0, at)?;
            let bytes = window.get(start..at).unwrap_or_default();
            if !is_zero(bytes) {
                let last = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
                return Ok(Some(start + last as u64 + 1));
            }
            at = start;
            used = Some(window);
        }
        Ok(None)
    }

    /// The part of the file at `range`, pinned; it must have been looked at by the last step.
    pub(crate) fn pinned(
        &self,
        range: std::ops::Range<u64>,
    ) -> Option<(Pin, std::ops::Range<usize>)> {
        self.window.as_ref()?.pinned(range)
    }

    /// The bytes at `offset`, as many of them as there are before the limit. A whole header may say that its
    /// commit ends behind the limit, so an offset may lie behind it too.
    fn bytes(&mut self, offset: u64, bytes: u64) -> Result<&[u8]> {
        if offset >= self.limit {
            return Ok(&[]);
        }
        let range = offset..offset.saturating_add(bytes).min(self.limit);
        let held = self.window.as_ref().is_some_and(|window| window.get(range.clone()).is_some());
        if !held {
            let used = self.window.take();
            let window =
                self.segment.read_over(used, range.clone(), READ_AHEAD_BYTES, self.limit)?;
            self.window = Some(window);
        }
        Ok(self.window.as_ref().and_then(|window| window.get(range)).unwrap_or_default())
    }
}

/// The next multiple of eight in `bytes`, from `from` on, where a commit or a witness may start.
fn next_magic(bytes: &[u8], from: usize) -> Option<usize> {
    const STEP: usize = crate::format::ALIGN as usize;
    let words = bytes.get(from..)?.chunks(STEP);
    let starts = |word: &[u8]| {
        word.get(..3).is_some_and(|magic| magic == commit_header::MAGIC || magic == witness::MAGIC)
    };
    words.enumerate().find(|(_, word)| starts(word)).map(|(index, _)| from + index * STEP)
}
