//! Maintenance of one open log: retention, compaction and archiving, on request or in background.
//!
//! The rules are those of [`crate::maintenance`]; this file supplies the state of the log, the lock
//! under which one thread at a time moves whole files, and the commits that record the result.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use crate::catalog::{BatchCandidate, LivenessTest, ReadView};
use crate::clock::ClockJump;
use crate::commit::{Draft, Encoded, Part, Pending, Placement, Precondition, Ticket};
use crate::error::{Error, ErrorKind, Place, Result};
use crate::failures::BackgroundTask;
use crate::maintenance::{
    self, ArchiveReport, CarryOut, CompactOptions, CompactReport, Compactor, Directive, Nameless,
    RetainOptions, RetainReport, Retainer, Steps, Throttle, count_dead,
};
use crate::options::{CommitOptions, Compaction, Expect};
use crate::reader::Vouched;
use crate::ring::{Charge, Filled};
use crate::sabotage::{Sabotage, broken};
use crate::segment::{DIR, OPEN_SEGMENTS_FEW, Segment};
use crate::sync::atomic::Ordering;
use crate::types::{StreamId, Timestamp};

/// Number of retention runs within the shortest retention age.
const LOOKS_PER_AGE: u32 = 16;

/// Minimum offset of the end of a segment that a compaction ends because most of it is dead.
const ENDED_BYTES_MIN: u64 = 64 << 10;

/// Progress of background maintenance.
#[derive(Debug)]
pub(crate) struct BackgroundProgress {
    /// Visible position at the last compaction.
    pub(crate) visible: u64,
    /// Uptime at the last retention run.
    pub(crate) retained: Duration,
}

impl Engine {
    /// Starts background maintenance, if the options ask for it.
    pub(crate) fn start_background(self: &Arc<Self>) {
        if self.options.compaction != Compaction::Background || !self.disk.allows_threads() {
            return;
        }
        let engine = Arc::clone(self);
        let mut progress = BackgroundProgress { visible: 0, retained: self.disk.uptime() };
        let started = self.background.start(move || {
            let run = AssertUnwindSafe(|| engine.run_background(&mut progress));
            if catch_unwind(run).is_err() {
                let panicked = || Error::new(ErrorKind::Panicked, "background");
                engine.failures.fails(BackgroundTask::Retain, panicked());
                engine.failures.fails(BackgroundTask::Compact, panicked());
            }
        });
        let failed = |error| Error::new(ErrorKind::Io, "start a thread").because(error);
        self.failures.note(BackgroundTask::StartThread, started.map_err(failed));
    }

    /// Runs retention and compaction if commits were made since the last run, or time has passed.
    pub(crate) fn run_background(&self, progress: &mut BackgroundProgress) {
        let visible = || self.catalog.watermark().visible;
        let now = self.disk.uptime();
        let pause = self.options.retentions.shortest().map(|age| age / LOOKS_PER_AGE);
        let passed = now.saturating_sub(progress.retained);
        if visible() != progress.visible || pause.is_some_and(|pause| passed >= pause) {
            progress.retained = now;
            let report = self.retain(RetainOptions::new().in_background());
            self.failures.note_all(BackgroundTask::Retain, report.map(|report| report.refused));
        }
        let now = visible();
        if now != progress.visible {
            progress.visible = now;
            let report = self.compact(CompactOptions::new().in_background());
            self.failures.note_all(BackgroundTask::Compact, report.map(|report| report.refused));
        }
    }

    /// Trims events that the options do not retain. Holds the maintenance lock, like
    /// [`Engine::compact`].
    pub(crate) fn retain(&self, options: RetainOptions) -> Result<RetainReport> {
        let commit = |directives: &[Directive]| self.submit(directives);
        self.retain_by(options, &commit)
    }

    /// Runs [`Engine::retain`] with the given way to commit, for tests.
    pub(crate) fn retain_by(
        &self,
        options: RetainOptions,
        commit: CarryOut<'_>,
    ) -> Result<RetainReport> {
        let _alone = self.alone("retain")?;
        if self.options.retentions.is_empty() {
            return Ok(RetainReport::default());
        }
        if let Some(error) = self.unsound("retain") {
            return Ok(RetainReport { refused: vec![error], ..RetainReport::default() });
        }
        let (now, jump) = self.present_for(options);
        let view = self.scan_view();
        let mut report = Retainer {
            view: &view,
            vouched: &Vouched::of(&view),
            retentions: &self.options.retentions,
            now,
            commit: (!options.dry_run).then_some(commit),
            is_over: &|| self.is_over(),
        }
        .retain()?;
        report.refused.extend(jump.map(|jump| jump.error("retain")));
        Ok(report)
    }

    /// Returns the time from which retention counts ages, `None` if it is unknown, and the clock's
    /// jump, if any.
    fn present_for(&self, options: RetainOptions) -> (Option<Timestamp>, Option<ClockJump>) {
        if broken(Sabotage::BelieveClock) {
            return (Some(options.now.unwrap_or_else(|| self.disk.now())), None);
        }
        let jump = self.present.jump();
        let is_stopped = jump.is_some_and(|jump| jump.stops_retention);
        let is_trusted = options.trusts_clock || is_stopped && !options.in_background;
        let is_taken = options.trusts_clock || is_trusted && options.now.is_none();
        if is_taken && !options.dry_run {
            self.present.trust_wall();
        }
        match options.now {
            Some(now) => (Some(now), None),
            None if is_trusted => (Some(self.disk.now()), None),
            None => ((!is_stopped).then(|| self.present.present()), jump),
        }
    }

    /// Commits directives for streams without a handle, if the streams are as they were measured.
    pub(crate) fn submit(&self, directives: &[Directive]) -> Result<()> {
        let part = |directive: &Directive| Part {
            stream: directive.stream(),
            root: Some(directive.root),
            filled: Filled::nothing(&self.budget),
            crc: 0,
            // The leader rebases the part.
            placement: Placement::new(0, 0),
            change: Some(Box::new(Encoded::new(
                Draft { change: directive.change.clone(), ..Draft::default() },
                Precondition::Measured(directive.measured),
                Charge::none(&self.budget),
            ))),
            expect: Expect::Seen,
        };
        let parts = directives.iter().map(part).collect();
        let how = CommitOptions::new().durability(self.options.durability);
        self.queue.submit(Pending::new(parts, how, Vec::new())).wait().map(drop)
    }

    /// Compacts the log: keeps live data and gives the space of the rest back. Holds the
    /// maintenance lock: other maintenance waits, and so does a close.
    pub(crate) fn compact(&self, options: CompactOptions) -> Result<CompactReport> {
        self.compact_where(options, None)
    }

    /// Runs [`Engine::compact`] with the given liveness test, for tests.
    pub(crate) fn compact_where(
        &self,
        options: CompactOptions,
        liveness: Option<LivenessTest<'_>>,
    ) -> Result<CompactReport> {
        let _alone = self.alone("compact")?;
        if let Some(error) = self.unsound("compact") {
            return Ok(CompactReport { refused: vec![error], ..CompactReport::default() });
        }
        let last = || self.catalog.watermark().end.segment();
        let before = last();
        let roll =
            || self.prove_by(CommitOptions { proof: true, rolls: true, ..CommitOptions::new() });
        let mut report = CompactReport::default();
        if options.is_purge() {
            if !options.is_dry_run() && !broken(Sabotage::PurgeSealed) {
                roll()?;
            }
        } else if self.is_mostly_dead(&options) {
            report.ended = Some(before);
            if !options.is_dry_run() {
                // A full disk has no room for the next segment, and space to give back all the
                // same.
                report.refused.extend(roll().err());
            }
        }
        // Commits made before this call are in segments before this one.
        let end = last().min(before.saturating_add(1));
        let mut steps = Steps::All;
        while steps != Steps::Done {
            let proven = Cell::new(false);
            let prove = || match proven.replace(true) {
                true => Ok(()),
                false => self.prove().inspect_err(|_| proven.set(false)),
            };
            let mut nameless = Nameless::default();
            steps = self.compact_segments(
                (options, liveness),
                &prove,
                steps,
                &mut report,
                &mut nameless,
            )?;
            if options.is_dry_run() {
                continue;
            }
            let pace = Throttle::new(&self.catalog, &*self.disk);
            let given_back = nameless.give_back(&*self.disk, pace, &|| self.is_over());
            let place = || Place { path: DIR.into(), segment: None, offset: None };
            let failed = given_back.err().map(|error| Error::io("compact", place(), error));
            report.refused.extend(failed);
        }
        if options.is_purge() {
            self.check_open("compact")?;
            report.held.extend(maintenance::holders(&*self.disk, &self.scan_view(), end)?);
        }
        // A log that was closed meanwhile may not have been compacted to the end.
        match self.is_over() {
            true => Err(self.not_open("compact")),
            false => Ok(report),
        }
    }

    /// Tells whether a compaction with these options ends the segment that commits go to.
    fn is_mostly_dead(&self, options: &CompactOptions) -> bool {
        let view = self.scan_view();
        let active = view.segments.iter().next_back();
        // The writer prepares the next segment once a quarter of this one is used.
        let is_used = |segment: &&Arc<Segment>| {
            let used = view.end_in(segment);
            used >= ENDED_BYTES_MIN.max(segment.header.reserved_bytes / 4)
        };
        let active = active.filter(is_used);
        active.filter(|segment| segment.seal_state().is_none()).is_some_and(|segment| {
            let live = self.catalog.liveness();
            let (dead, all) = count_dead(segment, &|batch| live.is_live(batch));
            options.ends_segment(dead, all)
        })
    }

    pub(super) fn compact_segments(
        &self,
        (options, liveness): (CompactOptions, Option<LivenessTest<'_>>),
        prove: &dyn Fn() -> Result<()>,
        steps: Steps,
        report: &mut CompactReport,
        nameless: &mut Nameless,
    ) -> Result<Steps> {
        // Take the segments before the liveness: their content existed when liveness was computed.
        let view = self.scan_view();
        let live = self.catalog.liveness();
        let is_live = |batch: &BatchCandidate| live.is_live(batch);
        Compactor {
            disk: &self.disk,
            failures: &self.failures,
            view: &view,
            is_live: liveness.unwrap_or(&is_live),
            options,
            segment_bytes_max: self.options.segment_bytes_max,
            prove,
            check_owned: &|| self.ownership.check_last(&*self.disk, &self.catalog.segments()),
            is_over: &|| self.is_over(),
            has_ended: &|| self.has_ended.load(Ordering::Relaxed),
            held: Cell::new(0),
            segments: (*view.segments).clone(),
            measured: RefCell::default(),
            holders: RefCell::default(),
        }
        .compact(steps, report, nameless)
    }

    /// Writes a copy of a stream to its archive file.
    pub(crate) fn write_archive(&self, id: StreamId) -> Result<ArchiveReport> {
        let _alone = self.alone("archive")?;
        // Look here before the read view: a stream that is no longer volatile is committed, and the
        // view shows it.
        let is_volatile = self.volatile.contains(id) && !broken(Sabotage::ForgetVolatile);
        let archived = maintenance::archive(&*self.disk, &self.scan_view(), id, &|| self.is_over());
        archived.map_err(|error| match error.kind() {
            ErrorKind::UnknownStream(stream) if is_volatile => {
                let kind = ErrorKind::NotMaterialized { stream: *stream, buffered: None };
                Error::new(kind, "archive")
            }
            _ => error,
        })
    }

    /// Returns a read view for a short scan of much of the log: it maps no files.
    fn scan_view(&self) -> ReadView {
        ReadView::new(Arc::clone(&self.catalog)).beside(OPEN_SEGMENTS_FEW)
    }

    /// Waits until all commits are synced and the disk confirms it.
    pub(super) fn prove(&self) -> Result<()> {
        self.prove_by(CommitOptions { proof: true, ..CommitOptions::new() })
    }

    fn prove_by(&self, how: CommitOptions) -> Result<()> {
        self.queue.submit(Pending::new(Vec::new(), how, Vec::new())).wait().map(drop)
    }

    /// Returns a ticket that resolves once all commits are synced and the disk confirms it.
    pub(crate) fn sync(&self) -> Ticket {
        if self.is_elsewhere() {
            return Ticket::failed(self.not_open("sync"));
        }
        let proof = CommitOptions { proof: true, ..CommitOptions::new() };
        self.queue.submit(Pending::new(Vec::new(), proof, Vec::new()))
    }

    /// Returns the reason to remove nothing from this log: data may be live that is not known to
    /// be.
    fn unsound(&self, operation: &'static str) -> Option<Error> {
        if !self.catalog.is_doubtful() && self.report.is_sound() {
            return None;
        }
        let place = self.report.damages.first().map(|damage| damage.place.clone());
        let unknown = || Place { path: "segments".into(), segment: None, offset: None };
        Some(Error::corrupt(operation, place.unwrap_or_else(unknown)))
    }
}
