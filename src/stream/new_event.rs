//! Event to be appended to a ring.

use crate::types::{CodecId, EventKind};

/// Event to append: a payload with its kind and codec.
///
/// Anything that implements `AsRef<[u8]>` converts into a raw event of kind 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewEvent<B> {
    /// Kind, chosen by the program.
    pub kind: EventKind,
    /// Encoding of the payload.
    pub codec: CodecId,
    /// Bytes of the event.
    pub payload: B,
}

impl<B: AsRef<[u8]>> NewEvent<B> {
    /// Creates an event of this kind with a raw payload.
    pub fn new(kind: EventKind, payload: B) -> Self {
        Self { kind, codec: CodecId::RAW, payload }
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
