//! Statistics of an open log, for programs that monitor themselves.

use super::Engine;
use crate::catalog::{Catalog, ReadView};
use crate::options::costs::MemoryCosts;

/// Statistics of an open log at one moment.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Memory that the log holds.
    pub memory: MemoryStats,
}

/// Memory that a log holds.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MemoryStats {
    /// Bytes held by the rings of all streams, by uncommitted names, labels and data, and by
    /// commits in flight: the amount bounded by
    /// [`Options::memory_bytes_max`](crate::Options::memory_bytes_max).
    pub uncommitted_bytes: u64,
    /// Bytes held by names, labels and data of durable streams, including earlier ones that a read
    /// view still shows, and by lists in the order of a label ([`crate::Order::Label`]). No option
    /// bounds them, because a log beyond the bound could not be reopened. Each stream has at most
    /// 64 KiB of data, 64 labels of 1,152 bytes and a name of 1 KiB.
    pub metadata_bytes: u64,
    /// Bytes held by the entries of durable streams, forks and rewinds in the catalog: their number
    /// times [`MemoryCosts::durable_stream`].
    pub catalog_bytes: u64,
    /// Costs per item of everything else: streams, handles, and index entries.
    pub costs: MemoryCosts,
}

impl Stats {
    fn new(catalog: &Catalog, uncommitted_bytes: usize) -> Self {
        let costs = MemoryCosts::CURRENT;
        let branches = u64::from(catalog.branch_count());
        let memory = MemoryStats {
            uncommitted_bytes: uncommitted_bytes as u64,
            metadata_bytes: catalog.meta_bytes() as u64,
            catalog_bytes: branches.saturating_mul(costs.durable_stream),
            costs,
        };
        Self { memory }
    }
}

impl Engine {
    pub(crate) fn stats(&self) -> Stats {
        Stats::new(&self.catalog, self.budget.used())
    }
}

impl ReadView {
    /// Returns statistics of the view's log. A log opened for reading only has nothing uncommitted.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::new(&self.catalog, 0)
    }
}
