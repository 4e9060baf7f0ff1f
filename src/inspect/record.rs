//! Record of a dump: its place, its stream, and its content.

use std::ops::{Range, RangeInclusive};

use crate::types::{CodecId, CommitId, EventKind, Position, Seq, StreamId, StreamState, Timestamp};

/// One record of a log, or one part of it, in the order of the file.
///
/// With feature `serde` it is serializable: one flat object with its place, the name of its body's
/// variant, in kebab case, as `record`, and the fields of the body.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Record {
    /// Number of the segment.
    pub segment: u32,
    /// Offset in the file, in bytes; 0 for the file itself.
    pub offset: u64,
    /// Stream that the record belongs to; `None` for a whole commit, and for what stands between
    /// commits.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub stream: Option<StreamId>,
    /// Content of the record.
    #[cfg_attr(feature = "serde", serde(flatten))]
    pub body: RecordBody,
}

/// Content of a [`Record`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(tag = "record", rename_all = "kebab-case"))]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "the fields are the format's own words; docs/format.md explains them"
)]
pub enum RecordBody {
    /// A segment starts.
    Segment {
        bytes: u64,
        log_id: StreamId,
        reserved_bytes: u64,
        created: Timestamp,
        salt: u32,
        /// Positions that a sparse segment covers.
        covers: Option<Range<Position>>,
        sealed: bool,
        header_whole: bool,
    },
    /// An empty file that stands in for segments that were compacted away, and the positions that
    /// its name states. A file that is not empty only has such a name.
    Dropped { bytes: u64, covers: Range<Position> },
    /// A file that has no readable header: a spare if `blank`.
    NoHeader { bytes: u64, blank: bool },
    /// A commit. Its batches follow.
    Commit {
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
    Events { bytes: u64, seq: Seq, count: u32, whole: bool },
    /// One event.
    Event {
        seq: Seq,
        kind: EventKind,
        schema_version: u8,
        codec: CodecId,
        time: Timestamp,
        payload_bytes: u32,
    },
    /// Events that an overwriting ring dropped.
    Gap { seq: Seq, dropped: u64 },
    /// New name of the stream; an empty one removes the name.
    Name { name: String },
    /// New value of a label of the stream; `None` removes the label.
    Label { key: String, value: Option<String> },
    /// Number of bytes that the host keeps with the stream.
    Data { bytes: u64 },
    /// New state of the stream.
    State { state: StreamState },
    /// First seq of the stream that is not trimmed.
    Start { seq: Seq },
    /// The stream was forked from this one, at this seq.
    Parent { parent: StreamId, seq: Seq },
    /// The stream's events before this one are those of another stream, in this generation of it.
    Fork { seq: Seq, base: StreamId, base_generation: u32 },
    /// The stream's events from this one on were dropped, and this generation starts.
    Rewind { seq: Seq, generation: u32 },
    /// The batch holds all metadata of the stream, and supersedes everything before it. Compactions
    /// write it.
    Summary,
    /// An attribute of a newer version, which older ones may ignore.
    Optional,
    /// Id that the program gave the commit.
    CommitId { id: CommitId },
    /// The watermark after the last commit.
    TailRecord { next: Position, durable: Position, clean: bool },
    /// The index of a sealed segment.
    Footer {
        entries: u32,
        /// Number of places of commits in it, one for each block.
        places: u32,
        last_position: Position,
        /// From the earliest time of a commit to the latest.
        times: RangeInclusive<Timestamp>,
    },
    /// Bytes that could not be read as a record.
    Unreadable { bytes: u64 },
    /// Zeros up to the end of the file.
    Zeros { bytes: u64 },
}
