//! Lists the files that still hold purged bytes and that the purge may not touch.
//!
//! Removes nothing.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::catalog::{ReadView, View};
use crate::disk::{Disk, IoResultExt};
use crate::error::Result;
use crate::format::Gone;
use crate::segment::{DIR, UNFINISHED, parse_kept, parse_name, parse_unfinished, place_of};
use crate::sync::rest;
use crate::types::StreamState;

/// Directory of archive files in the log's directory.
const ARCHIVES: &str = "archive";

/// Maximum number of looks for files held by read views, and the time between two.
const LOOKS_MAX: u32 = 10;
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// File that may still hold purged bytes.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Holder {
    /// Path in the log's directory. For [`HolderKind::HardLinks`], the name that the file had
    /// there.
    pub path: PathBuf,
    /// Reason why the file holds them.
    pub kind: HolderKind,
}

/// Reason why a file still holds purged bytes.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum HolderKind {
    /// A read view shows the segment. The file goes with the last read view and iterator on it;
    /// after a crash, the next opening removes it.
    ReadView,
    /// The file has this many other names outside the log, such as those made by
    /// [`crate::Log::backup`].
    HardLinks(u64),
    /// The segment has no footer, because writing it failed. The next opening writes it.
    Unsealed,
    /// A repair kept these bytes beside the segments. They stay until the file's owner removes it.
    Repair,
    /// The archive file of a stream that was deleted, trimmed or rewound. It stays until its owner
    /// removes it.
    Archive,
    /// An earlier compaction could not remove the file. The next opening does.
    Leftover,
}

impl HolderKind {
    /// Returns the kind in one or two words, for messages.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::ReadView => "read view",
            Self::HardLinks(_) => "hard links",
            Self::Unsealed => "unsealed",
            Self::Repair => "repair",
            Self::Archive => "archive",
            Self::Leftover => "leftover",
        }
    }
}

/// Makes the removal of names durable, and returns the files of the log's directory that may still
/// hold purged bytes. Leaves out segments from number `end` on, which were begun later.
pub(crate) fn holders(disk: &dyn Disk, view: &ReadView, end: u32) -> Result<Vec<Holder>> {
    if view.segments.iter().next().is_none() {
        return Ok(Vec::new());
    }
    let mut found = holders_in_dir(disk, view, end)?;
    // Calls in other threads hold segments briefly, as read views do.
    let is_shown =
        |found: &[Holder]| found.iter().any(|holder| holder.kind == HolderKind::ReadView);
    for _ in 1..LOOKS_MAX {
        if !is_shown(&found) || !disk.allows_threads() {
            break;
        }
        rest(LOOK_AGAIN);
        found = holders_in_dir(disk, view, end)?;
    }
    let is_there = |path: &str| {
        disk.identity_at(path).map(|found| found.is_some()).at("purge", || place_of(path))
    };
    if is_there(ARCHIVES)? {
        for stream_view in view.views().filter(|stream_view| is_less_than_it_was(stream_view, view))
        {
            let path = stream_view.first.stream.archive_path();
            if is_there(&path.to_string_lossy())? {
                found.push(Holder { path, kind: HolderKind::Archive });
            }
        }
    }
    found.sort_by(|file, other| file.path.cmp(&other.path));
    Ok(found)
}

/// Returns the holders in the segments' directory.
fn holders_in_dir(disk: &dyn Disk, view: &ReadView, end: u32) -> Result<Vec<Holder>> {
    let names = disk.sync_dir(DIR).and_then(|()| disk.list(DIR));
    let names = names.at("purge", || place_of(DIR))?;
    let holder = |name: OsString| {
        let kind = kind_of(name.to_str()?, view, end)?;
        Some(Holder { path: PathBuf::from(DIR).join(name), kind })
    };
    Ok(names.into_iter().filter_map(holder).collect())
}

/// Returns whether the stream may have shown more in the past.
fn is_less_than_it_was(stream_view: &View<'_>, view: &ReadView) -> bool {
    let is_rewound = || view.catalog.root(stream_view.first.stream) != Some(stream_view.tip);
    stream_view.state() == StreamState::Deleted || stream_view.start() > 0 || is_rewound()
}

/// Returns the reason why a file of this name may hold purged bytes; `None` if it holds none or is
/// not the log's.
fn kind_of(name: &str, view: &ReadView, end: u32) -> Option<HolderKind> {
    if Gone::parse(name).is_some() {
        return None;
    }
    if let Some(number) = parse_name(name) {
        let segment = view.segments.get(number).filter(|found| found.number() == number);
        return match segment.filter(|segment| !segment.is_gone()) {
            _ if number >= end => None,
            Some(segment) if segment.seal_state().is_some() => None,
            Some(_) => Some(HolderKind::Unsealed),
            None => Some(HolderKind::Leftover),
        };
    }
    if parse_kept(name).is_some() {
        return Some(HolderKind::ReadView);
    }
    if let Some((number, _)) = parse_unfinished(name) {
        // A segment under preparation holds zeros.
        return (number <= end).then_some(HolderKind::Leftover);
    }
    let is_part = [".aside", ".torn"].iter().any(|part| name.contains(part));
    let is_whole = !name.ends_with(UNFINISHED);
    is_part.then_some(if is_whole { HolderKind::Repair } else { HolderKind::Leftover })
}
