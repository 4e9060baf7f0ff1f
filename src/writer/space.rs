//! Where a group goes: the active segment, the next one, or the first one of a log that is not on disk yet.

use std::sync::Arc;

use super::keeper::{Full, Spare};
use super::{Active, Writer};
use crate::disk::{Lock, write_zeros_at};
use crate::error::{Error, ErrorKind, Place, Result};
use crate::format::{COMMITS_AT, SegmentHeader, witness};
use crate::segment::{DIR, LOCK, Segment, Zero, create_file, path, place, salt, segment_bytes};
use crate::types::Timestamp;

/// The last segment number that can be.
const NUMBER_MAX: u32 = u32::MAX - 1;

/// A segment that is ready for its first group.
pub(super) struct Next {
    pub(super) segment: Arc<Segment>,
}

impl Writer {
    /// Makes sure that `bytes` of commits have a place. `Some`: they open this segment.
    pub(super) fn place_for(&mut self, bytes: u64) -> Result<Option<Next>> {
        let Some(active) = &mut self.active else {
            self.establish()?;
            return self.next_segment(1, bytes).map(Some);
        };
        let segment = Arc::clone(&active.segment);
        let reserved = segment.header.reserved_bytes;
        if active.offset + bytes + witness::BYTES as u64 > reserved {
            let number = segment.number() + 1;
            if number > NUMBER_MAX {
                return Err(Error::new(ErrorKind::StorageFull, "roll"));
            }
            // A segment gets its first byte only after the one before it is durable.
            self.sync()?;
            return self.next_segment(number, bytes).map(Some);
        }
        if !active.is_reserved {
            // The log was closed cleanly and this file cut; from now on a short file means damage, so
            // the length has to be durable before the clean witness is overwritten.
            let failed = |error| segment.io_error("reserve", reserved, error);
            segment.file.set_len(reserved).map_err(failed)?;
            segment.file.sync_data().map_err(failed)?;
            active.is_reserved = true;
        }
        Ok(None)
    }

    /// The first commit of a log: its directories, its lock, and their names, all durable.
    fn establish(&mut self) -> Result<()> {
        if self.lock.is_some() {
            return Ok(());
        }
        let disk = &*self.ground.disk;
        let failed = |path: &str| {
            let place = Place {
                path: path.into(),
                segment: None,
                offset: None,
            };
            move |error| Error::io("create", place, error)
        };
        disk.create_root().map_err(failed(""))?;
        let lock = match disk.lock(LOCK).map_err(failed(LOCK))? {
            Lock::Held(lock) => lock,
            Lock::Busy(holder) => return Err(Error::new(ErrorKind::Locked { holder }, "create")),
        };
        disk.create_dir(DIR).map_err(failed(DIR))?;
        let names = disk.list(DIR).map_err(failed(DIR))?;
        if names
            .iter()
            .any(|name| name.to_str().is_some_and(|name| name.ends_with(".seg")))
        {
            // Another process made a log here since this one was opened.
            return Err(Error::new(ErrorKind::NotThisLog, "create"));
        }
        disk.sync_dir("").map_err(failed(""))?;
        self.lock = Some(lock);
        Ok(())
    }

    /// A segment of this number with room for `bytes` of commits, its file durable by name.
    fn next_segment(&mut self, number: u32, bytes: u64) -> Result<Next> {
        let needed = COMMITS_AT + bytes + witness::BYTES as u64;
        let spare = match self.ready.take() {
            Some(spare) => Some(spare),
            None => self.keeper.take_spare(number),
        };
        let spare = match spare {
            Some(spare) if spare.number == number => spare,
            _ => {
                let usual = segment_bytes(&self.ground.options, number);
                let zero = if needed > usual {
                    Zero::Unwritten
                } else {
                    Zero::Written
                };
                let bytes = needed.max(usual).next_multiple_of(4096);
                let file = create_file(&*self.ground.disk, number, bytes, zero)
                    .map_err(|error| Error::io("create", place(number, 0), error))?;
                Spare {
                    number,
                    bytes,
                    file,
                }
            }
        };
        let mut reserved = spare.bytes;
        if needed > reserved {
            reserved = needed.next_multiple_of(4096);
            if let Err(error) = spare.file.set_len(reserved) {
                self.ready = Some(spare);
                return Err(Error::io("reserve", place(number, reserved), error));
            }
        }
        let header = SegmentHeader {
            log_id: self.log_id,
            number,
            first_position: self.mark.visible + 1,
            reserved_bytes: reserved,
            created_micros: Timestamp::now().as_micros(),
            salt: salt(),
        };
        Ok(Next {
            segment: Arc::new(Segment::active(header, spare.file)),
        })
    }

    /// The first group of a new segment was written: the old one is full.
    pub(super) fn roll_to(&mut self, next: Next) {
        self.ground.catalog.add_segment(Arc::clone(&next.segment));
        let fresh = Active {
            segment: next.segment,
            offset: COMMITS_AT,
            unsynced: true,
            is_reserved: true,
        };
        if let Some(old) = self.active.replace(fresh) {
            let last_position = self.mark.visible;
            self.full = Some(Full {
                segment: old.segment,
                end: old.offset,
                last_position,
            });
        }
    }

    /// Lets the keeper make the next segment once this one has begun to fill.
    pub(super) fn keep_ahead(&mut self) {
        let Some(active) = &self.active else { return };
        let number = active.segment.number() + 1;
        let begun = active.offset >= active.segment.header.reserved_bytes / 4;
        if begun && self.ready.is_none() && number <= NUMBER_MAX {
            self.keeper.ask_spare(number);
        }
    }

    /// After a failed write: makes sure that nothing of it can ever be taken for a commit.
    pub(super) fn scrub(&mut self, segment: &Segment, from: u64, to: u64) {
        let zeroed = match write_zeros_at(&*segment.file, from, to) {
            // What could not be overwritten could not have been written either, piece after piece.
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => Ok(()),
            result => result,
        };
        if let Err(error) = zeroed.and_then(|()| segment.file.sync_data()) {
            self.poisoned = Some(segment.io_error("scrub", from, error));
        }
    }
}

impl Spare {
    /// The file of a segment whose first group could not be written.
    pub(super) fn of(next: Next) -> Self {
        let header = next.segment.header;
        let file = Arc::clone(&next.segment.file);
        Self {
            number: header.number,
            bytes: header.reserved_bytes,
            file,
        }
    }

    /// Gives the space back; a spare that cannot be removed is swept at the next opening.
    pub(super) fn remove(&self, disk: &dyn crate::disk::Disk) {
        let _ = disk.remove(&path(self.number));
    }
}
