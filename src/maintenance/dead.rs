//! Dropping wholly dead segments: an empty file replaces each run of them.
//!
//! Nothing is copied and no data block is written, so space is given back on a full disk too (F45).
//! A segment is wholly dead when it has no live batch; a segment with the delete record of a stream
//! is not dead, because that record stays. Every commit of a run is verified before its file goes,
//! as in a rewrite.

use std::sync::Arc;

use super::compact::{CompactReport, CompactedRun, Compactor, follows};
use super::merged::{MergedBatches, superseded_in};
use super::release::Nameless;
use super::rewrite::Rewrite;
use crate::catalog::BatchCandidate;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{BatchKind, COMMITS_AT};
use crate::sabotage::{Sabotage, broken};
use crate::segment::{Segment, place, remove_made};

impl Compactor<'_> {
    /// Drops every run of wholly dead segments and returns their stand-ins.
    pub(super) fn drop_dead(
        &self,
        report: &mut CompactReport,
        nameless: &mut Nameless,
    ) -> Result<Vec<Arc<Segment>>> {
        let mut all = Vec::new();
        for run in self.dead_runs(report) {
            if (self.is_over)() {
                break;
            }
            match self.drop_run(&run, nameless) {
                Ok((done, gone)) => {
                    report.runs.push(done);
                    all.push(gone);
                }
                Err(error) if matches!(error.kind(), ErrorKind::Closed) => return Err(error),
                Err(error) => report.refuse(error),
            }
        }
        Ok(all)
    }

    /// Returns the runs of wholly dead segments with consecutive positions. A single stand-in is
    /// not a run: it has nothing to drop.
    fn dead_runs(&self, report: &mut CompactReport) -> Vec<Vec<Arc<Segment>>> {
        let mut runs: Vec<Vec<Arc<Segment>>> = Vec::new();
        let mut before: Option<&Arc<Segment>> = None;
        for segment in self.candidates() {
            if (self.is_over)() {
                break;
            }
            let is_dead = self.is_dead(segment).unwrap_or_else(|error| {
                report.refuse(error);
                false
            });
            if !is_dead {
                before = None;
                continue;
            }
            match runs.last_mut().filter(|_| before.is_some_and(|last| follows(last, segment))) {
                Some(run) => run.push(Arc::clone(segment)),
                None => runs.push(vec![Arc::clone(segment)]),
            }
            before = Some(segment);
        }
        runs.retain(|run| run.len() > 1 || run.iter().any(|segment| !segment.is_gone()));
        runs
    }

    /// Returns whether a sealed segment has no live batch.
    pub(super) fn is_dead(&self, segment: &Arc<Segment>) -> Result<bool> {
        if segment.is_gone() || broken(Sabotage::RewriteDead) {
            return Ok(segment.is_gone());
        }
        if segment.seal_state().is_none() {
            return Ok(false);
        }
        let superseded = superseded_in(std::slice::from_ref(segment), self.view, self.is_live)?;
        let is_kept = |batch: &BatchCandidate, is_live| {
            let is_superseded =
                batch.kind == BatchKind::Catalog && superseded.contains_key(&batch.stream);
            is_live && !is_superseded
        };
        if self.any_listed(segment, is_kept)? {
            return Ok(false);
        }
        Ok(self.kept_bytes(segment)? == 0)
    }

    fn drop_run(
        &self,
        run: &[Arc<Segment>],
        nameless: &mut Nameless,
    ) -> Result<(CompactedRun, Arc<Segment>)> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return Err(Error::new(ErrorKind::Closed, "compact"));
        };
        let files = self.view.files()?;
        let gone = Segment::gone_in_place_of(first, last);
        let (Some(gone), Some(mut tally)) =
            (gone, Rewrite::new(files, (first, last), self.is_over))
        else {
            return Err(last.error("compact", COMMITS_AT));
        };
        let merged = MergedBatches::of(run, self.view, self.is_live)?;
        for segment in run {
            if !self.options.is_dry_run() && !crate::recovery::is_whole(segment, files)? {
                return Err(segment.error("compact", COMMITS_AT));
            }
            tally.take(segment, self.is_live, &merged)?;
        }
        if tally.commit_bytes() > 0 {
            return Err(last.error("compact", COMMITS_AT));
        }
        let (_, tally) = tally.finish()?;
        let done = CompactedRun { bytes_after: 0, ..CompactedRun::of(run, &tally) };
        let gone = Arc::new(gone);
        if !self.options.is_dry_run() {
            self.put_gone(run, &gone, nameless)?;
        }
        Ok((done, gone))
    }

    fn put_gone(
        &self,
        run: &[Arc<Segment>],
        gone: &Arc<Segment>,
        nameless: &mut Nameless,
    ) -> Result<()> {
        let disk = &**self.disk;
        let failed = |error| Error::io("compact", place(gone.number(), 0), error);
        (self.check_owned)()?;
        let (unfinished, file) = gone.make_gone(disk).map_err(failed)?;
        let give_up = |_: &Error| {
            if !(self.has_ended)() {
                drop(remove_made(disk, &unfinished, &*file));
            }
        };
        self.prove_all().inspect_err(give_up)?;
        (self.check_owned)().inspect_err(give_up)?;
        run.iter().for_each(|old| nameless.hold(disk, &old.header));
        let placed = self.put_in_place(run, gone, &|| gone.name_gone(disk, &unfinished));
        placed.inspect_err(|error| {
            nameless.let_go();
            give_up(error);
        })
    }
}
