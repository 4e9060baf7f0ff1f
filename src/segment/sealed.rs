//! Seal of a segment, which is immutable from then on: its properties, and how a file shows them.

use std::io;

use super::pool::FilePool;
use crate::disk::DiskFile;
use crate::format::{COMMITS_AT, SegmentHeader, SegmentTimes, Trailer, decode_trailer, trailer};

/// Properties of a sealed segment, from its trailer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sealed {
    pub(crate) first_position: u64,
    pub(crate) last_position: u64,
    pub(crate) footer_at: u64,
    pub(super) times: SegmentTimes,
    /// Length of the file, in bytes.
    pub(crate) file_bytes: u64,
}

impl Sealed {
    pub(super) fn new(end: &Trailer, file_bytes: u64) -> Self {
        Self {
            first_position: end.first_position,
            last_position: end.last_position,
            footer_at: end.footer_at,
            times: end.times,
            file_bytes,
        }
    }

    /// Reports whether these are the last bytes of the file.
    pub(super) fn is_end_of(&self, last: &[u8], header: &SegmentHeader) -> bool {
        Self::of(header, last, self.file_bytes) == Some(*self)
    }

    /// Decodes the last bytes of a file; `None` if it is not sealed or its trailer is damaged. The
    /// index in front of them is verified when it is read.
    pub(crate) fn of(header: &SegmentHeader, last: &[u8], file_bytes: u64) -> Option<Self> {
        let at = file_bytes.checked_sub(trailer::BYTES as u64)?;
        let end = decode_trailer(last, header)?;
        (COMMITS_AT..=at).contains(&end.footer_at).then(|| Self::new(&end, file_bytes))
    }

    /// Decodes the seal at the end of a file, if it has one.
    pub(crate) fn find(
        header: &SegmentHeader,
        pool: &FilePool,
        file: &dyn DiskFile,
        path: impl FnOnce() -> String,
    ) -> io::Result<Option<Self>> {
        let bytes = file.len()?;
        let Some(at) = bytes.checked_sub(trailer::BYTES as u64) else { return Ok(None) };
        let mut last = [0; trailer::BYTES];
        let (read, _) = pool.read(file, path, &mut last, at)?;
        Ok(Self::of(header, &last[..read], bytes))
    }
}
