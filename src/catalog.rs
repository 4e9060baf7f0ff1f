//! What streams exist, which segments hold them, and how much of that a reader may see.
//!
//! Written by whoever holds the writer, read by everybody, without a lock: a lock-free map of streams,
//! an arena of links for where each stream is, and a wall behind which nothing is shown. It is the fold
//! of what the segments say; it decides nothing.

#[cfg(all(test, amberlog_loom))]
mod models;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

use crate::format::{ALIGN, BatchKind};
use crate::index::{BatchRef, Chain, NONE, StreamBatches};
use crate::sabotage::{Sabotage, broken};
use crate::segment::{Segment, SegmentSet};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::types::{Position, Seq, StreamId, Timestamp};

/// Words of a span: which segment and the stream's first node there; its last node there.
const SPAN_PLACE: usize = 0;
const SPAN_LAST: usize = 1;
/// Watermarks of late that the wall keeps.
const WALL_SLOTS: usize = 64;

/// Everything that is known of the streams of a log.
pub(crate) struct Catalog {
    streams: papaya::HashMap<StreamId, Arc<StreamEntry>>,
    names: papaya::HashMap<Box<str>, StreamId>,
    /// One list per stream: the segments that hold a part of it.
    spans: Chain<2>,
    segments: ArcSwap<SegmentSet>,
    wall: Wall<WALL_SLOTS>,
}

/// One stream.
#[derive(Debug)]
pub(crate) struct StreamEntry {
    pub(crate) id: StreamId,
    /// The seq that the next event gets: what commits are checked against.
    head: AtomicU64,
    span_first: AtomicU32,
    span_last: AtomicU32,
    name: OnceLock<Box<str>>,
}

impl StreamEntry {
    fn new(id: StreamId) -> Self {
        Self {
            id,
            head: AtomicU64::new(0),
            span_first: AtomicU32::new(NONE),
            span_last: AtomicU32::new(NONE),
            name: OnceLock::new(),
        }
    }

    pub(crate) fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }
}

/// A batch of a sealed segment: is it still wanted?
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "so far every batch of a log is wanted, and only tests ask otherwise")]
pub(crate) struct Candidate<'a> {
    pub(crate) segment: &'a Segment,
    /// Where its commit starts.
    pub(crate) offset: u64,
    pub(crate) stream: StreamId,
    pub(crate) kind: BatchKind,
    pub(crate) first_seq: u64,
    pub(crate) count: u32,
}

/// Who knows what is still wanted.
pub(crate) type Wants<'a> = &'a dyn Fn(&Candidate<'_>) -> bool;

/// The streams of a log that is being opened. Nobody else looks yet, so this is a plain map: the shared one grows
/// in small steps, and every look-up would pay for them.
#[derive(Default)]
pub(crate) struct Gathered(HashMap<StreamId, Arc<StreamEntry>>);

impl Gathered {
    fn entry(&mut self, id: StreamId) -> &StreamEntry {
        self.0.entry(id).or_insert_with(|| Arc::new(StreamEntry::new(id)))
    }
}

/// A place in the order of all bytes of the log, in one word.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct LogPlace(u64);

impl LogPlace {
    pub(crate) fn new(segment: u32, offset: u64) -> Self {
        Self((u64::from(segment) << 32) | (offset / ALIGN))
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
            names: papaya::HashMap::new(),
            spans: Chain::new(),
            segments: ArcSwap::default(),
            wall: Wall::new(),
        }
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

    pub(crate) fn streams_len(&self) -> u64 {
        self.streams.len() as u64
    }

    /// The stream, whether or not any of it is visible yet.
    pub(crate) fn entry(&self, id: StreamId) -> Option<Arc<StreamEntry>> {
        self.streams.pin().get(&id).cloned()
    }

    /// Notes a batch of an active segment that was written. Only the writer.
    pub(crate) fn note_batch(&self, segment: &Segment, stream: StreamId, batch: &BatchRef) {
        self.note_batch_of(&self.entry_or_new(stream), segment, batch);
    }

    /// Notes a batch of an unsealed segment that was found.
    pub(crate) fn gather_batch(
        &self,
        gathered: &mut Gathered,
        segment: &Segment,
        stream: StreamId,
        batch: &BatchRef,
    ) {
        self.note_batch_of(gathered.entry(stream), segment, batch);
    }

    /// Notes that a sealed segment holds events of a stream from `first_seq` on, up to `head`.
    pub(crate) fn gather_sealed(
        &self,
        gathered: &mut Gathered,
        segment: u32,
        stream: StreamId,
        (first_seq, head): (u64, u64),
    ) {
        let entry = gathered.entry(stream);
        self.note_span(entry, segment, first_seq, NONE);
        entry.head.fetch_max(head, Ordering::AcqRel);
    }

    /// Notes the name of a stream that was found.
    pub(crate) fn gather_name(&self, gathered: &mut Gathered, stream: StreamId, name: &str) {
        self.note_name_of(gathered.entry(stream), name);
    }

    /// Shows the streams that were found.
    pub(crate) fn adopt(&self, gathered: Gathered) {
        let streams = self.streams.pin();
        streams.reserve(gathered.0.len());
        for (id, entry) in gathered.0 {
            streams.insert(id, entry);
        }
    }

    fn note_batch_of(&self, entry: &StreamEntry, segment: &Segment, batch: &BatchRef) {
        let mut span = entry.span_last.load(Ordering::Relaxed);
        let here = span != NONE && self.span_segment(span) == segment.number();
        let last = if here { self.spans.value(span, SPAN_LAST) as u32 } else { NONE };
        let node = segment.note(entry.id, last, batch);
        if here {
            self.spans.set(span, SPAN_LAST, u64::from(node));
        } else {
            span = self.note_span(entry, segment.number(), batch.first_seq, node);
        }
        debug_assert_ne!(span, NONE);
        entry.head.fetch_max(batch.end_seq(), Ordering::AcqRel);
    }

    fn note_span(&self, entry: &StreamEntry, segment: u32, first_seq: u64, node: u32) -> u32 {
        let last = entry.span_last.load(Ordering::Relaxed);
        let place = u64::from(segment) | u64::from(node) << 32;
        let span = self.spans.push(last, first_seq, [place, u64::from(node)]).unwrap_or(NONE);
        entry.span_last.store(span, Ordering::Release);
        if last == NONE {
            entry.span_first.store(span, Ordering::Release);
        }
        span
    }

    fn entry_or_new(&self, id: StreamId) -> Arc<StreamEntry> {
        let streams = self.streams.pin();
        // Nearly always it is there, and merely to look is cheaper.
        let entry = streams.get(&id);
        let new = || streams.get_or_insert_with(id, || Arc::new(StreamEntry::new(id)));
        Arc::clone(entry.unwrap_or_else(new))
    }

    /// Gives a stream its name. Only the writer, after the commit that names it.
    pub(crate) fn note_name(&self, stream: StreamId, name: &str) {
        self.note_name_of(&self.entry_or_new(stream), name);
    }

    fn note_name_of(&self, entry: &StreamEntry, name: &str) {
        let _ = entry.name.set(name.into());
        self.names.pin().insert(name.into(), entry.id);
    }

    /// Reserves a name for a stream that may never be committed. `Err`: who has it.
    pub(crate) fn reserve_name(
        self: &Arc<Self>,
        name: &str,
        stream: StreamId,
    ) -> Result<ReservedName, StreamId> {
        match self.names.pin().try_insert(name.into(), stream) {
            Ok(_) => Ok(ReservedName { catalog: Arc::clone(self), name: name.into(), stream }),
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
}

impl ReservedName {
    pub(crate) fn as_str(&self) -> &str {
        &self.name
    }
}

impl Drop for ReservedName {
    fn drop(&mut self) {
        if self.catalog.entry(self.stream).is_none_or(|entry| entry.name.get().is_none()) {
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
pub struct StreamInfo {
    /// Its id.
    pub id: StreamId,
    /// Its name, if it was given one.
    pub name: Option<String>,
    /// The seq behind its last event: its length, with what an overwriting ring dropped.
    pub head: Seq,
    /// When its id was made.
    pub created: Option<Timestamp>,
    /// How many segments hold a part of it.
    pub segments: usize,
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

    /// All streams, in the order of their ids. It opens none of them.
    #[must_use]
    pub fn streams(&self) -> Vec<StreamInfo> {
        let streams = self.catalog.streams.pin();
        let mut all: Vec<_> = streams.values().filter_map(|entry| self.describe(entry)).collect();
        all.sort_unstable_by_key(|info| info.id);
        all
    }

    /// What is known of one stream; `None` when none of it is visible here.
    #[must_use]
    pub fn stream(&self, id: StreamId) -> Option<StreamInfo> {
        self.describe(&*self.catalog.entry(id)?)
    }

    /// The stream of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<StreamId> {
        let id = *self.catalog.names.pin().get(name)?;
        self.stream(id).filter(|info| info.name.as_deref() == Some(name)).map(|info| info.id)
    }

    fn describe(&self, entry: &StreamEntry) -> Option<StreamInfo> {
        let head = self.head(entry)?;
        let mut segments = 0;
        let mut span = entry.span_first.load(Ordering::Acquire);
        while span != NONE && self.catalog.span_segment(span) <= self.mark.end.segment() {
            segments += 1;
            span = self.catalog.spans.next(span);
        }
        Some(StreamInfo {
            id: entry.id,
            name: entry.name.get().map(|name| name.to_string()),
            head: Seq(head),
            created: entry.id.created(),
            segments,
        })
    }

    /// The seq behind the stream's last visible event; `None` when nothing of it is visible.
    pub(crate) fn head(&self, entry: &StreamEntry) -> Option<u64> {
        // The newest batch may have been written after this snapshot was taken: go back past those.
        // The head is looked at first: if it moves now, so did the newest span.
        let head = entry.head();
        let newest = self.last_span(entry)?;
        let number = self.catalog.span_segment(newest);
        if let Some(seal) = self.segments.get(number).and_then(|segment| segment.seal_state())
            && LogPlace::new(number, seal.footer_at) <= self.mark.end
            && newest == entry.span_last.load(Ordering::Acquire)
        {
            return Some(head);
        }
        let mut span = Some(newest);
        while let Some(here) = span {
            let at = self.span(entry.id, here)?;
            let mut cursor = at.batches.last();
            while let Some(here) = cursor {
                let batch = at.batches.get(here)?;
                if self.shows(&at.segment, batch.offset) {
                    return Some(batch.end_seq());
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

    /// The newest span of the stream.
    pub(crate) fn last_span(&self, entry: &StreamEntry) -> Option<u32> {
        let last = entry.span_last.load(Ordering::Acquire);
        (last != NONE).then_some(last)
    }

    /// The newest span that starts at or before `seq`, or else the oldest one.
    pub(crate) fn seek_span(&self, entry: &StreamEntry, seq: u64) -> Option<u32> {
        let found = self.catalog.spans.seek(self.last_span(entry)?, seq);
        let first = entry.span_first.load(Ordering::Acquire);
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

    /// The stream's batches in the segment of this span; `None` when the snapshot does not reach it.
    pub(crate) fn span(&self, stream: StreamId, span: u32) -> Option<SpanBatches> {
        let place = self.catalog.spans.value(span, SPAN_PLACE);
        let last = self.catalog.spans.value(span, SPAN_LAST) as u32;
        let segment = match self.segments.get(place as u32) {
            Some(segment) => Arc::clone(segment),
            None => Arc::clone(self.catalog.segments.load().get(place as u32)?),
        };
        let batches = segment.batches(stream, (place >> 32) as u32, last);
        Some(SpanBatches { segment, batches })
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
