//! Measures the cost of a compaction, and its effect on commits.
//!
//! The log holds 256 MiB of payload (or `AMBERLOG_BENCH_MIB`) in events of 256 B and commits of 32.
//! Every second commit belongs to a deleted stream. `copy`, the floor, reads copies of the
//! segments, writes and syncs half of the bytes without looking at them, and removes the copies.
//! `compact` reads, verifies, selects, writes, syncs and removes: once without other commits, and
//! once while a writer commits single events of 256 B. The same commits are measured alone first.

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use amberlog::maintenance::CompactOptions;
use amberlog::{CommitOptions, Durability, Log, Stream};
use common::turns::is_trial;

const ROUNDS: usize = 5;
/// Number of bytes between two syncs, as in a compaction without other commits.
const SYNC_BYTES: usize = 1 << 20;

fn main() {
    let asked = std::env::var("AMBERLOG_BENCH_MIB").ok().and_then(|text| text.parse().ok());
    let mib: usize = asked.unwrap_or(if is_trial() { 2 } else { 256 });
    println!("load average: {}", common::load());
    let (mut copies, mut compaction, mut shared) = (Vec::new(), Vec::new(), Vec::new());
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..if is_trial() { 1 } else { ROUNDS } {
        let dir = common::dir();
        let log = half_dead(&dir.path().join("log"), mib);
        copies.push(replace_by_half(&dir.path().join("log/segments"), dir.path()));
        compaction.push(compact(&log));
        let other = half_dead(&dir.path().join("other"), mib);
        let mut stream = other.create_stream().expect("open");
        let done = AtomicBool::new(false);
        let count = if is_trial() { 20 } else { 2_000 };
        alone.extend(commits(&mut stream, |n| n < count));
        beside.extend(std::thread::scope(|scope| {
            let writer = scope.spawn(|| commits(&mut stream, |_| !done.load(Ordering::Relaxed)));
            shared.push(compact(&other));
            done.store(true, Ordering::Relaxed);
            writer.join().expect("no panic")
        }));
    }
    println!("load average: {}", common::load());
    rate("copy", copies);
    rate("compact", compaction);
    rate("compact beside commits", shared);
    latency("commits alone", alone);
    latency("commits beside a compaction", beside);
}

fn compact(log: &Log) -> (u64, Duration) {
    let started = Instant::now();
    let report = log.compact(CompactOptions::new()).expect("compacted");
    let took = started.elapsed();
    let segments = report.runs.iter().map(|run| run.segments.len()).sum::<usize>();
    let (freed, written) = (report.freed_bytes() >> 20, report.written_bytes() >> 20);
    println!("{segments} segments, {freed} MiB freed, {written} MiB written, {took:.2?}");
    (report.written_bytes(), took)
}

fn half_dead(dir: &Path, mib: usize) -> Log {
    let log = Log::options().segment_bytes_first(16 << 20).open(dir).expect("opens");
    let event = common::payload(256);
    let mut streams: Vec<Stream> = (0..64).map(|_| log.create_stream().expect("open")).collect();
    let os = CommitOptions::new().durability(Durability::Os);
    for n in 0..(mib << 20) / (32 * 256) {
        let stream = &mut streams[n % 64];
        for _ in 0..32 {
            stream.append(&event[..]).map_err(|_| "room").expect("room");
        }
        stream.commit_with(os).wait().expect("committed");
    }
    for stream in streams.iter_mut().step_by(2) {
        stream.delete().wait().expect("deleted");
    }
    log
}

/// Returns the durations of commits of one event, in order.
fn commits(stream: &mut Stream, go_on: impl Fn(usize) -> bool) -> Vec<Duration> {
    let event = common::payload(256);
    let mut all = Vec::new();
    while go_on(all.len()) {
        stream.append(&event[..]).map_err(|_| "room").expect("room");
        let started = Instant::now();
        stream.commit().wait().expect("committed");
        all.push(started.elapsed());
    }
    all
}

fn replace_by_half(segments: &Path, dir: &Path) -> (u64, Duration) {
    let (old, new) = (dir.join("old"), dir.join("new"));
    fs::create_dir(&old).expect("made");
    for entry in fs::read_dir(segments).expect("a directory") {
        let entry = entry.expect("an entry");
        // A spare segment may be renamed or removed at any time.
        let copied = fs::copy(entry.path(), old.join(entry.file_name()));
        copied.and_then(|_| File::open(old.join(entry.file_name()))?.sync_all()).ok();
    }
    let started = Instant::now();
    let mut to = File::create(&new).expect("made");
    let (mut piece, mut written, mut unsynced) = (vec![0; 1 << 20], 0, 0);
    for entry in fs::read_dir(&old).expect("a directory") {
        let mut file = File::open(entry.expect("an entry").path()).expect("there");
        loop {
            let read = file.read(&mut piece).expect("readable");
            if read == 0 {
                break;
            }
            to.write_all(&piece[..read / 2]).expect("written");
            (written, unsynced) = (written + read as u64 / 2, unsynced + read / 2);
            if unsynced >= SYNC_BYTES {
                to.sync_data().expect("synced");
                unsynced = 0;
            }
        }
    }
    to.sync_data().expect("synced");
    fs::remove_dir_all(old).expect("removed");
    let took = started.elapsed();
    fs::remove_file(new).expect("removed");
    (written, took)
}

fn rate(name: &str, mut all: Vec<(u64, Duration)>) {
    let rate = |(bytes, time): &(u64, Duration)| *bytes as f64 / time.as_secs_f64() / 1e6;
    all.sort_by(|left, right| rate(left).total_cmp(&rate(right)));
    let median = rate(&all[all.len() / 2]);
    println!("{name}: {median:.0} MB written a second (median of {})", all.len());
}

fn latency(name: &str, mut all: Vec<Duration>) {
    all.sort_unstable();
    let at = |part: f64| all[((all.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    println!(
        "{name}: p50 {:.0} us, p99 {:.0} us, p99.9 {:.0} us, most {:.0} us ({} commits)",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
        all.len()
    );
}
