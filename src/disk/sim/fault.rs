//! Faults that can be injected into the calls of a simulated disk.

use std::io;

/// Failure of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// The call fails; a write may have written all, a part, or nothing.
    Io,
    /// A write or a sync takes full effect but reports an error. Any other call merely fails.
    DoneAndFailed,
    /// A sync fails and forgets the data that it should have written: the cache may still show it,
    /// and later syncs succeed without it (Rebello et al., "Can Applications Recover from fsync
    /// Failures?", ATC 2020). A directory forgets its changed names. Any other call merely fails.
    LostSync,
    /// The machine stops: this call and all later ones fail and change nothing.
    Crash,
    /// A read or a write is interrupted before it did anything, and must be repeated.
    Interrupted,
    /// A read or a write transfers only a part.
    Short,
    /// The disk is full from now on (`ENOSPC`), until its
    /// [capacity](super::SimDisk::set_capacity) is set.
    Full,
    /// Like [`Fault::Full`], reported as an exceeded quota (`EDQUOT`).
    OverQuota,
    /// Like [`Fault::Full`], reported as an exceeded file length (`EFBIG`).
    FileTooLarge,
}

impl Fault {
    /// Returns the error of the call, if the fault means that the disk has no space.
    pub(super) fn no_space(self) -> Option<io::ErrorKind> {
        match self {
            Self::Full => Some(io::ErrorKind::StorageFull),
            Self::OverQuota => Some(io::ErrorKind::QuotaExceeded),
            Self::FileTooLarge => Some(io::ErrorKind::FileTooLarge),
            _ => None,
        }
    }
}
