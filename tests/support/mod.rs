//! What several test files need: numbers from a seed, directories as bytes, and writers that are killed.

#![allow(dead_code, reason = "every test file uses its own part of it")]

#[cfg(feature = "cli")]
pub(crate) mod cli;
#[cfg(feature = "sim")]
pub(crate) mod oracle;
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
