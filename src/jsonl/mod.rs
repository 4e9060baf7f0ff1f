//! Export of a log, or of some of its streams, as JSON Lines, and import without loss.
//!
//! An export contains ids, names, labels, data, states and starts of streams; events with their
//! seqs, generations, kinds, schema versions, codecs, times, gaps and payloads; forks, which still
//! share their events after an import; and rewinds, with the abandoned events that forks still
//! show. A log imported from an export exports the same bytes.
//!
//! A damaged log is exported only on request. The lines then record what is missing.
//!
//! An export omits positions, commit times, commit ids, the grouping of events into commits and the
//! order of commits across streams; events that no stream shows; and everything about a deleted
//! stream except its existence and the events that its forks share. `docs/jsonl.md` describes the
//! lines.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod export;
mod import;
mod portable;
mod resume;
mod schema;
mod validate;

use std::io::{BufRead, Seek, Write};
use std::ops::Range;

pub use self::schema::EncodedBytes;
use crate::catalog::ReadView;
use crate::error::{Error, Result};
use crate::log::Log;
use crate::recovery::RecoveryReport;
use crate::types::{Seq, StreamId};

/// Options of an export: the streams, and the handling of damage.
#[derive(Clone, Default, Debug)]
pub struct ExportOptions {
    streams: Option<Vec<StreamId>>,
    /// Recovery report of the log whose damage is skipped.
    salvage: Option<RecoveryReport>,
}

impl ExportOptions {
    /// Returns the defaults: the whole log, ending with an error at the first damage.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Exports only these streams, each as a whole, like [`ReadView::export_streams_jsonl`].
    #[must_use]
    pub fn streams(mut self, streams: impl IntoIterator<Item = StreamId>) -> Self {
        self.streams = Some(streams.into_iter().collect());
        self
    }

    /// Continues after damage and records it in the export.
    ///
    /// Unreadable seqs become a line of their own, in their place. The findings of the recovery
    /// report come before all streams. The report must belong to this log;
    /// [`crate::verify::verify_quick`] gives the complete one. It is needed because reading the
    /// streams notices neither commits lost without a trace nor lost metadata. Commits after
    /// [`RecoveryReport::acknowledged`] that the read view shows ([`ReadView::open_unconfirmed`])
    /// are exported too, and a separate line lists their events.
    #[must_use]
    pub fn skip_damaged(mut self, report: &RecoveryReport) -> Self {
        self.salvage = Some(report.clone());
        self
    }
}

/// Options of an import.
#[derive(Clone, Default, Debug)]
pub struct ImportOptions {
    resumes: bool,
}

impl ImportOptions {
    /// Returns the defaults: none of the streams may exist in the log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Continues an interrupted import of the same lines. Compares the streams that exist with the
    /// lines, event by event and including their metadata, and adds what is missing. A stream that
    /// differs, or holds more, is refused. Writes nothing if the import was complete.
    #[must_use]
    pub fn resume(mut self) -> Self {
        self.resumes = true;
        self
    }
}

/// Result of an export.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Default, Debug)]
#[non_exhaustive]
pub struct Exported {
    /// Number of streams, including deleted ones.
    pub streams: u64,
    /// Number of these streams that are deleted.
    pub deleted_streams: u64,
    /// Number of events; an event shared by several streams counts once.
    pub events: u64,
    /// Seqs that could not be read, in the order of the lines. Empty without
    /// [`ExportOptions::skip_damaged`].
    pub lost: Vec<LostSeqs>,
}

/// Seqs of a stream that could not be exported.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LostSeqs {
    /// Stream in whose lines the seqs are missing.
    pub stream: StreamId,
    /// Seqs that are missing.
    pub seqs: Range<Seq>,
    /// Reason: [`crate::ErrorKind::Corrupt`].
    pub error: Error,
}

/// Result of an import.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Imported {
    /// Number of streams in the lines, including deleted ones.
    pub streams: u64,
    /// Number of these streams that are deleted.
    pub deleted_streams: u64,
    /// Number of events in the lines.
    pub events: u64,
    /// Number of seqs that the export could not read; they are gaps now.
    pub lost: u64,
    /// Number of commits made. A resumed import makes fewer, because some of the above exist.
    pub commits: u64,
}

impl ReadView {
    /// Writes the whole read view as JSON Lines, for [`Log::import_jsonl`] and for other programs.
    ///
    /// Streams are ordered by id and share in the export the events that they share in the log.
    /// Writes to `to` are buffered and flushed at the end.
    ///
    /// # Errors
    ///
    /// [`crate::ErrorKind::Corrupt`] at the first damaged event, because nothing is omitted
    /// silently; [`crate::ErrorKind::Io`] if `to` or the disk fails.
    pub fn export_jsonl(&self, to: impl Write) -> Result<Exported> {
        self.export_jsonl_with(&ExportOptions::new(), to)
    }

    /// Writes these streams as JSON Lines, each as a whole: a fork's shared events are written as
    /// its own, and its parent is only named.
    ///
    /// # Errors
    ///
    /// The errors of [`ReadView::export_jsonl`]; [`crate::ErrorKind::UnknownStream`], also for a
    /// stream not yet committed when the read view was taken; [`crate::ErrorKind::Deleted`].
    pub fn export_streams_jsonl(&self, streams: &[StreamId], to: impl Write) -> Result<Exported> {
        self.export_jsonl_with(&ExportOptions::new().streams(streams.iter().copied()), to)
    }

    /// Writes an export with options: of some streams, or of a damaged log.
    ///
    /// # Errors
    ///
    /// The errors of [`ReadView::export_jsonl`] and [`ReadView::export_streams_jsonl`]. With
    /// [`ExportOptions::skip_damaged`] damage is not an error; a failure of the disk still is.
    pub fn export_jsonl_with(&self, options: &ExportOptions, to: impl Write) -> Result<Exported> {
        let salvage = options.salvage.as_ref();
        let view = self.beside(usize::MAX);
        match &options.streams {
            None => export::all(&view, salvage, to),
            Some(streams) => export::some(&view, streams, salvage, to),
        }
    }
}

impl Log {
    /// Creates the streams of an export in this log, with their ids.
    ///
    /// Reads the lines twice. The first pass checks all of them; if a line is invalid, nothing is
    /// written. The second pass commits them: a stream of up to 4 MiB without gaps and rewinds
    /// takes one commit. Blocks until everything is as durable as the log's options require.
    /// Compaction, retention and backup of this log wait until then.
    ///
    /// If the disk fails or the process dies, the streams up to some line remain. All but the last
    /// are complete; the last may be partial if it takes several commits. Streams that the lines
    /// trim, and streams with shared events that the lines archive or delete, may still be
    /// untrimmed and active. Import the same lines again with [`ImportOptions::resume`] to add what
    /// is missing.
    ///
    /// # Errors
    ///
    /// [`crate::ErrorKind::InvalidLine`], with the number of the line;
    /// [`crate::ErrorKind::StreamExists`]; [`crate::ErrorKind::NameTaken`];
    /// [`crate::ErrorKind::Refused`] if an event is larger than the log's memory;
    /// [`crate::ErrorKind::Io`] and the errors of a commit.
    pub fn import_jsonl(&self, from: impl BufRead + Seek) -> Result<Imported> {
        self.import_jsonl_with(&ImportOptions::new(), from)
    }

    /// Imports lines with options: from the start, or continuing an interrupted import.
    ///
    /// # Errors
    ///
    /// The errors of [`Log::import_jsonl`]. With [`ImportOptions::resume`],
    /// [`crate::ErrorKind::StreamExists`] means that a stream is not a prefix of its lines.
    pub fn import_jsonl_with(
        &self,
        options: &ImportOptions,
        from: impl BufRead + Seek,
    ) -> Result<Imported> {
        import::all(self.handle(), options, from)
    }
}
