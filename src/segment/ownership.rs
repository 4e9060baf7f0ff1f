//! Checks that this process still owns its log (F41).
//!
//! A lock belongs to a file and a descriptor leads to a file, but other processes go by names. If
//! `LOCK` is removed or replaced, another writer may get in; if the directory or the active segment
//! is, commits are lost. The writer therefore compares the names with the files that it holds,
//! every few groups of commits and before it creates, replaces or removes a file. A lost log stays
//! lost.

use std::sync::OnceLock;

use super::files::{LOCK, path, place_of};
use super::set::SegmentSet;
use crate::disk::{Disk, DiskFile, HeldLock, Identity, IoResultExt, process_id};
use crate::error::{Error, ErrorKind, Result};

/// Files that a writer holds, shared with the threads that work for it.
#[derive(Debug, Default)]
pub(crate) struct Ownership {
    /// Identity of the locked file; unset until the log is on disk.
    lock: OnceLock<Identity>,
    /// Id of the process that locked it.
    process: OnceLock<u32>,
    lost: OnceLock<Error>,
}

impl Ownership {
    /// Records the identity of the locked file.
    pub(crate) fn begin(&self, lock: &HeldLock) {
        let _ = self.lock.set(lock.identity);
        let _ = self.process.set(process_id());
    }

    /// Returns the reason why the log is lost, once it is.
    pub(crate) fn lost(&self) -> Option<&Error> {
        self.lost.get()
    }

    /// Fails if another file has the name of the lock, or of the active segment at `path`.
    pub(crate) fn check(&self, disk: &dyn Disk, path: &str, active: &dyn DiskFile) -> Result<()> {
        self.check_not_lost()?;
        if found_at(disk, path)? != Some(active.identity()) {
            return Err(self.lose(ErrorKind::DirectoryLost, path));
        }
        if found_at(disk, LOCK)? != self.lock.get().copied() {
            return Err(self.lose(ErrorKind::LockLost, LOCK));
        }
        Ok(())
    }

    /// Checks the last segment of a log like [`Ownership::check`]. A log that is not on disk yet
    /// has nothing to lose.
    pub(crate) fn check_last(&self, disk: &dyn Disk, segments: &SegmentSet) -> Result<()> {
        if self.process.get().is_some_and(|process| *process != process_id()) {
            return Err(Error::new(ErrorKind::OtherProcess, "write"));
        }
        let last = segments.iter().next_back();
        // Commits go to the last segment, so its file is held.
        match last.map(|last| last.held_file().map(|file| (last.number(), file))) {
            Some(Some((number, file))) => self.check(disk, &path(number), &*file),
            _ => self.check_not_lost(),
        }
    }

    /// Checks the active file alone, at half the cost of [`Ownership::check`]: fails once the file
    /// has no name, as after `rm -r`.
    pub(crate) fn check_file(&self, path: &str, active: &dyn DiskFile) -> Result<()> {
        self.check_not_lost()?;
        if active.links().at("write", || place_of(path))? == 0 {
            return Err(self.lose(ErrorKind::DirectoryLost, path));
        }
        Ok(())
    }

    fn check_not_lost(&self) -> Result<()> {
        self.lost().map_or(Ok(()), |error| Err(error.clone()))
    }

    fn lose(&self, kind: ErrorKind, path: &str) -> Error {
        self.lost.get_or_init(|| Error::new(kind, "write").at(place_of(path))).clone()
    }
}

fn found_at(disk: &dyn Disk, path: &str) -> Result<Option<Identity>> {
    disk.identity_at(path).at("write", || place_of(path))
}
