//! Bytes that keep their address while a reader holds them: a mapping or a buffer.
//!
//! Access is by range, so that the simulated disk sees which bytes are read: reading a mapped byte
//! that the disk cannot read raises a signal on a real machine (`SIGBUS`), and panics in the
//! simulation.

use std::ops::Range;
use std::sync::Arc;

#[cfg(feature = "sim")]
use super::sim::SimFile;

/// Shared handle that keeps the bytes at their address.
pub(crate) type Pin = Arc<Pinned>;

/// A mapping, or a buffer.
pub(crate) enum Pinned {
    Map(memmap2::Mmap),
    Buffer(Vec<u8>),
    /// Bytes of a simulated file, and a handle that keeps the file open.
    #[cfg(feature = "sim")]
    Simulated {
        bytes: Arc<Vec<u8>>,
        file: Box<SimFile>,
        /// Set once a mapped read can fail.
        hazards: Arc<std::sync::OnceLock<()>>,
    },
}

impl Pinned {
    /// Number of bytes.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.all().len()
    }

    /// Returns the bytes at `range`, or `None` if the range is not complete.
    #[inline]
    pub(crate) fn get(&self, range: Range<usize>) -> Option<&[u8]> {
        #[cfg(feature = "sim")]
        if let Self::Simulated { file, hazards, .. } = self
            && hazards.get().is_some()
        {
            file.check_mapped(range.clone());
        }
        self.all().get(range)
    }

    /// Returns true if these are the bytes of a whole file, in place.
    pub(crate) fn is_mapping(&self) -> bool {
        !matches!(self, Self::Buffer(_))
    }

    /// Returns the buffer for reuse, or `None` for a mapping.
    pub(crate) fn buffer(&mut self) -> Option<&mut Vec<u8>> {
        match self {
            Self::Buffer(buffer) => Some(buffer),
            _ => None,
        }
    }

    /// Asks the processor to fetch bytes that are about to be read, without waiting. Fetches only
    /// the first lines of each page, because finding the page is what takes time: the processor
    /// predicts the lines after them.
    pub(crate) fn prefetch(&self, range: Range<usize>) {
        const LINES_AT_ONCE: usize = 4;
        let bytes = self.all();
        let end = range.end.min(bytes.len());
        let bytes = bytes.get(range.start..end).unwrap_or_default();
        let mut rest = bytes;
        while !rest.is_empty() {
            let page = 4096 - rest.as_ptr() as usize % 4096;
            let (here, next) = rest.split_at(page.min(rest.len()));
            here.chunks(64).take(LINES_AT_ONCE).for_each(prefetch_line);
            rest = next;
        }
        bytes.rchunks(64).take(1).for_each(prefetch_line);
    }

    /// Prefetches every line. For ranges of which only a few bytes are read, each at an address
    /// that the previous byte determines.
    pub(crate) fn prefetch_all(&self, range: Range<usize>) {
        self.all().get(range).unwrap_or_default().chunks(64).for_each(prefetch_line);
    }

    #[inline]
    fn all(&self) -> &[u8] {
        match self {
            Self::Map(map) => map,
            Self::Buffer(buffer) => buffer,
            #[cfg(feature = "sim")]
            Self::Simulated { bytes, .. } => bytes,
        }
    }
}

impl Default for Pinned {
    fn default() -> Self {
        Self::Buffer(Vec::new())
    }
}

#[cfg(target_arch = "x86_64")]
fn prefetch_line(line: &[u8]) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch of any address is not an access; this address lies inside a slice.
    #[expect(unsafe_code, reason = "there is no safe way to say it")]
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn prefetch_line(_: &[u8]) {}
