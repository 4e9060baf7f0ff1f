//! Making the file of a segment that will be needed next.

use std::io::IoSlice;
use std::sync::Arc;

use super::{DIR, create_anew, path, unfinished_path};
use crate::disk::{Disk, DiskFile, write_all_at, write_zeros_at};
use crate::format::SegmentHeader;
use crate::options::Options;
use crate::sabotage::{Sabotage, broken};
use crate::types::{StreamId, Timestamp};

/// So much is made ready at a time while commits go on: a device writes it in about the time of a small sync.
const ZERO_PIECE_BYTES: u64 = 256 << 10;

/// A segment that holds no commits yet: its header and its name are durable, the rest is zeros.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) header: SegmentHeader,
    pub(crate) file: Arc<dyn DiskFile>,
}

impl Spare {
    /// Makes one, durable under its name. What is left of a failed attempt is swept when the log is next opened
    /// for writing.
    pub(crate) fn create(
        disk: &dyn Disk,
        log_id: [u8; 16],
        number: u32,
        reserved_bytes: u64,
        zero: Zero<'_>,
    ) -> std::io::Result<Self> {
        let spare = Self::prepare(disk, log_id, number, reserved_bytes, zero)?;
        let named = match spare.publish(disk) {
            // One that could not be removed; the number is behind every one that was used.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                disk.remove(&path(number)).and_then(|()| spare.publish(disk))
            }
            result => result,
        };
        match named {
            Ok(()) => Ok(spare),
            Err(error) => {
                let _ = disk.remove(&path(number));
                Err(error)
            }
        }
    }

    /// Makes the file, durable but for its name: that of a segment is given only to what has a header.
    pub(crate) fn prepare(
        disk: &dyn Disk,
        log_id: [u8; 16],
        number: u32,
        reserved_bytes: u64,
        zero: Zero<'_>,
    ) -> std::io::Result<Self> {
        let header = SegmentHeader {
            log_id,
            number,
            reserved_bytes,
            created_micros: Timestamp::now().as_micros(),
            salt: salt(),
            covers: None,
        };
        let unfinished = unfinished_path(number);
        let file = create_anew(disk, &unfinished)?;
        let fill = || {
            match zero {
                Zero::Written => write_zeros_at(&*file, 0, reserved_bytes)?,
                Zero::Gently(between) => write_zeros_gently(&*file, reserved_bytes, between)?,
                Zero::Unwritten => file.set_len(reserved_bytes)?,
            }
            write_all_at(&*file, &mut [IoSlice::new(&header.encode())], 0)?;
            if broken(Sabotage::SkipHeaderSync) { Ok(()) } else { file.sync_data() }
        };
        match fill() {
            Ok(()) => Ok(Self { header, file }),
            Err(error) => {
                let _ = disk.remove(&unfinished);
                Err(error)
            }
        }
    }

    /// Gives a prepared file its name, durably. One of that name that is there already is an error.
    pub(crate) fn publish(&self, disk: &dyn Disk) -> std::io::Result<()> {
        let number = self.header.number;
        disk.rename(&unfinished_path(number), &path(number))?;
        if broken(Sabotage::SkipDirSync) { Ok(()) } else { disk.sync_dir(DIR) }
    }

    /// Gives the space back; one that cannot be removed is swept at the next opening.
    pub(crate) fn remove(self, disk: &dyn Disk) {
        let _ = disk.remove(&path(self.header.number));
    }
}

/// How large the segment of this number usually is: each twice the one before, up to the bound.
pub(crate) fn segment_bytes(options: &Options, number: u32) -> u64 {
    let doublings = number.saturating_sub(1).min(32);
    let doubled = options.segment_bytes_first.saturating_mul(1 << doublings);
    doubled.min(options.segment_bytes_max.max(options.segment_bytes_first))
}

/// Writes zeros so that the sync of a commit, which waits for the device, never waits for more than one piece.
fn write_zeros_gently(
    file: &dyn DiskFile,
    bytes: u64,
    between: &dyn Fn(u64),
) -> std::io::Result<()> {
    let mut done = 0;
    loop {
        let end = bytes.min(done + ZERO_PIECE_BYTES);
        write_zeros_at(file, done, end)?;
        done = end;
        if done == bytes {
            return Ok(());
        }
        file.sync_data()?;
        between(done);
    }
}

/// Tells one life of a file's bytes from another. Random, and never zero.
pub(crate) fn salt() -> u32 {
    if broken(Sabotage::SkipSalt) {
        return 1;
    }
    let [.., a, b, c, d] = *StreamId::new().as_bytes();
    [a, b, c, d].iter().fold(0, |salt, byte| salt << 8 | u32::from(*byte)).max(1)
}

/// How the space of a new segment is made.
#[derive(Clone, Copy)]
pub(crate) enum Zero<'a> {
    /// Zeros are written, so that a commit overwrites blocks that exist: what the commit path wants.
    Written,
    /// The same, while commits go on elsewhere: in pieces, each synced by itself. What is called between
    /// them is told how many bytes are done.
    Gently(&'a dyn Fn(u64)),
    /// The file is only made long: for a commit that fills the segment by itself.
    Unwritten,
}
