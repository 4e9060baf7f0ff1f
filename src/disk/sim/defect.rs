//! Defects of a disk: calls that report success and do something else.
//!
//! A fault is reported to the caller, and a log must survive it. No log can survive a defect: each
//! of these breaks an assumption of `docs/format.md`, so a test that finds nothing wrong on such a
//! disk does not test that assumption.

/// Way in which a simulated disk lies. A pattern is the full path of a file, or its beginning and
/// its end around one `*`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Defect {
    /// A sync of a file with such a path makes nothing durable; a later one may.
    UnsyncedBytes(&'static str),
    /// A sync of a directory makes no name of this pattern durable.
    UnsyncedNames(&'static str),
    /// The first sync of a file after its length was raised makes nothing durable.
    UnsyncedLength,
    /// A name of this pattern that a failed sync or a killed process left unsynced never becomes
    /// durable, even if it is given again.
    LostNames(&'static str),
    /// A write of the bytes that the cache holds already is not done.
    SkippedRewrites,
    /// Another program's changes to names are not seen: each name leads an open log to the file
    /// that it last had for this log, and every file seems to have a name.
    StaleNames,
    /// A read that fails returns zeros.
    ZerosForErrors,
    /// A write of a part reports that everything was written.
    ShortWrites,
    /// The lock of a file with such a path is granted to every process.
    SharedLocks(&'static str),
}

/// Returns true if a path has this pattern.
pub(super) fn has_pattern(path: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        Some((start, end)) => {
            path.len() >= start.len() + end.len() && path.starts_with(start) && path.ends_with(end)
        }
        None => path == pattern,
    }
}
