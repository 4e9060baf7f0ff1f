//! Second name for the file of a compacted segment that a read view still shows.
//!
//! The file can be opened under that name for as long as a reader may ask for it. A crash leaves
//! the name behind; the next opening for writing removes it.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use super::files::{is_of, kept_path, path, place_of};
use crate::disk::{Disk, IoResultExt, process_id};
use crate::failures::{BackgroundTask, Failures};
use crate::format::SegmentHeader;

/// Second name of a file, removed on drop.
#[derive(Debug)]
pub(crate) struct KeptFile {
    disk: Arc<dyn Disk>,
    failures: Arc<Failures>,
    header: SegmentHeader,
    path: String,
    /// Id of the process that created the name; a forked child does not remove it.
    process: u32,
}

impl KeptFile {
    /// Gives the file of a segment a second name.
    pub(super) fn link(
        disk: &Arc<dyn Disk>,
        failures: &Arc<Failures>,
        header: &SegmentHeader,
    ) -> io::Result<Self> {
        let to = kept_path(header);
        match disk.share(&path(header.number), &**disk, &to) {
            // An earlier attempt created the name and got no further.
            Err(error)
                if error.kind() == ErrorKind::AlreadyExists
                    && is_of(&*disk.open_read(&to)?, header)? => {}
            result => result?,
        }
        Ok(Self {
            disk: Arc::clone(disk),
            failures: Arc::clone(failures),
            header: *header,
            path: to,
            process: process_id(),
        })
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Removes the name, unless another file has taken it.
    fn remove(&self) -> io::Result<()> {
        let is_own = is_of(&*self.disk.open_read(&self.path)?, &self.header)?;
        if is_own { self.disk.remove(&self.path) } else { Ok(()) }
    }
}

impl Drop for KeptFile {
    fn drop(&mut self) {
        if self.process != process_id() {
            return;
        }
        match self.remove() {
            // Another process has already removed the name.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => {
                let removed = removed.at("remove", || place_of(&self.path));
                self.failures.note(BackgroundTask::RemoveCompacted, removed);
            }
        }
    }
}
