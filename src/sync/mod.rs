//! Locks, condition variables, atomics and threads: those of the standard library, or those of a
//! model checker, which controls the scheduling itself.
//!
//! With `--cfg amberlog_loom` the models in `commit`, `ring` and `catalog` run in every possible
//! order; with `--cfg amberlog_shuttle` the whole engine runs in a large random sample of orders
//! (`tests/interleavings.rs`). Everything that threads share and wait for comes from this module.
//! `Arc` stays the standard one: it never waits.

mod event_count;
mod lock;
mod own;

pub(crate) use checked::{JoinHandle, MutexGuard, RwLock, RwLockReadGuard, atomic, thread};
pub(crate) use event_count::EventCount;
pub(crate) use lock::{Condvar, Mutex};
pub(crate) use own::{Alone, OwnThread, Turn, note_fork, process, spawn};

/// Primitives that a model checker replaces.
mod checked {
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
}

/// Helper threads and their channels, always the standard library's. Under a model checker the
/// engine starts none ([`hands`]).
pub(crate) use std::sync::mpsc;
pub(crate) use std::thread::{Scope, scope};

/// Starts a thread that ends with the scope.
pub(crate) fn spawn_scoped<'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() + Send + 'scope,
) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name(name.into());
    thread.spawn_scoped(scope, work).map(drop)
}

/// Number of threads that can work in parallel. Returns 1 under a model checker, and with sabotage,
/// which affects one thread only.
pub(crate) fn hands() -> usize {
    static HANDS: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    if cfg!(any(amberlog_sabotage, amberlog_loom, amberlog_shuttle)) {
        return 1;
    }
    *HANDS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// False under a model checker, which has no time: it runs a waiting thread later, and tries that
/// order anyway.
pub(crate) const HAS_TIME: bool = !cfg!(any(amberlog_loom, amberlog_shuttle));

/// Pauses this thread for `time`. Under loom, which has no time, it only yields.
pub(crate) fn rest(time: std::time::Duration) {
    #[cfg(not(amberlog_loom))]
    thread::sleep(time);
    #[cfg(amberlog_loom)]
    {
        let _ = time;
        thread::yield_now();
    }
}

/// Runs a scenario in every order that its threads can take, or with a bound in every order with at
/// most this number of preemptions. A sabotaged run must fail.
#[cfg(all(test, amberlog_loom))]
pub(crate) fn model(
    sabotage: Option<crate::sabotage::Sabotage>,
    preemptions_max: Option<usize>,
    scenario: impl Fn() + Send + Sync + 'static,
) {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    let _broken = sabotage.map(crate::sabotage::sabotage);
    let runs = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&runs);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(preemptions_max);
    builder.max_branches = 20_000;
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        scenario();
    });
    println!("{} executions", runs.load(Ordering::Relaxed));
}
