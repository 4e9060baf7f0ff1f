//! Moving whole files while the log is open: backups, and giving back the space of what nobody wants any more.
//!
//! Everything here works beside the writer and never holds it up. It touches no byte that a commit wrote: what is
//! copied is copied elsewhere.

mod archive;
mod background;
mod backup;
mod collect;
mod moving;
mod rewrite;

pub use archive::ArchiveReport;
#[cfg(feature = "sim")]
pub use backup::backup_on;
pub use backup::{BackupReport, backup};
pub use collect::{CollectOptions, CollectReport, CollectedRun};
pub use moving::MoveReport;

pub(crate) use archive::archive;
pub(crate) use background::Background;
pub(crate) use backup::backup_open;
pub(crate) use collect::Collector;
pub(crate) use moving::{has_moved, publish, sweep, write_cold};
