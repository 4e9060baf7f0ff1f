//! Kinds of failure, and their texts.

use std::fmt;
use std::ops::Range;

use super::{AppendError, OTHER_PROCESS};
use crate::types::{CodecId, Position, Seq, StreamId, Timestamp};

/// Kinds of failure. Match on these; the text of an error is for people.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Refusal by the operating system; the source has its error.
    Io,
    /// No space: the disk is full, a quota is used up, or a file would exceed `RLIMIT_FSIZE`; the
    /// source says which. Events of a failed commit return to their rings; commits work again once
    /// there is space.
    StorageFull,
    /// The commit would exceed the log's quota on disk. Events of the failed commit return to their
    /// rings; deleting and compacting makes room.
    QuotaExceeded {
        /// Bytes that the log's commits take now.
        used_bytes: u64,
        /// Bytes that they may take.
        quota_bytes: u64,
    },
    /// Damage: written bytes have changed. Other streams keep working.
    Corrupt {
        /// The stream that lost events, if known.
        stream: Option<StreamId>,
        /// The lost events, if known.
        seqs: Option<Range<Seq>>,
    },
    /// The stream does not meet the commit's expectation ([`crate::Expect`]): another handle moved
    /// it since this handle last saw its head, for example (P8). Nothing was written. When both
    /// heads are equal, the message names the difference.
    Conflict {
        /// The stream that does not meet its expectation.
        stream: StreamId,
        /// The expected head: that of [`crate::Expect::At`], 0 for [`crate::Expect::NoStream`],
        /// otherwise the head that the handle saw.
        expected: Seq,
        /// The stream's head.
        actual: Seq,
    },
    /// The log has no such stream.
    UnknownStream(StreamId),
    /// No stream has this name, or an id that starts with it.
    UnknownName(String),
    /// More than one stream id starts with this text.
    AmbiguousPrefix(String),
    /// A living stream has this name.
    NameTaken {
        /// The requested name.
        name: String,
        /// The stream that has it.
        holder: StreamId,
    },
    /// A name must have 1 to 1,024 bytes and no control characters.
    InvalidName,
    /// A name must not read as a stream id: it would be taken for that stream.
    NameIsAnId(StreamId),
    /// A name must not begin with `~`: those are kept for the log's own streams.
    NameReserved,
    /// The operation needs the disk, and the stream has nothing there yet (P9).
    NotMaterialized {
        /// The stream.
        stream: StreamId,
        /// Number of its events in memory; only its own handle knows it.
        buffered: Option<u64>,
    },
    /// Another writer holds the log.
    Locked {
        /// Process id of the writer, when it could be read.
        holder: Option<u32>,
    },
    /// A sync failed earlier, or the writer panicked: the log acknowledges nothing until it is
    /// reopened (P5).
    Poisoned,
    /// The file `LOCK` was removed or replaced while this process wrote the log. The log
    /// acknowledges nothing and touches no file until it is closed and opened again. Find what
    /// removed the file: the lock of a process that died never needs removing.
    ///
    /// The writer checks names before a group of commits if the last check is 100 ms, 64 groups, or
    /// 16 synced groups ago, before it makes, replaces or removes a file, and when it closes.
    /// Commits in between are acknowledged as before, into the file that the writer holds. That is
    /// safe: the segment is locked too, which keeps a second writer out until this writer releases
    /// it.
    LockLost,
    /// The log's directory, or the segment that commits go to, was removed or replaced while this
    /// process wrote the log: commits would be lost. The log acknowledges nothing and touches no
    /// file until it is closed and opened again. Moving the log's directory is allowed: the log
    /// follows it.
    ///
    /// After each sync, before it acknowledges the commit, the writer notices a segment that has no
    /// name left, as after `rm -r`. A segment that was moved elsewhere (with `segments`, say) is
    /// noticed as with [`ErrorKind::LockLost`], and so is a loss that concerns commits without a
    /// sync; commits acknowledged until then are in the moved or removed files.
    DirectoryLost,
    /// A thread of the log panicked, which is a bug in this crate.
    Panicked,
    /// The log was closed.
    Closed,
    /// The handle belongs to the process that forked this one. The log is in use there; open it
    /// here once it is closed there.
    OtherProcess,
    /// The directory holds something other than a log, or a log that appeared since this log was
    /// opened.
    NotThisLog,
    /// The path holds no log.
    NoLog,
    /// The directory holds an unfinished backup, which is useless: remove it.
    UnfinishedBackup,
    /// A backup needs an empty directory, or one that does not exist yet.
    NotEmpty,
    /// The target lies in the log's own directory. Nothing was written; choose a place outside it.
    InsideLog,
    /// Written by a newer version of this crate.
    UnsupportedVersion {
        /// Version of the file.
        found: u16,
        /// Newest version that this build reads.
        supported: u16,
    },
    /// The log uses a feature that this build does not know.
    UnsupportedFeature,
    /// One commit may hold less than 4 GiB.
    CommitTooLarge {
        /// Bytes that it would take on disk.
        bytes: u64,
        /// Maximum number of bytes in a commit.
        bytes_max: u64,
    },
    /// The event was written with a different codec from the reader's.
    WrongCodec {
        /// Codec of the reader.
        expected: CodecId,
        /// Codec of the event.
        found: CodecId,
    },
    /// The codec could not encode or decode the event.
    Codec,
    /// An option has an invalid value.
    InvalidOption(&'static str),
    /// An event was refused at append; see [`AppendError`].
    Refused(AppendError),
    /// The view is outdated: another process has compacted a segment that the view did not hold
    /// open ([`crate::options::ReadOptions::open_segments_max`]). Open a new view.
    Outdated,
    /// The stream was deleted. Events that its forks share can be read through them.
    Deleted(StreamId),
    /// The stream is archived: it is readable, but not writable until it is unarchived.
    Archived(StreamId),
    /// The seq lies before the stream's start: its event was trimmed.
    Trimmed {
        /// The stream.
        stream: StreamId,
        /// The stream's first seq.
        start: Seq,
    },
    /// The seq lies outside the stream, or on the wrong side of its last commit.
    SeqOutOfRange {
        /// The requested seq.
        asked: Seq,
        /// Valid seqs, including the end of the range.
        range: Range<Seq>,
    },
    /// A commit in flight changes the name of this stream, or has the same id: wait for its ticket
    /// first.
    CommitInFlight(StreamId),
    /// A commit with this id exists already. Nothing was written; buffered events stay.
    AlreadyCommitted {
        /// Position of the commit that has the id.
        position: Position,
    },
    /// An earlier commit of the same handle, or of a stream of this commit, failed as
    /// [`ErrorKind::AlreadyCommitted`] (the error's source). This commit was not made: its events
    /// are buffered after those of the earlier commit. Discard those (`Stream::discard` discards
    /// all), and commit again.
    Aborted,
    /// A label or a stream's data is over its limit.
    InvalidMetadata(&'static str),
    /// The log has, or had, a stream with this id.
    StreamExists(StreamId),
    /// An imported line is not a valid line of an export.
    InvalidLine {
        /// Number of the line, from 1.
        line: u64,
        /// Description of the fault.
        what: &'static str,
    },
    /// The system's clock differs from the log's present time by more than
    /// [`crate::Options::clock_jump_max`]. If it was ahead already when the log was opened, the
    /// time passed since is unknown, and background retention by age or idleness stops until
    /// [`crate::Log::retain`] is called.
    ClockJumped {
        /// Time of the system's clock.
        clock: Timestamp,
        /// Present time of the log.
        known: Timestamp,
    },
    /// The cursor of [`crate::Query::after`] ends a page of another query: order, direction or
    /// filter differ.
    ForeignCursor,
    /// The position lies beyond the log's last commit.
    PositionOutOfRange {
        /// The requested position.
        asked: Position,
        /// The last commit.
        last: Position,
    },
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io => f.write_str("the operating system refused"),
            Self::StorageFull => f.write_str("no space left; free some and commit again"),
            Self::Corrupt { stream, seqs } => {
                f.write_str("damaged bytes")?;
                if let Some(stream) = stream {
                    write!(f, ", stream {stream}")?;
                }
                match seqs {
                    Some(seqs) => write!(f, ", events {}..{}", seqs.start, seqs.end),
                    None => Ok(()),
                }
            }
            Self::Conflict { stream, expected, actual } if expected == actual => {
                write!(f, "stream {stream} is not as the commit expects it")
            }
            Self::Conflict { stream, expected, actual } => write!(
                f,
                "stream {stream}'s head is {actual}, and the commit expects {expected}"
            ),
            Self::UnknownStream(id) => write!(f, "no stream {id} in this log"),
            Self::UnknownName(name) => write!(f, "no stream is called {name:?}"),
            Self::AmbiguousPrefix(prefix) => {
                write!(f, "more than one stream id starts with {prefix:?}; give more of it")
            }
            Self::InvalidName => {
                f.write_str("a name needs 1 to 1,024 bytes and no control characters")
            }
            Self::Poisoned => {
                f.write_str("an earlier sync failed; reopen the log to see what is durable")
            }
            Self::Panicked => f.write_str("a thread of the log panicked; please report it"),
            Self::Closed => f.write_str("the log is closed"),
            Self::OtherProcess => f.write_str(OTHER_PROCESS),
            Self::QuotaExceeded { used_bytes, quota_bytes } => {
                write!(f, "{used_bytes} of {quota_bytes} bytes are used; delete and compact")
            }
            Self::UnsupportedVersion { found, supported } => {
                write!(f, "format version {found}; this build reads up to {supported}")
            }
            Self::UnsupportedFeature => f.write_str("a feature that this build does not know"),
            Self::WrongCodec { expected, found } => {
                write!(f, "the event's codec is {}, the reader's {}", found.0, expected.0)
            }
            Self::Codec => f.write_str("the codec refused"),
            Self::InvalidOption(which) => write!(f, "{which}"),
            Self::Refused(reason) => reason.fmt(f),
            Self::ForeignCursor => f.write_str(
                "the cursor is from a list with another order, direction or filter; repeat those, or start without a cursor",
            ),
            Self::PositionOutOfRange { asked, last } => {
                write!(f, "position {asked} is beyond the last commit, {last}")
            }
            other => other.of_a_directory(f),
        }
    }
}

impl ErrorKind {
    /// Returns what to do about an error, which its text ends with.
    pub(super) fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Conflict { .. } => Some("open the stream again and decide anew"),
            Self::Aborted => Some("discard its events, which are still buffered, first"),
            _ => None,
        }
    }

    /// Prints the kinds about a directory of a log.
    fn of_a_directory(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked { holder: Some(pid) } if *pid == std::process::id() => write!(
                f,
                "this process has it open already (or, in another container, one of the same id, {pid}); one writer at a time"
            ),
            Self::Locked { holder: Some(pid) } => {
                write!(f, "process {pid} is writing this log; one writer at a time")
            }
            Self::Locked { holder: None } => {
                f.write_str("another writer holds this log; one writer at a time")
            }
            Self::LockLost => f.write_str(
                "the lock file was removed or replaced, another process may be writing; close this log",
            ),
            Self::DirectoryLost => f.write_str(
                "the log's directory or its last segment was removed or replaced; close this log",
            ),
            Self::ClockJumped { clock, known } => write!(
                f,
                "the clock says {clock}, and it is about {known} as far as the log knows; set it right, or have what is too \
                 old forgotten by `retain`"
            ),
            Self::NotThisLog => f.write_str("the directory holds something else than this log"),
            Self::NoLog => f.write_str("there is no log"),
            Self::Outdated => {
                f.write_str("the file was compacted since this view was opened; open a new one")
            }
            Self::UnfinishedBackup => {
                f.write_str("a backup that was not finished; remove it and back up again")
            }
            Self::NotEmpty => f.write_str("the directory is not empty"),
            Self::InsideLog => {
                f.write_str("this would lie in the log's own directory; choose a place outside it")
            }
            other => other.of_a_stream(f),
        }
    }

    /// Writes the kinds that concern the life of a stream.
    fn of_a_stream(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deleted(id) => write!(f, "stream {id} was deleted"),
            Self::Archived(id) => {
                write!(f, "stream {id} is archived; take that back before you write it")
            }
            Self::Trimmed { stream, start } => {
                write!(f, "stream {stream} was trimmed and starts at {start}")
            }
            Self::SeqOutOfRange { asked, range } => {
                write!(f, "seq {asked} is not within {} to {}", range.start, range.end)
            }
            Self::CommitInFlight(id) => {
                write!(f, "a commit of stream {id} is in flight; wait for its ticket first")
            }
            Self::AlreadyCommitted { position } => {
                write!(f, "commit id already used at position {position}")
            }
            Self::Aborted => f.write_str("an earlier commit was refused"),
            Self::NotMaterialized { stream, .. } => {
                write!(f, "stream {stream} is in memory only; commit it first")
            }
            Self::InvalidMetadata(what) => f.write_str(what),
            Self::NameTaken { name, holder } => {
                write!(f, "the name {name:?} belongs to stream {holder}")
            }
            Self::StreamExists(id) => write!(f, "stream {id} is in this log already"),
            Self::NameIsAnId(id) => {
                write!(
                    f,
                    "a name that reads as the id {id} could be taken for that stream; choose another"
                )
            }
            Self::NameReserved => {
                f.write_str("names that begin with ~ are kept for the log's own; choose another")
            }
            Self::InvalidLine { line, what } => write!(f, "line {line}: {what}"),
            other => other.of_a_directory(f),
        }
    }
}
