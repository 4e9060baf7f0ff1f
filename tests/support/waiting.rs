//! Waiting for a condition, and nothing else: no test judges by a clock.
//!
//! Only here may a test look at a clock or pause. A guard of minutes turns a hang into a failure; what is tested never
//! depends on how long something took.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use amberlog::{Commit, Result, Ticket, Timestamp};

/// Guard against a hang: far longer than anything takes, also where the machine does much else.
const HANG: Duration = Duration::from_secs(600);

/// Waits until `holds`.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < HANG, "{what}: waited for {HANG:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Runs `work` on another thread, and fails when it never ends.
pub(crate) fn ends<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(work()));
    match receiver.recv_timeout(HANG) {
        Ok(value) => value,
        Err(_) => panic!("{what}: hangs, or panicked"),
    }
}

/// A time after every earlier one and before every later one.
pub(crate) fn a_time_apart() -> Timestamp {
    let before = Timestamp::now();
    wait_until("a clock that goes on", || Timestamp::now() > before);
    let apart = Timestamp::now();
    wait_until("a clock that goes on", || Timestamp::now() > apart);
    apart
}

/// Lets other threads run for this time: chance decides how far they get, and nothing is judged by it.
pub(crate) fn let_chance_pass(micros: u64) {
    thread::sleep(Duration::from_micros(micros));
}

/// Waits until the thread with this id of the system's sleeps.
#[cfg(target_os = "linux")]
pub(crate) fn wait_until_asleep(thread: rustix::thread::Pid) {
    let path = format!("/proc/self/task/{}/stat", thread.as_raw_nonzero());
    wait_until("a thread that sleeps", || {
        let stat = std::fs::read_to_string(&path).expect("the thread lives");
        // The state follows the name, which stands in parentheses.
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S'))
    });
}

/// Waits for a ticket for a moment only. Where its commit cannot end, there is no outcome.
pub(crate) fn outcome_soon(ticket: &mut Ticket) -> Option<Result<Commit>> {
    ticket.wait_timeout(Duration::from_millis(1))
}

/// Waits for a ticket that has an outcome at some time.
pub(crate) fn outcome_at_last(ticket: &mut Ticket) -> Option<Result<Commit>> {
    ticket.wait_timeout(HANG)
}
