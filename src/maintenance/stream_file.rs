//! Archive file: a sealed segment with everything that a read view shows of one stream. It can be
//! read on its own, anywhere; the log does not need it.
//!
//! Sharing with other streams and rewinds leave no trace in it: events are written as if they had
//! always been the stream's own, at their positions and in their generations in the log.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;

use super::sparse::SparseBuilder;
use super::throttle::Throttle;
use crate::catalog::{ReadView, StreamInfo};
use crate::change::Change;
use crate::disk::{Disk, DiskFile, IoResultExt, write_all_at};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{
    BatchKind, CommitDate, Covers, FrameHead, PlannedBatch, SegmentHeader, batch_crc, frame_header,
    gap_batches, put_frame_head,
};
use crate::reader::Event;
use crate::segment::{UNFINISHED, create_anew, place_of, replace_copy, salt};
use crate::types::{Position, Seq, StreamId, Timestamp};

/// Outcome of archiving one stream.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ArchiveReport {
    /// Path of the file in the log's directory: [`StreamId::archive_path`].
    pub path: std::path::PathBuf,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// Seqs in the file.
    pub seqs: Range<Seq>,
    /// Positions of the commits of its events.
    pub positions: Range<Position>,
}

/// Writes everything that the read view shows of the stream to its archive file, replacing an
/// existing one. The log does not use it.
pub(crate) fn archive(
    disk: &dyn Disk,
    view: &ReadView,
    stream: StreamId,
    is_over: &dyn Fn() -> bool,
) -> Result<ArchiveReport> {
    let path = archive_path(stream);
    let unfinished = format!("{path}{UNFINISHED}");
    let here = || place_of(&path);
    let report = write(disk, view, stream, &unfinished, is_over)?;
    let log_id = view.catalog.log_id().unwrap_or_default();
    let replaced = replace_copy(disk, &unfinished, &path, log_id);
    replaced.inspect_err(|_| drop(disk.remove(&unfinished))).at("archive", here)?;
    sync_dirs(disk, &path).at("archive", here)?;
    Ok(report)
}

/// Returns [`StreamId::archive_path`] in the form that the disk takes.
fn archive_path(stream: StreamId) -> String {
    stream.archive_path().to_string_lossy().into_owned()
}

/// Writes everything that the read view shows of the stream to a file, durable except for its name.
fn write(
    disk: &dyn Disk,
    view: &ReadView,
    stream: StreamId,
    path: &str,
    is_over: &dyn Fn() -> bool,
) -> Result<ArchiveReport> {
    let events = view.events(stream)?;
    let unknown = || Error::new(ErrorKind::UnknownStream(stream), "archive");
    let info = view.info(stream).ok_or_else(unknown)?;
    let summary = view.view(stream).ok_or_else(unknown)?.summary();
    let mut archive = Archive::new((disk, path), view, &info, &summary);
    let made = (|| {
        for event in events {
            if is_over() {
                return Err(Error::new(ErrorKind::Closed, "archive"));
            }
            // An unreadable event ends the archive with an error.
            archive.take(&event?)?;
        }
        archive.finish(view.mark.visible, &info)
    })();
    let positions = made.inspect_err(|_| {
        if archive.file.take().is_some() {
            let _ = disk.remove(path);
        }
    })?;
    let path = stream.archive_path();
    let bytes = archive.segment.end();
    Ok(ArchiveReport { path, bytes, seqs: info.start..info.head, positions })
}

fn dirs_of(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

/// Makes the file's name and those of the directories above it durable.
fn sync_dirs(disk: &dyn Disk, path: &str) -> io::Result<()> {
    dirs_of(path).rev().chain([""]).try_for_each(|dir| disk.sync_dir(dir))
}

fn make_dirs(disk: &dyn Disk, path: &str) -> io::Result<()> {
    dirs_of(path).try_for_each(|dir| disk.create_dir(dir))
}

/// File under construction: commits first, header last.
struct Archive<'a> {
    disk: &'a dyn Disk,
    path: &'a str,
    /// Output file; `None` until the first write.
    file: Option<Arc<dyn DiskFile>>,
    stream: StreamId,
    segment: SparseBuilder,
    pace: Throttle,
    first_position: Option<u64>,
    last_position: u64,
    /// Attributes of the stream, until the first commit takes them along.
    summary: Option<(Vec<u8>, u32)>,
    head: u64,
    generation: u32,
    now: Commit,
}

/// Commit under construction.
#[derive(Default)]
struct Commit {
    /// Position in the log.
    origin: u64,
    /// Position in the file: the same, unless an earlier commit has a later one.
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
        view: &ReadView,
        info: &StreamInfo,
        summary: &Change,
    ) -> Self {
        let header = SegmentHeader {
            log_id: view.catalog.log_id().unwrap_or_default(),
            number: 1,
            reserved_bytes: 0,
            created_micros: disk.now().as_micros(),
            salt: salt(),
            covers: None,
        };
        Self {
            disk,
            path,
            file: None,
            stream: info.id,
            segment: SparseBuilder::new(header, false),
            pace: Throttle::new(&view.catalog, disk),
            first_position: None,
            last_position: 0,
            summary: Some(summary.encode()),
            head: info.start.get(),
            generation: 0,
            now: Commit::default(),
        }
    }

    fn take(&mut self, event: &Event) -> Result<()> {
        let origin = event.position().map_or(0, Position::get);
        let is_other = origin != self.now.origin || event.generation() != self.now.generation;
        if is_other && self.now.count > 0 {
            self.commit()?;
        }
        let now = &mut self.now;
        if now.count == 0 {
            now.origin = origin;
            // A base that was imported after its fork has later positions than the fork.
            now.position = origin.max(self.last_position.saturating_add(1));
            now.generation = event.generation();
            now.first_seq = event.seq().get();
            now.dropped = event.dropped_before();
        }
        now.count += 1;
        now.time = event.time();
        let head = FrameHead {
            payload_bytes: event.payload().len() as u32,
            kind: event.kind(),
            schema_version: event.schema_version(),
            codec: event.codec(),
            time: event.time(),
        };
        let mut bytes = [0; frame_header::BYTES];
        put_frame_head(&mut bytes, &head);
        now.frames.extend_from_slice(&bytes);
        now.frames.extend_from_slice(event.payload());
        Ok(())
    }

    /// Appends the gathered commit.
    fn commit(&mut self) -> Result<()> {
        let now = std::mem::take(&mut self.now);
        let (summary, attributes) = self.summary.take().unwrap_or_default();
        let gap_seq = now.first_seq - now.dropped.min(now.first_seq);
        let [(_, long_seq, long), (_, short_seq, short)] = gap_batches(gap_seq, now.dropped);
        // Gives each event the generation that it has in the log, as if the stream had been rewound
        // to its end.
        let is_later = now.generation != self.generation;
        self.generation = now.generation;
        let batches = [
            (attributes > 0).then_some((BatchKind::Catalog, gap_seq, attributes, &summary[..])),
            (short > 0).then_some((BatchKind::Gap, short_seq, short, &[][..])),
            (now.count > 0).then_some((
                BatchKind::Events,
                now.first_seq,
                now.count,
                &now.frames[..],
            )),
            is_later.then_some((BatchKind::Rewind, gap_seq, now.generation, &[][..])),
            (long > 0).then_some((BatchKind::LongGap, long_seq, long, &[][..])),
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
                order: 0,
                bytes: bytes.len() as u64,
                crc: batch_crc(&[bytes]),
            })
            .collect();
        // Events have the time of their append; the time of their commit is not in the file.
        let date = CommitDate { time: now.time, is_vouched: false };
        self.segment.commit(now.position, date, &planned, |buffer| {
            batches.iter().for_each(|(.., bytes)| buffer.extend_from_slice(bytes));
            Some(())
        });
        self.first_position.get_or_insert(now.position);
        self.last_position = now.position;
        self.head = now.first_seq + u64::from(now.count);
        let is_piece = self.segment.unwritten_bytes() >= self.pace.piece_bytes();
        if is_piece { self.write().map(drop) } else { Ok(()) }
    }

    /// Writes what is not in the file yet.
    fn write(&mut self) -> Result<Arc<dyn DiskFile>> {
        let here = || place_of(self.path);
        let make = || {
            make_dirs(self.disk, self.path)?;
            create_anew(self.disk, self.path, self.segment.header.log_id)
        };
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => make().at("archive", here)?,
        };
        self.file = Some(Arc::clone(&file));
        self.segment.write(&*file, &mut self.pace).at("archive", here)?;
        Ok(file)
    }

    /// Ends the file. A stream without events, or with an end after its last event, gets a final
    /// commit that records the end.
    fn finish(&mut self, position: u64, info: &StreamInfo) -> Result<Range<Position>> {
        if self.now.count > 0 {
            self.commit()?;
        }
        let head = info.head.get();
        let generation = info.generation;
        if self.summary.is_some() || self.head < head || self.generation < generation {
            // The change that ended the stream there was committed after its events.
            self.now = Commit {
                position: position.max(self.last_position.saturating_add(1)),
                first_seq: head,
                dropped: head - self.head,
                generation,
                ..Commit::default()
            };
            self.commit()?;
        }
        // The file misses nothing of this stream before its first commit.
        let covers = Covers { first: 1, last: self.last_position.max(1) };
        self.segment.header.covers = Some(covers);
        self.segment.finish();
        let file = self.write()?;
        write_all_at(&*file, &mut [IoSlice::new(&self.segment.header.encode())], 0)
            .and_then(|()| file.sync_data())
            .at("archive", || place_of(self.path))?;
        let first = self.first_position.unwrap_or(1);
        Ok(Position(first)..Position(covers.last + 1))
    }
}
