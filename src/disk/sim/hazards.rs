//! Unreadable sectors, and files that shrink: hazards that a process must not meet through a
//! mapping.
//!
//! A read fails by the page, as on a real machine, even if only one of its sectors is unreadable. A
//! write over a whole page makes it readable again; a write over a part of it fails, because the
//! rest has to be read first. A mapped read of such a page panics here, where it would raise a
//! signal.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::world::World;
use super::{SimDisk, SimFile};

const PAGE: usize = 4096;
/// Error number of a failing device.
const EIO: i32 = 5;

/// Hazards by file id.
#[derive(Clone, Debug, Default)]
pub(super) struct Hazards {
    bad_pages: BTreeMap<u64, Vec<usize>>,
    /// Files that another program shortens right before a call: name and new length.
    shrinks: BTreeMap<u64, (String, u64)>,
    /// Number of files mapped so far.
    maps: u64,
    /// Set with the first hazard; until then mapped reads are not checked.
    any: Arc<OnceLock<()>>,
}

impl Hazards {
    fn bad(&self, id: u64) -> &[usize] {
        self.bad_pages.get(&id).map_or(&[], Vec::as_slice)
    }

    /// Counts a mapping. Returns the flag that tells it to check its reads.
    pub(super) fn note_map(&mut self) -> Arc<OnceLock<()>> {
        self.maps += 1;
        Arc::clone(&self.any)
    }

    /// Returns the number of bytes, of at most `most`, that can be read at `offset`.
    pub(super) fn readable(&self, id: u64, offset: usize, most: usize) -> io::Result<usize> {
        let next = self.bad(id).iter().find(|page| (**page + 1) * PAGE > offset);
        match next.map(|page| (page * PAGE).saturating_sub(offset)) {
            Some(0) if most > 0 => Err(io::Error::from_raw_os_error(EIO)),
            Some(before) => Ok(most.min(before)),
            None => Ok(most),
        }
    }

    /// Applies a write of these bytes to the unreadable pages.
    pub(super) fn write(&mut self, id: u64, bytes: Range<usize>) -> io::Result<()> {
        let Some(bad) = self.bad_pages.get_mut(&id) else { return Ok(()) };
        let touched = |page: &usize| page * PAGE < bytes.end && (page + 1) * PAGE > bytes.start;
        let covered = |page: &usize| page * PAGE >= bytes.start && (page + 1) * PAGE <= bytes.end;
        if bad.iter().any(|page| touched(page) && !covered(page)) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        bad.retain(|page| !touched(page));
        Ok(())
    }

    /// Forgets unreadable pages beyond the new length of a file.
    pub(super) fn cut(&mut self, id: u64, bytes: usize) {
        if let Some(bad) = self.bad_pages.get_mut(&id) {
            bad.retain(|page| page * PAGE < bytes);
        }
    }
}

impl World {
    /// Shortens the file that is due before this call.
    pub(super) fn shrink_at(&mut self, call: u64) {
        let Some((name, bytes)) = self.hazards.shrinks.remove(&call) else { return };
        let Some(Some(id)) = self.names.get(&name).copied() else { return };
        if let Ok(file) = self.file_mut(id)
            && file.cache.len() as u64 > bytes
        {
            file.set_len(bytes as usize);
            file.sync();
        }
    }
}

impl SimFile {
    /// Checks a mapped read of these bytes.
    ///
    /// # Panics
    ///
    /// Panics if a real process would receive a signal: a page of the range is unreadable, or the
    /// file has become shorter.
    pub(crate) fn check_mapped(&self, range: Range<usize>) {
        let world = self.disk.world();
        let bytes = world.files.get(&self.id).map_or(0, |file| file.cache.len());
        let pages = range.start / PAGE..range.end.div_ceil(PAGE).max(range.start / PAGE);
        let is_bad = world.hazards.bad(self.id).iter().any(|page| pages.contains(page));
        let is_cut = !range.is_empty() && pages.end > bytes.div_ceil(PAGE);
        drop(world);
        assert!(
            !is_bad && !is_cut,
            "SIGBUS: a mapped read of bytes {range:?} of a file of {bytes}"
        );
    }
}

/// Hazards that a program cannot prevent.
impl SimDisk {
    /// Makes the pages that contain these bytes unreadable: reads of them fail (`EIO`), and mapped
    /// reads panic.
    pub fn set_unreadable(&self, path: &str, bytes: Range<u64>) {
        let mut world = self.world();
        let Ok(path) = self.at(&world, path) else { return };
        let Some(Some(id)) = world.names.get(&path).copied() else { return };
        let pages = bytes.start as usize / PAGE..(bytes.end as usize).div_ceil(PAGE);
        let bad = world.hazards.bad_pages.entry(id).or_default();
        bad.extend(pages);
        bad.sort_unstable();
        bad.dedup();
        let _ = world.hazards.any.set(());
    }

    /// Makes another program shorten a file right before the call of this number.
    pub fn shrink_at(&self, call: u64, path: &str, bytes: u64) {
        let mut world = self.world();
        let Ok(path) = self.at(&world, path) else { return };
        world.hazards.shrinks.insert(call, (path, bytes));
        let _ = world.hazards.any.set(());
    }

    /// Number of files mapped so far.
    #[must_use]
    pub fn maps(&self) -> u64 {
        self.world().hazards.maps
    }
}
