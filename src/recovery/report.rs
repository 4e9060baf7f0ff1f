//! Reports of verification and repair: the state of every file, and every damage with its place and
//! its losses.

use std::ops::Range;

use crate::error::Place;
use crate::types::{Position, Seq, StreamId};

/// Findings of a verification or an opening, which changed nothing to obtain them.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Files of the log in its segment directory, by number.
    pub segments: Vec<SegmentReport>,
    /// Damage to anything that was acknowledged or may have been.
    pub damages: Vec<Damage>,
    /// Files with the name of an unfinished segment that belong to another log or cannot be read.
    /// They are kept and do not stop an opening.
    pub foreign: Vec<Place>,
    /// Places that the disk failed to read, ordered by path. `damages` lists what is lost there:
    /// nothing, if no commit was written in that place.
    pub unreadable: Vec<Unreadable>,
    /// Bytes that an interrupted writer left after the last commit, if any. They were never
    /// acknowledged as durable, and the next opening for writing removes them.
    pub torn_tail: Option<TornTail>,
    /// Position of the last commit that can be read.
    pub position: Position,
    /// Position of the last commit that is known to have been synced.
    pub durable: Position,
    /// Position of the last commit that is known to have been acknowledged. Read-only openings show
    /// the log up to here.
    pub acknowledged: Position,
    /// True if the log must be repaired before it can be opened for writing: the lost part may have
    /// been acknowledged, and a repair continues the log after it.
    pub needs_repair: bool,
    /// True if nothing was written since the log was closed or an opening cut off its torn tail.
    pub closed_cleanly: bool,
    /// Number of streams with at least one commit, including deleted ones.
    pub streams: u64,
    /// Number of these streams that are deleted.
    pub deleted_streams: u64,
}

impl RecoveryReport {
    /// Returns true if nothing is damaged. A torn tail is not damage.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damages.is_empty()
    }

    /// Returns the position of the first damage, for messages.
    #[must_use]
    pub fn first_damaged(&self) -> Option<Position> {
        self.damages.iter().map(|damage| damage.positions.start).min()
    }
}

/// One file of the log.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SegmentReport {
    /// Segment number, as in the file's name.
    pub number: u32,
    /// File length in bytes.
    pub bytes: u64,
    /// Positions of its commits; empty for a spare.
    pub positions: Range<Position>,
    /// State of the file.
    pub state: SegmentState,
}

/// State of a segment file.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum SegmentState {
    /// Immutable, with an index footer.
    Sealed,
    /// Full, but without its footer; opening replays its commits.
    Unsealed,
    /// Receives the next commits.
    Active,
    /// Prepared for later; all zeros after the header.
    Spare,
    /// Compacted: a later, sparse segment holds its live commits. The next opening for writing
    /// removes the file.
    Superseded,
    /// Compacted to nothing: the file is empty, and its name states the positions it stands for.
    Dropped,
    /// Not readable as a segment of this log.
    Unusable,
}

/// Bytes that differ from what was written, or a file that is missing or misplaced.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Damage {
    /// Kind of damage.
    pub kind: DamageKind,
    /// File and offset of the damage.
    pub place: Place,
    /// Positions of the lost or damaged commits, including positions that an earlier repair
    /// skipped. Empty if no commit is known to be affected.
    pub positions: Range<Position>,
    /// Lost events by stream, as far as they are known.
    pub events: Vec<(StreamId, Range<Seq>)>,
}

/// Bytes that the disk cannot read.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Unreadable {
    /// File and offset of the first byte.
    pub place: Place,
    /// Number of bytes. The system reads whole pages, so they may exceed the bad sectors.
    pub bytes: u64,
}

/// Kinds of damage.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum DamageKind {
    /// One copy of a segment's header, or the space around the copies, is damaged. Nothing is lost.
    HeaderCopy,
    /// Both copies of a segment's header are damaged; its commits cannot be verified.
    Header,
    /// A commit's bytes differ from those that were written.
    Commit,
    /// Commits are missing from their place in a segment.
    Hole,
    /// The file is shorter than when it was written.
    Cut,
    /// The disk cannot read the bytes after a segment's last commit: its index, or further commits.
    Unreadable,
    /// The footer of a sealed segment does not list the segment's batches.
    Footer,
    /// A segment is missing.
    Missing,
    /// The file is not a segment of this log.
    Foreign,
    /// The segment's name and header disagree, or it repeats positions.
    Misplaced,
}

impl DamageKind {
    /// Returns the name used in messages and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HeaderCopy => "header-copy",
            Self::Header => "header",
            Self::Commit => "commit",
            Self::Hole => "hole",
            Self::Cut => "cut",
            Self::Unreadable => "unreadable",
            Self::Footer => "footer",
            Self::Missing => "missing",
            Self::Foreign => "foreign",
            Self::Misplaced => "misplaced",
        }
    }
}

impl SegmentState {
    /// Returns the name used in messages and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sealed => "sealed",
            Self::Unsealed => "unsealed",
            Self::Active => "active",
            Self::Spare => "spare",
            Self::Superseded => "superseded",
            Self::Dropped => "dropped",
            Self::Unusable => "unusable",
        }
    }
}

/// Bytes after the last commit that counts.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TornTail {
    /// File and offset of its first byte.
    pub place: Place,
    /// Number of bytes it spans.
    pub bytes: u64,
    /// Number of whole commits in it; they follow a damaged commit.
    pub commits: u64,
}

/// Actions of a repair. Everything that it removed from the log can be put back: see
/// `docs/format.md`.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct RepairReport {
    /// Report of the verification before the repair.
    pub before: RecoveryReport,
    /// Report of a verification after the repair; it names the losses that remain.
    pub after: RecoveryReport,
    /// Number of bytes of a torn tail that were cleared.
    pub cleared_bytes: u64,
    /// Quarantined files, which keep byte for byte what the repair removed from the log. A place
    /// with an offset names a copy of the bytes that stood there; one without names a renamed file.
    pub set_aside: Vec<Place>,
    /// New segment after a segment that was lost or cut, if the repair created one.
    pub went_on: Option<NewSegment>,
}

/// Segment in which a repaired log continues.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct NewSegment {
    /// File of the segment.
    pub place: Place,
    /// Position of its first commit. Earlier positions may have been assigned to lost commits; they
    /// are skipped, and every later verification reports them as missing.
    pub first: Position,
}

impl RepairReport {
    /// Returns true if no repair was needed and nothing on disk was changed.
    #[must_use]
    pub fn changed_nothing(&self) -> bool {
        self.cleared_bytes == 0 && self.set_aside.is_empty() && self.went_on.is_none()
    }
}
