//! Restores a stream from an export, with the id, times and states that the export gives.

use std::sync::Arc;

use super::{Stream, limits};
use crate::change::{Fork, Rewind};
use crate::commit::{Pending, Ticket};
use crate::engine::Handle;
use crate::error::{AppendError, Result};
use crate::format::FrameHead;
use crate::options::{CommitOptions, StreamOptions};
use crate::sabotage::{Sabotage, broken};
use crate::types::{Seq, StreamId, StreamState};

impl Stream {
    /// Returns a handle of a deleted stream, which only answers questions.
    pub(crate) fn gone(core: &Handle, id: StreamId, options: &StreamOptions) -> Result<Self> {
        let mut stream = Self::with(core.clone(), id, limits(core, options, "import")?);
        stream.enter_state(StreamState::Deleted);
        Ok(stream)
    }

    /// Starts the stream with the events that it shares with its base.
    pub(crate) fn share(&mut self, base: StreamId, generation: u32, seq: u64) {
        self.next = seq;
        self.generation = generation;
        let fork = Fork { base, base_generation: generation, seq, generation };
        self.note(|change| change.fork = Some(fork));
    }

    pub(crate) fn descend(&mut self, parent: StreamId, seq: Seq) {
        self.note(|change| change.parent = Some((parent, seq.get())));
    }

    /// Adds a state to the next commit. The handle's own state does not change.
    pub(crate) fn say_state(&mut self, state: StreamState) {
        self.note(|change| change.state = Some(state));
    }

    /// Commits after the last commit of any stream, and fails if that one fails. Includes a
    /// trailing gap.
    pub(crate) fn commit_behind(
        &mut self,
        last: &mut Option<Arc<Pending>>,
        mut options: CommitOptions,
    ) -> Ticket {
        self.reap();
        options.durability = options.durability.or(Some(self.core.options.durability));
        if broken(Sabotage::ImportGoOn) {
            *last = self.in_flight.last();
        }
        let part = match self.ring.take_gap() {
            Some(gap) => Some(self.part(gap, self.next)),
            None => self.take_part(),
        };
        let pending = Pending::of_one(part, options, last.take());
        self.in_flight.push(&pending, 0);
        *last = Some(Arc::clone(&pending));
        self.core.queue.submit(pending)
    }

    /// Returns whether the next commit would write anything.
    pub(crate) fn has_news(&self) -> bool {
        self.change.is_some() || self.ring.count() > 0 || self.ring.dropped() > 0
    }

    /// Appends an event with a given time.
    pub(crate) fn append_at(
        &mut self,
        head: &FrameHead,
        payload: &[u8],
    ) -> Result<(), AppendError> {
        self.admits(payload.len())?;
        if !self.ring.push(head, payload) {
            self.reap();
            self.ring.push_over(head, payload)?;
        }
        self.next += 1;
        Ok(())
    }

    /// Checks that the ring can ever hold an event of this size.
    pub(crate) fn admits(&self, payload_bytes: usize) -> Result<(), AppendError> {
        self.ring.admits(payload_bytes)
    }

    /// Adds a gap of `dropped` events. Nothing may be buffered: a gap precedes the events of its
    /// commit.
    pub(crate) fn skip(&mut self, dropped: u64) {
        self.ring.skip(dropped);
        self.next += dropped;
    }

    /// Rewinds to `to` and starts the next generation, even if no event is dropped. Nothing may be
    /// buffered or in flight.
    pub(crate) fn rewind_as(&mut self, to: u64) {
        self.reap();
        let seen = self.next;
        self.next = to;
        self.note(|change| change.rewind = Some(Rewind { to, seen }));
    }
}
