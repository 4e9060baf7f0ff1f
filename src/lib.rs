#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod catalog;
mod commit;
mod core;
mod disk;
mod error;
mod format;
mod index;
#[cfg(feature = "json")]
mod jsonl;
mod log;
mod options;
mod reader;
mod recovery;
mod ring;
mod sabotage;
mod segment;
mod stream;
mod sync;
#[cfg(feature = "tokio")]
mod tokio;
mod typed;
mod types;
mod upkeep;
mod writer;

#[cfg(feature = "tokio")]
pub use self::tokio::{AsyncEvents, blocking};
pub use catalog::{Cursor, NoCursor, Order, Page, Query, Snapshot, StreamInfo};
pub use commit::{Commit, Ticket};
#[cfg(feature = "sim")]
pub use disk::{Fault, SimDisk};
pub use error::{Error, ErrorKind, Place, Refused, RefusedReason, Result};
#[cfg(fuzzing)]
#[doc(hidden)]
pub use format::fuzzing;
#[cfg(feature = "json")]
pub use jsonl::{ExportOptions, Exported, ImportOptions, Imported, LostSeqs};
pub use log::Log;
pub use options::{
    Clock, Collect, CommitOptions, Expect, MEMORY_COSTS, MemoryCosts, Options, Overflow, Privacy,
    Retention, StreamOptions,
};
pub use reader::{Event, EventRef, Events, LogEvents};
pub use recovery::{
    Damage, DamageKind, Inspection, Item, NewSegment, Repair, SegmentReport, SegmentState, Survey,
    TornTail, repair, survey,
};
#[cfg(feature = "sim")]
pub use recovery::{repair_on, survey_on};
#[cfg(any(amberlog_sabotage, amberlog_loom, amberlog_shuttle))]
pub use sabotage::{Sabotage, Sabotaged, sabotage};
pub use stream::{NewEvent, Savepoint, Stream};
#[cfg(feature = "bincode")]
pub use typed::Bincode;
#[cfg(feature = "json")]
pub use typed::Json;
pub use typed::{Codec, CodecError, Typed, TypedEvents, TypedRefused};
pub use types::{
    CodecId, CommitId, Durability, EventKind, Position, Seq, Status, StreamId, StreamState,
    Timestamp,
};
#[cfg(feature = "sim")]
pub use upkeep::backup_on;
pub use upkeep::{
    ArchiveReport, BackupReport, Bound, CollectOptions, CollectReport, CollectedRun, Forgotten,
    MoveReport, RetainOptions, RetainReport, backup,
};
