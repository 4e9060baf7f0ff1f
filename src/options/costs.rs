//! Memory that the parts of an open log take.

/// Memory costs in allocated bytes, without the allocator's overhead. `tests/memory.rs` measures
/// them on 64-bit Linux and fails when a figure is no longer true.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MemoryCosts {
    /// An open log with at least one commit, without its streams and its index.
    pub open_log: u64,
    /// A stream without events and with nothing on disk, including its handle. The first event adds
    /// a ring: 512 bytes, doubling up to its bound.
    pub volatile_stream: u64,
    /// A handle of a durable stream with nothing buffered. A handle that has committed keeps its
    /// ring, up to 1 MiB, as long as the log's memory is not scarce.
    pub idle_stream: u64,
    /// A durable stream without a name, open or not: its entry in the catalog. Each further segment
    /// that holds part of the stream adds 40 bytes.
    pub durable_stream: u64,
    /// The part of [`MemoryCosts::durable_stream`] that is not needed to locate the stream's
    /// events.
    pub catalog_stream: u64,
    /// A batch in a segment that is not sealed yet. Batches in sealed segments cost no memory.
    pub index_entry: u64,
    /// A remembered commit id. The log keeps at most
    /// [`Options::commit_ids_max`](crate::Options::commit_ids_max) of them.
    pub commit_id: u64,
    /// A durable stream in the sorted lists, which the log keeps once streams have been listed a
    /// second time.
    pub listed_stream: u64,
}

impl MemoryCosts {
    /// Costs of this version of the crate. [`Log::stats`](crate::Log::stats) has them as well.
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
