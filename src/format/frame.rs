//! The bytes of one event: the same in a ring and on disk.

use super::{batch_crc, frame_header as layout, put, take, take_u32, take_u64};
use crate::types::{CodecId, EventKind, Timestamp};

/// What a frame says of its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameHead {
    pub(crate) payload_bytes: u32,
    pub(crate) kind: EventKind,
    pub(crate) codec: CodecId,
    pub(crate) time: Timestamp,
}

impl FrameHead {
    /// The frame's length, payload included.
    #[inline]
    pub(crate) fn frame_bytes(&self) -> usize {
        layout::BYTES + self.payload_bytes as usize
    }
}

/// Writes the head of a frame. Times past the year 4253 do not fit and are cut to 56 bits.
#[inline]
pub(crate) fn put_frame_head(bytes: &mut [u8; layout::BYTES], head: &FrameHead) {
    let time = head.time.as_micros() & ((1 << layout::TIME_BITS) - 1);
    let time_codec = time | u64::from(head.codec.0) << layout::TIME_BITS;
    put(bytes, &layout::LENGTH, &head.payload_bytes.to_le_bytes());
    put(bytes, &layout::KIND, &head.kind.0.to_le_bytes());
    put(bytes, &layout::TIME_CODEC, &time_codec.to_le_bytes());
}

/// The head at the start of `bytes`; `None` when the frame does not end within them.
#[inline]
pub(crate) fn frame_head(bytes: &[u8]) -> Option<FrameHead> {
    let head = bytes.get(..layout::BYTES)?;
    let time_codec = take_u64(head, &layout::TIME_CODEC);
    let head = FrameHead {
        payload_bytes: take_u32(head, &layout::LENGTH),
        kind: EventKind(u16::from_le_bytes(take(head, &layout::KIND))),
        codec: CodecId((time_codec >> layout::TIME_BITS) as u8),
        time: Timestamp::from_micros(time_codec & ((1 << layout::TIME_BITS) - 1)),
    };
    (head.frame_bytes() <= bytes.len()).then_some(head)
}

/// The checksum of a batch of frames that lies in up to two slices.
pub(crate) fn frame_crc(slices: [&[u8]; 2]) -> u32 {
    batch_crc(&slices)
}

/// Walks frames that lie in a row: the offset of each, and its head. Ends early at a frame that does
/// not fit; whoever walks compares the count.
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
        self.at = at + head.frame_bytes();
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
    }
}
