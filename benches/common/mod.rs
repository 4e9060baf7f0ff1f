//! Shared by all benches: logs on a real disk, payloads, the floors that they are compared with,
//! and one line about the machine. A floor does the least that the same work can cost: it copies,
//! writes or syncs the same bytes, without streams, checksums or an index.

#![allow(dead_code, reason = "every bench uses its own part of this")]

pub(crate) mod turns;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use amberlog::{Log, Options};
use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};
use tempfile::TempDir;

/// Number of bytes in front of every payload in a ring and on disk.
pub(crate) const FRAME_BYTES: usize = 16;
/// Number of bytes that one commit of one stream adds: header, one directory entry, marker.
pub(crate) const COMMIT_BYTES: usize = 96;

/// Runs one bench with options from the command line, and prints the load average.
pub(crate) fn run(bench: impl FnOnce(&mut Criterion)) {
    let mut criterion = Criterion::default().configure_from_args();
    load_average();
    bench(&mut criterion);
    criterion.final_summary();
}

/// Prints the load average, once in each process, to mark results of a busy machine.
pub(crate) fn load_average() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if !load().is_empty() {
            println!("load average: {}", load());
        }
    });
}

/// Returns the load average of one, five and fifteen minutes; empty where the system has none.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = text.split(' ').take(3).collect();
    if load.len() == 3 { load.join(" ") } else { String::new() }
}

/// Creates a group of benches that take about this time each.
pub(crate) fn group<'a>(
    criterion: &'a mut Criterion,
    name: &str,
    samples: usize,
    seconds: u64,
) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group
        .sample_size(samples)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(seconds));
    group
}

/// Creates a directory next to the build's output, removed with the value: `/tmp` may be memory,
/// where a sync costs nothing.
pub(crate) fn dir() -> TempDir {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(base).expect("the target directory is writable");
    TempDir::new_in(base).expect("the target directory is writable")
}

/// Returns options of a log in its steady state, with segments of their full size.
pub(crate) fn grown() -> Options {
    Log::options().segment_bytes_first(64 << 20).segment_bytes_max(64 << 20)
}

/// Opens a log and commits once, so that its files exist and have room.
pub(crate) fn warm_log(dir: &TempDir) -> Log {
    let log = grown().open(dir.path().join("log")).expect("opens");
    let mut stream = log.create_stream().expect("open");
    stream.append(b"warm").expect("room");
    stream.commit().wait().expect("committed");
    log
}

/// Returns bytes that do not compress and are not all the same.
pub(crate) fn payload(bytes: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let byte = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..bytes).map(byte).collect()
}

/// Returns the number of bytes on disk of a commit of one stream.
pub(crate) fn commit_bytes(events: usize, payload_bytes: usize) -> usize {
    COMMIT_BYTES + (events * (FRAME_BYTES + payload_bytes)).next_multiple_of(8)
}

/// Copies a log and makes the copy durable, so that a later sync pays for its own writes only.
/// Leaves out unfinished files: they are not yet part of the log, and may be renamed at any time.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("writable");
    for entry in fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        let target = to.join(entry.file_name());
        if target.extension().is_some_and(|extension| extension == "new") {
            continue;
        }
        if entry.file_type().expect("readable").is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("room on the disk");
            File::open(&target).and_then(|file| file.sync_all()).expect("synced");
        }
    }
}

/// Returns all segment files of a log, in order.
pub(crate) fn segment_files(log: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(log.join("segments")).expect("readable");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    files
}

/// Floor of append: copies a head and a payload into a plain ring.
pub(crate) struct RingCopy {
    bytes: Vec<u8>,
    at: usize,
}

impl RingCopy {
    /// Creates a ring of this size.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { bytes: vec![1; bytes], at: 0 }
    }

    /// Writes one frame after the last, or at the start if it does not fit.
    #[inline]
    pub(crate) fn push(&mut self, head: &[u8; FRAME_BYTES], payload: &[u8]) -> usize {
        let need = FRAME_BYTES + payload.len();
        if need > self.bytes.len() - self.at {
            self.at = 0;
        }
        let frame = &mut self.bytes[self.at..self.at + need];
        frame[..FRAME_BYTES].copy_from_slice(head);
        frame[FRAME_BYTES..].copy_from_slice(payload);
        self.at += need;
        self.at
    }
}

/// Floor of a commit: positional writes over written blocks, each with a sync.
pub(crate) struct Overwrite {
    file: File,
    at: u64,
    bytes: u64,
}

impl Overwrite {
    /// Creates a file of written zeros in `dir`.
    pub(crate) fn new(dir: &Path, bytes: u64) -> Self {
        let path = dir.join("overwrite");
        let file = OpenOptions::new().create_new(true).write(true).open(path).expect("creates");
        let zeros = vec![0; 1 << 20];
        for at in (0..bytes).step_by(zeros.len()) {
            file.write_all_at(&zeros, at).expect("room on the disk");
        }
        file.sync_all().expect("synced");
        Self { file, at: 0, bytes }
    }

    /// Writes and syncs the bytes. Continues at the start after the end of the file.
    pub(crate) fn commit(&mut self, bytes: &[u8]) {
        let length = bytes.len().next_multiple_of(8) as u64;
        if self.at + length > self.bytes {
            self.at = 0;
        }
        self.file.write_all_at(bytes, self.at).expect("written");
        self.file.sync_data().expect("synced");
        self.at += length;
    }
}

/// Floor of a file per stream: create, write, sync, sync the directory.
pub(crate) struct CreateFiles {
    dir: PathBuf,
    count: u64,
}

/// File that is removed when the value is dropped.
pub(crate) struct Created(PathBuf);

impl Drop for Created {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl CreateFiles {
    /// Creates files in `dir`.
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), count: 0 }
    }

    /// Returns the path of the next file.
    pub(crate) fn next_path(&mut self) -> PathBuf {
        self.count += 1;
        self.dir.join(format!("{}.created", self.count))
    }

    /// Creates a file with these bytes and makes it durable.
    pub(crate) fn commit(path: PathBuf, bytes: &[u8]) -> Created {
        let file = File::create_new(&path).expect("creates");
        file.write_all_at(bytes, 0).expect("written");
        file.sync_all().expect("synced");
        let dir = path.parent().expect("it is in a directory");
        File::open(dir).and_then(|dir| dir.sync_all()).expect("synced");
        Created(path)
    }
}

/// Floor of group commit: the first thread writes and syncs for all threads that arrived meanwhile.
/// Groups sleep on two conditions in turn, so that a finished group does not wake the next one.
pub(crate) struct BareGroup {
    state: Mutex<Forming>,
    turns: [Condvar; 2],
    file: Mutex<Overwrite>,
}

#[derive(Default)]
struct Forming {
    bytes: Vec<u8>,
    spare: Vec<u8>,
    group: u64,
    done: u64,
    leading: bool,
}

impl BareGroup {
    /// Creates a group over this file.
    pub(crate) fn new(file: Overwrite) -> Self {
        Self {
            state: Mutex::default(),
            turns: [const { Condvar::new() }; 2],
            file: Mutex::new(file),
        }
    }

    /// Writes the bytes and returns when they are synced.
    pub(crate) fn commit(&self, bytes: &[u8]) {
        let mut state = lock(&self.state);
        state.bytes.extend_from_slice(bytes);
        let mine = state.group;
        while state.done <= mine {
            if state.leading {
                let turn = &self.turns[mine as usize % 2];
                state = turn.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.leading = true;
            let spare = std::mem::take(&mut state.spare);
            let mut group = std::mem::replace(&mut state.bytes, spare);
            state.group += 1;
            drop(state);
            lock(&self.file).commit(&group);
            group.clear();
            state = lock(&self.state);
            state.spare = group;
            state.leading = false;
            state.done = mine + 1;
            self.turns[mine as usize % 2].notify_all();
            self.turns[(mine + 1) as usize % 2].notify_one();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
