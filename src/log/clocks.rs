//! Retention under clocks that jump: does it keep young events, and does it resume once the clock
//! is right?
//!
//! F43. The simulated machine has a true time, which only the test knows, and a clock that is wrong
//! by minutes, days or decades, for one commit, for a session, or across openings. Background
//! retention may drop nothing younger than its bound; once the clock is right it drops everything
//! older.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Log;
use crate::disk::SimDisk;
use crate::error::ErrorKind;
use crate::maintenance::{Bound, RetainOptions, RetainReport};
use crate::options::{Options, Retention};
use crate::stream::Stream;
use crate::types::{Seq, StreamId, StreamState, Timestamp};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;
/// 2026-01-01.
const START: i64 = 1_767_225_600;
const AGE: i64 = 10 * HOUR;
const IDLE: i64 = 20 * HOUR;
const JUMP_MAX: i64 = 3 * HOUR;
/// Largest clock error in these tests that goes unnoticed.
const UNNOTICED: i64 = 10 * MINUTE;

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(seconds.max(0) as u64)
}

/// Machine whose clock is wrong by this many seconds.
struct Machine {
    disk: SimDisk,
    truth: i64,
    off: i64,
}

impl Machine {
    fn new(seed: u64) -> Self {
        let machine = Self { disk: SimDisk::new(seed), truth: START, off: 0 };
        machine.set(0)
    }

    /// Sets the clock to this distance from the true time.
    fn set(mut self, off: i64) -> Self {
        self.step(off);
        self
    }

    fn step(&mut self, off: i64) {
        self.off = off;
        let wall = (self.truth + off).max(0) as u64;
        self.disk.set_clock(Timestamp::from_micros(wall * 1_000_000));
    }

    fn pass(&mut self, time: i64) {
        self.truth += time;
        self.disk.pass_time(seconds(time));
        self.step(self.off);
    }

    fn open(&self) -> Log {
        options().open_on(&self.disk).expect("opens")
    }
}

fn options() -> Options {
    let keep = Retention::new().age_max(seconds(AGE));
    Log::options()
        .segment_bytes_first(16 << 10)
        .segment_bytes_max(16 << 10)
        .clock_jump_max(seconds(JUMP_MAX))
        .retain_label("kind", "aged", keep)
        .retain_label("kind", "idle", Retention::new().idle_max(seconds(IDLE)))
}

fn background(log: &Log) -> RetainReport {
    log.0.retain(RetainOptions::new().in_background()).expect("open")
}

fn is_clock_jump(report: &RetainReport) -> bool {
    report.refused.iter().any(|error| matches!(error.kind(), ErrorKind::ClockJumped { .. }))
}

fn stream(log: &Log, kind: &str) -> Stream {
    let mut stream = log.create_stream().expect("a stream");
    stream.set_label("kind", kind).expect("fine");
    stream
}

fn commit(stream: &mut Stream) {
    stream.append([1; 300]).expect("room");
    stream.commit().wait().expect("committed");
}

/// True commit times of events, and true last use of streams that are deleted when idle.
#[derive(Default)]
struct Truth {
    events: BTreeMap<StreamId, Vec<i64>>,
    last: BTreeMap<StreamId, i64>,
}

impl Truth {
    fn commit(&mut self, stream: &mut Stream, at: i64, is_aged: bool) {
        commit(stream);
        if is_aged {
            self.events.entry(stream.id()).or_default().push(at);
        }
        self.last.insert(stream.id(), at);
    }

    /// Checks that nothing younger than its bound went.
    fn check(&self, report: &RetainReport, now: i64, context: &str) {
        for stream in &report.trimmed {
            match stream.over {
                Bound::Age => {
                    let seqs = stream.seqs.start.get() as usize..stream.seqs.end.get() as usize;
                    let newest = self.events[&stream.stream][seqs].iter().max().expect("some");
                    let age = now - newest;
                    assert!(age > AGE - UNNOTICED, "{context}: {age} s old, and forgotten");
                }
                Bound::Idle => {
                    let idle = now - self.last[&stream.stream];
                    assert!(idle > IDLE - UNNOTICED, "{context}: idle for {idle} s, and deleted");
                }
                other => panic!("{context}: over {other}"),
            }
        }
    }
}

/// Xorshift generator: a seed is a script.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Clock errors: small ones that go unnoticed, and large ones that must be noticed.
const WRONG: [i64; 14] = [
    0,
    0,
    0,
    MINUTE,
    -MINUTE,
    UNNOTICED,
    -UNNOTICED,
    DAY,
    -DAY,
    40 * DAY,
    -40 * DAY,
    30 * YEAR,
    73 * YEAR,
    -START,
];

fn nothing_young_goes_and_everything_old(seed: u64) -> u64 {
    let mut chance = Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut machine = Machine::new(seed);
    let (mut truth, mut forgotten) = (Truth::default(), 0);
    let mut log = machine.open();
    let mut streams: Vec<(Stream, bool)> = Vec::new();
    for turn in 0..150 {
        let context = format!("seed {seed}, turn {turn}, clock off by {} s", machine.off);
        match chance.below(12) {
            0 => {
                let is_aged = chance.below(2) == 0;
                streams.push((stream(&log, if is_aged { "aged" } else { "idle" }), is_aged));
            }
            1 => machine.step(WRONG[chance.below(WRONG.len() as u64) as usize]),
            // For one commit only.
            2 if !streams.is_empty() => {
                let before = machine.off;
                machine.step(WRONG[chance.below(WRONG.len() as u64) as usize]);
                let at = chance.below(streams.len() as u64) as usize;
                let (stream, is_aged) = &mut streams[at];
                if stream.info().state == StreamState::Active {
                    truth.commit(stream, machine.truth, *is_aged);
                }
                machine.step(before);
            }
            3 => {
                let ids: Vec<_> =
                    streams.iter().map(|(stream, is_aged)| (stream.id(), *is_aged)).collect();
                streams.clear();
                match chance.below(2) {
                    0 => log.close().expect("closes"),
                    _ => {
                        machine.disk = machine.disk.after_kill();
                        drop(log);
                    }
                }
                machine.pass(chance.below(2) as i64 * HOUR);
                if chance.below(2) == 0 {
                    machine.step(WRONG[chance.below(WRONG.len() as u64) as usize]);
                }
                log = machine.open();
                let opened = ids
                    .into_iter()
                    .filter_map(|(id, is_aged)| Some((log.open_stream(id).ok()?, is_aged)));
                streams.extend(opened);
            }
            4..6 => machine.pass(chance.below(4) as i64 * HOUR),
            6..8 => {
                let report = background(&log);
                truth.check(&report, machine.truth, &context);
                forgotten += report.events_dropped();
            }
            _ if !streams.is_empty() => {
                machine.pass(chance.below(20) as i64 * MINUTE);
                let at = chance.below(streams.len() as u64) as usize;
                let (stream, is_aged) = &mut streams[at];
                if stream.info().state == StreamState::Active {
                    truth.commit(stream, machine.truth, *is_aged);
                }
            }
            _ => {}
        }
    }
    drop(streams);
    log.close().expect("closes");
    everything_old_goes(machine, &truth, seed);
    forgotten
}

/// Checks, with the clock right again, that everything old goes, whatever the clock said at its
/// commit.
fn everything_old_goes(mut machine: Machine, truth: &Truth, seed: u64) {
    machine.step(0);
    let log = machine.open();
    // The host declares the clock right.
    log.retain(RetainOptions::new().trust_clock()).expect("open");
    let mut other = log.create_stream().expect("a stream");
    for _ in 0..120 {
        machine.pass(MINUTE);
        commit(&mut other);
    }
    machine.pass(IDLE + HOUR);
    let report = background(&log);
    assert!(!is_clock_jump(&report), "seed {seed}: {:?}", report.refused);
    let view = log.read_view();
    for id in truth.last.keys() {
        let info = view.info(*id).expect("known");
        let is_gone = info.state == StreamState::Deleted || info.start == info.head;
        assert!(is_gone, "seed {seed}: {info:?} is old, and there");
    }
}

#[test]
fn f43_nothing_young_is_forgotten_whatever_the_clock_says_and_everything_old_is() {
    let forgotten: u64 = (1..120).map(nothing_young_goes_and_everything_old).sum();
    assert!(forgotten > 600, "only {forgotten} events were forgotten on the way");
}

/// Negative control: retention that believes the clock is noticed.
#[cfg(amberlog_sabotage)]
#[test]
fn control_retention_that_believes_the_clock_is_noticed() {
    let _broken = crate::sabotage::sabotage(crate::sabotage::Sabotage::BelieveClock);
    std::panic::catch_unwind(|| (1..60).map(nothing_young_goes_and_everything_old).sum::<u64>())
        .expect_err("young events were forgotten, unnoticed");
}

/// Opens the log with a clock that is off by `off` after `closed` seconds. Returns whether
/// background retention drops old events, and whether the log reports an unknown time.
fn opened(closed: i64, off: i64) -> (bool, bool) {
    let mut machine = Machine::new(7);
    let log = machine.open();
    let mut old = stream(&log, "aged");
    (0..4).for_each(|_| commit(&mut old));
    let id = old.id();
    drop(old);
    log.close().expect("closes");
    machine.pass(closed);
    machine.step(off);
    let log = machine.open();
    let report = background(&log);
    let is_told = is_clock_jump(&report);
    assert_eq!(report.now.is_none(), is_told && off >= 0, "{closed} {off}: {report:?}");
    machine.pass(AGE + JUMP_MAX + MINUTE);
    let forgets = background(&log).streams_trimmed() == 1;
    assert_eq!(log.read_view().info(id).expect("known").start, Seq(4 * u64::from(forgets)));
    // An explicit call believes the clock.
    let asked = log.retain(RetainOptions::new()).expect("open");
    assert!(forgets || asked.streams_trimmed() == 1, "{closed} {off}: {asked:?}");
    assert!(off < 0 || !is_clock_jump(&background(&log)), "{closed} {off}: it was asked");
    (forgets, is_told)
}

#[test]
fn f43_a_clock_that_is_too_far_ahead_at_opening_stops_retention_until_it_is_asked_for() {
    // Within the tolerance, in both directions.
    for (closed, off) in [(0, 0), (HOUR, 0), (2 * HOUR, HOUR), (0, JUMP_MAX), (HOUR, -2 * HOUR)] {
        assert_eq!(opened(closed, off), (true, false), "closed for {closed} s, off by {off} s");
    }
    // Ahead; a log that was closed for long looks the same.
    for (closed, off) in [(0, JUMP_MAX + MINUTE), (HOUR, DAY), (0, 73 * YEAR), (DAY, 0)] {
        assert_eq!(opened(closed, off), (false, true), "closed for {closed} s, off by {off} s");
    }
    // The clock is behind: the log reports that, and continues from its last known time.
    for off in [-4 * HOUR, -40 * DAY, -START] {
        assert_eq!(opened(0, off), (true, true), "off by {off} s");
    }
}

#[test]
fn f43_the_clock_that_was_believed_once_is_believed_at_the_next_opening() {
    let mut machine = Machine::new(3);
    let log = machine.open();
    let mut kept = stream(&log, "kept");
    commit(&mut kept);
    let id = kept.id();
    drop(kept);
    log.close().expect("closes");
    machine.pass(400 * DAY);
    for round in 0..3 {
        let log = machine.open();
        assert!(
            is_clock_jump(&background(&log)),
            "round {round}: nobody has said that it is right"
        );
        // Commits made meanwhile prove nothing about the clock.
        commit(&mut log.open_stream(id).expect("known"));
        assert!(is_clock_jump(&background(&log)), "round {round}");
        log.close().expect("closes");
        machine.pass(HOUR);
    }
    let log = machine.open();
    log.retain(RetainOptions::new()).expect("open");
    commit(&mut log.open_stream(id).expect("known"));
    log.close().expect("closes");
    machine.pass(HOUR);
    for closes in [true, false, true] {
        let log = machine.open();
        assert!(!is_clock_jump(&background(&log)), "it was right");
        machine.pass(10 * JUMP_MAX);
        commit(&mut log.open_stream(id).expect("known"));
        machine.pass(10 * JUMP_MAX);
        assert!(!is_clock_jump(&background(&log)), "time has passed, and nothing else");
        if closes {
            log.close().expect("closes");
        } else {
            // The tail record of a group says less than that of a clean close: only the time of the
            // last commit.
            commit(&mut log.open_stream(id).expect("known"));
            machine.disk = machine.disk.after_kill();
        }
        machine.pass(JUMP_MAX);
    }
}

/// Passing time counts while a log is open, whatever happens to the clock; and the clock may come
/// back.
#[test]
fn f43_while_a_log_is_open_its_present_goes_on_whatever_the_clock_does() {
    for off in [HOUR, -HOUR, DAY, -DAY, 40 * YEAR, -START] {
        let mut machine = Machine::new(5);
        let log = machine.open();
        let mut aged = stream(&log, "aged");
        commit(&mut aged);
        machine.step(off);
        commit(&mut aged);
        assert_eq!(background(&log).streams_trimmed(), 0, "off by {off} s: both are young");
        machine.pass(AGE + MINUTE);
        background(&log);
        // The time of the second one is unknown if the clock was behind, or too far ahead.
        let start = log.read_view().info(aged.id()).expect("known").start.get();
        assert!(start >= 1, "off by {off} s: the first one is old");
        machine.step(0);
        let mut other = log.create_stream().expect("a stream");
        (0..120).for_each(|_| commit(&mut other));
        machine.pass(AGE + MINUTE);
        background(&log);
        let info = log.read_view().info(aged.id()).expect("known");
        assert_eq!(info.start, info.head, "off by {off} s: now both are");
    }
}
