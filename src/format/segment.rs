//! First and last record of a segment: its header, and the trailer once it is sealed.

use super::{
    CHECKSUM_CRC32, CommitDate, POSITION_MAX, SEGMENT_BYTES_MAX, VERSION, checksum, header,
    is_zero, put, take, take_u32, take_u64, trailer,
};

/// First and last position of the commits that a sparse segment covers. A position in this range
/// that the segment lacks was compacted away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Covers {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// Decoded header of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    pub(crate) log_id: [u8; 16],
    pub(crate) number: u32,
    /// Minimum length of the file until it is sealed or closed cleanly.
    pub(crate) reserved_bytes: u64,
    pub(crate) created_micros: u64,
    pub(crate) salt: u32,
    /// Range of a sparse segment; `None` if positions are dense and the commits alone define them.
    pub(crate) covers: Option<Covers>,
}

/// Reason why a header block was rejected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HeaderError {
    /// All zeros: the segment was prepared and never used.
    Blank,
    /// Neither the header nor its twin is intact.
    Damaged,
    /// The format version is newer than this one.
    Version(u16),
}

impl SegmentHeader {
    /// Encodes the whole block: header, zeros, twin, zeros.
    pub(crate) fn encode(&self) -> [u8; header::BLOCK_BYTES] {
        let mut copy = [0; header::BYTES];
        put(&mut copy, &header::MAGIC_AT, &header::MAGIC);
        put(&mut copy, &header::VERSION, &VERSION.to_le_bytes());
        put(&mut copy, &header::CHECKSUM, &[CHECKSUM_CRC32]);
        put(&mut copy, &header::BLOCK, &(header::BLOCK_BYTES as u32).to_le_bytes());
        put(&mut copy, &header::LOG_ID, &self.log_id);
        put(&mut copy, &header::NUMBER, &u64::from(self.number).to_le_bytes());
        put(&mut copy, &header::RESERVED, &self.reserved_bytes.to_le_bytes());
        put(&mut copy, &header::CREATED, &self.created_micros.to_le_bytes());
        put(&mut copy, &header::SALT, &self.salt.to_le_bytes());
        if let Some(covers) = self.covers {
            put(&mut copy, &header::ORDER, &[header::ORDER_SPARSE]);
            put(&mut copy, &header::FIRST_POSITION, &covers.first.to_le_bytes());
            put(&mut copy, &header::LAST_POSITION, &covers.last.to_le_bytes());
        }
        let crc = checksum(0, &[&copy[..header::CRC.start]]);
        put(&mut copy, &header::CRC, &crc.to_le_bytes());
        let mut block = [0; header::BLOCK_BYTES];
        block[..header::BYTES].copy_from_slice(&copy);
        block[header::TWIN..header::TWIN + header::BYTES].copy_from_slice(&copy);
        block
    }
}

/// Reports whether the block belongs to a segment, intact or not: the header or its twin has the
/// magic.
pub(crate) fn seems_segment(block: &[u8]) -> bool {
    [0, header::TWIN]
        .iter()
        .any(|at| block.get(*at..).is_some_and(|copy| copy.starts_with(&header::MAGIC)))
}

/// Decodes a header block, falling back to the twin if the header is damaged. The flag reports
/// whether both copies and the padding are intact.
pub(crate) fn decode_header(block: &[u8]) -> Result<(SegmentHeader, bool), HeaderError> {
    let Some(block) = block.get(..header::BLOCK_BYTES) else {
        let blank = is_zero(block);
        return Err(if blank { HeaderError::Blank } else { HeaderError::Damaged });
    };
    if is_zero(block) {
        return Err(HeaderError::Blank);
    }
    let first = decode_copy(&block[..header::BYTES]);
    let twin = decode_copy(&block[header::TWIN..header::TWIN + header::BYTES]);
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

/// Decodes the twin, if it is intact.
pub(crate) fn decode_twin(block: &[u8]) -> Option<SegmentHeader> {
    decode_copy(block.get(header::TWIN..header::TWIN + header::BYTES)?).ok()
}

fn decode_copy(bytes: &[u8]) -> Result<SegmentHeader, HeaderError> {
    if bytes[header::MAGIC_AT] != header::MAGIC
        || take_u32(bytes, &header::CRC) != checksum(0, &[&bytes[..header::CRC.start]])
    {
        return Err(HeaderError::Damaged);
    }
    let version = u16::from_le_bytes(take(bytes, &header::VERSION));
    let first = take_u64(bytes, &header::FIRST_POSITION);
    let last = take_u64(bytes, &header::LAST_POSITION);
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

/// Times of the commits of a segment, in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct SegmentTimes {
    /// Earliest time of all commits. Without commits both are zero.
    pub(crate) earliest: u64,
    /// Latest time of all commits.
    pub(crate) latest: u64,
    /// First time that a writer vouched for; zero without such commits.
    pub(crate) vouched_first: u64,
    /// Last time that a writer vouched for; zero without such commits.
    pub(crate) vouched_last: u64,
}

impl SegmentTimes {
    /// Adds a commit that follows `commits` others.
    pub(crate) fn note(&mut self, date: CommitDate, commits: u64) {
        let micros = date.time.as_micros();
        self.earliest = if commits == 0 { micros } else { self.earliest.min(micros) };
        self.latest = self.latest.max(micros);
        if date.is_vouched {
            self.vouched_last = micros;
            self.vouched_first = if self.vouched_first == 0 { micros } else { self.vouched_first };
        }
    }
}

/// Trailer at the end of a sealed segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Trailer {
    pub(crate) log_id: [u8; 16],
    pub(crate) number: u32,
    pub(crate) is_sparse: bool,
    pub(crate) first_position: u64,
    pub(crate) last_position: u64,
    pub(crate) footer_at: u64,
    pub(crate) times: SegmentTimes,
    pub(crate) salt: u32,
}

/// Encodes the trailer over `tail`, the last bytes of a sealed segment.
pub(super) fn encode_trailer(end: &Trailer, tail: &mut [u8]) {
    put(tail, &trailer::MAGIC_AT, &trailer::MAGIC);
    put(tail, &trailer::LOG_ID, &end.log_id);
    put(tail, &trailer::NUMBER, &end.number.to_le_bytes());
    put(tail, &trailer::ORDER, &[u8::from(end.is_sparse)]);
    put(tail, &trailer::FIRST_POSITION, &end.first_position.to_le_bytes());
    put(tail, &trailer::LAST_POSITION, &end.last_position.to_le_bytes());
    put(tail, &trailer::FOOTER_AT, &end.footer_at.to_le_bytes());
    put(tail, &trailer::EARLIEST, &end.times.earliest.to_le_bytes());
    put(tail, &trailer::LATEST, &end.times.latest.to_le_bytes());
    put(tail, &trailer::VOUCHED_FIRST, &end.times.vouched_first.to_le_bytes());
    put(tail, &trailer::VOUCHED_LAST, &end.times.vouched_last.to_le_bytes());
    put(tail, &trailer::SALT, &end.salt.to_le_bytes());
    let crc = checksum(end.salt, &[&tail[..trailer::CRC.start]]);
    put(tail, &trailer::CRC, &crc.to_le_bytes());
}

/// Decodes the last [`trailer::BYTES`] of a file that may be a sealed segment with this header.
pub(crate) fn decode_trailer(bytes: &[u8], of: &SegmentHeader) -> Option<Trailer> {
    let found = trailer_alone(bytes)?;
    let same = found.log_id == of.log_id && found.number == of.number && found.salt == of.salt;
    let covered = of
        .covers
        .is_none_or(|all| (all.first, all.last) == (found.first_position, found.last_position));
    (same && covered && found.is_sparse == of.covers.is_some()).then_some(found)
}

/// Decodes a trailer without its header: the trailer holds the salt of its own checksum.
fn trailer_alone(bytes: &[u8]) -> Option<Trailer> {
    let bytes = bytes.get(..trailer::BYTES)?;
    let found = Trailer {
        log_id: take(bytes, &trailer::LOG_ID),
        number: take_u32(bytes, &trailer::NUMBER),
        is_sparse: bytes[trailer::ORDER.start] == header::ORDER_SPARSE,
        first_position: take_u64(bytes, &trailer::FIRST_POSITION),
        last_position: take_u64(bytes, &trailer::LAST_POSITION),
        footer_at: take_u64(bytes, &trailer::FOOTER_AT),
        times: SegmentTimes {
            earliest: take_u64(bytes, &trailer::EARLIEST),
            latest: take_u64(bytes, &trailer::LATEST),
            vouched_first: take_u64(bytes, &trailer::VOUCHED_FIRST),
            vouched_last: take_u64(bytes, &trailer::VOUCHED_LAST),
        },
        salt: take_u32(bytes, &trailer::SALT),
    };
    let whole = bytes[trailer::MAGIC_AT] == trailer::MAGIC
        && take_u32(bytes, &trailer::CRC) == checksum(found.salt, &[&bytes[..trailer::CRC.start]]);
    let known = bytes[trailer::ORDER.start] <= header::ORDER_SPARSE
        && is_zero(&bytes[trailer::UNUSED])
        && found.first_position > 0
        && found.last_position <= POSITION_MAX
        && found.last_position >= found.first_position.saturating_sub(1);
    (whole && known).then_some(found)
}

/// Reconstructs the header of a sealed segment from its trailer. Fields that matter only before
/// sealing are zero.
pub(crate) fn header_of_trailer(bytes: &[u8]) -> Option<SegmentHeader> {
    let found = trailer_alone(bytes)?;
    let covers = Covers { first: found.first_position, last: found.last_position };
    Some(SegmentHeader {
        log_id: found.log_id,
        number: found.number,
        reserved_bytes: 0,
        created_micros: 0,
        salt: found.salt,
        covers: Some(covers).filter(|covers| found.is_sparse && covers.first <= covers.last),
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
            let copy = &mut block[at..at + header::BYTES];
            put(copy, &header::VERSION, &9_u16.to_le_bytes());
            let crc = checksum(0, &[&copy[..header::CRC.start]]);
            put(copy, &header::CRC, &crc.to_le_bytes());
        }
        assert_eq!(decode_header(&block), Err(HeaderError::Version(9)));
    }

    #[test]
    fn f44_a_trailer_tells_a_sparse_segment_from_a_dense_one() {
        let covers = Some(Covers { first: 3, last: 99 });
        let sparse = SegmentHeader { reserved_bytes: 0, created_micros: 0, covers, ..example() };
        let end = Trailer {
            log_id: sparse.log_id,
            number: 7,
            is_sparse: true,
            first_position: 3,
            last_position: 99,
            footer_at: 4096,
            times: SegmentTimes { earliest: 3, latest: 9, vouched_first: 4, vouched_last: 8 },
            salt: sparse.salt,
        };
        let mut last = [0; trailer::BYTES];
        encode_trailer(&end, &mut last);
        let last = &last[..];
        assert_eq!(header_of_trailer(last), Some(sparse));
        assert_eq!(decode_trailer(last, &sparse), Some(end));
        assert_eq!(decode_trailer(last, &example()), None);
        for bit in 0..last.len() * 8 {
            let mut damaged = last.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(header_of_trailer(&damaged), None, "bit {bit}");
        }
    }
}
