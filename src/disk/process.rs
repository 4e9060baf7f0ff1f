//! Identity of this process, and notification of a `fork`.

use std::sync::Once;

use crate::sabotage::{Sabotage, broken};
use crate::sync::note_fork;

/// Process id, as the operating system assigns it.
pub(crate) fn process_id() -> u32 {
    if broken(Sabotage::BelieveForks) {
        return 1;
    }
    std::process::id()
}

/// Makes [`crate::sync::process`] change in every future fork of this process. The handler does not
/// run in a child created without the C library's `fork`; [`process_id`] prevents such a child from
/// writing.
pub(crate) fn watch_forks() {
    static WATCHED: Once = Once::new();
    extern "C" fn in_the_child() {
        note_fork();
    }
    WATCHED.call_once(|| {
        // SAFETY: the handler touches one atomic word, which is allowed in a child.
        #[expect(unsafe_code, reason = "the standard library has no fork handler")]
        unsafe {
            libc::pthread_atfork(None, None, Some(in_the_child));
        }
    });
}
