//! Does it stay small and quick where there is much of it?
//!
//! Requirements 16, 18, 19 and the figures of the issue about the life of streams. `AMBERLOG_EFFORT=10` runs them at
//! full size, with the bounds on time, which mean something only in a release build on a quiet machine; without it
//! they are a tenth or less of that, and only what does not depend on the machine is compared.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::{self, Rng, env_or};
use amberlog::options::{ReadOptions, Reads};
use amberlog::{
    CommitOptions, Durability, Log, Order, Query, Stream, StreamId, StreamState, Timestamp,
};

fn is_full() -> bool {
    env_or("AMBERLOG_EFFORT", 1) >= 10
}

fn os() -> CommitOptions {
    CommitOptions::new().durability(Durability::Os)
}

fn fill(stream: &mut Stream, events: usize, bytes: usize) {
    let payload = vec![7; bytes];
    for n in 0..events {
        stream.append(&payload).expect("room");
        if n % 512 == 511 {
            stream.commit_with(os()).wait().expect("committed");
        }
    }
    stream.commit_with(os()).wait().expect("committed");
}

/// Bytes of everything that was written, without what was made ready.
fn written(path: &Path) -> u64 {
    let files = support::read_dir(path);
    let last = |bytes: &Vec<u8>| bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    files.values().map(|bytes| last(bytes) as u64).sum()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn a_thousand_forks_of_a_long_stream_add_little() {
    const FORKS: usize = 1_000;
    let megabytes = if is_full() { 100 } else { 10 };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = Log::open(dir.path()).expect("opens");
    let mut parent = log.create_stream().expect("a stream");
    fill(&mut parent, megabytes << 10, 1_024);
    let before = written(dir.path());
    assert!(before > (megabytes as u64) << 20);
    let head = parent.head().get();
    let mut children: Vec<Stream> = (0..FORKS as u64)
        .map(|n| {
            let mut child = parent.fork_at(head / FORKS as u64 * n).expect("forked");
            child.append(n.to_string()).expect("room");
            child
        })
        .collect();
    for child in &mut children {
        child.commit_with(os()).wait().expect("committed");
    }
    log.clone().close().expect("closes");
    let added = written(dir.path()) - before;
    println!("{FORKS} forks of {megabytes} MiB: {added} bytes");
    assert!(added < 1 << 20, "{added} bytes for {FORKS} forks");
    let (last, view) = (children[FORKS - 1].id(), log.read_view());
    let events = view.events(last).expect("known");
    assert_eq!(events.count() as u64, head / FORKS as u64 * (FORKS as u64 - 1) + 1);
}

#[test]
fn the_time_of_a_fork_does_not_depend_on_the_length() {
    let lengths: &[usize] =
        if is_full() { &[100, 10_000, 1_000_000] } else { &[100, 10_000, 100_000] };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = Log::open(dir.path()).expect("opens");
    let mut times = Vec::new();
    for length in lengths {
        let mut stream = log.create_stream().expect("a stream");
        fill(&mut stream, *length, 16);
        let fork = |n: u64| {
            let start = Instant::now();
            let child = stream.fork_at(*length as u64 * n / 200).expect("forked");
            let time = start.elapsed();
            assert_eq!(child.buffered(), 0);
            time
        };
        let time = median((0..200).map(fork).collect());
        println!("a fork of {length} events: {time:?}");
        times.push(time);
    }
    if is_full() {
        assert!(times[2] < times[0] * 4 + Duration::from_micros(5), "{times:?}");
    }
}

/// Starts to read at random positions of a log of many segments. Prints how long a start takes, and returns the median.
fn starts(log: &Path, reads: Reads, what: &str) -> Duration {
    let options = ReadOptions::new().reads(reads).unconfirmed(true);
    let (view, _) = options.open(log).expect("readable");
    let last = view.position().get();
    let mut rng = Rng::new(1);
    let starts: Vec<u64> = (0..2_000).map(|_| 1 + rng.below(last)).collect();
    let time_of = |from: u64| {
        let started = Instant::now();
        let mut all = view.all_events(from).expect("in range");
        let first = all.lend().expect("there").expect("sound");
        assert_eq!(first.position().expect("committed").get(), from);
        started.elapsed()
    };
    let round = || -> Vec<Duration> { starts.iter().map(|from| time_of(*from)).collect() };
    let _warm = round();
    let mut times = round();
    times.sort_unstable();
    let [median, most] = [50, 99].map(|percent| times[times.len() * percent / 100]);
    println!("{what}, {reads:?}: {last} positions, {median:?} at the median, {most:?} at p99");
    median
}

/// Any start position of a log is found in at most 50 microseconds, whatever the size of its segments. At full size the
/// log has 2 GiB, at first in more segments than are kept open.
#[test]
fn a_position_is_found_in_no_time() {
    let mebibytes = if is_full() { 2_048 } else { 32 };
    let sizes: &[u64] = if is_full() { &[2, 64, 1_024] } else { &[1, 16] };
    for (payload, segment_mebibytes) in
        [100, 8_192].into_iter().flat_map(|payload| sizes.iter().map(move |size| (payload, *size)))
    {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let bytes = segment_mebibytes << 20;
        let options = Log::options().segment_bytes_first(bytes).segment_bytes_max(bytes);
        let log = options.open(dir.path()).expect("opens");
        let mut stream = log.create_stream().expect("a stream");
        let payload = vec![7; payload];
        for _ in 0..(mebibytes << 20) / (payload.len() + 150) {
            stream.append(&payload).expect("room");
            stream.commit_with(os()).wait().expect("committed");
        }
        log.sync().wait().expect("synced");
        let what = format!("commits of {} B, segments of {segment_mebibytes} MiB", payload.len());
        for reads in [Reads::Mapped, Reads::Positional] {
            let median = starts(dir.path(), reads, &what);
            assert!(!is_full() || median <= Duration::from_micros(50), "{what}: {median:?}");
        }
    }
}

#[test]
fn opening_a_large_stream_takes_no_time() {
    let megabytes = if is_full() { 1_024 } else { 32 };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let id: StreamId = {
        let log = Log::open(dir.path()).expect("opens");
        let mut stream = log.create_stream().expect("a stream");
        fill(&mut stream, megabytes << 6, 16 << 10);
        let id = stream.id();
        drop(stream);
        log.close().expect("closes");
        id
    };
    let start = Instant::now();
    let log = Log::open(dir.path()).expect("opens again");
    let opened = start.elapsed();
    let start = Instant::now();
    let mut stream = log.open_stream(id).expect("known");
    let stream_opened = start.elapsed();
    let start = Instant::now();
    let last = stream.events().expect("readable").rev().take(100);
    assert_eq!(last.filter(|event| event.is_ok()).count(), 100);
    let read = start.elapsed();
    println!(
        "{megabytes} MiB: opened {opened:?}, stream opened {stream_opened:?}, last 100 events {read:?}"
    );
    stream.append("more").expect("room");
    stream.commit().wait().expect("committed");
    if is_full() {
        assert!(stream_opened < Duration::from_millis(50) && read < Duration::from_millis(10));
    }
}

/// Creates streams of four events with labels.
fn many_streams(path: &Path, streams: usize, say: impl Fn(&mut Stream, usize)) {
    let log = Log::open(path).expect("opens");
    for round in 0..streams / 1_000 {
        let mut some: Vec<_> = (0..1_000).map(|_| log.create_stream().expect("a stream")).collect();
        for (n, stream) in some.iter_mut().enumerate() {
            for _ in 0..4 {
                stream.append([1; 128]).expect("room");
            }
            say(stream, round * 1_000 + n);
        }
        let tickets: Vec<_> = some.iter_mut().map(|stream| stream.commit_with(os())).collect();
        for ticket in tickets {
            ticket.wait().expect("committed");
        }
    }
    log.close().expect("closes");
}

/// Measures a page of 50 streams.
fn listing(log: &Log, query: &Query) -> Duration {
    let query = query.clone().limit(50);
    let times = (0..9).map(|_| {
        let start = Instant::now();
        let page = log.list(&query).expect("listed");
        assert_eq!(page.streams.len(), 50);
        start.elapsed()
    });
    median(times.collect())
}

/// Measures pages in every order, by query.
fn listings(log: &Log, what: &str, query: &Query) {
    for order in [Order::Created, Order::Committed] {
        let query = query.clone().order(order.clone());
        let (first, last) = (listing(log, &query), listing(log, &query.clone().descending()));
        println!("{what}, by {order:?}: first page {first:?}, last {last:?}");
        if is_full() {
            let slowest = first.max(last);
            assert!(
                slowest < Duration::from_millis(5),
                "{what}, {order:?}: {slowest:?} for a page"
            );
        }
    }
}

#[test]
fn many_streams_are_opened_and_listed_quickly() {
    let streams: usize = if is_full() { 100_000 } else { 10_000 };
    let dir = tempfile::tempdir().expect("a temporary directory");
    many_streams(dir.path(), streams, |_, _| {});
    let opening = |_| {
        let start = Instant::now();
        let log = Log::open(dir.path()).expect("opens again");
        let time = start.elapsed();
        drop(log);
        time
    };
    let opened = median((0..5).map(opening).collect());
    println!("{streams} streams: opened {opened:?}");
    let log = Log::open(dir.path()).expect("opens again");
    listings(&log, "all", &Query::new());
    let since = Query::new().committed_from(Timestamp::from_micros(0));
    listings(&log, "since a time", &since.committed_until(Timestamp::now()));
    if is_full() {
        assert!(opened < Duration::from_millis(100), "{opened:?} to open");
    }
}

/// The most that there is to look at: of each stream something was said, and few are what is asked for.
#[test]
fn many_streams_are_filtered_quickly() {
    let streams: usize = if is_full() { 100_000 } else { 10_000 };
    let dir = tempfile::tempdir().expect("a temporary directory");
    many_streams(dir.path(), streams, |stream, n| {
        stream.set_label("user", &(n % 100).to_string()).expect("fine");
        if n % 50 == 0 {
            stream.archive().wait().expect("archived");
        }
    });
    let log = Log::open(dir.path()).expect("opens again");
    listings(&log, "labelled, all", &Query::new());
    listings(&log, "of one user", &Query::new().label("user", "7"));
    listings(&log, "archived", &Query::new().state(StreamState::Archived));
}
