//! The words of the crate as types: what a stream, a place in it, and a place in the log are called.
//!
//! Newtypes, so that a seq is never taken for a position. Nothing here knows bytes, files or memory.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

/// The identity of a stream: a UUID v7, known before anything is on disk.
///
/// Ids made by [`StreamId::new`] sort by the time they were made, to the millisecond.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(Uuid);

impl StreamId {
    /// A new id, from the clock and 74 random bits.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "every call gives another value")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id with these sixteen bytes, as another program knows it.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The sixteen bytes of the id, in the order in which they are printed and sorted.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Where the stream's archive file lies in the log's directory: `archive/YYYY/MM/<id>.seg`, by the month in which the
    /// id was made (UTC); `archive/0000/00/<id>.seg` for an id that does not tell. It is known before anything is there.
    #[must_use]
    pub fn archive_path(&self) -> std::path::PathBuf {
        let (year, month) = self.created().map_or((0, 0), |created| {
            let days = created.as_micros() / 86_400_000_000;
            // The civil calendar from days, counted in eras of 400 years that begin in March (Hinnant, 2013).
            let days = days + 719_468;
            let (era, day) = (days / 146_097, days % 146_097);
            let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
            let month = (5 * (day - (365 * year + year / 4 - year / 100)) + 2) / 153;
            (era * 400 + year + u64::from(month >= 10), (month + 2) % 12 + 1)
        });
        format!("archive/{year:04}/{month:02}/{self}.seg").into()
    }

    /// When the id was made, as far as its version tells (v7 does, to the millisecond).
    #[must_use]
    pub fn created(&self) -> Option<Timestamp> {
        let (seconds, nanos) = self.0.get_timestamp()?.to_unix();
        Some(Timestamp::from_micros(seconds.saturating_mul(1_000_000) + u64::from(nanos / 1_000)))
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

    /// Reads any of the usual spellings of a UUID.
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
    /// The place of an event in its stream: dense, from 0, given by the engine at append.
    Seq
}

number! {
    /// The number of a commit in its log: dense, from 1. [`Position::START`] lies before the first.
    Position
}

impl Position {
    /// Before the first commit.
    pub const START: Self = Self(0);
}

/// A moment, in microseconds since the Unix epoch. It dates events and orders nothing (P11).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment `micros` microseconds after the Unix epoch.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The same moment in the standard library's terms.
    #[must_use]
    pub fn to_system_time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(self.0)
    }

    /// Now, by the system's clock. A clock set before 1970 reads as the epoch.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({} us)", self.0)
    }
}

/// What the program calls this sort of event: 16 bits that the engine keeps and never interprets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct EventKind(pub u16);

/// In which form the payload is encoded: kept with each event, checked by typed reads.
///
/// 0 is raw bytes; 1 to 127 belong to this crate; 128 to 255 to the program.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct CodecId(pub u8);

impl CodecId {
    /// Bytes that only the program understands.
    pub const RAW: Self = Self(0);
    /// `bincode` 2, its standard configuration, through serde.
    pub const BINCODE: Self = Self(1);
    /// JSON text.
    pub const JSON: Self = Self(2);
    /// The first id that is the program's to give.
    pub const FIRST_OF_PROGRAM: Self = Self(128);
}

/// What a resolved ticket says of a commit (P3).
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

/// Where a stream stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Status {
    /// Nobody here knows the id: never committed, and no living handle in this process.
    Unknown,
    /// A living handle of this process holds it; nothing of it is on disk.
    Volatile,
    /// At least one commit of it is in the log.
    Durable,
    /// The same, and it is archived.
    Archived,
    /// It was deleted.
    Deleted,
}

/// What may be done with a stream.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[non_exhaustive]
pub enum StreamState {
    /// Everything.
    #[default]
    Active,
    /// It is read, and not written, until that is taken back. Lists leave it out unless asked for it.
    Archived,
    /// Nothing, for good.
    Deleted,
}

/// What a program calls a commit, to be able to ask for it again without its happening twice: 16 bytes that
/// are never used for another commit, those of a UUID for example.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(pub [u8; 16]);

impl CommitId {
    /// A new one, from the clock and 74 random bits.
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

impl fmt::Debug for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommitId({})", Uuid::from_bytes(self.0))
    }
}
