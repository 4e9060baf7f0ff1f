//! Branches: what forks and rewinds make of the sequence of a stream's events.
//!
//! A branch is a run of seqs that only grows, with the spans that hold it. A stream begins with one. A
//! rewind begins another, which shares what it kept with the one before; a fork begins with what it shares
//! with a branch of another stream. So nothing is copied, and within a branch seqs are in order, which is
//! what finding them relies on. What a view shows is its branch, then that one's base, and so on: a lineage.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::life::{Fork, Rewind};
use super::{Catalog, Cold, LogPlace};
use crate::index::{At, NONE};
use crate::sabotage::{Sabotage, broken};
use crate::segment::Segment;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::types::StreamId;

/// A run of seqs. The first branch of a stream stands for the stream: it alone has a life.
///
/// With the word that says that it is there, one takes a cache line: lists look at each of them.
pub(crate) struct Branch {
    pub(crate) stream: StreamId,
    /// The seq that the next event gets: what commits are checked against.
    pub(super) head: AtomicU64,
    pub(super) span_first: AtomicU32,
    pub(super) span_last: AtomicU32,
    /// Where its newest commit starts.
    pub(super) last: AtomicU64,
    /// `None`: it is the first of a stream that is no fork.
    origin: Option<Box<Origin>>,
    /// What became of the stream, if anything did but events: its number among the catalog's lives.
    pub(super) life: AtomicU32,
    /// It is the first of its stream.
    is_first: bool,
    /// Another branch of the same stream took over. What shows that sees this too.
    is_rewound: AtomicBool,
}

/// How a branch began.
struct Origin {
    generation: u32,
    /// Where the commit starts that began it.
    from: LogPlace,
    /// Its first own seq.
    start: u64,
    base: Option<Base>,
    /// The branch of the same stream that it took over from.
    before: Option<At>,
}

/// Where the events in front of a branch's own are found.
struct Base {
    stream: StreamId,
    generation: u32,
    /// Looked up when it is first needed: while a log is opened, it may be found after the branch.
    at: OnceLock<At>,
}

impl Branch {
    fn with(stream: StreamId, start: u64, origin: Option<Box<Origin>>) -> Self {
        Self {
            stream,
            head: AtomicU64::new(start),
            span_first: AtomicU32::new(NONE),
            span_last: AtomicU32::new(NONE),
            last: AtomicU64::new(0),
            life: AtomicU32::new(0),
            is_first: origin.as_ref().is_none_or(|origin| origin.before.is_none()),
            is_rewound: AtomicBool::new(false),
            origin,
        }
    }

    /// The first branch of a stream.
    pub(super) fn first(
        stream: StreamId,
        fork: Option<&Fork>,
        generation: u32,
        from: LogPlace,
    ) -> Self {
        let Some(fork) = fork else {
            // Where it comes from was lost, if this is not the first generation.
            let origin = Origin { generation, from, start: 0, base: None, before: None };
            return Self::with(stream, 0, (generation > 0).then(|| Box::new(origin)));
        };
        let base =
            Base { stream: fork.base, generation: fork.base_generation, at: OnceLock::new() };
        let origin = Origin {
            generation: fork.generation,
            from,
            start: fork.seq,
            base: Some(base),
            before: None,
        };
        Self::with(stream, fork.seq, Some(Box::new(origin)))
    }

    /// The branch that a rewind begins.
    pub(super) fn rewound(
        stream: StreamId,
        before: (At, &Self),
        rewind: &Rewind,
        generation: u32,
        from: LogPlace,
    ) -> Self {
        before.1.is_rewound.store(true, Ordering::Release);
        let base = Base { stream, generation: before.1.generation(), at: OnceLock::from(before.0) };
        let origin =
            Origin { generation, from, start: rewind.to, base: Some(base), before: Some(before.0) };
        Self::with(stream, rewind.to, Some(Box::new(origin)))
    }

    pub(crate) fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// Whether it is the first of its stream.
    pub(super) fn is_first(&self) -> bool {
        self.is_first
    }

    /// Whether nothing was ever said of the stream but its events. Of its first branch.
    pub(super) fn is_plain(&self) -> bool {
        self.life.load(Ordering::Acquire) == 0
    }

    /// Whether the stream is in another branch by now.
    pub(super) fn is_rewound(&self) -> bool {
        self.is_rewound.load(Ordering::Acquire)
    }

    pub(crate) fn generation(&self) -> u32 {
        self.origin.as_ref().map_or(0, |origin| origin.generation)
    }

    /// Its first own seq.
    pub(crate) fn start(&self) -> u64 {
        self.origin.as_ref().map_or(0, |origin| origin.start)
    }

    /// Where it began; what it shares was said before.
    fn from(&self) -> Option<LogPlace> {
        self.origin.as_ref().map(|origin| origin.from)
    }

    pub(super) fn before(&self) -> Option<At> {
        self.origin.as_ref()?.before
    }

    /// Where its newest commit starts.
    pub(crate) fn last(&self) -> LogPlace {
        LogPlace(self.last.load(Ordering::Acquire))
    }

    /// Whether it shares a segment's entries of its stream with other branches: then which offsets are its own.
    pub(super) fn offsets_in(&self, segment: &Segment) -> Option<Range<u64>> {
        if self.origin.is_none() && self.is_plain() {
            return None;
        }
        let from = self.origin.as_ref().map_or(LogPlace::default(), |origin| origin.from);
        let last = self.last();
        let start = segment.offset_of(from.0).unwrap_or(0);
        let end = segment.offset_of(last.0 + 1).unwrap_or(u64::MAX);
        Some(start..end)
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

/// A part of what a view shows: these seqs are in this branch, or in the archive file of what it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    pub(crate) branch: At,
    pub(crate) seqs: Range<u64>,
    pub(crate) cold: Option<Arc<Cold>>,
}

/// The branches that a view is made of.
#[derive(Clone, Default, Debug)]
pub(crate) struct Lineage {
    newest: Option<Piece>,
    /// The others, newest first.
    older: Vec<Piece>,
}

impl Lineage {
    fn push(&mut self, piece: Piece) {
        match &self.newest {
            None => self.newest = Some(piece),
            Some(_) => self.older.push(piece),
        }
    }

    /// The piece that this seq is in. A view that ends behind all of its pieces ends in the newest.
    pub(crate) fn piece(&self, seq: u64) -> Option<&Piece> {
        let newest = self.newest.as_ref()?;
        if seq >= newest.seqs.start {
            return Some(newest);
        }
        let at = self.older.partition_point(|piece| piece.seqs.start > seq);
        self.older.get(at)
    }

    pub(crate) fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.newest.iter().chain(&self.older)
    }
}

impl Catalog {
    pub(crate) fn branch(&self, at: At) -> Option<&Branch> {
        self.branches.get(at)
    }

    /// The branch of a stream in which it was in this generation, or the last before it.
    pub(crate) fn branch_of(&self, stream: StreamId, generation: u32) -> Option<At> {
        let mut at = self.tip(self.root(stream)?);
        while let Some(branch) = self.branch(at) {
            if branch.generation() <= generation {
                break;
            }
            match branch.before() {
                Some(before) => at = before,
                None => break,
            }
        }
        Some(at)
    }

    /// The branch that shares its events with this one, and up to which seq.
    pub(super) fn base(&self, branch: &Branch) -> Option<At> {
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

    /// What a view is made of that shows the events of `tip` before `end`, as far as it was said before `limit` where
    /// they are.
    pub(crate) fn lineage(&self, tip: At, end: u64, limit: LogPlace) -> Lineage {
        let mut lineage = Lineage::default();
        self.descend(tip, end, limit, |_, piece| {
            if !piece.seqs.is_empty() || lineage.newest.is_none() {
                lineage.push(piece);
            }
            true
        });
        lineage
    }

    /// The same, by branches alone, wherever the events are.
    #[cfg(feature = "json")]
    pub(super) fn branches_below(&self, tip: At, end: u64) -> Lineage {
        self.lineage(tip, end, LogPlace::default())
    }

    /// Goes from a branch to its base, and so on, and says where the seqs before `end` are, the last ones first, until
    /// `visit` has seen enough.
    pub(super) fn descend(
        &self,
        tip: At,
        mut end: u64,
        mut limit: LogPlace,
        mut visit: impl FnMut(&Branch, Piece) -> bool,
    ) {
        let mut at = tip;
        // What is damaged may go in a circle.
        for _ in 0..=self.branches.len() {
            let Some(branch) = self.branch(at) else { return };
            let cold = self.cold(at, branch, limit).filter(|cold| cold.seqs.start < end);
            let warm = cold.as_ref().map_or(0, |cold| cold.seqs.end);
            let start = warm.max(branch.start()).min(end);
            let mut goes_on = visit(branch, Piece { branch: at, seqs: start..end, cold: None });
            end = start;
            if let Some(cold) = cold.filter(|_| goes_on) {
                let first = cold.seqs.start;
                let piece = Piece { branch: at, seqs: first..end, cold: Some(cold) };
                goes_on = visit(branch, piece);
                end = first;
                // What is in front of it was trimmed, and may be shared.
                let start = branch.start().min(end);
                if goes_on && start < end {
                    goes_on = visit(branch, Piece { branch: at, seqs: start..end, cold: None });
                    end = start;
                }
            }
            limit = branch.from().map_or(limit, |from| from.min(limit));
            match self.base(branch).filter(|_| goes_on && end > 0) {
                Some(base) => at = base,
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a durable stream takes beyond what finding its events needs is at most 50 bytes, and is what is told.
    #[test]
    fn the_catalog_adds_little_to_the_index() {
        fn bytes<T>(_: impl Fn(&Branch) -> &T) -> usize {
            size_of::<T>()
        }
        let ends = bytes(|one| &one.span_first) + bytes(|one| &one.span_last);
        let index =
            bytes(|one| &one.stream) + bytes(|one| &one.head) + bytes(|one| &one.last) + ends;
        // As the arena holds it.
        let beyond = size_of::<OnceLock<Branch>>() - index;
        assert_eq!(beyond as u64, crate::options::MEMORY_COSTS.catalog_stream);
        assert!(beyond <= 50, "{beyond} bytes");
    }
}
