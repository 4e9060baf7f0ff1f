//! Giving back the space of what nobody wants any more.
//!
//! Sealed segments that are mostly dead are read, what is still wanted of them goes to one sparse segment, and that
//! takes their place: under the name of the last of them, at once; then the others are removed. Snapshots that were
//! taken before keep the old files open, and read on in them. It never touches the segment that commits go to.

use std::ops::Range;
use std::sync::Arc;

use super::pace::Pace;
use super::release::Nameless;
use super::rewrite::Rewrite;
use crate::catalog::{Candidate, Snapshot, Wants};
use crate::disk::Disk;
use crate::error::{Error, ErrorKind, Result};
use crate::format::COMMITS_AT;
use crate::sabotage::{Sabotage, broken};
use crate::segment::{DIR, Segment, path, place, unfinished_path};
use crate::types::{Position, StreamId};

/// A sparse segment in which less than this part of a full one is left is joined with its neighbours.
const SMALL_PART: u64 = 8;

/// How to collect.
#[derive(Clone, Copy, Debug)]
pub struct CollectOptions {
    dry_run: bool,
    dead_percent_min: u32,
}

impl Default for CollectOptions {
    fn default() -> Self {
        Self { dry_run: false, dead_percent_min: 50 }
    }
}

impl CollectOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only says what would be done. It reads what would be rewritten.
    #[must_use]
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    pub(crate) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// How much of a segment must be dead for it to be rewritten, in percent of its bytes. Default 50: then at most
    /// as much is copied as is given back, and at most half of what is on disk is dead. 0 means any.
    #[must_use]
    pub fn dead_percent_min(mut self, percent: u32) -> Self {
        self.dead_percent_min = percent.min(100);
        self
    }
}

/// What was collected, or would be.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CollectReport {
    /// Each run of segments that became one.
    pub runs: Vec<CollectedRun>,
    /// What archive files took that nobody needs any more, in bytes. A dry run does not look for them.
    pub archive_bytes: u64,
    /// Why segments were left alone although much of them is dead: something in them, or of the disk, cannot be relied
    /// on. Nothing of them was taken away.
    pub refused: Vec<Error>,
}

/// Segments that became one.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CollectedRun {
    /// Their numbers. The new one has the last of them.
    pub segments: Vec<u32>,
    /// The commits that they held and that it speaks for.
    pub positions: Range<Position>,
    /// What their files took, in bytes.
    pub bytes_before: u64,
    /// What the new file takes.
    pub bytes_after: u64,
    /// Commits of which nothing is left.
    pub commits_dropped: u64,
    /// Events that are gone.
    pub events_dropped: u64,
}

impl CollectReport {
    /// Bytes that were given back.
    #[must_use]
    pub fn freed_bytes(&self) -> u64 {
        let runs = self.runs.iter().map(|run| run.bytes_before.saturating_sub(run.bytes_after));
        runs.sum::<u64>() + self.archive_bytes
    }

    /// Bytes that were written for that.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.bytes_after).sum()
    }
}

/// Collects once.
pub(crate) struct Collector<'a> {
    pub(crate) disk: &'a dyn Disk,
    /// As it was before it was asked what is wanted.
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) wants: Wants<'a>,
    pub(crate) options: CollectOptions,
    pub(crate) segment_bytes_max: u64,
    /// Waits until the disk proves all that says what is not wanted any more.
    pub(crate) prove: &'a dyn Fn() -> Result<()>,
    /// Asked between segments: whether to leave it at that.
    pub(crate) is_over: &'a dyn Fn() -> bool,
}

/// What there is to gain in a segment.
struct Gain {
    segment: Arc<Segment>,
    kept_bytes: u64,
    is_worth_it: bool,
}

impl Collector<'_> {
    /// Those that lost their names are given back by whoever holds nothing of them any more.
    pub(crate) fn collect(&self, nameless: &mut Nameless) -> Result<CollectReport> {
        let mut report = CollectReport::default();
        for run in self.runs(&mut report) {
            if (self.is_over)() {
                break;
            }
            match self.rewrite(&run, nameless) {
                Ok(done) => report.runs.push(done),
                Err(error) if matches!(error.kind(), ErrorKind::Closed) => return Err(error),
                Err(error) => report.refused.push(error),
            }
        }
        Ok(report)
    }

    /// Runs of segments without a gap between their positions, each of which becomes one.
    fn runs(&self, report: &mut CollectReport) -> Vec<Vec<Arc<Segment>>> {
        // Segments behind the watermark's are not all there yet for those who read.
        let last = self.snapshot.mark.end.segment();
        let mut runs = Vec::new();
        let mut run: Vec<Gain> = Vec::new();
        for segment in self.snapshot.segments.iter().filter(|segment| segment.number() < last) {
            if (self.is_over)() {
                break;
            }
            let gain = self.gain(segment).unwrap_or_else(|error| {
                report.refused.push(error);
                None
            });
            let kept: u64 = run.iter().map(|one| one.kept_bytes).sum();
            let follows = run.last().is_none_or(|before| follows(&before.segment, segment));
            let fits =
                gain.as_ref().is_some_and(|one| kept + one.kept_bytes <= self.segment_bytes_max);
            if !follows || !fits {
                runs.extend(complete(std::mem::take(&mut run)));
            }
            run.extend(gain);
        }
        runs.extend(complete(run));
        runs
    }

    /// What would be left of a segment. `None`: it stays as it is.
    fn gain(&self, segment: &Arc<Segment>) -> Result<Option<Gain>> {
        let Some(sealed) = segment.seal_state() else { return Ok(None) };
        let all = sealed.footer_at - COMMITS_AT;
        let dead = (0..sealed.footer.len()).filter_map(|at| sealed.footer.entry(at)).any(|entry| {
            !(self.wants)(&Candidate {
                segment,
                offset: entry.offset,
                stream: StreamId::from_bytes(entry.stream),
                kind: entry.kind,
                generation: None,
                first_seq: entry.first_seq,
                count: entry.count,
                position: None,
            })
        });
        let mut kept_bytes = all;
        if dead {
            let Some(mut measure) = Rewrite::new(segment, segment) else { return Ok(None) };
            measure.take(segment, self.wants)?;
            kept_bytes = measure.commit_bytes();
        }
        let dead_bytes = all.saturating_sub(kept_bytes);
        let is_worth_it =
            dead_bytes > 0 && dead_bytes * 100 >= all * u64::from(self.options.dead_percent_min);
        let is_small = segment.is_sparse() && kept_bytes < self.segment_bytes_max / SMALL_PART;
        let wanted = is_worth_it || is_small;
        Ok(wanted.then(|| Gain { segment: Arc::clone(segment), kept_bytes, is_worth_it }))
    }

    fn rewrite(&self, run: &[Arc<Segment>], nameless: &mut Nameless) -> Result<CollectedRun> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return Err(Error::new(ErrorKind::Closed, "collect"));
        };
        let Some(mut rewrite) = Rewrite::new(first, last) else {
            return Err(last.error("collect", COMMITS_AT));
        };
        if !self.options.dry_run {
            rewrite.write_to(self.disk, Pace::new(&self.snapshot.catalog, self.disk))?;
        }
        let made = run
            .iter()
            .try_for_each(|segment| match (self.is_over)() {
                true => Err(Error::new(ErrorKind::Closed, "collect")),
                false => rewrite.take(segment, self.wants),
            })
            .and_then(|()| rewrite.finish());
        let (sparse, tally) = made.inspect_err(|_| {
            if !self.options.dry_run {
                let _ = self.disk.remove(&unfinished_path(last.number()));
            }
        })?;
        let before =
            |segment: &Arc<Segment>| segment.seal_state().map_or(0, |one| one.file_bytes());
        let last_position = last.seal_state().map_or(0, |sealed| sealed.last_position);
        let done = CollectedRun {
            segments: run.iter().map(|segment| segment.number()).collect(),
            positions: Position(first.first_position)..Position(last_position + 1),
            bytes_before: run.iter().map(before).sum(),
            bytes_after: tally.bytes,
            commits_dropped: tally.commits_dropped,
            events_dropped: tally.events_dropped,
        };
        if let Some(sparse) = sparse {
            if !broken(Sabotage::CollectUnproven) {
                // What is told here was perhaps not synced, or nobody who opens the log could know yet that it was.
                (self.prove)()
                    .inspect_err(|_| drop(self.disk.remove(&unfinished_path(last.number()))))?;
            }
            run.iter().for_each(|old| nameless.hold(self.disk, &path(old.number())));
            self.put_in_place(run, &sparse)?;
        }
        Ok(done)
    }

    /// Lets the sparse segment take the place of those that it was made of. At every moment all that is wanted is
    /// there, and what is there twice is told apart by its position.
    fn put_in_place(&self, run: &[Arc<Segment>], sparse: &Arc<Segment>) -> Result<()> {
        let number = sparse.number();
        let failed = |error| Error::io("collect", place(number, 0), error);
        let old = run.iter().map(|segment| segment.number()).filter(|old| *old != number);
        let remove = || old.clone().try_for_each(|old| self.disk.remove(&path(old)));
        if broken(Sabotage::RemoveEarly) {
            remove().map_err(failed)?;
        }
        let unfinished = unfinished_path(number);
        self.disk.replace(&unfinished, &path(number)).map_err(|error| {
            let _ = self.disk.remove(&unfinished);
            failed(error)
        })?;
        self.snapshot.catalog.replace_segments(sparse);
        if broken(Sabotage::RemoveEarly) {
            return Ok(());
        }
        // Old files go only after the name of the new one is durable. Those that stay are swept at the next opening.
        self.disk.sync_dir(DIR).map_err(failed)?;
        remove().map_err(failed)
    }
}

fn follows(before: &Segment, segment: &Segment) -> bool {
    before.seal_state().is_some_and(|sealed| sealed.last_position + 1 == segment.first_position)
}

/// A run is rewritten when there is something to gain in it, or something to join.
fn complete(run: Vec<Gain>) -> Option<Vec<Arc<Segment>>> {
    let worth = run.len() > 1 || run.iter().any(|one| one.is_worth_it);
    worth.then(|| run.into_iter().map(|one| one.segment).collect())
}
