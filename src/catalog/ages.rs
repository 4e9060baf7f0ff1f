//! How long ago the oldest snapshot was taken that is left: for whoever takes away what later ones do not see.
//!
//! Each set of segments is of an age, and so is each snapshot, which holds one. Nobody counts them one by one, so
//! taking one stays as cheap as it is.

use std::sync::{Arc, PoisonError, Weak};

use super::{Catalog, LogPlace};
use crate::segment::Age;
use crate::sync::{Mutex, MutexGuard};

/// So many versions of streams are made before a new age begins, if nothing else begins one.
const VERSIONS_MAX: u32 = 256;

/// The ages of a catalog.
#[derive(Default)]
pub(super) struct Ages(Mutex<Times>);

#[derive(Default)]
struct Times {
    /// What was visible when the present one began: snapshots of it show that, or more.
    began: LogPlace,
    /// Those before, oldest first, as far as snapshots of them may be left.
    before: Vec<(Weak<()>, LogPlace)>,
    /// Versions that were made in the present one.
    versions: u32,
}

impl Times {
    fn begin(&mut self, catalog: &Catalog) {
        // First: who takes a snapshot looks at the segments first and at the watermark afterwards.
        let began = catalog.watermark().end;
        let now = Age::default();
        let segments = catalog.segments.rcu(|segments| segments.in_age(&now));
        self.before.push((Arc::downgrade(segments.age()), self.began));
        drop(segments);
        (self.began, self.versions) = (began, 0);
        self.forget();
    }

    fn forget(&mut self) {
        self.before.retain(|(age, _)| age.strong_count() > 0);
    }
}

impl Ages {
    fn lock(&self) -> MutexGuard<'_, Times> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Catalog {
    /// Whether no snapshot is left that was taken before this was asked: none that may read a file which later ones
    /// do not need.
    pub(crate) fn is_unpinned(&self) -> bool {
        let mut times = self.ages.lock();
        times.begin(self);
        times.before.is_empty()
    }

    /// A version of a stream is made.
    pub(super) fn count_version(&self) {
        let mut times = self.ages.lock();
        times.versions += 1;
        if times.versions >= VERSIONS_MAX {
            times.begin(self);
        }
    }

    /// A place such that every snapshot that there is, and every one that will be, shows what is in front of it.
    pub(super) fn horizon(&self) -> LogPlace {
        let mut times = self.ages.lock();
        times.forget();
        times.before.first().map_or(times.began, |(_, began)| *began)
    }
}
