//! Options of a log, a stream and a commit, with each default's cost.

/// Defines methods that set the option of their name to their argument.
macro_rules! setters {
    ($options:ident: $($(#[$doc:meta])* fn $option:ident($value:ident: $type:ty);)*) => {
        impl $options {$(
            $(#[$doc])*
            #[must_use]
            pub fn $option(mut self, $value: $type) -> Self {
                self.$option = $value.into();
                self
            }
        )*}
    };
}

pub(crate) mod costs;
mod reads;
mod retention;

use std::time::Duration;

use self::reads::OPEN_SEGMENTS_MAX;
pub use self::reads::{ReadOptions, Reads};
pub use self::retention::Retention;
pub(crate) use self::retention::Retentions;
use crate::types::{CommitId, Durability, Seq, StreamId};

/// Policy for a ring at its bound (P10).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[non_exhaustive]
pub enum Overflow {
    /// Refuses the event and hands it back.
    #[default]
    Reject,
    /// The oldest uncommitted events make room: a flight recorder. The next commit writes a gap
    /// that says how many were dropped.
    OverwriteOldest,
    /// The ring grows beyond its bound, up to this many bytes; only then is an event refused.
    Grow {
        /// The hard cap, in bytes.
        ring_bytes_cap: usize,
    },
}

/// Source of event times.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[non_exhaustive]
pub enum Clock {
    /// The kernel's tick: a few nanoseconds to read, exact to about 4 ms on Linux. Elsewhere the
    /// same as [`Clock::Precise`].
    #[default]
    Coarse,
    /// The system's clock: about 20 ns to read, exact to the microsecond.
    Precise,
}

/// Permissions of the files that a log makes (P14).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[non_exhaustive]
pub enum Privacy {
    /// Directories 0700, files 0600.
    #[default]
    Private,
    /// Directories 0755, files 0644, less the umask.
    Readable,
}

/// Time at which compaction frees dead space.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[non_exhaustive]
pub enum Compaction {
    /// On request: [`crate::Log::compact`]. Costs nothing.
    #[default]
    OnRequest,
    /// In a thread of the log, which checks for new commits about once a second and spends at most
    /// a tenth of its time on these checks. It shares the disk with commits and never blocks one.
    /// Retention ([`Options::retain`]) runs first, also when only time has passed.
    Background,
}

/// Minimum bound of a ring, in bytes.
pub(crate) const RING_BYTES_MIN: usize = 64;

/// Options of an open log. Each default states its cost.
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) ring_bytes_max: usize,
    pub(crate) overflow: Overflow,
    pub(crate) event_bytes_max: Option<usize>,
    pub(crate) memory_bytes_max: usize,
    pub(crate) durability: Durability,
    pub(crate) segment_bytes_first: u64,
    pub(crate) segment_bytes_max: u64,
    pub(crate) clock: Clock,
    pub(crate) clock_jump_max: Duration,
    pub(crate) privacy: Privacy,
    pub(crate) compaction: Compaction,
    pub(crate) retentions: Retentions,
    pub(crate) quota_bytes: Option<u64>,
    pub(crate) commit_ids_max: usize,
    pub(crate) reads: Reads,
    pub(crate) open_segments_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ring_bytes_max: 64 << 20,
            overflow: Overflow::Reject,
            event_bytes_max: None,
            memory_bytes_max: 1 << 30,
            durability: Durability::Disk,
            segment_bytes_first: 256 << 10,
            segment_bytes_max: 64 << 20,
            clock: Clock::Coarse,
            clock_jump_max: Duration::from_secs(30 * 24 * 60 * 60),
            privacy: Privacy::Private,
            compaction: Compaction::OnRequest,
            retentions: Retentions::default(),
            quota_bytes: None,
            commit_ids_max: 16_384,
            reads: Reads::Mapped,
            open_segments_max: OPEN_SEGMENTS_MAX,
        }
    }
}

impl Options {
    /// Returns the default options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the retention of each stream. [`crate::Log::retain`] applies it, as does the log's own
    /// thread with [`Compaction::Background`]. Default: keeps everything.
    #[must_use]
    pub fn retain(mut self, retention: Retention) -> Self {
        self.retentions.all = Some(retention);
        self
    }

    /// Sets the retention of streams that have this value of this label, in place of the general
    /// one. If several match, the one that was set first applies.
    #[must_use]
    pub fn retain_label(
        mut self,
        key: impl Into<String>,
        value: impl Into<String>,
        retention: Retention,
    ) -> Self {
        let (key, value) = (key.into().into_boxed_str(), value.into().into_boxed_str());
        self.retentions.labels.push((key, value, retention));
        self
    }
}

setters! { Options:
    /// Sets the bound of each ring, in bytes. Default 64 MiB; a ring takes memory only as it fills.
    /// At least 64. Events of a commit count until its ticket resolves; an overwriting ring may
    /// hold up to twice its bound while a commit is in flight.
    fn ring_bytes_max(bytes: usize);

    /// Sets the policy for a ring at its bound. Default [`Overflow::Reject`].
    fn overflow(overflow: Overflow);

    /// Sets the largest payload, in bytes, that append accepts. Default: whatever fits in the ring.
    fn event_bytes_max(bytes: usize);

    /// Sets the bound, in bytes, of all rings together and of uncommitted names, labels and data.
    /// Default 1 GiB. Empty rings keep at most half of it. At the bound the log refuses events,
    /// names, labels and data ([`crate::AppendError::MemoryFull`]). A commit in flight holds a
    /// second copy of its names, labels and data, which counts but is never refused.
    fn memory_bytes_max(bytes: usize);

    /// Sets the durability of commits that do not choose their own. Default [`Durability::Disk`]:
    /// one shared sync.
    fn durability(durability: Durability);

    /// Sets the size of the first segment, in bytes; each next one is twice as large. Default 256
    /// KiB. At least 16 KiB, and at most [`Options::segment_bytes_max`]: to go beyond 64 MiB, raise
    /// that as well.
    fn segment_bytes_first(bytes: u64);

    /// Sets the maximum size of a segment, in bytes, at which doubling ends. Default 64 MiB:
    /// recovery after a crash replays up to this many bytes, and an open log keeps as many ready on
    /// disk. From [`Options::segment_bytes_first`] to 2 GiB.
    fn segment_bytes_max(bytes: u64);

    /// Sets the source of event times. Default [`Clock::Coarse`], exact to about 4 ms.
    fn clock(clock: Clock);

    /// Sets the maximum difference between the system's clock and the log's last known time at
    /// opening. Default 30 days.
    ///
    /// Retention by age and by idleness needs the present time. It reads the clock when the log is
    /// opened, and from then on counts the time that passes, independent of the clock. A clock that
    /// is further ahead than this is not trusted: background retention by age or idleness stops
    /// ([`crate::ErrorKind::ClockJumped`]) until [`crate::Log::retain`] is called. If the clock is
    /// further behind, the log continues from its last known time. A log that was closed for longer
    /// than this cannot be told from one whose clock is ahead. With zero, only the clock of the
    /// log's first opening is trusted.
    fn clock_jump_max(time: Duration);

    /// Sets the time at which compaction frees dead space. Default [`Compaction::OnRequest`].
    fn compaction(compaction: Compaction);

    /// Sets the maximum number of bytes that the log's commits and their indexes take up on disk;
    /// space reserved for later commits does not count. A commit that asks for more to be kept
    /// (events, a fork, a name, labels, data) and would exceed it fails with
    /// [`crate::ErrorKind::QuotaExceeded`]. What it carried returns to its handles: deleting and
    /// compacting makes room.
    ///
    /// Commits that only free or mark are never refused for the quota: a deletion, whatever it
    /// carries; archiving, unarchiving, trimming and rewinding, and removing names, labels and
    /// data, unless the same commit also carries something to be kept. Default: no bound, and no
    /// cost.
    fn quota_bytes(bytes: u64);

    /// Sets the number of commit ids ([`CommitOptions::id`]) that the log remembers: the latest
    /// ones, over all its streams. Default 16,384: less than half a second of commits at full
    /// speed. A retry that comes after its id was dropped is committed again, so choose at least
    /// the number of commits that the log can make while a program may still retry.
    ///
    /// Each remembered id costs [`MemoryCosts::commit_id`](crate::stats::MemoryCosts::commit_id)
    /// bytes of memory and, when the log is opened, one read of about 2 µs; on disk it takes 88
    /// bytes until that many later commits have an id and the segment is compacted. A log that was
    /// compacted while fewer ids were remembered has only those. At least 1.
    fn commit_ids_max(ids: usize);

    /// Sets the way to read events in sealed segments. Default [`Reads::Mapped`], which documents
    /// `SIGBUS`.
    fn reads(reads: Reads);

    /// Sets the maximum number of sealed segments that are open at once, whatever the log's size;
    /// the least recently used segment is closed first. At least 4. Default 256, which covers 16
    /// GiB in segments of 64 MiB: up to that size, reads in any order open no file. Beyond it, a
    /// read in a segment that is not open opens it, which takes about 20 µs and verifies the
    /// segment's index.
    ///
    /// With [`Reads::Mapped`] each open segment costs one mapping and no descriptor. With
    /// [`Reads::Positional`] each costs one descriptor and its index in memory (40 bytes per batch,
    /// at most 64 MiB in total), and at most a quarter of the process's descriptor limit is used. A
    /// running export uses the same number of descriptors again, a compaction a few. A segment
    /// stays open, beyond this maximum, for as long as a reader holds an event or iterator in it.
    fn open_segments_max(segments: usize);

    /// Sets the permissions of the log's files. Default [`Privacy::Private`].
    fn privacy(privacy: Privacy);
}

/// Options of one stream, in place of the log's defaults.
#[derive(Clone, Debug, Default)]
pub struct StreamOptions {
    pub(crate) id: Option<StreamId>,
    pub(crate) name: Option<String>,
    pub(crate) overflow: Option<Overflow>,
    pub(crate) ring_bytes_max: Option<usize>,
    pub(crate) event_bytes_max: Option<usize>,
}

impl StreamOptions {
    /// Returns options that use the log's defaults, without a name.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a name, by the rules of [`crate::Stream::rename`]. The stream's first commit writes it.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
}

setters! { StreamOptions:
    /// Sets the id of a stream to be created, for a host that has ids of its own. By default the
    /// log makes an id from its clock. The id of a committed stream cannot be used again, not even
    /// after the stream was deleted. Any id is valid except sixteen zero bytes. Lists in the order
    /// of creation sort by id, and filter by the time in it: use UUIDs of version 7.
    fn id(id: StreamId);

    /// Sets the policy for the ring at its bound.
    fn overflow(overflow: Overflow);

    /// Sets the ring's bound in bytes. At least 64.
    fn ring_bytes_max(bytes: usize);

    /// Sets the largest payload, in bytes, that append accepts.
    fn event_bytes_max(bytes: usize);
}

/// Expectation of a commit about each of its streams. If a stream does not meet it, the commit
/// fails with [`crate::ErrorKind::Conflict`], and the events stay in their rings.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[non_exhaustive]
pub enum Expect {
    /// The stream has not moved since the handle last saw it (P8): no other handle has added or
    /// rewound events.
    #[default]
    Seen,
    /// No expectation: the events are placed after those in the stream. The seqs from append were
    /// provisional; the [`crate::Commit`] of one stream has the final ones. With a pending rewind
    /// the events are placed at its target instead, and everything after it is dropped, including
    /// events of other handles that this handle never saw.
    Any,
    /// The stream has never been committed.
    NoStream,
    /// The stream has been committed before; otherwise like [`Expect::Any`].
    Exists,
    /// The stream's committed head, the seq after its last event, is this seq; otherwise like
    /// [`Expect::Any`]. The commit is compared with the stream as it is on disk, before any rewind
    /// that the commit itself makes: after [`crate::Stream::rewind`] do not pass
    /// [`crate::Stream::head`], which already reflects the rewind.
    At(Seq),
}

/// Options of one commit, in place of the log's defaults.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommitOptions {
    pub(crate) durability: Option<Durability>,
    pub(crate) expect: Expect,
    pub(crate) id: Option<CommitId>,
    /// For an empty commit: waits until the disk also proves that everything before it was
    /// acknowledged.
    pub(crate) proof: bool,
    /// For a proof: begins a new segment first, and seals the previous segment.
    pub(crate) rolls: bool,
    /// Does not start by itself.
    pub(crate) starts_later: bool,
}

impl CommitOptions {
    /// Returns options that use the log's defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only queues the commit: it shares the write and the sync of the log's next commit that
    /// starts, or starts itself once its ticket is waited for, awaited or dropped, or the log is
    /// closed. For programs that batch commits over more than the tenth of a second after which a
    /// commit starts by itself.
    #[must_use]
    pub fn later(mut self) -> Self {
        self.starts_later = true;
        self
    }
}

setters! { CommitOptions:
    /// Sets the durability that the ticket waits for.
    fn durability(durability: Durability);

    /// Sets the expectation for the commit's streams.
    fn expect(expect: Expect);

    /// Sets the program's id for the commit, unique in the log. A second commit with the same id
    /// fails with [`crate::ErrorKind::AlreadyCommitted`], which has the position of the first, even
    /// after a restart. This holds for the latest [`Options::commit_ids_max`] commits that have an
    /// id. An empty commit records no id, but fails in the same way.
    fn id(id: CommitId);
}
