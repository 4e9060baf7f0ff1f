//! Fold of a log's commits: the catalog under construction, the roots of its streams, and the
//! recent commit ids.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::apply::{self, Changes, Run};
use super::ids::{LatestIds, LostId};
use crate::catalog::{Catalog, CommitIds, StreamRoots};
use crate::error::{Error, ErrorKind, Result};
use crate::format::BatchKind;
use crate::index::FooterIndex;
use crate::segment::scan::{Found, Scanner, Step};
use crate::segment::{FilePool, Segment, place};

/// Commits noted so far.
pub(super) struct Fold {
    pub(super) catalog: Catalog,
    roots: StreamRoots,
    with_id: LatestIds,
}

/// Returns the error for a commit or footer entry that this build does not understand.
pub(super) fn unsupported(segment: &Segment, offset: u64) -> Error {
    Error::new(ErrorKind::UnsupportedFeature, "open").at(place(segment.number(), offset))
}

/// Commits of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum History {
    Whole,
    /// Some are damaged, maybe with changes of streams.
    Lost,
}

impl Fold {
    /// Creates an empty fold that keeps at most `ids_max` commit ids.
    pub(super) fn new(ids_max: usize) -> Self {
        let (catalog, roots) = (Catalog::new(), StreamRoots::default());
        Self { catalog, roots, with_id: LatestIds::new(ids_max) }
    }

    /// Notes a commit that a replay found.
    pub(super) fn note(&mut self, segment: &Segment, found: &Found) {
        apply::note_commit(&self.catalog, &mut self.roots, segment, found);
        self.with_id.note_found(found);
    }

    /// Notes the commits of a sealed segment, as its footer lists them, and returns whether all
    /// that were read are whole.
    pub(super) fn note_sealed(
        &mut self,
        files: &Arc<FilePool>,
        segment: &Arc<Segment>,
        footer: &FooterIndex,
        footer_at: u64,
    ) -> Result<History> {
        let last = segment.seal_state().map_or(0, |sealed| sealed.last_position);
        self.catalog.shows_at_least(last);
        let mut scanner = Scanner::new(Arc::clone(segment), footer_at, Arc::clone(files));
        let (changes, history) = self.changes_in(segment, footer, footer_at, &mut scanner)?;
        let mut batches = Vec::new();
        for (stream, run) in footer.runs() {
            batches.clear();
            batches.extend(run.filter_map(|index| footer.entry(stream, index)));
            let run = Run { segment: segment.number(), stream, batches: &batches };
            apply::note_run((&self.catalog, &mut self.roots), &run, &changes);
        }
        Ok(history)
    }

    /// Reads the commits of a sealed segment that change streams other than by events, each once.
    fn changes_in(
        &mut self,
        segment: &Arc<Segment>,
        footer: &FooterIndex,
        footer_at: u64,
        scanner: &mut Scanner,
    ) -> Result<(Changes, History)> {
        let (mut offsets, mut with_id) = (BTreeSet::new(), Vec::new());
        for batch in footer.entries() {
            let batch = batch.ok_or_else(|| unsupported(segment, footer_at))?;
            match batch.kind {
                BatchKind::Catalog | BatchKind::Fork => drop(offsets.insert(batch.offset)),
                BatchKind::CommitId => with_id.push(batch.offset),
                _ => {}
            }
        }
        with_id.sort_unstable();
        with_id.into_iter().for_each(|offset| self.with_id.note_at(segment, offset));
        let (mut changes, mut history) = (Changes::new(), History::Whole);
        for offset in offsets {
            let Step::Commit(found) = scanner.step(offset)? else {
                history = History::Lost;
                continue;
            };
            if !found.is_sound() {
                history = History::Lost;
            }
            if found.unknown && found.is_sound() {
                return Err(unsupported(segment, offset));
            }
            let here = found.changes.into_iter();
            changes.extend(here.map(|(stream, change)| ((stream, offset), change)));
        }
        if history == History::Lost {
            self.catalog.doubt();
        }
        Ok((changes, history))
    }

    /// Reads the ids that are known by offset only, and returns the catalog with all its streams,
    /// the ids, and those that are lost.
    pub(super) fn finish(
        mut self,
        files: &Arc<FilePool>,
    ) -> Result<(Catalog, CommitIds, Vec<LostId>)> {
        let (ids, lost) = self.with_id.read(files)?;
        self.catalog.adopt(self.roots);
        Ok((self.catalog, ids, lost))
    }
}
