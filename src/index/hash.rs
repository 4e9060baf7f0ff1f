//! Hash index of arena ids that only grows, readable while it grows.
//!
//! One writer inserts. Readers take no lock and use nothing thread-local: they may run in the
//! destructor of a thread-local value, or in a child after a fork. Entries stay in place: when a
//! row of slots is three quarters full, new entries go to the next row, twice as long. Readers
//! search from the longest row back, and most entries are in the first two rows searched. Only the
//! caller knows the keys.

use std::sync::OnceLock;

use super::ArenaId;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Number of slots in the first row.
const SLOTS_FIRST: u64 = 16;
/// Number of rows of slots, enough for every arena id.
const ROWS: usize = 29;

/// Hash index. A slot holds an arena id and the upper half of its hash; 0 marks an empty slot.
pub(crate) struct HashIndex {
    rows: [OnceLock<Box<[AtomicU64]>>; ROWS],
    /// Row that takes new entries.
    row: AtomicU32,
    /// Number of entries in that row.
    in_row: AtomicU32,
    len: AtomicU32,
}

impl HashIndex {
    pub(crate) fn new() -> Self {
        Self::with_room_for(0)
    }

    /// Returns an index with room for this number of entries in one row.
    pub(crate) fn with_room_for(entries: usize) -> Self {
        let is_short = |row: &u32| !has_room(*row, entries as u64);
        let row = (0..const { ROWS as u32 - 1 }).take_while(is_short).count() as u32;
        let mut rows = [const { OnceLock::new() }; ROWS];
        rows[row as usize] = OnceLock::from(empty(row));
        let row = AtomicU32::new(row);
        Self { rows, row, in_row: AtomicU32::new(0), len: AtomicU32::new(0) }
    }

    /// Returns the number of entries.
    pub(crate) fn len(&self) -> u32 {
        self.len.load(Ordering::Acquire)
    }

    /// Adds an arena id. One caller at a time. `None` when the index is full.
    pub(crate) fn insert(&self, hash: u64, at: ArenaId) -> Option<()> {
        let (mut row, mut in_row) =
            (self.row.load(Ordering::Relaxed), self.in_row.load(Ordering::Relaxed));
        if !has_room(row, u64::from(in_row).saturating_add(1)) {
            (row, in_row) = (row.saturating_add(1), 0);
        }
        let slots = self.rows.get(row as usize)?.get_or_init(|| empty(row));
        let free = probe(slots, hash).find(|slot| slot.load(Ordering::Relaxed) == 0)?;
        free.store(hash >> 32 << 32 | u64::from(ArenaId::word(Some(at))), Ordering::Release);
        self.in_row.store(in_row.saturating_add(1), Ordering::Relaxed);
        self.row.store(row, Ordering::Release);
        self.len.fetch_add(1, Ordering::Release);
        Some(())
    }

    /// Returns the arena id with this hash that `is_wanted`.
    pub(crate) fn find(&self, hash: u64, is_wanted: impl Fn(ArenaId) -> bool) -> Option<ArenaId> {
        let last = self.row.load(Ordering::Acquire) as usize;
        let rows = self.rows.get(..=last)?.iter().rev().filter_map(OnceLock::get);
        rows.into_iter().find_map(|slots| {
            probe(slots, hash)
                .map(|slot| slot.load(Ordering::Acquire))
                .take_while(|word| *word != 0)
                .filter(|word| word >> 32 == hash >> 32)
                .filter_map(|word| ArenaId::from_word(word as u32))
                .find(|at| is_wanted(*at))
        })
    }
}

fn empty(row: u32) -> Box<[AtomicU64]> {
    (0..slots(row)).map(|_| AtomicU64::new(0)).collect()
}

fn slots(row: u32) -> u64 {
    SLOTS_FIRST << row
}

/// Tells whether a row has room for this number of entries: at most three quarters of its slots, so
/// that every search meets an empty one.
fn has_room(row: u32, entries: u64) -> bool {
    entries <= slots(row).saturating_sub(slots(row) / 4)
}

/// Returns the slots in the order in which an entry with this hash probes them.
fn probe(slots: &[AtomicU64], hash: u64) -> impl Iterator<Item = &AtomicU64> {
    let first = hash as usize & slots.len().saturating_sub(1);
    slots[first..].iter().chain(&slots[..first])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u32) -> ArenaId {
        ArenaId::from_word(n).expect("not 0")
    }

    /// Keys are found among others of the same hash, and missing keys are not.
    #[test]
    fn numbers_are_found_by_their_hash() {
        for hash in
            [|n: u32| u64::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15), |n: u32| u64::from(n % 7)]
        {
            let index = HashIndex::new();
            for n in 1..=2_000 {
                assert_eq!(index.find(hash(n), |found| found == at(n)), None);
                index.insert(hash(n), at(n)).expect("room");
                assert_eq!(index.find(hash(n), |found| found == at(n)), Some(at(n)));
            }
            assert!((1..=2_000).all(|n| index.find(hash(n), |found| found == at(n)).is_some()));
            assert_eq!(index.len(), 2_000);
        }
    }

    #[test]
    fn room_that_is_asked_for_is_one_row() {
        for entries in [0, 1, 12, 13, 5_000] {
            let index = HashIndex::with_room_for(entries);
            let row = index.row.load(Ordering::Relaxed);
            for n in 1..=entries as u32 {
                index.insert(u64::from(n), at(n)).expect("room");
            }
            assert_eq!(index.row.load(Ordering::Relaxed), row, "{entries}");
            assert_eq!(index.len() as usize, entries);
        }
    }
}
