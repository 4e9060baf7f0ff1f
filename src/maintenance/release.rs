//! Releases the space of files that have lost their names.
//!
//! A file system frees a long file all at once when it is last closed, and commits wait for that:
//! 10 to 30 ms for 64 MiB. So the remover of a name also shortens the file piece by piece, if no
//! reader can still use it. (RocksDB does the same: `bytes_max_delete_chunk`.)

use std::io;
use std::sync::Arc;

use super::throttle::Throttle;
use crate::disk::{Disk, DiskFile};
use crate::format::SegmentHeader;
use crate::sabotage::{Sabotage, broken};
use crate::segment::{DIR, open_own};

/// Number of write-sized pieces freed at once: freeing is faster than writing.
const PIECES: u64 = 4;

/// Maximum number of files held at a time: a process may be limited to about a thousand open files.
const FILES_MAX: usize = 32;

/// Files that are losing their names.
#[derive(Default)]
pub(crate) struct Nameless {
    files: Vec<Arc<dyn DiskFile>>,
}

impl Nameless {
    /// Holds the file of a segment that is about to lose its name. A file that cannot be held is
    /// freed by the system at once.
    pub(super) fn hold(&mut self, disk: &dyn Disk, header: &SegmentHeader) {
        // Each file held is open twice meanwhile; the system frees those beyond the limit at once.
        if self.files.len() < FILES_MAX
            && let Ok(file) = open_own(disk, header)
        {
            self.files.push(file);
        }
    }

    /// Lets go of all files: after a failed sync of their directory a power cut may bring any of
    /// the names back, and each must name a whole file (F46).
    pub(super) fn let_go(&mut self) {
        if !broken(Sabotage::ShortenEarly) {
            self.files.clear();
        }
    }

    /// Shortens the files without readers, until `is_over` returns true. Files with readers are
    /// freed by the last one to close them, and those that cannot be shortened by the system at
    /// once.
    ///
    /// # Errors
    ///
    /// When their directory cannot be synced, or a file cannot be shortened.
    pub(crate) fn give_back(
        self,
        disk: &dyn Disk,
        mut pace: Throttle,
        is_over: &dyn Fn() -> bool,
    ) -> io::Result<()> {
        // A name that a power cut brings back must name a whole file.
        if !self.files.is_empty() && !broken(Sabotage::ShortenEarly) {
            disk.sync_dir(DIR)?;
        }
        let is_free =
            |file: &Arc<dyn DiskFile>| broken(Sabotage::ShortenShared) || file.is_forsaken();
        for file in self.files.into_iter().filter(is_free) {
            let mut bytes = file.len()?;
            while bytes > 0 && !is_over() {
                bytes = bytes.saturating_sub(PIECES * pace.piece_bytes() as u64);
                file.set_len(bytes)?;
                pace.rest();
            }
        }
        Ok(())
    }
}
