//! Directories that are held open, so that no path is looked up twice (P14, F41).
//!
//! A path changes its target when the process changes its working directory, or when another
//! directory takes its place. A descriptor does not: every file of a log is looked up from the
//! directory that was opened. Symbolic links below it are not followed (F42). A log that does not
//! exist yet holds its nearest existing parent directory.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawMode, Stat};
use rustix::io::Errno;

use super::Identity;

const OPEN_DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Directory of one log.
#[derive(Debug)]
pub(super) struct Root {
    /// Set once the directory exists.
    dir: OnceLock<OwnedFd>,
    /// Nearest parent that existed when the log was opened, and the path from there. `None` if the
    /// log's own directory existed.
    above: Option<(OwnedFd, PathBuf)>,
    /// Set when a created directory, whose name may not be durable, could not be removed again.
    doubtful: OnceLock<()>,
}

/// The log's own directory, or a directory in it.
pub(super) enum Dir<'a> {
    Root(BorrowedFd<'a>),
    Inner(OwnedFd),
}

impl AsFd for Dir<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Root(dir) => dir.as_fd(),
            Self::Inner(dir) => dir.as_fd(),
        }
    }
}

impl Root {
    /// Opens the directory at `path`, or its nearest existing parent. Follows links on the way.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if path.as_os_str().is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        for dir in path.ancestors() {
            let name = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
            match rustix::fs::openat(CWD, name, OPEN_DIR, Mode::empty()) {
                Ok(held) if dir == path => {
                    return Ok(Self { dir: held.into(), above: None, doubtful: OnceLock::new() });
                }
                Ok(held) => {
                    let rest = path.strip_prefix(dir).unwrap_or(path).to_owned();
                    return Ok(Self {
                        dir: OnceLock::new(),
                        above: Some((held, rest)),
                        doubtful: OnceLock::new(),
                    });
                }
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// Returns the log's own directory, if it exists.
    pub(super) fn get(&self) -> Option<BorrowedFd<'_>> {
        self.dir.get().map(AsFd::as_fd)
    }

    /// Creates the directory and its missing parents, with durable names.
    ///
    /// Removes the created directories again if it fails: a name whose sync failed must be created
    /// again; a later successful sync does not prove it durable (F46).
    pub(super) fn make(&self, mode: u32) -> io::Result<()> {
        if self.doubtful.get().is_some() {
            return Err(io::Error::other("an earlier sync of the parent directory failed"));
        }
        let Some((above, rest)) = self.above.as_ref().filter(|_| self.dir.get().is_none()) else {
            return sync_above(self.dir()?);
        };
        let mut made = Vec::new();
        let result = make_dirs(above.as_fd(), rest, mode, &mut made);
        match result {
            Ok(dir) => drop(self.dir.set(dir)),
            Err(error) => {
                let remove = |(dir, name): &(OwnedFd, OsString)| {
                    rustix::fs::unlinkat(dir, name.as_os_str(), AtFlags::REMOVEDIR).is_ok()
                };
                if !made.iter().rev().all(remove) {
                    let _ = self.doubtful.set(());
                }
                return Err(error);
            }
        }
        // These directories existed before, so a failure here does not concern this log.
        let _ = sync_above(above.as_fd());
        Ok(())
    }

    /// Returns true if the other directory is this one or lies in it, or would if it existed.
    pub(super) fn holds(&self, other: &Self) -> io::Result<bool> {
        let nearest = other.get().or(other.above.as_ref().map(|(above, _)| above.as_fd()));
        match (self.get(), nearest, &self.above, &other.above) {
            (Some(root), Some(inner), ..) => is_at_or_above(root, inner),
            (None, _, Some((above, rest)), Some((beside, path))) => {
                Ok(is_same(above.as_fd(), beside.as_fd())? && path.starts_with(rest))
            }
            _ => Ok(false),
        }
    }

    fn dir(&self) -> io::Result<BorrowedFd<'_>> {
        self.get().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Opens a directory of the log; `""` is the log's own.
    pub(super) fn enter(&self, path: &str) -> io::Result<Dir<'_>> {
        let mut dir = Dir::Root(self.dir()?);
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let flags = OPEN_DIR | OFlags::NOFOLLOW;
            let opened = rustix::fs::openat(&dir, name, flags, Mode::empty());
            let is_link =
                |dir: &Dir<'_>| look(dir, name).is_ok_and(|found| kind(&found).is_symlink());
            dir = match opened {
                Err(Errno::NOTDIR | Errno::LOOP) if is_link(&dir) => return Err(link_error()),
                result => Dir::Inner(result?),
            };
        }
        Ok(dir)
    }

    /// Returns the parent directory of a path, and the last part of the path.
    pub(super) fn split<'p>(&self, path: &'p str) -> io::Result<(Dir<'_>, &'p str)> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.enter(dir)?, name))
    }
}

/// Creates the directories of `rest`, each name durable before the next is created, and returns the
/// last of them.
fn make_dirs(
    above: BorrowedFd<'_>,
    rest: &Path,
    mode: u32,
    made: &mut Vec<(OwnedFd, OsString)>,
) -> io::Result<OwnedFd> {
    let mut dir = above.try_clone_to_owned()?;
    for part in rest.components() {
        if let Component::Normal(name) = part {
            match rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(mode as RawMode)) {
                Ok(()) => made.push((dir.try_clone()?, name.to_owned())),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            sync(dir.as_fd())?;
        }
        dir = rustix::fs::openat(&dir, part.as_os_str(), OPEN_DIR, Mode::empty())?;
    }
    Ok(dir)
}

/// Makes the names of a directory and of its parents durable: an earlier attempt may have created
/// them and ended before its sync. A parent without read permission was not created by it.
fn sync_above(dir: BorrowedFd<'_>) -> io::Result<()> {
    let mut below = dir.try_clone_to_owned()?;
    let mut is_first = true;
    loop {
        let synced = rustix::fs::openat(&below, "..", OPEN_DIR, Mode::empty())
            .map_err(io::Error::from)
            .and_then(|above| sync(above.as_fd()).map(|()| above));
        let above = match synced {
            Ok(above) => above,
            Err(error) if is_first && error.kind() != io::ErrorKind::PermissionDenied => {
                return Err(error);
            }
            Err(_) => return Ok(()),
        };
        if is_same(below.as_fd(), above.as_fd())? {
            return Ok(());
        }
        below = above;
        is_first = false;
    }
}

#[allow(clippy::unnecessary_cast, reason = "other systems have other widths")]
pub(super) fn identity(found: &Stat) -> Identity {
    Identity { device: found.st_dev as u64, inode: found.st_ino as u64 }
}

fn is_same(dir: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(identity(&rustix::fs::fstat(dir)?) == identity(&rustix::fs::fstat(other)?))
}

/// Returns true if `dir` is `inner` or one of its parents.
fn is_at_or_above(dir: BorrowedFd<'_>, inner: BorrowedFd<'_>) -> io::Result<bool> {
    let wanted = identity(&rustix::fs::fstat(dir)?);
    let mut path = String::from(".");
    let mut at = identity(&rustix::fs::fstat(inner)?);
    while at != wanted {
        path.push_str("/..");
        let above = identity(&rustix::fs::statat(inner, path.as_str(), AtFlags::empty())?);
        if above == at {
            return Ok(false);
        }
        at = above;
    }
    Ok(true)
}

/// Makes the names in a directory durable.
pub(super) fn sync(dir: BorrowedFd<'_>) -> io::Result<()> {
    #[cfg(target_vendor = "apple")]
    let sync = || rustix::fs::fcntl_fullfsync(dir);
    #[cfg(not(target_vendor = "apple"))]
    let sync = || rustix::fs::fsync(dir);
    Ok(rustix::io::retry_on_intr(sync)?)
}

/// Returns the metadata of a name. Does not follow a link.
pub(super) fn look(dir: impl AsFd, name: &str) -> rustix::io::Result<Stat> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}

pub(super) fn kind(found: &Stat) -> FileType {
    FileType::from_raw_mode(found.st_mode)
}

pub(super) fn link_error() -> io::Error {
    let text = "symbolic links inside a log's directory are not followed";
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

#[allow(clippy::unnecessary_cast, reason = "other systems have other widths")]
pub(super) fn permissions(found: &Stat) -> u32 {
    found.st_mode as u32 & 0o777
}

/// Returns the names in a directory, in no order.
pub(super) fn names(dir: Dir<'_>) -> io::Result<Vec<OsString>> {
    let entries = match dir {
        Dir::Root(dir) => rustix::fs::Dir::read_from(dir)?,
        Dir::Inner(dir) => rustix::fs::Dir::new(dir)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

/// Renames within the log; fails if the new name exists.
pub(super) fn rename_new(
    (from_dir, from): (&Dir<'_>, &str),
    (to_dir, to): (&Dir<'_>, &str),
) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    {
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(from_dir, from, to_dir, to, flags) {
            // Some file systems do not support `NOREPLACE`.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            result => return Ok(result?),
        }
    }
    match look(to_dir, to) {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => Ok(rustix::fs::renameat(from_dir, from, to_dir, to)?),
    }
}
