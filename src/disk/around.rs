//! Reads around sectors that the disk cannot read.
//!
//! An unreadable sector (`EIO`) damages its place, just as wrong bytes do. Filler that fits no
//! checksum replaces the bytes of its page, and every later check treats them as corrupt.
//! [`Unread`] reports the affected ranges separately.

use std::io;
use std::ops::Range;

use super::DiskFile;

/// Replacement for unreadable bytes. No record starts with it, and it is not zero, which would mark
/// the end of the written bytes.
const FILLER: u8 = 0xEE;
/// Granularity of the system's reads, and so of their failures.
const PAGE_BYTES: u64 = 4096;

/// Unreadable ranges of a file.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    /// Byte ranges, in order.
    pub(crate) ranges: Vec<Range<u64>>,
    /// First error that the system reported.
    pub(crate) error: Option<io::Error>,
}

impl Unread {
    fn note(&mut self, range: Range<u64>, error: io::Error) {
        match self.ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.ranges.push(range),
        }
        self.error.get_or_insert(error);
    }
}

impl std::fmt::Display for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut ranges = self.ranges.iter();
        if let Some(first) = ranges.next() {
            write!(f, "the disk cannot read bytes {}..{}", first.start, first.end)?;
        }
        ranges.try_for_each(|next| write!(f, ", {}..{}", next.start, next.end))?;
        self.error.as_ref().map_or(Ok(()), |error| write!(f, ": {error}"))
    }
}

/// Returns true if an error means that the disk cannot read these bytes.
pub(crate) fn is_unreadable(error: &io::Error) -> bool {
    use rustix::io::Errno;
    #[cfg(target_os = "linux")]
    const ERRORS: [Errno; 5] =
        [Errno::IO, Errno::BADMSG, Errno::UCLEAN, Errno::NODATA, Errno::REMOTEIO];
    #[cfg(not(target_os = "linux"))]
    const ERRORS: [Errno; 2] = [Errno::IO, Errno::BADMSG];
    Errno::from_io_error(error).is_some_and(|errno| ERRORS.contains(&errno))
}

/// Returns true if an error means that this process or the system has too many files open or
/// mapped.
pub(crate) fn is_out_of_files(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errors = [Errno::MFILE, Errno::NFILE, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| errors.contains(&errno))
}

/// Fills `bytes` up to the end of the file, across interruptions, short reads and unreadable pages,
/// and records the latter in `unread`. Returns the number of bytes up to the end of the file.
///
/// # Errors
///
/// Any failure other than an unreadable page.
pub(crate) fn read_around(
    file: &dyn DiskFile,
    bytes: &mut [u8],
    offset: u64,
    unread: &mut Unread,
) -> io::Result<usize> {
    let mut read = 0;
    let mut most = usize::MAX;
    while read < bytes.len() {
        let at = offset + read as u64;
        let left = bytes.len() - read;
        let wanted = left.min(most);
        match file.read_at(&mut bytes[read..read + wanted], at) {
            Ok(0) => break,
            Ok(more) => {
                read += more;
                most = most.saturating_mul(2);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if !is_unreadable(&error) => return Err(error),
            Err(error) => {
                // The request may cover pages that can be read: retry with the first page alone.
                let page = (PAGE_BYTES - at % PAGE_BYTES) as usize;
                most = page;
                if wanted <= page {
                    // Nothing is lost beyond the end of the file.
                    let end = (file.len()?.saturating_sub(at) as usize).min(wanted);
                    if end == 0 {
                        break;
                    }
                    bytes[read..read + end].fill(FILLER);
                    unread.note(at..at + end as u64, error);
                    read += end;
                }
            }
        }
    }
    Ok(read)
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use super::*;
    use crate::disk::{Disk, SimDisk};

    /// F44: of a page across the end of a file, only the bytes of the file are lost.
    #[test]
    fn f44_nothing_is_lost_behind_the_end_of_a_file() {
        let disk = SimDisk::new(1);
        disk.write_file("file", &[7; 5_000]);
        disk.set_unreadable("file", 4_096..8_192);
        let file = disk.open_read("file").expect("there");
        let mut bytes = [0; 8_192];
        let mut unread = Unread::default();
        assert_eq!(read_around(&*file, &mut bytes, 0, &mut unread).expect("read"), 5_000);
        assert_eq!(unread.ranges, std::slice::from_ref(&(4_096..5_000)));
        assert_eq!((bytes[4_095], bytes[4_999], bytes[5_000]), (7, FILLER, 0));
    }
}
