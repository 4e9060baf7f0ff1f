//! One stream in a file of its own: a sealed segment that holds all that a snapshot shows of the stream, and nothing
//! else. It can be read alone, anywhere.
//!
//! What the stream shares with others, and what it was rewound from, is no matter there: its events are written as if
//! they had always been its own, at the positions and in the generations that they have in the log.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;

use super::pace::Pace;
use crate::catalog::{Change, NameChange, Snapshot, StreamInfo, archive_path};
use crate::disk::{Disk, DiskFile, write_all_at};
use crate::error::{Error, ErrorKind, Place, Result};
use crate::format::{
    BatchKind, COMMITS_AT, CommitPlan, Covers, FooterEntry, FrameHead, PlannedBatch, SegmentHeader,
    Trailer, batch_crc, encode_commit, encode_footer, encode_gap, frame_header, put_frame_head,
    record_at,
};
use crate::reader::Event;
use crate::recovery::fold::order;
use crate::sabotage::{Sabotage, broken};
use crate::segment::{UNFINISHED, create_anew, salt};
use crate::types::{Position, Seq, StreamId, Timestamp};

/// A file that holds one stream.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ArchiveReport {
    /// The file, in the log's directory: [`StreamId::archive_path`].
    pub path: std::path::PathBuf,
    /// Its length.
    pub bytes: u64,
    /// The seqs that it holds.
    pub seqs: Range<Seq>,
    /// The commits that its events are of.
    pub positions: Range<Position>,
}

/// A file that was written, and is durable but for its name.
pub(super) struct Written {
    pub(super) salt: u32,
    pub(super) bytes: u64,
    /// From the stream's start to behind the last event in the file.
    pub(super) seqs: Range<u64>,
    pub(super) positions: Range<Position>,
}

/// Writes what the snapshot shows of the stream to its archive file, in place of one that is there. The log goes on
/// without it.
pub(crate) fn archive(
    disk: &dyn Disk,
    snapshot: &Snapshot,
    stream: StreamId,
) -> Result<ArchiveReport> {
    let path = archive_path(stream);
    let unfinished = format!("{path}{UNFINISHED}");
    let failed = |error| Error::io("archive", place_of(&path), error);
    let none = || Error::new(ErrorKind::UnknownStream(stream), "archive");
    let written = write(disk, snapshot, stream, 0, |_| unfinished.clone())?.ok_or_else(none)?;
    disk.replace(&unfinished, &path).map_err(|error| {
        let _ = disk.remove(&unfinished);
        failed(error)
    })?;
    sync_dirs(disk, &path).map_err(failed)?;
    Ok(ArchiveReport {
        path: stream.archive_path(),
        bytes: written.bytes,
        seqs: Seq(written.seqs.start)..snapshot.stream(stream).map_or(Seq(0), |info| info.head),
        positions: written.positions,
    })
}

pub(super) fn place_of(path: &str) -> Place {
    Place { path: path.into(), segment: None, offset: None }
}

/// Writes what the snapshot shows of the stream to a file, whose path may depend on its salt. `None`: that would take
/// less than `bytes_min`, and there is no file.
pub(super) fn write(
    disk: &dyn Disk,
    snapshot: &Snapshot,
    stream: StreamId,
    bytes_min: u64,
    path: impl FnOnce(u32) -> String,
) -> Result<Option<Written>> {
    let events = snapshot.events(stream)?;
    let unknown = || Error::new(ErrorKind::UnknownStream(stream), "archive");
    let info = snapshot.stream(stream).ok_or_else(unknown)?;
    let salt = salt();
    let path = path(salt);
    let mut archive = Archive::new((disk, &path), snapshot, &info, salt);
    let made = (|| {
        for event in events {
            // What cannot be read is not archived.
            archive.take(&event?)?;
        }
        archive.finish(snapshot.mark.visible, bytes_min)
    })();
    made.inspect_err(|_| {
        if archive.file.take().is_some() {
            let _ = disk.remove(&path);
        }
    })
}

fn dirs_of(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

/// Makes the name durable, and those of the directories above it.
pub(super) fn sync_dirs(disk: &dyn Disk, path: &str) -> io::Result<()> {
    dirs_of(path).rev().chain([""]).try_for_each(|dir| disk.sync_dir(dir))
}

pub(super) fn make_dirs(disk: &dyn Disk, path: &str) -> io::Result<()> {
    dirs_of(path).try_for_each(|dir| disk.create_dir(dir))
}

/// The file in the making: its commits first, its header last.
struct Archive<'a> {
    disk: &'a dyn Disk,
    path: &'a str,
    /// `None`: nothing was written yet.
    file: Option<Arc<dyn DiskFile>>,
    stream: StreamId,
    salt: u32,
    log_id: [u8; 16],
    /// Behind what is written to the file.
    buffer: Vec<u8>,
    written: u64,
    pace: Pace,
    entries: Vec<FooterEntry>,
    first_position: Option<u64>,
    last_position: u64,
    /// What is said of the stream, until the first commit takes it along.
    said: Option<(Vec<u8>, u32)>,
    start: u64,
    head: u64,
    generation: u32,
    now: Commit,
}

/// The commit that is being gathered.
#[derive(Default)]
struct Commit {
    position: u64,
    time: Timestamp,
    first_seq: u64,
    count: u32,
    dropped: u64,
    generation: u32,
    frames: Vec<u8>,
}

impl<'a> Archive<'a> {
    fn new(
        (disk, path): (&'a dyn Disk, &'a str),
        snapshot: &Snapshot,
        info: &StreamInfo,
        salt: u32,
    ) -> Self {
        Self {
            disk,
            path,
            file: None,
            stream: info.id,
            salt,
            log_id: snapshot.catalog.log_id().unwrap_or_default(),
            buffer: Vec::new(),
            written: COMMITS_AT,
            pace: Pace::new(&snapshot.catalog, disk),
            entries: Vec::new(),
            first_position: None,
            last_position: 0,
            said: Some(said(info).encode()),
            start: info.start.get(),
            head: info.start.get(),
            generation: 0,
            now: Commit::default(),
        }
    }

    fn take(&mut self, event: &Event) -> Result<()> {
        let position = event.position().map_or(0, Position::get);
        let is_other = position != self.now.position || event.generation() != self.now.generation;
        if is_other && self.now.count > 0 {
            self.commit()?;
        }
        let now = &mut self.now;
        if now.count == 0 {
            now.position = position;
            now.generation = event.generation();
            now.first_seq = event.seq().get();
            now.dropped = event.dropped_before();
        }
        now.count += 1;
        now.time = event.time();
        let head = FrameHead {
            payload_bytes: event.payload().len() as u32,
            kind: event.kind(),
            codec: event.codec(),
            time: event.time(),
        };
        let mut bytes = [0; frame_header::BYTES];
        put_frame_head(&mut bytes, &head);
        now.frames.extend_from_slice(&bytes);
        now.frames.extend_from_slice(event.payload());
        Ok(())
    }

    /// Where what is in the buffer ends.
    fn end(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Goes to where the next record may start.
    fn pad(&mut self) -> u64 {
        let offset = record_at(self.end());
        self.buffer.resize((offset - self.written) as usize, 0);
        offset
    }

    /// Puts what was gathered behind the other commits.
    fn commit(&mut self) -> Result<()> {
        let now = std::mem::take(&mut self.now);
        let gap = encode_gap(now.dropped);
        let (said, attributes) = self.said.take().unwrap_or_default();
        let gap_seq = now.first_seq - now.dropped.min(now.first_seq);
        let dropped = u32::try_from(now.dropped).unwrap_or(u32::MAX);
        // So that each event is in the generation that it has in the log: as if the stream had been rewound to where
        // it stood.
        let is_later = now.generation != self.generation;
        self.generation = now.generation;
        let batches = [
            (attributes > 0).then_some((BatchKind::Catalog, gap_seq, attributes, &said[..])),
            (now.dropped > 0).then_some((BatchKind::Gap, gap_seq, dropped, &gap[..])),
            (now.count > 0).then_some((
                BatchKind::Events,
                now.first_seq,
                now.count,
                &now.frames[..],
            )),
            is_later.then_some((BatchKind::Rewind, gap_seq, now.generation, &[][..])),
        ];
        let batches: Vec<_> = batches.into_iter().flatten().collect();
        let planned: Vec<PlannedBatch> = batches
            .iter()
            .map(|(kind, first_seq, count, bytes)| PlannedBatch {
                stream: *self.stream.as_bytes(),
                first_seq: *first_seq,
                count: *count,
                kind: *kind,
                generation: now.generation,
                bytes: bytes.len() as u64,
                crc: batch_crc(&[bytes]),
            })
            .collect();
        let offset = self.pad();
        let plan = CommitPlan {
            position: now.position,
            time_micros: now.time.as_micros(),
            acked: now.position - 1,
            durable: now.position - 1,
            salt: self.salt,
            batches: &planned,
        };
        let (tail, length) = encode_commit(&plan, &mut self.buffer);
        batches.iter().for_each(|(.., bytes)| self.buffer.extend_from_slice(bytes));
        self.buffer.extend_from_slice(&tail[tail.len() - length..]);
        let known = self.entries.len();
        self.entries.extend(planned.iter().map(|batch| FooterEntry {
            stream: batch.stream,
            first_seq: batch.first_seq,
            count: batch.count,
            offset,
            kind: batch.kind,
        }));
        self.entries[known..].sort_by_key(|entry| order(entry.kind));
        self.first_position.get_or_insert(now.position);
        self.last_position = now.position;
        self.head = now.first_seq + u64::from(now.count);
        if self.buffer.len() >= self.pace.piece_bytes() { self.flush() } else { Ok(()) }
    }

    /// Writes what is in the buffer.
    fn flush(&mut self) -> Result<()> {
        let failed = |error| Error::io("archive", place_of(self.path), error);
        let make = || {
            make_dirs(self.disk, self.path)?;
            create_anew(self.disk, self.path)
        };
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => make().map_err(failed)?,
        };
        self.file = Some(Arc::clone(&file));
        self.pace.write(&*file, &self.buffer, self.written).map_err(failed)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// The rest of the file. A stream without events has one commit that says what is known of it.
    fn finish(&mut self, position: u64, bytes_min: u64) -> Result<Option<Written>> {
        if self.now.count > 0 || self.said.is_some() {
            if self.now.count == 0 {
                (self.now.position, self.now.first_seq) = (position, self.head);
            }
            self.commit()?;
        }
        if self.end() < bytes_min {
            return Ok(None);
        }
        // Of this stream nothing is missing before its first commit.
        let covers = Covers { first: 1, last: self.last_position.max(1) };
        let header = SegmentHeader {
            log_id: self.log_id,
            number: 1,
            reserved_bytes: 0,
            created_micros: Timestamp::now().as_micros(),
            salt: self.salt,
            covers: Some(covers),
        };
        let footer_at = self.pad();
        let trailer = Trailer {
            log_id: header.log_id,
            number: 1,
            first_position: covers.first,
            last_position: covers.last,
            footer_at,
            salt: self.salt,
        };
        self.buffer.extend_from_slice(&encode_footer(&self.entries, &trailer));
        self.flush()?;
        if let Some(file) = &self.file {
            let sync = || if broken(Sabotage::MoveUnsynced) { Ok(()) } else { file.sync_data() };
            write_all_at(&**file, &mut [IoSlice::new(&header.encode())], 0)
                .and_then(|()| sync())
                .map_err(|error| Error::io("archive", place_of(self.path), error))?;
        }
        let first = self.first_position.unwrap_or(1);
        Ok(Some(Written {
            salt: self.salt,
            bytes: self.written,
            seqs: self.start..self.head,
            positions: Position(first)..Position(covers.last + 1),
        }))
    }
}

/// Everything that is said of the stream, at once.
fn said(info: &StreamInfo) -> Change {
    let label =
        |(key, value): (&String, &String)| (key.as_str().into(), Some(value.as_str().into()));
    Change {
        name: info.name.as_deref().map(|name| NameChange::Given(name.into())),
        labels: info.labels.iter().map(label).collect(),
        data: info.data.clone(),
        state: Some(info.state),
        start: Some(info.start.get()).filter(|start| *start > 0),
        parent: info.parent.map(|(id, seq)| (id, seq.get())),
        ..Change::default()
    }
}
