//! Record by record dump of a log, for debugging. Changes nothing, and also shows the bytes that it
//! cannot read.
//!
//! The dump judges nothing: whether an unreadable part is damage is for a verification to say.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod commit;
mod record;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

pub use self::record::{Record, RecordBody};
use crate::disk::{Disk, DiskFile, IoResultExt, RealDisk};
use crate::error::{Error, ErrorKind, Place, Result};
use crate::format::{COMMITS_AT, Ending, Gone, HeaderError, SegmentHeader, record_at, tail_record};
use crate::options::Reads;
use crate::segment::scan::{Scanner, SearchTarget, Step};
use crate::segment::{Block, DIR, FilePool, Sealed, Segment, parse_name, path, place, place_of};
use crate::types::{Position, StreamId, Timestamp, range_len, through};

/// Iterates over the records of a log, file by file.
///
/// ```
/// use amberlog::verify::{RecordBody, RecordDump};
///
/// # let dir = tempfile::tempdir()?;
/// # let log = amberlog::Log::open(dir.path())?;
/// # let mut stream = log.create_stream()?;
/// # stream.append("an event")?;
/// # stream.commit().wait()?;
/// # log.close()?;
/// for record in RecordDump::open(dir.path())? {
///     let record = record?;
///     if let RecordBody::Commit { position, .. } = record.body {
///         println!("commit {position} in segment {} at {}", record.segment, record.offset);
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RecordDump {
    files: Arc<FilePool>,
    /// Files left, by segment number; stand-ins come after the segment of their number.
    numbers: VecDeque<(u32, Option<Gone>)>,
    segment: Option<DumpedSegment>,
    /// Records that were read and not returned yet.
    ready: VecDeque<Record>,
}

/// Segment that is being dumped.
struct DumpedSegment {
    files: Arc<FilePool>,
    file: Arc<dyn DiskFile>,
    segment: Arc<Segment>,
    scanner: Scanner,
    offset: u64,
    limit: u64,
}

impl DumpedSegment {
    /// Looks at the file of an unsealed segment again. Returns true if it is sealed now or has
    /// another length; the dump continues with that.
    fn refresh(&mut self) -> Result<bool> {
        if self.segment.seal_state().is_some() {
            return Ok(false);
        }
        let header = self.segment.header;
        let here = || place(header.number, 0);
        let path = || self.segment.path();
        let sealed = Sealed::find(&header, &self.files, &*self.file, path).at("inspect", here)?;
        let limit = match &sealed {
            Some(sealed) => sealed.footer_at,
            None => self.file.len().at("inspect", here)?,
        };
        if sealed.is_none() && limit == self.limit {
            return Ok(false);
        }
        let (files, file) = (Arc::clone(&self.files), Arc::clone(&self.file));
        let offset = self.offset;
        *self = Self { offset, ..Self::new(files, file, (header, sealed), limit) };
        Ok(true)
    }

    fn new(
        files: Arc<FilePool>,
        file: Arc<dyn DiskFile>,
        (header, sealed): (SegmentHeader, Option<Sealed>),
        limit: u64,
    ) -> Self {
        let segment = Arc::new(match sealed {
            Some(sealed) => Segment::sealed(header, sealed),
            None => Segment::active(header, 0),
        });
        // Its name may be that of another segment.
        segment.hold(Arc::clone(&file));
        let scanner = Scanner::new(Arc::clone(&segment), limit, Arc::clone(&files));
        Self { files, file, segment, scanner, offset: COMMITS_AT, limit }
    }

    /// Reads the index of the sealed segment.
    fn footer(&self, sealed: &Sealed) -> Result<RecordBody> {
        let times = self.segment.commits.times();
        match self.segment.footer(&self.files) {
            Ok(footer) => Ok(RecordBody::Footer {
                entries: footer.len(),
                places: footer.places().count() as u32,
                last_position: Position(sealed.last_position),
                times: Timestamp::from_micros(times.earliest)
                    ..=Timestamp::from_micros(times.latest),
            }),
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt { .. }) => {
                let bytes = range_len(&(sealed.footer_at..sealed.file_bytes));
                Ok(RecordBody::Unreadable { bytes })
            }
            Err(error) => Err(error),
        }
    }
}

impl std::fmt::Debug for RecordDump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordDump").field("segments_left", &self.numbers).finish_non_exhaustive()
    }
}

impl RecordDump {
    /// Starts at the first segment of the log at `path`. Takes no lock and changes nothing.
    ///
    /// # Errors
    ///
    /// [`crate::ErrorKind::NoLog`] or [`crate::ErrorKind::Io`] when the directory cannot be listed.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let disk = RealDisk::new(path, false).at("inspect", Place::root);
        disk.and_then(|disk| Self::start(Arc::new(disk))).map_err(|error| error.in_log(path))
    }

    /// Starts at the first segment of a log on a simulated disk.
    ///
    /// # Errors
    ///
    /// Fails like [`RecordDump::open`].
    #[cfg(feature = "sim")]
    pub fn open_on(disk: &crate::disk::SimDisk) -> Result<Self> {
        Self::start(Arc::new(disk.clone()))
    }

    fn start(disk: Arc<dyn Disk>) -> Result<Self> {
        let names = match disk.list(DIR) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::new(ErrorKind::NoLog, "inspect"));
            }
            result => result.at("inspect", || place_of(DIR))?,
        };
        let listed = |name: &str| {
            let gone = Gone::parse(name);
            Some((gone.map(|gone| gone.number).or_else(|| parse_name(name))?, gone))
        };
        let mut numbers: Vec<_> = names.iter().filter_map(|name| listed(name.to_str()?)).collect();
        numbers.sort_unstable_by_key(|(number, gone)| (*number, gone.is_some()));
        let files = FilePool::new(disk, Reads::Positional, 1);
        Ok(Self { files, numbers: numbers.into(), segment: None, ready: VecDeque::new() })
    }

    /// Adds a record that belongs to no stream.
    fn push(&mut self, segment: u32, offset: u64, body: RecordBody) {
        self.ready.push_back(Record { segment, offset, stream: None, body });
    }

    fn enter_stand_in(&mut self, gone: &Gone) -> Result<()> {
        let path = format!("{DIR}/{}", gone.file_name());
        let bytes = self.files.open_path(&path).and_then(|file| file.len());
        let here = || Place { path: path.into(), ..place(gone.number, 0) };
        let bytes = bytes.at("inspect", here)?;
        let covers = through(gone.covers.first, gone.covers.last);
        let covers = Position(covers.start)..Position(covers.end);
        self.push(gone.number, 0, RecordBody::Dropped { bytes, covers });
        Ok(())
    }

    fn enter(&mut self, number: u32) -> Result<()> {
        let here = || place(number, 0);
        let path = || path(number);
        let file = self.files.open_path(&path()).at("inspect", here)?;
        let block = Block::read(&self.files, &*file, &path).at("inspect", here)?;
        let bytes = block.file_bytes;
        let (header, header_whole) = match block.header() {
            Ok(found) => found,
            Err(error) => {
                let blank = error == HeaderError::Blank;
                self.push(number, 0, RecordBody::NoHeader { bytes, blank });
                return Ok(());
            }
        };
        let sealed = block.sealed(&header);
        let limit = sealed.as_ref().map_or(bytes, |sealed| sealed.footer_at);
        let covers = header.covers.map(|covers| through(covers.first, covers.last));
        let body = RecordBody::Segment {
            bytes,
            log_id: StreamId::from_bytes(header.log_id),
            reserved_bytes: header.reserved_bytes,
            created: Timestamp::from_micros(header.created_micros),
            salt: header.salt,
            covers: covers.map(|covers| Position(covers.start)..Position(covers.end)),
            sealed: sealed.is_some(),
            header_whole,
        };
        self.push(number, 0, body);
        let open = DumpedSegment::new(Arc::clone(&self.files), file, (header, sealed), limit);
        self.segment = Some(open);
        Ok(())
    }

    fn advance(&mut self, mut open: DumpedSegment) -> Result<()> {
        match self.next_record(&mut open) {
            // A writer may have sealed and cut the segment while it was being read.
            Err(error) if !open.refresh()? => return Err(error),
            Ok(true) | Err(_) => self.segment = Some(open),
            Ok(false) => {}
        }
        Ok(())
    }

    /// Reads one record, or the bytes in its place. Returns false at the end of the segment.
    fn next_record(&mut self, open: &mut DumpedSegment) -> Result<bool> {
        let (number, offset) = (open.segment.number(), open.offset);
        if offset >= open.limit {
            if let Some(sealed) = open.segment.seal_state() {
                self.push(number, sealed.footer_at, open.footer(sealed)?);
            }
            return Ok(false);
        }
        match open.scanner.step(offset)? {
            Step::Commit(found) => {
                self.ready.extend(commit::records(number, &open.scanner, &found));
                open.offset = record_at(found.end()).min(open.limit);
            }
            Step::TailRecord(tail_record) => {
                let body = RecordBody::TailRecord {
                    next: Position(tail_record.position),
                    durable: Position(tail_record.durable),
                    clean: tail_record.ending == Ending::Clean,
                };
                self.push(number, offset, body);
                open.offset = offset.saturating_add(tail_record::BYTES as u64);
            }
            _ if open.refresh()? => {}
            _ => {
                let found = open.scanner.find(offset.saturating_add(1), SearchTarget::ANY)?;
                let end = found.map_or(open.limit, |(next, _)| next);
                let bytes = range_len(&(offset..end));
                let is_zero = end == open.limit && open.scanner.last_written(offset)?.is_none();
                let body = match is_zero {
                    true => RecordBody::Zeros { bytes },
                    false => RecordBody::Unreadable { bytes },
                };
                self.push(number, offset, body);
                open.offset = end;
            }
        }
        Ok(true)
    }
}

impl Iterator for RecordDump {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Some(Ok(record));
            }
            let step = match self.segment.take() {
                Some(open) => self.advance(open),
                None => match self.numbers.pop_front()? {
                    (number, None) => self.enter(number),
                    (_, Some(gone)) => self.enter_stand_in(&gone),
                },
            };
            if let Err(error) = step {
                return Some(Err(error));
            }
        }
    }
}
