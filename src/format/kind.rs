//! Kinds of batches, and the seqs that they take up.

use super::SEQ_MAX;
use crate::sabotage::{Sabotage, broken};

/// Kind of a batch. Zero is reserved.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub(crate) enum BatchKind {
    /// Attributes of the stream.
    Catalog = 1,
    /// Seqs that an overwriting ring dropped before the next batch.
    Gap = 2,
    /// Frames of events.
    Events = 3,
    /// Start of a forked stream, with events that it shares with its parent.
    Fork = 4,
    /// Rewind: later events no longer belong to the stream, and a new generation starts.
    Rewind = 5,
    /// Commit id, chosen by the caller.
    CommitId = 6,
    /// Dropped seqs that precede those of a gap, in units of 2^32.
    LongGap = 7,
}

impl BatchKind {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Catalog),
            2 => Some(Self::Gap),
            3 => Some(Self::Events),
            4 => Some(Self::Fork),
            5 => Some(Self::Rewind),
            6 => Some(Self::CommitId),
            7 => Some(Self::LongGap),
            _ => None,
        }
    }

    /// Returns the number of seqs that a batch of this kind with this `count` takes up.
    pub(crate) fn seqs(self, count: u32) -> u64 {
        match self {
            Self::Gap | Self::Events => u64::from(count),
            Self::LongGap => u64::from(count) << u32::BITS,
            Self::Catalog | Self::Fork | Self::Rewind | Self::CommitId => 0,
        }
    }

    /// Reports whether the seqs of this kind were dropped.
    pub(crate) fn is_gap(self) -> bool {
        matches!(self, Self::Gap | Self::LongGap)
    }
}

/// Returns kind, first seq and count of the batches of a gap of `dropped` seqs from `first_seq` on.
/// They have no bytes; a batch whose count is 0 is not needed.
pub(crate) fn gap_batches(first_seq: u64, dropped: u64) -> [(BatchKind, u64, u32); 2] {
    let mut long = (dropped >> u32::BITS) as u32;
    let rest = dropped as u32;
    if broken(Sabotage::ShortGaps) {
        long = 0;
    }
    // Cannot overflow: no stream has seqs past `SEQ_MAX`.
    let rest_seq = first_seq.saturating_add(BatchKind::LongGap.seqs(long));
    [(BatchKind::LongGap, first_seq, long), (BatchKind::Gap, rest_seq, rest)]
}

/// Returns the rank of a kind among the batches of one stream in one commit, in an index. Forks and
/// rewinds come first, because they determine where the others belong; kinds that take up seqs
/// follow in seq order.
pub(crate) fn index_order(kind: BatchKind) -> u8 {
    match kind {
        BatchKind::Fork => 0,
        BatchKind::Rewind => 1,
        BatchKind::CommitId => 2,
        BatchKind::Catalog => 3,
        BatchKind::LongGap => 4,
        BatchKind::Gap => 5,
        BatchKind::Events => 6,
    }
}

/// Reports whether a stream can have the seqs of such a batch.
pub(super) fn has_seqs(kind: u8, first_seq: u64, count: u32) -> bool {
    let room = SEQ_MAX.checked_sub(first_seq);
    let is_long = BatchKind::from_byte(kind) == Some(BatchKind::LongGap);
    room.is_some_and(|room| !is_long || BatchKind::LongGap.seqs(count) <= room)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The batches of a gap add up to its exact length.
    #[test]
    fn a_gap_of_any_length_is_exact_in_at_most_two_batches() {
        for bits in 0..63 {
            for dropped in [(1_u64 << bits) - 1, 1 << bits, (1 << bits) + 1] {
                let mut next = 7;
                for (kind, first_seq, count) in gap_batches(7, dropped) {
                    assert_eq!(first_seq, next);
                    assert!(has_seqs(kind as u8, first_seq, count) && kind.is_gap());
                    next += kind.seqs(count);
                }
                assert_eq!(next, 7 + dropped, "{dropped}");
            }
        }
        assert!(!has_seqs(BatchKind::LongGap as u8, 1, 1 << 31), "its end is past the last seq");
        assert!(!has_seqs(BatchKind::Events as u8, SEQ_MAX + 1, 0));
    }
}
