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
/// A wait that went on for longer than so many times its patience counts as one of so many.
const LOST_MAX: u32 = 1_000;

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

    /// The wait is over, took so long, and so many are queued.
    pub(super) fn waited(&mut self, wait: &Wait, queued: usize, took: Duration) {
        if took > 2 * wait.patience {
            // The processor is in demand, and was not given back in time. No wait saves more than a few times
            // its patience, so it takes that many groups to earn this back.
            let lost = took.as_nanos() / wait.patience.as_nanos().max(1);
            self.pause = u32::try_from(lost).unwrap_or(u32::MAX).clamp(1, LOST_MAX) * 4;
        } else if 2 * (queued - wait.from) >= wait.to - wait.from {
            self.vain = 0;
        } else {
            self.vain = (self.vain + 1).min(VAIN_MAX);
            self.pause = 1 << self.vain;
        }
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
    /// Lets other threads run until enough commits are queued, and returns how long that took. It does not
    /// sleep: to be woken would take about as long as the wait.
    pub(super) fn until(&self, queued: impl Fn() -> usize) -> Duration {
        loop {
            let took = self.began.elapsed();
            if queued() >= self.to || took >= self.patience {
                return took;
            }
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
            gather.waited(&wait, 4, Duration::ZERO);
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
                assert!(wait.until(|| 1) >= wait.patience, "it waited");
                gather.waited(&wait, 1, wait.patience);
                waits.push(group);
            }
        }
        let pauses: Vec<_> = waits.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(pauses[..4], [3, 5, 9, 17]);
        assert!(pauses.iter().all(|pause| *pause <= 257), "but never for ever: {pauses:?}");
    }
    #[test]
    fn a_processor_that_was_not_given_back_is_not_given_away_for_a_while() {
        let mut gather = Gather::default();
        gather.ended(4, 0, Duration::from_micros(100));
        let wait = gather.wait_for(1).expect("three more are expected");
        gather.waited(&wait, 4, Duration::from_millis(4));
        let pause = (0..10_000).take_while(|_| gather.wait_for(1).is_none()).count();
        assert_eq!(pause, 320, "4 ms are 80 waits of 50 µs");
    }
}
