//! Fork, rewind, trim and savepoints: verbs that act on events a stream already has.

use std::sync::Arc;

use super::Stream;
use crate::catalog::{ForkGuard, Lineage};
use crate::change::{Fork, Rewind};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{FrameHead, GENERATION_MAX};
use crate::options::{Overflow, StreamOptions};
use crate::sabotage::{Sabotage, broken};
use crate::types::{Seq, StreamId, StreamState};

/// Mark among the buffered events of a handle: see [`Stream::savepoint`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Savepoint {
    stream: StreamId,
    /// Number of the handle that made the mark.
    handle: u32,
    /// Number of events appended to that handle before the mark. Not a seq: a leader may rebase
    /// buffered events.
    mark: u64,
}

impl Stream {
    /// Creates a stream that begins with this stream's events before `seq`. The fork shares the
    /// committed events and copies the buffered ones into its own ring, so its cost does not depend
    /// on the length of the stream. Nothing reaches the disk before the fork's first commit (P2).
    /// Afterwards the two streams are independent. The fork inherits the events and the start of a
    /// trimmed stream, but not its name, labels, data or state: it begins active, unnamed and
    /// without labels.
    ///
    /// A stream that is volatile, archived, or has commits in flight can be forked as well.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::SeqOutOfRange`] when `seq` is after the head; [`ErrorKind::Trimmed`] when it is
    /// before the start; [`ErrorKind::Refused`] when the buffered events do not fit the new ring;
    /// [`ErrorKind::Conflict`] when another handle has rewound the events to be shared;
    /// [`ErrorKind::Deleted`]; [`ErrorKind::Closed`].
    pub fn fork_at(&self, seq: impl Into<Seq>) -> Result<Self> {
        self.fork_with(seq, &StreamOptions::new())
    }

    /// Forks like [`Stream::fork_at`], with options for the new stream, such as its name.
    ///
    /// # Errors
    ///
    /// Fails like [`Stream::fork_at`] and [`crate::Log::create_stream_with`].
    pub fn fork_with(&self, seq: impl Into<Seq>, options: &StreamOptions) -> Result<Self> {
        self.check_alive("fork")?;
        let seq = self.check_seq(seq.into(), "fork")?;
        let (volatile, durable_end) = self.volatile();
        let mut child = Self::create(self.core.clone(), options)?;
        let (start, end) = (self.start(), seq.min(durable_end));
        let (fork, shared) = self.keep_shared(end);
        self.check_shares(fork)?;
        child.generation = fork.map_or(0, |fork| fork.generation);
        child.note(|change| {
            change.fork = fork;
            change.shared = shared;
            change.parent = Some((self.id, seq));
            change.start = (start > 0).then_some(start);
        });
        child.next = end;
        // A fork that cannot hold all events is refused, whatever its ring does later.
        let overflow = child.ring.set_overflow(Overflow::Reject);
        for mut batch in volatile {
            let dropped = batch.dropped();
            let dropped = dropped.min(seq.saturating_sub(batch.first_seq() - dropped));
            child.ring.skip(dropped);
            child.next += dropped;
            while batch.holds(child.next) && child.next < seq {
                let event = batch.next(child.next).ok_or_else(|| {
                    Error::new(ErrorKind::Corrupt { stream: Some(self.id), seqs: None }, "fork")
                })?;
                let head = FrameHead {
                    payload_bytes: event.payload().len() as u32,
                    kind: event.kind(),
                    schema_version: event.schema_version(),
                    codec: event.codec(),
                    time: event.time(),
                };
                let refused = |reason| Error::new(ErrorKind::Refused(reason), "fork");
                child.ring.admits(event.payload().len()).map_err(refused)?;
                child.ring.push_over(&head, event.payload()).map_err(refused)?;
                child.next += 1;
            }
        }
        child.ring.set_overflow(overflow);
        // A trailing gap: no event follows it yet.
        let dropped = seq.saturating_sub(child.next);
        child.ring.skip(dropped);
        child.next += dropped;
        Ok(child)
    }

    /// Pins the events that a fork shares until the fork is committed or dropped.
    fn keep_shared(&self, end: u64) -> (Option<Fork>, Option<Arc<ForkGuard>>) {
        let fork = self.shared(end);
        (fork, fork.map(|fork| self.core.catalog.share(fork)))
    }

    /// Returns the reason why the events this handle sees may be reclaimed: the stream was deleted,
    /// or another handle has rewound it. A caller that relies on the events pins them first (with a
    /// read view or a fork's guard) and checks afterwards.
    pub(super) fn overtaken(&self) -> Option<ErrorKind> {
        let baseline = self.core.catalog.baseline(self.root()?)?;
        if baseline.state == StreamState::Deleted {
            return Some(ErrorKind::Deleted(self.id));
        }
        let (expected, actual) = (Seq(self.end()), Seq(baseline.head));
        let is_behind = baseline.generation > self.seen_generation();
        is_behind.then_some(ErrorKind::Conflict { stream: self.id, expected, actual })
    }

    /// Checks, after the pin, that the shared events still exist. A prefix survives a rewind of the
    /// rest.
    fn check_shares(&self, fork: Option<Fork>) -> Result<()> {
        let Some(overtaken) = self.overtaken() else { return Ok(()) };
        let is_there = match overtaken {
            ErrorKind::Deleted(_) => false,
            _ => fork.is_none_or(|fork| self.is_shared_now(fork)),
        };
        if is_there { Ok(()) } else { Err(Error::new(overtaken, "fork")) }
    }

    /// Returns whether the stream currently contains the events that the fork shares.
    fn is_shared_now(&self, fork: Fork) -> bool {
        let catalog = &self.core.catalog;
        let find = || {
            let root = self.root()?;
            let now = Lineage::new(catalog.tip(root), catalog.baseline(root)?.head);
            catalog.branch(catalog.piece(now, fork.seq.checked_sub(1)?)?.branch)
        };
        find().is_some_and(|branch| {
            (branch.stream, branch.generation()) == (fork.base, fork.base_generation)
        })
    }

    /// Returns the base of a fork at `end`; `None` when no durable event is before it.
    fn shared(&self, end: u64) -> Option<Fork> {
        let lineage = self.lineage(end);
        // If all earlier events were trimmed, the fork's own base may be gone.
        let found = self.core.catalog.piece(lineage, end.checked_sub(1)?);
        let branch = found.map(|piece| piece.branch).or(lineage.tip)?;
        let branch = self.core.catalog.branch(branch)?;
        let (base, generation) = (branch.stream, branch.generation());
        Some(Fork { base, base_generation: generation, seq: end, generation })
    }

    /// Drops the events from `to` on, whether buffered, in flight or committed. Buffered events
    /// never reach the disk. The others are dropped by the next commit, which starts a new
    /// generation; read views taken before that commit, and forks, keep them. Events appended after
    /// the rewind are part of that commit: it replaces the end of the stream, all or nothing.
    ///
    /// Commits in flight complete first. If one fails, its events return to the ring without those
    /// that the rewind drops. After a rewind into events in flight, the next commit fails with
    /// [`ErrorKind::Conflict`] if their leader gave them other seqs
    /// ([`Expect::Any`](crate::Expect::Any)); the rewind stays pending, and the commit after that
    /// one drops the events for which it was meant.
    ///
    /// By default the commit fails with [`ErrorKind::Conflict`] if another handle has moved the
    /// stream (P8). **With [`Expect::Any`](crate::Expect::Any),
    /// [`Expect::Exists`](crate::Expect::Exists) or a matching [`Expect::At`](crate::Expect::At),
    /// the commit of a stale handle drops every event from `to` on, including those of other
    /// handles that this handle never saw.**
    ///
    /// # Errors
    ///
    /// [`ErrorKind::SeqOutOfRange`] when `to` is after the head; [`ErrorKind::Trimmed`] when it is
    /// before the start; [`ErrorKind::Archived`]; [`ErrorKind::Deleted`]; [`ErrorKind::Closed`].
    /// [`ErrorKind::InvalidOption`] when the stream has been rewound 16,777,215 times.
    pub fn rewind(&mut self, to: impl Into<Seq>) -> Result<()> {
        self.look_again();
        self.check_alive("rewind")?;
        if self.state == StreamState::Archived {
            return Err(Error::new(ErrorKind::Archived(self.id), "rewind"));
        }
        // In this handle's own count: leaders may be moving the events in flight at this moment.
        let end = self.next;
        let to = self.check_before(to.into(), end, "rewind")?;
        if let Some(keep) = self.ring_len().checked_sub(end - to) {
            self.ring.cut(keep);
            self.next -= end - to;
            return Ok(());
        }
        if self.is_volatile() {
            self.ring.discard();
            self.next = to;
            self.share_less(to);
            return Ok(());
        }
        if self.generation >= GENERATION_MAX {
            let what = "a stream can be rewound at most 16,777,215 times";
            return Err(Error::new(ErrorKind::InvalidOption(what), "rewind"));
        }
        let seen = self.counted().before();
        self.ring.discard();
        self.next = to;
        self.note(|change| change.rewind = Some(Rewind { to, seen }));
        Ok(())
    }

    /// Trims the events before `to`, buffered, in flight or committed: this handle no longer shows
    /// them, and for others the next commit removes them, together with a pending rewind and the
    /// buffered events, all or nothing. Rewinding and trimming to the same seq removes all events;
    /// appending a summary and trimming to its seq replaces them by it. Read views taken before the
    /// commit, and forks, keep what they show. Trimming before the current start changes nothing.
    ///
    /// From now on this handle returns [`ErrorKind::Trimmed`] when asked to read, fork or rewind
    /// before `to`. Buffered events before `to` are still committed, since seqs are dense; if they
    /// are discarded instead, the stream starts at its new head. [`Stream::discard`] does not
    /// revoke a trim of other events.
    ///
    /// Commits in flight complete first. If one of them or the trim's own commit fails, the trim
    /// stays pending and the next commit includes it.
    ///
    /// Whatever its commit expects ([`Expect`](crate::Expect)), a trim removes only events that
    /// this handle saw. The commit fails with [`ErrorKind::Conflict`] when another handle has
    /// rewound the stream since; the trim stays pending, and conflicts again, until it is repeated
    /// on a handle that has seen the new generation. The commit also conflicts when `to` is after
    /// the durable head and the leader places the buffered events or those in flight elsewhere;
    /// once those in flight have settled, the next commit trims the events that were meant.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::SeqOutOfRange`] when `to` is after the head; [`ErrorKind::Deleted`];
    /// [`ErrorKind::Closed`].
    pub fn trim(&mut self, to: impl Into<Seq>) -> Result<()> {
        self.look_again();
        self.check_alive("trim")?;
        // The handle's own count, as in `rewind`: leaders move seqs in flight.
        let to = self.check_head(to.into(), self.next, "trim")?;
        let taken = self.taken_start();
        self.note(|draft| {
            let before = draft.start.filter(|_| !draft.regrown);
            draft.start = before.max(Some(to)).filter(|start| *start > taken);
            draft.regrown = false;
        });
        Ok(())
    }

    /// Makes a fork that was never committed share only the events before `to`, which is before its
    /// fork point.
    pub(super) fn share_less(&mut self, to: u64) {
        let fork = self.shared(to);
        self.generation = fork.map_or(0, |fork| fork.generation);
        self.note(|change| (change.fork, change.rewind) = (fork, None));
    }

    /// Discards the buffered events that no commit has taken. Returns their number, including those
    /// that an overwriting ring had already dropped.
    ///
    /// Discards events only: a rewind, trim, name or label that awaits the next commit stays
    /// pending. To withdraw those as well, drop the handle and open the stream again.
    pub fn discard(&mut self) -> u64 {
        self.reap();
        let gone = self.ring.discard();
        self.next -= gone;
        self.cap_start(self.end());
        gone
    }

    /// Limits a pending trim to the events before `end`.
    pub(super) fn cap_start(&mut self, end: u64) {
        let asked = self.change.as_ref().and_then(|change| change.start);
        if asked.is_some_and(|start| start > end) {
            let is_news = end > self.taken_start();
            self.note(|change| change.start = is_news.then_some(end));
        }
    }

    /// Marks the current end of the buffered events, for [`Stream::discard_to`].
    #[must_use]
    pub fn savepoint(&self) -> Savepoint {
        Savepoint { stream: self.id, handle: self.number, mark: self.mark() }
    }

    /// Discards the events that were buffered since the savepoint and that no commit has taken.
    /// Returns their number. The savepoint stays valid and can be used again. Events of a commit in
    /// flight count as taken; if that commit fails, they return to the ring, and the savepoint
    /// covers them again.
    ///
    /// A savepoint identifies events buffered by this handle, not a seq: a leader may move commits
    /// to other seqs ([`Expect::Any`](crate::Expect::Any)), and the events of a failed commit
    /// return. If the handle has since discarded events from before the savepoint
    /// ([`Stream::rewind`], an earlier savepoint, [`Stream::discard`]) and appended others, the
    /// savepoint keeps the same number of events that preceded it originally.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::SeqOutOfRange`] when a commit has taken events since the savepoint, or events
    /// from before it were discarded; [`ErrorKind::InvalidOption`] when the savepoint belongs to
    /// another stream or another handle; [`ErrorKind::Deleted`]; [`ErrorKind::Closed`].
    pub fn discard_to(&mut self, savepoint: Savepoint) -> Result<u64> {
        self.reap();
        self.check_alive("discard")?;
        if (savepoint.stream, savepoint.handle) != (self.id, self.number) {
            let what = "the savepoint belongs to another stream or another handle";
            return Err(Error::new(ErrorKind::InvalidOption(what), "discard"));
        }
        let gone = self.mark().wrapping_sub(savepoint.mark);
        let Some(keep) = self.ring_len().checked_sub(gone) else {
            let end = self.end();
            let (asked, range) =
                (Seq(end.wrapping_sub(gone)), Seq(end - self.ring_len())..Seq(end));
            return Err(Error::new(ErrorKind::SeqOutOfRange { asked, range }, "discard"));
        };
        self.ring.cut(keep);
        self.next -= gone;
        self.cap_start(self.end());
        Ok(gone)
    }

    /// End of the buffered events in this handle's own count, which does not change when a leader
    /// rebases them.
    fn mark(&self) -> u64 {
        if broken(Sabotage::SaveSeqs) {
            return self.next;
        }
        self.next.wrapping_sub(self.in_flight.moved())
    }

    fn check_seq(&self, seq: Seq, operation: &'static str) -> Result<u64> {
        self.check_before(seq, self.end(), operation)
    }

    fn check_before(&self, seq: Seq, end: u64, operation: &'static str) -> Result<u64> {
        let (seq, start) = (self.check_head(seq, end, operation)?, Seq(self.start()));
        if seq < start.get() {
            return Err(Error::new(ErrorKind::Trimmed { stream: self.id, start }, operation));
        }
        Ok(seq)
    }

    fn check_head(&self, seq: Seq, end: u64, operation: &'static str) -> Result<u64> {
        if seq.get() > end {
            let range = Seq(self.start())..Seq(end);
            return Err(Error::new(ErrorKind::SeqOutOfRange { asked: seq, range }, operation));
        }
        Ok(seq.get())
    }
}
