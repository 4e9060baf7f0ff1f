//! Record by record dump of a log, for debugging. Changes nothing, and also shows the bytes that it
//! cannot read.

use std::collections::VecDeque;
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::sync::Arc;

use super::discover::Block;
use super::scan::{Found, Scanner, SearchTarget, Step};
use crate::disk::{Disk, DiskFile, RealDisk};
use crate::error::{Error, ErrorKind, Place, Result};
use crate::format::{
    Attribute, Attributes, BatchHead, BatchKind, COMMITS_AT, Ending, Frames, Gone, HeaderError,
    SegmentHeader, decode_fork, record_at, tail_record,
};
use crate::options::Reads;
use crate::segment::{DIR, FilePool, Sealed, Segment, parse_name, path, place};
use crate::types::{
    CodecId, CommitId, EventKind, Position, Seq, StreamId, StreamState, Timestamp, range_len,
    through,
};

/// One record, or one part of it, in the order of the file. Offsets are bytes from the file's
/// start.
///
/// With feature `json` it is serializable: one object with the fields of its kind, and the kind's
/// own name, in kebab case, as `item`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[cfg_attr(feature = "json", serde(tag = "item", rename_all = "kebab-case"))]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "the fields are the format's own words; docs/format.md explains them"
)]
pub enum Record {
    /// A segment starts.
    Segment {
        segment: u32,
        bytes: u64,
        log_id: StreamId,
        reserved_bytes: u64,
        created: Timestamp,
        salt: u32,
        /// Of a sparse segment: the positions that it speaks for.
        covers: Option<Range<Position>>,
        sealed: bool,
        header_whole: bool,
    },
    /// An empty file that stands for segments of which nothing was left, and the positions that its
    /// name says; with bytes in it, a file that only has such a name.
    Dropped { segment: u32, bytes: u64, covers: Range<Position> },
    /// A file that has no readable header: a spare if `blank`.
    NoHeader { segment: u32, bytes: u64, blank: bool },
    /// A commit. Its batches follow.
    Commit {
        segment: u32,
        offset: u64,
        bytes: u64,
        position: Position,
        time: Timestamp,
        /// True if the writer vouched for this time.
        vouched: bool,
        acknowledged: Position,
        durable: Position,
        batches: u32,
        whole: bool,
    },
    /// A batch of events. Its events follow.
    Events {
        segment: u32,
        offset: u64,
        bytes: u64,
        stream: StreamId,
        seq: Seq,
        count: u32,
        whole: bool,
    },
    /// One event.
    Event {
        segment: u32,
        offset: u64,
        stream: StreamId,
        seq: Seq,
        kind: EventKind,
        codec: CodecId,
        time: Timestamp,
        payload_bytes: u32,
    },
    /// Events that an overwriting ring dropped.
    Gap { segment: u32, offset: u64, stream: StreamId, seq: Seq, dropped: u64 },
    /// New name of the stream; an empty one removes the name.
    Name { segment: u32, offset: u64, stream: StreamId, name: String },
    /// New value of a label of the stream; `None` removes the label.
    Label { segment: u32, offset: u64, stream: StreamId, key: String, value: Option<String> },
    /// Number of bytes that the host keeps with the stream.
    Data { segment: u32, offset: u64, stream: StreamId, bytes: u64 },
    /// New state of the stream.
    State { segment: u32, offset: u64, stream: StreamId, state: StreamState },
    /// First seq of the stream that is not trimmed.
    Start { segment: u32, offset: u64, stream: StreamId, seq: Seq },
    /// The stream was forked from this one, at this seq.
    Parent { segment: u32, offset: u64, stream: StreamId, parent: StreamId, seq: Seq },
    /// The stream's events before this one are those of another stream, in this generation of it.
    Fork {
        segment: u32,
        offset: u64,
        stream: StreamId,
        seq: Seq,
        base: StreamId,
        base_generation: u32,
    },
    /// The stream's events from this one on were dropped, and this generation starts.
    Rewind { segment: u32, offset: u64, stream: StreamId, seq: Seq, generation: u32 },
    /// Something that a newer version says of the stream, and that older ones may ignore.
    Optional { segment: u32, offset: u64, stream: StreamId },
    /// Id that the program gave the commit.
    CommitId { segment: u32, offset: u64, stream: StreamId, id: CommitId },
    /// The watermark behind the last commit.
    TailRecord { segment: u32, offset: u64, next: Position, durable: Position, clean: bool },
    /// The index of a sealed segment.
    Footer {
        segment: u32,
        offset: u64,
        entries: u32,
        last_position: Position,
        /// From the earliest time of a commit to the latest.
        times: RangeInclusive<Timestamp>,
    },
    /// From here to the end of the file nothing could be read as a record.
    Unreadable { segment: u32, offset: u64, bytes: u64 },
    /// From here on the file holds zeros only.
    Zeros { segment: u32, offset: u64, bytes: u64 },
}

/// Iterates over everything in a log's segments.
pub struct RecordDump {
    files: Arc<FilePool>,
    numbers: VecDeque<(u32, Option<Gone>)>,
    at: Option<At>,
    ready: VecDeque<Record>,
}

/// The segment that is being taken apart.
struct At {
    files: Arc<FilePool>,
    file: Arc<dyn DiskFile>,
    segment: Arc<Segment>,
    scanner: Scanner,
    offset: u64,
    limit: u64,
}

impl At {
    /// Looks whether a segment that was not sealed is so now, or has another length. If it has,
    /// goes on with what it is.
    fn refresh(&mut self) -> Result<bool> {
        if self.segment.seal_state().is_some() {
            return Ok(false);
        }
        let header = self.segment.header;
        let failed = |error| Error::io("inspect", place(header.number, 0), error);
        let path = || self.segment.path();
        let sealed = Sealed::find(&header, &self.files, &*self.file, path).map_err(failed)?;
        let limit = match &sealed {
            Some(sealed) => sealed.footer_at,
            None => self.file.len().map_err(failed)?,
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
        let disk = RealDisk::new(path.as_ref(), false)
            .map_err(|error| Error::io("inspect", Place::root(), error))?;
        Self::start(Arc::new(disk))
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
        let place = Place { path: DIR.into(), segment: None, offset: None };
        let names = disk.list(DIR).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::new(ErrorKind::NoLog, "inspect"),
            _ => Error::io("inspect", place, error),
        })?;
        let listed = |name: &str| {
            let gone = Gone::parse(name);
            Some((gone.map(|gone| gone.number).or_else(|| parse_name(name))?, gone))
        };
        let mut numbers: Vec<_> = names.iter().filter_map(|name| listed(name.to_str()?)).collect();
        numbers.sort_unstable_by_key(|(number, gone)| (*number, gone.is_some()));
        let files = FilePool::new(disk, Reads::Positional, 1);
        Ok(Self { files, numbers: numbers.into(), at: None, ready: VecDeque::new() })
    }

    fn enter_gone(&mut self, gone: &Gone) -> Result<()> {
        let path = format!("{DIR}/{}", gone.file_name());
        let place = Place { path: path.clone().into(), ..place(gone.number, 0) };
        let bytes = self.files.open_path(&path).and_then(|file| file.len());
        self.ready.push_back(Record::Dropped {
            segment: gone.number,
            bytes: bytes.map_err(|error| Error::io("inspect", place, error))?,
            covers: Position(gone.covers.first)..Position(gone.covers.last.saturating_add(1)),
        });
        Ok(())
    }

    fn enter(&mut self, number: u32) -> Result<()> {
        let failed = |error| Error::io("inspect", place(number, 0), error);
        let path = || path(number);
        let file = self.files.open_path(&path()).map_err(failed)?;
        let block = Block::read(&self.files, &*file, &path).map_err(failed)?;
        let bytes = block.file_bytes;
        let (header, header_whole) = match block.header() {
            Ok(found) => found,
            Err(error) => {
                let blank = error == HeaderError::Blank;
                self.ready.push_back(Record::NoHeader { segment: number, bytes, blank });
                return Ok(());
            }
        };
        let sealed = block.sealed(&header);
        let limit = sealed.as_ref().map_or(bytes, |sealed| sealed.footer_at);
        self.ready.push_back(Record::Segment {
            segment: number,
            bytes,
            log_id: StreamId::from_bytes(header.log_id),
            reserved_bytes: header.reserved_bytes,
            created: Timestamp::from_micros(header.created_micros),
            salt: header.salt,
            covers: header.covers.map(|all| {
                let all = through(all.first, all.last);
                Position(all.start)..Position(all.end)
            }),
            sealed: sealed.is_some(),
            header_whole,
        });
        self.at = Some(At::new(Arc::clone(&self.files), file, (header, sealed), limit));
        Ok(())
    }

    fn advance(&mut self) -> Result<()> {
        let Some(mut at) = self.at.take() else { return Ok(()) };
        match self.next_record(&mut at) {
            // A writer may have sealed and cut the segment while it was being read.
            Err(error) if !at.refresh()? => return Err(error),
            Ok(true) | Err(_) => self.at = Some(at),
            Ok(false) => {}
        }
        Ok(())
    }

    /// Reads one record, or what stands in its place. `Ok(false)`: the segment ends here.
    fn next_record(&mut self, at: &mut At) -> Result<bool> {
        let (number, offset) = (at.segment.number(), at.offset);
        if offset >= at.limit {
            if let Some(sealed) = at.segment.seal_state() {
                let (offset, last_position) = (sealed.footer_at, Position(sealed.last_position));
                let times = at.segment.times.get();
                self.ready.push_back(match at.segment.footer(&at.files) {
                    Ok(footer) => Record::Footer {
                        segment: number,
                        offset,
                        entries: footer.len(),
                        last_position,
                        times: Timestamp::from_micros(times.earliest)
                            ..=Timestamp::from_micros(times.latest),
                    },
                    Err(error) if !matches!(error.kind(), ErrorKind::Corrupt { .. }) => {
                        return Err(error);
                    }
                    Err(_) => {
                        let bytes = range_len(&(offset..sealed.file_bytes));
                        Record::Unreadable { segment: number, offset, bytes }
                    }
                });
            }
            return Ok(false);
        }
        match at.scanner.step(offset)? {
            Step::Commit(found) => {
                self.take_apart(number, &at.scanner, &found);
                at.offset = record_at(found.end()).min(at.limit);
            }
            Step::TailRecord(tail_record) => {
                self.ready.push_back(Record::TailRecord {
                    segment: number,
                    offset,
                    next: Position(tail_record.position),
                    durable: Position(tail_record.durable),
                    clean: tail_record.ending == Ending::Clean,
                });
                at.offset = offset.saturating_add(tail_record::BYTES as u64);
            }
            _ if at.refresh()? => {}
            _ => {
                let found = at.scanner.find(offset.saturating_add(1), SearchTarget::ANY)?;
                let end = found.map_or(at.limit, |(next, _)| next);
                let bytes = range_len(&(offset..end));
                let item = if end == at.limit && at.scanner.last_written(offset)?.is_none() {
                    Record::Zeros { segment: number, offset, bytes }
                } else {
                    Record::Unreadable { segment: number, offset, bytes }
                };
                self.ready.push_back(item);
                at.offset = end;
            }
        }
        Ok(true)
    }

    fn take_apart(&mut self, number: u32, scanner: &Scanner, found: &Found) {
        self.ready.push_back(Record::Commit {
            segment: number,
            offset: found.offset,
            bytes: found.head.length,
            position: Position(found.head.position),
            time: found.head.date.time,
            vouched: found.head.date.is_vouched,
            acknowledged: Position(found.head.acked),
            durable: Position(found.head.durable),
            batches: found.head.batches,
            whole: found.is_sound(),
        });
        for (index, batch) in found.batches.iter().enumerate() {
            let range = batch.range_in(found.offset);
            let offset = range.start;
            let pinned = scanner.pinned(range);
            let body = pinned.as_ref().and_then(|(pin, range)| pin.get(range.clone()));
            let body = body.unwrap_or_default();
            let stream = StreamId::from_bytes(batch.stream);
            let whole = !found.is_bad(index);
            match batch.kind {
                Some(kind) if kind.is_gap() => self.ready.push_back(Record::Gap {
                    segment: number,
                    offset,
                    stream,
                    seq: Seq(batch.first_seq),
                    dropped: kind.seqs(batch.count),
                }),
                Some(BatchKind::Events) => {
                    self.ready.push_back(Record::Events {
                        segment: number,
                        offset,
                        bytes: batch.bytes(),
                        stream,
                        seq: Seq(batch.first_seq),
                        count: batch.count,
                        whole,
                    });
                    if whole {
                        self.events(number, offset, stream, batch.first_seq, body);
                    }
                }
                Some(_) if whole => self.life(number, offset, batch, body),
                _ => self.ready.push_back(Record::Unreadable {
                    segment: number,
                    offset,
                    bytes: batch.bytes(),
                }),
            }
        }
    }

    /// Shows a batch that changes a stream other than by events.
    fn life(&mut self, segment: u32, offset: u64, batch: &BatchHead, body: &[u8]) {
        let (stream, seq) = (StreamId::from_bytes(batch.stream), Seq(batch.first_seq));
        let generation = batch.generation;
        self.ready.push_back(match batch.kind {
            Some(BatchKind::Fork) => {
                let (base, base_generation) = decode_fork(body).unwrap_or_default();
                let base = StreamId::from_bytes(base);
                Record::Fork { segment, offset, stream, seq, base, base_generation }
            }
            Some(BatchKind::Rewind) => Record::Rewind { segment, offset, stream, seq, generation },
            Some(BatchKind::CommitId) => {
                let id = CommitId(body.try_into().unwrap_or_default());
                Record::CommitId { segment, offset, stream, id }
            }
            _ => return self.attributes(segment, offset, stream, body),
        });
    }

    fn attributes(&mut self, segment: u32, offset: u64, stream: StreamId, body: &[u8]) {
        for attribute in Attributes(body) {
            self.ready.push_back(match attribute {
                Ok(Attribute::Name(name)) => {
                    Record::Name { segment, offset, stream, name: name.to_owned() }
                }
                Ok(Attribute::Label { key, value }) => {
                    let (key, value) = (key.to_owned(), value.map(ToOwned::to_owned));
                    Record::Label { segment, offset, stream, key, value }
                }
                Ok(Attribute::Data(data)) => {
                    Record::Data { segment, offset, stream, bytes: data.len() as u64 }
                }
                Ok(Attribute::State(state)) => Record::State { segment, offset, stream, state },
                Ok(Attribute::Start(seq)) => {
                    Record::Start { segment, offset, stream, seq: Seq(seq) }
                }
                Ok(Attribute::Parent { stream: parent, seq }) => {
                    let parent = StreamId::from_bytes(parent);
                    Record::Parent { segment, offset, stream, parent, seq: Seq(seq) }
                }
                Ok(Attribute::Optional) => Record::Optional { segment, offset, stream },
                // The attributes after it cannot be told apart either.
                Err(_) => Record::Unreadable { segment, offset, bytes: body.len() as u64 },
            });
        }
    }

    fn events(&mut self, segment: u32, offset: u64, stream: StreamId, first: u64, body: &[u8]) {
        for (n, (at, head)) in Frames::new(body).enumerate() {
            self.ready.push_back(Record::Event {
                segment,
                offset: offset.saturating_add(at as u64),
                stream,
                seq: Seq(first.saturating_add(n as u64)),
                kind: head.kind,
                codec: head.codec,
                time: head.time,
                payload_bytes: head.payload_bytes,
            });
        }
    }
}

impl Iterator for RecordDump {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(Ok(item));
            }
            let step = if self.at.is_some() {
                self.advance()
            } else {
                match self.numbers.pop_front()? {
                    (number, None) => self.enter(number),
                    (_, Some(gone)) => self.enter_gone(&gone),
                }
            };
            if let Err(error) = step {
                self.at = None;
                return Some(Err(error));
            }
        }
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use super::*;
    use crate::format::put_attribute;

    #[test]
    fn what_a_newer_version_says_of_a_stream_is_shown_and_so_is_what_cannot_be_read() {
        let disk = Arc::new(crate::disk::SimDisk::new(1));
        let files = FilePool::new(disk, Reads::Positional, 1);
        let (numbers, ready) = (VecDeque::new(), VecDeque::new());
        let mut inspection = RecordDump { files, numbers, at: None, ready };
        let mut body = Vec::new();
        put_attribute(&Attribute::Optional, &mut body);
        put_attribute(&Attribute::Name("n"), &mut body);
        body.push(7);
        let stream = StreamId::from_bytes([1; 16]);
        inspection.attributes(1, 8, stream, &body);
        let items: Vec<Record> = inspection.map(|item| item.expect("read already")).collect();
        let (segment, offset, name, bytes) = (1, 8, "n".to_owned(), body.len() as u64);
        assert_eq!(
            items,
            [
                Record::Optional { segment, offset, stream },
                Record::Name { segment, offset, stream, name },
                Record::Unreadable { segment, offset, bytes },
            ]
        );
    }
}
