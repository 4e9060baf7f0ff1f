//! View horizon: which watermarks the remaining read views may have, so that unseen versions can be
//! dropped.
//!
//! Each set of segments belongs to an age, and so does each read view, which holds such a set. Read
//! views are not counted one by one: taking one stays cheap.

use std::ops::Range;
use std::sync::{Arc, Weak};

use super::Catalog;
use crate::segment::Age;
use crate::sync::{Mutex, MutexGuard};

/// Maximum number of stream versions in one age.
const VERSIONS_MAX: u32 = 256;
/// Maximum bytes of metadata in the versions of one age.
const VERSION_BYTES_MAX: usize = 1 << 20;

/// Ages of the read views of a catalog.
#[derive(Default)]
pub(super) struct ViewHorizon(Mutex<Horizon>);

#[derive(Default)]
struct Horizon {
    /// Watermark at the start of the current age: its read views show at least this.
    began: u64,
    /// Earlier ages that read views may still have, oldest first, with the range of their
    /// watermarks.
    before: Vec<(Weak<()>, Range<u64>)>,
    /// Number of versions made in the current age.
    versions: u32,
    /// Bytes of their metadata.
    version_bytes: usize,
    /// Ranges of the watermarks of read views, as of the start of the current age; some views may
    /// be gone since.
    ranges: Arc<[Range<u64>]>,
}

impl Horizon {
    fn begin(&mut self, catalog: &Catalog) {
        // Loaded first: a new read view loads the segments before the watermark.
        let began = catalog.watermark().visible;
        let now = Age::default();
        let segments = catalog.segments.rcu(|segments| segments.in_age(&now));
        let ended = catalog.watermark().visible;
        self.before.push((Arc::downgrade(segments.age()), self.began..ended));
        drop(segments);
        (self.began, self.versions, self.version_bytes) = (began, 0, 0);
        self.before.retain(|(age, _)| age.strong_count() > 0);
        let before = self.before.iter().map(|(_, marks)| marks.clone());
        self.ranges = before.chain(std::iter::once(began..u64::MAX)).collect();
    }
}

impl ViewHorizon {
    fn lock(&self) -> MutexGuard<'_, Horizon> {
        self.0.lock()
    }
}

impl Catalog {
    /// Counts a new version of a stream and the bytes of its metadata.
    pub(super) fn count_version(&self, bytes: usize) {
        let mut horizon = self.view_horizon.lock();
        horizon.versions = horizon.versions.saturating_add(1);
        horizon.version_bytes = horizon.version_bytes.saturating_add(bytes);
        if horizon.versions >= VERSIONS_MAX || horizon.version_bytes >= VERSION_BYTES_MAX {
            horizon.begin(self);
        }
    }

    /// Returns the ranges, ends included, that hold the watermarks of all read views, present and
    /// future.
    pub(super) fn view_ranges(&self) -> Arc<[Range<u64>]> {
        let mut horizon = self.view_horizon.lock();
        if horizon.ranges.is_empty() {
            horizon.begin(self);
        }
        Arc::clone(&horizon.ranges)
    }
}
