//! Group delay: lets a leader wait briefly for more commits before it closes its group.
//!
//! Threads that committed together tend to return together: when the first of them leads again, the
//! others have just been woken. Without a delay they miss its group and wait for two syncs instead
//! of one. The delay adapts: a lone writer never waits (`a_lone_writer_never_waits`), and after
//! waits that gained nothing, or a late return of the processor, leaders stop waiting for a while.
//! PostgreSQL's `commit_delay` and `commit_siblings` are the same idea; here both are measured, not
//! configured.

use std::time::{Duration, Instant};

use crate::sync::{HAS_TIME, thread};

/// Maximum delay, as a fraction of the last group's duration.
const DELAY_FRACTION: u32 = 2;
const DELAY_MAX: Duration = Duration::from_millis(1);
/// Number of fruitless waits in a row after which the pause stops doubling.
const FRUITLESS_MAX: u32 = 8;
/// Upper bound on the number of groups for which one overlong wait counts.
const SUSPENDED_MAX: u32 = 1_000;

/// Predicts the size of the next group and decides whether to wait for it.
#[derive(Debug, Default)]
pub(super) struct GroupDelay {
    /// Commits expected next: those of the last group plus those queued when it ended.
    expected: usize,
    delay: Duration,
    /// Fruitless waits in a row.
    fruitless: u32,
    /// Groups left that start without a wait.
    suspended: u32,
}

impl GroupDelay {
    /// Records a finished group: its size, the queue length at its end, and its duration.
    pub(super) fn ended(&mut self, commits: usize, queued: usize, took: Duration) {
        self.expected = commits + queued;
        self.delay = (took / DELAY_FRACTION).min(DELAY_MAX);
    }

    /// Returns the wait that a leader makes for a queue of this length, or `None` to start at once.
    pub(super) fn wait_for(&mut self, queued: usize) -> Option<Wait> {
        if queued >= self.expected || !HAS_TIME {
            return None;
        }
        if self.suspended > 0 {
            self.suspended -= 1;
            return None;
        }
        Some(Wait { from: queued, to: self.expected, delay: self.delay, began: Instant::now() })
    }

    /// Records a finished wait and adapts the delay to what it gained.
    pub(super) fn waited(&mut self, wait: &Wait, queued: usize, took: Duration) {
        if took > 2 * wait.delay {
            // The processor was busy and came back late. A wait saves at most a few times its
            // delay, so it takes this number of groups to earn the loss back.
            let lost = took.as_nanos() / wait.delay.as_nanos().max(1);
            self.suspended = u32::try_from(lost).unwrap_or(u32::MAX).clamp(1, SUSPENDED_MAX) * 4;
        } else if 2 * (queued - wait.from) >= wait.to - wait.from {
            self.fruitless = 0;
        } else {
            self.fruitless = (self.fruitless + 1).min(FRUITLESS_MAX);
            self.suspended = 1 << self.fruitless;
        }
    }
}

/// Bounded wait for a queue length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    from: usize,
    to: usize,
    delay: Duration,
    began: Instant,
}

impl Wait {
    /// Yields to other threads until enough commits are queued, and returns the time it took. It
    /// does not sleep: waking up would take about as long as the wait.
    pub(super) fn until(&self, queued: impl Fn() -> usize) -> Duration {
        loop {
            let took = self.began.elapsed();
            if queued() >= self.to || took >= self.delay {
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
    fn a_lone_writer_never_waits() {
        let mut delay = GroupDelay::default();
        for _ in 0..10 {
            assert!(delay.wait_for(1).is_none());
            delay.ended(1, 0, LONG);
        }
    }

    #[test]
    fn leaders_wait_for_commits_that_came_together() {
        let mut delay = GroupDelay::default();
        delay.ended(3, 1, LONG);
        assert!(delay.wait_for(4).is_none(), "all have come");
        for _ in 0..10 {
            let wait = delay.wait_for(1).expect("three more are expected");
            assert_eq!((wait.from, wait.to), (1, 4));
            wait.until(|| 4);
            delay.waited(&wait, 4, Duration::ZERO);
            delay.ended(4, 0, LONG);
        }
    }

    #[test]
    fn fruitless_waits_become_rare() {
        let mut delay = GroupDelay::default();
        let mut waits = Vec::new();
        for group in 0..2_000 {
            delay.ended(9, 0, Duration::from_micros(1));
            if let Some(wait) = delay.wait_for(1) {
                assert!(wait.until(|| 1) >= wait.delay, "it waited");
                delay.waited(&wait, 1, wait.delay);
                waits.push(group);
            }
        }
        let pauses: Vec<_> = waits.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(pauses[..4], [3, 5, 9, 17]);
        assert!(pauses.iter().all(|pause| *pause <= 257), "the pause is bounded: {pauses:?}");
    }

    #[test]
    fn an_overlong_wait_suspends_waits() {
        let mut delay = GroupDelay::default();
        delay.ended(4, 0, Duration::from_micros(100));
        let wait = delay.wait_for(1).expect("three more are expected");
        delay.waited(&wait, 4, Duration::from_millis(4));
        let pause = (0..10_000).take_while(|_| delay.wait_for(1).is_none()).count();
        assert_eq!(pause, 320, "4 ms are 80 waits of 50 µs");
    }
}
