//! Watermark: the part of the log that readers may see.

use crate::format::Lsn;
use crate::sabotage::{Sabotage, broken};
use crate::sync::atomic::{AtomicU64, Ordering};

/// Number of recent watermarks that the published watermark keeps.
const WATERMARK_SLOTS: usize = 64;

/// Part of the log that readers may see. The writer moves it after a sync, and only forward.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Watermark {
    /// Last commit that was acknowledged at the durability it asked for.
    pub(crate) visible: u64,
    /// Last commit that was synced.
    pub(crate) durable: u64,
    /// End of the last visible commit.
    pub(crate) end: Lsn,
}

/// Ring of recent watermarks, which lets readers load one whole without a lock.
///
/// A reader retries only when the writer goes around the ring during its load.
pub(super) struct PublishedWatermark<const SLOTS: usize = WATERMARK_SLOTS> {
    slots: [[AtomicU64; 3]; SLOTS],
    current: AtomicU64,
}

impl<const SLOTS: usize> PublishedWatermark<SLOTS> {
    pub(super) fn new() -> Self {
        let word = |_| AtomicU64::new(0);
        let slots = std::array::from_fn(|_| std::array::from_fn(word));
        Self { slots, current: AtomicU64::new(0) }
    }

    /// Returns the slot of the `at`-th stored watermark.
    fn slot(&self, at: u64) -> &[AtomicU64; 3] {
        &self.slots[(at as usize).checked_rem(SLOTS).unwrap_or(0)]
    }

    pub(super) fn load(&self) -> Watermark {
        loop {
            let at = self.current.load(Ordering::Acquire);
            let slot = self.slot(at);
            let [visible, durable, end] = [0, 1, 2].map(|word| slot[word].load(Ordering::Acquire));
            let stored = self.current.load(Ordering::Acquire).saturating_sub(at);
            if stored < const { SLOTS as u64 - 1 } || broken(Sabotage::LookOnce) {
                return Watermark { visible, durable, end: Lsn(end) };
            }
        }
    }

    pub(super) fn store(&self, mark: Watermark) {
        let at = self.current.load(Ordering::Relaxed).saturating_add(1);
        let slot = self.slot(at);
        slot[0].store(mark.visible, Ordering::Release);
        slot[1].store(mark.durable, Ordering::Release);
        slot[2].store(mark.end.0, Ordering::Release);
        self.current.store(at, Ordering::Release);
    }
}
