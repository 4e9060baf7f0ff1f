//! Stand-ins for dropped segments: an empty file whose name records the segments that it replaces.
//! Creating one takes no data block, so a compaction frees space even on a full disk (F45).

use std::io;
use std::sync::Arc;

use super::file::Segment;
use super::files::{DIR, foreign, remove, unfinished_path};
use super::sealed::Sealed;
use crate::disk::{Disk, DiskFile};
use crate::format::{COMMITS_AT, Covers, Gone, SegmentHeader, SegmentTimes};

/// Returns the path of the stand-in with this header.
fn gone_path(header: &SegmentHeader) -> Option<String> {
    let gone = Gone::new(header.log_id, header.number, header.covers?);
    Some(format!("{DIR}/{}", gone.file_name()))
}

/// File of a segment that another segment has replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OldFile {
    pub(crate) header: SegmentHeader,
    /// True if this file is a stand-in itself.
    pub(crate) is_gone: bool,
}

impl OldFile {
    /// Removes the file, after verifying its identity.
    pub(crate) fn remove(&self, disk: &dyn Disk) -> io::Result<()> {
        if !self.is_gone {
            return remove(disk, &self.header);
        }
        let path = gone_path(&self.header).ok_or_else(foreign)?;
        open_empty(disk, &path)?;
        disk.remove(&path)
    }
}

impl Segment {
    /// Returns the stand-in for segments of which nothing is left.
    pub(crate) fn gone(log_id: [u8; 16], gone: &Gone) -> Self {
        let Covers { first, last } = gone.covers;
        let header = SegmentHeader {
            log_id,
            number: gone.number,
            reserved_bytes: 0,
            created_micros: 0,
            salt: gone.check,
            covers: Some(gone.covers),
        };
        let sealed = Sealed {
            first_position: first,
            last_position: last,
            footer_at: COMMITS_AT,
            times: SegmentTimes::default(),
            file_bytes: 0,
        };
        Self::sealed(header, sealed)
    }

    /// Returns a stand-in for a run of sealed segments, given the first and the last of them;
    /// `None` if the last is not sealed.
    pub(crate) fn gone_in_place_of(first: &Self, last: &Self) -> Option<Self> {
        let last_position = last.seal_state()?.last_position;
        let covers = Covers { first: first.first_position, last: last_position };
        let log_id = last.header.log_id;
        Some(Self::gone(log_id, &Gone::new(log_id, last.number(), covers)))
    }

    /// Returns its file, for removal once another segment has replaced it.
    pub(crate) fn old_file(&self) -> OldFile {
        OldFile { header: self.header, is_gone: self.is_gone() }
    }

    /// Reports whether the segment is a stand-in: its file is empty.
    pub(crate) fn is_gone(&self) -> bool {
        self.seal_state().is_some_and(|sealed| sealed.file_bytes == 0)
    }

    /// Returns the path of its file, if it is a stand-in.
    pub(super) fn gone_path(&self) -> Option<String> {
        if self.is_gone() { gone_path(&self.header) } else { None }
    }

    /// Creates the file of a stand-in, durable under an unfinished name. Returns the name and the
    /// file.
    pub(crate) fn make_gone(&self, disk: &dyn Disk) -> io::Result<(String, Arc<dyn DiskFile>)> {
        let path = unfinished_path(&self.header);
        let file = match disk.create(&path) {
            // An earlier attempt created the file and could not remove it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => open_empty(disk, &path)?,
            result => result?,
        };
        file.sync_data()?;
        Ok((path, file))
    }

    /// Gives the unfinished file its final name. Replaces an empty file of that name, whose
    /// directory sync may have failed (F46).
    pub(crate) fn name_gone(&self, disk: &dyn Disk, unfinished: &str) -> io::Result<()> {
        let path = gone_path(&self.header).ok_or_else(foreign)?;
        match disk.rename(unfinished, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                open_empty(disk, &path)?;
                disk.replace(unfinished, &path)
            }
            result => result,
        }
    }
}

/// Opens a file that must be empty; fails for any other.
fn open_empty(disk: &dyn Disk, path: &str) -> io::Result<Arc<dyn DiskFile>> {
    let file = disk.open_read(path)?;
    if file.len()? == 0 { Ok(file) } else { Err(foreign()) }
}
