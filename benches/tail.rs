//! Measures the effect of a segment roll on the latency of commits.
//!
//! Commits under a steady load over at least fifty rolls, in slices that alternate with the same
//! load on a floor. The first commit of each segment is found in the log afterwards, so only the
//! commits are measured. Three histograms: commits that rolled, commits right after them, while the
//! rotation worker seals the old segment and creates the next one, and all others.
//!
//! `TAIL_SCALE` multiplies the rolls (default 1). `TAIL_SVG` names a directory for a picture of
//! each load.

#[path = "common/mod.rs"]
mod common;
#[path = "peers/src/report/svg.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "made for more kinds of pictures, and with tests of its own"
)]
mod svg;

use std::fs;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use amberlog::Log;
use amberlog::verify::{RecordBody, RecordDump};
use hdrhistogram::Histogram;

use self::svg::{Anchor, Colour, Drawing, Scale};

/// Number of groups after a roll that count as right after it.
const GROUPS_AFTER_ROLL: u64 = 16;
/// Quantiles in the picture.
const QUANTILES: [f64; 10] = [0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999, 0.999_99];

/// Load on a log.
struct Load {
    name: &'static str,
    what: &'static str,
    threads: usize,
    payload_bytes: usize,
    /// Segment sizes double from the first to the last.
    first_bytes: u64,
    last_bytes: u64,
    /// Number of new logs, and of rolls in each.
    logs: u64,
    rolls: u64,
}

const LOADS: [Load; 3] = [
    Load {
        name: "tail-one",
        what: "one writer, 8 KiB a commit, segments of 8 MiB",
        threads: 1,
        payload_bytes: 8 << 10,
        first_bytes: 8 << 20,
        last_bytes: 8 << 20,
        logs: 1,
        rolls: 60,
    },
    Load {
        name: "tail-group",
        what: "64 threads, 256 B a commit, segments of 8 MiB",
        threads: 64,
        payload_bytes: 256,
        first_bytes: 8 << 20,
        last_bytes: 8 << 20,
        logs: 1,
        rolls: 60,
    },
    Load {
        name: "tail-young",
        what: "256 threads, 256 B a commit, young logs: segments double from 256 KiB",
        threads: 256,
        payload_bytes: 256,
        first_bytes: 256 << 10,
        last_bytes: 64 << 20,
        logs: 9,
        rolls: 6,
    },
];

/// Positions of commits, and their times in nanoseconds.
type Samples = Vec<(u64, u64)>;

fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are in range")
}

/// Measurements of one load.
struct Tail {
    rolled: Histogram<u64>,
    after_roll: Histogram<u64>,
    others: Histogram<u64>,
    floor: Histogram<u64>,
    rolls: usize,
}

impl Tail {
    fn rows(&self) -> [(&'static str, &Histogram<u64>); 4] {
        [
            ("rolled", &self.rolled),
            ("right after", &self.after_roll),
            ("others", &self.others),
            ("floor", &self.floor),
        ]
    }

    fn print(&self, load: &Load) {
        println!("{}: {}; {} rolls", load.name, load.what, self.rolls);
        println!(
            "  {:14}{:>9}{:>11}{:>11}{:>11}{:>11} µs",
            "", "commits", "p50", "p99", "p99.9", "max"
        );
        for (name, times) in self.rows() {
            let micros = |q: f64| times.value_at_quantile(q) as f64 / 1e3;
            println!(
                "  {name:14}{:>9}{:>11.1}{:>11.1}{:>11.1}{:>11.1}",
                times.len(),
                micros(0.5),
                micros(0.99),
                micros(0.999),
                times.max() as f64 / 1e3
            );
        }
    }

    /// Draws latency against rank. A visible roll would set the amber lines apart from the dashed.
    fn draw(&self, load: &Load) -> String {
        let (left, right, top, bottom) = (70.0, 600.0, 50.0, 330.0);
        let mut drawing = Drawing::new(760.0, 380.0, load.what);
        let enough = |times: &Histogram<u64>, q: f64| times.len() as f64 * (1.0 - q) >= 1.0;
        let micros = |times: &Histogram<u64>, q: f64| times.value_at_quantile(q) as f64 / 1e3;
        let values: Vec<f64> = self
            .rows()
            .iter()
            .flat_map(|(_, times)| {
                QUANTILES.iter().filter(|q| enough(times, **q)).map(|q| micros(times, *q))
            })
            .collect();
        let heights = Scale::log(&values, bottom, top);
        for tick in heights.ticks() {
            drawing.grid((left, heights.at(tick)), (right, heights.at(tick)));
            drawing.text(
                left - 8.0,
                heights.at(tick) + 4.0,
                Anchor::End,
                "label",
                &format!("{tick}"),
            );
        }
        let at = |index: usize| left + (right - left) * index as f64 / (QUANTILES.len() - 1) as f64;
        for (index, q) in QUANTILES.iter().enumerate() {
            let text = format!("{:.3}", q * 100.0);
            let text = text.trim_end_matches('0').trim_end_matches('.');
            drawing.text(at(index), bottom + 20.0, Anchor::Middle, "label", text);
        }
        drawing.text(
            f64::midpoint(left, right),
            bottom + 40.0,
            Anchor::Middle,
            "label",
            "percentile",
        );
        drawing.text_upwards(18.0, f64::midpoint(top, bottom), "latency of a commit, µs");
        let colours = [Colour::Ours, Colour::Peer(0), Colour::OursToo, Colour::Floor(0)];
        for ((name, times), colour) in self.rows().into_iter().zip(colours) {
            let points: Vec<(f64, f64)> = (QUANTILES.iter().enumerate())
                .filter(|(_, q)| enough(times, **q))
                .map(|(index, q)| (at(index), heights.at(micros(times, *q))))
                .collect();
            drawing.line(&points, colour);
            if let Some((x, y)) = points.last() {
                drawing.text(x + 10.0, y + 4.0, Anchor::Start, "strong", name);
            }
        }
        drawing.finish()
    }
}

/// Runs `commits` commits on `threads` threads. `make` creates the function that a thread calls for
/// each commit, which returns its position.
fn slice<F: FnMut() -> u64>(threads: usize, commits: u64, make: impl Fn() -> F + Sync) -> Samples {
    let each = commits.div_ceil(threads as u64);
    let ready = Barrier::new(threads);
    std::thread::scope(|scope| {
        let work = || {
            let mut commit = make();
            ready.wait();
            let timed = |_| {
                let started = Instant::now();
                let position = commit();
                (position, u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX))
            };
            (0..each).map(timed).collect::<Samples>()
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a writer")).collect()
    })
}

/// Returns the position of the first commit in each segment except the first.
fn rolled_at(log: &Path) -> Vec<u64> {
    let (mut firsts, mut fresh) = (Vec::new(), false);
    for record in RecordDump::open(log).expect("a log") {
        match record.expect("readable").body {
            RecordBody::Segment { .. } => fresh = true,
            RecordBody::Commit { position, .. } if fresh => {
                firsts.push(position.get());
                fresh = false;
            }
            _ => {}
        }
    }
    firsts.split_off(1)
}

fn measure(load: &Load, rolls: u64, logs: u64) -> Tail {
    let mut tail = Tail {
        rolled: histogram(),
        after_roll: histogram(),
        others: histogram(),
        floor: histogram(),
        rolls: 0,
    };
    let event = common::payload(load.payload_bytes);
    let same = common::payload(common::commit_bytes(1, load.payload_bytes));
    let bytes: u64 = (0..rolls).map(|n| (load.first_bytes << n.min(32)).min(load.last_bytes)).sum();
    let commits = bytes / same.len() as u64 + 1;
    let dir = common::dir();
    let floor = common::BareGroup::new(common::Overwrite::new(dir.path(), 64 << 20));
    for number in 0..logs {
        let path = dir.path().join(format!("log-{number}"));
        let options =
            Log::options().segment_bytes_first(load.first_bytes).segment_bytes_max(load.last_bytes);
        let log = options.open(&path).expect("opens");
        // Creates the log's directories and its first segment, which is not a roll.
        let mut first = log.create_stream().expect("open");
        first.append(b"first").expect("room");
        first.commit().wait().expect("committed");
        let mut samples = Samples::new();
        let slices = if logs > 1 { 4 } else { 2 * rolls };
        for _ in 0..slices {
            let each = commits.div_ceil(slices);
            samples.extend(slice(load.threads, each, || {
                let mut stream = log.create_stream().expect("open");
                let event = &event;
                move || {
                    stream.append(event).expect("room");
                    stream.commit().wait().expect("committed").position.get()
                }
            }));
            let commit = || || (floor.commit(&same), 0).1;
            for (_, nanos) in slice(load.threads, each, commit) {
                tail.floor.record(nanos).expect("the histogram grows");
            }
        }
        log.close().expect("closes");
        sort_out(&mut tail, load.threads as u64, samples, &rolled_at(&path));
        fs::remove_dir_all(&path).expect("removed");
    }
    tail
}

/// Adds the samples to their histograms. A group holds at most one commit of each thread.
fn sort_out(tail: &mut Tail, threads: u64, samples: Samples, rolled: &[u64]) {
    tail.rolls += rolled.len();
    for (position, nanos) in samples {
        let first = rolled.iter().rev().find(|first| **first <= position);
        let times = match first.map(|first| (position - first) / threads) {
            Some(0) => &mut tail.rolled,
            Some(1..=GROUPS_AFTER_ROLL) => &mut tail.after_roll,
            _ => &mut tail.others,
        };
        times.record(nanos).expect("the histogram grows");
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_test = arguments.iter().any(|word| word == "--test");
    let chosen = |load: &&Load| {
        let mut names = arguments.iter().filter(|word| !word.starts_with("--")).peekable();
        names.peek().is_none() || names.any(|name| load.name.contains(name.as_str()))
    };
    let scale = std::env::var("TAIL_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    common::load_average();
    for load in LOADS.iter().filter(chosen) {
        let (rolls, logs) = match (is_test, load.logs) {
            (true, _) => (2, 1),
            (false, 1) => (load.rolls * scale, 1),
            (false, logs) => (load.rolls, logs * scale),
        };
        let tail = measure(load, rolls, logs);
        tail.print(load);
        if let Ok(dir) = std::env::var("TAIL_SVG") {
            let path = Path::new(&dir).join(format!("{}.svg", load.name));
            fs::write(path, tail.draw(load)).expect("writable");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    common::load_average();
}
