//! A log, or some of its streams, as lines of JSON, and back without loss.
//!
//! What is carried: ids, names, labels, data, states, where streams start; events with their seqs, generations,
//! kinds, codecs, times, gaps and bytes; forks, which still share, and rewinds, with as much of what they left
//! behind as forks still show. A log that was imported from an export exports the same bytes.
//!
//! What is not: positions, commit times, commit ids, which events were committed together, the order of commits across
//! streams; events that no stream shows any more; of a deleted stream anything but that it was, and what its
//! forks share. The lines themselves are described in `docs/jsonl.md`.

mod check;
mod export;
mod import;
mod lines;

use std::io::{BufRead, Seek, Write};

use crate::catalog::Snapshot;
use crate::error::Result;
use crate::log::Log;
use crate::types::StreamId;

/// What an export wrote.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Exported {
    /// Streams, the deleted ones as well.
    pub streams: u64,
    /// Events; those that streams share are written once.
    pub events: u64,
}

/// What an import brought.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Imported {
    /// Streams, the deleted ones as well.
    pub streams: u64,
    /// Events.
    pub events: u64,
    /// Commits that it took.
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
        export::all(self, to)
    }

    /// Writes these streams as JSON Lines, each of them whole: what a fork shares with a stream is written as its own,
    /// and what it was forked from is only named.
    ///
    /// # Errors
    ///
    /// As [`Snapshot::export_jsonl`]; [`crate::ErrorKind::UnknownStream`]; [`crate::ErrorKind::Deleted`].
    pub fn export_streams_jsonl(&self, streams: &[StreamId], to: impl Write) -> Result<Exported> {
        export::some(self, streams, to)
    }
}

impl Log {
    /// Makes the streams of an export, with their ids, in this log. The lines are read twice: first all of them are
    /// looked at, and if one is not right nothing at all is written; then they are committed, streams of up to
    /// 4 MiB without gaps and rewinds in one commit each. Returns when everything is as durable as the log's
    /// options say.
    ///
    /// When the disk refuses, or the process dies, on the way, streams may be missing, and those on which it was at
    /// work be there in part: then begin again, with an empty log.
    ///
    /// # Errors
    ///
    /// [`crate::ErrorKind::InvalidLine`], with the line; [`crate::ErrorKind::StreamExists`];
    /// [`crate::ErrorKind::NameTaken`]; [`crate::ErrorKind::Refused`] when an event is larger than the log's memory;
    /// [`crate::ErrorKind::Io`] and whatever a commit fails with.
    pub fn import_jsonl(&self, from: impl BufRead + Seek) -> Result<Imported> {
        import::all(self.core(), from)
    }
}
