//! Locks on files. The lock of a log counts only while its file has the name that other openers
//! look up.

use std::fmt;
use std::io::{self, IoSlice};
use std::sync::Arc;

use super::{Disk, DiskFile, Identity, read_at_most, write_all_at};

/// Maximum number of times that a lock file may be replaced while it is being locked.
const TRIES_MAX: usize = 16;
/// Maximum length of a process id with its line end.
const HOLDER_BYTES_MAX: usize = 16;

/// Outcome of an attempt to lock a log.
pub(crate) enum Lock {
    Held(HeldLock),
    /// Locked by another holder, with its process id if it wrote one.
    Busy(Option<u32>),
}

/// Lock on a file, held until it is dropped or the process dies.
pub(crate) struct LockGuard(#[expect(dead_code, reason = "held, not used")] Box<dyn Send + Sync>);

impl LockGuard {
    pub(super) fn new(held: impl Send + Sync + 'static) -> Self {
        Self(Box::new(held))
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LockGuard")
    }
}

/// Lock of a log.
pub(crate) struct HeldLock {
    _guard: LockGuard,
    /// Identity of the locked file. By now another file may have its name.
    pub(crate) identity: Identity,
}

/// Takes the lock on the file at `path` and creates the file if needed. Never waits.
///
/// The lock is on a file, but openers look up a name: so the two are compared after locking. A file
/// whose content is not that of a lock file is locked and left unchanged.
pub(crate) fn lock(disk: &dyn Disk, path: &str) -> io::Result<Lock> {
    for _ in 0..TRIES_MAX {
        let file = match disk.open_write(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match disk.create(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                file => file?,
            },
            file => file?,
        };
        let guard = Arc::clone(&file).lock()?;
        let identity = file.identity();
        if disk.identity_at(path)? != Some(identity) {
            continue;
        }
        let Some(_guard) = guard else { return Ok(Lock::Busy(holder(&*file)?)) };
        // Informational only, for people and for the next opener's message. A failure is ignored: a
        // log must open on a full disk, or none of it could be deleted.
        let _ = note_holder(disk, &*file);
        return Ok(Lock::Held(HeldLock { _guard, identity }));
    }
    Err(io::Error::other("the lock file was replaced on every attempt to lock it"))
}

fn text(file: &dyn DiskFile) -> io::Result<String> {
    let mut bytes = [0; HOLDER_BYTES_MAX];
    let length = read_at_most(file, &mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
}

fn holder(file: &dyn DiskFile) -> io::Result<Option<u32>> {
    Ok(text(file)?.trim_end().parse().ok())
}

fn note_holder(disk: &dyn Disk, file: &dyn DiskFile) -> io::Result<()> {
    let Some(process) = disk.holder() else { return Ok(()) };
    let before = text(file)?;
    if !before.is_empty() && before.trim_end().parse::<u32>().is_err() {
        return Ok(());
    }
    file.set_len(0)?;
    write_all_at(file, &mut [IoSlice::new(format!("{process}\n").as_bytes())], 0)
}
