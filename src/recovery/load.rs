//! From files to a catalog: discover the segments, account for each, fold them in order.
//!
//! It reads and never writes. Sealed segments are taken by their footers; the active one, and one that a
//! crash left without a footer, are replayed. Whatever is damaged is reported and stepped around.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use super::ahead::{Ahead, Hands, Work};
use super::discover::{self, Access, Candidate, Discovered, Role, Spares, discover};
use super::fold::{self, Changes};
use super::report::{Damage, DamageKind, SegmentReport, SegmentState, Survey, TornTail};
use super::scan::{Found, Scanner, Step};
use super::sealed::{LostEvents, Verdict, lost_events};
use super::walk::{End, Expectation, Item, Wound};
use crate::catalog::{COMMIT_IDS_MAX, Catalog, CommitIds, Gathered, LogPlace, Watermark};
use crate::disk::Disk;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{BatchKind, Covers, Ending, POSITION_MAX, witness};
use crate::index::{BatchRef, FooterIndex};
use crate::sabotage::{Sabotage, broken};
use crate::segment::{Segment, Spare, place};
use crate::types::Position;

/// How closely to look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Depth {
    /// As opening does: headers, footers, and what is not sealed.
    Quick,
    /// Every byte of every segment.
    Full,
}

/// A log, read.
pub(crate) struct Loaded {
    pub(crate) log_id: Option<[u8; 16]>,
    pub(crate) catalog: Catalog,
    pub(crate) survey: Survey,
    /// The segment that commits would go to, and how it ended.
    pub(crate) last: Option<(Arc<Segment>, End)>,
    /// Full segments without a footer: segment, where the commits end, the last position.
    pub(crate) unsealed: Vec<(Arc<Segment>, u64, u64)>,
    /// Segments without commits behind the last one.
    pub(crate) spares: Vec<Spare>,
    /// Files whose commits are in a later, sparse segment, and the number of that one.
    pub(crate) superseded: Vec<(u32, u32)>,
    /// Spares with a damaged header.
    pub(crate) worn: Vec<u32>,
    /// Paths of files that were never finished.
    pub(crate) unfinished: Vec<String>,
    /// Files behind the last usable segment that hold something: the log cannot go on behind them.
    pub(crate) in_the_way: Vec<u32>,
    /// The ids that commits had of late; only for writing.
    pub(crate) ids: CommitIds,
}

/// Reads a log. `None`: there is none.
pub(crate) fn load(disk: &dyn Disk, access: Access, depth: Depth) -> Result<Option<Loaded>> {
    let hands = if disk.allows_threads() { Hands::AsMany } else { Hands::One };
    load_with(disk, access, depth, hands)
}

/// The same, with so many threads: what is found does not depend on them.
pub(super) fn load_with(
    disk: &dyn Disk,
    access: Access,
    depth: Depth,
    hands: Hands,
) -> Result<Option<Loaded>> {
    if hands != Hands::One {
        let Some(found) = discover(disk, access, Spares::Presumed)? else { return Ok(None) };
        let work = Work::plan(&found.candidates, depth);
        let (loaded, spare) = work.share(hands, |ahead| fold(found, access, depth, ahead));
        if spare? {
            return loaded.map(Some);
        }
        // One is none: what was made of the others counts for nothing.
    }
    let Some(found) = discover(disk, access, Spares::Searched)? else { return Ok(None) };
    fold(found, access, depth, Ahead::default()).map(Some)
}

/// Reads one sealed segment that stands alone.
pub(super) fn load_alone(disk: &dyn Disk, name: &str, depth: Depth) -> Result<Loaded> {
    let candidate = discover::alone(disk, name)?;
    let log_id = match &candidate.role {
        Role::Segment(start) => Some(start.header.log_id),
        _ => None,
    };
    let found = Discovered { log_id, candidates: vec![candidate], unfinished: Vec::new() };
    let mut loaded = fold(found, Access::Read, depth, Ahead::default())?;
    // It has no neighbours that could be missed.
    loaded.survey.damages.retain(|damage| damage.kind != DamageKind::Missing);
    loaded.survey.damages.iter_mut().for_each(|damage| {
        (damage.place.path, damage.place.segment) = (name.into(), None);
    });
    loaded.catalog.segments().iter().for_each(|segment| segment.stands_alone_at(name));
    Ok(loaded)
}

fn fold(mut found: Discovered, access: Access, depth: Depth, ahead: Ahead) -> Result<Loaded> {
    let mut loader = Loader {
        depth,
        ahead,
        catalog: Catalog::new(),
        gathered: Gathered::default(),
        survey: Survey::default(),
        next: 1,
        acked: 0,
        durable: 0,
        last: None,
        unsealed: Vec::new(),
        stranded: Vec::new(),
        superseded: Vec::new(),
        with_id: VecDeque::new(),
    };
    let sparse: Vec<(u32, Covers)> = found.candidates.iter().filter_map(covers_of).collect();
    let last = found.candidates.iter().rposition(|one| matches!(one.role, Role::Segment(_)));
    let behind = found.candidates.split_off(last.map_or(0, |at| at + 1));
    let starts: Vec<Option<Later>> = found.candidates.iter().map(Later::of).collect();
    let mut before = 0;
    for (index, one) in std::mem::take(&mut found.candidates).into_iter().enumerate() {
        if let Some(by) = loader.superseded_by(&one, &sparse) {
            loader.supersede(&one, by);
            continue;
        }
        // The next segment that can follow; one that repeats positions is none.
        let follows = |later: &Later| later.first.is_none_or(|first| first >= loader.next);
        let behind = || starts[index + 1..].iter().flatten().copied();
        let anchored = behind().any(|later| later.anchored);
        let later = behind().find(follows).map(|later| Later { anchored, ..later });
        let number = one.number;
        loader.fold(one, before, later)?;
        before = number;
    }
    let ids = if access == Access::Write { loader.ids()? } else { CommitIds::default() };
    Ok(loader.finish(found, before, behind, ids))
}

/// The number of a sparse segment, and what it speaks for.
fn covers_of(one: &Candidate) -> Option<(u32, Covers)> {
    match &one.role {
        Role::Segment(start) => Some((one.number, start.header.covers?)),
        _ => None,
    }
}

/// What the next segment says of the one before it.
#[derive(Clone, Copy)]
struct Later {
    first: Option<u64>,
    /// It, or one behind it, says at which position it starts.
    anchored: bool,
}

impl Later {
    fn of(candidate: &Candidate) -> Option<Self> {
        match &candidate.role {
            Role::Segment(start) => {
                Some(Self { first: start.first, anchored: start.first.is_some() })
            }
            _ => None,
        }
    }
}

/// A file that is being folded.
struct File {
    number: u32,
    bytes: u64,
}

struct Loader {
    depth: Depth,
    /// What other threads find meanwhile.
    ahead: Ahead,
    catalog: Catalog,
    gathered: Gathered,
    survey: Survey,
    /// The position that the next commit should have.
    next: u64,
    acked: u64,
    durable: u64,
    last: Option<(Arc<Segment>, End)>,
    unsealed: Vec<(Arc<Segment>, u64, u64)>,
    /// Unusable files behind the last segment that was folded.
    stranded: Vec<u32>,
    superseded: Vec<(u32, u32)>,
    /// Where the latest commits are that have an id.
    with_id: VecDeque<(Arc<Segment>, u64)>,
}

impl Loader {
    /// The sparse segment in which everything is that was still wanted of this one: somebody who collected was
    /// cut before the file was removed. Positions decide, and for a file that does not tell them its number.
    fn superseded_by(&self, one: &Candidate, sparse: &[(u32, Covers)]) -> Option<u32> {
        let first = match &one.role {
            Role::Segment(start) => start.first,
            _ => None,
        };
        let from = first.unwrap_or(0).max(self.next);
        let by =
            sparse.iter().find(|(number, covers)| *number > one.number && covers.first <= from);
        by.map(|(number, _)| *number)
    }

    fn supersede(&mut self, one: &Candidate, by: u32) {
        self.report(&File { number: one.number, bytes: one.bytes }, 0..0, SegmentState::Superseded);
        self.superseded.push((one.number, by));
    }

    /// Folds one file; `before` is the number of the one before it, `later` the next segment.
    fn fold(&mut self, one: Candidate, before: u32, later: Option<Later>) -> Result<()> {
        let file = File { number: one.number, bytes: one.bytes };
        let start = match one.role {
            Role::Segment(start) => start,
            // Later segments were written, so this one was too, once.
            Role::Spare(_) => {
                self.unusable(&file, DamageKind::Hole, later);
                return Ok(());
            }
            Role::Unusable(kind) => {
                self.unusable(&file, kind, later);
                return Ok(());
            }
        };
        if one.header_hurt {
            self.damage(DamageKind::HeaderCopy, one.number, 0, 0..0);
        }
        let first = start.first.unwrap_or(self.next);
        if first < self.next {
            self.unusable(&file, DamageKind::Misplaced, later);
            return Ok(());
        }
        // A sparse segment has the last number of those that it is made of: there positions alone decide.
        let follows = one.number == before + 1 || start.header.covers.is_some();
        if (first > self.next || !follows) && !broken(Sabotage::SkipContinuity) {
            let lost = self.next..first;
            let reported = self.survey.damages.iter().any(|damage| {
                damage.positions.end.get() == first && damage.positions.start.get() <= lost.start
            });
            if !reported || lost.is_empty() {
                self.damage(DamageKind::Missing, before + 1, 0, lost);
            }
            self.next = first;
        }
        // What was in front of it, and in it, may have given positions that nothing tells.
        let unplaced =
            start.first.is_none() && (!self.stranded.is_empty() || one.number != before + 1);
        if unplaced {
            self.stranded.push(one.number);
        } else {
            self.stranded.clear();
        }
        match start.sealed {
            Some(segment) => self.fold_sealed(&file, &segment, later),
            None if start.header.covers.is_some() => {
                let segment = Segment::active(start.header, first, start.file);
                self.fold_torn_sparse(&file, &Arc::new(segment))
            }
            None => {
                let segment = Segment::active(start.header, self.next, start.file);
                self.fold_unsealed(&file, Arc::new(segment), later)
            }
        }
    }

    fn fold_sealed(
        &mut self,
        one: &File,
        segment: &Arc<Segment>,
        later: Option<Later>,
    ) -> Result<()> {
        let Some(sealed) = segment.seal_state() else { return Ok(()) };
        let (first, last) = (sealed.first_position, sealed.last_position);
        let (footer_at, footer) = (sealed.footer_at, sealed.footer.clone());
        self.catalog.add_segment(segment);
        self.report(one, first..last + 1, SegmentState::Sealed);
        let known: usize = footer.runs().map(|(_, run)| run.len()).sum();
        if known != footer.len() as usize {
            let error = Error::new(ErrorKind::UnsupportedFeature, "open");
            return Err(error.at(place(one.number, footer_at)));
        }
        let changes = self.changes_in(segment, &footer, footer_at)?;
        for (stream, run) in footer.runs() {
            let batches: Vec<BatchRef> = run.filter_map(|index| footer.get(index)).collect();
            let catalog = (&self.catalog, &mut self.gathered);
            fold::note_run(catalog, one.number, stream, &batches, &changes);
        }
        if self.depth == Depth::Full {
            self.check_sealed(segment, last, footer_at)?;
        }
        self.next = last + 1;
        self.durable = self.durable.max(last);
        self.acked = self.acked.max(last);
        if later.is_none() {
            // A segment is sealed only once the next one holds something durable.
            self.damage(DamageKind::Missing, one.number + 1, 0, self.next..self.next);
        }
        self.raise(LogPlace::new(one.number, footer_at));
        Ok(())
    }

    /// What the commits of a sealed segment say of streams beside their events; each is read once, and no other.
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
        for offset in with_id.iter().rev().take(COMMIT_IDS_MAX).rev() {
            self.with_id.push_back((Arc::clone(segment), *offset));
        }
        while self.with_id.len() > COMMIT_IDS_MAX {
            self.with_id.pop_front();
        }
        let mut changes = Changes::new();
        let mut scanner = Scanner::new(Arc::clone(segment), limit);
        for offset in offsets {
            // The damage itself is found by whoever reads the commit, or surveys all of it.
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

    /// The ids of the latest commits that have one.
    fn ids(&self) -> Result<CommitIds> {
        let mut ids = CommitIds::default();
        for (segment, offset) in &self.with_id {
            let end = segment.seal_state().map_or(u64::MAX, |sealed| sealed.footer_at);
            let limit =
                end.min(segment.file.len().map_err(|error| segment.io_error("open", 0, error))?);
            if let Step::Commit(found) = Scanner::new(Arc::clone(segment), limit).step(*offset)?
                && let Some(id) = found.id
            {
                ids.note(id, found.head.position);
            }
        }
        Ok(ids)
    }

    fn check_sealed(&mut self, segment: &Arc<Segment>, last: u64, footer_at: u64) -> Result<()> {
        match self.ahead.check(segment)? {
            Verdict::Listed(losses) => {
                for loss in losses {
                    self.damage(loss.kind, segment.number(), loss.offset, loss.positions);
                    if let Some(damage) = self.survey.damages.last_mut() {
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
        let expect = Expectation { first: segment.first_position, durable: last, limit: footer_at };
        let end = self.replay(segment, expect, |_, _, _| {})?;
        // What is not in a sparse segment was collected, as far as its commits reach to the footer.
        let reached = segment.is_sparse() && end.offset == footer_at;
        if end.next <= last && !reached {
            let wound = Wound { offset: end.offset, positions: end.next..last + 1 };
            self.wound(segment.number(), wound, &[]);
        }
        Ok(())
    }

    /// A sparse segment is never without its footer: that is damage, and it is replayed.
    fn fold_torn_sparse(&mut self, one: &File, segment: &Arc<Segment>) -> Result<()> {
        let Some(Covers { first, last }) = segment.header.covers else { return Ok(()) };
        self.catalog.add_segment(segment);
        let expect = Expectation { first, durable: last, limit: one.bytes };
        let end = self.replay(segment, expect, |catalog, gathered, found| {
            fold::note_commit(catalog, gathered, segment, found);
        })?;
        self.damage(DamageKind::Footer, one.number, end.offset, 0..0);
        let step = Scanner::new(Arc::clone(segment), one.bytes).step(end.offset)?;
        if end.next <= last && !matches!(step, Step::Footer) {
            let wound = Wound { offset: end.offset, positions: end.next..last + 1 };
            self.wound(one.number, wound, &[]);
        }
        self.report(one, first..last + 1, SegmentState::Unsealed);
        self.next = last + 1;
        self.durable = self.durable.max(last);
        self.acked = self.acked.max(last);
        self.raise(LogPlace::new(one.number, end.offset));
        Ok(())
    }

    /// Walks a segment; `note` sees every commit that counts, and damage is reported.
    fn replay(
        &mut self,
        segment: &Arc<Segment>,
        expect: Expectation,
        mut note: impl FnMut(&Catalog, &mut Gathered, &Found),
    ) -> Result<End> {
        let (mut hurt, mut bad, mut unknown) = (Vec::new(), Vec::new(), None);
        let (catalog, gathered) = (&self.catalog, &mut self.gathered);
        let end = self.ahead.walk(segment, expect, |item| {
            hurt.extend(item.wound());
            let Item::Commit(found) = item else { return Ok(()) };
            if found.unknown && found.is_sound() {
                unknown = Some(found.offset);
            }
            if !found.is_sound() {
                bad.push((found.head.position, lost_events(&found)));
            }
            note(catalog, gathered, &found);
            Ok(())
        })?;
        if let Some(offset) = unknown {
            let error = Error::new(ErrorKind::UnsupportedFeature, "open");
            return Err(error.at(place(segment.number(), offset)));
        }
        for wound in hurt {
            self.wound(segment.number(), wound, &bad);
        }
        Ok(end)
    }

    fn fold_unsealed(
        &mut self,
        one: &File,
        segment: Arc<Segment>,
        later: Option<Later>,
    ) -> Result<()> {
        let first = segment.first_position;
        self.catalog.add_segment(&segment);
        // A segment gets its first byte only after the one before it is durable: in that one nothing is torn.
        let proved = if later.is_some() { POSITION_MAX } else { self.durable };
        let expect = Expectation { first, durable: proved, limit: one.bytes };
        let known = self.survey.damages.len();
        let mut with_id = Vec::new();
        let end = self.replay(&segment, expect, |catalog, gathered, found| {
            fold::note_commit(catalog, gathered, &segment, found);
            with_id.extend(found.id.map(|_| (Arc::clone(&segment), found.offset)));
        })?;
        self.with_id.extend(with_id);
        let whole = self.survey.damages.len() == known;
        let limit = end.offset + witness::BYTES as u64;
        let closed = end.witnessed == Some(Ending::Clean) && limit <= one.bytes;
        let is_short = one.bytes < segment.header.reserved_bytes;
        if end.next > first || end.witnessed.is_some() {
            self.stranded.clear();
        }
        match later {
            Some(Later { first: Some(next), .. }) if end.next < next => {
                let lost = Wound { offset: end.offset, positions: end.next..next };
                self.wound(one.number, lost, &[]);
                self.next = next;
            }
            // Nobody behind it says how far it went.
            None | Some(Later { first: None, anchored: false }) if is_short && !closed => {
                self.damage(DamageKind::Cut, one.number, one.bytes, end.next..end.next);
                self.next = end.next;
            }
            None => self.next = end.next,
            Some(_) => {
                // A footer would hide what is damaged in front of it.
                if whole {
                    self.unsealed.push((Arc::clone(&segment), end.offset, end.next - 1));
                }
                self.next = end.next;
            }
        }
        let state = if later.is_some() { SegmentState::Unsealed } else { SegmentState::Active };
        self.report(one, first..end.next, state);
        self.durable = self.durable.max(end.durable).min(self.next - 1);
        self.acked = self.acked.max(end.acked).max(self.durable).min(self.next - 1);
        self.raise(LogPlace::new(one.number, end.offset));
        if later.is_none() {
            self.survey.closed_cleanly = closed && end.torn_to.is_none();
            self.survey.torn_tail = end.torn_to.map(|to| TornTail {
                place: place(one.number, end.torn_from()),
                bytes: to - end.torn_from(),
                commits: end.torn_commits,
            });
            self.last = Some((segment, end));
        }
        Ok(())
    }

    fn unusable(&mut self, one: &File, kind: DamageKind, later: Option<Later>) {
        self.stranded.push(one.number);
        let end = later.and_then(|later| later.first).unwrap_or(self.next).max(self.next);
        self.damage(kind, one.number, 0, self.next..end);
        self.report(one, 0..0, SegmentState::Unusable);
    }

    fn wound(&mut self, number: u32, wound: Wound, bad: &[(u64, LostEvents)]) {
        let of_commit = bad.iter().find(|(position, _)| {
            *position == wound.positions.start && wound.positions.end == position + 1
        });
        let kind = if of_commit.is_some() { DamageKind::Commit } else { DamageKind::Hole };
        self.damage(kind, number, wound.offset, wound.positions);
        if let (Some((_, events)), Some(damage)) = (of_commit, self.survey.damages.last_mut()) {
            damage.events.clone_from(events);
        }
    }

    fn damage(&mut self, kind: DamageKind, number: u32, offset: u64, positions: Range<u64>) {
        self.survey.damages.push(Damage {
            kind,
            place: place(number, offset),
            positions: Position(positions.start)..Position(positions.end),
            events: Vec::new(),
        });
    }

    fn report(&mut self, one: &File, positions: Range<u64>, state: SegmentState) {
        self.survey.segments.push(SegmentReport {
            number: one.number,
            bytes: one.bytes,
            positions: Position(positions.start)..Position(positions.end),
            state,
        });
    }

    fn raise(&mut self, end: LogPlace) {
        let visible = self.next - 1;
        self.catalog.raise(Watermark { visible, durable: self.durable, end });
    }

    /// Sorts out what lies behind the last segment: spares, or something that is in the way.
    fn finish(
        mut self,
        found: Discovered,
        last: u32,
        behind: Vec<Candidate>,
        ids: CommitIds,
    ) -> Loaded {
        let (mut spares, mut worn) = (Vec::new(), Vec::new());
        for one in behind {
            let file = File { number: one.number, bytes: one.bytes };
            match one.role {
                // A writer makes one segment ready, and the one before that may have lost what was not
                // synced. Where there are more, they were used.
                Role::Spare(_) if one.number - last > 2 => {
                    self.unusable(&file, DamageKind::Hole, None);
                }
                Role::Spare(spare) if !one.header_hurt => {
                    self.report(&file, 0..0, SegmentState::Spare);
                    spares.push(spare);
                }
                Role::Spare(_) => {
                    self.report(&file, 0..0, SegmentState::Spare);
                    worn.push(one.number);
                }
                Role::Unusable(kind) => self.unusable(&file, kind, None),
                Role::Segment(_) => {}
            }
        }
        self.survey.position = Position(self.next - 1);
        self.survey.durable = Position(self.durable);
        self.survey.acknowledged = Position(self.acked.max(self.durable));
        self.catalog.adopt(self.gathered);
        self.survey.streams = self.catalog.streams_len();
        Loaded {
            log_id: found.log_id,
            catalog: self.catalog,
            survey: self.survey,
            last: self.last,
            unsealed: self.unsealed,
            spares,
            worn,
            superseded: self.superseded,
            unfinished: found.unfinished,
            in_the_way: self.stranded,
            ids,
        }
    }
}
