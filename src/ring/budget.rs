//! Memory of a log's rings and of uncommitted stream changes: counted where it is held, refused
//! beyond the bound (P10).

use std::sync::Arc;

use crate::error::AppendError;
use crate::sabotage::{Sabotage, broken};
use crate::sync::atomic::{AtomicUsize, Ordering};

/// Memory of all streams of a log, commits in flight included.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicUsize,
    pub(crate) bytes_max: usize,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { used: AtomicUsize::new(0), bytes_max }
    }

    /// Returns the number of bytes charged now.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Returns true if more than half is used; then no buffer is kept for later events.
    pub(super) fn is_scarce(&self) -> bool {
        self.used() > self.bytes_max / 2
    }

    /// Charges `bytes` if the bound allows.
    pub(super) fn take(&self, bytes: usize) -> bool {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.bytes_max)
            })
            .is_ok()
    }

    /// Charges `bytes` regardless of the bound.
    pub(super) fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Releases `bytes`.
    pub(super) fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Bytes charged to a budget until this is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    bytes: usize,
    budget: Arc<Budget>,
}

impl Charge {
    /// Returns a charge of zero bytes.
    pub(crate) fn none(budget: &Arc<Budget>) -> Self {
        Self { bytes: 0, budget: Arc::clone(budget) }
    }

    /// Replaces the charge by `bytes`. Fails and changes nothing if the bound does not allow the
    /// difference.
    pub(crate) fn try_set(&mut self, bytes: usize) -> Result<(), AppendError> {
        let more = bytes.saturating_sub(self.bytes);
        if more > 0 && !broken(Sabotage::CountRingsOnly) && !self.budget.take(more) {
            let memory_bytes_max = self.budget.bytes_max;
            return Err(AppendError::MemoryFull { memory_bytes_max });
        }
        self.bytes += if broken(Sabotage::CountRingsOnly) { 0 } else { more };
        self.set(bytes);
        Ok(())
    }

    /// Replaces the charge by `bytes`, regardless of the bound.
    pub(crate) fn set(&mut self, bytes: usize) {
        if broken(Sabotage::CountRingsOnly) {
            return;
        }
        self.budget.add(bytes.saturating_sub(self.bytes));
        self.budget.give_back(self.bytes.saturating_sub(bytes));
        self.bytes = bytes;
    }

    /// Adds `bytes` to the charge, regardless of the bound.
    pub(crate) fn add(&mut self, bytes: usize) {
        self.set(self.bytes + bytes);
    }

    #[cfg(all(test, feature = "sim", not(any(amberlog_loom, amberlog_shuttle))))]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if !broken(Sabotage::KeepCharges) {
            self.budget.give_back(self.bytes);
        }
    }
}
