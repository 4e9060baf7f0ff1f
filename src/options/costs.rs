//! Memory that the parts of an open log take.

/// Memory costs in allocated bytes, without the allocator's overhead. `tests/memory.rs` measures
/// them on 64-bit Linux and fails when one is no longer true.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MemoryCosts {
    /// An open log in which something was committed; streams and index apart.
    pub open_log: u64,
    /// A stream without events of which nothing is on disk, its handle included. A ring is added
    /// with the first event: 512 bytes, doubling up to its bound.
    pub volatile_stream: u64,
    /// A handle of a durable stream with nothing buffered. One that committed keeps its ring, up to
    /// 1 MiB, as long as the log's memory is not scarce.
    pub idle_stream: u64,
    /// A durable stream without a name, open or not: its entry in the catalog. Each further segment
    /// that holds a part of it adds 40 bytes.
    pub durable_stream: u64,
    /// The part of it that the catalog keeps beyond the entries that locate the stream's events.
    pub catalog_stream: u64,
    /// A batch in a segment that is not sealed yet. One that is sealed costs no memory.
    pub index_entry: u64,
    /// A commit id that is remembered: at most
    /// [`Options::commit_ids_max`](crate::Options::commit_ids_max) of them.
    pub commit_id: u64,
    /// A durable stream that is kept in order, once streams were listed a second time.
    pub listed_stream: u64,
}

impl MemoryCosts {
    /// Costs of this version of the crate. Those of an open log are in
    /// [`Log::stats`](crate::Log::stats), too.
    pub const CURRENT: Self = Self {
        open_log: 14 << 10,
        volatile_stream: 240,
        idle_stream: 184,
        durable_stream: 192,
        catalog_stream: 24,
        index_entry: 56,
        commit_id: 72,
        listed_stream: 40,
    };
}
