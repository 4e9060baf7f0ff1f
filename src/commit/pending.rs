//! A commit that was asked for, until its outcome is known and its buffers are used again.

use std::sync::{Arc, PoisonError};
use std::task::Waker;

use super::Commit;
use crate::catalog::{Change, Standing};
use crate::error::{Error, Result};
use crate::index::At;
use crate::options::{CommitOptions, Expect};
use crate::ring::{Filled, Ring};
use crate::sabotage::{Sabotage, broken};
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Bell, Condvar, Mutex, MutexGuard};
use crate::types::{CommitId, Durability, StreamId};

/// One stream's share of a commit.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) stream: StreamId,
    /// The stream's first branch, when it was durable already as this commit was made.
    pub(crate) root: Option<At>,
    pub(crate) filled: Filled,
    pub(crate) crc: u32,
    pub(crate) seat: Seat,
    pub(crate) change: Option<Box<Encoded>>,
}

/// Where in its stream a part goes: as its handle saw the stream, until the leader knows better.
#[derive(Debug)]
pub(crate) struct Seat {
    /// The seq of the first of the events that are left.
    first_seq: AtomicU64,
    generation: AtomicU32,
}

impl Seat {
    pub(crate) fn new(first_seq: u64, generation: u32) -> Self {
        Self { first_seq: AtomicU64::new(first_seq), generation: AtomicU32::new(generation) }
    }
}

/// What a part says of its stream beside events, ready to be written.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) change: Change,
    /// The catalog batch; empty when there is none.
    pub(crate) bytes: Vec<u8>,
    pub(crate) count: u32,
}

impl Encoded {
    pub(crate) fn new(change: Change) -> Self {
        let (bytes, count) = change.encode();
        Self { change, bytes, count }
    }
}

impl Part {
    /// The seq of the first of the events that are left.
    pub(crate) fn first_seq(&self) -> u64 {
        self.seat.first_seq.load(Ordering::Relaxed)
    }

    pub(crate) fn generation(&self) -> u32 {
        self.seat.generation.load(Ordering::Relaxed)
    }

    /// The seq behind the last event.
    pub(crate) fn end_seq(&self) -> u64 {
        self.first_seq() + u64::from(self.filled.count)
    }

    pub(crate) fn change(&self) -> Option<&Change> {
        self.change.as_ref().map(|encoded| &encoded.change)
    }

    /// Where the stream stood when its handle saw it.
    pub(crate) fn seen(&self) -> Standing {
        let rewind = self.change().and_then(|change| change.rewind);
        let head = rewind.map_or(self.first_seq() - self.filled.dropped, |rewind| rewind.seen);
        let generation = self.generation() - u32::from(rewind.is_some());
        Standing { head, generation, ..Standing::default() }
    }

    /// Puts the part behind where the stream really stands. Only the leader.
    pub(crate) fn reseat(&self, standing: Standing) {
        let rewind = self.change().and_then(|change| change.rewind);
        let head = rewind.map_or(standing.head, |rewind| rewind.to);
        let generation = standing.generation + u32::from(rewind.is_some());
        self.seat.first_seq.store(head + self.filled.dropped, Ordering::Relaxed);
        self.seat.generation.store(generation, Ordering::Relaxed);
    }

    /// The bytes that it takes in a commit beside the headers.
    pub(crate) fn bytes(&self) -> u64 {
        let change = self.change.as_ref().map_or(0, |encoded| encoded.bytes.len());
        (self.filled.frame_bytes() + change) as u64
    }
}

/// A commit that was asked for.
#[derive(Debug)]
pub(crate) struct Pending {
    parts: Parts,
    pub(crate) durability: Durability,
    pub(crate) expect: Expect,
    pub(crate) id: Option<CommitId>,
    /// See [`CommitOptions::proof`].
    pub(crate) proof: bool,
    state: Mutex<State>,
    ready: Condvar,
    /// The bell that the thread waits for which waits here; [`NO_BELL`]: it is woken by itself.
    bell: AtomicUsize,
    settled: AtomicBool,
}

const NO_BELL: usize = usize::MAX;

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
    nudged: bool,
    /// The commits of the same streams that this one stands behind.
    behind: Behind,
}

impl State {
    fn is_told(&self) -> bool {
        self.outcome.is_some() || self.nudged
    }
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
        options: CommitOptions,
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
        Self::with(parts, options, Behind::Many(behind))
    }

    /// A commit of one stream, behind the one that it has under way, if any.
    pub(crate) fn of_one(
        part: Option<Part>,
        options: CommitOptions,
        behind: Option<Arc<Self>>,
    ) -> Arc<Self> {
        let behind = behind.map_or(Behind::None, Behind::One);
        Self::with(part.map_or(Parts::None, Parts::One), options, behind)
    }

    fn with(parts: Parts, options: CommitOptions, behind: Behind) -> Arc<Self> {
        let state = State { behind, ..State::default() };
        Arc::new(Self {
            parts,
            durability: options.durability.unwrap_or_default(),
            expect: options.expect,
            id: options.id,
            proof: options.proof,
            state: Mutex::new(state),
            ready: Condvar::new(),
            bell: AtomicUsize::new(NO_BELL),
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

    /// Which of the parts comes first in a commit.
    pub(crate) fn first_in_order(&self) -> usize {
        let parts = self.parts().iter().enumerate();
        parts.min_by_key(|(_, part)| part.stream).map_or(0, |(nth, _)| nth)
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
        self.parts().iter().map(Part::bytes).sum()
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

    /// Whoever waits here waits for this bell, with others. Said before anybody waits.
    pub(super) fn share(&self, bell: usize) {
        self.bell.store(bell, Ordering::Relaxed);
    }

    /// Which of the bells that is.
    fn bell<'a>(&self, bells: &'a [Bell]) -> Option<&'a Bell> {
        bells.get(self.bell.load(Ordering::Relaxed))
    }

    /// Wakes the thread that waits here, unless it waits for a bell. That bell, and the task that is to be woken.
    pub(super) fn wake(&self) -> (Option<usize>, Option<Waker>) {
        let mut state = self.lock();
        let waker = state.waker.take();
        let waiting = state.waiting;
        drop(state);
        let bell = self.bell.load(Ordering::Relaxed);
        if waiting && bell == NO_BELL {
            self.ready.notify_all();
        }
        (Some(bell).filter(|bell| waiting && *bell != NO_BELL), waker)
    }

    /// Lets a thread that waits here look whether it can lead. False: no thread waits.
    pub(super) fn nudge(&self, bells: &[Bell]) -> bool {
        let mut state = self.lock();
        let could = state.waiting && state.outcome.is_none();
        if could {
            state.nudged = true;
            drop(state);
            match self.bell(bells) {
                Some(bell) => bell.ring(),
                None => self.ready.notify_all(),
            }
        }
        could
    }

    /// Waits until the outcome is known, or until somebody else thinks that this thread could lead.
    pub(super) fn wait(&self, bells: &[Bell]) {
        let Some(bell) = self.bell(bells) else {
            let mut state = self.lock();
            while !state.is_told() {
                state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.nudged = false;
            return;
        };
        loop {
            let heard = bell.rings();
            let mut state = self.lock();
            if state.is_told() {
                state.nudged = false;
                return;
            }
            drop(state);
            let heard = if broken(Sabotage::ListenLate) { bell.rings() } else { heard };
            bell.wait(heard);
        }
    }

    pub(super) fn outcome(&self) -> Option<Result<Commit>> {
        if self.is_settled() { self.lock().outcome.clone() } else { None }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
