//! The index of a sealed segment, read where it lies.

use std::fmt;
use std::ops::Range;

use super::BatchRef;
use crate::disk::Pin;
use crate::format::{FooterEntry, footer_entry, footer_is_valid};
use crate::types::StreamId;

/// The entries of a verified footer.
#[derive(Clone)]
pub(crate) struct FooterIndex {
    pin: Pin,
    entries: Range<usize>,
}

impl FooterIndex {
    /// Verifies the footer that lies at `footer` in `pin`.
    pub(crate) fn open(pin: Pin, footer: Range<usize>, salt: u32) -> Option<Self> {
        let bytes = (*pin).as_ref().get(footer.clone())?;
        let entries = footer_is_valid(bytes, salt)?;
        let start = footer.end - entries.len();
        u32::try_from(entries.len()).ok()?;
        Some(Self { pin, entries: start..footer.end })
    }

    pub(crate) fn len(&self) -> u32 {
        (self.entries.len() / crate::format::footer_entry_layout::BYTES) as u32
    }

    pub(crate) fn entry(&self, index: u32) -> Option<FooterEntry> {
        footer_entry((*self.pin).as_ref().get(self.entries.clone())?, index as usize)
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

    /// The entries of one stream.
    pub(crate) fn run(&self, stream: StreamId) -> Range<u32> {
        let before = |index: u32| match self.entry(index) {
            Some(entry) => entry.stream < *stream.as_bytes(),
            None => false,
        };
        let start = partition(0..self.len(), before);
        start..self.run_end(start, stream.as_bytes())
    }

    /// Each stream with its entries, in the order of ids.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (StreamId, Range<u32>)> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let stream = self.entry(at)?.stream;
            let run = at..self.run_end(at, &stream);
            at = run.end;
            Some((StreamId::from_bytes(stream), run))
        })
    }

    /// The last entry of `run` whose first seq is at most `seq`.
    pub(crate) fn seek(&self, run: &Range<u32>, seq: u64) -> Option<u32> {
        let at_most = |index: u32| self.entry(index).is_some_and(|entry| entry.first_seq <= seq);
        partition(run.clone(), at_most).checked_sub(1).filter(|index| run.contains(index))
    }

    /// The part of `run` whose commits start at these offsets.
    pub(crate) fn within(&self, run: &Range<u32>, offsets: &Range<u64>) -> Range<u32> {
        let before = |bound: u64| {
            let is_before = |index: u32| self.entry(index).is_some_and(|one| one.offset < bound);
            partition(run.clone(), is_before)
        };
        let start = before(offsets.start);
        start..before(offsets.end).max(start)
    }

    /// Where the run of `stream` that starts at `start` ends: steps that double, then a search, so that
    /// many streams of one entry and one stream of many are both quick.
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

/// The first index of `range` for which `holds` is false; it must be true up to there, false after.
fn partition(range: Range<u32>, holds: impl Fn(u32) -> bool) -> u32 {
    let (mut low, mut high) = (range.start, range.end);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

impl fmt::Debug for FooterIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FooterIndex").field("entries", &self.len()).finish()
    }
}
