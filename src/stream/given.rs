//! A stream as it was elsewhere: its id, its times and what became of it are given, not made here.

use std::sync::Arc;

use super::{Stream, limits};
use crate::catalog::{Fork, Rewind};
use crate::commit::{Pending, Ticket};
use crate::core::Core;
use crate::error::{Error, ErrorKind, RefusedReason, Result};
use crate::format::FrameHead;
use crate::options::{CommitOptions, StreamOptions};
use crate::sabotage::{Sabotage, broken};
use crate::types::{Seq, StreamId, StreamState};

impl Stream {
    /// A volatile stream of this id.
    ///
    /// Fails when the log has, or had, a stream of it, committed or not.
    pub(crate) fn of_id(core: &Arc<Core>, id: StreamId, options: &StreamOptions) -> Result<Self> {
        let limits = limits(core, options, "import")?;
        let is_new = core.volatile.pin().try_insert(id, None).is_ok();
        if core.catalog.root(id).is_some() || !is_new {
            if is_new {
                core.volatile.pin().remove(&id);
            }
            return Err(Error::new(ErrorKind::StreamExists(id), "import"));
        }
        Ok(Self::with(Arc::clone(core), id, limits))
    }

    /// A handle of a stream that was deleted, for whoever has nothing to write and asks what it was.
    pub(crate) fn gone(core: &Arc<Core>, id: StreamId, options: &StreamOptions) -> Result<Self> {
        let mut stream = Self::with(Arc::clone(core), id, limits(core, options, "import")?);
        stream.enter_state(StreamState::Deleted);
        Ok(stream)
    }

    /// It starts with what it shares with another stream, behind that one's generations.
    pub(crate) fn share(&mut self, base: StreamId, generation: u32, seq: u64) -> Result<()> {
        self.next = seq;
        self.generation = generation;
        let fork = Fork { base, base_generation: generation, seq, generation };
        self.note(|change| change.fork = Some(fork))
    }

    pub(crate) fn descend(&mut self, parent: StreamId, seq: Seq) -> Result<()> {
        self.note(|change| change.parent = Some((parent, seq.get())))
    }

    /// The next commit says this, too, and nothing is done about it before.
    pub(crate) fn say_state(&mut self, state: StreamState) -> Result<()> {
        self.note(|change| change.state = Some(state))
    }

    /// Commits behind what was committed last, of whatever stream: if that fails, so does this.
    pub(crate) fn commit_behind(
        &mut self,
        last: &mut Option<Arc<Pending>>,
        mut options: CommitOptions,
    ) -> Ticket {
        self.reap();
        options.durability = options.durability.or(Some(self.core.options.durability));
        if broken(Sabotage::ImportGoOn) {
            *last = self.in_flight.back().cloned();
        }
        let pending = Pending::of_one(self.take_part(), options, last.take());
        self.in_flight.push_back(Arc::clone(&pending));
        *last = Some(Arc::clone(&pending));
        self.core.queue.submit(pending)
    }

    /// Whether the next commit has anything to say.
    pub(crate) fn has_news(&self) -> bool {
        self.change.is_some() || self.ring.count() > 0
    }

    /// Appends an event of another time than now.
    pub(crate) fn append_at(
        &mut self,
        head: &FrameHead,
        payload: &[u8],
    ) -> Result<(), RefusedReason> {
        self.admits(payload.len())?;
        if !self.ring.push(head, payload) {
            self.reap();
            self.ring.push_over(head, payload)?;
        }
        self.next += 1;
        Ok(())
    }

    /// Whether an event of so many bytes could ever be taken.
    pub(crate) fn admits(&self, payload_bytes: usize) -> Result<(), RefusedReason> {
        self.ring.admits(payload_bytes)
    }

    /// So many events were dropped here. Nothing must be buffered: a gap is in front of a commit's events.
    pub(crate) fn skip(&mut self, dropped: u64) {
        self.ring.skip(dropped);
        self.next += dropped;
    }

    /// Goes back to `to` and starts the next generation, also when nothing stands behind it. Nothing must be
    /// buffered or under way.
    pub(crate) fn rewind_as(&mut self, to: u64) -> Result<()> {
        self.reap();
        if !self.in_flight.is_empty() || self.ring.count() > 0 {
            return Err(Error::new(ErrorKind::CommitInFlight(self.id), "import"));
        }
        let seen = self.next;
        self.next = to;
        self.note(|change| change.rewind = Some(Rewind { to, seen }))
    }
}
