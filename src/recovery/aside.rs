//! Keeping, beside the segments, what is no longer part of the log.
//!
//! A whole file gets another name; of a part of one a copy is made. A copy gets its name only when it is whole
//! and durable, so that an interrupted repair finds either all of it or none, and makes none twice.

use std::io;
use std::ops::Range;

use crate::disk::{Disk, DiskFile, copy_at, read_exact_at};
use crate::error::{Error, Place, Result};
use crate::format::{decode_witness, witness};
use crate::segment::{DIR, Segment, UNFINISHED, create_anew, path, place};

const PIECE_BYTES: u64 = 1 << 20;

/// Gives a file another name, under which it is no segment any more.
pub(super) fn set_aside(disk: &dyn Disk, number: u32) -> Result<Place> {
    let failed = |error| Error::io("set aside", place(number, 0), error);
    for aside in names(format!("{}.aside", path(number))) {
        match disk.rename(&path(number), &aside) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => {
                result.and_then(|()| disk.sync_dir(DIR)).map_err(failed)?;
                return Ok(Place { path: aside.into(), segment: Some(number), offset: None });
            }
        }
    }
    Err(failed(io::ErrorKind::AlreadyExists.into()))
}

/// Copies the bytes of a segment at `range`, as far as the file goes, to a file of their own.
pub(super) fn keep_bytes(disk: &dyn Disk, segment: &Segment, range: Range<u64>) -> Result<Place> {
    let (number, start) = (segment.number(), range.start);
    let keep = || -> io::Result<String> {
        let range = start..range.end.min(segment.file.len()?).max(start);
        for name in names(format!("{}.{start}.torn", path(number))) {
            match disk.open_read(&name) {
                Ok(kept) if is_rest_of(segment, range.clone(), &*kept)? => {
                    disk.sync_dir(DIR)?;
                    return Ok(name);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let unfinished = format!("{name}{UNFINISHED}");
                    let file = create_anew(disk, &unfinished)?;
                    copy_at(&*segment.file, range, &*file, 0)?;
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
    let name = keep().map_err(|error| segment.io_error("keep", start, error))?;
    Ok(Place { path: name.into(), segment: Some(number), offset: Some(start) })
}

/// A name, and others for when it is taken.
fn names(first: String) -> impl Iterator<Item = String> {
    const NAMES_MAX: u32 = 10_000;
    (1..NAMES_MAX).map(move |n| if n == 1 { first.clone() } else { format!("{first}.{n}") })
}

/// Whether `kept` has all of what stands at `range`: the same bytes, but for those that a clearing which was cut has
/// reached, and the witness that it may have written over the first of them.
fn is_rest_of(segment: &Segment, range: Range<u64>, kept: &dyn DiskFile) -> io::Result<bool> {
    let file = &*segment.file;
    if kept.len()? < range.end - range.start {
        return Ok(false);
    }
    let mut here = vec![0; PIECE_BYTES.min(range.end - range.start) as usize];
    let mut there = here.clone();
    let mut at = range.start;
    while at < range.end {
        let bytes = PIECE_BYTES.min(range.end - at) as usize;
        read_exact_at(file, &mut here[..bytes], at)?;
        read_exact_at(kept, &mut there[..bytes], at - range.start)?;
        let is_witness = at == range.start && decode_witness(&here, segment.header.salt).is_some();
        let from = if is_witness { witness::BYTES.min(bytes) } else { 0 };
        let mut both = here[from..bytes].iter().zip(&there[from..bytes]);
        if both.any(|(here, there)| *here != 0 && here != there) {
            return Ok(false);
        }
        at += bytes as u64;
    }
    Ok(true)
}
