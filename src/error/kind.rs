//! Kinds of failure, and their texts.

use std::fmt;
use std::ops::Range;

use super::{AppendError, OTHER_PROCESS};
use crate::types::{CodecId, Position, Seq, StreamId, Timestamp};

/// Kinds of failure. Match on these; the text of an error is for people.
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Refusal by the operating system; the source has its error.
    Io,
    /// No space: the disk is full, a quota is used up, or a file would exceed `RLIMIT_FSIZE`; the
    /// source says which. Events of a failed commit return to their rings; commits succeed again
    /// once there is space.
    StorageFull,
    /// The commit would exceed the log's quota on disk. Events of the failed commit return to their
    /// rings; deleting and compacting makes room.
    QuotaExceeded {
        /// Bytes that the log's commits take up now.
        used_bytes: u64,
        /// Bytes that they may take up.
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
    /// A stream that is not deleted has this name.
    NameTaken {
        /// The requested name.
        name: String,
        /// The stream that has it.
        holder: StreamId,
    },
    /// A name must have 1 to 1,024 bytes and no control characters.
    InvalidName,
    /// A name must not have the form of a stream id, because it could be mistaken for that stream.
    NameIsAnId(StreamId),
    /// A name must not begin with `~`: such names are reserved for the log's own streams.
    NameReserved,
    /// The operation needs the disk, and the stream has nothing on it yet (P9).
    NotMaterialized {
        /// The stream.
        stream: StreamId,
        /// Number of its events in memory; only its own handle knows it.
        buffered: Option<u64>,
    },
    /// Another writer holds the log.
    Locked {
        /// Process id of the writer, if it could be read.
        holder: Option<u32>,
    },
    /// A sync failed, of this commit or an earlier one, or the writer panicked: the log
    /// acknowledges nothing until it is reopened (P5). The source is the first failure. Whether
    /// the commit whose sync failed is in the log is unknown until then.
    Poisoned,
    /// The file `LOCK` was removed or replaced while this process was writing the log. The log
    /// acknowledges nothing and touches no file until it is closed and reopened. Find out what
    /// removed the file: the lock of a dead process never needs to be removed.
    ///
    /// The writer checks the names before a group of commits if the last check was 100 ms, 64
    /// groups, or 16 synced groups ago; before it creates, replaces or removes a file; and when it
    /// closes. Commits in between are acknowledged as usual and go to the file that the writer
    /// holds open. That is safe: the segment is locked too, which keeps a second writer out until
    /// this writer releases it.
    LockLost,
    /// The log's directory, or the segment that receives commits, was removed or replaced while
    /// this process was writing the log, so that further commits would be lost. The log
    /// acknowledges nothing and touches no file until it is closed and reopened. Moving the log's
    /// directory is allowed: the log follows it.
    ///
    /// After each sync, and before it acknowledges the commit, the writer notices a segment that
    /// has no name left, as after `rm -r`. A segment that was moved elsewhere (with `segments`,
    /// say), and any loss that affects commits without a sync, is noticed as late as described for
    /// [`ErrorKind::LockLost`]; commits acknowledged until then are in the moved or removed files.
    DirectoryLost,
    /// A thread of the log panicked, which is a bug in this crate.
    Panicked,
    /// The log was closed.
    Closed,
    /// The handle belongs to the process that forked this one, where the log is in use. Open the
    /// log in this process once the other has closed it.
    OtherProcess,
    /// The log was opened where none existed, and before its first commit another writer created
    /// one there. Nothing was written; open the log again.
    NotThisLog,
    /// The path holds no log.
    NoLog,
    /// The directory holds an unfinished backup, which cannot be used: remove it.
    UnfinishedBackup,
    /// A backup needs an empty directory, or one that does not exist yet.
    NotEmpty,
    /// The target lies in the log's own directory. Nothing was written; choose a place outside that
    /// directory.
    InsideLog,
    /// The log was written by a newer version of this crate.
    UnsupportedVersion {
        /// Version of the file.
        found: u16,
        /// Newest version that this build reads.
        supported: u16,
    },
    /// The log uses a feature that this build does not support. A reader reports the first event or
    /// commit with such a feature, and ends there.
    UnsupportedFeature,
    /// The commit is too large: a commit must be smaller than 4 GiB.
    CommitTooLarge {
        /// Bytes that it would take up on disk.
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
    /// The stream was deleted. Events that its forks share can still be read through the forks.
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
    /// The seq lies outside the stream. For a savepoint: a commit has taken events since, or events
    /// from before it were discarded.
    SeqOutOfRange {
        /// The requested seq.
        asked: Seq,
        /// Valid seqs, including the end of the range.
        range: Range<Seq>,
    },
    /// A commit in flight changes the name of this stream, or has the same commit id: wait for its
    /// ticket first.
    CommitInFlight(StreamId),
    /// A commit with this id exists already. Nothing was written. What this commit would have done
    /// stays pending in its handle: its events, but also a rewind, a trim, a name and labels. Drop
    /// the handle, and open the stream again.
    AlreadyCommitted {
        /// Position of the commit that has the id.
        position: Position,
    },
    /// An earlier commit of the same handle, or of a stream of this commit, failed with
    /// [`ErrorKind::AlreadyCommitted`] (the error's source). This commit was not made: its events
    /// are buffered after those of the earlier commit. Drop the handle, open the stream again, and
    /// append them again.
    Aborted,
    /// A label or a stream's data exceeds its limit.
    InvalidMetadata(&'static str),
    /// The log contains, or contained, a stream with this id.
    StreamExists(StreamId),
    /// An imported line is not a valid line of an export.
    InvalidLine {
        /// Number of the line, from 1.
        line: u64,
        /// Description of the fault.
        what: &'static str,
    },
    /// The system's clock differs from the log's present time by more than
    /// [`crate::Options::clock_jump_max`]. If it was already ahead when the log was opened, the
    /// time that passed since the last commit is unknown, and background retention by age or
    /// idleness stops until [`crate::Log::retain`] is called.
    ClockJumped {
        /// Time of the system's clock.
        clock: Timestamp,
        /// Present time of the log.
        known: Timestamp,
    },
    /// The cursor of [`crate::Query::after`] belongs to another query: order, direction or filter
    /// differ.
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
            Self::QuotaExceeded { used_bytes, quota_bytes } => write!(
                f,
                "the commit would exceed the quota: {used_bytes} of {quota_bytes} bytes are used; delete streams and compact the log"
            ),
            Self::Locked { holder: Some(pid) } if *pid == std::process::id() => write!(
                f,
                "this process has it open already (or, in another container, one of the same id, {pid}); one writer at a time"
            ),
            Self::Locked { holder: Some(pid) } => {
                write!(f, "process {pid} is writing this log; one writer at a time")
            }
            Self::UnsupportedVersion { found, supported } => write!(
                f,
                "the log has format version {found}; this build supports versions up to {supported}"
            ),
            Self::CommitTooLarge { bytes, bytes_max } => {
                write!(f, "the commit would take {bytes} bytes; a commit has at most {bytes_max}")
            }
            Self::WrongCodec { expected, found } => write!(
                f,
                "the event was written with codec {}, the reader expects codec {}",
                found.0, expected.0
            ),
            Self::InvalidLine { line, what } => write!(f, "line {line}: {what}"),
            Self::ClockJumped { clock, known } => write!(
                f,
                "the clock reads {clock}, but by the log's own reckoning it is about {known}; correct the clock, or call \
                 `retain`, which trusts the clock and drops what is then too old"
            ),
            Self::PositionOutOfRange { asked, last } => {
                write!(f, "position {asked} is beyond the last commit, {last}")
            }
            Self::AlreadyCommitted { position } => {
                write!(f, "commit id already used at position {position}")
            }
            Self::Refused(reason) => reason.fmt(f),
            other => other.of_a_stream(f),
        }
    }
}

impl ErrorKind {
    /// Returns advice, with which the text of the error ends.
    pub(super) fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Conflict { .. } => Some("open the stream again, look at it, and decide"),
            Self::Aborted => {
                Some("open the stream again, and append the events of this commit again")
            }
            _ => None,
        }
    }

    /// Prints a kind that concerns one stream.
    fn of_a_stream(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict { stream, expected, actual } if expected == actual => {
                write!(f, "stream {stream} is not in the state that the commit expects")
            }
            Self::Conflict { stream, expected, actual } => write!(
                f,
                "the head of stream {stream} is {actual}, but the commit expects {expected}"
            ),
            Self::UnknownStream(id) => write!(f, "this log has no stream {id}"),
            Self::UnknownName(name) => write!(f, "no stream is named {name:?}"),
            Self::AmbiguousPrefix(prefix) => {
                write!(f, "more than one stream id starts with {prefix:?}; give more digits")
            }
            Self::NameTaken { name, holder } => {
                write!(f, "the name {name:?} belongs to stream {holder}")
            }
            Self::NameIsAnId(id) => write!(
                f,
                "a name in the form of the id {id} could be mistaken for that stream; choose another name"
            ),
            Self::NotMaterialized { stream, .. } => {
                write!(f, "stream {stream} is in memory only; commit it first")
            }
            Self::Deleted(id) => write!(f, "stream {id} was deleted"),
            Self::Archived(id) => {
                write!(f, "stream {id} is archived; unarchive it before writing to it")
            }
            Self::Trimmed { stream, start } => {
                write!(f, "stream {stream} was trimmed; it starts at seq {start}")
            }
            Self::SeqOutOfRange { asked, range } => {
                write!(f, "seq {asked} is not within {} to {}", range.start, range.end)
            }
            Self::CommitInFlight(id) => {
                write!(f, "a commit of stream {id} is in flight; wait for its ticket first")
            }
            Self::StreamExists(id) => write!(f, "this log already has, or had, a stream {id}"),
            other => f.write_str(other.fixed_text()),
        }
    }

    /// Returns the text of a kind without details, or with details that are its text.
    fn fixed_text(&self) -> &'static str {
        match self {
            Self::Io => "the operating system reported an error",
            Self::StorageFull => "no space left; free some space and commit again",
            Self::InvalidName => "a name must have 1 to 1,024 bytes and no control characters",
            Self::NameReserved => {
                "names that begin with ~ are reserved for the log itself; choose another name"
            }
            Self::Locked { .. } => "another writer holds this log; one writer at a time",
            Self::Poisoned => "a sync failed; reopen the log to see what is durable",
            Self::LockLost => {
                "the lock file was removed or replaced, so another process may try to write; close this log and open it again"
            }
            Self::DirectoryLost => {
                "the log's directory or its last segment was removed or replaced; close this log and open it again"
            }
            Self::Panicked => "a thread of the log panicked; please report it",
            Self::Closed => "the log is closed",
            Self::OtherProcess => OTHER_PROCESS,
            Self::NotThisLog => {
                "another writer created a log here after this one was opened; open the log again"
            }
            Self::NoLog => "there is no log",
            Self::UnfinishedBackup => "this is an unfinished backup; remove it and back up again",
            Self::NotEmpty => "the directory is not empty",
            Self::InsideLog => {
                "the target is inside the log's own directory; choose a place outside it"
            }
            Self::UnsupportedFeature => "the log uses a feature that this build does not support",
            Self::Codec => "the codec could not encode or decode the event",
            Self::InvalidOption(text) | Self::InvalidMetadata(text) => text,
            Self::Outdated => {
                "the segment was compacted after this view was opened; open a new view"
            }
            Self::Aborted => "an earlier commit was refused",
            Self::ForeignCursor => {
                "the cursor is from a list with another order, direction or filter; repeat those, or start without a cursor"
            }
            _ => "the operation failed",
        }
    }
}
