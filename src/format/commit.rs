//! The records between a segment's header and its footer: commits and the witness.
//!
//! A commit is: header, directory (one batch header each), the batches' bytes, zeros up to the next
//! multiple of eight, marker. Its checksum is a short chain: the header has its own, salted, so that its
//! length is trusted before it is followed; the marker's covers the header's checksum and the directory; the
//! directory holds the checksum of every batch's bytes. So one damaged batch never hides another, and
//! bytes that another life of the file left behind never parse.
//!
//! The head of a record lies within one sector, so a power cut leaves all of it or nothing: of a torn commit
//! the header can still be believed, and it says what was acknowledged before.

use super::{
    COMMIT_BYTES_MAX, POSITION_MAX, SECTOR_BYTES, align_up, batch_header as batch, checksum,
    commit_header as head, footer, is_zero, marker, put, take, take_u32, take_u64, witness,
};
use crate::sabotage::{Sabotage, broken};

/// What a batch holds. Zero is reserved.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(crate) enum BatchKind {
    /// Attributes of the stream.
    Catalog = 1,
    /// How many events an overwriting ring dropped before the next batch.
    Gap = 2,
    /// Frames.
    Events = 3,
    /// The stream starts here with events that it shares with another.
    Fork = 4,
    /// What stood from here on is no part of the stream any more; a new generation starts.
    Rewind = 5,
    /// What the caller called this commit.
    CommitId = 6,
}

impl BatchKind {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Catalog),
            2 => Some(Self::Gap),
            3 => Some(Self::Events),
            4 => Some(Self::Fork),
            5 => Some(Self::Rewind),
            6 => Some(Self::CommitId),
            _ => None,
        }
    }
}

/// A batch that is to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlannedBatch {
    pub(crate) stream: [u8; 16],
    pub(crate) first_seq: u64,
    pub(crate) count: u32,
    pub(crate) kind: BatchKind,
    pub(crate) generation: u32,
    pub(crate) bytes: u64,
    pub(crate) crc: u32,
}

/// A commit that is to be written. Batches are sorted by stream, then kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CommitPlan<'a> {
    pub(crate) position: u64,
    pub(crate) time_micros: u64,
    pub(crate) acked: u64,
    pub(crate) durable: u64,
    pub(crate) salt: u32,
    pub(crate) batches: &'a [PlannedBatch],
}

impl CommitPlan<'_> {
    /// The bytes that the commit takes on disk.
    pub(crate) fn length(batches: &[PlannedBatch]) -> u64 {
        let payload: u64 = batches.iter().map(|batch| batch.bytes).sum();
        let directory = (head::BYTES + batches.len() * batch::BYTES) as u64;
        align_up(directory + payload) + marker::BYTES as u64
    }
}

/// Appends header and directory to `out`, and returns what stands behind the batches' bytes: the
/// padding and the marker, of which the last `usize` bytes of the array are meant.
pub(crate) fn encode_commit(plan: &CommitPlan<'_>, out: &mut Vec<u8>) -> ([u8; 16], usize) {
    let length = CommitPlan::length(plan.batches);
    debug_assert!(length <= COMMIT_BYTES_MAX);
    let start = out.len();
    let directory_bytes = plan.batches.len() * batch::BYTES;
    out.resize(start + head::BYTES + directory_bytes, 0);
    let (header, directory) = out[start..].split_at_mut(head::BYTES);
    let mut end = (head::BYTES + directory_bytes) as u64;
    for (at, one) in directory.chunks_exact_mut(batch::BYTES).zip(plan.batches) {
        end += one.bytes;
        put(at, &batch::STREAM, &one.stream);
        put(at, &batch::FIRST_SEQ, &one.first_seq.to_le_bytes());
        put(at, &batch::COUNT, &one.count.to_le_bytes());
        put(at, &batch::END, &(end as u32).to_le_bytes());
        put(at, &batch::KIND, &[one.kind as u8]);
        put(at, &batch::GENERATION, &one.generation.to_le_bytes()[..batch::GENERATION.len()]);
        put(at, &batch::CRC, &one.crc.to_le_bytes());
    }
    put(header, &head::MAGIC_AT, &head::MAGIC);
    put(header, &head::LENGTH, &(length as u32).to_le_bytes());
    put(header, &head::POSITION, &plan.position.to_le_bytes());
    put(header, &head::TIME, &plan.time_micros.to_le_bytes());
    put(header, &head::ACKED_LAG, &lag(plan.position, plan.acked));
    put(header, &head::DURABLE_LAG, &lag(plan.position, plan.durable));
    put(header, &head::BATCHES, &(plan.batches.len() as u32).to_le_bytes());
    let header_crc = checksum(plan.salt, &[&header[..head::CRC.start]]);
    put(header, &head::CRC, &header_crc.to_le_bytes());
    let crc = marker_crc(plan.salt, header_crc, directory, length as u32);

    let mut tail = [0; 16];
    let at = tail.len() - marker::BYTES;
    put(&mut tail[at..], &marker::LENGTH, &(length as u32).to_le_bytes());
    put(&mut tail[at..], &marker::CRC, &crc.to_le_bytes());
    (tail, marker::BYTES + (align_up(end) - end) as usize)
}

/// How far `mark` lies behind `position`; at most what 32 bits can say.
fn lag(position: u64, mark: u64) -> [u8; 4] {
    u32::try_from(position.saturating_sub(mark)).unwrap_or(u32::MAX).to_le_bytes()
}

fn marker_crc(salt: u32, header_crc: u32, directory: &[u8], length: u32) -> u32 {
    checksum(salt, &[&header_crc.to_le_bytes(), directory, &length.to_le_bytes()])
}

/// Where a record may start at or behind `offset`: aligned, and its head within one sector.
pub(crate) const fn record_at(offset: u64) -> u64 {
    let offset = align_up(offset);
    let room = SECTOR_BYTES - offset % SECTOR_BYTES;
    if room < head::BYTES as u64 { offset + room } else { offset }
}

/// What the next record seems to be, by its first bytes alone: nothing is verified yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    /// Zeros: nothing was written here.
    End,
    /// A commit that says it has this many bytes.
    Commit { length: u64 },
    /// A witness.
    Witness,
    /// The footer of a sealed segment.
    Footer,
    /// Nothing that is ever written.
    Invalid,
}

/// Looks at the start of a record. `bytes` may be shorter than a record only at the end of a file.
pub(crate) fn classify(bytes: &[u8]) -> Class {
    let looked_at = &bytes[..bytes.len().min(head::BYTES)];
    if is_zero(looked_at) {
        return Class::End;
    }
    let Some(magic) = looked_at.get(head::MAGIC_AT) else {
        return Class::Invalid;
    };
    if magic == footer::MAGIC {
        return Class::Footer;
    }
    if looked_at.len() < head::BYTES {
        return Class::Invalid;
    }
    if magic == witness::MAGIC {
        return Class::Witness;
    }
    if magic != head::MAGIC {
        return Class::Invalid;
    }
    let length = u64::from(take_u32(looked_at, &head::LENGTH));
    let batches = u64::from(take_u32(looked_at, &head::BATCHES));
    let head_bytes = head::BYTES as u64 + batches * batch::BYTES as u64;
    let plausible = batches > 0
        && length == align_up(length)
        && length <= COMMIT_BYTES_MAX
        && head_bytes + marker::BYTES as u64 <= length;
    if plausible { Class::Commit { length } } else { Class::Invalid }
}

/// A commit's header, verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CommitHead {
    pub(crate) length: u64,
    pub(crate) position: u64,
    pub(crate) time_micros: u64,
    /// Every position up to here was acknowledged when this commit was written.
    pub(crate) acked: u64,
    /// Every position up to here was synced when this commit was written.
    pub(crate) durable: u64,
    pub(crate) batches: u32,
    /// It has no flag that this version does not know.
    pub(crate) is_known: bool,
    crc: u32,
}

impl CommitHead {
    /// Verifies and reads the header at the start of `bytes`.
    pub(crate) fn decode(bytes: &[u8], salt: u32) -> Option<Self> {
        let Class::Commit { length } = classify(bytes) else { return None };
        let header = bytes.get(..head::BYTES)?;
        let crc = take_u32(header, &head::CRC);
        if crc != checksum(salt, &[&header[..head::CRC.start]]) {
            return None;
        }
        let position = take_u64(header, &head::POSITION);
        let behind = |field| position.saturating_sub(u64::from(take_u32(header, field).max(1)));
        let found = Self {
            length,
            position,
            time_micros: take_u64(header, &head::TIME),
            acked: behind(&head::ACKED_LAG),
            durable: behind(&head::DURABLE_LAG),
            batches: take_u32(header, &head::BATCHES),
            is_known: header[head::FLAGS.start] == 0,
            crc,
        };
        (1..=POSITION_MAX).contains(&position).then_some(found)
    }

    /// Verifies the directory by the marker. `head` are the bytes of header and directory, `marker`
    /// the last ones of the commit.
    pub(crate) fn directory<'a>(
        &self,
        head: &'a [u8],
        marker: &[u8],
        salt: u32,
    ) -> Option<Directory<'a>> {
        let directory = head.get(head::BYTES..self.head_bytes() as usize)?;
        let whole = broken(Sabotage::SkipMarker)
            || marker.len() == marker::BYTES
                && u64::from(take_u32(marker, &marker::LENGTH)) == self.length
                && take_u32(marker, &marker::CRC)
                    == marker_crc(salt, self.crc, directory, self.length as u32);
        let directory = Directory(directory);
        (whole && directory.fits(self.length)).then_some(directory)
    }

    /// Bytes of header and directory.
    pub(crate) fn head_bytes(&self) -> u64 {
        (head::BYTES + self.batches as usize * batch::BYTES) as u64
    }
}

/// The batches of a commit, as its verified directory lists them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Directory<'a>(&'a [u8]);

/// One batch of a commit. `start` and `end` are bytes from the commit's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BatchHead {
    pub(crate) stream: [u8; 16],
    pub(crate) first_seq: u64,
    pub(crate) count: u32,
    /// `None`: a kind that this version does not know.
    pub(crate) kind: Option<BatchKind>,
    /// Which life of its seqs the stream was in.
    pub(crate) generation: u32,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) crc: u32,
}

impl<'a> Directory<'a> {
    pub(crate) fn len(self) -> usize {
        self.0.len() / batch::BYTES
    }

    pub(crate) fn get(self, index: usize) -> Option<BatchHead> {
        let bytes = self.0.chunks_exact(batch::BYTES).nth(index)?;
        Some(BatchHead {
            stream: take(bytes, &batch::STREAM),
            first_seq: take_u64(bytes, &batch::FIRST_SEQ),
            count: take_u32(bytes, &batch::COUNT),
            kind: BatchKind::from_byte(bytes[batch::KIND.start]),
            generation: {
                let [low, middle, high] = take(bytes, &batch::GENERATION);
                u32::from_le_bytes([low, middle, high, 0])
            },
            start: match index {
                0 => (head::BYTES + self.0.len()) as u64,
                _ => self.end(index - 1)?,
            },
            end: self.end(index)?,
            crc: take_u32(bytes, &batch::CRC),
        })
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = BatchHead> + 'a {
        (0..self.len()).filter_map(move |index| self.get(index))
    }

    /// The batch of this kind of this stream: a binary search.
    pub(crate) fn find(self, stream: &[u8; 16], kind: BatchKind) -> Option<BatchHead> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let at = self.0.chunks_exact(batch::BYTES).nth(middle)?;
            let key = (&at[batch::STREAM], at[batch::KIND.start]);
            match key.cmp(&(&stream[..], kind as u8)) {
                std::cmp::Ordering::Equal => {
                    return self.get(middle).filter(|found| found.kind.is_some());
                }
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    fn end(self, index: usize) -> Option<u64> {
        let bytes = self.0.chunks_exact(batch::BYTES).nth(index)?;
        Some(u64::from(take_u32(bytes, &batch::END)))
    }

    /// Whether the batches lie one behind the other and fill a commit of `length` bytes.
    fn fits(self, length: u64) -> bool {
        let mut at = (head::BYTES + self.0.len()) as u64;
        for bytes in self.0.chunks_exact(batch::BYTES) {
            let end = u64::from(take_u32(bytes, &batch::END));
            if end < at {
                return false;
            }
            at = end;
        }
        align_up(at) + marker::BYTES as u64 == length
    }
}

/// Whether the bytes between the last batch and the marker are as they were written.
pub(crate) fn padding_is_zero(bytes: &[u8]) -> bool {
    bytes.len() < 8 && is_zero(bytes)
}

/// How certain the end of the log was when its witness was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// What stands before it, or that nothing stands behind it, may be in memory only.
    Open,
    /// Everything before it is synced, and so is everything that was done to what stands behind it.
    Settled,
    /// The same; the log was closed here, and the file cut to this length.
    Clean,
}

/// The watermark, written behind the last commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Witness {
    /// The position that the next commit will get: everything before it was acknowledged.
    pub(crate) position: u64,
    /// Every position up to here was synced.
    pub(crate) durable: u64,
    pub(crate) time_micros: u64,
    pub(crate) ending: Ending,
}

impl Witness {
    pub(crate) fn encode(&self, salt: u32) -> [u8; witness::BYTES] {
        let mut bytes = [0; witness::BYTES];
        put(&mut bytes, &witness::MAGIC_AT, &witness::MAGIC);
        let flags = match self.ending {
            Ending::Open => 0,
            Ending::Settled => witness::FLAG_SETTLED,
            Ending::Clean => witness::FLAG_CLEAN,
        };
        put(&mut bytes, &witness::FLAGS, &[flags]);
        put(&mut bytes, &witness::LENGTH, &(witness::BYTES as u32).to_le_bytes());
        put(&mut bytes, &witness::POSITION, &self.position.to_le_bytes());
        put(&mut bytes, &witness::DURABLE, &self.durable.to_le_bytes());
        put(&mut bytes, &witness::TIME, &self.time_micros.to_le_bytes());
        let crc = checksum(salt, &[&bytes[..witness::CRC.start]]);
        put(&mut bytes, &witness::CRC, &crc.to_le_bytes());
        bytes
    }
}

/// Verifies and reads the witness at the start of `bytes`.
pub(crate) fn decode_witness(bytes: &[u8], salt: u32) -> Option<Witness> {
    let bytes = bytes.get(..witness::BYTES)?;
    let found = Witness {
        position: take_u64(bytes, &witness::POSITION),
        durable: take_u64(bytes, &witness::DURABLE),
        time_micros: take_u64(bytes, &witness::TIME),
        ending: match bytes[witness::FLAGS.start] {
            flags if flags & witness::FLAG_CLEAN != 0 => Ending::Clean,
            flags if flags & witness::FLAG_SETTLED != 0 => Ending::Settled,
            _ => Ending::Open,
        },
    };
    let whole = bytes[witness::MAGIC_AT] == witness::MAGIC
        && take_u32(bytes, &witness::LENGTH) as usize == witness::BYTES
        && take_u32(bytes, &witness::CRC) == checksum(salt, &[&bytes[..witness::CRC.start]]);
    let is_position = (1..=POSITION_MAX + 1).contains(&found.position);
    (whole && is_position && found.durable < found.position).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::super::batch_crc;
    use super::*;

    const SALT: u32 = 0x1234_5678;

    fn example() -> Vec<u8> {
        let batches = [(1, BatchKind::Gap, &b"12345678"[..]), (1, BatchKind::Events, b"frame")]
            .map(|(stream, kind, bytes)| PlannedBatch {
                stream: [stream; 16],
                first_seq: 9,
                count: 1,
                kind,
                generation: 0x03_02_01,
                bytes: bytes.len() as u64,
                crc: batch_crc(&[bytes]),
            });
        let plan = CommitPlan {
            position: 5,
            time_micros: 77,
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
        let Some(directory) = head.directory(bytes, &bytes[marker_at..], SALT) else {
            return false;
        };
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
        let marker = &bytes[bytes.len() - marker::BYTES..];
        let directory = head.directory(&bytes, marker, SALT).expect("valid");
        let gap = directory.find(&[1; 16], BatchKind::Gap).expect("there");
        assert_eq!(&bytes[gap.start as usize..gap.end as usize], b"12345678");
        assert_eq!(gap.generation, 0x03_02_01);
        assert!(directory.find(&[1; 16], BatchKind::Catalog).is_none());
        assert!(directory.find(&[2; 16], BatchKind::Events).is_none());
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

    #[test]
    fn a_witness_comes_back_and_no_flipped_bit_goes_unseen() {
        let witness = Witness { position: 8, durable: 7, time_micros: 3, ending: Ending::Clean };
        let bytes = witness.encode(SALT);
        assert_eq!(classify(&bytes), Class::Witness);
        assert_eq!(decode_witness(&bytes, SALT), Some(witness));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_witness(&damaged, SALT), None, "bit {bit}");
        }
    }
}
