//! Whether a leader waits a moment for more commits before its group is closed.
//!
//! Threads that committed together come back together: by the time the first of them leads again, the others
//! have been woken and are on their way. Without a moment's patience they would form the group after, and
//! every commit would wait for two syncs. Whoever commits alone is never made to wait, and when those who were
//! expected do not come, or the processor is not given back in time, nobody is waited for for a while.
//! (PostgreSQL's `commit_delay` and `commit_siblings`, with both measured instead of configured.)

use std::time::{Duration, Instant};

use crate::sync::{HAS_TIME, thread};

/// The longest wait, as a part of the time that the last group took.
const PATIENCE_PART: u32 = 2;
const PATIENCE_MAX: Duration = Duration::from_millis(1);
/// After waiting in vain so often in a row, the pauses stop growing.
const VAIN_MAX: u32 = 8;

/// What is expected of the next group.
#[derive(Debug, Default)]
pub(super) struct Gather {
    /// Commits of the last group, and those that were queued as it ended.
    expected: usize,
    patience: Duration,
    /// How often in a row it was in vain.
    vain: u32,
    /// Groups that start at once.
    pause: u32,
}

impl Gather {
    /// A group ended that had so many commits and took so long; so many were queued by then.
    pub(super) fn ended(&mut self, commits: usize, queued: usize, took: Duration) {
        self.expected = commits + queued;
        self.patience = (took / PATIENCE_PART).min(PATIENCE_MAX);
    }

    /// What a leader waits for when so many are queued.
    pub(super) fn wait_for(&mut self, queued: usize) -> Option<Wait> {
        if queued >= self.expected || !HAS_TIME {
            return None;
        }
        if self.pause > 0 {
            self.pause -= 1;
            return None;
        }
        let Self { expected: to, patience, .. } = *self;
        Some(Wait { from: queued, to, patience, began: Instant::now() })
    }

    /// The wait is over, and so many are queued.
    pub(super) fn waited(&mut self, wait: &Wait, queued: usize) {
        let came = 2 * (queued - wait.from) >= wait.to - wait.from;
        let paid = came && wait.began.elapsed() < 2 * wait.patience;
        self.vain = if paid { 0 } else { (self.vain + 1).min(VAIN_MAX) };
        self.pause = if paid { 0 } else { 1 << self.vain };
    }
}

/// To wait for that many commits, but not for long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    from: usize,
    to: usize,
    patience: Duration,
    began: Instant,
}

impl Wait {
    /// Lets other threads run until enough commits are queued. It does not sleep: to be woken would take
    /// about as long as the wait.
    pub(super) fn until(&self, queued: impl Fn() -> usize) {
        while queued() < self.to && self.began.elapsed() < self.patience {
            thread::yield_now();
        }
    }
}

#[cfg(all(test, not(any(amberlog_loom, amberlog_shuttle))))]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn who_commits_alone_never_waits() {
        let mut gather = Gather::default();
        for _ in 0..10 {
            assert!(gather.wait_for(1).is_none());
            gather.ended(1, 0, LONG);
        }
    }

    #[test]
    fn those_who_came_together_are_waited_for() {
        let mut gather = Gather::default();
        gather.ended(3, 1, LONG);
        assert!(gather.wait_for(4).is_none(), "everybody is here");
        for _ in 0..10 {
            let wait = gather.wait_for(1).expect("three more are expected");
            assert_eq!((wait.from, wait.to), (1, 4));
            wait.until(|| 4);
            gather.waited(&wait, 4);
            gather.ended(4, 0, LONG);
        }
    }

    #[test]
    fn who_does_not_come_is_waited_for_less_and_less() {
        let mut gather = Gather::default();
        let mut waits = Vec::new();
        for group in 0..2_000 {
            gather.ended(9, 0, Duration::from_micros(1));
            if let Some(wait) = gather.wait_for(1) {
                wait.until(|| 1);
                assert!(wait.began.elapsed() >= wait.patience, "it waited");
                gather.waited(&wait, 1);
                waits.push(group);
            }
        }
        let pauses: Vec<_> = waits.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(pauses[..4], [3, 5, 9, 17]);
        assert!(pauses.iter().all(|pause| *pause <= 257), "but never for ever: {pauses:?}");
    }
}
