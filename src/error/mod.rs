//! Errors of the crate: a caller matches on a kind and never has to read a message.
//!
//! One [`Error`] carries a kind, the operation, the place and the source. Refusals that a program
//! expects while appending have a small type of their own, [`AppendError`]. Every kind has a class,
//! for callers that only want to know what to do.

mod class;
mod kind;

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::kind::ErrorKind;
use crate::sabotage::{Sabotage, broken};
use crate::types::Seq;

/// Result of the crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

const OTHER_PROCESS: &str = "this handle belongs to the process that forked this one; close the log there before opening it here";

/// A failed operation, its place and its cause. Cheap to clone: all waiters of a group share one
/// error.
///
/// A caller that needs no details asks for the class of the error:
#[doc = "\n\n"]
#[doc = include_str!("classes.md")]
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    operation: &'static str,
    place: Option<Place>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Place in the log: a path relative to the log's directory and, inside a segment, a byte offset.
/// For a log that cannot be opened at all, the path is that of the log, as given.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Place {
    /// Path relative to the log's directory, which may have moved since; or that of the log.
    pub path: PathBuf,
    /// Number of the segment, when the path is a segment.
    pub segment: Option<u32>,
    /// Bytes from the start of the file.
    pub offset: Option<u64>,
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

    /// Names the log's path in an error that concerns the log as a whole.
    pub(crate) fn in_log(self, path: &Path) -> Self {
        let is_whole = match self.place() {
            None => matches!(self.kind(), ErrorKind::NoLog | ErrorKind::UnfinishedBackup),
            Some(place) => place.path.as_os_str().is_empty(),
        };
        match is_whole {
            true => self.at(Place { path: path.to_owned(), ..Place::root() }),
            false => self,
        }
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

    /// Returns the seqs that the error reports as lost.
    pub(crate) fn lost_seqs(&self) -> Option<Range<Seq>> {
        match self.kind() {
            ErrorKind::Corrupt { seqs, .. } => seqs.clone(),
            _ => None,
        }
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
        match &self.0.place {
            Some(place) if self.0.kind == ErrorKind::NoLog => write!(f, " at {place}")?,
            Some(place) => write!(f, " (in {place})")?,
            None => {}
        }
        if let Some(source) = &self.0.source {
            write!(f, ": {source}")?;
        }
        match self.0.kind.advice() {
            Some(advice) => write!(f, "; {advice}"),
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

/// Serializes the kind, the operation, the place and, as `message`, the text.
#[cfg(feature = "serde")]
impl serde::Serialize for Error {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;

        let mut fields = serializer.serialize_struct("Error", 4)?;
        fields.serialize_field("kind", &self.0.kind)?;
        fields.serialize_field("operation", self.0.operation)?;
        fields.serialize_field("place", &self.0.place)?;
        fields.serialize_field("message", &self.to_string())?;
        fields.end()
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

/// Reason for a refused event. The stream is unchanged.
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AppendError {
    /// The ring has reached its bound. With commits in flight, wait for a ticket; otherwise commit,
    /// discard, or choose another overflow policy.
    RingFull {
        /// The ring's bound in bytes.
        ring_bytes_max: usize,
        /// Bytes of commits in flight, which count toward the bound.
        in_flight_bytes: usize,
    },
    /// All rings together, with uncommitted names, labels and data, have used up the log's memory
    /// budget.
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

/// Event that [`crate::Stream::try_append`] refused, with the reason.
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
            Self::RingFull { ring_bytes_max, in_flight_bytes: 0 } => {
                write!(f, "the ring is full ({ring_bytes_max} bytes); commit or discard first")
            }
            Self::RingFull { ring_bytes_max, in_flight_bytes } => write!(
                f,
                "the ring is full ({ring_bytes_max} bytes; commits in flight hold {in_flight_bytes}); wait for a ticket"
            ),
            Self::MemoryFull { memory_bytes_max } => write!(
                f,
                "rings and uncommitted metadata use all of the log's {memory_bytes_max} bytes of memory; commit or discard first"
            ),
            Self::EventTooLarge { event_bytes, event_bytes_max } => write!(
                f,
                "the event has {event_bytes} bytes; this stream takes at most {event_bytes_max}"
            ),
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
