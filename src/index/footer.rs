//! Index of a sealed segment, read in place from its footer.

use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

use super::{BatchCursor, BatchRef};
use crate::disk::Pin;
use crate::format::{CommitPlace, FooterEntry, commit_place, footer_entry, footer_is_valid};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::types::StreamId;
use crate::work::step;

/// Entries and places of a verified footer. Empty by default.
#[derive(Default)]
pub(crate) struct FooterIndex {
    pin: Pin,
    entries: Range<usize>,
    /// Places of commits, which follow the entries.
    places: Range<usize>,
    /// One bit per entry, set once its batch was verified.
    sound: OnceLock<Box<[AtomicU64]>>,
}

impl FooterIndex {
    /// Verifies the footer at these bytes of `pin`.
    pub(crate) fn open(pin: Pin, footer: Range<usize>, salt: u32) -> Option<Self> {
        let bytes = pin.get(footer.clone())?;
        let (entries, places) = footer_is_valid(bytes, salt)?;
        let middle = footer.end.checked_sub(places.len())?;
        let start = middle.checked_sub(entries.len())?;
        u32::try_from(entries.len()).ok()?;
        let places = middle..footer.end;
        Some(Self { pin, entries: start..middle, places, sound: OnceLock::new() })
    }

    pub(crate) fn len(&self) -> u32 {
        (self.entries.len() / crate::format::footer_entry_layout::BYTES) as u32
    }

    pub(crate) fn entry(&self, index: u32) -> Option<FooterEntry> {
        step();
        footer_entry(self.pin.get(self.entries.clone())?, index as usize)
    }

    /// Returns the places of commits, in their order.
    pub(crate) fn places(&self) -> impl Iterator<Item = CommitPlace> {
        let places = self.pin.get(self.places.clone()).unwrap_or_default();
        (0..).map_while(move |index| commit_place(places, index))
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
        let entry = self.entry(index)?;
        Some(BatchRef {
            kind: entry.kind,
            first_seq: entry.first_seq,
            count: entry.count,
            offset: entry.offset,
        })
    }

    /// Returns the entries of one stream.
    pub(crate) fn run(&self, stream: StreamId) -> Range<u32> {
        let before = |index: u32| match self.entry(index) {
            Some(entry) => entry.stream < *stream.as_bytes(),
            None => false,
        };
        let start = partition(0..self.len(), before);
        start..self.run_end(start, stream.as_bytes())
    }

    /// Returns each stream with its entries, in the order of ids.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (StreamId, Range<u32>)> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let stream = self.entry(at)?.stream;
            let run = at..self.run_end(at, &stream);
            at = run.end;
            Some((StreamId::from_bytes(stream), run))
        })
    }

    /// Returns the last entry of `run` whose first seq is at most `seq`.
    pub(crate) fn seek(&self, run: &Range<u32>, seq: u64) -> Option<u32> {
        let at_most = |index: u32| self.entry(index).is_some_and(|entry| entry.first_seq <= seq);
        partition(run.clone(), at_most).checked_sub(1).filter(|index| run.contains(index))
    }

    /// Returns the part of `run` whose commits start at these offsets.
    pub(crate) fn within(&self, run: &Range<u32>, offsets: &Range<u64>) -> Range<u32> {
        let before = |bound: u64| {
            let is_before =
                |index: u32| self.entry(index).is_some_and(|entry| entry.offset < bound);
            partition(run.clone(), is_before)
        };
        let start = before(offsets.start);
        start..before(offsets.end).max(start)
    }

    /// Returns the end of the run of `stream` that starts at `start`. Doubling steps and then a
    /// search make both many streams of one entry and one stream of many entries quick.
    fn run_end(&self, start: u32, stream: &[u8; 16]) -> u32 {
        let same = |index: u32| self.entry(index).is_some_and(|entry| entry.stream == *stream);
        let (mut low, mut step) = (start, 1);
        while same(low.saturating_add(step)) {
            low = low.saturating_add(step);
            step = step.saturating_mul(2);
        }
        partition(low..low.saturating_add(step).min(self.len()), same)
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
