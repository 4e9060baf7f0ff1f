//! Archive and delete: changes to a whole stream.
//!
//! Each is a commit of its own. It includes pending metadata changes, and leaves buffered events in
//! the ring (P2), with a pending rewind or trim. On a volatile stream it takes effect
//! at once, in memory.

use super::{CommitOptions, Stream};
use crate::commit::{Commit, Pending, Ticket};
use crate::error::{AppendError, Error, ErrorKind, Result};
use crate::ring::Admission;
use crate::types::{Durability, Position, Seq, StreamState};

impl Stream {
    /// Archives the stream: it stays readable, lists leave it out, and appends fail until
    /// [`Stream::unarchive`]. Buffered events stay buffered; a pending rewind or trim stays
    /// pending.
    ///
    /// A volatile stream is archived in memory; its first commit records the state with the events
    /// buffered by then.
    ///
    /// The ticket fails with [`ErrorKind::Conflict`], [`ErrorKind::Deleted`] or
    /// [`ErrorKind::Closed`], or as a commit does; then nothing was archived. A conflict means that
    /// another handle has added or dropped events since this handle saw the stream (P8). A caller
    /// that decided on a read view compares its head with [`Stream::head`] first.
    pub fn archive(&mut self) -> Ticket {
        self.change_state(StreamState::Archived, "archive")
    }

    /// Reverts [`Stream::archive`]. The ticket fails for the same reasons.
    pub fn unarchive(&mut self) -> Ticket {
        self.change_state(StreamState::Active, "unarchive")
    }

    /// Deletes the stream permanently. Its name is free once the ticket resolves; every other
    /// operation on it returns [`ErrorKind::Deleted`], also after the log is reopened. Buffered
    /// events are discarded; their memory is free at the handle's next call that takes `&mut`, or
    /// when it is dropped. Forks keep the events that they share. The bytes stay on disk until
    /// compaction; [`crate::maintenance::CompactOptions::purge`] removes them at once.
    ///
    /// A volatile stream disappears at once and leaves no trace.
    ///
    /// The ticket fails like that of [`Stream::archive`]; then nothing was deleted or discarded.
    pub fn delete(&mut self) -> Ticket {
        self.change_state(StreamState::Deleted, "delete")
    }

    fn change_state(&mut self, state: StreamState, operation: &'static str) -> Ticket {
        self.reap();
        if let Err(error) = self.check_alive(operation) {
            return self.settled(Err(error));
        }
        if self.is_volatile() {
            match state {
                StreamState::Deleted => {
                    self.next -= self.ring.discard();
                    self.change = None;
                    self.core.volatile.remove(self.id);
                    self.enter_state(state);
                }
                state => {
                    self.enter_state(state);
                    self.note(|change| {
                        change.state = (state != StreamState::Active).then_some(state);
                    });
                }
            }
            return self.settled(Ok(()));
        }
        self.note(|change| change.state = Some(state));
        self.enter_state(state);
        let part = self.take_metadata();
        self.submit(Some(part), CommitOptions::new())
    }

    /// Sets the state, and admits or refuses appends accordingly.
    pub(super) fn enter_state(&mut self, state: StreamState) {
        self.state = state;
        let is_active = state == StreamState::Active;
        self.ring.set_admission(if is_active { Admission::Open } else { Admission::Closed });
    }

    /// Refreshes the state, which another handle may have changed.
    pub(super) fn look_again(&mut self) {
        self.reap();
        let asked = self.changes().any(|change| change.state.is_some());
        let version = self.root().and_then(|root| self.core.catalog.version(root));
        if let Some(version) = version.filter(|_| !asked) {
            self.enter_state(version.state);
        }
    }

    /// Refreshes the stream's state, and returns why the ring refuses an event of this size, if it
    /// does.
    #[cold]
    pub(super) fn admit_again(&mut self, event_bytes: usize) -> Result<(), AppendError> {
        self.look_again();
        match self.state {
            StreamState::Active => self.ring.admits(event_bytes),
            StreamState::Archived => Err(AppendError::Archived),
            StreamState::Deleted => Err(AppendError::Deleted),
        }
    }

    /// Returns whether nothing of the stream is on disk or in flight.
    pub(super) fn is_volatile(&self) -> bool {
        self.root.is_none() && self.in_flight.is_empty()
    }

    pub(super) fn check_alive(&self, operation: &'static str) -> Result<()> {
        self.core.check_open(operation)?;
        match self.state() {
            StreamState::Deleted => Err(Error::new(ErrorKind::Deleted(self.id), operation)),
            _ => Ok(()),
        }
    }

    /// Returns a ticket that is already settled.
    fn settled(&self, outcome: Result<()>) -> Ticket {
        if let Err(error) = outcome {
            return self.refused(error);
        }
        let pending = Pending::new(Vec::new(), CommitOptions::new(), Vec::new());
        pending.settle(Ok(Commit {
            position: Position(self.core.catalog.watermark().visible),
            seqs: Seq(0)..Seq(0),
            time: self.core.disk.now(),
            durability: Durability::Disk,
        }));
        Ticket::settled(pending)
    }
}
