//! Basic types of the crate: streams, places in a stream, and places in the log.
//!
//! They are newtypes, so that a seq cannot be mistaken for a position. This module knows no bytes,
//! files or memory.

#[cfg(feature = "serde")]
mod serde_impls;
mod time;

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;

use uuid::{ContextV7, Uuid};

pub use self::time::Timestamp;
use crate::work::step;

/// Last millisecond that fits in an id, in the year 10889.
const ID_MILLIS_MAX: u64 = (1 << 48) - 1;

/// Range from `first` to `last`, both included, except for [`u64::MAX`], which is never assigned.
pub(crate) fn through(first: u64, last: u64) -> std::ops::Range<u64> {
    first..last.saturating_add(1)
}

/// Number of bytes, or of seqs, in a range; 0 if it ends before it starts.
pub(crate) fn range_len(range: &std::ops::Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

/// Identity of a stream: a UUID v7, known before anything is on disk.
///
/// Ids from [`StreamId::new`] sort by the clock at their creation, to the millisecond; ids that one
/// thread creates in the same millisecond sort in their order. If the clock goes back, new ids sort
/// before earlier ones. No id is created twice.
#[derive(Clone, Copy, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::derived_hash_with_manual_eq, reason = "it is the derived one, and counted")]
pub struct StreamId(Uuid);

impl PartialEq for StreamId {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        step();
        self.0 == other.0
    }
}

impl StreamId {
    /// Returns a new id, from the clock and 74 random bits.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "every call gives another value")]
    pub fn new() -> Self {
        Self::new_at(Timestamp::now())
    }

    /// Returns a new id with this time, regardless of earlier ids.
    pub(crate) fn new_at(now: Timestamp) -> Self {
        /// Latest millisecond of this thread's ids, and the counter within it.
        type Latest = RefCell<(u64, ContextV7)>;
        thread_local! {
            static LATEST: Latest = const { RefCell::new((0, ContextV7::new())) };
        }
        let millis = (now.as_micros() / 1_000).min(ID_MILLIS_MAX);
        let (seconds, nanos) = (millis / 1_000, (millis % 1_000) as u32 * 1_000_000);
        let in_order = LATEST.try_with(|latest| {
            let (before, context) = &mut *latest.borrow_mut();
            if millis < *before {
                // The old context would give every later id the time from before the clock went
                // back.
                *context = ContextV7::new();
            }
            *before = millis;
            uuid::Timestamp::from_unix(&*context, seconds, nanos)
        });
        // The thread is about to end: only the random bits distinguish its ids.
        let time = in_order
            .unwrap_or_else(|_| uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos));
        Self(Uuid::new_v7(time))
    }

    /// Returns the id with these sixteen bytes, for example from another program.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Returns the sixteen bytes of the id, in the order in which they are printed and sorted.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Returns the path of the stream's archive file in the log's directory:
    /// `archive/YYYY/MM/<id>.seg`, by the month in which the id was created (UTC), or
    /// `archive/0000/00/<id>.seg` for an id without a time. The path is defined even if the file
    /// does not exist.
    #[must_use]
    pub fn archive_path(&self) -> std::path::PathBuf {
        let (year, month, _) = self.created().map_or((0, 0, 0), Timestamp::date);
        format!("archive/{year:04}/{month:02}/{self}.seg").into()
    }

    /// Returns the time at which the id was created, if its UUID version contains one (v7 does, to
    /// the millisecond).
    #[must_use]
    pub fn created(&self) -> Option<Timestamp> {
        let (seconds, nanos) = self.0.get_timestamp()?.to_unix();
        let micros = seconds.saturating_mul(1_000_000).saturating_add(u64::from(nanos / 1_000));
        Some(Timestamp::from_micros(micros))
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamId({self})")
    }
}

impl FromStr for StreamId {
    type Err = ParseError;

    /// Parses any of the usual spellings of a UUID.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        Uuid::try_parse(text).map(Self).map_err(|_| ParseError("invalid id (expected a UUID)"))
    }
}

/// Text that is not a valid id, time or cursor. The message says what was expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParseError(pub(crate) &'static str);

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for ParseError {}

#[cfg(feature = "uuid")]
impl From<Uuid> for StreamId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

#[cfg(feature = "uuid")]
impl From<StreamId> for Uuid {
    fn from(id: StreamId) -> Self {
        id.0
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "serde", serde(transparent))]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub(crate) u64);

        impl $name {
            /// Returns the number.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl From<u64> for $name {
            fn from(number: u64) -> Self {
                Self(number)
            }
        }

        impl From<$name> for u64 {
            fn from(number: $name) -> Self {
                number.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

number! {
    /// Place of an event in its stream: dense, from 0, assigned by the engine at append.
    Seq
}

number! {
    /// Commit number in its log: dense, from 1. [`Position::START`] lies before the first commit.
    Position
}

impl Seq {
    /// Returns the seq after this one. No event has the seq [`u64::MAX`], for which this returns
    /// the same seq.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Returns the seq this number of events earlier, or 0. So
    /// `stream.rewind(stream.head().saturating_sub(1))` drops the last event.
    #[must_use]
    pub const fn saturating_sub(self, events: u64) -> Self {
        Self(self.0.saturating_sub(events))
    }
}

impl Position {
    /// Position before the first commit.
    pub const START: Self = Self(0);

    /// Returns the position after this one. No commit has the position [`u64::MAX`], for which this
    /// returns the same position.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// The program's classification of an event: 16 bits that the engine stores and never interprets.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct EventKind(pub u16);

/// Encoding of a payload: stored with each event, checked by typed reads.
///
/// 0 means raw bytes; 1 to 127 are reserved for this crate; 128 to 255 are for programs.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct CodecId(pub u8);

impl CodecId {
    /// Bytes that only the program interprets.
    pub const RAW: Self = Self(0);
    /// `bincode` 2, its standard configuration, through serde.
    pub const BINCODE: Self = Self(1);
    /// JSON text.
    pub const JSON: Self = Self(2);
    /// `postcard` 1, through serde.
    pub const POSTCARD: Self = Self(3);
    /// First id available to programs.
    pub const FIRST_OF_PROGRAM: Self = Self(128);
}

/// Guarantee that a resolved ticket gives about its commit (P3).
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub enum Durability {
    /// Handed to the operating system: survives a crash of the process, but not of the machine.
    /// Costs one system call.
    Os,
    /// Synced to the device, with the directory entries of new files: survives a power cut.
    /// Costs one sync, shared by all commits of the group.
    #[default]
    Disk,
}

/// Operations that a stream permits.
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[non_exhaustive]
pub enum StreamState {
    /// All operations.
    #[default]
    Active,
    /// Reads only, until the stream is unarchived. Lists omit it unless asked to include it.
    Archived,
    /// No operation, permanently.
    Deleted,
}

/// Identity that a program gives a commit, so that it can repeat the request without committing
/// twice: 16 bytes that it uses for no other commit, for example a UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(pub [u8; 16]);

impl CommitId {
    /// Returns a new id, from the clock and 74 random bits.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "every call gives another value")]
    pub fn new() -> Self {
        Self(*Uuid::now_v7().as_bytes())
    }
}

impl FromStr for CommitId {
    type Err = ParseError;

    /// Parses any of the usual spellings of a UUID.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        Ok(Self(*text.parse::<StreamId>()?.as_bytes()))
    }
}

#[cfg(feature = "uuid")]
impl From<Uuid> for CommitId {
    fn from(uuid: Uuid) -> Self {
        Self(*uuid.as_bytes())
    }
}

impl From<u128> for CommitId {
    fn from(number: u128) -> Self {
        Self(*Uuid::from_u128(number).as_bytes())
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_bytes(self.0).fmt(f)
    }
}

impl fmt::Debug for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommitId({self})")
    }
}
