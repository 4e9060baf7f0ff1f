//! A handle, and all that it should show: a copy that shares nothing with any other.

use amberlog::{Savepoint, Stream, StreamId, StreamOptions};

use super::oracle::{Change, Life, Slot};
use super::script::RingKind;

/// Bound of a small ring, in bytes.
const RING_BYTES: usize = 300;
/// Cap of a ring that grows, in bytes.
const RING_BYTES_CAP: usize = 500;
/// Bytes that an event takes in a ring beside its payload.
const FRAME_BYTES: usize = 16;

/// A handle and its model.
pub struct Hand {
    pub stream: Stream,
    pub id: StreamId,
    /// Tells this handle from all others of the life.
    pub number: u64,
    pub ring: RingKind,
    /// Durable events that it has seen: those of its last commit, or of when it was made.
    pub view: Vec<Slot>,
    /// Generation of the next commit, before a rewind that goes with it.
    pub generation: u32,
    /// Events shared with its parent, while it is a fork without a commit.
    pub base: Option<(Vec<Slot>, u32, u64)>,
    /// Head that a rewind of durable events saw, and where it goes, until a commit takes it.
    pub rewound: Option<(u64, u64)>,
    /// Start that a trim gives the stream, until a commit takes it.
    pub trimmed: Option<u64>,
    /// The handle has followed another one into a new generation since.
    pub regrown: bool,
    /// Shares of commits that are not settled, or that failed and have not come back yet; oldest first.
    pub flying: Vec<Change>,
    /// Events of the ring; those that were dropped stand in front.
    pub buffered: Vec<Slot>,
    /// Number of events that were appended and not taken back.
    pub mark: u64,
    /// Savepoints, each with the mark at which it was taken.
    pub saved: Vec<(Savepoint, u64)>,
}

impl Hand {
    pub fn new(stream: Stream, number: u64, ring: RingKind) -> Self {
        let id = stream.id();
        Self {
            stream,
            id,
            number,
            ring,
            view: Vec::new(),
            generation: 0,
            base: None,
            rewound: None,
            trimmed: None,
            regrown: false,
            flying: Vec::new(),
            buffered: Vec::new(),
            mark: 0,
            saved: Vec::new(),
        }
    }

    /// End of the durable events that it shows.
    pub fn durable_end(&self) -> u64 {
        let asked = self.flying.iter().filter_map(|change| change.rewind);
        let rewinds = asked.chain(self.rewound.map(|(_, to)| to));
        rewinds.fold(self.view.len() as u64, u64::min)
    }

    /// Everything that it shows, but for what is buffered, and before a rewind that waits for the next commit.
    fn taken(&self) -> Vec<Slot> {
        let mut all = self.view.clone();
        for change in &self.flying {
            all.truncate(change.rewind.map_or(usize::MAX, |to| to as usize));
            all.extend(change.slots.iter().cloned());
        }
        all
    }

    /// Everything that it shows.
    pub fn shown(&self) -> Vec<Slot> {
        let mut all = self.taken();
        all.truncate(self.rewound.map_or(usize::MAX, |(_, to)| to as usize));
        all.extend(self.buffered.iter().cloned());
        all
    }

    /// Everything from the durable end on.
    pub fn volatile(&self) -> Vec<Slot> {
        self.shown().split_off(self.durable_end() as usize)
    }

    pub fn head(&self) -> u64 {
        self.shown().len() as u64
    }

    /// Whether the next commit goes back to events that are in flight now: it relies on where they end up.
    pub fn relies_on_flying(&self) -> bool {
        let oldest = self.flying.first();
        self.rewound.zip(oldest).is_some_and(|((_, to), oldest)| to >= oldest.at)
    }

    /// The first seq that no commit has taken.
    pub fn ring_start(&self) -> u64 {
        self.head() - self.buffered.len() as u64
    }

    /// The start without a trim that no commit has taken.
    pub fn taken_start(&self, durable: u64) -> u64 {
        let base = self.flying.iter().filter_map(|change| change.base.as_ref());
        let asked = self.flying.iter().filter_map(|change| change.start);
        asked.chain(base.map(|(_, _, start)| *start)).fold(durable, u64::max)
    }

    pub fn trim(&mut self, to: u64, durable: u64) {
        let before = self.trimmed.filter(|_| !self.regrown);
        let taken = self.taken_start(durable);
        self.trimmed = before.max(Some(to)).filter(|start| *start > taken);
        self.regrown = false;
    }

    /// Nothing from `end` on can be trimmed. Returns what was asked for if that was more.
    pub fn cap_start(&mut self, end: u64, durable: u64) -> Option<u64> {
        let asked = self.trimmed.filter(|start| *start > end)?;
        self.trimmed = Some(end).filter(|start| *start > self.taken_start(durable));
        Some(asked)
    }

    /// Goes back to `to`, which is in front of what is buffered.
    pub fn rewind(&mut self, to: u64) {
        let seen = self.rewound.map_or(self.taken().len() as u64, |(seen, _)| seen);
        self.mark = self.mark.wrapping_sub(self.head() - to);
        self.buffered.clear();
        self.rewound = Some((seen, to));
        if self.flying.is_empty() {
            self.share_less();
        }
    }

    /// A fork that was never committed has nothing to rewind: it shares less.
    fn share_less(&mut self) {
        if let Some((slots, generation, _)) = &mut self.base
            && let Some((_, to)) = self.rewound.take()
        {
            slots.truncate(to as usize);
            self.view.truncate(to as usize);
            *generation = self.stream.info().generation;
            self.generation = *generation;
        }
    }

    /// The oldest commit in flight landed; a leader moved it from `from` on by so much. What goes back in front of that
    /// does not move, nor anything behind it.
    pub fn landed(&mut self, from: u64, mut by: u64) {
        for change in &mut self.flying {
            change.at = change.at.wrapping_add(by);
            if change.rewind.is_some_and(|to| to < from) {
                by = 0;
            }
            change.rewind = change.rewind.map(|to| to.wrapping_add(by));
            move_start(&mut change.start, from, by);
        }
        if let Some((seen, to)) = &mut self.rewound {
            *seen = seen.wrapping_add(by);
            by = if *to < from { 0 } else { by };
            *to = to.wrapping_add(by);
        }
        move_start(&mut self.trimmed, from, by);
    }

    /// Start of what a fork shares, also while its first commit is in flight.
    pub fn base_start(&self) -> u64 {
        let flying = self.flying.iter().filter_map(|change| change.base.as_ref());
        self.base.iter().chain(flying).map(|(_, _, start)| *start).max().unwrap_or(0)
    }

    /// Generation of the durable events that it shows.
    pub fn seen_generation(&self) -> u32 {
        self.seen_generation_before(&self.flying)
    }

    fn seen_generation_before(&self, changes: &[Change]) -> u32 {
        let rewinds = changes.iter().filter(|change| change.rewind.is_some()).count();
        self.generation - rewinds as u32
    }

    pub fn has_events(&self) -> bool {
        self.buffered.iter().any(Option::is_some)
    }

    /// Returns the content of its next commit, or of one that sets the state and leaves the events; `None` when there is
    /// nothing.
    pub fn take(&mut self, state: Option<Life>, durable: u64) -> Option<Change> {
        let takes_events = self.has_events() && state.is_none();
        let end = self.ring_start();
        let (kept, regrown) = match takes_events {
            true => (None, false),
            false => (self.cap_start(end, durable), self.regrown),
        };
        let nothing = !takes_events
            && state.is_none()
            && self.rewound.is_none()
            && self.base.is_none()
            && self.trimmed.is_none();
        let change = (!nothing).then(|| {
            let mut change = Change { state, ..self.take_change() };
            if takes_events {
                change.slots = std::mem::take(&mut self.buffered);
            }
            self.flying.push(change.clone());
            change
        });
        if kept.is_some() {
            (self.trimmed, self.regrown) = (kept, regrown);
        }
        change
    }

    /// Returns a change of nothing, where the handle stands.
    pub fn nothing(&self) -> Change {
        let (stream, at, generation) = (Some(self.id), self.ring_start(), self.generation);
        Change { stream, at, generation, ..Change::default() }
    }

    /// Returns the changes of its next commit beside events.
    fn take_change(&mut self) -> Change {
        let (at, rewind) = match self.rewound.take() {
            Some((seen, to)) => (seen, Some(to)),
            None => (self.taken().len() as u64, None),
        };
        let generation = self.generation;
        self.generation += u32::from(rewind.is_some());
        let (base, start) = (self.base.take(), self.trimmed.take());
        let regrown = std::mem::take(&mut self.regrown);
        let stream = Some(self.id);
        Change { stream, at, generation, base, rewind, start, regrown, ..Change::default() }
    }

    /// Commits that failed give back what they took, in front of what was buffered since.
    pub fn take_back(&mut self) -> Result<(), String> {
        let failed = std::mem::take(&mut self.flying);
        if failed.is_empty() {
            return Ok(());
        }
        let newer = std::mem::take(&mut self.buffered);
        // Of several trims the last one counts.
        let (end, mut came_back) = (failed[0].at, false);
        let mut start = end;
        let mut cut = |buffered: &mut Vec<Slot>, to: u64| {
            buffered.truncate(to.saturating_sub(start) as usize);
            start = start.min(to);
        };
        self.generation = self.seen_generation_before(&failed);
        let mut generation = self.generation;
        for change in failed {
            if let Some(start) = change.start.filter(|_| self.trimmed.is_none() || came_back) {
                self.trimmed = Some(start);
                self.regrown = change.regrown || change.generation != generation;
                came_back = true;
            }
            generation += u32::from(change.rewind.is_some());
            change.rewind.into_iter().for_each(|to| cut(&mut self.buffered, to));
            self.base = change.base.or(self.base.take());
            self.buffered.extend(change.slots);
        }
        self.rewound.into_iter().for_each(|(_, to)| cut(&mut self.buffered, to));
        self.rewound = (start < end).then_some((end, start));
        self.share_less();
        self.buffered.extend(newer);
        one_gap(&mut self.buffered);
        let fits = self.ring != RingKind::Overwriting || self.ring_bytes() <= RING_BYTES;
        self.note_dropped(if fits { 0 } else { usize::MAX })
    }

    fn ring_bytes(&self) -> usize {
        self.buffered.iter().flatten().map(|bytes| bytes.len() + FRAME_BYTES).sum()
    }

    /// How much a ring holds is its own affair within its bounds; which events go is not: the oldest.
    pub fn note_dropped(&mut self, most: usize) -> Result<(), String> {
        let held = self.buffered.iter().flatten().count();
        let kept = self.stream.buffered() as usize;
        let Some(gone) = held.checked_sub(kept).filter(|gone| *gone <= most) else {
            return Err(format!("{kept} of {held} events are buffered"));
        };
        for _ in 0..gone {
            let oldest = self.buffered.iter_mut().find(|slot| slot.is_some());
            oldest.into_iter().for_each(|slot| *slot = None);
        }
        Ok(())
    }

    /// Returns whether the ring may refuse an event of this size, and whether it must.
    pub fn refuses(&self, bytes: usize) -> (bool, bool) {
        let bound = match self.ring {
            RingKind::Usual => return (false, false),
            RingKind::Overwriting => return (!self.flying.is_empty(), false),
            RingKind::Small => RING_BYTES,
            RingKind::Growing => RING_BYTES_CAP,
        };
        let has_to = self.ring_bytes() + bytes + FRAME_BYTES > bound;
        (has_to || !self.flying.is_empty(), has_to)
    }

    /// Keeps `keep` of the buffered events, those that were dropped counted as well.
    pub fn cut(&mut self, keep: u64) {
        self.mark = self.mark.wrapping_sub(self.buffered.len() as u64 - keep);
        self.buffered.truncate(keep as usize);
    }
}

/// A start in events that a leader moved moves along.
fn move_start(start: &mut Option<u64>, from: u64, by: u64) {
    if let Some(start) = start.as_mut().filter(|start| **start > from) {
        *start = start.wrapping_add(by);
    }
}

/// A commit has one gap of dropped events, in front: what stands before a later one goes with it.
pub fn one_gap(slots: &mut [Slot]) {
    let last = slots.iter().rposition(Option::is_none).unwrap_or(0);
    slots[..last].fill(None);
}

/// Options for a ring of this kind.
pub fn options(ring: RingKind) -> StreamOptions {
    ring.options(StreamOptions::new(), RING_BYTES, RING_BYTES_CAP)
}
