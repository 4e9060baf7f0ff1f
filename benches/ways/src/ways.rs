//! Ways to write a commit durably.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, opcode, squeue};

const PAGE: usize = 4096;

/// Way to write bytes at an offset and make them durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    WriteSync,
    WriteDsync,
    OpenDsync,
    DirectDsync,
    DirectSync,
    Uring,
    UringDirect,
    RangeSync,
    WriteSyncTailRecord,
}

impl Way {
    pub(crate) const ALL: [Self; 9] = [
        Self::WriteSync,
        Self::WriteDsync,
        Self::OpenDsync,
        Self::DirectDsync,
        Self::DirectSync,
        Self::Uring,
        Self::UringDirect,
        Self::RangeSync,
        Self::WriteSyncTailRecord,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WriteSync => "pwrite, fdatasync",
            Self::WriteDsync => "pwritev2 with RWF_DSYNC",
            Self::OpenDsync => "O_DSYNC",
            Self::DirectDsync => "O_DIRECT and O_DSYNC",
            Self::DirectSync => "O_DIRECT, fdatasync",
            Self::Uring => "io_uring: write, linked sync",
            Self::UringDirect => "io_uring: O_DIRECT and O_DSYNC",
            Self::RangeSync => "sync_file_range, fdatasync",
            Self::WriteSyncTailRecord => "pwrite, fdatasync, 40 bytes more",
        }
    }

    pub(crate) fn file_name(self) -> String {
        format!("{self:?}")
    }

    /// Number of bytes that offsets and lengths are multiples of.
    pub(crate) fn unit(self) -> u64 {
        match self {
            Self::DirectDsync | Self::DirectSync | Self::UringDirect => PAGE as u64,
            _ => 8,
        }
    }

    pub(crate) fn open(self, path: &Path) -> io::Result<File> {
        let flags = match self {
            Self::OpenDsync => libc::O_DSYNC,
            Self::DirectDsync | Self::UringDirect => libc::O_DIRECT | libc::O_DSYNC,
            Self::DirectSync => libc::O_DIRECT,
            _ => 0,
        };
        File::options().read(true).write(true).custom_flags(flags).open(path)
    }

    pub(crate) fn write(self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        match self {
            Self::WriteDsync => write_dsync(file, bytes, at),
            Self::OpenDsync | Self::DirectDsync => file.write_all_at(bytes, at),
            Self::WriteSync | Self::DirectSync => {
                file.write_all_at(bytes, at)?;
                file.sync_data()
            }
            Self::Uring => through_ring(file, bytes, at, true),
            Self::UringDirect => through_ring(file, bytes, at, false),
            Self::RangeSync => {
                file.write_all_at(bytes, at)?;
                start_writing(file, bytes.len(), at)?;
                file.sync_data()
            }
            Self::WriteSyncTailRecord => {
                file.write_all_at(bytes, at)?;
                file.sync_data()?;
                file.write_all_at(&bytes[..40], at + bytes.len() as u64)
            }
        }
    }
}

fn write_dsync(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    let slice = IoSlice::new(bytes);
    // SAFETY: the standard library promises that an `IoSlice` is laid out as an `iovec`; it lives
    // over the call.
    let written = unsafe {
        let slices = std::ptr::from_ref(&slice).cast::<libc::iovec>();
        libc::pwritev2(file.as_raw_fd(), slices, 1, at as libc::off_t, libc::RWF_DSYNC)
    };
    whole(written as i64, bytes.len())
}

fn start_writing(file: &File, length: usize, at: u64) -> io::Result<()> {
    let (at, length) = (at as libc::off64_t, length as libc::off64_t);
    // SAFETY: no memory is passed.
    let result =
        unsafe { libc::sync_file_range(file.as_raw_fd(), at, length, libc::SYNC_FILE_RANGE_WRITE) };
    whole(result.into(), 0)
}

fn through_ring(file: &File, bytes: &[u8], at: u64, then_sync: bool) -> io::Result<()> {
    thread_local! {
        static RING: RefCell<Option<IoUring>> = const { RefCell::new(None) };
    }
    RING.with_borrow_mut(|ring| {
        if ring.is_none() {
            *ring = Some(IoUring::new(8)?);
        }
        let ring = ring.as_mut().expect("made a moment ago");
        let fd = Fd(file.as_raw_fd());
        let write = opcode::Write::new(fd, bytes.as_ptr(), bytes.len() as u32).offset(at).build();
        let sync = opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build();
        let calls =
            if then_sync { vec![write.flags(squeue::Flags::IO_LINK), sync] } else { vec![write] };
        for call in &calls {
            // SAFETY: `bytes` and `file` outlive the wait below, which takes all completions.
            unsafe { ring.submission().push(call) }.map_err(io::Error::other)?;
        }
        ring.submit_and_wait(calls.len())?;
        let results: Vec<_> = ring.completion().map(|done| done.result()).collect();
        whole(results[0].into(), bytes.len())?;
        results[1..].iter().try_for_each(|result| whole((*result).into(), 0))
    })
}

/// Checks the result of a call.
fn whole(result: i64, wanted: usize) -> io::Result<()> {
    match result {
        _ if result == wanted as i64 => Ok(()),
        -1 => Err(io::Error::last_os_error()),
        _ if result < 0 => Err(io::Error::from_raw_os_error(-result as i32)),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Bytes that start at a page, as `O_DIRECT` requires.
pub(crate) struct Bytes {
    bytes: Vec<u8>,
    start: usize,
}

impl Bytes {
    pub(crate) fn new(length: usize, value: u8) -> Self {
        let bytes = vec![value; length + PAGE];
        let start = bytes.as_ptr().align_offset(PAGE);
        Self { bytes, start }
    }

    pub(crate) fn first(&self, length: usize) -> &[u8] {
        &self.bytes[self.start..self.start + length]
    }
}
