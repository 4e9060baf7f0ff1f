//! One batch: loads and verifies it, and finds the events in it.

use std::ops::Range;
use std::sync::Arc;

use super::event::{BatchContext, EventRef, FrameAt};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    BatchHead, COMMITS_AT, CommitHead, Frames, batch_crc, commit_header, frame_head, marker,
};
use crate::index::{BatchRef, StreamBatches};
use crate::sabotage::{Sabotage, broken};
use crate::segment::{FilePool, Segment, Window};
use crate::sync::atomic::Ordering;
use crate::types::{StreamId, range_len};

/// Read size for an active segment. Starts small, because batches of other streams may lie between
/// two of this stream, and doubles with each read that continues the last one.
const READ_AHEAD_BYTES_FIRST: u64 = 8 << 10;
const READ_AHEAD_BYTES_MAX: u64 = 256 << 10;

/// Bounds on the part of the next commit that is prefetched. Beyond it the processor's own
/// prefetcher takes over.
const PREFETCH_BYTES_MIN: u64 = 8 << 10;
const PREFETCH_BYTES_MAX: u64 = 16 << 10;

/// Minimum length of a walk, in frames, that is prefetched.
const WALK_FRAMES_MIN: u64 = 4;
/// Maximum number of bytes that a walk prefetches.
const WALK_BYTES_MAX: usize = 16 << 10;

/// Extent of the verification of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BatchCheck {
    /// The head of the batch and the checksum of its bytes.
    Bytes,
    /// The head alone: place, owner, seqs and generation.
    Head,
}

/// The frames of one batch of one stream.
#[derive(Clone)]
pub(crate) struct Batch {
    context: Arc<BatchContext>,
    count: u64,
    /// Number of events shown, from the first; the rest are cut off by a fork or a rewind.
    shown: u64,
    frames: Range<usize>,
    /// Index and offset of the next frame of a forward walk.
    front: (u64, usize),
    /// Offsets of all frames, filled by the first backward read.
    starts: Vec<u32>,
}

impl Batch {
    /// Creates a batch of `count` events whose frames lie at `frames` in the pin.
    pub(crate) fn new(context: BatchContext, count: u64, frames: Range<usize>) -> Self {
        let front = (0, frames.start);
        Self { context: Arc::new(context), count, shown: count, frames, front, starts: Vec::new() }
    }

    /// Returns the stream that the events are shown to belong to.
    pub(super) fn stream(&self) -> StreamId {
        self.context.stream
    }

    pub(crate) fn first_seq(&self) -> u64 {
        self.context.first_seq
    }

    pub(crate) fn end_seq(&self) -> u64 {
        self.context.first_seq.saturating_add(self.count)
    }

    /// Shows only the events before this seq.
    pub(super) fn end_at(&mut self, end: u64) {
        self.shown = self.count.min(end.saturating_sub(self.context.first_seq));
    }

    /// Returns the seq after the last event that is shown.
    pub(super) fn shown_end(&self) -> u64 {
        self.context.first_seq.saturating_add(self.shown)
    }

    /// Returns the number of events dropped right before the first.
    pub(crate) fn dropped(&self) -> u64 {
        self.context.dropped
    }

    /// Replaces the number of events dropped right before the first.
    pub(super) fn dropped_as(mut self, dropped: u64) -> Self {
        if dropped != self.context.dropped {
            self.context = Arc::new(BatchContext { dropped, ..(*self.context).clone() });
        }
        self
    }

    #[inline]
    pub(crate) fn holds(&self, seq: u64) -> bool {
        seq.wrapping_sub(self.context.first_seq) < self.shown
    }

    /// Finds the frame of a seq by walking on from the last frame found. Returns `None` if the
    /// frames do not match the head of the batch, or if this version does not know the frame.
    #[inline]
    pub(super) fn forward(&mut self, seq: u64) -> Option<FrameAt> {
        let wanted = seq.checked_sub(self.context.first_seq)?;
        if wanted < self.front.0 {
            self.front = (0, self.frames.start);
        }
        let bytes = self.context.pin.get(self.frames.clone())?;
        if wanted.saturating_sub(self.front.0) >= WALK_FRAMES_MIN {
            self.fetch_up_to(wanted);
        }
        loop {
            let (index, at) = self.front;
            let head = frame_head(bytes.get(at.checked_sub(self.frames.start)?..)?)?;
            self.front = (index.checked_add(1)?, at.checked_add(head.frame_bytes())?);
            if index == wanted {
                return head.is_known().then_some(FrameAt { seq, head, at });
            }
        }
    }

    /// Lends the event of a seq.
    pub(crate) fn next(&mut self, seq: u64) -> Option<EventRef<'_>> {
        let frame = self.forward(seq)?;
        Some(self.lend(frame))
    }

    /// Prefetches the frames up to the wanted one. Each frame holds the length that leads to the
    /// next, so a walk would otherwise wait for every cache miss in turn.
    #[cold]
    fn fetch_up_to(&self, wanted: u64) {
        let all = (self.frames.len() as u64).saturating_mul(wanted.saturating_add(1));
        let part = all.checked_div(self.count).unwrap_or(0) as usize;
        let end = self.frames.start.saturating_add(part).min(self.frames.end);
        let end = end.min(self.front.1.saturating_add(WALK_BYTES_MAX));
        self.context.pin.prefetch_all(self.front.1..end);
    }

    /// Finds the frame of a seq in a table of all frames, for reading backwards.
    #[inline]
    pub(super) fn backward(&mut self, seq: u64) -> Option<FrameAt> {
        if self.starts.is_empty() {
            self.list_starts()?;
        }
        let start = self.starts.get(seq.checked_sub(self.context.first_seq)? as usize)?;
        let at = self.frames.start.checked_add(*start as usize)?;
        let head = frame_head(self.context.pin.get(at..self.frames.end)?)?;
        head.is_known().then_some(FrameAt { seq, head, at })
    }

    fn list_starts(&mut self) -> Option<()> {
        let bytes = self.context.pin.get(self.frames.clone())?;
        self.starts.extend(Frames::new(bytes).map(|(at, _)| at as u32));
        Some(())
    }

    /// Reports whether the frame of this seq is there, with flags that this version does not know.
    pub(super) fn is_unknown(&self, seq: u64) -> bool {
        let bytes = self.context.pin.get(self.frames.clone()).unwrap_or_default();
        let index = seq.saturating_sub(self.context.first_seq);
        let frame = Frames::new(bytes).nth(index as usize);
        frame.is_some_and(|(_, head)| !head.is_known())
    }

    /// Returns the seq of the first unreadable frame, which is at or before the unreadable `seq`.
    pub(super) fn first_bad(&self, seq: u64) -> u64 {
        let whole = self.context.pin.get(self.frames.clone());
        let whole = whole.map_or(0, |bytes| Frames::new(bytes).count() as u64);
        self.context.first_seq.saturating_add(whole).min(seq)
    }

    /// Lends the event of a frame of this batch.
    #[inline]
    pub(super) fn lend(&self, frame: FrameAt) -> EventRef<'_> {
        EventRef::new(&self.context, frame)
    }

    /// Consumes the batch and returns its table of frames, cleared, for reuse.
    pub(super) fn into_table(self) -> Vec<u32> {
        let mut starts = self.starts;
        starts.clear();
        starts
    }

    pub(super) fn use_table(&mut self, starts: Vec<u32>) {
        self.starts = starts;
    }
}

/// Expected owner of a batch, and the stream that its events are shown to belong to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Owner {
    pub(crate) stream: StreamId,
    pub(crate) generation: u32,
    pub(crate) shown_as: StreamId,
}

/// A segment, and the pool of files to read it with.
pub(super) type SegmentSource<'a> = (&'a FilePool, &'a Segment);

/// Reads batches of segments. Keeps the window that it read last.
#[derive(Debug)]
pub(crate) struct BatchLoader {
    window: Option<(u32, Window)>,
    ahead: u64,
    /// Length of the commit read last, as a guess at the length of the next one.
    usual: u64,
}

impl Default for BatchLoader {
    fn default() -> Self {
        Self { window: None, ahead: READ_AHEAD_BYTES_FIRST, usual: 0 }
    }
}

impl BatchLoader {
    /// Loads and verifies the batch that an index entry points to. `dropped` is the number of
    /// events dropped right before it, `end` the end of the readable part of the segment.
    pub(crate) fn load(
        &mut self,
        source: SegmentSource<'_>,
        owner: Owner,
        (at, dropped, check): (&BatchRef, u64, BatchCheck),
        end: u64,
    ) -> Result<Batch> {
        let (position, head) = self.head(source, owner, at, end)?;
        let range = head.range_in(at.offset);
        let window = self.window(source, range.clone(), end)?;
        let bytes = window.get(range.clone()).unwrap_or_default();
        let damaged = || source.1.damaged("read", at.offset, window.unread(&range));
        let skip = check == BatchCheck::Head || broken(Sabotage::SkipChecksum);
        if !skip && batch_crc(&[bytes]) != head.crc {
            return Err(damaged());
        }
        let (pin, frames) = window.pinned(&range).ok_or_else(damaged)?;
        let context = BatchContext {
            stream: owner.shown_as,
            first_seq: head.first_seq,
            generation: head.generation,
            position: Some(position),
            dropped,
            pin,
        };
        Ok(Batch::new(context, u64::from(head.count), frames))
    }

    /// Prefetches the commit that is read next, assuming the length of the last one. Commits of
    /// other streams lie between, so the processor's own prefetcher cannot predict it.
    pub(super) fn expect(&self, batches: &StreamBatches, offset: u64) {
        let bytes = self.usual.clamp(PREFETCH_BYTES_MIN, PREFETCH_BYTES_MAX);
        batches.prefetch(offset..offset.saturating_add(bytes));
    }

    /// Reads and checks the head of the commit that an index entry points to.
    pub(super) fn commit_head(
        &mut self,
        source: SegmentSource<'_>,
        offset: u64,
        end: u64,
    ) -> Result<CommitHead> {
        let segment = source.1;
        if self.usual == 0 {
            self.usual = segment.usual_bytes.load(Ordering::Relaxed);
        }
        let first = offset..offset.saturating_add(commit_header::BYTES as u64);
        let window = self.window(source, first.clone(), end)?;
        let bytes = window.get(first.clone()).unwrap_or_default();
        CommitHead::decode(bytes, segment.header.salt)
            .filter(|commit| commit.length <= end.saturating_sub(offset))
            .ok_or_else(|| segment.damaged("read", offset, window.unread(&first)))
    }

    /// Reads the head of a batch from the directory of its commit, and the commit's position.
    pub(super) fn head(
        &mut self,
        source: SegmentSource<'_>,
        owner: Owner,
        at: &BatchRef,
        end: u64,
    ) -> Result<(u64, BatchHead)> {
        let segment = source.1;
        let commit = self.commit_head(source, at.offset, end)?;
        let is_long = commit.length > READ_AHEAD_BYTES_MAX;
        // Of a long commit, only what is asked for is read.
        let usual = if is_long { 0 } else { commit.length };
        if self.usual != usual {
            self.usual = usual;
            segment.usual_bytes.store(usual, Ordering::Relaxed);
        }
        let head = match is_long {
            true => long_head(source, &commit, owner, at, end)?,
            false => self.short_head(source, &commit, owner, at, end)?,
        };
        if !commit.is_known || head.kind.is_none() {
            return Err(unsupported(segment, at.offset));
        }
        let same = head.first_seq == at.first_seq && head.count == at.count;
        if same && head.generation == owner.generation {
            Ok((commit.position, head))
        } else {
            Err(segment.error("read", at.offset))
        }
    }

    /// Reads a commit as a whole, and returns the head of the batch.
    fn short_head(
        &mut self,
        source: SegmentSource<'_>,
        commit: &CommitHead,
        owner: Owner,
        at: &BatchRef,
        end: u64,
    ) -> Result<BatchHead> {
        let segment = source.1;
        let range = at.offset..at.offset.saturating_add(commit.length);
        let window = self.window(source, range.clone(), end)?;
        let bytes = window.get(range.clone()).unwrap_or_default();
        let marker = bytes.get(bytes.len().saturating_sub(marker::BYTES)..).unwrap_or_default();
        let is_closed = commit.is_closed_by(marker);
        let directory = commit.directory(bytes).filter(|_| is_closed);
        let head = directory.and_then(|all| all.find(owner.stream.as_bytes(), at.kind));
        head.ok_or_else(|| segment.damaged("read", at.offset, window.unread(&range)))
    }

    /// Returns a window that contains `range`, reading it unless the last window does.
    fn window(
        &mut self,
        source: SegmentSource<'_>,
        range: Range<u64>,
        end: u64,
    ) -> Result<&Window> {
        let (files, segment) = source;
        let is_loaded = self
            .window
            .as_ref()
            .is_some_and(|(number, window)| *number == segment.number() && window.holds(&range));
        if !is_loaded {
            let (number, used) = self.window.take().unzip();
            let last = used.as_ref().filter(|_| number == Some(segment.number()));
            let last = last.map_or(0..0, |window| window.start..window.end);
            let is_near = |before: u64, at: u64| at <= before.saturating_add(self.ahead);
            let onward = range.start >= last.start && is_near(last.end, range.start);
            let backward = range.start < last.start && is_near(range.end, last.start);
            let follows = !last.is_empty() && (onward || backward);
            let more = self.ahead.saturating_mul(2).min(READ_AHEAD_BYTES_MAX);
            // One read covers a commit up to a sixteenth longer than the last one.
            let first = READ_AHEAD_BYTES_FIRST.max(self.usual.saturating_add(self.usual / 16));
            self.ahead = if follows { more } else { first.min(READ_AHEAD_BYTES_MAX) };
            // A backward read continues before this range.
            let before = if backward { self.ahead } else { 0 };
            let start = range.start.min(range.start.saturating_sub(before).max(COMMITS_AT));
            let twice = self.usual.saturating_mul(2);
            let ahead = if backward {
                range_len(&(start..range.start)).saturating_add(twice)
            } else {
                self.ahead
            };
            let window = segment.read_over(files, used, start..range.end, ahead, end)?;
            self.window = Some((segment.number(), window));
        }
        match &self.window {
            Some((_, window)) => Ok(window),
            None => Err(segment.error("read", 0)),
        }
    }
}

/// Returns the error for a commit at `offset` of which this build does not understand something.
pub(super) fn unsupported(segment: &Segment, offset: u64) -> Error {
    Error::new(ErrorKind::UnsupportedFeature, "read").at(segment.place(offset))
}

/// Returns the head of a batch of a long commit. Reads the marker, and the directory entries that
/// the search looks at: a directory of very many streams takes longer to read than to search.
fn long_head(
    (files, segment): SegmentSource<'_>,
    commit: &CommitHead,
    owner: Owner,
    at: &BatchRef,
    end: u64,
) -> Result<BatchHead> {
    let damaged =
        |range: &_, window: &Window| segment.damaged("read", at.offset, window.unread(range));
    let close = at.offset.saturating_add(commit.length);
    let marker_at = close.saturating_sub(marker::BYTES as u64)..close;
    let marker = segment.read(files, marker_at.clone(), 0, end)?;
    let bytes = marker.get(marker_at.clone()).unwrap_or_default();
    if !commit.is_closed_by(bytes) {
        return Err(damaged(&marker_at, &marker));
    }
    let stream = owner.stream.as_bytes();
    let found = commit.search(stream, at.kind, |index| {
        let range = CommitHead::entry_range(at.offset, index);
        let window = segment.read(files, range.clone(), 0, end)?;
        let entry = window.get(range.clone()).and_then(|bytes| bytes.try_into().ok());
        entry.ok_or_else(|| damaged(&range, &window))
    })?;
    if let Some(head) = found {
        return Ok(head);
    }
    let range = at.offset..at.offset.saturating_add(commit.head_bytes());
    let window = segment.read(files, range.clone(), 0, end)?;
    let directory = window.get(range.clone()).and_then(|bytes| commit.directory(bytes));
    let head = directory.and_then(|all| all.find(stream, at.kind));
    head.ok_or_else(|| damaged(&range, &window))
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("stream", &self.context.stream)
            .field("seqs", &(self.first_seq()..self.end_seq()))
            .finish_non_exhaustive()
    }
}
