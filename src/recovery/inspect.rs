//! A log taken apart, record by record, for people who debug. Reads only, and shows what it cannot read.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::scan::{Found, Scanner, Step, Wanted};
use crate::disk::{Disk, RealDisk, read_exact_at};
use crate::error::{Error, ErrorKind, Place, Result};
use crate::format::{
    Attribute, Attributes, BatchHead, BatchKind, COMMITS_AT, Ending, Frames, HeaderError,
    decode_fork, decode_gap, decode_header, header, record_at, witness,
};
use crate::segment::{DIR, Sealed, Segment, parse_name, path, place};
use crate::types::{CodecId, CommitId, EventKind, Position, Seq, StreamId, StreamState, Timestamp};

/// One record, or one part of it, in the order of the file. Offsets are bytes from the file's start.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "the fields are the format's own words; docs/format.md explains them"
)]
pub enum Item {
    /// A segment starts.
    Segment {
        number: u32,
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
    /// A file that has no readable header: a spare if `blank`.
    NoHeader { number: u32, bytes: u64, blank: bool },
    /// A commit. Its batches follow.
    Commit {
        segment: u32,
        offset: u64,
        bytes: u64,
        position: Position,
        time: Timestamp,
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
    /// So many events were dropped here by an overwriting ring.
    Gap { segment: u32, offset: u64, stream: StreamId, seq: Seq, dropped: u64 },
    /// The stream got this name; none when it is empty.
    Name { segment: u32, offset: u64, stream: StreamId, name: String },
    /// The stream got this label; it was taken away when there is no value.
    Label { segment: u32, offset: u64, stream: StreamId, key: String, value: Option<String> },
    /// The host keeps so many bytes with the stream.
    Data { segment: u32, offset: u64, stream: StreamId, bytes: u64 },
    /// From here on the stream is in this state.
    State { segment: u32, offset: u64, stream: StreamId, state: StreamState },
    /// The events before this one are trimmed.
    Start { segment: u32, offset: u64, stream: StreamId, seq: Seq },
    /// The stream was forked from this one, at this seq.
    Parent { segment: u32, offset: u64, stream: StreamId, parent: StreamId, seq: Seq },
    /// These events of the stream moved to its archive file, which has this length and this salt.
    Cold {
        segment: u32,
        offset: u64,
        stream: StreamId,
        seqs: Range<Seq>,
        file_bytes: u64,
        salt: u32,
    },
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
    /// What the program called the commit.
    CommitId { segment: u32, offset: u64, stream: StreamId, id: CommitId },
    /// The watermark behind the last commit.
    Witness { segment: u32, offset: u64, next: Position, durable: Position, clean: bool },
    /// The index of a sealed segment.
    Footer { segment: u32, offset: u64, entries: u32, last_position: Position },
    /// From here to the end of the file nothing could be read as a record.
    Unreadable { segment: u32, offset: u64, bytes: u64 },
    /// From here on the file holds zeros only.
    Zeros { segment: u32, offset: u64, bytes: u64 },
}

/// Iterates over everything in a log's segments.
pub struct Inspection {
    disk: Box<dyn Disk>,
    numbers: VecDeque<u32>,
    at: Option<At>,
    ready: VecDeque<Item>,
}

/// The segment that is being taken apart.
struct At {
    segment: Arc<Segment>,
    scanner: Scanner,
    offset: u64,
    limit: u64,
}

impl At {
    /// Looks whether a segment that was not sealed is so now, or has another length. If it has, goes on
    /// with what it is.
    fn refresh(&mut self) -> Result<bool> {
        if self.segment.seal_state().is_some() {
            return Ok(false);
        }
        let (header, file) = (self.segment.header, Arc::clone(&self.segment.file));
        let failed = |error| Error::io("inspect", place(header.number, 0), error);
        let sealed = Sealed::open(&header, &*file).map_err(failed)?;
        let limit = match &sealed {
            Some(sealed) => sealed.footer_at,
            None => file.len().map_err(failed)?,
        };
        if sealed.is_none() && limit == self.limit {
            return Ok(false);
        }
        self.segment = Arc::new(match sealed {
            Some(sealed) => Segment::sealed(header, file, sealed),
            None => Segment::active(header, 0, file),
        });
        self.scanner = Scanner::new(Arc::clone(&self.segment), limit);
        self.limit = limit;
        Ok(true)
    }
}

impl std::fmt::Debug for Inspection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inspection").field("segments_left", &self.numbers).finish_non_exhaustive()
    }
}

impl Inspection {
    /// Starts at the first segment of the log at `path`. Takes no lock and changes nothing.
    ///
    /// # Errors
    ///
    /// [`crate::ErrorKind::NoLog`] or [`crate::ErrorKind::Io`] when the directory cannot be listed.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::start(Box::new(RealDisk::new(path.as_ref(), false)))
    }

    /// As [`Inspection::open`], on a simulated disk.
    ///
    /// # Errors
    ///
    /// As [`Inspection::open`].
    #[cfg(feature = "sim")]
    pub fn open_on(disk: &crate::disk::SimDisk) -> Result<Self> {
        Self::start(Box::new(disk.clone()))
    }

    fn start(disk: Box<dyn Disk>) -> Result<Self> {
        let place = Place { path: DIR.into(), segment: None, offset: None };
        let names = disk.list(DIR).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::new(ErrorKind::NoLog, "inspect"),
            _ => Error::io("inspect", place, error),
        })?;
        let mut numbers: Vec<u32> =
            names.iter().filter_map(|name| parse_name(name.to_str()?)).collect();
        numbers.sort_unstable();
        Ok(Self { disk, numbers: numbers.into(), at: None, ready: VecDeque::new() })
    }

    fn enter(&mut self, number: u32) -> Result<()> {
        let failed = |error| Error::io("inspect", place(number, 0), error);
        let file = self.disk.open_read(&path(number)).map_err(failed)?;
        let bytes = file.len().map_err(failed)?;
        let mut block = vec![0; bytes.min(header::BLOCK_BYTES as u64) as usize];
        read_exact_at(&*file, &mut block, 0).map_err(failed)?;
        let (header, header_whole) = match decode_header(&block) {
            Ok(found) => found,
            Err(error) => {
                let blank = error == HeaderError::Blank;
                self.ready.push_back(Item::NoHeader { number, bytes, blank });
                return Ok(());
            }
        };
        let sealed = Sealed::open(&header, &*file).map_err(failed)?;
        let limit = sealed.as_ref().map_or(bytes, |sealed| sealed.footer_at);
        self.ready.push_back(Item::Segment {
            number,
            bytes,
            log_id: StreamId::from_bytes(header.log_id),
            reserved_bytes: header.reserved_bytes,
            created: Timestamp::from_micros(header.created_micros),
            salt: header.salt,
            covers: header.covers.map(|all| Position(all.first)..Position(all.last + 1)),
            sealed: sealed.is_some(),
            header_whole,
        });
        let segment = match sealed {
            Some(sealed) => Segment::sealed(header, file, sealed),
            None => Segment::active(header, 0, file),
        };
        let segment = Arc::new(segment);
        let scanner = Scanner::new(Arc::clone(&segment), limit);
        self.at = Some(At { segment, scanner, offset: COMMITS_AT, limit });
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
                self.ready.push_back(Item::Footer {
                    segment: number,
                    offset: sealed.footer_at,
                    entries: sealed.footer.len(),
                    last_position: Position(sealed.last_position),
                });
            }
            return Ok(false);
        }
        match at.scanner.step(offset)? {
            Step::Commit(found) => {
                self.take_apart(number, &at.scanner, &found);
                at.offset = record_at(found.end()).min(at.limit);
            }
            Step::Witness(witness) => {
                self.ready.push_back(Item::Witness {
                    segment: number,
                    offset,
                    next: Position(witness.position),
                    durable: Position(witness.durable),
                    clean: witness.ending == Ending::Clean,
                });
                at.offset += witness::BYTES as u64;
            }
            _ if at.refresh()? => {}
            _ => {
                let end =
                    at.scanner.find(offset + 1, Wanted::ANY)?.map_or(at.limit, |(next, _)| next);
                let bytes = end - offset;
                let item = if end == at.limit && at.scanner.last_written(offset)?.is_none() {
                    Item::Zeros { segment: number, offset, bytes }
                } else {
                    Item::Unreadable { segment: number, offset, bytes }
                };
                self.ready.push_back(item);
                at.offset = end;
            }
        }
        Ok(true)
    }

    fn take_apart(&mut self, number: u32, scanner: &Scanner, found: &Found) {
        self.ready.push_back(Item::Commit {
            segment: number,
            offset: found.offset,
            bytes: found.head.length,
            position: Position(found.head.position),
            time: Timestamp::from_micros(found.head.time_micros),
            acknowledged: Position(found.head.acked),
            durable: Position(found.head.durable),
            batches: found.head.batches,
            whole: found.is_sound(),
        });
        for (index, batch) in found.batches.iter().enumerate() {
            let offset = found.offset + batch.start;
            let end = found.offset + batch.end;
            let pinned = scanner.pinned(offset..end);
            let body = pinned.as_ref().and_then(|(pin, range)| (**pin).as_ref().get(range.clone()));
            let body = body.unwrap_or_default();
            let stream = StreamId::from_bytes(batch.stream);
            let whole = !found.bad.contains(&index);
            match batch.kind {
                Some(BatchKind::Gap) => self.ready.push_back(Item::Gap {
                    segment: number,
                    offset,
                    stream,
                    seq: Seq(batch.first_seq),
                    dropped: decode_gap(body).unwrap_or(0),
                }),
                Some(BatchKind::Events) => {
                    self.ready.push_back(Item::Events {
                        segment: number,
                        offset,
                        bytes: batch.end - batch.start,
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
                _ => self.ready.push_back(Item::Unreadable {
                    segment: number,
                    offset,
                    bytes: batch.end - batch.start,
                }),
            }
        }
    }

    /// What becomes of a stream beside its events.
    fn life(&mut self, segment: u32, offset: u64, batch: &BatchHead, body: &[u8]) {
        let (stream, seq) = (StreamId::from_bytes(batch.stream), Seq(batch.first_seq));
        let generation = batch.generation;
        self.ready.push_back(match batch.kind {
            Some(BatchKind::Fork) => {
                let (base, base_generation) = decode_fork(body).unwrap_or_default();
                let base = StreamId::from_bytes(base);
                Item::Fork { segment, offset, stream, seq, base, base_generation }
            }
            Some(BatchKind::Rewind) => Item::Rewind { segment, offset, stream, seq, generation },
            Some(BatchKind::CommitId) => {
                let id = CommitId(body.try_into().unwrap_or_default());
                Item::CommitId { segment, offset, stream, id }
            }
            _ => return self.attributes(segment, offset, stream, body),
        });
    }

    fn attributes(&mut self, segment: u32, offset: u64, stream: StreamId, body: &[u8]) {
        let item = |attribute| {
            Some(match attribute {
                Attribute::Name(name) => {
                    Item::Name { segment, offset, stream, name: name.to_owned() }
                }
                Attribute::Label { key, value } => {
                    let (key, value) = (key.to_owned(), value.map(ToOwned::to_owned));
                    Item::Label { segment, offset, stream, key, value }
                }
                Attribute::Data(data) => {
                    Item::Data { segment, offset, stream, bytes: data.len() as u64 }
                }
                Attribute::State(state) => Item::State { segment, offset, stream, state },
                Attribute::Start(seq) => Item::Start { segment, offset, stream, seq: Seq(seq) },
                Attribute::Parent { stream: parent, seq } => {
                    let parent = StreamId::from_bytes(parent);
                    Item::Parent { segment, offset, stream, parent, seq: Seq(seq) }
                }
                Attribute::Cold(cold) => Item::Cold {
                    segment,
                    offset,
                    stream,
                    seqs: Seq(cold.start)..Seq(cold.end),
                    file_bytes: cold.file_bytes,
                    salt: cold.salt,
                },
                Attribute::Optional => return None,
            })
        };
        self.ready.extend(Attributes(body).map_while(Result::ok).filter_map(item));
    }

    fn events(&mut self, segment: u32, offset: u64, stream: StreamId, first: u64, body: &[u8]) {
        for (n, (at, head)) in Frames::new(body).enumerate() {
            self.ready.push_back(Item::Event {
                segment,
                offset: offset + at as u64,
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

impl Iterator for Inspection {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(Ok(item));
            }
            let step = if self.at.is_some() {
                self.advance()
            } else {
                let number = self.numbers.pop_front()?;
                self.enter(number)
            };
            if let Err(error) = step {
                self.at = None;
                return Some(Err(error));
            }
        }
    }
}
