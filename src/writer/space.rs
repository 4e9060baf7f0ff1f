//! Where a group goes: the active segment, the next one, or the first one of a log that is not on disk yet.

use std::sync::Arc;

use super::keeper::Full;
use super::{Active, Writer};
use crate::disk::{Lock, write_zeros_at};
use crate::error::{Error, ErrorKind, Place, Result};
use crate::format::{COMMITS_AT, Ending, decode_witness, is_zero, witness};
use crate::sabotage::{Sabotage, broken};
use crate::segment::{DIR, LOCK, NUMBER_MAX, Segment, Spare, Zero, place, segment_bytes};

/// So much is made ready at first where a file was not written ahead: a process that commits once and ends should not
/// pay for more.
const ZERO_BYTES_FIRST: u64 = 32 << 10;
/// And so much at a time in the end, each time twice as much: a device writes it in about the time of a small sync.
const ZERO_BYTES_MAX: u64 = 256 << 10;

/// How far zeros were written over whatever a file had.
pub(crate) struct Zeroed {
    to: u64,
    /// So much more the next time.
    next_bytes: u64,
}

impl Zeroed {
    /// In a file of zeros, or one of which nobody knows.
    pub(crate) const ALL: Self = Self::up_to(u64::MAX);
    /// In a file that was only made long, or that was cut.
    pub(crate) const NONE: Self = Self::up_to(0);

    const fn up_to(to: u64) -> Self {
        Self { to, next_bytes: ZERO_BYTES_FIRST }
    }
}

impl Active {
    /// Lets so many bytes of commits, and some that will follow, overwrite zeros: to give a file more blocks costs a
    /// sync as much again. They are synced with whatever is synced next. It starts with the bytes that are needed now: if
    /// there is no room for more, there is for them. Of a group that is long the blocks come with its own bytes.
    fn zero_ahead(&mut self, bytes: u64) {
        let end = self.offset + bytes + witness::BYTES as u64;
        if end <= self.zeroed.to {
            return;
        }
        // Not over the witness that stands here: behind a clean close it is all that excuses a short file.
        let from = self.zeroed.to.max(self.offset + witness::BYTES as u64);
        self.zeroed.to = end;
        if bytes <= ZERO_BYTES_MAX {
            let reserved = self.segment.header.reserved_bytes;
            let to = (end + self.zeroed.next_bytes).min(reserved).max(end);
            // If it fails, the write of the group itself will say so.
            let _ = write_zeros_at(&*self.segment.file, from, to);
            self.zeroed.to = to;
            self.zeroed.next_bytes = ZERO_BYTES_MAX.min(self.zeroed.next_bytes * 2);
        }
    }
}

impl Writer {
    /// Makes sure that `bytes` of commits fit in the active segment; rolls to the next one if not.
    pub(super) fn place_for(&mut self, bytes: u64) -> Result<()> {
        let Some(active) = &mut self.active else {
            self.establish()?;
            return self.roll_to(1, bytes);
        };
        let segment = Arc::clone(&active.segment);
        let reserved = segment.header.reserved_bytes;
        if active.offset + bytes + witness::BYTES as u64 > reserved {
            if active.offset == COMMITS_AT {
                // It is the first in here, and an earlier one that was to be failed: made to fit, as below.
                let bytes = COMMITS_AT + bytes + witness::BYTES as u64;
                let failed = |error| segment.io_error("reserve", bytes, error);
                segment.file.set_len(bytes).map_err(failed)?;
                active.is_reserved = true;
                return segment.file.sync_data().map_err(failed).inspect_err(|error| {
                    self.poisoned = Some(error.clone());
                });
            }
            let number = segment.number() + 1;
            if number > NUMBER_MAX {
                return Err(Error::new(ErrorKind::StorageFull, "roll"));
            }
            // A segment gets its first byte only after the one before it is durable.
            if !broken(Sabotage::RollUnsynced) {
                self.sync()?;
                self.note_synced();
            }
            return self.roll_to(number, bytes);
        }
        if !active.is_reserved {
            // The log was closed cleanly and this file cut; from now on a short file means damage, so
            // the length has to be durable before the clean witness is overwritten.
            let failed = |error| segment.io_error("reserve", reserved, error);
            segment.file.set_len(reserved).map_err(failed)?;
            active.is_reserved = true;
            active.zero_ahead(bytes);
            if broken(Sabotage::SkipReserveSync) {
                return Ok(());
            }
            return segment.file.sync_data().map_err(failed).inspect_err(|error| {
                self.poisoned = Some(error.clone());
            });
        }
        active.zero_ahead(bytes);
        Ok(())
    }

    /// Everything that was written is synced: says so on disk, and lets go of the segment before.
    pub(super) fn note_synced(&mut self) {
        self.mark.durable = self.mark.visible;
        if self.full.is_some() && self.active.as_ref().is_some_and(Active::has_commits) {
            let _ = self.write_witness(self.ending());
            self.seal_full();
        }
    }

    /// The first commit of a log: its directories, its lock, and their names, all durable.
    fn establish(&mut self) -> Result<()> {
        if self.lock.is_some() {
            return Ok(());
        }
        let disk = &*self.ground.disk;
        let place = |path: &str| Place { path: path.into(), segment: None, offset: None };
        let failed = |path: &str| {
            let place = place(path);
            move |error| Error::io("create", place, error)
        };
        let refused = |kind, path| Err(Error::new(kind, "create").at(place(path)));
        disk.create_root().map_err(failed(""))?;
        let lock = match disk.lock(LOCK).map_err(failed(LOCK))? {
            Lock::Held(lock) => lock,
            Lock::Busy(holder) => return refused(ErrorKind::Locked { holder }, LOCK),
        };
        disk.create_dir(DIR).map_err(failed(DIR))?;
        let names = disk.list(DIR).map_err(failed(DIR))?;
        if names.iter().any(|name| name.to_str().is_some_and(|name| name.ends_with(".seg"))) {
            // Another process made a log here since this one was opened.
            return refused(ErrorKind::NotThisLog, DIR);
        }
        disk.sync_dir("").map_err(failed(""))?;
        self.lock = Some(lock);
        Ok(())
    }

    /// Makes the segment of this number the active one, with room for `bytes` of commits.
    fn roll_to(&mut self, number: u32, bytes: u64) -> Result<()> {
        let needed = COMMITS_AT + bytes + witness::BYTES as u64;
        let disk = &*self.ground.disk;
        let failed = |error| Error::io("create", place(number, 0), error);
        let mut zeroed = Zeroed::ALL;
        let spare = match self.ready.take().or_else(|| self.keeper.take_spare(number)) {
            Some(small) if small.header.reserved_bytes < needed => {
                // Made to fit: a file may be longer than its header says.
                if let Err(error) = small.file.set_len(needed) {
                    self.ready = Some(small);
                    return Err(failed(error));
                }
                zeroed = Zeroed::up_to(small.header.reserved_bytes);
                small
            }
            Some(spare) => spare,
            None => {
                let usual = segment_bytes(&self.ground.options, number);
                let zero = if needed > usual { Zero::Unwritten } else { Zero::Written };
                if needed > usual {
                    zeroed = Zeroed::NONE;
                }
                let bytes = needed.max(usual).next_multiple_of(4096);
                Spare::create(disk, self.log_id, number, bytes, zero).map_err(failed)?
            }
        };
        let first_position = self.mark.visible + 1;
        let segment = Arc::new(Segment::active(spare.header, first_position, spare.file));
        self.ground.catalog.add_segment(&segment);
        let (offset, unsynced, is_reserved) = (COMMITS_AT, false, true);
        let mut fresh = Active { segment, offset, unsynced, is_reserved, zeroed };
        fresh.zero_ahead(bytes);
        if let Some(old) = self.active.replace(fresh) {
            let last_position = self.mark.visible;
            self.full = Some(Full { segment: old.segment, end: old.offset, last_position });
            if broken(Sabotage::SealEarly)
                && let Some(full) = self.full.take()
            {
                self.keeper.seal(full);
            }
        }
        Ok(())
    }

    /// Lets the keeper make the next segment once this one has begun to fill.
    pub(super) fn keep_ahead(&mut self) {
        let Some(active) = &self.active else { return };
        let number = active.segment.number() + 1;
        let (used, reserved) = (active.offset, active.segment.header.reserved_bytes);
        let begun = used >= reserved / 4;
        if begun && self.ready.is_none() && number <= NUMBER_MAX {
            self.keeper.ask_spare(number, self.log_id, used, reserved);
        }
    }

    /// After a failed write: makes sure that nothing of it can ever be taken for a commit.
    pub(super) fn scrub(&mut self, segment: &Segment, from: u64, to: u64) {
        if broken(Sabotage::SkipScrub) {
            return;
        }
        let unless_full = |result: std::io::Result<()>| match result {
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => Ok(()),
            result => result,
        };
        // The witness first, where it stood: it is never missing, and may be all that tells at which position the
        // segment starts.
        let witnessed = unless_full(self.write_witness(Ending::Open));
        // On a full disk what could not be overwritten was not written either, unless the file system
        // writes elsewhere what it overwrites: so it is looked at.
        let zeroed = match write_zeros_at(&*segment.file, from + witness::BYTES as u64, to) {
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                let length = segment.file.len().map_or(to, |length| length.min(to));
                let left = segment.read(from..length.max(from), 0, length.max(from));
                let window = left.as_ref().ok().and_then(|window| window.get(from..length));
                let harmless = |left: &[u8]| match decode_witness(left, segment.header.salt) {
                    Some(_) => is_zero(&left[witness::BYTES..]),
                    None => is_zero(left),
                };
                if length <= from || window.is_some_and(harmless) { Ok(()) } else { Err(error) }
            }
            result => result,
        };
        if let Err(error) = witnessed.and(zeroed).and_then(|()| segment.file.sync_data()) {
            self.poisoned = Some(segment.io_error("scrub", from, error));
        }
    }
}
