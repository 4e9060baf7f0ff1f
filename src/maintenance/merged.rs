//! Merged catalog batches: of everything that a run of segments records of a stream's metadata, one
//! batch stays, in the commit of the last one.
//!
//! The batch holds only the attributes that the stream still has. Later batches, in the run or
//! after it, supersede the others. The stream's last batch of all becomes a summary, if that takes
//! no more bytes, and then supersedes those in earlier segments too.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::catalog::{BatchCandidate, LivenessTest, ReadView, View};
use crate::change::Change;
use crate::error::Result;
use crate::format::{Attribute, Attributes, BatchKind, FooterEntry, Lsn};
use crate::sabotage::{Sabotage, broken};
use crate::segment::Segment;
use crate::segment::scan::{Scanner, Step};
use crate::types::{StreamId, StreamState};

/// Attributes of one stream, and their number.
pub(super) type Encoded = (Vec<u8>, u32);

/// Streams of a run whose catalog batches become fewer or shorter.
#[derive(Default)]
pub(super) struct MergedBatches(HashMap<StreamId, MergedBatch>);

/// Remainder of the catalog batches of one stream.
struct MergedBatch {
    /// Start of the commit that keeps the batch.
    at: Lsn,
    /// Its attributes; `None` if nothing is left.
    batch: Option<Encoded>,
}

/// Remainder of one catalog batch.
pub(super) enum Remainder<'a> {
    Unchanged,
    Replaced(&'a Encoded),
    Nothing,
}

/// Catalog batches of one stream in a run, read so far.
#[derive(Default)]
struct BatchFold {
    change: Change,
    last: Lsn,
    batches: u32,
    bytes: usize,
    /// True if a newer version wrote an attribute that this one does not know, and has to keep.
    has_unknown: bool,
}

impl BatchFold {
    fn take(&mut self, at: Lsn, bytes: &[u8]) -> Option<()> {
        let mut later = Change::default();
        for attribute in Attributes(bytes) {
            let attribute = attribute.ok()?;
            self.has_unknown |= attribute == Attribute::Optional;
            later.take(&attribute);
        }
        let before = std::mem::take(&mut self.change);
        let start = before.start.max(later.start);
        self.change = match later.is_summary {
            true => later,
            false if broken(Sabotage::MergeBackwards) => later.and(before),
            false => before.and(later),
        };
        self.change.start = start;
        self.last = at;
        self.batches += 1;
        self.bytes += bytes.len();
        Some(())
    }

    /// Returns the remainder, or `None` if the batches stay as they are; `end` is the last
    /// position of the run, `is_first` tells that nothing precedes the run.
    fn finish(self, stream: &View<'_>, end: u64, is_first: bool) -> Option<MergedBatch> {
        let none = MergedBatch { at: self.last, batch: None };
        if self.has_unknown {
            return None;
        }
        if stream.state() == StreamState::Deleted {
            // The deletion stays in its own commit, on which liveness relies.
            let is_alone = self.batches == 1 && self.change.state == Some(StreamState::Deleted);
            let left = Change { state: self.change.state, ..Change::default() }.encode();
            let is_smaller = is_alone && left.0.len() < self.bytes;
            return is_smaller.then_some(MergedBatch { batch: Some(left), ..none });
        }
        if stream.summarized() > end {
            return Some(none);
        }
        let summary = stream.summary();
        let is_newest = stream.said() <= end;
        let mut left = still_true(self.change, &summary, is_first).encode();
        if is_newest {
            let all = summary.encode();
            if all.0.len() <= self.bytes || left.1 == 0 {
                left = all;
            }
        }
        let is_smaller = self.batches > 1 || left.0.len() < self.bytes;
        is_smaller.then(|| MergedBatch { batch: Some(left).filter(|left| left.1 > 0), ..none })
    }
}

/// Returns the part of a change that the stream's `summary` repeats. What the change removed stays
/// removed, unless it is the first of all.
fn still_true(change: Change, summary: &Change, is_first: bool) -> Change {
    let stays = |is_removal: bool| !(is_removal && is_first);
    let is_label = |(key, value): &(Box<str>, Option<Box<str>>)| {
        summary.labels.get(key).unwrap_or(&None) == value && stays(value.is_none())
    };
    let is_name =
        |name: &str| name == summary.name.as_deref().unwrap_or_default() && stays(name.is_empty());
    let is_data = |data: &Arc<[u8]>| {
        **data == *summary.data.as_deref().unwrap_or_default() && stays(data.is_empty())
    };
    Change {
        fork: None,
        rewind: None,
        name: change.name.filter(|name| is_name(name)),
        labels: change.labels.into_iter().filter(is_label).collect(),
        data: change.data.filter(is_data),
        state: change.state.filter(|state| Some(*state) == summary.state),
        start: change.start.filter(|start| Some(*start) == summary.start),
        parent: change.parent.filter(|parent| Some(*parent) == summary.parent),
        is_summary: change.is_summary && !is_first,
    }
}

/// Returns the streams with live catalog batches in this run that may be superseded, in whole or in
/// part, and the commits that hold these batches.
pub(super) fn superseded_in(
    run: &[Arc<Segment>],
    view: &ReadView,
    is_live: LivenessTest<'_>,
) -> Result<HashMap<StreamId, Vec<Lsn>>> {
    let mut found: HashMap<StreamId, (Vec<Lsn>, u32)> = HashMap::new();
    for segment in run {
        let footer = segment.footer(view.files()?)?;
        let is_catalog = |entry: &FooterEntry| entry.kind == BatchKind::Catalog;
        for entry in footer.entries().flatten().filter(is_catalog) {
            let batch = BatchCandidate::listed(&entry);
            if is_live(&batch) {
                let place = Lsn::new(segment.number(), entry.offset);
                let (places, attributes) = found.entry(batch.stream).or_default();
                places.push(place);
                *attributes = entry.count.max(*attributes);
            }
        }
    }
    let end = last_position(run);
    let may_shrink = |(stream, (places, attributes)): (StreamId, (Vec<Lsn>, u32))| {
        let view = view.view(stream);
        let is_old = || view.as_ref().is_some_and(|view| view.said() > end);
        let is_deleted = || view.as_ref().is_some_and(|view| view.state() == StreamState::Deleted);
        (places.len() > 1 || is_old() || attributes > 1 && is_deleted()).then_some((stream, places))
    };
    Ok(found.into_iter().filter_map(may_shrink).collect())
}

/// Returns the last position of a run of sealed segments.
fn last_position(run: &[Arc<Segment>]) -> u64 {
    run.last().and_then(|last| Some(last.seal_state()?.last_position)).unwrap_or(0)
}

impl MergedBatches {
    /// Reads the commits of a run whose catalog batches may be superseded. Fails if one of them is
    /// not as it was written.
    pub(super) fn of(
        run: &[Arc<Segment>],
        view: &ReadView,
        is_live: LivenessTest<'_>,
    ) -> Result<Self> {
        let superseded = superseded_in(run, view, is_live)?;
        let commits: BTreeSet<Lsn> = superseded.values().flatten().copied().collect();
        let mut folds: HashMap<StreamId, BatchFold> = HashMap::new();
        for segment in run.iter().filter(|_| !commits.is_empty()) {
            let Some(sealed) = segment.seal_state() else { continue };
            let files = Arc::clone(view.files()?);
            let mut scanner = Scanner::new(Arc::clone(segment), sealed.footer_at, files);
            let here = Lsn::new(segment.number(), 0)..Lsn::new(segment.number() + 1, 0);
            for at in commits.range(here) {
                let damaged = || segment.error("compact", at.offset());
                let Step::Commit(found) = scanner.step(at.offset())? else { return Err(damaged()) };
                if !found.is_sound() || found.unknown {
                    return Err(damaged());
                }
                let all = found.batches.iter();
                for batch in all.filter(|batch| batch.kind == Some(BatchKind::Catalog)) {
                    let stream = StreamId::from_bytes(batch.stream);
                    let is_asked = |places: &Vec<Lsn>| places.binary_search(at).is_ok();
                    if !superseded.get(&stream).is_some_and(is_asked) {
                        continue;
                    }
                    let bytes = scanner.pinned(batch.range_in(found.offset));
                    let bytes = bytes.as_ref().and_then(|(pin, range)| pin.get(range.clone()));
                    let fold = folds.entry(stream).or_default();
                    bytes.and_then(|bytes| fold.take(*at, bytes)).ok_or_else(damaged)?;
                }
            }
        }
        let number = |found: Option<&Arc<Segment>>| found.map_or(0, |segment| segment.number());
        let is_first = number(view.segments.iter().next()) == number(run.first());
        let end = last_position(run);
        let merged = folds.into_iter().filter_map(|(stream, fold)| {
            Some((stream, fold.finish(&view.view(stream)?, end, is_first)?))
        });
        Ok(Self(merged.collect()))
    }

    /// Tells whether every catalog batch stays as it is.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the remainder of the stream's batch in the commit at this place.
    pub(super) fn remainder(&self, stream: StreamId, at: Lsn) -> Remainder<'_> {
        let Some(merged) = self.0.get(&stream) else { return Remainder::Unchanged };
        match &merged.batch {
            Some(batch) if merged.at == at => Remainder::Replaced(batch),
            _ => Remainder::Nothing,
        }
    }
}
