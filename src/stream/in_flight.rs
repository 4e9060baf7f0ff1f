//! Commits in flight of a handle, and their effect on its seqs and its state.
//!
//! A commit may settle at any moment, and a leader may rebase its events after those of other
//! handles. Each question therefore asks each commit once, in the order in which they settle, and
//! numbers the events in sequence from the newest that succeeded.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Stream;
use crate::change::{Change, Rewind};
use crate::commit::{Part, Pending};
use crate::options::Expect;
use crate::ring::Ring;
use crate::sabotage::{Sabotage, broken};
use crate::types::StreamState;

/// Commits whose buffers have not come back yet, oldest first. A pointer, because most of very many
/// streams never commit.
#[derive(Default, Debug)]
pub(super) struct InFlight(Option<Box<Flights>>);

#[derive(Default, Debug)]
struct Flights {
    queue: VecDeque<OwnCommit>,
    /// Distance by which leaders have rebased the handle's events.
    moved: u64,
}

/// Commit in flight.
#[derive(Debug)]
pub(super) struct OwnCommit {
    pending: Arc<Pending>,
    /// Index of this handle's part.
    nth: usize,
    counted: Counted,
}

/// Run of events, as its handle counts them: those of a commit, or those in the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Counted {
    /// Seq of the first event of the run, dropped ones included.
    pub(super) from: u64,
    /// Rewind right before the run.
    pub(super) rewind: Option<Rewind>,
    /// Start that a trim in the run's commit gives the stream.
    pub(super) start: Option<u64>,
}

impl Counted {
    pub(super) fn new(from: u64, change: Option<&Change>) -> Self {
        let (rewind, start) = change.map_or((None, None), |change| (change.rewind, change.start));
        Self { from, rewind, start }
    }

    /// Returns the head of the stream before the run and its rewind.
    pub(super) fn before(&self) -> u64 {
        self.rewind.map_or(self.from, |rewind| rewind.seen)
    }
}

impl OwnCommit {
    pub(super) fn counted(&self) -> Counted {
        self.counted
    }

    /// Returns the handle's part; `None` after its commit was taken apart.
    pub(super) fn part(&self) -> Option<&Part> {
        self.pending.parts().get(self.nth)
    }

    /// Returns `None` while it is undecided, then whether it failed.
    fn failed(&self) -> Option<bool> {
        self.pending.failed()
    }

    /// Returns true if the leader may have rebased it.
    pub(super) fn may_move(&self) -> bool {
        self.part().is_some_and(|part| part.expect != Expect::Seen)
    }

    /// Gives the ring its buffer back, unless the commit is still held elsewhere.
    pub(super) fn reclaim(self, ring: &mut Ring) {
        self.pending.reclaim(self.nth, ring);
    }
}

/// Events of a handle that are not known to be durable, each run of them where the handle counts it
/// now.
pub(super) struct Unsettled<'a> {
    /// Newest part that was committed, but whose buffer has not come back.
    pub(super) landed: Option<&'a Part>,
    /// Parts that are undecided or failed, oldest first.
    pub(super) parts: Vec<(&'a Part, Counted)>,
    /// Events in the ring.
    pub(super) ring: Counted,
}

impl Unsettled<'_> {
    /// Returns the number of rewinds in commits that are undecided or failed.
    pub(super) fn rewinds(&self) -> u32 {
        self.parts.iter().filter(|(_, counted)| counted.rewind.is_some()).count() as u32
    }
}

/// Moves the runs after a rebased part by the distance that its leader moved it. A rewind to a seq
/// before that part is absolute: no run after it moves. So is a start that is not after the part's
/// own.
fn rebase<'a>(from: u64, mut by: u64, later: impl Iterator<Item = &'a mut Counted>) {
    for counted in later {
        if let Some(rewind) = &mut counted.rewind {
            rewind.seen = rewind.seen.wrapping_add(by);
            if rewind.to < from {
                by = 0;
            }
            rewind.to = rewind.to.wrapping_add(by);
        }
        if let Some(start) = counted.start.as_mut().filter(|start| **start > from) {
            *start = start.wrapping_add(by);
        }
        counted.from = counted.from.wrapping_add(by);
    }
}

/// Returns the distance by which the leader has rebased a committed part.
fn moved(part: &Part, counted: Counted) -> u64 {
    (part.first_seq() - part.filled.dropped).wrapping_sub(counted.from)
}

impl InFlight {
    fn queue(&self) -> std::collections::vec_deque::Iter<'_, OwnCommit> {
        self.0.as_ref().map(|flights| flights.queue.iter()).unwrap_or_default()
    }

    /// Returns the commits that are undecided or failed.
    fn waiting(&self) -> impl DoubleEndedIterator<Item = &OwnCommit> {
        let committed = self.queue().take_while(|flight| flight.failed() == Some(false)).count();
        self.0.iter().flat_map(move |flights| flights.queue.range(committed..))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue().next().is_none()
    }

    /// Returns true if a leader may rebase one of the commits, or has.
    pub(super) fn may_move(&self) -> bool {
        self.queue().any(OwnCommit::may_move)
    }

    /// Returns the head of the stream before the oldest commit.
    pub(super) fn before(&self) -> Option<u64> {
        self.queue().next().map(|flight| flight.counted.before())
    }

    /// Returns the newest commit, which the next one follows.
    pub(super) fn last(&self) -> Option<Arc<Pending>> {
        self.queue().next_back().map(|flight| Arc::clone(&flight.pending))
    }

    /// Adds a commit that was built, but not submitted yet. Ignores a commit of nothing.
    pub(super) fn push(&mut self, pending: &Arc<Pending>, nth: usize) {
        let Some(part) = pending.parts().get(nth) else { return };
        let from = part.first_seq() - part.filled.dropped;
        let counted = Counted::new(from, part.change());
        let flight = OwnCommit { pending: Arc::clone(pending), nth, counted };
        self.0.get_or_insert_default().queue.push_back(flight);
    }

    /// Returns true if the oldest commit succeeded.
    pub(super) fn has_landed(&self) -> bool {
        self.queue().next().is_some_and(|flight| flight.failed() == Some(false))
    }

    /// Removes the oldest commit if it succeeded, and moves later runs to where its leader put it.
    pub(super) fn take_landed(&mut self, ring: &mut Counted) -> Option<OwnCommit> {
        let flights = self.0.as_mut()?;
        flights.queue.front().filter(|flight| flight.failed() == Some(false))?;
        let done = flights.queue.pop_front()?;
        let by = done.part().map_or(0, |part| moved(part, done.counted));
        if by != 0 {
            let before = ring.from;
            let later = flights.queue.iter_mut().map(|flight| &mut flight.counted);
            rebase(done.counted.from, by, later.chain([&mut *ring]));
            flights.moved = flights.moved.wrapping_add(ring.from.wrapping_sub(before));
        }
        Some(done)
    }

    /// Removes all commits once all of them have failed, so that their events return in order.
    pub(super) fn take_failed(&mut self) -> Vec<OwnCommit> {
        let all_failed = self.queue().all(|flight| flight.failed() == Some(true));
        match &mut self.0 {
            Some(flights) if all_failed => std::mem::take(&mut flights.queue).into(),
            _ => Vec::new(),
        }
    }

    /// Returns where the events in flight and in the ring are counted now.
    pub(super) fn unsettled(&self, mut ring: Counted) -> Unsettled<'_> {
        let mut landed = None;
        let committed = self.queue().take_while(|flight| flight.failed() == Some(false)).count();
        let mut counted: Vec<Counted> = self.queue().map(|flight| flight.counted).collect();
        for (nth, flight) in self.queue().take(committed).enumerate() {
            landed = flight.part().or(landed);
            let by = flight.part().map_or(0, |part| moved(part, counted[nth]));
            if by != 0 {
                let from = counted[nth].from;
                rebase(from, by, counted[nth + 1..].iter_mut().chain([&mut ring]));
            }
        }
        let waiting = self.queue().zip(counted).skip(committed);
        let parts = waiting.filter_map(|(flight, counted)| Some((flight.part()?, counted)));
        Unsettled { landed, parts: parts.collect(), ring }
    }

    /// Returns the newest part that succeeded and whose buffer has not come back.
    pub(super) fn landed(&self) -> Option<&Part> {
        self.queue().take_while(|flight| flight.failed() == Some(false)).last()?.part()
    }

    /// Returns the changes of commits that are undecided or failed, oldest first.
    pub(super) fn changes(&self) -> impl DoubleEndedIterator<Item = &Change> {
        self.waiting().filter_map(OwnCommit::part).filter_map(Part::change)
    }

    /// Returns true if a commit failed and its events have not come back.
    pub(super) fn has_failed(&self) -> bool {
        self.queue().any(|flight| flight.failed() == Some(true))
    }

    /// Returns the number of events whose commit failed and that have not come back.
    pub(super) fn failed_events(&self) -> u64 {
        let failed = self.queue().filter(|flight| flight.failed() == Some(true));
        failed.filter_map(OwnCommit::part).map(|part| u64::from(part.filled.count)).sum()
    }

    /// Returns the change of the oldest commit, which is the first one of a volatile stream.
    pub(super) fn first_change(&self) -> Option<&Change> {
        self.queue().next()?.part()?.change()
    }

    /// Returns true if a commit of this handle has deleted the stream.
    pub(super) fn has_deleted(&self) -> bool {
        let change = self.landed().and_then(Part::change);
        change.is_some_and(|change| change.state == Some(StreamState::Deleted))
    }

    /// Returns the number of rewinds in these commits.
    pub(super) fn rewinds(&self) -> u32 {
        self.queue().filter(|flight| flight.counted.rewind.is_some()).count() as u32
    }

    /// Returns the distance by which leaders have rebased the handle's events.
    pub(super) fn moved(&self) -> u64 {
        self.0.as_ref().map_or(0, |flights| flights.moved)
    }

    /// Returns the parts of all commits.
    #[cfg(all(test, feature = "sim", not(any(amberlog_loom, amberlog_shuttle))))]
    pub(super) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.queue().filter_map(OwnCommit::part)
    }
}

impl Stream {
    /// Returns the number of events in the ring, with those that were dropped before them.
    pub(super) fn ring_len(&self) -> u64 {
        u64::from(self.ring.count()) + self.ring.dropped()
    }

    /// Returns the events of the ring as this handle counts them.
    pub(super) fn counted(&self) -> Counted {
        Counted::new(self.next - self.ring_len(), self.next_change())
    }

    pub(super) fn unsettled(&self) -> Unsettled<'_> {
        self.in_flight.unsettled(self.counted())
    }

    /// Returns the seq of the next event: after what has landed, wherever that was.
    pub(super) fn end(&self) -> u64 {
        if self.in_flight.is_empty() {
            return self.next;
        }
        let buffered = if self.in_flight.has_deleted() { 0 } else { self.ring_len() };
        self.unsettled().ring.from + buffered
    }

    /// Returns the seq after the events that are durable, as this handle saw the stream.
    fn durable_end(&self) -> u64 {
        let unsettled = self.unsettled();
        let parts = unsettled.parts.iter().map(|(_, counted)| counted.from);
        parts.fold(unsettled.ring.from, u64::min)
    }

    /// Returns the first seq that is not trimmed.
    pub(super) fn start(&self) -> u64 {
        let Unsettled { parts, ring, .. } = self.unsettled();
        let runs = parts.into_iter().map(|(_, counted)| counted).chain([ring]);
        let durable = match self.durable_start() {
            0 => 0,
            // Another handle may trim beyond the durable events that this one has seen. Its own
            // volatile events stay visible.
            start => start.min(self.durable_end()),
        };
        runs.filter_map(|counted| counted.start).fold(durable, u64::max)
    }

    /// Returns the start without a trim that waits for the next commit, as this handle counts it.
    pub(super) fn taken_start(&self) -> u64 {
        let runs = self.in_flight.queue().map(OwnCommit::counted);
        runs.filter_map(|counted| counted.start).fold(self.durable_start(), u64::max)
    }

    /// Returns the start that is committed, by any handle.
    fn durable_start(&self) -> u64 {
        let version = self.root().and_then(|root| self.core.catalog.version(root));
        version.map_or(0, |version| version.start)
    }

    /// Returns the generation of the next commit's events, before a rewind that goes with it.
    pub(super) fn generation(&self) -> u32 {
        self.generation_after(&self.unsettled())
    }

    /// Returns the generation of the durable events. Rewinds that are in flight or failed do not
    /// count: another handle may have begun the generation that they would begin.
    pub(super) fn seen_generation(&self) -> u32 {
        let unsettled = self.unsettled();
        self.generation_after(&unsettled) - unsettled.rewinds()
    }

    pub(super) fn generation_after(&self, unsettled: &Unsettled<'_>) -> u32 {
        let Some(landed) = unsettled.landed else { return self.generation };
        if !unsettled.parts.is_empty() && broken(Sabotage::KeepGeneration) {
            return self.generation;
        }
        landed.generation() + unsettled.rewinds()
    }
}
