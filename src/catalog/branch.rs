//! Branches: how forks and rewinds divide the events of a stream.
//!
//! A branch is a run of seqs that only grows, with the spans that hold it. A stream starts with one
//! branch. A rewind starts another, which shares the kept events with the previous one; a fork
//! starts with events it shares with a branch of another stream. Nothing is copied, and the seqs of
//! a branch are in order, which searches rely on. A view shows its branch, then the base of that,
//! and so on: its lineage.

use std::sync::OnceLock;

use super::Catalog;
use super::ancestor::AncestorLink;
use crate::change::{Fork, Rewind};
use crate::index::{ArenaId, NONE};
use crate::sabotage::{Sabotage, broken};
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::types::StreamId;

/// Run of seqs. The first branch of a stream represents the stream and alone has versions.
///
/// With the arena's presence word a branch takes one cache line, because lists scan all of them.
pub(crate) struct Branch {
    pub(crate) stream: StreamId,
    /// Seq of the next event.
    pub(super) head: AtomicU64,
    pub(super) span_first: AtomicU32,
    pub(super) span_last: AtomicU32,
    /// Position of the branch's newest commit; 0 before the first.
    pub(super) last: AtomicU64,
    /// Start of the branch; `None` for the first branch of a stream that is not a fork.
    origin: Option<Box<Origin>>,
    /// Arena id of the slot of the stream's newest version; 0 for a stream with nothing but events.
    pub(super) version: AtomicU32,
    /// Set on the first branch of a stream.
    is_first: bool,
    /// Set when another branch of the stream has taken over, before that branch becomes visible.
    is_rewound: AtomicBool,
    /// Set on a first branch while the sorted lists hold its current place.
    pub(super) is_listed: AtomicBool,
}

/// Start of a branch.
struct Origin {
    generation: u32,
    /// First seq of the branch's own.
    start: u64,
    base: Option<Base>,
    /// Link to the previous branch of the same stream.
    predecessor: Option<AncestorLink>,
    /// Link to the branch that holds the seqs before its own, once it was looked up; `None` when
    /// damage has made the links a cycle.
    base_link: OnceLock<Option<AncestorLink>>,
}

/// Branch that holds the events before a branch's own.
struct Base {
    stream: StreamId,
    generation: u32,
    /// Looked up on first use: while a log is opened, the base may be found after the branch.
    at: OnceLock<ArenaId>,
}

impl Branch {
    fn with(stream: StreamId, start: u64, origin: Option<Box<Origin>>) -> Self {
        Self {
            stream,
            head: AtomicU64::new(start),
            span_first: AtomicU32::new(NONE),
            span_last: AtomicU32::new(NONE),
            last: AtomicU64::new(0),
            version: AtomicU32::new(0),
            is_first: origin.as_ref().is_none_or(|origin| origin.predecessor.is_none()),
            is_rewound: AtomicBool::new(false),
            is_listed: AtomicBool::new(false),
            origin,
        }
    }

    /// Returns the first branch of a stream.
    pub(super) fn first(stream: StreamId, fork: Option<&Fork>, generation: u32) -> Self {
        let Some(fork) = fork else {
            // A later generation means that the previous branches are lost.
            let origin = Origin {
                generation,
                start: 0,
                base: None,
                predecessor: None,
                base_link: OnceLock::new(),
            };
            return Self::with(stream, 0, (generation > 0).then(|| Box::new(origin)));
        };
        let base =
            Base { stream: fork.base, generation: fork.base_generation, at: OnceLock::new() };
        let origin = Origin {
            generation: fork.generation,
            start: fork.seq,
            base: Some(base),
            predecessor: None,
            base_link: OnceLock::new(),
        };
        Self::with(stream, fork.seq, Some(Box::new(origin)))
    }

    /// Returns the branch that a rewind starts.
    pub(super) fn rewound(
        stream: StreamId,
        (before, link): (&Self, AncestorLink),
        rewind: &Rewind,
        generation: u32,
    ) -> Self {
        before.is_rewound.store(true, Ordering::Release);
        let base = Base { stream, generation: before.generation(), at: OnceLock::from(link.up) };
        let origin = Origin {
            generation,
            start: rewind.to,
            base: Some(base),
            predecessor: Some(link),
            base_link: OnceLock::new(),
        };
        Self::with(stream, rewind.to, Some(Box::new(origin)))
    }

    pub(crate) fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// Tells whether this is the first branch of its stream.
    pub(super) fn is_first(&self) -> bool {
        self.is_first
    }

    /// Tells whether the stream has nothing but events. Valid on a first branch only.
    pub(super) fn is_plain(&self) -> bool {
        self.version.load(Ordering::Acquire) == 0
    }

    /// Tells whether another branch of the stream has taken over.
    pub(super) fn is_rewound(&self) -> bool {
        self.is_rewound.load(Ordering::Acquire)
    }

    pub(crate) fn generation(&self) -> u32 {
        self.origin.as_ref().map_or(0, |origin| origin.generation)
    }

    /// Returns the oldest span of the branch.
    pub(crate) fn first_span(&self) -> Option<u32> {
        let first = self.span_first.load(Ordering::Acquire);
        (first != NONE).then_some(first)
    }

    /// Returns the stream and the generation of the branch that it starts from, if any.
    pub(super) fn base_name(&self) -> Option<(StreamId, u32)> {
        let base = self.origin.as_ref()?.base.as_ref()?;
        Some((base.stream, base.generation))
    }

    /// Returns the first seq of the branch's own.
    pub(crate) fn start(&self) -> u64 {
        self.origin.as_ref().map_or(0, |origin| origin.start)
    }

    /// Returns the link to the previous branch of the same stream.
    pub(super) fn predecessor_link(&self) -> Option<AncestorLink> {
        self.origin.as_ref()?.predecessor
    }

    /// Returns the link to the branch that holds the seqs before its own; `None` for a branch
    /// without a base.
    pub(super) fn base_link(&self) -> Option<&OnceLock<Option<AncestorLink>>> {
        Some(&self.origin.as_ref()?.base_link)
    }

    /// Returns the position of the branch's newest commit; 0 before the first.
    pub(crate) fn last(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }

    /// Reports whether its stream may have other branches.
    pub(super) fn has_siblings(&self) -> bool {
        self.origin.is_some() || !self.is_plain()
    }
}

impl std::fmt::Debug for Branch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Branch")
            .field("stream", &self.stream)
            .field("generation", &self.generation())
            .field("seqs", &(self.start()..self.head()))
            .finish_non_exhaustive()
    }
}

impl Catalog {
    pub(crate) fn branch(&self, at: ArenaId) -> Option<&Branch> {
        self.branches.get(at)
    }

    /// Returns the stream's branch of this generation, or of the latest generation before it.
    pub(crate) fn branch_of(&self, stream: StreamId, generation: u32) -> Option<ArenaId> {
        let mut at = self.tip(self.root(stream)?);
        let is_later = |at| self.branch(at).is_some_and(|branch| branch.generation() > generation);
        while is_later(at)
            && let Some(link) = self.branch(at)?.predecessor_link()
        {
            at = if is_later(link.jump) { link.jump } else { link.up };
        }
        Some(at)
    }

    /// Returns the link of a branch to `before`, its predecessor.
    pub(super) fn link_to(&self, before: ArenaId) -> AncestorLink {
        AncestorLink::to(before, |at| self.branch(at)?.predecessor_link())
    }

    /// Returns the branch that shares its events with this one.
    pub(super) fn base(&self, branch: &Branch) -> Option<ArenaId> {
        let base = branch.origin.as_ref()?.base.as_ref()?;
        if broken(Sabotage::ForgetBases) {
            return None;
        }
        if let Some(at) = base.at.get() {
            return Some(*at);
        }
        let found = self.branch_of(base.stream, base.generation)?;
        let same = self.branch(found)?.generation() == base.generation;
        same.then(|| *base.at.get_or_init(|| found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A durable stream takes at most 50 bytes beyond what is needed to find its events, as
    /// documented.
    #[test]
    fn the_catalog_adds_little_to_the_index() {
        fn bytes<T>(_: impl Fn(&Branch) -> &T) -> usize {
            size_of::<T>()
        }
        let ends = bytes(|branch| &branch.span_first) + bytes(|branch| &branch.span_last);
        let index = bytes(|branch| &branch.stream)
            + bytes(|branch| &branch.head)
            + bytes(|branch| &branch.last)
            + ends;
        // Size of a branch in the arena.
        let beyond = size_of::<OnceLock<Branch>>() - index;
        assert_eq!(beyond as u64, crate::options::costs::MemoryCosts::CURRENT.catalog_stream);
        assert!(beyond <= 50, "{beyond} bytes");
    }
}
