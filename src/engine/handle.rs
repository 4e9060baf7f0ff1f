//! Reference to an open log, held by the program: dropping the last one closes the log.

use std::ops::Deref;
use std::sync::Arc;

use super::Engine;
use crate::sabotage::{Sabotage, broken};
use crate::sync::atomic::Ordering;

/// Reference counted by [`crate::Log`] and [`crate::Stream`]. The log's own threads hold the
/// [`Engine`] directly, so that they do not keep the log open and a close can wait for them.
#[derive(Debug)]
pub(crate) struct Handle(Arc<Engine>);

impl Handle {
    /// Adds a handle to the engine.
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        engine.handles.fetch_add(1, Ordering::Relaxed);
        Self(engine)
    }

    /// Returns the engine without a handle, as the log's own threads hold it.
    #[cfg(all(test, feature = "sim"))]
    pub(super) fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.0)
    }

    pub(crate) fn is_of_same_log(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Clone for Handle {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.0))
    }
}

impl Deref for Handle {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.0
    }
}

impl Drop for Handle {
    /// Ignores errors, which only `Log::close` reports; no acknowledged commit depends on this
    /// close.
    fn drop(&mut self) {
        // The handles of a fork of the process do not count: the log belongs to its parent.
        if !self.0.is_elsewhere()
            && self.0.handles.fetch_sub(1, Ordering::AcqRel) == 1
            && !broken(Sabotage::LeaveOpen)
        {
            let _ = self.0.close();
        }
    }
}
