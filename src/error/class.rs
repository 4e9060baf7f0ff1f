//! Classes of failure: what a caller does about one, without naming each kind.

use super::{AppendError, Error, ErrorKind};

/// Class of a failure, by what a caller can do about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ErrorClass {
    NotFound,
    Conflict,
    Retryable,
    Fatal,
    /// The call or its input is wrong, or the disk is.
    Other,
}

impl ErrorKind {
    /// Returns the class. [`Error`] has the same as a table.
    fn class(&self) -> ErrorClass {
        match self {
            Self::UnknownStream(_) | Self::UnknownName(_) | Self::Deleted(_) | Self::NoLog => {
                ErrorClass::NotFound
            }
            Self::Conflict { .. } | Self::NameTaken { .. } | Self::StreamExists(_) => {
                ErrorClass::Conflict
            }
            Self::StorageFull
            | Self::QuotaExceeded { .. }
            | Self::Locked { .. }
            | Self::CommitInFlight(_)
            | Self::NotMaterialized { .. } => ErrorClass::Retryable,
            Self::Poisoned
            | Self::LockLost
            | Self::DirectoryLost
            | Self::NotThisLog
            | Self::Panicked
            | Self::Closed
            | Self::OtherProcess => ErrorClass::Fatal,
            Self::Refused(refused) => refused.class(),
            Self::Io
            | Self::Corrupt { .. }
            | Self::AmbiguousPrefix(_)
            | Self::InvalidName
            | Self::NameIsAnId(_)
            | Self::NameReserved
            | Self::UnfinishedBackup
            | Self::NotEmpty
            | Self::InsideLog
            | Self::UnsupportedVersion { .. }
            | Self::UnsupportedFeature
            | Self::CommitTooLarge { .. }
            | Self::WrongCodec { .. }
            | Self::Codec
            | Self::InvalidOption(_)
            | Self::Outdated
            | Self::Archived(_)
            | Self::Trimmed { .. }
            | Self::SeqOutOfRange { .. }
            | Self::AlreadyCommitted { .. }
            | Self::Aborted
            | Self::InvalidMetadata(_)
            | Self::InvalidLine { .. }
            | Self::ClockJumped { .. }
            | Self::ForeignCursor
            | Self::PositionOutOfRange { .. } => ErrorClass::Other,
        }
    }
}

impl AppendError {
    fn class(self) -> ErrorClass {
        match self {
            Self::RingFull { .. } | Self::MemoryFull { .. } => ErrorClass::Retryable,
            Self::Deleted => ErrorClass::NotFound,
            Self::Closed | Self::OtherProcess => ErrorClass::Fatal,
            Self::EventTooLarge { .. } | Self::Archived => ErrorClass::Other,
        }
    }

    /// Returns true if the stream was deleted, like [`Error::is_not_found`].
    #[must_use]
    pub fn is_not_found(self) -> bool {
        self.class() == ErrorClass::NotFound
    }

    /// Returns true if the same event can be appended later, like [`Error::is_retryable`].
    #[must_use]
    pub fn is_retryable(self) -> bool {
        self.class() == ErrorClass::Retryable
    }

    /// Returns true if the log takes no events through this handle, like [`Error::is_fatal`].
    #[must_use]
    pub fn is_fatal(self) -> bool {
        self.class() == ErrorClass::Fatal
    }
}

impl Error {
    /// Returns true if the stream or log does not exist, or was deleted.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind().class() == ErrorClass::NotFound
    }

    /// Returns true if another handle or stream came first. The same call would fail again: look at
    /// the current state and decide again.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.kind().class() == ErrorClass::Conflict
    }

    /// Returns true if the same call can succeed later, once the obstacle that the kind names is
    /// gone. Nothing was lost. Repeating the call at once may fail in the same way.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.kind().class() == ErrorClass::Retryable
    }

    /// Returns true if no further commit can succeed through the log's current handles: open the
    /// log again. Only then is it known whether a commit that failed with
    /// [`ErrorKind::Poisoned`] is in the log.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        self.kind().class() == ErrorClass::Fatal
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::types::{CodecId, Position, Seq, StreamId, Timestamp};

    /// One error of every kind.
    fn kinds() -> Vec<ErrorKind> {
        let (stream, seq, position) = (StreamId::new(), Seq(1), Position(1));
        let time = Timestamp::default();
        vec![
            ErrorKind::Io,
            ErrorKind::StorageFull,
            ErrorKind::QuotaExceeded { used_bytes: 1, quota_bytes: 1 },
            ErrorKind::Corrupt { stream: None, seqs: None },
            ErrorKind::Conflict { stream, expected: seq, actual: seq },
            ErrorKind::UnknownStream(stream),
            ErrorKind::UnknownName("a".into()),
            ErrorKind::AmbiguousPrefix("a".into()),
            ErrorKind::NameTaken { name: "a".into(), holder: stream },
            ErrorKind::InvalidName,
            ErrorKind::NameIsAnId(stream),
            ErrorKind::NameReserved,
            ErrorKind::NotMaterialized { stream, buffered: None },
            ErrorKind::Locked { holder: None },
            ErrorKind::Poisoned,
            ErrorKind::LockLost,
            ErrorKind::DirectoryLost,
            ErrorKind::Panicked,
            ErrorKind::Closed,
            ErrorKind::OtherProcess,
            ErrorKind::NotThisLog,
            ErrorKind::NoLog,
            ErrorKind::UnfinishedBackup,
            ErrorKind::NotEmpty,
            ErrorKind::InsideLog,
            ErrorKind::UnsupportedVersion { found: 2, supported: 1 },
            ErrorKind::UnsupportedFeature,
            ErrorKind::CommitTooLarge { bytes: 1, bytes_max: 1 },
            ErrorKind::WrongCodec { expected: CodecId(1), found: CodecId(2) },
            ErrorKind::Codec,
            ErrorKind::InvalidOption("a"),
            ErrorKind::Refused(AppendError::Archived),
            ErrorKind::Outdated,
            ErrorKind::Deleted(stream),
            ErrorKind::Archived(stream),
            ErrorKind::Trimmed { stream, start: seq },
            ErrorKind::SeqOutOfRange { asked: seq, range: seq..seq },
            ErrorKind::CommitInFlight(stream),
            ErrorKind::AlreadyCommitted { position },
            ErrorKind::Aborted,
            ErrorKind::InvalidMetadata("a"),
            ErrorKind::StreamExists(stream),
            ErrorKind::InvalidLine { line: 1, what: "a" },
            ErrorKind::ClockJumped { clock: time, known: time },
            ErrorKind::ForeignCursor,
            ErrorKind::PositionOutOfRange { asked: position, last: position },
        ]
    }

    fn refusals() -> [AppendError; 7] {
        [
            AppendError::RingFull { ring_bytes_max: 1, in_flight_bytes: 0 },
            AppendError::MemoryFull { memory_bytes_max: 1 },
            AppendError::EventTooLarge { event_bytes: 2, event_bytes_max: 1 },
            AppendError::Closed,
            AppendError::OtherProcess,
            AppendError::Archived,
            AppendError::Deleted,
        ]
    }

    fn name_of(variant: &impl std::fmt::Debug) -> String {
        let text = format!("{variant:?}");
        text.chars().take_while(|letter| letter.is_alphanumeric()).collect()
    }

    /// Names in the table of classes, with their row.
    fn documented() -> BTreeMap<String, &'static str> {
        let rows = include_str!("classes.md").lines().filter_map(|line| line.strip_prefix("| "));
        let cells = rows.filter_map(|row| row.split_once('|'));
        cells
            .flat_map(|(row, kinds)| {
                let names = kinds.split(['`', '[', ']', ',']).map(str::trim);
                let names = names.filter(|name| name.contains("::"));
                names.map(move |name| (name.to_owned(), row.trim()))
            })
            .collect()
    }

    #[test]
    fn every_kind_has_a_text() {
        for kind in kinds() {
            assert_ne!(kind.to_string(), "the operation failed", "{kind:?}");
        }
        let large = ErrorKind::CommitTooLarge { bytes: 7, bytes_max: 5 }.to_string();
        assert_eq!(large, "the commit would take 7 bytes; a commit has at most 5");
    }

    #[test]
    fn the_table_of_kinds_says_what_the_methods_say() {
        let table = documented();
        let row_of = |error: &Error| {
            let is = [
                (error.is_not_found(), "`is_not_found`"),
                (error.is_conflict(), "`is_conflict`"),
                (error.is_retryable(), "`is_retryable`"),
                (error.is_fatal(), "`is_fatal`"),
            ];
            let rows: Vec<_> = is.iter().filter(|(is, _)| *is).map(|(_, row)| *row).collect();
            assert!(rows.len() <= 1, "{error:?} is {rows:?}");
            rows.first().copied().unwrap_or("none")
        };
        let mut named = 0;
        for kind in kinds() {
            let name = format!("ErrorKind::{}", name_of(&kind));
            let row = row_of(&Error::new(kind.clone(), "test"));
            if !matches!(kind, ErrorKind::Refused(_)) {
                assert_eq!(table.get(&name), Some(&row), "{name}");
                named += 1;
            }
        }
        for refusal in refusals() {
            let name = format!("AppendError::{}", name_of(&refusal));
            let error = Error::from(refusal);
            assert_eq!(table.get(&name), Some(&row_of(&error)), "{name}");
            assert_eq!(refusal.is_not_found(), error.is_not_found());
            assert_eq!(refusal.is_retryable(), error.is_retryable());
            assert_eq!(refusal.is_fatal(), error.is_fatal());
            named += 1;
        }
        assert_eq!(table.len(), named, "the table names a kind that no sample has");
        // The compiler demands a class for every kind; this demands a sample of every kind.
        let source = include_str!("kind.rs");
        let source = source.split("pub enum ErrorKind {").nth(1).expect("the enum");
        let source = source.split("\n}").next().expect("its end");
        let variants = source.lines().filter_map(|line| line.strip_prefix("    "));
        let variants = variants.filter(|line| line.starts_with(char::is_uppercase)).count();
        assert_eq!(kinds().len(), variants);
    }
}
