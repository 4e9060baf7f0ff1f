//! Discovery and classification of the files of a log.
//!
//! Classifies every file with a segment's name in the segment directory: a segment, a spare, or an
//! unusable file with the reason. Unfinished files have other names. Each file is open only while
//! it is read.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::ErrorKind as ErrorKindOfIo;
use std::sync::Arc;

use super::report::DamageKind;
use crate::disk::IoResultExt;
use crate::error::{Error, ErrorKind, Place, Result};
use crate::format::{
    COMMITS_AT, Gone, HeaderError, SegmentHeader, VERSION, commit_header, decode_header,
    decode_twin, header, is_zero, seems_segment,
};
use crate::segment::scan::{Scanner, Step};
use crate::segment::{
    Block, DIR, FilePool, KEPT, Segment, UNFINISHED_COPY, parse_kept, parse_name, parse_unfinished,
    path, place, place_of,
};

/// File with the name of a segment.
pub(super) struct Candidate {
    pub(super) number: u32,
    pub(super) bytes: u64,
    pub(super) role: Role,
    /// True if one of the header's two copies is damaged.
    pub(super) header_damaged: bool,
}

/// Classification of a file.
pub(super) enum Role {
    /// Segment that holds something.
    Segment(Start),
    /// Empty segment, prepared and not used.
    Spare(SegmentHeader),
    /// Not a usable segment of this log.
    Unusable(DamageKind),
}

/// Order of files: by number. A file that stands for dropped segments comes after the last of
/// these; of two such files, the one that stands for more segments comes last.
pub(super) type Rank = (u32, u64);

impl Candidate {
    pub(super) fn rank(&self) -> Rank {
        let gone = self.sealed().filter(|segment| segment.is_gone());
        (self.number, gone.map_or(0, |segment| !segment.first_position))
    }

    fn sealed(&self) -> Option<&Segment> {
        match &self.role {
            Role::Segment(start) => start.sealed.as_deref(),
            _ => None,
        }
    }

    /// Returns true if nothing is left of the segments that it stands for.
    pub(super) fn is_gone(&self) -> bool {
        self.sealed().is_some_and(Segment::is_gone)
    }

    /// Returns the empty file that stands for dropped segments, or `None` if the file is something
    /// else.
    fn gone(
        files: &FilePool,
        path: &str,
        gone: &Gone,
        log_id: Option<[u8; 16]>,
    ) -> Result<Option<Self>> {
        let Some(log_id) = log_id.filter(|log_id| gone.is_of(*log_id)) else { return Ok(None) };
        let bytes = match files.open_path(path).and_then(|file| file.len()) {
            // A compactor in another process has just merged it into another file.
            Err(error) if error.kind() == ErrorKindOfIo::NotFound => return Ok(None),
            Err(error) if error.kind() == ErrorKindOfIo::InvalidInput => return Ok(None),
            result => result.at("open", || place_of(path))?,
        };
        let segment = Segment::gone(log_id, gone);
        let (header, first) = (segment.header, Some(segment.first_position));
        let role = Role::Segment(Start { header, sealed: Some(Arc::new(segment)), first });
        let found = Self { number: gone.number, bytes, role, header_damaged: false };
        Ok((bytes == 0).then_some(found))
    }
}

impl Role {
    /// Returns the header if the file is a segment or a spare of this log.
    pub(super) fn header(&self) -> Option<SegmentHeader> {
        match self {
            Self::Segment(start) => Some(start.header),
            Self::Spare(header) => Some(*header),
            Self::Unusable(_) => None,
        }
    }
}

/// Start of a segment.
pub(super) struct Start {
    pub(super) header: SegmentHeader,
    /// Sealed segment, if the trailer seals it. Its index is not read yet.
    pub(super) sealed: Option<Arc<Segment>>,
    /// Position of its first commit; `None` if that commit cannot be read.
    pub(super) first: Option<u64>,
}

/// Files of a log, by number.
pub(super) struct Discovered {
    pub(super) log_id: Option<[u8; 16]>,
    pub(super) candidates: Vec<Candidate>,
    /// Numbers of all listed files.
    pub(super) numbers: Vec<u32>,
    /// Paths of unfinished files of the log, and of files that read views of another process kept.
    pub(super) unfinished: Vec<String>,
    /// Files that have such a name without being a file of this log.
    pub(super) foreign: Vec<Place>,
}

/// Treatment of files with zeros in place of their first commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Spares {
    /// Files that hold only zeros are spares.
    Searched,
    /// All are taken for spares until helper threads have searched them.
    Presumed,
}

/// Classifies every file. Returns `None` if no log exists.
pub(super) fn discover(files: &Arc<FilePool>, spares: Spares) -> Result<Option<Discovered>> {
    let disk = files.disk();
    let above = match disk.list("") {
        Err(error) if error.kind() == ErrorKindOfIo::NotFound => return Ok(None),
        result => result.at("list", || place_of(""))?,
    };
    if above.iter().any(|name| name == UNFINISHED_COPY) {
        return Err(Error::new(ErrorKind::UnfinishedBackup, "open"));
    }
    let names = match disk.list(DIR) {
        Err(error) if error.kind() == ErrorKindOfIo::NotFound => return Ok(None),
        result => result.at("list", || place_of(DIR))?,
    };
    let numbers = numbers(&names);
    let mut opened = Vec::with_capacity(numbers.len());
    for number in &numbers {
        opened.extend(Opened::look_at(files, *number)?);
    }
    let log_id = majority(&opened);
    let classified = opened.into_iter().map(|file| file.classify(files, log_id, spares));
    let mut candidates: Vec<_> = classified.collect::<Result<_>>()?;
    let (mut unfinished, mut foreign) = (Vec::new(), Vec::new());
    for name in names.iter().filter_map(|name| name.to_str()) {
        let path = format!("{DIR}/{name}");
        let key = parse_unfinished(name).or_else(|| parse_kept(name));
        if let Some(gone) = Gone::parse(name) {
            match Candidate::gone(files, &path, &gone, log_id)? {
                Some(gone) => candidates.push(gone),
                None => foreign.push(place_of(&path)),
            }
        } else if key.is_some_and(|key| is_leftover(files, &path, key, log_id)) {
            unfinished.push(path);
        } else if key.is_some() {
            foreign.push(place_of(&path));
        }
    }
    candidates.sort_by_key(Candidate::rank);
    Ok(Some(Discovered { log_id, candidates, numbers, unfinished, foreign }))
}

/// Returns the numbers in the names of segments, in order.
pub(super) fn numbers(names: &[OsString]) -> Vec<u32> {
    let mut numbers: Vec<u32> =
        names.iter().filter_map(|name| parse_name(name.to_str()?)).collect();
    numbers.sort_unstable();
    numbers
}

/// Returns true if an unfinished file belongs to this log: its header agrees with its name, or none
/// was written yet. An unreadable file does not count.
fn is_leftover(
    files: &FilePool,
    path: &str,
    (number, salt): (u32, u32),
    log_id: Option<[u8; 16]>,
) -> bool {
    let found = files.open_path(path).and_then(|file| {
        let mut block = [0; header::BLOCK_BYTES];
        let (read, unread) = files.read(&*file, || path.to_owned(), &mut block, 0)?;
        Ok(decode_header(&block[..read]).map_err(|error| (error, unread.is_some())))
    });
    match found {
        Ok(Ok((found, _))) => {
            // A log without segments has no compacted files.
            let is_own = log_id.map_or(found.covers.is_none(), |id| id == found.log_id);
            is_own && (found.number, found.salt) == (number, salt)
        }
        Ok(Err((error, is_unread))) => {
            error == HeaderError::Blank && !is_unread && !path.ends_with(KEPT)
        }
        Err(_) => false,
    }
}

/// Returns the file of this name as the only segment of its log. Fails with [`ErrorKind::NoLog`] if
/// it is not a segment.
pub(super) fn alone(files: &Arc<FilePool>, name: &str) -> Result<Candidate> {
    let place = || place_of(name);
    let file = files.open_path(name).at("open", place)?;
    let block = Block::read(files, &*file, &|| name.into()).at("open", place)?;
    match block.header() {
        Ok((header, whole)) if header.covers.is_some() => {
            let role = start(header, &block, files, Spares::Searched)?;
            if let Role::Segment(Start { sealed: Some(segment), .. }) = &role {
                segment.stands_alone_at(name);
            }
            let bytes = block.file_bytes;
            Ok(Candidate { number: header.number, bytes, role, header_damaged: !whole })
        }
        Err(HeaderError::Version(found)) => {
            let kind = ErrorKind::UnsupportedVersion { found, supported: VERSION };
            Err(Error::new(kind, "open").at(place()))
        }
        Err(_) if seems_segment(&block.front) || block.is_unread => {
            Err(Error::corrupt("open", place()))
        }
        Ok(_) | Err(_) => Err(Error::new(ErrorKind::NoLog, "open").at(place())),
    }
}

/// File whose header was read.
struct Opened {
    number: u32,
    /// First and last bytes; `None` for a directory or another irregular file.
    block: Option<Block>,
    header: Result<(SegmentHeader, bool), HeaderError>,
    twin: Option<SegmentHeader>,
    /// True if anything but zeros stands in place of the first commit.
    used: bool,
}

/// Returns the log id that most headers name, so that no single file decides; the first one wins a
/// tie. Spares count only if no other file exists: they come and go, and must not change the log's
/// identity.
fn majority(all: &[Opened]) -> Option<[u8; 16]> {
    let any_used = all.iter().any(|file| file.used && file.header.is_ok());
    let voters = || all.iter().filter(|file| file.used || !any_used);
    let ids = || voters().filter_map(|file| file.header.ok()).map(|(header, _)| header.log_id);
    let mut votes: HashMap<[u8; 16], usize> = HashMap::new();
    for id in ids() {
        let votes = votes.entry(id).or_default();
        *votes = votes.saturating_add(1);
    }
    let most = votes.values().max()?;
    ids().find(|id| votes.get(id) == Some(most))
}

impl Opened {
    fn look_at(files: &FilePool, number: u32) -> Result<Option<Self>> {
        let here = || place(number, 0);
        let file = match files.open_path(&path(number)) {
            Ok(file) => file,
            // A writer in another process has just removed this spare.
            Err(error) if error.kind() == ErrorKindOfIo::NotFound => return Ok(None),
            // The disk's error for a directory, a pipe or a device.
            Err(error) if error.kind() == ErrorKindOfIo::InvalidInput => {
                let header = Err(HeaderError::Damaged);
                return Ok(Some(Self { number, block: None, header, twin: None, used: false }));
            }
            Err(error) => return Err(error).at("open", here),
        };
        let path = || path(number);
        let block = Block::read(files, &*file, &path).at("open", here)?;
        let header = block.header();
        if let Err(HeaderError::Version(found)) = header {
            let kind = ErrorKind::UnsupportedVersion { found, supported: VERSION };
            return Err(Error::new(kind, "open").at(place(number, 0)));
        }
        let mut first = [0; commit_header::BYTES];
        let (read, _) = files.read(&*file, path, &mut first, COMMITS_AT).at("open", here)?;
        let used = !is_zero(&first[..read]);
        let twin = decode_twin(&block.front);
        Ok(Some(Self { number, block: Some(block), header, twin, used }))
    }

    fn classify(
        self,
        files: &Arc<FilePool>,
        log_id: Option<[u8; 16]>,
        spares: Spares,
    ) -> Result<Candidate> {
        let Self { number, block, header, twin, .. } = self;
        let bytes = block.as_ref().map_or(0, |block| block.file_bytes);
        let is_own =
            |header: &SegmentHeader| header.number == number && Some(header.log_id) == log_id;
        let header = match (header, twin) {
            // A misdirected write may have put another segment's sector over the first copy.
            (Ok((first, _)), Some(twin)) if !is_own(&first) && is_own(&twin) => Ok((twin, false)),
            (header, _) => header,
        };
        let header_damaged = matches!(header, Ok((_, false)));
        let role = match (header, block) {
            (_, None) => Role::Unusable(DamageKind::Foreign),
            (Ok((header, _)), _) if Some(header.log_id) != log_id => {
                Role::Unusable(DamageKind::Foreign)
            }
            (Ok((header, _)), _) if header.number != number => {
                Role::Unusable(DamageKind::Misplaced)
            }
            (Ok((header, _)), Some(block)) => start(header, &block, files, spares)?,
            // A file is named only after its header is durable, so zeros are damage too.
            (Err(_), Some(_)) => Role::Unusable(DamageKind::Header),
        };
        Ok(Candidate { number, bytes, role, header_damaged })
    }
}

fn start(
    header: SegmentHeader,
    block: &Block,
    files: &Arc<FilePool>,
    spares: Spares,
) -> Result<Role> {
    if let Some(sealed) = block.sealed(&header) {
        let first = Some(sealed.first_position);
        let sealed = Some(Arc::new(Segment::sealed(header, sealed)));
        return Ok(Role::Segment(Start { header, sealed, first }));
    }
    if let Some(covers) = header.covers {
        return Ok(Role::Segment(Start { header, sealed: None, first: Some(covers.first) }));
    }
    let mut scanner = scanner(&header, block.file_bytes, files);
    let first = match scanner.step(COMMITS_AT)? {
        Step::Commit(found) => Some(found.head.position),
        Step::TailRecord(tail_record) => Some(tail_record.position),
        // A spare has its full length before it is named; a shorter file was cut.
        step if block.file_bytes >= header.reserved_bytes => {
            let presumed = spares == Spares::Presumed && matches!(step, Step::End);
            if presumed || scanner.last_written(COMMITS_AT)?.is_none() {
                return Ok(Role::Spare(header));
            }
            None
        }
        _ => None,
    };
    Ok(Role::Segment(Start { header, sealed: None, first }))
}

/// Creates a scanner for a segment that is not loaded yet.
pub(super) fn scanner(header: &SegmentHeader, bytes: u64, files: &Arc<FilePool>) -> Scanner {
    Scanner::new(Arc::new(Segment::active(*header, 0)), bytes, Arc::clone(files))
}
