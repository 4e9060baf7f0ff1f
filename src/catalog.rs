//! What streams exist, which segments hold them, and how much of that a reader may see.
//!
//! Written by whoever holds the writer, read by everybody, without a lock: a lock-free map of streams,
//! an arena of links for where each stream is, and a wall behind which nothing is shown. It is the fold
//! of what the segments say; it decides nothing.

mod ages;
mod branch;
mod cold;
#[cfg(feature = "json")]
mod history;
mod ids;
mod life;
mod list;
#[cfg(all(test, amberlog_loom))]
mod models;
mod reach;
mod snapshot;
mod times;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arc_swap::ArcSwap;
use papaya::Guard;

pub(crate) use self::branch::{Branch, Lineage, Piece};
pub(crate) use self::cold::{Cold, ColdFile, archive_path, cold_path};
#[cfg(feature = "json")]
pub(crate) use self::history::{History, Shown, Stretch};
pub(crate) use self::ids::{COMMIT_IDS_MAX, CommitIds};
use self::life::Depth;
pub(crate) use self::life::{Change, Fork, Meta, NameChange, Rewind, Version};
pub use self::list::{Cursor, NoCursor, Order, Page, Query};
pub(crate) use self::reach::{Candidate, Reach, Shared, Wants};
pub use self::snapshot::{Snapshot, StreamInfo};
pub(crate) use self::snapshot::{SpanBatches, View};
use crate::format::ALIGN;
use crate::index::{Arena, At, BatchRef, Chain, NONE};
use crate::sabotage::{Sabotage, broken};
use crate::segment::{Segment, SegmentSet};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::types::{StreamId, StreamState};

/// Words of a span: which segment and the stream's first node there; its last node there.
const SPAN_PLACE: usize = 0;
const SPAN_LAST: usize = 1;
/// Watermarks of late that the wall keeps.
const WALL_SLOTS: usize = 64;

/// Everything that is known of the streams of a log.
pub(crate) struct Catalog {
    /// Each stream's first branch.
    streams: papaya::HashMap<StreamId, At>,
    branches: Arena<Branch>,
    /// What is said of those streams of which anything is.
    lives: Arena<ArcSwap<Version>>,
    /// Names that are given or reserved now.
    names: papaya::HashMap<Box<str>, StreamId>,
    /// One list per branch: the segments that hold a part of it.
    spans: Chain<2>,
    /// The newest commit that said something of a stream beside its events.
    changed: AtomicU64,
    shared: reach::SharedByForks,
    /// Ids of commits before this position are forgotten.
    ids_since: AtomicU64,
    colds: cold::Colds,
    ages: ages::Ages,
    /// What the files say is still gathered.
    is_opening: AtomicBool,
    /// Something that was said of streams could not be read.
    doubtful: AtomicBool,
    segments: ArcSwap<SegmentSet>,
    wall: Wall<WALL_SLOTS>,
}

/// Where a stream stands: what commits are checked against.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Standing {
    pub(crate) head: u64,
    pub(crate) generation: u32,
    pub(crate) state: StreamState,
    /// The first seq that is not forgotten.
    pub(crate) start: u64,
}

/// What one commit holds of one stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share<'a> {
    pub(crate) stream: StreamId,
    /// The stream's first branch, when it is known.
    pub(crate) root: Option<At>,
    /// Where the commit starts.
    pub(crate) offset: u64,
    /// The generation that its batches are of.
    pub(crate) generation: u32,
    pub(crate) change: Option<&'a Change>,
}

/// The first branches of the streams of a log that is being opened. Nobody else looks yet, so this is a plain map:
/// the shared one grows in small steps, and every look-up would pay for them.
#[derive(Default)]
pub(crate) struct Gathered {
    streams: HashMap<StreamId, At>,
    /// The one that was asked for last: streams often commit several times in a row.
    last: Option<(StreamId, At)>,
}

impl Gathered {
    pub(crate) fn root(&mut self, id: StreamId) -> Option<At> {
        let find = || Some((id, *self.streams.get(&id)?));
        self.last = self.last.filter(|(last, _)| *last == id).or_else(find);
        self.last.map(|(_, root)| root)
    }
}

/// A place in the order of all bytes of the log, in one word.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct LogPlace(u64);

impl LogPlace {
    /// Behind all others.
    pub(crate) const LAST: Self = Self(u64::MAX);

    pub(crate) fn new(segment: u32, offset: u64) -> Self {
        Self(crate::segment::place_word(segment, offset))
    }

    pub(crate) fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(crate) fn offset(self) -> u64 {
        (self.0 & u64::from(u32::MAX)) * ALIGN
    }
}

/// How much readers may see: moved by the writer after a sync, and only forward.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Watermark {
    /// The last commit that was acknowledged, at the durability it asked for.
    pub(crate) visible: u64,
    /// The last commit that was synced.
    pub(crate) durable: u64,
    /// Where the last visible commit ends.
    pub(crate) end: LogPlace,
}

/// The watermark's values of late, so that one is read whole without a lock: a reader has to look again
/// only when the writer went once around while it was looking.
struct Wall<const SLOTS: usize> {
    slots: [[AtomicU64; 3]; SLOTS],
    current: AtomicU64,
}

impl<const SLOTS: usize> Wall<SLOTS> {
    fn new() -> Self {
        let word = |_| AtomicU64::new(0);
        let slots = std::array::from_fn(|_| std::array::from_fn(word));
        Self { slots, current: AtomicU64::new(0) }
    }

    fn load(&self) -> Watermark {
        loop {
            let at = self.current.load(Ordering::Acquire);
            let slot = &self.slots[at as usize % SLOTS];
            let [visible, durable, end] = [0, 1, 2].map(|word| slot[word].load(Ordering::Acquire));
            if self.current.load(Ordering::Acquire) - at < SLOTS as u64 - 1
                || broken(Sabotage::LookOnce)
            {
                return Watermark { visible, durable, end: LogPlace(end) };
            }
        }
    }

    fn store(&self, mark: Watermark) {
        let at = self.current.load(Ordering::Relaxed) + 1;
        let slot = &self.slots[at as usize % SLOTS];
        slot[0].store(mark.visible, Ordering::Release);
        slot[1].store(mark.durable, Ordering::Release);
        slot[2].store(mark.end.0, Ordering::Release);
        self.current.store(at, Ordering::Release);
    }
}

impl Catalog {
    pub(crate) fn new() -> Self {
        Self {
            streams: papaya::HashMap::new(),
            branches: Arena::new(),
            lives: Arena::new(),
            names: papaya::HashMap::new(),
            spans: Chain::new(),
            changed: AtomicU64::new(0),
            shared: reach::SharedByForks::default(),
            ids_since: AtomicU64::new(0),
            colds: cold::Colds::default(),
            ages: ages::Ages::default(),
            is_opening: AtomicBool::new(false),
            doubtful: AtomicBool::new(false),
            segments: ArcSwap::default(),
            wall: Wall::new(),
        }
    }

    /// Something that was said of streams could not be read: nobody knows all that is wanted.
    pub(crate) fn doubt(&self) {
        self.doubtful.store(true, Ordering::Relaxed);
    }

    /// Notes which commits' ids are remembered. Only the writer.
    pub(crate) fn note_ids(&self, ids: &CommitIds) {
        self.ids_since.store(ids.since(), Ordering::Relaxed);
    }

    pub(crate) fn is_doubtful(&self) -> bool {
        self.doubtful.load(Ordering::Relaxed)
    }

    pub(crate) fn watermark(&self) -> Watermark {
        self.wall.load()
    }

    /// Shows readers everything up to here. Only the writer, and only forward.
    pub(crate) fn raise(&self, mark: Watermark) {
        self.wall.store(mark);
    }

    pub(crate) fn segments(&self) -> Arc<SegmentSet> {
        self.segments.load_full()
    }

    pub(crate) fn add_segment(&self, segment: &Arc<Segment>) {
        self.segments.rcu(|segments| segments.with(Arc::clone(segment)));
    }

    /// Lets new snapshots see a sparse segment in place of those that it covers. Those that were taken before go on
    /// with the old ones.
    pub(crate) fn replace_segments(&self, sparse: &Arc<Segment>) {
        self.segments.rcu(|segments| segments.with_sparse(Arc::clone(sparse)));
    }

    /// The id that all files of the log have; `None` when there are none.
    pub(crate) fn log_id(&self) -> Option<[u8; 16]> {
        self.segments.load().iter().next().map(|segment| segment.header.log_id)
    }

    pub(crate) fn streams_len(&self) -> u64 {
        self.streams.len() as u64
    }

    /// The stream's first branch, whether or not any of it is visible yet.
    pub(crate) fn root(&self, id: StreamId) -> Option<At> {
        self.streams.pin().get(&id).copied()
    }

    /// The branch that the stream is in now.
    pub(crate) fn tip(&self, root: At) -> At {
        self.version(root).and_then(|version| version.tip).unwrap_or(root)
    }

    /// What is said of the stream now; `None` when nothing but its events ever was.
    pub(crate) fn version(&self, root: At) -> Option<Arc<Version>> {
        self.life(self.branch(root)?)
    }

    /// The same, of its first branch.
    fn life(&self, first: &Branch) -> Option<Arc<Version>> {
        Some(self.life_of(first)?.load_full())
    }

    fn life_of(&self, first: &Branch) -> Option<&ArcSwap<Version>> {
        self.lives.get(At::from_word(first.life.load(Ordering::Acquire))?)
    }

    /// Says what is true of the stream from now on.
    fn live_on(&self, first: &Branch, version: Version) {
        let version = Arc::new(version);
        match self.life_of(first) {
            Some(life) => life.store(version),
            None => {
                let life = self.lives.push(ArcSwap::new(version));
                first.life.store(At::word(life), Ordering::Release);
            }
        }
    }

    /// Where the stream stands.
    pub(crate) fn standing(&self, root: At) -> Option<Standing> {
        let first = self.branch(root)?;
        let (tip, state, start) = match &self.life(first) {
            None => (first, StreamState::Active, 0),
            Some(version) => {
                let tip = version.tip.map_or(Some(first), |tip| self.branch(tip))?;
                (tip, version.state, version.start)
            }
        };
        Some(Standing { head: tip.head(), generation: tip.generation(), state, start })
    }

    /// Notes what a commit that was written, or found, in an active segment holds of a stream. Only the writer.
    pub(crate) fn note(
        &self,
        segment: &Segment,
        share: Share<'_>,
        batches: impl Iterator<Item = BatchRef>,
    ) {
        let place = LogPlace::new(segment.number(), share.offset);
        let Some((root, tip)) = self.enter(share, place) else { return };
        if let Some(branch) = self.branch(tip) {
            // First, so that whoever sees the head that this makes knows where it was made.
            branch.last.fetch_max(place.0, Ordering::AcqRel);
            batches.for_each(|batch| self.note_batch(segment, branch, &batch));
        }
        self.conclude(share, root, tip, place);
    }

    /// As [`Catalog::note`], of an unsealed segment that was found.
    pub(crate) fn gather(
        &self,
        gathered: &mut Gathered,
        segment: &Segment,
        share: Share<'_>,
        batches: impl Iterator<Item = BatchRef>,
    ) {
        let root = self.gather_root(gathered, share, LogPlace::new(segment.number(), share.offset));
        self.note(segment, Share { root, ..share }, batches);
    }

    /// Notes that a sealed segment holds batches of a stream with these seqs, the last of them in the commit at
    /// `last`.
    pub(crate) fn gather_sealed(
        &self,
        gathered: &mut Gathered,
        segment: u32,
        share: Share<'_>,
        (seqs, last): (Range<u64>, u64),
    ) {
        let place = LogPlace::new(segment, share.offset);
        let root = self.gather_root(gathered, share, place);
        let share = Share { root, ..share };
        let Some((root, tip)) = self.enter(share, place) else { return };
        if let Some(branch) = self.branch(tip) {
            let span = branch.span_last.load(Ordering::Relaxed);
            if span == NONE || self.span_segment(span) != segment {
                self.note_span(branch, segment, seqs.start, NONE);
            }
            branch.last.fetch_max(LogPlace::new(segment, last).0, Ordering::AcqRel);
            branch.head.fetch_max(seqs.end, Ordering::AcqRel);
        }
        self.conclude(share, root, tip, place);
    }

    fn gather_root(
        &self,
        gathered: &mut Gathered,
        share: Share<'_>,
        place: LogPlace,
    ) -> Option<At> {
        self.is_opening.store(true, Ordering::Relaxed);
        if let Some(root) = gathered.root(share.stream) {
            return Some(root);
        }
        let root = self.begin(share, place)?;
        gathered.streams.insert(share.stream, root);
        Some(root)
    }

    /// Shows the streams that were found, and says who has which name.
    pub(crate) fn adopt(&self, gathered: Gathered) {
        self.is_opening.store(false, Ordering::Relaxed);
        let streams = self.streams.pin();
        streams.reserve(gathered.streams.len());
        for (id, root) in gathered.streams {
            streams.insert(id, root);
        }
        for (root, first) in self.branches.iter() {
            if !first.is_plain() {
                self.pass_names(first.stream, root);
            }
        }
    }

    /// The first branch of a new stream.
    fn begin(&self, share: Share<'_>, place: LogPlace) -> Option<At> {
        let fork = share.change.and_then(|change| change.fork.as_ref());
        // What stood in front of a rewind may have been collected.
        let is_rewound = share.change.is_some_and(|change| change.rewind.is_some());
        let generation = share.generation.saturating_sub(u32::from(is_rewound));
        self.branches.push(Branch::first(share.stream, fork, generation, place))
    }

    /// The first branch of the stream of a commit, and the one that its batches belong to.
    fn enter(&self, share: Share<'_>, place: LogPlace) -> Option<(At, At)> {
        let root = match share.root.or_else(|| self.root(share.stream)) {
            Some(root) => root,
            None => {
                let root = self.begin(share, place)?;
                let guard = self.streams.guard();
                self.streams.insert(share.stream, root, &guard);
                // What the map has outgrown is kept until there is more to free at once, which may be never.
                if self.branches.len().is_multiple_of(256) {
                    guard.flush();
                }
                root
            }
        };
        let tip = self.tip(root);
        let rewind = share.change.and_then(|change| change.rewind.as_ref());
        let Some(rewind) = rewind.filter(|_| !broken(Sabotage::ForgetRewinds)) else {
            return Some((root, tip));
        };
        let before = (tip, self.branch(tip)?);
        let after = Branch::rewound(share.stream, before, rewind, share.generation, place);
        Some((root, self.branches.push(after)?))
    }

    /// Makes what the commit says of the stream true.
    fn conclude(&self, share: Share<'_>, root: At, tip: At, place: LogPlace) {
        let Some(change) = share.change.filter(|one| one.rewind.is_some() || one.has_attributes())
        else {
            return;
        };
        if let Some(NameChange::Reserved(name)) = &change.name {
            name.is_given.store(true, Ordering::Release);
        }
        let Some(first) = self.branch(root) else { return };
        let older = self.life(first);
        let before = older.as_ref().map(|older| &older.meta);
        let meta = match (change.has_attributes(), before) {
            (false, Some(before)) => Arc::clone(before),
            (_, before) => Arc::new(change.apply(before.map_or(&Meta::default(), |before| before))),
        };
        let (state, start) =
            older.as_ref().map_or((StreamState::Active, 0), |older| (older.state, older.start));
        let mut cold = older.as_ref().and_then(|older| older.cold.clone());
        if let Some(seqs) = change.cold {
            cold = Some(self.note_cold((share.stream, tip), seqs, place, cold));
        }
        let after = match state {
            StreamState::Deleted => state,
            _ => change.state.unwrap_or(state),
        };
        if let Some(cold) =
            cold.as_ref().filter(|_| after == StreamState::Deleted && after != state)
        {
            self.forget_cold(cold);
        }
        let depth = Depth::behind(older.as_ref());
        let mut version = Version {
            from: place,
            tip: Some(tip).filter(|tip| *tip != root),
            state: after,
            start: start.max(change.start.unwrap_or(0)),
            meta,
            cold,
            older,
            depth,
        };
        self.forget_versions(&mut version);
        self.live_on(first, version);
        self.changed.fetch_max(place.0, Ordering::AcqRel);
    }

    /// Forgets what the stream was before, as far as no snapshot shows it any more: or a stream of which much is said
    /// would take ever more memory.
    fn forget_versions(&self, version: &mut Version) {
        // While a log is opened nobody knows yet how much will be shown of it.
        if self.is_opening.load(Ordering::Relaxed) {
            return;
        }
        self.count_version();
        if version.is_deep() {
            let is_broken = broken(Sabotage::ForgetVersions);
            version.forget(if is_broken { LogPlace::LAST } else { self.horizon() });
        }
    }

    fn note_batch(&self, segment: &Segment, branch: &Branch, batch: &BatchRef) {
        let mut span = branch.span_last.load(Ordering::Relaxed);
        let here = span != NONE && self.span_segment(span) == segment.number();
        let last = if here { self.spans.value(span, SPAN_LAST) as u32 } else { NONE };
        let node = segment.note(branch.stream, last, batch);
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

    /// Gives and takes names as a commit of this stream says. Only the writer, once the commit is noted.
    pub(crate) fn pass_names(&self, stream: StreamId, root: At) {
        let Some(version) = self.version(root) else { return };
        let now = version.meta.name.as_deref().filter(|_| version.state != StreamState::Deleted);
        let names = self.names.pin();
        let before = version.older.as_ref().and_then(|older| older.meta.name.as_deref());
        if let Some(before) =
            before.or(version.meta.name.as_deref()).filter(|name| now != Some(*name))
        {
            let _ = names.remove_if(before, |_, holder| *holder == stream);
        }
        if let Some(now) = now {
            names.insert(now.into(), stream);
        }
    }

    /// Reserves a name for a stream that may never be committed. `Err`: who has it.
    pub(crate) fn reserve_name(
        self: &Arc<Self>,
        name: &str,
        stream: StreamId,
    ) -> Result<ReservedName, StreamId> {
        match self.names.pin().try_insert(name.into(), stream) {
            Ok(_) => {
                let (catalog, is_given) = (Arc::clone(self), AtomicBool::new(false));
                Ok(ReservedName { catalog, name: name.into(), stream, is_given })
            }
            Err(taken) => Err(*taken.current),
        }
    }

    fn span_segment(&self, span: u32) -> u32 {
        self.spans.value(span, SPAN_PLACE) as u32
    }
}

/// A name that no other stream can take. It is free again when nobody holds this any more, neither the
/// stream's handle nor a commit that is to write it, and it was not committed.
pub(crate) struct ReservedName {
    catalog: Arc<Catalog>,
    name: Box<str>,
    stream: StreamId,
    /// It was committed: from then on commits say whose it is.
    is_given: AtomicBool,
}

impl ReservedName {
    pub(crate) fn as_str(&self) -> &str {
        &self.name
    }
}

impl Drop for ReservedName {
    fn drop(&mut self) {
        if !self.is_given.load(Ordering::Acquire) {
            let names = self.catalog.names.pin();
            let _ = names.remove_if(&*self.name, |_, holder| *holder == self.stream);
        }
    }
}

impl fmt::Debug for ReservedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
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
