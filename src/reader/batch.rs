//! One batch, loaded and verified, and the events in it.

use std::ops::Range;

use super::event::Event;
use crate::disk::Pin;
use crate::error::Result;
use crate::format::{
    BatchHead, BatchKind, COMMITS_AT, CommitHead, FrameHead, Frames, batch_crc, commit_header,
    decode_gap, frame_head, frame_header, marker,
};
use crate::index::BatchRef;
use crate::sabotage::{Sabotage, broken};
use crate::segment::{Segment, Window};
use crate::types::StreamId;

/// How much of an active segment is read at once: a little where batches lie far from each other, since
/// those of other streams lie between; twice as much each time one read follows the other.
const READ_AHEAD_BYTES_FIRST: u64 = 8 << 10;
const READ_AHEAD_BYTES_MAX: u64 = 256 << 10;

/// The frames of one batch of one stream.
#[derive(Clone)]
pub(crate) struct Batch {
    pub(crate) stream: StreamId,
    pub(crate) first_seq: u64,
    pub(crate) count: u64,
    /// `None` while the batch is volatile.
    pub(crate) position: Option<u64>,
    /// Events dropped right before the first.
    pub(crate) dropped: u64,
    pub(crate) generation: u32,
    /// What is not behind this seq is asked for; the rest belongs to another branch.
    pub(crate) until: u64,
    pin: Pin,
    frames: Range<usize>,
    /// The next event from the front: its index, and where its frame starts.
    front: (u64, usize),
    /// Where each frame starts, once somebody reads from the back.
    starts: Vec<u32>,
}

impl Batch {
    pub(crate) fn new(
        stream: StreamId,
        first_seq: u64,
        count: u64,
        pin: Pin,
        frames: Range<usize>,
    ) -> Self {
        Self {
            stream,
            first_seq,
            count,
            position: None,
            dropped: 0,
            generation: 0,
            until: u64::MAX,
            front: (0, frames.start),
            pin,
            frames,
            starts: Vec::new(),
        }
    }

    pub(crate) fn end_seq(&self) -> u64 {
        self.first_seq.saturating_add(self.count)
    }

    pub(crate) fn holds(&self, seq: u64) -> bool {
        seq >= self.first_seq && seq < self.end_seq().min(self.until)
    }

    /// The event of this seq, walking on from the last one that was asked for. `None`: the frames are not
    /// what the batch says they are.
    pub(crate) fn forward(&mut self, seq: u64) -> Option<Event> {
        let wanted = seq - self.first_seq;
        if wanted < self.front.0 {
            self.front = (0, self.frames.start);
        }
        loop {
            let (index, at) = self.front;
            let head = frame_head((*self.pin).as_ref().get(at..self.frames.end)?)?;
            let end = at + head.frame_bytes();
            self.front = (index + 1, end);
            if index == wanted {
                return Some(self.event(seq, &head, at, end));
            }
        }
    }

    /// The event of this seq, by a table of all frames: for reading backwards.
    pub(crate) fn backward(&mut self, seq: u64) -> Option<Event> {
        if self.starts.is_empty() {
            let bytes = (*self.pin).as_ref().get(self.frames.clone())?;
            self.starts = Frames::new(bytes).map(|(at, _)| at as u32).collect();
            if self.starts.len() as u64 != self.count {
                return None;
            }
        }
        let at = self.frames.start + *self.starts.get((seq - self.first_seq) as usize)? as usize;
        let head = frame_head((*self.pin).as_ref().get(at..self.frames.end)?)?;
        Some(self.event(seq, &head, at, at + head.frame_bytes()))
    }

    fn event(&self, seq: u64, head: &FrameHead, at: usize, end: usize) -> Event {
        Event {
            stream: self.stream,
            seq,
            position: self.position,
            kind: head.kind,
            codec: head.codec,
            time: head.time,
            generation: self.generation,
            dropped_before: if seq == self.first_seq { self.dropped } else { 0 },
            pin: Pin::clone(&self.pin),
            payload: at + frame_header::BYTES..end,
        }
    }
}

/// Whose batches they must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Owner {
    pub(crate) stream: StreamId,
    pub(crate) generation: u32,
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
    /// Loads and verifies the batch that an index points to. `end`: what may be read of the segment.
    pub(crate) fn load(
        &mut self,
        segment: &Segment,
        owner: Owner,
        at: &BatchRef,
        end: u64,
    ) -> Result<Batch> {
        let (position, head) = self.head(segment, owner, at, end)?;
        let range = at.offset + head.start..at.offset + head.end;
        let window = self.window(segment, range.clone(), end)?;
        let bytes = window.get(range.clone()).unwrap_or_default();
        if batch_crc(&[bytes]) != head.crc && !broken(Sabotage::SkipChecksum) {
            return Err(segment.error("read", at.offset));
        }
        let (pin, frames) = window.pinned(range).ok_or_else(|| segment.error("read", at.offset))?;
        let count = u64::from(head.count);
        let mut batch = Batch::new(owner.stream, head.first_seq, count, pin, frames);
        batch.position = Some(position);
        batch.generation = head.generation;
        Ok(batch)
    }

    /// How many events a gap says were dropped.
    pub(crate) fn load_gap(
        &mut self,
        segment: &Segment,
        owner: Owner,
        at: &BatchRef,
        end: u64,
    ) -> Result<u64> {
        let batch = self.load(segment, owner, at, end)?;
        (*batch.pin)
            .as_ref()
            .get(batch.frames)
            .and_then(decode_gap)
            .ok_or_else(|| segment.error("read", at.offset))
    }

    fn head(
        &mut self,
        segment: &Segment,
        owner: Owner,
        at: &BatchRef,
        end: u64,
    ) -> Result<(u64, BatchHead)> {
        let damaged = || segment.error("read", at.offset);
        let first = at.offset..at.offset.saturating_add(commit_header::BYTES as u64);
        let window = self.window(segment, first.clone(), end)?;
        let salt = segment.header.salt;
        let commit = CommitHead::decode(window.get(first).unwrap_or_default(), salt);
        let commit = commit.ok_or_else(damaged)?;
        if commit.length > end.saturating_sub(at.offset) {
            return Err(damaged());
        }
        self.usual = commit.length.min(READ_AHEAD_BYTES_MAX);
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
        let directory = commit.directory(bytes, &marker, salt).ok_or_else(damaged)?;
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
            let last = self.window.take().filter(|(number, _)| *number == segment.number());
            let last = last.map_or(0..0, |(_, window)| window.start..window.end);
            let onward = range.start >= last.start && range.start <= last.end + self.ahead;
            let backward = range.start < last.start && range.end + self.ahead >= last.start;
            let follows = !last.is_empty() && (onward || backward);
            let more = (self.ahead * 2).min(READ_AHEAD_BYTES_MAX);
            self.ahead = if follows { more } else { READ_AHEAD_BYTES_FIRST };
            // Who reads backwards wants what stands before.
            let before = if backward { self.ahead } else { 0 };
            let start = range.start.min(range.start.saturating_sub(before).max(COMMITS_AT));
            let ahead = if backward { range.start - start + 2 * self.usual } else { self.ahead };
            let window = segment.read(start..range.end, ahead, end)?;
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
            .field("stream", &self.stream)
            .field("seqs", &(self.first_seq..self.end_seq()))
            .finish_non_exhaustive()
    }
}
