//! Preallocation of the next segment's file.

use std::io::{self, IoSlice};
use std::sync::Arc;

use super::file::Segment;
use super::files::{DIR, path, remove_made, unfinished_path};
use super::pool::FilePool;
use crate::disk::{Disk, DiskFile, LockGuard, read_at_most, write_all_at, write_zeros_at};
use crate::error::{Result, is_full};
use crate::format::{COMMITS_AT, SegmentHeader, commit_header, decode_header, is_zero};
use crate::options::Options;
use crate::sabotage::{Sabotage, broken};
use crate::types::StreamId;

/// Number of bytes that are zeroed at a time during commits: a device writes them in about the time
/// of a small sync.
const ZERO_PIECE_BYTES: u64 = 256 << 10;

/// Minimum length of a segment, in bytes, where the usual length does not fit: it holds a small
/// commit and the space reserved behind one ([`crate::writer`]).
pub(crate) const FITTED_BYTES_MIN: u64 = 8 << 10;

/// Spare: a segment without commits. Its header and its name are durable, the rest is zeros.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) header: SegmentHeader,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Lock of the writer; `None` for a spare that was only inspected.
    pub(crate) lock: Option<LockGuard>,
}

impl Spare {
    /// Creates a spare, durable under its name, of a length that [`Spare::prepare_fitting`]
    /// selects. The next opening for writing removes the files of a failed attempt.
    pub(crate) fn create(
        disk: &dyn Disk,
        log_id: [u8; 16],
        number: u32,
        sizes: (u64, u64),
        zero: Zero<'_>,
    ) -> io::Result<Self> {
        Self::prepare_fitting(disk, log_id, number, sizes, zero)?.named(disk)
    }

    /// Gives a prepared file its name, replacing an unused spare of the same log.
    pub(crate) fn named(self, disk: &dyn Disk) -> io::Result<Self> {
        let SegmentHeader { log_id, number, .. } = self.header;
        let named = match self.publish(disk) {
            // An unused spare that could not be removed: its number is greater than that of every
            // used segment.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                remove_unused(disk, log_id, number).and_then(|()| self.publish(disk))
            }
            result => result,
        };
        match named {
            Ok(()) => Ok(self),
            Err(error) => {
                self.remove(disk);
                Err(error)
            }
        }
    }

    /// Opens a spare that was found on disk for writing, after verifying its identity.
    pub(crate) fn reopen(files: &FilePool, header: SegmentHeader) -> Result<Self> {
        let file = Segment::active(header, 0).file_to_write(files)?;
        Ok(Self { header, file, lock: None })
    }

    /// Creates the file, locked and durable, under its unfinished name: only a file with a header
    /// gets the name of a segment.
    pub(crate) fn prepare(
        disk: &dyn Disk,
        log_id: [u8; 16],
        number: u32,
        reserved_bytes: u64,
        zero: Zero<'_>,
    ) -> io::Result<Self> {
        let header = SegmentHeader {
            log_id,
            number,
            reserved_bytes,
            created_micros: disk.now().as_micros(),
            salt: salt(),
            covers: None,
        };
        disk.check_file_bytes(reserved_bytes)?;
        let unfinished = unfinished_path(&header);
        let file = disk.create(&unfinished)?;
        let fill = || {
            let lock = Arc::clone(&file).lock()?;
            match zero {
                Zero::Written => write_zeros_at(&*file, 0, reserved_bytes)?,
                Zero::Gently(between) => write_zeros_gently(&*file, reserved_bytes, between)?,
                Zero::Unwritten => file.set_len(reserved_bytes)?,
            }
            write_all_at(&*file, &mut [IoSlice::new(&header.encode())], 0)?;
            file.sync_data()?;
            Ok(lock)
        };
        match fill() {
            Ok(lock) => Ok(Self { header, file, lock }),
            Err(error) => {
                let _ = remove_made(disk, &unfinished, &*file);
                Err(error)
            }
        }
    }

    /// Creates the file like [`Spare::prepare`]. On a disk without room for `usual` bytes, halves
    /// the length until there is room for twice as many, or down to `least`: a compactor needs some
    /// of the rest.
    pub(crate) fn prepare_fitting(
        disk: &dyn Disk,
        log_id: [u8; 16],
        number: u32,
        (usual, least): (u64, u64),
        zero: Zero<'_>,
    ) -> io::Result<Self> {
        let mut bytes = usual;
        loop {
            match Self::prepare(disk, log_id, number, bytes, zero) {
                // A limit on file length is not a lack of space: the host lifts it.
                Err(error) if is_full(&error) && error.kind() != io::ErrorKind::FileTooLarge => {
                    if bytes <= least || broken(Sabotage::WholeSegments) {
                        let needed = format!("a segment takes {bytes} bytes: {error}");
                        return Err(io::Error::new(error.kind(), needed));
                    }
                    bytes =
                        (bytes / 2).next_multiple_of(4096).clamp(least, bytes.saturating_sub(1));
                }
                // The other half of these bytes stays free.
                Ok(spare) if bytes < usual && bytes > least => {
                    spare.remove(disk);
                    let half = (bytes / 2).next_multiple_of(4096).max(least);
                    return Self::prepare(disk, log_id, number, half, zero);
                }
                result => return result,
            }
        }
    }

    /// Locks a spare that was found on disk. Returns `false` if another writer holds the lock.
    pub(crate) fn claim(&mut self) -> io::Result<bool> {
        self.lock = Arc::clone(&self.file).lock()?;
        Ok(self.lock.is_some())
    }

    /// Gives a prepared file its name, durably. An existing file of that name is an error.
    pub(crate) fn publish(&self, disk: &dyn Disk) -> io::Result<()> {
        disk.rename(&unfinished_path(&self.header), &path(self.header.number))?;
        disk.sync_dir(DIR)
    }

    /// Renames a spare of an earlier process again. The sync that made its name durable may have
    /// failed in a process that died before it removed the file; a later sync proves nothing then
    /// (F46).
    pub(crate) fn publish_again(&self, disk: &dyn Disk) -> io::Result<()> {
        disk.rename(&path(self.header.number), &unfinished_path(&self.header))?;
        self.publish(disk)
    }

    /// Removes the file. The next opening removes one that remains.
    pub(crate) fn remove(self, disk: &dyn Disk) {
        let unfinished = unfinished_path(&self.header);
        let _ = remove_made(disk, &unfinished, &*self.file);
        let _ = remove_made(disk, &path(self.header.number), &*self.file);
    }
}

/// Removes a segment of this log and number that holds no commits and that no other writer has
/// locked.
fn remove_unused(disk: &dyn Disk, log_id: [u8; 16], number: u32) -> io::Result<()> {
    let taken = || io::Error::new(io::ErrorKind::AlreadyExists, "another file has this name");
    let file = disk.open_write(&path(number))?;
    let mut block = [0; COMMITS_AT as usize + commit_header::BYTES];
    let read = read_at_most(&*file, &mut block, 0)?;
    let (head, first) = block[..read].split_at(read.min(COMMITS_AT as usize));
    let is_own = decode_header(head).is_ok_and(|(found, _)| {
        found.log_id == log_id && found.number == number && found.covers.is_none()
    });
    let is_unused = is_own && is_zero(first) && file.lock()?.is_some();
    if is_unused || broken(Sabotage::RemoveUnread) {
        disk.remove(&path(number))
    } else {
        Err(taken())
    }
}

/// Returns the usual length of the segment of this number, in bytes: each is twice as long as the
/// previous one, up to the maximum.
pub(crate) fn segment_bytes(options: &Options, number: u32) -> u64 {
    let doublings = number.saturating_sub(1).min(32);
    let doubled = options.segment_bytes_first.saturating_mul(1 << doublings);
    doubled.min(options.segment_bytes_max.max(options.segment_bytes_first))
}

/// Writes zeros in synced pieces, so that the sync of a commit never waits for more than one piece.
fn write_zeros_gently(
    file: &dyn DiskFile,
    bytes: u64,
    between: &dyn Fn(u64) -> io::Result<()>,
) -> io::Result<()> {
    let mut done = 0_u64;
    loop {
        let end = bytes.min(done.saturating_add(ZERO_PIECE_BYTES));
        write_zeros_at(file, done, end)?;
        done = end;
        if done == bytes {
            return Ok(());
        }
        file.sync_data()?;
        between(done)?;
    }
}

/// Returns a random, nonzero salt, which distinguishes the bytes of successive uses of a file.
pub(crate) fn salt() -> u32 {
    if broken(Sabotage::SkipSalt) {
        return 1;
    }
    let [.., a, b, c, d] = *StreamId::new().as_bytes();
    [a, b, c, d].iter().fold(0, |salt, byte| salt << 8 | u32::from(*byte)).max(1)
}

/// Method of allocating the space of a new segment.
#[derive(Clone, Copy)]
pub(crate) enum Zero<'a> {
    /// Writes zeros, so that a commit overwrites allocated blocks: the best choice for commits.
    Written,
    /// Writes zeros while commits continue elsewhere: in pieces, each synced by itself. Between two
    /// pieces, calls the function with the number of bytes done; its error ends the allocation.
    Gently(&'a dyn Fn(u64) -> std::io::Result<()>),
    /// Sets the length of the file only, for a commit that fills the segment by itself.
    Unwritten,
}
