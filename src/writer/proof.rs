//! Commits that ask for proof ([`crate::Log::sync`], compactions): they hold nothing, and settle
//! once the disk shows that everything before them was acknowledged.

use std::sync::Arc;

use super::Writer;
use crate::commit::Pending;
use crate::disk::{IoResultExt, copy_at};
use crate::error::Result;
use crate::format::{Ending, tail_record};

impl Writer {
    /// Settles commits that ask for proof: from then on, no later open can miss what was
    /// acknowledged before.
    pub(super) fn prove(&mut self, group: &[Arc<Pending>]) {
        let rolls = group.iter().any(|pending| pending.rolls && pending.failed().is_none());
        let rolled = if rolls { self.roll_empty() } else { Ok(()) };
        let proven = rolled.and_then(|()| match self.wrote {
            true => self.sync_tail_record(),
            false => self.sync_found(),
        });
        let proven =
            proven.and_then(|()| self.check_names(true)).and_then(|()| self.check_synced());
        let proven = proven.map_err(|error| self.reported(error));
        for pending in group.iter().filter(|pending| pending.proof) {
            pending.settle(proven.clone().map(|()| self.empty_commit(pending.durability)));
        }
    }

    /// Rewrites and syncs the tail record that opening found: its writer may have died before the
    /// sync.
    fn sync_found(&mut self) -> Result<()> {
        let Some(active) = &mut self.active else { return Ok(()) };
        active.unsynced = true;
        let segment = Arc::clone(&active.segment);
        let offset = active.offset;
        let file = &*active.file;
        let found = offset..offset + tail_record::BYTES as u64;
        copy_at(file, found, file, offset).at("write tail record", || segment.place(offset))?;
        self.sync()
    }

    fn sync_tail_record(&mut self) -> Result<()> {
        self.sync()?;
        self.note_synced();
        self.context.catalog.raise(self.mark);
        let Some(active) = &mut self.active else { return Ok(()) };
        active.unsynced = true;
        let segment = Arc::clone(&active.segment);
        let offset = active.offset;
        self.write_tail_record(Ending::Settled)
            .at("write tail record", || segment.place(offset))?;
        self.sync()
    }
}
