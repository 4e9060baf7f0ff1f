//! Measures the time to open a log after its process was killed.
//!
//! `unsealed`: 10,000 streams and 256 MiB of payload (or `AMBERLOG_BENCH_MIB`), events of 256 B in
//! commits of 8, all in one unsealed segment; one commit in 64 is synced. `several`: the same in
//! five unsealed segments. `sealed`: the same with all but the end in sealed segments. `small`:
//! 100,000 streams of 4 events of 128 B, unsealed.
//!
//! The log is copied while it is open, with its spare files, which is the state that a kill leaves;
//! the copy is synced before the clock starts. `open` takes the lock, recovers the end and is ready
//! to write; `follow` only reads. The floor reads the same segment files once, up to the end of the
//! commits, and computes their checksums.

mod common;

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use amberlog::verify::SegmentState;
use amberlog::{CommitOptions, Durability, Log, Options, ReadView};
use common::turns::{Turn, is_trial, is_wanted, race};
use tempfile::TempDir;

/// Number of commits per synced commit.
const SYNCED_EVERY: usize = 64;
/// Number of bytes per checksum of the floor.
const PIECE_BYTES: usize = 2 << 10;

/// Log written before the kill.
struct Work {
    name: &'static str,
    streams: usize,
    commits: usize,
    events: usize,
    payload_bytes: usize,
    options: Options,
    /// State of the segments before the last one.
    full: Full,
}

/// State of full segments.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Full {
    /// Sealed: the floor reads only the segments after them.
    Sealed,
    /// Unsealed: the kill came before the footers were written, or the footers are damaged.
    Unsealed,
}

impl Work {
    fn bytes(&self) -> u64 {
        (self.commits * common::commit_bytes(self.events, self.payload_bytes)) as u64
    }
}

fn works() -> [Work; 4] {
    let asked = std::env::var("AMBERLOG_BENCH_MIB").ok().and_then(|text| text.parse().ok());
    let bytes: usize = asked.unwrap_or(if is_trial() { 2 } else { 256 }) << 20;
    let sizes = |bytes: u64| Log::options().segment_bytes_first(bytes).segment_bytes_max(bytes);
    let (streams, commits) = (if is_trial() { 100 } else { 10_000 }, bytes / (8 * 256));
    let big = |name, segment_bytes, full| Work {
        name,
        streams,
        commits,
        events: 8,
        payload_bytes: 256,
        options: sizes(segment_bytes),
        full,
    };
    let small = Work {
        name: "small",
        streams: streams * 10,
        commits: streams * 10,
        events: 4,
        payload_bytes: 128,
        options: sizes(80 << 20),
        full: Full::Unsealed,
    };
    let bytes = bytes as u64;
    [
        big("unsealed", bytes / 8 * 9, Full::Unsealed),
        big("several", bytes / 32 * 7, Full::Unsealed),
        big("sealed", bytes / 16, Full::Sealed),
        small,
    ]
}

fn killed(dir: &TempDir, work: &Work) -> PathBuf {
    let event = common::payload(work.payload_bytes);
    let path = dir.path().join("living").join(work.name);
    let log = work.options.clone().open(&path).expect("opens");
    let mut streams: Vec<_> =
        (0..work.streams).map(|_| log.create_stream().expect("open")).collect();
    let os = CommitOptions::new().durability(Durability::Os);
    for n in 0..work.commits {
        let stream = &mut streams[n % work.streams];
        for _ in 0..work.events {
            stream.append(&event[..]).expect("room");
        }
        let is_synced = n % SYNCED_EVERY == 0 || n + 1 == work.commits;
        let options = if is_synced { CommitOptions::new() } else { os };
        stream.commit_with(options).wait().expect("committed");
    }
    let copy = dir.path().join(work.name);
    common::copy_dir(&path, &copy);
    if work.full == Full::Unsealed {
        unseal(&copy);
    }
    copy
}

/// Removes the footers and restores the length of the files.
fn unseal(copy: &Path) {
    const TRAILER_BYTES: u64 = 96;
    const TRAILER_MAGIC: [u8; 8] = *b"AMBERFIN";
    const FOOTER_AT: u64 = 48;
    const RESERVED_AT: u64 = 56;
    let (_, report) = ReadView::open(copy).expect("readable");
    let sealed = report.segments.iter().filter(|segment| segment.state == SegmentState::Sealed);
    for segment in sealed {
        let path = copy.join(format!("segments/{:010}.seg", segment.number));
        let file = OpenOptions::new().read(true).write(true).open(path).expect("there");
        let word_at = |offset| {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, offset).expect("readable");
            bytes
        };
        let trailer_at = segment.bytes - TRAILER_BYTES;
        assert_eq!(word_at(trailer_at), TRAILER_MAGIC, "the trailer is where the format says");
        let footer_at = u64::from_le_bytes(word_at(trailer_at + FOOTER_AT));
        let reserved = u64::from_le_bytes(word_at(RESERVED_AT));
        file.set_len(footer_at).expect("writable");
        file.set_len(reserved).expect("writable");
        file.sync_all().expect("writable");
    }
}

/// Reads `left` bytes of the files and computes checksums piece by piece.
fn pass(files: &[PathBuf], mut left: u64) -> u32 {
    let mut piece = vec![0; 256 << 10];
    let mut all = 0;
    for path in files {
        let mut file = File::open(path).expect("readable").take(left);
        loop {
            let read = file.read(&mut piece).expect("readable");
            if read == 0 {
                break;
            }
            left -= read as u64;
            let records = piece[..read].chunks(PIECE_BYTES);
            all = records.fold(all, |all, record| all ^ crc32fast::hash(record));
        }
    }
    all
}

/// Returns the files that are not sealed, and the number of bytes of commits in them.
fn tail(copy: &Path, work: &Work) -> (Vec<PathBuf>, u64) {
    let files = common::segment_files(copy);
    if work.full == Full::Unsealed {
        return (files, work.bytes());
    }
    let (_, report) = ReadView::open(copy).expect("readable");
    let active = report.segments.iter().find(|segment| segment.state == SegmentState::Active);
    let active = active.expect("a log has an active segment");
    let commits = active.positions.end.get() - active.positions.start.get();
    let bytes = commits * common::commit_bytes(work.events, work.payload_bytes) as u64;
    let name = format!("{:010}.seg", active.number);
    (files.into_iter().filter(|file| file.ends_with(&name)).collect(), bytes)
}

fn open_copy(dir: &TempDir, prepared: &Path, options: &Options) -> std::time::Duration {
    let copy = TempDir::new_in(dir.path()).expect("writable");
    common::copy_dir(prepared, copy.path());
    let begun = Instant::now();
    let log = options.clone().open(copy.path()).expect("opens");
    let time = begun.elapsed();
    log.close().expect("closes");
    time
}

fn main() {
    let dir = common::dir();
    for work in works() {
        if !is_wanted(work.name) {
            continue;
        }
        let prepared = killed(&dir, &work);
        let (files, bytes) = tail(&prepared, &work);
        let turns = vec![
            Turn::new("floor: one pass", || {
                black_box(pass(&files, bytes));
            }),
            Turn::timed("follow", || {
                let begun = Instant::now();
                let opened = ReadView::open(&prepared).expect("readable");
                let time = begun.elapsed();
                drop(opened);
                time
            }),
            Turn::timed("open", || open_copy(&dir, &prepared, &work.options)),
        ];
        race(work.name, 5, (bytes as f64 / 1e9, "GB/s"), turns);
    }
}
