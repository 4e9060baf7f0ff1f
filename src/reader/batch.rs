//! One batch, loaded and verified, and the events in it.

use std::ops::Range;
use std::sync::Arc;

use super::event::{EventRef, FrameAt, Held};
use crate::disk::prefetch_all;
use crate::error::Result;
use crate::format::{
    BatchHead, BatchKind, COMMITS_AT, CommitHead, Frames, batch_crc, commit_header, decode_gap,
    frame_head, marker,
};
use crate::index::BatchRef;
use crate::sabotage::{Sabotage, broken};
use crate::segment::{Segment, Window};
use crate::sync::atomic::Ordering;
use crate::types::StreamId;

/// How much of an active segment is read at once: a little where batches lie far from each other, since
/// those of other streams lie between; twice as much each time one read follows the other.
const READ_AHEAD_BYTES_FIRST: u64 = 8 << 10;
const READ_AHEAD_BYTES_MAX: u64 = 256 << 10;

/// How much of the next commit is fetched ahead: further in, the processor sees what is read.
const PREFETCH_BYTES_MIN: u64 = 8 << 10;
const PREFETCH_BYTES_MAX: u64 = 16 << 10;

/// A walk over so many frames or more has them fetched, so much of them at most.
const WALK_FRAMES_MIN: u64 = 4;
const WALK_BYTES_MAX: usize = 16 << 10;

/// What is verified of a batch: its bytes too, or only where it lies and who says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Check {
    Bytes,
    Place,
}

/// The frames of one batch of one stream.
#[derive(Clone)]
pub(crate) struct Batch {
    held: Arc<Held>,
    count: u64,
    /// So many of its events are asked for; the rest belongs to another branch.
    shown: u64,
    frames: Range<usize>,
    /// The next event from the front: its index, and where its frame starts.
    front: (u64, usize),
    /// Where each frame starts, once somebody reads from the back.
    starts: Vec<u32>,
}

impl Batch {
    /// `frames` is where in the pin the frames lie.
    pub(crate) fn new(held: Held, count: u64, frames: Range<usize>) -> Self {
        let front = (0, frames.start);
        Self { held: Arc::new(held), count, shown: count, frames, front, starts: Vec::new() }
    }

    pub(crate) fn first_seq(&self) -> u64 {
        self.held.first_seq
    }

    pub(crate) fn end_seq(&self) -> u64 {
        self.held.first_seq.saturating_add(self.count)
    }

    /// Shows only the events before this seq.
    pub(super) fn end_at(&mut self, end: u64) {
        self.shown = self.count.min(end.saturating_sub(self.held.first_seq));
    }

    /// The seq behind the last event that is shown.
    pub(super) fn shown_end(&self) -> u64 {
        self.held.first_seq.saturating_add(self.shown)
    }

    /// Events dropped right before the first.
    pub(crate) fn dropped(&self) -> u64 {
        self.held.dropped
    }

    /// With so many events dropped right before the first.
    pub(super) fn dropped_as(mut self, dropped: u64) -> Self {
        if dropped != self.held.dropped {
            self.held = Arc::new(Held { dropped, ..(*self.held).clone() });
        }
        self
    }

    #[inline]
    pub(crate) fn holds(&self, seq: u64) -> bool {
        seq.wrapping_sub(self.held.first_seq) < self.shown
    }

    /// Where the event of this seq is, walking on from the last one that was asked for. `None`: the frames are
    /// not what the batch says they are.
    #[inline]
    pub(super) fn forward(&mut self, seq: u64) -> Option<FrameAt> {
        let wanted = seq - self.held.first_seq;
        if wanted < self.front.0 {
            self.front = (0, self.frames.start);
        }
        let bytes = (*self.held.pin).as_ref().get(..self.frames.end)?;
        if wanted - self.front.0 >= WALK_FRAMES_MIN {
            self.fetch_up_to(wanted);
        }
        loop {
            let (index, at) = self.front;
            let head = frame_head(bytes.get(at..)?)?;
            self.front = (index + 1, at + head.frame_bytes());
            if index == wanted {
                return Some(FrameAt { seq, head, at });
            }
        }
    }

    /// The event of this seq, lent.
    pub(crate) fn next(&mut self, seq: u64) -> Option<EventRef<'_>> {
        let frame = self.forward(seq)?;
        Some(self.lend(frame))
    }

    /// Has the frames in front of the wanted one fetched at once: each says where the next one starts, and one after
    /// the other they would all be waited for.
    #[cold]
    fn fetch_up_to(&self, wanted: u64) {
        let part = (self.frames.len() as u64).saturating_mul(wanted + 1) / self.count.max(1);
        let end = self.frames.start + (part as usize).min(self.frames.len());
        let end = end.min(self.front.1 + WALK_BYTES_MAX);
        prefetch_all((*self.held.pin).as_ref().get(self.front.1..end).unwrap_or_default());
    }

    /// Where the event of this seq is, by a table of all frames: for reading backwards.
    #[inline]
    pub(super) fn backward(&mut self, seq: u64) -> Option<FrameAt> {
        if self.starts.is_empty() {
            self.list_starts()?;
        }
        let start = self.starts.get((seq - self.held.first_seq) as usize)?;
        let at = self.frames.start + *start as usize;
        let head = frame_head((*self.held.pin).as_ref().get(at..self.frames.end)?)?;
        Some(FrameAt { seq, head, at })
    }

    fn list_starts(&mut self) -> Option<()> {
        let bytes = (*self.held.pin).as_ref().get(self.frames.clone())?;
        self.starts.extend(Frames::new(bytes).map(|(at, _)| at as u32));
        (self.starts.len() as u64 == self.count).then_some(())
    }

    /// Lends an event that was found here.
    #[inline]
    pub(super) fn lend(&self, frame: FrameAt) -> EventRef<'_> {
        EventRef::new(&self.held, frame)
    }

    /// Makes this a batch without events whose table is to be used again.
    pub(super) fn into_table(self) -> Vec<u32> {
        let mut starts = self.starts;
        starts.clear();
        starts
    }

    pub(super) fn use_table(&mut self, starts: Vec<u32>) {
        self.starts = starts;
    }
}

/// Whose batches they must be, and to which stream their events are shown to belong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Owner {
    pub(crate) stream: StreamId,
    pub(crate) generation: u32,
    pub(crate) shown_as: StreamId,
}

/// Reads batches of segments, and keeps what it read last.
#[derive(Debug)]
pub(crate) struct Loader {
    window: Option<(u32, Window)>,
    ahead: u64,
    /// The length of the commit that was looked at last.
    usual: u64,
}

impl Default for Loader {
    fn default() -> Self {
        Self { window: None, ahead: READ_AHEAD_BYTES_FIRST, usual: 0 }
    }
}

impl Loader {
    /// Loads and verifies the batch that an index points to, `dropped` events behind the one before. `end`: what
    /// may be read of the segment.
    pub(crate) fn load(
        &mut self,
        segment: &Segment,
        owner: Owner,
        (at, dropped, check): (&BatchRef, u64, Check),
        end: u64,
    ) -> Result<Batch> {
        let (position, head) = self.head(segment, owner, at, end)?;
        let range = at.offset + head.start..at.offset + head.end;
        let window = self.window(segment, range.clone(), end)?;
        let bytes = window.get(range.clone()).unwrap_or_default();
        let skip = check == Check::Place || broken(Sabotage::SkipChecksum);
        if !skip && batch_crc(&[bytes]) != head.crc {
            return Err(segment.error("read", at.offset));
        }
        let (pin, frames) = window.pinned(range).ok_or_else(|| segment.error("read", at.offset))?;
        let position = Some(position);
        let (stream, first_seq, generation) = (owner.shown_as, head.first_seq, head.generation);
        let held = Held { stream, first_seq, generation, position, dropped, pin };
        Ok(Batch::new(held, u64::from(head.count), frames))
    }

    /// Has a commit fetched that will be read next: those of other streams lie between, so that the processor does not
    /// see it coming. It is taken to be as long as the last one.
    pub(super) fn expect(&self, segment: &Segment, offset: u64) {
        let bytes = self.usual.clamp(PREFETCH_BYTES_MIN, PREFETCH_BYTES_MAX);
        segment.prefetch(offset..offset.saturating_add(bytes));
    }

    /// How many events a gap says were dropped.
    pub(crate) fn load_gap(
        &mut self,
        segment: &Segment,
        owner: Owner,
        at: &BatchRef,
        end: u64,
    ) -> Result<u64> {
        let batch = self.load(segment, owner, (at, 0, Check::Bytes), end)?;
        (*batch.held.pin)
            .as_ref()
            .get(batch.frames)
            .and_then(decode_gap)
            .ok_or_else(|| segment.error("read", at.offset))
    }

    /// The head of the commit that an index points to.
    pub(super) fn commit_head(
        &mut self,
        segment: &Segment,
        offset: u64,
        end: u64,
    ) -> Result<CommitHead> {
        if self.usual == 0 {
            self.usual = segment.usual_bytes.load(Ordering::Relaxed);
        }
        let first = offset..offset.saturating_add(commit_header::BYTES as u64);
        let window = self.window(segment, first.clone(), end)?;
        let bytes = window.get(first).unwrap_or_default();
        CommitHead::decode(bytes, segment.header.salt)
            .filter(|commit| commit.length <= end.saturating_sub(offset))
            .ok_or_else(|| segment.error("read", offset))
    }

    /// What is said of a batch in front of its commit, and the commit's position.
    pub(super) fn head(
        &mut self,
        segment: &Segment,
        owner: Owner,
        at: &BatchRef,
        end: u64,
    ) -> Result<(u64, BatchHead)> {
        let damaged = || segment.error("read", at.offset);
        let commit = self.commit_head(segment, at.offset, end)?;
        if self.usual != commit.length.min(READ_AHEAD_BYTES_MAX) {
            self.usual = commit.length.min(READ_AHEAD_BYTES_MAX);
            segment.usual_bytes.store(self.usual, Ordering::Relaxed);
        }
        let close = at.offset + commit.length;
        let marker_at = close - marker::BYTES as u64..close;
        let mut marker = [0; marker::BYTES];
        let mut near = at.offset..close;
        if commit.length > READ_AHEAD_BYTES_MAX {
            // The marker of a long commit is far away: it is fetched by itself.
            let far = segment.read(marker_at.clone(), 0, end)?;
            marker.copy_from_slice(far.get(marker_at).ok_or_else(damaged)?);
            near.end = at.offset + commit.head_bytes();
        } else {
            let window = self.window(segment, near.clone(), end)?;
            marker.copy_from_slice(window.get(marker_at).ok_or_else(damaged)?);
        }
        let window = self.window(segment, near.clone(), end)?;
        let bytes = window.get(near).unwrap_or_default();
        let directory =
            commit.directory(bytes, &marker, segment.header.salt).ok_or_else(damaged)?;
        let head = directory.find(owner.stream.as_bytes(), at.kind).ok_or_else(damaged)?;
        let same = head.first_seq == at.first_seq && head.count == at.count;
        let is_own = head.generation == owner.generation;
        let fits = is_own && (same || at.kind == BatchKind::Gap);
        if fits { Ok((commit.position, head)) } else { Err(damaged()) }
    }

    fn window(&mut self, segment: &Segment, range: Range<u64>, end: u64) -> Result<&Window> {
        let held = self.window.as_ref().is_some_and(|(number, window)| {
            *number == segment.number() && window.get(range.clone()).is_some()
        });
        if !held {
            let (number, used) = self.window.take().unzip();
            let last = used.as_ref().filter(|_| number == Some(segment.number()));
            let last = last.map_or(0..0, |window| window.start..window.end);
            let onward = range.start >= last.start && range.start <= last.end + self.ahead;
            let backward = range.start < last.start && range.end + self.ahead >= last.start;
            let follows = !last.is_empty() && (onward || backward);
            let more = (self.ahead * 2).min(READ_AHEAD_BYTES_MAX);
            // A commit that is about as long as the last one takes one read.
            let first = READ_AHEAD_BYTES_FIRST.max(self.usual + self.usual / 16);
            self.ahead = if follows { more } else { first.min(READ_AHEAD_BYTES_MAX) };
            // Who reads backwards wants what stands before.
            let before = if backward { self.ahead } else { 0 };
            let start = range.start.min(range.start.saturating_sub(before).max(COMMITS_AT));
            let ahead = if backward { range.start - start + 2 * self.usual } else { self.ahead };
            let window = segment.read_over(used, start..range.end, ahead, end)?;
            self.window = Some((segment.number(), window));
        }
        match &self.window {
            Some((_, window)) => Ok(window),
            None => Err(segment.error("read", 0)),
        }
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("stream", &self.held.stream)
            .field("seqs", &(self.first_seq()..self.end_seq()))
            .finish_non_exhaustive()
    }
}
