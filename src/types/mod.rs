//! Vocabulary of the crate as types: streams, places in a stream, and places in the log.
//!
//! They are newtypes, so that a seq cannot be mistaken for a position. This module knows no bytes,
//! files or memory.

#[cfg(feature = "json")]
mod json;

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::{ContextV7, Uuid};

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

    /// The sixteen bytes of the id, in the order in which they are printed and sorted.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Path of the stream's archive file in the log's directory: `archive/YYYY/MM/<id>.seg`, by the
    /// month in which the id was created (UTC), or `archive/0000/00/<id>.seg` for an id without a
    /// time. The path is defined even if the file does not exist.
    #[must_use]
    pub fn archive_path(&self) -> std::path::PathBuf {
        let (year, month, _) = self.created().map_or((0, 0, 0), Timestamp::date);
        format!("archive/{year:04}/{month:02}/{self}.seg").into()
    }

    /// Time at which the id was created, if its version contains one (v7 does, to the millisecond).
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
    type Err = uuid::Error;

    /// Parses any of the usual spellings of a UUID.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::try_parse(text).map(Self)
    }
}

impl From<Uuid> for StreamId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl From<StreamId> for Uuid {
    fn from(id: StreamId) -> Self {
        id.0
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub(crate) u64);

        impl $name {
            /// The number itself.
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

impl Position {
    /// Position before the first commit.
    pub const START: Self = Self(0);
}

const DAY_MICROS: u64 = 86_400_000_000;

/// Time in microseconds since the Unix epoch. It dates events and orders nothing (P11).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Returns the time `micros` microseconds after the Unix epoch.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Converts the time to the standard library's type.
    #[must_use]
    pub fn to_system_time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(self.0)
    }

    /// Returns the present by the system's clock. Times before 1970 read as the epoch.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }
}

impl Timestamp {
    /// Year, month and day in UTC, in the proleptic Gregorian calendar.
    fn date(self) -> (u64, u64, u64) {
        // Days since 1970, counted in eras of 400 years that begin in March (Hinnant, 2013).
        let days = self.0 / DAY_MICROS + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        (era * 400 + year + u64::from(month >= 10), (month + 2) % 12 + 1, day)
    }
}

impl fmt::Display for Timestamp {
    /// Formats as RFC 3339, in UTC, to the microsecond.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.date();
        let (seconds, micros) = (self.0 % DAY_MICROS / 1_000_000, self.0 % 1_000_000);
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({} us)", self.0)
    }
}

/// The program's classification of an event: 16 bits that the engine stores and never interprets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct EventKind(pub u16);

/// Encoding of a payload: stored with each event, checked by typed reads.
///
/// 0 is raw bytes; 1 to 127 are reserved for this crate; 128 to 255 are for the program.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct CodecId(pub u8);

impl CodecId {
    /// Bytes that only the program interprets.
    pub const RAW: Self = Self(0);
    /// `bincode` 2, its standard configuration, through serde.
    pub const BINCODE: Self = Self(1);
    /// JSON text.
    pub const JSON: Self = Self(2);
    /// First id available to the program.
    pub const FIRST_OF_PROGRAM: Self = Self(128);
}

/// Guarantee that a resolved ticket gives for its commit (P3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub enum Durability {
    /// Handed to the operating system: survives the death of the process, not of the machine.
    /// Costs a system call.
    Os,
    /// Synced to the device, with the directory entries of new files: survives a power cut.
    /// Costs one sync, shared by all commits of the group.
    #[default]
    Disk,
}

/// State of a stream as this process knows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Status {
    /// Unknown id: never committed, and without a live handle in this process.
    Unknown,
    /// A live handle of this process holds the id; nothing of the stream is on disk.
    Volatile,
    /// At least one commit of the stream is in the log.
    Durable,
    /// Durable and archived.
    Archived,
    /// Deleted.
    Deleted,
}

/// Operations that a stream permits.
#[cfg_attr(feature = "json", derive(serde::Serialize), serde(rename_all = "lowercase"))]
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

/// Name that a program gives a commit, so that it can repeat the request without committing twice:
/// 16 bytes that are never used for another commit, for example a UUID.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        for (seconds, micros, text) in [
            (0, 0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, 999_999, "2000-02-28T23:59:59.999999Z"),
            (951_782_400, 0, "2000-02-29T00:00:00.000000Z"),
            (1_709_251_199, 1, "2024-02-29T23:59:59.000001Z"),
            (1_709_251_200, 0, "2024-03-01T00:00:00.000000Z"),
            (1_774_651_635, 772_000, "2026-03-27T22:47:15.772000Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000000Z"),
            (253_402_300_800, 0, "10000-01-01T00:00:00.000000Z"),
        ] {
            let time = Timestamp::from_micros(seconds * 1_000_000 + micros);
            assert_eq!(time.to_string(), text);
        }
        let last = Timestamp::from_micros(u64::MAX).to_string();
        assert!(last.starts_with("586524-"), "{last}");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let date = |days: u64| Timestamp::from_micros(days * DAY_MICROS).date();
        let mut before = date(0);
        for days in 1..200_000 {
            let now = date(days);
            let next_day = (before.0, before.1, before.2 + 1);
            let next_month = (before.0, before.1 + 1, 1);
            assert!(
                now == next_day || now == next_month || now == (before.0 + 1, 1, 1),
                "{before:?} {now:?}"
            );
            before = now;
        }
    }
}
