//! Tail record: the watermark, behind the last commit.

use super::{POSITION_MAX, checksum, put, tail_record, take_u32, take_u64};
use crate::types::Timestamp;

/// Certainty of the end of the log when its tail record was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// The bytes before the record, or changes to the bytes after it, may not be synced.
    Open,
    /// All bytes before the record, and all changes to the bytes after it, are synced.
    Settled,
    /// Settled, and the log was closed here: the file was cut to this length.
    Clean,
}

/// Tail record: the watermark, written after the last commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TailRecord {
    /// Position of the next commit. All earlier positions were acknowledged.
    pub(crate) position: u64,
    /// Last position that was synced.
    pub(crate) durable: u64,
    /// Latest time that the writer vouches for; the Unix epoch if there is none.
    pub(crate) vouched: Timestamp,
    pub(crate) ending: Ending,
}

impl TailRecord {
    pub(crate) fn encode(&self, salt: u32) -> [u8; tail_record::BYTES] {
        let mut bytes = [0; tail_record::BYTES];
        put(&mut bytes, &tail_record::MAGIC_AT, &tail_record::MAGIC);
        let flags = match self.ending {
            Ending::Open => 0,
            Ending::Settled => tail_record::FLAG_SETTLED,
            Ending::Clean => tail_record::FLAG_CLEAN,
        };
        put(&mut bytes, &tail_record::FLAGS, &[flags]);
        put(&mut bytes, &tail_record::LENGTH, &(tail_record::BYTES as u32).to_le_bytes());
        put(&mut bytes, &tail_record::POSITION, &self.position.to_le_bytes());
        put(&mut bytes, &tail_record::DURABLE, &self.durable.to_le_bytes());
        put(&mut bytes, &tail_record::VOUCHED, &self.vouched.as_micros().to_le_bytes());
        let crc = checksum(salt, &[&bytes[..tail_record::CRC.start]]);
        put(&mut bytes, &tail_record::CRC, &crc.to_le_bytes());
        bytes
    }
}

/// Verifies and decodes the tail record at the start of `bytes`.
pub(crate) fn decode_tail_record(bytes: &[u8], salt: u32) -> Option<TailRecord> {
    let bytes = bytes.get(..tail_record::BYTES)?;
    let found = TailRecord {
        position: take_u64(bytes, &tail_record::POSITION),
        durable: take_u64(bytes, &tail_record::DURABLE),
        vouched: Timestamp::from_micros(take_u64(bytes, &tail_record::VOUCHED)),
        ending: match bytes[tail_record::FLAGS.start] {
            flags if flags & tail_record::FLAG_CLEAN != 0 => Ending::Clean,
            flags if flags & tail_record::FLAG_SETTLED != 0 => Ending::Settled,
            _ => Ending::Open,
        },
    };
    let whole = bytes[tail_record::MAGIC_AT] == tail_record::MAGIC
        && take_u32(bytes, &tail_record::LENGTH) as usize == tail_record::BYTES
        && take_u32(bytes, &tail_record::CRC)
            == checksum(salt, &[&bytes[..tail_record::CRC.start]]);
    let is_position = (1..=POSITION_MAX + 1).contains(&found.position);
    (whole && is_position && found.durable < found.position).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::super::{Class, classify};
    use super::*;

    const SALT: u32 = 0x1234_5678;

    #[test]
    fn a_tail_record_comes_back_and_no_flipped_bit_goes_unseen() {
        let vouched = Timestamp::from_micros(3);
        let tail_record = TailRecord { position: 8, durable: 7, vouched, ending: Ending::Clean };
        let bytes = tail_record.encode(SALT);
        assert_eq!(classify(&bytes), Class::TailRecord);
        assert_eq!(decode_tail_record(&bytes, SALT), Some(tail_record));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_tail_record(&damaged, SALT), None, "bit {bit}");
        }
    }
}
