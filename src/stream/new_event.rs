//! Event to be appended to a ring.

use crate::types::{CodecId, EventKind};

/// Event to append: a payload with its kind, schema version and codec.
///
/// Anything that implements `AsRef<[u8]>` converts into a raw event of kind 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewEvent<B> {
    /// Kind, chosen by the program.
    pub kind: EventKind,
    /// Version of the payload's shape, chosen by the program and never interpreted; 0 by default.
    pub schema_version: u8,
    /// Encoding of the payload.
    pub codec: CodecId,
    /// Bytes of the event.
    pub payload: B,
}

impl<B: AsRef<[u8]>> NewEvent<B> {
    /// Creates an event of this kind with a raw payload.
    pub fn new(kind: EventKind, payload: B) -> Self {
        Self { kind, schema_version: 0, codec: CodecId::RAW, payload }
    }

    /// Sets the version of the payload's shape, for programs whose events change over the years.
    #[must_use]
    pub fn schema_version(mut self, version: u8) -> Self {
        self.schema_version = version;
        self
    }

    /// Sets the codec.
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
