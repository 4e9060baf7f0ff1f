//! The bytes: every constant of the layout, how each record is encoded and decoded, and the checksums.
//!
//! The only room that knows byte order. It is pure: slices in, a classification out. It never reads a
//! file, never allocates what a length field asks for, and never decides what a finding means.
//! `docs/format.md` is the same in words; a test holds the two together.
//!
//! Everything is little endian. Zero is reserved: no valid record starts with a zero byte, so space that
//! was preallocated, or never written, reads as the end.

mod attributes;
mod commit;
#[cfg(test)]
mod example;
mod frame;
#[cfg(fuzzing)]
pub mod fuzzing;
mod segment;

pub(crate) use attributes::{Attribute, AttributeError, Attributes, ColdSeqs, put_attribute};
pub(crate) use commit::{
    BatchHead, BatchKind, Class, CommitHead, CommitPlan, Ending, PlannedBatch, Witness, classify,
    decode_witness, encode_commit, padding_is_zero, record_at,
};
pub(crate) use frame::{FrameHead, Frames, frame_crc, frame_head, put_frame_head};
pub(crate) use segment::{
    Covers, FooterEntry, HeaderError, SegmentHeader, Trailer, decode_header, decode_trailer,
    decode_twin, encode_footer, footer_bytes, footer_entry, footer_is_valid, seems_segment,
};

/// The newest format version, and so far the only one.
pub(crate) const VERSION: u16 = 1;
/// CRC-32/ISO-HDLC (polynomial 0x04C11DB7, reflected), as in zip, gzip and PNG.
pub(crate) const CHECKSUM_CRC32: u8 = 1;
/// What a disk writes wholly or not at all.
pub(crate) const SECTOR_BYTES: u64 = 512;
/// The most that a record's place may lie behind the end of the one before.
pub(crate) const RECORD_SHIFT_MAX: u64 = 32;
/// Records start at multiples of this.
pub(crate) const ALIGN: u64 = 8;

/// Names one field: where it starts and where the next one may.
macro_rules! layout {
    ($($(#[$doc:meta])* $name:ident = $start:expr, $len:expr;)+) => {
        $($(#[$doc])* pub(crate) const $name: std::ops::Range<usize> = $start..$start + $len;)+
        /// All fields by name, to be compared with `docs/format.md`.
        #[cfg(test)]
        pub(crate) const FIELDS: &[(&str, std::ops::Range<usize>)] =
            &[$((stringify!($name), $name)),+];
    };
}

/// The block at the start of a segment: the header, and its twin half a block later.
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
        // Both zero in a dense segment: its commits say. What a sparse one covers.
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

/// The header of a commit; the directory of its batches follows.
pub(crate) mod commit_header {
    pub(crate) const MAGIC: [u8; 3] = *b"AMC";
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

/// One batch in a commit's directory.
pub(crate) mod batch_header {
    layout! {
        STREAM = 0, 16;
        FIRST_SEQ = STREAM.end, 8;
        COUNT = FIRST_SEQ.end, 4;
        END = COUNT.end, 4;
        KIND = END.end, 1;
        GENERATION = KIND.end, 3;
        CRC = GENERATION.end, 4;
    }
    pub(crate) const BYTES: usize = CRC.end;
    const _: () = assert!(BYTES == 40 && BYTES.is_multiple_of(8));
}

/// The head of one event's frame; the payload follows, unpadded.
pub(crate) mod frame_header {
    layout! {
        LENGTH = 0, 4;
        KIND = LENGTH.end, 2;
        TIME_CODEC = KIND.end, 8;
    }
    pub(crate) const BYTES: usize = TIME_CODEC.end;
    pub(crate) const TIME_BITS: u32 = 56;
    const _: () = assert!(BYTES == 14);
}

/// The marker: the last bytes of a commit.
pub(crate) mod marker {
    layout! {
        LENGTH = 0, 4;
        CRC = LENGTH.end, 4;
    }
    pub(crate) const BYTES: usize = CRC.end;
    const _: () = assert!(BYTES == 8);
}

/// The witness: the watermark, written once more behind the last commit.
pub(crate) mod witness {
    pub(crate) const MAGIC: [u8; 3] = *b"AMW";
    pub(crate) const FLAG_CLEAN: u8 = 1;
    pub(crate) const FLAG_SETTLED: u8 = 2;
    layout! {
        MAGIC_AT = 0, 3;
        FLAGS = MAGIC_AT.end, 1;
        LENGTH = FLAGS.end, 4;
        POSITION = LENGTH.end, 8;
        DURABLE = POSITION.end, 8;
        TIME = DURABLE.end, 8;
        UNUSED = TIME.end, 4;
        CRC = UNUSED.end, 4;
    }
    pub(crate) const BYTES: usize = CRC.end;
    const _: () = assert!(BYTES == 40 && super::commit_header::BYTES == BYTES);
}

/// The head of a sealed segment's index footer; the entries follow.
pub(crate) mod footer {
    pub(crate) const MAGIC: [u8; 3] = *b"AMF";
    layout! {
        MAGIC_AT = 0, 3;
        FLAGS = MAGIC_AT.end, 1;
        ENTRIES = FLAGS.end, 4;
        UNUSED = ENTRIES.end, 4;
        CRC = UNUSED.end, 4;
    }
    pub(crate) const BYTES: usize = CRC.end;
    const _: () = assert!(BYTES == 16);
}

/// One entry of the index footer: where one batch of one stream is.
pub(crate) mod footer_entry_layout {
    layout! {
        STREAM = 0, 16;
        FIRST_SEQ = STREAM.end, 8;
        COUNT = FIRST_SEQ.end, 4;
        PLACE = COUNT.end, 4;
    }
    pub(crate) const BYTES: usize = PLACE.end;
    pub(crate) const KIND_SHIFT: u32 = 29;
    const _: () = assert!(BYTES == 32);
}

/// The trailer: the last bytes of a sealed segment.
pub(crate) mod trailer {
    pub(crate) const MAGIC: [u8; 8] = *b"AMBERFIN";
    layout! {
        MAGIC_AT = 0, 8;
        LOG_ID = MAGIC_AT.end, 16;
        NUMBER = LOG_ID.end, 8;
        FIRST_POSITION = NUMBER.end, 8;
        LAST_POSITION = FIRST_POSITION.end, 8;
        FOOTER_AT = LAST_POSITION.end, 8;
        SALT = FOOTER_AT.end, 4;
        CRC = SALT.end, 4;
    }
    pub(crate) const BYTES: usize = CRC.end;
    const _: () = assert!(BYTES == 64);
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
    pub(crate) const TAG_COLD: u16 = 7;
    pub(crate) const TAG_OPTIONAL: u16 = 0x8000;
    const _: () = assert!(BYTES == 8);
}

/// The value of a label; the key and what it is set to follow.
pub(crate) mod label {
    layout! {
        KEY_BYTES = 0, 2;
    }
    pub(crate) const BYTES: usize = KEY_BYTES.end;
}

/// The value of the attribute that says what a stream was forked from.
pub(crate) mod parent {
    layout! {
        STREAM = 0, 16;
        SEQ = STREAM.end, 8;
    }
    pub(crate) const BYTES: usize = SEQ.end;
}

/// The value of the attribute that says which of a stream's events moved to its archive file.
pub(crate) mod cold {
    layout! {
        START = 0, 8;
        END = START.end, 8;
        FILE_BYTES = END.end, 8;
        SALT = FILE_BYTES.end, 4;
    }
    pub(crate) const BYTES: usize = SALT.end;
    const _: () = assert!(BYTES == 28);
}

/// The bytes of a fork: whose events come before the stream's own.
pub(crate) mod fork {
    layout! {
        STREAM = 0, 16;
        GENERATION = STREAM.end, 4;
    }
    pub(crate) const BYTES: usize = GENERATION.end;
    const _: () = assert!(BYTES == 20);
}

/// The first commit of a segment starts here.
pub(crate) const COMMITS_AT: u64 = header::BLOCK_BYTES as u64;
/// A commit, and so a segment's commits, must be addressable in 29 bits of 8 bytes.
pub(crate) const COMMIT_BYTES_MAX: u64 = (1 << 32) - (1 << 16);
/// A segment cannot be longer: places in it have 29 bits of 8 bytes.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 1 << 32;
/// No record says that it is of a later commit: so the next position can always be named.
pub(crate) const POSITION_MAX: u64 = u64::MAX / 2;
/// The smallest possible commit: one batch without bytes.
pub(crate) const COMMIT_BYTES_MIN: u64 =
    (commit_header::BYTES + batch_header::BYTES + marker::BYTES) as u64;

/// Batches are checksummed from here on, so that the checksum of nothing is not zero.
const BATCH_SEED: u32 = u32::from_le_bytes(*b"ambr");

/// CRC-32/ISO-HDLC of `parts` in a row, continuing from `seed`.
pub(crate) fn checksum(seed: u32, parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

/// The checksum of a batch's bytes. Not salted: the salted header covers it.
pub(crate) fn batch_crc(parts: &[&[u8]]) -> u32 {
    checksum(BATCH_SEED, parts)
}

/// `bytes` rounded up to where the next record may start.
pub(crate) const fn align_up(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGN)
}

/// Whether nothing was ever written here. Blocks at a time: opening looks at all the space kept ready.
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

/// The last generation that can be: the field has 24 bits.
pub(crate) const GENERATION_MAX: u32 = (1 << 24) - 1;

/// A fork batch's bytes: the stream, and the generation in it, that what comes before is shared with.
pub(crate) fn decode_fork(bytes: &[u8]) -> Option<([u8; 16], u32)> {
    let whole = bytes.len() == fork::BYTES;
    whole.then(|| (take(bytes, &fork::STREAM), take_u32(bytes, &fork::GENERATION)))
}

/// The bytes of a fork batch.
pub(crate) fn encode_fork(stream: &[u8; 16], generation: u32) -> [u8; fork::BYTES] {
    let mut bytes = [0; fork::BYTES];
    put(&mut bytes, &fork::STREAM, stream);
    put(&mut bytes, &fork::GENERATION, &generation.to_le_bytes());
    bytes
}

/// A small unsigned number at the start of a gap batch's bytes: how many events were dropped.
pub(crate) fn decode_gap(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// The bytes of a gap batch.
pub(crate) fn encode_gap(dropped: u64) -> [u8; 8] {
    dropped.to_le_bytes()
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
