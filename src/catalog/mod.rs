//! Catalog of streams: the streams that exist, the segments that hold them, and the part readers
//! may see.
//!
//! The writer updates it; readers use it without a lock. It consists of an index of streams by id,
//! an arena of links to the segments of each stream, and a published watermark that hides
//! everything after it. It folds what the segments say and makes no policy decisions.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod ancestor;
mod branch;
mod commit_ids;
mod commit_times;
mod cursor;
#[cfg(feature = "json")]
mod history;
mod lineage;
mod list;
mod liveness;
#[cfg(all(test, amberlog_loom))]
mod models;
mod names;
mod orders;
mod query;
#[cfg(feature = "serde")]
mod serde_impls;
mod shown;
mod versions;
mod view;
mod view_horizon;
mod watermark;

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

pub(crate) use self::branch::Branch;
pub(crate) use self::commit_ids::CommitIds;
pub use self::cursor::Cursor;
#[cfg(feature = "json")]
pub(crate) use self::history::{History, Stretch};
pub(crate) use self::lineage::{Lineage, Piece};
pub use self::list::Page;
pub(crate) use self::list::{Asked, Best};
pub(crate) use self::liveness::{BatchCandidate, ForkGuard, LivenessTest};
pub(crate) use self::names::ReservedName;
pub use self::query::{Order, Query};
use self::versions::Depth;
pub(crate) use self::versions::{KeptMeta, Meta, Version};
pub use self::view::{ReadView, StreamInfo};
pub(crate) use self::view::{SpanBatches, View};
pub(crate) use self::watermark::Watermark;
use crate::change::Change;
use crate::error::{Error, ErrorKind};
use crate::index::{Arena, ArenaId, BatchRef, Chain, HashIndex, NONE};
use crate::sabotage::{Sabotage, broken};
use crate::segment::{FilePool, Segment, SegmentSet};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::types::{StreamId, StreamState};

/// Words of a span: the segment with the stream's first node there, and the stream's last node
/// there.
const SPAN_PLACE: usize = 0;
const SPAN_LAST: usize = 1;

/// Index of all streams of a log.
pub(crate) struct Catalog {
    /// First branch of each stream.
    streams: HashIndex,
    /// Hasher of stream ids, which are arbitrary after an import.
    hasher: RandomState,
    branches: Arena<Branch>,
    /// Newest version of each stream that has metadata, a state or a rewind.
    versions: Arena<ArcSwap<Version>>,
    /// Bytes of the names, labels and data in `versions`.
    meta_bytes: Arc<AtomicUsize>,
    names: names::Names,
    /// List of the segments that hold a part of a branch, one list per branch.
    spans: Chain<2>,
    pending_forks: liveness::PendingForks,
    /// Position of the oldest commit whose id is still remembered.
    ids_since: AtomicU64,
    view_horizon: view_horizon::ViewHorizon,
    /// Set while the log is being opened and its files are still read.
    is_opening: AtomicBool,
    /// Lower bound of the watermark, while the log is being opened.
    visible_at_least: AtomicU64,
    /// Set when a catalog batch could not be read, so that liveness is incomplete.
    doubtful: AtomicBool,
    segments: ArcSwap<SegmentSet>,
    listing: orders::Listing,
    /// File pool that reads the segments, unless a read view has its own.
    files: OnceLock<Arc<FilePool>>,
    published: watermark::PublishedWatermark,
}

/// State of a stream that the expectations of a commit are checked against.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Baseline {
    pub(crate) head: u64,
    pub(crate) generation: u32,
    pub(crate) state: StreamState,
    /// First seq that is not trimmed.
    pub(crate) start: u64,
    /// Position of the last commit that changed more than the stream's events; 0 if none did.
    pub(crate) said: u64,
}

/// State of a stream that maintenance relied on when it decided on a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Measured {
    /// State that was read. The stream may have grown since, but any other change or a rewind
    /// invalidates it.
    pub(crate) baseline: Baseline,
    /// Position of the last commit, if later commits invalidate the change.
    pub(crate) last: Option<u64>,
}

impl Measured {
    /// Tells whether the stream's current state is still compatible with what was read.
    pub(crate) fn is_of(&self, now: Baseline) -> bool {
        now.head >= self.baseline.head
            && self.baseline == Baseline { head: self.baseline.head, ..now }
    }
}

/// Part of one commit that belongs to one stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share<'a> {
    pub(crate) stream: StreamId,
    /// First branch of the stream, when it is known.
    pub(crate) root: Option<ArenaId>,
    /// Position of the commit.
    pub(crate) position: u64,
    /// Generation of the commit's batches of this stream.
    pub(crate) generation: u32,
    pub(crate) change: Option<&'a Change>,
}

/// First branches of the streams of a log that is being opened.
///
/// No reader exists yet, so this is a plain map: the shared index grows in small steps, which would
/// slow down every lookup.
#[derive(Default)]
pub(crate) struct StreamRoots {
    streams: HashMap<StreamId, ArenaId>,
    /// Last stream looked up: streams often commit several times in a row.
    last: Option<(StreamId, ArenaId)>,
}

impl StreamRoots {
    pub(crate) fn root(&mut self, id: StreamId) -> Option<ArenaId> {
        let find = || Some((id, *self.streams.get(&id)?));
        self.last = self.last.filter(|(last, _)| *last == id).or_else(find);
        self.last.map(|(_, root)| root)
    }
}

impl Catalog {
    pub(crate) fn new() -> Self {
        Self {
            streams: HashIndex::new(),
            hasher: RandomState::new(),
            branches: Arena::new(),
            versions: Arena::new(),
            names: names::Names::new(),
            spans: Chain::new(),
            pending_forks: liveness::PendingForks::default(),
            ids_since: AtomicU64::new(0),
            view_horizon: view_horizon::ViewHorizon::default(),
            is_opening: AtomicBool::new(false),
            visible_at_least: AtomicU64::new(0),
            doubtful: AtomicBool::new(false),
            segments: ArcSwap::default(),
            listing: orders::Listing::default(),
            files: OnceLock::new(),
            meta_bytes: Arc::new(AtomicUsize::new(0)),
            published: watermark::PublishedWatermark::new(),
        }
    }

    /// Records that a catalog batch could not be read, so that liveness is incomplete.
    pub(crate) fn doubt(&self) {
        self.doubtful.store(true, Ordering::Relaxed);
    }

    /// Records the first position whose commit id is remembered. Called by the writer only.
    pub(crate) fn note_ids(&self, ids: &CommitIds) {
        self.ids_since.store(ids.since(), Ordering::Relaxed);
    }

    pub(crate) fn is_doubtful(&self) -> bool {
        self.doubtful.load(Ordering::Relaxed)
    }

    pub(crate) fn watermark(&self) -> Watermark {
        self.published.load()
    }

    /// Makes everything up to this watermark visible. Called by the writer only, with rising
    /// watermarks.
    pub(crate) fn raise(&self, mark: Watermark) {
        self.published.store(mark);
    }

    /// Sets the file pool that reads the segments. Only the first call has an effect.
    pub(crate) fn read_by(&self, files: Arc<FilePool>) {
        let _ = self.files.set(files);
    }

    /// Returns the file pool that reads the segments.
    pub(crate) fn files(&self) -> Result<&Arc<FilePool>, Error> {
        self.files.get().ok_or_else(|| Error::new(ErrorKind::NoLog, "read"))
    }

    pub(crate) fn segments(&self) -> Arc<SegmentSet> {
        self.segments.load_full()
    }

    pub(crate) fn add_segment(&self, segment: &Arc<Segment>) {
        self.segments.rcu(|segments| segments.with(Arc::clone(segment)));
    }

    /// Lets new read views use a sparse segment in place of the segments it covers. Older read
    /// views keep using those.
    pub(crate) fn replace_segments(&self, sparse: &Arc<Segment>) {
        self.segments.rcu(|segments| segments.with_sparse(Arc::clone(sparse)));
    }

    /// Returns the id that all files of the log share; `None` when the log has no files.
    pub(crate) fn log_id(&self) -> Option<[u8; 16]> {
        self.segments.load().iter().next().map(|segment| segment.header.log_id)
    }

    pub(crate) fn streams_len(&self) -> u64 {
        u64::from(self.streams.len())
    }

    /// Returns the number of streams that were deleted. Looks at every stream that is more than
    /// its events.
    pub(crate) fn deleted_len(&self) -> u64 {
        let is_deleted = |version: &ArcSwap<Version>| version.load().state == StreamState::Deleted;
        self.versions.iter().filter(|(_, version)| is_deleted(version)).count() as u64
    }

    /// Returns the first branch of the stream, even if none of it is visible yet.
    pub(crate) fn root(&self, id: StreamId) -> Option<ArenaId> {
        let is_first = |at| self.branch(at).is_some_and(|branch| branch.stream == id);
        self.streams.find(self.hasher.hash_one(id), is_first)
    }

    /// Returns the branch that the stream is in now.
    pub(crate) fn tip(&self, root: ArenaId) -> ArenaId {
        self.version(root).and_then(|version| version.tip).unwrap_or(root)
    }

    /// Returns the newest version of the stream; `None` for a stream with nothing but events.
    pub(crate) fn version(&self, root: ArenaId) -> Option<Arc<Version>> {
        self.version_of(self.branch(root)?)
    }

    /// Returns the newest version of the stream with this first branch.
    fn version_of(&self, first: &Branch) -> Option<Arc<Version>> {
        Some(self.version_slot(first)?.load_full())
    }

    fn version_slot(&self, first: &Branch) -> Option<&ArcSwap<Version>> {
        self.versions.get(ArenaId::from_word(first.version.load(Ordering::Acquire))?)
    }

    /// Replaces the newest version of the stream.
    fn set_version(&self, first: &Branch, version: Version) {
        let version = Arc::new(version);
        match self.version_slot(first) {
            Some(slot) => slot.store(version),
            None => {
                let slot = self.versions.push(ArcSwap::new(version));
                first.version.store(ArenaId::word(slot), Ordering::Release);
            }
        }
    }

    /// Returns the current state of the stream that commits are checked against.
    pub(crate) fn baseline(&self, root: ArenaId) -> Option<Baseline> {
        let first = self.branch(root)?;
        let Some(version) = &self.version_of(first) else {
            return Some(Baseline {
                head: first.head(),
                generation: first.generation(),
                ..Baseline::default()
            });
        };
        let tip = version.tip.map_or(Some(first), |tip| self.branch(tip))?;
        Some(Baseline {
            head: tip.head(),
            generation: tip.generation(),
            state: version.state,
            start: version.start,
            said: version.from,
        })
    }

    /// Records the part of a stream in a commit of an active segment, written or found. Called by
    /// the writer only.
    pub(crate) fn note(
        &self,
        segment: &Segment,
        share: Share<'_>,
        batches: impl Iterator<Item = BatchRef>,
    ) {
        let Some((root, tip)) = self.resolve(share) else { return };
        if let Some(branch) = self.branch(tip) {
            // Stored first: a reader that sees the new head must also see its commit.
            branch.last.fetch_max(share.position, Ordering::AcqRel);
            batches.for_each(|batch| self.note_batch(segment, branch, &batch));
        }
        self.apply_change(share, root, tip);
        if let Some(first) = self.branch(root) {
            self.listing.note_moved(first, root);
        }
    }

    /// Records a commit of an unsealed segment that was found while the log is opened, as
    /// [`Catalog::note`] does.
    pub(crate) fn gather(
        &self,
        roots: &mut StreamRoots,
        segment: &Segment,
        share: Share<'_>,
        batches: impl Iterator<Item = BatchRef>,
    ) {
        let root = self.gather_root(roots, share);
        self.note(segment, Share { root, ..share }, batches);
    }

    /// Records that a sealed segment holds these seqs of a stream, the last of them in the commit
    /// of position `last`.
    pub(crate) fn gather_sealed(
        &self,
        roots: &mut StreamRoots,
        segment: u32,
        share: Share<'_>,
        (seqs, last): (Range<u64>, u64),
    ) {
        let root = self.gather_root(roots, share);
        let share = Share { root, ..share };
        let Some((root, tip)) = self.resolve(share) else { return };
        if let Some(branch) = self.branch(tip) {
            let span = branch.span_last.load(Ordering::Relaxed);
            if span == NONE || self.span_segment(span) != segment {
                self.note_span(branch, segment, seqs.start, NONE);
            }
            branch.last.fetch_max(last, Ordering::AcqRel);
            branch.head.fetch_max(seqs.end, Ordering::AcqRel);
        }
        self.apply_change(share, root, tip);
    }

    fn gather_root(&self, roots: &mut StreamRoots, share: Share<'_>) -> Option<ArenaId> {
        self.is_opening.store(true, Ordering::Relaxed);
        if let Some(root) = roots.root(share.stream) {
            return Some(root);
        }
        let root = self.push_first(share)?;
        roots.streams.insert(share.stream, root);
        Some(root)
    }

    /// Raises the lower bound of the watermark, while the log is being opened.
    pub(crate) fn shows_at_least(&self, position: u64) {
        self.visible_at_least.fetch_max(position, Ordering::Relaxed);
    }

    /// Publishes the streams that were found and indexes their names.
    pub(crate) fn adopt(&mut self, roots: StreamRoots) {
        self.is_opening.store(false, Ordering::Relaxed);
        self.streams = HashIndex::with_room_for(roots.streams.len());
        for (id, root) in roots.streams {
            self.streams.insert(self.hasher.hash_one(id), root);
        }
        for (at, branch) in self.branches.iter() {
            if !branch.is_plain() {
                self.find_names(branch.stream, at);
            }
            // In the order of branches, so that each takes few steps.
            if !branch.is_first() {
                let _ = self.base_link(at);
            }
        }
    }

    /// Adds the first branch of a new stream.
    fn push_first(&self, share: Share<'_>) -> Option<ArenaId> {
        let fork = share.change.and_then(|change| change.fork.as_ref());
        // Compaction may have removed the branches before a rewind. A fork may still name the
        // first.
        let is_rewound = share.change.is_some_and(|change| change.rewind.is_some());
        let generation = if is_rewound { 0 } else { share.generation };
        self.branches.push(Branch::first(share.stream, fork, generation))
    }

    /// Returns the first branch of the commit's stream and the branch that its batches belong to.
    fn resolve(&self, share: Share<'_>) -> Option<(ArenaId, ArenaId)> {
        let root = match share.root.or_else(|| self.root(share.stream)) {
            Some(root) => root,
            None => {
                let root = self.push_first(share)?;
                self.streams.insert(self.hasher.hash_one(share.stream), root)?;
                root
            }
        };
        let tip = self.tip(root);
        let rewind = share.change.and_then(|change| change.rewind.as_ref());
        let Some(rewind) = rewind.filter(|_| !broken(Sabotage::ForgetRewinds)) else {
            return Some((root, tip));
        };
        let before = (self.branch(tip)?, self.link_to(tip));
        let after = Branch::rewound(share.stream, before, rewind, share.generation);
        let after = self.branches.push(after)?;
        if !self.is_opening.load(Ordering::Relaxed) {
            self.link_rewound(after, tip);
        }
        Some((root, after))
    }

    /// Returns the number of branches: one for each stream, fork and rewind.
    pub(crate) fn branch_count(&self) -> u32 {
        self.branches.len()
    }

    /// Counts these bytes for the lists by labels, instead of those that were `counted` before.
    fn count_label_lists(&self, counted: &mut usize, bytes: usize) {
        self.meta_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.meta_bytes.fetch_sub(std::mem::replace(counted, bytes), Ordering::Relaxed);
    }

    /// Returns the bytes of the names, labels and data of durable streams, in all versions that are
    /// kept, and of the lists by labels.
    pub(crate) fn meta_bytes(&self) -> usize {
        self.meta_bytes.load(Ordering::Relaxed)
    }

    /// Applies the commit's change to the stream.
    fn apply_change(&self, share: Share<'_>, root: ArenaId, tip: ArenaId) {
        let Some(change) =
            share.change.filter(|change| change.rewind.is_some() || change.has_attributes())
        else {
            return;
        };
        let Some(first) = self.branch(root) else { return };
        let older = self.version_of(first);
        let before = older.as_ref().map(|older| &older.meta);
        let meta = match (change.has_attributes(), before) {
            (false, Some(before)) => Arc::clone(before),
            (_, before) => {
                let meta = before.map_or(&Meta::default(), |before| before).after(change);
                Arc::new(KeptMeta::new(meta, &self.meta_bytes))
            }
        };
        let (state, start, summary) = older
            .as_ref()
            .map_or((StreamState::Active, 0, 0), |older| (older.state, older.start, older.summary));
        let after = match state {
            StreamState::Deleted => state,
            _ => change.state.unwrap_or(state),
        };
        let depth = Depth::after(older.as_ref());
        let mut version = Version {
            from: share.position,
            tip: Some(tip).filter(|tip| *tip != root),
            state: after,
            start: start.max(change.start.unwrap_or(0)),
            meta,
            summary: if change.is_summary { share.position } else { summary },
            older,
            depth,
        };
        self.forget_versions(&mut version);
        self.set_version(first, version);
    }

    /// Drops versions that no read view sees, so that frequent changes do not use ever more memory.
    fn forget_versions(&self, version: &mut Version) {
        let is_opening = self.is_opening.load(Ordering::Relaxed);
        if !is_opening {
            self.count_version(version.meta.bytes());
        }
        match version.is_deep() {
            false => {}
            true if broken(Sabotage::ForgetVersions) => version.forget(&[]),
            true if is_opening => {
                let shown = self.visible_at_least.load(Ordering::Relaxed);
                version.forget(std::slice::from_ref(&(shown..u64::MAX)));
            }
            true => version.forget(&self.view_ranges()),
        }
    }

    fn note_batch(&self, segment: &Segment, branch: &Branch, batch: &BatchRef) {
        let mut span = branch.span_last.load(Ordering::Relaxed);
        let here = span != NONE && self.span_segment(span) == segment.number();
        let last = if here { self.spans.value(span, SPAN_LAST) as u32 } else { NONE };
        let node = segment.note((branch.stream, branch.generation()), last, batch);
        if here {
            self.spans.set(span, SPAN_LAST, u64::from(node));
        } else {
            span = self.note_span(branch, segment.number(), batch.first_seq, node);
        }
        debug_assert_ne!(span, NONE);
        branch.head.fetch_max(batch.end_seq(), Ordering::AcqRel);
    }

    fn note_span(&self, branch: &Branch, segment: u32, first_seq: u64, node: u32) -> u32 {
        let last = branch.span_last.load(Ordering::Relaxed);
        let place = u64::from(segment) | u64::from(node) << 32;
        let span = self.spans.push(last, first_seq, [place, u64::from(node)]).unwrap_or(NONE);
        branch.span_last.store(span, Ordering::Release);
        if last == NONE {
            branch.span_first.store(span, Ordering::Release);
        }
        span
    }

    fn span_segment(&self, span: u32) -> u32 {
        self.spans.value(span, SPAN_PLACE) as u32
    }
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalog")
            .field("streams", &self.streams.len())
            .field("watermark", &self.watermark())
            .finish_non_exhaustive()
    }
}
