//! Clocks of the machine: the clock that dates events, and the monotone uptime.

use std::time::Duration;

use super::Disk;
use crate::options::Clock;
use crate::types::Timestamp;

impl Clock {
    /// Returns the present by this clock. Times before 1970 read as the epoch.
    #[inline]
    fn now(self) -> Timestamp {
        match self {
            #[cfg(target_os = "linux")]
            Self::Coarse => {
                let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
                let seconds = now.tv_sec.max(0) as u64;
                Timestamp::from_micros(seconds * 1_000_000 + now.tv_nsec as u64 / 1_000)
            }
            _ => Timestamp::now(),
        }
    }
}

/// Source of event times.
#[derive(Clone, Copy, Debug)]
pub(crate) enum EventClock {
    System(Clock),
    /// [`Disk::now`].
    Disk,
}

impl EventClock {
    pub(crate) fn new(clock: Clock, disk: &dyn Disk) -> Self {
        if disk.has_own_time() { Self::Disk } else { Self::System(clock) }
    }

    #[inline]
    pub(crate) fn now(self, disk: &dyn Disk) -> Timestamp {
        match self {
            Self::System(clock) => clock.now(),
            Self::Disk => disk.now(),
        }
    }
}

/// Time since the machine started, including the time that it slept.
#[cfg(target_os = "linux")]
pub(super) fn uptime() -> Duration {
    let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(up.tv_sec as u64, up.tv_nsec as u32)
}

/// Time since the first call.
#[cfg(not(target_os = "linux"))]
pub(super) fn uptime() -> Duration {
    static FIRST: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    FIRST.get_or_init(std::time::Instant::now).elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f43_clocks_of_the_machine_agree_and_uptime_only_grows() {
        let ten_seconds = 10_000_000;
        let up = uptime();
        for clock in [Clock::Coarse, Clock::Precise] {
            let apart = clock.now().as_micros().abs_diff(Timestamp::now().as_micros());
            assert!(apart < ten_seconds, "{clock:?} is {apart} us off");
        }
        assert!(uptime() >= up);
    }
}
