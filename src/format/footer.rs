//! Footer: the index of a sealed segment. It lists the batches of each stream, one row for each,
//! and the places of commits.
//!
//! Every column of the rows is as wide as its greatest value in this segment needs, so that rows
//! are short and still found by multiplication.

use std::ops::Range;

use super::{
    ALIGN, BatchKind, POSITION_MAX, Trailer, checksum, commit_place_layout as place,
    encode_trailer, footer_head as head, footer_stream_layout as stream_row, kind::has_seqs, put,
    take, take_u32, take_u64, trailer,
};

/// Batch of one stream, as the footer lists it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FooterEntry {
    pub(crate) stream: [u8; 16],
    pub(crate) kind: BatchKind,
    pub(crate) first_seq: u64,
    pub(crate) count: u32,
    /// Bytes from the start of the segment to the commit's header.
    pub(crate) offset: u64,
    pub(crate) position: u64,
    pub(crate) generation: u32,
}

/// Place of a commit in its segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CommitPlace {
    pub(crate) position: u64,
    /// Bytes from the start of the segment to the commit's header.
    pub(crate) offset: u64,
}

/// Returns the block of a segment in which a commit at `offset` starts. The footer lists the place
/// of the first commit of each block.
pub(crate) const fn place_block(offset: u64) -> u64 {
    offset / place::BLOCK_BYTES
}

/// Column of the rows, in their order after the kind's byte.
#[derive(Clone, Copy)]
enum Column {
    FirstSeq,
    Count,
    Place,
    Position,
    Generation,
}

/// Maximum width of each column, in bytes.
const WIDTHS_MAX: [u8; head::WIDTHS.end - head::WIDTHS.start] = [8, 4, 4, 8, 3];
/// Bytes of a row in front of its columns: the kind.
const KIND_BYTES: usize = 1;

/// Layout of a row.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Columns {
    widths: [u8; WIDTHS_MAX.len()],
    starts: [u8; WIDTHS_MAX.len()],
    row_bytes: u8,
}

impl Columns {
    fn new(widths: [u8; WIDTHS_MAX.len()]) -> Self {
        let (mut starts, mut row_bytes) = ([0; WIDTHS_MAX.len()], KIND_BYTES as u8);
        for (start, width) in starts.iter_mut().zip(widths) {
            *start = row_bytes;
            row_bytes = row_bytes.saturating_add(width);
        }
        Self { widths, starts, row_bytes }
    }

    /// Returns the narrowest columns that hold these entries.
    fn for_all(entries: &[FooterEntry], first_position: u64) -> Self {
        let mut greatest = [0; WIDTHS_MAX.len()];
        for entry in entries {
            for (greatest, value) in greatest.iter_mut().zip(values(entry, first_position)) {
                *greatest = value.max(*greatest);
            }
        }
        Self::new(greatest.map(width))
    }
}

/// Returns the number of bytes that hold a value.
fn width(value: u64) -> u8 {
    u64::BITS.saturating_sub(value.leading_zeros()).div_ceil(u8::BITS) as u8
}

/// Returns the values of an entry's columns.
fn values(entry: &FooterEntry, first_position: u64) -> [u64; WIDTHS_MAX.len()] {
    let position = entry.position.saturating_sub(first_position);
    let count = u64::from(entry.count);
    [entry.first_seq, count, entry.offset / ALIGN, position, u64::from(entry.generation)]
}

/// Layout of one footer: the offsets of its sections, counted from its start.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Footer {
    pub(crate) streams: u32,
    pub(crate) entries: u32,
    pub(crate) places: u32,
    columns: Columns,
    first_position: u64,
}

impl Footer {
    fn for_all(entries: &[FooterEntry], places: &[CommitPlace], first_position: u64) -> Self {
        let streams = entries.chunk_by(|entry, next| entry.stream == next.stream).count();
        let columns = Columns::for_all(entries, first_position);
        let [streams, entries, places] =
            [streams, entries.len(), places.len()].map(|count| count as u32);
        Self { streams, entries, places, columns, first_position }
    }

    /// Decodes the head of a footer; `None` if no writer writes it. Nothing verifies it here.
    pub(crate) fn of_head(bytes: &[u8], first_position: u64) -> Option<Self> {
        let bytes = bytes.get(..head::BYTES)?;
        let widths: [u8; WIDTHS_MAX.len()] = take(bytes, &head::WIDTHS);
        let fits = widths.iter().zip(WIDTHS_MAX).all(|(width, max)| *width <= max);
        (bytes[head::MAGIC_AT] == head::MAGIC && fits).then(|| Self {
            streams: take_u32(bytes, &head::STREAMS),
            entries: take_u32(bytes, &head::ENTRIES),
            places: take_u32(bytes, &head::PLACES),
            columns: Columns::new(widths),
            first_position,
        })
    }

    /// Verifies `bytes`, which extend from the footer to the trailer of a segment that starts at
    /// this position.
    pub(crate) fn verify(bytes: &[u8], salt: u32, first_position: u64) -> Option<Self> {
        let found = Self::of_head(bytes, first_position)?;
        let (front, body) = bytes.split_at_checked(head::BYTES)?;
        let is_whole = found.bytes() == bytes.len() as u64
            && take_u32(front, &head::CRC) == checksum(salt, &[&front[..head::CRC.start], body]);
        let is_listed = || {
            let ends = (0..found.streams).map(|at| Some(found.stream(bytes, at)?.1));
            let mut next = 0;
            let in_order = ends.into_iter().all(|run| {
                run.is_some_and(|run| {
                    std::mem::replace(&mut next, run.end) == run.start && !run.is_empty()
                })
            });
            in_order && next == found.entries
        };
        let is_possible = || (0..found.entries).all(|at| found.is_possible(bytes, at));
        (is_whole && is_listed() && is_possible()).then_some(found)
    }

    /// Number of bytes up to the trailer. Saturates: a saturated length exceeds any segment.
    pub(crate) fn bytes(&self) -> u64 {
        self.places_at().saturating_add((self.places as usize).saturating_mul(place::BYTES)) as u64
    }

    fn entries_at(&self) -> usize {
        let streams = (self.streams as usize).saturating_mul(stream_row::BYTES);
        head::BYTES.saturating_add(streams)
    }

    /// Returns the offset of the first place.
    pub(crate) fn places_at(&self) -> usize {
        let row_bytes = usize::from(self.columns.row_bytes);
        self.entries_at().saturating_add((self.entries as usize).saturating_mul(row_bytes))
    }

    /// Returns the stream at this index, and the indexes of its entries; `None` past the last one.
    pub(crate) fn stream(&self, bytes: &[u8], index: u32) -> Option<([u8; 16], Range<u32>)> {
        let row = |index: u32| {
            let at = (index as usize).checked_mul(stream_row::BYTES)?.checked_add(head::BYTES)?;
            bytes.get(at..at.checked_add(stream_row::BYTES)?)
        };
        let own = (index < self.streams).then(|| row(index))??;
        let start = match index.checked_sub(1) {
            Some(before) => take_u32(row(before)?, &stream_row::END),
            None => 0,
        };
        Some((take(own, &stream_row::STREAM), start..take_u32(own, &stream_row::END)))
    }

    /// Returns the offset of the row at this index; `None` past the last one.
    fn row_at(&self, index: u32) -> Option<usize> {
        let row = (index as usize).checked_mul(usize::from(self.columns.row_bytes))?;
        (index < self.entries).then(|| self.entries_at().checked_add(row))?
    }

    /// Reads one column of the row at this offset.
    #[inline]
    fn column(&self, bytes: &[u8], row: usize, column: Column) -> Option<u64> {
        let width = usize::from(self.columns.widths[column as usize]);
        let at = row.checked_add(usize::from(self.columns.starts[column as usize]))?;
        let mut word = [0; size_of::<u64>()];
        match bytes.get(at..at.checked_add(word.len())?) {
            Some(long) => {
                word.copy_from_slice(long);
                let unused = u64::BITS.checked_sub(u8::BITS.saturating_mul(width as u32))?;
                let mask = u64::MAX.checked_shr(unused).unwrap_or(0);
                Some(u64::from_le_bytes(word) & mask)
            }
            // The last rows of a footer.
            None => {
                word.get_mut(..width)?.copy_from_slice(bytes.get(at..at.checked_add(width)?)?);
                Some(u64::from_le_bytes(word))
            }
        }
    }

    /// Returns the first seq of the entry at this index.
    pub(crate) fn first_seq(&self, bytes: &[u8], index: u32) -> Option<u64> {
        self.column(bytes, self.row_at(index)?, Column::FirstSeq)
    }

    /// Returns the offset of the commit of the entry at this index.
    pub(crate) fn offset(&self, bytes: &[u8], index: u32) -> Option<u64> {
        let place = self.column(bytes, self.row_at(index)?, Column::Place)?;
        Some(place.saturating_mul(ALIGN))
    }

    /// Returns the position of the commit of the entry at this index.
    pub(crate) fn position(&self, bytes: &[u8], index: u32) -> Option<u64> {
        let position = self.column(bytes, self.row_at(index)?, Column::Position)?;
        Some(self.first_position.saturating_add(position))
    }

    /// Returns the generation of the entry at this index.
    pub(crate) fn generation(&self, bytes: &[u8], index: u32) -> Option<u32> {
        Some(self.column(bytes, self.row_at(index)?, Column::Generation)? as u32)
    }

    /// Decodes the entry at this index, of this stream; `None` past the last one, or if its kind is
    /// unknown.
    pub(crate) fn entry(&self, bytes: &[u8], stream: [u8; 16], index: u32) -> Option<FooterEntry> {
        let row = self.row_at(index)?;
        let column = |column| self.column(bytes, row, column);
        Some(FooterEntry {
            stream,
            kind: BatchKind::from_byte(*bytes.get(row)?)?,
            first_seq: column(Column::FirstSeq)?,
            count: column(Column::Count)? as u32,
            offset: column(Column::Place)?.saturating_mul(ALIGN),
            position: self.first_position.saturating_add(column(Column::Position)?),
            generation: column(Column::Generation)? as u32,
        })
    }

    /// Reports whether a batch can be as the entry at this index says, whatever its kind.
    fn is_possible(&self, bytes: &[u8], index: u32) -> bool {
        let found = || {
            let row = self.row_at(index)?;
            let column = |column| self.column(bytes, row, column);
            let (seq, count) = (column(Column::FirstSeq)?, column(Column::Count)? as u32);
            let position = self.first_position.checked_add(column(Column::Position)?)?;
            Some(has_seqs(*bytes.get(row)?, seq, count) && position <= POSITION_MAX)
        };
        found().unwrap_or(false)
    }
}

/// Number of bytes of footer and trailer for these entries and places.
pub(crate) fn footer_bytes(
    entries: &[FooterEntry],
    places: &[CommitPlace],
    first_position: u64,
) -> u64 {
    let footer = Footer::for_all(entries, places, first_position);
    footer.bytes().saturating_add(trailer::BYTES as u64)
}

/// Encodes the footer and the trailer that follow the last commit. `entries` are sorted by stream
/// and, within a stream, in commit order; `places` are in commit order.
pub(crate) fn encode_footer(
    entries: &[FooterEntry],
    places: &[CommitPlace],
    end: &Trailer,
) -> Vec<u8> {
    let footer = Footer::for_all(entries, places, end.first_position);
    let mut bytes = Vec::with_capacity((footer.bytes() as usize).saturating_add(trailer::BYTES));
    bytes.resize(head::BYTES, 0);
    put(&mut bytes, &head::MAGIC_AT, &head::MAGIC);
    put(&mut bytes, &head::STREAMS, &footer.streams.to_le_bytes());
    put(&mut bytes, &head::ENTRIES, &footer.entries.to_le_bytes());
    put(&mut bytes, &head::PLACES, &footer.places.to_le_bytes());
    put(&mut bytes, &head::WIDTHS, &footer.columns.widths);
    let mut listed = 0_u32;
    for run in entries.chunk_by(|entry, next| entry.stream == next.stream) {
        listed = listed.saturating_add(run.len() as u32);
        bytes.extend_from_slice(&run[0].stream);
        bytes.extend_from_slice(&listed.to_le_bytes());
    }
    for entry in entries {
        bytes.push(entry.kind as u8);
        for (value, width) in values(entry, end.first_position).iter().zip(footer.columns.widths) {
            bytes.extend_from_slice(&value.to_le_bytes()[..usize::from(width)]);
        }
    }
    for listed in places {
        bytes.extend_from_slice(&listed.position.to_le_bytes());
        bytes.extend_from_slice(&((listed.offset / ALIGN) as u32).to_le_bytes());
    }
    let (front, body) = bytes.split_at_mut(head::BYTES);
    let crc = checksum(end.salt, &[&front[..head::CRC.start], body]);
    put(front, &head::CRC, &crc.to_le_bytes());
    let footer_bytes = bytes.len();
    bytes.resize(footer_bytes.saturating_add(trailer::BYTES), 0);
    encode_trailer(end, &mut bytes[footer_bytes..]);
    bytes
}

/// Decodes the place at `index`; `None` past the last one.
pub(crate) fn commit_place(places: &[u8], index: usize) -> Option<CommitPlace> {
    let at = index.checked_mul(place::BYTES)?;
    let bytes = places.get(at..at.checked_add(place::BYTES)?)?;
    let offset = u64::from(take_u32(bytes, &place::PLACE)).saturating_mul(ALIGN);
    Some(CommitPlace { position: take_u64(bytes, &place::POSITION), offset })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{SegmentHeader, SegmentTimes, decode_trailer, header_of_trailer};

    fn example() -> SegmentHeader {
        SegmentHeader {
            log_id: *b"0123456789abcdef",
            number: 7,
            reserved_bytes: 0,
            created_micros: 0,
            salt: 0xDEAD_BEEF,
            covers: None,
        }
    }

    fn end() -> Trailer {
        Trailer {
            log_id: example().log_id,
            number: 7,
            is_sparse: false,
            first_position: 42,
            last_position: 44,
            footer_at: 8192,
            times: SegmentTimes { earliest: 3, latest: 9, vouched_first: 4, vouched_last: 8 },
            salt: example().salt,
        }
    }

    fn entry(stream: u8, nth: u64) -> FooterEntry {
        FooterEntry {
            stream: [stream; 16],
            kind: BatchKind::Events,
            first_seq: 5 * nth,
            count: 3,
            offset: 4096 + nth * 8,
            position: 42 + nth,
            generation: 0,
        }
    }

    fn read(footer: &Footer, bytes: &[u8]) -> Vec<FooterEntry> {
        let mut found = Vec::new();
        for (stream, run) in (0..).map_while(|at| footer.stream(bytes, at)) {
            found.extend(run.map_while(|at| footer.entry(bytes, stream, at)));
        }
        found
    }

    #[test]
    fn footer_and_trailer_come_back() {
        let entries = [entry(1, 0), entry(1, 1), entry(2, 1), entry(3, 2)];
        let places =
            [(42, 4096), (44, 40_960)].map(|(position, offset)| CommitPlace { position, offset });
        let bytes = encode_footer(&entries, &places, &end());
        assert_eq!(bytes.len() as u64, footer_bytes(&entries, &places, 42));
        let split = bytes.len() - trailer::BYTES;
        assert_eq!(decode_trailer(&bytes[split..], &example()), Some(end()));
        assert_eq!(header_of_trailer(&bytes[split..]), Some(example()), "F44: without the header");
        let found = Footer::verify(&bytes[..split], example().salt, 42).expect("whole");
        assert_eq!(read(&found, &bytes), entries);
        assert_eq!(found.entry(&bytes, [3; 16], 4), None);
        let listed = &bytes[found.places_at()..split];
        assert_eq!([0, 1].map(|at| commit_place(listed, at)), places.map(Some));
        assert_eq!((commit_place(listed, 2), found.places), (None, 2));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let seen = decode_trailer(&damaged[split..], &example()).is_some()
                && Footer::verify(&damaged[..split], example().salt, 42).is_some();
            assert!(!seen, "bit {bit}");
        }
    }

    /// Whatever the widths of the columns, the values come back, in the last row too.
    #[test]
    fn columns_are_as_wide_as_their_greatest_value() {
        for bits in 0..63_u32 {
            let greatest = (1_u64 << bits) - 1;
            let wide = FooterEntry {
                first_seq: greatest,
                count: greatest.min(u64::from(u32::MAX)) as u32,
                offset: greatest.min(u64::from(u32::MAX)) * ALIGN,
                position: 1 + greatest.min(POSITION_MAX - 1),
                generation: greatest.min((1 << 24) - 1) as u32,
                ..entry(9, 0)
            };
            let narrow = FooterEntry { position: 1, offset: 0, count: 0, ..entry(1, 0) };
            let end = Trailer { first_position: 1, ..end() };
            for entries in
                [vec![narrow, wide], vec![FooterEntry { stream: [0; 16], ..wide }, narrow]]
            {
                let bytes = encode_footer(&entries, &[], &end);
                let bytes = &bytes[..bytes.len() - trailer::BYTES];
                let found = Footer::verify(bytes, end.salt, 1).expect("whole");
                assert_eq!(read(&found, bytes), entries, "{bits} bits");
            }
        }
        let bytes = encode_footer(&[entry(1, 0)], &[], &end());
        assert_eq!(bytes.len(), head::BYTES + stream_row::BYTES + 4 + trailer::BYTES);
    }
}
