//! Replay of an unsealed segment: separates commits, damage and the torn tail.
//!
//! The rule is one comparison. Every commit header carries the watermark at its time of writing, so
//! the highest watermark seen bounds the commits that were synced before the crash. A bad record at
//! or below it is damage: it is reported, and the commits after it stay. A bad record above it was
//! never acknowledged as durable: the log ends before it, and the rest is a torn tail. A log that
//! needs a repair before it is written has no torn tail: the repair begins a new segment after the
//! file, so bad records are damage there, and whole ones stay.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::Result;
use crate::format::{
    ALIGN, COMMITS_AT, Covers, Ending, decode_tail_record, record_at, tail_record,
};
use crate::sabotage::{Sabotage, broken};
use crate::segment::scan::{Found, Scanner, SearchTarget, Step};
use crate::segment::{FilePool, Segment};
use crate::types::{Timestamp, range_len, through};

/// Facts about a segment that are known before the walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Expectation {
    /// Position of the first commit.
    pub(crate) first: u64,
    /// Position up to which other segments prove that commits were synced.
    pub(crate) durable: u64,
    /// Offset of the end of the part that is walked.
    pub(crate) limit: u64,
    /// Treatment of records above the watermark.
    pub(crate) tail: TailRule,
}

/// Treatments of records above the watermark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TailRule {
    /// The log ends before the first bad record, and an opening for writing cuts off the rest. If
    /// the disk cannot read some of the rest, treats it like `Keep`.
    Cut,
    /// All whole records count: a repair begins a new segment after them.
    Keep,
}

/// Damaged commits and their offset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DamagedRange {
    pub(crate) offset: u64,
    /// Positions of the lost or damaged commits.
    pub(crate) positions: std::ops::Range<u64>,
}

/// End of a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct End {
    /// Offset of the next commit.
    pub(crate) offset: u64,
    /// Position of the next commit.
    pub(crate) next: u64,
    /// Highest position that a record states as synced.
    pub(crate) durable: u64,
    /// Highest position that a record states as acknowledged.
    pub(crate) acked: u64,
    /// Commits above `durable`: position and offset.
    pub(crate) unproven: Vec<(u64, u64)>,
    /// Ending that a tail record exactly at the end states.
    pub(crate) witnessed: Option<Ending>,
    /// Durable watermark of that tail record.
    pub(crate) tail_record_durable: u64,
    /// Latest time that the tail record vouches for.
    pub(crate) tail_record_vouched: Timestamp,
    /// End of the torn tail, if there is any: the last byte before it is not zero.
    pub(crate) torn_to: Option<u64>,
    /// Number of whole commits in the torn tail.
    pub(crate) torn_commits: u64,
    /// Position after all those that records state, including records in the torn tail.
    pub(crate) seen: u64,
    /// True if more commits are lost than had room before the end. A later walk would take a commit
    /// written there for a stray piece of another part of the file, so nothing may be written.
    pub(crate) is_blocked: bool,
}

/// Finding of a walk.
#[derive(Clone, Debug)]
pub(crate) enum ReplayItem {
    /// Commit that counts; damage if it is unsound.
    Commit(Found),
    /// Lost commits.
    Hole(DamagedRange),
}

impl ReplayItem {
    /// Returns the damage, if any.
    pub(crate) fn damaged_range(&self) -> Option<DamagedRange> {
        match self {
            Self::Commit(found) if found.is_sound() => None,
            Self::Commit(found) => {
                let position = found.head.position;
                Some(DamagedRange { offset: found.offset, positions: through(position, position) })
            }
            Self::Hole(range) => Some(range.clone()),
        }
    }

    fn acknowledged(mut self) -> Self {
        if let Self::Commit(found) = &mut self {
            found.is_acknowledged = true;
        }
        self
    }

    fn position(&self) -> u64 {
        match self {
            Self::Commit(found) => found.head.position,
            Self::Hole(range) => range.positions.start,
        }
    }
}

/// Returns true if the file is shorter than it was created, and does not end like a clean close.
pub(crate) fn is_cut_off(files: &FilePool, segment: &Segment, bytes: u64) -> Result<bool> {
    if bytes >= segment.header.reserved_bytes {
        return Ok(false);
    }
    let Some(at) = bytes.checked_sub(tail_record::BYTES as u64).filter(|at| *at >= COMMITS_AT)
    else {
        return Ok(true);
    };
    let last = segment.read(files, at..bytes, 0, bytes)?;
    let tail_record =
        decode_tail_record(last.get(at..bytes).unwrap_or_default(), segment.header.salt);
    Ok(tail_record.is_none_or(|tail_record| tail_record.ending != Ending::Clean))
}

/// Walks a segment from its first commit to its end, and calls `take` for everything that counts,
/// in order. Reads only this segment, so any thread may do it.
///
/// # Errors
///
/// When the file cannot be read, or `take` fails.
pub(crate) fn walk(
    segment: &Arc<Segment>,
    files: &Arc<FilePool>,
    expect: Expectation,
    mut take: impl FnMut(ReplayItem) -> Result<()>,
) -> Result<End> {
    let mut walk = Walk::new(segment, files, expect);
    while walk.advance()? {
        while let Some(item) = walk.take_proven() {
            take(item.acknowledged())?;
        }
    }
    walk.finish(take)
}

/// State of a walk.
struct Walk {
    scanner: Scanner,
    covers: Option<Covers>,
    tail: TailRule,
    /// Findings that are not known to be synced yet, in order.
    unproven: VecDeque<ReplayItem>,
    end: End,
    /// Offset of the next record.
    offset: u64,
    /// Position of a commit at that offset.
    next: u64,
    /// True once a commit was found; the offset of the next one is known from then on.
    found_any: bool,
    /// Offset of the record after an unsound commit.
    doubtful: Option<u64>,
}

impl Walk {
    fn new(segment: &Arc<Segment>, files: &Arc<FilePool>, expect: Expectation) -> Self {
        let end = End {
            offset: COMMITS_AT,
            next: expect.first,
            durable: expect.durable,
            acked: 0,
            unproven: Vec::new(),
            witnessed: None,
            tail_record_durable: 0,
            tail_record_vouched: Timestamp::default(),
            torn_to: None,
            torn_commits: 0,
            seen: expect.first,
            is_blocked: false,
        };
        Self {
            scanner: Scanner::new(Arc::clone(segment), expect.limit, Arc::clone(files)),
            covers: segment.header.covers,
            tail: expect.tail,
            unproven: VecDeque::new(),
            end,
            offset: COMMITS_AT,
            next: expect.first,
            found_any: false,
            doubtful: None,
        }
    }

    /// Removes and returns the oldest unproven finding once it is known to be synced.
    fn take_proven(&mut self) -> Option<ReplayItem> {
        let proven = self.unproven.front()?.position() <= self.end.durable
            && !broken(Sabotage::TruncateDamage);
        if proven { self.unproven.pop_front() } else { None }
    }

    /// Returns true if a commit of this position may stand next. In a sparse segment, compaction
    /// may have removed the commits before it.
    fn may_follow(&self, position: u64) -> bool {
        match self.covers {
            None => position == self.next,
            Some(covers) => (self.next..=covers.last).contains(&position),
        }
    }

    /// Advances over the next record. Returns false at the end.
    fn advance(&mut self) -> Result<bool> {
        let step = match self.scanner.step(self.offset)? {
            Step::Commit(found) if self.may_follow(found.head.position) => Step::Commit(found),
            other => match self.resume(&other)? {
                Some(step) => step,
                None => return Ok(false),
            },
        };
        let Step::Commit(found) = step else {
            // A tail record after a hole: the next call finds it again and takes it for the end.
            return Ok(true);
        };
        self.end.durable = self.end.durable.max(found.head.durable);
        self.end.acked = self.end.acked.max(found.head.acked);
        self.offset = record_at(found.end());
        if !found.is_sound() {
            // A header without its body may be misplaced, so its length is not followed.
            self.doubtful = Some(self.offset);
            self.offset = found.offset.saturating_add(ALIGN);
        }
        let Some(after) = found.head.position.checked_add(1) else { return Ok(false) };
        self.next = after;
        self.found_any = true;
        self.unproven.push_back(ReplayItem::Commit(found));
        Ok(true)
    }

    /// Searches for the next record after `other`, an unexpected one. Returns `None` if the segment
    /// ends.
    fn resume(&mut self, other: &Step) -> Result<Option<Step>> {
        let (offset, next) = (self.offset, self.next);
        let tail_record =
            if let Step::TailRecord(tail_record) = &other { Some(*tail_record) } else { None };
        let from = if tail_record.is_some() { behind_tail_record(offset) } else { offset };
        let started = (self.found_any && self.covers.is_none()).then_some(offset);
        let target = SearchTarget { position: next, started };
        let resumed = self.scanner.find(from, target)?;
        self.end.note_tail_record(tail_record, offset, next);
        let doubtful = self.doubtful.take();
        let Some((at, step)) = resumed else {
            if let Some(doubtful) = doubtful {
                // A tail record inside an unsound commit is not the end of the log.
                self.offset = doubtful;
                self.end.witnessed = None;
            }
            if let Some(tail_record) = tail_record.filter(|tail_record| tail_record.position > next)
            {
                let positions = next..tail_record.position;
                self.unproven.push_back(ReplayItem::Hole(DamagedRange { offset, positions }));
                self.next = tail_record.position;
                self.end.is_blocked = !target.can_stand(tail_record.position, offset);
            }
            return Ok(None);
        };
        let found_position = match &step {
            Step::Commit(found) => found.head.position,
            Step::TailRecord(tail_record) => tail_record.position,
            _ => next,
        };
        if found_position != next || (at != offset && doubtful.is_none()) {
            self.unproven.push_back(ReplayItem::Hole(DamagedRange {
                offset,
                positions: next..found_position,
            }));
        }
        (self.offset, self.next) = (at, found_position);
        Ok(Some(step))
    }

    /// Ends the walk. Findings above the watermark count up to the first bad record.
    fn finish(self, mut take: impl FnMut(ReplayItem) -> Result<()>) -> Result<End> {
        let Self { scanner, unproven, mut end, offset, next, tail, .. } = self;
        (end.offset, end.next, end.seen) = (offset, next, next);
        let mut cut = false;
        for item in unproven {
            if item.position() <= end.durable && !broken(Sabotage::TruncateDamage) {
                take(item.acknowledged())?;
                continue;
            }
            let (at, sound) = match &item {
                ReplayItem::Commit(found) => (found.offset, found.is_sound()),
                ReplayItem::Hole(range) => (range.offset, false),
            };
            let position = item.position();
            if cut {
                end.torn_commits = end.torn_commits.saturating_add(u64::from(sound));
            } else if sound || tail == TailRule::Keep || scanner.is_unread_behind(at) {
                end.unproven.push((position, at));
                take(if position <= end.acked { item.acknowledged() } else { item })?;
            } else {
                cut = true;
                end.offset = at;
                end.next = position;
                end.witnessed = None;
                end.is_blocked = false;
            }
        }
        end.torn_to = scanner.last_written(end.torn_from())?;
        Ok(end)
    }
}

/// Returns the end of a tail record at `offset`. Saturates, beyond any file.
fn behind_tail_record(offset: u64) -> u64 {
    offset.saturating_add(tail_record::BYTES as u64)
}

impl End {
    /// Returns the start of a torn tail: after the tail record, if one exists.
    pub(crate) fn torn_from(&self) -> u64 {
        if self.witnessed.is_some() { self.behind_tail_record() } else { self.offset }
    }

    /// Returns the number of bytes of the torn tail.
    pub(crate) fn torn_bytes(&self) -> u64 {
        self.torn_to.map_or(0, |to| range_len(&(self.torn_from()..to)))
    }

    /// Returns the end of a tail record after the last commit.
    pub(crate) fn behind_tail_record(&self) -> u64 {
        behind_tail_record(self.offset)
    }

    /// Returns true if a file of this length ends like a clean close.
    pub(crate) fn is_closed_within(&self, bytes: u64) -> bool {
        self.witnessed == Some(Ending::Clean) && self.behind_tail_record() <= bytes
    }

    /// Returns the position of the last commit; 0 if none exists.
    pub(crate) fn last_position(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    /// Returns the end of the commits up to `position`.
    pub(crate) fn offset_behind(&self, position: u64) -> u64 {
        let later = self.unproven.iter().find(|(unproven, _)| *unproven > position);
        later.map_or(self.offset, |(_, at)| *at)
    }

    fn note_tail_record(
        &mut self,
        tail_record: Option<crate::format::TailRecord>,
        offset: u64,
        next: u64,
    ) {
        self.witnessed = None;
        let Some(tail_record) = tail_record else { return };
        self.durable = self.durable.max(tail_record.durable);
        self.acked = self.acked.max(tail_record.position.saturating_sub(1));
        if tail_record.position >= next {
            self.offset = offset;
            self.witnessed = Some(tail_record.ending);
            self.tail_record_durable = tail_record.durable;
            self.tail_record_vouched = tail_record.vouched;
        }
    }
}
