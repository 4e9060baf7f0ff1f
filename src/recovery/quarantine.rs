//! Quarantine: files beside the segments that keep what a repair removes from the log.
//!
//! A whole file is renamed; part of a file is copied, as far as it can be read. A copy gets its
//! final name only once it is complete and durable, so an interrupted repair finds a whole copy or
//! none, and makes no copy twice.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, IoResultExt, Unread, copy_around, read_around, read_exact_at};
use crate::error::{Place, Result};
use crate::format::{decode_tail_record, tail_record};
use crate::segment::{DIR, FilePool, Segment, UNFINISHED, path, place};
use crate::types::range_len;

const PIECE_BYTES: u64 = 1 << 20;

/// Renames a segment file so that it is no longer part of the log.
pub(super) fn quarantine_file(disk: &dyn Disk, number: u32) -> Result<Place> {
    let here = || place(number, 0);
    for kept in names(format!("{}.aside", path(number))) {
        match disk.rename(&path(number), &kept) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => {
                result.and_then(|()| disk.sync_dir(DIR)).at("quarantine", here)?;
                return Ok(Place { path: kept.into(), segment: Some(number), offset: None });
            }
        }
    }
    Err(io::ErrorKind::AlreadyExists.into()).at("quarantine", here)
}

/// Copies the bytes of a segment at `range`, up to the end of the file, to a file of their own.
pub(super) fn keep_bytes(files: &FilePool, segment: &Segment, range: Range<u64>) -> Result<Place> {
    let (number, start) = (segment.number(), range.start);
    let (disk, from) = (files.disk(), &*segment.file_to_write(files)?);
    let unfinished = |name: &str| format!("{name}.{:08x}{UNFINISHED}", segment.header.salt);
    let keep = || -> io::Result<String> {
        let range = start..range.end.min(from.len()?).max(start);
        for name in names(format!("{}.{start}.torn", path(number))) {
            match disk.open_read(&name) {
                Ok(kept) if is_rest_of((from, segment.header.salt), range.clone(), &*kept)? => {
                    // The sync of its name may have failed: rename it again and sync.
                    let unfinished = unfinished(&name);
                    disk.rename(&name, &unfinished)?;
                    disk.rename(&unfinished, &name)?;
                    disk.sync_dir(DIR)?;
                    return Ok(name);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let unfinished = unfinished(&name);
                    let file = create_unfinished(&**disk, &unfinished)?;
                    copy_around(from, range, &*file, 0)?;
                    file.sync_data()?;
                    disk.rename(&unfinished, &name)?;
                    disk.sync_dir(DIR)?;
                    return Ok(name);
                }
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    };
    let name = keep().at("keep", || segment.place(start))?;
    Ok(Place { path: name.into(), segment: Some(number), offset: Some(start) })
}

/// Creates the file of an unfinished copy and replaces one that an interrupted repair left. The
/// name holds the segment's salt, so no other file can have it; the segment still holds the bytes.
fn create_unfinished(disk: &dyn Disk, path: &str) -> io::Result<Arc<dyn DiskFile>> {
    match disk.create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(path)?;
            disk.create(path)
        }
        file => file,
    }
}

/// Returns a file name, followed by alternatives in case it is taken.
fn names(first: String) -> impl Iterator<Item = String> {
    const NAMES_MAX: u32 = 10_000;
    (1..NAMES_MAX).map(move |n| if n == 1 { first.clone() } else { format!("{first}.{n}") })
}

/// Returns true if `kept` holds all bytes at `range`, apart from those that an interrupted clearing
/// has already zeroed, and the tail record that it may have written over the first bytes.
fn is_rest_of(
    (file, salt): (&dyn DiskFile, u32),
    range: Range<u64>,
    kept: &dyn DiskFile,
) -> io::Result<bool> {
    if kept.len()? < range_len(&range) {
        return Ok(false);
    }
    let mut here = vec![0; PIECE_BYTES.min(range_len(&range)) as usize];
    let mut there = here.clone();
    let mut at = range.start;
    while at < range.end {
        let bytes = PIECE_BYTES.min(range_len(&(at..range.end))) as usize;
        if read_around(file, &mut here[..bytes], at, &mut Unread::default())? < bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        read_exact_at(kept, &mut there[..bytes], range_len(&(range.start..at)))?;
        let is_tail_record = at == range.start && decode_tail_record(&here, salt).is_some();
        let from = if is_tail_record { tail_record::BYTES.min(bytes) } else { 0 };
        let mut both = here[from..bytes].iter().zip(&there[from..bytes]);
        if both.any(|(here, there)| *here != 0 && here != there) {
            return Ok(false);
        }
        at = at.saturating_add(bytes as u64);
    }
    Ok(true)
}
