//! Streams with a live handle and nothing on disk, with their uncommitted metadata.
//!
//! Only handles and lists of volatile streams come here, so a few locks suffice; each is held for
//! one stream. Nothing here is thread-local: a handle may be dropped after its thread's local
//! values are gone.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::catalog::{Asked, Best, Meta, Query, StreamInfo};
use crate::sync::{Mutex, MutexGuard, process};
use crate::types::{StreamId, StreamState};
use crate::work::step;

/// Number of shards, so that threads that create streams rarely contend.
const SHARDS: usize = 16;

/// Uncommitted metadata of a volatile stream.
#[derive(Debug)]
pub(crate) struct VolatileInfo {
    pub(crate) meta: Meta,
    pub(crate) state: StreamState,
}

/// `None` if the stream has no metadata.
type Metadata = Option<Arc<VolatileInfo>>;
type Shard = BTreeMap<StreamId, Metadata>;

/// Volatile streams of a log.
#[derive(Debug)]
pub(crate) struct Volatile {
    shards: [Mutex<Shard>; SHARDS],
    /// Process whose threads take the locks. In a fork of it a lock may stay held forever, so no
    /// stream is volatile there.
    process: u32,
}

impl Volatile {
    pub(crate) fn new() -> Self {
        Self { shards: Default::default(), process: process() }
    }

    fn shards(&self) -> &[Mutex<Shard>] {
        if self.process == process() { &self.shards } else { &[] }
    }

    fn shard(&self, id: StreamId) -> Option<MutexGuard<'_, Shard>> {
        self.shards().get(usize::from(id.as_bytes()[15]) % SHARDS).map(Mutex::lock)
    }

    pub(crate) fn contains(&self, id: StreamId) -> bool {
        self.shard(id).is_some_and(|shard| shard.contains_key(&id))
    }

    /// Returns the state of a stream, if it is volatile.
    pub(crate) fn state(&self, id: StreamId) -> Option<StreamState> {
        let shard = self.shard(id)?;
        let metadata = shard.get(&id)?;
        Some(metadata.as_ref().map_or(StreamState::Active, |info| info.state))
    }

    /// Adds a stream without metadata. Returns false if it exists already.
    pub(crate) fn add(&self, id: StreamId) -> bool {
        let Some(mut shard) = self.shard(id) else { return false };
        let is_new = !shard.contains_key(&id);
        if is_new {
            shard.insert(id, None);
        }
        is_new
    }

    /// Sets the metadata of a stream.
    pub(crate) fn show(&self, id: StreamId, info: VolatileInfo) {
        let Some(mut shard) = self.shard(id) else { return };
        let before = shard.insert(id, Some(Arc::new(info)));
        drop(shard);
        drop(before);
    }

    pub(crate) fn remove(&self, id: StreamId) {
        let Some(mut shard) = self.shard(id) else { return };
        let removed = shard.remove(&id);
        drop(shard);
        drop(removed);
    }

    /// Returns the first `max` matching streams in the order of the list. Streams that have become
    /// durable are skipped and removed.
    pub(crate) fn list(
        &self,
        query: &Query,
        max: usize,
        is_durable: impl Fn(StreamId) -> bool,
    ) -> Vec<StreamInfo> {
        let asked = Asked::of_volatile(query, max);
        let mut best = Best::new(&asked);
        let Some(from) = asked.volatile_from() else { return Vec::new() };
        let next = |shard: &Mutex<Shard>, from| next(&shard.lock(), from, asked.is_descending());
        let mut heads: Vec<_> =
            self.shards().iter().map(|shard| (shard, next(shard, from))).collect();
        while !(asked.lists_volatile_by_id() && best.is_full()) {
            let ids = heads.iter_mut().filter_map(|head| Some((head.1.as_ref()?.0, head)));
            let first = match asked.is_descending() {
                false => ids.min_by_key(|(id, _)| *id),
                true => ids.max_by_key(|(id, _)| *id),
            };
            let Some((id, (shard, head))) = first.filter(|(id, _)| !asked.is_past(*id)) else {
                break;
            };
            let metadata = std::mem::replace(head, next(shard, Bound::Excluded(id)))
                .map(|(_, metadata)| metadata);
            if is_durable(id) {
                self.remove(id);
                continue;
            }
            let info = match metadata.flatten() {
                Some(info) => StreamInfo::volatile(id, info.meta.clone(), info.state),
                None => StreamInfo::volatile(id, Meta::default(), StreamState::Active),
            };
            if query.matches_volatile(&info) {
                best.consider_volatile(info);
            }
        }
        best.take().into_iter().filter_map(|(_, info)| info.map(|info| *info)).collect()
    }
}

/// Returns the next stream from the bound on, in the direction of the list.
fn next(shard: &Shard, from: Bound<StreamId>, is_descending: bool) -> Option<(StreamId, Metadata)> {
    step();
    let found = match is_descending {
        false => shard.range((from, Bound::Unbounded)).next(),
        true => shard.range((Bound::Unbounded, from)).next_back(),
    };
    found.map(|(id, metadata)| (*id, metadata.clone()))
}
