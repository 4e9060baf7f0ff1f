//! What files there are, and what each of them is.
//!
//! Every file in the segments' directory whose name is a segment's is accounted for: a segment, a spare, or
//! something that cannot be used, with the reason. One that was never finished has another name.

use std::io::ErrorKind as ErrorKindOfIo;
use std::sync::Arc;

use super::report::DamageKind;
use super::scan::{Scanner, Step};
use crate::disk::{Disk, DiskFile, read_at_most, read_exact_at};
use crate::error::{Error, ErrorKind, Place, Result};
use crate::format::{
    COMMITS_AT, HeaderError, SegmentHeader, VERSION, commit_header, decode_header, decode_twin,
    header, is_zero, seems_segment,
};
use crate::segment::{
    DIR, Sealed, Segment, Spare, UNFINISHED_COPY, is_unfinished, parse_name, path, place,
};

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
    /// No segment of this log.
    Unusable(DamageKind),
}

/// How a segment starts.
pub(super) struct Start {
    pub(super) header: SegmentHeader,
    pub(super) file: Arc<dyn DiskFile>,
    /// As a segment that is sealed, when it is.
    pub(super) sealed: Option<Arc<Segment>>,
    /// The position of its first commit; `None` when that commit cannot be read.
    pub(super) first: Option<u64>,
}

/// The files of a log, by number. `None`: there is no log.
pub(super) struct Discovered {
    pub(super) log_id: Option<[u8; 16]>,
    pub(super) candidates: Vec<Candidate>,
    /// Paths of files that were never finished.
    pub(super) unfinished: Vec<String>,
}

/// Which files with nothing where their first commit would be are spares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Spares {
    /// Those that hold nothing anywhere.
    Searched,
    /// All of them, until somebody has looked ([`super::ahead`]).
    Presumed,
}

/// Looks at every file.
pub(super) fn discover(
    disk: &dyn Disk,
    access: Access,
    spares: Spares,
) -> Result<Option<Discovered>> {
    let above = match disk.list("") {
        Ok(names) => names,
        Err(error) if error.kind() == ErrorKindOfIo::NotFound => return Ok(None),
        Err(error) => {
            let place = Place { path: "".into(), segment: None, offset: None };
            return Err(Error::io("list", place, error));
        }
    };
    if above.iter().any(|name| name == UNFINISHED_COPY) {
        return Err(Error::new(ErrorKind::UnfinishedBackup, "open"));
    }
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
    let judged = opened.into_iter().map(|one| one.judge(log_id, spares));
    let candidates = judged.collect::<Result<_>>()?;
    let leftovers =
        names.iter().filter_map(|name| name.to_str()).filter(|name| is_unfinished(name));
    let unfinished = leftovers.map(|name| format!("{DIR}/{name}")).collect();
    Ok(Some(Discovered { log_id, candidates, unfinished }))
}

/// The file of this name, as the only segment of its log. What is no segment at all is
/// [`ErrorKind::NoLog`].
pub(super) fn alone(disk: &dyn Disk, name: &str) -> Result<Candidate> {
    let place = || Place { path: name.into(), segment: None, offset: None };
    let failed = |error| Error::io("open", place(), error);
    let file = disk.open_read(name).map_err(failed)?;
    let bytes = file.len().map_err(failed)?;
    let mut block = vec![0; bytes.min(header::BLOCK_BYTES as u64) as usize];
    read_exact_at(&*file, &mut block, 0).map_err(failed)?;
    match decode_header(&block) {
        Ok((header, whole)) if header.covers.is_some() => {
            let role = start(header, file, bytes, Spares::Searched)?;
            Ok(Candidate { number: header.number, bytes, role, header_hurt: !whole })
        }
        Err(HeaderError::Version(found)) => {
            let kind = ErrorKind::UnsupportedVersion { found, supported: VERSION };
            Err(Error::new(kind, "open").at(place()))
        }
        Err(_) if seems_segment(&block) => Err(Error::corrupt("open", place())),
        Ok(_) | Err(_) => Err(Error::new(ErrorKind::NoLog, "open").at(place())),
    }
}

/// The header of a file that stands alone; `None` when it has none that can be read.
pub(super) fn header_of(file: &dyn DiskFile) -> std::io::Result<Option<SegmentHeader>> {
    let mut block = vec![0; file.len()?.min(header::BLOCK_BYTES as u64) as usize];
    read_exact_at(file, &mut block, 0)?;
    Ok(decode_header(&block).ok().map(|(header, _)| header))
}

/// A file whose header was read.
struct Opened {
    number: u32,
    /// `None`: a directory, or another thing that is no plain file.
    file: Option<Arc<dyn DiskFile>>,
    bytes: u64,
    header: Result<(SegmentHeader, bool), HeaderError>,
    twin: Option<SegmentHeader>,
    /// Something stands where its first commit would.
    used: bool,
}

/// Each header names its log. The log is the one that most of them name, so that no single file can
/// speak for all others; of two with as many, the one that comes first. Spares have no say as long as there is
/// anything else: they come and go, and whose log it is must not change with them.
fn majority(all: &[Opened]) -> Option<[u8; 16]> {
    let any_used = all.iter().any(|one| one.used && one.header.is_ok());
    let voters = || all.iter().filter(|one| one.used || !any_used);
    let ids = || voters().filter_map(|one| one.header.ok()).map(|(header, _)| header.log_id);
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
                return Ok(Some(Self {
                    number,
                    file: None,
                    bytes: 0,
                    header,
                    twin: None,
                    used: false,
                }));
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
        let mut first = [0; commit_header::BYTES];
        let read = read_at_most(&*file, &mut first, COMMITS_AT).map_err(failed)?;
        let used = !is_zero(&first[..read]);
        let twin = decode_twin(&block);
        Ok(Some(Self { number, file: Some(file), bytes, header, twin, used }))
    }

    fn judge(self, log_id: Option<[u8; 16]>, spares: Spares) -> Result<Candidate> {
        let Self { number, file, bytes, header, twin, .. } = self;
        let is_own = |one: &SegmentHeader| one.number == number && Some(one.log_id) == log_id;
        let header = match (header, twin) {
            // A sector of another segment may stand over the first copy.
            (Ok((first, _)), Some(twin)) if !is_own(&first) && is_own(&twin) => Ok((twin, false)),
            (header, _) => header,
        };
        let header_hurt = matches!(header, Ok((_, false)));
        let role = match (header, file) {
            (_, None) => Role::Unusable(DamageKind::Foreign),
            (Ok((header, _)), _) if Some(header.log_id) != log_id => {
                Role::Unusable(DamageKind::Foreign)
            }
            (Ok((header, _)), _) if header.number != number => {
                Role::Unusable(DamageKind::Misplaced)
            }
            (Ok((header, _)), Some(file)) => start(header, file, bytes, spares)?,
            // A file gets its name after its header is durable: zeros are damage as anything else is.
            (Err(_), Some(_)) => Role::Unusable(DamageKind::Header),
        };
        Ok(Candidate { number, bytes, role, header_hurt })
    }
}

fn start(
    header: SegmentHeader,
    file: Arc<dyn DiskFile>,
    bytes: u64,
    spares: Spares,
) -> Result<Role> {
    let sealed = Sealed::open(&header, &*file)
        .map_err(|error| Error::io("open", place(header.number, 0), error))?;
    if let Some(sealed) = sealed {
        let first = Some(sealed.first_position);
        let segment = Segment::sealed(header, Arc::clone(&file), sealed);
        let sealed = Some(Arc::new(segment));
        return Ok(Role::Segment(Start { header, file, sealed, first }));
    }
    if let Some(covers) = header.covers {
        return Ok(Role::Segment(Start { header, file, sealed: None, first: Some(covers.first) }));
    }
    let mut scanner = scanner(&header, &file, bytes);
    let first = match scanner.step(COMMITS_AT)? {
        Step::Commit(found) => Some(found.head.position),
        Step::Witness(witness) => Some(witness.position),
        // A spare is as long as its header says before it gets its name; what is shorter was cut.
        step if bytes >= header.reserved_bytes => {
            let presumed = spares == Spares::Presumed && matches!(step, Step::End);
            if presumed || scanner.last_written(COMMITS_AT)?.is_none() {
                return Ok(Role::Spare(Spare { header, file }));
            }
            None
        }
        _ => None,
    };
    Ok(Role::Segment(Start { header, file, sealed: None, first }))
}

/// For a look at a segment of which nothing is known yet.
pub(super) fn scanner(header: &SegmentHeader, file: &Arc<dyn DiskFile>, bytes: u64) -> Scanner {
    Scanner::new(Arc::new(Segment::active(*header, 0, Arc::clone(file))), bytes)
}
