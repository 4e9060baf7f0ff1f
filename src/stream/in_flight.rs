//! Commits in flight of a handle, and the seqs that they give its events.
//!
//! A commit may settle at any moment, and a leader may rebase its events after those of other
//! handles. So each commit is asked once, and the events are numbered in sequence from there.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::Stream;
use crate::change::Rewind;
use crate::commit::{Part, Pending};
use crate::ring::Ring;
use crate::sabotage::{Sabotage, broken};

/// Queue of a handle without commits in flight.
static NONE: VecDeque<UnderWay> = VecDeque::new();

/// A commit in flight, and the index of this handle's part in it.
#[derive(Clone, Debug)]
pub(super) struct UnderWay {
    pub(super) pending: Arc<Pending>,
    nth: usize,
}

impl UnderWay {
    pub(super) fn new(pending: &Arc<Pending>, nth: usize) -> Self {
        Self { pending: Arc::clone(pending), nth }
    }

    /// The handle's share; `None` for a commit of nothing.
    pub(super) fn part(&self) -> Option<&Part> {
        self.pending.parts().get(self.nth)
    }

    /// Gives the ring its buffer back, unless the commit is still held elsewhere.
    pub(super) fn reclaim(self, ring: &mut Ring) {
        self.pending.reclaim(self.nth, ring);
    }

    /// `None` while it is under way, then whether it failed.
    pub(super) fn failed(&self) -> Option<bool> {
        self.pending.failed()
    }
}

/// Commits whose buffers have not come back yet, oldest first. A pointer, since most of very many
/// streams never commit, and a queue is four words.
#[derive(Default, Debug)]
pub(super) struct InFlight(Option<Box<Flights>>);

#[derive(Default, Debug)]
struct Flights {
    queue: VecDeque<UnderWay>,
    /// Distance by which leaders have rebased the handle's events.
    moved: u64,
}

impl InFlight {
    /// Records a rebase of the handle's events.
    pub(super) fn note_moved(&mut self, from: u64, to: u64) {
        if from != to {
            let flights = self.0.get_or_insert_default();
            flights.moved = flights.moved.wrapping_add(to.wrapping_sub(from));
        }
    }
}

impl Deref for InFlight {
    type Target = VecDeque<UnderWay>;

    fn deref(&self) -> &VecDeque<UnderWay> {
        self.0.as_ref().map_or(&NONE, |flights| &flights.queue)
    }
}

impl DerefMut for InFlight {
    fn deref_mut(&mut self) -> &mut VecDeque<UnderWay> {
        &mut self.0.get_or_insert_default().queue
    }
}

impl Stream {
    /// A seq as this handle counts its events: leaders move those that are buffered, and this
    /// stays.
    pub(super) fn mark(&self) -> u64 {
        if broken(Sabotage::SaveSeqs) {
            return self.next;
        }
        self.next.wrapping_sub(self.in_flight.0.as_ref().map_or(0, |flights| flights.moved))
    }

    /// The number of events that no commit has taken, with those that were dropped in front of
    /// them.
    pub(super) fn ring_len(&self) -> u64 {
        u64::from(self.ring.count()) + self.ring.dropped()
    }

    /// The newest share of a commit that succeeded and that this handle has not taken note of yet,
    /// and the shares of the commits behind it. Each is asked once: they settle meanwhile, and a
    /// later one before it is looked at.
    pub(super) fn under_way(&self) -> (Option<&Part>, impl DoubleEndedIterator<Item = &Part>) {
        let done = self.in_flight.iter().take_while(|one| committed(one)).count();
        let newest = done.checked_sub(1).and_then(|newest| self.in_flight.get(newest));
        let landed = newest.and_then(UnderWay::part);
        (landed, self.in_flight.iter().skip(done).filter_map(UnderWay::part))
    }

    /// The seq that the next event gets: behind what has landed, wherever that was.
    pub(super) fn end(&self) -> u64 {
        let (Some(landed), behind) = self.under_way() else { return self.next };
        let seqs = behind.map(|part| u64::from(part.filled.count) + part.filled.dropped);
        landed.end_seq() + seqs.sum::<u64>() + self.ring_len()
    }

    /// Generation of the next commit's events, before a rewind that goes with it: that of what has
    /// landed, wherever a leader put it, and one more for each rewind behind it.
    pub(super) fn generation(&self) -> u32 {
        let (Some(landed), behind) = self.under_way() else { return self.generation };
        let (behind, rewinds) = behind.fold((0, 0), |(behind, rewinds), part| {
            (behind + 1, rewinds + u32::from(rewind_of(part).is_some()))
        });
        if behind > 0 && broken(Sabotage::KeepGeneration) {
            return self.generation;
        }
        landed.generation() + rewinds
    }

    /// The shares of commits under way, which follow each other, and where the first of them starts
    /// as this handle sees it: behind what has landed. Where a leader puts them counts when they
    /// have landed too.
    pub(super) fn laid_out(&self) -> (u64, Vec<&Part>) {
        let (landed, behind) = self.under_way();
        let behind: Vec<&Part> = behind.collect();
        let seqs = behind.iter().map(|part| u64::from(part.filled.count) + part.filled.dropped);
        let at = match (landed, behind.first()) {
            (Some(landed), _) => landed.end_seq(),
            (None, Some(first)) if behind.iter().any(|part| rewind_of(part).is_some()) => {
                first.first_seq() - first.filled.dropped
            }
            (None, _) => self.next - seqs.sum::<u64>() - self.ring_len(),
        };
        (at, behind)
    }
}

pub(super) fn rewind_of(part: &Part) -> Option<Rewind> {
    part.change().and_then(|change| change.rewind)
}

pub(super) fn committed(one: &UnderWay) -> bool {
    one.failed() == Some(false)
}
