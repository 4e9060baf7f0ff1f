//! Work counter: counts steps over indexes, so that tests can judge how a walk scales by counted
//! work, never by a clock. Without feature `sim` it compiles to nothing.

#[cfg(feature = "sim")]
thread_local! {
    static STEPS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Counts one look at an entry of an index, an arena or a list.
#[inline(always)]
pub(crate) fn step() {
    steps(1);
}

/// Counts this number of looks.
#[inline(always)]
pub(crate) fn steps(looks: usize) {
    #[cfg(feature = "sim")]
    STEPS.set(STEPS.get() + looks as u64);
    let _ = looks;
}

/// Returns the number of entries of indexes, arenas and lists that this thread has looked at, for
/// tests that compare the work of two sizes. Only differences are meaningful.
#[cfg(feature = "sim")]
#[must_use]
pub fn steps_here() -> u64 {
    STEPS.get()
}
