//! What many threads wait for together, and are woken by all at once.

#[cfg(all(target_os = "linux", not(any(amberlog_loom, amberlog_shuttle))))]
pub(crate) use linux::Bell;
#[cfg(not(all(target_os = "linux", not(any(amberlog_loom, amberlog_shuttle)))))]
pub(crate) use portable::Bell;

/// One call of the system wakes them all, and they need no lock to go on: for 256 threads half of what it takes to wake
/// each by itself.
#[cfg(all(target_os = "linux", not(any(amberlog_loom, amberlog_shuttle))))]
mod linux {
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::thread::futex::{Flags, wait, wake};

    #[derive(Debug, Default)]
    pub(crate) struct Bell(AtomicU32);

    impl Bell {
        /// How often it was rung. To be asked before looking whether there is anything to wait for.
        pub(crate) fn rings(&self) -> u32 {
            self.0.load(Ordering::Acquire)
        }

        /// Waits until it is rung once more than `heard`. May return earlier.
        pub(crate) fn wait(&self, heard: u32) {
            // Rung already, or interrupted: whoever waits looks again.
            let _ = wait(&self.0, Flags::PRIVATE, heard, None);
        }

        /// Wakes everybody who waits. What they wait for happened before.
        pub(crate) fn ring(&self) {
            self.0.fetch_add(1, Ordering::Release);
            let _ = wake(&self.0, Flags::PRIVATE, i32::MAX as u32);
        }
    }
}

/// The same with a lock, elsewhere and for model checkers.
#[cfg(not(all(target_os = "linux", not(any(amberlog_loom, amberlog_shuttle)))))]
mod portable {
    use std::sync::PoisonError;

    use crate::sync::{Condvar, Mutex, MutexGuard};

    #[derive(Debug)]
    pub(crate) struct Bell {
        rings: Mutex<u32>,
        changed: Condvar,
    }

    impl Default for Bell {
        fn default() -> Self {
            Self { rings: Mutex::new(0), changed: Condvar::new() }
        }
    }

    impl Bell {
        pub(crate) fn rings(&self) -> u32 {
            *self.lock()
        }

        pub(crate) fn wait(&self, heard: u32) {
            let mut rings = self.lock();
            while *rings == heard {
                rings = self.changed.wait(rings).unwrap_or_else(PoisonError::into_inner);
            }
        }

        pub(crate) fn ring(&self) {
            let mut rings = self.lock();
            *rings = rings.wrapping_add(1);
            drop(rings);
            self.changed.notify_all();
        }

        fn lock(&self) -> MutexGuard<'_, u32> {
            self.rings.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
