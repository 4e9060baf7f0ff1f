//! What can be chosen, for a log and for one stream, with each default's cost.

mod retention;

pub use self::retention::Retention;
pub(crate) use self::retention::Retentions;
use crate::types::{CommitId, Durability, Seq};

/// What happens when a ring is at its bound (P10).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[non_exhaustive]
pub enum Overflow {
    /// The event is refused and handed back.
    #[default]
    Reject,
    /// The oldest uncommitted events make room: a flight recorder. The next commit writes a gap that
    /// says how many were dropped.
    OverwriteOldest,
    /// The ring grows beyond its bound, up to this many bytes; only then the event is refused.
    Grow {
        /// The hard cap, in bytes.
        ring_bytes_cap: usize,
    },
}

/// Where event times come from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[non_exhaustive]
pub enum Clock {
    /// The kernel's tick: a few nanoseconds to read, exact to about 4 ms on Linux. Elsewhere the same
    /// as [`Clock::Precise`].
    #[default]
    Coarse,
    /// The system's clock: about 20 ns to read, exact to the microsecond.
    Precise,
}

/// Who may read the files that a log makes (P14).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[non_exhaustive]
pub enum Privacy {
    /// Directories 0700, files 0600.
    #[default]
    Private,
    /// Directories 0755, files 0644, less what the umask takes away.
    Readable,
}

/// When the space of what nobody wants any more is given back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[non_exhaustive]
pub enum Collect {
    /// When somebody asks: [`crate::Log::collect`]. Costs nothing.
    #[default]
    WhenAsked,
    /// By a thread of the log's own, which looks about once a second whether anything was committed since, and
    /// spends at most a tenth of its time on looking. It shares the disk with commits and holds none of them up. What
    /// [`Options::retain`] lets go is forgotten first, also when only time has passed. It also moves archived streams to
    /// files of their own, those that take 64 KiB or more there ([`crate::Log::move_archived`]).
    Background,
}

/// How a log is opened. Every default is stated with what it costs.
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
    pub(crate) privacy: Privacy,
    pub(crate) collect: Collect,
    pub(crate) retentions: Retentions,
    pub(crate) quota_bytes: Option<u64>,
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
            privacy: Privacy::Private,
            collect: Collect::WhenAsked,
            retentions: Retentions::default(),
            quota_bytes: None,
        }
    }
}

impl Options {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The bound of each ring, in bytes. Default 64 MiB; a ring takes memory only as it fills.
    /// What is being committed counts until its ticket resolves; an overwriting ring may hold as much
    /// again while a commit is under way.
    #[must_use]
    pub fn ring_bytes_max(mut self, bytes: usize) -> Self {
        self.ring_bytes_max = bytes;
        self
    }

    /// What happens at a ring's bound. Default [`Overflow::Reject`].
    #[must_use]
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// The largest payload, in bytes, that append takes. Default: whatever fits in the ring.
    #[must_use]
    pub fn event_bytes_max(mut self, bytes: usize) -> Self {
        self.event_bytes_max = Some(bytes);
        self
    }

    /// What all rings of the log may take together, in bytes. Default 1 GiB. At most half of it is kept by rings
    /// with nothing in them.
    #[must_use]
    pub fn memory_bytes_max(mut self, bytes: usize) -> Self {
        self.memory_bytes_max = bytes;
        self
    }

    /// What a commit waits for when it does not say. Default [`Durability::Disk`]: one shared sync.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// The size of the first segment, in bytes; each next one is twice as large. Default 256 KiB.
    /// At least 16 KiB.
    #[must_use]
    pub fn segment_bytes_first(mut self, bytes: u64) -> Self {
        self.segment_bytes_first = bytes;
        self
    }

    /// Where the doubling of segment sizes ends, in bytes. Default 64 MiB: up to that much is
    /// replayed when the log is opened after a crash, and kept ready on disk while it is open.
    #[must_use]
    pub fn segment_bytes_max(mut self, bytes: u64) -> Self {
        self.segment_bytes_max = bytes;
        self
    }

    /// Where event times come from. Default [`Clock::Coarse`], exact to about 4 ms.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// When the space of what nobody wants any more is given back. Default [`Collect::WhenAsked`].
    #[must_use]
    pub fn collect(mut self, collect: Collect) -> Self {
        self.collect = collect;
        self
    }

    /// What is kept of each stream: the rest is forgotten when [`crate::Log::retain`] is called, and by the log's own
    /// thread with [`Collect::Background`]. Default: everything is kept.
    #[must_use]
    pub fn retain(mut self, retention: Retention) -> Self {
        self.retentions.all = Some(retention);
        self
    }

    /// The same for streams that have this value of this label, in place of what is said of all. Of several that fit
    /// the one that was said first counts.
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

    /// How many bytes the commits of the log may take on disk, with their indexes; what is kept ready for later ones
    /// does not count. A commit of events that would not fit fails with [`crate::ErrorKind::QuotaExceeded`], and its
    /// events are back in their rings: what is deleted and collected makes room. Default: no bound, and no cost.
    #[must_use]
    pub fn quota_bytes(mut self, bytes: u64) -> Self {
        self.quota_bytes = Some(bytes);
        self
    }

    /// Who may read the log's files. Default [`Privacy::Private`].
    #[must_use]
    pub fn privacy(mut self, privacy: Privacy) -> Self {
        self.privacy = privacy;
        self
    }
}

/// How one stream differs from the log's defaults.
#[derive(Clone, Debug, Default)]
pub struct StreamOptions {
    pub(crate) name: Option<String>,
    pub(crate) overflow: Option<Overflow>,
    pub(crate) ring_bytes_max: Option<usize>,
    pub(crate) event_bytes_max: Option<usize>,
}

impl StreamOptions {
    /// The log's defaults, and no name.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A name, unique among the living streams of the log: 1 to 1,024 bytes, no control characters.
    /// It is written with the stream's first commit.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// What happens at the ring's bound.
    #[must_use]
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = Some(overflow);
        self
    }

    /// The ring's bound in bytes.
    #[must_use]
    pub fn ring_bytes_max(mut self, bytes: usize) -> Self {
        self.ring_bytes_max = Some(bytes);
        self
    }

    /// The largest payload, in bytes, that append takes.
    #[must_use]
    pub fn event_bytes_max(mut self, bytes: usize) -> Self {
        self.event_bytes_max = Some(bytes);
        self
    }
}

/// What a commit expects of each of its streams; otherwise it is a [`crate::ErrorKind::Conflict`], and the events
/// stay where they are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[non_exhaustive]
pub enum Expect {
    /// That nobody moved it since the handle last saw it (P8).
    #[default]
    Seen,
    /// Nothing: the events go behind what is there. The seqs that append gave were provisional; the
    /// [`crate::Commit`] tells the real ones.
    Any,
    /// That it was never committed.
    NoStream,
    /// That it was committed before; the rest as with [`Expect::Any`].
    Exists,
    /// That it ends at this seq; the rest as with [`Expect::Any`].
    At(Seq),
}

/// How one commit differs from the log's defaults.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommitOptions {
    pub(crate) durability: Option<Durability>,
    pub(crate) expect: Expect,
    pub(crate) id: Option<CommitId>,
    /// Of a commit of nothing: it waits until the disk also proves that everything before it was acknowledged.
    pub(crate) proof: bool,
}

impl CommitOptions {
    /// The log's defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What the ticket waits for.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// What it expects of its streams.
    #[must_use]
    pub fn expect(mut self, expect: Expect) -> Self {
        self.expect = expect;
        self
    }

    /// What the program calls the commit, in the whole log. A second one of the same id is not made: it fails with
    /// [`crate::ErrorKind::AlreadyCommitted`], which says where the first is, also after a restart. The
    /// latest 16,384 commits that have an id are remembered. A commit of nothing has no id, but is told of the
    /// first as well.
    #[must_use]
    pub fn id(mut self, id: CommitId) -> Self {
        self.id = Some(id);
        self
    }
}

/// What things cost in memory, in bytes that are allocated; what an allocator adds is not counted.
/// `tests/memory.rs` measures them on 64-bit Linux and fails when one of them is no longer true.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MemoryCosts {
    /// An open log in which something was committed; streams and index apart.
    pub open_log: u64,
    /// A stream without events of which nothing is on disk, its handle included. A ring is added with the first
    /// event: 512 bytes, doubling up to its bound.
    pub volatile_stream: u64,
    /// A handle of a durable stream with nothing buffered. One that committed keeps its ring, up to 1 MiB, as long
    /// as the log's memory is not scarce.
    pub idle_stream: u64,
    /// A durable stream without a name, open or not: its entry in the catalog. Each further segment that holds a
    /// part of it adds 40 bytes.
    pub durable_stream: u64,
    /// What of that the catalog keeps beyond what finding the stream's events needs.
    pub catalog_stream: u64,
    /// A batch in a segment that is not sealed yet. One that is sealed costs no memory.
    pub index_entry: u64,
}

/// What things cost in memory.
pub const MEMORY_COSTS: MemoryCosts = MemoryCosts {
    open_log: 64 << 10,
    volatile_stream: 240,
    idle_stream: 184,
    durable_stream: 224,
    catalog_stream: 24,
    index_entry: 56,
};
