//! Values with numbers, in memory that only grows, readable while it grows.
//!
//! One writer pushes; any number of readers look without a lock. Values never move. Early buckets are
//! small, later ones all alike, so that little is taken that is not used.

use std::num::NonZeroU32;
use std::sync::OnceLock;

use super::chain::locate;
use crate::sync::atomic::{AtomicU32, Ordering};

/// Values in each bucket.
const BUCKET: u32 = 256;
/// Rows of buckets, each twice as long as the one before.
const ROWS: usize = 21;

type Bucket<T> = OnceLock<Box<[OnceLock<T>]>>;

/// The arena.
pub(crate) struct Arena<T> {
    /// The first few values, for logs with few streams.
    few: OnceLock<Box<[OnceLock<T>]>>,
    rows: [OnceLock<Box<[Bucket<T>]>>; ROWS],
    len: AtomicU32,
}

/// Values that have a bucket of their own, in front of all others.
const FEW: u32 = 8;

/// The number of a value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct At(NonZeroU32);

impl At {
    /// One word for a number that may not be there.
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
    pub(crate) fn push(&self, value: T) -> Option<At> {
        let len = self.len.load(Ordering::Relaxed);
        let slot = match len.checked_sub(FEW) {
            None => self.few.get_or_init(|| empty(FEW as usize)).get(len as usize)?,
            Some(behind) => {
                let (row, index) = locate(behind / BUCKET + 1);
                let buckets =
                    self.rows.get(row)?.get_or_init(|| empty(super::chain::BUCKET_FIRST << row));
                let bucket = buckets.get(index)?.get_or_init(|| empty(BUCKET as usize));
                bucket.get((behind % BUCKET) as usize)?
            }
        };
        slot.set(value).ok()?;
        let at = NonZeroU32::new(len + 1)?;
        self.len.store(at.get(), Ordering::Release);
        Some(At(at))
    }

    pub(crate) fn get(&self, at: At) -> Option<&T> {
        let index = at.0.get() - 1;
        match index.checked_sub(FEW) {
            None => self.few.get()?.get(index as usize)?.get(),
            Some(behind) => {
                let (row, index) = locate(behind / BUCKET + 1);
                let bucket = self.rows.get(row)?.get()?.get(index)?.get()?;
                bucket.get((behind % BUCKET) as usize)?.get()
            }
        }
    }

    pub(crate) fn len(&self) -> u32 {
        self.len.load(Ordering::Acquire)
    }

    /// All values, in the order in which they were pushed.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (At, &T)> {
        let len = self.len();
        let all = (1..=len).filter_map(NonZeroU32::new).map(At);
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
        let numbers: Vec<At> = (0..20_000_u32).map(|n| arena.push(n).expect("room")).collect();
        for (n, at) in (0_u32..).zip(&numbers) {
            assert_eq!(arena.get(*at), Some(&n));
        }
        assert!(arena.iter().map(|(at, n)| (at, *n)).eq(numbers.iter().copied().zip(0..)));
    }
}
