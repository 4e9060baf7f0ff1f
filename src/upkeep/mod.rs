//! Keeping house while the log is open: backups, forgetting what is not to be kept any more, and giving back the space
//! of what nobody wants.
//!
//! Everything here works beside the writer and never holds it up. It touches no byte that a commit wrote: what is
//! copied is copied elsewhere, and what is forgotten is so by commits like any other.

mod archive;
mod background;
mod backup;
mod collect;
mod moving;
mod pace;
mod release;
mod retain;
mod rewrite;

pub use archive::ArchiveReport;
#[cfg(feature = "sim")]
pub use backup::backup_on;
pub use backup::{BackupReport, backup};
pub use collect::{CollectOptions, CollectReport, CollectedRun};
pub use moving::MoveReport;
pub use retain::{Bound, Forgotten, RetainOptions, RetainReport};

pub(crate) use archive::archive;
pub(crate) use background::Background;
pub(crate) use backup::backup_open;
pub(crate) use collect::Collector;
pub(crate) use moving::{has_moved, publish, sweep, write_cold};
pub(crate) use pace::Pace;
pub(crate) use release::Nameless;
pub(crate) use retain::{CarryOut, Retainer, Sentence};
