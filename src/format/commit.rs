//! Commits: encoding, classification and verification.
//!
//! A commit consists of a header, a directory (one batch header per batch), the batches' bytes,
//! zeros up to the next multiple of eight, and a marker. Its checksums form a short chain. The
//! header has its own salted checksum, so its length can be trusted before it is followed. It seeds
//! the checksum of each batch header and that of the marker; a batch header holds the checksum of
//! the batch's bytes. A reader therefore verifies one batch without the others, damage to one hides
//! no other, and bytes left behind by an earlier use of the file do not parse
//! (`another_salt_never_parses`).
//!
//! The head of a record lies within one sector, so a power cut leaves all of it or nothing. The
//! header of a torn commit can still be trusted, and it records the positions that were
//! acknowledged before it.

use std::cmp::Ordering;

use super::kind::{BatchKind, has_seqs};
use super::{
    COMMIT_BYTES_MAX, POSITION_MAX, SECTOR_BYTES, align_up, batch_header as batch, checksum,
    commit_header as head, footer_head, is_zero, marker, put, tail_record, take, take_u32,
    take_u64,
};
use crate::sabotage::{Sabotage, broken};
use crate::types::Timestamp;
use crate::work::step;

/// Batch to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlannedBatch {
    pub(crate) stream: [u8; 16],
    pub(crate) first_seq: u64,
    pub(crate) count: u32,
    pub(crate) kind: BatchKind,
    pub(crate) generation: u32,
    /// Place of the stream among the streams of the commit, as the program gave them.
    pub(crate) order: u32,
    pub(crate) bytes: u64,
    pub(crate) crc: u32,
}

/// Date of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct CommitDate {
    /// Wall clock of the writer, unadjusted.
    pub(crate) time: Timestamp,
    /// The writer vouches for the time: no earlier commit that is vouched for has a later time,
    /// unless a host reset the clock in between.
    pub(crate) is_vouched: bool,
}

/// Commit to be written. Batches are sorted by stream, then kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CommitPlan<'a> {
    pub(crate) position: u64,
    pub(crate) date: CommitDate,
    pub(crate) acked: u64,
    pub(crate) durable: u64,
    pub(crate) salt: u32,
    pub(crate) batches: &'a [PlannedBatch],
}

impl CommitPlan<'_> {
    /// Number of bytes that the commit takes on disk. Saturates: a saturated length exceeds any
    /// commit.
    pub(crate) fn length(batches: &[PlannedBatch]) -> u64 {
        let directory = directory_end(batches.len()) as u64;
        let end = batches.iter().fold(directory, |end, batch| end.saturating_add(batch.bytes));
        align_up(end).saturating_add(marker::BYTES as u64)
    }
}

/// Number of bytes of header and directory for this number of batches. Saturates: a saturated
/// length exceeds any commit.
const fn directory_end(batches: usize) -> usize {
    head::BYTES.saturating_add(batches.saturating_mul(batch::BYTES))
}

/// Number of bytes that hold the longest padding and the marker.
const TAIL_BYTES: usize = 16;

/// Appends header and directory to `out`. Returns the padding and the marker that follow the
/// batches' bytes: the last `usize` bytes of the array.
pub(crate) fn encode_commit(plan: &CommitPlan<'_>, out: &mut Vec<u8>) -> ([u8; TAIL_BYTES], usize) {
    let length = CommitPlan::length(plan.batches);
    debug_assert!(length <= COMMIT_BYTES_MAX);
    let start = out.len();
    let directory_end = directory_end(plan.batches.len());
    out.resize(start.saturating_add(directory_end), 0);
    let (header, directory) = out[start..].split_at_mut(head::BYTES);
    put(header, &head::MAGIC_AT, &head::MAGIC);
    put(header, &head::LENGTH, &(length as u32).to_le_bytes());
    put(header, &head::POSITION, &plan.position.to_le_bytes());
    let flags = if plan.date.is_vouched { 0 } else { head::FLAG_UNVOUCHED };
    put(header, &head::FLAGS, &[flags]);
    put(header, &head::TIME, &plan.date.time.as_micros().to_le_bytes());
    put(header, &head::ACKED_LAG, &lag(plan.position, plan.acked));
    put(header, &head::DURABLE_LAG, &lag(plan.position, plan.durable));
    put(header, &head::BATCHES, &(plan.batches.len() as u32).to_le_bytes());
    let header_crc = checksum(plan.salt, &[&header[..head::CRC.start]]);
    put(header, &head::CRC, &header_crc.to_le_bytes());
    let mut end = directory_end as u64;
    for (at, planned) in directory.chunks_exact_mut(batch::BYTES).zip(plan.batches) {
        end = end.saturating_add(planned.bytes);
        put_batch_header(at, planned, end, header_crc);
    }
    let mut tail = [0; TAIL_BYTES];
    let marker = &mut tail[TAIL_BYTES - marker::BYTES..];
    put(marker, &marker::LENGTH, &(length as u32).to_le_bytes());
    put(marker, &marker::INVERSE, &(!header_crc).to_le_bytes());
    (tail, length.saturating_sub(end) as usize)
}

/// Writes one entry of the directory. The checksum of the commit header seeds its own, so that a
/// reader can verify one entry without the others.
fn put_batch_header(at: &mut [u8], planned: &PlannedBatch, end: u64, header_crc: u32) {
    let order = planned.order.min(batch::ORDER_MAX);
    put(at, &batch::STREAM, &planned.stream);
    put(at, &batch::FIRST_SEQ, &planned.first_seq.to_le_bytes());
    put(at, &batch::COUNT, &planned.count.to_le_bytes());
    put(at, &batch::END, &(end as u32).to_le_bytes());
    put(at, &batch::KIND, &[planned.kind as u8]);
    put(at, &batch::GENERATION, &planned.generation.to_le_bytes()[..batch::GENERATION.len()]);
    put(at, &batch::ORDER, &order.to_le_bytes()[..batch::ORDER.len()]);
    put(at, &batch::CRC, &planned.crc.to_le_bytes());
    let own = checksum(header_crc, &[&at[..batch::HEAD_CRC.start]]);
    put(at, &batch::HEAD_CRC, &own.to_le_bytes());
}

/// Returns the distance from `mark` to `position`, clamped to 32 bits.
fn lag(position: u64, mark: u64) -> [u8; 4] {
    u32::try_from(position.saturating_sub(mark)).unwrap_or(u32::MAX).to_le_bytes()
}

/// Returns the first offset at or after `offset` where a record may start: aligned, with its head
/// within one sector. Saturates: no file is that long.
pub(crate) const fn record_at(offset: u64) -> u64 {
    let offset = align_up(offset);
    let room = SECTOR_BYTES.saturating_sub(offset % SECTOR_BYTES);
    if room < head::BYTES as u64 { offset.saturating_add(room) } else { offset }
}

/// Type of the next record by its first bytes alone; nothing is verified yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    /// Zeros: nothing was written here.
    End,
    /// A commit with this length in its header, in bytes.
    Commit { length: u64 },
    /// A tail record.
    TailRecord,
    /// The footer of a sealed segment.
    Footer,
    /// Bytes that no writer writes.
    Invalid,
}

/// Classifies the start of a record. `bytes` may be shorter than a record only at the end of a
/// file.
pub(crate) fn classify(bytes: &[u8]) -> Class {
    let start = &bytes[..bytes.len().min(head::BYTES)];
    if is_zero(start) {
        return Class::End;
    }
    let Some(magic) = start.get(head::MAGIC_AT) else {
        return Class::Invalid;
    };
    if magic == footer_head::MAGIC {
        return Class::Footer;
    }
    if start.len() < head::BYTES {
        return Class::Invalid;
    }
    if magic == tail_record::MAGIC {
        return Class::TailRecord;
    }
    if magic != head::MAGIC {
        return Class::Invalid;
    }
    let length = u64::from(take_u32(start, &head::LENGTH));
    let batches = take_u32(start, &head::BATCHES) as usize;
    let directory_end = directory_end(batches) as u64;
    let plausible = batches > 0
        && length == align_up(length)
        && length <= COMMIT_BYTES_MAX
        && directory_end.saturating_add(marker::BYTES as u64) <= length;
    if plausible { Class::Commit { length } } else { Class::Invalid }
}

/// Verified header of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CommitHead {
    pub(crate) length: u64,
    pub(crate) position: u64,
    pub(crate) date: CommitDate,
    /// Last position that was acknowledged when this commit was written.
    pub(crate) acked: u64,
    /// Last position that was synced when this commit was written.
    pub(crate) durable: u64,
    pub(crate) batches: u32,
    /// True if this version knows all flags.
    pub(crate) is_known: bool,
    crc: u32,
}

impl CommitHead {
    /// Verifies and decodes the header at the start of `bytes`.
    pub(crate) fn decode(bytes: &[u8], salt: u32) -> Option<Self> {
        let Class::Commit { length } = classify(bytes) else { return None };
        let header = bytes.get(..head::BYTES)?;
        let crc = take_u32(header, &head::CRC);
        if crc != checksum(salt, &[&header[..head::CRC.start]]) {
            return None;
        }
        let position = take_u64(header, &head::POSITION);
        let flags = header[head::FLAGS.start];
        let behind = |field| position.saturating_sub(u64::from(take_u32(header, field).max(1)));
        let found = Self {
            length,
            position,
            date: CommitDate {
                time: Timestamp::from_micros(take_u64(header, &head::TIME)),
                is_vouched: flags & head::FLAG_UNVOUCHED == 0,
            },
            acked: behind(&head::ACKED_LAG),
            durable: behind(&head::DURABLE_LAG),
            batches: take_u32(header, &head::BATCHES),
            is_known: flags & !head::FLAG_UNVOUCHED == 0,
            crc,
        };
        (1..=POSITION_MAX).contains(&position).then_some(found)
    }

    /// Reports whether these last bytes of the commit are its marker.
    pub(crate) fn is_closed_by(&self, marker: &[u8]) -> bool {
        marker.len() == marker::BYTES
            && u64::from(take_u32(marker, &marker::LENGTH)) == self.length
            && take_u32(marker, &marker::INVERSE) == !self.crc
    }

    /// Returns the directory, of which nothing is verified yet. `head` holds the bytes of header
    /// and directory.
    pub(crate) fn directory<'a>(&self, head: &'a [u8]) -> Option<Directory<'a>> {
        let bytes = head.get(head::BYTES..self.head_bytes() as usize)?;
        let (entries, _) = bytes.as_chunks();
        Some(Directory { entries, head: *self })
    }

    /// Returns the range of a directory entry in a segment where this commit starts at `commit_at`.
    pub(crate) fn entry_range(commit_at: u64, index: usize) -> std::ops::Range<u64> {
        let start = commit_at.saturating_add(directory_end(index) as u64);
        start..start.saturating_add(batch::BYTES as u64)
    }

    /// Returns the batch of this stream and kind, by a binary search in the directory, of which
    /// `entry` returns an entry by its index. Verifies the batch's own entry, and no other. Returns
    /// `None` if that entry is damaged, or another one leads the search astray.
    pub(crate) fn search<E>(
        &self,
        stream: &[u8; 16],
        kind: BatchKind,
        mut entry: impl FnMut(usize) -> Result<DirectoryEntry, E>,
    ) -> Result<Option<BatchHead>, E> {
        let (mut low, mut high) = (0, self.batches as usize);
        while low < high {
            let middle = low.midpoint(high);
            let found = entry(middle)?;
            match compare(&found, stream, kind) {
                Ordering::Less => low = middle.saturating_add(1),
                Ordering::Greater => high = middle,
                Ordering::Equal => {
                    let before = middle.checked_sub(1).map(entry).transpose()?;
                    return Ok(self.batch(&found, before.as_ref()));
                }
            }
        }
        Ok(None)
    }

    /// Decodes the header of a batch, unless it is damaged.
    ///
    /// The entry before it says where the batch starts. Damage there shows in the checksum of the
    /// batch's bytes.
    fn batch(&self, entry: &DirectoryEntry, before: Option<&DirectoryEntry>) -> Option<BatchHead> {
        let end_of = |entry: &DirectoryEntry| u64::from(take_u32(entry, &batch::END));
        let (head_bytes, end) = (self.head_bytes(), end_of(entry));
        let bytes_max = self.length.saturating_sub(marker::BYTES as u64);
        let first_seq = take_u64(entry, &batch::FIRST_SEQ);
        let count = take_u32(entry, &batch::COUNT);
        let is_valid = self.proves(entry)
            && (head_bytes..=bytes_max).contains(&end)
            && has_seqs(entry[batch::KIND.start], first_seq, count);
        is_valid.then(|| BatchHead {
            stream: take(entry, &batch::STREAM),
            first_seq,
            count,
            kind: BatchKind::from_byte(entry[batch::KIND.start])
                .filter(|_| entry[batch::FLAGS.start] == 0),
            generation: take_u24(entry, &batch::GENERATION),
            order: take_u24(entry, &batch::ORDER),
            start: before.map_or(head_bytes, end_of).clamp(head_bytes, end),
            end,
            crc: take_u32(entry, &batch::CRC),
        })
    }

    /// Reports whether an entry of the directory has the checksum that this header seeds.
    fn proves(&self, entry: &DirectoryEntry) -> bool {
        step();
        let own = checksum(self.crc, &[&entry[..batch::HEAD_CRC.start]]);
        take_u32(entry, &batch::HEAD_CRC) == own || broken(Sabotage::SkipDirectory)
    }

    /// Returns the number of bytes of header and directory.
    pub(crate) fn head_bytes(&self) -> u64 {
        directory_end(self.batches as usize) as u64
    }
}

/// Entry of a directory: the header of a batch.
pub(crate) type DirectoryEntry = [u8; batch::BYTES];

/// Directory of a commit: its batches. An entry that damage has changed is not returned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Directory<'a> {
    entries: &'a [DirectoryEntry],
    head: CommitHead,
}

/// One batch of a commit. `start` and `end` are offsets from the start of the commit, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BatchHead {
    pub(crate) stream: [u8; 16],
    pub(crate) first_seq: u64,
    pub(crate) count: u32,
    /// Kind of the batch; `None` if this version does not know it.
    pub(crate) kind: Option<BatchKind>,
    /// Generation of the stream's seqs.
    pub(crate) generation: u32,
    /// Place of the stream among the streams of the commit, as the program gave them.
    pub(crate) order: u32,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) crc: u32,
}

impl BatchHead {
    /// Returns the range of the batch in a segment whose commit starts at `commit_at`. Saturates:
    /// no file is that long.
    pub(crate) fn range_in(&self, commit_at: u64) -> std::ops::Range<u64> {
        commit_at.saturating_add(self.start)..commit_at.saturating_add(self.end)
    }

    /// Returns the number of bytes of the batch.
    pub(crate) fn bytes(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

impl<'a> Directory<'a> {
    pub(crate) fn len(self) -> usize {
        self.entries.len()
    }

    /// Returns a batch, unless its entry is damaged.
    pub(crate) fn get(self, index: usize) -> Option<BatchHead> {
        let before = index.checked_sub(1).and_then(|before| self.entries.get(before));
        self.head.batch(self.entries.get(index)?, before)
    }

    /// Returns the batches whose entries are whole.
    pub(crate) fn iter(self) -> impl Iterator<Item = BatchHead> + 'a {
        (0..self.len()).filter_map(move |index| self.get(index))
    }

    /// Returns the batch of this stream and kind, whatever other entries are damaged.
    pub(crate) fn find(self, stream: &[u8; 16], kind: BatchKind) -> Option<BatchHead> {
        let entry = |index: usize| self.entries.get(index).copied().ok_or(());
        let found = self.head.search(stream, kind, entry).ok().flatten();
        found.or_else(|| {
            let mut entries = self.entries.iter().enumerate();
            let is_own = |entry: &DirectoryEntry| compare(entry, stream, kind).is_eq();
            entries.find_map(|(index, entry)| is_own(entry).then(|| self.get(index))?)
        })
    }

    /// Reports whether all entries are whole, and the batches are contiguous and fill the commit.
    pub(crate) fn is_whole(self) -> bool {
        let mut at = self.head.head_bytes();
        for index in 0..self.len() {
            let Some(batch) = self.get(index).filter(|batch| batch.start == at) else {
                return false;
            };
            at = batch.end;
        }
        align_up(at).checked_add(marker::BYTES as u64) == Some(self.head.length)
    }
}

/// Compares an entry with the batch of this stream and kind, by the order of the directory.
fn compare(entry: &DirectoryEntry, stream: &[u8; 16], kind: BatchKind) -> Ordering {
    step();
    (&entry[batch::STREAM], entry[batch::KIND.start]).cmp(&(&stream[..], kind as u8))
}

fn take_u24(bytes: &[u8], field: &std::ops::Range<usize>) -> u32 {
    let [low, middle, high] = take(bytes, field);
    u32::from_le_bytes([low, middle, high, 0])
}

/// Reports whether the padding between the last batch and the marker is intact.
pub(crate) fn padding_is_zero(bytes: &[u8]) -> bool {
    bytes.len() < 8 && is_zero(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::batch_crc;
    use super::*;

    const SALT: u32 = 0x1234_5678;
    const DATE: CommitDate = CommitDate { time: Timestamp::from_micros(77), is_vouched: false };

    fn example() -> Vec<u8> {
        let batches = [(1, BatchKind::Catalog, &b"12345678"[..]), (1, BatchKind::Events, b"frame")]
            .map(|(stream, kind, bytes)| PlannedBatch {
                stream: [stream; 16],
                first_seq: 9,
                count: 1,
                kind,
                generation: 0x03_02_01,
                order: 0x06_05_04,
                bytes: bytes.len() as u64,
                crc: batch_crc(&[bytes]),
            });
        let plan = CommitPlan {
            position: 5,
            date: DATE,
            acked: 4,
            durable: 2,
            salt: SALT,
            batches: &batches,
        };
        let mut bytes = Vec::new();
        let (tail, used) = encode_commit(&plan, &mut bytes);
        bytes.extend_from_slice(b"12345678frame");
        bytes.extend_from_slice(&tail[16 - used..]);
        assert_eq!(bytes.len() as u64, CommitPlan::length(&batches));
        bytes
    }

    fn whole(bytes: &[u8]) -> bool {
        let Some(head) = CommitHead::decode(bytes, SALT) else { return false };
        let marker_at = head.length as usize - marker::BYTES;
        let directory = head.directory(bytes).expect("all there");
        if !head.is_closed_by(&bytes[marker_at..]) || !directory.is_whole() {
            return false;
        }
        let last = directory.get(directory.len() - 1).expect("not empty").end as usize;
        directory.iter().all(|batch| {
            batch_crc(&[&bytes[batch.start as usize..batch.end as usize]]) == batch.crc
        }) && padding_is_zero(&bytes[last..marker_at])
    }

    #[test]
    fn a_commit_comes_back() {
        let bytes = example();
        assert!(whole(&bytes));
        let head = CommitHead::decode(&bytes, SALT).expect("valid");
        assert_eq!((head.position, head.acked, head.durable), (5, 4, 2));
        assert!(head.is_known && head.date == DATE);
        let directory = head.directory(&bytes).expect("all there");
        let catalog = directory.find(&[1; 16], BatchKind::Catalog).expect("exists");
        assert_eq!(&bytes[catalog.start as usize..catalog.end as usize], b"12345678");
        assert_eq!((catalog.generation, catalog.order), (0x03_02_01, 0x06_05_04));
        assert!(directory.find(&[1; 16], BatchKind::Gap).is_none());
        assert!(directory.find(&[2; 16], BatchKind::Events).is_none());
    }

    /// P6: a damaged entry of the directory hides its own batch, and no other.
    #[test]
    fn p6_a_damaged_directory_entry_hides_no_other_batch() {
        let kinds = [BatchKind::Catalog, BatchKind::Events];
        for bit in 0..2 * batch::BYTES * 8 {
            let mut bytes = example();
            bytes[head::BYTES + bit / 8] ^= 1 << (bit % 8);
            let head = CommitHead::decode(&bytes, SALT).expect("valid");
            let directory = head.directory(&bytes).expect("all there");
            let damaged = bit / 8 / batch::BYTES;
            for (nth, kind) in kinds.into_iter().enumerate() {
                let found = directory.find(&[1; 16], kind);
                let found = found.map(|found| &bytes[found.start as usize..found.end as usize]);
                match nth == damaged {
                    true => assert_eq!(found, None, "bit {bit}"),
                    // The damaged end of the entry before it shows in the checksum of the bytes.
                    false if nth == 1 && batch::END.contains(&(bit / 8 % batch::BYTES)) => {}
                    false => {
                        assert_eq!(found, Some([&b"12345678"[..], b"frame"][nth]), "bit {bit}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_record_starts_where_its_head_is_within_one_sector() {
        for offset in 0..2_000 {
            let at = record_at(offset);
            assert!(at >= offset && at < offset + 8 + 40 && at.is_multiple_of(8));
            assert_eq!(at / 512, (at + 39) / 512, "offset {offset}");
            assert_eq!(record_at(at), at);
        }
    }

    /// An offset that no file reaches, such as damage may yield, must not wrap to one near the
    /// start.
    #[test]
    fn f19_lengths_saturate() {
        for offset in [u64::MAX, u64::MAX - 7, u64::MAX - SECTOR_BYTES] {
            assert!(record_at(offset) >= offset && align_up(offset) >= offset, "{offset}");
        }
        let batch = PlannedBatch {
            stream: [1; 16],
            first_seq: 0,
            count: 1,
            kind: BatchKind::Events,
            generation: 0,
            order: 0,
            bytes: u64::MAX,
            crc: 0,
        };
        assert!(CommitPlan::length(&[batch, batch]) > COMMIT_BYTES_MAX);
    }

    #[test]
    fn no_flipped_bit_of_a_commit_goes_unseen() {
        let bytes = example();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(!whole(&damaged), "bit {bit}");
        }
    }

    #[test]
    fn another_salt_never_parses() {
        assert!(CommitHead::decode(&example(), SALT ^ 1).is_none());
    }

    #[test]
    fn zero_is_the_end_over_the_full_width() {
        for bytes in 0..200 {
            assert_eq!(classify(&vec![0; bytes]), Class::End);
        }
    }
}
