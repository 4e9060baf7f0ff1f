//! End, torn tail or damage: what the records of an unsealed segment mean.
//!
//! The rule is one comparison. Every header carries the watermark as it stood when it was written, so the
//! highest one seen says what had been synced before the crash. Something bad at or below it is damage:
//! it is named, and what follows stays. Something bad above it was never acknowledged as durable: there the
//! log ends, and the rest is a torn tail.

use std::collections::VecDeque;
use std::sync::Arc;

use super::scan::{Found, Scanner, Step, Wanted};
use crate::error::Result;
use crate::format::{ALIGN, COMMITS_AT, Covers, Ending, record_at, witness};
use crate::sabotage::{Sabotage, broken};
use crate::segment::Segment;

/// What is known before the walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Expectation {
    /// The position of the first commit.
    pub(crate) first: u64,
    /// Everything up to here was synced, as other segments prove.
    pub(crate) durable: u64,
    /// Where the file, or what is to be looked at of it, ends.
    pub(crate) limit: u64,
}

/// Something that is not as it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wound {
    pub(crate) offset: u64,
    /// The commits that are lost or hurt.
    pub(crate) positions: std::ops::Range<u64>,
}

/// How a segment ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct End {
    /// Where the next commit would go.
    pub(crate) offset: u64,
    /// The position that it would get.
    pub(crate) next: u64,
    /// The highest watermark seen: synced, and acknowledged.
    pub(crate) durable: u64,
    pub(crate) acked: u64,
    /// The commits above `durable`: position, and where they start.
    pub(crate) unproven: Vec<(u64, u64)>,
    /// A witness stands exactly at the end, and says this of it.
    pub(crate) witnessed: Option<Ending>,
    /// The durable watermark of that witness.
    pub(crate) witness_durable: u64,
    /// Something that was cut off: from `offset` up to here the file is not zero.
    pub(crate) torn_to: Option<u64>,
    /// Whole commits among what was cut off.
    pub(crate) torn_commits: u64,
    /// Behind every position that any record here names, also what was cut off.
    pub(crate) seen: u64,
}

/// What a walk finds, in order.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// A commit that counts. It may be unsound: then it is damage.
    Commit(Found),
    /// A place where commits are lost.
    Hole(Wound),
}

impl Item {
    /// What is damaged of it.
    pub(crate) fn wound(&self) -> Option<Wound> {
        match self {
            Self::Commit(found) if found.is_sound() => None,
            Self::Commit(found) => {
                let position = found.head.position;
                Some(Wound { offset: found.offset, positions: position..position + 1 })
            }
            Self::Hole(wound) => Some(wound.clone()),
        }
    }

    fn position(&self) -> u64 {
        match self {
            Self::Commit(found) => found.head.position,
            Self::Hole(wound) => wound.positions.start,
        }
    }
}

/// Walks a segment from its first commit to its end, and calls `told` for everything that counts, in order. It reads
/// that segment and nothing else, so that it may be done on any thread ([`super::ahead`]).
///
/// # Errors
///
/// When the file cannot be read, or `told` fails.
pub(crate) fn walk(
    segment: &Arc<Segment>,
    expect: Expectation,
    mut told: impl FnMut(Item) -> Result<()>,
) -> Result<End> {
    let mut walk = Walk::new(segment, expect);
    while walk.advance()? {
        while let Some(item) = walk.take_proven() {
            told(item)?;
        }
    }
    walk.finish(told)
}

/// A walk under way.
struct Walk {
    scanner: Scanner,
    covers: Option<Covers>,
    /// What was found and is not known to have been synced yet, in order.
    held: VecDeque<Item>,
    end: End,
    /// Where the next record is looked for, and the position that a commit there would have.
    offset: u64,
    next: u64,
    /// A commit was found: from there on it is known where the next one starts.
    found_any: bool,
    /// Where the record behind a commit would start that is not sound.
    doubtful: Option<u64>,
}

impl Walk {
    fn new(segment: &Arc<Segment>, expect: Expectation) -> Self {
        let end = End {
            offset: COMMITS_AT,
            next: expect.first,
            durable: expect.durable,
            acked: 0,
            unproven: Vec::new(),
            witnessed: None,
            witness_durable: 0,
            torn_to: None,
            torn_commits: 0,
            seen: expect.first,
        };
        Self {
            scanner: Scanner::new(Arc::clone(segment), expect.limit),
            covers: segment.header.covers,
            held: VecDeque::new(),
            end,
            offset: COMMITS_AT,
            next: expect.first,
            found_any: false,
            doubtful: None,
        }
    }

    /// The oldest of what is held, once it is known to have been synced.
    fn take_proven(&mut self) -> Option<Item> {
        let proven =
            self.held.front()?.position() <= self.end.durable && !broken(Sabotage::TruncateDamage);
        if proven { self.held.pop_front() } else { None }
    }

    /// Whether a commit of this position may stand next. In a sparse segment others may have been collected before it.
    fn may_follow(&self, position: u64) -> bool {
        match self.covers {
            None => position == self.next,
            Some(covers) => (self.next..=covers.last).contains(&position),
        }
    }

    /// Goes over one record. False at the end.
    fn advance(&mut self) -> Result<bool> {
        let step = match self.scanner.step(self.offset)? {
            Step::Commit(found) if self.may_follow(found.head.position) => Step::Commit(found),
            other => match self.resume(&other)? {
                Some(step) => step,
                None => return Ok(false),
            },
        };
        let Step::Commit(found) = step else {
            // A witness behind a hole: the next look comes back to it and takes it as the end.
            return Ok(true);
        };
        self.end.durable = self.end.durable.max(found.head.durable);
        self.end.acked = self.end.acked.max(found.head.acked);
        self.offset = record_at(found.end());
        if !found.is_sound() {
            // A head without its body may stand where it does not belong: its length is not followed over what
            // stands behind it.
            self.doubtful = Some(self.offset);
            self.offset = found.offset + ALIGN;
        }
        let Some(after) = found.head.position.checked_add(1) else { return Ok(false) };
        self.next = after;
        self.found_any = true;
        self.held.push_back(Item::Commit(found));
        Ok(true)
    }

    /// `other` is not what should stand here. Is it the end, or is there more behind it?
    fn resume(&mut self, other: &Step) -> Result<Option<Step>> {
        let (offset, next) = (self.offset, self.next);
        let witness = if let Step::Witness(witness) = &other { Some(*witness) } else { None };
        let from = offset + if witness.is_some() { witness::BYTES as u64 } else { 0 };
        let started = (self.found_any && self.covers.is_none()).then_some(offset);
        let resumed = self.scanner.find(from, Wanted { position: next, started })?;
        self.end.note_witness(witness, offset, next);
        let doubtful = self.doubtful.take();
        let Some((at, step)) = resumed else {
            self.offset = doubtful.unwrap_or(offset);
            if let Some(witness) = witness.filter(|witness| witness.position > next) {
                let positions = next..witness.position;
                self.held.push_back(Item::Hole(Wound { offset, positions }));
                self.next = witness.position;
            }
            return Ok(None);
        };
        let found_position = match &step {
            Step::Commit(found) => found.head.position,
            Step::Witness(witness) => witness.position,
            _ => next,
        };
        if found_position != next || (at != offset && doubtful.is_none()) {
            self.held.push_back(Item::Hole(Wound { offset, positions: next..found_position }));
        }
        (self.offset, self.next) = (at, found_position);
        Ok(Some(step))
    }

    /// What is left is above the watermark: it counts up to the first bad record, and is cut there.
    fn finish(self, mut told: impl FnMut(Item) -> Result<()>) -> Result<End> {
        let Self { scanner, held, mut end, offset, next, .. } = self;
        (end.offset, end.next, end.seen) = (offset, next, next);
        let mut cut = false;
        for item in held {
            if item.position() <= end.durable && !broken(Sabotage::TruncateDamage) {
                told(item)?;
                continue;
            }
            let (at, sound) = match &item {
                Item::Commit(found) => (found.offset, found.is_sound()),
                Item::Hole(wound) => (wound.offset, false),
            };
            let position = item.position();
            if cut {
                end.torn_commits += u64::from(sound);
            } else if sound {
                end.unproven.push((position, at));
                told(item)?;
            } else {
                cut = true;
                end.offset = at;
                end.next = position;
                end.witnessed = None;
            }
        }
        end.torn_to = scanner.last_written(end.torn_from())?;
        Ok(end)
    }
}

impl End {
    /// Where a torn tail would start: behind the witness, if there is one.
    pub(crate) fn torn_from(&self) -> u64 {
        self.offset + if self.witnessed.is_some() { witness::BYTES as u64 } else { 0 }
    }

    /// Where the commits end that were acknowledged up to `position`.
    pub(crate) fn offset_behind(&self, position: u64) -> u64 {
        let later = self.unproven.iter().find(|(one, _)| *one > position);
        later.map_or(self.offset, |(_, at)| *at)
    }

    fn note_witness(&mut self, witness: Option<crate::format::Witness>, offset: u64, next: u64) {
        self.witnessed = None;
        let Some(witness) = witness else { return };
        self.durable = self.durable.max(witness.durable);
        self.acked = self.acked.max(witness.position - 1);
        if witness.position >= next {
            self.offset = offset;
            self.witnessed = Some(witness.ending);
            self.witness_durable = witness.durable;
        }
    }
}
