//! Maintenance while the log is open: backups, retention, archive files and compaction.
//!
//! Maintenance does not delay the writer. It never changes committed bytes in place: compaction and
//! backup write other files, and retention makes ordinary commits.

mod background;
pub(crate) mod backup;
mod compact;
mod dead;
mod held;
mod merged;
mod release;
mod retain;
mod rewrite;
mod sparse;
mod stream_file;
mod throttle;

pub use backup::{BackupReport, backup, is_inside};
pub use compact::{CompactOptions, CompactReport, CompactedRun};
pub use held::{Holder, HolderKind};
pub use retain::{Bound, RetainOptions, RetainReport, TrimmedStream};
pub use stream_file::ArchiveReport;

pub use crate::failures::{BackgroundError, BackgroundTask};

pub(crate) use background::Background;
pub(crate) use backup::backup_open;
pub(crate) use compact::{Compactor, Steps, count_dead};
pub(crate) use held::holders;
pub(crate) use release::Nameless;
pub(crate) use retain::{CarryOut, Directive, Retainer};
pub(crate) use stream_file::archive;
pub(crate) use throttle::Throttle;
