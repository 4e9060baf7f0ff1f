//! Arena of numbered values that only grows, readable while it grows.
//!
//! One writer pushes; any number of readers read without a lock. Values stay in place. Early
//! buckets are small and later ones all alike, so that little memory is reserved without being
//! used.

use std::num::NonZeroU32;
use std::sync::OnceLock;

use super::chain::locate;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::work::step;

/// Number of values in each bucket.
const BUCKET: u32 = 256;
/// Number of rows of buckets, each twice as long as the previous one.
const ROWS: usize = 21;

type Bucket<T> = OnceLock<Box<[OnceLock<T>]>>;

/// Arena of values.
pub(crate) struct Arena<T> {
    /// First few values, for logs with few streams.
    few: OnceLock<Box<[OnceLock<T>]>>,
    rows: [OnceLock<Box<[Bucket<T>]>>; ROWS],
    len: AtomicU32,
}

/// Number of values in the bucket before all others.
const FEW: u32 = 8;

/// Number of a value in an arena.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct ArenaId(NonZeroU32);

impl ArenaId {
    /// Returns the number of values before this one.
    pub(crate) fn index(self) -> usize {
        (self.0.get() as usize).saturating_sub(1)
    }

    /// Packs an optional number into one word.
    pub(crate) fn word(at: Option<Self>) -> u32 {
        at.map_or(0, |at| at.0.get())
    }

    pub(crate) fn from_word(word: u32) -> Option<Self> {
        NonZeroU32::new(word).map(Self)
    }
}

impl<T> Arena<T> {
    pub(crate) fn new() -> Self {
        Self {
            few: OnceLock::new(),
            rows: [const { OnceLock::new() }; ROWS],
            len: AtomicU32::new(0),
        }
    }

    /// Adds a value. One caller at a time. `None` when the arena is full.
    pub(crate) fn push(&self, value: T) -> Option<ArenaId> {
        let len = self.len.load(Ordering::Relaxed);
        let slot = match len.checked_sub(FEW) {
            None => self.few.get_or_init(|| empty(FEW as usize)).get(len as usize)?,
            Some(rest) => {
                let (row, index) = locate(rest / BUCKET);
                let buckets =
                    self.rows.get(row)?.get_or_init(|| empty(super::chain::BUCKET_FIRST << row));
                let bucket = buckets.get(index)?.get_or_init(|| empty(BUCKET as usize));
                bucket.get((rest % BUCKET) as usize)?
            }
        };
        slot.set(value).ok()?;
        let at = NonZeroU32::new(len.checked_add(1)?)?;
        self.len.store(at.get(), Ordering::Release);
        Some(ArenaId(at))
    }

    pub(crate) fn get(&self, at: ArenaId) -> Option<&T> {
        step();
        let index = at.index() as u32;
        match index.checked_sub(FEW) {
            None => self.few.get()?.get(index as usize)?.get(),
            Some(rest) => {
                let (row, index) = locate(rest / BUCKET);
                let bucket = self.rows.get(row)?.get()?.get(index)?.get()?;
                bucket.get((rest % BUCKET) as usize)?.get()
            }
        }
    }

    pub(crate) fn len(&self) -> u32 {
        self.len.load(Ordering::Acquire)
    }

    /// Returns all values, in the order in which they were pushed.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (ArenaId, &T)> {
        self.iter_from(0)
    }

    /// Returns all values except the first `skipped`.
    pub(crate) fn iter_from(&self, skipped: u32) -> impl DoubleEndedIterator<Item = (ArenaId, &T)> {
        let len = self.len();
        let all = (skipped.saturating_add(1)..=len).filter_map(NonZeroU32::new).map(ArenaId);
        all.filter_map(|at| Some((at, self.get(at)?)))
    }
}

fn empty<T>(slots: usize) -> Box<[OnceLock<T>]> {
    (0..slots).map(|_| OnceLock::new()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_numbers() {
        let arena = Arena::new();
        let numbers: Vec<ArenaId> = (0..20_000_u32).map(|n| arena.push(n).expect("room")).collect();
        for (n, at) in (0_u32..).zip(&numbers) {
            assert_eq!(arena.get(*at), Some(&n));
        }
        assert!(arena.iter().map(|(at, n)| (at, *n)).eq(numbers.iter().copied().zip(0..)));
    }
}
