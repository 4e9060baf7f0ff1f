//! Sealed segments, which are immutable: sealing a segment and recognizing its seal.

use std::io::{self, IoSlice};
use std::sync::Arc;

use super::Segment;
use super::pool::FilePool;
use crate::disk::{DiskFile, write_all_at};
use crate::error::Result;
use crate::format::{
    COMMITS_AT, FooterEntry, SegmentHeader, SegmentTimes, Trailer, decode_trailer, encode_footer,
    trailer,
};
use crate::index::StreamBatches;

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
    fn new(end: &Trailer, file_bytes: u64) -> Self {
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

impl Segment {
    /// Writes footer and trailer behind `end`, the end of the last commit, cuts the file there, and
    /// syncs it. Bytes in front of `end` stay as they are.
    pub(crate) fn seal(&self, pool: &FilePool, end: u64, last_position: u64) -> Result<()> {
        let trailer = Trailer {
            log_id: self.header.log_id,
            number: self.number(),
            is_sparse: false,
            first_position: self.first_position,
            last_position,
            footer_at: end,
            times: self.times.get(),
            salt: self.header.salt,
        };
        let bytes = encode_footer(&self.footer_entries(), &trailer);
        let failed = |error| self.io_error("seal", end, error);
        let file = self.file_to_write(pool)?;
        write_all_at(&*file, &mut [IoSlice::new(&bytes)], end).map_err(failed)?;
        let file_bytes = end.saturating_add(bytes.len() as u64);
        file.set_len(file_bytes).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        let found = Sealed::find(&self.header, pool, &*file, || self.path()).map_err(failed)?;
        let sealed = Sealed::new(&trailer, file_bytes);
        if found != Some(sealed) {
            return Err(self.error("seal", end));
        }
        let _ = self.sealed.set(sealed);
        // Readers open the file from now on as that of any sealed segment.
        self.let_go();
        self.refs.clear();
        self.active.store(None);
        self.firsts.lock().clear();
        Ok(())
    }

    fn footer_entries(&self) -> Vec<FooterEntry> {
        let Some(chain) = self.active.load_full() else {
            return Vec::new();
        };
        let mut firsts = self.firsts.lock().clone();
        firsts.sort_unstable();
        let mut entries = Vec::new();
        for (stream, first) in firsts {
            let list = StreamBatches::Active { chain: Arc::clone(&chain), first, last: u32::MAX };
            let mut at = list.first();
            while let Some(cursor) = at {
                entries.extend(list.get(cursor).map(|batch| FooterEntry {
                    stream: *stream.as_bytes(),
                    first_seq: batch.first_seq,
                    count: batch.count,
                    offset: batch.offset,
                    kind: batch.kind,
                }));
                at = list.next(cursor);
            }
        }
        entries
    }
}
