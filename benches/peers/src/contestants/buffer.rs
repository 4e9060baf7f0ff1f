//! Buffer of uncommitted events, for a store without one.

use crate::contestant::Sink;

/// Events in one buffer.
#[derive(Default, Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Buffer {
    /// Adds an event.
    #[inline]
    pub(super) fn push(&mut self, payload: &[u8]) {
        self.bytes.extend_from_slice(payload);
        self.ends.push(self.bytes.len());
    }

    /// Returns the events in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |end| &self.bytes[std::mem::replace(&mut start, *end)..*end])
    }

    /// Removes all events and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

/// Events of one commit as one record, for a store without streams or commits of several records:
/// the stream's number, then lengths and payloads.
#[derive(Debug)]
pub(super) struct Packed {
    record: Vec<u8>,
}

const STREAM_BYTES: usize = 8;
const LENGTH_BYTES: usize = 4;

impl Packed {
    /// Creates a record without events.
    pub(super) fn of(stream: u64) -> Self {
        Self { record: stream.to_le_bytes().to_vec() }
    }

    /// Adds an event.
    #[inline]
    pub(super) fn push(&mut self, payload: &[u8]) {
        self.record.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        self.record.extend_from_slice(payload);
    }

    /// Returns the record.
    pub(super) fn record(&self) -> &[u8] {
        &self.record
    }

    /// Removes all events and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.record.truncate(STREAM_BYTES);
    }

    /// Passes each event of a record to the sink.
    pub(super) fn unpack(record: &[u8], sink: &mut Sink) {
        let mut rest = &record[STREAM_BYTES..];
        while let Some((length, behind)) = rest.split_first_chunk::<LENGTH_BYTES>() {
            let (payload, next) = behind.split_at(u32::from_le_bytes(*length) as usize);
            sink.take(payload);
            rest = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        let mut packed = Packed::of(7);
        packed.push(b"one");
        packed.clear();
        packed.push(b"");
        packed.push(b"three");
        let mut sink = Sink::default();
        Packed::unpack(packed.record(), &mut sink);
        assert_eq!((sink.events, sink.bytes), (2, 5));
    }
}
