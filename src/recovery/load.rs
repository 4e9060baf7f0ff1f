//! Loader: builds the catalog from a log's files.
//!
//! The loader discovers the segments and applies them in order; it writes nothing. It reads sealed
//! segments by their footers, and replays the active segment and any that a crash left without a
//! footer. It reports damage and continues after it.

use std::sync::Arc;

use super::access::{Access, LoadDepth};
use super::discover::{self, Candidate, Discovered, Role, Spares, discover};
use super::findings::{Findings, FoundFile};
use super::fold::{Fold, History, unsupported};
use super::judge::{Evidence, LogPrefix, Lost, Outcome, judge};
use super::later::{Later, Sparse};
use super::parallel::{Ahead, Hands, Work};
use super::replay::{DamagedRange, End, Expectation, ReplayItem, TailRule, is_cut_off};
use super::report::{DamageKind, RecoveryReport, SegmentReport, SegmentState, TornTail};
use super::sealed::{FooterCheck, lost_events};
use super::unread;
use crate::catalog::{Catalog, CommitIds, Watermark};
use crate::error::{ErrorKind, Result};
use crate::format::{Covers, Lsn, POSITION_MAX, SegmentHeader};
use crate::index::FooterIndex;
use crate::sabotage::{Sabotage, broken};
use crate::segment::scan::{Found, Scanner, Step};
use crate::segment::{FilePool, OldFile, Segment, place};
use crate::types::{Position, Timestamp, through};

/// Log that was read.
pub(crate) struct Loaded {
    /// File pool of the read.
    pub(crate) files: Arc<FilePool>,
    pub(crate) log_id: Option<[u8; 16]>,
    pub(crate) catalog: Catalog,
    pub(crate) report: RecoveryReport,
    /// Segment that receives the next commits, and its end.
    pub(crate) last: Option<(Arc<Segment>, End)>,
    /// Full segments without a footer: segment, end of its commits, last position.
    pub(crate) unsealed: Vec<(Arc<Segment>, u64, u64)>,
    /// Headers of empty segments after the last one.
    pub(crate) spares: Vec<SegmentHeader>,
    /// Files whose commits are in a later, sparse segment, with the number of that segment.
    pub(crate) superseded: Vec<(OldFile, u32)>,
    /// Headers of spares with one damaged copy.
    pub(crate) damaged_spares: Vec<SegmentHeader>,
    /// Numbers of all listed files.
    pub(super) numbers: Vec<u32>,
    /// Paths of unfinished files of the log, and of files that read views kept.
    pub(crate) unfinished: Vec<String>,
    /// Files after the last usable segment that stop the log from being continued.
    pub(crate) in_the_way: Vec<u32>,
    /// Latest time that its writers vouched for, if any.
    pub(crate) vouched: Option<Timestamp>,
    /// Recent commit ids; empty unless the log is opened for writing.
    pub(crate) ids: CommitIds,
}

/// Reads a log. Returns `None` if none exists.
pub(crate) fn load(
    files: &Arc<FilePool>,
    access: Access,
    depth: LoadDepth,
) -> Result<Option<Loaded>> {
    let hands = if files.disk().allows_threads() { Hands::AsMany } else { Hands::One };
    load_with(files, access, depth, hands)
}

/// Reads a log with the given number of threads. The result does not depend on the number.
pub(super) fn load_with(
    files: &Arc<FilePool>,
    access: Access,
    depth: LoadDepth,
    hands: Hands,
) -> Result<Option<Loaded>> {
    if hands != Hands::One {
        let Some(found) = discover(files, Spares::Presumed)? else { return Ok(None) };
        let work = Work::plan(&found.candidates, depth, files);
        let (loaded, spare) = work
            .share(hands, files, |ahead| Loader::new(files, access, depth, ahead).apply_all(found));
        if spare? {
            return loaded.map(Some);
        }
        // A presumed spare holds data: discard the result and classify the files again.
    }
    let Some(found) = discover(files, Spares::Searched)? else { return Ok(None) };
    Loader::new(files, access, depth, Ahead::new(files)).apply_all(found).map(Some)
}

/// Reads one sealed segment that stands alone.
pub(super) fn load_alone(files: &Arc<FilePool>, name: &str, depth: LoadDepth) -> Result<Loaded> {
    let candidate = discover::alone(files, name)?;
    let log_id = match &candidate.role {
        Role::Segment(start) => Some(start.header.log_id),
        _ => None,
    };
    let found = Discovered {
        log_id,
        candidates: vec![candidate],
        numbers: Vec::new(),
        unfinished: Vec::new(),
        foreign: Vec::new(),
    };
    let mut loader = Loader::new(files, Access::Read, depth, Ahead::new(files));
    loader.alone_at = Some(name.into());
    let mut loaded = loader.apply_all(found)?;
    // A segment that stands alone has no neighbours to miss.
    loaded.report.damages.retain(|damage| damage.kind != DamageKind::Missing);
    loaded.report.damages.iter_mut().for_each(|damage| {
        (damage.place.path, damage.place.segment) = (name.into(), None);
    });
    Ok(loaded)
}

/// Returns whether a file after the last segment keeps the log from being continued.
fn is_in_the_way(candidate: &Candidate, last: u32) -> bool {
    match candidate.role {
        Role::Unusable(_) => true,
        // A writer prepares one spare, and the segment before it may have lost unsynced commits.
        // Any further empty files once held commits.
        Role::Spare(_) => candidate.number.saturating_sub(last) > 2,
        Role::Segment(_) => false,
    }
}

/// State of a load: the content of the files applied so far.
struct Loader {
    files: Arc<FilePool>,
    depth: LoadDepth,
    /// Path of the only segment, if it stands alone.
    alone_at: Option<Box<str>>,
    /// Findings of helper threads.
    ahead: Ahead,
    fold: Fold,
    findings: Findings,
    prefix: LogPrefix,
    last: Option<(Arc<Segment>, End)>,
    unsealed: Vec<(Arc<Segment>, u64, u64)>,
    /// True if a file after the last segment keeps the log from being continued.
    is_obstructed: bool,
}

impl Loader {
    fn new(files: &Arc<FilePool>, access: Access, depth: LoadDepth, ahead: Ahead) -> Self {
        let ids_max = match access {
            Access::Write { commit_ids_max } => commit_ids_max,
            Access::Read => 0,
        };
        Self {
            files: Arc::clone(files),
            depth,
            alone_at: None,
            ahead,
            fold: Fold::new(ids_max),
            findings: Findings::default(),
            prefix: LogPrefix::NONE,
            last: None,
            unsealed: Vec::new(),
            is_obstructed: false,
        }
    }

    fn apply_all(mut self, mut found: Discovered) -> Result<Loaded> {
        let sparse = Sparse::of(&found.candidates);
        let last = found.candidates.iter().rposition(|file| matches!(file.role, Role::Segment(_)));
        let behind = found.candidates.split_off(last.map_or(0, |at| at.saturating_add(1)));
        let number = last.map_or(0, |last| found.candidates[last].number);
        self.is_obstructed = behind.iter().any(|file| is_in_the_way(file, number));
        let starts = Later::of_each(&found.candidates);
        let mut before = 0;
        for (index, candidate) in std::mem::take(&mut found.candidates).into_iter().enumerate() {
            if let Some(by) = self.superseded_by(&candidate, &sparse) {
                self.findings.supersede(&candidate, by);
                continue;
            }
            // The next segment that can follow; a segment that repeats positions cannot.
            let next = self.prefix.next;
            let follows = |later: &Later| later.first.is_none_or(|first| first >= next);
            let behind = || starts.iter().skip(index).skip(1).flatten().copied();
            let anchored = behind().next().is_some_and(|later| later.anchored);
            let later = behind().find(follows).map(|later| Later { anchored, ..later });
            let number = candidate.number;
            self.apply(candidate, before, later)?;
            before = number;
        }
        self.finish(found, before, behind)
    }

    /// Creates an unsealed segment.
    fn active(&self, header: SegmentHeader, first_position: u64) -> Arc<Segment> {
        let segment = Segment::active(header, first_position);
        if let Some(name) = &self.alone_at {
            segment.stands_alone_at(name);
        }
        Arc::new(segment)
    }

    /// Returns the number of the sparse segment that replaces this file, left by an interrupted
    /// compaction. Positions decide, or the number of a file whose positions are unknown.
    fn superseded_by(&self, candidate: &Candidate, sparse: &Sparse) -> Option<u32> {
        let first = match &candidate.role {
            Role::Segment(start) => start.first,
            _ => None,
        };
        sparse.covering(candidate, first.unwrap_or(0).max(self.prefix.next))
    }

    /// Applies one file; `before` is the number of the previous file, `later` the next segment.
    fn apply(&mut self, candidate: Candidate, before: u32, later: Option<Later>) -> Result<()> {
        let file = FoundFile::of(&candidate);
        let expected = self.prefix.next;
        let start = match candidate.role {
            Role::Segment(start) => start,
            // Later segments hold commits, so this one once did too.
            Role::Spare(_) => {
                self.findings.unusable(file, DamageKind::Hole, self.prefix.until(later));
                return Ok(());
            }
            Role::Unusable(kind) => {
                self.findings.unusable(file, kind, self.prefix.until(later));
                return Ok(());
            }
        };
        if candidate.header_damaged {
            self.findings.damage(DamageKind::HeaderCopy, file.number, 0, 0..0);
        }
        let first = start.first.unwrap_or(expected);
        if first < expected {
            self.findings.unusable(file, DamageKind::Misplaced, self.prefix.until(later));
            return Ok(());
        }
        // A sparse segment has the last number of those it replaces: only positions decide.
        let next = before.saturating_add(1);
        let follows = file.number == next || start.header.covers.is_some();
        if (first > expected || !follows) && !broken(Sabotage::SkipContinuity) {
            let lost = expected..first;
            if lost.is_empty() || !self.findings.is_reported(&lost) {
                self.findings.damage(DamageKind::Missing, next, 0, lost);
            }
            self.prefix.next = first;
        }
        // The lost bytes before it and in it may hold commits with unknown positions.
        let in_the_way = &mut self.findings.in_the_way;
        if start.first.is_none() && (!in_the_way.is_empty() || file.number != next) {
            in_the_way.push(file.number);
        } else {
            in_the_way.clear();
        }
        if let Some(segment) = start.sealed {
            match segment.footer(&self.files) {
                Ok(footer) => return self.apply_sealed(file, &segment, &footer, later),
                // Without its index, the segment is replayed.
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if start.header.covers.is_some() {
            return self.apply_torn_sparse(file, &self.active(start.header, first));
        }
        self.apply_unsealed(file, self.active(start.header, self.prefix.next), later)
    }

    fn apply_sealed(
        &mut self,
        file: FoundFile,
        segment: &Arc<Segment>,
        footer: &FooterIndex,
        later: Option<Later>,
    ) -> Result<()> {
        let Some(sealed) = segment.seal_state() else { return Ok(()) };
        let (last, footer_at) = (sealed.last_position, sealed.footer_at);
        self.fold.catalog.add_segment(segment);
        let is_gone = segment.is_gone();
        let state = if is_gone { SegmentState::Dropped } else { SegmentState::Sealed };
        self.findings.file(file, through(sealed.first_position, last), state);
        let own = self.fold.note_sealed(&self.files, segment, footer, footer_at)?;
        // A change that cannot be read is damage: what a stream is called, or that it was deleted.
        if (self.depth == LoadDepth::Full || own == History::Lost) && !is_gone {
            self.check_sealed(segment, last, footer_at)?;
        }
        self.findings.vouch(segment, None);
        self.prefix = self.prefix.sealed_to(last);
        if later.is_none() {
            // A segment is sealed only once the next one holds durable commits.
            let next = self.prefix.next;
            self.findings.damage(DamageKind::Missing, file.number.saturating_add(1), 0, next..next);
        }
        self.raise(Lsn::new(file.number, footer_at));
        Ok(())
    }

    fn check_sealed(&mut self, segment: &Arc<Segment>, last: u64, footer_at: u64) -> Result<()> {
        let number = segment.number();
        match self.ahead.check(segment)? {
            FooterCheck::Listed(losses) => {
                for loss in losses {
                    self.findings.damage(loss.kind, number, loss.offset, loss.positions);
                    if let Some(damage) = self.findings.report.damages.last_mut() {
                        damage.events = loss.events;
                    }
                }
                return Ok(());
            }
            FooterCheck::Unknown(offset) => return Err(unsupported(segment, offset)),
            FooterCheck::Unlisted => {
                self.findings.damage(DamageKind::Footer, number, footer_at, 0..0);
            }
        }
        let (first, tail) = (segment.first_position, TailRule::Cut);
        let expect = Expectation { first, durable: last, limit: footer_at, tail };
        let end = self.replay(segment, expect, |_, _| {})?;
        // If the commits reach to the footer, missing positions of a sparse segment were compacted.
        let reached = segment.is_sparse() && end.offset == footer_at;
        if end.next <= last && !reached {
            let range = DamagedRange { offset: end.offset, positions: through(end.next, last) };
            self.findings.damage_in(number, range, &[]);
        }
        Ok(())
    }

    /// Applies a sparse segment without its footer, which is always damage, by replaying it.
    fn apply_torn_sparse(&mut self, file: FoundFile, segment: &Arc<Segment>) -> Result<()> {
        let Some(Covers { first, last }) = segment.header.covers else { return Ok(()) };
        self.fold.catalog.add_segment(segment);
        let (limit, tail) = (file.bytes, TailRule::Cut);
        let expect = Expectation { first, durable: last, limit, tail };
        let end = self.replay(segment, expect, |fold, found| fold.note(segment, found))?;
        self.findings.vouch(segment, None);
        self.findings.damage(DamageKind::Footer, file.number, end.offset, 0..0);
        let mut scanner = Scanner::new(Arc::clone(segment), limit, Arc::clone(&self.files));
        if end.next <= last && !matches!(scanner.step(end.offset)?, Step::Footer) {
            let range = DamagedRange { offset: end.offset, positions: through(end.next, last) };
            self.findings.damage_in(file.number, range, &[]);
        }
        self.findings.file(file, through(first, last), SegmentState::Unsealed);
        self.prefix = self.prefix.sealed_to(last);
        self.raise(Lsn::new(file.number, end.offset));
        Ok(())
    }

    /// Walks a segment, reports its damage, and calls `note` for every commit that counts.
    fn replay(
        &mut self,
        segment: &Arc<Segment>,
        expect: Expectation,
        note: impl Fn(&mut Fold, &Found),
    ) -> Result<End> {
        let (mut damaged, mut bad, mut unknown) = (Vec::new(), Vec::new(), None);
        let fold = &mut self.fold;
        let end = self.ahead.walk(segment, expect, |item| {
            damaged.extend(item.damaged_range());
            let ReplayItem::Commit(found) = item else { return Ok(()) };
            if found.unknown && found.is_sound() {
                unknown = Some(found.offset);
            }
            if !found.is_sound() {
                bad.push((found.head.position, lost_events(&found)));
            }
            note(fold, &found);
            Ok(())
        })?;
        if let Some(offset) = unknown {
            return Err(unsupported(segment, offset));
        }
        for range in damaged {
            self.findings.damage_in(segment.number(), range, &bad);
        }
        Ok(end)
    }

    /// Applies a segment without a footer, as [`judge`] finds it.
    fn apply_unsealed(
        &mut self,
        file: FoundFile,
        segment: Arc<Segment>,
        later: Option<Later>,
    ) -> Result<()> {
        let (first, bytes) = (segment.first_position, file.bytes);
        self.fold.catalog.add_segment(&segment);
        // Only the last segment can have a torn tail: the next one starts after it is durable.
        let durable = if later.is_some() { POSITION_MAX } else { self.prefix.durable };
        let is_cut = later.is_none() && is_cut_off(&self.files, &segment, bytes)?;
        // Only a repair continues the log after a cut file or before an obstructing one.
        let tail = if is_cut || self.is_obstructed { TailRule::Keep } else { TailRule::Cut };
        let expect = Expectation { first, durable, limit: bytes, tail };
        let known = self.findings.report.damages.len();
        let end = self.replay(&segment, expect, |fold, found| fold.note(&segment, found))?;
        self.findings.vouch(&segment, end.witnessed.map(|_| end.tail_record_vouched));
        let unread = unread::after_commits(&self.files, &segment, &end, later.is_some());
        let evidence = Evidence {
            later,
            bytes,
            reserved_bytes: segment.header.reserved_bytes,
            is_damaged: self.findings.report.damages.len() > known,
            is_unread: !unread.is_empty(),
        };
        let verdict = judge(&end, self.prefix, evidence);
        self.prefix = verdict.prefix;
        for offset in unread {
            let none = end.next..end.next;
            self.findings.damage(DamageKind::Unreadable, file.number, offset, none);
        }
        if end.next > first || end.witnessed.is_some() {
            self.findings.in_the_way.clear();
        }
        match verdict.lost {
            Lost::Nothing => {}
            Lost::Positions(positions) => {
                let range = DamagedRange { offset: end.offset, positions };
                self.findings.damage_in(file.number, range, &[]);
            }
            Lost::Unknown => {
                self.findings.damage(DamageKind::Cut, file.number, bytes, end.next..end.next);
            }
        }
        let state = if later.is_some() { SegmentState::Unsealed } else { SegmentState::Active };
        self.findings.file(file, first..end.next, state);
        self.raise(Lsn::new(file.number, end.offset));
        match verdict.outcome {
            Outcome::Keep => {}
            Outcome::Seal => self.unsealed.push((segment, end.offset, end.last_position())),
            Outcome::Continue => self.end_in(file, segment, end),
            Outcome::Stop => {
                self.findings.in_the_way.push(file.number);
                self.end_in(file, segment, end);
            }
        }
        Ok(())
    }

    /// Notes the last segment of the log.
    fn end_in(&mut self, file: FoundFile, segment: Arc<Segment>, end: End) {
        let report = &mut self.findings.report;
        report.closed_cleanly = end.is_closed_within(file.bytes) && end.torn_to.is_none();
        report.torn_tail = end.torn_to.map(|_| TornTail {
            place: place(file.number, end.torn_from()),
            bytes: end.torn_bytes(),
            commits: end.torn_commits,
        });
        self.last = Some((segment, end));
    }

    fn raise(&self, end: Lsn) {
        let (visible, durable) = (self.prefix.last_position(), self.prefix.durable);
        self.fold.catalog.raise(Watermark { visible, durable, end });
    }

    /// Classifies the files after the last segment and completes the report.
    fn finish(mut self, found: Discovered, last: u32, behind: Vec<Candidate>) -> Result<Loaded> {
        let (catalog, ids, lost_ids) = self.fold.finish(&self.files)?;
        for lost in lost_ids {
            self.findings.lost_id(&lost);
        }
        let (mut spares, mut damaged_spares) = (Vec::new(), Vec::new());
        let none = || self.prefix.until(None);
        for candidate in behind {
            let file = FoundFile::of(&candidate);
            match candidate.role {
                Role::Spare(_) if is_in_the_way(&candidate, last) => {
                    self.findings.unusable(file, DamageKind::Hole, none());
                }
                Role::Spare(header) => {
                    self.findings.file(file, 0..0, SegmentState::Spare);
                    let is_damaged = candidate.header_damaged;
                    if is_damaged { &mut damaged_spares } else { &mut spares }.push(header);
                }
                Role::Unusable(kind) => self.findings.unusable(file, kind, none()),
                Role::Segment(_) => {}
            }
        }
        let is_cut = self.findings.has(DamageKind::Cut);
        let vouched = self.findings.vouched();
        let Findings { mut report, in_the_way, superseded, .. } = self.findings;
        report.foreign = found.foreign;
        report.unreadable = unread::places(&self.files);
        report.position = Position(self.prefix.last_position());
        report.durable = Position(self.prefix.durable);
        report.acknowledged = Position(self.prefix.acked.max(self.prefix.durable));
        let is_spare = |segment: &SegmentReport| segment.state == SegmentState::Spare;
        let is_lost = self.last.is_none() && !report.segments.iter().all(is_spare);
        report.needs_repair = is_cut || is_lost || !in_the_way.is_empty();
        report.streams = catalog.streams_len();
        report.deleted_streams = catalog.deleted_len();
        Ok(Loaded {
            files: self.files,
            log_id: found.log_id,
            catalog,
            report,
            last: self.last,
            unsealed: self.unsealed,
            spares,
            damaged_spares,
            superseded,
            numbers: found.numbers,
            unfinished: found.unfinished,
            in_the_way,
            vouched,
            ids,
        })
    }
}
