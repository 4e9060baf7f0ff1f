//! (stream, seq) to place, inside one segment: a chain while the segment is active, its footer once
//! it is sealed. An entry is a hint: what it points to is verified when it is read.

mod arena;
mod chain;
mod footer;

use std::sync::Arc;

pub(crate) use arena::{Arena, At};
pub(crate) use chain::{Chain, NONE};
pub(crate) use footer::FooterIndex;

use crate::format::{ALIGN, BatchKind};

/// Where one batch of a stream is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BatchRef {
    pub(crate) kind: BatchKind,
    pub(crate) first_seq: u64,
    pub(crate) count: u32,
    /// Bytes from the start of the segment to the commit's header.
    pub(crate) offset: u64,
}

/// The batches of an active segment, one list per stream.
pub(crate) type ActiveIndex = Chain<1>;

const OFFSET_BITS: u32 = 29;

/// Packs what the chain keeps beside the first seq.
pub(crate) fn pack(batch: &BatchRef) -> [u64; 1] {
    let place = (batch.offset / ALIGN) | (u64::from(batch.kind as u8) << OFFSET_BITS);
    [place | u64::from(batch.count) << 32]
}

fn unpack(first_seq: u64, word: u64) -> Option<BatchRef> {
    Some(BatchRef {
        kind: BatchKind::from_byte((word >> OFFSET_BITS) as u8 & 7)?,
        first_seq,
        count: (word >> 32) as u32,
        offset: (word & ((1 << OFFSET_BITS) - 1)) * ALIGN,
    })
}

/// The batches of one stream in one segment, in the order of their commits.
#[derive(Clone, Debug)]
pub(crate) enum StreamBatches {
    Active { chain: Arc<ActiveIndex>, first: u32, last: u32 },
    Sealed { footer: FooterIndex, run: std::ops::Range<u32> },
}

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cursor(u32);

impl Cursor {
    /// Which entry of the footer that is, in a sealed segment.
    pub(crate) fn entry(self) -> u32 {
        self.0
    }
}

impl StreamBatches {
    pub(crate) fn first(&self) -> Option<Cursor> {
        match self {
            Self::Active { first, .. } => (*first != NONE).then_some(Cursor(*first)),
            Self::Sealed { run, .. } => (!run.is_empty()).then_some(Cursor(run.start)),
        }
    }

    pub(crate) fn last(&self) -> Option<Cursor> {
        match self {
            Self::Active { last, .. } => (*last != NONE).then_some(Cursor(*last)),
            Self::Sealed { run, .. } => (!run.is_empty()).then(|| Cursor(run.end - 1)),
        }
    }

    pub(crate) fn next(&self, at: Cursor) -> Option<Cursor> {
        match self {
            Self::Active { chain, last, .. } => {
                let next = if at.0 == *last { NONE } else { chain.next(at.0) };
                (next != NONE).then_some(Cursor(next))
            }
            Self::Sealed { run, .. } => (at.0 + 1 < run.end).then_some(Cursor(at.0 + 1)),
        }
    }

    pub(crate) fn prev(&self, at: Cursor) -> Option<Cursor> {
        match self {
            Self::Active { chain, first, .. } => {
                let prev = if at.0 == *first { NONE } else { chain.prev(at.0) };
                (prev != NONE).then_some(Cursor(prev))
            }
            Self::Sealed { run, .. } => (at.0 > run.start).then(|| Cursor(at.0 - 1)),
        }
    }

    /// The newest batch whose first seq is at most `seq`.
    pub(crate) fn seek(&self, seq: u64) -> Option<Cursor> {
        match self {
            Self::Active { chain, last, .. } => {
                let found = chain.seek(*last, seq);
                (found != NONE).then_some(Cursor(found))
            }
            Self::Sealed { footer, run } => footer.seek(run, seq).map(Cursor),
        }
    }

    /// Those of the commits that start at these offsets. A list of an active segment is that already.
    pub(crate) fn within(self, offsets: &std::ops::Range<u64>) -> Self {
        match self {
            Self::Active { .. } => self,
            Self::Sealed { footer, run } => {
                let run = footer.within(&run, offsets);
                Self::Sealed { footer, run }
            }
        }
    }

    /// `None` when the index itself makes no sense here.
    pub(crate) fn get(&self, at: Cursor) -> Option<BatchRef> {
        match self {
            Self::Active { chain, .. } => unpack(chain.key(at.0), chain.value(at.0, 0)),
            Self::Sealed { footer, .. } => footer.get(at.0),
        }
    }
}
