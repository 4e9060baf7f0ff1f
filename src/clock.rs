//! Log clock: the log's own estimate of the present, so that a wrong wall clock cannot make it lose
//! events.
//!
//! A wall clock may be decades off, in both directions, and may be corrected at any moment. Its
//! time is stored with every commit and orders nothing (P11, F43). But trimming by age needs the
//! present. So the log reads the wall clock once when it is opened, and trusts it if it is within
//! [`Options::clock_jump_max`](crate::Options::clock_jump_max) of the last time that it vouched
//! for. From there on the present advances with the machine's uptime. A commit whose time does not
//! fit is marked as not vouched for.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::disk::Disk;
use crate::error::{Error, ErrorKind};
use crate::format::CommitDate;
use crate::sync::{Mutex, MutexGuard};
use crate::types::Timestamp;

/// Present of one open log.
pub(crate) struct LogClock {
    disk: Arc<dyn Disk>,
    jump_max: u64,
    state: Mutex<State>,
}

/// Times in microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
struct State {
    /// Present at `since`.
    present: u64,
    /// Uptime of the machine.
    since: Duration,
    /// Latest time that the log vouches for.
    vouched: u64,
    /// Set while the wall clock is too far ahead, since the log was opened.
    is_ahead: bool,
}

impl LogClock {
    /// Returns the clock of a log that vouches for times up to `vouched`, if any.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        vouched: Option<Timestamp>,
        clock_jump_max: Duration,
    ) -> Self {
        let jump_max = micros(clock_jump_max);
        let wall = disk.now().as_micros();
        let since = disk.uptime();
        let known = vouched.map_or(wall, Timestamp::as_micros);
        let is_plausible = wall.abs_diff(known) <= jump_max;
        let present = if is_plausible { wall } else { known };
        let vouched = vouched.map_or(0, Timestamp::as_micros);
        let is_ahead = !is_plausible && wall > known;
        Self { disk, jump_max, state: Mutex::new(State { present, since, vouched, is_ahead }) }
    }

    /// Returns the present as the log knows it: while it is open, it advances with the machine's
    /// uptime.
    pub(crate) fn present(&self) -> Timestamp {
        Timestamp::from_micros(self.lock().present_at(self.disk.uptime()))
    }

    /// Returns the date of a commit that is about to be written. Called by the leader only.
    pub(crate) fn date(&self) -> CommitDate {
        let wall = self.disk.now().as_micros();
        let uptime = self.disk.uptime();
        let mut state = self.lock();
        let present = state.present_at(uptime);
        state.is_ahead &= wall > present.saturating_add(self.jump_max);
        let is_vouched =
            !state.is_ahead && wall >= state.vouched && wall.abs_diff(present) <= self.jump_max;
        if is_vouched {
            state.vouched = wall;
        }
        CommitDate { time: Timestamp::from_micros(wall), is_vouched }
    }

    /// Returns the latest time that the log vouches for, from which the next opening continues.
    pub(crate) fn vouched(&self) -> Timestamp {
        let uptime = self.disk.uptime();
        let state = self.lock();
        let present = if state.is_ahead { 0 } else { state.present_at(uptime) };
        Timestamp::from_micros(state.vouched.max(present))
    }

    /// Returns the distance of the wall clock from the present, if it exceeds the configured limit.
    pub(crate) fn jump(&self) -> Option<ClockJump> {
        let wall = self.disk.now().as_micros();
        let uptime = self.disk.uptime();
        let mut state = self.lock();
        let present = state.present_at(uptime);
        state.is_ahead &= wall > present.saturating_add(self.jump_max);
        (wall.abs_diff(present) > self.jump_max).then(|| ClockJump {
            clock: Timestamp::from_micros(wall),
            known: Timestamp::from_micros(present),
            stops_retention: state.is_ahead,
        })
    }

    /// Takes the wall clock as the present, regardless of the log's own estimate.
    pub(crate) fn trust_wall(&self) {
        let wall = self.disk.now().as_micros();
        let since = self.disk.uptime();
        *self.lock() = State { present: wall, since, vouched: wall, is_ahead: false };
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    fn present_at(&self, uptime: Duration) -> u64 {
        self.present.saturating_add(micros(uptime.saturating_sub(self.since)))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl fmt::Debug for LogClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogClock").field("state", &*self.lock()).finish_non_exhaustive()
    }
}

/// Distance of the wall clock from the log's present that exceeds the configured limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ClockJump {
    clock: Timestamp,
    known: Timestamp,
    /// True if the time since the last write to the log is unknown, so that the age of events is
    /// unknown too.
    pub(crate) stops_retention: bool,
}

impl ClockJump {
    pub(crate) fn error(self, operation: &'static str) -> Error {
        let Self { clock, known, .. } = self;
        Error::new(ErrorKind::ClockJumped { clock, known }, operation)
    }
}
