//! What can go wrong, so that no caller ever has to read a message.
//!
//! One [`Error`] with a kind, the operation, the place and the source. Refusals that a program expects
//! while appending are a small type of their own, [`Refused`], which hands the event back.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crate::types::{CodecId, Position, Seq, StreamId};

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What failed, where, and why. Cheap to clone: every waiter of a group gets the same one.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    operation: &'static str,
    place: Option<Place>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Where in the log: a path relative to the log's directory and, inside a segment, a byte offset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Relative to the log's directory, which may have moved since.
    pub path: PathBuf,
    /// The segment's number, when the path is a segment.
    pub segment: Option<u32>,
    /// Bytes from the start of the file.
    pub offset: Option<u64>,
}

/// The sorts of failure. Match on these; the text of an error is for people.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused; the source says how.
    Io,
    /// No space. Events of a failed commit are back in their rings; commits work again when there is space.
    StorageFull,
    /// The log would take more on disk than its options allow. Events of the failed commit are back in their rings;
    /// deleting and collecting makes room.
    QuotaExceeded {
        /// What its commits take now.
        used_bytes: u64,
        /// What they may take.
        quota_bytes: u64,
    },
    /// Bytes that were once written are not what they were. Other streams go on.
    Corrupt {
        /// The stream that lost events, when that is known.
        stream: Option<StreamId>,
        /// Which of its events, when that is known.
        seqs: Option<Range<Seq>>,
    },
    /// Someone else moved the stream since this handle last saw its head (P8). Nothing was written.
    Conflict {
        /// The head that the handle saw.
        expected: Seq,
        /// The head that the stream has.
        actual: Seq,
    },
    /// No such stream in the log.
    UnknownStream(StreamId),
    /// No stream answers to this text.
    UnknownName(String),
    /// More than one stream id starts with this text.
    AmbiguousPrefix(String),
    /// A living stream has this name.
    NameTaken {
        /// The name that was asked for.
        name: String,
        /// Who has it.
        holder: StreamId,
    },
    /// A name must have 1 to 1,024 bytes and no control characters.
    InvalidName,
    /// What was asked needs the disk, and the stream has nothing there yet (P9).
    NotMaterialized {
        /// The stream.
        stream: StreamId,
        /// Its events in memory, when that is known: only its own handle knows.
        buffered: Option<u64>,
    },
    /// Another writer holds the log.
    Locked {
        /// Its process id, when it could be read.
        holder: Option<u32>,
    },
    /// A sync failed earlier (or the writer panicked): nothing is acknowledged any more until the log is reopened (P5).
    Poisoned,
    /// The log was closed.
    Closed,
    /// The directory holds something else than a log, or a log that appeared since this one was opened.
    NotThisLog,
    /// There is no log at this path.
    NoLog,
    /// A backup that was not finished lies here. It is of no use: remove its directory.
    UnfinishedBackup,
    /// A backup needs a directory with nothing in it, or one that is not there yet.
    NotEmpty,
    /// Written by a newer version of this crate.
    UnsupportedVersion {
        /// What the file says.
        found: u16,
        /// The newest that this build reads.
        supported: u16,
    },
    /// The log uses a feature that this build does not know.
    UnsupportedFeature,
    /// One commit may hold less than 4 GiB.
    CommitTooLarge {
        /// What it would take on disk.
        bytes: u64,
        /// The most that a commit can take.
        bytes_max: u64,
    },
    /// The event was written by another codec than the one it is read with.
    WrongCodec {
        /// The reader's.
        expected: CodecId,
        /// The event's.
        found: CodecId,
    },
    /// The codec could not encode or decode the event.
    Codec,
    /// An option has a value that cannot work.
    InvalidOption(&'static str),
    /// An event was refused at append; see [`Refused`].
    Refused(RefusedReason),
    /// The stream was deleted. What its forks share with it can be read through them.
    Deleted(StreamId),
    /// The stream is archived: it can be read, and not written until that is taken back.
    Archived(StreamId),
    /// The stream's events lie in an archive file that is not there. Put it back, from a backup for instance, where the
    /// error says; then they are read again, without opening the log anew.
    ArchiveMissing(StreamId),
    /// Where the stream's archive file should be is another one: of another stream, another log, or another time. Put
    /// the right one back.
    WrongArchive(StreamId),
    /// The seq lies before where the stream now starts: what stood there was trimmed.
    Trimmed {
        /// The stream.
        stream: StreamId,
        /// The first seq that is there.
        start: Seq,
    },
    /// The seq lies beyond what the stream holds, or on the wrong side of its last commit.
    SeqOutOfRange {
        /// What was asked for.
        asked: Seq,
        /// The seqs that can be asked for; their end is one of them.
        range: std::ops::Range<Seq>,
    },
    /// Earlier commits of this handle are under way: wait for their tickets first.
    CommitInFlight(StreamId),
    /// A commit of this id was made before. Nothing was written; what is buffered stays.
    AlreadyCommitted {
        /// The commit that has the id.
        position: Position,
    },
    /// A label or a stream's data is over its limit.
    InvalidMetadata(&'static str),
    /// The log has, or had, a stream of this id.
    StreamExists(StreamId),
    /// A line of what is imported is not what stands in an export.
    InvalidLine {
        /// Which line, from 1.
        line: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The position lies beyond what the log holds.
    PositionOutOfRange {
        /// What was asked for.
        asked: Position,
        /// The last commit.
        last: Position,
    },
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, operation: &'static str) -> Self {
        Self(Arc::new(Inner { kind, operation, place: None, source: None }))
    }

    pub(crate) fn corrupt(operation: &'static str, place: Place) -> Self {
        Self::new(ErrorKind::Corrupt { stream: None, seqs: None }, operation).at(place)
    }

    pub(crate) fn io(operation: &'static str, place: Place, source: std::io::Error) -> Self {
        let full = matches!(
            source.kind(),
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
        );
        let kind = if full { ErrorKind::StorageFull } else { ErrorKind::Io };
        Self::new(kind, operation).at(place).because(source)
    }

    pub(crate) fn at(self, place: Place) -> Self {
        self.change(|inner| inner.place = Some(place))
    }

    pub(crate) fn because(
        self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        let source = source.into();
        self.change(|inner| inner.source = Some(source))
    }

    /// Only for errors that were made a moment ago and are shared with nobody.
    fn change(mut self, with: impl FnOnce(&mut Inner)) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            with(inner);
        }
        self
    }

    /// What sort of failure it is.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// What was being done: a verb of this crate, in lower case.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// Where it happened, when it happened on disk.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        self.0.place.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.operation, self.0.kind)?;
        if let Some(place) = &self.0.place {
            write!(f, " (in {place})")?;
        }
        match &self.0.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("operation", &self.0.operation)
            .field("place", &self.0.place)
            .field("source", &self.0.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| &**source as _)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.as_os_str().is_empty() {
            return f.write_str("the log's directory");
        }
        write!(f, "{}", self.path.display())?;
        match self.offset {
            Some(offset) => write!(f, " at byte {offset}"),
            None => Ok(()),
        }
    }
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
            Self::Conflict { expected, actual } => write!(
                f,
                "the stream's head is {actual}, this handle saw {expected}; resume it and try again"
            ),
            Self::UnknownStream(id) => write!(f, "no stream {id} in this log"),
            Self::UnknownName(name) => write!(f, "no stream is called {name:?}"),
            Self::AmbiguousPrefix(prefix) => {
                write!(f, "more than one stream id starts with {prefix:?}; give more of it")
            }
            Self::NameTaken { name, holder } => {
                write!(f, "the name {name:?} belongs to stream {holder}")
            }
            Self::InvalidName => {
                f.write_str("a name needs 1 to 1,024 bytes and no control characters")
            }
            Self::NotMaterialized { stream, .. } => {
                write!(f, "stream {stream} is in memory only; commit it first")
            }
            Self::Locked { holder: Some(pid) } => {
                write!(f, "process {pid} is writing this log; one writer at a time")
            }
            Self::Locked { holder: None } => {
                f.write_str("another writer holds this log; one writer at a time")
            }
            Self::Poisoned => {
                f.write_str("an earlier sync failed; reopen the log to see what is durable")
            }
            Self::Closed => f.write_str("the log is closed"),
            Self::NotThisLog => f.write_str("the directory holds something else than this log"),
            Self::QuotaExceeded { used_bytes, quota_bytes } => {
                write!(f, "{used_bytes} of {quota_bytes} bytes are used; delete and collect")
            }
            Self::NoLog => f.write_str("there is no log here"),
            Self::UnfinishedBackup => {
                f.write_str("a backup that was not finished; remove it and back up again")
            }
            Self::NotEmpty => f.write_str("the directory is not empty"),
            Self::UnsupportedVersion { found, supported } => {
                write!(f, "format version {found}; this build reads up to {supported}")
            }
            Self::UnsupportedFeature => f.write_str("a feature that this build does not know"),
            Self::CommitTooLarge { bytes, bytes_max } => {
                write!(f, "a commit of {bytes} bytes; at most {bytes_max}")
            }
            Self::WrongCodec { expected, found } => {
                write!(f, "the event's codec is {}, the reader's {}", found.0, expected.0)
            }
            Self::Codec => f.write_str("the codec refused"),
            Self::InvalidOption(which) => write!(f, "{which}"),
            Self::Refused(reason) => reason.fmt(f),
            Self::PositionOutOfRange { asked, last } => {
                write!(f, "position {asked} is beyond the last commit, {last}")
            }
            other => other.of_a_stream(f),
        }
    }
}

impl ErrorKind {
    /// What it says of the life of a stream.
    fn of_a_stream(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deleted(id) => write!(f, "stream {id} was deleted"),
            Self::Archived(id) => {
                write!(f, "stream {id} is archived; take that back before you write it")
            }
            Self::ArchiveMissing(id) => {
                write!(f, "the archive file of stream {id} is not there; put it back from a backup")
            }
            Self::WrongArchive(id) => {
                write!(f, "not the archive file that stream {id} moved to; put that one back")
            }
            Self::Trimmed { stream, start } => {
                write!(f, "stream {stream} was trimmed and starts at {start}")
            }
            Self::SeqOutOfRange { asked, range } => {
                write!(f, "seq {asked} is not within {} to {}", range.start, range.end)
            }
            Self::CommitInFlight(id) => {
                write!(f, "a commit of stream {id} is under way; wait for its ticket first")
            }
            Self::AlreadyCommitted { position } => {
                write!(f, "it was committed before, at position {position}")
            }
            Self::InvalidMetadata(what) => f.write_str(what),
            Self::StreamExists(id) => write!(f, "stream {id} is in this log already"),
            Self::InvalidLine { line, what } => write!(f, "line {line}: {what}"),
            _ => Ok(()),
        }
    }
}

/// Why an event was not taken. The stream is as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RefusedReason {
    /// The ring is at its bound; commit, discard, or choose another overflow policy.
    RingFull {
        /// The ring's bound in bytes.
        ring_bytes_max: usize,
    },
    /// All rings together are at the log's memory budget.
    MemoryFull {
        /// The budget in bytes.
        memory_bytes_max: usize,
    },
    /// The event alone is larger than this stream allows.
    EventTooLarge {
        /// The event's bytes.
        event_bytes: usize,
        /// The most that this stream takes.
        event_bytes_max: usize,
    },
    /// The log was closed.
    Closed,
    /// The stream is archived.
    Archived,
    /// The stream was deleted.
    Deleted,
}

/// A refusal at append: the reason, and the event, untouched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused<E> {
    /// Why.
    pub reason: RefusedReason,
    /// What was to be appended.
    pub event: E,
}

impl fmt::Display for RefusedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RingFull { ring_bytes_max } => {
                write!(f, "the ring is full ({ring_bytes_max} bytes); commit or discard first")
            }
            Self::MemoryFull { memory_bytes_max } => {
                write!(f, "the rings of the log hold its {memory_bytes_max} bytes of memory")
            }
            Self::EventTooLarge { event_bytes, event_bytes_max } => {
                write!(f, "an event of {event_bytes} bytes; this stream takes {event_bytes_max}")
            }
            Self::Closed => f.write_str("the log is closed"),
            Self::Archived => f.write_str("the stream is archived"),
            Self::Deleted => f.write_str("the stream was deleted"),
        }
    }
}

impl<E> fmt::Display for Refused<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "append: {}", self.reason)
    }
}

impl<E: fmt::Debug> std::error::Error for Refused<E> {}

impl<E> From<Refused<E>> for Error {
    /// For `?` where the event need not come back.
    fn from(refused: Refused<E>) -> Self {
        Self::new(ErrorKind::Refused(refused.reason), "append")
    }
}
