//! The frame around the commits of one segment: header in front; footer and trailer behind, once sealed.

use super::{
    CHECKSUM_CRC32, POSITION_MAX, SEGMENT_BYTES_MAX, VERSION, checksum, footer,
    footer_entry_layout as entry, header, is_zero, put, take, take_u32, take_u64, trailer,
};
use crate::format::{ALIGN, BatchKind};

/// The commits that a sparse segment speaks for: first and last position. What is not in it was collected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Covers {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// What a segment says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    pub(crate) log_id: [u8; 16],
    pub(crate) number: u32,
    /// The file is at least this long until it is sealed, or closed cleanly.
    pub(crate) reserved_bytes: u64,
    pub(crate) created_micros: u64,
    pub(crate) salt: u32,
    /// `None`: positions are dense, and the commits say which.
    pub(crate) covers: Option<Covers>,
}

/// Why a header block was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HeaderError {
    /// All zeros: a segment that was prepared and never used.
    Blank,
    /// Neither the header nor its twin is what was written.
    Damaged,
    /// A newer format.
    Version(u16),
}

impl SegmentHeader {
    /// The whole block: the header, zeros, the twin, zeros.
    pub(crate) fn encode(&self) -> [u8; header::BLOCK_BYTES] {
        let mut one = [0; header::BYTES];
        put(&mut one, &header::MAGIC_AT, &header::MAGIC);
        put(&mut one, &header::VERSION, &VERSION.to_le_bytes());
        put(&mut one, &header::CHECKSUM, &[CHECKSUM_CRC32]);
        put(&mut one, &header::BLOCK, &(header::BLOCK_BYTES as u32).to_le_bytes());
        put(&mut one, &header::LOG_ID, &self.log_id);
        put(&mut one, &header::NUMBER, &u64::from(self.number).to_le_bytes());
        put(&mut one, &header::RESERVED, &self.reserved_bytes.to_le_bytes());
        put(&mut one, &header::CREATED, &self.created_micros.to_le_bytes());
        put(&mut one, &header::SALT, &self.salt.to_le_bytes());
        if let Some(covers) = self.covers {
            put(&mut one, &header::ORDER, &[header::ORDER_SPARSE]);
            put(&mut one, &header::FIRST_POSITION, &covers.first.to_le_bytes());
            put(&mut one, &header::LAST_POSITION, &covers.last.to_le_bytes());
        }
        let crc = checksum(0, &[&one[..header::CRC.start]]);
        put(&mut one, &header::CRC, &crc.to_le_bytes());
        let mut block = [0; header::BLOCK_BYTES];
        block[..header::BYTES].copy_from_slice(&one);
        block[header::TWIN..header::TWIN + header::BYTES].copy_from_slice(&one);
        block
    }
}

/// Whether the block is one of a segment, whole or not: its header or the twin says so.
pub(crate) fn seems_segment(block: &[u8]) -> bool {
    [0, header::TWIN]
        .iter()
        .any(|at| block.get(*at..).is_some_and(|one| one.starts_with(&header::MAGIC)))
}

/// Reads a header block; a damaged header is replaced by its twin. Says whether both were whole.
pub(crate) fn decode_header(block: &[u8]) -> Result<(SegmentHeader, bool), HeaderError> {
    let Some(block) = block.get(..header::BLOCK_BYTES) else {
        let blank = is_zero(block);
        return Err(if blank { HeaderError::Blank } else { HeaderError::Damaged });
    };
    if is_zero(block) {
        return Err(HeaderError::Blank);
    }
    let first = decode_one(&block[..header::BYTES]);
    let twin = decode_one(&block[header::TWIN..header::TWIN + header::BYTES]);
    match (first, twin) {
        (Ok(first), twin) => {
            let rest_is_zero = is_zero(&block[header::BYTES..header::TWIN])
                && is_zero(&block[header::TWIN + header::BYTES..]);
            Ok((first, twin == Ok(first) && rest_is_zero))
        }
        (Err(_), Ok(twin)) => Ok((twin, false)),
        (Err(HeaderError::Version(found)), _) | (_, Err(HeaderError::Version(found))) => {
            Err(HeaderError::Version(found))
        }
        (Err(error), Err(_)) => Err(error),
    }
}

/// The second copy of the header, if it is whole.
pub(crate) fn decode_twin(block: &[u8]) -> Option<SegmentHeader> {
    decode_one(block.get(header::TWIN..header::TWIN + header::BYTES)?).ok()
}

fn decode_one(bytes: &[u8]) -> Result<SegmentHeader, HeaderError> {
    if bytes[header::MAGIC_AT] != header::MAGIC
        || take_u32(bytes, &header::CRC) != checksum(0, &[&bytes[..header::CRC.start]])
    {
        return Err(HeaderError::Damaged);
    }
    let version = u16::from_le_bytes(take(bytes, &header::VERSION));
    let (first, last) =
        (take_u64(bytes, &header::FIRST_POSITION), take_u64(bytes, &header::LAST_POSITION));
    let covers = match bytes[header::ORDER.start] {
        header::ORDER_DENSE => (first == 0 && last == 0).then_some(None),
        header::ORDER_SPARSE => (first > 0 && first <= last && last <= POSITION_MAX)
            .then_some(Some(Covers { first, last })),
        _ => None,
    };
    let known = version == VERSION
        && bytes[header::CHECKSUM.start] == CHECKSUM_CRC32
        && take_u32(bytes, &header::BLOCK) as usize == header::BLOCK_BYTES;
    let (true, Some(covers)) = (known, covers) else {
        return Err(HeaderError::Version(version.max(VERSION + 1)));
    };
    let found = SegmentHeader {
        log_id: take(bytes, &header::LOG_ID),
        number: u32::try_from(take_u64(bytes, &header::NUMBER))
            .map_err(|_| HeaderError::Damaged)?,
        reserved_bytes: take_u64(bytes, &header::RESERVED),
        created_micros: take_u64(bytes, &header::CREATED),
        salt: take_u32(bytes, &header::SALT),
        covers,
    };
    let possible = found.reserved_bytes <= SEGMENT_BYTES_MAX;
    possible.then_some(found).ok_or(HeaderError::Damaged)
}

/// One batch of one stream, as the index footer knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FooterEntry {
    pub(crate) stream: [u8; 16],
    pub(crate) first_seq: u64,
    pub(crate) count: u32,
    /// Bytes from the start of the segment to the commit's header.
    pub(crate) offset: u64,
    pub(crate) kind: BatchKind,
}

/// What a sealed segment ends with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Trailer {
    pub(crate) log_id: [u8; 16],
    pub(crate) number: u32,
    pub(crate) first_position: u64,
    pub(crate) last_position: u64,
    pub(crate) footer_at: u64,
    pub(crate) salt: u32,
}

/// What footer and trailer of so many entries take.
pub(crate) const fn footer_bytes(entries: usize) -> u64 {
    (footer::BYTES + entries * entry::BYTES + trailer::BYTES) as u64
}

/// The footer and the trailer, as they stand behind the last commit. `entries` are sorted by stream,
/// and in the order of their commits within a stream.
pub(crate) fn encode_footer(entries: &[FooterEntry], end: &Trailer) -> Vec<u8> {
    let total = footer::BYTES + entries.len() * entry::BYTES + trailer::BYTES;
    let mut bytes = vec![0; total];
    let (head, rest) = bytes.split_at_mut(footer::BYTES);
    let (body, tail) = rest.split_at_mut(entries.len() * entry::BYTES);
    for (at, one) in body.chunks_exact_mut(entry::BYTES).zip(entries) {
        let place = (one.offset / ALIGN) as u32 | u32::from(one.kind as u8) << entry::KIND_SHIFT;
        put(at, &entry::STREAM, &one.stream);
        put(at, &entry::FIRST_SEQ, &one.first_seq.to_le_bytes());
        put(at, &entry::COUNT, &one.count.to_le_bytes());
        put(at, &entry::PLACE, &place.to_le_bytes());
    }
    put(head, &footer::MAGIC_AT, &footer::MAGIC);
    put(head, &footer::ENTRIES, &(entries.len() as u32).to_le_bytes());
    let crc = checksum(end.salt, &[&head[..footer::CRC.start], body]);
    put(head, &footer::CRC, &crc.to_le_bytes());

    put(tail, &trailer::MAGIC_AT, &trailer::MAGIC);
    put(tail, &trailer::LOG_ID, &end.log_id);
    put(tail, &trailer::NUMBER, &u64::from(end.number).to_le_bytes());
    put(tail, &trailer::FIRST_POSITION, &end.first_position.to_le_bytes());
    put(tail, &trailer::LAST_POSITION, &end.last_position.to_le_bytes());
    put(tail, &trailer::FOOTER_AT, &end.footer_at.to_le_bytes());
    put(tail, &trailer::SALT, &end.salt.to_le_bytes());
    let crc = checksum(end.salt, &[&tail[..trailer::CRC.start]]);
    put(tail, &trailer::CRC, &crc.to_le_bytes());
    bytes
}

/// Reads the last [`trailer::BYTES`] of a file that may be a sealed segment with this header.
pub(crate) fn decode_trailer(bytes: &[u8], of: &SegmentHeader) -> Option<Trailer> {
    let bytes = bytes.get(..trailer::BYTES)?;
    let whole = bytes[trailer::MAGIC_AT] == trailer::MAGIC
        && take_u32(bytes, &trailer::CRC) == checksum(of.salt, &[&bytes[..trailer::CRC.start]]);
    let found = Trailer {
        log_id: take(bytes, &trailer::LOG_ID),
        number: u32::try_from(take_u64(bytes, &trailer::NUMBER)).ok()?,
        first_position: take_u64(bytes, &trailer::FIRST_POSITION),
        last_position: take_u64(bytes, &trailer::LAST_POSITION),
        footer_at: take_u64(bytes, &trailer::FOOTER_AT),
        salt: take_u32(bytes, &trailer::SALT),
    };
    let same = found.log_id == of.log_id
        && found.number == of.number
        && found.first_position > 0
        && found.salt == of.salt
        && of
            .covers
            .is_none_or(|all| (all.first, all.last) == (found.first_position, found.last_position))
        && found.last_position <= POSITION_MAX
        && found.last_position + 1 >= found.first_position;
    (whole && same).then_some(found)
}

/// Whether `bytes`, which reach from the footer to the trailer, are the footer that was written.
/// Returns the entries' bytes.
pub(crate) fn footer_is_valid(bytes: &[u8], salt: u32) -> Option<&[u8]> {
    let head = bytes.get(..footer::BYTES)?;
    let body = &bytes[footer::BYTES..];
    let entries = take_u32(head, &footer::ENTRIES) as usize;
    let whole = head[footer::MAGIC_AT] == footer::MAGIC
        && entries.checked_mul(entry::BYTES)? == body.len()
        && take_u32(head, &footer::CRC) == checksum(salt, &[&head[..footer::CRC.start], body]);
    whole.then_some(body)
}

/// The entry at `index` of a footer's entries; `None` past the last, or when its kind is unknown.
pub(crate) fn footer_entry(entries: &[u8], index: usize) -> Option<FooterEntry> {
    let at = index.checked_mul(entry::BYTES)?;
    let bytes = entries.get(at..at.checked_add(entry::BYTES)?)?;
    let place = take_u32(bytes, &entry::PLACE);
    Some(FooterEntry {
        stream: take(bytes, &entry::STREAM),
        first_seq: take_u64(bytes, &entry::FIRST_SEQ),
        count: take_u32(bytes, &entry::COUNT),
        offset: u64::from(place & ((1 << entry::KIND_SHIFT) - 1)) * ALIGN,
        kind: BatchKind::from_byte((place >> entry::KIND_SHIFT) as u8)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> SegmentHeader {
        SegmentHeader {
            log_id: *b"0123456789abcdef",
            number: 7,
            reserved_bytes: 1 << 18,
            created_micros: 1_700_000_000_000_000,
            salt: 0xDEAD_BEEF,
            covers: None,
        }
    }

    #[test]
    fn header_survives_damage_to_either_copy() {
        let whole = example().encode();
        assert_eq!(decode_header(&whole), Ok((example(), true)));
        for at in [0, 30, header::BYTES - 1, header::TWIN, header::TWIN + 50, 100] {
            let mut damaged = whole;
            damaged[at] ^= 1;
            assert_eq!(decode_header(&damaged), Ok((example(), false)), "byte {at}");
        }
        let mut both = whole;
        both[3] ^= 1;
        both[header::TWIN + 3] ^= 1;
        assert_eq!(decode_header(&both), Err(HeaderError::Damaged));
        assert_eq!(decode_header(&[0; header::BLOCK_BYTES]), Err(HeaderError::Blank));
    }

    #[test]
    fn a_sparse_header_says_what_it_covers() {
        let covers = Some(Covers { first: 3, last: 99 });
        let sparse = SegmentHeader { covers, ..example() };
        assert_eq!(decode_header(&sparse.encode()), Ok((sparse, true)));
        for covers in [Covers { first: 0, last: 9 }, Covers { first: 9, last: 8 }] {
            let wrong = SegmentHeader { covers: Some(covers), ..example() }.encode();
            assert!(matches!(decode_header(&wrong), Err(HeaderError::Version(_))), "{covers:?}");
        }
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut block = example().encode();
        for at in [0, header::TWIN] {
            let one = &mut block[at..at + header::BYTES];
            put(one, &header::VERSION, &9_u16.to_le_bytes());
            let crc = checksum(0, &[&one[..header::CRC.start]]);
            put(one, &header::CRC, &crc.to_le_bytes());
        }
        assert_eq!(decode_header(&block), Err(HeaderError::Version(9)));
    }

    #[test]
    fn footer_and_trailer_come_back() {
        let end = Trailer {
            log_id: example().log_id,
            number: 7,
            first_position: 42,
            last_position: 44,
            footer_at: 8192,
            salt: example().salt,
        };
        let entries = [1_u8, 2].map(|n| FooterEntry {
            stream: [n; 16],
            first_seq: 5,
            count: 3,
            offset: 4096 + u64::from(n) * 8,
            kind: BatchKind::Events,
        });
        let bytes = encode_footer(&entries, &end);
        let split = bytes.len() - trailer::BYTES;
        assert_eq!(decode_trailer(&bytes[split..], &example()), Some(end));
        let body = footer_is_valid(&bytes[..split], example().salt).expect("whole");
        assert_eq!(footer_entry(body, 0), Some(entries[0]));
        assert_eq!(footer_entry(body, 1), Some(entries[1]));
        assert_eq!(footer_entry(body, 2), None);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let seen = decode_trailer(&damaged[split..], &example()).is_some()
                && footer_is_valid(&damaged[..split], example().salt).is_some();
            assert!(!seen, "bit {bit}");
        }
    }
}
