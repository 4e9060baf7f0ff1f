//! A log, or some of its streams, as lines of JSON, and back without loss.
//!
//! What is carried: ids, names, labels, data, states, where streams start; events with their seqs, generations,
//! kinds, codecs, times, gaps and bytes; forks, which still share, and rewinds, with as much of what they left
//! behind as forks still show. A log that was imported from an export exports the same bytes.
//!
//! A log that is damaged is exported only when that is asked for: then the lines themselves say what is missing.
//!
//! What is not: positions, commit times, commit ids, which events were committed together, the order of commits across
//! streams; events that no stream shows any more; of a deleted stream anything but that it was, and what its
//! forks share. The lines themselves are described in `docs/jsonl.md`.

mod check;
mod export;
mod import;
mod lines;
mod there;

use std::io::{BufRead, Seek, Write};
use std::ops::Range;

use crate::catalog::Snapshot;
use crate::error::{Error, Result};
use crate::log::Log;
use crate::recovery::{Damage, Survey};
use crate::types::{Seq, StreamId};

/// What to export, and what is done about damage.
#[derive(Clone, Default, Debug)]
pub struct ExportOptions {
    streams: Option<Vec<StreamId>>,
    damages: Option<Vec<Damage>>,
}

impl ExportOptions {
    /// The defaults: the whole log, and the first damage ends it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// These streams only, each of them whole, as [`Snapshot::export_streams_jsonl`] has them.
    #[must_use]
    pub fn streams(mut self, streams: impl IntoIterator<Item = StreamId>) -> Self {
        self.streams = Some(streams.into_iter().collect());
        self
    }

    /// Goes on where something is damaged, and says so: seqs that cannot be read are a line of their own, in their
    /// place, and what the survey found stands in front of all streams. So it has to be one of this log,
    /// [`crate::survey`] for all there is to find: reading streams meets neither commits that are lost with everything that
    /// told of them, nor what was said of a stream. A stream whose archive file is not there is lost where it moved.
    #[must_use]
    pub fn skip_damaged(mut self, survey: &Survey) -> Self {
        self.damages = Some(survey.damages.clone());
        self
    }
}

/// How to import.
#[derive(Clone, Default, Debug)]
pub struct ImportOptions {
    resumes: bool,
}

impl ImportOptions {
    /// The defaults: none of the streams may be there.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on with an import of the same lines that was cut off: streams that are there are compared, event by event
    /// and with what is said of them, and what is missing is added. One that holds anything else, or more, is refused as
    /// without this. Of an import that was done nothing is left to do, and nothing is written.
    #[must_use]
    pub fn resume(mut self) -> Self {
        self.resumes = true;
        self
    }
}

/// What an export wrote.
#[derive(Clone, Default, Debug)]
#[non_exhaustive]
pub struct Exported {
    /// Streams, the deleted ones as well.
    pub streams: u64,
    /// Events; those that streams share are written once.
    pub events: u64,
    /// What could not be read, in the order of the lines; without [`ExportOptions::skip_damaged`] nothing.
    pub lost: Vec<LostSeqs>,
}

/// Seqs of a stream that could not be exported.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LostSeqs {
    /// The stream, or the one that it shares them with.
    pub stream: StreamId,
    /// Which.
    pub seqs: Range<Seq>,
    /// Why: [`crate::ErrorKind::Corrupt`], [`crate::ErrorKind::ArchiveMissing`] or
    /// [`crate::ErrorKind::WrongArchive`].
    pub error: Error,
}

/// What an import brought.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Imported {
    /// Streams, the deleted ones as well.
    pub streams: u64,
    /// Events.
    pub events: u64,
    /// Seqs that the export could not read; they are gaps now.
    pub lost: u64,
    /// Commits that it took; of what is counted above a resumed import found some there.
    pub commits: u64,
}

impl Snapshot {
    /// Writes all that the snapshot shows as JSON Lines, for [`Log::import_jsonl`] and for other programs. Streams
    /// come in the order of their ids, and share in the export what they share in the log. What `to` is
    /// given is buffered here and flushed at the end.
    ///
    /// # Errors
    ///
    /// [`crate::ErrorKind::Corrupt`] at the first event that is damaged: nothing is left out silently;
    /// [`crate::ErrorKind::Io`] when `to` or the disk refuses.
    pub fn export_jsonl(&self, to: impl Write) -> Result<Exported> {
        self.export_jsonl_with(&ExportOptions::new(), to)
    }

    /// Writes these streams as JSON Lines, each of them whole: what a fork shares with a stream is written as its own,
    /// and what it was forked from is only named.
    ///
    /// # Errors
    ///
    /// As [`Snapshot::export_jsonl`]; [`crate::ErrorKind::UnknownStream`]; [`crate::ErrorKind::Deleted`].
    pub fn export_streams_jsonl(&self, streams: &[StreamId], to: impl Write) -> Result<Exported> {
        self.export_jsonl_with(&ExportOptions::new().streams(streams.iter().copied()), to)
    }

    /// As [`Snapshot::export_jsonl`], of some streams, or of what is left of a damaged log.
    ///
    /// # Errors
    ///
    /// As those two; with [`ExportOptions::skip_damaged`] damage is none, and what the disk refuses still is.
    pub fn export_jsonl_with(&self, options: &ExportOptions, to: impl Write) -> Result<Exported> {
        let damages = options.damages.as_deref();
        match &options.streams {
            None => export::all(self, damages, to),
            Some(streams) => export::some(self, streams, damages, to),
        }
    }
}

impl Log {
    /// Makes the streams of an export, with their ids, in this log. The lines are read twice: first all of them are
    /// looked at, and if one is not right nothing at all is written; then they are committed, streams of up to
    /// 4 MiB without gaps and rewinds in one commit each. Returns when everything is as durable as the log's
    /// options say. Meanwhile nothing is collected, moved, forgotten or backed up in this log.
    ///
    /// When the disk refuses, or the process dies, on the way, a beginning of that is there: streams in the order of the
    /// lines, all but the last of them whole; the last one may be there in part if it takes several commits; and streams
    /// that are to be trimmed, or of which others share events and that are to be archived or deleted, may not be so yet.
    /// Import the same lines once more with [`ImportOptions::resume`]: what is missing is added, and nothing twice.
    ///
    /// # Errors
    ///
    /// [`crate::ErrorKind::InvalidLine`], with the line; [`crate::ErrorKind::StreamExists`];
    /// [`crate::ErrorKind::NameTaken`]; [`crate::ErrorKind::Refused`] when an event is larger than the log's memory;
    /// [`crate::ErrorKind::Io`] and whatever a commit fails with.
    pub fn import_jsonl(&self, from: impl BufRead + Seek) -> Result<Imported> {
        self.import_jsonl_with(&ImportOptions::new(), from)
    }

    /// As [`Log::import_jsonl`], or what is left to do of it.
    ///
    /// # Errors
    ///
    /// As [`Log::import_jsonl`]; with [`ImportOptions::resume`] it is [`crate::ErrorKind::StreamExists`] only for a stream
    /// that is not as these lines would have made it up to some point.
    pub fn import_jsonl_with(
        &self,
        options: &ImportOptions,
        from: impl BufRead + Seek,
    ) -> Result<Imported> {
        import::all(self.core(), options, from)
    }
}
