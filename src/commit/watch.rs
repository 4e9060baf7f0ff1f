//! Watch for kept tickets: starts commits that no thread leads.
//!
//! The waiting thread leads a commit whose ticket it waits for. The commit thread leads one whose
//! ticket was awaited or dropped, at once. A ticket that is merely kept tells no thread, so the
//! commit thread looks at the queue every [`LOOK_EVERY`] and leads a commit that it finds twice.
//! Commits submitted one after the other still share a group. The thread sleeps once it has found
//! an empty queue several times, until the next commit.

use std::time::Duration;

/// Time between two looks.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Number of looks at nothing after which the thread sleeps until a commit is submitted.
const IDLE_LOOKS_MAX: u32 = 4;

/// Memory of the commit thread between two looks.
#[derive(Debug, Default)]
pub(super) struct Watch {
    is_awake: bool,
    /// Number of the first commit that was queued at the last look.
    seen: Option<u64>,
    idle_looks: u32,
}

impl Watch {
    /// Begins to look. Returns true if the thread sleeps and must be woken.
    pub(super) fn wake(&mut self) -> bool {
        self.idle_looks = 0;
        !std::mem::replace(&mut self.is_awake, true)
    }

    /// Sleeps until [`Watch::wake`].
    pub(super) fn sleep(&mut self) {
        *self = Self::default();
    }

    pub(super) fn is_awake(&self) -> bool {
        self.is_awake
    }

    /// Looks at the queue, whose first commit has the number `first`. Returns true if that commit
    /// was there at the last look, too: then it must be led.
    pub(super) fn look(&mut self, first: Option<u64>) -> bool {
        let is_kept = first.is_some() && self.seen == first;
        self.seen = first;
        if first.is_none() {
            self.idle_looks += 1;
            if self.idle_looks > IDLE_LOOKS_MAX {
                self.sleep();
            }
        }
        is_kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_that_is_seen_twice_is_kept() {
        let mut watch = Watch::default();
        assert!(watch.wake());
        assert!(!watch.look(Some(7)), "its thread may be about to wait");
        assert!(!watch.look(Some(8)), "another took the first");
        assert!(watch.look(Some(8)));
        assert!(!watch.look(None));
        assert!(!watch.look(Some(9)));
        assert!(!watch.wake(), "it looks already");
    }

    #[test]
    fn a_log_without_kept_commits_is_left_alone() {
        let mut watch = Watch::default();
        assert!(watch.wake());
        for _ in 0..IDLE_LOOKS_MAX {
            assert!(!watch.look(None));
            assert!(watch.is_awake());
        }
        assert!(!watch.look(None));
        assert!(!watch.is_awake());
        assert!(watch.wake(), "the next commit has to wake it");
    }
}
