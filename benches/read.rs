//! Measures the speed of reading, with every checksum verified.
//!
//! 16 streams of events of 256 B, committed in turns of 32 events; `AMBERLOG_BENCH_MIB` sets the
//! size of the payload in mebibytes (default 256). Once in sealed segments, which are mapped, and
//! once in one active segment. The floors pass over the bytes of the same segments in memory: with
//! a plain sum of words, and with a checksum for every 8 KiB. Single events are chosen at random.

mod common;

use std::hint::black_box;
use std::path::{Path, PathBuf};

use amberlog::{
    CommitOptions, Durability, Event, EventRef, Log, Options, Position, ReadView, Result, StreamId,
};
use common::turns::{Turn, is_trial, is_wanted, race};
use tempfile::TempDir;

const PAYLOAD_BYTES: usize = 256;
const STREAMS: usize = 16;
const COMMIT_EVENTS: usize = 32;
const COMMIT_BYTES: usize = COMMIT_EVENTS * (PAYLOAD_BYTES + common::FRAME_BYTES);
/// Number of single events looked up in a turn.
const LOOK_UPS: usize = 20_000;

struct Case {
    name: &'static str,
    view: ReadView,
    streams: Vec<StreamId>,
    events_each: u64,
    bytes: Vec<u8>,
}

fn mebibytes() -> usize {
    let asked = std::env::var("AMBERLOG_BENCH_MIB").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(if is_trial() { 2 } else { 256 })
}

fn prepare(dir: &TempDir, name: &'static str, options: Options) -> Case {
    let path: PathBuf = dir.path().join(name);
    let event = common::payload(PAYLOAD_BYTES);
    let rounds = (mebibytes() << 20) / (PAYLOAD_BYTES * STREAMS * COMMIT_EVENTS);
    let log: Log = options.open(&path).expect("opens");
    let mut streams: Vec<_> = (0..STREAMS).map(|_| log.create_stream().expect("open")).collect();
    let os = CommitOptions::new().durability(Durability::Os);
    for _ in 0..rounds.max(1) {
        for stream in &mut streams {
            for _ in 0..COMMIT_EVENTS {
                stream.append(&event[..]).expect("room");
            }
            stream.commit_with(os).wait().expect("committed");
        }
    }
    let ids = streams.iter().map(amberlog::Stream::id).collect();
    drop(streams);
    log.close().expect("closes");
    let (view, report) = ReadView::open(&path).expect("readable");
    assert!(report.is_sound());
    Case {
        name,
        view,
        streams: ids,
        events_each: (rounds.max(1) * COMMIT_EVENTS) as u64,
        bytes: all_bytes(&path),
    }
}

fn all_bytes(log: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for file in common::segment_files(log) {
        bytes.extend_from_slice(&std::fs::read(file).expect("readable"));
    }
    bytes
}

/// Sums the words of a commit, to read its bytes and no more.
fn sum(piece: &[u8]) -> u64 {
    let (words, _) = piece.as_chunks::<8>();
    words.iter().fold(0, |all, word| all.wrapping_add(u64::from_ne_bytes(*word)))
}

/// Uses an event: reads the first and the last byte of its payload.
fn take(payload: &[u8]) -> usize {
    black_box((payload.first(), payload.last()));
    payload.len()
}

impl Case {
    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks(COMMIT_BYTES)
    }

    fn events(&self, stream: StreamId) -> amberlog::Events {
        self.view.events(stream).expect("known")
    }

    fn check(&self, streams: usize, bytes: usize) {
        assert_eq!(bytes, self.events_each as usize * streams * PAYLOAD_BYTES);
    }

    /// Reads with the iterator, whose events outlive it.
    fn iterate(&self, all: impl Iterator<Item = Result<Event>>) {
        self.check(STREAMS, all.map(|event| take(event.expect("sound").payload())).sum());
    }

    /// Reads borrowed events.
    fn lend(&self, streams: &[StreamId]) {
        let mut bytes = 0;
        for id in streams {
            let mut events = self.events(*id);
            while let Some(event) = events.lend() {
                bytes += take(event.expect("sound").payload());
            }
        }
        self.check(streams.len(), bytes);
    }

    fn lend_back(&self) {
        let mut bytes = 0;
        for id in &self.streams {
            let mut events = self.events(*id);
            while let Some(event) = events.lend_back() {
                bytes += take(event.expect("sound").payload());
            }
        }
        self.check(STREAMS, bytes);
    }

    fn lend_by_position(&self) {
        let mut bytes = 0;
        let mut events = self.view.all_events(Position::START).expect("in range");
        while let Some(event) = events.lend() {
            bytes += take(event.map(|event: EventRef<'_>| event.payload()).expect("sound"));
        }
        self.check(STREAMS, bytes);
    }
}

/// Runs the same work on two threads, each with one half.
fn halves<T: Sync>(all: &[T], work: impl Fn(&[T]) + Sync) {
    let (left, right) = all.split_at(all.len() / 2);
    std::thread::scope(|scope| {
        scope.spawn(|| work(left));
        work(right);
    });
}

fn scan(case: &Case) {
    let crc = |pieces: &[&[u8]]| {
        black_box(pieces.iter().fold(0, |all, piece| all ^ crc32fast::hash(piece)));
    };
    let pieces: Vec<&[u8]> = case.pieces().collect();
    let by_stream = || case.streams.iter().flat_map(|id| case.events(*id));
    let turns = vec![
        Turn::new("floor: sum", || {
            black_box(case.pieces().fold(0, |all: u64, piece| all.wrapping_add(sum(piece))));
        }),
        Turn::new("floor: checksum", || crc(&pieces)),
        Turn::new("by stream, lent", || case.lend(&case.streams)),
        Turn::new("by stream", || case.iterate(by_stream())),
        Turn::new("by stream, backward, lent", || case.lend_back()),
        Turn::new("by stream, backward", || {
            case.iterate(case.streams.iter().flat_map(|id| case.events(*id).rev()));
        }),
        Turn::new("by position, lent", || case.lend_by_position()),
        Turn::new("by position", || {
            case.iterate(case.view.all_events(Position::START).expect("in range"));
        }),
        Turn::new("floor: checksum, 2 threads", || halves(&pieces, crc)),
        Turn::new("by stream, lent, 2 threads", || halves(&case.streams, |half| case.lend(half))),
    ];
    let bytes = case.events_each as f64 * (STREAMS * PAYLOAD_BYTES) as f64;
    race(&format!("scan, {}", case.name), 9, (bytes / 1e9, "GB/s"), turns);
}

fn random(case: &Case) {
    let mut state = 1_u64;
    let mut dice = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize
    };
    let last = case.bytes.len() - COMMIT_BYTES;
    let pieces: Vec<usize> = (0..LOOK_UPS).map(|_| dice() % last).collect();
    let wanted: Vec<(StreamId, u64)> = (0..LOOK_UPS)
        .map(|_| (case.streams[dice() % STREAMS], dice() as u64 % case.events_each))
        .collect();
    let first = ((4 << 20) / (PAYLOAD_BYTES * STREAMS) as u64).min(case.events_each);
    let look_up = |wanted: &mut dyn Iterator<Item = (StreamId, u64)>| {
        for (id, seq) in wanted {
            let mut events = case.events(id).range(seq..=seq);
            take(events.lend().expect("there").expect("sound").payload());
        }
    };
    let last_position = case.view.position().get();
    let starts: Vec<u64> = (0..LOOK_UPS).map(|_| 1 + dice() as u64 % last_position).collect();
    let turns = vec![
        Turn::new("floor: checksum of a commit", || {
            for at in &pieces {
                black_box(crc32fast::hash(&case.bytes[*at..*at + COMMIT_BYTES]));
            }
        }),
        Turn::new("one event", || look_up(&mut wanted.iter().copied())),
        Turn::new("one event, of the first 4 MiB", || {
            look_up(&mut wanted.iter().map(|(id, seq)| (*id, seq % first)));
        }),
        Turn::new("first event from any position", || {
            for from in &starts {
                let mut all = case.view.all_events(*from).expect("in range");
                take(all.lend().expect("there").expect("sound").payload());
            }
        }),
    ];
    race(&format!("one, {}", case.name), 9, (LOOK_UPS as f64 / 1e6, "M/s"), turns);
}

fn main() {
    let dir = common::dir();
    let sealed = Log::options().segment_bytes_first(4 << 20).segment_bytes_max(4 << 20);
    let active = Log::options().segment_bytes_first(1 << 30).segment_bytes_max(1 << 30);
    for (name, options) in [("sealed", sealed), ("active", active)] {
        if is_wanted(name) {
            let case = prepare(&dir, name, options);
            scan(&case);
            random(&case);
        }
    }
}
