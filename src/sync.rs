//! Locks, condition variables, atomics and threads: those of the standard library, or those of a model
//! checker, which decides itself who runs when.
//!
//! With `--cfg amberlog_loom` the models in `commit`, `ring` and `catalog` run in every order that there
//! is; with `--cfg amberlog_shuttle` the whole engine runs in very many (`tests/interleavings.rs`). What
//! threads share and wait for comes from here. `Arc` stays the standard one: it never waits.

mod bell;

pub(crate) use bell::Bell;
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

/// Threads that help for a while, and how they hand over what they found: the standard library's. A model checker gets
/// none of them ([`hands`]).
pub(crate) use std::sync::mpsc;
pub(crate) use std::thread::{Scope, scope};

use crate::sabotage::{Sabotage, broken};

/// Starts a thread of the log's own.
pub(crate) fn spawn(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    if broken(Sabotage::NoThread) || broken(Sabotage::ForgetWhoAsked) {
        return Err(std::io::ErrorKind::WouldBlock.into());
    }
    thread::Builder::new().name(name.into()).spawn(work)
}

/// Starts a thread that ends with the scope.
pub(crate) fn spawn_scoped<'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() + Send + 'scope,
) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name(name.into());
    thread.spawn_scoped(scope, work).map(drop)
}

/// How many threads can work at once. One where the engine is broken on purpose, which it is on one thread only, and
/// for a model checker.
pub(crate) fn hands() -> usize {
    static HANDS: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    if cfg!(any(amberlog_sabotage, amberlog_loom, amberlog_shuttle)) {
        return 1;
    }
    *HANDS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Whether time passes. To a model checker a thread that waits a moment is one that runs later, which it
/// tries anyway.
pub(crate) const HAS_TIME: bool = !cfg!(any(amberlog_loom, amberlog_shuttle));

/// Lets others go first for so long. (A model checker has no time, only turns.)
pub(crate) fn rest(time: std::time::Duration) {
    #[cfg(not(amberlog_loom))]
    thread::sleep(time);
    #[cfg(amberlog_loom)]
    {
        let _ = time;
        thread::yield_now();
    }
}

/// Runs a scenario in every order that its threads can take; with a bound, in every order with at most so
/// many preemptions. With a sabotage, it is to be noticed.
#[cfg(all(test, amberlog_loom))]
pub(crate) fn model(
    sabotage: Option<Sabotage>,
    preemptions_max: Option<usize>,
    scenario: impl Fn() + Send + Sync + 'static,
) {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    let _broken = sabotage.map(crate::sabotage::sabotage);
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
