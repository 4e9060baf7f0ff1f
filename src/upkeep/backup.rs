//! A second log that is this one as it stood at one position, made while commits go on.
//!
//! A sealed segment never changes again, so the backup may share its blocks with it; the last segment is
//! copied up to the watermark, and ends as a clean close does. Until everything is durable a file beside it says
//! that the backup is not finished, and nobody opens it.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use super::archive::{make_dirs, sync_dirs};
use crate::catalog::Snapshot;
use crate::disk::{Disk, DiskFile, Lock, RealDisk, copy_at, read_exact_at, write_all_at};
use crate::error::{Error, ErrorKind, Place, Result};
use crate::format::{COMMITS_AT, Ending, Witness, decode_header};
use crate::recovery::{self, SegmentReport, SegmentState, Standing};
use crate::sabotage::{Sabotage, broken};
use crate::segment::{DIR, LOCK, Segment, UNFINISHED_COPY, parse_name, path, place};
use crate::types::{Position, Timestamp};

/// A file that goes away while it is looked for is looked for again so often: somebody collects.
const LOOKS_MAX: usize = 8;
/// For people who find it.
const UNFINISHED_TEXT: &[u8] =
    b"This backup was not finished. Remove the directory and back up again.\n";

/// What a backup is, and what it cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct BackupReport {
    /// The last commit in it.
    pub position: Position,
    /// How many segments it has.
    pub segments: u32,
    /// How many archive files came over.
    pub archive_files: u64,
    /// Bytes that it shares with the log: they take up no space of their own while the log has them too.
    pub shared_bytes: u64,
    /// Bytes that were copied.
    pub copied_bytes: u64,
}

/// Backs up the log at `path` into `target`, whether or not another process is writing it: what was acknowledged
/// is in the backup. Takes no lock of the log and changes nothing in it. Whoever has the log open uses
/// [`crate::Log::backup`].
///
/// What is damaged in the log comes over as it is, and a survey of the backup names it too.
///
/// Blocks while files are copied and synced. See [`crate::Log::backup`] for what `target` must be.
///
/// # Errors
///
/// As [`crate::Log::backup`], and [`ErrorKind::NoLog`].
pub fn backup(path: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<BackupReport> {
    let disk =
        RealDisk::alike(path.as_ref(), DIR).map_err(|error| Error::io("backup", of(DIR), error))?;
    backup_closed(&disk, target.as_ref())
}

/// As [`backup`], on a simulated disk, into another directory of it.
///
/// # Errors
///
/// As [`backup`].
#[cfg(feature = "sim")]
pub fn backup_on(disk: &crate::disk::SimDisk, target: &str) -> Result<BackupReport> {
    backup_closed(disk, Path::new(target))
}

/// Backs up a log that this process writes: everything that is visible now.
pub(crate) fn backup_open(
    disk: &dyn Disk,
    snapshot: &Snapshot,
    target: &Path,
) -> Result<BackupReport> {
    let last = snapshot.mark.end.segment();
    for _ in 0..LOOKS_MAX {
        let mut files = Vec::new();
        for number in numbers(disk)?.into_iter().filter(|number| *number < last) {
            let sealed =
                snapshot.segments.get(number).is_some_and(|one| one.seal_state().is_some());
            files.push((number, if sealed { How::Shared } else { How::Copied }));
        }
        if let Some(segment) = snapshot.segments.get(last) {
            let end = snapshot.mark.end.offset();
            files.push((last, How::Ended(Arc::clone(segment), end)));
        }
        if let Some(plan) = Plan::new(disk, files, snapshot.clone())? {
            return plan.carry_out(disk, target);
        }
    }
    Err(vanishing())
}

fn backup_closed(disk: &dyn Disk, target: &Path) -> Result<BackupReport> {
    for _ in 0..LOOKS_MAX {
        // The files first: what somebody collects from then on may be wanted by the log as it stands afterwards.
        let mut held = hold(disk)?;
        let Standing { survey, last, snapshot } = recovery::standing(disk)?;
        let state_of = |number| survey.segments.iter().find(|one| one.number == number);
        if !hold_new(disk, &survey.segments, &mut held)? {
            continue;
        }
        let mut files = Vec::new();
        for (number, file) in held {
            let how = match (state_of(number).map(|one| one.state), &last) {
                (Some(SegmentState::Spare), _) => continue,
                (Some(SegmentState::Active), Some(segment)) => {
                    How::Ended(Arc::clone(segment), snapshot.mark.end.offset())
                }
                // One that is gone was collected, and sealed before that.
                (Some(SegmentState::Sealed) | None, _) => How::Shared,
                _ => How::Copied,
            };
            files.push((number, how, file));
        }
        return Plan { files, snapshot }.carry_out(disk, target);
    }
    Err(vanishing())
}

/// The files that there are, open, so that nobody can take them away any more. One that is gone was collected: the one
/// that what is left of it went to has a higher number and was there before.
fn hold(disk: &dyn Disk) -> Result<Vec<(u32, Arc<dyn DiskFile>)>> {
    let mut held = Vec::new();
    for number in numbers(disk)? {
        match disk.open_read(&path(number)) {
            Ok(file) => held.push((number, file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // A directory with a segment's name: there is nothing to copy.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
            Err(error) => return Err(Error::io("backup", place(number, 0), error)),
        }
    }
    Ok(held)
}

/// Opens those as well that were made since. False: one of them was collected already.
fn hold_new(
    disk: &dyn Disk,
    segments: &[SegmentReport],
    held: &mut Vec<(u32, Arc<dyn DiskFile>)>,
) -> Result<bool> {
    for one in segments.iter().filter(|one| one.state != SegmentState::Spare) {
        if held.iter().any(|(number, _)| *number == one.number) {
            continue;
        }
        let failed = |error| Error::io("backup", place(one.number, 0), error);
        let file = match disk.open_read(&path(one.number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => continue,
            file => file.map_err(failed)?,
        };
        let header = decode_header(&header_of(&*file).map_err(failed)?);
        if header.is_ok_and(|(header, _)| header.covers.is_some()) {
            return Ok(false);
        }
        held.push((one.number, file));
    }
    Ok(true)
}

fn vanishing() -> Error {
    Error::io("backup", of(DIR), io::ErrorKind::NotFound.into())
}

fn of(path: &str) -> Place {
    Place { path: path.into(), segment: None, offset: None }
}

fn numbers(disk: &dyn Disk) -> Result<Vec<u32>> {
    let names = match disk.list(DIR) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.map_err(|error| Error::io("backup", of(DIR), error))?,
    };
    let mut numbers: Vec<u32> =
        names.iter().filter_map(|name| parse_name(name.to_str()?)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// How a file comes over.
enum How {
    /// It never changes again.
    Shared,
    /// As it is now.
    Copied,
    /// Up to this offset, and a clean end there.
    Ended(Arc<Segment>, u64),
}

/// What is to be done. The files are open, so that nobody can take them away any more.
struct Plan {
    files: Vec<(u32, How, Arc<dyn DiskFile>)>,
    /// What the backup shows.
    snapshot: Snapshot,
}

impl Plan {
    /// `None`: a file has just gone.
    fn new(disk: &dyn Disk, files: Vec<(u32, How)>, snapshot: Snapshot) -> Result<Option<Self>> {
        let mut opened = Vec::with_capacity(files.len());
        for (number, how) in files {
            match disk.open_read(&path(number)) {
                Ok(file) => opened.push((number, how, file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                // A directory with a segment's name: there is nothing to copy.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                Err(error) => return Err(Error::io("backup", place(number, 0), error)),
            }
        }
        Ok(Some(Self { files: opened, snapshot }))
    }

    fn carry_out(self, from: &dyn Disk, target: &Path) -> Result<BackupReport> {
        let to = &*from.beside(target);
        let failed = |what| move |error| Error::io("backup", of(what), error);
        begin(to)?;
        let lock = match to.lock(LOCK).map_err(failed(LOCK))? {
            Lock::Held(lock) => lock,
            Lock::Busy(holder) => {
                return Err(Error::new(ErrorKind::Locked { holder }, "backup").at(of(LOCK)));
            }
        };
        to.create_dir(DIR).map_err(failed(DIR))?;
        let position = self.snapshot.position();
        let mut report = BackupReport { position, ..Default::default() };
        for (number, how, file) in &self.files {
            let over = match how {
                How::Shared => share(from, &**file, to, target, &path(*number)),
                How::Copied => copy(&**file, to, &path(*number)),
                How::Ended(segment, end) => copy_to(&**file, to, segment, *end, position.get()),
            };
            let over = over.map_err(|error| Error::io("backup", place(*number, 0), error))?;
            report.segments += 1;
            report.shared_bytes += over.shared_bytes;
            report.copied_bytes += over.copied_bytes;
        }
        self.archive_files(from, to, target, &mut report)?;
        to.sync_dir(DIR).and_then(|()| to.sync_dir("")).map_err(failed(DIR))?;
        to.remove(UNFINISHED_COPY)
            .and_then(|()| to.sync_dir(""))
            .map_err(failed(UNFINISHED_COPY))?;
        drop(lock);
        Ok(report)
    }
}

impl Plan {
    /// The archive files that the backup needs. One that is not there is not in the backup either, and a survey of it
    /// says so.
    fn archive_files(
        &self,
        from: &dyn Disk,
        to: &dyn Disk,
        target: &Path,
        report: &mut BackupReport,
    ) -> Result<()> {
        let Some(log_id) = self.snapshot.catalog.log_id() else { return Ok(()) };
        for cold in self.snapshot.cold_files() {
            for look in 1..=LOOKS_MAX {
                let path = match recovery::cold::find(from, &cold, log_id) {
                    Ok(path) => path,
                    Err(error) if matches!(error.kind(), ErrorKind::Io) => return Err(error),
                    Err(_) => break,
                };
                let bring = || {
                    let file = from.open_read(&path)?;
                    make_dirs(to, &path)?;
                    let over = share(from, &*file, to, target, &path)?;
                    sync_dirs(to, &path)?;
                    Ok(over)
                };
                match bring() {
                    // It has just got its other name.
                    Err(error) if is_gone(&error) && look < LOOKS_MAX => {}
                    result => {
                        let over = result.map_err(|error| Error::io("backup", of(&path), error))?;
                        report.archive_files += 1;
                        report.shared_bytes += over.shared_bytes;
                        report.copied_bytes += over.copied_bytes;
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// Makes the directory, and says in it, durably, that nothing in it counts yet.
fn begin(to: &dyn Disk) -> Result<()> {
    let failed = |error| Error::io("backup", of(""), error);
    if to.root_exists().map_err(failed)? && !to.list("").map_err(failed)?.is_empty() {
        return Err(Error::new(ErrorKind::NotEmpty, "backup"));
    }
    to.create_root().map_err(failed)?;
    let say = || {
        let file = to.create(UNFINISHED_COPY)?;
        write_all_at(&*file, &mut [IoSlice::new(UNFINISHED_TEXT)], 0)?;
        to.sync_dir("")
    };
    match say() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(Error::new(ErrorKind::NotEmpty, "backup"))
        }
        result => result.map_err(failed),
    }
}

/// What became of one file.
#[derive(Default)]
struct Over {
    shared_bytes: u64,
    copied_bytes: u64,
}

fn share(
    from: &dyn Disk,
    file: &dyn DiskFile,
    to: &dyn Disk,
    target: &Path,
    path: &str,
) -> io::Result<Over> {
    let bytes = file.len()?;
    if from.share(path, target, path).is_err() {
        return copy(file, to, path);
    }
    let shared = to.open_read(path)?;
    if header_of(&*shared)? != header_of(file)? {
        // Somebody has collected meanwhile: another file has the name.
        to.remove(path)?;
        return copy(file, to, path);
    }
    // Whoever sealed it may have died before that was synced.
    sync(&*shared)?;
    Ok(Over { shared_bytes: bytes, copied_bytes: 0 })
}

/// What tells a segment's file from every other: the salt is in it.
fn header_of(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let mut block = vec![0; file.len()?.min(COMMITS_AT) as usize];
    read_exact_at(file, &mut block, 0)?;
    Ok(block)
}

/// Copies a file as it is. One that is sealed in this moment may come over with a piece of its footer, as if that
/// had been interrupted, which recovery understands.
fn copy(file: &dyn DiskFile, to: &dyn Disk, path: &str) -> io::Result<Over> {
    let over = to.create(path)?;
    loop {
        let bytes = file.len()?;
        match copy_at(file, 0..bytes, &*over, 0) {
            // It was sealed meanwhile, and cut behind its footer.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && file.len()? < bytes => {}
            result => {
                result?;
                over.set_len(bytes)?;
                sync(&*over)?;
                return Ok(Over { shared_bytes: 0, copied_bytes: bytes });
            }
        }
    }
}

/// Copies the segment that the backup ends in, up to where it ends.
fn copy_to(
    file: &dyn DiskFile,
    to: &dyn Disk,
    segment: &Segment,
    end: u64,
    position: u64,
) -> io::Result<Over> {
    let over = to.create(&path(segment.number()))?;
    // Where the next record may start can lie behind the end of a file that was cut.
    copy_at(file, 0..end.min(file.len()?), &*over, 0)?;
    let witness = Witness {
        position: position + 1,
        durable: position,
        time_micros: Timestamp::now().as_micros(),
        ending: Ending::Clean,
    }
    .encode(segment.header.salt);
    write_all_at(&*over, &mut [IoSlice::new(&witness)], end)?;
    sync(&*over)?;
    Ok(Over { shared_bytes: 0, copied_bytes: end + witness.len() as u64 })
}

fn sync(file: &dyn DiskFile) -> io::Result<()> {
    if broken(Sabotage::BackupUnsynced) { Ok(()) } else { file.sync_data() }
}
