//! Compares ways to make the bytes of a commit durable, in turns, on files of written zeros; to
//! wake its waiters; and to compute its checksum.
//!
//! `cargo run --release -- DIRECTORY [ROUNDS]`, with a directory on the disk to measure. Linux
//! only. The results are in ARCHITECTURE.md under "Tried and rejected".

mod hashing;
mod waking;
mod ways;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use ways::{Bytes, Way};

const FILE_BYTES: u64 = 64 << 20;
/// Sizes of commits of 1, 32 and 64 events of 256 bytes.
const SIZES: [usize; 3] = [344, 8_736, 17_408];

fn main() -> io::Result<()> {
    let mut words = std::env::args().skip(1);
    let dir = PathBuf::from(words.next().unwrap_or_else(|| "target".into())).join("ways");
    let rounds = words.next().and_then(|word| word.parse().ok()).unwrap_or(1_500);
    fs::create_dir_all(&dir)?;
    print!("load average: {}", fs::read_to_string("/proc/loadavg")?);
    for size in SIZES {
        in_turns(&dir, size, rounds)?;
    }
    for threads in 1..=4 {
        for one_file in [true, false] {
            let syncs = in_flight(&dir, threads, one_file)?;
            let files = if one_file { "one file" } else { "a file each" };
            println!("{threads} in flight, {files}: {syncs} syncs a second");
        }
    }
    waking::report(&dir.join("in-flight-0"))?;
    hashing::report();
    fs::remove_dir_all(dir)
}

/// Runs every way once in each round, each on its own file.
fn in_turns(dir: &Path, size: usize, rounds: usize) -> io::Result<()> {
    let bytes = Bytes::new(1 << 20, 7);
    let mut contestants = Vec::new();
    for way in Way::ALL {
        let path = dir.join(way.file_name());
        prepare(&path)?;
        contestants.push((way, way.open(&path)?, 0_u64, Vec::new()));
    }
    for _ in 0..rounds {
        for (way, file, at, times) in &mut contestants {
            // A way that writes whole sectors writes the last one again.
            let start = *at / way.unit() * way.unit();
            let end = (*at + size as u64).div_ceil(way.unit()) * way.unit();
            if end + 4096 > FILE_BYTES {
                *at = 0;
                continue;
            }
            let began = Instant::now();
            way.write(file, bytes.first((end - start) as usize), start)?;
            times.push(began.elapsed());
            *at += size as u64;
        }
    }
    for (way, _, _, mut times) in contestants {
        times.sort_unstable();
        let at = |part: usize| {
            let time: Duration = times[(times.len() * part / 100).min(times.len() - 1)];
            time.as_nanos() as f64 / 1e3
        };
        let (p50, p99) = (at(50), at(99));
        println!("{size:6} bytes, {:32} p50 {p50:7.1} µs  p99 {p99:7.1} µs", way.name());
    }
    Ok(())
}

/// Measures syncs per second of several threads, each with its own region or file.
fn in_flight(dir: &Path, threads: u64, one_file: bool) -> io::Result<u64> {
    const SECOND: Duration = Duration::from_secs(1);
    let work = |thread: u64| {
        let path = dir.join(format!("in-flight-{}", if one_file { 0 } else { thread }));
        let file = File::options().write(true).open(path)?;
        let (began, mut syncs) = (Instant::now(), 0);
        while began.elapsed() < SECOND {
            file.write_all_at(&[1; 4096], (thread << 24) + syncs % 4_000 * 4_096)?;
            file.sync_data()?;
            syncs += 1;
        }
        io::Result::Ok(syncs)
    };
    for thread in 0..threads {
        prepare(&dir.join(format!("in-flight-{thread}")))?;
    }
    thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        all.into_iter().map(|one| one.join().expect("no panic")).sum()
    })
}

/// Creates a file of written, synced zeros.
fn prepare(path: &Path) -> io::Result<()> {
    let file = File::create(path)?;
    let zeros = vec![0; 1 << 20];
    for at in (0..FILE_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, at)?;
    }
    file.sync_all()
}
