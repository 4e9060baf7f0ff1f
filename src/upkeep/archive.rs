//! One stream in a file of its own: a sealed segment that holds all that a snapshot shows of the stream, and nothing
//! else. It can be read alone, anywhere.
//!
//! What the stream shares with others, and what it was rewound from, is no matter there: its events are written as if
//! they had always been its own, at the positions that they have in the log.

use std::io::{self, IoSlice};
use std::ops::Range;

use crate::catalog::{Change, NameChange, Snapshot, StreamInfo};
use crate::disk::{Disk, write_all_at};
use crate::error::{Error, ErrorKind, Place, Result};
use crate::format::{
    BatchKind, COMMITS_AT, CommitPlan, Covers, FooterEntry, FrameHead, PlannedBatch, SegmentHeader,
    Trailer, batch_crc, encode_commit, encode_footer, encode_gap, frame_header, put_frame_head,
    record_at,
};
use crate::reader::Event;
use crate::segment::{UNFINISHED, create_anew, salt};
use crate::types::{Position, Seq, StreamId, Timestamp};

/// What was written is written so much at a time.
const PIECE_BYTES: usize = 1 << 20;

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

/// Writes what the snapshot shows of the stream to its archive file, in place of one that is there.
pub(crate) fn archive(
    disk: &dyn Disk,
    snapshot: &Snapshot,
    stream: StreamId,
) -> Result<ArchiveReport> {
    let path = stream.archive_path();
    let path = path.to_string_lossy();
    let place = || Place { path: (&*path).into(), segment: None, offset: None };
    let failed = |error| Error::io("archive", place(), error);
    let events = snapshot.events(stream)?;
    let unknown = || Error::new(ErrorKind::UnknownStream(stream), "archive");
    let info = snapshot.stream(stream).ok_or_else(unknown)?;
    let mut file = Archive::new(snapshot, &info);
    for event in events {
        // What cannot be read is not archived.
        file.take(&event?);
    }
    let (bytes, positions) = file.finish(snapshot.mark.visible);
    put(disk, &path, &bytes).map_err(failed)?;
    Ok(ArchiveReport {
        path: stream.archive_path(),
        bytes: bytes.len() as u64,
        seqs: info.start..info.head,
        positions,
    })
}

/// Puts a file there, durably, with its directories.
fn put(disk: &dyn Disk, path: &str, bytes: &[u8]) -> io::Result<()> {
    let dirs: Vec<&str> = path.match_indices('/').map(|(at, _)| &path[..at]).collect();
    dirs.iter().try_for_each(|dir| disk.create_dir(dir))?;
    let unfinished = format!("{path}{UNFINISHED}");
    let file = create_anew(disk, &unfinished)?;
    let write = || {
        for (n, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
            write_all_at(&*file, &mut [IoSlice::new(piece)], (n * PIECE_BYTES) as u64)?;
        }
        file.sync_data()?;
        disk.replace(&unfinished, path)
    };
    write().inspect_err(|_| drop(disk.remove(&unfinished)))?;
    dirs.iter().rev().chain([&""]).try_for_each(|dir| disk.sync_dir(dir))
}

/// The file in the making: its commits first.
struct Archive {
    stream: StreamId,
    salt: u32,
    log_id: [u8; 16],
    bytes: Vec<u8>,
    entries: Vec<FooterEntry>,
    first_position: Option<u64>,
    last_position: u64,
    /// What is said of the stream, until the first commit takes it along.
    said: Option<(Vec<u8>, u32)>,
    head: u64,
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
    frames: Vec<u8>,
}

impl Archive {
    fn new(snapshot: &Snapshot, info: &StreamInfo) -> Self {
        let log_id = snapshot.segments.iter().next().map_or([0; 16], |one| one.header.log_id);
        Self {
            stream: info.id,
            salt: salt(),
            log_id,
            bytes: vec![0; COMMITS_AT as usize],
            entries: Vec::new(),
            first_position: None,
            last_position: 0,
            said: Some(said(info).encode()),
            head: info.start.get(),
            now: Commit::default(),
        }
    }

    fn take(&mut self, event: &Event) {
        let position = event.position().map_or(0, Position::get);
        if position != self.now.position && self.now.count > 0 {
            self.commit();
        }
        let now = &mut self.now;
        if now.count == 0 {
            now.position = position;
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
    }

    /// Puts what was gathered behind the other commits.
    fn commit(&mut self) {
        let now = std::mem::take(&mut self.now);
        let gap = encode_gap(now.dropped);
        let (said, attributes) = self.said.take().unwrap_or_default();
        let gap_seq = now.first_seq - now.dropped.min(now.first_seq);
        let dropped = u32::try_from(now.dropped).unwrap_or(u32::MAX);
        let batches = [
            (attributes > 0).then_some((BatchKind::Catalog, self.head, attributes, &said[..])),
            (now.dropped > 0).then_some((BatchKind::Gap, gap_seq, dropped, &gap[..])),
            (now.count > 0).then_some((
                BatchKind::Events,
                now.first_seq,
                now.count,
                &now.frames[..],
            )),
        ];
        let batches: Vec<_> = batches.into_iter().flatten().collect();
        let planned: Vec<PlannedBatch> = batches
            .iter()
            .map(|(kind, first_seq, count, bytes)| PlannedBatch {
                stream: *self.stream.as_bytes(),
                first_seq: *first_seq,
                count: *count,
                kind: *kind,
                generation: 0,
                bytes: bytes.len() as u64,
                crc: batch_crc(&[bytes]),
            })
            .collect();
        let offset = record_at(self.bytes.len() as u64);
        self.bytes.resize(offset as usize, 0);
        let plan = CommitPlan {
            position: now.position,
            time_micros: now.time.as_micros(),
            acked: now.position - 1,
            durable: now.position - 1,
            salt: self.salt,
            batches: &planned,
        };
        let (tail, length) = encode_commit(&plan, &mut self.bytes);
        batches.iter().for_each(|(.., bytes)| self.bytes.extend_from_slice(bytes));
        self.bytes.extend_from_slice(&tail[tail.len() - length..]);
        self.entries.extend(planned.iter().map(|batch| FooterEntry {
            stream: batch.stream,
            first_seq: batch.first_seq,
            count: batch.count,
            offset,
            kind: batch.kind,
        }));
        self.first_position.get_or_insert(now.position);
        self.last_position = now.position;
        self.head = now.first_seq + u64::from(now.count);
    }

    /// The whole file. A stream without events has one commit that says what is known of it.
    fn finish(mut self, position: u64) -> (Vec<u8>, Range<Position>) {
        if self.now.count > 0 || self.said.is_some() {
            self.now.position =
                self.now.position.max(if self.now.count > 0 { 1 } else { position });
            self.now.first_seq = if self.now.count > 0 { self.now.first_seq } else { self.head };
            self.commit();
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
        let footer_at = record_at(self.bytes.len() as u64);
        self.bytes.resize(footer_at as usize, 0);
        let trailer = Trailer {
            log_id: header.log_id,
            number: 1,
            first_position: covers.first,
            last_position: covers.last,
            footer_at,
            salt: self.salt,
        };
        self.bytes.extend_from_slice(&encode_footer(&self.entries, &trailer));
        self.bytes[..COMMITS_AT as usize].copy_from_slice(&header.encode());
        let first = self.first_position.unwrap_or(1);
        (self.bytes, Position(first)..Position(covers.last + 1))
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
