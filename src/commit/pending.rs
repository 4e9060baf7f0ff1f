//! A commit that was asked for, until its outcome is known and its buffers are used again.

use std::sync::{Arc, PoisonError};
use std::task::Waker;

use super::Commit;
use crate::catalog::{ReservedName, StreamEntry};
use crate::error::{Error, Result};
use crate::ring::{Filled, Ring};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::types::{Durability, StreamId};

/// One stream's share of a commit.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) stream: StreamId,
    /// The stream, when it was durable already as this commit was made.
    pub(crate) entry: Option<Arc<StreamEntry>>,
    pub(crate) filled: Filled,
    /// The seq of the first of the events that are left.
    pub(crate) first_seq: u64,
    pub(crate) crc: u32,
    /// The name that this commit gives the stream.
    pub(crate) name: Option<Arc<ReservedName>>,
}

/// A commit that was asked for.
#[derive(Debug)]
pub(crate) struct Pending {
    parts: Parts,
    pub(crate) durability: Durability,
    state: Mutex<State>,
    pub(super) ready: Condvar,
    settled: AtomicBool,
}

#[derive(Debug)]
#[cfg_attr(
    amberlog_shuttle,
    allow(clippy::large_enum_variant, reason = "shuttle's locks are large")
)]
enum Parts {
    None,
    One(Part),
    Many(Vec<Part>),
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) outcome: Option<Result<Commit>>,
    pub(super) waker: Option<Waker>,
    /// A thread sleeps here, or is about to.
    pub(super) waiting: bool,
    /// It should look whether it can lead.
    pub(super) nudged: bool,
    /// The commits of the same streams that this one stands behind.
    behind: Behind,
}

/// One of them usually, and then it lies here: a ticket is one allocation.
#[derive(Debug, Default)]
enum Behind {
    #[default]
    None,
    One(Arc<Pending>),
    Many(Vec<Arc<Pending>>),
}

impl Behind {
    fn as_slice(&self) -> &[Arc<Pending>] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

impl Pending {
    pub(crate) fn new(
        mut parts: Vec<Part>,
        durability: Durability,
        behind: Vec<Arc<Self>>,
    ) -> Arc<Self> {
        let parts = match (parts.pop(), parts.is_empty()) {
            (None, _) => Parts::None,
            (Some(one), true) => Parts::One(one),
            (Some(last), false) => {
                parts.push(last);
                Parts::Many(parts)
            }
        };
        Self::with(parts, durability, Behind::Many(behind))
    }

    /// A commit of one stream, behind the one that it has under way, if any.
    pub(crate) fn of_one(
        part: Option<Part>,
        durability: Durability,
        behind: Option<Arc<Self>>,
    ) -> Arc<Self> {
        let behind = behind.map_or(Behind::None, Behind::One);
        Self::with(part.map_or(Parts::None, Parts::One), durability, behind)
    }

    fn with(parts: Parts, durability: Durability, behind: Behind) -> Arc<Self> {
        let state = State { behind, ..State::default() };
        Arc::new(Self {
            parts,
            durability,
            state: Mutex::new(state),
            ready: Condvar::new(),
            settled: AtomicBool::new(false),
        })
    }

    pub(crate) fn parts(&self) -> &[Part] {
        match &self.parts {
            Parts::None => &[],
            Parts::One(part) => std::slice::from_ref(part),
            Parts::Many(parts) => parts,
        }
    }

    /// The commit succeeded: gives the ring of `stream` its buffer back, unless somebody else still holds
    /// the commit.
    pub(crate) fn reclaim(self: Arc<Self>, stream: StreamId, ring: &mut Ring) {
        match Arc::try_unwrap(self) {
            Ok(alone) => {
                for part in alone.into_parts().filter(|part| part.stream == stream) {
                    ring.recycle(part.filled);
                }
            }
            Err(shared) => {
                for part in shared.parts().iter().filter(|part| part.stream == stream) {
                    ring.forget(&part.filled);
                }
            }
        }
    }

    fn into_parts(self) -> impl Iterator<Item = Part> {
        let (one, many) = match self.parts {
            Parts::None => (None, Vec::new()),
            Parts::One(part) => (Some(part), Vec::new()),
            Parts::Many(parts) => (None, parts),
        };
        one.into_iter().chain(many)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.parts().iter().map(|part| part.filled.frame_bytes() as u64).sum()
    }

    /// Whether the outcome is known.
    pub(super) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    /// `None` while the commit is under way, then whether it failed.
    pub(crate) fn failed(&self) -> Option<bool> {
        self.is_settled().then(|| matches!(self.lock().outcome, Some(Err(_))))
    }

    /// The failure of a commit that this one stands behind, if one failed. Forgets those commits.
    pub(crate) fn failure_before(&self) -> Option<Error> {
        let behind = std::mem::take(&mut self.lock().behind);
        behind.as_slice().iter().find_map(|before| match &before.lock().outcome {
            Some(Err(error)) => Some(error.clone()),
            _ => None,
        })
    }

    /// Decides the outcome, once. Whoever waits is woken later, by [`Pending::wake`].
    pub(crate) fn settle(&self, outcome: Result<Commit>) {
        let mut state = self.lock();
        if state.outcome.is_none() {
            state.outcome = Some(outcome);
            self.settled.store(true, Ordering::Release);
        }
    }

    pub(super) fn wake(&self) {
        let mut state = self.lock();
        let waker = state.waker.take();
        let waiting = state.waiting;
        drop(state);
        if waiting {
            self.ready.notify_all();
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Lets a thread that waits here look whether it can lead. False: no thread waits.
    pub(super) fn nudge(&self) -> bool {
        let mut state = self.lock();
        let could = state.waiting && state.outcome.is_none();
        if could {
            state.nudged = true;
            self.ready.notify_all();
        }
        could
    }

    pub(super) fn outcome(&self) -> Option<Result<Commit>> {
        if self.is_settled() { self.lock().outcome.clone() } else { None }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
