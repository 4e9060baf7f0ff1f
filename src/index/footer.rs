//! Index of a sealed segment, read in place from its footer.

use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

use super::{BatchCursor, BatchRef};
use crate::disk::Pin;
use crate::format::{CommitPlace, Footer, FooterEntry, commit_place};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::types::StreamId;
use crate::work::step;

/// Verified footer. Empty by default.
#[derive(Default)]
pub(crate) struct FooterIndex {
    pin: Pin,
    /// Offset of the footer in `pin`.
    start: usize,
    footer: Footer,
    /// One bit per entry, set once its batch was verified.
    sound: OnceLock<Box<[AtomicU64]>>,
}

impl FooterIndex {
    /// Verifies the footer at these bytes of `pin`, in a segment that starts at this position.
    pub(crate) fn open(
        pin: Pin,
        range: Range<usize>,
        salt: u32,
        first_position: u64,
    ) -> Option<Self> {
        let footer = Footer::verify(pin.get(range.clone())?, salt, first_position)?;
        Some(Self { pin, start: range.start, footer, sound: OnceLock::new() })
    }

    fn bytes(&self) -> &[u8] {
        self.pin.get(self.start..self.pin.len()).unwrap_or_default()
    }

    pub(crate) fn len(&self) -> u32 {
        self.footer.entries
    }

    /// Returns the entries, in the order of streams and then of commits; `None` for one of an
    /// unknown kind.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Option<FooterEntry>> {
        let runs = self.runs();
        runs.flat_map(move |(stream, run)| run.map(move |at| self.entry(stream, at)))
    }

    /// Returns the entry at this index, of this stream; `None` if its kind is unknown.
    pub(crate) fn entry(&self, stream: StreamId, index: u32) -> Option<FooterEntry> {
        step();
        self.footer.entry(self.bytes(), *stream.as_bytes(), index)
    }

    /// Returns the places of commits, in their order.
    pub(crate) fn places(&self) -> impl Iterator<Item = CommitPlace> {
        let places = self.bytes().get(self.footer.places_at()..).unwrap_or_default();
        (0..self.footer.places as usize).map_while(move |index| commit_place(places, index))
    }

    /// Prefetches these bytes of the segment, if it is mapped.
    pub(super) fn prefetch(&self, range: Range<u64>) {
        if self.pin.is_mapping() {
            self.pin.prefetch(range.start as usize..range.end as usize);
        }
    }

    /// Tells whether the batch of this entry was verified since the footer was read.
    pub(super) fn is_known_sound(&self, at: BatchCursor) -> bool {
        let word = self.sound.get().and_then(|bits| bits.get(at.0 as usize / 64));
        word.is_some_and(|word| word.load(Ordering::Relaxed) >> (at.0 % 64) & 1 == 1)
    }

    /// Records that the batch of this entry was verified.
    pub(super) fn note_sound(&self, at: BatchCursor) {
        let words = || (0..self.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        if let Some(word) = self.sound.get_or_init(words).get(at.0 as usize / 64) {
            let bit = 1 << (at.0 % 64);
            if word.load(Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn get(&self, index: u32) -> Option<BatchRef> {
        // The caller knows the stream.
        let entry = self.entry(StreamId::from_bytes([0; 16]), index)?;
        Some(BatchRef {
            kind: entry.kind,
            first_seq: entry.first_seq,
            count: entry.count,
            offset: entry.offset,
        })
    }

    /// Returns the entries of one stream.
    pub(crate) fn run(&self, stream: StreamId) -> Range<u32> {
        let bytes = self.bytes();
        let row = |index: u32| {
            step();
            self.footer.stream(bytes, index)
        };
        let is_before = |index: u32| row(index).is_some_and(|(id, _)| id < *stream.as_bytes());
        let found = row(partition(0..self.footer.streams, is_before));
        found.filter(|(id, _)| id == stream.as_bytes()).map_or(0..0, |(_, run)| run)
    }

    /// Returns each stream with its entries, in the order of ids.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (StreamId, Range<u32>)> + '_ {
        let bytes = self.bytes();
        (0..).map_while(move |index| {
            step();
            let (id, run) = self.footer.stream(bytes, index)?;
            Some((StreamId::from_bytes(id), run))
        })
    }

    /// Returns the last entry of `run` whose first seq is at most `seq`.
    pub(crate) fn seek(&self, run: &Range<u32>, seq: u64) -> Option<u32> {
        let bytes = self.bytes();
        let at_most = |index: u32| {
            step();
            self.footer.first_seq(bytes, index).is_some_and(|first| first <= seq)
        };
        partition(run.clone(), at_most).checked_sub(1).filter(|index| run.contains(index))
    }

    /// Returns the last entry of `run` whose commit starts before this offset.
    pub(crate) fn last_before(&self, run: &Range<u32>, offset: u64) -> Option<u32> {
        let bytes = self.bytes();
        let is_before = |index: u32| {
            step();
            self.footer.offset(bytes, index).is_some_and(|start| start < offset)
        };
        partition(run.clone(), is_before).checked_sub(1).filter(|index| run.contains(index))
    }

    /// Returns the part of `run` that has this generation.
    pub(crate) fn of_generation(&self, run: &Range<u32>, generation: u32) -> Range<u32> {
        let bytes = self.bytes();
        let first_from = |generation: u32| {
            let is_before = |index: u32| {
                step();
                self.footer.generation(bytes, index).is_some_and(|other| other < generation)
            };
            partition(run.clone(), is_before)
        };
        let start = first_from(generation);
        start..first_from(generation.saturating_add(1)).max(start)
    }

    /// Returns the position of the commit of this entry.
    pub(super) fn position(&self, at: BatchCursor) -> Option<u64> {
        self.footer.position(self.bytes(), at.0)
    }
}

/// Returns the first index of `range` for which `holds` is false. It must be true before that index
/// and false after.
fn partition(range: Range<u32>, holds: impl Fn(u32) -> bool) -> u32 {
    let (mut low, mut high) = (range.start, range.end);
    while low < high {
        let middle = low.midpoint(high);
        if holds(middle) { low = middle.saturating_add(1) } else { high = middle }
    }
    low
}

impl fmt::Debug for FooterIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FooterIndex").field("entries", &self.len()).finish()
    }
}
