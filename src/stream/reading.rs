//! Events as a stream's handle shows them: durable ones, then those in flight and in the ring.

use std::ops::Range;
use std::sync::Arc;

use super::Stream;
use super::in_flight::{Counted, Unsettled};
use crate::catalog::{Lineage, ReadView};
use crate::disk::Pinned;
use crate::error::{Error, ErrorKind, Result};
use crate::reader::{Batch, BatchContext, Events};
use crate::types::StreamState;

/// Copied events of one commit in flight, or of the ring.
struct VolatileRun {
    /// Seq of the first event, dropped ones included.
    from: u64,
    dropped: u64,
    count: u64,
    bytes: Vec<u8>,
}

impl VolatileRun {
    /// Adds a run, after the cut that its rewind makes in those before.
    fn push(
        runs: &mut Vec<Self>,
        counted: Counted,
        (count, dropped): (u64, u64),
        slices: [&[u8]; 2],
    ) {
        if let Some(rewind) = counted.rewind {
            runs.retain(|run| run.from < rewind.to);
            if let Some(last) = runs.last_mut() {
                let keep = rewind.to - last.from;
                last.dropped = last.dropped.min(keep);
                last.count = last.count.min(keep - last.dropped);
            }
        }
        if count + dropped > 0 {
            runs.push(Self { from: counted.from, dropped, count, bytes: slices.concat() });
        }
    }
}

impl Stream {
    /// Returns the events of the stream as this handle sees it: durable events, then volatile ones
    /// (P9). Volatile events are copied by this call.
    ///
    /// If another handle deleted or rewound the stream and compaction reclaimed events, those read
    /// as [`ErrorKind::Deleted`] or [`ErrorKind::Conflict`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Deleted`]; [`ErrorKind::Closed`].
    pub fn events(&self) -> Result<Events> {
        self.core.check_open("read")?;
        if self.state() == StreamState::Deleted {
            return Err(Error::new(ErrorKind::Deleted(self.id), "read"));
        }
        let (volatile, durable_end) = self.volatile();
        let view = self.view();
        let lineage = self.lineage(durable_end);
        let seqs = self.start().min(durable_end)..durable_end;
        let events = Events::durable(view, self.id, lineage, seqs).then(volatile);
        Ok(events.from(self.start()).unless_overtaken(self.overtaken()))
    }

    pub(super) fn view(&self) -> ReadView {
        ReadView::new(Arc::clone(&self.core.catalog))
    }

    /// Returns the volatile events (of commits in flight or failed, then of the ring) and the seq
    /// where they start. Earlier events are durable.
    pub(super) fn volatile(&self) -> (Vec<Batch>, u64) {
        loop {
            if let Some(volatile) = self.volatile_of(&self.unsettled()) {
                return volatile;
            }
        }
    }

    /// Returns the volatile events; `None` if the memory of some was released, because their commit
    /// succeeded meanwhile.
    fn volatile_of(&self, unsettled: &Unsettled<'_>) -> Option<(Vec<Batch>, u64)> {
        let mut runs = Vec::new();
        for (part, counted) in &unsettled.parts {
            let filled = &part.filled;
            let (held, count) = (filled.hold(), u64::from(filled.count));
            if count > 0 && held.is_released() {
                return None;
            }
            VolatileRun::push(&mut runs, *counted, (count, filled.dropped), held.slices());
        }
        let len = (u64::from(self.ring.count()), self.ring.dropped());
        VolatileRun::push(&mut runs, unsettled.ring, len, self.ring.slices());
        let start = runs.first().map_or(unsettled.ring.from, |run| run.from);
        Some((self.batches(runs, self.generation_after(unsettled)), start))
    }

    /// Returns the runs as batches. A gap without an event after it joins the next one.
    fn batches(&self, runs: Vec<VolatileRun>, generation: u32) -> Vec<Batch> {
        let mut gap = 0;
        let mut batches = Vec::new();
        for VolatileRun { from, dropped, count, bytes } in runs {
            let (first_seq, dropped) = (from + dropped, gap + dropped);
            gap = if count > 0 { 0 } else { dropped };
            if count > 0 {
                let frames: Range<usize> = 0..bytes.len();
                let pin = Arc::new(Pinned::Buffer(bytes));
                let (stream, position) = (self.id, None);
                let context =
                    BatchContext { stream, first_seq, generation, position, dropped, pin };
                batches.push(Batch::new(context, count, frames));
            }
        }
        batches
    }

    /// Returns the branches of the durable events that this handle shows.
    pub(super) fn lineage(&self, end: u64) -> Lineage {
        let catalog = &self.core.catalog;
        if let Some(tip) = catalog.branch_of(self.id, self.seen_generation()) {
            return Lineage::new(tip, end);
        }
        let base = self.changes().find_map(|change| change.fork).and_then(|fork| {
            let tip = catalog.branch_of(fork.base, fork.base_generation)?;
            Some(Lineage::new(tip, end.min(fork.seq)))
        });
        base.unwrap_or_default()
    }
}
