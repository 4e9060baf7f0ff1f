//! Linked lists in an arena that only grows, readable while it grows.
//!
//! One writer pushes; any number of readers follow the links without a lock. Every node also keeps
//! a jump to an older node, so that finding a key takes a logarithmic number of steps (the
//! skew-binary jump pointers of Myers, "An applicative random-access stack", 1983). Plain atomics,
//! no `unsafe`: a node is filled first and linked after, with release and acquire on the links.

use std::sync::OnceLock;

use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::work::step;

/// Number of nodes in the first bucket; each next bucket holds twice as many.
pub(super) const BUCKET_FIRST: usize = 16;
const BUCKETS: usize = 28;
/// Number that stands for no node.
pub(crate) const NONE: u32 = 0;

/// Arena of linked lists, with `N` words of value per node.
pub(crate) struct Chain<const N: usize> {
    buckets: [OnceLock<Box<[Node<N>]>>; BUCKETS],
    len: AtomicU32,
}

struct Node<const N: usize> {
    /// Older neighbour in the low half, newer one in the high half.
    links: AtomicU64,
    /// Jump in the low half, depth of the node in its list in the high half.
    jump: AtomicU64,
    key: AtomicU64,
    value: [AtomicU64; N],
}

impl<const N: usize> Node<N> {
    fn empty() -> Self {
        Self {
            links: AtomicU64::new(0),
            jump: AtomicU64::new(0),
            key: AtomicU64::new(0),
            value: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl<const N: usize> Chain<N> {
    pub(crate) fn new() -> Self {
        Self { buckets: [const { OnceLock::new() }; BUCKETS], len: AtomicU32::new(0) }
    }

    /// Adds a node after `prev` ([`NONE`] starts a list) and returns it. One caller at a time;
    /// `prev` must be the newest node of its list. `None` when the arena is full (2^32 - 16 nodes).
    pub(crate) fn push(&self, prev: u32, key: u64, value: [u64; N]) -> Option<u32> {
        let len = self.len.load(Ordering::Relaxed);
        let at = len.checked_add(1)?;
        let (bucket, index) = locate(len);
        let nodes = self
            .buckets
            .get(bucket)?
            .get_or_init(|| (0..BUCKET_FIRST << bucket).map(|_| Node::empty()).collect());
        let node = nodes.get(index)?;
        let depth = u64::from(self.depth(prev)).saturating_add(1);
        let over = self.jump(prev);
        // A jump leads to an older node, of a smaller depth: neither distance is below zero.
        let distance = |from, to| self.depth(from).checked_sub(self.depth(to));
        let even = distance(prev, over) == distance(over, self.jump(over));
        let jump = if prev != NONE && over != NONE && even { self.jump(over) } else { prev };
        node.jump.store(u64::from(jump) | depth << 32, Ordering::Relaxed);
        node.links.store(u64::from(prev), Ordering::Relaxed);
        node.key.store(key, Ordering::Relaxed);
        for (slot, word) in node.value.iter().zip(value) {
            slot.store(word, Ordering::Relaxed);
        }
        self.len.store(at, Ordering::Release);
        if let Some(older) = self.node(prev) {
            let links = older.links.load(Ordering::Relaxed) & u64::from(u32::MAX);
            older.links.store(links | u64::from(at) << 32, Ordering::Release);
        }
        Some(at)
    }

    /// Changes one word of a node's value. One caller at a time.
    pub(crate) fn set(&self, at: u32, word: usize, value: u64) {
        if let Some(node) = self.node(at) {
            node.value[word].store(value, Ordering::Release);
        }
    }

    pub(crate) fn key(&self, at: u32) -> u64 {
        self.node(at).map_or(0, |node| node.key.load(Ordering::Relaxed))
    }

    pub(crate) fn value(&self, at: u32, word: usize) -> u64 {
        self.node(at).map_or(0, |node| node.value[word].load(Ordering::Acquire))
    }

    /// Returns the newer neighbour, or [`NONE`].
    pub(crate) fn next(&self, at: u32) -> u32 {
        self.node(at).map_or(NONE, |node| (node.links.load(Ordering::Acquire) >> 32) as u32)
    }

    /// Returns the older neighbour, or [`NONE`].
    pub(crate) fn prev(&self, at: u32) -> u32 {
        self.node(at).map_or(NONE, |node| node.links.load(Ordering::Acquire) as u32)
    }

    /// Returns the newest node at or before `from` whose key is at most `key`, or [`NONE`].
    pub(crate) fn seek(&self, from: u32, key: u64) -> u32 {
        self.newest_that(from, |at| self.key(at) <= key)
    }

    /// Returns the newest node at or before `from` for which `holds` is true, or [`NONE`]. It must
    /// be true for all older nodes too.
    pub(crate) fn newest_that(&self, from: u32, holds: impl Fn(u32) -> bool) -> u32 {
        let mut at = from;
        while at != NONE && !holds(at) {
            let over = self.jump(at);
            at = if over != NONE && !holds(over) { over } else { self.prev(at) };
        }
        at
    }

    /// Returns the number of nodes of its list up to and including this one.
    pub(crate) fn depth(&self, at: u32) -> u32 {
        self.node(at).map_or(0, |node| (node.jump.load(Ordering::Relaxed) >> 32) as u32)
    }

    fn jump(&self, at: u32) -> u32 {
        self.node(at).map_or(NONE, |node| node.jump.load(Ordering::Relaxed) as u32)
    }

    fn node(&self, at: u32) -> Option<&Node<N>> {
        step();
        let (bucket, index) = locate(at.checked_sub(1)?);
        self.buckets.get(bucket)?.get()?.get(index)
    }
}

/// Returns the bucket of the node that has `before` nodes before it, and its index there.
pub(super) fn locate(before: u32) -> (usize, usize) {
    let shifted = (before as usize).saturating_add(BUCKET_FIRST);
    let bucket = (shifted / BUCKET_FIRST).ilog2() as usize;
    // The highest bit gives the bucket; the rest is the index.
    (bucket, shifted ^ (BUCKET_FIRST << bucket))
}

impl<const N: usize> std::fmt::Debug for Chain<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_lists_are_walked_and_searched() {
        let chain = Chain::<1>::new();
        let mut last = [NONE; 3];
        for n in 0..3_000_u64 {
            let list = (n % 3) as usize;
            last[list] = chain.push(last[list], n / 3 * 10, [n]).expect("room");
        }
        for (list, &newest) in last.iter().enumerate() {
            let mut at = newest;
            for n in (0..1_000_u64).rev() {
                assert_eq!(chain.value(at, 0), n * 3 + list as u64);
                let older = chain.prev(at);
                if older != NONE {
                    assert_eq!(chain.next(older), at);
                }
                at = older;
            }
            assert_eq!(at, NONE);
            for key in [0, 1, 9, 10, 4_995, 9_989, 9_990, u64::MAX] {
                let found = chain.seek(newest, key);
                assert_eq!(chain.key(found), (key / 10).min(999) * 10, "key {key}");
            }
        }
    }

    #[test]
    fn a_search_takes_a_logarithm_of_steps() {
        let chain = Chain::<1>::new();
        let mut last = NONE;
        for n in 0..100_000 {
            last = chain.push(last, n, [0]).expect("room");
        }
        for key in (0..100_000).step_by(997) {
            let mut at = last;
            let mut steps = 0;
            while chain.key(at) > key {
                let over = chain.jump(at);
                at = if over != NONE && chain.key(over) > key { over } else { chain.prev(at) };
                steps += 1;
            }
            assert!(steps <= 3 * 17, "{steps} steps to {key}");
        }
    }
}
