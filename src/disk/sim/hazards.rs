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

pub(super) const PAGE: usize = 4096;
/// Error number of a failing device.
const EIO: i32 = 5;

/// Hazards by file id.
#[derive(Clone, Debug, Default)]
pub(super) struct Hazards {
    bad_pages: BTreeMap<u64, Vec<usize>>,
    /// Files that another program shortens right before a call: name and new length.
    pub(super) shrinks: BTreeMap<u64, (String, u64)>,
    /// Number of files mapped so far.
    pub(super) maps: u64,
    /// Set with the first hazard; until then mapped reads are not checked.
    any: Arc<OnceLock<()>>,
}

impl Hazards {
    pub(super) fn bad(&self, id: u64) -> &[usize] {
        self.bad_pages.get(&id).map_or(&[], Vec::as_slice)
    }

    /// Makes the pages that contain these bytes of a file unreadable.
    pub(super) fn set_unreadable(&mut self, id: u64, bytes: Range<u64>) {
        let bad = self.bad_pages.entry(id).or_default();
        bad.extend(bytes.start as usize / PAGE..(bytes.end as usize).div_ceil(PAGE));
        bad.sort_unstable();
        bad.dedup();
        let _ = self.any.set(());
    }

    /// Plans the shortening of a file right before a call.
    pub(super) fn plan_shrink(&mut self, call: u64, name: String, bytes: u64) {
        self.shrinks.insert(call, (name, bytes));
        let _ = self.any.set(());
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
