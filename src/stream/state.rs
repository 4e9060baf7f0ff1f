//! Archive, delete, trim: what becomes of a whole stream. Each is a commit of its own, which takes what was
//! changed along and leaves what is buffered where it is (P2). A volatile stream has it at once, in memory.

use std::sync::Arc;

use super::{CommitOptions, Stream};
use crate::commit::{Commit, Pending, Ticket};
use crate::error::{Error, ErrorKind, RefusedReason, Result};
use crate::format::ColdSeqs;
use crate::ring::Shut;
use crate::types::{Durability, Position, Seq, StreamState, Timestamp};

impl Stream {
    /// Archives the stream: it is read as before, lists leave it out, and nobody writes it until
    /// [`Stream::unarchive`]. What is buffered stays, and is not committed.
    ///
    /// A volatile stream is archived in memory; its first commit says so, with the events that it has by then.
    ///
    /// The ticket fails with [`ErrorKind::Conflict`], [`ErrorKind::Deleted`] or [`ErrorKind::Closed`], or as a
    /// commit does; then nothing was archived. A conflict means that somebody added events, or dropped some, since this
    /// handle saw the stream (P8): who looked at it elsewhere compares [`Stream::head`] with what was seen there first.
    pub fn archive(&mut self) -> Ticket {
        self.change_state(StreamState::Archived, "archive")
    }

    /// Takes [`Stream::archive`] back. What was said there is true here.
    pub fn unarchive(&mut self) -> Ticket {
        self.change_state(StreamState::Active, "unarchive")
    }

    /// Deletes the stream, for good. Its name is free as soon as the ticket resolves, everything else answers
    /// [`ErrorKind::Deleted`], also after the log is opened again, and what is buffered is gone. Forks
    /// keep what they share. The bytes stay until they are collected.
    ///
    /// A volatile stream is gone at once, as if it had never been.
    ///
    /// The ticket fails as that of [`Stream::archive`]; then nothing was deleted, and nothing is lost.
    pub fn delete(&mut self) -> Ticket {
        self.change_state(StreamState::Deleted, "delete")
    }

    /// Forgets the events before `to`: whoever asks for them is told where the stream now starts. Forks keep what they
    /// share.
    ///
    /// The ticket fails with [`ErrorKind::SeqOutOfRange`] when `to` lies behind what is committed (behind the head, if
    /// nothing is), and as that of [`Stream::archive`]. To trim what was trimmed already changes nothing.
    pub fn trim(&mut self, to: impl Into<Seq>) -> Ticket {
        let to = to.into();
        self.reap();
        if let Err(error) = self.check_alive("trim") {
            return self.settled(Err(error));
        }
        let is_volatile = self.is_volatile();
        let end = if is_volatile { self.next } else { self.durable_end() };
        if to.get() > end {
            let range = Seq(self.start())..Seq(end);
            return self.failed(ErrorKind::SeqOutOfRange { asked: to, range }, "trim");
        }
        if to.get() <= self.start() {
            return self.submit(None, CommitOptions::new());
        }
        let _ = self.note(|change| change.start = Some(to.get()));
        if is_volatile {
            return self.settled(Ok(()));
        }
        let part = self.take_change();
        self.submit(part, CommitOptions::new())
    }

    /// Says that these events moved to the archive file, if nothing became of the stream since the handle was made.
    pub(crate) fn say_cold(&mut self, seqs: ColdSeqs) -> Ticket {
        let _ = self.note(|change| change.cold = Some(seqs));
        let part = self.take_change();
        self.submit(part, CommitOptions::new().durability(Durability::Disk))
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
                    self.core.volatile.pin().remove(&self.id);
                    self.enter_state(state);
                }
                state => {
                    self.enter_state(state);
                    let _ = self.note(|change| {
                        change.state = (state != StreamState::Active).then_some(state);
                    });
                }
            }
            return self.settled(Ok(()));
        }
        let _ = self.note(|change| change.state = Some(state));
        self.enter_state(state);
        let part = self.take_change();
        self.submit(part, CommitOptions::new())
    }

    /// Takes events or refuses them, as the state says.
    pub(super) fn enter_state(&mut self, state: StreamState) {
        self.state = state;
        let is_active = state == StreamState::Active;
        self.ring.shut(if is_active { Shut::No } else { Shut::Yes });
    }

    /// Another handle may have changed what may be done with the stream.
    pub(super) fn look_again(&mut self) {
        self.reap();
        let asked = self.changes().any(|change| change.state.is_some());
        let version = self.root().and_then(|root| self.core.catalog.version(root));
        if let Some(version) = version.filter(|_| !asked) {
            self.enter_state(version.state);
        }
    }

    /// The ring does not take an event. Is it the event, or the stream?
    #[cold]
    pub(super) fn admit_again(&mut self, event_bytes: usize) -> Result<(), RefusedReason> {
        self.look_again();
        match self.state {
            StreamState::Active => self.ring.admits(event_bytes),
            StreamState::Archived => Err(RefusedReason::Archived),
            StreamState::Deleted => Err(RefusedReason::Deleted),
        }
    }

    /// Nothing of it is on disk, and no commit is under way.
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

    /// A ticket whose outcome is known.
    fn settled(&self, outcome: Result<()>) -> Ticket {
        let pending = Pending::new(Vec::new(), CommitOptions::new(), Vec::new());
        pending.settle(outcome.map(|()| Commit {
            position: Position(self.core.catalog.watermark().visible),
            seqs: Seq(0)..Seq(0),
            time: Timestamp::now(),
            durability: Durability::Disk,
        }));
        Ticket::settled(Arc::clone(&pending))
    }
}
