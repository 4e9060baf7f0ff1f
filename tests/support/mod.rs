//! What several test files need: numbers from a seed, directories as bytes, and writers that are killed.

#![allow(dead_code, reason = "every test file uses its own part of it")]

#[cfg(feature = "cli")]
pub(crate) mod cli;
#[cfg(feature = "sim")]
pub(crate) mod oracle;
pub(crate) mod script;
pub(crate) mod verified;
pub(crate) mod waiting;
pub(crate) mod writers;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A small generator of numbers (xorshift64*): the same seed, the same numbers.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// From a seed; zero will do.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Any number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound.max(1)
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A number from the environment, or the default.
pub(crate) fn env_or(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Step over many like cases: a plain run takes every fourth of them, and one with an effort of 4 or more, as the
/// gate makes, takes all.
pub(crate) fn sparsely() -> u64 {
    if env_or("AMBERLOG_EFFORT", 1) >= 4 { 1 } else { 4 }
}

/// Everything in a directory: the path of each file, and its bytes.
pub(crate) fn read_dir(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                left.push(path);
            } else {
                let name = path.strip_prefix(root).expect("inside").to_owned();
                match fs::read(&path) {
                    Ok(bytes) => drop(files.insert(name, bytes)),
                    // A log that is open gives a spare its name, or takes it away.
                    Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
                }
            }
        }
    }
    files
}

/// Makes a directory of these files.
pub(crate) fn write_dir(root: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) {
    for (name, bytes) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("has one")).expect("made");
        fs::write(path, bytes).expect("written");
    }
}

/// The path of a segment's file.
pub(crate) fn segment(root: &Path, number: u32) -> PathBuf {
    root.join(format!("segments/{number:010}.seg"))
}

/// A log of at least this many segments, which `root` becomes, and what its streams hold. It is made on a simulated disk:
/// a real one would sync each of them.
#[cfg(feature = "sim")]
pub(crate) fn many_segments(
    root: &Path,
    segments: u32,
) -> BTreeMap<amberlog::StreamId, Vec<Vec<u8>>> {
    let disk = amberlog::sim::SimDisk::new(2);
    let log = amberlog::Log::options().segment_bytes_first(16 << 10).segment_bytes_max(16 << 10);
    let log = log.open_on(&disk).expect("opens");
    let mut streams: Vec<_> = (0..5).map(|_| log.create_stream().expect("a stream")).collect();
    let mut content: BTreeMap<_, Vec<Vec<u8>>> = BTreeMap::new();
    let os = amberlog::CommitOptions::new().durability(amberlog::Durability::Os);
    for n in 0..segments as usize {
        let stream = &mut streams[n % 5];
        for part in 0..2 {
            let payload = vec![(n * 2 + part) as u8; 5_900];
            stream.append(&payload).expect("room");
            content.entry(stream.id()).or_default().push(payload);
        }
        stream.commit_with(os).wait().expect("committed");
    }
    drop(streams);
    log.close().expect("closes");
    let files = disk.files();
    let made = files.keys().filter(|path| path.ends_with(".seg")).count();
    assert!(made >= segments as usize, "{made} segments");
    let files = files.into_iter().map(|(path, bytes)| (PathBuf::from(path), bytes)).collect();
    write_dir(root, &files);
    content
}
