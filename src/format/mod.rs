//! On-disk format: every constant of the layout, the encoder and decoder of each record, and the
//! checksums.
//!
//! The only room that knows byte order. Its functions are pure: they take slices and return
//! classifications. They read no file, allocate nothing on the word of a length field, and leave
//! decisions to their callers. `docs/format.md` describes the same format in words; the tests in
//! `example.rs` compare the two.
//!
//! All integers are little endian. Zero is reserved: no valid record starts with a zero byte, so
//! space that was preallocated or never written reads as the end.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod attributes;
mod commit;
#[cfg(test)]
mod example;
mod footer;
mod frame;
#[cfg(fuzzing)]
pub mod fuzzing;
mod gone;
mod kind;
mod lsn;
mod segment;
mod tail;

pub(crate) use attributes::{Attribute, AttributeError, Attributes, put_attribute};
pub(crate) use commit::{
    BatchHead, Class, CommitDate, CommitHead, CommitPlan, PlannedBatch, classify, encode_commit,
    padding_is_zero, record_at,
};
pub(crate) use footer::{
    CommitPlace, Footer, FooterEntry, commit_place, encode_footer, footer_bytes, place_block,
};
pub(crate) use frame::{FrameHead, Frames, frame_crc, frame_head, put_frame_head};
pub(crate) use gone::Gone;
pub(crate) use kind::{BatchKind, gap_batches, index_order};
pub(crate) use lsn::Lsn;
use segment::encode_trailer;
pub(crate) use segment::{
    Covers, HeaderError, SegmentHeader, SegmentTimes, Trailer, decode_header, decode_trailer,
    decode_twin, header_of_trailer, seems_segment,
};
pub(crate) use tail::{Ending, TailRecord, decode_tail_record};

/// Newest format version, and so far the only one.
pub(crate) const VERSION: u16 = 1;
/// CRC-32/ISO-HDLC (polynomial 0x04C11DB7, reflected), as in zip, gzip and PNG.
pub(crate) const CHECKSUM_CRC32: u8 = 1;
/// Number of bytes that a disk writes atomically.
pub(crate) const SECTOR_BYTES: u64 = 512;
/// Maximum number of bytes that alignment to a sector adds between the end of a record and the next
/// one.
pub(crate) const RECORD_SHIFT_MAX: u64 = 32;
/// Alignment of records, in bytes.
pub(crate) const ALIGN: u64 = 8;

/// Defines fields by their offset and length in bytes; each starts where the previous one ends.
macro_rules! layout {
    ($($(#[$doc:meta])* $name:ident = $start:expr, $len:expr;)+) => {
        $($(#[$doc])* pub(crate) const $name: std::ops::Range<usize> = $start..$start + $len;)+
        /// Fields by name, compared with `docs/format.md`.
        #[cfg(test)]
        pub(crate) const FIELDS: &[(&str, std::ops::Range<usize>)] =
            &[$((stringify!($name), $name)),+];
    };
}

/// Header block of a segment: the header, and its twin half a block later.
pub(crate) mod header {
    pub(crate) const MAGIC: [u8; 8] = *b"AMBERSEG";
    pub(crate) const BLOCK_BYTES: usize = 4096;
    pub(crate) const TWIN: usize = BLOCK_BYTES / 2;
    pub(crate) const ORDER_DENSE: u8 = 0;
    pub(crate) const ORDER_SPARSE: u8 = 1;
    layout! {
        MAGIC_AT = 0, 8;
        VERSION = MAGIC_AT.end, 2;
        CHECKSUM = VERSION.end, 1;
        ORDER = CHECKSUM.end, 1;
        BLOCK = ORDER.end, 4;
        LOG_ID = BLOCK.end, 16;
        NUMBER = LOG_ID.end, 8;
        // Range of a sparse segment; both zero in a dense one, whose commits define it.
        FIRST_POSITION = NUMBER.end, 8;
        LAST_POSITION = FIRST_POSITION.end, 8;
        RESERVED = LAST_POSITION.end, 8;
        CREATED = RESERVED.end, 8;
        SALT = CREATED.end, 4;
        CRC = SALT.end, 4;
    }
    pub(crate) const BYTES: usize = CRC.end;
    const _: () = assert!(BYTES == 80 && BYTES <= TWIN && BLOCK_BYTES.is_multiple_of(8));
}

/// Header of a commit; the directory of its batches follows.
pub(crate) mod commit_header {
    pub(crate) const MAGIC: [u8; 3] = *b"AMC";
    pub(crate) const FLAG_UNVOUCHED: u8 = 1;
    layout! {
        MAGIC_AT = 0, 3;
        FLAGS = MAGIC_AT.end, 1;
        LENGTH = FLAGS.end, 4;
        POSITION = LENGTH.end, 8;
        TIME = POSITION.end, 8;
        ACKED_LAG = TIME.end, 4;
        DURABLE_LAG = ACKED_LAG.end, 4;
        BATCHES = DURABLE_LAG.end, 4;
        CRC = BATCHES.end, 4;
    }
    pub(crate) const BYTES: usize = CRC.end;
    const _: () = assert!(BYTES == 40 && BYTES.is_multiple_of(8));
}

/// Batch header: one entry of a commit's directory.
pub(crate) mod batch_header {
    layout! {
        STREAM = 0, 16;
        FIRST_SEQ = STREAM.end, 8;
        COUNT = FIRST_SEQ.end, 4;
        END = COUNT.end, 4;
        KIND = END.end, 1;
        GENERATION = KIND.end, 3;
        FLAGS = GENERATION.end, 1;
        ORDER = FLAGS.end, 3;
        CRC = ORDER.end, 4;
        HEAD_CRC = CRC.end, 4;
    }
    pub(crate) const BYTES: usize = HEAD_CRC.end;
    pub(crate) const ORDER_MAX: u32 = (1 << 24) - 1;
    const _: () = assert!(BYTES == 48 && BYTES.is_multiple_of(8));
}

/// Head of one event's frame; the payload follows, unpadded.
pub(crate) mod frame_header {
    layout! {
        LENGTH = 0, 4;
        KIND = LENGTH.end, 2;
        SCHEMA_VERSION = KIND.end, 1;
        CODEC = SCHEMA_VERSION.end, 1;
        TIME_FLAGS = CODEC.end, 8;
    }
    pub(crate) const BYTES: usize = TIME_FLAGS.end;
    pub(crate) const TIME_BITS: u32 = 56;
    pub(crate) const TIME_MAX: u64 = (1 << TIME_BITS) - 1;
    const _: () = assert!(BYTES == 16);
}

/// Marker: the last bytes of a commit.
pub(crate) mod marker {
    layout! {
        LENGTH = 0, 4;
        INVERSE = LENGTH.end, 4;
    }
    pub(crate) const BYTES: usize = INVERSE.end;
    const _: () = assert!(BYTES == 8);
}

/// Tail record: a copy of the watermark behind the last commit.
pub(crate) mod tail_record {
    pub(crate) const MAGIC: [u8; 3] = *b"AMW";
    pub(crate) const FLAG_CLEAN: u8 = 1;
    pub(crate) const FLAG_SETTLED: u8 = 2;
    layout! {
        MAGIC_AT = 0, 3;
        FLAGS = MAGIC_AT.end, 1;
        LENGTH = FLAGS.end, 4;
        POSITION = LENGTH.end, 8;
        DURABLE = POSITION.end, 8;
        VOUCHED = DURABLE.end, 8;
        UNUSED = VOUCHED.end, 4;
        CRC = UNUSED.end, 4;
    }
    pub(crate) const BYTES: usize = CRC.end;
    const _: () = assert!(BYTES == 40 && super::commit_header::BYTES == BYTES);
}

/// Head of a sealed segment's index footer. The streams follow, then the entries, then the places
/// of commits.
pub(crate) mod footer_head {
    pub(crate) const MAGIC: [u8; 3] = *b"AMF";
    layout! {
        MAGIC_AT = 0, 3;
        FLAGS = MAGIC_AT.end, 1;
        STREAMS = FLAGS.end, 4;
        ENTRIES = STREAMS.end, 4;
        PLACES = ENTRIES.end, 4;
        WIDTHS = PLACES.end, 5;
        UNUSED = WIDTHS.end, 3;
        CRC = UNUSED.end, 4;
    }
    pub(crate) const BYTES: usize = CRC.end;
    const _: () = assert!(BYTES == 28);
}

/// Stream in the footer, with the end of its entries.
pub(crate) mod footer_stream_layout {
    layout! {
        STREAM = 0, 16;
        END = STREAM.end, 4;
    }
    pub(crate) const BYTES: usize = END.end;
    const _: () = assert!(BYTES == 20);
}

/// Place of a commit in the footer: one for the first commit that starts in each block of a
/// segment.
pub(crate) mod commit_place_layout {
    /// Length of a block. From a place, a reader steps over less than this many bytes, header by
    /// header: at most 682 headers, some 20 µs. The place of 12 bytes is less than a thousandth of
    /// the block.
    pub(crate) const BLOCK_BYTES: u64 = 64 << 10;
    layout! {
        POSITION = 0, 8;
        PLACE = POSITION.end, 4;
    }
    pub(crate) const BYTES: usize = PLACE.end;
    const _: () = assert!(BYTES == 12 && BLOCK_BYTES.is_power_of_two());
}

/// Trailer: the last bytes of a sealed segment.
pub(crate) mod trailer {
    pub(crate) const MAGIC: [u8; 8] = *b"AMBERFIN";
    layout! {
        MAGIC_AT = 0, 8;
        LOG_ID = MAGIC_AT.end, 16;
        NUMBER = LOG_ID.end, 4;
        ORDER = NUMBER.end, 1;
        UNUSED = ORDER.end, 3;
        FIRST_POSITION = UNUSED.end, 8;
        LAST_POSITION = FIRST_POSITION.end, 8;
        FOOTER_AT = LAST_POSITION.end, 8;
        EARLIEST = FOOTER_AT.end, 8;
        LATEST = EARLIEST.end, 8;
        VOUCHED_FIRST = LATEST.end, 8;
        VOUCHED_LAST = VOUCHED_FIRST.end, 8;
        SALT = VOUCHED_LAST.end, 4;
        CRC = SALT.end, 4;
    }
    pub(crate) const BYTES: usize = CRC.end;
    const _: () = assert!(BYTES == 96);
}

/// One attribute of a stream in a catalog batch; the value follows.
pub(crate) mod attribute {
    layout! {
        TAG = 0, 2;
        UNUSED = TAG.end, 2;
        LENGTH = UNUSED.end, 4;
    }
    pub(crate) const BYTES: usize = LENGTH.end;
    pub(crate) const TAG_NAME: u16 = 1;
    pub(crate) const TAG_LABEL: u16 = 2;
    pub(crate) const TAG_DATA: u16 = 3;
    pub(crate) const TAG_STATE: u16 = 4;
    pub(crate) const TAG_START: u16 = 5;
    pub(crate) const TAG_PARENT: u16 = 6;
    pub(crate) const TAG_SUMMARY: u16 = 7;
    pub(crate) const TAG_OPTIONAL: u16 = 0x8000;
    const _: () = assert!(BYTES == 8);
}

/// Value of a label attribute; the key and its value follow.
pub(crate) mod label {
    layout! {
        KEY_BYTES = 0, 2;
    }
    pub(crate) const BYTES: usize = KEY_BYTES.end;
}

/// Value of the attribute that records a stream's parent.
pub(crate) mod parent {
    layout! {
        STREAM = 0, 16;
        SEQ = STREAM.end, 8;
    }
    pub(crate) const BYTES: usize = SEQ.end;
}

/// Fork batch: the stream and generation whose events precede the stream's own.
pub(crate) mod fork {
    layout! {
        STREAM = 0, 16;
        GENERATION = STREAM.end, 4;
    }
    pub(crate) const BYTES: usize = GENERATION.end;
    const _: () = assert!(BYTES == 20);
}

/// Offset of the first commit in a segment.
pub(crate) const COMMITS_AT: u64 = header::BLOCK_BYTES as u64;
/// Maximum length of a commit, in bytes: offsets in a segment are 29 bits, in units of 8 bytes.
pub(crate) const COMMIT_BYTES_MAX: u64 = (1 << 32) - (1 << 16);
/// Maximum length of a segment, in bytes: offsets in it are 29 bits, in units of 8 bytes.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 1 << 32;
/// Maximum position of a record, so that the next position can always be represented.
pub(crate) const POSITION_MAX: u64 = u64::MAX / 2;
/// Maximum seq of a stream, so that the end of a batch can always be represented.
pub(crate) const SEQ_MAX: u64 = u64::MAX / 2;
/// Length of the smallest commit, in bytes: one batch without bytes.
pub(crate) const COMMIT_BYTES_MIN: u64 =
    (commit_header::BYTES + batch_header::BYTES + marker::BYTES) as u64;

/// Seed of batch checksums, chosen so that the checksum of an empty batch is not zero.
const BATCH_SEED: u32 = u32::from_le_bytes(*b"ambr");

/// Returns the CRC-32/ISO-HDLC of the concatenated `parts`, continuing from `seed`.
pub(crate) fn checksum(seed: u32, parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

/// Returns the checksum of a batch's bytes. Unsalted: the salted header covers it.
pub(crate) fn batch_crc(parts: &[&[u8]]) -> u32 {
    checksum(BATCH_SEED, parts)
}

/// Rounds `bytes` up to where the next record may start. Saturates: no file is that long.
pub(crate) const fn align_up(bytes: u64) -> u64 {
    match bytes.checked_next_multiple_of(ALIGN) {
        Some(aligned) => aligned,
        None => u64::MAX,
    }
}

/// Reports whether all bytes are zero. Checks whole blocks at a time, because opening a log scans
/// all its preallocated space.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<64>();
    let is_zero = |block: &[u8]| block.iter().fold(0, |all, byte| all | byte) == 0;
    blocks.iter().all(|block| is_zero(block)) && is_zero(rest)
}

#[inline]
fn put(bytes: &mut [u8], field: &std::ops::Range<usize>, value: &[u8]) {
    bytes[field.clone()].copy_from_slice(value);
}

#[inline]
fn take<const N: usize>(bytes: &[u8], field: &std::ops::Range<usize>) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[field.clone()]);
    value
}

#[inline]
fn take_u32(bytes: &[u8], field: &std::ops::Range<usize>) -> u32 {
    u32::from_le_bytes(take(bytes, field))
}

#[inline]
fn take_u64(bytes: &[u8], field: &std::ops::Range<usize>) -> u64 {
    u64::from_le_bytes(take(bytes, field))
}

/// Maximum generation: the field has 24 bits.
pub(crate) const GENERATION_MAX: u32 = (1 << 24) - 1;

/// Decodes the bytes of a fork batch: the stream, and its generation, with which earlier events are
/// shared.
pub(crate) fn decode_fork(bytes: &[u8]) -> Option<([u8; 16], u32)> {
    let whole = bytes.len() == fork::BYTES;
    whole.then(|| (take(bytes, &fork::STREAM), take_u32(bytes, &fork::GENERATION)))
}

/// Encodes the bytes of a fork batch.
pub(crate) fn encode_fork(stream: &[u8; 16], generation: u32) -> [u8; fork::BYTES] {
    let mut bytes = [0; fork::BYTES];
    put(&mut bytes, &fork::STREAM, stream);
    put(&mut bytes, &fork::GENERATION, &generation.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_has_the_published_check_value() {
        assert_eq!(checksum(0, &[b"123456789"]), 0xCBF4_3926);
        assert_eq!(checksum(0, &[b"1234", b"56789"]), 0xCBF4_3926);
        assert_eq!(checksum(checksum(0, &[b"1234"]), &[b"56789"]), 0xCBF4_3926);
    }

    #[test]
    fn one_bit_anywhere_is_not_zero() {
        let mut bytes = [0; 200];
        assert!(is_zero(&bytes) && is_zero(&[]));
        for at in 0..bytes.len() {
            bytes[at] = 0x80;
            assert!(!is_zero(&bytes), "byte {at}");
            bytes[at] = 0;
        }
    }

    #[test]
    fn checksum_of_no_batch_is_not_zero() {
        assert_ne!(batch_crc(&[]), 0);
    }
}
