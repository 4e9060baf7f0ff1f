//! What a survey says: every file accounted for, every damage with its place and what it cost.

use std::ops::Range;

use crate::error::Place;
use crate::types::{Position, Seq, StreamId};

/// What a survey found. It is a report: nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Survey {
    /// The files in the segments' directory that are the log's, by number.
    pub segments: Vec<SegmentReport>,
    /// Everything that is not as it was written, and was once acknowledged or may have been.
    pub damages: Vec<Damage>,
    /// What an interrupted writer left behind the last commit, if anything. It was never acknowledged
    /// as durable, and the next opening for writing removes it.
    pub torn_tail: Option<TornTail>,
    /// The last commit that can be read.
    pub position: Position,
    /// The last commit that is known to have been synced.
    pub durable: Position,
    /// The last commit that is known to have been acknowledged: what read-only openings show.
    pub acknowledged: Position,
    /// The log was closed, or its torn tail cut off by an opening, and nothing was written since.
    pub closed_cleanly: bool,
    /// Streams with at least one commit.
    pub streams: u64,
    /// Archive files that the log needs and that were looked at; only a full survey does.
    pub archive_files: u64,
}

impl Survey {
    /// Nothing is damaged. A torn tail is no damage.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damages.is_empty()
    }
}

/// One file of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SegmentReport {
    /// Its number, as in its name.
    pub number: u32,
    /// The file's length in bytes.
    pub bytes: u64,
    /// The positions of its commits; empty for a spare.
    pub positions: Range<Position>,
    /// What it is.
    pub state: SegmentState,
}

/// What a segment file is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum SegmentState {
    /// Immutable, with an index footer.
    Sealed,
    /// Full, but without its footer yet. It is replayed instead.
    Unsealed,
    /// The one that commits go to.
    Active,
    /// All zeros: made ready for later.
    Spare,
    /// Everything that was still wanted of it is in a later, sparse segment. The next opening for writing removes it.
    Superseded,
    /// Not readable as a segment of this log.
    Unusable,
}

/// Something that is not as it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Damage {
    /// What sort.
    pub kind: DamageKind,
    /// Where.
    pub place: Place,
    /// The commits that are lost or hurt; behind a repair also the positions that it left out. Empty when none
    /// is, as far as can be known.
    pub positions: Range<Position>,
    /// The events that are lost, by stream, as far as they can be named.
    pub events: Vec<(StreamId, Range<Seq>)>,
}

/// The sorts of damage.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum DamageKind {
    /// One of the two copies of a segment's header, or the space around them. Nothing is lost.
    HeaderCopy,
    /// Both copies of a segment's header: its commits cannot be verified.
    Header,
    /// The bytes of a commit are not those that were written.
    Commit,
    /// Where commits should be there is something else.
    Hole,
    /// The file is shorter than it was.
    Cut,
    /// The footer of a sealed segment does not list the batches that are there.
    Footer,
    /// A segment is missing.
    Missing,
    /// A segment of another log.
    Foreign,
    /// A segment whose name and header disagree, or that repeats positions.
    Misplaced,
}

impl DamageKind {
    /// In a word, for people and for JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HeaderCopy => "header-copy",
            Self::Header => "header",
            Self::Commit => "commit",
            Self::Hole => "hole",
            Self::Cut => "cut",
            Self::Footer => "footer",
            Self::Missing => "missing",
            Self::Foreign => "foreign",
            Self::Misplaced => "misplaced",
        }
    }
}

impl SegmentState {
    /// In a word, for people and for JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sealed => "sealed",
            Self::Unsealed => "unsealed",
            Self::Active => "active",
            Self::Spare => "spare",
            Self::Superseded => "superseded",
            Self::Unusable => "unusable",
        }
    }
}

/// What stands behind the last commit that counts.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TornTail {
    /// Where it starts.
    pub place: Place,
    /// How many bytes of the file it spans.
    pub bytes: u64,
    /// Whole commits inside it, which stand behind a broken one.
    pub commits: u64,
}

/// What a repair did. Whatever it took away can be put back: see `docs/format.md`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Repair {
    /// What the survey before the repair found.
    pub before: Survey,
    /// What a survey finds now: the losses that stay are named here.
    pub after: Survey,
    /// Bytes of a torn tail that were cleared.
    pub cleared_bytes: u64,
    /// Files beside the segments that keep what is no longer part of the log, byte for byte. With an offset: the
    /// bytes that stood there. Without: a whole file, under another name.
    pub set_aside: Vec<Place>,
    /// A new segment, begun behind one that was lost or cut.
    pub went_on: Option<NewSegment>,
}

/// Where a repaired log goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct NewSegment {
    /// The file.
    pub place: Place,
    /// The position that its first commit will get. Those before it may have been given; they are left out, and
    /// missing in every later survey.
    pub first: Position,
}

impl Repair {
    /// Nothing had to be done, and nothing on disk was changed.
    #[must_use]
    pub fn changed_nothing(&self) -> bool {
        self.cleared_bytes == 0 && self.set_aside.is_empty() && self.went_on.is_none()
    }
}
