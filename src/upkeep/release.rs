//! Giving back the space of files that have lost their names.
//!
//! A file system frees a long file all at once, when the last who has it open lets go of it, and what is committed in
//! that moment waits: 10 to 30 ms for 64 MiB. So whoever takes a name away goes on to shorten the file, piece by piece,
//! if nobody else can read it any more. (RocksDB does so too: `bytes_max_delete_chunk`.)

use std::collections::BTreeSet;
use std::sync::Arc;

use super::pace::Pace;
use crate::disk::{Disk, DiskFile};
use crate::sabotage::{Sabotage, broken};

/// In pieces of the length in which files are written, so much is given back at once: to free is quicker.
const PIECES: u64 = 4;

/// So many are held at a time: a program may not open many more than a thousand.
const FILES_MAX: usize = 32;

/// Files that are losing their names.
#[derive(Default)]
pub(crate) struct Nameless {
    files: Vec<Arc<dyn DiskFile>>,
    dirs: BTreeSet<String>,
}

impl Nameless {
    /// Holds a file whose name is about to go. One that cannot be held is freed in the system's own way.
    pub(super) fn hold(&mut self, disk: &dyn Disk, path: &str) {
        // So many files are open twice for as long as it takes; the others go in the system's own way.
        if self.files.len() < FILES_MAX
            && let Ok(file) = disk.open_write(path)
        {
            self.files.push(file);
            self.dirs.insert(path.rfind('/').map_or("", |at| &path[..at]).to_owned());
        }
    }

    /// Shortens those that nobody reads, until it `is_over`. The others are freed when whoever reads them is done.
    pub(crate) fn give_back(self, disk: &dyn Disk, mut pace: Pace, is_over: &dyn Fn() -> bool) {
        // A name that a power cut brings back is to be that of a whole file.
        let stays = |dir: &String| !broken(Sabotage::ShortenEarly) && disk.sync_dir(dir).is_err();
        if self.dirs.iter().any(stays) {
            return;
        }
        let is_free =
            |file: &Arc<dyn DiskFile>| broken(Sabotage::ShortenShared) || file.is_forsaken();
        for file in self.files.into_iter().filter(is_free) {
            let mut bytes = file.len().unwrap_or(0);
            while bytes > 0 && !is_over() {
                bytes = bytes.saturating_sub(PIECES * pace.piece_bytes() as u64);
                if file.set_len(bytes).is_err() {
                    break;
                }
                pace.rest();
            }
        }
    }
}
