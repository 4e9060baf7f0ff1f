//! Space for a group: in the active segment, the next one, or the first one of a new log.

use std::io;
use std::sync::Arc;

use super::rotation::Full;
use super::{Active, Writer};
use crate::commit::Pending;
use crate::disk::{Disk, IoResultExt, Lock, lock, read_exact_at, write_zeros_at};
use crate::error::{Error, ErrorKind, Place, Result, is_full};
use crate::format::{COMMITS_AT, Ending, Lsn, decode_tail_record, is_zero, tail_record};
use crate::sabotage::{Sabotage, broken};
use crate::segment::{
    DIR, FITTED_BYTES_MIN, LOCK, NUMBER_MAX, Segment, Spare, Zero, path, place, segment_bytes,
};

/// Size of the first zeroed range in a file that was not zeroed ahead, so that a process with a
/// single commit pays little.
const ZERO_BYTES_FIRST: u64 = 32 << 10;
/// Maximum size of a zeroed range; the size doubles up to it. A device writes this in about the
/// time of a small sync.
const ZERO_BYTES_MAX: u64 = 256 << 10;

/// Bytes that a commit with events leaves free in its segment unless the next segment exists: room
/// for about twenty deletes, so that a full disk can be emptied.
const KEPT_BYTES: u64 = 4096;

/// Returns the number of bytes to leave free after this group: zero for a group without events,
/// which may free space.
pub(super) fn kept_bytes(group: &[Arc<Pending>]) -> u64 {
    let holds_events = |pending: &Arc<Pending>| {
        pending.failed().is_none() && pending.parts().iter().any(|part| part.filled.count > 0)
    };
    let keeps = !broken(Sabotage::KeepNoRoom) && group.iter().any(holds_events);
    if keeps { KEPT_BYTES } else { 0 }
}

/// Extent of the zeros in a file.
pub(crate) struct Zeroed {
    to: u64,
    /// Size of the next range to be zeroed.
    next_bytes: u64,
}

impl Zeroed {
    /// Extent in a file that is all zeros, or of unknown content.
    pub(crate) const ALL: Self = Self::up_to(u64::MAX);
    /// Extent in a file that was only extended, or was truncated.
    pub(crate) const NONE: Self = Self::up_to(0);

    const fn up_to(to: u64) -> Self {
        Self { to, next_bytes: ZERO_BYTES_FIRST }
    }
}

impl Active {
    /// Zeroes the range of the next `bytes` of commits and some more, because allocating blocks
    /// doubles the cost of a sync. The next sync covers the zeros. The needed bytes come first: if
    /// the disk has no room for more, it may have room for them. A large group allocates its blocks
    /// by its own write. Fails if there is no room for the group, the tail record of a close, and
    /// `kept` bytes after them.
    fn zero_ahead(&mut self, bytes: u64, kept: u64) -> Result<()> {
        let end = self.offset + bytes + tail_record::BYTES as u64;
        let needed = end + kept;
        if needed <= self.zeroed.to {
            return Ok(());
        }
        // Keep the current tail record: after a clean close it alone explains a short file.
        let from = self.zeroed.to.max(self.offset + tail_record::BYTES as u64);
        let (from, to) = if bytes <= ZERO_BYTES_MAX {
            let reserved = self.segment.header.reserved_bytes;
            (from, (needed + self.zeroed.next_bytes).min(reserved).max(needed))
        } else {
            (from.max(end), needed)
        };
        let written = write_zeros_at(&*self.file, from, to);
        let written = written.map(|()| to).or_else(|error| {
            // The disk became full, either after the needed range or within it.
            if is_full(&error) {
                write_zeros_at(&*self.file, from, needed)?;
            }
            Ok(needed)
        });
        match written {
            Err(error) if is_full(&error) => {
                return Err(self.segment.io_error("reserve", needed, error));
            }
            // Any other failure shows up in the write of the group.
            written => self.zeroed.to = written.unwrap_or(end),
        }
        if bytes <= ZERO_BYTES_MAX {
            self.zeroed.next_bytes = ZERO_BYTES_MAX.min(self.zeroed.next_bytes * 2);
        }
        Ok(())
    }
}

/// Creates the segments directory. An empty one may remain from an attempt whose sync failed; it is
/// created again, because a later sync that succeeds proves nothing about a name that an earlier
/// one lost (F46).
fn make_segments_dir(disk: &dyn Disk) -> io::Result<()> {
    use io::ErrorKind::{AlreadyExists, DirectoryNotEmpty, NotFound, ResourceBusy};
    match disk.remove_dir(DIR) {
        // `ResourceBusy`: a file system is mounted there.
        Err(error)
            if ![NotFound, DirectoryNotEmpty, AlreadyExists, ResourceBusy]
                .contains(&error.kind()) =>
        {
            Err(error)
        }
        _ => disk.create_dir(DIR),
    }
}

impl Writer {
    /// Ensures that `bytes` of commits fit in the active segment, with `kept` bytes after them
    /// unless the next segment exists. Otherwise rolls to the next segment.
    pub(super) fn place_for(&mut self, bytes: u64, kept: u64) -> Result<()> {
        let kept = self.keep_room(bytes, kept)?;
        let Some(active) = &mut self.active else {
            self.establish()?;
            return self.roll_to(1, bytes, kept);
        };
        let reserved = active.segment.header.reserved_bytes;
        if active.offset + bytes + tail_record::BYTES as u64 > reserved {
            // Without commits it is the first group here; an earlier group that was to be the first
            // failed.
            return if active.has_commits() {
                self.roll(bytes, kept)
            } else {
                self.make_fit(bytes, kept)
            };
        }
        if !active.is_reserved {
            // A clean close truncated this file. From now on a short file means damage.
            return self.extend(reserved, bytes, kept);
        }
        active.zero_ahead(bytes, kept)
    }

    /// Rolls to the next segment. If the disk has no room for one, commits without events stay in
    /// this file.
    fn roll(&mut self, bytes: u64, kept: u64) -> Result<()> {
        let Some(active) = &self.active else { return Ok(()) };
        let number = active.segment.number() + 1;
        if number > NUMBER_MAX {
            return Err(Error::new(ErrorKind::StorageFull, "roll"));
        }
        // A segment is written only after the previous one is durable.
        if !broken(Sabotage::RollUnsynced) {
            self.sync()?;
            self.note_synced();
        }
        match self.roll_to(number, bytes, kept) {
            Err(error) if *error.kind() == ErrorKind::StorageFull && kept == 0 => {
                self.make_fit(bytes, kept)
            }
            rolled => rolled,
        }
    }

    /// Extends the active file beyond the size in its header, as far as these commits need.
    fn make_fit(&mut self, bytes: u64, kept: u64) -> Result<()> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let end = active.offset + bytes + tail_record::BYTES as u64 + kept;
        let failed = |error| active.segment.io_error("reserve", end, error);
        let length = active.file.len().map_err(failed)?.max(active.segment.header.reserved_bytes);
        active.zeroed.to = active.zeroed.to.min(length);
        self.extend(end.max(length), bytes, kept)
    }

    /// Gives the active file this length. The length must be durable before a clean tail record is
    /// overwritten.
    fn extend(&mut self, length: u64, bytes: u64, kept: u64) -> Result<()> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let segment = Arc::clone(&active.segment);
        let failed = |error| segment.io_error("reserve", length, error);
        active.file.set_len(length).map_err(failed)?;
        active.is_reserved = true;
        let zeroed = active.zero_ahead(bytes, kept);
        let synced = active.file.sync_data().map_err(failed);
        synced.inspect_err(|error| self.poisoned = Some(error.clone())).and(zeroed)
    }

    /// Returns the number of bytes that this group must leave free in the active segment: zero if
    /// the next segment exists. Creates that segment if too little space is left; if the disk has
    /// no room for it, the rest is kept for commits that may free space.
    fn keep_room(&mut self, bytes: u64, kept: u64) -> Result<u64> {
        let Some(active) = self.active.as_ref().filter(|_| kept > 0) else { return Ok(kept) };
        let reserved = active.segment.header.reserved_bytes;
        let number = active.segment.number() + 1;
        let end = active.offset + bytes + tail_record::BYTES as u64;
        if end > reserved || end + kept <= reserved || number > NUMBER_MAX {
            return Ok(kept);
        }
        if self.ready.is_none() {
            self.ready = self.take_spare(number)?;
        }
        if self.ready.is_none() {
            self.context.check_owned()?;
            let usual = segment_bytes(&self.context.options, number);
            let sizes = (usual, FITTED_BYTES_MIN.min(usual));
            let made =
                Spare::create(&*self.context.disk, self.log_id, number, sizes, Zero::Written);
            match made {
                Err(error) if is_full(&error) => {
                    return Err(Error::io("create", place(number, 0), error));
                }
                // The commit that needs it will report the error.
                made => self.ready = made.ok(),
            }
        }
        Ok(0)
    }

    /// Records that all writes are synced: writes the tail record, and releases the previous
    /// segment.
    pub(super) fn note_synced(&mut self) {
        self.mark.durable = self.mark.visible;
        if self.full.is_some() && self.active.as_ref().is_some_and(Active::has_commits) {
            self.hint();
            self.seal_full();
        }
    }

    /// Creates a log on disk for its first commit: directories, lock and their names, all durable.
    fn establish(&mut self) -> Result<()> {
        if self.lock.is_some() {
            return Ok(());
        }
        let disk = &*self.context.disk;
        let place = |path: &str| Place { path: path.into(), segment: None, offset: None };
        let failed = |path: &str| {
            let place = place(path);
            move |error| Error::io("create", place, error)
        };
        let refused = |kind, path| Err(Error::new(kind, "create").at(place(path)));
        let gone = |error: io::Error, path: &str| match disk.root_exists() {
            // It existed when the log was opened.
            Ok(true) if error.kind() == io::ErrorKind::NotFound => {
                Error::new(ErrorKind::DirectoryLost, "create").at(Place::root()).because(error)
            }
            _ => Error::io("create", place(path), error),
        };
        disk.create_root().map_err(|error| gone(error, ""))?;
        let lock = match lock(disk, LOCK).map_err(|error| gone(error, LOCK))? {
            Lock::Held(lock) => lock,
            Lock::Busy(holder) => return refused(ErrorKind::Locked { holder }, LOCK),
        };
        make_segments_dir(disk).map_err(failed(DIR))?;
        let names = disk.list(DIR).map_err(failed(DIR))?;
        if names.iter().any(|name| name.to_str().is_some_and(|name| name.ends_with(".seg"))) {
            // Another process has created a log here meanwhile.
            return refused(ErrorKind::NotThisLog, DIR);
        }
        disk.sync_dir("").map_err(failed("")).inspect_err(|error| {
            if disk.remove_dir(DIR).is_err() {
                // It cannot be created again, and its content could vanish with its name.
                self.poisoned = Some(error.clone());
            }
        })?;
        self.context.ownership.begin(&lock);
        self.lock = Some(lock);
        Ok(())
    }

    /// Makes segment `number` active, with room for `bytes` of commits and `kept` more bytes.
    fn roll_to(&mut self, number: u32, bytes: u64, kept: u64) -> Result<()> {
        let needed = COMMITS_AT + bytes + tail_record::BYTES as u64 + kept;
        if let Err(error) = self.context.check_owned() {
            self.poisoned = Some(error.clone()).filter(Error::is_loss);
            return Err(error);
        }
        let spare = self.take_spare(number)?;
        let disk = &*self.context.disk;
        let failed = |error| Error::io("create", place(number, 0), error);
        let mut zeroed = Zeroed::ALL;
        let spare = match spare {
            Some(small) if small.header.reserved_bytes < needed => {
                // Extend it: a file may be longer than its header says.
                if let Err(error) = small.file.set_len(needed) {
                    self.ready = Some(small);
                    return Err(failed(error));
                }
                zeroed = Zeroed::up_to(small.header.reserved_bytes);
                small
            }
            Some(spare) => {
                // The host may have lowered the limit since the spare was created.
                let checked = disk.check_file_bytes(spare.header.reserved_bytes);
                if let (Err(error), false) = (checked, broken(Sabotage::KeepLimit)) {
                    self.ready = Some(spare);
                    return Err(failed(error));
                }
                spare
            }
            None => {
                let usual = segment_bytes(&self.context.options, number);
                let zero = if needed > usual { Zero::Unwritten } else { Zero::Written };
                if needed > usual {
                    zeroed = Zeroed::NONE;
                }
                let least = needed.next_multiple_of(4096);
                let sizes = (least.max(usual.next_multiple_of(4096)), least);
                Spare::create(disk, self.log_id, number, sizes, zero).map_err(failed)?
            }
        };
        let first_position = self.mark.visible + 1;
        let Spare { header, file, lock } = spare;
        let segment = Arc::new(Segment::active(header, first_position));
        segment.hold(Arc::clone(&file));
        self.context.catalog.add_segment(&segment);
        let mut fresh = Active {
            segment,
            file,
            path: path(number),
            lock,
            offset: COMMITS_AT,
            unsynced: false,
            is_reserved: true,
            zeroed,
        };
        let zeroed = fresh.zero_ahead(bytes, kept);
        if let Some(old) = self.active.replace(fresh) {
            let last_position = self.mark.visible;
            let Active { segment, offset: end, lock, .. } = old;
            self.full = Some(Full { segment, end, last_position, lock });
            if broken(Sabotage::SealEarly)
                && let Some(full) = self.full.take()
            {
                self.rotation.seal(full);
            }
        }
        zeroed
    }

    /// Starts a new segment without commits, and seals the previous one and all that wait for
    /// sealing, so that they can be compacted. The new segment starts with a tail record, which
    /// distinguishes it from a spare. An active segment without commits is kept.
    ///
    /// On failure either nothing has changed, or the new segment is active and the previous one is
    /// sealed later.
    pub(super) fn roll_empty(&mut self) -> Result<()> {
        self.sync()?;
        self.note_synced();
        let Some(active) = &self.active else { return Ok(()) };
        if active.has_commits() {
            let number = active.segment.number() + 1;
            if number > NUMBER_MAX {
                return Err(Error::new(ErrorKind::StorageFull, "roll"));
            }
            self.roll_to(number, 0, 0)?;
        }
        if self.full.is_some() {
            self.begin_with_tail_record()?;
        }
        self.context.check_owned()?;
        self.rotation.finish_seals();
        let Some(full) = self.full.take() else { return Ok(()) };
        let files = self.context.catalog.files()?;
        // A segment that cannot be sealed now is sealed with later commits or at the next open.
        full.segment
            .seal(files, full.end, full.last_position)
            .inspect_err(|_| self.full = Some(full))
    }

    /// Writes and syncs the tail record of an active segment without commits.
    fn begin_with_tail_record(&mut self) -> Result<()> {
        if let Some(active) = self.active.as_ref().filter(|active| !active.is_reserved) {
            // Its tail record says that the file is cut there.
            self.extend(active.segment.header.reserved_bytes, 0, 0)?;
        }
        let Some(active) = &mut self.active else { return Ok(()) };
        let segment = Arc::clone(&active.segment);
        let offset = active.offset;
        active.unsynced = true;
        self.wrote = true;
        if let Err(error) = self.write_tail_record(Ending::Settled) {
            self.scrub(&segment, offset, offset + tail_record::BYTES as u64);
            return Err(segment.io_error("roll", offset, error));
        }
        self.sync()?;
        self.mark.end = Lsn::new(segment.number(), offset);
        self.context.catalog.raise(self.mark);
        Ok(())
    }

    /// Returns the spare of this number if it exists and still has its name.
    fn take_spare(&mut self, number: u32) -> Result<Option<Spare>> {
        let taken = self.ready.take().or_else(|| self.rotation.take_spare(number));
        let Some(spare) = taken else { return Ok(None) };
        let found = self.context.disk.identity_at(&path(number));
        let found = found.at("create", || place(number, 0))?;
        Ok(Some(spare).filter(|spare| found == Some(spare.file.identity())))
    }

    /// Asks the rotation worker for the next segment once a quarter of this one is used.
    pub(super) fn prepare_next(&mut self) {
        let Some(active) = &self.active else { return };
        let number = active.segment.number() + 1;
        let used = active.offset;
        let reserved = active.segment.header.reserved_bytes;
        let begun = used >= reserved / 4;
        if begun && self.ready.is_none() && number <= NUMBER_MAX {
            self.rotation.request_spare(number, self.log_id, used, reserved);
        }
    }

    /// Ensures that no byte of a failed write can be taken for a commit.
    pub(super) fn scrub(&mut self, segment: &Segment, from: u64, to: u64) {
        if broken(Sabotage::SkipScrub) {
            return;
        }
        let Some(file) = self.active.as_ref().map(|active| Arc::clone(&active.file)) else {
            return;
        };
        let unless_full = |result: io::Result<()>| match result {
            Err(error) if is_full(&error) => Ok(()),
            result => result,
        };
        // Restore the tail record first: it must always exist, and may be the only record of the
        // segment's first position.
        let restored = unless_full(self.write_tail_record(Ending::Open));
        // On a full disk, bytes that cannot be overwritten were not written either, unless the file
        // system is copy-on-write: so read them back.
        let zeroed = match write_zeros_at(&*file, from + tail_record::BYTES as u64, to) {
            Err(error) if is_full(&error) => {
                let length = file.len().map_or(to, |length| length.min(to));
                let mut left = vec![0; length.saturating_sub(from) as usize];
                let read = read_exact_at(&*file, &mut left, from);
                let is_harmless = match decode_tail_record(&left, segment.header.salt) {
                    Some(_) => is_zero(&left[tail_record::BYTES..]),
                    None => is_zero(&left),
                };
                if read.is_ok() && is_harmless { Ok(()) } else { Err(error) }
            }
            result => result,
        };
        if let Err(error) = restored.and(zeroed).and_then(|()| file.sync_data()) {
            self.poisoned = Some(segment.io_error("scrub", from, error));
        }
    }
}
