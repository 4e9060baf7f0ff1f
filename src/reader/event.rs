//! One event, as it is read.

use std::fmt;
use std::ops::Range;

use crate::disk::Pin;
use crate::types::{CodecId, EventKind, Position, Seq, StreamId, Timestamp};

/// An event, and the bytes of its payload where they lie: in a mapped segment, or in a buffer. It keeps
/// them alive for as long as it lives; cloning it copies no bytes.
#[derive(Clone)]
pub struct Event {
    pub(crate) stream: StreamId,
    pub(crate) seq: u64,
    pub(crate) position: Option<u64>,
    pub(crate) kind: EventKind,
    pub(crate) codec: CodecId,
    pub(crate) time: Timestamp,
    pub(crate) generation: u32,
    pub(crate) dropped_before: u64,
    pub(crate) pin: Pin,
    pub(crate) payload: Range<usize>,
}

impl Event {
    /// The stream it belongs to.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// Its place in its stream.
    #[must_use]
    pub fn seq(&self) -> Seq {
        Seq(self.seq)
    }

    /// Which life of its seqs its stream was in: a rewind behind a commit starts another. In one stream the same
    /// generation and seq never mean two events.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The commit that made it durable; `None` while it is volatile.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.position.map(Position)
    }

    /// Whether a commit made it durable.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.position.is_some()
    }

    /// What the program called it.
    #[must_use]
    pub fn kind(&self) -> EventKind {
        self.kind
    }

    /// The form of its payload.
    #[must_use]
    pub fn codec(&self) -> CodecId {
        self.codec
    }

    /// When it was appended (P11).
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// How many events right before this one an overwriting ring dropped. They had seqs, so the seq
    /// before this event's is not there.
    #[must_use]
    pub fn dropped_before(&self) -> u64 {
        self.dropped_before
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        (*self.pin).as_ref().get(self.payload.clone()).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Event {
    fn as_ref(&self) -> &[u8] {
        self.payload()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("stream", &self.stream)
            .field("seq", &self.seq)
            .field("generation", &self.generation)
            .field("position", &self.position)
            .field("kind", &self.kind)
            .field("codec", &self.codec)
            .field("time", &self.time)
            .field("dropped_before", &self.dropped_before)
            .field("payload_bytes", &self.payload.len())
            .finish()
    }
}
