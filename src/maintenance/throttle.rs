//! Pace of writing whole files. Without concurrent commits, maintenance writes as fast as the disk.
//! Beside commits it writes in pieces, syncs each, and rests as long as the piece took. The sync of
//! a commit then waits for one small piece at most, and half of the time for none.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::catalog::Catalog;
use crate::disk::{Disk, DiskFile, write_all_at};
use crate::sync::rest;

/// Length of a piece beside commits: a device writes it in about the time of a small sync.
const PIECE_BYTES: usize = 256 << 10;
/// Length of a piece without concurrent commits: about as fast as longer ones, and a new commit
/// waits for one only.
const PIECE_BYTES_ALONE: usize = 1 << 20;
/// Upper bound of a rest, whatever held up the last piece.
const REST_MAX: Duration = Duration::from_millis(20);

/// Pacer that detects concurrent commits and rests between pieces.
pub(crate) struct Throttle {
    catalog: Arc<Catalog>,
    may_rest: bool,
    /// Visible watermark at the last look.
    seen: u64,
    rested: Instant,
    beside_commits: bool,
}

impl Throttle {
    /// Creates a throttle for work beside the commits to this log.
    pub(crate) fn new(catalog: &Arc<Catalog>, disk: &dyn Disk) -> Self {
        Self {
            catalog: Arc::clone(catalog),
            may_rest: disk.allows_threads(),
            seen: catalog.watermark().visible,
            rested: Instant::now(),
            beside_commits: true,
        }
    }

    /// Returns the number of bytes to write at once.
    pub(super) fn piece_bytes(&self) -> usize {
        if self.beside_commits { PIECE_BYTES } else { PIECE_BYTES_ALONE }
    }

    /// Writes the bytes. The part after the last whole piece is not synced.
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

    /// Leaves the disk and the processor to concurrent commits, if any, for as long as the last
    /// piece took.
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
