//! The real disk: std files, gathered positional writes, OS locks, private modes, mappings.

use std::any::Any;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags, RawMode};

use super::dirs::{self, Root};
use super::process::process_id;
use super::{Disk, DiskFile, Identity, LockGuard, Pin, Pinned, clock};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::types::Timestamp;

/// Maximum number of slices of one `pwritev` on Linux and macOS (`IOV_MAX`).
const SLICES_MAX: usize = 1024;

/// Directory of the file system, held open.
#[derive(Debug)]
pub(crate) struct RealDisk {
    root: Root,
    dir_mode: u32,
    file_mode: u32,
}

impl RealDisk {
    /// Opens the log's directory, or its nearest existing parent. With `shared`, the group and
    /// others may read the files created in it, as far as the umask permits.
    pub(crate) fn new(root: &Path, shared: bool) -> io::Result<Self> {
        let (dir_mode, file_mode) = if shared { (0o755, 0o644) } else { (0o700, 0o600) };
        Ok(Self { root: Root::open(root)?, dir_mode, file_mode })
    }

    /// Returns the directory of a plain file and the file's name in it, or `None` if the file does
    /// not exist.
    pub(crate) fn of_file(path: &Path) -> Option<(Self, String)> {
        let is_link = fs::symlink_metadata(path).ok()?.is_symlink();
        let path = if is_link { &*fs::canonicalize(path).ok()? } else { path };
        let name = path.file_name()?.to_str()?.to_owned();
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let is_file = fs::metadata(path).is_ok_and(|found| found.is_file());
        let disk = Self::new(dir.unwrap_or(Path::new(".")), false).ok()?;
        is_file.then_some((disk, name))
    }

    /// Opens the log's directory for files with the permissions of `dir` in it.
    pub(crate) fn alike(root: &Path, dir: &str) -> io::Result<Self> {
        let root = Root::open(root)?;
        let mode = match root.split(dir).and_then(|(dir, name)| Ok(dirs::look(dir, name)?)) {
            Ok(found) => dirs::permissions(&found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0o700,
            Err(error) => return Err(error),
        };
        Ok(Self { root, dir_mode: mode, file_mode: mode & 0o666 })
    }

    fn mode(&self) -> Mode {
        Mode::from_raw_mode(self.file_mode as RawMode)
    }

    /// Creates a file; fails if the name exists, even as a link.
    fn create_file(&self, path: &str, access: OFlags) -> io::Result<File> {
        let (dir, name) = self.root.split(path)?;
        let flags = access | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(dir, name, flags, self.mode())?))
    }

    /// Opens a plain file. Anything else is [`io::ErrorKind::InvalidInput`] and is not opened:
    /// opening a pipe would wait for its other end.
    fn open_file(&self, path: &str, access: OFlags) -> io::Result<RealFile> {
        let (dir, name) = self.root.split(path)?;
        match dirs::kind(&dirs::look(&dir, name)?) {
            found if found.is_file() => {}
            found if found.is_symlink() => return Err(dirs::link_error()),
            _ => return Err(not_plain()),
        }
        let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?);
        let found = still_named(&file)?;
        if !found.is_file() {
            return Err(not_plain());
        }
        Ok(RealFile::new(file, &found))
    }

    /// Creates a file that shares its blocks with another, where the file system supports it.
    #[cfg(target_os = "linux")]
    fn clone_blocks(&self, from: &str, to: &Self, path: &str) -> io::Result<()> {
        let source = self.open_file(from, OFlags::RDONLY)?;
        let file = to.create_file(path, OFlags::WRONLY)?;
        rustix::fs::ioctl_ficlone(&file, &source.file).map_err(|error| {
            let _ = to.remove(path);
            error.into()
        })
    }

    #[cfg(not(target_os = "linux"))]
    fn clone_blocks(&self, _: &str, _: &Self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

fn not_plain() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a plain file")
}

impl Disk for RealDisk {
    fn create_root(&self) -> io::Result<()> {
        self.root.make(self.dir_mode)
    }

    fn root_exists(&self) -> io::Result<bool> {
        Ok(self.root.get().is_some())
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        let (dir, name) = self.root.split(path)?;
        match rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(self.dir_mode as RawMode)) {
            Err(rustix::io::Errno::EXIST) if dirs::kind(&dirs::look(&dir, name)?).is_dir() => {
                Ok(())
            }
            result => Ok(result?),
        }
    }

    fn remove_dir(&self, path: &str) -> io::Result<()> {
        let (dir, name) = self.root.split(path)?;
        Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
    }

    fn list(&self, path: &str) -> io::Result<Vec<OsString>> {
        dirs::names(self.root.enter(path)?)
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.create_file(path, OFlags::RDWR)?;
        let found = file.metadata()?;
        Ok(Arc::new(RealFile::new(file, &found)))
    }

    fn open_read(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(self.open_file(path, OFlags::RDONLY)?))
    }

    fn open_write(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(self.open_file(path, OFlags::RDWR)?))
    }

    fn identity_at(&self, path: &str) -> io::Result<Option<Identity>> {
        let Some(root) = self.root.get() else { return Ok(None) };
        match dirs::look(root, path) {
            Ok(found) => Ok(Some(dirs::identity(&found))),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from_dir, from) = self.root.split(from)?;
        let (to_dir, to) = self.root.split(to)?;
        dirs::rename_new((&from_dir, from), (&to_dir, to))
    }

    fn replace(&self, from: &str, to: &str) -> io::Result<()> {
        let (from_dir, from) = self.root.split(from)?;
        let (to_dir, to) = self.root.split(to)?;
        Ok(rustix::fs::renameat(from_dir, from, to_dir, to)?)
    }

    fn holds(&self, path: &Path) -> io::Result<bool> {
        let real = match fs::canonicalize(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            real => real?,
        };
        let is_file = fs::metadata(&real).is_ok_and(|found| !found.is_dir());
        let dir = real.parent().filter(|_| is_file).unwrap_or(&real);
        self.root.holds(&Root::open(dir)?)
    }

    fn beside(&self, root: &Path) -> io::Result<Arc<dyn Disk>> {
        Ok(Arc::new(Self { root: Root::open(root)?, ..*self }))
    }

    fn share(&self, from: &str, to: &dyn Disk, path: &str) -> io::Result<()> {
        let to: &Self = (to as &dyn Any).downcast_ref().ok_or(io::ErrorKind::Unsupported)?;
        if self.clone_blocks(from, to, path).is_ok() {
            return Ok(());
        }
        let (from_dir, from) = self.root.split(from)?;
        let (to_dir, path) = to.root.split(path)?;
        Ok(rustix::fs::linkat(from_dir, from, to_dir, path, AtFlags::empty())?)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let (dir, name) = self.root.split(path)?;
        Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?)
    }

    fn sync_dir(&self, path: &str) -> io::Result<()> {
        dirs::sync(self.root.enter(path)?.as_fd())
    }

    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn uptime(&self) -> Duration {
        clock::uptime()
    }

    fn check_file_bytes(&self, bytes: u64) -> io::Result<()> {
        check_limit(bytes).map(drop)
    }

    fn holder(&self) -> Option<u32> {
        Some(process_id())
    }

    fn open_files_max(&self) -> Option<u64> {
        rustix::process::getrlimit(rustix::process::Resource::Nofile).current
    }
}

/// Lock that is released explicitly: closing the file would leave it to forks of this process,
/// which have the same file open. A fork itself releases nothing, because the lock belongs to its
/// parent.
struct FileLock {
    file: Arc<RealFile>,
    process: u32,
}

impl Drop for FileLock {
    fn drop(&mut self) {
        if self.process == process_id() {
            let _ = self.file.file.unlock();
        }
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
    identity: Identity,
    /// File length last known to be permitted; 0 before the first check.
    bytes_max: AtomicU64,
}

impl RealFile {
    fn new(file: File, found: &fs::Metadata) -> Self {
        let identity = Identity { device: found.dev(), inode: found.ino() };
        Self { file, identity, bytes_max: AtomicU64::new(0) }
    }

    /// Fails if a write or an extension up to `bytes` would make the kernel send `SIGXFSZ`, which
    /// ends the process.
    ///
    /// Reads the limit with the first write to an open file, with each write beyond the last known
    /// limit, and with each extension. A refusal is not kept: a raised limit counts at once. A
    /// lowered limit counts from the next segment, which is checked when it is created, extended
    /// and begun, and from the next opening of the log; until then the current segment may still be
    /// written up to the last known limit.
    fn check_bytes(&self, bytes: u64, ask: Ask) -> io::Result<()> {
        if ask == Ask::BeyondKnown && bytes <= self.bytes_max.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.bytes_max.store(check_limit(bytes)?, Ordering::Relaxed);
        Ok(())
    }
}

/// Time at which the limit on the length of files is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ask {
    Always,
    /// Only for lengths beyond the last known limit.
    BeyondKnown,
}

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(bytes, offset)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        self.check_bytes(offset.saturating_add(bytes as u64), Ask::BeyondKnown)?;
        match slices {
            [slice] => self.file.write_at(slice, offset),
            many => {
                let many = &many[..many.len().min(SLICES_MAX)];
                Ok(rustix::io::pwritev(&self.file, many, offset)?)
            }
        }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        if bytes > self.len()? {
            self.check_bytes(bytes, Ask::Always)?;
        }
        self.file.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn map(&self) -> io::Result<Pin> {
        if self.file.metadata()?.len() == 0 {
            return Ok(Pin::default());
        }
        // SAFETY: only sealed segments are mapped. This crate never writes to them again, and
        // shortens only files without other handles or mappings. `docs/format.md` forbids other
        // programs to change them while a log is open.
        #[expect(unsafe_code, reason = "a mapping is only as stable as its file")]
        let map = unsafe { memmap2::Mmap::map(&self.file)? };
        Ok(Arc::new(Pinned::Map(map)))
    }

    fn identity(&self) -> Identity {
        self.identity
    }

    fn links(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.nlink())
    }

    fn lock(self: Arc<Self>) -> io::Result<Option<LockGuard>> {
        match self.file.try_lock() {
            Ok(()) => Ok(Some(LockGuard::new(FileLock { file: self, process: process_id() }))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn is_forsaken(&self) -> bool {
        still_named(&self.file).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
            && is_only_here(&self.file)
    }
}

/// Returns the maximum length that this process may give a file (`RLIMIT_FSIZE`), or `u64::MAX`
/// without a limit. Fails with [`io::ErrorKind::FileTooLarge`] if `bytes` exceeds it.
fn check_limit(bytes: u64) -> io::Result<u64> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
    let limit = limit.unwrap_or(u64::MAX);
    if bytes <= limit {
        return Ok(limit);
    }
    let what = format!(
        "files of this process are limited to {limit} bytes (RLIMIT_FSIZE); {bytes} are needed"
    );
    Err(io::Error::new(io::ErrorKind::FileTooLarge, what))
}

/// Returns the metadata of an open file. Fails with `NotFound` if it lost its name since it was
/// opened: its remover may already have found no other handle.
fn still_named(file: &File) -> io::Result<fs::Metadata> {
    let found = file.metadata()?;
    if found.nlink() == 0 { Err(io::ErrorKind::NotFound.into()) } else { Ok(found) }
}

/// Returns true if no other handle or mapping of the file exists, in any process: only then does
/// the kernel grant a write lease (`fcntl`, `F_SETLEASE`). The lease is returned at once. Returns
/// false on file systems that other machines may access.
#[cfg(target_os = "linux")]
fn is_only_here(file: &File) -> bool {
    use std::os::fd::AsRawFd;

    /// Command that selects the signal for a broken lease, from `asm-generic/fcntl.h`.
    const F_SETSIG: libc::c_int = 10;
    /// ext2 to ext4, XFS, Btrfs, F2FS.
    const LOCAL: [u32; 4] = [0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010];
    let is_local =
        rustix::fs::fstatfs(file).is_ok_and(|found| LOCAL.contains(&(found.f_type as _)));
    let set = |command, value: libc::c_int| {
        // SAFETY: none of these commands takes a pointer.
        #[expect(unsafe_code, reason = "there is no safe way to ask for a lease")]
        let result = unsafe { libc::fcntl(file.as_raw_fd(), command, value) };
        result == 0
    };
    // An open in this moment breaks the lease, which raises a signal: choose one that is ignored by
    // default.
    is_local
        && set(F_SETSIG, libc::SIGURG)
        && set(libc::F_SETLEASE, libc::F_WRLCK)
        && set(libc::F_SETLEASE, libc::F_UNLCK)
}

#[cfg(not(target_os = "linux"))]
fn is_only_here(_: &File) -> bool {
    false
}
