//! Index from stream and seq to place, inside one segment: a chain while the segment is active, its
//! footer once it is sealed. An entry is a hint: the reader verifies the batch it points to.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod arena;
mod chain;
mod footer;
mod hash;
mod ordered;

use std::sync::Arc;

pub(crate) use arena::{Arena, ArenaId};
pub(crate) use chain::{Chain, NONE};
pub(crate) use footer::FooterIndex;
pub(crate) use hash::HashIndex;
pub(crate) use ordered::{Ordered, Walk};

use crate::error::Error;
use crate::format::{ALIGN, BatchKind};

/// Place and contents of one batch of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BatchRef {
    pub(crate) kind: BatchKind,
    pub(crate) first_seq: u64,
    pub(crate) count: u32,
    /// Bytes from the start of the segment to the commit's header.
    pub(crate) offset: u64,
}

impl BatchRef {
    /// Returns the seq after the batch, or its first seq if its kind takes up none.
    pub(crate) fn end_seq(&self) -> u64 {
        self.first_seq.saturating_add(self.kind.seqs(self.count))
    }

    /// Reports whether the batch takes up seqs: events, or a gap.
    pub(crate) fn takes_seqs(&self) -> bool {
        self.kind.seqs(self.count) > 0
    }
}

/// Batches of an active segment, one list per stream.
pub(crate) type ActiveIndex = Chain<1>;

const OFFSET_BITS: u32 = 29;
const OFFSET_MASK: u64 = (1 << OFFSET_BITS) - 1;

/// Packs the fields that the chain keeps beside the first seq.
pub(crate) fn pack(batch: &BatchRef) -> [u64; 1] {
    let place = (batch.offset / ALIGN) | (u64::from(batch.kind as u8) << OFFSET_BITS);
    [place | u64::from(batch.count) << 32]
}

fn unpack(first_seq: u64, word: u64) -> Option<BatchRef> {
    Some(BatchRef {
        kind: BatchKind::from_byte((word >> OFFSET_BITS) as u8 & 7)?,
        first_seq,
        count: (word >> 32) as u32,
        offset: (word & OFFSET_MASK).saturating_mul(ALIGN),
    })
}

/// Batches of one stream in one segment, in the order of their commits.
#[derive(Clone, Debug)]
pub(crate) enum StreamBatches {
    Active {
        chain: Arc<ActiveIndex>,
        first: u32,
        last: u32,
    },
    Sealed {
        footer: Arc<FooterIndex>,
        run: std::ops::Range<u32>,
    },
    /// Batches of an unreadable index. One batch with all seqs that they may have represents them.
    Lost {
        error: Error,
        batch: BatchRef,
    },
}

/// Place of a batch among those of its stream and segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BatchCursor(u32);

impl StreamBatches {
    /// Returns the stand-in for batches whose index cannot be read.
    pub(crate) fn lost(error: Error, seqs: std::ops::Range<u64>) -> Self {
        let count = u32::try_from(seqs.end.saturating_sub(seqs.start)).unwrap_or(u32::MAX);
        let kind = BatchKind::Events;
        Self::Lost { error, batch: BatchRef { kind, first_seq: seqs.start, count, offset: 0 } }
    }

    /// Returns the error of an unreadable index.
    pub(crate) fn failure(&self) -> Option<&Error> {
        if let Self::Lost { error, .. } = self { Some(error) } else { None }
    }

    pub(crate) fn first(&self) -> Option<BatchCursor> {
        match self {
            Self::Active { first, .. } => (*first != NONE).then_some(BatchCursor(*first)),
            Self::Sealed { run, .. } => run.clone().next().map(BatchCursor),
            Self::Lost { .. } => Some(BatchCursor(0)),
        }
    }

    pub(crate) fn last(&self) -> Option<BatchCursor> {
        match self {
            Self::Active { last, .. } => (*last != NONE).then_some(BatchCursor(*last)),
            Self::Sealed { run, .. } => run.clone().next_back().map(BatchCursor),
            Self::Lost { .. } => Some(BatchCursor(0)),
        }
    }

    pub(crate) fn next(&self, at: BatchCursor) -> Option<BatchCursor> {
        match self {
            Self::Active { chain, last, .. } => {
                let next = if at.0 == *last { NONE } else { chain.next(at.0) };
                (next != NONE).then_some(BatchCursor(next))
            }
            Self::Sealed { run, .. } => {
                at.0.checked_add(1).filter(|next| *next < run.end).map(BatchCursor)
            }
            Self::Lost { .. } => None,
        }
    }

    pub(crate) fn prev(&self, at: BatchCursor) -> Option<BatchCursor> {
        match self {
            Self::Active { chain, first, .. } => {
                let prev = if at.0 == *first { NONE } else { chain.prev(at.0) };
                (prev != NONE).then_some(BatchCursor(prev))
            }
            Self::Sealed { run, .. } => {
                at.0.checked_sub(1).filter(|prev| *prev >= run.start).map(BatchCursor)
            }
            Self::Lost { .. } => None,
        }
    }

    /// Returns the newest batch whose first seq is at most `seq`.
    pub(crate) fn seek(&self, seq: u64) -> Option<BatchCursor> {
        match self {
            Self::Active { chain, last, .. } => {
                let found = chain.seek(*last, seq);
                (found != NONE).then_some(BatchCursor(found))
            }
            Self::Sealed { footer, run } => footer.seek(run, seq).map(BatchCursor),
            Self::Lost { batch, .. } => (batch.first_seq <= seq).then_some(BatchCursor(0)),
        }
    }

    /// Returns the newest batch of a commit that starts before this offset.
    pub(crate) fn last_before(&self, offset: u64) -> Option<BatchCursor> {
        match self {
            Self::Active { chain, last, .. } => {
                let starts =
                    |at| unpack(chain.key(at), chain.value(at, 0)).map(|batch| batch.offset);
                let found = chain.newest_that(*last, |at| starts(at).is_some_and(|at| at < offset));
                (found != NONE).then_some(BatchCursor(found))
            }
            Self::Sealed { footer, run } => footer.last_before(run, offset).map(BatchCursor),
            Self::Lost { .. } => Some(BatchCursor(0)),
        }
    }

    /// Keeps the batches of one generation. The list of an active segment has no others.
    pub(crate) fn of_generation(self, generation: u32) -> Self {
        match self {
            Self::Active { .. } | Self::Lost { .. } => self,
            Self::Sealed { footer, run } => {
                let run = footer.of_generation(&run, generation);
                Self::Sealed { footer, run }
            }
        }
    }

    /// Returns the position of the batch's commit. The list of an active segment does not tell.
    pub(crate) fn position(&self, at: BatchCursor) -> Option<u64> {
        match self {
            Self::Active { .. } | Self::Lost { .. } => None,
            Self::Sealed { footer, .. } => footer.position(at),
        }
    }

    /// Prefetches these bytes of the segment, as far as they are mapped.
    pub(crate) fn prefetch(&self, range: std::ops::Range<u64>) {
        if let Self::Sealed { footer, .. } = self {
            footer.prefetch(range);
        }
    }

    /// Tells whether the batch was verified since its index was read. An active segment does not
    /// remember.
    pub(crate) fn is_known_sound(&self, at: BatchCursor) -> bool {
        matches!(self, Self::Sealed { footer, .. } if footer.is_known_sound(at))
    }

    /// Records that the batch was verified.
    pub(crate) fn note_sound(&self, at: BatchCursor) {
        if let Self::Sealed { footer, .. } = self {
            footer.note_sound(at);
        }
    }

    /// Returns the batch; `None` when the index entry is invalid.
    pub(crate) fn get(&self, at: BatchCursor) -> Option<BatchRef> {
        match self {
            Self::Active { chain, .. } => unpack(chain.key(at.0), chain.value(at.0, 0)),
            Self::Sealed { footer, .. } => footer.get(at.0),
            Self::Lost { batch, .. } => Some(*batch),
        }
    }
}
