#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod catalog;
mod change;
mod clock;
mod commit;
mod disk;
mod engine;
mod error;
mod failures;
mod format;
mod index;
mod inspect;
#[cfg(feature = "json")]
pub mod jsonl;
mod log;
pub mod maintenance;
pub mod options;
mod reader;
mod recovery;
mod ring;
mod sabotage;
mod segment;
mod stream;
mod sync;
#[cfg(feature = "tokio")]
pub mod tokio;
pub mod typed;
mod types;
pub mod verify;
mod work;
mod writer;

pub use catalog::{Cursor, Order, Page, Query, ReadView, StreamInfo};
pub use commit::{Commit, Ticket};
pub use error::{AppendError, Error, ErrorKind, Place, Rejected, Result};
#[cfg(fuzzing)]
#[doc(hidden)]
pub use format::fuzzing;
pub use log::Log;
#[doc(inline)]
pub use options::{CommitOptions, Expect, Options, Overflow, StreamOptions};
pub use reader::{AllEvents, Event, EventRef, Events};
#[cfg(any(amberlog_sabotage, amberlog_loom, amberlog_shuttle))]
pub use sabotage::{Sabotage, Sabotaged, sabotage};
pub use stream::{NewEvent, Savepoint, Stream};
pub use types::{
    CommitId, Durability, EventKind, ParseError, Position, Seq, StreamId, StreamState, Timestamp,
};
#[doc(inline)]
pub use verify::verify;
#[cfg(feature = "sim")]
#[doc(hidden)]
pub use work::steps_here;

/// Statistics of an open log: [`Log::stats`].
pub mod stats {
    pub use crate::engine::{MemoryStats, Stats};
    pub use crate::options::costs::MemoryCosts;
}

/// Simulated disk, and the functions that work on one instead of a directory.
#[cfg(feature = "sim")]
pub mod sim {
    pub use crate::disk::{Defect, Fault, SimDisk};
    pub use crate::maintenance::backup::backup_on;
    pub use crate::recovery::{repair_on, verify_quick_on};
    #[doc(no_inline)]
    pub use crate::verify::verify_on;
}
