//! An event as readers see it: [`EventRef`] is borrowed from a reader, [`Event`] owns its batch.

use std::fmt;
use std::sync::Arc;

use crate::disk::Pin;
use crate::format::{FrameHead, frame_header};
use crate::types::{CodecId, EventKind, Position, Seq, StreamId, Timestamp};

/// Fields that all events of a batch share. Each loaded batch has its own reference count, so
/// threads that read the same segment do not contend for a counter.
#[derive(Clone)]
pub(crate) struct BatchContext {
    pub(crate) stream: StreamId,
    pub(crate) first_seq: u64,
    pub(crate) generation: u32,
    /// `None` while the batch is volatile.
    pub(crate) position: Option<u64>,
    /// Number of events dropped right before the first.
    pub(crate) dropped: u64,
    pub(crate) pin: Pin,
}

/// Location of an event's frame.
#[derive(Clone, Copy)]
pub(super) struct FrameAt {
    pub(super) seq: u64,
    pub(super) head: FrameHead,
    /// Offset in bytes from the start of the pin.
    pub(super) at: usize,
}

impl FrameAt {
    #[inline]
    fn lend(self, context: &Arc<BatchContext>) -> EventRef<'_> {
        let start = self.at.saturating_add(frame_header::BYTES);
        let end = self.at.saturating_add(self.head.frame_bytes());
        let payload = context.pin.get(start..end).unwrap_or_default();
        EventRef { context, frame: self, payload }
    }
}

/// Event that keeps its payload alive, in a mapped segment or in a buffer. Cloning it copies no
/// payload bytes.
#[derive(Clone)]
pub struct Event {
    context: Arc<BatchContext>,
    frame: FrameAt,
}

/// Event borrowed from its reader ([`crate::Events::lend`]). Unlike an [`Event`], it does not touch
/// a reference count.
#[derive(Clone, Copy)]
pub struct EventRef<'a> {
    context: &'a Arc<BatchContext>,
    frame: FrameAt,
    payload: &'a [u8],
}

impl<'a> EventRef<'a> {
    #[inline]
    pub(super) fn new(context: &'a Arc<BatchContext>, frame: FrameAt) -> Self {
        frame.lend(context)
    }

    /// Returns an [`Event`] that outlives the reader.
    #[must_use]
    #[inline]
    pub fn hold(&self) -> Event {
        Event { context: Arc::clone(self.context), frame: self.frame }
    }

    /// Returns the id of the stream, like [`Event::stream`].
    #[must_use]
    pub fn stream(&self) -> StreamId {
        self.context.stream
    }

    /// Returns the seq, like [`Event::seq`].
    #[must_use]
    pub fn seq(&self) -> Seq {
        Seq(self.frame.seq)
    }

    /// Returns the generation, like [`Event::generation`].
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.context.generation
    }

    /// Returns the position, like [`Event::position`].
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.context.position.map(Position)
    }

    /// Returns whether the event is committed, like [`Event::is_durable`].
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.context.position.is_some()
    }

    /// Returns the kind, like [`Event::kind`].
    #[must_use]
    pub fn kind(&self) -> EventKind {
        self.frame.head.kind
    }

    /// Returns the schema version, like [`Event::schema_version`].
    #[must_use]
    pub fn schema_version(&self) -> u8 {
        self.frame.head.schema_version
    }

    /// Returns the codec, like [`Event::codec`].
    #[must_use]
    pub fn codec(&self) -> CodecId {
        self.frame.head.codec
    }

    /// Returns the time of the append, like [`Event::time`].
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.frame.head.time
    }

    /// Returns the size of the gap before this event, like [`Event::dropped_before`].
    #[must_use]
    pub fn dropped_before(&self) -> u64 {
        if self.frame.seq == self.context.first_seq { self.context.dropped } else { 0 }
    }

    /// Returns the payload, which stays borrowed from the reader.
    #[must_use]
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

impl Event {
    /// Borrows the event.
    #[must_use]
    #[inline]
    pub fn lend(&self) -> EventRef<'_> {
        self.frame.lend(&self.context)
    }

    /// Returns the id of the event's stream.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        self.lend().stream()
    }

    /// Returns the seq of the event in its stream.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.lend().seq()
    }

    /// Returns the generation of the stream that the event belongs to. A rewind into committed
    /// events starts a new generation, so (generation, seq) identifies an event in its stream.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.context.generation
    }

    /// Returns the position of the event's commit, or `None` while the event is volatile.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.lend().position()
    }

    /// Returns whether a commit has made the event durable.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.lend().is_durable()
    }

    /// Returns the kind that the program assigned.
    #[must_use]
    pub fn kind(&self) -> EventKind {
        self.lend().kind()
    }

    /// Returns the version of the payload's shape that the program assigned; 0 by default.
    #[must_use]
    pub fn schema_version(&self) -> u8 {
        self.lend().schema_version()
    }

    /// Returns the codec of the payload.
    #[must_use]
    pub fn codec(&self) -> CodecId {
        self.lend().codec()
    }

    /// Returns the time of the append (P11).
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.lend().time()
    }

    /// Returns the number of events that an overwriting ring dropped right before this one.
    ///
    /// Dropped events keep their seqs, so the preceding seqs are missing. A trimmed part of the gap
    /// does not count. If the stream was forked or rewound at a seq inside a gap, the remaining
    /// part of that gap counts. [`crate::AllEvents`] reports only the gap recorded by the event's
    /// own commit.
    #[must_use]
    pub fn dropped_before(&self) -> u64 {
        self.lend().dropped_before()
    }

    /// Returns the payload.
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
            .field("generation", &self.context.generation)
            .field("position", &self.context.position)
            .field("kind", &self.kind())
            .field("schema_version", &self.schema_version())
            .field("codec", &self.codec())
            .field("time", &self.time())
            .field("dropped_before", &self.dropped_before())
            .field("payload_bytes", &self.payload.len())
            .finish()
    }
}
