//! Moving whole files while the log is open: backups.
//!
//! Everything here works beside the writer and never holds it up. It touches no byte that a commit wrote: what is
//! copied is copied elsewhere.

mod backup;

#[cfg(feature = "sim")]
pub use backup::backup_on;
pub use backup::{BackupReport, backup};

pub(crate) use backup::backup_open;
