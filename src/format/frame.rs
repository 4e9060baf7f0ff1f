//! Frame of one event, encoded alike in a ring and on disk.

use super::{batch_crc, frame_header as layout, put, take, take_u32, take_u64};
use crate::types::{CodecId, EventKind, Timestamp};

/// Decoded head of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameHead {
    pub(crate) payload_bytes: u32,
    pub(crate) kind: EventKind,
    pub(crate) schema_version: u8,
    pub(crate) codec: CodecId,
    /// Time of the event. In a decoded head, the flags stand above its 56 bits.
    pub(crate) time: Timestamp,
}

impl FrameHead {
    /// Reports whether this version knows all flags of the frame: so far, none is defined.
    ///
    /// Flags never change the length of a frame, so a walk over frames ignores them. The reader
    /// asks this of each event that it returns, and of no other.
    #[inline]
    pub(crate) fn is_known(&self) -> bool {
        self.time.as_micros() <= layout::TIME_MAX
    }

    /// Returns the length of the frame in bytes, payload included.
    #[inline]
    pub(crate) fn frame_bytes(&self) -> usize {
        layout::BYTES.saturating_add(self.payload_bytes as usize)
    }
}

/// Writes the head of a frame. A time after the year 4253 does not fit and is clamped.
#[inline]
pub(crate) fn put_frame_head(bytes: &mut [u8; layout::BYTES], head: &FrameHead) {
    let time_flags = head.time.as_micros().min(layout::TIME_MAX);
    put(bytes, &layout::LENGTH, &head.payload_bytes.to_le_bytes());
    put(bytes, &layout::KIND, &head.kind.0.to_le_bytes());
    put(bytes, &layout::SCHEMA_VERSION, &[head.schema_version]);
    put(bytes, &layout::CODEC, &[head.codec.0]);
    put(bytes, &layout::TIME_FLAGS, &time_flags.to_le_bytes());
}

/// Decodes the head at the start of `bytes`; `None` if the frame does not end within them.
#[inline]
pub(crate) fn frame_head(bytes: &[u8]) -> Option<FrameHead> {
    let head = bytes.get(..layout::BYTES)?;
    let head = FrameHead {
        payload_bytes: take_u32(head, &layout::LENGTH),
        kind: EventKind(u16::from_le_bytes(take(head, &layout::KIND))),
        schema_version: head[layout::SCHEMA_VERSION.start],
        codec: CodecId(head[layout::CODEC.start]),
        time: Timestamp::from_micros(take_u64(head, &layout::TIME_FLAGS)),
    };
    (head.frame_bytes() <= bytes.len()).then_some(head)
}

/// Returns the checksum of a batch of frames that lies in up to two slices.
pub(crate) fn frame_crc(slices: [&[u8]; 2]) -> u32 {
    batch_crc(&slices)
}

/// Iterator over contiguous frames: the offset and the head of each. Ends early at a frame that
/// does not fit; the caller compares the count.
#[derive(Clone, Debug)]
pub(crate) struct Frames<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Frames<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
}

impl Iterator for Frames<'_> {
    type Item = (usize, FrameHead);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        let head = frame_head(self.bytes.get(at..)?)?;
        self.at = at.checked_add(head.frame_bytes())?;
        Some((at, head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_and_never_reaches_outside() {
        let head = FrameHead {
            payload_bytes: 3,
            kind: EventKind(0xBEEF),
            schema_version: 3,
            codec: CodecId(200),
            time: Timestamp::from_micros(1_700_000_000_123_456),
        };
        let mut bytes = [0; layout::BYTES];
        put_frame_head(&mut bytes, &head);
        let mut bytes = bytes.to_vec();
        bytes.extend_from_slice(b"abc");
        assert_eq!(frame_head(&bytes), Some(head));
        for cut in 0..bytes.len() {
            assert_eq!(frame_head(&bytes[..cut]), None, "cut at {cut}");
        }
        assert_eq!(Frames::new(&bytes).count(), 1);
        for (micros, kept) in [(layout::TIME_MAX, layout::TIME_MAX), (1 << 56, layout::TIME_MAX)] {
            let head = FrameHead { time: Timestamp::from_micros(micros), ..head };
            let mut bytes = [0; layout::BYTES];
            put_frame_head(&mut bytes, &FrameHead { payload_bytes: 0, ..head });
            let back = frame_head(&bytes).expect("whole");
            assert_eq!((back.time.as_micros(), back.codec), (kept, head.codec));
            assert!(back.is_known());
        }
    }

    #[test]
    fn every_flag_is_unknown_and_none_changes_the_length() {
        let time = Timestamp::from_micros(layout::TIME_MAX);
        let (kind, codec) = (EventKind(1), CodecId::RAW);
        let head = FrameHead { payload_bytes: 0, kind, schema_version: 0, codec, time };
        let mut bytes = [0; layout::BYTES];
        put_frame_head(&mut bytes, &head);
        for flag in 0..8 {
            let mut flagged = bytes;
            flagged[layout::BYTES - 1] |= 1 << flag;
            let found = frame_head(&flagged).expect("whole");
            assert!(!found.is_known() && found.frame_bytes() == head.frame_bytes(), "flag {flag}");
        }
    }
}
