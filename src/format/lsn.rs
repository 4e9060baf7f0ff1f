//! Log sequence number: segment and offset in one word, ordered like the bytes of the log.

use super::ALIGN;

/// Bits of the word that hold the offset, in units of [`ALIGN`].
const OFFSET_BITS: u32 = 32;

/// Place in the order of all bytes of the log. The default is before every record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Lsn(pub(crate) u64);

impl Lsn {
    pub(crate) fn new(segment: u32, offset: u64) -> Self {
        Self((u64::from(segment) << OFFSET_BITS) | (offset / ALIGN))
    }

    pub(crate) fn segment(self) -> u32 {
        (self.0 >> OFFSET_BITS) as u32
    }

    pub(crate) fn offset(self) -> u64 {
        (self.0 & u64::from(u32::MAX)).saturating_mul(ALIGN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_ordered_like_the_bytes_of_the_log() {
        let places = [
            Lsn::default(),
            Lsn::new(1, 4_096),
            Lsn::new(1, 4_104),
            Lsn::new(1, ALIGN << 31),
            Lsn::new(2, 0),
            Lsn::new(u32::MAX, 8),
        ];
        assert!(places.is_sorted());
        for (segment, offset) in [(1, 4_096), (7, ALIGN << 31), (u32::MAX, 0)] {
            let place = Lsn::new(segment, offset);
            assert_eq!((place.segment(), place.offset()), (segment, offset));
        }
    }
}
