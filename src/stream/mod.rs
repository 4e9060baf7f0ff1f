//! The handle of one stream: append, commit and read. The files below hold its other verbs.

#[cfg(all(test, feature = "sim", not(any(amberlog_loom, amberlog_shuttle))))]
mod accounting;
mod branching;
mod commit_all;
mod in_flight;
mod lifecycle;
mod metadata;
mod new_event;
mod next_change;
mod reading;
#[cfg(feature = "json")]
mod restore;
mod settling;

use std::sync::Arc;

pub use self::branching::Savepoint;
pub(crate) use self::commit_all::Idle;
use self::in_flight::{Counted, InFlight};
pub(crate) use self::metadata::check_name;
pub use self::new_event::NewEvent;
use self::next_change::NextChange;
use crate::catalog::ReadView;
use crate::change::Change;
use crate::commit::{Part, Pending, Placement, Precondition, Ticket};
use crate::engine::{Engine, Handle};
use crate::error::{AppendError, Error, ErrorKind, Rejected, Result};
use crate::format::{COMMIT_BYTES_MAX, FrameHead, SEQ_MAX};
use crate::index::ArenaId;
use crate::options::{CommitOptions, Expect, Overflow, RING_BYTES_MIN, StreamOptions};
use crate::ring::{Filled, Limits, Ring};
use crate::sabotage::{Sabotage, broken};
use crate::types::{Seq, StreamId, StreamState};

/// Writable handle of a stream, which is volatile until its first commit.
///
/// [`append`](Stream::append), [`rewind`](Stream::rewind), [`trim`](Stream::trim),
/// [`rename`](Stream::rename), [`clear_name`](Stream::clear_name),
/// [`set_label`](Stream::set_label), [`remove_label`](Stream::remove_label) and
/// [`set_data`](Stream::set_data) change memory only; the next [`commit`](Stream::commit) makes
/// all of it durable, atomically. [`archive`](Stream::archive), [`unarchive`](Stream::unarchive)
/// and [`delete`](Stream::delete) each commit at once.
///
/// Writing takes `&mut`, so a handle has one writer. Dropping the handle drops uncommitted events;
/// commits in flight complete.
#[derive(Debug)]
pub struct Stream {
    id: StreamId,
    core: Handle,
    ring: Ring,
    /// Seq of the next event.
    next: u64,
    /// Generation of the buffered events, before any pending rewind.
    generation: u32,
    /// First branch, once the stream is durable.
    root: Option<ArenaId>,
    /// Metadata changes that the next commit includes.
    change: Option<Box<NextChange>>,
    /// State, as this handle last saw it.
    state: StreamState,
    /// Number that is unique among the handles of the log.
    number: u32,
    /// Commits that still hold a buffer of the ring, oldest first.
    in_flight: InFlight,
    /// True if a leader may rebase one of them, and with it the events in the ring.
    may_move: bool,
}

impl Stream {
    pub(crate) fn create(core: Handle, options: &StreamOptions) -> Result<Self> {
        let mut stream = match options.id {
            Some(id) => Self::of_id(&core, id, options, "create stream")?,
            None => {
                let limits = limits(&core, options, "create stream")?;
                let id = StreamId::new_at(core.clock.now(&*core.disk));
                core.volatile.add(id);
                Self::with(core, id, limits)
            }
        };
        if let Some(name) = &options.name {
            stream.rename(name)?;
        }
        Ok(stream)
    }

    /// Creates a volatile stream with this id. Fails if the log has or had a stream with it,
    /// committed or not.
    pub(crate) fn of_id(
        core: &Handle,
        id: StreamId,
        options: &StreamOptions,
        operation: &'static str,
    ) -> Result<Self> {
        let limits = limits(core, options, operation)?;
        if id.as_bytes() == &[0; 16] {
            let what = "the stream id of sixteen zero bytes is reserved";
            return Err(Error::new(ErrorKind::InvalidOption(what), operation));
        }
        // Reserved before the look: a stream that stops being volatile is in the catalog.
        if !core.volatile.add(id) {
            return Err(Error::new(ErrorKind::StreamExists(id), operation));
        }
        if let Some(root) = core.catalog.root(id) {
            core.volatile.remove(id);
            let version = core.catalog.version(root);
            let is_deleted = version.is_some_and(|it| it.state == StreamState::Deleted);
            let exists = ErrorKind::StreamExists(id);
            let kind = if is_deleted { ErrorKind::Deleted(id) } else { exists };
            return Err(Error::new(kind, operation));
        }
        Ok(Self::with(core.clone(), id, limits))
    }

    pub(crate) fn open(core: &Handle, id: StreamId, options: &StreamOptions) -> Result<Self> {
        let refused = |what| Err(Error::new(ErrorKind::InvalidOption(what), "open stream"));
        if options.name.is_some() {
            return refused("a stream cannot be named when it is opened; use `rename`");
        }
        if options.id.is_some() {
            return refused("a stream that is opened has its id");
        }
        let limits = limits(core, options, "open stream")?;
        // Checked before the view is taken: a stream that stops being volatile is in the view.
        let is_volatile = core.volatile.contains(id);
        let view = ReadView::new(Arc::clone(&core.catalog));
        // The visible head, not the written one: the handle reads its own stream up to it.
        let Some(stream_view) = view.view(id) else {
            let kind = match is_volatile {
                true => ErrorKind::NotMaterialized { stream: id, buffered: None },
                false => ErrorKind::UnknownStream(id),
            };
            return Err(Error::new(kind, "open stream"));
        };
        if stream_view.state() == StreamState::Deleted {
            return Err(Error::new(ErrorKind::Deleted(id), "open stream"));
        }
        if stream_view.head > SEQ_MAX {
            let seqs = Some(Seq(SEQ_MAX)..Seq(stream_view.head));
            let kind = ErrorKind::Corrupt { stream: Some(id), seqs };
            return Err(Error::new(kind, "open stream"));
        }
        let mut stream = Self::with(core.clone(), id, limits);
        stream.next = stream_view.head;
        stream.generation = core.catalog.branch(stream_view.tip).map_or(0, |tip| tip.generation());
        stream.root = core.catalog.root(id);
        stream.enter_state(stream_view.state());
        Ok(stream)
    }

    fn with(core: Handle, id: StreamId, limits: Limits) -> Self {
        let ring = Ring::new(limits, Arc::clone(&core.budget));
        Self {
            id,
            ring,
            next: 0,
            generation: 0,
            root: None,
            change: None,
            state: StreamState::Active,
            number: core.number_handle(),
            in_flight: InFlight::default(),
            may_move: false,
            core,
        }
    }

    /// Returns the stream's id, which exists before its first commit.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// Returns the path of the stream's archive file, relative to the log:
    /// [`StreamId::archive_path`].
    #[must_use]
    pub fn archive_path(&self) -> std::path::PathBuf {
        self.id.archive_path()
    }

    /// Returns whether at least one commit of the stream is in the log.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.root().is_some()
    }

    /// Returns the seq of the next event: the stream's length as this handle sees it, with buffered
    /// events, pending rewinds and dropped events.
    #[must_use]
    pub fn head(&self) -> Seq {
        Seq(self.end())
    }

    /// Returns the first branch, once the stream is durable.
    fn root(&self) -> Option<ArenaId> {
        self.root.or_else(|| self.core.catalog.root(self.in_flight.landed()?.stream))
    }

    /// Returns the stream's state, with pending changes unless their commit failed.
    #[must_use]
    pub fn state(&self) -> StreamState {
        let asked = self.change.as_ref().and_then(|change| change.state);
        if !self.in_flight.has_failed() || asked.is_some() {
            return self.state;
        }
        let Some(root) = self.root() else {
            let first = self.in_flight.first_change();
            return first.and_then(|change| change.state).unwrap_or_default();
        };
        self.core.catalog.version(root).map_or(StreamState::Active, |version| version.state)
    }

    /// Returns the number of events that no commit has taken, or whose commit failed; 0 once a
    /// commit of this handle has deleted the stream.
    #[must_use]
    pub fn buffered(&self) -> u64 {
        if self.in_flight.has_deleted() {
            return 0;
        }
        self.in_flight.failed_events() + u64::from(self.ring.count())
    }

    /// Appends an event to the ring and returns its seq. This is a single copy: no system call, no
    /// lock and, once the ring has grown, no allocation. Nothing is durable before a commit (P2).
    ///
    /// ```
    /// fn record(stream: &mut amberlog::Stream, text: &str) -> amberlog::Result<()> {
    ///     stream.append(text)?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`AppendError`] if the ring or the log's memory is full, the event is too large, or the
    /// stream or log accepts no events. Nothing has changed.
    #[inline(always)]
    pub fn append<B: AsRef<[u8]>>(
        &mut self,
        event: impl Into<NewEvent<B>>,
    ) -> Result<Seq, AppendError> {
        self.push(&event.into())
    }

    /// Appends like [`Stream::append`], and hands a refused event back.
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the event and the reason of [`Stream::append`].
    #[inline(always)]
    pub fn try_append<B: AsRef<[u8]>>(
        &mut self,
        event: impl Into<NewEvent<B>>,
    ) -> Result<Seq, Rejected<NewEvent<B>>> {
        let event = event.into();
        self.push(&event).map_err(|error| Rejected { error, event })
    }

    #[inline(always)]
    fn push<B: AsRef<[u8]>>(&mut self, event: &NewEvent<B>) -> Result<Seq, AppendError> {
        let payload = event.payload.as_ref();
        if self.core.is_closed() {
            return Err(self.not_open());
        }
        if self.may_move {
            self.follow();
        }
        if self.ring.admits(payload.len()).is_err() {
            self.admit_again(payload.len())?;
        }
        let head = FrameHead {
            payload_bytes: payload.len() as u32,
            kind: event.kind,
            schema_version: event.schema_version,
            codec: event.codec,
            time: self.core.clock.now(&*self.core.disk),
        };
        if !self.ring.push(&head, payload) {
            self.push_after_all(&head, payload)?;
        }
        let seq = self.next;
        self.next += 1;
        Ok(Seq(seq))
    }

    /// Counts the next event from where leaders have put the commits that settled.
    #[cold]
    fn follow(&mut self) {
        self.reap();
        self.may_move = self.in_flight.may_move();
    }

    #[cold]
    fn not_open(&self) -> AppendError {
        match self.core.is_elsewhere() {
            true => AppendError::OtherProcess,
            false => AppendError::Closed,
        }
    }

    /// Reclaims the buffers of settled commits, and appends again.
    #[cold]
    fn push_after_all(&mut self, head: &FrameHead, payload: &[u8]) -> Result<(), AppendError> {
        self.reap();
        // A failed commit may have changed the state of the stream.
        if self.ring.admits(payload.len()).is_err() && !broken(Sabotage::AppendAfterAll) {
            self.admit_again(payload.len())?;
        }
        self.ring.push_over(head, payload)
    }

    /// Commits all buffered events and metadata changes, with the log's durability. [`Ticket`]
    /// explains when the commit runs.
    ///
    /// If there are none, nothing is written, and the ticket reports the outcome of the stream's
    /// earlier commits; an expectation other than [`Expect::Seen`] must hold even then.
    pub fn commit(&mut self) -> Ticket {
        self.commit_with(CommitOptions::new())
    }

    /// Commits like [`Stream::commit`], with options.
    pub fn commit_with(&mut self, options: CommitOptions) -> Ticket {
        if self.core.is_elsewhere() {
            return self.failed(ErrorKind::OtherProcess, "commit");
        }
        self.reap();
        if self.state == StreamState::Deleted {
            return self.failed(ErrorKind::Deleted(self.id), "commit");
        }
        let part = self.take_part();
        if part.is_none() && options.expect != Expect::Seen {
            return self.check(options);
        }
        self.submit(part, options)
    }

    /// Queues an empty commit, which only has to meet its expectation.
    fn check(&self, options: CommitOptions) -> Ticket {
        let check = Part { expect: options.expect, ..self.nothing() };
        let predecessors = self.in_flight.last().into_iter().collect();
        let pending = Pending::with_checks(Vec::new(), vec![check], options, predecessors);
        self.core.queue.submit(pending)
    }

    /// Queues a part after the handle's commits in flight.
    fn submit(&mut self, mut part: Option<Part>, mut options: CommitOptions) -> Ticket {
        part.iter_mut().for_each(|part| part.expect = options.expect);
        options.durability = options.durability.or(Some(self.core.options.durability));
        let pending = Pending::of_one(part, options, self.in_flight.last());
        self.in_flight.push(&pending, 0);
        self.may_move |= options.expect != Expect::Seen;
        self.core.queue.submit(pending)
    }

    /// Returns a ticket of a commit that was refused.
    fn failed(&self, kind: ErrorKind, operation: &'static str) -> Ticket {
        self.refused(Error::new(kind, operation))
    }

    fn refused(&self, error: Error) -> Ticket {
        match self.core.is_elsewhere() {
            true => Ticket::failed(error),
            false => self.core.queue.refuse(error),
        }
    }

    /// Returns the unsettled parts of this stream, followed by the change that is not yet
    /// committed.
    fn changes(&self) -> impl Iterator<Item = &Change> {
        self.in_flight.changes().chain(self.next_change())
    }

    /// Returns the first seq that is in no commit.
    fn ring_start(&self) -> u64 {
        self.counted().from
    }

    fn take_part(&mut self) -> Option<Part> {
        let filled = match self.ring.take() {
            Some(filled) => filled,
            None if self.change.is_some() => return self.take_change(),
            None => return None,
        };
        let first_seq = self.next - u64::from(filled.count);
        Some(self.part(filled, first_seq))
    }

    /// Takes the metadata changes, without events.
    fn take_change(&mut self) -> Option<Part> {
        let filled = self.ring.nothing();
        let end = self.ring_start();
        let trim = self.change.as_ref().map(|change| (change.start, change.regrown));
        let kept = trim.filter(|(start, _)| *start > Some(end));
        if kept.is_some() {
            // The commit that takes the buffered events, or their gap, trims them.
            self.cap_start(end);
        }
        let part = self.change.is_some().then(|| self.part(filled, end));
        if let Some(kept) = kept {
            self.note(|change| (change.start, change.regrown) = kept);
        }
        part
    }

    /// Takes the metadata changes, without a rewind or a trim: those are one commit with the events
    /// in the ring.
    fn take_metadata(&mut self) -> Part {
        let (filled, counted) = (self.ring.nothing(), self.counted());
        let regrown = self.change.as_ref().is_some_and(|change| change.regrown);
        self.note(|change| (change.rewind, change.start) = (None, None));
        let part = self.part(filled, counted.before());
        self.note(|change| {
            (change.rewind, change.start) = (counted.rewind, counted.start);
            change.regrown = regrown && change.start.is_some();
        });
        part
    }

    fn part(&mut self, filled: Filled, first_seq: u64) -> Part {
        let change = self.change.take();
        let from = first_seq - filled.dropped;
        let counted = Counted::new(from, change.as_ref().map(|next| &next.change));
        let before = self.in_flight.before().unwrap_or(counted.before());
        let names_volatile = match counted.rewind {
            Some(rewind) => rewind.to >= before,
            None => counted.start > Some(before),
        };
        let precondition = if names_volatile { Precondition::Seen } else { Precondition::None };
        self.generation += u32::from(counted.rewind.is_some());
        Part {
            stream: self.id,
            root: self.root,
            crc: filled.crc(),
            filled,
            placement: Placement::new(first_seq, self.generation),
            change: change.map(|next| Box::new(next.encoded(precondition))),
            expect: Expect::Seen,
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if broken(Sabotage::CommitUnasked) {
            drop(self.commit());
        }
        // A stream that was deleted while it was volatile has left its id to others.
        if self.root.is_none() && self.state != StreamState::Deleted {
            self.core.volatile.remove(self.id);
        }
    }
}

fn limits(core: &Engine, options: &StreamOptions, operation: &'static str) -> Result<Limits> {
    let ring_bytes_max = options.ring_bytes_max.unwrap_or(core.options.ring_bytes_max);
    let overflow = options.overflow.unwrap_or(core.options.overflow);
    let cap = match overflow {
        Overflow::Grow { ring_bytes_cap } => ring_bytes_cap.max(ring_bytes_max),
        _ => ring_bytes_max,
    };
    if ring_bytes_max < RING_BYTES_MIN {
        let what = "ring_bytes_max must be at least 64 bytes";
        return Err(Error::new(ErrorKind::InvalidOption(what), operation));
    }
    let event_bytes_max = options.event_bytes_max.or(core.options.event_bytes_max);
    let fits = cap.min((COMMIT_BYTES_MAX / 2) as usize) - crate::format::frame_header::BYTES;
    let event_bytes_max = event_bytes_max.unwrap_or(fits).min(fits);
    Ok(Limits { ring_bytes_max, event_bytes_max, overflow })
}
