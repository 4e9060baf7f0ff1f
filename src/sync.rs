//! Locks, condition variables, atomics and threads: those of the standard library, or those of a model
//! checker, which decides itself who runs when.
//!
//! With `--cfg amberlog_loom` the models in `commit`, `ring` and `catalog` run in every order that there
//! is; with `--cfg amberlog_shuttle` the whole engine runs in very many (`tests/interleavings.rs`). What
//! threads share and wait for comes from here. `Arc` stays the standard one: it never waits.

#![allow(dead_code, unreachable_pub, reason = "only models make slips")]

#[cfg(amberlog_loom)]
pub(crate) use loom::{
    sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, atomic},
    thread::{self, JoinHandle},
};
#[cfg(amberlog_shuttle)]
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, atomic},
    thread::{self, JoinHandle},
};
#[cfg(not(any(amberlog_loom, amberlog_shuttle)))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, atomic},
    thread::{self, JoinHandle},
};

/// Starts a thread of the log's own.
pub(crate) fn spawn(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    if slips(Slip::NoThread) {
        return Err(std::io::ErrorKind::WouldBlock.into());
    }
    thread::Builder::new().name(name.into()).spawn(work)
}

/// What a model lets go wrong, to show that it would notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slip {
    /// No slip, but a machine on which no thread can be started.
    NoThread,
    /// Whoever hands the writer over tells nobody.
    HandOverTellsNobody,
    /// Who asks for a thread that cannot be had is forgotten.
    AskingIsForgotten,
    /// A leader that panics leaves its group unsettled.
    PanicLeavesGroup,
    /// A ticket that is polled looks for the outcome, and only then leaves its waker.
    WakerComesLate,
    /// Closing takes the writer away from those who are queued.
    CloseLeavesQueue,
    /// A reader of the watermark does not look again.
    ReaderLooksOnce,
    /// Tickets are settled, and the wall raised, before the sync.
    AckBeforeSync,
}

/// Whether the running model makes this slip; outside of models nothing does.
#[cfg(not(any(amberlog_loom, amberlog_shuttle)))]
#[inline(always)]
pub(crate) const fn slips(_: Slip) -> bool {
    false
}

#[cfg(any(amberlog_loom, amberlog_shuttle))]
mod made {
    use std::cell::Cell;

    use super::Slip;

    // All threads of a model are one thread to the operating system.
    thread_local! {
        static MADE: Cell<u32> = const { Cell::new(0) };
    }

    /// Whatever this thread models from now on makes these slips, and no others.
    pub fn make_slips(slips: &[Slip]) {
        MADE.set(slips.iter().map(|slip| 1 << *slip as u32).sum());
    }

    pub(crate) fn slips(slip: Slip) -> bool {
        MADE.get() & 1 << slip as u32 != 0
    }
}

#[cfg(amberlog_shuttle)]
pub use made::make_slips;
#[cfg(any(amberlog_loom, amberlog_shuttle))]
pub(crate) use made::slips;

/// Runs a scenario in every order that its threads can take; with a bound, in every order with at most so
/// many preemptions.
#[cfg(all(test, amberlog_loom))]
pub(crate) fn model(
    slips: &[Slip],
    preemptions_max: Option<usize>,
    scenario: impl Fn() + Send + Sync + 'static,
) {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    made::make_slips(slips);
    let (runs, started) = (Arc::new(AtomicU64::new(0)), std::time::Instant::now());
    let counted = Arc::clone(&runs);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(preemptions_max);
    builder.max_branches = 20_000;
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        scenario();
    });
    println!("{} executions, {:.1?}", runs.load(Ordering::Relaxed), started.elapsed());
}
