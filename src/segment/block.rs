//! First and last bytes of a segment file: its header, and the trailer that names it as well.

use super::{FilePool, Sealed};
use crate::disk::DiskFile;
use crate::format::{
    HeaderError, SegmentHeader, decode_header, header, header_of_trailer, trailer,
};

/// First and last bytes of a file, which identify it.
pub(crate) struct Block {
    pub(crate) front: Vec<u8>,
    last: [u8; trailer::BYTES],
    pub(crate) file_bytes: u64,
    /// True if the disk could not read all of these bytes.
    pub(crate) is_unread: bool,
}

impl Block {
    pub(crate) fn read(
        files: &FilePool,
        file: &dyn DiskFile,
        path: &dyn Fn() -> String,
    ) -> std::io::Result<Self> {
        let file_bytes = file.len()?;
        let mut front = vec![0; file_bytes.min(header::BLOCK_BYTES as u64) as usize];
        let (read, unread) = files.read(file, path, &mut front, 0)?;
        front.truncate(read);
        let mut is_unread = unread.is_some();
        let mut last = [0; trailer::BYTES];
        if let Some(at) = file_bytes.checked_sub(trailer::BYTES as u64) {
            let (_, unread) = files.read(file, path, &mut last, at)?;
            is_unread |= unread.is_some();
        }
        Ok(Self { front, last, file_bytes, is_unread })
    }

    /// Returns the header, and true if both copies are whole. The trailer of a sealed segment
    /// replaces a damaged header, provided that it fits its file.
    pub(crate) fn header(&self) -> Result<(SegmentHeader, bool), HeaderError> {
        match decode_header(&self.front) {
            Err(error @ (HeaderError::Damaged | HeaderError::Blank)) => {
                let header = header_of_trailer(&self.last);
                let header = header.filter(|header| self.sealed(header).is_some());
                header.map(|header| (header, false)).ok_or(error)
            }
            found => found,
        }
    }

    /// Returns the trailer's content if the file is sealed.
    pub(crate) fn sealed(&self, header: &SegmentHeader) -> Option<Sealed> {
        Sealed::of(header, &self.last, self.file_bytes)
    }
}
