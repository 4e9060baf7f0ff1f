//! The pace at which upkeep writes whole files: that of the disk while nobody commits; beside commits in pieces, each
//! synced by itself and followed by a rest as long as it took. So the sync of a commit waits for one small piece at
//! most, and half of the time for none.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::catalog::Catalog;
use crate::disk::{Disk, DiskFile, write_all_at};
use crate::sync::rest;

/// A piece beside commits: a device writes it in about the time of a small sync.
const PIECE_BYTES: usize = 256 << 10;
/// A piece while nobody commits: about as fast as longer ones, and whoever comes then waits for one.
const PIECE_BYTES_ALONE: usize = 1 << 20;
/// No rest is longer, whatever held the last piece up.
const REST_MAX: Duration = Duration::from_millis(20);

/// Knows whether commits go on, and since when no rest was taken.
pub(crate) struct Pace {
    catalog: Arc<Catalog>,
    may_rest: bool,
    /// Up to where commits were visible when it was last looked.
    seen: u64,
    rested: Instant,
    beside_commits: bool,
}

impl Pace {
    /// Beside the commits to this log.
    pub(crate) fn new(catalog: &Arc<Catalog>, disk: &dyn Disk) -> Self {
        Self {
            catalog: Arc::clone(catalog),
            may_rest: disk.allows_threads(),
            seen: catalog.watermark().visible,
            rested: Instant::now(),
            beside_commits: true,
        }
    }

    /// What is worth to be written at once.
    pub(super) fn piece_bytes(&self) -> usize {
        if self.beside_commits { PIECE_BYTES } else { PIECE_BYTES_ALONE }
    }

    /// Writes these bytes. What is left of them behind the last whole piece is not synced.
    pub(super) fn write(
        &mut self,
        file: &dyn DiskFile,
        bytes: &[u8],
        mut offset: u64,
    ) -> io::Result<()> {
        let mut left = bytes;
        while !left.is_empty() {
            let (piece, behind) = left.split_at(self.piece_bytes().min(left.len()));
            write_all_at(file, &mut [IoSlice::new(piece)], offset)?;
            if piece.len() == self.piece_bytes() {
                file.sync_data()?;
                self.rest();
            }
            offset += piece.len() as u64;
            left = behind;
        }
        Ok(())
    }

    /// Leaves the disk and the processor to the commits, if there are any, for as long as they were shared.
    pub(super) fn rest(&mut self) {
        let visible = self.catalog.watermark().visible;
        self.beside_commits = visible != self.seen;
        self.seen = visible;
        if self.beside_commits && self.may_rest {
            rest(self.rested.elapsed().min(REST_MAX));
        }
        self.rested = Instant::now();
    }
}
