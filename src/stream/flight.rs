//! The commits of a handle that are under way, and where that puts its events. They settle at any moment, and a leader
//! may put them behind those of others: so each is asked once, and the events are laid out one behind the other.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::Stream;
use crate::catalog::Rewind;
use crate::commit::{Part, Pending};

/// Nothing is under way.
static NONE: VecDeque<Arc<Pending>> = VecDeque::new();

/// Commits whose buffers have not come back yet, oldest first. A pointer, since most of very many streams never commit.
#[derive(Default, Debug)]
#[expect(
    clippy::box_collection,
    reason = "a queue is four words, which most streams would have for nothing"
)]
pub(super) struct InFlight(Option<Box<VecDeque<Arc<Pending>>>>);

impl Deref for InFlight {
    type Target = VecDeque<Arc<Pending>>;

    fn deref(&self) -> &VecDeque<Arc<Pending>> {
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl DerefMut for InFlight {
    fn deref_mut(&mut self) -> &mut VecDeque<Arc<Pending>> {
        self.0.get_or_insert_default()
    }
}

impl Stream {
    /// The newest share of a commit that succeeded and that this handle has not taken note of yet, and the shares of the
    /// commits behind it. Each is asked once: they settle meanwhile, and a later one before it is looked at.
    pub(super) fn under_way(&self) -> (Option<&Part>, impl DoubleEndedIterator<Item = &Part>) {
        let own = |part: &&Part| part.stream == self.id;
        let done = self.in_flight.iter().take_while(|one| committed(one)).count();
        let newest = done.checked_sub(1).and_then(|newest| self.in_flight.get(newest));
        let landed = newest.and_then(|one| one.parts().iter().find(own));
        let behind = self.in_flight.iter().skip(done).flat_map(|one| one.parts());
        (landed, behind.filter(own))
    }

    /// The seq that the next event gets: behind what has landed, wherever that was.
    pub(super) fn end(&self) -> u64 {
        let (Some(landed), behind) = self.under_way() else { return self.next };
        let seqs = behind.map(|part| u64::from(part.filled.count) + part.filled.dropped);
        let ring = u64::from(self.ring.count()) + self.ring.dropped();
        landed.end_seq() + seqs.sum::<u64>() + ring
    }

    pub(super) fn generation(&self) -> u32 {
        let (landed, mut behind) = self.under_way();
        let newest = landed.filter(|_| behind.next().is_none());
        newest.map_or(self.generation, Part::generation)
    }

    /// The shares of commits under way, which follow each other, and where the first of them starts as this handle sees
    /// it: behind what has landed. Where a leader puts them counts when they have landed too.
    pub(super) fn laid_out(&self) -> (u64, Vec<&Part>) {
        let (landed, behind) = self.under_way();
        let behind: Vec<&Part> = behind.collect();
        let seqs = behind.iter().map(|part| u64::from(part.filled.count) + part.filled.dropped);
        let at = match (landed, behind.first()) {
            (Some(landed), _) => landed.end_seq(),
            (None, Some(first)) if behind.iter().any(|part| rewind_of(part).is_some()) => {
                first.first_seq() - first.filled.dropped
            }
            (None, _) => {
                let ring = u64::from(self.ring.count()) + self.ring.dropped();
                self.next - seqs.sum::<u64>() - ring
            }
        };
        (at, behind)
    }
}

pub(super) fn rewind_of(part: &Part) -> Option<Rewind> {
    part.change().and_then(|change| change.rewind)
}

pub(super) fn committed(pending: &Pending) -> bool {
    pending.failed() == Some(false)
}
