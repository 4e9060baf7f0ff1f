//! Frame of one event, encoded alike in a ring and on disk.

use super::{batch_crc, frame_header as layout, put, take, take_u32, take_u64};
use crate::types::{CodecId, EventKind, Timestamp};

/// Decoded head of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameHead {
    pub(crate) payload_bytes: u32,
    pub(crate) kind: EventKind,
    pub(crate) codec: CodecId,
    pub(crate) time: Timestamp,
}

impl FrameHead {
    /// Returns the length of the frame in bytes, payload included.
    #[inline]
    pub(crate) fn frame_bytes(&self) -> usize {
        layout::BYTES.saturating_add(self.payload_bytes as usize)
    }
}

/// Writes the head of a frame. A time after the year 4253 does not fit and is clamped.
#[inline]
pub(crate) fn put_frame_head(bytes: &mut [u8; layout::BYTES], head: &FrameHead) {
    let time = head.time.as_micros().min(layout::TIME_MAX);
    let time_codec = time | u64::from(head.codec.0) << layout::TIME_BITS;
    put(bytes, &layout::LENGTH, &head.payload_bytes.to_le_bytes());
    put(bytes, &layout::KIND, &head.kind.0.to_le_bytes());
    put(bytes, &layout::TIME_CODEC, &time_codec.to_le_bytes());
}

/// Decodes the head at the start of `bytes`; `None` if the frame does not end within them.
#[inline]
pub(crate) fn frame_head(bytes: &[u8]) -> Option<FrameHead> {
    let head = bytes.get(..layout::BYTES)?;
    let time_codec = take_u64(head, &layout::TIME_CODEC);
    let head = FrameHead {
        payload_bytes: take_u32(head, &layout::LENGTH),
        kind: EventKind(u16::from_le_bytes(take(head, &layout::KIND))),
        codec: CodecId((time_codec >> layout::TIME_BITS) as u8),
        time: Timestamp::from_micros(time_codec & layout::TIME_MAX),
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
        }
    }
}
