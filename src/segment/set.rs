//! Set of a log's segments, by number.
//!
//! A set is immutable. Sets that differ by a segment share the rest, so that a roll costs about as
//! much in a log of many segments as in a small one.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use super::file::Segment;
use crate::work::{step, steps};

/// Maximum number of segments in a block, the unit that a change copies.
const BLOCK_SEGMENTS: usize = 64;

/// Contiguous segments of a set.
#[derive(Debug)]
struct Block {
    segments: Vec<Arc<Segment>>,
    /// Total length of their files in bytes, once all of them are sealed.
    sealed_bytes: OnceLock<u64>,
}

impl Block {
    fn new(segments: Vec<Arc<Segment>>) -> Arc<Self> {
        steps(segments.len());
        Arc::new(Self { segments, sealed_bytes: OnceLock::new() })
    }

    fn bytes(&self, unsealed_bytes: impl Fn(&Segment) -> u64) -> u64 {
        step();
        if let Some(bytes) = self.sealed_bytes.get() {
            return *bytes;
        }
        steps(self.len());
        let sealed = |segment: &Arc<Segment>| Some(segment.seal_state()?.file_bytes);
        match self.iter().map(sealed).sum() {
            Some(bytes) => *self.sealed_bytes.get_or_init(|| bytes),
            None => {
                let bytes = |segment| sealed(segment).unwrap_or_else(|| unsealed_bytes(segment));
                self.iter().map(bytes).sum()
            }
        }
    }
}

impl Deref for Block {
    type Target = [Arc<Segment>];

    fn deref(&self) -> &Self::Target {
        &self.segments
    }
}

/// Persistent set of segments, ordered by number.
#[derive(Clone, Debug, Default)]
pub(crate) struct SegmentSet {
    /// Blocks ordered by number, and so by position; none is empty.
    blocks: Vec<Arc<Block>>,
    age: Age,
}

/// Token held by the sets of one period, and so by the read views that were taken in it.
pub(crate) type Age = Arc<()>;

impl SegmentSet {
    /// Returns the segment of this number, or the sparse segment that replaced it.
    pub(crate) fn get(&self, number: u32) -> Option<&Arc<Segment>> {
        let found = self.first_that(|segment| segment.number() >= number);
        found.filter(|segment| segment.number() == number || segment.is_sparse())
    }

    /// Returns this set with `sparse` in place of the segments that it covers.
    pub(crate) fn with_sparse(&self, sparse: Arc<Segment>) -> Self {
        let is_covered = |segment: &Segment| {
            segment.number() <= sparse.number() && segment.first_position >= sparse.first_position
        };
        let mut left =
            Self { blocks: Vec::with_capacity(self.blocks.len()), age: self.age.clone() };
        for block in &self.blocks {
            step();
            let is_apart = |(first, last): (&Arc<Segment>, &Arc<Segment>)| {
                first.number() > sparse.number() || last.first_position < sparse.first_position
            };
            if block.first().zip(block.last()).is_some_and(is_apart) {
                left.blocks.push(Arc::clone(block));
            } else {
                left.append(block.iter().filter(|segment| !is_covered(segment)).cloned().collect());
            }
        }
        left.with(sparse)
    }

    /// Appends segments, to the last block if it has room.
    fn append(&mut self, mut segments: Vec<Arc<Segment>>) {
        if segments.is_empty() {
            return;
        }
        let room = BLOCK_SEGMENTS.saturating_sub(segments.len());
        if let Some(last) = self.blocks.pop_if(|last| last.len() <= room) {
            segments.splice(0..0, last.iter().cloned());
        }
        self.blocks.push(Block::new(segments));
    }

    /// Returns this set with another age.
    pub(crate) fn in_age(&self, age: &Age) -> Self {
        steps(self.blocks.len());
        Self { blocks: self.blocks.clone(), age: Arc::clone(age) }
    }

    pub(crate) fn age(&self) -> &Age {
        &self.age
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Segment>> {
        self.blocks.iter().flat_map(|block| block.iter()).inspect(|_| step())
    }

    /// Returns the total length of all files in bytes; `unsealed_bytes` supplies that of a segment
    /// that is not sealed.
    pub(crate) fn bytes(&self, unsealed_bytes: impl Fn(&Segment) -> u64) -> u64 {
        self.blocks.iter().map(|block| block.bytes(&unsealed_bytes)).sum()
    }

    /// Returns this set with one more segment.
    pub(crate) fn with(&self, segment: Arc<Segment>) -> Self {
        let mut blocks = self.blocks.clone();
        steps(blocks.len());
        let before = |block: &Arc<Block>| {
            block.first().is_some_and(|first| first.number() < segment.number())
        };
        let at = blocks.partition_point(before).saturating_sub(1);
        let after = at.saturating_add(1);
        match blocks.get_mut(at) {
            None => blocks.push(Block::new(vec![segment])),
            Some(block) => {
                let inside = block.partition_point(|other| other.number() < segment.number());
                if inside == block.len() && inside >= BLOCK_SEGMENTS {
                    blocks.insert(after, Block::new(vec![segment]));
                } else {
                    let mut all = block.to_vec();
                    all.insert(inside, segment);
                    let rest = all.split_off(all.len().min(BLOCK_SEGMENTS));
                    *block = Block::new(all);
                    if !rest.is_empty() {
                        blocks.insert(after, Block::new(rest));
                    }
                }
            }
        }
        Self { blocks, age: Arc::clone(&self.age) }
    }

    /// Returns the segment that would hold the commit of this position.
    pub(crate) fn of_position(&self, position: u64) -> Option<&Arc<Segment>> {
        let is_after =
            |block: &Arc<Block>| block.first().is_some_and(|first| first.first_position > position);
        let block = self.blocks.partition_point(|block| !is_after(block)).checked_sub(1)?;
        let block = self.blocks.get(block)?;
        let at = block.partition_point(|segment| segment.first_position <= position);
        block.get(at.checked_sub(1)?)
    }

    /// Returns the first segment with a larger number.
    pub(crate) fn after(&self, number: u32) -> Option<&Arc<Segment>> {
        self.first_that(|segment| segment.number() > number)
    }

    /// Returns the first segment that satisfies `holds`. All later segments must satisfy it too.
    fn first_that(&self, holds: impl Fn(&Segment) -> bool) -> Option<&Arc<Segment>> {
        let has_none = |block: &Arc<Block>| block.last().is_none_or(|last| !holds(last));
        let block = self.blocks.get(self.blocks.partition_point(has_none))?;
        block.get(block.partition_point(|segment| !holds(segment)))
    }
}
