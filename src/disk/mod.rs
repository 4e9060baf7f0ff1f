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
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

pub(crate) use real::{RealDisk, process_id};
#[cfg(feature = "sim")]
pub use sim::{Fault, SimDisk};

use crate::sabotage::{Sabotage, broken};

/// What is copied or zeroed is so in pieces of this size.
const PIECE_BYTES: u64 = 1 << 20;

/// Bytes that stay where they are for as long as somebody holds them.
pub(crate) type Pin = Arc<Pinned>;

/// A mapping, or a buffer.
pub(crate) enum Pinned {
    Map(memmap2::Mmap),
    Buffer(Vec<u8>),
    /// And the file, which is open for as long.
    #[cfg(feature = "sim")]
    Simulated {
        bytes: Arc<Vec<u8>>,
        _open: Box<sim::SimFile>,
    },
}

impl Pinned {
    /// The buffer, for another use; `None` for a mapping.
    pub(crate) fn buffer(&mut self) -> Option<&mut Vec<u8>> {
        match self {
            Self::Buffer(buffer) => Some(buffer),
            _ => None,
        }
    }
}

impl AsRef<[u8]> for Pinned {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Map(map) => map,
            Self::Buffer(buffer) => buffer,
            #[cfg(feature = "sim")]
            Self::Simulated { bytes, .. } => bytes,
        }
    }
}

impl Default for Pinned {
    fn default() -> Self {
        Self::Buffer(Vec::new())
    }
}

/// Asks the processor to fetch bytes that are about to be read, and goes on. Of each page the first lines will do,
/// for which it has to find the page: what follows it then sees coming by itself.
pub(crate) fn prefetch(bytes: &[u8]) {
    const LINES_AT_ONCE: usize = 4;
    let mut rest = bytes;
    while !rest.is_empty() {
        let page = 4096 - rest.as_ptr() as usize % 4096;
        let (here, next) = rest.split_at(page.min(rest.len()));
        here.chunks(64).take(LINES_AT_ONCE).for_each(prefetch_line);
        rest = next;
    }
    bytes.rchunks(64).take(1).for_each(prefetch_line);
}

/// The same, for bytes of which only a few are read, each one known by the one before.
pub(crate) fn prefetch_all(bytes: &[u8]) {
    bytes.chunks(64).for_each(prefetch_line);
}

#[cfg(target_arch = "x86_64")]
fn prefetch_line(line: &[u8]) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch of any address is no access; this one is inside a slice.
    #[expect(unsafe_code, reason = "there is no safe way to say it")]
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn prefetch_line(_: &[u8]) {}

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
    /// As [`Disk::rename`], in place of the file that has that name, if there is one: at every moment one of the
    /// two has it.
    fn replace(&self, from: &str, to: &str) -> io::Result<()>;
    /// Another directory of the same system, for files that the same people may read.
    fn beside(&self, root: &Path) -> Arc<dyn Disk>;
    /// Lets a file that never changes again be in another directory as well, without a copy of its bytes: as a
    /// clone of its blocks, or under a second name. An error: there it has to be copied.
    fn share(&self, from: &str, root: &Path, to: &str) -> io::Result<()>;
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
    /// The file's bytes, in place. Only for files that are never cut again while somebody else has them open.
    fn map(&self) -> io::Result<Pin>;
    /// Whether nobody can ever read the file any more but through this: it has no name, and nobody has it open or
    /// mapped, in any process. False where that cannot be known. Whoever opens it in this moment finds no file.
    fn is_forsaken(&self) -> bool;
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
            Ok(_) if broken(Sabotage::StopAtShortWrite) => return Ok(()),
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

/// Copies the bytes of one file at `range` to another, or to the same, at `offset`.
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

    /// A file whose calls do what they are told, and note what they were asked.
    #[derive(Debug, Default)]
    struct Scripted {
        bytes: Mutex<Vec<u8>>,
        /// What the next calls do; then everything is done at once.
        script: Mutex<VecDeque<Does>>,
        calls: Mutex<Vec<(u64, usize)>>,
    }

    #[derive(Clone, Copy, Debug)]
    enum Does {
        Interrupted,
        /// At most so many bytes.
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

        /// How many of `asked` bytes this call does.
        fn call(&self, offset: u64, asked: usize) -> io::Result<usize> {
            self.calls.lock().expect("whole").push((offset, asked));
            match self.script.lock().expect("whole").pop_front() {
                None => Ok(asked),
                Some(Does::Some(most)) => Ok(asked.min(most)),
                Some(Does::Interrupted) => Err(io::ErrorKind::Interrupted.into()),
                Some(Does::Fails) => Err(io::Error::other("told to")),
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
        // In the middle of a slice, at the end of one, over two, one byte.
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
        assert_eq!(write(&file, 0).expect_err("told to").kind(), io::ErrorKind::Other);
        assert_eq!(file.calls().len(), 2);
        let file = Scripted::new(b"0123456789", &[Does::Some(5), Does::Fails]);
        let error = read_at_most(&file, &mut [0; 8], 0).expect_err("told to");
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
