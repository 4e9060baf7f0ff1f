//! What files there are, and what each of them is.
//!
//! Every file in the segments' directory whose name is a segment's is accounted for: a segment, a spare, the
//! rest of one that was never finished, or something that cannot be used, with the reason.

use std::io::ErrorKind as ErrorKindOfIo;
use std::sync::Arc;

use super::report::DamageKind;
use super::scan::{Scanner, Step};
use crate::disk::{Disk, DiskFile, read_exact_at};
use crate::error::{Error, ErrorKind, Place, Result};
use crate::format::{
    COMMITS_AT, HeaderError, SegmentHeader, VERSION, decode_header, header, is_zero,
};
use crate::segment::{DIR, Sealed, Segment, Spare, parse_name, path, place};

/// How to open the files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Read,
    Write,
}

/// A file with the name of a segment.
pub(super) struct Candidate {
    pub(super) number: u32,
    pub(super) bytes: u64,
    pub(super) role: Role,
    /// One of the header's two copies is damaged.
    pub(super) header_hurt: bool,
}

/// What the file is.
pub(super) enum Role {
    /// A segment with something in it.
    Segment(Start),
    /// A segment with nothing in it: made ready, and not used.
    Spare(Spare),
    /// Nothing but zeros behind a header that was never finished.
    Blank,
    /// No segment of this log.
    Unusable(DamageKind),
}

/// How a segment starts.
pub(super) struct Start {
    pub(super) header: SegmentHeader,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) sealed: Option<Sealed>,
    /// The position of its first commit; `None` when that commit cannot be read.
    pub(super) first: Option<u64>,
}

/// The files of a log, by number. `None`: there is no log.
pub(super) struct Discovered {
    pub(super) log_id: Option<[u8; 16]>,
    pub(super) candidates: Vec<Candidate>,
}

/// Looks at every file.
pub(super) fn discover(disk: &dyn Disk, access: Access) -> Result<Option<Discovered>> {
    let names = match disk.list(DIR) {
        Ok(names) => names,
        Err(error) if error.kind() == ErrorKindOfIo::NotFound => return Ok(None),
        Err(error) => {
            let place = Place { path: DIR.into(), segment: None, offset: None };
            return Err(Error::io("list", place, error));
        }
    };
    let mut numbers: Vec<u32> =
        names.iter().filter_map(|name| parse_name(name.to_str()?)).collect();
    numbers.sort_unstable();
    let mut opened = Vec::with_capacity(numbers.len());
    for number in numbers {
        opened.extend(Opened::look_at(disk, access, number)?);
    }
    let log_id = majority(&opened);
    let candidates = opened.into_iter().map(|one| one.judge(log_id)).collect::<Result<_>>()?;
    Ok(Some(Discovered { log_id, candidates }))
}

/// A file whose header was read.
struct Opened {
    number: u32,
    /// `None`: a directory, or another thing that is no plain file.
    file: Option<Arc<dyn DiskFile>>,
    bytes: u64,
    header: Result<(SegmentHeader, bool), HeaderError>,
}

/// Each header names its log. The log is the one that most of them name, so that no single file can
/// speak for all others; of two with as many, the one that comes first.
fn majority(all: &[Opened]) -> Option<[u8; 16]> {
    let ids = || all.iter().filter_map(|one| one.header.ok()).map(|(header, _)| header.log_id);
    let votes = |id: [u8; 16]| ids().filter(|one| *one == id).count();
    let mut best: Option<([u8; 16], usize)> = None;
    for id in ids() {
        if best.is_none_or(|(leading, most)| leading != id && votes(id) > most) {
            best = Some((id, votes(id)));
        }
    }
    best.map(|(id, _)| id)
}

impl Opened {
    fn look_at(disk: &dyn Disk, access: Access, number: u32) -> Result<Option<Self>> {
        let failed = |error| Error::io("open", place(number, 0), error);
        let opened = match access {
            Access::Read => disk.open_read(&path(number)),
            Access::Write => disk.open_write(&path(number)),
        };
        let file = match opened {
            Ok(file) => file,
            // A spare that a writer in another process has just given back.
            Err(error) if error.kind() == ErrorKindOfIo::NotFound => return Ok(None),
            // What the disk says of a directory, a pipe or a device.
            Err(error) if error.kind() == ErrorKindOfIo::InvalidInput => {
                let header = Err(HeaderError::Damaged);
                return Ok(Some(Self { number, file: None, bytes: 0, header }));
            }
            Err(error) => return Err(failed(error)),
        };
        let bytes = file.len().map_err(failed)?;
        let mut block = vec![0; bytes.min(header::BLOCK_BYTES as u64) as usize];
        read_exact_at(&*file, &mut block, 0).map_err(failed)?;
        let header = decode_header(&block);
        if let Err(HeaderError::Version(found)) = header {
            let kind = ErrorKind::UnsupportedVersion { found, supported: VERSION };
            return Err(Error::new(kind, "open").at(place(number, 0)));
        }
        Ok(Some(Self { number, file: Some(file), bytes, header }))
    }

    fn judge(self, log_id: Option<[u8; 16]>) -> Result<Candidate> {
        let Self { number, file, bytes, header } = self;
        let header_hurt = matches!(header, Ok((_, false)));
        let role = match (header, file) {
            (_, None) => Role::Unusable(DamageKind::Foreign),
            (Ok((header, _)), _) if Some(header.log_id) != log_id => {
                Role::Unusable(DamageKind::Foreign)
            }
            (Ok((header, _)), _) if header.number != number => {
                Role::Unusable(DamageKind::Misplaced)
            }
            (Ok((header, whole)), Some(file)) => start(header, whole, file, bytes)?,
            (Err(_), Some(file)) if is_blank(number, &*file, bytes)? => Role::Blank,
            (Err(_), Some(_)) => Role::Unusable(DamageKind::Header),
        };
        let header_hurt = header_hurt && matches!(role, Role::Segment(_));
        Ok(Candidate { number, bytes, role, header_hurt })
    }
}

fn start(header: SegmentHeader, whole: bool, file: Arc<dyn DiskFile>, bytes: u64) -> Result<Role> {
    let sealed = Sealed::open(&header, &*file)
        .map_err(|error| Error::io("open", place(header.number, 0), error))?;
    if let Some(sealed) = sealed {
        let first = Some(sealed.first_position);
        return Ok(Role::Segment(Start { header, file, sealed: Some(sealed), first }));
    }
    let segment = Arc::new(Segment::active(header, 0, Arc::clone(&file)));
    let mut scanner = Scanner::new(segment, bytes);
    let first = match scanner.step(COMMITS_AT)? {
        Step::Commit(found) => Some(found.head.position),
        Step::Witness(witness) => Some(witness.position),
        _ if scanner.last_written(COMMITS_AT)?.is_none() => {
            // Only one that was finished may be used: whole, and as long as it says.
            let finished = whole && bytes >= header.reserved_bytes;
            return Ok(if finished { Role::Spare(Spare { header, file }) } else { Role::Blank });
        }
        _ => None,
    };
    Ok(Role::Segment(Start { header, file, sealed: None, first }))
}

/// Whether everything behind the header block is zero.
fn is_blank(number: u32, file: &dyn DiskFile, bytes: u64) -> Result<bool> {
    const PIECE_BYTES: u64 = 1 << 20;
    let mut piece = vec![0; PIECE_BYTES.min(bytes) as usize];
    let mut at = COMMITS_AT;
    while at < bytes {
        let part = &mut piece[..PIECE_BYTES.min(bytes - at) as usize];
        read_exact_at(file, part, at)
            .map_err(|error| Error::io("read", place(number, at), error))?;
        if !is_zero(part) {
            return Ok(false);
        }
        at += part.len() as u64;
    }
    Ok(true)
}
