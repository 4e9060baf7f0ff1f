//! The handle of one stream: append, commit, read. Wiring only.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::catalog::{ReservedName, Snapshot, StreamEntry};
use crate::commit::{Part, Pending, Ticket};
use crate::core::Core;
use crate::error::{Error, ErrorKind, Refused, RefusedReason, Result};
use crate::format::{COMMIT_BYTES_MAX, FrameHead};
use crate::options::{CommitOptions, Overflow, StreamOptions};
use crate::reader::{Batch, Events};
use crate::ring::{Limits, Ring};
use crate::sabotage::{Sabotage, broken};
use crate::types::{CodecId, EventKind, Seq, Status, StreamId, Timestamp};

/// No stream gets so long; one whose head says so is damaged.
const SEQ_MAX: u64 = u64::MAX / 2;
/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 1024;

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
    /// The name that the first commit will write.
    name: Option<Arc<ReservedName>>,
    /// Known once the stream is durable.
    entry: Option<Arc<StreamEntry>>,
    /// Commits whose buffers have not come back yet, oldest first.
    in_flight: VecDeque<Arc<Pending>>,
}

impl Stream {
    pub(crate) fn create(core: Arc<Core>, options: &StreamOptions) -> Result<Self> {
        let limits = limits(&core, options, "stream")?;
        let id = StreamId::new();
        let name = match &options.name {
            None => None,
            Some(name) => {
                check_name(name)?;
                let reserved = core.catalog.reserve_name(name, id).map_err(|holder| {
                    let name = name.clone();
                    Error::new(ErrorKind::NameTaken { name, holder }, "stream")
                })?;
                Some(Arc::new(reserved))
            }
        };
        core.volatile.pin().insert(id, ());
        Ok(Self::with(core, id, limits, 0, name, None))
    }

    pub(crate) fn resume(core: Arc<Core>, id: StreamId, options: &StreamOptions) -> Result<Self> {
        if options.name.is_some() {
            let what = "a durable stream keeps the name that it has";
            return Err(Error::new(ErrorKind::InvalidOption(what), "resume"));
        }
        let limits = limits(&core, options, "resume")?;
        let snapshot = Snapshot::new(Arc::clone(&core.catalog));
        let entry = core.catalog.entry(id);
        // What is visible, not what is written: the handle reads its own stream up to there.
        match entry.and_then(|entry| Some((snapshot.head(&entry)?, entry))) {
            Some((head, _)) if head > SEQ_MAX => {
                let seqs = Some(Seq(SEQ_MAX)..Seq(head));
                let kind = ErrorKind::Corrupt { stream: Some(id), seqs };
                Err(Error::new(kind, "resume"))
            }
            Some((head, entry)) => Ok(Self::with(core, id, limits, head, None, Some(entry))),
            None if core.volatile.pin().contains_key(&id) => {
                let kind = ErrorKind::NotMaterialized { stream: id, buffered: None };
                Err(Error::new(kind, "resume"))
            }
            None => Err(Error::new(ErrorKind::UnknownStream(id), "resume")),
        }
    }

    fn with(
        core: Arc<Core>,
        id: StreamId,
        limits: Limits,
        next: u64,
        name: Option<Arc<ReservedName>>,
        entry: Option<Arc<StreamEntry>>,
    ) -> Self {
        let ring = Ring::new(limits, Arc::clone(&core.budget));
        Self { id, core, ring, next, name, entry, in_flight: VecDeque::new() }
    }

    /// The stream's id, known from the start.
    #[must_use]
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// Whether anything of it is on disk.
    #[must_use]
    pub fn status(&self) -> Status {
        let durable = self.entry.is_some() || self.in_flight.iter().any(|one| committed(one));
        if durable { Status::Durable } else { Status::Volatile }
    }

    /// The seq that the next event gets: the stream's length, with what was dropped.
    #[must_use]
    pub fn head(&self) -> Seq {
        Seq(self.next)
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
        self.ring.admits(payload.len())?;
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

    /// Promotes everything buffered, as the log's options say. See [`Ticket`] for when it happens.
    ///
    /// With nothing buffered the ticket still tells the true state of the stream's earlier commits, and
    /// nothing is written.
    pub fn commit(&mut self) -> Ticket {
        self.commit_with(CommitOptions::new())
    }

    /// As [`Stream::commit`], with options.
    pub fn commit_with(&mut self, options: CommitOptions) -> Ticket {
        self.reap();
        let durability = options.durability.unwrap_or(self.core.options.durability);
        let behind: Vec<_> = self.in_flight.back().cloned().into_iter().collect();
        let pending = match self.take_part() {
            Some(part) => Pending::of_one(part, durability, behind),
            None => Pending::new(Vec::new(), durability, behind),
        };
        if !pending.parts().is_empty() {
            self.in_flight.push_back(Arc::clone(&pending));
        }
        self.core.queue.submit(pending)
    }

    pub(crate) fn commit_all<'a>(
        core: &Arc<Core>,
        streams: impl IntoIterator<Item = &'a mut Self>,
        options: CommitOptions,
    ) -> Ticket {
        let durability = options.durability.unwrap_or(core.options.durability);
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
            let pending = Pending::new(Vec::new(), durability, Vec::new());
            pending.settle(Err(Error::new(ErrorKind::InvalidOption(what), "commit")));
            return Ticket::settled(pending);
        }
        let (mut parts, mut behind, mut members) = (Vec::new(), Vec::new(), Vec::new());
        for (index, stream) in streams.iter_mut().enumerate() {
            stream.reap();
            behind.extend(stream.in_flight.back().cloned());
            if let Some(part) = stream.take_part() {
                parts.push(part);
                members.push(index);
            }
        }
        let pending = Pending::new(parts, durability, behind);
        for index in members {
            streams[index].in_flight.push_back(Arc::clone(&pending));
        }
        core.queue.submit(pending)
    }

    /// Forgets what is buffered and no commit has taken. Returns how many events that were, with those that
    /// an overwriting ring had dropped before.
    pub fn discard(&mut self) -> u64 {
        self.reap();
        let gone = self.ring.discard();
        self.next -= gone;
        gone
    }

    /// All events of the stream as this handle sees it: durable, then those in memory (P9). Each says
    /// which. What is in memory is copied as this is called.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`].
    pub fn events(&self) -> Result<Events> {
        self.core.check_open("read")?;
        let mut volatile = Vec::new();
        for pending in self.in_flight.iter().filter(|pending| !committed(pending)) {
            for part in pending.parts().iter().filter(|part| part.stream == self.id) {
                let (held, count) = (part.filled.hold(), u64::from(part.filled.count));
                if held.is_gone() {
                    // Committed a moment ago, and so is everything before it.
                    volatile.clear();
                    continue;
                }
                let dropped = part.filled.dropped;
                volatile.push(self.batch(part.first_seq, count, dropped, held.slices()));
            }
        }
        let count = u64::from(self.ring.count());
        if count > 0 {
            let first = self.next - count;
            volatile.push(self.batch(first, count, self.ring.dropped(), self.ring.slices()));
        }
        let durable_end = volatile.first().map_or(self.next, |one| one.first_seq - one.dropped);
        let snapshot = Snapshot::new(Arc::clone(&self.core.catalog));
        let entry = self.entry.clone().or_else(|| self.core.catalog.entry(self.id));
        Ok(Events::durable(snapshot, self.id, entry, durable_end).then(volatile))
    }

    fn batch(&self, first_seq: u64, count: u64, dropped: u64, slices: [&[u8]; 2]) -> Batch {
        let bytes = slices.concat();
        let frames: Range<usize> = 0..bytes.len();
        let mut batch = Batch::new(self.id, first_seq, count, Arc::new(bytes), frames);
        batch.dropped = dropped;
        batch
    }

    fn take_part(&mut self) -> Option<Part> {
        let filled = self.ring.take()?;
        Some(Part {
            stream: self.id,
            entry: self.entry.clone(),
            first_seq: self.next - u64::from(filled.count),
            crc: filled.crc(),
            filled,
            name: self.name.take(),
        })
    }

    /// Takes back what commits have finished with: buffers of those that succeeded; events of those that
    /// failed, once everything behind them has failed too, so that they come back in order (P5).
    fn reap(&mut self) {
        while self.in_flight.front().is_some_and(|one| committed(one)) {
            let Some(done) = self.in_flight.pop_front() else {
                return;
            };
            self.note_durable();
            done.reclaim(self.id, &mut self.ring);
        }
        let all_failed = self.in_flight.iter().all(|one| one.failed() == Some(true));
        if all_failed && !self.in_flight.is_empty() {
            let failed = std::mem::take(&mut self.in_flight);
            let parts: Vec<&Part> = failed
                .iter()
                .flat_map(|pending| pending.parts())
                .filter(|part| part.stream == self.id)
                .collect();
            self.name =
                self.name.take().or_else(|| parts.iter().find_map(|part| part.name.clone()));
            let filled: Vec<_> = parts.iter().map(|part| &part.filled).collect();
            if broken(Sabotage::LoseFailedEvents) {
                filled.iter().for_each(|one| self.ring.forget(one));
                return;
            }
            self.ring.give_back(&filled);
        }
    }

    fn note_durable(&mut self) {
        if self.entry.is_none() {
            self.entry = self.core.catalog.entry(self.id);
            self.core.volatile.pin().remove(&self.id);
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

fn committed(pending: &Pending) -> bool {
    pending.failed() == Some(false)
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

fn check_name(name: &str) -> Result<()> {
    let fine = !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains(char::is_control);
    if fine { Ok(()) } else { Err(Error::new(ErrorKind::InvalidName, "stream")) }
}
