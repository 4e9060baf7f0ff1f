//! Read views: what was committed when the view was taken, unchanged by later commits.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

use super::orders::Orders;
use super::{Branch, Catalog, SPAN_LAST, SPAN_PLACE, Version, Watermark};
use crate::change::Change;
use crate::error::Result;
use crate::format::Lsn;
use crate::index::{ArenaId, BatchRef, NONE, StreamBatches};
use crate::segment::{FilePool, Segment, SegmentSet};
use crate::sync::atomic::Ordering;
use crate::types::{Position, Seq, StreamId, StreamState, Timestamp};

/// Immutable view of everything committed when it was taken, with the segments that hold it.
///
/// Taking a read view and reading from it takes no lock and blocks no thread (P12). A view taken
/// from an open [`crate::Log`] stays readable while the view lives and the log is open, whatever is
/// deleted or compacted meanwhile. A view of a log that another process writes can always read the
/// segments that it holds open ([`crate::options::ReadOptions::open_segments_max`]); reading
/// another segment that has since been compacted fails with [`crate::ErrorKind::Outdated`].
#[derive(Clone)]
pub struct ReadView {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) segments: Arc<SegmentSet>,
    pub(crate) mark: Watermark,
    /// Streams in order, once they were listed.
    pub(super) orders: OnceLock<Arc<ArcSwap<Orders>>>,
    /// File pool of this view, if it is not the log's.
    files: Option<Arc<FilePool>>,
}

/// Description of a stream: in a read view, as a handle sees it ([`crate::Stream::info`]), or in a
/// list that includes volatile streams ([`crate::Query::volatile`]).
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct StreamInfo {
    /// Id of the stream.
    pub id: StreamId,
    /// Name of the stream, if it has one.
    pub name: Option<String>,
    /// Labels of the stream.
    pub labels: BTreeMap<String, String>,
    /// Data that the host stored with the stream.
    #[cfg_attr(feature = "serde", serde(serialize_with = "bytes_of"))]
    pub data: Option<Arc<[u8]>>,
    /// State of the stream, which limits the operations on it.
    pub state: StreamState,
    /// Stream and seq that it was forked from.
    pub parent: Option<(StreamId, Seq)>,
    /// First seq that is not trimmed; 0 if nothing was trimmed.
    pub start: Seq,
    /// Seq after the last event: the stream's length, including events that an overwriting ring
    /// dropped.
    pub head: Seq,
    /// Number of rewinds into committed events; a fork continues the count of the events it shares.
    pub generation: u32,
    /// Creation time, as recorded in the id.
    pub created: Option<Timestamp>,
    /// Number of segments that hold a part of the stream.
    pub segments: usize,
    /// True if at least one commit of the stream is in the log.
    pub is_durable: bool,
}

/// Serializes bytes, which serde does not look for behind an `Arc`.
#[cfg(feature = "serde")]
fn bytes_of<S: serde::Serializer>(
    data: &Option<Arc<[u8]>>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serde::Serialize::serialize(&data.as_deref(), serializer)
}

impl ReadView {
    pub(crate) fn new(catalog: Arc<Catalog>) -> Self {
        let mut segments = catalog.segments();
        loop {
            // The watermark refers to segments as they are now, and compaction replaces them: both
            // must match.
            let mark = catalog.watermark();
            let now = catalog.segments();
            if Arc::ptr_eq(&segments, &now) {
                return Self { catalog, segments, mark, orders: OnceLock::new(), files: None };
            }
            segments = now;
        }
    }

    /// Returns the file pool that this view reads with.
    pub(crate) fn files(&self) -> Result<&Arc<FilePool>> {
        self.files.as_ref().map_or_else(|| self.catalog.files(), Ok)
    }

    /// Returns the same view for a short-lived reader of much of the log: nothing is mapped, and
    /// the files it opens are closed with it.
    pub(crate) fn beside(&self, open_segments_max: usize) -> Self {
        let files = self.files().ok().map(|files| files.beside(open_segments_max));
        Self { files, ..self.clone() }
    }

    /// Returns the position of the last commit that is visible here.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(self.mark.visible)
    }

    /// Returns the position of the last commit that was synced when the view was taken. Lower than
    /// [`ReadView::position`] only after commits that asked for [`crate::Durability::Os`].
    #[must_use]
    pub fn durable_position(&self) -> Position {
        Position(self.mark.durable)
    }

    /// Returns all streams except deleted ones, in the order of their ids. Opens none of them.
    #[must_use]
    pub fn streams(&self) -> Vec<StreamInfo> {
        let views = self.views().filter(|view| view.state() != StreamState::Deleted);
        let mut all: Vec<_> = views.map(|view| self.describe(&view)).collect();
        all.sort_unstable_by_key(|info| info.id);
        all
    }

    /// Returns the description of one stream, even a deleted one; `None` when none of it is visible
    /// here.
    #[must_use]
    pub fn info(&self, id: StreamId) -> Option<StreamInfo> {
        Some(self.describe(&self.view(id)?))
    }

    /// Returns the id of the stream with this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<StreamId> {
        let is_named = |view: &View<'_>| view.name() == Some(name);
        let view_of = |root| self.view_of(root, self.catalog.branch(root)?).filter(is_named);
        // The index also finds former holders, because a name may move after a view is taken.
        let root = self.catalog.names.find(name, |root| view_of(root).is_some())?;
        self.catalog.branch(root).map(|first| first.stream)
    }

    /// Returns the views of all streams that are visible.
    pub(crate) fn views(&self) -> impl Iterator<Item = View<'_>> {
        self.firsts().filter_map(|(root, first)| self.view_of(root, first))
    }

    /// Returns the first branch of every stream, visible or not.
    pub(super) fn firsts(&self) -> impl DoubleEndedIterator<Item = (ArenaId, &Branch)> {
        self.catalog.branches.iter().filter(|(_, branch)| branch.is_first())
    }

    /// Returns the view of a stream; `None` when none of it is visible.
    pub(crate) fn view(&self, id: StreamId) -> Option<View<'_>> {
        let root = self.catalog.root(id)?;
        self.view_of(root, self.catalog.branch(root)?)
    }

    pub(super) fn view_of<'a>(&self, root: ArenaId, first: &'a Branch) -> Option<View<'a>> {
        let newest = self.catalog.version_slot(first).map(|version| version.load());
        let version = newest.and_then(|newest| newest.up_to(self.mark.visible));
        let tip = version.as_ref().and_then(|version| version.tip).unwrap_or(root);
        let head = self.head(tip)?;
        Some(View { first, tip, head, version })
    }

    pub(super) fn describe(&self, view: &View<'_>) -> StreamInfo {
        let branch = self.catalog.branch(view.tip).unwrap_or(view.first);
        let span = self.last_span(branch);
        let segments = span.map_or(0, |span| self.catalog.spans.depth(span) as usize);
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
            is_durable: true,
        }
    }

    /// Returns the seq after the branch's last visible event; `None` when none is visible.
    pub(crate) fn head(&self, at: ArenaId) -> Option<u64> {
        let branch = self.catalog.branch(at)?;
        // The newest batch may be later than this view. Loading the head first is safe: if it moves
        // afterwards, the newest span has moved too.
        let head = branch.head();
        // Loaded once: a branch that is being added has no batch yet, and then one that is too new.
        let last = branch.last();
        if last > 0 && last <= self.mark.visible {
            return Some(head);
        }
        self.newest(branch).map(|(_, batch, _)| batch.end_seq())
    }

    /// Returns the position of the last visible commit that holds a part of the branch. Reads its
    /// header where only that tells; if it cannot, returns the first position of the segment.
    pub(super) fn last_shown(&self, branch: &Branch) -> Option<u64> {
        let (segment, batch, position) = self.newest(branch)?;
        let read = || Some(self.head_at(&segment, batch.offset)?.position);
        position.or_else(read).or(Some(segment.first_position))
    }

    /// Returns the newest visible batch of the branch, its segment, and the position of its commit
    /// if the index tells.
    pub(crate) fn newest(&self, branch: &Branch) -> Option<(Arc<Segment>, BatchRef, Option<u64>)> {
        let mut span = self.last_span(branch);
        while let Some(here) = span {
            let at = self.span(branch, here)?;
            if let Some(cursor) = at.batches.last_before(self.end_in(&at.segment)) {
                let (batch, position) = (at.batches.get(cursor)?, at.batches.position(cursor));
                let is_shown = self.shows(&at.segment, batch.offset);
                return is_shown.then_some((at.segment, batch, position));
            }
            // Compaction removed the branch's batches here, or they are later than this view.
            span = self.prev_span(here);
        }
        None
    }

    /// Tells whether the commit at `offset` is visible here.
    pub(crate) fn shows(&self, segment: &Segment, offset: u64) -> bool {
        Lsn::new(segment.number(), offset) < self.mark.end
    }

    /// Returns the end of the visible part of a segment.
    pub(crate) fn end_in(&self, segment: &Segment) -> u64 {
        if segment.number() == self.mark.end.segment() { self.mark.end.offset() } else { u64::MAX }
    }

    /// Returns the newest span of the branch that may hold visible batches.
    fn last_span(&self, branch: &Branch) -> Option<u32> {
        let last = branch.span_last.load(Ordering::Acquire);
        let end = self.mark.end.segment();
        let catalog = &self.catalog;
        let span = catalog.spans.newest_that(last, |span| catalog.span_segment(span) <= end);
        (span != NONE).then_some(span)
    }

    /// Returns the newest span that starts at or before `seq`, or else the oldest one.
    pub(crate) fn seek_span(&self, branch: &Branch, seq: u64) -> Option<u32> {
        let found = self.catalog.spans.seek(self.last_span(branch)?, seq);
        if found == NONE { branch.first_span() } else { Some(found) }
    }

    pub(crate) fn next_span(&self, span: u32) -> Option<u32> {
        let next = self.catalog.spans.next(span);
        (next != NONE).then_some(next)
    }

    pub(crate) fn prev_span(&self, span: u32) -> Option<u32> {
        let prev = self.catalog.spans.prev(span);
        (prev != NONE).then_some(prev)
    }

    /// Returns the branch's batches in the segment of this span; `None` when the read view does not
    /// hold that segment.
    pub(crate) fn span(&self, branch: &Branch, span: u32) -> Option<SpanBatches> {
        let place = self.catalog.spans.value(span, SPAN_PLACE);
        let last = self.catalog.spans.value(span, SPAN_LAST) as u32;
        let segment = match self.segments.get(place as u32) {
            Some(segment) => Arc::clone(segment),
            None => Arc::clone(self.catalog.segments.load().get(place as u32)?),
        };
        let nodes = ((place >> 32) as u32, last);
        let found = self.files().and_then(|files| segment.batches(files, branch.stream, nodes));
        let batches = match found {
            Ok(batches) if branch.has_siblings() => batches.of_generation(branch.generation()),
            Ok(batches) => batches,
            Err(error) => StreamBatches::lost(error, self.span_seqs(branch, span)),
        };
        Some(SpanBatches { segment, batches })
    }

    /// Returns the seqs that a span may hold, bounded by the next span or the branch's head.
    fn span_seqs(&self, branch: &Branch, span: u32) -> Range<u64> {
        let next = self.next_span(span);
        let end = next.map_or(branch.head(), |next| self.catalog.spans.key(next));
        self.catalog.spans.key(span)..end
    }
}

/// View of one stream in a read view.
pub(crate) struct View<'a> {
    pub(crate) first: &'a Branch,
    /// Branch that the stream is in.
    pub(crate) tip: ArenaId,
    pub(crate) head: u64,
    version: Option<Arc<Version>>,
}

impl View<'_> {
    pub(crate) fn state(&self) -> StreamState {
        self.version.as_ref().map_or(StreamState::Active, |version| version.state)
    }

    /// Returns the first seq that is not trimmed.
    pub(crate) fn start(&self) -> u64 {
        self.version.as_ref().map_or(0, |version| version.start)
    }

    /// Returns the position of the last commit that changed the metadata, as in
    /// [`Baseline::said`](super::Baseline).
    pub(crate) fn said(&self) -> u64 {
        self.version.as_ref().map_or(0, |version| version.from)
    }

    /// Returns the position of the commit with the stream's last summary; 0 if it has none.
    pub(crate) fn summarized(&self) -> u64 {
        self.version.as_ref().map_or(0, |version| version.summary)
    }

    /// Returns all metadata of the stream as one change.
    pub(crate) fn summary(&self) -> Change {
        let Some(version) = &self.version else {
            let state = Some(StreamState::Active);
            return Change { state, is_summary: true, ..Change::default() };
        };
        let meta = &version.meta;
        Change {
            fork: None,
            rewind: None,
            name: meta.name.clone(),
            labels: meta
                .labels
                .clone()
                .into_iter()
                .map(|(key, value)| (key, Some(value)))
                .collect(),
            data: meta.data.clone(),
            state: Some(version.state),
            start: Some(version.start).filter(|start| *start > 0),
            parent: meta.parent,
            is_summary: true,
        }
    }

    /// Returns the value of a label.
    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.version.as_ref()?.label(key)
    }

    /// Returns the stream that this stream was forked from.
    pub(super) fn parent(&self) -> Option<StreamId> {
        self.version.as_ref()?.meta.parent.map(|(parent, _)| parent)
    }

    /// Returns the name of the stream; `None` once it is deleted.
    pub(crate) fn name(&self) -> Option<&str> {
        let version = self.version.as_ref()?;
        version.meta.name.as_deref().filter(|_| version.state != StreamState::Deleted)
    }
}

impl fmt::Debug for ReadView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadView").field("watermark", &self.mark).finish_non_exhaustive()
    }
}

/// Batches of one stream in one segment.
#[derive(Clone, Debug)]
pub(crate) struct SpanBatches {
    pub(crate) segment: Arc<Segment>,
    pub(crate) batches: StreamBatches,
}
