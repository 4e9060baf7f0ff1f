//! Interface to the operating system: a small positional trait, and the code that every
//! implementation shares.
//!
//! The only module with file system calls and `unsafe`. It handles directories, names and bytes,
//! and assigns them no meaning. All paths are relative to the log's directory, which is held open;
//! `/` separates their parts. No absolute path is kept anywhere (P14).

mod around;
mod clock;
mod dirs;
mod lock;
mod pinned;
mod process;
mod real;
mod result;
#[cfg(feature = "sim")]
mod sim;

use std::any::Any;
use std::ffi::OsString;
use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use around::{Unread, is_out_of_files, read_around};
pub(crate) use clock::EventClock;
pub(crate) use lock::{HeldLock, Lock, LockGuard, lock};
pub(crate) use pinned::{Pin, Pinned};
pub(crate) use process::{process_id, watch_forks};
pub(crate) use real::RealDisk;
pub(crate) use result::IoResultExt;
#[cfg(feature = "sim")]
pub use sim::{Defect, Fault, SimDisk};

use crate::types::Timestamp;

/// Size of the pieces in which bytes are copied or zeroed.
const PIECE_BYTES: u64 = 1 << 20;

/// Identifies a file independently of its names, as long as the file is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Identity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// Directory of one log. Follows the directory itself when it is moved, not its path. Symbolic
/// links below it are not followed.
pub(crate) trait Disk: Any + Send + Sync + Debug {
    /// Creates the log's own directory and its missing parents, private, with durable names.
    /// Removes them again if it fails.
    fn create_root(&self) -> io::Result<()>;
    /// Returns true if the log's directory existed when it was opened, or was created since.
    fn root_exists(&self) -> io::Result<bool>;
    /// Creates a private directory. Succeeds if it exists already.
    fn create_dir(&self, path: &str) -> io::Result<()>;
    /// Removes a directory; fails if it is not empty.
    fn remove_dir(&self, path: &str) -> io::Result<()>;
    /// Returns the names in a directory, in no order.
    fn list(&self, path: &str) -> io::Result<Vec<OsString>>;
    /// Creates a private file for reading and writing; fails if the name exists.
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file for reading. Fails with [`io::ErrorKind::InvalidInput`] if it is not a plain
    /// file.
    fn open_read(&self, path: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file for reading and writing. Fails with [`io::ErrorKind::InvalidInput`] if it is
    /// not a plain file.
    fn open_write(&self, path: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Returns the identity of the file now at this path, or `None` if nothing is there. Does not
    /// follow a link.
    fn identity_at(&self, path: &str) -> io::Result<Option<Identity>>;
    /// Renames a file within the log; fails if the new name exists.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Renames a file like [`Disk::rename`], but atomically replaces any file at the new name.
    fn replace(&self, from: &str, to: &str) -> io::Result<()>;
    /// Returns true if a path leads to the log's directory or into it. Follows links and `..`; the
    /// path need not exist yet.
    fn holds(&self, path: &Path) -> io::Result<bool>;
    /// Returns another directory of the same system, for files with the same permissions.
    fn beside(&self, root: &Path) -> io::Result<Arc<dyn Disk>>;
    /// Puts an immutable file into another directory as well, without copying its bytes: as a clone
    /// of its blocks, or under a second name. On an error the caller has to copy it.
    fn share(&self, from: &str, to: &dyn Disk, path: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Makes the names in a directory durable; the log's own directory is `""`.
    fn sync_dir(&self, path: &str) -> io::Result<()>;
    /// Fails with [`io::ErrorKind::FileTooLarge`] if this process may not create a file of this
    /// length: a write beyond its limit (`RLIMIT_FSIZE`) would end the process by a signal. Files
    /// check their own writes in the same way.
    fn check_file_bytes(&self, bytes: u64) -> io::Result<()>;
    /// Process id that a lock holder writes into the lock file.
    fn holder(&self) -> Option<u32>;
    /// Maximum number of files that this process may have open; `None` without a limit.
    fn open_files_max(&self) -> Option<u64>;
    /// Wall clock of the machine. It may jump in both directions, by any amount.
    fn now(&self) -> Timestamp;
    /// Time since some moment before the disk was opened. It never jumps, unlike the wall clock;
    /// where the system allows it, it includes the time that the machine slept.
    fn uptime(&self) -> Duration;
    /// Returns true if events must be dated by [`Disk::now`], because this disk has its own time.
    fn has_own_time(&self) -> bool {
        false
    }
    /// Returns true if looking up names costs nothing. Then the log does it each time,
    /// independently of any clock.
    fn looks_are_free(&self) -> bool {
        false
    }
    /// Returns true if the log may use this disk from its own threads. A repeatable simulation
    /// returns false: then everything happens on the caller's thread.
    fn allows_threads(&self) -> bool {
        true
    }
}

/// Open file.
pub(crate) trait DiskFile: Send + Sync + Debug {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Reads some bytes; returns 0 at the end.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes some bytes, gathered from the slices in order.
    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;
    /// Truncates or extends the file; new bytes read as zeros.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Makes the bytes written through this file durable, and the length they need.
    fn sync_data(&self) -> io::Result<()>;
    /// Maps the file's bytes. Only for files that are never truncated while another handle is open.
    fn map(&self) -> io::Result<Pin>;
    /// Identity of the file.
    fn identity(&self) -> Identity;
    /// Number of names of the file, in any directory.
    fn links(&self) -> io::Result<u64>;
    /// Locks the file until the guard is dropped. Returns `None` if it is locked already, here or
    /// in another process.
    fn lock(self: Arc<Self>) -> io::Result<Option<LockGuard>>;
    /// Returns true if no other reader can ever reach the file: it has no name, and no other handle
    /// or mapping exists in any process. Returns false where the system cannot tell. An open in the
    /// same moment finds no file.
    fn is_forsaken(&self) -> bool;
}

/// Fills `bytes`, across interruptions and short reads; fails if the file ends first.
pub(crate) fn read_exact_at(file: &dyn DiskFile, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    match read_at_most(file, bytes, offset)? {
        read if read == bytes.len() => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Fills `bytes` up to the end of the file, across interruptions and short reads. Returns the
/// number of bytes read.
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

/// Writes all slices consecutively, across interruptions and short writes; a write of 0 bytes is an
/// error.
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

/// Copies the bytes of a file at `range` to another file, or to the same file, at `offset`.
pub(crate) fn copy_at(
    from: &dyn DiskFile,
    range: Range<u64>,
    to: &dyn DiskFile,
    offset: u64,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES.min(range.end.saturating_sub(range.start)) as usize];
    let mut at = range.start;
    while at < range.end {
        let bytes = &mut piece[..PIECE_BYTES.min(range.end - at) as usize];
        read_exact_at(from, bytes, at)?;
        write_all_at(to, &mut [IoSlice::new(bytes)], offset + (at - range.start))?;
        at += bytes.len() as u64;
    }
    Ok(())
}

/// Copies like [`copy_at`], but writes filler in place of unreadable bytes. Returns the number of
/// those.
pub(crate) fn copy_around(
    from: &dyn DiskFile,
    range: Range<u64>,
    to: &dyn DiskFile,
    offset: u64,
) -> io::Result<u64> {
    let mut piece = vec![0; PIECE_BYTES.min(range.end.saturating_sub(range.start)) as usize];
    let mut at = range.start;
    let mut unread = Unread::default();
    while at < range.end {
        let bytes = &mut piece[..PIECE_BYTES.min(range.end - at) as usize];
        if read_around(from, bytes, at, &mut unread)? < bytes.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        write_all_at(to, &mut [IoSlice::new(bytes)], offset + (at - range.start))?;
        at += bytes.len() as u64;
    }
    Ok(unread.ranges.iter().map(|range| range.end - range.start).sum())
}

/// Writes zeros over `from..to`, in pieces of at most a mebibyte.
pub(crate) fn write_zeros_at(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; PIECE_BYTES.min(to.saturating_sub(from)) as usize];
    let mut at = from;
    while at < to {
        let piece = &zeros[..PIECE_BYTES.min(to - at) as usize];
        write_all_at(file, &mut [IoSlice::new(piece)], at)?;
        at += piece.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::*;

    /// File that follows a script and records its calls.
    #[derive(Debug, Default)]
    struct Scripted {
        bytes: Mutex<Vec<u8>>,
        /// Behaviour of the next calls. Calls after the script succeed in full.
        script: Mutex<VecDeque<Does>>,
        calls: Mutex<Vec<(u64, usize)>>,
    }

    #[derive(Clone, Copy, Debug)]
    enum Does {
        Interrupted,
        /// At most this number of bytes.
        Some(usize),
        Fails,
    }

    impl Scripted {
        fn new(bytes: &[u8], script: &[Does]) -> Self {
            Self {
                bytes: Mutex::new(bytes.to_vec()),
                script: Mutex::new(script.iter().copied().collect()),
                calls: Mutex::default(),
            }
        }

        /// Returns the number of bytes of `asked` that this call transfers.
        fn call(&self, offset: u64, asked: usize) -> io::Result<usize> {
            self.calls.lock().expect("whole").push((offset, asked));
            match self.script.lock().expect("whole").pop_front() {
                None => Ok(asked),
                Some(Does::Some(most)) => Ok(asked.min(most)),
                Some(Does::Interrupted) => Err(io::ErrorKind::Interrupted.into()),
                Some(Does::Fails) => Err(io::Error::other("scripted")),
            }
        }

        fn calls(&self) -> Vec<(u64, usize)> {
            self.calls.lock().expect("whole").clone()
        }
    }

    impl DiskFile for Scripted {
        fn len(&self) -> io::Result<u64> {
            Ok(self.bytes.lock().expect("whole").len() as u64)
        }

        fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
            let held = self.bytes.lock().expect("whole");
            let left = &held[held.len().min(offset as usize)..];
            let done = self.call(offset, bytes.len())?.min(left.len());
            bytes[..done].copy_from_slice(&left[..done]);
            Ok(done)
        }

        fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let done = self.call(offset, all.len())?;
            let mut held = self.bytes.lock().expect("whole");
            let end = offset as usize + done;
            let length = held.len().max(end);
            held.resize(length, 0);
            held[offset as usize..end].copy_from_slice(&all[..done]);
            Ok(done)
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            Ok(())
        }

        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }

        fn map(&self) -> io::Result<Pin> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn identity(&self) -> Identity {
            Identity { device: 0, inode: 0 }
        }

        fn links(&self) -> io::Result<u64> {
            Ok(1)
        }

        fn lock(self: Arc<Self>) -> io::Result<Option<LockGuard>> {
            Ok(None)
        }

        fn is_forsaken(&self) -> bool {
            false
        }
    }

    const SLICES: [&[u8]; 5] = [b"abc", b"", b"defgh", b"i", b"jklm"];

    fn write(file: &Scripted, offset: u64) -> io::Result<()> {
        let mut slices = SLICES.map(IoSlice::new);
        write_all_at(file, &mut slices, offset)
    }

    #[test]
    fn f11_interrupted_and_short_writes_go_on_where_they_stopped() {
        use Does::{Interrupted, Some};
        // Stops in the middle of a slice, at its end, across two slices, and after one byte.
        let script = [Interrupted, Some(2), Some(1), Interrupted, Interrupted, Some(6), Some(1)];
        let file = Scripted::new(b"....", &script);
        write(&file, 4).expect("written");
        assert_eq!(*file.bytes.lock().expect("whole"), b"....abcdefghijklm");
        let calls = [(4, 13), (4, 13), (6, 11), (7, 10), (7, 10), (7, 10), (13, 4), (14, 3)];
        assert_eq!(file.calls(), calls);
        for most in 1..14 {
            let file = Scripted::new(b"", &[Some(most); 13]);
            write(&file, 0).expect("written");
            assert_eq!(*file.bytes.lock().expect("whole"), SLICES.concat());
        }
    }

    #[test]
    fn f11_a_write_that_takes_nothing_is_an_error_and_is_not_tried_again() {
        let file = Scripted::new(b"", &[Does::Some(5), Does::Some(0)]);
        let error = write(&file, 0).expect_err("nothing was taken");
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
        assert_eq!(file.calls(), [(0, 13), (5, 8)]);
        let nothing = Scripted::new(b"", &[]);
        write_all_at(&nothing, &mut [IoSlice::new(b""), IoSlice::new(b"")], 9).expect("nothing");
        assert!(nothing.calls().is_empty(), "no bytes, no call");
    }

    #[test]
    fn f11_an_error_ends_a_write_or_a_read_at_once() {
        let file = Scripted::new(b"0123456789", &[Does::Some(5), Does::Fails]);
        assert_eq!(write(&file, 0).expect_err("scripted").kind(), io::ErrorKind::Other);
        assert_eq!(file.calls().len(), 2);
        let file = Scripted::new(b"0123456789", &[Does::Some(5), Does::Fails]);
        let error = read_at_most(&file, &mut [0; 8], 0).expect_err("scripted");
        assert_eq!((error.kind(), file.calls().len()), (io::ErrorKind::Other, 2));
    }

    #[test]
    fn f11_interrupted_and_short_reads_go_on_and_end_where_the_file_does() {
        use Does::{Interrupted, Some};
        let script = [Some(3), Interrupted, Some(1)];
        let file = Scripted::new(b"0123456789", &script);
        let mut bytes = [0; 8];
        assert_eq!(read_at_most(&file, &mut bytes, 1).expect("read"), 8);
        assert_eq!(&bytes, b"12345678");
        assert_eq!(file.calls(), [(1, 8), (4, 5), (4, 5), (5, 4)]);
        let file = Scripted::new(b"0123456789", &[Interrupted]);
        assert_eq!(read_at_most(&file, &mut bytes, 7).expect("read"), 3);
        let short = read_exact_at(&file, &mut bytes, 7).expect_err("too little");
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read_at_most(&file, &mut bytes, 99).expect("read"), 0, "behind the end");
    }

    /// F44: missing bytes of a file that shrank are an error; nothing is written in their place.
    #[test]
    fn f44_a_copy_of_a_file_that_became_shorter_fails() {
        let from = Scripted::new(&[7; 100], &[]);
        let to = Scripted::new(&[], &[]);
        assert_eq!(copy_around(&from, 0..100, &to, 0).expect("copied"), 0);
        let error = copy_around(&from, 0..101, &to, 100).expect_err("too little");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(to.len().expect("a length"), 100);
    }

    #[test]
    fn f11_zeros_are_written_over_what_is_there_and_no_further() {
        let file = Scripted::new(&[7; 3 << 20], &[Does::Some(100), Does::Interrupted]);
        write_zeros_at(&file, 10, (2 << 20) + 11).expect("written");
        let bytes = file.bytes.lock().expect("whole");
        let ones = bytes.iter().filter(|byte| **byte != 0).count();
        assert_eq!((bytes[9], bytes[10], bytes[(2 << 20) + 11]), (7, 0, 7));
        assert_eq!(ones, (3 << 20) - (2 << 20) - 1);
    }
}
