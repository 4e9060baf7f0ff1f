//! Archive files that the log reads from: found, recognised, opened, checked.
//!
//! A file is known by its salt, so it does not matter which of its two names it has at the moment, and no other file
//! is taken for it. What is damaged inside it reads as that, and costs its own stream alone.

use std::io::ErrorKind as ErrorKindOfIo;
use std::sync::Arc;

use super::discover;
use super::load::{Depth, Loaded, load_alone};
use super::report::{Damage, DamageKind, Survey};
use crate::catalog::{Catalog, Cold, ColdFile, Snapshot, archive_path, cold_path};
use crate::disk::{Disk, DiskFile};
use crate::error::{Error, ErrorKind, Place, Result};
use crate::format::SegmentHeader;
use crate::types::{Position, Seq};

fn place(path: &str) -> Place {
    Place { path: path.into(), segment: None, offset: None }
}

/// The header of the archive file at `path`; `None` when none can be read there.
pub(crate) fn header_of(
    disk: &dyn Disk,
    path: &str,
) -> std::io::Result<(Arc<dyn DiskFile>, Option<SegmentHeader>)> {
    let file = disk.open_read(path)?;
    let header = discover::header_of(&*file)?;
    Ok((file, header))
}

/// Where the file is now: under the name that everybody expects, or under its own.
///
/// # Errors
///
/// [`ErrorKind::ArchiveMissing`], [`ErrorKind::WrongArchive`], [`ErrorKind::Corrupt`], [`ErrorKind::Io`].
pub(crate) fn find(disk: &dyn Disk, cold: &Cold, log_id: [u8; 16]) -> Result<String> {
    let (plain, own) = (archive_path(cold.stream), cold_path(cold.stream, cold.seqs.salt));
    let mut objection =
        Error::new(ErrorKind::ArchiveMissing(cold.stream), "read").at(place(&plain));
    // It may be given the other name between two looks.
    for path in [&plain, &own, &plain] {
        match header_of(disk, path) {
            Ok((_, Some(header))) if header.salt == cold.seqs.salt && header.log_id == log_id => {
                return Ok(path.clone());
            }
            Ok((_, Some(_))) => {
                objection =
                    Error::new(ErrorKind::WrongArchive(cold.stream), "read").at(place(path));
            }
            Ok((_, None)) => objection = lost(cold, path),
            Err(error) if error.kind() == ErrorKindOfIo::NotFound => {}
            // A directory, or another thing that is no plain file.
            Err(error) if error.kind() == ErrorKindOfIo::InvalidInput => {
                objection = lost(cold, path);
            }
            Err(error) => return Err(Error::io("read", place(path), error)),
        }
    }
    Err(objection)
}

/// Nothing in the file can be read.
fn lost(cold: &Cold, path: &str) -> Error {
    let seqs = Some(Seq(cold.seqs.start)..Seq(cold.seqs.end));
    Error::new(ErrorKind::Corrupt { stream: Some(cold.stream), seqs }, "read").at(place(path))
}

/// The file, opened when it is first read, and kept open for a while. `catalog`: the log's.
///
/// # Errors
///
/// As [`find`].
pub(crate) fn open(catalog: &Catalog, cold: &Arc<Cold>) -> Result<Arc<ColdFile>> {
    if let Some(file) = cold.opened() {
        return Ok(file);
    }
    let missing = || Error::new(ErrorKind::ArchiveMissing(cold.stream), "read");
    let disk = catalog.disk().ok_or_else(missing)?;
    let log_id = catalog.log_id().ok_or_else(missing)?;
    let (path, loaded) = load(&**disk, cold, log_id, Depth::Quick)?;
    let snapshot = Snapshot::new(Arc::new(loaded.catalog));
    let tip = snapshot.view(cold.stream).map(|view| view.tip);
    let file = Arc::new(ColdFile { snapshot, tip: tip.ok_or_else(|| lost(cold, &path))? });
    catalog.keep_open(cold, &file);
    Ok(file)
}

fn load(disk: &dyn Disk, cold: &Cold, log_id: [u8; 16], depth: Depth) -> Result<(String, Loaded)> {
    let path = find(disk, cold, log_id)?;
    match load_alone(disk, &path, depth) {
        Ok(loaded) => Ok((path, loaded)),
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt { .. }) => Err(lost(cold, &path)),
        Err(error) => Err(error),
    }
}

/// Looks at every byte of the archive files that the log needs, and reports.
pub(super) fn survey(disk: &dyn Disk, snapshot: &Snapshot, survey: &mut Survey) -> Result<()> {
    let Some(log_id) = snapshot.catalog.log_id() else { return Ok(()) };
    for cold in snapshot.cold_files() {
        survey.archive_files += 1;
        let whole = vec![(cold.stream, Seq(cold.seqs.start)..Seq(cold.seqs.end))];
        let (kind, found) = match load(disk, &cold, log_id, Depth::Full) {
            Ok((path, loaded)) => {
                let is_cut = bytes_of(disk, &path)? != cold.seqs.file_bytes;
                survey.damages.extend(loaded.survey.damages);
                if !is_cut {
                    continue;
                }
                (DamageKind::Cut, place(&path))
            }
            Err(error) => {
                let kind = match error.kind() {
                    ErrorKind::ArchiveMissing(_) => DamageKind::Missing,
                    ErrorKind::WrongArchive(_) => DamageKind::Foreign,
                    ErrorKind::Corrupt { .. } => DamageKind::Header,
                    _ => return Err(error),
                };
                (kind, error.place().cloned().unwrap_or_else(|| place("archive")))
            }
        };
        let positions = Position(0)..Position(0);
        survey.damages.push(Damage { kind, place: found, positions, events: whole });
    }
    Ok(())
}

fn bytes_of(disk: &dyn Disk, path: &str) -> Result<u64> {
    let bytes = disk.open_read(path).and_then(|file| file.len());
    bytes.map_err(|error| Error::io("survey", place(path), error))
}
