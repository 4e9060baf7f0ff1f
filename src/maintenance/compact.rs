//! Compaction: gives back the space of dead batches.
//!
//! It reads sealed segments that are mostly dead and writes their live batches to one sparse
//! segment, with one batch of metadata for each stream. That segment atomically takes the name of
//! the last of them; then the others are removed. Older read views keep the replaced files under
//! names of their own until the last reader drops them. Compaction leaves alone the segment that
//! commits go to; an explicit one ends that segment first if it is mostly dead.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::held::{Holder, HolderKind};
use super::merged::{MergedBatches, superseded_in};
use super::release::Nameless;
use super::rewrite::{Rewrite, Tally};
use super::throttle::Throttle;
use crate::catalog::{BatchCandidate, LivenessTest, ReadView};
use crate::disk::{Disk, DiskFile};
use crate::error::{Error, ErrorKind, Result};
use crate::failures::Failures;
use crate::format::{BatchKind, COMMITS_AT, FooterEntry};
use crate::sabotage::{Sabotage, broken};
use crate::segment::{
    DIR, Left, Segment, SegmentSet, kept_path, open_own, path, place, remove_made, unfinished_path,
};
use crate::types::Position;

/// Divisor of the full segment size; a sparse segment with less left than this part is joined with
/// its neighbours.
const SMALL_PART: u64 = 8;
/// Maximum number of files kept open for read views where a file can have only one name.
const HELD_FILES_MAX: usize = 32;

/// Options of a compaction.
#[derive(Clone, Copy, Debug)]
pub struct CompactOptions {
    dry_run: bool,
    dead_percent_min: u32,
    purge: bool,
    in_background: bool,
}

impl Default for CompactOptions {
    fn default() -> Self {
        Self { dry_run: false, dead_percent_min: 50, purge: false, in_background: false }
    }
}

impl CompactOptions {
    /// Creates the default options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only reports what would be done. Reads the segments that would be rewritten. Leaves out the
    /// segment that commits go to, even if it would be ended ([`CompactReport::ended`]).
    #[must_use]
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    pub(crate) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Sets the percentage of a segment's bytes that must be dead for a rewrite. The default is 50:
    /// a compaction copies at most as much as it gives back, and at most half of the bytes on disk
    /// are dead. 0 means any.
    #[must_use]
    pub fn dead_percent_min(mut self, percent: u32) -> Self {
        self.dead_percent_min = percent.min(100);
        self
    }

    /// Removes all dead bytes from the log's files at once, however few a segment has. Ends the
    /// segment that commits go to, begins a new one, and compacts all earlier ones as with
    /// [`CompactOptions::dead_percent_min`] 0.
    ///
    /// The unit is the part of one stream in one commit: it stays as a whole while any stream shows
    /// one of its events. When [`crate::Log::compact`] returns, no segment that it could compact
    /// holds such a part without an event that is shown, or a commit that never happened.
    /// [`CompactReport::held`] names the files that may still hold such bytes, and
    /// [`CompactReport::refused`] the segments that were left alone.
    ///
    /// A purge leaves these bytes in place, and the report does not name them:
    ///
    /// - events that were removed, by a trim, a rewind or a delete, and share a commit with events
    ///   of the same stream that the stream or a fork still shows. A host that may have to remove
    ///   an event commits it apart;
    /// - names, labels and data of a deleted stream while a fork shows any of its events;
    /// - the last events of a stream, if the commit that holds them also trims them: it records the
    ///   stream's length;
    /// - the keys of labels that were removed, while earlier metadata of the stream stays;
    /// - copies: backups that share no name with the log, exports, and files that a reader in
    ///   another process has open;
    /// - blocks that the file system has freed and not reused.
    ///
    /// It needs space for the new segment and for the live part of each old one. A dry run leaves
    /// out the segment that commits go to.
    #[must_use]
    pub fn purge(mut self) -> Self {
        self.purge = true;
        self
    }

    pub(crate) fn is_purge(&self) -> bool {
        self.purge
    }

    /// Leaves alone the segment that commits go to, whatever part of it is dead.
    pub(crate) fn in_background(mut self) -> Self {
        self.in_background = true;
        self
    }

    /// Tells whether to end the segment that commits go to, of whose batches `dead` are dead.
    pub(crate) fn ends_segment(&self, dead: u64, all: u64) -> bool {
        !self.in_background && dead > 0 && dead * 100 >= all * u64::from(self.dead_percent_min)
    }
}

/// Outcome of a compaction, or of a dry run.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CompactReport {
    /// Runs of segments, each of which became one segment.
    pub runs: Vec<CompactedRun>,
    /// Number of the segment that received commits, if most of it was dead and the compaction
    /// ended it first. A dry run ends nothing, and leaves out the remainder of that segment. `None`
    /// for a purge, which always ends it.
    pub ended: Option<u32>,
    /// Reasons for leaving alone segments that are largely dead: their content or the disk cannot
    /// be trusted. Nothing was removed from them.
    pub refused: Vec<Error>,
    /// Files that may still hold removed bytes, sorted by path. Empty except after a purge
    /// ([`CompactOptions::purge`]).
    pub held: Vec<Holder>,
}

/// Run of segments that became one.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CompactedRun {
    /// Numbers of the segments. The new segment has the last of them.
    pub segments: Vec<u32>,
    /// Positions of the commits that the segments held and that the new segment covers.
    pub positions: Range<Position>,
    /// Size of the old files in bytes.
    pub bytes_before: u64,
    /// Size of the new file in bytes.
    pub bytes_after: u64,
    /// Number of commits of which nothing is left.
    pub commits_dropped: u64,
    /// Number of events removed.
    pub events_dropped: u64,
}

impl CompactedRun {
    pub(super) fn of(run: &[Arc<Segment>], tally: &Tally) -> Self {
        let before =
            |segment: &Arc<Segment>| segment.seal_state().map_or(0, |seal| seal.file_bytes);
        let first = run.first().map_or(0, |first| first.first_position);
        let last = run.last().and_then(|last| Some(last.seal_state()?.last_position));
        Self {
            segments: run.iter().map(|segment| segment.number()).collect(),
            positions: Position(first)..Position(last.unwrap_or(0) + 1),
            bytes_before: run.iter().map(before).sum(),
            bytes_after: tally.bytes,
            commits_dropped: tally.commits_dropped,
            events_dropped: tally.events_dropped,
        }
    }
}

impl CompactReport {
    /// Records the reason for leaving a segment alone, once, although each segment is examined
    /// repeatedly.
    pub(super) fn refuse(&mut self, error: Error) {
        let is_same =
            |known: &Error| known.kind() == error.kind() && known.place() == error.place();
        if !self.refused.iter().any(is_same) {
            self.refused.push(error);
        }
    }

    /// Returns the number of bytes given back.
    #[must_use]
    pub fn freed_bytes(&self) -> u64 {
        let runs = self.runs.iter().map(|run| run.bytes_before.saturating_sub(run.bytes_after));
        runs.sum::<u64>()
    }

    /// Returns the number of bytes written.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.bytes_after).sum()
    }
}

/// Single compaction.
pub(crate) struct Compactor<'a> {
    pub(crate) disk: &'a Arc<dyn Disk>,
    pub(crate) failures: &'a Arc<Failures>,
    /// Read view taken before liveness was computed.
    pub(crate) view: &'a ReadView,
    pub(crate) is_live: LivenessTest<'a>,
    pub(crate) options: CompactOptions,
    pub(crate) segment_bytes_max: u64,
    /// Waits until the disk proves every commit that makes batches dead.
    pub(crate) prove: &'a dyn Fn() -> Result<()>,
    /// Fails once the process no longer owns the log; nothing is created, replaced or removed after
    /// that.
    pub(crate) check_owned: &'a dyn Fn() -> Result<()>,
    /// Returns whether to stop; called between commits.
    pub(crate) is_over: &'a dyn Fn() -> bool,
    /// Returns whether the log was closed on this thread, in a nested call: its files may belong to
    /// another process by now.
    pub(crate) has_ended: &'a dyn Fn() -> bool,
    /// Number of unnamed files kept open for read views.
    pub(crate) held: Cell<usize>,
    /// Segments as they are, or in a dry run as they would be.
    pub(crate) segments: SegmentSet,
    /// Remainders of the segments examined, by number.
    pub(crate) measured: RefCell<HashMap<u32, Left>>,
    /// Files that lost their name in the log and have other names.
    pub(crate) holders: RefCell<Vec<Holder>>,
}

/// Gain of compacting a segment.
struct Gain {
    segment: Arc<Segment>,
    kept_bytes: u64,
    is_worth_it: bool,
}

/// Remaining steps of a compaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Steps {
    /// Drop wholly dead segments, then rewrite the others.
    All,
    /// Rewrite partly dead segments.
    Rewrite,
    /// Nothing left to do.
    Done,
}

impl Compactor<'_> {
    /// Takes these steps and returns the remaining ones. After a drop the rest waits: the space is
    /// given back only once this read view and the files that lost their names are released.
    pub(crate) fn compact(
        &mut self,
        steps: Steps,
        report: &mut CompactReport,
        nameless: &mut Nameless,
    ) -> Result<Steps> {
        let left = self.take_steps(steps, report, nameless);
        report.held.append(&mut self.holders.take());
        left
    }

    fn take_steps(
        &mut self,
        steps: Steps,
        report: &mut CompactReport,
        nameless: &mut Nameless,
    ) -> Result<Steps> {
        if steps == Steps::All {
            let dropped = self.drop_dead(report, nameless)?;
            if !dropped.is_empty() && !self.options.dry_run {
                return Ok(Steps::Rewrite);
            }
            // A dry run continues with the segments as they would be.
            let with = |set: SegmentSet, gone| set.with_sparse(gone);
            self.segments = dropped.into_iter().fold(self.segments.clone(), with);
        }
        for run in self.runs(report) {
            if (self.is_over)() {
                break;
            }
            match self.rewrite(&run, nameless) {
                Ok(done) => report.runs.push(done),
                Err(error) if matches!(error.kind(), ErrorKind::Closed) => return Err(error),
                Err(error) => report.refuse(error),
            }
        }
        Ok(Steps::Done)
    }

    /// Returns the segments that may be compacted: not the last one, and none after the
    /// watermark's, which readers may not see in full.
    pub(super) fn candidates(&self) -> impl Iterator<Item = &Arc<Segment>> {
        let last = self.view.mark.end.segment();
        self.segments.iter().filter(move |segment| segment.number() < last)
    }

    /// Returns the runs to compact: segments whose positions follow each other.
    fn runs(&self, report: &mut CompactReport) -> Vec<Vec<Arc<Segment>>> {
        let mut runs = Vec::new();
        let mut run: Vec<Gain> = Vec::new();
        for segment in self.candidates() {
            if (self.is_over)() {
                break;
            }
            let gain = self.gain(segment).unwrap_or_else(|error| {
                report.refuse(error);
                None
            });
            let kept: u64 = run.iter().map(|gain| gain.kept_bytes).sum();
            let follows = run.last().is_none_or(|before| follows(&before.segment, segment));
            let fits =
                gain.as_ref().is_some_and(|gain| kept + gain.kept_bytes <= self.segment_bytes_max);
            if !follows || !fits {
                runs.extend(complete(std::mem::take(&mut run)));
            }
            run.extend(gain);
        }
        runs.extend(complete(run));
        runs
    }

    /// Returns the gain of compacting a segment, or `None` to leave it alone.
    fn gain(&self, segment: &Arc<Segment>) -> Result<Option<Gain>> {
        let Some(sealed) = segment.seal_state() else { return Ok(None) };
        let all = sealed.footer_at - COMMITS_AT;
        let Left { bytes: kept_bytes, is_all } = self.left_of(segment)?;
        if kept_bytes == 0 && !segment.is_gone() && !broken(Sabotage::RewriteDead) {
            // It could not be dropped, for the reason in the report, or it died just now.
            return Ok(None);
        }
        let dead_bytes = all.saturating_sub(kept_bytes);
        let is_worth_it = match self.options.purge && !broken(Sabotage::PurgeBySize) {
            // The remaining batches may need more padding than the dead ones took.
            true => !is_all,
            false => {
                dead_bytes > 0 && dead_bytes * 100 >= all * u64::from(self.options.dead_percent_min)
            }
        };
        let is_small = segment.is_sparse() && kept_bytes < self.segment_bytes_max / SMALL_PART;
        let wanted = is_worth_it || is_small;
        Ok(wanted.then(|| Gain { segment: Arc::clone(segment), kept_bytes, is_worth_it }))
    }

    /// Returns the remainder of a sealed segment.
    pub(super) fn left_of(&self, segment: &Arc<Segment>) -> Result<Left> {
        if let Some(known) = self.measured.borrow().get(&segment.number()) {
            return Ok(*known);
        }
        let all = segment.seal_state().map_or(0, |sealed| sealed.footer_at - COMMITS_AT);
        let mut left = Left { bytes: all, is_all: true };
        let dead = self.digest_of_dead(segment)?;
        let known = *segment.measured.lock();
        // A wholly dead segment is read once more before it goes.
        let is_exact = self.options.purge || self.options.dead_percent_min == 0;
        let is_usable = |(_, found): &(u64, Left)| found.bytes > 0 && !is_exact;
        match (dead, known.filter(is_usable)) {
            (None, _) => {}
            (Some(dead), Some((known, found))) if dead == known => left = found,
            (Some(dead), _) => {
                left = self.measure(segment)?;
                *segment.measured.lock() = Some((dead, left));
            }
        }
        self.measured.borrow_mut().insert(segment.number(), left);
        Ok(left)
    }

    /// Returns a digest of the batches of a segment that are dead or may be superseded, by its
    /// index alone; `None` if there are none. While the digest is the same, the segment is not read
    /// again: another value that replaces an old one changes little.
    fn digest_of_dead(&self, segment: &Arc<Segment>) -> Result<Option<u64>> {
        let mut digest = None;
        let mut add = |item: &dyn Fn(&mut DefaultHasher)| {
            let mut hasher = DefaultHasher::new();
            item(&mut hasher);
            digest = Some(digest.unwrap_or(0_u64).wrapping_add(hasher.finish()));
        };
        let footer = segment.footer(self.view.files()?)?;
        for (index, entry) in footer.entries().enumerate() {
            let is_live = |entry: &FooterEntry| (self.is_live)(&BatchCandidate::listed(entry));
            if entry.is_some_and(|entry| !is_live(&entry)) {
                add(&|hasher| index.hash(hasher));
            }
        }
        let one = std::slice::from_ref(segment);
        for (stream, places) in superseded_in(one, self.view, self.is_live)? {
            add(&|hasher| (stream, places.len()).hash(hasher));
        }
        Ok(digest)
    }

    /// Reads a segment and returns its remainder.
    fn measure(&self, segment: &Arc<Segment>) -> Result<Left> {
        let files = self.view.files()?;
        let merged = MergedBatches::of(std::slice::from_ref(segment), self.view, self.is_live)?;
        if merged.is_empty() && !self.any_listed(segment, |_, is_live| !is_live)? {
            let bytes = segment.seal_state().map_or(0, |sealed| sealed.footer_at - COMMITS_AT);
            return Ok(Left { bytes, is_all: true });
        }
        let Some(mut measure) = Rewrite::new(files, (segment, segment), self.is_over) else {
            return Err(segment.error("compact", COMMITS_AT));
        };
        measure.take(segment, self.is_live, &merged)?;
        Ok(Left { bytes: measure.commit_bytes(), is_all: !measure.has_dropped() })
    }

    /// Returns the size of the commits that a sealed segment would keep.
    pub(super) fn kept_bytes(&self, segment: &Arc<Segment>) -> Result<u64> {
        Ok(self.left_of(segment)?.bytes)
    }

    /// Tells whether any batch that the footer of a segment lists is one that `holds` for, given
    /// the batch and whether it is live.
    pub(super) fn any_listed(
        &self,
        segment: &Arc<Segment>,
        holds: impl Fn(&BatchCandidate, bool) -> bool,
    ) -> Result<bool> {
        let footer = segment.footer(self.view.files()?)?;
        let mut entries = footer.entries().flatten();
        Ok(entries.any(|entry| {
            let batch = BatchCandidate::listed(&entry);
            holds(&batch, (self.is_live)(&batch))
        }))
    }

    fn rewrite(&self, run: &[Arc<Segment>], nameless: &mut Nameless) -> Result<CompactedRun> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return Err(Error::new(ErrorKind::Closed, "compact"));
        };
        let files = self.view.files()?;
        let Some(mut rewrite) = Rewrite::new(files, (first, last), self.is_over) else {
            return Err(last.error("compact", COMMITS_AT));
        };
        let disk = &**self.disk;
        let mut unfinished = None;
        if !self.options.dry_run {
            (self.check_owned)()?;
            let pace = Throttle::new(&self.view.catalog, disk);
            unfinished = Some(rewrite.write_to(disk, pace)?);
        }
        // An unfinished file has a name that no other file ever has.
        let give_up = || {
            let made = unfinished.as_ref().filter(|_| !(self.has_ended)());
            let removed = made.map(|(path, file)| remove_made(disk, path, &**file));
            drop(removed);
        };
        let made = MergedBatches::of(run, self.view, self.is_live)
            .and_then(|merged| {
                run.iter().try_for_each(|segment| rewrite.take(segment, self.is_live, &merged))
            })
            .and_then(|()| rewrite.finish());
        let (sparse, tally) = made.inspect_err(|_| give_up())?;
        let done = CompactedRun::of(run, &tally);
        if let Some(sparse) = sparse {
            self.prove_all().inspect_err(|_| give_up())?;
            (self.check_owned)().inspect_err(|_| give_up())?;
            run.iter().for_each(|old| nameless.hold(disk, &old.header));
            let unfinished = unfinished_path(&sparse.header);
            let take_name = || disk.replace(&unfinished, &path(sparse.number()));
            self.put_in_place(run, &sparse, &take_name).inspect_err(|_| {
                nameless.let_go();
                give_up();
            })?;
        }
        Ok(done)
    }

    /// Replaces old segments by the new one. All live batches exist at every moment; positions tell
    /// duplicates apart.
    pub(super) fn put_in_place(
        &self,
        run: &[Arc<Segment>],
        new: &Arc<Segment>,
        take_name: &dyn Fn() -> io::Result<()>,
    ) -> Result<()> {
        let disk = &**self.disk;
        let number = new.number();
        let failed = |error| Error::io("compact", place(number, 0), error);
        // A rewrite has already replaced the last file of its run.
        let is_left = |old: &&Arc<Segment>| new.is_gone() || old.number() != number;
        let mut old = run.iter().filter(is_left);
        let with_file = || run.iter().filter(|old| !old.is_gone());
        let mut remove = || old.try_for_each(|old| old.old_file().remove(disk));
        if broken(Sabotage::RemoveEarly) {
            remove().map_err(failed)?;
        }
        with_file()
            .try_for_each(|old| self.note_links(old, &*open_own(disk, &old.header)?))
            .map_err(failed)?;
        with_file().try_for_each(|old| self.keep(old)).map_err(failed)?;
        take_name().map_err(failed)?;
        new.let_go();
        self.view.catalog.replace_segments(new);
        if broken(Sabotage::RemoveEarly) {
            return Ok(());
        }
        // Old files go only after the new file's name is durable. The next opening sweeps any left
        // over.
        disk.sync_dir(DIR).map_err(failed)?;
        remove().map_err(failed)
    }

    /// Waits until the disk proves every commit that makes batches dead: some may not be synced, or
    /// not be known as acknowledged to the next opening. This runs wakers, and a waker may close
    /// the log.
    pub(super) fn prove_all(&self) -> Result<()> {
        if broken(Sabotage::CompactUnproven) {
            return Ok(());
        }
        (self.prove)()?;
        if (self.is_over)() { Err(Error::new(ErrorKind::Closed, "compact")) } else { Ok(()) }
    }

    /// Records the number of names that a file has outside the log, before its name in the log
    /// goes.
    fn note_links(&self, old: &Segment, file: &dyn DiskFile) -> io::Result<()> {
        if !self.options.is_purge() {
            return Ok(());
        }
        let kept = self.disk.identity_at(&kept_path(&old.header))? == Some(file.identity());
        let links = file.links()?.saturating_sub(1 + u64::from(kept));
        if links > 0 {
            let path = old.path().into();
            let kind = HolderKind::HardLinks(links);
            self.holders.borrow_mut().push(Holder { path, kind });
        }
        Ok(())
    }

    /// Lets read views open the segment after it lost its name: under another name or, where the
    /// file system supports only one, through an open file.
    fn keep(&self, old: &Segment) -> io::Result<()> {
        if broken(Sabotage::ForgetReadViews) {
            return Ok(());
        }
        if old.keep_file(self.disk, self.failures).is_ok() {
            return Ok(());
        }
        let held = self.held.get();
        if held >= HELD_FILES_MAX {
            return Err(io::ErrorKind::Unsupported.into());
        }
        old.hold(self.disk.open_read(&path(old.number()))?);
        self.held.set(held + 1);
        Ok(())
    }
}

/// Returns the number of dead batches in the segment that commits go to, by its index alone, and
/// that of all batches.
pub(crate) fn count_dead(segment: &Segment, is_live: LivenessTest<'_>) -> (u64, u64) {
    let entries = segment.footer_entries();
    let mut dead = 0;
    for share in entries.chunk_by(|entry, next| entry.stream == next.stream) {
        let is_catalog = |entry: &FooterEntry| entry.kind == BatchKind::Catalog;
        let newest = share.iter().rposition(is_catalog);
        for (at, entry) in share.iter().enumerate() {
            let is_superseded = is_catalog(entry) && Some(at) != newest;
            dead += u64::from(is_superseded || !is_live(&BatchCandidate::listed(entry)));
        }
    }
    (dead, entries.len() as u64)
}

/// Returns whether a segment starts at the position after another.
pub(super) fn follows(before: &Segment, segment: &Segment) -> bool {
    before.seal_state().is_some_and(|sealed| sealed.last_position + 1 == segment.first_position)
}

/// Returns the run if compacting it gains space or joins segments. A run ends with a segment of
/// which something is left: a stand-in at its end would have the number and last position of the
/// rewritten segment, and the place of the two could not tell them apart.
fn complete(mut run: Vec<Gain>) -> Option<Vec<Arc<Segment>>> {
    while run.pop_if(|last| last.segment.is_gone()).is_some() {}
    let worth = run.len() > 1 || run.iter().any(|gain| gain.is_worth_it);
    worth.then(|| run.into_iter().map(|gain| gain.segment).collect())
}
