//! Names of a log's files, and their removal.
//!
//! No file is removed or replaced by its name alone. Its header is read first and has to identify
//! it as the expected file: of this log, number and salt (F42). A file with another header, or an
//! unreadable one, is kept.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, read_at_most};
use crate::error::Place;
use crate::format::{HeaderError, SegmentHeader, decode_header, decode_twin, header};
use crate::sabotage::{Sabotage, broken};

/// Directory of the segments, in the log's directory.
pub(crate) const DIR: &str = "segments";
/// File in the log's directory whose lock the writing process holds.
pub(crate) const LOCK: &str = "LOCK";
/// File in a log's directory that marks an unfinished backup.
pub(crate) const UNFINISHED_COPY: &str = "UNFINISHED";
/// Suffix of an unfinished file.
pub(crate) const UNFINISHED: &str = ".new";
/// Suffix of a file that is kept for read views.
pub(crate) const KEPT: &str = ".kept";
/// Maximum segment number; the next number can always be represented.
pub(crate) const NUMBER_MAX: u32 = u32::MAX - 1;

/// Returns the name of a segment's file, in [`DIR`]. The name has the segment's number and not its
/// first position, so that the next file can be ready under a durable name before its commits are
/// known.
fn file_name(number: u32) -> String {
    format!("{number:010}.seg")
}

/// Returns the path of a segment's file.
pub(crate) fn path(number: u32) -> String {
    format!("{DIR}/{}", file_name(number))
}

/// Returns the place of a file of the log as a whole, for an error.
pub(crate) fn place_of(path: impl Into<PathBuf>) -> Place {
    Place { path: path.into(), segment: None, offset: None }
}

/// Returns a place in a segment, for an error.
pub(crate) fn place(number: u32, offset: u64) -> Place {
    Place { path: PathBuf::from(path(number)), segment: Some(number), offset: Some(offset) }
}

/// Returns the path of a segment's file before its header is durable. No other file has this path.
pub(crate) fn unfinished_path(header: &SegmentHeader) -> String {
    format!("{DIR}/{:010}.{:08x}.seg{UNFINISHED}", header.number, header.salt)
}

/// Parses the number in a segment's file name. Strict: accepts no foreign file.
pub(crate) fn parse_name(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg")?;
    let is_canonical = digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse().ok()?;
    (is_canonical && (1..=NUMBER_MAX).contains(&number)).then_some(number)
}

/// Parses the number of the segment with this path.
pub(crate) fn parse_path(path: &str) -> Option<u32> {
    parse_name(path.strip_prefix(DIR)?.strip_prefix('/')?)
}

/// Returns the second path of a segment's file, once another segment takes its first. No other file
/// has this path.
pub(crate) fn kept_path(header: &SegmentHeader) -> String {
    format!("{DIR}/{:010}.{:08x}.seg{KEPT}", header.number, header.salt)
}

/// Parses the number and the salt in the name of an unfinished file.
pub(crate) fn parse_unfinished(name: &str) -> Option<(u32, u32)> {
    parse_salted(name, UNFINISHED)
}

/// Parses the number and the salt in the name of a file that was kept for read views.
pub(crate) fn parse_kept(name: &str) -> Option<(u32, u32)> {
    parse_salted(name, KEPT)
}

fn parse_salted(name: &str, ending: &str) -> Option<(u32, u32)> {
    let (number, salt) = name.strip_suffix(ending)?.strip_suffix(".seg")?.split_once('.')?;
    let found = (number.parse().ok()?, u32::from_str_radix(salt, 16).ok()?);
    let is_canonical = format!("{:010}.{:08x}.seg{ending}", found.0, found.1) == name;
    (is_canonical && (1..=NUMBER_MAX).contains(&found.0)).then_some(found)
}

/// Reports whether a header block belongs to the segment with this salt; `None` if neither copy is
/// readable. A sector of another segment may stand over one of the copies.
pub(crate) fn has_salt(block: &[u8], salt: u32) -> Option<bool> {
    let first = decode_header(block).ok().map(|(header, _)| header);
    let mut copies = first.into_iter().chain(decode_twin(block)).peekable();
    copies.peek()?;
    Some(copies.any(|header| header.salt == salt))
}

/// Decodes both copies of a file's header; either of them identifies the file.
fn headers_of(file: &dyn DiskFile) -> io::Result<[Result<SegmentHeader, HeaderError>; 2]> {
    let mut block = [0; header::BLOCK_BYTES];
    let read = read_at_most(file, &mut block, 0)?;
    let twin = decode_twin(&block[..read]).ok_or(HeaderError::Damaged);
    Ok([decode_header(&block[..read]).map(|(first, _)| first), twin])
}

/// Reports whether the file is the segment with this header: the same log, number and salt.
pub(super) fn is_of(file: &dyn DiskFile, header: &SegmentHeader) -> io::Result<bool> {
    let key = |header: &SegmentHeader| (header.log_id, header.number, header.salt);
    let found = headers_of(file)?;
    Ok(found.iter().flatten().any(|found| key(found) == key(header)))
}

/// Opens the file of a segment for writing. Another file in its place is
/// [`io::ErrorKind::InvalidInput`], like anything that is not a regular file.
pub(crate) fn open_own(disk: &dyn Disk, header: &SegmentHeader) -> io::Result<Arc<dyn DiskFile>> {
    let file = disk.open_write(&path(header.number))?;
    if !broken(Sabotage::RemoveUnread) && !is_of(&*file, header)? {
        return Err(foreign());
    }
    Ok(file)
}

pub(super) fn foreign() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "another file has this name and was kept")
}

/// Removes the file of a segment, after verifying its header.
pub(crate) fn remove(disk: &dyn Disk, header: &SegmentHeader) -> io::Result<()> {
    open_own(disk, header)?;
    disk.remove(&path(header.number))
}

/// Removes a file that this process has just created, if it still has the name.
pub(crate) fn remove_made(disk: &dyn Disk, path: &str, made: &dyn DiskFile) -> io::Result<()> {
    match disk.identity_at(path)? {
        Some(found) if found == made.identity() => disk.remove(path),
        _ => Err(foreign()),
    }
}

/// Creates the file for a copy of a stream. Replaces the file of an interrupted attempt of the same
/// log, which has the log's id in its header, or no header yet.
pub(crate) fn create_anew(
    disk: &dyn Disk,
    path: &str,
    log_id: [u8; 16],
) -> io::Result<Arc<dyn DiskFile>> {
    match disk.create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let is_left = match &headers_of(&*disk.open_read(path)?)?[0] {
                Ok(found) => found.log_id == log_id,
                Err(error) => *error == HeaderError::Blank,
            };
            if !is_left {
                return Err(foreign());
            }
            disk.remove(path)?;
            disk.create(path)
        }
        result => result,
    }
}

/// Gives a finished copy of a stream its name, replacing an earlier copy of the same log.
pub(crate) fn replace_copy(
    disk: &dyn Disk,
    from: &str,
    to: &str,
    log_id: [u8; 16],
) -> io::Result<()> {
    match disk.open_read(to) {
        Ok(old) => {
            let is_own = |found: &SegmentHeader| found.log_id == log_id && found.covers.is_some();
            if !headers_of(&*old)?.iter().flatten().any(is_own) {
                return Err(foreign());
            }
            disk.replace(from, to)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => disk.rename(from, to),
        Err(error) => Err(error),
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use super::*;
    use crate::disk::SimDisk;

    /// Returns a disk where another log's file has taken the name of segment 2, and the header of
    /// the original segment.
    fn replaced() -> (SimDisk, SegmentHeader) {
        let disk = SimDisk::new(1);
        let header = |log| SegmentHeader {
            log_id: [log; 16],
            number: 2,
            reserved_bytes: 16 << 10,
            created_micros: 0,
            salt: 7,
            covers: None,
        };
        disk.write_file(&path(2), &header(2).encode());
        (disk, header(1))
    }

    #[test]
    fn p6_f42_a_file_that_is_another_by_now_is_neither_removed_nor_opened() {
        let (disk, header) = replaced();
        remove(&disk, &header).expect_err("another log's");
        assert!(open_own(&disk, &header).is_err() && disk.files().contains_key(&path(2)));
        let own = SegmentHeader { log_id: [2; 16], ..header };
        remove(&disk, &own).expect("its own");
        assert!(disk.files().is_empty());
    }

    #[cfg(amberlog_sabotage)]
    #[test]
    fn control_a_file_that_is_removed_unread_is_noticed() {
        use crate::sabotage::sabotage;
        let (disk, header) = replaced();
        let _broken = sabotage(Sabotage::RemoveUnread);
        remove(&disk, &header).expect("unread");
        assert!(!disk.files().contains_key(&path(2)));
    }
}
