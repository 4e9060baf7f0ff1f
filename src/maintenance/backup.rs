//! Backup: a second log that equals this one at one position, made while commits continue.
//!
//! A sealed segment is immutable, so the backup may share its blocks. The last segment is copied up
//! to the watermark and ends like one that was closed cleanly. Until the copy is durable, a marker
//! file in it says that the backup is unfinished, and opening it fails.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use crate::catalog::ReadView;
use crate::disk::{
    Disk, DiskFile, IoResultExt, Lock, RealDisk, Unread, copy_around, lock, read_around,
    write_all_at,
};
use crate::error::{Error, ErrorKind, Place, Result};
use crate::format::{COMMITS_AT, Ending, TailRecord};
use crate::recovery::{self, SegmentState, Standing};
use crate::segment::{
    DIR, LOCK, Segment, UNFINISHED_COPY, has_salt, parse_name, parse_path, path, place_of,
};
use crate::types::{Position, Timestamp};

/// Maximum number of times that the plan is made; compaction removes files that are in it.
const LOOKS_MAX: usize = 64;
/// Number of bytes copied between two checks for a closed log.
const COPY_BYTES: u64 = 4 << 20;
/// Text of the marker file, for humans.
const UNFINISHED_TEXT: &[u8] =
    b"This backup was not finished. Remove the directory and back up again.\n";

/// Contents and cost of a backup.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct BackupReport {
    /// Position of the last commit in the backup.
    pub position: Position,
    /// Number of segments in the backup.
    pub segments: u32,
    /// Bytes shared with the log; they take no space of their own as long as the log has them too.
    pub shared_bytes: u64,
    /// Bytes that were copied.
    pub copied_bytes: u64,
    /// Copied bytes that the disk could not read; the backup has damage in their place.
    pub unreadable_bytes: u64,
}

/// Backs up the log at `path` into `target`, even while another process writes it: all acknowledged
/// commits are in the backup. Takes no lock and changes nothing in the log. A process that has the
/// log open uses [`crate::Log::backup`].
///
/// Damage in the log is copied as it is, and verifying the backup reports it too.
///
/// Blocks while files are copied and synced. See [`crate::Log::backup`] for the requirements on
/// `target`.
///
/// # Errors
///
/// The errors of [`crate::Log::backup`], and [`ErrorKind::NoLog`]; [`ErrorKind::Outdated`] when the
/// log's writer kept compacting files before they were copied: try again, or have the writer back
/// up.
pub fn backup(path: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<BackupReport> {
    let path = path.as_ref();
    let disk = RealDisk::alike(path, DIR).at("backup", here(""));
    let copied = disk.and_then(|disk| backup_closed(&(Arc::new(disk) as _), target.as_ref()));
    copied.map_err(|error| error.in_log(path))
}

/// Returns whether a path leads to the directory of the log at `log` or into it, for programs that
/// write files under names they are given. Follows links and `..`; neither path has to exist yet.
///
/// # Errors
///
/// [`ErrorKind::Io`] when a directory on the way cannot be read.
pub fn is_inside(log: impl AsRef<Path>, path: impl AsRef<Path>) -> Result<bool> {
    let disk = RealDisk::new(log.as_ref(), false);
    disk.and_then(|disk| disk.holds(path.as_ref())).at("look", here(""))
}

/// Backs up like [`backup`], on a simulated disk, into another directory of it.
///
/// # Errors
///
/// The errors of [`backup`].
#[cfg(feature = "sim")]
pub fn backup_on(disk: &crate::disk::SimDisk, target: &str) -> Result<BackupReport> {
    backup_closed(&(Arc::new(disk.hold()) as _), Path::new(target))
}

/// Backs up all visible commits of a log that this process writes. The caller keeps it from
/// compacting.
pub(crate) fn backup_open(
    disk: &Arc<dyn Disk>,
    view: &ReadView,
    target: &Path,
    is_over: &dyn Fn() -> bool,
) -> Result<BackupReport> {
    let last = view.mark.end.segment();
    let plan = || {
        // Files that are not sound segments are copied too.
        let listed = numbers(&**disk)?.into_iter().filter(|number| *number < last);
        let mut plan: Vec<PlannedFile> =
            listed.map(|number| PlannedFile::new(number, view)).collect();
        let before = view.segments.iter().filter(|segment| segment.number() < last);
        plan.extend(before.map(|segment| PlannedFile::of(segment)));
        plan.extend(view.segments.get(last).map(|segment| PlannedFile::end(segment, view)));
        Ok((plan, view.position()))
    };
    carry_out((disk, target), plan()?, plan, is_over)
}

fn backup_closed(disk: &Arc<dyn Disk>, target: &Path) -> Result<BackupReport> {
    let plan = || {
        let Standing { report, last, view } = recovery::standing(disk)?;
        let mut plan = Vec::new();
        for segment in &report.segments {
            match (segment.state, &last) {
                (SegmentState::Spare | SegmentState::Dropped, _) => {}
                (SegmentState::Active, Some(last)) => plan.push(PlannedFile::end(last, &view)),
                _ => plan.push(PlannedFile::new(segment.number, &view)),
            }
        }
        let gone = view.segments.iter().filter(|segment| segment.is_gone());
        plan.extend(gone.map(|segment| PlannedFile::of(segment)));
        Ok((plan, view.position()))
    };
    carry_out((disk, target), plan()?, plan, &|| false)
}

/// Returns the place of a file of the backup, for an error.
fn here(path: &str) -> impl FnOnce() -> Place {
    move || Place { segment: parse_path(path), ..place_of(path) }
}

fn numbers(disk: &dyn Disk) -> Result<Vec<u32>> {
    let names = match disk.list(DIR) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.at("backup", here(DIR))?,
    };
    Ok(names.iter().filter_map(|name| parse_name(name.to_str()?)).collect())
}

/// File that the backup needs.
#[derive(PartialEq, Eq)]
struct PlannedFile {
    path: String,
    /// Salt that tells the segment from another of that name; `None` for files that are not
    /// segments.
    salt: Option<u32>,
    how: How,
}

/// Way to copy a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// Sealed and immutable: may share its blocks.
    Shared,
    /// Copied as it is now.
    Copied,
    /// Copied up to this offset and closed cleanly there, with the latest time that its writer
    /// vouched for.
    Ended(u64, Timestamp),
}

impl PlannedFile {
    fn new(number: u32, view: &ReadView) -> Self {
        let segment = view.segments.get(number).filter(|found| found.number() == number);
        match segment.filter(|segment| !segment.is_gone()) {
            Some(segment) => Self::of(segment),
            None => Self { path: path(number), salt: None, how: How::Copied },
        }
    }

    fn of(segment: &Segment) -> Self {
        let is_shared = segment.seal_state().is_some() && !segment.is_gone();
        let how = if is_shared { How::Shared } else { How::Copied };
        // The name of a stand-in already says everything about it.
        let salt = Some(segment.header.salt).filter(|_| !segment.is_gone());
        Self { path: segment.path(), salt, how }
    }

    fn end(segment: &Segment, view: &ReadView) -> Self {
        let vouched = Timestamp::from_micros(segment.commits.times().vouched_last);
        let how = How::Ended(view.mark.end.offset(), vouched);
        Self { path: path(segment.number()), salt: Some(segment.header.salt), how }
    }
}

/// Files to copy, and the position of the resulting backup.
type Plan = (Vec<PlannedFile>, Position);

/// Makes the backup. Each file is open only while it is copied. If one was compacted before that,
/// calls `again` for a new plan and keeps the finished copies that are still in it. Stops between
/// pieces once `is_over` returns true.
fn carry_out(
    (disk, target): (&Arc<dyn Disk>, &Path),
    first: Plan,
    again: impl Fn() -> Result<Plan>,
    is_over: &dyn Fn() -> bool,
) -> Result<BackupReport> {
    let at_target = |error: Error| error.in_log(target);
    if disk.holds(target).at("backup", here("")).map_err(at_target)? {
        return Err(Error::new(ErrorKind::InsideLog, "backup"));
    }
    let to = &*disk.beside(target).at("backup", here("")).map_err(at_target)?;
    begin(to).map_err(at_target)?;
    let lock = match lock(to, LOCK).at("backup", here(LOCK))? {
        Lock::Held(lock) => lock,
        Lock::Busy(holder) => {
            return Err(Error::new(ErrorKind::Locked { holder }, "backup").at(place_of(LOCK)));
        }
    };
    to.create_dir(DIR).at("backup", here(DIR))?;
    let mut copies = Copies { from: &**disk, to, done: BTreeMap::new(), is_over };
    let (mut plan, mut position) = first;
    let mut looks = 1;
    while !copies.bring(plan, position)? {
        if looks == LOOKS_MAX {
            return Err(Error::new(ErrorKind::Outdated, "backup").at(place_of(DIR)));
        }
        looks += 1;
        (plan, position) = again()?;
    }
    to.sync_dir(DIR).and_then(|()| to.sync_dir("")).at("backup", here(DIR))?;
    to.remove(UNFINISHED_COPY)
        .and_then(|()| to.sync_dir(""))
        .at("backup", here(UNFINISHED_COPY))?;
    drop(lock);
    Ok(copies.report(position))
}

/// Finished copies.
struct Copies<'a> {
    from: &'a dyn Disk,
    to: &'a dyn Disk,
    /// Finished copies by path.
    done: BTreeMap<String, (PlannedFile, Over)>,
    /// Returns whether the log was closed; called between pieces.
    is_over: &'a dyn Fn() -> bool,
}

impl Copies<'_> {
    /// Copies the planned files and removes copies that are no longer planned. Returns false if a
    /// planned file no longer exists.
    fn bring(&mut self, mut plan: Vec<PlannedFile>, position: Position) -> Result<bool> {
        plan.sort_by(|file, other| file.path.cmp(&other.path));
        plan.dedup_by(|file, other| file.path == other.path);
        let wanted: BTreeSet<&str> = plan.iter().map(|wanted| &*wanted.path).collect();
        let left = self.done.keys().filter(|path| !wanted.contains(&***path));
        for path in left.cloned().collect::<Vec<_>>() {
            self.take_away(&path).at("backup", here(&path))?;
        }
        for wanted in plan {
            if (self.is_over)() {
                return Err(Error::new(ErrorKind::Closed, "backup"));
            }
            let path = wanted.path.clone();
            let known = self.done.get(&path).map(|(done, _)| done);
            if known.is_some_and(|done| *done == wanted && done.how == How::Shared) {
                continue;
            }
            if known.is_some() {
                self.take_away(&path).at("backup", here(&path))?;
            }
            match self.bring_one(&wanted, position) {
                Ok(over) => drop(self.done.insert(path, (wanted, over))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                // A directory with a segment's name has nothing to copy.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                Err(_) if (self.is_over)() => {
                    return Err(Error::new(ErrorKind::Closed, "backup"));
                }
                Err(error) => return Err(error).at("backup", here(&path)),
            }
        }
        Ok(true)
    }

    fn take_away(&mut self, path: &str) -> io::Result<()> {
        self.done.remove(path);
        self.to.remove(path)
    }

    fn bring_one(&self, wanted: &PlannedFile, position: Position) -> io::Result<Over> {
        let path = &*wanted.path;
        let file = &*self.from.open_read(path)?;
        if let Some(salt) = wanted.salt
            && has_salt(&header_of(file)?, salt) == Some(false)
        {
            return Err(io::ErrorKind::NotFound.into());
        }
        match wanted.how {
            How::Shared => self.share(file, path),
            How::Copied => copy(file, self.to, path, self.is_over),
            How::Ended(end, vouched) => {
                let salt = wanted.salt.unwrap_or_default();
                let ending = (position.get(), vouched);
                copy_to((file, end), self.to, (path, salt), ending, self.is_over)
            }
        }
    }

    fn share(&self, file: &dyn DiskFile, path: &str) -> io::Result<Over> {
        let bytes = file.len()?;
        if self.from.share(path, self.to, path).is_err() {
            return copy(file, self.to, path, self.is_over);
        }
        let shared = self.to.open_read(path)?;
        if header_of(&*shared)? != header_of(file)? {
            // A compaction replaced the file under this name.
            self.to.remove(path)?;
            return copy(file, self.to, path, self.is_over);
        }
        // The writer that sealed the segment may have died before it synced the file.
        shared.sync_data()?;
        Ok(Over { shared_bytes: bytes, ..Over::default() })
    }

    fn report(&self, position: Position) -> BackupReport {
        let mut report = BackupReport { position, ..BackupReport::default() };
        for (wanted, over) in self.done.values() {
            report.segments += u32::from(parse_path(&wanted.path).is_some());
            report.shared_bytes += over.shared_bytes;
            report.copied_bytes += over.copied_bytes;
            report.unreadable_bytes += over.unreadable_bytes;
        }
        report
    }
}

/// Creates the directory with a durable marker that nothing in it counts yet.
fn begin(to: &dyn Disk) -> Result<()> {
    if to.root_exists().at("backup", here(""))? && !to.list("").at("backup", here(""))?.is_empty() {
        return Err(Error::new(ErrorKind::NotEmpty, "backup"));
    }
    to.create_root().at("backup", here(""))?;
    let say = || {
        let file = to.create(UNFINISHED_COPY)?;
        write_all_at(&*file, &mut [IoSlice::new(UNFINISHED_TEXT)], 0)?;
        to.sync_dir("")
    };
    match say() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(Error::new(ErrorKind::NotEmpty, "backup"))
        }
        result => result.at("backup", here("")),
    }
}

/// Outcome of copying one file.
#[derive(Default)]
struct Over {
    shared_bytes: u64,
    copied_bytes: u64,
    unreadable_bytes: u64,
}

/// Returns the header, whose salt tells the segment's file from every other.
fn header_of(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let mut block = vec![0; file.len()?.min(COMMITS_AT) as usize];
    let read = read_around(file, &mut block, 0, &mut Unread::default())?;
    block.truncate(read);
    Ok(block)
}

/// Copies a file as it is. If it is being sealed, the copy may have part of its footer, like an
/// interrupted seal, which recovery handles.
fn copy(
    file: &dyn DiskFile,
    to: &dyn Disk,
    path: &str,
    is_over: &dyn Fn() -> bool,
) -> io::Result<Over> {
    let over = to.create(path)?;
    loop {
        let bytes = file.len()?;
        match copy_front(file, bytes, &*over, is_over) {
            // The file was sealed and cut after its footer.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && file.len()? < bytes => {}
            result => {
                let unreadable_bytes = result?;
                over.set_len(bytes)?;
                over.sync_data()?;
                return Ok(Over { shared_bytes: 0, copied_bytes: bytes, unreadable_bytes });
            }
        }
    }
}

/// Copies the backup's last segment, up to its end.
fn copy_to(
    (file, end): (&dyn DiskFile, u64),
    to: &dyn Disk,
    (path, salt): (&str, u32),
    (position, vouched): (u64, Timestamp),
    is_over: &dyn Fn() -> bool,
) -> io::Result<Over> {
    let over = to.create(path)?;
    // The next record's offset can be after the end of a file that was cut.
    let unreadable_bytes = copy_front(file, end.min(file.len()?), &*over, is_over)?;
    let tail_record =
        TailRecord { position: position + 1, durable: position, vouched, ending: Ending::Clean }
            .encode(salt);
    write_all_at(&*over, &mut [IoSlice::new(&tail_record)], end)?;
    over.sync_data()?;
    Ok(Over { shared_bytes: 0, copied_bytes: end + tail_record.len() as u64, unreadable_bytes })
}

/// Copies the first bytes of a file, skipping what the disk cannot read, and returns the number of
/// unreadable bytes.
///
/// # Errors
///
/// [`io::ErrorKind::Interrupted`] once `is_over` returns true.
fn copy_front(
    file: &dyn DiskFile,
    bytes: u64,
    over: &dyn DiskFile,
    is_over: &dyn Fn() -> bool,
) -> io::Result<u64> {
    let mut unreadable_bytes = 0;
    for start in (0..bytes).step_by(COPY_BYTES as usize) {
        if is_over() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let piece = start..bytes.min(start + COPY_BYTES);
        unreadable_bytes += copy_around(file, piece, over, start)?;
    }
    Ok(unreadable_bytes)
}
