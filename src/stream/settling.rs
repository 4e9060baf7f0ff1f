//! Settling of a handle's commits: their buffers return to the ring, and so do the events of failed
//! commits, without those that the handle has cut since.

use super::Stream;
use super::in_flight::{Counted, OwnCommit};
use crate::change::Rewind;
use crate::commit::{Draft, Part};
use crate::ring::Returned;
use crate::sabotage::{Sabotage, broken};
use crate::types::StreamState;

impl Stream {
    /// Reclaims the buffers of committed parts, and the events of failed ones once every later
    /// commit has failed as well, so that they return in order (P5).
    pub(super) fn reap(&mut self) {
        if self.in_flight.is_empty() || self.core.is_elsewhere() {
            return;
        }
        while self.in_flight.has_landed() {
            let mut ring = self.counted();
            let Some(done) = self.in_flight.take_landed(&mut ring) else { break };
            self.note_durable(&done, ring);
            done.reclaim(&mut self.ring);
        }
        if !self.in_flight.has_failed() {
            return;
        }
        let failed = self.in_flight.take_failed();
        if !failed.is_empty() {
            self.take_back(&failed);
        }
    }

    /// Takes back the events and changes of failed commits. A later rewind cuts the returned
    /// events, and stays pending only if it also cuts durable ones.
    fn take_back(&mut self, failed: &[OwnCommit]) {
        let parts: Vec<&Part> = failed.iter().filter_map(OwnCommit::part).collect();
        if broken(Sabotage::LoseFailedEvents) {
            parts.iter().for_each(|part| self.ring.forget(&part.filled));
            return;
        }
        let (returned, rewind) = uncut(failed, self.counted());
        self.ring.give_back(&returned);
        let rewinds = failed.iter().filter(|flight| flight.counted().rewind.is_some()).count();
        self.generation -= rewinds as u32;
        let (is_durable, mut generation) = (self.root.is_some(), self.generation);
        let changes = failed.iter().enumerate().filter_map(|(nth, flight)| {
            let (part, counted) = (flight.part()?, flight.counted());
            let mut change = part.change.as_ref()?.draft.clone();
            if is_durable || nth > 0 {
                // A change that had its own ticket is not retried silently. The first commit of a
                // stream, however, includes the state that the stream had in memory, which still
                // holds.
                change.state = None;
            }
            generation += u32::from(counted.rewind.is_some());
            change.start = counted.start;
            change.regrown |= part.generation() != generation;
            Some(change)
        });
        let returned = changes.reduce(Draft::and).unwrap_or_default();
        // Returned changes were counted before, and are taken whatever the memory.
        self.note(|later| {
            *later = returned.and(std::mem::take(later));
            later.rewind = rewind;
        });
        if let Some(rewind) = rewind.filter(|_| !is_durable) {
            self.share_less(rewind.to);
        }
        let version = self.root.and_then(|root| self.core.catalog.version(root));
        let durable = version.map_or(StreamState::Active, |version| version.state);
        let wanted = self.change.as_ref().and_then(|change| change.state);
        self.enter_state(wanted.unwrap_or(durable));
    }

    /// Notes that a commit succeeded, and where its leader has moved the events in the ring.
    fn note_durable(&mut self, done: &OwnCommit, ring: Counted) {
        if self.root.is_none() {
            self.root = self.core.catalog.root(self.id);
            self.core.volatile.remove(self.id);
        }
        let own = done.part();
        if let Some(part) = own.filter(|_| done.may_move()) {
            self.next = ring.from + self.ring_len();
            let generation = part.generation() + self.in_flight.rewinds();
            let regrown = std::mem::replace(&mut self.generation, generation) != generation;
            if regrown || ring != self.counted() {
                self.note(|change| {
                    (change.rewind, change.start) = (ring.rewind, ring.start);
                    change.regrown |= regrown;
                });
            }
        }
        let state = own.and_then(|part| part.change()?.state);
        if state == Some(StreamState::Deleted) {
            self.next -= self.ring.discard();
            self.change = None;
        }
    }
}

/// Returns the runs that failed commits give back to the ring, and the rewind of durable events
/// that remains of their rewinds and the pending one.
fn uncut(failed: &[OwnCommit], ring: Counted) -> (Vec<Returned<'_>>, Option<Rewind>) {
    let durable_end = failed.first().map_or(ring.before(), |oldest| oldest.counted().before());
    let mut start = durable_end;
    let mut returned: Vec<Returned<'_>> = Vec::new();
    let runs = failed.iter().map(|flight| (flight.counted(), flight.part()));
    for (counted, part) in runs.chain([(ring, None)]) {
        if let Some(rewind) = counted.rewind {
            let mut keep = rewind.to.saturating_sub(start);
            for earlier in &mut returned {
                earlier.keep = earlier.keep.min(keep);
                keep -= earlier.keep;
            }
            start = start.min(rewind.to);
        }
        returned.extend(part.map(|part| {
            let filled = &part.filled;
            Returned { filled, keep: u64::from(filled.count) + filled.dropped }
        }));
    }
    let rewind = (start < durable_end).then_some(Rewind { to: start, seen: durable_end });
    (returned, rewind)
}
