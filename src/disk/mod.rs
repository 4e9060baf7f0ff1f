//! The seam to the operating system: a small positional trait, and what every implementation shares.
//!
//! The only room with file system calls and `unsafe`. It knows directories, names and bytes, and
//! nothing of what they mean. All paths are relative to the log's directory, with `/` between their
//! parts; no absolute path is ever kept elsewhere (P14).

mod real;
#[cfg(feature = "sim")]
mod sim;

use std::ffi::OsString;
use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::sync::Arc;

pub(crate) use real::{RealDisk, process_id};
#[cfg(feature = "sim")]
pub use sim::{Fault, SimDisk};

/// Bytes that stay where they are for as long as somebody holds them: a mapping, or a buffer.
pub(crate) type Pin = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// The directory of one log.
pub(crate) trait Disk: Send + Sync + Debug {
    /// Makes the log's own directory, and those above it, private, their names durable.
    fn create_root(&self) -> io::Result<()>;
    /// Whether the log's directory is there. A plain file in its place is an error.
    fn root_exists(&self) -> io::Result<bool>;
    /// Makes a directory, private. One that is there already will do.
    fn create_dir(&self, path: &str) -> io::Result<()>;
    /// The names in a directory, in no order.
    fn list(&self, path: &str) -> io::Result<Vec<OsString>>;
    /// Makes a new file, private, for reading and writing. One that is there already is an error.
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file for reading only. What is no plain file is [`io::ErrorKind::InvalidInput`].
    fn open_read(&self, path: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file for reading and writing. What is no plain file is [`io::ErrorKind::InvalidInput`].
    fn open_write(&self, path: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file another name in the same log; an existing one of that name is an error.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Makes the names in a directory durable; the log's own directory is `""`.
    fn sync_dir(&self, path: &str) -> io::Result<()>;
    /// Takes the lock on a file, which is made if need be. Never waits.
    fn lock(&self, path: &str) -> io::Result<Lock>;
    /// Whether the log may use this disk from threads of its own. A simulation that is to be repeatable
    /// says no: then everything happens on the caller's thread.
    fn allows_threads(&self) -> bool {
        true
    }
}

/// What came of trying to lock.
pub(crate) enum Lock {
    /// Held until the guard is dropped, or the process dies.
    Held(LockGuard),
    /// Somebody else has it; their process id, when they left one.
    Busy(Option<u32>),
}

/// Holds a lock for as long as it lives.
pub(crate) type LockGuard = Box<dyn Send + Sync>;

/// An open file.
pub(crate) trait DiskFile: Send + Sync + Debug {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Reads some bytes; 0 at the end.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes some bytes, gathered from the slices in order.
    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;
    /// Cuts or extends the file; what is new reads as zeros.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Makes what was written through this file durable, and the length it needs.
    fn sync_data(&self) -> io::Result<()>;
    /// The file's bytes, in place. Only for files that are never cut or shrunk again.
    fn map(&self) -> io::Result<Pin>;
}

/// Fills `bytes`, over interruptions and short reads; a file that ends before is an error.
pub(crate) fn read_exact_at(file: &dyn DiskFile, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    match read_at_most(file, bytes, offset)? {
        read if read == bytes.len() => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Fills `bytes` as far as the file goes, over interruptions and short reads.
pub(crate) fn read_at_most(
    file: &dyn DiskFile,
    bytes: &mut [u8],
    offset: u64,
) -> io::Result<usize> {
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// Writes all slices in a row, over interruptions and short writes; a write that takes nothing is an error.
pub(crate) fn write_all_at(
    file: &dyn DiskFile,
    mut slices: &mut [IoSlice<'_>],
    mut offset: u64,
) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match file.write_at(slices, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(done) => {
                IoSlice::advance_slices(&mut slices, done);
                offset += done as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes zeros over `from..to`, in pieces of at most a mebibyte.
pub(crate) fn write_zeros_at(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    const PIECE_BYTES: u64 = 1 << 20;
    let zeros = vec![0; PIECE_BYTES.min(to.saturating_sub(from)) as usize];
    let mut at = from;
    while at < to {
        let piece = &zeros[..PIECE_BYTES.min(to - at) as usize];
        write_all_at(file, &mut [IoSlice::new(piece)], at)?;
        at += piece.len() as u64;
    }
    Ok(())
}
