//! The handle of one stream: append, commit, read; what a stream goes through beside that is in the files below.
//! Wiring only.

mod flight;
#[cfg(feature = "json")]
mod given;
mod meta;
mod past;
mod state;

use std::ops::Range;
use std::sync::Arc;

use self::flight::{InFlight, committed, rewind_of};
pub use self::past::Savepoint;
use crate::catalog::{Change, Lineage, LogPlace, Snapshot};
use crate::commit::{Encoded, Part, Pending, Seat, Ticket};
use crate::core::Core;
use crate::disk::Pinned;
use crate::error::{Error, ErrorKind, Refused, RefusedReason, Result};
use crate::format::{COMMIT_BYTES_MAX, FrameHead};
use crate::index::At;
use crate::options::{CommitOptions, Expect, Overflow, StreamOptions};
use crate::reader::{Batch, Events, Held};
use crate::ring::{Filled, Limits, Ring};
use crate::sabotage::{Sabotage, broken};
use crate::types::{CodecId, EventKind, Seq, Status, StreamId, StreamState, Timestamp};

/// No stream gets so long; one whose head says so is damaged.
const SEQ_MAX: u64 = u64::MAX / 2;

/// An event to append: a payload, what the program calls it, and how it is encoded.
///
/// Anything that lends bytes becomes one by itself: kind 0, raw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewEvent<B> {
    /// What the program calls it.
    pub kind: EventKind,
    /// The form of the payload.
    pub codec: CodecId,
    /// The bytes.
    pub payload: B,
}

impl<B: AsRef<[u8]>> NewEvent<B> {
    /// An event of this kind with a raw payload.
    pub fn new(kind: EventKind, payload: B) -> Self {
        Self { kind, codec: CodecId::RAW, payload }
    }

    /// The same with another codec.
    #[must_use]
    pub fn codec(mut self, codec: CodecId) -> Self {
        self.codec = codec;
        self
    }
}

impl<B: AsRef<[u8]>> From<B> for NewEvent<B> {
    fn from(payload: B) -> Self {
        Self::new(EventKind(0), payload)
    }
}

/// A writable handle to a stream: one writer, by type. It is volatile until its first commit.
///
/// Dropping it drops what was not committed; commits that were asked for happen all the same.
#[derive(Debug)]
pub struct Stream {
    id: StreamId,
    core: Arc<Core>,
    ring: Ring,
    /// The seq of the next event.
    next: u64,
    /// The one that the events are of which the next commit takes, but for a rewind that goes with it.
    generation: u32,
    /// Its first branch, once the stream is durable.
    root: Option<At>,
    /// What the next commit says of the stream beside its events.
    change: Option<Box<Change>>,
    /// What may be done with it, as this handle knows.
    state: StreamState,
    /// Commits whose buffers have not come back yet, oldest first.
    in_flight: InFlight,
}

impl Stream {
    pub(crate) fn create(core: Arc<Core>, options: &StreamOptions) -> Result<Self> {
        let limits = limits(&core, options, "stream")?;
        let id = StreamId::new();
        core.add_volatile(id);
        let mut stream = Self::with(core, id, limits);
        if let Some(name) = &options.name {
            stream.rename(name)?;
        }
        Ok(stream)
    }

    pub(crate) fn resume(core: &Arc<Core>, id: StreamId, options: &StreamOptions) -> Result<Self> {
        if options.name.is_some() {
            let what = "a durable stream keeps the name that it has";
            return Err(Error::new(ErrorKind::InvalidOption(what), "resume"));
        }
        let limits = limits(core, options, "resume")?;
        // First: what is not volatile any more is committed, and the snapshot shows it.
        let is_volatile = core.volatile.pin().contains_key(&id);
        let snapshot = Snapshot::new(Arc::clone(&core.catalog));
        // What is visible, not what is written: the handle reads its own stream up to there.
        let Some(view) = snapshot.view(id) else {
            let kind = match is_volatile {
                true => ErrorKind::NotMaterialized { stream: id, buffered: None },
                false => ErrorKind::UnknownStream(id),
            };
            return Err(Error::new(kind, "resume"));
        };
        if view.state() == StreamState::Deleted {
            return Err(Error::new(ErrorKind::Deleted(id), "resume"));
        }
        if view.head > SEQ_MAX {
            let seqs = Some(Seq(SEQ_MAX)..Seq(view.head));
            let kind = ErrorKind::Corrupt { stream: Some(id), seqs };
            return Err(Error::new(kind, "resume"));
        }
        let mut stream = Self::with(Arc::clone(core), id, limits);
        stream.next = view.head;
        stream.generation = core.catalog.branch(view.tip).map_or(0, |tip| tip.generation());
        stream.root = core.catalog.root(id);
        stream.enter_state(view.state());
        Ok(stream)
    }

    fn with(core: Arc<Core>, id: StreamId, limits: Limits) -> Self {
        let ring = Ring::new(limits, Arc::clone(&core.budget));
        let (state, in_flight) = (StreamState::Active, InFlight::default());
        Self { id, core, ring, next: 0, generation: 0, root: None, change: None, state, in_flight }
    }

    /// The stream's id, known from the start.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// Where [`crate::Log::write_archive`] would put the stream: [`StreamId::archive_path`].
    #[must_use]
    pub fn archive_path(&self) -> std::path::PathBuf {
        self.id.archive_path()
    }

    /// Whether anything of it is on disk, and what may be done with it.
    #[must_use]
    pub fn status(&self) -> Status {
        let durable = self.root().is_some();
        match self.state() {
            StreamState::Deleted => Status::Deleted,
            StreamState::Archived if durable => Status::Archived,
            _ if durable => Status::Durable,
            _ => Status::Volatile,
        }
    }

    /// The seq that the next event gets: the stream's length, with what was dropped.
    #[must_use]
    pub fn head(&self) -> Seq {
        Seq(self.end())
    }

    /// Its first branch, once it is durable.
    fn root(&self) -> Option<At> {
        self.root.or_else(|| self.core.catalog.root(self.under_way().0?.stream))
    }

    /// What may be done with it; what was asked for counts unless it failed.
    fn state(&self) -> StreamState {
        let failed = self.in_flight.iter().any(|one| one.failed() == Some(true));
        let asked = self.change.as_ref().and_then(|change| change.state);
        if !failed || asked.is_some() {
            return self.state;
        }
        let Some(root) = self.root() else {
            let first = self.in_flight.front().into_iter().flat_map(|one| one.parts());
            let own = first.filter(|part| part.stream == self.id).find_map(Part::change);
            return own.and_then(|change| change.state).unwrap_or_default();
        };
        self.core.catalog.version(root).map_or(StreamState::Active, |version| version.state)
    }

    /// Events in memory that no commit has taken, or that came back from one that failed.
    #[must_use]
    pub fn buffered(&self) -> u64 {
        let failed = self.in_flight.iter().filter(|pending| pending.failed() == Some(true));
        let back = failed.flat_map(|pending| pending.parts());
        let back = back.filter(|part| part.stream == self.id);
        back.map(|part| u64::from(part.filled.count)).sum::<u64>() + u64::from(self.ring.count())
    }

    /// Puts an event in the ring and says which seq it got. One copy; no system call, no lock and, once
    /// the ring has its size, no allocation. Nothing is durable before a commit (P2).
    ///
    /// # Errors
    ///
    /// The event comes back, and nothing changed: the ring or the log's memory is full, the event is too
    /// large, the log is closed.
    #[inline(always)]
    pub fn append<B: AsRef<[u8]>>(
        &mut self,
        event: impl Into<NewEvent<B>>,
    ) -> Result<Seq, Refused<NewEvent<B>>> {
        let event = event.into();
        match self.push(&event) {
            Ok(seq) => Ok(seq),
            Err(reason) => Err(Refused { reason, event }),
        }
    }

    #[inline(always)]
    fn push<B: AsRef<[u8]>>(&mut self, event: &NewEvent<B>) -> Result<Seq, RefusedReason> {
        let payload = event.payload.as_ref();
        if self.ring.admits(payload.len()).is_err() {
            self.admit_again(payload.len())?;
        }
        if self.core.is_closed() {
            return Err(RefusedReason::Closed);
        }
        let head = FrameHead {
            payload_bytes: payload.len() as u32,
            kind: event.kind,
            codec: event.codec,
            time: Timestamp::from_micros(self.core.options.clock.now_micros()),
        };
        if !self.ring.push(&head, payload) {
            self.push_after_all(&head, payload)?;
        }
        let seq = self.next;
        self.next += 1;
        Ok(Seq(seq))
    }

    /// Takes back what commits have finished with, and makes room.
    #[cold]
    fn push_after_all(&mut self, head: &FrameHead, payload: &[u8]) -> Result<(), RefusedReason> {
        self.reap();
        self.ring.push_over(head, payload)
    }

    /// Promotes everything buffered and everything that was changed, as the log's options say. See [`Ticket`] for
    /// when it happens.
    ///
    /// With nothing buffered and nothing changed the ticket still tells the true state of the stream's earlier
    /// commits, and nothing is written.
    pub fn commit(&mut self) -> Ticket {
        self.commit_with(CommitOptions::new())
    }

    /// As [`Stream::commit`], with options.
    pub fn commit_with(&mut self, options: CommitOptions) -> Ticket {
        self.reap();
        if self.state == StreamState::Deleted {
            return self.failed(ErrorKind::Deleted(self.id), "commit");
        }
        let part = self.take_part();
        self.submit(part, options)
    }

    /// Queues a part behind those of this handle that are under way.
    fn submit(&mut self, part: Option<Part>, mut options: CommitOptions) -> Ticket {
        options.durability = options.durability.or(Some(self.core.options.durability));
        let pending = Pending::of_one(part, options, self.in_flight.back().cloned());
        if !pending.parts().is_empty() {
            self.in_flight.push_back(Arc::clone(&pending));
        }
        self.core.queue.submit(pending)
    }

    /// A ticket of a commit that is not even tried.
    fn failed(&self, kind: ErrorKind, operation: &'static str) -> Ticket {
        let pending = Pending::new(Vec::new(), CommitOptions::new(), Vec::new());
        pending.settle(Err(Error::new(kind, operation)));
        Ticket::settled(pending)
    }

    pub(crate) fn commit_all<'a>(
        core: &Arc<Core>,
        streams: impl IntoIterator<Item = &'a mut Self>,
        mut options: CommitOptions,
    ) -> Ticket {
        options.durability = options.durability.or(Some(core.options.durability));
        let mut streams: Vec<_> = streams.into_iter().collect();
        let foreign = streams.iter().any(|stream| !Arc::ptr_eq(&stream.core, core));
        let twice = {
            let mut ids: Vec<_> = streams.iter().map(|stream| stream.id).collect();
            ids.sort_unstable();
            ids.windows(2).any(|pair| pair[0] == pair[1])
        };
        if foreign || twice {
            let what = if foreign {
                "all streams of a commit belong to one log"
            } else {
                "a commit takes one handle of each stream"
            };
            let pending = Pending::new(Vec::new(), options, Vec::new());
            pending.settle(Err(Error::new(ErrorKind::InvalidOption(what), "commit")));
            return Ticket::settled(pending);
        }
        streams.iter_mut().for_each(|stream| stream.reap());
        if let Some(gone) = streams.iter().find(|stream| stream.state == StreamState::Deleted) {
            return gone.failed(ErrorKind::Deleted(gone.id), "commit");
        }
        let (mut parts, mut behind, mut members) = (Vec::new(), Vec::new(), Vec::new());
        for (index, stream) in streams.iter_mut().enumerate() {
            behind.extend(stream.in_flight.back().cloned());
            if let Some(part) = stream.take_part() {
                parts.push(part);
                members.push(index);
            }
        }
        let pending = Pending::new(parts, options, behind);
        for index in members {
            streams[index].in_flight.push_back(Arc::clone(&pending));
        }
        core.queue.submit(pending)
    }

    /// All events of the stream as this handle sees it: durable, then those in memory (P9). Each says
    /// which. What is in memory is copied as this is called.
    ///
    /// A handle does not know what others do: when the stream was deleted or rewound by another one, and that
    /// was collected, what is gone reads as [`ErrorKind::Deleted`] or [`ErrorKind::Conflict`] in its place.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Deleted`]; [`ErrorKind::Closed`].
    pub fn events(&self) -> Result<Events> {
        self.core.check_open("read")?;
        if self.state() == StreamState::Deleted {
            return Err(Error::new(ErrorKind::Deleted(self.id), "read"));
        }
        let (volatile, durable_end) = self.volatile();
        let snapshot = self.snapshot();
        let lineage = self.lineage(durable_end, snapshot.mark.end);
        let seqs = self.start().min(durable_end)..durable_end;
        let events = Events::durable(snapshot, self.id, lineage, seqs).then(volatile);
        Ok(events.from(self.start()).unless_overtaken(self.overtaken()))
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::new(Arc::clone(&self.core.catalog))
    }

    /// What is in memory: of commits under way, or that failed, and of the ring. And where it starts: in front of it the
    /// handle sees what is durable.
    fn volatile(&self) -> (Vec<Batch>, u64) {
        let mut volatile = Vec::new();
        let (mut at, behind) = self.laid_out();
        for part in behind {
            let (held, count) = (part.filled.hold(), u64::from(part.filled.count));
            if count > 0 && held.is_gone() {
                // Committed a moment ago, and so is everything before it.
                volatile.clear();
                at = part.end_seq();
                continue;
            }
            let first = rewind_of(part).map_or(at, |rewind| rewind.to) + part.filled.dropped;
            at = first + count;
            if count > 0 {
                volatile.push(self.batch(first, count, part.filled.dropped, held.slices()));
            }
        }
        let (count, dropped) = (u64::from(self.ring.count()), self.ring.dropped());
        if count > 0 {
            volatile.push(self.batch(at + dropped, count, dropped, self.ring.slices()));
        }
        let start = volatile.first().map_or(at, |one| one.first_seq() - one.dropped());
        (volatile, start)
    }

    fn batch(&self, first_seq: u64, count: u64, dropped: u64, slices: [&[u8]; 2]) -> Batch {
        let bytes = slices.concat();
        let frames: Range<usize> = 0..bytes.len();
        let pin = Arc::new(Pinned::Buffer(bytes));
        let (stream, generation, position) = (self.id, self.generation(), None);
        let held = Held { stream, first_seq, generation, position, dropped, pin };
        Batch::new(held, count, frames)
    }

    /// What is not settled yet of this stream's share of commits, and what is still to be asked for, oldest first.
    fn changes(&self) -> impl DoubleEndedIterator<Item = &Change> {
        self.under_way().1.filter_map(Part::change).chain(self.change.as_deref())
    }

    /// The branches that the durable events of this handle's view are in.
    fn lineage(&self, end: u64, limit: LogPlace) -> Lineage {
        let catalog = &self.core.catalog;
        if let Some(tip) = catalog.branch_of(self.id, self.seen_generation()) {
            return catalog.lineage(tip, end, limit);
        }
        let base = self.changes().find_map(|change| change.fork).and_then(|fork| {
            let tip = catalog.branch_of(fork.base, fork.base_generation)?;
            Some(catalog.lineage(tip, end.min(fork.seq), limit))
        });
        base.unwrap_or_default()
    }

    /// The first seq that is not forgotten.
    fn start(&self) -> u64 {
        let version = self.root().and_then(|root| self.core.catalog.version(root));
        let start = version.map_or(0, |version| version.start);
        // What failed and has a ticket of its own is not asked for any more; only a first commit has none of these.
        let is_durable = self.root().is_some();
        let asked = self.in_flight.iter().enumerate().filter(|(nth, one)| match one.failed() {
            None => true,
            Some(failed) => failed && !is_durable && *nth == 0,
        });
        let parts = asked.flat_map(|(_, one)| one.parts()).filter(|part| part.stream == self.id);
        let changes = parts.filter_map(Part::change).chain(self.change.as_deref());
        changes.filter_map(|change| change.start).fold(start, u64::max)
    }

    /// The first seq that no commit has taken.
    fn ring_start(&self) -> u64 {
        self.end() - u64::from(self.ring.count()) - self.ring.dropped()
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

    /// Everything but the events.
    fn take_change(&mut self) -> Option<Part> {
        let filled = self.ring.nothing();
        let end = self.ring_start();
        let kept = self.change.as_ref()?.start.filter(|start| *start > end);
        if kept.is_some() {
            // A gap that nothing stands behind yet is not committed, and so not forgotten before something does.
            self.cap_start(end);
        }
        let part = self.change.is_some().then(|| self.part(filled, end));
        if let Some(start) = kept {
            let _ = self.note(|change| change.start = Some(start));
        }
        part
    }

    fn part(&mut self, filled: Filled, first_seq: u64) -> Part {
        let change = self.change.take();
        let is_rewound = change.as_ref().is_some_and(|change| change.rewind.is_some());
        self.generation += u32::from(is_rewound);
        Part {
            stream: self.id,
            root: self.root,
            crc: filled.crc(),
            filled,
            seat: Seat::new(first_seq, self.generation),
            change: change.map(|change| Box::new(Encoded::new(*change))),
        }
    }

    /// Takes back what commits have finished with: buffers of those that succeeded; events of those that
    /// failed, once everything behind them has failed too, so that they come back in order (P5).
    fn reap(&mut self) {
        while self.in_flight.front().is_some_and(|one| committed(one)) {
            let Some(done) = self.in_flight.pop_front() else {
                return;
            };
            self.note_durable(&done);
            done.reclaim(self.id, &mut self.ring);
        }
        let all_failed = self.in_flight.iter().all(|one| one.failed() == Some(true));
        if all_failed && !self.in_flight.is_empty() {
            self.take_back();
        }
    }

    fn take_back(&mut self) {
        let failed = std::mem::take(&mut self.in_flight);
        let parts: Vec<&Part> = failed
            .iter()
            .flat_map(|pending| pending.parts())
            .filter(|part| part.stream == self.id)
            .collect();
        let filled: Vec<_> = parts.iter().map(|part| &part.filled).collect();
        if broken(Sabotage::LoseFailedEvents) {
            filled.iter().for_each(|one| self.ring.forget(one));
            return;
        }
        self.ring.give_back(&filled);
        let rewinds = parts.iter().filter_map(|part| part.change()?.rewind).count();
        self.generation -= rewinds as u32;
        let is_durable = self.root.is_some();
        let changes = parts.iter().enumerate().filter_map(|(nth, part)| {
            let mut change = part.change()?.clone();
            if is_durable || nth > 0 {
                // What a verb with a ticket of its own asked for is not done behind its back. Of a stream that was
                // never committed the first commit takes along what was true of it in memory, which stays true.
                (change.state, change.start) = (None, None);
            }
            Some(change)
        });
        if let Some(change) = changes.reduce(Change::and) {
            let later = self.change.take().map_or_else(Change::default, |later| *later);
            let change = change.and(later);
            self.change = (!change.is_empty()).then(|| Box::new(change));
        }
        let version = self.root.and_then(|root| self.core.catalog.version(root));
        let durable = version.map_or(StreamState::Active, |version| version.state);
        let wanted = self.change.as_ref().and_then(|change| change.state);
        self.enter_state(wanted.unwrap_or(durable));
    }

    /// A commit succeeded.
    fn note_durable(&mut self, done: &Pending) {
        if self.root.is_none() {
            self.root = self.core.catalog.root(self.id);
            self.core.volatile.pin().remove(&self.id);
        }
        let own = |part: &&Part| part.stream == self.id;
        if done.expect != Expect::Seen
            && let Some(part) = done.parts().iter().find(own)
        {
            // The leader may have put it elsewhere; what stands behind it goes along.
            let behind = self.in_flight.iter().flat_map(|one| one.parts()).filter(own);
            let seqs = behind.map(|part| u64::from(part.filled.count) + part.filled.dropped);
            let ring = u64::from(self.ring.count()) + self.ring.dropped();
            self.next = part.end_seq() + seqs.sum::<u64>() + ring;
            self.generation = part.generation();
        }
        let state = done.parts().iter().find(own).and_then(|part| part.change()?.state);
        if state == Some(StreamState::Deleted) {
            self.next -= self.ring.discard();
            self.change = None;
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if broken(Sabotage::CommitUnasked) {
            drop(self.commit());
        }
        self.core.volatile.pin().remove(&self.id);
    }
}

fn limits(core: &Core, options: &StreamOptions, operation: &'static str) -> Result<Limits> {
    let ring_bytes_max = options.ring_bytes_max.unwrap_or(core.options.ring_bytes_max);
    let overflow = options.overflow.unwrap_or(core.options.overflow);
    let cap = match overflow {
        Overflow::Grow { ring_bytes_cap } => ring_bytes_cap.max(ring_bytes_max),
        _ => ring_bytes_max,
    };
    if ring_bytes_max < 64 {
        let what = "ring_bytes_max must be at least 64";
        return Err(Error::new(ErrorKind::InvalidOption(what), operation));
    }
    let event_bytes_max = options.event_bytes_max.or(core.options.event_bytes_max);
    let fits = cap.min((COMMIT_BYTES_MAX / 2) as usize) - crate::format::frame_header::BYTES;
    let event_bytes_max = event_bytes_max.unwrap_or(fits).min(fits);
    Ok(Limits { ring_bytes_max, event_bytes_max, overflow })
}
