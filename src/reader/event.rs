//! One event, as it is read: lent for a moment, or held for as long as one likes.

use std::fmt;
use std::sync::Arc;

use crate::disk::Pin;
use crate::format::{FrameHead, frame_header};
use crate::types::{CodecId, EventKind, Position, Seq, StreamId, Timestamp};

/// What the events of a batch have in common. Each batch counts its own holders, so that threads that read
/// the same segment do not meet at one counter.
#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) stream: StreamId,
    pub(crate) first_seq: u64,
    pub(crate) generation: u32,
    /// `None` while the batch is volatile.
    pub(crate) position: Option<u64>,
    /// Events dropped right before the first.
    pub(crate) dropped: u64,
    pub(crate) pin: Pin,
}

/// Where the frame of an event is.
#[derive(Clone, Copy)]
pub(super) struct FrameAt {
    pub(super) seq: u64,
    pub(super) head: FrameHead,
    /// Bytes from the start of the pin.
    pub(super) at: usize,
}

impl FrameAt {
    #[inline]
    fn lend(self, held: &Arc<Held>) -> EventRef<'_> {
        let payload = self.at + frame_header::BYTES..self.at + self.head.frame_bytes();
        let payload = (*held.pin).as_ref().get(payload).unwrap_or_default();
        EventRef { held, frame: self, payload }
    }
}

/// An event, and the bytes of its payload where they lie: in a mapped segment, or in a buffer. It keeps
/// them alive for as long as it lives; cloning it copies no bytes.
#[derive(Clone)]
pub struct Event {
    held: Arc<Held>,
    frame: FrameAt,
}

/// An event that is lent by who reads it ([`crate::Events::lend`]): the same as an [`Event`], without the cost
/// of taking hold of it.
#[derive(Clone, Copy)]
pub struct EventRef<'a> {
    held: &'a Arc<Held>,
    frame: FrameAt,
    payload: &'a [u8],
}

impl<'a> EventRef<'a> {
    #[inline]
    pub(super) fn new(held: &'a Arc<Held>, frame: FrameAt) -> Self {
        frame.lend(held)
    }

    /// Takes hold of the event.
    #[must_use]
    #[inline]
    pub fn hold(&self) -> Event {
        Event { held: Arc::clone(self.held), frame: self.frame }
    }

    /// As [`Event::stream`].
    #[must_use]
    pub fn stream(&self) -> StreamId {
        self.held.stream
    }

    /// As [`Event::seq`].
    #[must_use]
    pub fn seq(&self) -> Seq {
        Seq(self.frame.seq)
    }

    /// As [`Event::generation`].
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.held.generation
    }

    /// As [`Event::position`].
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.held.position.map(Position)
    }

    /// As [`Event::is_durable`].
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.held.position.is_some()
    }

    /// As [`Event::kind`].
    #[must_use]
    pub fn kind(&self) -> EventKind {
        self.frame.head.kind
    }

    /// As [`Event::codec`].
    #[must_use]
    pub fn codec(&self) -> CodecId {
        self.frame.head.codec
    }

    /// As [`Event::time`].
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.frame.head.time
    }

    /// As [`Event::dropped_before`].
    #[must_use]
    pub fn dropped_before(&self) -> u64 {
        if self.frame.seq == self.held.first_seq { self.held.dropped } else { 0 }
    }

    /// The payload.
    #[must_use]
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

impl Event {
    /// Lends the event.
    #[must_use]
    #[inline]
    pub fn lend(&self) -> EventRef<'_> {
        self.frame.lend(&self.held)
    }

    /// The stream it belongs to.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        self.lend().stream()
    }

    /// Its place in its stream.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.lend().seq()
    }

    /// Which life of its seqs its stream was in: a rewind behind a commit starts another. In one stream the same
    /// generation and seq never mean two events.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.held.generation
    }

    /// The commit that made it durable; `None` while it is volatile.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.lend().position()
    }

    /// Whether a commit made it durable.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.lend().is_durable()
    }

    /// What the program called it.
    #[must_use]
    pub fn kind(&self) -> EventKind {
        self.lend().kind()
    }

    /// The form of its payload.
    #[must_use]
    pub fn codec(&self) -> CodecId {
        self.lend().codec()
    }

    /// When it was appended (P11).
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.lend().time()
    }

    /// How many events right before this one an overwriting ring dropped. They had seqs, so the seq
    /// before this event's is not there. What of them was trimmed does not count; of a gap into which the stream was
    /// forked or rewound, what is left of it does. By position it is what the event's own commit says.
    #[must_use]
    pub fn dropped_before(&self) -> u64 {
        self.lend().dropped_before()
    }

    /// The payload.
    #[must_use]
    #[inline]
    pub fn payload(&self) -> &[u8] {
        self.lend().payload()
    }
}

impl AsRef<[u8]> for Event {
    fn as_ref(&self) -> &[u8] {
        self.payload()
    }
}

impl AsRef<[u8]> for EventRef<'_> {
    fn as_ref(&self) -> &[u8] {
        self.payload()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lend().describe(f, "Event")
    }
}

impl fmt::Debug for EventRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe(f, "EventRef")
    }
}

impl EventRef<'_> {
    fn describe(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        f.debug_struct(name)
            .field("stream", &self.stream())
            .field("seq", &self.seq().0)
            .field("generation", &self.held.generation)
            .field("position", &self.held.position)
            .field("kind", &self.kind())
            .field("codec", &self.codec())
            .field("time", &self.time())
            .field("dropped_before", &self.dropped_before())
            .field("payload_bytes", &self.payload.len())
            .finish()
    }
}
