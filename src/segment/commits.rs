//! Commits of a segment, by block: where the first commit of each block starts, and the times of
//! its commits.
//!
//! A read by position starts at the first commit of a block. Positions ascend, so the block is
//! binary searched. A later commit need not have a later time, so times are not. A query by time
//! skips a segment, or a block of one, whose commits all lie on one side of the window, and reads
//! every commit of the others.
//!
//! Only a segment that was replayed or written since the log was opened has blocks. The footer of
//! any other has the places, and its trailer the times of the whole segment.

use std::sync::OnceLock;

use crate::format::{COMMITS_AT, CommitDate, CommitPlace, SegmentTimes, place_block};
use crate::index::{Arena, ArenaId};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::types::Timestamp;

/// Times at or after `from` and before `until`; each bound is optional.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct TimeWindow {
    pub(crate) from: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
}

impl TimeWindow {
    pub(crate) fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn contains(&self, time: Timestamp) -> bool {
        self.from.is_none_or(|from| time >= from) && self.until.is_none_or(|until| time < until)
    }

    /// Returns `Some(true)` if the window contains every time from `earliest` to `latest`,
    /// `Some(false)` if it contains none of them, and `None` otherwise.
    fn decides(&self, earliest: u64, latest: u64) -> Option<bool> {
        let [earliest, latest] = [earliest, latest].map(Timestamp::from_micros);
        if self.contains(earliest) && self.contains(latest) {
            return Some(true);
        }
        let is_before = self.from.is_some_and(|from| latest < from);
        let is_after = self.until.is_some_and(|until| earliest >= until);
        (is_before || is_after).then_some(false)
    }
}

/// Index of the commits of one segment: written by the leader, read by all threads.
pub(crate) struct CommitIndex {
    all: Span,
    vouched_first: AtomicU64,
    vouched_last: AtomicU64,
    /// Blocks, once there is more than one.
    blocks: OnceLock<Box<Arena<CommitBlock>>>,
}

/// Earliest and latest time. Inverted before the first commit.
struct Span {
    earliest: AtomicU64,
    latest: AtomicU64,
}

/// Commits that start in one block of the segment.
struct CommitBlock {
    /// Place of the first one. The first block has position 0: its start needs no search.
    first: CommitPlace,
    span: Span,
}

impl Span {
    fn new(earliest: u64, latest: u64) -> Self {
        Self { earliest: AtomicU64::new(earliest), latest: AtomicU64::new(latest) }
    }

    fn note(&self, micros: u64) {
        self.earliest.fetch_min(micros, Ordering::Relaxed);
        self.latest.fetch_max(micros, Ordering::Relaxed);
    }

    fn get(&self) -> (u64, u64) {
        (self.earliest.load(Ordering::Relaxed), self.latest.load(Ordering::Relaxed))
    }
}

impl CommitIndex {
    pub(super) fn new() -> Self {
        Self::sealed(SegmentTimes { earliest: u64::MAX, ..SegmentTimes::default() })
    }

    /// Returns the index of a sealed segment, with the times that its trailer records.
    pub(super) fn sealed(times: SegmentTimes) -> Self {
        Self {
            all: Span::new(times.earliest, times.latest),
            vouched_first: AtomicU64::new(times.vouched_first),
            vouched_last: AtomicU64::new(times.vouched_last),
            blocks: OnceLock::new(),
        }
    }

    /// Records consecutive commits of one date before they become visible: the offset of each, and
    /// the position of the first. Callers must be serialized.
    pub(crate) fn note(
        &self,
        offsets: impl IntoIterator<Item = u64>,
        first_position: u64,
        date: CommitDate,
    ) {
        let micros = date.time.as_micros();
        // Before the blocks: the first block takes over the times of the whole segment.
        self.all.note(micros);
        let mut noted = None;
        for (offset, position) in offsets.into_iter().zip(first_position..) {
            let block = Some(place_block(offset));
            if noted != block {
                noted = block;
                self.note_block(CommitPlace { position, offset }, micros);
            }
        }
        if date.is_vouched {
            self.vouched_last.store(micros, Ordering::Relaxed);
            if self.vouched_first.load(Ordering::Relaxed) == 0 {
                self.vouched_first.store(micros, Ordering::Relaxed);
            }
        }
    }

    fn note_block(&self, place: CommitPlace, micros: u64) {
        let newest = self.blocks.get().and_then(|blocks| {
            let newest = blocks.get(ArenaId::from_word(blocks.len())?)?;
            Some((blocks, newest, place_block(newest.first.offset)))
        });
        match newest {
            Some((_, newest, block)) if block == place_block(place.offset) => {
                newest.span.note(micros);
            }
            Some((blocks, newest, _)) => {
                let begun = CommitBlock { first: place, span: Span::new(micros, micros) };
                if blocks.push(begun).is_none() {
                    newest.span.note(micros);
                }
            }
            None if place_block(place.offset) == place_block(COMMITS_AT) => {}
            None => self.begin_blocks(place, micros),
        }
    }

    /// Records the first commit that starts in a block after the first one.
    #[cold]
    fn begin_blocks(&self, place: CommitPlace, micros: u64) {
        let (earliest, latest) = self.all.get();
        let first = CommitPlace { position: 0, offset: COMMITS_AT };
        let blocks = self.blocks.get_or_init(|| Box::new(Arena::new()));
        blocks.push(CommitBlock { first, span: Span::new(earliest, latest) });
        blocks.push(CommitBlock { first: place, span: Span::new(micros, micros) });
    }

    /// Returns the place of the first commit of each block except the first block, in order.
    pub(super) fn places(&self) -> impl Iterator<Item = CommitPlace> {
        self.blocks.get().into_iter().flat_map(|blocks| blocks.iter_from(1)).map(|(_, at)| at.first)
    }

    pub(crate) fn times(&self) -> SegmentTimes {
        let (earliest, latest) = self.all.get();
        SegmentTimes {
            earliest: earliest.min(latest),
            latest,
            vouched_first: self.vouched_first.load(Ordering::Relaxed),
            vouched_last: self.vouched_last.load(Ordering::Relaxed),
        }
    }

    /// Reports whether the commit of this position lies in the window; `None` if it has to be read.
    pub(crate) fn decide(&self, position: u64, window: &TimeWindow) -> Option<bool> {
        let (earliest, latest) = self.all.get();
        window.decides(earliest, latest).or_else(|| {
            let (earliest, latest) = self.block_of(position)?.span.get();
            window.decides(earliest, latest)
        })
    }

    /// Finds the block of the commit of this position.
    fn block_of(&self, position: u64) -> Option<&CommitBlock> {
        let blocks = self.blocks.get()?;
        let nearest = Self::blocks_that(blocks, |first| first.position <= position);
        blocks.get(ArenaId::from_word(nearest)?)
    }

    /// Returns the places of first commits whose positions are at most this one, the nearest first,
    /// without that of the first block; `None` if there are no blocks.
    pub(super) fn places_before(&self, position: u64) -> Option<impl Iterator<Item = CommitPlace>> {
        let blocks = self.blocks.get()?;
        let nearest = Self::blocks_that(blocks, |first| first.position <= position);
        let block = |at| Some(blocks.get(ArenaId::from_word(at)?)?.first);
        Some((2..=nearest).rev().map_while(block))
    }

    /// Returns the number of blocks whose first commit satisfies `holds`. No block satisfies it
    /// after one that does not.
    fn blocks_that(blocks: &Arena<CommitBlock>, holds: impl Fn(&CommitPlace) -> bool) -> u32 {
        let mut low = 0;
        let mut high = blocks.len();
        while low < high {
            let middle = low.midpoint(high);
            let after = middle.saturating_add(1);
            let block = ArenaId::from_word(after).and_then(|at| blocks.get(at));
            let is_before = block.is_some_and(|block| holds(&block.first));
            if is_before { low = after } else { high = middle }
        }
        low
    }
}

impl std::fmt::Debug for CommitIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.times().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// F43: a decision without a read is correct however the clock jumps, and most commits are
    /// decided so.
    #[test]
    fn f43_a_window_passes_over_what_is_not_in_it() {
        let day = 86_400_000_000_u64;
        for jump in [0, day, 365 * day, 20_000 * day] {
            for back in [false, true] {
                let index = CommitIndex::new();
                let base = 20_000 * day;
                let commits: Vec<(u64, u64)> = (0..3_000_u64)
                    .map(|n| {
                        let jumped = (1_000..1_005).contains(&n);
                        let usual = base + n * 1_000;
                        let time = match back {
                            _ if !jumped => usual,
                            true => usual - jump,
                            false => usual + jump,
                        };
                        (4_096 + n * 600, time)
                    })
                    .collect();
                for ((offset, time), position) in commits.iter().zip(1..) {
                    let time = Timestamp::from_micros(*time);
                    index.note([*offset], position, CommitDate { time, is_vouched: true });
                }
                let at = |n: usize| Some(Timestamp::from_micros(commits[n].1));
                for (from, until) in [(None, at(7)), (at(900), at(1_500)), (at(2_999), None)] {
                    let window = TimeWindow { from, until };
                    let mut read = 0;
                    for ((_, time), position) in commits.iter().zip(1..) {
                        let is_in = window.contains(Timestamp::from_micros(*time));
                        match index.decide(position, &window) {
                            Some(decided) => assert_eq!(decided, is_in, "{jump} {back} {time}"),
                            None => read += 1,
                        }
                    }
                    // A block has 110 commits; those of the jump, and one block at each end, are
                    // read.
                    assert!(read <= 4 * 110, "{read} of 3000 read");
                }
            }
        }
    }

    /// Whatever the sizes of commits and groups are, the index has the first commit of each block.
    #[test]
    fn each_block_has_the_place_of_its_first_commit() {
        for (commit_bytes, group) in [(96, 1), (500, 7), (9_000, 64), (70_000, 3), (200_000, 2)] {
            let index = CommitIndex::new();
            let all: Vec<CommitPlace> = (1..=1_000)
                .map(|position| CommitPlace {
                    position,
                    offset: COMMITS_AT + (position - 1) * commit_bytes,
                })
                .collect();
            for group in all.chunks(group) {
                let time = Timestamp::from_micros(group[0].position);
                let date = CommitDate { time, is_vouched: true };
                index.note(group.iter().map(|place| place.offset), group[0].position, date);
            }
            let block = |place: &CommitPlace| place_block(place.offset);
            let firsts = all.chunk_by(|place, next| block(place) == block(next));
            let firsts: Vec<CommitPlace> = firsts.map(|commits| commits[0]).collect();
            assert_eq!(index.places().collect::<Vec<_>>(), firsts[1..], "{commit_bytes}");
            for place in &all {
                let mut near = index.places_before(place.position).expect("several blocks");
                let first = firsts[1..].iter().rfind(|first| first.position <= place.position);
                assert_eq!(near.next(), first.copied(), "{commit_bytes}: {place:?}");
                let window = TimeWindow { from: None, until: Some(Timestamp::from_micros(1)) };
                assert_eq!(index.decide(place.offset, &window), Some(false));
            }
        }
    }

    #[test]
    fn no_commit_has_no_time() {
        let index = CommitIndex::new();
        assert_eq!(index.times(), SegmentTimes::default());
        index.note([4_096], 1, CommitDate { time: Timestamp::from_micros(5), is_vouched: false });
        let expected = SegmentTimes { earliest: 5, latest: 5, vouched_first: 0, vouched_last: 0 };
        assert_eq!(index.times(), expected);
        index.note([4_200], 2, CommitDate { time: Timestamp::from_micros(7), is_vouched: true });
        index.note([4_300], 3, CommitDate { time: Timestamp::from_micros(9), is_vouched: true });
        let expected = SegmentTimes { latest: 9, vouched_first: 7, vouched_last: 9, ..expected };
        assert_eq!(index.times(), expected);
        assert_eq!(CommitIndex::sealed(expected).times(), expected);
    }
}
