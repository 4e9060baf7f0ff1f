//! Fork, rewind, and discarding to a savepoint: what becomes of the events that are there already.

use std::sync::Arc;

use super::{Stream, committed};
use crate::catalog::{Fork, LogPlace, Rewind, Shared};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{FrameHead, GENERATION_MAX};
use crate::options::StreamOptions;
use crate::types::{Seq, StreamId, StreamState};

/// A place in what a stream has buffered, to come back to: see [`Stream::savepoint`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Savepoint {
    stream: StreamId,
    seq: u64,
}

impl Stream {
    /// A new stream that begins with this one's events before `seq`. It copies nothing that is committed, and takes
    /// the same time however long the stream is; what is buffered here is copied into its ring. Nothing is on
    /// disk before its own first commit (P2). From here on each goes its own way.
    ///
    /// It works while this stream is volatile, archived, or has commits under way.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::SeqOutOfRange`] when `seq` lies behind the head, [`ErrorKind::Trimmed`] when it lies before the
    /// start; [`ErrorKind::Refused`] when what is buffered does not fit in the new ring; [`ErrorKind::Conflict`] when
    /// somebody else has rewound what was to be shared; [`ErrorKind::Deleted`]; [`ErrorKind::Closed`].
    pub fn fork_at(&self, seq: impl Into<Seq>) -> Result<Self> {
        self.fork_with(seq, &StreamOptions::new())
    }

    /// As [`Stream::fork_at`], with a ring of its own kind, or a name.
    ///
    /// # Errors
    ///
    /// As [`Stream::fork_at`] and [`crate::Log::stream_with`].
    pub fn fork_with(&self, seq: impl Into<Seq>, options: &StreamOptions) -> Result<Self> {
        self.check_alive("fork")?;
        let seq = self.check_seq(seq.into(), "fork")?;
        let (volatile, durable_end) = self.volatile();
        let mut child = Self::create(Arc::clone(&self.core), options)?;
        let (start, end) = (self.start(), seq.min(durable_end));
        let (fork, shared) = self.keep_shared(end);
        self.check_shares(fork)?;
        child.generation = fork.map_or(0, |fork| fork.generation);
        child.note(|change| {
            change.fork = fork;
            change.shared = shared;
            change.parent = Some((self.id, seq));
            change.start = (start > 0).then_some(start);
        })?;
        child.next = end;
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
                    codec: event.codec(),
                    time: event.time(),
                };
                let refused = |reason| Error::new(ErrorKind::Refused(reason), "fork");
                child.ring.admits(event.payload().len()).map_err(refused)?;
                child.ring.push_over(&head, event.payload()).map_err(refused)?;
                child.next += 1;
            }
        }
        // A gap that nothing stands behind yet.
        let dropped = seq.saturating_sub(child.next);
        child.ring.skip(dropped);
        child.next += dropped;
        Ok(child)
    }

    /// What a fork shares, kept until the fork is committed or gone. The stream may move to a file meanwhile: then
    /// it is asked for once more, and shares that.
    fn keep_shared(&self, end: u64) -> (Option<Fork>, Option<Arc<Shared>>) {
        loop {
            let fork = self.shared(end);
            let shared = fork.map(|fork| self.core.catalog.share(fork));
            if self.shared(end) == fork {
                return (fork, shared);
            }
        }
    }

    /// Why what this handle sees of the stream is kept no longer: the stream was deleted, or rewound by somebody
    /// else. Whoever relies on its events says so first (a snapshot, a fork's share) and asks then.
    pub(super) fn overtaken(&self) -> Option<ErrorKind> {
        let standing = self.core.catalog.standing(self.root()?)?;
        if standing.state == StreamState::Deleted {
            return Some(ErrorKind::Deleted(self.id));
        }
        let (expected, actual) = (Seq(self.end()), Seq(standing.head));
        let is_behind = standing.generation > self.seen_generation();
        is_behind.then_some(ErrorKind::Conflict { expected, actual })
    }

    /// Whether what a fork is about to share is still there, now that it was said to be shared: that part of the
    /// stream may be there although the rest was rewound.
    fn check_shares(&self, fork: Option<Fork>) -> Result<()> {
        let Some(overtaken) = self.overtaken() else { return Ok(()) };
        let is_there = match overtaken {
            ErrorKind::Deleted(_) => false,
            _ => fork.is_none_or(|fork| self.is_shared_now(fork)),
        };
        if is_there { Ok(()) } else { Err(Error::new(overtaken, "fork")) }
    }

    /// Whether the stream, as it stands, has the events that the fork shares.
    fn is_shared_now(&self, fork: Fork) -> bool {
        let catalog = &self.core.catalog;
        let find = || {
            let root = self.root()?;
            let now =
                catalog.lineage(catalog.tip(root), catalog.standing(root)?.head, LogPlace::LAST);
            catalog.branch(now.piece(fork.seq.checked_sub(1)?)?.branch)
        };
        find().is_some_and(|branch| {
            (branch.stream, branch.generation()) == (fork.base, fork.base_generation)
        })
    }

    /// What a fork shares that takes the durable events before `end`; `None` when there are none.
    fn shared(&self, end: u64) -> Option<Fork> {
        let lineage = self.lineage(end, LogPlace::LAST);
        // Where all before it was trimmed, what it was forked from may be gone.
        let found = lineage.piece(end.checked_sub(1)?);
        let piece = found.or_else(|| lineage.pieces().next())?;
        let branch = self.core.catalog.branch(piece.branch)?;
        let (base, generation) = (branch.stream, branch.generation());
        Some(Fork { base, base_generation: generation, seq: end, generation })
    }

    /// Drops the events from `to` on, buffered or committed. Of what is only buffered nothing is ever on disk. What is
    /// committed is dropped by the next commit, with which a new generation starts: who pinned a snapshot before
    /// that still sees it, and so does every fork.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::SeqOutOfRange`] when `to` lies behind the head, [`ErrorKind::Trimmed`] when it lies before the
    /// start; [`ErrorKind::CommitInFlight`] when a commit is under way and `to` lies before what it left;
    /// [`ErrorKind::Archived`]; [`ErrorKind::Deleted`]; [`ErrorKind::Closed`].
    pub fn rewind(&mut self, to: impl Into<Seq>) -> Result<()> {
        self.look_again();
        self.check_alive("rewind")?;
        if self.state == StreamState::Archived {
            return Err(Error::new(ErrorKind::Archived(self.id), "rewind"));
        }
        let to = self.check_seq(to.into(), "rewind")?;
        let ring_start = self.ring_start();
        if to >= ring_start {
            self.ring.cut(to - ring_start);
            self.next = to;
            return Ok(());
        }
        if !self.in_flight.is_empty() {
            return Err(Error::new(ErrorKind::CommitInFlight(self.id), "rewind"));
        }
        if self.root.is_none() {
            return self.rewind_fork(to);
        }
        if self.generation >= GENERATION_MAX {
            let what = "a stream is rewound at most 16,777,215 times";
            return Err(Error::new(ErrorKind::InvalidOption(what), "rewind"));
        }
        self.ring.discard();
        self.next = to;
        self.note(|change| {
            let seen = change.rewind.map_or(ring_start, |rewind| rewind.seen);
            change.rewind = Some(Rewind { to, seen });
        })
    }

    /// A fork that was never committed goes back behind where it was forked: it shares less.
    fn rewind_fork(&mut self, to: u64) -> Result<()> {
        let shared = self.shared(to);
        self.ring.discard();
        self.next = to;
        self.generation = shared.map_or(0, |fork| fork.generation);
        self.note(|change| change.fork = shared)
    }

    /// Forgets what is buffered and no commit has taken. Returns how many events that were, with those that
    /// an overwriting ring had dropped before.
    ///
    /// Only events: a rewind, a name or a label that waits for the next commit goes on waiting.
    pub fn discard(&mut self) -> u64 {
        self.reap();
        let gone = self.ring.discard();
        self.next -= gone;
        self.cap_start(self.next);
        gone
    }

    /// Seqs from `end` on are not there to be forgotten, or not any more.
    pub(super) fn cap_start(&mut self, end: u64) {
        let asked = self.change.as_ref().and_then(|change| change.start);
        if asked.is_some_and(|start| start > end) {
            let _ = self.note(|change| change.start = (end > 0).then_some(end));
        }
    }

    /// Marks where the stream stands now, to discard what comes after: see [`Stream::discard_to`].
    #[must_use]
    pub fn savepoint(&self) -> Savepoint {
        Savepoint { stream: self.id, seq: self.end() }
    }

    /// Forgets what was buffered since the savepoint; nothing that a commit has taken. Returns how many events
    /// that were. The savepoint stays good, to come back to again.
    ///
    /// A savepoint is a seq. When the stream has gone back behind it meanwhile ([`Stream::rewind`], an earlier
    /// savepoint, [`Stream::discard`]) and has grown again, what now stands before that seq is kept.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::SeqOutOfRange`] when a commit has taken events since then, or they were discarded already;
    /// [`ErrorKind::InvalidOption`] when it is a savepoint of another stream; [`ErrorKind::Deleted`];
    /// [`ErrorKind::Closed`].
    pub fn discard_to(&mut self, savepoint: Savepoint) -> Result<u64> {
        self.reap();
        self.check_alive("discard")?;
        if savepoint.stream != self.id {
            let what = "the savepoint is of another stream";
            return Err(Error::new(ErrorKind::InvalidOption(what), "discard"));
        }
        let first = self.ring_start();
        if !(first..=self.next).contains(&savepoint.seq) {
            let (asked, range) = (Seq(savepoint.seq), Seq(first)..Seq(self.next));
            return Err(Error::new(ErrorKind::SeqOutOfRange { asked, range }, "discard"));
        }
        let gone = self.next - savepoint.seq;
        self.ring.cut(savepoint.seq - first);
        self.next = savepoint.seq;
        self.cap_start(self.next);
        Ok(gone)
    }

    /// The generation that its durable events are of: without rewinds that are under way, or that failed. Another handle
    /// may have begun the one that they would begin.
    pub(super) fn seen_generation(&self) -> u32 {
        let under_way = self.in_flight.iter().filter(|pending| !committed(pending));
        let parts = under_way.flat_map(|pending| pending.parts());
        let own = parts.filter(|part| part.stream == self.id);
        let rewinds = own.filter_map(|part| part.change()?.rewind).count();
        self.generation() - rewinds as u32
    }

    /// The seq behind what is durable, as far as this handle knows.
    pub(super) fn durable_end(&self) -> u64 {
        self.laid_out().0
    }

    fn check_seq(&self, seq: Seq, operation: &'static str) -> Result<u64> {
        let (start, head) = (Seq(self.start()), Seq(self.end()));
        if seq > head {
            let kind = ErrorKind::SeqOutOfRange { asked: seq, range: start..head };
            return Err(Error::new(kind, operation));
        }
        if seq < start {
            return Err(Error::new(ErrorKind::Trimmed { stream: self.id, start }, operation));
        }
        Ok(seq.get())
    }
}
