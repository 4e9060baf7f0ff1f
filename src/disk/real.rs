//! The disk that is there: std files, one gathered positional write, OS locks, private modes, mappings.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Disk, DiskFile, Lock, Pin, Pinned};
use crate::options::Clock;

/// One `pwritev` takes at most this many slices on Linux and macOS (`IOV_MAX`).
const SLICES_MAX: usize = 1024;

/// A directory of the file system.
#[derive(Debug)]
pub(crate) struct RealDisk {
    root: PathBuf,
    dir_mode: u32,
    file_mode: u32,
}

impl RealDisk {
    /// The log's directory; `shared` lets the group and others read it, as far as the umask does.
    pub(crate) fn new(root: &Path, shared: bool) -> Self {
        let (dir_mode, file_mode) = if shared { (0o755, 0o644) } else { (0o700, 0o600) };
        Self { root: root.to_owned(), dir_mode, file_mode }
    }

    /// The directory of a plain file, and the file's name in it; `None` when there is no such file.
    pub(crate) fn of_file(path: &Path) -> Option<(Self, String)> {
        let name = path.file_name()?.to_str()?.to_owned();
        let is_file = fs::metadata(path).is_ok_and(|found| found.is_file());
        is_file.then(|| (Self::new(path.parent().unwrap_or(Path::new("")), false), name))
    }

    /// The log's directory; what is made there can be read by those who can read `dir` in it.
    pub(crate) fn alike(root: &Path, dir: &str) -> io::Result<Self> {
        let mode = match fs::metadata(root.join(dir)) {
            Ok(found) => found.permissions().mode() & 0o777,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0o700,
            Err(error) => return Err(error),
        };
        Ok(Self { root: root.to_owned(), dir_mode: mode, file_mode: mode & 0o666 })
    }

    fn path(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        match DirBuilder::new().mode(self.dir_mode).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            result => result,
        }
    }

    /// A file of its own that shares its blocks with another, where the file system can do that.
    #[cfg(target_os = "linux")]
    fn clone_blocks(&self, from: &Path, to: &Path) -> io::Result<()> {
        let source = File::open(from)?;
        still_named(&source)?;
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(self.file_mode).open(to)?;
        rustix::fs::ioctl_ficlone(&file, &source).map_err(|error| {
            let _ = fs::remove_file(to);
            error.into()
        })
    }

    #[cfg(not(target_os = "linux"))]
    fn clone_blocks(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Opens a plain file. Anything else is [`io::ErrorKind::InvalidInput`], and is not even opened: that
    /// of a pipe would wait for the other side.
    fn open(&self, path: &str, options: &mut OpenOptions) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path(path);
        let plain = |found: fs::Metadata| match found.is_file() {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file")),
        };
        plain(fs::metadata(&path)?)?;
        let file = options.open(path)?;
        plain(still_named(&file)?)?;
        Ok(Arc::new(RealFile(file)))
    }
}

impl Disk for RealDisk {
    fn create_root(&self) -> io::Result<()> {
        let ancestors = || self.root.ancestors().filter(|path| !path.as_os_str().is_empty());
        let missing: Vec<&Path> = ancestors().take_while(|path| !path.exists()).collect();
        for path in missing.iter().rev() {
            self.make_dir(path)?;
        }
        self.make_dir(&self.root)?;
        // All of them, also those that were there: an earlier attempt may have died before it came so far.
        for (depth, path) in ancestors().enumerate() {
            let above = path.parent().filter(|above| !above.as_os_str().is_empty());
            match File::open(above.unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all()) {
                // A directory that we may not read, or that cannot be synced, was not made here.
                Err(_) if depth >= missing.len().max(1) => break,
                result => result?,
            }
        }
        Ok(())
    }

    fn root_exists(&self) -> io::Result<bool> {
        match fs::metadata(&self.root) {
            Ok(found) if found.is_dir() => Ok(true),
            Ok(_) => Err(io::ErrorKind::NotADirectory.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.make_dir(&self.path(path))
    }

    fn list(&self, path: &str) -> io::Result<Vec<OsString>> {
        fs::read_dir(self.path(path))?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(self.file_mode);
        Ok(Arc::new(RealFile(options.open(self.path(path))?)))
    }

    fn open_read(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.open(path, OpenOptions::new().read(true))
    }

    fn open_write(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.open(path, OpenOptions::new().read(true).write(true))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if self.path(to).symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fs::rename(self.path(from), self.path(to))
    }

    fn replace(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn beside(&self, root: &Path) -> Arc<dyn Disk> {
        Arc::new(Self { root: root.to_owned(), ..*self })
    }

    fn share(&self, from: &str, root: &Path, to: &str) -> io::Result<()> {
        let (from, to) = (self.path(from), root.join(to));
        if self.clone_blocks(&from, &to).is_ok() {
            return Ok(());
        }
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.path(path))
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        File::open(self.path(path))?.sync_all()
    }

    fn lock(&self, path: &str) -> io::Result<Lock> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(self.file_mode)
            .open(self.path(path))?;
        match file.try_lock() {
            Ok(()) => {
                // For people and for the message of the next one who tries; nothing depends on it.
                file.set_len(0)?;
                file.seek(SeekFrom::Start(0))?;
                writeln!(file, "{}", std::process::id())?;
                Ok(Lock::Held(Box::new(HeldLock { file, process: process_id() })))
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let read = file.take(20).read_to_string(&mut text);
                Ok(Lock::Busy(read.ok().and_then(|_| text.trim().parse().ok())))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// A lock is freed in so many words: to close the file would leave it to forks of this process, which have the
/// same file open. A fork itself frees nothing: the lock is its parent's.
struct HeldLock {
    file: File,
    process: u32,
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        if self.process == process_id() {
            let _ = self.file.unlock();
        }
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(bytes, offset)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        match slices {
            [one] => self.0.write_at(one, offset),
            many => {
                let many = &many[..many.len().min(SLICES_MAX)];
                Ok(rustix::io::pwritev(&self.0, many, offset)?)
            }
        }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn map(&self) -> io::Result<Pin> {
        if self.0.metadata()?.len() == 0 {
            return Ok(Pin::default());
        }
        // SAFETY: only sealed segments are mapped; this crate never writes to them again, and shortens those that
        // are forsaken, and so not mapped. `docs/format.md` says that nobody else may while a log is open.
        #[expect(unsafe_code, reason = "a mapping is only as stable as its file")]
        let map = unsafe { memmap2::Mmap::map(&self.0)? };
        Ok(Arc::new(Pinned::Map(map)))
    }

    fn is_forsaken(&self) -> bool {
        still_named(&self.0).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
            && is_only_here(&self.0)
    }
}

/// What is known of an open file. One that has lost its name since it was opened is no longer there: whoever forsakes it
/// may have come first.
fn still_named(file: &File) -> io::Result<fs::Metadata> {
    let found = file.metadata()?;
    if found.nlink() == 0 { Err(io::ErrorKind::NotFound.into()) } else { Ok(found) }
}

/// Whether nobody else has the file open or mapped, in any process: only then a lease to write it is given (`fcntl`,
/// `F_SETLEASE`). It is given back at once. False on file systems that others may read by other means.
#[cfg(target_os = "linux")]
fn is_only_here(file: &File) -> bool {
    use std::os::fd::AsRawFd;

    /// By which signal it is told that a lease is taken away; as `asm-generic/fcntl.h` has it.
    const F_SETSIG: libc::c_int = 10;
    /// ext2 to ext4, XFS, Btrfs, F2FS.
    const LOCAL: [u32; 4] = [0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010];
    let is_local =
        rustix::fs::fstatfs(file).is_ok_and(|found| LOCAL.contains(&(found.f_type as _)));
    let set = |command, value: libc::c_int| {
        // SAFETY: none of these commands has a pointer.
        #[expect(unsafe_code, reason = "there is no safe way to ask for a lease")]
        let result = unsafe { libc::fcntl(file.as_raw_fd(), command, value) };
        result == 0
    };
    // Whoever opens it in this moment has it taken away again, which is told by a signal: by one that nobody minds.
    is_local
        && set(F_SETSIG, libc::SIGURG)
        && set(libc::F_SETLEASE, libc::F_WRLCK)
        && set(libc::F_SETLEASE, libc::F_UNLCK)
}

#[cfg(not(target_os = "linux"))]
fn is_only_here(_: &File) -> bool {
    false
}

/// This process, as the operating system numbers it.
pub(crate) fn process_id() -> u32 {
    std::process::id()
}

impl Clock {
    /// Now, in microseconds since the Unix epoch.
    #[inline]
    pub(crate) fn now_micros(self) -> u64 {
        match self {
            #[cfg(target_os = "linux")]
            Self::Coarse => {
                let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
                (now.tv_sec as u64).wrapping_mul(1_000_000).wrapping_add(now.tv_nsec as u64 / 1_000)
            }
            _ => crate::types::Timestamp::now().as_micros(),
        }
    }
}
