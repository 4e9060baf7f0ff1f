//! The move of an archived stream: from the segments to its archive file.
//!
//! The file is written under a name of its own, which its salt is in, and made durable; then a commit says that the
//! stream's events are in it; then it gets the name that everybody expects. Wherever that stops, the file that a
//! commit names is there, under one of the two names. A file that no commit names is nobody's.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;

use super::archive::{ArchiveReport, place_of, sync_dirs, write};
use super::release::Nameless;
use crate::catalog::{Catalog, Snapshot, archive_path, cold_path};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::format::ColdSeqs;
use crate::recovery::cold::header_of;
use crate::sabotage::{Sabotage, broken};
use crate::segment::UNFINISHED;
use crate::types::{Seq, StreamId};

/// The directory of the archive files, in the log's.
const DIR: &str = "archive";

/// What moved to archive files.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct MoveReport {
    /// The files that were written.
    pub moved: Vec<ArchiveReport>,
    /// Why streams stayed where they are. Nothing of them was lost.
    pub refused: Vec<Error>,
}

/// Writes a stream's archive file, durable under its own name. `None`: there is too little to write.
pub(crate) fn write_cold(
    disk: &dyn Disk,
    snapshot: &Snapshot,
    stream: StreamId,
    bytes_min: u64,
) -> Result<Option<(ColdSeqs, ArchiveReport)>> {
    let Some(written) = write(disk, snapshot, stream, bytes_min, |salt| cold_path(stream, salt))?
    else {
        return Ok(None);
    };
    let path = cold_path(stream, written.salt);
    if written.seqs.is_empty() {
        // All of it is a gap, which stays where it is.
        let _ = disk.remove(&path);
        return Ok(None);
    }
    sync_dirs(disk, &path).map_err(|error| Error::io("move", place_of(&path), error))?;
    let (start, end) = (written.seqs.start, written.seqs.end);
    let seqs = ColdSeqs { start, end, file_bytes: written.bytes, salt: written.salt };
    let report = ArchiveReport {
        path: stream.archive_path(),
        bytes: written.bytes,
        seqs: Seq(start)..Seq(end),
        positions: written.positions,
    };
    Ok(Some((seqs, report)))
}

/// Whether every event of the stream is in its file already; a gap behind the last of them is not.
pub(crate) fn has_moved(snapshot: &Snapshot, stream: StreamId) -> Result<bool> {
    let Some(seqs) = snapshot.cold_seqs(stream) else { return Ok(false) };
    let is_all = snapshot.events(stream)?.range(seqs.end..).next().is_none();
    let start = snapshot.stream(stream).map_or(0, |info| info.start.get());
    Ok(is_all && seqs.start >= start)
}

/// Gives the newest file of a stream the name that everybody expects. Another one that has it and may be needed goes
/// by its own from now on.
pub(crate) fn publish(disk: &dyn Disk, catalog: &Catalog, stream: StreamId) -> Result<()> {
    let plain = archive_path(stream);
    let give = || {
        let Some(cold) = catalog.colds_of(stream) else { return Ok(()) };
        let own = cold_path(stream, cold.seqs.salt);
        if salt_of(disk, &own)?.is_none() {
            return Ok(());
        }
        match salt_of(disk, &plain)? {
            None => {}
            Some(Some(salt)) if catalog.knows_cold(stream, salt) => {
                disk.rename(&plain, &cold_path(stream, salt))?;
                disk.sync_dir(parent(&plain))?;
            }
            // What cannot be read may be what somebody needs.
            Some(None) if cold.is_not_first() => return Ok(()),
            Some(_) => {
                disk.remove(&plain)?;
                disk.sync_dir(parent(&plain))?;
            }
        }
        // Nothing has that name, durably: so a power cut leaves the file one of its two.
        disk.rename(&own, &plain)?;
        disk.sync_dir(parent(&plain))
    };
    give().map_err(|error| Error::io("move", place_of(&plain), error))
}

/// Removes the files that nobody needs, `needed` being those that can be reached, and ends moves that were cut. Only
/// what was moved is touched: a copy of a stream is its owner's. Before the first one `prove` waits until the disk proves
/// all that says that nobody needs it.
pub(crate) fn sweep(
    disk: &dyn Disk,
    catalog: &Catalog,
    needed: &HashSet<(StreamId, u32)>,
    prove: &dyn Fn() -> Result<()>,
    nameless: &mut Nameless,
) -> Result<u64> {
    if !catalog.may_be_swept(needed) {
        return Ok(0);
    }
    let is_unpinned = catalog.is_unpinned();
    let (mut left, mut freed_bytes) = (HashSet::new(), 0);
    for path in files(disk).map_err(|error| Error::io("collect", place_of(DIR), error))? {
        let failed = |error| Error::io("collect", place_of(&path), error);
        let Some((stream, name)) = parse(&path) else { continue };
        let salt = match name {
            Name::Own(salt) if needed.contains(&(stream, salt)) => {
                publish(disk, catalog, stream)?;
                continue;
            }
            Name::Own(salt) => Some(salt),
            Name::Unfinished => None,
            Name::Plain => {
                match catalog.colds_of(stream).and(salt_of(disk, &path).map_err(failed)?) {
                    Some(Some(salt))
                        if catalog.knows_cold(stream, salt)
                            && !needed.contains(&(stream, salt)) =>
                    {
                        Some(salt)
                    }
                    _ => continue,
                }
            }
        };
        if is_unpinned || salt.is_none() {
            if !broken(Sabotage::CollectUnproven) {
                prove()?;
            }
            let bytes = disk.open_read(&path).and_then(|file| file.len()).unwrap_or(0);
            nameless.hold(disk, &path);
            disk.remove(&path).map_err(failed)?;
            freed_bytes += bytes;
        } else {
            left.extend(salt.map(|salt| (stream, salt)));
        }
    }
    catalog.are_gone(needed, &left);
    Ok(freed_bytes)
}

/// What stands in the file's header: `Some(None)` if that cannot be read, `None` if there is no file.
fn salt_of(disk: &dyn Disk, path: &str) -> io::Result<Option<Option<u32>>> {
    match header_of(disk, path) {
        Ok((_, header)) => Ok(Some(header.map(|header| header.salt))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(Some(None)),
        Err(error) => Err(error),
    }
}

fn parent(path: &str) -> &str {
    path.rfind('/').map_or("", |at| &path[..at])
}

/// How a file in the archive is called.
enum Name {
    /// As everybody expects.
    Plain,
    /// With its salt.
    Own(u32),
    /// As a copy that was not finished.
    Unfinished,
}

/// Whose file that is; `None` when it is none of ours.
fn parse(path: &str) -> Option<(StreamId, Name)> {
    let file = path.rsplit('/').next()?;
    let (finished, is_finished) = match file.strip_suffix(UNFINISHED) {
        Some(name) => (name, false),
        None => (file, true),
    };
    let stem = finished.strip_suffix(".seg")?;
    let (id, salt) = stem.split_once('.').map_or((stem, None), |(id, salt)| (id, Some(salt)));
    let stream: StreamId = id.parse().ok()?;
    let name = match salt {
        _ if !is_finished => Name::Unfinished,
        None => Name::Plain,
        Some(salt) => Name::Own(u32::from_str_radix(salt, 16).ok()?),
    };
    let expected = match name {
        Name::Own(salt) => cold_path(stream, salt),
        Name::Plain => archive_path(stream),
        Name::Unfinished => format!("{}{UNFINISHED}", archive_path(stream)),
    };
    (path == expected).then_some((stream, name))
}

/// The paths of all files, two directories deep.
fn files(disk: &dyn Disk) -> io::Result<Vec<String>> {
    let mut level = vec![DIR.to_owned()];
    for _ in 0..3 {
        let mut below = Vec::new();
        for dir in level {
            let names: Vec<OsString> = match disk.list(&dir) {
                // It is no directory, or not there.
                Err(error) if is_no_dir(&error) => continue,
                result => result?,
            };
            let names = names.iter().filter_map(|name| name.to_str());
            below.extend(names.map(|name| format!("{dir}/{name}")));
        }
        level = below;
    }
    Ok(level)
}

fn is_no_dir(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
