//! Layout of a group on disk: the bytes made here, those lent by the rings, and their order.
//!
//! Small batches are copied next to their headers, large ones are written in place: below a few KiB
//! a copy costs less than another slice in the gathered write. The copies of a group are bounded,
//! and memory beyond the bound is released after the group
//! (`p10_a_layout_copies_and_keeps_a_bounded_number_of_bytes`).

use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;

use crate::catalog::Watermark;
use crate::commit::{Part, Pending};
use crate::format::{
    BatchKind, CommitDate, CommitPlan, PlannedBatch, RECORD_SHIFT_MAX, SEQ_MAX, batch_crc,
    encode_commit, encode_fork, gap_batches, record_at,
};
use crate::sabotage::{Sabotage, broken};

/// Maximum size of a batch that is copied.
const COPY_BYTES_MAX: usize = 16 << 10;
/// Maximum size of a batch that is copied in any group: lending it would take as much memory.
const COPY_BYTES_ALWAYS: usize = 256;
/// Size of a group's copies and headers from which all larger batches are lent.
const SCRATCH_BYTES_MAX: usize = 1 << 20;
/// Maximum allocation of each kind that is kept between groups. Twice the bound above, because
/// vectors double when they grow.
const KEPT_BYTES_MAX: usize = 2 * SCRATCH_BYTES_MAX;
/// Upper bound on the bytes that headers, a gap, a fork and an id add to one stream's events in a
/// commit.
const OVERHEAD_BYTES_MAX: u64 = 512;

/// Layout of one group. Its memory is reused from group to group, up to a bound.
#[derive(Debug, Default)]
pub(super) struct Layout {
    scratch: Vec<u8>,
    pieces: Vec<Piece>,
    batches: Vec<PlannedBatch>,
    /// Parts of the commit being laid out, in the order of their streams.
    order: Vec<usize>,
    /// Offset of each commit in its segment; `None` for a commit that is not written.
    offsets: Vec<Option<u64>>,
}

#[derive(Clone, Debug)]
enum Piece {
    Made(Range<usize>),
    Lent {
        pending: usize,
        part: usize,
    },
    /// Change of a part's stream.
    LentChange {
        pending: usize,
        part: usize,
    },
}

impl Layout {
    /// Returns the number of commits laid out.
    pub(super) fn commits(&self) -> u64 {
        self.offsets.iter().flatten().count() as u64
    }

    /// Returns the offset of each commit laid out.
    pub(super) fn offsets(&self) -> impl Iterator<Item = u64> {
        self.offsets.iter().copied().flatten()
    }

    /// Returns the commits laid out, each with its offset.
    pub(super) fn placed<'a>(
        &'a self,
        group: &'a [Arc<Pending>],
    ) -> impl Iterator<Item = (&'a Pending, u64)> + 'a {
        group.iter().zip(&self.offsets).filter_map(|(pending, at)| Some((&**pending, (*at)?)))
    }

    /// Returns the size of the commit if it exceeds `bytes_max`.
    pub(super) fn excess(&mut self, pending: &Pending, bytes_max: u64) -> Option<u64> {
        let parts = pending.parts();
        let bytes: u64 = parts.iter().map(Part::bytes).sum();
        if bytes + (parts.len() as u64 + 1) * OVERHEAD_BYTES_MAX <= bytes_max {
            return None;
        }
        self.plan(pending);
        Some(CommitPlan::length(&self.batches)).filter(|bytes| *bytes > bytes_max)
    }

    /// Returns the size of the group in bytes; `None` if an event would get a seq beyond the last
    /// one.
    pub(super) fn measure(&mut self, group: &[Arc<Pending>]) -> Option<u64> {
        let mut total = 0;
        for pending in group.iter().filter(|pending| is_written(pending)) {
            self.plan(pending);
            let mut events = self.batches.iter().filter(|batch| batch.kind == BatchKind::Events);
            if events.any(|batch| batch.first_seq > SEQ_MAX - u64::from(batch.count)) {
                return None;
            }
            total += CommitPlan::length(&self.batches) + RECORD_SHIFT_MAX;
        }
        Some(total)
    }

    /// Lays the group out at `offset` of the segment with this salt. Returns the end of the group.
    pub(super) fn encode(
        &mut self,
        group: &[Arc<Pending>],
        salt: u32,
        offset: u64,
        mark: Watermark,
        date: CommitDate,
    ) -> u64 {
        self.scratch.clear();
        self.pieces.clear();
        self.offsets.clear();
        let mut at = offset;
        let mut position = mark.visible;
        for (index, pending) in group.iter().enumerate() {
            if !is_written(pending) {
                self.offsets.push(None);
                continue;
            }
            position += 1;
            self.plan(pending);
            let plan = CommitPlan {
                position,
                date,
                acked: mark.visible,
                durable: mark.durable,
                salt,
                batches: &self.batches,
            };
            let (tail, used) = encode_commit(&plan, &mut self.scratch);
            self.offsets.push(Some(at));
            let end = at + CommitPlan::length(&self.batches);
            at = record_at(end);
            self.lay_parts(index, pending);
            self.scratch.extend_from_slice(&tail[tail.len() - used..]);
            // Zeros up to the next valid start of a record.
            let shift = [0; RECORD_SHIFT_MAX as usize];
            self.scratch.extend_from_slice(&shift[..(at - end) as usize]);
        }
        self.end_made_piece();
        at
    }

    /// Runs `with` over the slices of the group, in order.
    pub(super) fn with_slices<R>(
        &self,
        group: &[Arc<Pending>],
        with: impl FnOnce(&mut [IoSlice<'_>]) -> R,
    ) -> R {
        if let [Piece::Made(all)] = self.pieces.as_slice() {
            return with(&mut [IoSlice::new(&self.scratch[all.clone()])]);
        }
        let hold = |piece: &Piece| match piece {
            Piece::Made(_) | Piece::LentChange { .. } => None,
            Piece::Lent { pending, part } => Some(group[*pending].parts()[*part].filled.hold()),
        };
        let held: Vec<_> = self.pieces.iter().map(hold).collect();
        let mut slices = Vec::with_capacity(self.pieces.len() * 2);
        for (piece, held) in self.pieces.iter().zip(&held) {
            let made: &[u8] = match piece {
                Piece::Made(range) => &self.scratch[range.clone()],
                Piece::LentChange { pending, part } => encoded(&group[*pending].parts()[*part]),
                Piece::Lent { .. } => &[],
            };
            let lent = held.iter().flat_map(|held| held.slices());
            let some = lent.chain([made]).filter(|slice| !slice.is_empty());
            slices.extend(some.map(IoSlice::new));
        }
        with(&mut slices)
    }

    /// Clears the layout and releases memory beyond the bound.
    pub(super) fn release_memory(&mut self) {
        if broken(Sabotage::KeepScratch) {
            return;
        }
        keep(&mut self.scratch);
        keep(&mut self.pieces);
        keep(&mut self.batches);
        keep(&mut self.order);
        keep(&mut self.offsets);
    }

    /// Plans the batches of one commit, in their order on disk.
    fn plan(&mut self, pending: &Pending) {
        let parts = pending.parts();
        self.order.clear();
        self.order.extend(0..parts.len());
        self.order.sort_unstable_by_key(|index| parts[*index].stream);
        self.batches.clear();
        for (nth, (index, part)) in self.order.iter().map(|at| (*at, &parts[*at])).enumerate() {
            let batch = |kind, first_seq, count, bytes: usize, crc| PlannedBatch {
                stream: *part.stream.as_bytes(),
                first_seq,
                count,
                kind,
                generation: part.generation(),
                order: u32::try_from(index).unwrap_or(u32::MAX),
                bytes: bytes as u64,
                crc,
            };
            let made = |kind, first_seq, count, bytes: &[u8]| {
                batch(kind, first_seq, count, bytes.len(), batch_crc(&[bytes]))
            };
            let dropped = part.filled.dropped;
            let head = part.first_seq() - dropped;
            if let Some(encoded) = part.change.as_ref().filter(|encoded| encoded.count > 0) {
                self.batches.push(made(BatchKind::Catalog, head, encoded.count, &encoded.bytes));
            }
            let events = part.filled.count;
            // Nearly always, nothing was dropped.
            let [long_gap, gap] = match dropped {
                0 => [None, None],
                _ => gap_batches(head, dropped).map(|(kind, first_seq, count)| {
                    (count > 0).then(|| made(kind, first_seq, count, &[]))
                }),
            };
            self.batches.extend(gap);
            if events > 0 {
                let bytes = part.filled.frame_bytes();
                let first_seq = part.first_seq();
                self.batches.push(batch(BatchKind::Events, first_seq, events, bytes, part.crc));
            }
            let change = part.change();
            if let Some(fork) = change.and_then(|change| change.fork.as_ref()) {
                let bytes = encode_fork(fork.base.as_bytes(), fork.base_generation);
                self.batches.push(made(BatchKind::Fork, fork.seq, fork.generation, &bytes));
            }
            if change.is_some_and(|change| change.rewind.is_some()) {
                self.batches.push(made(BatchKind::Rewind, head, part.generation(), &[]));
            }
            if let Some(id) = pending.id.filter(|_| nth == 0) {
                self.batches.push(made(BatchKind::CommitId, head, 1, &id.0));
            }
            self.batches.extend(long_gap);
        }
    }

    /// Adds the bytes of a commit's batches, in the order of `plan`.
    fn lay_parts(&mut self, number: usize, pending: &Pending) {
        let parts = pending.parts();
        for at in 0..self.order.len() {
            let index = self.order[at];
            let part = &parts[index];
            let change = encoded(part);
            if self.is_copied(change.len()) {
                self.scratch.extend_from_slice(change);
            } else {
                self.end_made_piece();
                self.pieces.push(Piece::LentChange { pending: number, part: index });
            }
            if self.is_copied(part.filled.frame_bytes()) {
                for slice in part.filled.hold().slices() {
                    self.scratch.extend_from_slice(slice);
                }
            } else {
                self.end_made_piece();
                self.pieces.push(Piece::Lent { pending: number, part: index });
            }
            if let Some(fork) = part.change().and_then(|change| change.fork.as_ref()) {
                let bytes = encode_fork(fork.base.as_bytes(), fork.base_generation);
                self.scratch.extend_from_slice(&bytes);
            }
            if let Some(id) = pending.id.filter(|_| at == 0) {
                self.scratch.extend_from_slice(&id.0);
            }
        }
    }

    /// Returns true if a batch of this size is copied, not lent.
    fn is_copied(&self, bytes: usize) -> bool {
        let is_bounded = self.scratch.len() < SCRATCH_BYTES_MAX || bytes <= COPY_BYTES_ALWAYS;
        bytes <= COPY_BYTES_MAX && (is_bounded || broken(Sabotage::KeepScratch))
    }

    fn end_made_piece(&mut self) {
        let made = |piece: &Piece| match piece {
            Piece::Made(range) => Some(range.end),
            Piece::Lent { .. } | Piece::LentChange { .. } => None,
        };
        let start = self.pieces.iter().rev().find_map(made).unwrap_or(0);
        if start < self.scratch.len() {
            self.pieces.push(Piece::Made(start..self.scratch.len()));
        }
    }
}

/// Returns the catalog batch of a part; empty if it has none.
fn encoded(part: &Part) -> &[u8] {
    part.change.as_deref().map_or(&[], |encoded| &encoded.bytes)
}

/// Clears a list and keeps its memory up to the bound.
fn keep<T>(list: &mut Vec<T>) {
    list.clear();
    if list.capacity() > KEPT_BYTES_MAX / size_of::<T>() {
        list.shrink_to(KEPT_BYTES_MAX / size_of::<T>());
    }
}

/// Returns true if a commit of the group has parts and was not refused.
fn is_written(pending: &Pending) -> bool {
    !pending.parts().is_empty() && pending.failed().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::Placement;
    use crate::format::FrameHead;
    use crate::options::{CommitOptions, Expect, Overflow};
    use crate::ring::{Budget, Limits, Ring};
    use crate::types::{CodecId, EventKind, StreamId, Timestamp};

    fn part(events: usize, bytes: usize) -> Part {
        let overflow = Overflow::Reject;
        let limits = Limits { ring_bytes_max: 1 << 20, event_bytes_max: 1 << 20, overflow };
        let mut ring = Ring::new(limits, Arc::new(Budget::new(1 << 30)));
        for _ in 0..events {
            let kind = EventKind(0);
            let codec = CodecId::RAW;
            let time = Timestamp::now();
            let payload_bytes = bytes as u32;
            let head = FrameHead { payload_bytes, kind, schema_version: 0, codec, time };
            ring.push_over(&head, &vec![1; bytes]).expect("room");
        }
        let filled = ring.take().expect("some");
        let crc = filled.crc();
        let stream = StreamId::new();
        let placement = Placement::new(0, 0);
        Part { stream, root: None, filled, crc, placement, change: None, expect: Expect::Seen }
    }

    /// The quick bound may only accept commits that the exact one accepts: otherwise one commit
    /// that is too large would fail with the others of its group (P5).
    #[test]
    fn p5_a_commit_is_too_large_exactly_when_its_layout_is() {
        let mut layout = Layout::default();
        for (parts, events, bytes) in [(1, 1, 0), (1, 3, 5000), (40, 2, 10), (7, 1, 100_000)] {
            let parts: Vec<Part> = (0..parts).map(|_| part(events, bytes)).collect();
            let pending = Pending::new(parts, CommitOptions::new(), Vec::new());
            layout.plan(&pending);
            let length = CommitPlan::length(&layout.batches);
            assert_eq!(layout.excess(&pending, length), None);
            assert_eq!(layout.excess(&pending, length - 1), Some(length));
            for bytes_max in (0..length).step_by(1 + length as usize / 100) {
                assert_eq!(layout.excess(&pending, bytes_max), Some(length), "{bytes_max}");
            }
        }
    }

    fn a_layout_copies_and_keeps_a_bounded_number_of_bytes() {
        const PARTS: usize = 1_000;
        let parts: Vec<Part> = (0..PARTS).map(|_| part(1, COPY_BYTES_MAX - 100)).collect();
        let group = [Pending::new(parts, CommitOptions::new(), Vec::new())];
        let mut layout = Layout::default();
        let mark = Watermark::default();
        let date = CommitDate::default();
        let end = layout.encode(&group, 1, 0, mark, date);
        let headers = PARTS * 64;
        assert!(layout.scratch.len() <= SCRATCH_BYTES_MAX + COPY_BYTES_MAX + headers);
        let bytes = layout.with_slices(&group, |slices| {
            slices.iter().flat_map(|slice| slice.to_vec()).collect::<Vec<u8>>()
        });
        assert_eq!(bytes.len() as u64, end);
        let frames = bytes.windows(4).filter(|bytes| *bytes == [1; 4]).count();
        assert!(frames >= PARTS * (COPY_BYTES_MAX - 103), "all payloads are there: {frames}");
        layout.release_memory();
        let kept = [layout.scratch.capacity(), layout.pieces.capacity() * size_of::<Piece>()];
        assert!(kept.iter().all(|bytes| *bytes <= KEPT_BYTES_MAX), "{kept:?}");
    }

    #[test]
    fn p10_a_layout_copies_and_keeps_a_bounded_number_of_bytes() {
        a_layout_copies_and_keeps_a_bounded_number_of_bytes();
    }

    /// F40: a layout that keeps all its memory is noticed.
    #[cfg(amberlog_sabotage)]
    #[test]
    fn control_a_layout_that_keeps_everything_is_noticed() {
        let _broken = crate::sabotage::sabotage(Sabotage::KeepScratch);
        std::panic::catch_unwind(a_layout_copies_and_keeps_a_bounded_number_of_bytes)
            .expect_err("nobody noticed");
    }
}
