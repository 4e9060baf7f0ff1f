//! Errors of the crate: a caller matches on a kind and never has to read a message.
//!
//! One [`Error`] carries a kind, the operation, the place and the source. Refusals that a program
//! expects while appending have a small type of their own, [`AppendError`].

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crate::sabotage::{Sabotage, broken};
use crate::types::{CodecId, Position, Seq, StreamId, Timestamp};

/// Result of the crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

const OTHER_PROCESS: &str = "this handle belongs to the process that forked this one; use it there, or close the log there and open it here";

/// Failed operation, its place and its cause. Cheap to clone: all waiters of a group share one
/// error.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    operation: &'static str,
    place: Option<Place>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Place in the log: a path relative to the log's directory and, inside a segment, a byte offset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Path relative to the log's directory, which may have moved since.
    pub path: PathBuf,
    /// Number of the segment, when the path is a segment.
    pub segment: Option<u32>,
    /// Bytes from the start of the file.
    pub offset: Option<u64>,
}

/// Kinds of failure. Match on these; the text of an error is for people.
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
    /// open ([`crate::ReadOptions::open_segments_max`]). Open a new view.
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
        range: std::ops::Range<Seq>,
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
    /// The position lies beyond the log's last commit.
    PositionOutOfRange {
        /// The requested position.
        asked: Position,
        /// The last commit.
        last: Position,
    },
}

/// Returns whether an error means that no space is left: the disk is full (`ENOSPC`), a quota is
/// used up (`EDQUOT`), or the file would become too long (`EFBIG`).
pub(crate) fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match error.kind() {
        StorageFull => true,
        QuotaExceeded | FileTooLarge => !broken(Sabotage::OnlyFullIsFull),
        _ => false,
    }
}

impl Place {
    /// The log's directory itself.
    pub(crate) fn root() -> Self {
        Self { path: PathBuf::new(), segment: None, offset: None }
    }
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, operation: &'static str) -> Self {
        Self(Arc::new(Inner { kind, operation, place: None, source: None }))
    }

    pub(crate) fn corrupt(operation: &'static str, place: Place) -> Self {
        Self::new(ErrorKind::Corrupt { stream: None, seqs: None }, operation).at(place)
    }

    pub(crate) fn io(operation: &'static str, place: Place, source: std::io::Error) -> Self {
        let kind = if is_full(&source) { ErrorKind::StorageFull } else { ErrorKind::Io };
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

    /// Copies the place and the source of another error.
    pub(crate) fn at_that_of(self, other: &Self) -> Self {
        let Inner { place, source, .. } = &*other.0;
        let error = place.iter().fold(self, |error, place| error.at(place.clone()));
        source.iter().fold(error, |error, source| error.because(source.to_string()))
    }

    /// Changes a new error that has not been shared yet.
    fn change(mut self, with: impl FnOnce(&mut Inner)) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            with(inner);
        }
        self
    }

    /// Returns the kind of failure.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// Returns whether this process has lost the log to write.
    pub(crate) fn is_loss(&self) -> bool {
        matches!(self.kind(), ErrorKind::LockLost | ErrorKind::DirectoryLost)
    }

    /// Returns whether the file was removed, or another file has its name.
    pub(crate) fn is_gone(&self) -> bool {
        let io = self.0.source.as_ref().and_then(|source| source.downcast_ref::<std::io::Error>());
        let is_missing = io.is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound);
        is_missing || matches!(self.kind(), ErrorKind::Outdated)
    }

    /// Returns the failed operation: a verb of this crate, in lower case.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// Returns the place on disk, if the failure has one.
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
            Self::Conflict { expected, actual } if expected == actual => {
                f.write_str("the stream is not as the commit expects it")
            }
            Self::Conflict { expected, actual } => write!(
                f,
                "the stream's head is {actual}, and the commit expects {expected}; open it again and retry"
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
            Self::PositionOutOfRange { asked, last } => {
                write!(f, "position {asked} is beyond the last commit, {last}")
            }
            other => other.of_a_directory(f),
        }
    }
}

impl ErrorKind {
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
            Self::NoLog => f.write_str("there is no log here"),
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
                write!(f, "it was committed before, at position {position}")
            }
            Self::Aborted => f.write_str(
                "not committed: an earlier commit of the same handle was made before; its events are still buffered",
            ),
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
            Self::InvalidLine { line, what } => write!(f, "line {line}: {what}"),
            other => other.of_a_directory(f),
        }
    }
}

/// Reason for a refused event. The stream is unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AppendError {
    /// The ring is at its bound; commit, discard, or choose another overflow policy.
    RingFull {
        /// The ring's bound in bytes.
        ring_bytes_max: usize,
    },
    /// All rings together, with uncommitted names, labels and data, are at the log's memory budget.
    MemoryFull {
        /// The budget in bytes.
        memory_bytes_max: usize,
    },
    /// The event alone is larger than this stream allows.
    EventTooLarge {
        /// Size of the event.
        event_bytes: usize,
        /// Maximum size of an event in this stream.
        event_bytes_max: usize,
    },
    /// The log was closed.
    Closed,
    /// The handle belongs to the process that forked this one: see [`ErrorKind::OtherProcess`].
    OtherProcess,
    /// The stream is archived.
    Archived,
    /// The stream was deleted.
    Deleted,
}

/// An event that [`crate::Stream::try_append`] refused, with the reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rejected<E> {
    /// Reason for the refusal.
    pub error: AppendError,
    /// The event that was refused.
    pub event: E,
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RingFull { ring_bytes_max } => {
                write!(f, "the ring is full ({ring_bytes_max} bytes); commit or discard first")
            }
            Self::MemoryFull { memory_bytes_max } => {
                write!(
                    f,
                    "rings, and what is said of streams, hold the log's {memory_bytes_max} bytes of memory"
                )
            }
            Self::EventTooLarge { event_bytes, event_bytes_max } => {
                write!(f, "an event of {event_bytes} bytes; this stream takes {event_bytes_max}")
            }
            Self::Closed => f.write_str("the log is closed"),
            Self::OtherProcess => f.write_str(OTHER_PROCESS),
            Self::Archived => f.write_str("the stream is archived"),
            Self::Deleted => f.write_str("the stream was deleted"),
        }
    }
}

impl std::error::Error for AppendError {}

impl From<AppendError> for Error {
    fn from(refused: AppendError) -> Self {
        Self::new(ErrorKind::Refused(refused), "append")
    }
}

impl<E> fmt::Display for Rejected<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "append: {}", self.error)
    }
}

impl<E: fmt::Debug> std::error::Error for Rejected<E> {}

impl<E> From<Rejected<E>> for Error {
    /// Drops the event, for `?`.
    fn from(rejected: Rejected<E>) -> Self {
        rejected.error.into()
    }
}
