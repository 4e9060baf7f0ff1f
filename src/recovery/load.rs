//! Loader: builds the catalog from a log's files.
//!
//! The loader discovers the segments and applies them in order; it writes nothing. It reads sealed
//! segments by their footers, and replays the active segment and any that a crash left without a
//! footer. It reports damage and continues after it.

mod findings;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use super::apply::{self, Changes};
use super::discover::{self, Access, Candidate, Discovered, Role, Spares, discover};
use super::ids::LatestIds;
use super::later::{Later, Sparse};
use super::parallel::{Ahead, Hands, Work};
use super::replay::{DamagedRange, End, Expectation, ReplayItem, TailRule, is_cut_off};
use super::report::{DamageKind, RecoveryReport, SegmentReport, SegmentState, TornTail};
use super::scan::{Found, Scanner, Step};
use super::sealed::{Verdict, lost_events};
use super::unread;
use crate::catalog::{Catalog, CommitIds, Lsn, StreamRoots};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{BatchKind, Covers, Ending, POSITION_MAX, SegmentHeader};
use crate::index::{BatchRef, FooterIndex};
use crate::sabotage::{Sabotage, broken};
use crate::segment::{FilePool, OldFile, Segment, place};
use crate::types::{Position, Timestamp, through};

/// Extent of a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Depth {
    /// Headers, footers and unsealed segments, as for opening.
    Quick,
    /// Every byte of every segment.
    Full,
}

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
pub(crate) fn load(files: &Arc<FilePool>, access: Access, depth: Depth) -> Result<Option<Loaded>> {
    let hands = if files.disk().allows_threads() { Hands::AsMany } else { Hands::One };
    load_with(files, access, depth, hands)
}

/// Reads a log with the given number of threads. The result does not depend on the number.
pub(super) fn load_with(
    files: &Arc<FilePool>,
    access: Access,
    depth: Depth,
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
pub(super) fn load_alone(files: &Arc<FilePool>, name: &str, depth: Depth) -> Result<Loaded> {
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

/// Number and length of the file that is being loaded.
struct File {
    number: u32,
    bytes: u64,
}

struct Loader {
    files: Arc<FilePool>,
    depth: Depth,
    /// Path of the only segment, if it stands alone.
    alone_at: Option<Box<str>>,
    /// Findings of helper threads.
    ahead: Ahead,
    catalog: Catalog,
    roots: StreamRoots,
    report: RecoveryReport,
    /// Expected position of the next commit.
    next: u64,
    acked: u64,
    durable: u64,
    last: Option<(Arc<Segment>, End)>,
    unsealed: Vec<(Arc<Segment>, u64, u64)>,
    /// Unusable files after the last segment that was applied.
    in_the_way: Vec<u32>,
    superseded: Vec<(OldFile, u32)>,
    /// True if a file after the last segment keeps the log from being continued.
    is_obstructed: bool,
    /// Latest time that a writer vouched for.
    vouched: Timestamp,
    with_id: LatestIds,
}

impl Loader {
    fn new(files: &Arc<FilePool>, access: Access, depth: Depth, ahead: Ahead) -> Self {
        let ids_max = match access {
            Access::Write { commit_ids_max } => commit_ids_max,
            Access::Read => 0,
        };
        Self {
            files: Arc::clone(files),
            depth,
            alone_at: None,
            ahead,
            catalog: Catalog::new(),
            roots: StreamRoots::default(),
            report: RecoveryReport::default(),
            next: 1,
            acked: 0,
            durable: 0,
            last: None,
            unsealed: Vec::new(),
            in_the_way: Vec::new(),
            superseded: Vec::new(),
            is_obstructed: false,
            vouched: Timestamp::default(),
            with_id: LatestIds::new(ids_max),
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
        for (index, file) in std::mem::take(&mut found.candidates).into_iter().enumerate() {
            if let Some(by) = self.superseded_by(&file, &sparse) {
                self.supersede(&file, by);
                continue;
            }
            // The next segment that can follow; a segment that repeats positions cannot.
            let follows = |later: &Later| later.first.is_none_or(|first| first >= self.next);
            let behind = || starts.iter().skip(index).skip(1).flatten().copied();
            let anchored = behind().next().is_some_and(|later| later.anchored);
            let later = behind().find(follows).map(|later| Later { anchored, ..later });
            let number = file.number;
            self.apply(file, before, later)?;
            before = number;
        }
        let ids = self.with_id.read(&self.files)?;
        Ok(self.finish(found, before, behind, ids))
    }

    fn scanner(&self, segment: &Arc<Segment>, limit: u64) -> Scanner {
        Scanner::new(Arc::clone(segment), limit, Arc::clone(&self.files))
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
    fn superseded_by(&self, file: &Candidate, sparse: &Sparse) -> Option<u32> {
        let first = match &file.role {
            Role::Segment(start) => start.first,
            _ => None,
        };
        sparse.covering(file, first.unwrap_or(0).max(self.next))
    }

    /// Returns true if the report already contains the loss of these commits.
    fn is_reported(&self, lost: &Range<u64>) -> bool {
        // Damage that extends this far was found since `next` last advanced.
        let recent = self.report.damages.iter().rev().take_while(|damage| {
            damage.positions.is_empty() || damage.positions.end.get() > lost.start
        });
        let positions = recent.map(|damage| &damage.positions);
        positions
            .into_iter()
            .any(|those| those.end.get() == lost.end && those.start.get() <= lost.start)
    }

    /// Applies one file; `before` is the number of the previous file, `later` the next segment.
    fn apply(&mut self, candidate: Candidate, before: u32, later: Option<Later>) -> Result<()> {
        let file = File { number: candidate.number, bytes: candidate.bytes };
        let start = match candidate.role {
            Role::Segment(start) => start,
            // Later segments hold commits, so this one once did too.
            Role::Spare(_) => {
                self.unusable(&file, DamageKind::Hole, later);
                return Ok(());
            }
            Role::Unusable(kind) => {
                self.unusable(&file, kind, later);
                return Ok(());
            }
        };
        if candidate.header_damaged {
            self.damage(DamageKind::HeaderCopy, candidate.number, 0, 0..0);
        }
        let first = start.first.unwrap_or(self.next);
        if first < self.next {
            self.unusable(&file, DamageKind::Misplaced, later);
            return Ok(());
        }
        // A sparse segment has the last number of those it replaces: only positions decide.
        let next = before.saturating_add(1);
        let follows = candidate.number == next || start.header.covers.is_some();
        if (first > self.next || !follows) && !broken(Sabotage::SkipContinuity) {
            let lost = self.next..first;
            if lost.is_empty() || !self.is_reported(&lost) {
                self.damage(DamageKind::Missing, next, 0, lost);
            }
            self.next = first;
        }
        // The lost bytes before it and in it may hold commits with unknown positions.
        let unplaced =
            start.first.is_none() && (!self.in_the_way.is_empty() || candidate.number != next);
        if unplaced {
            self.in_the_way.push(candidate.number);
        } else {
            self.in_the_way.clear();
        }
        if let Some(segment) = start.sealed {
            match segment.footer(&self.files) {
                Ok(footer) => return self.apply_sealed(&file, &segment, &footer, later),
                // Without its index, the segment is replayed.
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if start.header.covers.is_some() {
            return self.apply_torn_sparse(&file, &self.active(start.header, first));
        }
        self.apply_unsealed(&file, self.active(start.header, self.next), later)
    }

    fn apply_sealed(
        &mut self,
        file: &File,
        segment: &Arc<Segment>,
        footer: &FooterIndex,
        later: Option<Later>,
    ) -> Result<()> {
        let Some(sealed) = segment.seal_state() else { return Ok(()) };
        let (first, last) = (sealed.first_position, sealed.last_position);
        let footer_at = sealed.footer_at;
        self.catalog.add_segment(segment);
        let is_gone = segment.is_gone();
        let state = if is_gone { SegmentState::Dropped } else { SegmentState::Sealed };
        let positions = through(first, last);
        let next = positions.end;
        self.report(file, positions, state);
        let known: usize = footer.runs().map(|(_, run)| run.len()).sum();
        if known != footer.len() as usize {
            let error = Error::new(ErrorKind::UnsupportedFeature, "open");
            return Err(error.at(place(file.number, footer_at)));
        }
        self.catalog.shows_at_least(Lsn::new(file.number, footer_at));
        let changes = self.changes_in(segment, footer, footer_at)?;
        for (stream, run) in footer.runs() {
            let batches: Vec<BatchRef> = run.filter_map(|index| footer.get(index)).collect();
            let catalog = (&self.catalog, &mut self.roots);
            apply::note_run(catalog, file.number, stream, &batches, &changes);
        }
        if self.depth == Depth::Full && !is_gone {
            self.check_sealed(segment, last, footer_at)?;
        }
        self.vouch(segment, None);
        self.next = next;
        self.durable = self.durable.max(last);
        self.acked = self.acked.max(last);
        if later.is_none() {
            // A segment is sealed only once the next one holds durable commits.
            self.damage(DamageKind::Missing, file.number.saturating_add(1), 0, next..next);
        }
        self.raise(Lsn::new(file.number, footer_at));
        Ok(())
    }

    /// Reads the commits of a sealed segment that change streams other than by events, each once.
    fn changes_in(
        &mut self,
        segment: &Arc<Segment>,
        footer: &FooterIndex,
        limit: u64,
    ) -> Result<Changes> {
        let (mut offsets, mut with_id) = (BTreeSet::new(), Vec::new());
        for batch in (0..footer.len()).filter_map(|index| footer.get(index)) {
            match batch.kind {
                BatchKind::Catalog | BatchKind::Fork => drop(offsets.insert(batch.offset)),
                BatchKind::CommitId => with_id.push(batch.offset),
                _ => {}
            }
        }
        with_id.sort_unstable();
        with_id.into_iter().for_each(|offset| self.with_id.note_at(segment, offset));
        let mut changes = Changes::new();
        let mut scanner = self.scanner(segment, limit);
        for offset in offsets {
            // Reading the commit, or a full verification, reports the damage.
            let Step::Commit(found) = scanner.step(offset)? else {
                self.catalog.doubt();
                continue;
            };
            if !found.is_sound() {
                self.catalog.doubt();
            }
            if found.unknown && found.is_sound() {
                let error = Error::new(ErrorKind::UnsupportedFeature, "open");
                return Err(error.at(place(segment.number(), offset)));
            }
            let here = found.changes.into_iter();
            changes.extend(here.map(|(stream, change)| ((stream, offset), change)));
        }
        Ok(changes)
    }

    fn check_sealed(&mut self, segment: &Arc<Segment>, last: u64, footer_at: u64) -> Result<()> {
        match self.ahead.check(segment)? {
            Verdict::Listed(losses) => {
                for loss in losses {
                    self.damage(loss.kind, segment.number(), loss.offset, loss.positions);
                    if let Some(damage) = self.report.damages.last_mut() {
                        damage.events = loss.events;
                    }
                }
                return Ok(());
            }
            Verdict::Unknown(offset) => {
                let error = Error::new(ErrorKind::UnsupportedFeature, "open");
                return Err(error.at(place(segment.number(), offset)));
            }
            Verdict::Unlisted => self.damage(DamageKind::Footer, segment.number(), footer_at, 0..0),
        }
        let (first, tail) = (segment.first_position, TailRule::Cut);
        let expect = Expectation { first, durable: last, limit: footer_at, tail };
        let end = self.replay(segment, expect, |_, _, _| {})?;
        // If the commits reach to the footer, missing positions of a sparse segment were compacted.
        let reached = segment.is_sparse() && end.offset == footer_at;
        if end.next <= last && !reached {
            let range = DamagedRange { offset: end.offset, positions: through(end.next, last) };
            self.damage_in(segment.number(), range, &[]);
        }
        Ok(())
    }

    /// Applies a sparse segment without its footer, which is always damage, by replaying it.
    fn apply_torn_sparse(&mut self, file: &File, segment: &Arc<Segment>) -> Result<()> {
        let Some(Covers { first, last }) = segment.header.covers else { return Ok(()) };
        self.catalog.add_segment(segment);
        let (limit, tail) = (file.bytes, TailRule::Cut);
        let expect = Expectation { first, durable: last, limit, tail };
        let end = self.replay(segment, expect, |(catalog, with_id), roots, found| {
            apply::note_commit(catalog, roots, segment, found);
            with_id.note_found(found);
        })?;
        self.vouch(segment, None);
        self.damage(DamageKind::Footer, file.number, end.offset, 0..0);
        let step = self.scanner(segment, file.bytes).step(end.offset)?;
        if end.next <= last && !matches!(step, Step::Footer) {
            let range = DamagedRange { offset: end.offset, positions: through(end.next, last) };
            self.damage_in(file.number, range, &[]);
        }
        let positions = through(first, last);
        self.next = positions.end;
        self.report(file, positions, SegmentState::Unsealed);
        self.durable = self.durable.max(last);
        self.acked = self.acked.max(last);
        self.raise(Lsn::new(file.number, end.offset));
        Ok(())
    }

    /// Walks a segment, reports its damage, and calls `note` for every commit that counts.
    fn replay(
        &mut self,
        segment: &Arc<Segment>,
        expect: Expectation,
        mut note: impl FnMut((&Catalog, &mut LatestIds), &mut StreamRoots, &Found),
    ) -> Result<End> {
        let (mut damaged, mut bad, mut unknown) = (Vec::new(), Vec::new(), None);
        let (catalog, roots) = (&self.catalog, &mut self.roots);
        let with_id = &mut self.with_id;
        let end = self.ahead.walk(segment, expect, |item| {
            damaged.extend(item.damaged_range());
            let ReplayItem::Commit(found) = item else { return Ok(()) };
            if found.unknown && found.is_sound() {
                unknown = Some(found.offset);
            }
            if !found.is_sound() {
                bad.push((found.head.position, lost_events(&found)));
            }
            note((catalog, with_id), roots, &found);
            Ok(())
        })?;
        if let Some(offset) = unknown {
            let error = Error::new(ErrorKind::UnsupportedFeature, "open");
            return Err(error.at(place(segment.number(), offset)));
        }
        for range in damaged {
            self.damage_in(segment.number(), range, &bad);
        }
        Ok(end)
    }

    fn apply_unsealed(
        &mut self,
        file: &File,
        segment: Arc<Segment>,
        later: Option<Later>,
    ) -> Result<()> {
        let first = segment.first_position;
        self.catalog.add_segment(&segment);
        // Only the last segment can have a torn tail: the next one starts after it is durable.
        let proved = if later.is_some() { POSITION_MAX } else { self.durable };
        let is_short = file.bytes < segment.header.reserved_bytes;
        let is_cut = later.is_none() && is_cut_off(&self.files, &segment, file.bytes)?;
        // Only a repair continues the log after a cut file or before an obstructing one.
        let tail = if is_cut || self.is_obstructed { TailRule::Keep } else { TailRule::Cut };
        let expect = Expectation { first, durable: proved, limit: file.bytes, tail };
        let known = self.report.damages.len();
        let end = self.replay(&segment, expect, |(catalog, with_id), roots, found| {
            apply::note_commit(catalog, roots, &segment, found);
            with_id.note_found(found);
        })?;
        self.vouch(&segment, end.witnessed.map(|_| end.tail_record_vouched));
        let whole = self.report.damages.len() == known;
        let closed = end.witnessed == Some(Ending::Clean) && end.behind_tail_record() <= file.bytes;
        let unread = unread::after_commits(&self.files, &segment, &end, later.is_some());
        for offset in &unread {
            self.damage(DamageKind::Unreadable, file.number, *offset, end.next..end.next);
        }
        if end.next > first || end.witnessed.is_some() {
            self.in_the_way.clear();
        }
        match later {
            Some(Later { first: Some(next), .. }) if end.next < next => {
                let lost = DamagedRange { offset: end.offset, positions: end.next..next };
                self.damage_in(file.number, lost, &[]);
                self.next = next;
            }
            // No later segment bounds the lost positions.
            None | Some(Later { first: None, anchored: false }) if is_short && !closed => {
                self.damage(DamageKind::Cut, file.number, file.bytes, end.next..end.next);
                self.next = end.next;
            }
            None => self.next = end.next,
            Some(_) => {
                // Sealing a damaged segment would hide its damage.
                if whole {
                    self.unsealed.push((Arc::clone(&segment), end.offset, end.last_position()));
                }
                self.next = end.next;
            }
        }
        let state = if later.is_some() { SegmentState::Unsealed } else { SegmentState::Active };
        self.report(file, first..end.next, state);
        self.durable = self.durable.max(end.durable).min(self.last_position());
        self.acked = self.acked.max(end.acked).max(self.durable).min(self.last_position());
        self.raise(Lsn::new(file.number, end.offset));
        if later.is_none() {
            if end.is_blocked && !broken(Sabotage::GoOnWhereBlocked) || !unread.is_empty() {
                self.in_the_way.push(file.number);
            }
            self.report.closed_cleanly = closed && end.torn_to.is_none();
            self.report.torn_tail = end.torn_to.map(|_| TornTail {
                place: place(file.number, end.torn_from()),
                bytes: end.torn_bytes(),
                commits: end.torn_commits,
            });
            self.last = Some((segment, end));
        }
        Ok(())
    }

    /// Classifies the files after the last segment and completes the report.
    fn finish(
        mut self,
        found: Discovered,
        last: u32,
        behind: Vec<Candidate>,
        ids: CommitIds,
    ) -> Loaded {
        let (mut spares, mut damaged_spares) = (Vec::new(), Vec::new());
        for candidate in behind {
            let file = File { number: candidate.number, bytes: candidate.bytes };
            match candidate.role {
                Role::Spare(_) if is_in_the_way(&candidate, last) => {
                    self.unusable(&file, DamageKind::Hole, None);
                }
                Role::Spare(header) if !candidate.header_damaged => {
                    self.report(&file, 0..0, SegmentState::Spare);
                    spares.push(header);
                }
                Role::Spare(header) => {
                    self.report(&file, 0..0, SegmentState::Spare);
                    damaged_spares.push(header);
                }
                Role::Unusable(kind) => self.unusable(&file, kind, None),
                Role::Segment(_) => {}
            }
        }
        self.report.foreign = found.foreign;
        self.report.unreadable = unread::places(&self.files);
        self.report.position = Position(self.last_position());
        self.report.durable = Position(self.durable);
        self.report.acknowledged = Position(self.acked.max(self.durable));
        let is_cut = self.report.damages.iter().any(|damage| damage.kind == DamageKind::Cut);
        let is_spare = |segment: &SegmentReport| segment.state == SegmentState::Spare;
        let is_lost = self.last.is_none() && !self.report.segments.iter().all(is_spare);
        self.report.needs_repair = is_cut || is_lost || !self.in_the_way.is_empty();
        self.catalog.adopt(self.roots);
        self.report.streams = self.catalog.streams_len();
        Loaded {
            files: self.files,
            log_id: found.log_id,
            catalog: self.catalog,
            report: self.report,
            last: self.last,
            unsealed: self.unsealed,
            spares,
            damaged_spares,
            superseded: self.superseded,
            numbers: found.numbers,
            unfinished: found.unfinished,
            in_the_way: self.in_the_way,
            vouched: Some(self.vouched).filter(|time| *time != Timestamp::default()),
            ids,
        }
    }
}
