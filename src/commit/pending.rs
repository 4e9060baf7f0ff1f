//! A submitted commit, until its outcome is known and its buffers are reused.

use std::sync::Arc;
use std::task::Waker;

use super::{Commit, Draft, Encoded, Precondition};
use crate::catalog::Baseline;
use crate::change::Change;
use crate::error::{Error, ErrorKind, Result};
use crate::index::ArenaId;
use crate::options::{CommitOptions, Expect};
use crate::ring::{Filled, Ring};
use crate::sabotage::{Sabotage, broken};
use crate::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Condvar, EventCount, Mutex, MutexGuard, process};
use crate::types::{CommitId, Durability, StreamId, StreamState};

/// Share of one stream in a commit.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) stream: StreamId,
    /// First branch of the stream, if it was durable when the commit was built.
    pub(crate) root: Option<ArenaId>,
    pub(crate) filled: Filled,
    pub(crate) crc: u32,
    pub(crate) placement: Placement,
    pub(crate) change: Option<Box<Encoded>>,
    pub(crate) expect: Expect,
}

/// Placement of a part in its stream: as the handle saw the stream, until the leader rebases it.
#[derive(Debug)]
pub(crate) struct Placement {
    /// Seq of the first remaining event.
    first_seq: AtomicU64,
    generation: AtomicU32,
}

impl Placement {
    pub(crate) fn new(first_seq: u64, generation: u32) -> Self {
        Self { first_seq: AtomicU64::new(first_seq), generation: AtomicU32::new(generation) }
    }
}

impl Part {
    /// Returns the seq of the first remaining event.
    pub(crate) fn first_seq(&self) -> u64 {
        self.placement.first_seq.load(Ordering::Relaxed)
    }

    pub(crate) fn generation(&self) -> u32 {
        self.placement.generation.load(Ordering::Relaxed)
    }

    /// Returns the seq after the last event.
    pub(crate) fn end_seq(&self) -> u64 {
        self.first_seq() + u64::from(self.filled.count)
    }

    pub(crate) fn change(&self) -> Option<&Change> {
        self.change.as_ref().map(|encoded| &encoded.draft.change)
    }

    /// Leaves the name that the change gives to the stream, or frees it if the change deletes the
    /// stream. Called by the leader once it is written.
    pub(crate) fn give_name(&self) {
        let Some(draft) = self.change.as_ref().map(|encoded| &encoded.draft) else { return };
        let Some(reserved) = &draft.reserved else { return };
        match draft.state {
            Some(StreamState::Deleted) => reserved.free(),
            _ => reserved.give(),
        }
    }

    pub(crate) fn precondition(&self) -> Precondition {
        self.change.as_ref().map_or(Precondition::None, |encoded| encoded.precondition)
    }

    /// Returns the baseline of the stream as its handle saw it.
    pub(crate) fn seen(&self) -> Baseline {
        let rewind = self.change().and_then(|change| change.rewind);
        let head = rewind.map_or(self.first_seq() - self.filled.dropped, |rewind| rewind.seen);
        let generation = self.generation() - u32::from(rewind.is_some());
        Baseline { head, generation, ..Baseline::default() }
    }

    /// Returns true if the part trims events and another handle has rewound the stream since the
    /// trim was asked for, so that its seqs may be those of other events.
    pub(crate) fn trims_regrown(&self, actual: Baseline) -> bool {
        let is_regrown =
            |draft: &Draft| draft.regrown || self.seen().generation != actual.generation;
        let draft = self.change.as_ref().map(|encoded| &encoded.draft);
        draft.is_some_and(|draft| draft.start.is_some() && is_regrown(draft))
    }

    /// Moves the part to the actual end of its stream. Called by the leader only.
    pub(crate) fn rebase(&self, baseline: Baseline) {
        let rewind = self.change().and_then(|change| change.rewind);
        let head = rewind.map_or(baseline.head, |rewind| rewind.to);
        let generation = baseline.generation + u32::from(rewind.is_some());
        self.placement.first_seq.store(head + self.filled.dropped, Ordering::Relaxed);
        self.placement.generation.store(generation, Ordering::Relaxed);
    }

    /// Returns the number of bytes that it takes in a commit, without headers.
    pub(crate) fn bytes(&self) -> u64 {
        let change = self.change.as_ref().map_or(0, |encoded| encoded.bytes.len());
        (self.filled.frame_bytes() + change) as u64
    }
}

/// Submitted commit.
#[derive(Debug)]
pub(crate) struct Pending {
    parts: Parts,
    /// Parts with nothing to write, whose streams have to meet their expectations all the same.
    checks: Box<[Part]>,
    pub(crate) durability: Durability,
    pub(crate) id: Option<CommitId>,
    /// See [`CommitOptions::proof`].
    pub(crate) proof: bool,
    /// See [`CommitOptions::rolls`].
    pub(crate) rolls: bool,
    /// See [`CommitOptions::later`].
    pub(super) starts_later: bool,
    state: Mutex<State>,
    ready: Condvar,
    /// Index of the event count on which its waiter sleeps; [`NO_EVENT_COUNT`] if the waiter sleeps
    /// alone.
    event_count: AtomicUsize,
    /// [`OPEN`] or the kind of outcome, readable without the lock.
    settled: AtomicU8,
    /// Process that submitted it.
    process: u32,
}

/// The outcome is unknown.
const OPEN: u8 = 0;
const COMMITTED: u8 = 1;
const FAILED: u8 = 2;

const NO_EVENT_COUNT: usize = usize::MAX;

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
    /// The sleeping thread should try to lead.
    may_lead: bool,
    /// The ticket was dropped before the outcome was known.
    dropped: bool,
    /// Earlier commits of the same streams.
    predecessors: Predecessors,
}

impl State {
    fn is_woken(&self) -> bool {
        self.outcome.is_some() || self.may_lead
    }
}

/// Earlier commits; a single one is stored inline, so that a ticket is one allocation.
#[derive(Debug, Default)]
enum Predecessors {
    #[default]
    None,
    One(Arc<Pending>),
    Many(Vec<Arc<Pending>>),
}

impl Predecessors {
    fn move_to(self, all: &mut Vec<Arc<Pending>>) {
        match self {
            Self::None => {}
            Self::One(pending) => all.push(pending),
            Self::Many(many) => all.extend(many),
        }
    }

    fn as_slice(&self) -> &[Arc<Pending>] {
        match self {
            Self::None => &[],
            Self::One(pending) => std::slice::from_ref(pending),
            Self::Many(many) => many,
        }
    }
}

impl Pending {
    pub(crate) fn new(
        parts: Vec<Part>,
        options: CommitOptions,
        predecessors: Vec<Arc<Self>>,
    ) -> Arc<Self> {
        Self::with_checks(parts, Vec::new(), options, predecessors)
    }

    /// Returns a commit that also depends on streams of which it holds nothing.
    pub(crate) fn with_checks(
        mut parts: Vec<Part>,
        checks: Vec<Part>,
        options: CommitOptions,
        predecessors: Vec<Arc<Self>>,
    ) -> Arc<Self> {
        let parts = match (parts.pop(), parts.is_empty()) {
            (None, _) => Parts::None,
            (Some(part), true) => Parts::One(part),
            (Some(last), false) => {
                parts.push(last);
                Parts::Many(parts)
            }
        };
        Self::with(parts, checks, options, Predecessors::Many(predecessors))
    }

    /// Returns a commit of one stream, after the stream's commit in flight, if any.
    pub(crate) fn of_one(
        part: Option<Part>,
        options: CommitOptions,
        predecessors: Option<Arc<Self>>,
    ) -> Arc<Self> {
        let predecessors = predecessors.map_or(Predecessors::None, Predecessors::One);
        Self::with(part.map_or(Parts::None, Parts::One), Vec::new(), options, predecessors)
    }

    fn with(
        parts: Parts,
        checks: Vec<Part>,
        options: CommitOptions,
        predecessors: Predecessors,
    ) -> Arc<Self> {
        let state = State { predecessors, ..State::default() };
        Arc::new(Self {
            parts,
            checks: checks.into(),
            durability: options.durability.unwrap_or_default(),
            id: options.id,
            proof: options.proof,
            rolls: options.rolls,
            starts_later: options.starts_later,
            state: Mutex::new(state),
            ready: Condvar::new(),
            event_count: AtomicUsize::new(NO_EVENT_COUNT),
            settled: AtomicU8::new(OPEN),
            process: process(),
        })
    }

    pub(crate) fn parts(&self) -> &[Part] {
        match &self.parts {
            Parts::None => &[],
            Parts::One(part) => std::slice::from_ref(part),
            Parts::Many(parts) => parts,
        }
    }

    /// Returns the parts, followed by those that are only checked.
    pub(crate) fn checked_parts(&self) -> impl Iterator<Item = &Part> {
        self.parts().iter().chain(&self.checks)
    }

    /// Returns the index of the part that comes first in the commit.
    pub(crate) fn first_in_order(&self) -> usize {
        let parts = self.parts().iter().enumerate();
        parts.min_by_key(|(_, part)| part.stream).map_or(0, |(nth, _)| nth)
    }

    /// Returns the buffer of the nth part to its ring after a successful commit, unless another
    /// owner still holds the commit.
    pub(crate) fn reclaim(self: Arc<Self>, nth: usize, ring: &mut Ring) {
        match Arc::try_unwrap(self) {
            Ok(alone) => {
                alone.into_part(nth).into_iter().for_each(|part| ring.recycle(part.filled));
            }
            Err(shared) => {
                shared.parts().get(nth).into_iter().for_each(|part| ring.forget(&part.filled));
            }
        }
    }

    fn into_part(mut self, nth: usize) -> Option<Part> {
        match std::mem::replace(&mut self.parts, Parts::None) {
            Parts::One(part) if nth == 0 => Some(part),
            Parts::Many(mut parts) if nth < parts.len() => Some(parts.swap_remove(nth)),
            _ => None,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.parts().iter().map(Part::bytes).sum()
    }

    /// Returns true if the outcome is known.
    pub(super) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire) != OPEN
    }

    /// Returns true in a fork of the process that submitted it: there its lock may be held for
    /// ever.
    pub(super) fn is_other_process(&self) -> bool {
        self.process != process()
    }

    /// Returns `None` during the commit, then whether it failed.
    pub(crate) fn failed(&self) -> Option<bool> {
        match self.settled.load(Ordering::Acquire) {
            OPEN => None,
            settled => Some(settled == FAILED),
        }
    }

    /// Returns the failure of an earlier commit of the same streams, if one failed. Forgets those
    /// commits.
    pub(crate) fn failure_before(&self) -> Option<Error> {
        let predecessors = std::mem::take(&mut self.lock().predecessors);
        predecessors.as_slice().iter().find_map(|before| match &before.lock().outcome {
            // The caller discards the events that `AlreadyCommitted` names; this commit holds new
            // ones.
            Some(Err(error))
                if matches!(error.kind(), ErrorKind::AlreadyCommitted { .. })
                    && !broken(Sabotage::InheritOutcome) =>
            {
                Some(Error::new(ErrorKind::Aborted, "commit").because(error.kind().to_string()))
            }
            Some(Err(error)) => Some(error.clone()),
            _ => None,
        })
    }

    /// Decides the outcome, once, and drops the earlier commits. [`Pending::wake`] wakes the
    /// waiters later.
    pub(crate) fn settle(&self, outcome: Result<Commit>) {
        let mut state = self.lock();
        if state.outcome.is_none() {
            let settled = if outcome.is_ok() { COMMITTED } else { FAILED };
            state.outcome = Some(outcome);
            self.settled.store(settled, Ordering::Release);
        }
        let predecessors = std::mem::take(&mut state.predecessors);
        drop(state);
        drop(predecessors);
    }

    /// Lets its waiter share an event count with others. Called before any thread waits.
    pub(super) fn share(&self, event_count: usize) {
        self.event_count.store(event_count, Ordering::Relaxed);
    }

    fn event_count<'a>(&self, event_counts: &'a [EventCount]) -> Option<&'a EventCount> {
        event_counts.get(self.event_count.load(Ordering::Relaxed))
    }

    /// Wakes the waiter, unless it sleeps on an event count. Returns the index of that event count,
    /// and the waker of the task to be woken.
    pub(super) fn wake(&self) -> (Option<usize>, Option<Waker>) {
        let mut state = self.lock();
        let waker = state.waker.take();
        let waiting = state.waiting;
        drop(state);
        let event_count = self.event_count.load(Ordering::Relaxed);
        if waiting && event_count == NO_EVENT_COUNT {
            self.ready.notify_all();
        }
        (Some(event_count).filter(|event_count| waiting && *event_count != NO_EVENT_COUNT), waker)
    }

    /// Wakes the waiter so that it tries to lead. Returns false if no thread waits.
    pub(super) fn wake_to_lead(&self, event_counts: &[EventCount]) -> bool {
        let mut state = self.lock();
        let could = state.waiting && state.outcome.is_none();
        if could {
            state.may_lead = true;
            drop(state);
            match self.event_count(event_counts) {
                Some(event_count) => event_count.ring(),
                None => self.ready.notify_all(),
            }
        }
        could
    }

    /// Waits until the outcome is known, or until this thread should try to lead.
    pub(super) fn wait(&self, event_counts: &[EventCount]) {
        let Some(event_count) = self.event_count(event_counts) else {
            let mut state = self.lock();
            while !state.is_woken() {
                state = self.ready.wait(state);
            }
            state.may_lead = false;
            return;
        };
        loop {
            let heard = event_count.rings();
            let mut state = self.lock();
            if state.is_woken() {
                state.may_lead = false;
                return;
            }
            drop(state);
            let heard = if broken(Sabotage::ListenLate) { event_count.rings() } else { heard };
            event_count.wait(heard);
        }
    }

    pub(super) fn outcome(&self) -> Option<Result<Commit>> {
        if self.is_settled() { self.lock().outcome.clone() } else { None }
    }

    /// Records that the ticket was dropped before its outcome was reported. Returns the failure
    /// that this hides, if it is known.
    pub(super) fn drop_ticket(&self) -> Option<Error> {
        let mut state = self.lock();
        state.dropped = state.outcome.is_none();
        state.outcome.as_ref()?.as_ref().err().cloned()
    }

    /// Returns the failure of a commit whose ticket was dropped earlier.
    pub(super) fn hidden_failure(&self) -> Option<Error> {
        let state = self.lock();
        let outcome = state.outcome.as_ref().filter(|_| state.dropped);
        outcome?.as_ref().err().cloned()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Takes the earlier commits out.
    fn take_predecessors(&mut self) -> Predecessors {
        let state = self.state.get_mut();
        std::mem::take(&mut state.predecessors)
    }
}

impl Drop for Pending {
    /// Drops earlier commits one by one, so that the call stack does not grow with their number.
    fn drop(&mut self) {
        let mut left = Vec::new();
        self.take_predecessors().move_to(&mut left);
        while let Some(before) = left.pop() {
            if let Some(mut before) = Arc::into_inner(before) {
                before.take_predecessors().move_to(&mut left);
            }
        }
    }
}
