//! What somebody sees who looks at a log: what was committed then, and nothing that changes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::{Branch, Catalog, LogPlace, SPAN_LAST, SPAN_PLACE, Version, Watermark};
use crate::index::{At, BatchRef, NONE, StreamBatches};
use crate::segment::{Segment, SegmentSet};
use crate::sync::atomic::Ordering;
use crate::types::{Position, Seq, StreamId, StreamState, Timestamp};

/// An unchanging view of a log: what was committed when it was taken, and the segments that hold it.
///
/// Taking one and reading from it takes no lock and makes nobody wait (P12). What it shows stays
/// readable for as long as it lives, whatever happens to the log.
#[derive(Clone)]
pub struct Snapshot {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) segments: Arc<SegmentSet>,
    pub(crate) mark: Watermark,
}

/// What a snapshot knows of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct StreamInfo {
    /// Its id.
    pub id: StreamId,
    /// Its name, if it was given one.
    pub name: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What the host keeps with it.
    pub data: Option<Arc<[u8]>>,
    /// What may be done with it.
    pub state: StreamState,
    /// What it was forked from, and at which seq.
    pub parent: Option<(StreamId, Seq)>,
    /// The first seq that was not trimmed: 0 unless some were.
    pub start: Seq,
    /// The seq behind its last event: its length, with what an overwriting ring dropped.
    pub head: Seq,
    /// How often it was rewound behind a commit; a fork goes on counting from what it shares.
    pub generation: u32,
    /// When its id was made.
    pub created: Option<Timestamp>,
    /// How many segments hold a part of it.
    pub segments: usize,
    /// The seqs that are read from its archive file ([`crate::Log::move_archived`]): by position they are shown no more
    /// once they were collected. `None` when it never moved, or was rewound since.
    pub moved: Option<std::ops::Range<Seq>>,
}

impl Snapshot {
    pub(crate) fn new(catalog: Arc<Catalog>) -> Self {
        let mut segments = catalog.segments();
        loop {
            // Places in the watermark are those of segments as they are: who collects moves them.
            let mark = catalog.watermark();
            let now = catalog.segments();
            if Arc::ptr_eq(&segments, &now) {
                return Self { catalog, segments, mark };
            }
            segments = now;
        }
    }

    /// The last commit that is visible here.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(self.mark.visible)
    }

    /// The last commit that was synced when the snapshot was taken; behind [`Snapshot::position`] only
    /// after commits that asked for [`crate::Durability::Os`].
    #[must_use]
    pub fn durable_position(&self) -> Position {
        Position(self.mark.durable)
    }

    /// All streams but the deleted ones, in the order of their ids. It opens none of them.
    #[must_use]
    pub fn streams(&self) -> Vec<StreamInfo> {
        let views = self.views().filter(|view| view.state() != StreamState::Deleted);
        let mut all: Vec<_> = views.map(|view| self.describe(&view)).collect();
        all.sort_unstable_by_key(|info| info.id);
        all
    }

    /// What is known of one stream, also of a deleted one; `None` when none of it is visible here.
    #[must_use]
    pub fn stream(&self, id: StreamId) -> Option<StreamInfo> {
        Some(self.describe(&self.view(id)?))
    }

    /// The stream of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<StreamId> {
        let is_named = |view: &View<'_>| view.name() == Some(name);
        let holder = self.catalog.names.pin().get(name).copied();
        if let Some(view) = holder.and_then(|id| self.view(id)).filter(is_named) {
            return Some(view.first.stream);
        }
        // Names may have moved since this snapshot was taken: then those that streams had are looked through.
        let moved = self.catalog.changed.load(Ordering::Acquire) >= self.mark.end.0;
        let view = moved.then(|| self.views().find(is_named))?;
        view.map(|view| view.first.stream)
    }

    /// All streams of which something is visible.
    pub(crate) fn views(&self) -> impl Iterator<Item = View<'_>> {
        self.firsts().filter_map(|(root, first)| self.view_of(root, first))
    }

    /// The first branch of every stream, also of those that are not visible.
    pub(super) fn firsts(&self) -> impl DoubleEndedIterator<Item = (At, &Branch)> {
        self.catalog.branches.iter().filter(|(_, branch)| branch.is_first())
    }

    /// What this snapshot shows of a stream; `None` when that is nothing.
    pub(crate) fn view(&self, id: StreamId) -> Option<View<'_>> {
        let root = self.catalog.root(id)?;
        self.view_of(root, self.catalog.branch(root)?)
    }

    pub(super) fn view_of<'a>(&self, root: At, first: &'a Branch) -> Option<View<'a>> {
        let newest = self.catalog.life_of(first).map(|life| life.load());
        let version = newest.and_then(|newest| newest.before(self.mark.end));
        let tip = version.as_ref().and_then(|version| version.tip).unwrap_or(root);
        let head = self.head(tip)?;
        Some(View { first, tip, head, version })
    }

    pub(super) fn describe(&self, view: &View<'_>) -> StreamInfo {
        let mut segments = 0;
        let branch = self.catalog.branch(view.tip).unwrap_or(view.first);
        let mut span = branch.span_first.load(Ordering::Acquire);
        while span != NONE && self.catalog.span_segment(span) <= self.mark.end.segment() {
            segments += 1;
            span = self.catalog.spans.next(span);
        }
        let meta = view.version.as_ref().map(|version| &version.meta);
        StreamInfo {
            id: view.first.stream,
            name: view.name().map(ToOwned::to_owned),
            labels: meta.map_or_else(BTreeMap::new, |meta| {
                let text = meta.labels.iter();
                text.map(|(key, value)| (key.to_string(), value.to_string())).collect()
            }),
            data: meta.and_then(|meta| meta.data.clone()),
            state: view.state(),
            parent: meta.and_then(|meta| meta.parent).map(|(id, seq)| (id, Seq(seq))),
            start: Seq(view.start()),
            head: Seq(view.head),
            generation: branch.generation(),
            created: view.first.stream.created(),
            segments,
            moved: self.cold_of(view).map(|cold| Seq(cold.seqs.start)..Seq(cold.seqs.end)),
        }
    }

    /// The seq behind the branch's last visible event; `None` when nothing of it is visible.
    pub(crate) fn head(&self, at: At) -> Option<u64> {
        let branch = self.catalog.branch(at)?;
        // The newest batch may have been written after this snapshot was taken: go back past those.
        // The head is looked at first: if it moves now, so did the newest span.
        let head = branch.head();
        if branch.last() < self.mark.end && branch.last() != LogPlace::default() {
            return Some(head);
        }
        self.newest(branch).map(|(_, batch)| batch.end_seq())
    }

    /// Where the last commit starts that holds a part of the branch and is visible.
    pub(super) fn last_shown(&self, branch: &Branch) -> Option<LogPlace> {
        // Of what was collected meanwhile it is where that stood before: other streams' places still say so.
        self.newest(branch).map(|(segment, batch)| LogPlace(segment.origin(batch.offset)))
    }

    /// The branch's newest batch that is visible, and the segment that it is in.
    pub(crate) fn newest(&self, branch: &Branch) -> Option<(Arc<Segment>, BatchRef)> {
        let mut span = self.last_span(branch);
        while let Some(here) = span {
            let at = self.span(branch, here)?;
            let mut cursor = at.batches.last();
            while let Some(here) = cursor {
                let batch = at.batches.get(here)?;
                if self.shows(&at.segment, batch.offset) {
                    return Some((at.segment, batch));
                }
                cursor = at.batches.prev(here);
            }
            span = self.prev_span(here);
        }
        None
    }

    /// Whether the commit at `offset` is one that this snapshot shows.
    pub(crate) fn shows(&self, segment: &Segment, offset: u64) -> bool {
        LogPlace::new(segment.number(), offset) < self.mark.end
    }

    /// Where what may be read of a segment ends.
    pub(crate) fn end_in(&self, segment: &Segment) -> u64 {
        if segment.number() == self.mark.end.segment() { self.mark.end.offset() } else { u64::MAX }
    }

    /// The newest span of the branch.
    fn last_span(&self, branch: &Branch) -> Option<u32> {
        let last = branch.span_last.load(Ordering::Acquire);
        (last != NONE).then_some(last)
    }

    /// The newest span that starts at or before `seq`, or else the oldest one.
    pub(crate) fn seek_span(&self, branch: &Branch, seq: u64) -> Option<u32> {
        let found = self.catalog.spans.seek(self.last_span(branch)?, seq);
        let first = branch.span_first.load(Ordering::Acquire);
        let span = if found == NONE { first } else { found };
        (span != NONE).then_some(span)
    }

    pub(crate) fn next_span(&self, span: u32) -> Option<u32> {
        let next = self.catalog.spans.next(span);
        (next != NONE).then_some(next)
    }

    pub(crate) fn prev_span(&self, span: u32) -> Option<u32> {
        let prev = self.catalog.spans.prev(span);
        (prev != NONE).then_some(prev)
    }

    /// The branch's batches in the segment of this span; `None` when the snapshot does not reach it.
    pub(crate) fn span(&self, branch: &Branch, span: u32) -> Option<SpanBatches> {
        let place = self.catalog.spans.value(span, SPAN_PLACE);
        let last = self.catalog.spans.value(span, SPAN_LAST) as u32;
        let segment = match self.segments.get(place as u32) {
            Some(segment) => Arc::clone(segment),
            None => Arc::clone(self.catalog.segments.load().get(place as u32)?),
        };
        let batches = segment.batches(branch.stream, (place >> 32) as u32, last);
        let batches = match branch.offsets_in(&segment) {
            Some(offsets) => batches.within(&offsets),
            None => batches,
        };
        Some(SpanBatches { segment, batches })
    }
}

/// What a snapshot shows of one stream.
pub(crate) struct View<'a> {
    pub(crate) first: &'a Branch,
    /// The branch that the stream is in.
    pub(crate) tip: At,
    pub(crate) head: u64,
    version: Option<Arc<Version>>,
}

impl View<'_> {
    pub(crate) fn state(&self) -> StreamState {
        self.version.as_ref().map_or(StreamState::Active, |version| version.state)
    }

    /// The first seq that is not forgotten.
    pub(crate) fn start(&self) -> u64 {
        self.version.as_ref().map_or(0, |version| version.start)
    }

    /// The value of one of its labels.
    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.version.as_ref()?.meta.labels.get(key).map(|value| &**value)
    }

    /// The stream that it was forked from.
    pub(super) fn parent(&self) -> Option<StreamId> {
        self.version.as_ref()?.meta.parent.map(|(parent, _)| parent)
    }

    /// Where the commit starts that last said something of it.
    pub(super) fn changed(&self) -> Option<LogPlace> {
        self.version.as_ref().map(|version| version.from)
    }

    /// The name that it has, as long as it lives.
    pub(crate) fn name(&self) -> Option<&str> {
        let version = self.version.as_ref()?;
        version.meta.name.as_deref().filter(|_| version.state != StreamState::Deleted)
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("watermark", &self.mark).finish_non_exhaustive()
    }
}

/// The batches of one stream in one segment.
#[derive(Clone, Debug)]
pub(crate) struct SpanBatches {
    pub(crate) segment: Arc<Segment>,
    pub(crate) batches: StreamBatches,
}
