//! Sealing: writes the footer and the trailer of a segment.

use std::io::IoSlice;
use std::sync::Arc;

use super::file::Segment;
use super::pool::FilePool;
use super::sealed::Sealed;
use crate::disk::{IoResultExt, write_all_at};
use crate::error::Result;
use crate::format::{COMMITS_AT, CommitPlace, FooterEntry, Trailer, encode_footer};
use crate::index::StreamBatches;

impl Segment {
    /// Writes footer and trailer after `end`, the end of the last commit, cuts the file there, and
    /// syncs it. Bytes before `end` stay as they are.
    pub(crate) fn seal(&self, pool: &FilePool, end: u64, last_position: u64) -> Result<()> {
        let trailer = Trailer {
            log_id: self.header.log_id,
            number: self.number(),
            is_sparse: false,
            first_position: self.first_position,
            last_position,
            footer_at: end,
            times: self.commits.times(),
            salt: self.header.salt,
        };
        let bytes = encode_footer(&self.footer_entries(), &self.footer_places(end), &trailer);
        let here = || self.place(end);
        let file = self.file_to_write(pool)?;
        write_all_at(&*file, &mut [IoSlice::new(&bytes)], end).at("seal", here)?;
        let file_bytes = end.saturating_add(bytes.len() as u64);
        file.set_len(file_bytes).at("seal", here)?;
        file.sync_data().at("seal", here)?;
        let found = Sealed::find(&self.header, pool, &*file, || self.path()).at("seal", here)?;
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

    /// Returns the places of the first commits of the blocks, for a segment whose commits end at
    /// `end`.
    fn footer_places(&self, end: u64) -> Vec<CommitPlace> {
        let first = CommitPlace { position: self.first_position, offset: COMMITS_AT };
        (end > COMMITS_AT).then_some(first).into_iter().chain(self.commits.places()).collect()
    }

    /// Returns the entries of a segment that is not sealed, as its footer will list them; none of a
    /// sealed one.
    pub(crate) fn footer_entries(&self) -> Vec<FooterEntry> {
        let Some(chain) = self.active.load_full() else {
            return Vec::new();
        };
        let mut firsts = self.firsts.lock().clone();
        firsts.sort_unstable();
        let mut entries = Vec::new();
        for (stream, first, generation) in firsts {
            let list = StreamBatches::Active { chain: Arc::clone(&chain), first, last: u32::MAX };
            let mut at = list.first();
            while let Some(cursor) = at {
                entries.extend(list.get(cursor).map(|batch| FooterEntry {
                    stream: *stream.as_bytes(),
                    kind: batch.kind,
                    first_seq: batch.first_seq,
                    count: batch.count,
                    offset: batch.offset,
                    position: 0,
                    generation,
                }));
                at = list.next(cursor);
            }
        }
        // Every commit has a batch, and no position is missing.
        let mut commits: Vec<u64> = entries.iter().map(|entry| entry.offset).collect();
        commits.sort_unstable();
        commits.dedup();
        for entry in &mut entries {
            let commit = commits.partition_point(|offset| *offset < entry.offset);
            entry.position = self.first_position.saturating_add(commit as u64);
        }
        entries
    }
}
